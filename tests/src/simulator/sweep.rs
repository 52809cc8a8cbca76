//! Every call of a life as a crash point.
//!
//! A crash leaves only the outside: disk and server. So one run is enough to get to every crash
//! point: it records disk and server after every call that changes them (a call that changes
//! nothing leaves the crash point of the call before it), and each of these moments is then
//! crashed, recovered, checked, and lived on from.

use super::disk::{Disk, Names};
use super::faults::{HostCall, Kind};
use super::guest::Program;
use super::life::{Doubt, Expected, Life, Outcome, Settled, Slips, Step, Violation};
use super::model::{Point, Write};
use super::server::Server;
use super::world::{Habits, Moment, Shared, World};
use std::sync::{Mutex, PoisonError};

/// How an instance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Its process is stopped.
    Kill,
    /// The power is cut; which of the possible disks is left depends on the seed.
    PowerCut(Names, u64),
}

impl Crash {
    /// The disk that it leaves.
    pub fn of(self, disk: &Disk) -> Disk {
        match self {
            Crash::Kill => disk.clone(),
            Crash::PowerCut(names, seed) => disk.after_power_cut(names, seed),
        }
    }
}

/// How a life goes on after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// One more write and the last checks.
    Short,
    /// All of its other steps and the last checks.
    Whole,
}

/// A life as it was without faults.
pub struct Recording {
    steps: Vec<Step>,
    /// The moments, in order.
    pub moments: Vec<Moment>,
    /// What held before each mark: 0 is the creation, n the step n - 1.
    before: Vec<(Expected, usize)>,
    /// All calls of the life, including those that changed nothing.
    pub calls: u64,
    habits: Habits,
    slips: Slips,
    seed: u64,
}

/// What is broken on purpose in a run.
#[derive(Clone, Debug, Default)]
pub struct Broken {
    /// Promises of the disk.
    pub habits: Habits,
    /// Steps of the driver.
    pub slips: Slips,
}

/// Lives `steps` without faults.
pub fn record(
    program: &Program,
    server: Server,
    steps: Vec<Step>,
    seed: u64,
    broken: &Broken,
) -> Result<Recording, Violation> {
    let mut world = World::new(Disk::new(), server, seed);
    world.recording = Some(Vec::new());
    world.habits = broken.habits.clone();
    let world = Shared::new(world);
    let mut life = Life::new(program, world.clone(), Expected::default());
    life.slips = broken.slips;
    let mut before = vec![(Expected::default(), 0)];
    // The moment before anything, and one more whenever a step has returned: what it promised
    // must be there although the next has not begun.
    boundary(&world, 0);
    demand(life.create()?, "create")?;
    for (number, step) in steps.iter().enumerate() {
        boundary(&world, number + 1);
        before.push((life.expected.clone(), world.lock().server.snapshots.len()));
        demand(life.step(step)?, step)?;
    }
    boundary(&world, steps.len() + 1);
    before.push((life.expected.clone(), world.lock().server.snapshots.len()));
    let (calls, moments) = {
        let mut world = world.lock();
        (world.calls(), world.recording.take().unwrap_or_default())
    };
    life.finish()?;
    Ok(Recording {
        steps,
        moments,
        before,
        calls,
        habits: broken.habits.clone(),
        slips: broken.slips,
        seed,
    })
}

fn boundary(world: &Shared, mark: usize) {
    let mut world = world.lock();
    world.mark = mark;
    let moment = Moment {
        call: HostCall {
            number: world.calls(),
            name: "between steps",
            target: String::new(),
            kind: Kind::Read,
        },
        mark,
        disk: world.disk.clone(),
        server: world.server.clone(),
    };
    if let Some(recording) = &mut world.recording {
        recording.push(moment);
    }
}

fn demand(outcome: Outcome, step: impl std::fmt::Debug) -> Result<(), Violation> {
    match outcome {
        Outcome::Done => Ok(()),
        other => Err(Violation(format!("{step:?}, without a fault: {other:?}"))),
    }
}

impl Recording {
    /// What a moment is, for people.
    pub fn describe(&self, moment: usize) -> String {
        let moment = &self.moments[moment];
        let step = match moment.mark.checked_sub(1) {
            None => "create".to_owned(),
            Some(number) => match self.steps.get(number) {
                Some(step) => format!("step {number}, {}", brief(step)),
                None => "the end".to_owned(),
            },
        };
        format!("after {} in {step}", moment.call)
    }

