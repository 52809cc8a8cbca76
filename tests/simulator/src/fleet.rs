//! Several devices of one collection: random lives with random faults, each with a disk, a clock and
//! faults of its own, and one server.

use crate::expected::Violation;
use crate::guest::Program;
use crate::life::Step;
use crate::schedule::{Mix, Schedule, Tally, fill};
use crate::server::Server;

/// What the devices do.
const MIX: Mix = Mix {
    shared: true,
    missing: true,
    trouble: false,
    follows: true,
    leaves_indexes: true,
};

/// Lives the schedule of `seed` with so many devices. At the end nothing fails any more, every device
/// syncs twice, and all hold what the server holds. `server` makes a server without the collection.
pub fn run(
    program: &Program,
    server: impl Fn() -> Server,
    seed: u64,
    devices: usize,
) -> Result<Tally, Violation> {
    let mut fleet = Fleet {
        seed,
        random: fastrand::Rng::with_seed(seed ^ 0xf1ee7),
        server: server(),
        devices: (0..devices as u64)
            .map(|device| {
                // The world has another server for as long as the device does nothing.
                let seed = seed ^ (device << 48);
                Schedule::new(program, server(), seed, MIX, device)
            })
            .collect(),
        taken: Vec::new(),
    };
    fleet.live()?;
    let mut all = Tally::default();
    for device in &fleet.devices {
        let tally = device.tally(0);
        all.calls += tally.calls;
        all.faults += tally.faults;
        all.recoveries += tally.recoveries;
        all.lost_writes += tally.lost_writes;
        all.path = all.path.rotate_left(1) ^ tally.path;
    }
    all.steps = fleet.taken.len() as u64;
    Ok(all)
}

struct Fleet {
    seed: u64,
    random: fastrand::Rng,
    server: Server,
    devices: Vec<Schedule>,
    taken: Vec<String>,
}

impl Fleet {
    fn live(&mut self) -> Result<(), Violation> {
        fill(&mut self.server);
        for number in 0..self.devices.len() {
            self.with(number, Schedule::create)?;
        }
        for _ in 0..self.random.usize(20..20 + 15 * self.devices.len()) {
            if self.random.u8(..20) == 0 {
                self.index();
            }
            let number = self.random.usize(..self.devices.len());
            self.with(number, Schedule::go_on)?;
        }
        self.taken.push("(the end)".to_owned());
        for number in 0..self.devices.len() {
            self.with(number, |device, _| device.rest())?;
        }
        self.server.rest();
        self.server.loses_304 = false;
        for _ in 0..2 {
            for number in 0..self.devices.len() {
                self.with(number, |device, _| device.life.last_step(&Step::Both))?;
            }
        }
        for number in 0..self.devices.len() {
            self.with(number, |device, _| {
                device.life.equals_server()?;
                device.life.last_step(&Step::Reopen)
            })?;
        }
        Ok(())
    }

    /// Lets one device do something, with the server in its world.
    fn with(
        &mut self,
        number: usize,
        run: impl FnOnce(&mut Schedule, &mut Vec<String>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        let device = &mut self.devices[number];
        self.server.serve(number);
        std::mem::swap(&mut device.life.world.lock().server, &mut self.server);
        let before = self.taken.len();
        let outcome = run(device, &mut self.taken);
        std::mem::swap(&mut device.life.world.lock().server, &mut self.server);
        for step in &mut self.taken[before..] {
            step.insert_str(0, &format!("{number}: "));
        }
        outcome.map_err(|violation| {
            let violation = Violation(format!("device {number}: {violation}"));
            device.told(self.seed, &violation, &self.taken)
        })
    }

    /// Somebody makes, changes or removes a payload index.
    fn index(&mut self) {
        let (field, schema) = [
            ("kind", Some("keyword")),
            ("kind", None),
            ("n", Some("integer")),
            ("n", Some("float")),
            ("n", None),
        ][self.random.usize(..5)];
        self.taken.push(format!("index {field}: {schema:?}"));
        self.server.index(field, schema);
        for device in &mut self.devices {
            device.life.expected.index(field, schema);
        }
    }
}
