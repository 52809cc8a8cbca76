//! Random lives with random faults; see `docs/testing-faults.md`.

use std::sync::{Arc, Mutex};

use edge_sync_simulator::expected::Violation;
use edge_sync_simulator::schedule::Mix;
use edge_sync_simulator::server::Server;
use edge_sync_simulator::shard::Maker;
use edge_sync_simulator::sweep::each;
use edge_sync_simulator::{fleet, schedule, snapshot};

use crate::support::{program, setting};

/// How many schedules CI runs; their seeds are 0, 1, 2, ...
const CI_SCHEDULES: u64 = 60;

/// After how many schedules a long run says so.
const PROGRESS: u64 = 500;

/// How many schedules CI lives twice.
const REPEATED: u64 = 12;

#[test]
fn nothing_is_lost_in_random_lives() {
    live(Mix::default());
}

/// Other devices write the same points: each of this device's writes still reaches the server, in
/// order, and a restored shard holds what the last of all of them made of a point.
#[test]
fn nothing_is_lost_of_points_that_others_write_too() {
    live(Mix {
        shared: true,
        ..Mix::default()
    });
}

/// They delete them as well: a change of a point that is gone is put aside, and holds up nothing.
#[test]
fn nothing_is_held_up_by_points_that_others_deleted() {
    live(Mix {
        shared: true,
        missing: true,
        ..Mix::default()
    });
}

/// A queue is never stuck for ever: where a person has to put something right, the upload says so,
/// and then everything arrives.
#[test]
fn what_a_person_has_to_put_right_is_told() {
    live(Mix {
        shared: true,
        missing: true,
        trouble: true,
        ..Mix::default()
    });
}

/// The device follows the server: what it uploads and what others write come back by partial snapshots,
/// while the server optimizes and is started again.
#[test]
fn a_device_that_pulls_holds_what_the_server_holds() {
    live(Mix {
        shared: true,
        missing: true,
        follows: true,
        ..Mix::default()
    });
}

/// Several devices push, pull, restore and optimize. After a quiet end all are equal.
#[test]
fn devices_that_sync_end_equal() {
    let program = program();
    tally(|seed| {
        let maker = Arc::new(Maker::default());
        let server = || Server::following(Arc::clone(&maker));
        fleet::run(&program, server, seed, 2 + seed as usize % 3)
    });
}

fn live(mix: Mix) {
    let program = program();
    let maker = snapshot::maker();
    tally(|seed| {
        let server = match mix.follows {
            true => Server::following(Arc::new(Maker::default())),
            false => Server::new(maker.clone()),
        };
        schedule::run(&program, server, seed, mix)
    });
}

/// Lives the schedules that the environment asks for.
fn tally(run: impl Fn(u64) -> Result<schedule::Tally, Violation> + Sync) {
    let seeds = match setting("EDGE_SYNC_SEED") {
        Some(seed) => seed..seed + setting("EDGE_SYNC_SCHEDULES").unwrap_or(1),
        None => 0..setting("EDGE_SYNC_SCHEDULES").unwrap_or(CI_SCHEDULES),
    };
    let patience = setting("EDGE_SYNC_SWEEP_PATIENCE").unwrap_or(1) as usize;
    let outcomes = Mutex::new((schedule::Tally::default(), 0_u64, Vec::new()));
    each(seeds, |seed| {
        let outcome = run(seed);
        let mut outcomes = outcomes.lock().expect("no thread panics");
        let (tally, schedules, violations) = &mut *outcomes;
        *schedules += 1;
        if schedules.is_multiple_of(PROGRESS) {
            eprintln!("{schedules} schedules");
        }
        match outcome {
            Ok(one) => {
                tally.steps += one.steps;
                tally.calls += one.calls;
                tally.faults += one.faults;
                tally.recoveries += one.recoveries;
                tally.lost_writes += one.lost_writes;
                // Whatever the order in which the threads end.
                tally.path ^= one.path;
            }
            Err(violation) => violations.push(violation.to_string()),
        }
        violations.len() < patience
    });
    let (tally, schedules, violations) = outcomes.into_inner().expect("no thread panics");
    println!(
        "{schedules} schedules: {tally:?}, {} violations",
        violations.len()
    );
    assert!(
        violations.is_empty(),
        "EDGE_SYNC_SEED repeats it:\n{}",
        violations.join("\n\n")
    );
}

#[test]
fn a_seed_repeats_its_life() {
    let program = program();
    let repeated = setting("EDGE_SYNC_REPEATED_SCHEDULES").unwrap_or(REPEATED);
    each(0..repeated, |seed| {
        // With a new server each time: what it makes must be the same, too.
        let [first, second] = [(); 2].map(|()| {
            let server = Server::new(snapshot::maker());
            let mix = Mix {
                shared: true,
                ..Mix::default()
            };
            schedule::run(&program, server, seed, mix).expect("a schedule without a violation")
        });
        assert_eq!(first, second, "seed {seed}");
        true
    });
}

#[test]
fn a_seed_repeats_its_fleet() {
    let program = program();
    let repeated = setting("EDGE_SYNC_REPEATED_SCHEDULES").unwrap_or(REPEATED);
    each(0..repeated / 2, |seed| {
        let [first, second] = [(); 2].map(|()| {
            let maker = Arc::new(Maker::default());
            let server = || Server::following(Arc::clone(&maker));
            fleet::run(&program, server, seed, 2).expect("a schedule without a violation")
        });
        assert_eq!(first, second, "seed {seed}");
        true
    });
}
