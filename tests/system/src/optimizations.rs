//! Optimizing beside the work: the shard answers, takes writes and uploads while another instance
//! optimizes a copy of it, and nothing of what came meanwhile is missing afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use edge_sync_host::{
    AutoOptimizeOptions, Cancel, EdgeSync, Error, Event, OptimizeProgress, Point, PointId,
    RestoreSource, SearchRequest, ShardOptions, SnapshotSource,
};
use serde_json::{Value, json};

use crate::first_hour::interrupt;
use crate::served::{Served, edge_sync};
use crate::support::{
    COLLECTION, all_points, component, device, push, server, server_points, sync,
};

/// Indexes as soon as there is a kilobyte, and searches small graphs too.
const INDEXED: &str = r#"{
    "vectors": {"size": 16, "distance": "Euclid", "hnsw_config": {"full_scan_threshold": 10}},
    "optimizers_config": {"indexing_threshold": 1}
}"#;

/// Enough for a graph.
const POINTS: u64 = 600;

fn vector(id: u64) -> Vec<f32> {
    let mut random = fastrand::Rng::with_seed(id);
    (0..16).map(|_| random.f32()).collect()
}

fn point(id: u64, round: u64) -> Point {
    let payload = json!({ "n": id, "round": round });
    Point::dense(id, vector(id * 7 + round))
        .payload(&payload)
        .expect("an object")
}

fn points(ids: impl Iterator<Item = u64>, round: u64) -> Vec<Point> {
    ids.map(|id| point(id, round)).collect()
}

/// Ids of the nearest points, by reading every vector or through the index.
fn nearest(edge: &EdgeSync, to: u64, exact: bool) -> Vec<Value> {
    let body = json!({
        "query": vector(to), "limit": 10, "with_payload": true, "params": {"exact": exact},
    });
    let answer = edge
        .shard()
        .request("POST", "/points/query", &body.to_string());
    let answer: Value = serde_json::from_str(&answer.expect("an answer")).expect("JSON");
    answer["points"].as_array().expect("points").clone()
}

fn held(edge: &EdgeSync) -> Vec<Value> {
    let plain = |point: Value| json!([point["id"], point["vector"], point["payload"]]);
    all_points(edge).into_iter().map(plain).collect()
}

/// Generations that have a folder.
fn generations(data: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(data.join("generations")).expect("generations");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}

fn indexed(edge: &EdgeSync) -> u64 {
    edge.shard().info().expect("its state").indexed_vectors
}

