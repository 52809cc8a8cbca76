//! Readers beside the writer: searches use several instances, and no answer is older than the last
//! write that returned before it was asked for.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_sync_host::{
    Cancel, EdgeSync, Error, MOST_READERS, PointId, RestoreSource, Selection, ShardOptions,
    SnapshotSource,
};
use serde_json::json;

use crate::served::{Served, edge_sync};
use crate::support::{CONFIG, all_points, component, device, point, server, sync};

/// After so long without what a test waits for, it has failed.
const PATIENCE: Duration = Duration::from_secs(120);

const CLIENTS: u64 = 6;

fn created(directory: &Path, options: ShardOptions) -> EdgeSync {
    EdgeSync::builder(component(), directory)
        .options(options)
        .create(CONFIG)
        .expect("a shard")
}

fn is_there(edge: &EdgeSync, id: u64) -> bool {
    let found = edge
        .shard()
        .retrieve(vec![PointId::Num(id)], Selection::none());
    !found.expect("an answer").is_empty()
}

/// What one client does with points of its own, and sees at once.
fn write_and_read(edge: &EdgeSync, client: u64, round: u64) {
    let shard = edge.shard();
    let id = client * 1_000_000 + round;
    shard.upsert(vec![point(id)]).expect("a write");
    assert!(is_there(edge, id), "client {client} wrote {id}");
    let filter = json!({ "must": [{ "has_id": [id] }] }).to_string();
    assert_eq!(shard.count(Some(&filter)).expect("a count"), 1);
    if round.is_multiple_of(3) {
        shard.delete(vec![PointId::Num(id)]).expect("a write");
        assert!(!is_there(edge, id), "client {client} deleted {id}");
    }
}

/// Reads until a reader runs: they keep finding the shard's instance busy.
fn crowd(edge: &EdgeSync) {
    let until = Instant::now() + PATIENCE;
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while edge.shard().running_readers() == 0 {
                    assert!(Instant::now() < until, "no reader was started");
                    edge.shard().count(None).expect("a count");
                }
            });
        }
    });
}

/// Reads until `done`, from several threads.
fn read_meanwhile(edge: &EdgeSync, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        edge.shard().count(None).expect("a count");
    }
}

#[test]
fn whoever_writes_reads_it_whichever_instance_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    // Small segments and many flushes, so that the readers cross both.
    let options = ShardOptions::default()
        .readers(2)
        .log_segment_bytes(Some(4096))
        .flush_after_bytes(Some(20_000));
    let edge = created(folder.path(), options);
    edge.shard()
        .upsert((1..=500).map(point).collect())
        .expect("a write");
    let (rounds, running) = (AtomicU64::new(0), AtomicU64::new(0));
    let done = AtomicBool::new(false);
    let until = Instant::now() + PATIENCE;
    std::thread::scope(|scope| {
        for client in 1..=CLIENTS {
            let (edge, rounds, running, done) = (&edge, &rounds, &running, &done);
            scope.spawn(move || {
                for round in 1.. {
                    write_and_read(edge, client, round);
                    running.fetch_max(edge.shard().running_readers() as u64, Ordering::Relaxed);
                    rounds.fetch_add(1, Ordering::Relaxed);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        // Changes of generation, which readers have to notice.
        for _ in 0..3 {
            let seen = rounds.load(Ordering::Relaxed);
            running.store(0, Ordering::Relaxed);
            while rounds.load(Ordering::Relaxed) < seen + 100 || running.load(Ordering::Relaxed) < 2
            {
                assert!(Instant::now() < until, "no two readers were started");
                std::thread::sleep(Duration::from_millis(5));
            }
            edge.shard().flush().expect("a flush");
            edge.shard().optimize().expect("an optimization");
        }
        done.store(true, Ordering::Relaxed);
    });
    let held = all_points(&edge);
    edge.shard().close().expect("closed");
    assert!(
        !folder.path().join("readers/0").exists(),
        "its copy is left"
    );
    drop(edge);
    assert!(!folder.path().join("readers").exists());
    let edge = EdgeSync::builder(component(), folder.path())
        .open()
        .expect("the shard");
    assert_eq!(all_points(&edge), held);
}

#[test]
fn what_a_restore_and_a_pull_brought_is_read_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let other = device(&folder.path().join("other"), &server)
        .create(CONFIG)
        .expect("a shard");
    other
        .shard()
        .upsert((1..=50).map(point).collect())
        .expect("a write");
    sync(&other);
    let edge = device(&folder.path().join("edge"), &server)
        .options(ShardOptions::default().readers(1))
        .attach()
        .expect("a directory");
    let source = RestoreSource::Server(SnapshotSource::Stream);
    edge.restore(&source, &Cancel::new(), |_| {})
        .expect("a restore");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ended = OnDrop(&done);
        for _ in 0..3 {
            scope.spawn(|| read_meanwhile(&edge, &done));
        }
        for id in 51..=56 {
            crowd(&edge);
            other.shard().upsert(vec![point(id)]).expect("a write");
            sync(&other);
            sync(&edge);
            assert!(is_there(&edge, id), "{id} came with a pull");
        }
    });
}

