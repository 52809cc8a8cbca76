//! Random lives with random faults, each from one seed.

use serde_json::json;

use crate::bindings::exports::edge_sync::shard::courier::SnapshotSource;
use crate::bindings::exports::edge_sync::shard::types::{Durability, Options};
use crate::disk::{Disk, Names};
use crate::expected::{Expected, Violation};
use crate::faults::{Odds, Plan};
use crate::guest::Program;
use crate::life::{
    Doubt, Life, OTHERS_FROM, OTHERS_STAMPS_FROM, Outcome, Settled, Step, Trouble, config, options,
};
use crate::model::{MARK, Point, Write};
use crate::server::{Happening, Limits, Rate, Server};
use crate::sweep::brief;
use crate::world::{Shared, World};

/// What happened in a schedule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Steps that were taken.
    pub steps: u64,
    /// Host calls.
    pub calls: u64,
    /// Faults.
    pub faults: u64,
    /// Times that the shard was opened after a crash or an error.
    pub recoveries: u64,
    /// Writes that a power cut took, as it may without durability `always`.
    pub lost_writes: u64,
    /// [`World::path`].
    pub path: u64,
}

/// What happens in a schedule beside this device's life and faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    /// Other devices write points that this device writes as well.
    pub shared: bool,
    /// They delete such points, so that a change of one may come to a server that no longer has it.
    pub missing: bool,
    /// The life ends with something that a person has to put right.
    pub trouble: bool,
    /// The server makes partial snapshots, and the device pulls.
    pub follows: bool,
    /// The device makes no payload indexes and removes none: somebody else does.
    pub leaves_indexes: bool,
}

/// Most points of one operation.
const MOST_POINTS: usize = 6;

/// Own point ids, few, so that points are written again and again.
const IDS: u64 = 24;

/// Ids of points that are on the server from the beginning: enough that its optimizer builds a segment.
pub(super) const BASE: u64 = 2000;
pub(super) const BASE_POINTS: u64 = 80;

/// How many stamps a device has.
const STAMPS: u64 = 100_000;

/// Openings that may fail for faults before the faults end.
const PATIENCE: u32 = 4;

/// Lives the schedule of `seed`.
pub fn run(program: &Program, server: Server, seed: u64, mix: Mix) -> Result<Tally, Violation> {
    let mut schedule = Schedule::new(program, server, seed, mix, 0);
    let mut taken = Vec::new();
    match schedule.live(&mut taken) {
        Ok(()) => Ok(schedule.tally(taken.len() as u64)),
        Err(violation) => Err(schedule.told(seed, &violation, &taken)),
    }
}

/// Puts the points on the server that are there from the beginning.
pub(super) fn fill(server: &mut Server) {
    let stamps = OTHERS_STAMPS_FROM * 2..;
    let points = (BASE..BASE + BASE_POINTS).zip(stamps);
    let points: Vec<_> = points.map(|(id, n)| (id, Point::stamped(n))).collect();
    server.write(&points, &[]);
}

pub(super) struct Schedule {
    mix: Mix,
    pub(super) life: Life,
    random: fastrand::Rng,
    next_stamp: u64,
    next_other_stamp: u64,
    recoveries: u64,
}