/// What is written while the other instance is at work.
fn write_meanwhile(edge: &EdgeSync) {
    let shard = edge.shard();
    shard.upsert(points(1..=20, 2)).expect("a write");
    shard
        .upsert(points(POINTS + 1..=POINTS + 30, 2))
        .expect("a write");
    let gone = (21..=40).chain(POINTS + 1..=POINTS + 5);
    shard
        .delete(gone.map(PointId::Num).collect())
        .expect("a write");
    shard
        .delete_by_filter(r#"{"must": [{"key": "n", "range": {"gte": 100, "lt": 110}}]}"#)
        .expect("a write");
    let set = json!({"payload": {"mark": true}, "points": [50, 51]});
    shard
        .request("POST", "/points/payload", &set.to_string())
        .expect("a write");
}

#[test]
fn reads_writes_and_uploads_go_on_and_all_of_it_is_in_the_result() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let data = folder.path().join("beside");
    let edge = device(&data, &server)
        // So that the log would forget what was uploaded and flushed.
        .options(ShardOptions::default().log_segment_bytes(Some(4096)))
        .create(INDEXED)
        .expect("a shard");
    edge.shard().upsert(points(1..=POINTS, 1)).expect("a write");
    assert!(edge.shard().needs_optimize().expect("an answer"));

    let mut steps = Vec::new();
    let report = edge.shard().optimize_with(&Cancel::new(), |step| {
        steps.push(step);
        let first_of_the_graph = match step {
            OptimizeProgress::Indexing { .. } => !matches!(
                steps.iter().rev().nth(1),
                Some(OptimizeProgress::Indexing { .. })
            ),
            _ => false,
        };
        if !first_of_the_graph {
            return;
        }
        // The switch waits for this; the other instance does not.
        assert_eq!(generations(&data), ["1", "2"]);
        assert_eq!(nearest(&edge, 7, true).len(), 10);
        write_meanwhile(&edge);
        assert_eq!(indexed(&edge), 0);
        assert!(push(&edge).uploaded > 0);
        // What was returned is flushed and uploaded, and the copy lacks it.
        edge.shard().flush().expect("flushed");
        let status = edge.shard().queue_status().expect("a status");
        assert_eq!((status.queued, status.applied), (0, status.logged));
    });
    let report = report.expect("an optimization");
    let opened = report.opened.as_ref().expect("something to do");
    assert_eq!(opened.generation, 2);
    assert_eq!(opened.notes, Vec::<String>::new());
    assert_eq!(steps.first(), Some(&OptimizeProgress::Copying));
    assert_eq!(steps.last(), Some(&OptimizeProgress::Switching));
    let last = steps.iter().rev().find_map(|step| match step {
        OptimizeProgress::Indexing { indexed, total } => Some((*indexed, *total)),
        _ => None,
    });
    assert_eq!(last, Some((POINTS, POINTS)), "{steps:?}");
    assert_eq!(generations(&data), ["2"]);
    assert!(indexed(&edge) > POINTS / 2);
    // What the log had to keep for this, it need not keep any more.
    edge.shard().flush().expect("flushed");
    let logs = std::fs::read_dir(data.join("log"))
        .expect("the log")
        .count();
    assert_eq!(logs, 1);

    // The same, with nothing beside it.
    let plain = EdgeSync::builder(component(), folder.path().join("plain"))
        .create(INDEXED)
        .expect("a shard");
    plain
        .shard()
        .upsert(points(1..=POINTS, 1))
        .expect("a write");
    assert!(plain.shard().optimize().expect("an optimization"));
    write_meanwhile(&plain);
    assert_eq!(held(&edge), held(&plain));
    assert_eq!(indexed(&edge), indexed(&plain));
    for to in 1..=20 {
        let exact = nearest(&edge, to, true);
        let plain: Vec<_> = nearest(&plain, to, true).iter().map(id_and_score).collect();
        assert_eq!(exact.iter().map(id_and_score).collect::<Vec<_>>(), plain);
        // Through the graph: hardly any is missed, and none is there that is gone.
        let found = nearest(&edge, to, false);
        let same = found.iter().filter(|hit| exact.contains(hit)).count();
        assert!(same >= 8, "{same} of 10 for {to}");
    }

    // It is durable, and uploads go on where they were.
    drop(edge);
    let edge = device(&data, &server).open().expect("opens");
    assert_eq!(edge.shard().notes(), Vec::<String>::new());
    assert_eq!(held(&edge), held(&plain));
    edge.shard().upsert(vec![point(9000, 3)]).expect("a write");
    assert_eq!(push(&edge).uploaded, 1);
    let there = server_points(&server).len();
    assert_eq!(there, held(&edge).len());
}

fn id_and_score(hit: &Value) -> Value {
    json!([hit["id"], hit["score"], hit["payload"]])
}

/// A shard of three segments with an index each. New parameters are due for all of them.
fn three_segments(data: &Path, builders: usize) -> EdgeSync {
    let mut config: Value = serde_json::from_str(INDEXED).expect("JSON");
    config["optimizers_config"]["default_segment_number"] = json!(8);
    let edge = EdgeSync::builder(component(), data)
        .options(ShardOptions::default().builders(builders))
        .create(&config.to_string())
        .expect("a shard");
    for third in 0..3 {
        let ids = third * POINTS + 1..=(third + 1) * POINTS;
        edge.shard().upsert(points(ids, 1)).expect("a write");
        assert!(edge.shard().optimize().expect("an optimization"));
    }
    let changes = json!({"vectors": {"": {"hnsw_config": {"m": 24}}}});
    edge.shard()
        .request("PATCH", "", &changes.to_string())
        .expect("new parameters");
    assert!(edge.shard().needs_optimize().expect("an answer"));
    edge
}

/// Most points of graphs that were built together.
fn most_at_once(edge: &EdgeSync) -> u64 {
    let mut most = 0;
    let report = edge.shard().optimize_with(&Cancel::new(), |step| {
        if let OptimizeProgress::Indexing { total, .. } = step {
            most = most.max(total);
        }
    });
    assert!(report.expect("an optimization").changed());
    most
}

