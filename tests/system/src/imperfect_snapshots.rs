//! Snapshots as they come from real servers and through what stands before them: taken while the
//! optimizer ran, stored, late, compressed, or something else altogether.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};

use edge_sync_double::{Fault, QdrantDouble, Rule};
use edge_sync_host::{
    Cancel, EdgeSync, Error, FailureClass, PointId, RestoreProgress, RestoreReport, RestoreSource,
    ServerSettings, SnapshotSource,
};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::time::Duration;

use crate::front::{Canned, Front};
use crate::support::{
    COLLECTION, CONFIG, PARTIAL, all_points, component, device, impatient, point, server,
    server_points,
};

const STREAM: &str = "/shards/0/snapshot";
const SNAPSHOTS: &str = "/collections/devices/shards/0/snapshots";

/// The contents of a gzipped fixture.
fn gunzipped(name: &str) -> Vec<u8> {
    let path = edge_sync_fixtures::folder().join(name);
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(path).expect("the fixture is there"))
        .read_to_end(&mut bytes)
        .expect("gzip");
    bytes
}

fn fixture(name: &str) -> Value {
    let path = edge_sync_fixtures::folder().join(name);
    serde_json::from_slice(&fs::read(path).expect("the fixture is there")).expect("JSON")
}

fn by_id(points: impl IntoIterator<Item = Value>) -> BTreeMap<u64, Value> {
    points
        .into_iter()
        .map(|point| (point["id"].as_u64().expect("a number"), point))
        .collect()
}

/// The points that the server of a fixture held.
fn expected(name: &str) -> BTreeMap<u64, Value> {
    by_id(
        BufReader::new(gunzipped(name).as_slice())
            .lines()
            .map(|line| serde_json::from_str(&line.expect("text")).expect("JSON")),
    )
}

fn assert_holds(edge: &EdgeSync, expected: &BTreeMap<u64, Value>) {
    let found = by_id(all_points(edge));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (id, point) in expected {
        assert_eq!(found[id]["payload"], point["payload"], "{id}");
        assert_eq!(found[id]["vector"], point["vector"], "{id}");
    }
}

/// A device behind a front that does not wait long for an optimizer, and that lets no request for
/// what changed through: what comes is a snapshot of everything.
fn behind(front: &Front, directory: &Path) -> EdgeSync {
    front.answer("POST", PARTIAL, None, Canned::no_such_path());
    EdgeSync::builder(component(), directory)
        .server(ServerSettings::new(front.url(), COLLECTION))
        .sync_options(impatient().settle(Duration::ZERO).attempts(3))
        .attach()
        .expect("a directory")
}

fn restore(edge: &EdgeSync, source: SnapshotSource) -> Result<RestoreReport, Error> {
    edge.restore(&RestoreSource::Server(source), &Cancel::new(), |_| {})
}

/// A server that holds 7,900 points, and a device that deleted a hundred. Another hundred was
/// overwritten. The snapshot in front of it was taken while the optimizer ran.
struct Unsettled {
    server: QdrantDouble,
    front: Front,
    edge: EdgeSync,
    folder: tempfile::TempDir,
}

fn unsettled() -> Unsettled {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshot = gunzipped("qdrant-1.19-unsettled/full.tar.gz");
    let file = folder.path().join("unsettled.snapshot");
    fs::write(&file, &snapshot).expect("written");
    let server = server();
    server.restore(COLLECTION, &file).expect("a collection");
    let front = Front::of(server.address());
    let edge = behind(&front, &folder.path().join("data"));
    edge.restore(&RestoreSource::File(file), &Cancel::new(), |_| {})
        .expect("a restore");
    edge.shard()
        .delete((0..100).map(PointId::Num).collect())
        .expect("a delete");
    assert_eq!(edge.push().expect("a report").remaining, 0);
    let info = fixture("qdrant-1.19-unsettled/info.json");
    front.answer(
        "GET",
        "/optimizations",
        None,
        Canned::result(&info["before"]["result"]),
    );
    front.answer(
        "GET",
        STREAM,
        None,
        Canned::ok("application/octet-stream", snapshot),
    );
    Unsettled {
        server,
        front,
        edge,
        folder,
    }
}

