//! Each promise broken on purpose, to show that the simulator would notice.
//!
//! The component is one binary, so that most promises are broken around it: a disk that forgets a
//! sync, a rename that is a copy, a driver that leaves out a step of a restore. What a component
//! without checksums would take for its log is made with the log's own code.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use edge_sync_log::{Durability, Log, LogOptions};
use edge_sync_simulator::disk::{Disk, Inode};
use edge_sync_simulator::expected::{Expected, Violation};
use edge_sync_simulator::guest::Program;
use edge_sync_simulator::life::{Life, Outcome, Slips, Step, options};
use edge_sync_simulator::model::{Point, Write};
use edge_sync_simulator::server::Server;
use edge_sync_simulator::shard::Maker;
use edge_sync_simulator::sweep::{Broken, Report, Rest, Share, record, sweep};
use edge_sync_simulator::world::{Habits, Shared, World};
use edge_sync_simulator::{scripts, snapshot};

use crate::support::program;

fn run(broken: &Broken, cuts: u64) -> Result<Report, Violation> {
    let server = Server::new(snapshot::maker());
    let share = |_| Share {
        stride: 3,
        offset: 0,
        cuts,
        rest: Rest::Short,
        patience: 1,
    };
    crash(server, scripts::short_life(), broken, share)
}

/// Lives `steps` with something broken, and crashes that at a share of its moments, which is chosen by
/// how many there are.
fn crash(
    server: Server,
    steps: Vec<Step>,
    broken: &Broken,
    share: impl FnOnce(usize) -> Share,
) -> Result<Report, Violation> {
    let program = program();
    let recording = record(&program, server, steps, options(), 1, broken)?;
    let share = share(recording.moments.len());
    Ok(sweep(&program, &recording, share))
}

/// The simulator finds a violation, in the life itself or after a crash.
#[track_caller]
fn is_noticed(broken: &Broken) {
    found_in(run(broken, 1));
}

#[track_caller]
fn found_in(outcome: Result<Report, Violation>) {
    let violation = match outcome {
        Ok(report) => report.violations.into_iter().next(),
        Err(violation) => Some(violation),
    };
    println!("{}", violation.expect("the simulator notices nothing"));
}

#[test]
fn nothing_broken_nothing_noticed() {
    let report = run(&Broken::default(), 0).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}

#[test]
fn without_the_sync_before_acknowledging() {
    is_noticed(&Broken {
        habits: Habits {
            ignores_sync_below: vec!["/log".to_owned()],
            ..Habits::default()
        },
        ..Broken::default()
    });
}

#[test]
fn without_the_atomic_rename() {
    is_noticed(&Broken {
        habits: Habits {
            renames_by_copy: true,
            ..Habits::default()
        },
        ..Broken::default()
    });
}

#[test]
fn without_the_barrier() {
    is_noticed(&Broken {
        slips: Slips {
            no_barrier: true,
            ..Slips::default()
        },
        ..Broken::default()
    });
}

#[test]
fn without_the_replay() {
    is_noticed(&Broken {
        slips: Slips {
            no_replay: true,
            ..Slips::default()
        },
        ..Broken::default()
    });
}

/// Follows a server, with something broken.
fn run_pulls(broken: &Broken, stride: usize) -> Result<Report, Violation> {
    let server = Server::following(Arc::new(Maker::default()));
    let share = |moments: usize| Share {
        stride,
        offset: moments / 2,
        cuts: 2,
        rest: Rest::Short,
        patience: 1,
    };
    crash(server, scripts::short_pulls(), broken, share)
}

#[track_caller]
fn is_noticed_of_pulls(broken: &Broken) {
    found_in(run_pulls(broken, 7));
}

#[test]
fn nothing_broken_nothing_noticed_of_pulls() {
    let report = run_pulls(&Broken::default(), 97).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
}

#[test]
fn a_pull_without_the_replay() {
    is_noticed_of_pulls(&Broken {
        slips: Slips {
            no_replay: true,
            ..Slips::default()
        },
        ..Broken::default()
    });
}

#[test]
fn a_pull_without_the_sync_of_the_mirror() {
    is_noticed_of_pulls(&ignoring_syncs_below("mirror"));
}

#[test]
fn a_pull_without_the_sync_of_the_links() {
    is_noticed_of_pulls(&ignoring_syncs_below("shard"));
}