impl Schedule {
    /// Of the device of that number: its writes have other stamps than those of others.
    pub(super) fn new(
        program: &Program,
        server: Server,
        seed: u64,
        mix: Mix,
        device: u64,
    ) -> Schedule {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut world = World::new(Disk::new(), server, random.u64(..));
        let mut pick = |choices: &[f64]| choices[random.usize(..choices.len())];
        let (stop, fail, http) = (
            pick(&[0.0, 0.0005, 0.003]),
            pick(&[0.0, 0.0005, 0.003]),
            pick(&[0.0, 0.1, 0.3]),
        );
        world.plan = Plan::Random(Odds {
            random: fastrand::Rng::with_seed(seed ^ 0x5eed),
            stop,
            fail,
            http,
        });
        let mut life = Life::new(program, Shared::new(world), Expected::default());
        life.drains_by_sync = mix.missing;
        life.options = Options {
            durability: [
                Durability::Always,
                Durability::Always,
                // About as long as a write takes by the simulated clocks.
                Durability::Interval(1),
                Durability::Os,
            ][random.usize(..4)],
            flush_after_bytes: Some([300, 3000, 30_000][random.usize(..3)]),
            ..options()
        };
        if mix.follows {
            life.world.lock().habits.refuses_links = random.u8(..4) == 0;
        }
        Schedule {
            mix,
            life,
            random,
            next_stamp: device * STAMPS + 1,
            next_other_stamp: OTHERS_STAMPS_FROM + device * STAMPS,
            recoveries: 0,
        }
    }

    /// What happened.
    pub(super) fn tally(&self, steps: u64) -> Tally {
        let world = self.life.world.lock();
        Tally {
            steps,
            calls: world.calls(),
            faults: world.happened.len() as u64,
            recoveries: self.recoveries,
            lost_writes: self.life.lost_writes,
            path: world.path(),
        }
    }

    /// A violation with what led to it.
    pub(super) fn told(&self, seed: u64, violation: &Violation, taken: &[String]) -> Violation {
        let world = self.life.world.lock();
        let mut text = format!("seed {seed}: {violation}\nsteps:");
        for step in taken {
            text.push_str(&format!("\n  {step}"));
        }
        text.push_str("\nfaults:");
        for (call, fault) in &world.happened {
            text.push_str(&format!("\n  {fault} at {call}"));
        }
        text.push_str("\nlast calls:");
        for call in &world.trail {
            text.push_str(&format!("\n  {call}"));
        }
        Violation(text)
    }

    fn live(&mut self, taken: &mut Vec<String>) -> Result<(), Violation> {
        if self.mix.follows {
            fill(&mut self.life.world.lock().server);
        }
        self.create(taken)?;
        if self.mix.shared && self.random.u8(..4) == 0 {
            taken.push("(the collection is there, under an alias)".to_owned());
            let config = serde_json::from_str(&config())
                .map_err(|error| Violation(format!("the configuration: {error}")))?;
            self.life.world.lock().server.found_by_alias(config);
        }
        for _ in 0..self.random.usize(8..30) {
            if self.mix.shared && self.random.u8(..10) == 0 {
                let limits = self.limits();
                taken.push(format!("({limits:?})"));
                self.life.world.lock().server.limit(limits);
            }
            self.go_on(taken)?;
        }
        taken.push("(the end)".to_owned());
        self.rest()?;
        self.life.finish()?;
        if self.mix.trouble {
            let trouble = Trouble::ALL[self.random.usize(..Trouble::ALL.len())];
            taken.push(format!("{trouble:?}"));
            self.life.end_in(trouble, self.next_stamp)?;
        }
        Ok(())
    }

    /// Takes one step, and perhaps crashes after it.
    pub(super) fn go_on(&mut self, taken: &mut Vec<String>) -> Result<(), Violation> {
        let step = self.step();
        taken.push(brief(&step));
        self.take(&step)?;
        // Between two calls, too.
        if self.random.u8(..20) == 0 {
            taken.push("(crash)".to_owned());
            self.crash();
            self.recover(None, false)?;
        }
        Ok(())
    }

    /// No fault happens any more, and the shard is open.
    pub(super) fn rest(&mut self) -> Result<(), Violation> {
        self.life.world.lock().plan = Plan::Quiet;
        if !self.life.is_open() {
            self.recover(None, false)?;
        }
        Ok(())
    }