#[test]
fn a_snapshot_taken_while_the_optimizer_ran_is_repaired_and_called_unsettled() {
    let it = unsettled();
    let mut waits = 0;
    let source = RestoreSource::Server(SnapshotSource::Stream);
    let report = it
        .edge
        .restore(&source, &Cancel::new(), |step| {
            waits += u32::from(matches!(step, RestoreProgress::Settling { .. }));
        })
        .expect("a restore");
    assert_eq!(waits, 0, "the wait is bounded, here by nothing");
    assert_eq!(report.duplicates_removed, 100);
    assert_eq!(report.deletes_applied, 100);
    assert_eq!(report.points, 7_900);
    let why = report.unsettled.expect("it is unsettled");
    assert!(why.contains("optimizer ran"), "{why}");
    assert_holds(&it.edge, &expected("qdrant-1.19-unsettled/points.jsonl.gz"));
    // Nothing of the repair is uploaded.
    assert_eq!(it.edge.shard().queue_status().expect("status").queued, 0);
    assert_eq!(it.edge.shard().count(None).expect("a count"), 7_900);
}

#[test]
fn what_another_device_made_anew_is_not_deleted_again() {
    let it = unsettled();
    let body = json!({ "points": [{ "id": 7, "vector": vec![1.0; 16] }] });
    it.server
        .inspect(COLLECTION, "PUT", "/points", &body)
        .expect("a write");
    // And what this device wrote again itself is not either.
    it.edge
        .shard()
        .upsert(vec![
            edge_sync_host::Point::new(PointId::Num(8)).with_vector("", vec![0.5; 16]),
        ])
        .expect("a write");
    let report = restore(&it.edge, SnapshotSource::Stream).expect("a restore");
    assert_eq!(report.deletes_applied, 98);
    let held = by_id(all_points(&it.edge));
    assert!(held.contains_key(&7) && held.contains_key(&8) && !held.contains_key(&9));
}

#[test]
fn a_server_that_does_not_answer_is_no_reason_to_delete() {
    let it = unsettled();
    it.server.faults().add(
        Rule::on("POST", "/points$")
            .fault(Fault::status(500, "not now"))
            .always(),
    );
    let report = restore(&it.edge, SnapshotSource::Stream).expect("a restore");
    assert_eq!(report.deletes_applied, 0);
    let why = report.unsettled.expect("it is unsettled");
    assert!(why.contains("up to 100 points"), "{why}");
    assert_eq!(it.edge.shard().count(None).expect("a count"), 8_000);
}

#[test]
fn a_settled_snapshot_is_believed() {
    let it = unsettled();
    // The server's own snapshot, at rest: what comes back in it was made anew.
    it.front.clear();
    let report = restore(&it.edge, SnapshotSource::Stream).expect("a restore");
    assert_eq!(report.unsettled, None);
    assert_eq!(report.deletes_applied, 0);
    assert_eq!(it.edge.shard().count(None).expect("a count"), 7_900);
}

#[test]
fn an_optimization_that_ended_meanwhile_is_noticed() {
    let it = unsettled();
    let state = |completed: &Value| json!({ "summary": {}, "running": [], "completed": completed });
    let front = Front::of(it.server.address());
    let states = [
        json!([]),
        json!([{ "uuid": "908d4a6a-ec42-4da5-bfb2-9654d7de0a9d" }]),
    ];
    for completed in states {
        let answer = Canned::result(&state(&completed));
        front.answer("GET", "/optimizations", Some(1), answer);
    }
    let edge = behind(&front, &it.folder.path().join("other"));
    let report = restore(&edge, SnapshotSource::Stream).expect("a restore");
    let why = report.unsettled.expect("it is unsettled");
    assert!(why.contains("ended on the server"), "{why}");
}