fn ignoring_syncs_below(folder: &str) -> Broken {
    let below = (1..9).map(|generation| format!("/generations/{generation}/{folder}"));
    Broken {
        habits: Habits {
            ignores_sync_below: below.collect(),
            ..Habits::default()
        },
        ..Broken::default()
    }
}

/// A device that follows a server, after a pull.
fn following() -> (Life, Shared) {
    let server = Server::following(Arc::new(Maker::default()));
    let world = Shared::new(World::new(Disk::new(), server, 1));
    let mut life = Life::new(&program(), world.clone(), Expected::default());
    assert!(matches!(life.create(), Ok(Outcome::Done)));
    for step in scripts::short_pulls() {
        let outcome = life.step(&step);
        assert!(
            matches!(outcome, Ok(Outcome::Done)),
            "{step:?}: {outcome:?}"
        );
    }
    (life, world)
}

/// Files of the shard that are files of the mirror, too.
fn linked(disk: &Disk) -> Vec<(String, Inode)> {
    let of = |folder: &'static str| {
        disk.files()
            .into_iter()
            .filter(move |it| it.0.contains(folder))
    };
    let mirror: BTreeSet<Inode> = of("/mirror/").map(|(_, inode)| inode).collect();
    of("/shard/")
        .filter(|(_, inode)| mirror.contains(inode))
        .collect()
}

#[test]
fn a_write_through_a_linked_file() {
    let (mut life, world) = following();
    let linked = linked(&world.lock().disk);
    assert!(linked.len() >= 5, "{linked:?}");
    for (path, inode) in linked {
        let whole = world.lock().disk.clone();
        let at = whole.len(inode) / 2;
        let byte = whole.read(inode, at, 1).unwrap()[0];
        world.lock().disk.write(inode, at, &[byte ^ 1]).unwrap();
        let noticed = life.step(&Step::Flush);
        let Err(Violation(noticed)) = noticed else {
            panic!("a write to {path} was not noticed: {noticed:?}");
        };
        assert!(
            noticed.contains("is not what came from the server"),
            "{noticed}"
        );
        world.lock().disk = whole;
        assert!(matches!(life.step(&Step::Flush), Ok(Outcome::Done)));
    }
}

/// The component notices by itself: the time of the change tells, and what the file holds.
#[test]
fn what_was_written_through_a_linked_file_is_fetched_again() {
    let (mut life, world) = following();
    let linked = linked(&world.lock().disk);
    let (path, inode) = linked
        .into_iter()
        .find(|(path, _)| path.ends_with("matrix.dat"))
        .expect("vectors that are linked");
    world.lock().disk.write(inode, 0, b"scribble").unwrap();
    life.expected.forget_mirror();
    // It ends with a mirror that is the server's, byte for byte.
    let outcome = life.step(&Step::Pull);
    assert!(matches!(outcome, Ok(Outcome::Done)), "{path}: {outcome:?}");
    assert!(life.expected.has_mirror());
}

/// Takes what was saved of overwritten bytes out of the journals, and leaves what the checkpoints
/// hold.
fn forget_what_was_saved(disk: &mut Disk) {
    for (path, inode) in disk.files() {
        let (true, Some((_, name))) = (path.contains("/rollback/"), path.rsplit_once('/')) else {
            continue;
        };
        if !name.ends_with(".log") {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, disk.read(inode, 0, usize::MAX).unwrap()).unwrap();
        let (mut log, _) = Log::open(folder.path(), LogOptions::default()).unwrap();
        let Some(begin) = log.read(0).next() else {
            continue;
        };
        // Kind, checkpoint, number of entries: `docs/log-format.md`.
        let entries = begin.unwrap().payload[9..17].try_into().unwrap();
        log.truncate_after(1 + u64::from_le_bytes(entries)).unwrap();
        let bytes = fs::read(&file).unwrap();
        disk.set_len(inode, bytes.len() as u64).unwrap();
        // A power cut does not bring it back.
        disk.sync(inode).unwrap();
    }
}