/// Says so when it goes, also where an assertion fails before.
struct OnDrop<'a>(&'a AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_that_cannot_follow_or_be_started_is_done_without() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = ShardOptions::default()
        .readers(1)
        .log_segment_bytes(Some(4096))
        .flush_after_bytes(Some(10_000));
    let edge = created(folder.path(), options);
    let shard = edge.shard();
    crowd(&edge);
    let mut known = 0;
    for round in 1..=20_u64 {
        // The log forgets what the reader has not seen yet.
        let ids = round * 1000..round * 1000 + 100;
        let receipt = shard.upsert(ids.map(point).collect()).expect("a write");
        shard.acknowledge(receipt.sequence).expect("acknowledged");
        shard.flush().expect("a flush");
        known += 100;
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| assert_eq!(shard.count(None).expect("a count"), known));
            }
        });
    }
    drop(edge);

    // Where its copy would be is something else.
    std::fs::write(folder.path().join("readers"), "no folder").expect("a file");
    let options = ShardOptions::default().readers(1);
    let edge = EdgeSync::builder(component(), folder.path())
        .options(options)
        .open();
    let refused = match edge {
        // Opening removes what readers had.
        Err(error) => error.to_string(),
        Ok(_) => panic!("a file in the place of the folder"),
    };
    assert!(refused.contains("readers"), "{refused}");
    std::fs::remove_file(folder.path().join("readers")).expect("removed");

    // What a process that was killed left is removed.
    std::fs::create_dir_all(folder.path().join("readers/0/shard")).expect("a folder");
    let edge = EdgeSync::builder(component(), folder.path())
        .open()
        .expect("the shard");
    assert!(!folder.path().join("readers").exists());
    assert_eq!(edge.shard().count(None).expect("a count"), known);
    drop(edge);
    let options = ShardOptions::default().readers(MOST_READERS + 1);
    let refused = EdgeSync::builder(component(), folder.path())
        .options(options)
        .open();
    assert!(
        matches!(
            refused,
            Err(Error::Setting {
                name: "readers",
                ..
            })
        ),
        "as many readers as that"
    );
}

#[test]
fn a_writer_waits_for_no_reader_and_an_idle_shard_has_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let edge = created(folder.path(), ShardOptions::default().readers(1));
    for id in 1..=100 {
        edge.shard().upsert(vec![point(id)]).expect("a write");
        assert!(is_there(&edge, id));
    }
    // One client alone never finds it busy.
    assert_eq!(edge.shard().running_readers(), 0);
    assert!(!folder.path().join("readers").exists());
}

#[test]
fn serve_answers_from_readers_and_says_how_many_there_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, "serve_readers = 1\n").expect("a file");
    let data = folder.path().join("data");
    let mut command = edge_sync(&data, &["--json", "serve", "--listen", "127.0.0.1:0"]);
    command.arg("--config-file").arg(&settings);
    let served = Served::spawn(command);
    let client = served.client();
    let config = json!({ "vectors": { "size": 4, "distance": "Dot" } });
    client.result("PUT", "/collections/c", Some(&config));
    let until = Instant::now() + PATIENCE;
    let readers = || {
        let answer = served
            .client()
            .call("GET", "/metrics", None)
            .expect("an answer");
        let metrics = answer.1.as_str().unwrap_or_default().to_owned();
        let is_it = |line: &str| line.starts_with("edge_sync_readers") && line.ends_with(" 1");
        metrics.lines().any(is_it)
    };
    let seen = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 1..=CLIENTS {
            let (served, seen) = (&served, &seen);
            scope.spawn(move || {
                let client = served.client();
                for round in 0.. {
                    let id = number * 1_000_000 + round;
                    let vector = [number as f32, round as f32, 1.0, 0.0];
                    let body = json!({ "points": [{ "id": id, "vector": vector }] });
                    client.result("PUT", "/collections/c/points?wait=true", Some(&body));
                    let body = json!({ "ids": [id] });
                    let found = client.result("POST", "/collections/c/points", Some(&body));
                    assert_eq!(found[0]["id"], id);
                    if seen.load(Ordering::Relaxed) {
                        break;
                    }
                    assert!(Instant::now() < until, "no reader was started");
                }
            });
        }
        scope.spawn(|| {
            while !readers() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(20));
            }
            seen.store(true, Ordering::Relaxed);
        });
    });
    assert!(readers(), "no reader in the metrics");
}
