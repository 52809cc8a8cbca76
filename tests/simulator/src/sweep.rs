//! Every call of a life as a crash point.
//!
//! A crash leaves only the outside: disk and server. So one run is enough to get to every crash
//! point: it records disk and server after every call that changes them (a call that changes
//! nothing leaves the crash point of the call before it), and each of these moments is then
//! crashed, recovered, checked, and lived on from.

use crate::bindings::exports::edge_sync::shard::types::Options;
use crate::disk::{Disk, Names};
use crate::expected::{Expected, Violation};
use crate::faults::{CallKind, HostCall, Plan};
use crate::guest::Program;
use crate::life::{Doubt, Life, Outcome, Settled, Slips, Step};
use crate::model::{Point, Write};
use crate::server::Server;
use crate::world::{Habits, Moment, Shared, World};
use std::sync::{Mutex, PoisonError};

/// How an instance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Its process is stopped.
    Kill,
    /// It traps in a write; its process goes on, and opens the shard again.
    Trap,
    /// The power is cut; which of the possible disks is left depends on the seed.
    PowerCut(Names, u64),
}

impl Crash {
    /// Whether what was not synced may be lost.
    pub fn cuts_power(self) -> bool {
        matches!(self, Crash::PowerCut(..))
    }

    /// The disk that it leaves.
    pub fn of(self, disk: &Disk) -> Disk {
        match self {
            Crash::Kill | Crash::Trap => disk.clone(),
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
    /// Not far: the opening after the crash is crashed as well, at every so-many-th of its moments
    /// and at its end, and what is found then lives on as in [`Rest::Short`].
    Again(usize),
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
    options: Options,
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
    options: Options,
    seed: u64,
    broken: &Broken,
) -> Result<Recording, Violation> {
    let mut world = World::new(Disk::new(), server, seed);
    world.recording = Some(Vec::new());
    world.habits = broken.habits.clone();
    let world = Shared::new(world);
    let mut life = Life::new(program, world.clone(), Expected::default());
    life.options = options;
    life.slips = broken.slips;
    life.indexes_early = steps
        .iter()
        .any(|step| matches!(step, Step::StageOptimized));
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
        options,
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
            kind: CallKind::Read,
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

    /// Lives a range of the steps again, from what is on the disk before them, and lets the call
    /// `failing`, counted from the first, fail; then recovers and lives on. Answers how many calls
    /// these steps make, if none fails.
    pub fn fail(
        &self,
        program: &Program,
        steps: &std::ops::Range<usize>,
        failing: Option<u64>,
    ) -> Result<u64, Violation> {
        let moment = self
            .moments
            .iter()
            .position(|moment| moment.mark == steps.start + 1)
            .ok_or_else(|| Violation("no such step".to_owned()))?;
        let Moment { disk, server, .. } = &self.moments[moment];
        let mut life = self.resumed(program, moment, (disk.clone(), server.clone()), false);
        let outcome = self.failed(&mut life, steps, failing);
        outcome.map_err(|violation| {
            let step = brief(&self.steps[steps.start]);
            let happened = life.world.lock().happened.clone();
            let what = format!("step {}, {step}, call {failing:?}", steps.start);
            Violation(format!("{what}, {happened:?}: {violation}"))
        })
    }

    fn failed(
        &self,
        life: &mut Life,
        steps: &std::ops::Range<usize>,
        failing: Option<u64>,
    ) -> Result<u64, Violation> {
        life.recover(None, false)?;
        let first = life.world.lock().calls();
        if let Some(failing) = failing {
            life.world.lock().plan = Plan::FailAt(first + failing);
        }
        let mut settled = Settled::After;
        let mut mark = steps.start + 1;
        for step in &self.steps[steps.clone()] {
            mark += 1;
            let snapshots = life.world.lock().server.snapshots.len();
            let doubt = Life::doubt(step, &life.expected, snapshots);
            if let Outcome::Refused(error) = life.step(step)? {
                if life.world.lock().happened.is_empty() {
                    return Err(Violation(format!("{}: {error:?}", brief(step))));
                }
                settled = life
                    .recover(doubt.as_ref(), false)?
                    .ok_or_else(|| Violation("a second fault".to_owned()))?;
                break;
            }
        }
        let calls = life.world.lock().calls() - first;
        // The steps that were not taken are of no matter: other devices' are before these.
        self.live_on_from(life, mark - 1, settled, Rest::Short)?;
        Ok(calls)
    }

    /// Crashes at a moment, recovers, checks, and lives on. Answers how many crashes that took.
    pub fn visit(
        &self,
        program: &Program,
        moment: usize,
        crash: Crash,
        rest: Rest,
    ) -> Result<u64, Violation> {
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
    ) -> Result<u64, Violation> {
        let Moment { disk, server, .. } = &self.moments[moment];
        let left = (crash.of(disk), server.clone());
        let mut life = self.resumed(program, moment, left, crash.cuts_power());
        if crash == Crash::Trap {
            life.take_back_after = Some(life.expected.logged);
        } else if let Rest::Again(stride) = rest {
            return self.crash_again(program, moment, life, crash, stride.max(1));
        }
        let logged = life.expected.logged;
        let settled = self.recover(&mut life, moment)?;
        // A write that never returned is taken back, unless a flush within it has made it stay.
        if crash == Crash::Trap && settled == Settled::After && life.applied()? <= logged {
            return Err(Violation(
                "a write that never returned came back".to_owned(),
            ));
        }
        self.live_on(&mut life, moment, settled, rest)?;
        Ok(1)
    }

    /// Whether a moment is one within a write.
    fn is_in_a_write(&self, moment: usize) -> bool {
        let step = self.moments[moment].mark.checked_sub(1);
        let step = step.and_then(|number| self.steps.get(number));
        matches!(step, Some(Step::Write(_)))
    }

    /// The life up to a moment, on what crashes left, of which one may have cut the power.
    fn resumed(
        &self,
        program: &Program,
        moment: usize,
        (disk, server): (Disk, Server),
        power_was_cut: bool,
    ) -> Life {
        let mut world = World::new(disk, server, self.seed ^ moment as u64);
        world.habits = self.habits.clone();
        let (expected, _) = &self.before[self.moments[moment].mark];
        let mut life = Life::new(program, Shared::new(world), expected.clone());
        life.options = self.options;
        life.slips = self.slips;
        life.power_was_cut = power_was_cut;
        life
    }

    fn recover(&self, life: &mut Life, moment: usize) -> Result<Settled, Violation> {
        let mark = self.moments[moment].mark;
        let (expected, snapshots_before) = &self.before[mark];
        let interrupted = mark
            .checked_sub(1)
            .and_then(|number| self.steps.get(number));
        let doubt: Option<Doubt> =
            interrupted.and_then(|step| Life::doubt(step, expected, *snapshots_before));
        life.recover(doubt.as_ref(), false)?
            .ok_or_else(|| Violation("recovery was interrupted without a fault".to_owned()))
    }

    fn live_on(
        &self,
        life: &mut Life,
        moment: usize,
        settled: Settled,
        rest: Rest,
    ) -> Result<(), Violation> {
        self.live_on_from(life, self.moments[moment].mark, settled, rest)
    }

    fn live_on_from(
        &self,
        life: &mut Life,
        mark: usize,
        settled: Settled,
        rest: Rest,
    ) -> Result<(), Violation> {
        if settled == Settled::NotThere {
            demand(life.create()?, "create after a crash")?;
        }
        let next = match settled {
            Settled::After => mark,
            Settled::NotThere | Settled::Before | Settled::Earlier => mark.saturating_sub(1),
        };
        match rest {
            Rest::Short | Rest::Again(_) => {
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

    /// Opens the shard of a crashed life, and crashes that opening.
    fn crash_again(
        &self,
        program: &Program,
        moment: usize,
        mut life: Life,
        first: Crash,
        stride: usize,
    ) -> Result<u64, Violation> {
        life.world.lock().recording = Some(Vec::new());
        let settled = self.recover(&mut life, moment)?;
        let (moments, disk, server) = {
            let mut world = life.world.lock();
            let moments = world.recording.take().unwrap_or_default();
            (moments, world.disk.clone(), world.server.clone())
        };
        let seconds = |number: usize| {
            let seed = (moment as u64) << 16 | number as u64;
            [
                Crash::Kill,
                Crash::PowerCut(Names::InOrder, seed),
                Crash::PowerCut(Names::AnySubset, seed),
            ]
        };
        let mut crashes = 1;
        for (number, opening) in moments
            .iter()
            .enumerate()
            .skip(moment % stride)
            .step_by(stride)
        {
            for second in seconds(number) {
                let left = (second.of(&opening.disk), opening.server.clone());
                let power_was_cut = first.cuts_power() || second.cuts_power();
                let mut life = self.resumed(program, moment, left, power_was_cut);
                let outcome = self
                    .recover(&mut life, moment)
                    .and_then(|settled| self.live_on(&mut life, moment, settled, Rest::Short));
                outcome.map_err(|violation| {
                    Violation(format!(
                        "then, while it is opened, {second:?} after {}: {violation}",
                        opening.call
                    ))
                })?;
                crashes += 1;
            }
        }
        // What somebody has read of an opened shard is there for good.
        for second in seconds(moments.len()) {
            let left = (second.of(&disk), server.clone());
            let mut again = self.resumed(program, moment, left, second.cuts_power());
            again.expected = life.expected.clone();
            let outcome = match again.recover(None, false) {
                Ok(Some(Settled::Before)) => self.live_on(&mut again, moment, settled, Rest::Short),
                Ok(Some(Settled::NotThere)) if settled == Settled::NotThere => {
                    self.live_on(&mut again, moment, settled, Rest::Short)
                }
                Ok(found) => Err(Violation(format!("found {found:?} after {settled:?}"))),
                Err(violation) => Err(violation),
            };
            outcome.map_err(|violation| {
                Violation(format!("then, once it was opened, {second:?}: {violation}"))
            })?;
            crashes += 1;
        }
        Ok(crashes)
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

/// Lets every so-many-th call of some ranges of steps fail, each in a life of its own.
pub fn fail_each(
    program: &Program,
    recording: &Recording,
    sections: &[std::ops::Range<usize>],
    share: Share,
) -> Report {
    let report = Mutex::new(Report::default());
    let note = |outcome: Result<u64, Violation>| {
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.crashes += 1;
        report.violations.extend(outcome.err());
        report.violations.len() < share.patience
    };
    let mut failing = Vec::new();
    for section in sections {
        match recording.fail(program, section, None) {
            Ok(calls) => failing.extend((1..=calls).map(|call| (section, call))),
            failed => {
                note(failed);
            }
        }
    }
    let failing = failing.into_iter().skip(share.offset);
    each(failing.step_by(share.stride.max(1)), |(section, call)| {
        note(recording.fail(program, section, Some(call)))
    });
    report.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Tries a share of a recording's crashes, on all processors.
pub fn sweep(program: &Program, recording: &Recording, share: Share) -> Report {
    let crashes = |moment: usize| {
        let cut = move |names| {
            (0..share.cuts).map(move |cut| Crash::PowerCut(names, (moment as u64) << 8 | cut))
        };
        std::iter::once(Crash::Kill)
            .chain(recording.is_in_a_write(moment).then_some(Crash::Trap))
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
        match outcome {
            Ok(crashes) => report.crashes += crashes,
            Err(violation) => {
                report.crashes += 1;
                report.violations.push(violation);
            }
        }
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