#[test]
fn several_instances_build_several_segments_at_the_same_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let alone = three_segments(&folder.path().join("alone"), 1);
    assert_eq!(most_at_once(&alone), POINTS);
    let data = folder.path().join("together");
    let together = three_segments(&data, 3);
    let built = together.shard().info().expect("its state").segments;

    // Whoever stops them leaves the shard as it was.
    let cancel = Cancel::new();
    let stopped = together.shard().optimize_with(&cancel, |step| {
        if let OptimizeProgress::Indexing { .. } = step {
            cancel.cancel();
        }
    });
    assert!(matches!(stopped, Err(Error::Cancelled)), "{stopped:?}");
    assert!(together.shard().needs_optimize().expect("an answer"));
    assert_eq!(generations(&data), ["4"]);

    assert!(most_at_once(&together) > 2 * POINTS);
    assert_eq!(generations(&data), ["5"]);
    assert!(!data.join("generations/5/shares").exists());
    for edge in [&alone, &together] {
        let info = edge.shard().info().expect("its state");
        assert_eq!((info.segments, info.points), (built, 3 * POINTS));
        assert!(!edge.shard().needs_optimize().expect("an answer"));
    }
    assert_eq!(held(&together), held(&alone));
    assert_eq!(indexed(&together), indexed(&alone));

    // Writes go where they went before, and all of it is durable.
    let edge = together;
    edge.shard().upsert(points(1..=20, 2)).expect("a write");
    edge.shard()
        .delete(vec![PointId::Num(3 * POINTS)])
        .expect("a write");
    let before = held(&edge);
    drop(edge);
    let edge = EdgeSync::builder(component(), &data).open().expect("opens");
    assert_eq!(edge.shard().notes(), Vec::<String>::new());
    assert_eq!(held(&edge), before);
    let exact = nearest(&edge, 5, true);
    let found = nearest(&edge, 5, false);
    let same = found.iter().filter(|hit| exact.contains(hit)).count();
    assert!(same >= 8, "{same} of 10");
}

#[test]
fn as_many_builders_as_can_be_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    for builders in [0, edge_sync_host::MOST_BUILDERS + 1] {
        let refused = EdgeSync::builder(component(), folder.path().join("data"))
            .options(ShardOptions::default().builders(builders))
            .create(INDEXED);
        let error = refused.err().expect("a refusal").to_string();
        assert!(
            error.contains("builders") && error.contains("1..=64"),
            "{error}"
        );
    }
}

/// A shard that was never uploaded is a new one for the server, whatever its generation is.
#[test]
fn a_shard_that_was_optimized_may_still_create_its_collection() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let data = folder.path().join("data");
    let edge = EdgeSync::builder(component(), &data)
        .create(INDEXED)
        .expect("a shard");
    edge.shard().upsert(points(1..=POINTS, 1)).expect("a write");
    assert!(edge.shard().optimize().expect("an optimization"));
    // Once more on top of that.
    edge.shard()
        .upsert(points(POINTS + 1..=2 * POINTS, 1))
        .expect("a write");
    assert!(edge.shard().optimize().expect("an optimization"));
    assert!(!edge.shard().optimize().expect("nothing to do"));
    assert_eq!(generations(&data), ["3"]);
    drop(edge);
    let edge = device(&data, &server).open().expect("opens");
    let report = push(&edge);
    assert!(report.created_collection, "{report:?}");
    assert_eq!(server_points(&server).len() as u64, 2 * POINTS);
}

#[test]
fn what_came_from_the_server_is_kept_and_the_next_pull_fetches_what_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let one = device(&folder.path().join("one"), &server)
        .create(INDEXED)
        .expect("a shard");
    one.shard().upsert(points(1..=POINTS, 1)).expect("a write");
    push(&one);
    assert!(server.optimize(COLLECTION).expect("optimized"));
    let data = folder.path().join("two");
    let two = device(&data, &server).create(INDEXED).expect("a shard");
    sync(&two);
    assert_eq!(held(&two).len() as u64, POINTS);

    let more = POINTS + 1..=2 * POINTS;
    two.shard().upsert(points(more, 1)).expect("a write");
    assert!(two.shard().optimize().expect("an optimization"));
    let generation = two.shard().info().expect("its state").generation;
    assert_eq!(generations(&data), [generation.to_string()]);
    let mirror = format!("generations/{generation}/mirror/0/mirror.json");
    assert!(data.join(mirror).exists());
    push(&two);
    server.take_exchanges();
    assert!(sync(&one).changed());

    one.shard().upsert(vec![point(9000, 1)]).expect("a write");
    push(&one);
    server.take_exchanges();
    let report = two.pull().expect("a pull");
    assert_eq!(report.reasons, Vec::<String>::new());
    let pulled = report.pulled.expect("files");
    assert!(
        pulled.kept_files > 0 && pulled.segments_kept > 0,
        "{pulled:?}"
    );
    let asked: Vec<Value> = server
        .exchanges()
        .iter()
        .filter(|one| one.path.ends_with("/snapshot/partial/create"))
        .filter_map(|one| one.body.clone())
        .collect();
    assert!(
        asked.iter().all(|manifest| *manifest != json!({})),
        "{asked:?}"
    );
    assert_eq!(held(&two).len() as u64, 2 * POINTS + 1);
    assert_eq!(two.shard().count(None).expect("a count"), 2 * POINTS + 1);
}