    pub(super) fn create(&mut self, taken: &mut Vec<String>) -> Result<(), Violation> {
        for attempt in 0.. {
            if attempt == PATIENCE {
                self.life.world.lock().plan = Plan::Quiet;
            }
            taken.push("create".to_owned());
            let faults = self.faults();
            match self.life.create()? {
                Outcome::Done => return Ok(()),
                Outcome::Refused(error) if self.faults() == faults => {
                    return Err(Violation(format!("create, without a fault: {error:?}")));
                }
                Outcome::Refused(_) | Outcome::Interrupted => {}
            }
            self.crash();
            if self.recover(None, false)? != Settled::NotThere {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&mut self, step: &Step) -> Result<(), Violation> {
        let snapshots = self.life.world.lock().server.snapshots.len();
        let faults = self.faults();
        let doubt = Life::doubt(step, &self.life.expected, snapshots);
        match self.life.step(step)? {
            Outcome::Done => Ok(()),
            Outcome::Interrupted => {
                self.crash();
                self.recover(doubt.as_ref(), false).map(drop)
            }
            Outcome::Refused(error) => {
                let faults = self.faults() - faults;
                if faults == 0 {
                    return Err(Violation(format!(
                        "{}, without a fault: {error:?}",
                        brief(step)
                    )));
                }
                // A write that one fault made fail is taken back; taking it back may meet the
                // second. A restore may fail after the switch.
                let strict = faults == 1 && matches!(step, Step::Write(_));
                if self.random.bool() {
                    self.crash();
                }
                self.recover(doubt.as_ref(), strict)
                    .map(drop)
                    .map_err(|Violation(text)| {
                        Violation(format!("{text}\nthe call had failed with {error:?}"))
                    })
            }
        }
    }

    fn faults(&self) -> usize {
        self.life.world.lock().happened.len()
    }

    /// Stops the process, or cuts the power.
    fn crash(&mut self) {
        self.life.kill();
        if self.random.bool() {
            let names = if self.random.bool() {
                Names::InOrder
            } else {
                Names::AnySubset
            };
            self.life.cut_power(names, self.random.u64(..));
        }
    }

    fn recover(&mut self, doubt: Option<&Doubt>, strict: bool) -> Result<Settled, Violation> {
        self.recoveries += 1;
        for attempt in 0.. {
            if attempt == PATIENCE {
                self.life.world.lock().plan = Plan::Quiet;
            }
            if attempt > 2 * PATIENCE {
                break;
            }
            if let Some(settled) = self.life.recover(doubt, strict)? {
                return Ok(settled);
            }
            if self.life.world.lock().is_stopped() || self.random.bool() {
                self.crash();
            }
        }
        Err(Violation(
            "the shard does not open although nothing fails".to_owned(),
        ))
    }

    fn step(&mut self) -> Step {
        // The host holds uploads back between download and switch.
        let restoring = self.life.expected.snapshot.is_some();
        let follows = self.mix.follows;
        match self.random.u8(..35) {
            20..=25 if restoring => Step::Stage,
            28 if restoring => Step::Promote,
            0..=17 => Step::Write(self.write()),
            18 => Step::Flush,
            19 => Step::Optimize,
            20 => Step::Reopen,
            21..=22 | 26 if follows => Step::Both,
            24 if follows => Step::Pull,
            28 if follows && self.random.bool() => Step::Fetch,
            31 if follows && self.random.bool() => self.happening(),
            21..=23 => Step::Sync,
            24..=25 => Step::Carry,
            26..=27 => Step::Restore(self.source()),
            28 => Step::Download(self.source()),
            29 => Step::Stage,
            30 => Step::Promote,
            32 => Step::Lend,
            33 => Step::Follow,
            34 => Step::Configure(self.random.u64(10_000..10_010)),
            _ => self.others(),
        }
    }

    /// A limit that every operation of a life passes alone, or none.
    fn limits(&mut self) -> Limits {
        let capacity = self.random.usize(MOST_POINTS..3 * MOST_POINTS);
        let rate = Rate {
            capacity,
            left: self.random.usize(..=capacity),
        };
        Limits {
            rate: self.random.bool().then_some(rate),
            ..Limits::default()
        }
    }

    fn source(&mut self) -> SnapshotSource {
        if self.random.bool() {
            SnapshotSource::Stream
        } else {
            SnapshotSource::Stored
        }
    }

    fn points(&mut self, most: u64) -> Vec<(u64, Point)> {
        let count = self.random.u64(1..=most);
        let mut points = std::collections::BTreeMap::new();
        for _ in 0..count {
            points.insert(self.random.u64(1..=IDS), Point::stamped(self.next_stamp));
            self.next_stamp += 1;
        }
        points.into_iter().collect()
    }

    fn ids(&mut self) -> Vec<u64> {
        let mut ids = vec![self.random.u64(1..=IDS), self.random.u64(1..=IDS)];
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn write(&mut self) -> Write {
        match self.random.u8(..12) {
            0..=5 => Write::Upsert(self.points(MOST_POINTS as u64)),
            6..=7 => Write::Delete(self.ids()),
            8 => {
                let mut ids = self.ids();
                ids.retain(|id| self.life.expected.local.points.contains_key(id));
                if ids.is_empty() {
                    return Write::Upsert(self.points(2));
                }
                let mark = self.random.u32(..1000);
                let serde_json::Value::Object(payload) = json!({ MARK: mark }) else {
                    unreachable!("the macro makes an object");
                };
                Write::SetPayload(ids, payload)
            }
            9..=10 => Write::Batch(self.points(4), self.ids()),
            _ if self.mix.leaves_indexes => Write::Upsert(self.points(3)),
            _ => {
                let (field, schema) =
                    [("kind", "keyword"), ("n", "integer")][self.random.usize(..2)];
                if self.life.expected.local.indexes.contains_key(field) {
                    Write::DeleteIndex(field.to_owned())
                } else {
                    Write::CreateIndex(field.to_owned(), schema.to_owned())
                }
            }
        }
    }

    /// What happens on the server, now or at some later request.
    fn happening(&mut self) -> Step {
        let happening = match self.random.u8(..8) {
            0 => Happening::Restart,
            1 => Happening::Loses304(self.random.bool()),
            2..=4 => Happening::OptimizationBegins,
            5 => Happening::OptimizationEnds,
            _ => match self.others() {
                Step::Others(points, deleted) => Happening::Others(points, deleted),
                _ => Happening::OptimizationEnds,
            },
        };
        let soon = self.random.u32(..8);
        let mut happenings = match happening {
            // Between two steps only.
            Happening::Restart => vec![(0, Happening::Restart)],
            happening => vec![(soon, happening)],
        };
        if let Some((begins, Happening::OptimizationBegins)) = happenings.first() {
            // A pull waits for the end by so many requests.
            let lasts = [1, 3, 10, 62, 63, 64, 65, 200][self.random.usize(..8)];
            let begins = *begins;
            if self.random.bool() {
                // What is deleted meanwhile is what a snapshot does not tell.
                let deleted = vec![
                    self.random.u64(1..=IDS),
                    BASE + self.random.u64(..BASE_POINTS),
                ];
                let after = begins + self.random.u32(..4);
                happenings.push((after, Happening::Others(vec![], deleted)));
            }
            happenings.push((begins + lasts, Happening::OptimizationEnds));
        }
        Step::Happen(happenings)
    }

    fn others(&mut self) -> Step {
        let mut points = std::collections::BTreeMap::new();
        for _ in 0..self.random.u64(1..=4) {
            let id = if self.mix.shared && self.random.bool() {
                self.random.u64(1..=IDS)
            } else {
                OTHERS_FROM + self.random.u64(..8)
            };
            points.insert(id, Point::stamped(self.next_other_stamp));
            self.next_other_stamp += 1;
        }
        let mut deleted = vec![OTHERS_FROM + self.random.u64(..8)];
        if self.mix.follows {
            deleted.push(BASE + self.random.u64(..BASE_POINTS));
        }
        if self.mix.missing && self.random.bool() {
            deleted.push(self.random.u64(1..=IDS));
        }
        Step::Others(points.into_iter().collect(), deleted)
    }
}