    /// Crashes at a moment, recovers, checks, and lives on.
    pub fn visit(
        &self,
        program: &Program,
        moment: usize,
        crash: Crash,
        rest: Rest,
    ) -> Result<(), Violation> {
        self.crash(program, moment, crash, rest)
            .map_err(|violation| {
                Violation(format!("{crash:?} {}: {violation}", self.describe(moment)))
            })
    }

    fn crash(
        &self,
        program: &Program,
        moment: usize,
        crash: Crash,
        rest: Rest,
    ) -> Result<(), Violation> {
        let Moment {
            mark, disk, server, ..
        } = &self.moments[moment];
        let mut world = World::new(crash.of(disk), server.clone(), self.seed ^ moment as u64);
        world.habits = self.habits.clone();
        let (expected, snapshots_before) = self.before[*mark].clone();
        let mut life = Life::new(program, Shared::new(world), expected);
        life.slips = self.slips;
        let interrupted = mark
            .checked_sub(1)
            .and_then(|number| self.steps.get(number));
        let doubt: Option<Doubt> = interrupted.and_then(|step| Life::doubt(step, snapshots_before));
        let settled = life
            .recover(doubt.as_ref(), false)?
            .ok_or_else(|| Violation("recovery was interrupted without a fault".to_owned()))?;
        if settled == Settled::NotThere {
            demand(life.create()?, "create after a crash")?;
        }
        let next = match settled {
            Settled::After => *mark,
            Settled::NotThere | Settled::Before => mark.saturating_sub(1),
        };
        match rest {
            Rest::Short => {
                // Another device's writes are part of what the end is compared with.
                if let Some(step @ Step::Others(..)) = self.steps.get(next) {
                    demand(life.step(step)?, brief(step))?;
                }
                let write = Write::Upsert(vec![(7, Point::stamped(900_000))]);
                let step = Step::Write(write);
                demand(life.step(&step)?, brief(&step))?;
            }
            Rest::Whole => {
                for step in &self.steps[next.min(self.steps.len())..] {
                    demand(life.step(step)?, brief(step))?;
                }
            }
        }
        life.finish()
    }
}

/// Which crashes of a recording are tried.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Every how many-th moment is a crash point; 1 for all of them.
    pub stride: usize,
    /// The first of them.
    pub offset: usize,
    /// Power cuts at each, for each way that names survive, beside the stopped process.
    pub cuts: u64,
    /// How the life goes on.
    pub rest: Rest,
    /// Violations after which it is given up.
    pub patience: usize,
}

/// What a sweep found.
#[derive(Debug, Default)]
pub struct Report {
    /// Crashes that were tried.
    pub crashes: u64,
    /// What must not be.
    pub violations: Vec<Violation>,
}

/// Tries a share of a recording's crashes, on all processors.
pub fn sweep(program: &Program, recording: &Recording, share: Share) -> Report {
    let crashes = |moment: usize| {
        let cut = move |names| {
            (0..share.cuts).map(move |cut| Crash::PowerCut(names, (moment as u64) << 8 | cut))
        };
        std::iter::once(Crash::Kill)
            .chain(cut(Names::InOrder))
            .chain(cut(Names::AnySubset))
    };
    let waiting = (share.offset..recording.moments.len())
        .step_by(share.stride.max(1))
        .flat_map(|moment| crashes(moment).map(move |crash| (moment, crash)));
    let report = Mutex::new(Report::default());
    each(waiting, |(moment, crash)| {
        let outcome = recording.visit(program, moment, crash, share.rest);
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.crashes += 1;
        report.violations.extend(outcome.err());
        report.violations.len() < share.patience
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Runs on every item, on all processors, until `run` answers that it is enough.
pub fn each<T: Send>(items: impl Iterator<Item = T> + Send, run: impl Fn(T) -> bool + Sync) {
    let items = Mutex::new(Some(items));
    let next = || {
        items
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_mut()?
            .next()
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(item) = next() {
                    if !run(item) {
                        *items.lock().unwrap_or_else(PoisonError::into_inner) = None;
                    }
                }
            });
        }
    });
}

/// A step in a few words.
pub fn brief(step: &Step) -> String {
    let mut text = format!("{step:?}");
    if text.len() > 120 {
        let end = (0..=120)
            .rev()
            .find(|end| text.is_char_boundary(*end))
            .unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}