#[test]
fn a_running_optimization_is_waited_for() {
    let it = unsettled();
    let front = Front::of(it.server.address());
    let running = json!({ "summary": {}, "running": [{ "uuid": "a" }], "completed": [] });
    front.answer("GET", "/optimizations", Some(1), Canned::result(&running));
    let done = json!({ "summary": {}, "running": [], "completed": [{ "uuid": "a" }] });
    front.answer("GET", "/optimizations", None, Canned::result(&done));
    let edge = EdgeSync::builder(component(), it.folder.path().join("other"))
        .server(ServerSettings::new(front.url(), COLLECTION))
        .sync_options(impatient())
        .attach()
        .expect("a directory");
    let mut waits = 0;
    let source = RestoreSource::Server(SnapshotSource::Stream);
    let report = edge
        .restore(&source, &Cancel::new(), |step| {
            waits += u32::from(matches!(step, RestoreProgress::Settling { .. }));
        })
        .expect("a restore");
    assert_eq!((waits, report.unsettled), (1, None));
}

#[test]
fn a_real_stored_snapshot_restores_from_a_server_and_from_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let snapshot = gunzipped("qdrant-1.19-stored/shard.snapshot.gz");
    let points = expected("qdrant-1.19-stored/points.jsonl.gz");
    let made = fixture("qdrant-1.19-stored/created.json");
    let name = made["result"]["name"].as_str().expect("a name").to_owned();
    let server = server();
    let file = folder.path().join("stored.snapshot");
    fs::write(&file, &snapshot).expect("written");
    server.restore(COLLECTION, &file).expect("a collection");
    let front = Front::of(server.address());
    front.answer("GET", SNAPSHOTS, None, Canned::result(&json!([])));
    front.answer(
        "POST",
        SNAPSHOTS,
        None,
        Canned::ok("application/json", made.to_string()),
    );
    let optimizations = json!({ "summary": {}, "running": [], "completed": [] });
    front.answer(
        "GET",
        "/optimizations",
        None,
        Canned::result(&optimizations),
    );
    let length = format!("content-length: {}", snapshot.len());
    front.answer(
        "GET",
        &name,
        None,
        Canned::ok("application/octet-stream", snapshot.clone()).header(&length),
    );
    front.answer("DELETE", &name, None, Canned::result(&json!(true)));
    let edge = behind(&front, &folder.path().join("data"));
    let report = restore(&edge, SnapshotSource::Stored).expect("a restore");
    assert_eq!(report.points, 1017);
    assert_holds(&edge, &points);
    assert_eq!(front.count("DELETE", &name), 1);

    // From a file, compressed too.
    for (name, bytes) in [("plain", snapshot.clone()), ("gz", gzipped(&snapshot))] {
        let file = folder.path().join(name);
        fs::write(&file, bytes).expect("written");
        edge.restore(&RestoreSource::File(file), &Cancel::new(), |_| {})
            .expect(name);
        assert_holds(&edge, &points);
    }
    let file = folder.path().join("page");
    fs::write(&file, "<html><title>Sign in</title></html>").expect("written");
    let error = edge
        .restore(&RestoreSource::File(file), &Cancel::new(), |_| {})
        .expect_err("no snapshot");
    assert!(error.to_string().contains("HTML page"), "{error}");
    assert_holds(&edge, &points);
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A device with 30 points on the server, behind a front that lets no request for what changed
/// through.
fn uploaded(folder: &Path) -> (QdrantDouble, Front, EdgeSync) {
    let server = server();
    let front = Front::of(server.address());
    front.answer("POST", PARTIAL, None, Canned::no_such_path());
    let edge = device(&folder.join("data"), &server)
        .server(ServerSettings::new(front.url(), COLLECTION))
        .create(CONFIG)
        .expect("a shard");
    edge.shard()
        .upsert((0..30).map(point).collect())
        .expect("a write");
    assert_eq!(edge.push().expect("a report").remaining, 0);
    (server, front, edge)
}

/// What the server has stored.
fn on_server(server: &QdrantDouble) -> usize {
    let listed = server.client().result("GET", SNAPSHOTS, None);
    listed.as_array().expect("a list").len()
}

fn ledger(folder: &Path) -> PathBuf {
    folder.join("data/staging/snapshots-on-server.json")
}