#[test]
fn cancelling_at_any_step_leaves_the_shard_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let edge = EdgeSync::builder(component(), &data)
        .create(INDEXED)
        .expect("a shard");
    edge.shard().upsert(points(1..=POINTS, 1)).expect("a write");
    let kinds: [fn(&OptimizeProgress) -> bool; 4] = [
        |step| matches!(step, OptimizeProgress::Copying),
        |step| matches!(step, OptimizeProgress::Building),
        |step| matches!(step, OptimizeProgress::Indexing { .. }),
        |step| matches!(step, OptimizeProgress::Switching),
    ];
    for (number, is_due) in (1..).zip(kinds) {
        let cancel = Cancel::new();
        let report = edge.shard().optimize_with(&cancel, |step| {
            if is_due(&step) {
                cancel.cancel();
                edge.shard()
                    .upsert(vec![point(POINTS + number, 2)])
                    .expect("a write");
            }
        });
        match report {
            Err(Error::Cancelled) => {}
            // What is switching already is not given up.
            Ok(report) => assert!(number == 4 && report.changed(), "{number}: {report:?}"),
            Err(error) => panic!("{number}: {error}"),
        }
        let here = if number == 4 { "2" } else { "1" };
        assert_eq!(generations(&data), [here]);
        assert_eq!(held(&edge).len() as u64, POINTS + number);
    }
    assert!(indexed(&edge) > 0);
    assert_eq!(edge.shard().notes(), Vec::<String>::new());
}

#[test]
fn one_at_a_time_and_whoever_comes_second_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(&folder.path().join("data"), &server)
        .create(INDEXED)
        .expect("a shard");
    edge.shard().upsert(points(1..=POINTS, 1)).expect("a write");
    push(&edge);
    let mut tried = 0;
    let report = edge.shard().optimize_with(&Cancel::new(), |step| {
        if let OptimizeProgress::Building | OptimizeProgress::Switching = step {
            tried += 1;
            let source = RestoreSource::Server(SnapshotSource::Stream);
            for outcome in [
                edge.shard().optimize().map(drop),
                edge.pull().map(drop),
                edge.restore(&source, &Cancel::new(), |_| {}).map(drop),
                edge.remove(true),
            ] {
                let Err(error @ Error::Restoring(_)) = outcome else {
                    panic!("{outcome:?}")
                };
                assert!(error.to_string().contains("optimization"), "{error}");
            }
        }
    });
    assert!(report.expect("an optimization").changed());
    assert_eq!(tried, 2);
    // And the other way round.
    edge.shard()
        .upsert(points(POINTS + 1..=2 * POINTS, 1))
        .expect("a write");
    let mut refused = 0;
    edge.pull_with(&Cancel::new(), |_| {
        let outcome = edge.shard().optimize();
        assert!(matches!(outcome, Err(Error::Restoring(_))), "{outcome:?}");
        refused += 1;
    })
    .expect("a pull");
    assert!(refused > 0);
    assert!(edge.shard().optimize().is_ok());
}

/// The host opens the shard again when a call has ended its instance; the copy is none of that.
#[test]
fn an_instance_that_is_lost_meanwhile_costs_one_call() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let options = ShardOptions::default()
        .log_segment_bytes(Some(4096))
        .memory_bytes(256 << 20);
    let edge = device(&folder.path().join("data"), &server)
        .options(options)
        .create(INDEXED)
        .expect("a shard");
    edge.shard().upsert(points(1..=POINTS, 1)).expect("a write");
    let payload = json!({ "text": "x".repeat(4 << 20) });
    let large = |id| {
        let point = Point::dense(id, vector(id)).payload(&payload);
        point.expect("an object")
    };
    let mut lost = 0;
    let report = edge.shard().optimize_with(&Cancel::new(), |step| {
        if step != OptimizeProgress::Building {
            return;
        }
        let outcome = edge.shard().upsert((5000..5100_u64).map(large).collect());
        assert!(
            matches!(outcome, Err(Error::MemoryLimit { .. })),
            "{outcome:?}"
        );
        lost += 1;
        write_meanwhile(&edge);
        push(&edge);
        edge.shard().flush().expect("flushed");
    });
    assert!(report.expect("an optimization").changed());
    assert_eq!(lost, 1);
    let count = edge.shard().count(None).expect("a count");
    assert_eq!(server_points(&server).len() as u64, count);
    assert!(indexed(&edge) > 0);
}