#[test]
fn without_the_rollback_journal() {
    let program = program();
    let server = Server::new(snapshot::maker());
    let steps = scripts::short_life();
    let mut recording = record(&program, server, steps, options(), 1, &Broken::default()).unwrap();
    for moment in &mut recording.moments {
        forget_what_was_saved(&mut moment.disk);
    }
    let share = Share {
        stride: 1,
        // Little has been overwritten before.
        offset: recording.moments.len() / 2,
        // What the engine writes is in such an order that a stopped process leaves files that it can
        // read. A power cut takes any of the writes, none of which was synced.
        cuts: 2,
        rest: Rest::Short,
        patience: 1,
    };
    found_in(Ok(sweep(&program, &recording, share)));
}

/// A killed device whose writes are in the log only.
struct Killed {
    program: Program,
    disk: Disk,
    server: Server,
    expected: Expected,
}

impl Killed {
    fn after_writes() -> Killed {
        let program = program();
        let world = Shared::new(World::new(Disk::new(), Server::new(snapshot::maker()), 1));
        let mut life = Life::new(&program, world.clone(), Expected::default());
        life.options.flush_after_bytes = None;
        assert!(matches!(life.create(), Ok(Outcome::Done)));
        for stamp in 1..=4 {
            let write = Write::Upsert(vec![(stamp, Point::stamped(stamp))]);
            assert!(matches!(life.step(&Step::Write(write)), Ok(Outcome::Done)));
        }
        life.kill();
        let expected = life.expected.clone();
        let world = world.lock();
        Killed {
            program,
            disk: world.disk.clone(),
            server: world.server.clone(),
            expected,
        }
    }

    /// The log's segments.
    fn segments(&self) -> Vec<(String, Inode)> {
        let mut files = self.disk.files();
        files.retain(|(path, _)| path.starts_with("/log/"));
        files
    }

    fn open(&self, disk: Disk) -> Result<(), Violation> {
        let world = Shared::new(World::new(disk, self.server.clone(), 2));
        let mut life = Life::new(&self.program, world, self.expected.clone());
        life.recover(None, false).map(drop)
    }
}

#[test]
fn a_flipped_byte_in_the_log_is_reported_or_cut_off_never_read() {
    let killed = Killed::after_writes();
    let (path, segment) = killed.segments().pop().unwrap();
    let len = killed.disk.len(segment);
    for offset in (0..len).step_by(7) {
        let mut disk = killed.disk.clone();
        let byte = disk.read(segment, offset, 1).unwrap()[0];
        disk.write(segment, offset, &[byte ^ 0x20]).unwrap();
        let Err(Violation(found)) = killed.open(disk) else {
            panic!("byte {offset} of {len} of {path} was changed, and nobody noticed");
        };
        // Damage at the very end looks like a write that a crash cut off; nothing else may.
        let reported = found.contains("Corrupt") || found.contains("version");
        let cut_off = found.contains("found operations up to 3, expected 4")
            && found.contains("point 4 is missing")
            && !found.contains("point 3");
        assert!(reported || cut_off, "byte {offset} of {len}: {found}");
    }
}

#[test]
fn without_the_checksum() {
    let killed = Killed::after_writes();
    let options = LogOptions {
        durability: Durability::Always,
        segment_bytes: 4096,
        ..LogOptions::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let (stored, altered) = (folder.path().join("stored"), folder.path().join("altered"));
    fs::create_dir(&stored).unwrap();
    for (path, inode) in killed.segments() {
        let bytes = killed.disk.read(inode, 0, usize::MAX).unwrap();
        fs::write(stored.join(path.trim_start_matches("/log/")), bytes).unwrap();
    }
    let (log, _) = Log::open(&stored, options).unwrap();
    let (mut other, _) = Log::open(&altered, options).unwrap();
    let vector: Vec<u8> = Point::stamped(2)
        .vector
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let mut changed = 0;
    for record in log.read(1) {
        let mut payload = record.unwrap().payload;
        if let Some(at) = payload
            .windows(vector.len())
            .position(|bytes| bytes == vector)
        {
            payload[at + 2] ^= 0x20;
            changed += 1;
        }
        other.append(&[payload]).unwrap();
    }
    assert_eq!(changed, 1);
    drop(other);
    let mut disk = killed.disk.clone();
    for (path, inode) in killed.segments() {
        let bytes = fs::read(altered.join(path.trim_start_matches("/log/"))).unwrap();
        disk.set_len(inode, 0).unwrap();
        disk.write(inode, 0, &bytes).unwrap();
    }
    let Violation(found) = killed.open(disk).unwrap_err();
    assert!(found.contains("point 2 is"), "{found}");
}