#[test]
fn lost_answers_leave_no_snapshots_on_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, _front, edge) = uploaded(folder.path());
    server.faults().add(
        Rule::on("POST", SNAPSHOTS)
            .fault(Fault::DropAnswer)
            .times(3),
    );
    restore(&edge, SnapshotSource::Stored).expect("a restore");
    let posts = |server: &QdrantDouble| {
        let exchanges = server.exchanges();
        let posts = exchanges
            .iter()
            .filter(|exchange| exchange.method == "POST" && exchange.path.starts_with(SNAPSHOTS));
        posts.count()
    };
    assert_eq!(posts(&server), 1, "the one whose answer was lost was found");
    assert_eq!(on_server(&server), 0);
    assert!(!ledger(folder.path()).exists());
    assert_eq!(all_points(&edge), server_points(&server));

    // A request that did not arrive is made again.
    server.faults().clear();
    server
        .faults()
        .add(Rule::on("POST", SNAPSHOTS).fault(Fault::DropRequest));
    restore(&edge, SnapshotSource::Stored).expect("a restore");
    assert_eq!(on_server(&server), 0);
}

#[test]
fn the_snapshot_of_another_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, _front, edge) = uploaded(folder.path());
    server.client().result("POST", SNAPSHOTS, None);
    server
        .faults()
        .add(Rule::on("POST", SNAPSHOTS).fault(Fault::DropAnswer));
    restore(&edge, SnapshotSource::Stored).expect("a restore");
    assert_eq!(on_server(&server), 1);
}

#[test]
fn what_could_not_be_deleted_is_deleted_by_the_next_restore() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, _front, edge) = uploaded(folder.path());
    server
        .faults()
        .add(Rule::on("DELETE", "/snapshots/").fault(Fault::status(500, "not now")));
    restore(&edge, SnapshotSource::Stored).expect("a restore");
    assert_eq!(on_server(&server), 1);
    assert!(ledger(folder.path()).exists());
    restore(&edge, SnapshotSource::Stream).expect("a restore");
    assert_eq!(on_server(&server), 0);
    assert!(!ledger(folder.path()).exists());
}

#[test]
fn a_stored_snapshot_that_somebody_deleted_is_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, front, edge) = uploaded(folder.path());
    let gone = Canned {
        head: vec!["404 Not Found".to_owned()],
        body: b"Not found: Snapshot not found".to_vec(),
        silent: false,
    };
    front.answer("GET", ".snapshot", Some(1), gone);
    restore(&edge, SnapshotSource::Stored).expect("a restore");
    assert_eq!(front.count("POST", "/snapshots"), 2);
    assert_eq!(all_points(&edge), server_points(&server));
}

#[test]
fn a_server_that_is_busy_with_another_snapshot_is_asked_to_store_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, front, edge) = uploaded(folder.path());
    front.answer("GET", STREAM, None, Canned::empty_of(1000));
    let (mut stored, mut said) = (false, Vec::new());
    let report = edge
        .restore(
            &RestoreSource::Server(SnapshotSource::Stream),
            &Cancel::new(),
            |step| match step {
                RestoreProgress::StoredInstead => stored = true,
                RestoreProgress::Waiting { failure, .. } => said.push(failure.to_string()),
                _ => {}
            },
        )
        .expect("a restore");
    assert!(stored);
    assert_eq!(front.count("GET", STREAM), 2, "{said:?}");
    assert!(
        said.iter()
            .all(|words| words.contains("before the snapshot began")),
        "{said:?}"
    );
    assert!(
        said.iter().all(|words| !words.contains("handle")),
        "{said:?}"
    );
    assert_eq!(report.points, 30);
    assert_eq!(on_server(&server), 0);
}

#[test]
fn a_cut_is_told_in_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, _front, edge) = uploaded(folder.path());
    server
        .faults()
        .add(Rule::on("GET", STREAM).fault(Fault::CutBody { after: 5_000 }));
    let mut said = Vec::new();
    edge.restore(
        &RestoreSource::Server(SnapshotSource::Stream),
        &Cancel::new(),
        |step| {
            if let RestoreProgress::Waiting { failure, .. } = step {
                said.push(failure.to_string());
            }
        },
    )
    .expect("a restore");
    // A kept connection may end as well, before the download begins.
    let last = said.last().expect("words for the cut");
    assert!(
        last.contains("after 5000 bytes: the connection was cut"),
        "{said:?}"
    );
    for words in &said {
        assert!(words.contains("the connection was cut"), "{said:?}");
        assert!(!words.contains("StreamError"), "{said:?}");
    }
}

