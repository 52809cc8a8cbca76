//! A host whose files do not behave as everything relies on: it is told so when a shard is made or opened, in
//! a sentence, and nothing was done. (A host that only pretends to sync cannot be told from others.)
//!
//! A host without a network is told so by what needs one, and has all the rest.

use edge_sync_simulator::bindings::exports::edge_sync::shard::courier::SnapshotSource;
use edge_sync_simulator::bindings::exports::edge_sync::shard::types::{Error, FailureClass};
use edge_sync_simulator::disk::Disk;
use edge_sync_simulator::expected::Expected;
use edge_sync_simulator::guest::Ended;
use edge_sync_simulator::life::{Life, Outcome, Step, options};
use edge_sync_simulator::model::{Point, Write};
use edge_sync_simulator::server::Server;
use edge_sync_simulator::snapshot;
use edge_sync_simulator::world::{Habits, Lie, Shared, World};

use crate::support::program;

fn lies() -> [(Habits, &'static str); 7] {
    let identity = |identity| Habits {
        identity,
        ..Habits::default()
    };
    [
        (identity(Lie::Same), "two files have one identity"),
        (identity(Lie::Size), "two files have one identity"),
        (
            identity(Lie::Growing),
            "another identity (metadata-hash) when it is written to",
        ),
        (
            identity(Lie::Month),
            "another identity (metadata-hash) when it is written to at another time",
        ),
        (identity(Lie::Random), "another identity"),
        (
            Habits {
                syncs_no_folders: true,
                ..Habits::default()
            },
            "a folder cannot be synced",
        ),
        (
            Habits {
                lengthens: true,
                ..Habits::default()
            },
            "a file of 10000 bytes is said to have 10001",
        ),
    ]
}

#[test]
fn no_shard_is_made_on_files_that_lie() {
    for (habits, words) in lies() {
        let world = Shared::new(World::new(Disk::new(), Server::new(snapshot::maker()), 1));
        world.lock().habits = habits.clone();
        let mut life = Life::new(&program(), world.clone(), Expected::default());
        match life.create() {
            Ok(Outcome::Refused(error)) => {
                let text = format!("{error:?}");
                assert!(text.starts_with("Error::Unsupported"), "{text}");
                assert!(text.contains(words), "{habits:?}: {text}");
            }
            other => panic!("{habits:?}: {other:?}"),
        }
        let left = world.lock().disk.files();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn no_shard_is_opened_on_files_that_lie() {
    let program = program();
    let world = Shared::new(World::new(Disk::new(), Server::new(snapshot::maker()), 1));
    let mut life = Life::new(&program, world.clone(), Expected::default());
    assert!(matches!(life.create(), Ok(Outcome::Done)));
    life.kill();
    let files = |world: &Shared| {
        let world = world.lock();
        let mut files: Vec<_> = world
            .disk
            .files()
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        files.sort();
        files
    };
    let before = files(&world);
    for (habits, words) in lies() {
        world.lock().habits = habits.clone();
        let mut instance = program.start(&world).expect("it starts");
        let opened = instance.call(|guest, store| {
            let shard = guest.edge_sync_shard_shard();
            shard.call_open(store, "/data", options())
        });
        let Err(Ended::Error(error)) = opened else {
            panic!("{habits:?}: {opened:?}");
        };
        let text = format!("{error:?}");
        assert!(text.contains("cannot hold a shard"), "{text}");
        assert!(text.contains(words), "{habits:?}: {text}");
        assert_eq!(files(&world), before);
    }
    world.lock().habits = Habits::default();
    let mut instance = program.start(&world).expect("it starts");
    let opened = instance.call(|guest, store| {
        let shard = guest.edge_sync_shard_shard();
        shard.call_open(store, "/data", options())
    });
    assert!(opened.is_ok(), "{opened:?}");
    let left = files(&world);
    assert!(!left.iter().any(|path| path.contains("trial")), "{left:?}");
}

/// Everything that goes to the server, in one instance or as a host drives it.
const NEEDS_A_NETWORK: [Step; 5] = [
    Step::Sync,
    Step::Carry,
    Step::Pull,
    Step::Both,
    Step::Restore(SnapshotSource::Stream),
];

fn upsert(ids: std::ops::RangeInclusive<u64>) -> Step {
    let points = ids.map(|id| (id, Point::stamped(id))).collect();
    Step::Write(Write::Upsert(points))
}

fn done(life: &mut Life, step: &Step) {
    let outcome = life.step(step);
    assert!(
        matches!(outcome, Ok(Outcome::Done)),
        "{step:?}: {outcome:?}"
    );
}

#[test]
fn a_host_that_denies_requests_is_told_so_and_the_shard_goes_on() {
    let world = Shared::new(World::new(Disk::new(), Server::new(snapshot::maker()), 1));
    let mut life = Life::new(&program(), world.clone(), Expected::default());
    assert!(matches!(life.create(), Ok(Outcome::Done)));
    done(&mut life, &upsert(1..=5));
    done(&mut life, &Step::Sync);
    world.lock().habits.denies_requests = true;
    done(&mut life, &upsert(5..=6));
    for step in NEEDS_A_NETWORK {
        match life.step(&step) {
            Ok(Outcome::Refused(Error::Server(failure))) => {
                assert_eq!(failure.class, FailureClass::Stop, "{step:?}: {failure:?}");
                let words = "the host does not permit requests to this server";
                assert!(failure.message.contains(words), "{step:?}: {failure:?}");
            }
            other => panic!("{step:?}: {other:?}"),
        }
    }
    done(&mut life, &upsert(4..=8));
    done(&mut life, &Step::Reopen);
    world.lock().habits.denies_requests = false;
    life.finish().expect("all of it is on the server");
}