#[test]
fn a_shard_without_a_server_is_optimized_by_itself_when_there_is_enough() {
    let folder = tempfile::tempdir().expect("a folder");
    let soon = AutoOptimizeOptions::default().interval(Duration::from_millis(5));
    let edge = EdgeSync::builder(component(), folder.path().join("data"))
        .auto_optimize(soon.clone())
        .create(INDEXED)
        .expect("a shard");
    let mut events = edge.events();
    for first in (1..POINTS).step_by(100) {
        edge.shard()
            .upsert(points(first..first + 100, 1))
            .expect("a write");
    }
    let generation = events.find_map(|event| match event {
        Event::Optimized { generation } => Some(generation),
        _ => None,
    });
    assert!(generation >= Some(2), "{generation:?}");
    assert!(indexed(&edge) > 0);
    assert_eq!(held(&edge).len() as u64, POINTS);
    // Dropping it gives up what is under way.
    drop(edge);

    // One that has a server leaves that to it.
    let server = server();
    let edge = device(&folder.path().join("other"), &server)
        .auto_optimize(soon)
        .create(INDEXED)
        .expect("a shard");
    edge.shard().upsert(points(1..=POINTS, 1)).expect("a write");
    assert!(push(&edge).uploaded > 0);
    assert!(edge.shard().needs_optimize().expect("an answer"));
    let found = edge
        .shard()
        .search(SearchRequest::nearest("", vector(1), 3));
    assert_eq!(found.expect("an answer").len(), 3);
    assert_eq!(edge.shard().info().expect("its state").generation, 1);
}

#[test]
fn serve_optimizes_by_itself_if_it_is_told_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("colours");
    let edge = EdgeSync::builder(component(), &data)
        .create(INDEXED)
        .expect("a shard");
    edge.shard().upsert(points(1..=POINTS, 1)).expect("a write");
    drop(edge);
    let served = Served::start(&data, &["--auto-optimize"]);
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let info = served.client().result("GET", "/collections/colours", None);
        assert_eq!(info["points_count"], json!(POINTS));
        if info["indexed_vectors_count"].as_u64() > Some(0) {
            break;
        }
        assert!(Instant::now() < end, "{info}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(served.stop().status.success());
    assert_eq!(generations(&data), ["2"]);
}

#[test]
fn an_interrupt_gives_it_up_and_says_what_stays() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let edge = EdgeSync::builder(component(), &data)
        .create(INDEXED)
        .expect("a shard");
    edge.shard()
        .upsert(points(1..=10 * POINTS, 1))
        .expect("a write");
    drop(edge);
    let child = edge_sync(&data, &["optimize"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("the command starts");
    while !data.join("generations/2/optimized.json").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    interrupt(child.id());
    let output = child.wait_with_output().expect("gone");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!(told, "interrupted: the shard is as it was\n");
    assert_eq!(generations(&data), ["1"]);
}

#[test]
fn the_command_is_killed_or_interrupted_and_the_shard_is_as_it_was_or_optimized() {
    const STEPS: u64 = 12;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let edge = EdgeSync::builder(component(), &data)
        .create(INDEXED)
        .expect("a shard");
    edge.shard()
        .upsert(points(1..=4 * POINTS, 1))
        .expect("a write");
    let before = held(&edge);
    drop(edge);
    for step in 0..STEPS {
        let mut child = edge_sync(&data, &["--json", "optimize"])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("the command starts");
        let copy = data.join("generations").join("2");
        while !copy.exists() && child.try_wait().expect("a child").is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // In steps over all that follows; it may have ended.
        std::thread::sleep(Duration::from_millis(25 * step));
        let _ = child.kill();
        child.wait().expect("gone");
        let edge = EdgeSync::builder(component(), &data).open().expect("opens");
        assert_eq!(held(&edge), before, "{step}");
        assert_eq!(generations(&data).len(), 1);
        if indexed(&edge) > 0 {
            assert_eq!(generations(&data), ["2"]);
            return;
        }
        assert_eq!(generations(&data), ["1"]);
        let notes = edge.shard().notes().concat();
        let is_told = notes.is_empty() || notes.contains("the change to generation 2");
        assert!(is_told, "{notes}");
    }
    let done = edge_sync(&data, &["--json", "optimize"])
        .output()
        .expect("the command");
    let printed: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(
        (&printed["changed"], &printed["generation"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(printed["points"], json!(4 * POINTS));
    assert!(printed["indexed_vectors"].as_u64() > Some(0), "{printed}");
    assert!(done.stderr.is_empty());
    let edge = EdgeSync::builder(component(), &data).open().expect("opens");
    assert_eq!(held(&edge), before);
}