#[test]
fn a_silent_download_ends_at_once_when_it_is_cancelled() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_server, front, edge) = uploaded(folder.path());
    for (source, path) in [
        (SnapshotSource::Stream, STREAM),
        (SnapshotSource::Stored, ".snapshot"),
    ] {
        let silence = Canned {
            silent: true,
            ..Canned::empty_of(1000)
        };
        front.answer("GET", path, None, silence.clone());
        // Nor does the deletion of what was stored hold it up for long.
        front.answer("DELETE", path, None, silence);
        let cancel = Cancel::new();
        let outcome = std::thread::scope(|scope| {
            let restore = scope.spawn(|| {
                let source = RestoreSource::Server(source);
                edge.restore(&source, &cancel, |_| {})
            });
            while front.count("GET", path) == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            cancel.cancel();
            restore.join().expect("no panic")
        });
        assert!(matches!(outcome, Err(Error::Cancelled)), "{outcome:?}");
        assert_eq!(all_points(&edge).len(), 30);
    }
    // What could not be deleted is remembered.
    assert!(ledger(folder.path()).exists());
}

#[test]
fn compressed_downloads_are_decoded_or_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (server, front, edge) = uploaded(folder.path());
    let mut answer = server
        .client()
        .send("GET", "/collections/devices/shards/0/snapshot", &[], None)
        .expect("an answer");
    let snapshot = answer.body_mut().read_to_vec().expect("a snapshot");
    let octets = "application/octet-stream";
    let compressed = |encoding: &str| {
        Canned::ok(octets, gzipped(&snapshot)).header(&format!("content-encoding: {encoding}"))
    };
    front.answer("GET", STREAM, Some(1), compressed("gzip"));
    restore(&edge, SnapshotSource::Stream).expect("decoded");
    assert_eq!(all_points(&edge).len(), 30);

    let stopped = |source, words: &str| {
        let error = restore(&edge, source).expect_err(words);
        assert_eq!(error.failure_class(), Some(FailureClass::Stop), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert_eq!(all_points(&edge).len(), 30);
    };
    front.answer("GET", STREAM, Some(1), compressed("br"));
    stopped(SnapshotSource::Stream, "arrives compressed (br)");
    front.answer("GET", ".snapshot", Some(1), compressed("gzip"));
    stopped(SnapshotSource::Stored, "arrives compressed (gzip)");
    assert_eq!(on_server(&server), 0);

    // A portal's page is passing: the next attempt gets the snapshot.
    front.answer(
        "GET",
        STREAM,
        Some(1),
        Canned::ok("text/html", "<html>Sign in</html>"),
    );
    restore(&edge, SnapshotSource::Stream).expect("the second attempt");
    let asked = server.exchanges();
    let downloads = asked.iter().filter(|exchange| {
        exchange.method == "GET" && exchange.headers.contains_key("accept-encoding")
    });
    let downloads: Vec<_> = downloads
        .filter(|exchange| exchange.path.ends_with(STREAM))
        .map(|exchange| exchange.headers["accept-encoding"].as_str())
        .collect();
    assert!(!downloads.is_empty() && downloads.iter().all(|it| *it == "identity"));
}

#[test]
fn a_shard_that_is_not_there_stops_with_the_servers_words() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    server.client().result(
        "PUT",
        "/collections/devices",
        Some(&json!({"vectors": {"size": 4, "distance": "Dot"}})),
    );
    for source in [SnapshotSource::Stream, SnapshotSource::Stored] {
        let mut settings = ServerSettings::new(server.url(), COLLECTION);
        settings.shard = Some(99);
        let edge = EdgeSync::builder(component(), folder.path())
            .server(settings)
            .sync_options(impatient())
            .attach()
            .expect("a directory");
        server.take_exchanges();
        let error = restore(&edge, source).expect_err("no such shard");
        assert_eq!(error.failure_class(), Some(FailureClass::Stop), "{error}");
        assert!(
            error
                .to_string()
                .contains("no shard 99; its only shard is 0"),
            "{error}"
        );
        let asked = server.take_exchanges();
        let asked = asked.iter().filter(|it| it.path.contains("/snapshot"));
        assert_eq!(asked.count(), 0, "it is known before");
    }
}
