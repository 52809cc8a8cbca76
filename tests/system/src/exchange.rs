//! The exchange with a server, and with what stands in front of one, as it goes wrong in the field:
//! the queue is never stuck behind one operation, never emptied into the rejected log, and a device
//! is never emptied by a restore.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use edge_sync_double::{Exchange, Fault, Options, QdrantDouble, Reply, Results, RetryAfter, Rule};
use edge_sync_host::{
    Cancel, Direction, EdgeSync, Error, FailureClass, HttpLimits, Point, PointId, Progress,
    RejectedOperation, RestoreReport, RestoreSource, ServerSettings, SnapshotSource, SyncOptions,
    SyncPermissions, SyncReport,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::commands::result;
use crate::served::edge_sync;
use crate::support::{COLLECTION, CONFIG, PARTIAL, all_points, device, impatient, point, server};

/// Requests that carry writes.
const BATCH: &str = "^/collections/devices/points/batch";

/// The server's collection.
const PATH: &str = "/collections/devices";

/// Refusals in the same words after which nothing more is put aside.
const MOST_ALIKE: u64 = 5;

/// What a run of the command left.
#[derive(Debug)]
struct Ran {
    code: i32,
    output: String,
    errors: String,
}

impl Ran {
    /// What it printed last.
    fn result(&self) -> Value {
        let last = self.output.lines().last().expect("an output");
        serde_json::from_str(last).expect("JSON")
    }

    /// Why it failed, in the words of the error.
    fn why(&self) -> String {
        let error = self
            .errors
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|line| line.get("error").cloned())
            .unwrap_or_else(|| panic!("no error: {self:?}"));
        error["message"].as_str().expect("words").to_owned()
    }
}

/// Runs the command with few attempts, and requests as small as the library's; `settings` are flags that
/// name the server.
fn ran(data: &Path, settings: &[&str], arguments: &[&str], api_key: Option<&str>) -> Ran {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "attempts = 3\nbatch_operations = 10").expect("written");
    let mut command = edge_sync(data, &["--json", "--config-file"]);
    command
        .arg(file.path())
        .args(settings)
        .args(arguments)
        .stdin(Stdio::null());
    if let Some(key) = api_key {
        command.env("QDRANT_API_KEY", key);
    }
    let output = command.output().expect("the command runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Ran {
        code: output.status.code().expect("an exit code"),
        output: text(output.stdout),
        errors: text(output.stderr),
    }
}

/// Runs the command against the collection of the tests on `server`.
fn ran_at(data: &Path, server: &QdrantDouble, arguments: &[&str]) -> Ran {
    let url = server.url();
    ran(
        data,
        &["--url", &url, "--collection", COLLECTION],
        arguments,
        None,
    )
}

/// A shard with the points 1 to `count`, which nobody has uploaded.
fn filled(data: &Path, server: &QdrantDouble, count: u64) -> EdgeSync {
    let edge = device(data, server).create(CONFIG).expect("a shard");
    edge.shard()
        .upsert((1..=count).map(point).collect())
        .expect("a write");
    edge
}

/// As [`filled`], and uploaded.
fn synced(data: &Path, server: &QdrantDouble, count: u64) -> EdgeSync {
    let edge = filled(data, server, count);
    let _ = drain(&edge);
    edge
}

/// The shard in another process, as it were: what is known of the server is what the directory says.
fn reopened(edge: EdgeSync, server: &QdrantDouble) -> EdgeSync {
    let data = edge.shard().directory().to_owned();
    drop(edge);
    device(&data, server).open().expect("a shard")
}

/// Uploads everything; nothing may be left or be refused.
fn drain(edge: &EdgeSync) -> SyncReport {
    let report = edge.push().expect("a report");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (0, 0), "{report:?}");
    report
}

fn restore(edge: &EdgeSync) -> Result<RestoreReport, Error> {
    let source = RestoreSource::Server(SnapshotSource::Stream);
    edge.restore(&source, &Cancel::new(), |_| {})
}

/// A device that has what the server has.
fn restored(data: &Path, server: &QdrantDouble) -> EdgeSync {
    let edge = device(data, server).attach().expect("a directory");
    restore(&edge).expect("a restore");
    edge
}

/// A request of the points API to the shard.
fn write(edge: &EdgeSync, method: &str, path: &str, body: &Value) {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    edge.shard()
        .request(method, path, &body)
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
}

/// What the server holds in order of id, whatever the script says.
fn on_server(server: &QdrantDouble) -> Vec<Value> {
    let body = json!({ "limit": 1_000_000, "with_payload": true, "with_vector": true });
    let page = server
        .inspect(COLLECTION, "POST", "/points/scroll", &body)
        .expect("a collection");
    page["points"].as_array().expect("points").clone()
}

/// The ids that the server holds.
fn ids(server: &QdrantDouble) -> Vec<u64> {
    let points = on_server(server);
    let number = |point: &Value| point["id"].as_u64().expect("a number");
    points.iter().map(number).collect()
}

/// Names of the collections on the server.
fn collections(server: &QdrantDouble) -> Vec<String> {
    let listed = server.client().result("GET", "/collections", None);
    let listed = listed["collections"].as_array().expect("a list");
    let name = |one: &Value| one["name"].as_str().expect("a name").to_owned();
    listed.iter().map(name).collect()
}

fn make_collection(server: &QdrantDouble, name: &str, config: &Value) {
    let path = format!("/collections/{name}");
    server.client().result("PUT", &path, Some(config));
}

fn config() -> Value {
    serde_json::from_str(CONFIG).expect("JSON")
}

fn rejected(edge: &EdgeSync) -> Vec<RejectedOperation> {
    edge.shard().rejected(0, 1000).expect("a list")
}

fn waiting(edge: &EdgeSync) -> u64 {
    edge.shard().queue_status().expect("a status").queued
}

/// Why a sync ended, in words; empty if it came to its end.
fn words(report: &SyncReport) -> String {
    report
        .failure
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// The failure is one that passes: the command exits with 6.
fn passes(report: &SyncReport) -> bool {
    let class = report.failure.as_ref().and_then(Error::failure_class);
    matches!(class, Some(FailureClass::Retry | FailureClass::Unclear))
}

/// The failure is one that a person has to see to: the command exits with 7.
fn stops(report: &SyncReport) -> bool {
    let class = report.failure.as_ref().and_then(Error::failure_class);
    class == Some(FailureClass::Stop)
}

fn on_batches(fault: Fault) -> Rule {
    Rule::on("POST", BATCH).fault(fault).always()
}

fn on_everything(fault: Fault) -> Rule {
    Rule::on("*", "").fault(fault).always()
}

// What the server does not have.

#[test]
fn a_change_to_a_point_that_is_gone_is_put_aside_alone() {
    let changes = [
        (
            "POST",
            "/points/payload",
            json!({"payload": {"seen": 1}, "points": [1]}),
        ),
        (
            "PUT",
            "/points/payload",
            json!({"payload": {"seen": 1}, "points": [1]}),
        ),
        (
            "POST",
            "/points/payload/delete",
            json!({"keys": ["n"], "points": [1]}),
        ),
        (
            "PUT",
            "/points/vectors",
            json!({"points": [{"id": 1, "vector": [1, 2, 3, 4]}]}),
        ),
    ];
    for (method, path, body) in changes {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let a = synced(&folder.path().join("a"), &server, 5);
        let b = restored(&folder.path().join("b"), &server);
        a.shard().delete(vec![PointId::Num(1)]).expect("a deletion");
        let _ = drain(&a);
        write(&b, method, path, &body);
        b.shard().upsert(vec![point(6)]).expect("a write");

        let report = b.push().expect("a report");
        assert!(report.failure.is_none(), "{path}: {report:?}");
        assert_eq!((report.rejected, report.remaining), (1, 0), "{path}");
        let aside = rejected(&b);
        assert_eq!((aside[0].sequence, aside[0].status), (1, 404), "{path}");
        let why = &aside[0].message;
        assert!(why.contains("No point with id 1 found"), "{path}: {why}");
        assert_eq!(ids(&server), [2, 3, 4, 5, 6], "{path}");
        // A restore drains first, and is not held up either.
        restore(&b).expect("a restore");
        assert_eq!(all_points(&b), on_server(&server), "{path}");
    }
}

#[test]
fn a_sync_that_put_something_aside_says_so_by_its_exit_code() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let server = server();
    let first = synced(&a, &server, 5);
    drop(restored(&b, &server));
    first
        .shard()
        .delete(vec![PointId::Num(1)])
        .expect("a deletion");
    let _ = drain(&first);
    let body = json!({"payload": {"seen": 1}, "points": [1]});
    result(&b, &["payload", "set"], &body);
    let point = json!({"id": 6, "vector": [1, 2, 3, 4]});
    result(&b, &["upsert"], &point);
    let sync = ran(&b, &[], &["sync"], None);
    assert_eq!(sync.code, 10, "{sync:?}");
    assert_eq!(
        (&sync.result()["uploaded"], &sync.result()["rejected"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(server.count(COLLECTION).expect("a count"), 5);
    assert_eq!(ran(&b, &[], &["restore"], None).code, 0);
}

#[test]
fn the_points_that_are_there_still_get_their_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let a = synced(&folder.path().join("a"), &server, 100);
    let b = restored(&folder.path().join("b"), &server);
    let gone = [1, 70].map(PointId::Num).to_vec();
    a.shard().delete(gone).expect("a deletion");
    let _ = drain(&a);
    let all: Vec<u64> = (1..=100).collect();
    let body = json!({"payload": {"seen": 1}, "points": all});
    write(&b, "POST", "/points/payload", &body);
    let report = b.push().expect("a report");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (1, 0));
    assert!(rejected(&b)[0].message.contains("No point with id 1 found"));
    let points = on_server(&server);
    assert_eq!(points.len(), 98);
    for point in points {
        assert_eq!(point["payload"]["seen"], 1, "{point}");
    }
}

#[test]
fn changes_to_a_point_that_was_refused_follow_it_and_come_back_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = filled(folder.path(), &server, 10);
    let body = json!({"payload": {"seen": 1}, "points": [7]});
    write(&edge, "POST", "/points/payload", &body);
    edge.shard().upsert(vec![point(11)]).expect("a write");
    // Only the write of the point itself; that of its payload meets a server without it.
    let upsert = r#"\{"id":7,"#;
    server
        .faults()
        .add(on_batches(Fault::status(400, "Bad request: no sevens here")).with_text(upsert));
    let report = edge.push().expect("a report");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (2, 0));
    let statuses: Vec<_> = rejected(&edge).iter().map(|one| one.status).collect();
    assert_eq!(statuses, [400, 404]);
    assert_eq!(ids(&server), [1, 2, 3, 4, 5, 6, 8, 9, 10, 11]);

    server.faults().clear();
    edge.shard().retry_all_rejected().expect("a retry");
    let _ = drain(&edge);
    assert_eq!(on_server(&server), all_points(&edge));
}

#[test]
fn a_server_without_the_route_of_an_operation_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = synced(folder.path(), &server, 3);
    let vector = json!({"dense": {"size": 2, "distance": "Dot"}});
    write(&edge, "PUT", "/vectors/extra", &vector);
    edge.shard().upsert(vec![point(4)]).expect("a write");
    server.faults().add(
        Rule::on("PUT", "^/collections/devices/vectors/")
            .fault(Fault::plain_text(404, ""))
            .always(),
    );
    let report = edge.push().expect("a report");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (1, 0));
    assert_eq!(rejected(&edge)[0].status, 404);
    assert_eq!(ids(&server), [1, 2, 3, 4]);
}

#[test]
fn what_is_to_go_and_is_gone_is_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let named = json!({"vectors": {
        "a": {"size": 2, "distance": "Dot"},
        "b": {"size": 2, "distance": "Dot"},
    }});
    let a = device(&folder.path().join("a"), &server)
        .create(&named.to_string())
        .expect("a shard");
    let body = json!({"points": [{"id": 1, "vector": {"a": [1, 2], "b": [3, 4]}}]});
    write(&a, "PUT", "/points", &body);
    a.shard()
        .create_payload_index("n", "\"integer\"")
        .expect("an index");
    let _ = drain(&a);
    let b = restored(&folder.path().join("b"), &server);
    for edge in [&a, &b] {
        write(edge, "DELETE", "/vectors/b", &Value::Null);
        edge.shard().delete_payload_index("n").expect("a deletion");
        let body = json!({"points": [{"id": 2, "vector": {"a": [5, 6]}}]});
        write(edge, "PUT", "/points", &body);
        let _ = drain(edge);
    }
    assert_eq!(on_server(&server), all_points(&b));
}

// Which collection it is.

#[test]
fn a_collection_that_is_gone_is_told_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    let edge = synced(data, &server, 100);
    server.client().result("DELETE", PATH, None);
    edge.shard().upsert(vec![point(101)]).expect("a write");
    drop(edge);

    for command in ["sync", "restore", "sync"] {
        let stopped = ran_at(data, &server, &[command]);
        assert_eq!(stopped.code, 7, "{stopped:?}");
        let why = stopped.why();
        assert!(why.contains("is not there"), "{why}");
        assert!(why.contains("sync --resend"), "{why}");
        assert_eq!(collections(&server), [""; 0], "{command}");
    }
    let status = result(data, &["status"], &Value::Null);
    assert_eq!(
        (&status["queued"], &status["points"]),
        (&json!(1), &json!(101))
    );
    let told = status["last_error"]["message"].as_str().expect("words");
    assert!(told.contains("is not there"), "{status}");

    let resent = ran_at(data, &server, &["sync", "--resend"]);
    assert_eq!(resent.code, 0, "{resent:?}");
    assert_eq!(resent.result()["created_collection"], true);
    assert_eq!(ids(&server), (1..=101).collect::<Vec<_>>());
    let again = ran_at(data, &server, &["sync"]);
    assert_eq!((again.code, &again.result()["uploaded"]), (0, &json!(0)));
}

#[test]
fn a_collection_that_was_made_anew_gets_nothing_and_empties_no_device() {
    for (made_by_device, filled_meanwhile) in [(true, false), (false, false), (false, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let server = server();
        if !made_by_device {
            make_collection(&server, COLLECTION, &config());
        }
        let edge = synced(data, &server, 20);
        server.client().result("DELETE", PATH, None);
        make_collection(&server, COLLECTION, &config());
        let fill = || {
            for id in 1..=60 {
                let body = json!({"points": [{"id": id, "vector": [id, 0, 0, 1]}]});
                let path = format!("{PATH}/points?wait=true");
                server.client().result("PUT", &path, Some(&body));
            }
        };
        if filled_meanwhile {
            fill();
        }
        let theirs = server.count(COLLECTION).expect("a count");
        let body = json!({"payload": {"seen": 1}, "points": [7]});
        write(&edge, "POST", "/points/payload", &body);
        edge.shard().upsert(vec![point(21)]).expect("a write");
        let edge = reopened(edge, &server);
        let report = edge.push().expect("a report");
        assert!(stops(&report), "{report:?}");
        assert!(words(&report).contains("anew"), "{}", words(&report));
        assert!(words(&report).contains("sync --resend"));
        assert_eq!((rejected(&edge).len(), waiting(&edge)), (0, 2));
        assert_eq!(server.count(COLLECTION).expect("a count"), theirs);

        // Others may fill it since: it does not become the one that it was.
        fill();
        assert!(stops(&edge.push().expect("a report")));
        let refused = restore(&edge).expect_err("another collection");
        assert_eq!(refused.failure_class(), Some(FailureClass::Stop));
        assert_eq!(all_points(&edge).len(), 21);
        assert_eq!(on_server(&server).len(), 60);
        drop(edge);

        // What a person may decide.
        let forced = ran_at(data, &server, &["restore", "--force"]);
        assert_eq!(forced.code, 0, "{forced:?}");
        let edge = device(data, &server).open().expect("a shard");
        let _ = drain(&edge);
        assert_eq!(all_points(&edge), on_server(&server));
    }
}

#[test]
fn everything_is_sent_again_to_a_collection_that_was_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = synced(folder.path(), &server, 20);
    edge.shard()
        .create_payload_index("n", "\"integer\"")
        .expect("an index");
    edge.shard()
        .delete(vec![PointId::Num(3)])
        .expect("a deletion");
    let _ = drain(&edge);
    server.client().result("DELETE", PATH, None);
    make_collection(&server, COLLECTION, &config());
    let permissions = SyncPermissions::default().resend(true);
    let report = edge
        .sync_permitted(Direction::Push, permissions, &Cancel::new(), |_| {})
        .expect("a report");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (0, 0));
    assert!(!report.created_collection);
    assert_eq!(on_server(&server), all_points(&edge));
    let info = server.client().result("GET", PATH, None);
    assert_eq!(
        info["payload_schema"]["n"]["data_type"], "integer",
        "{info}"
    );
    edge.shard().upsert(vec![point(30)]).expect("a write");
    assert_eq!(drain(&edge).uploaded, 1);
}

#[test]
fn a_server_that_went_back_to_a_backup_is_told_and_gets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = synced(&folder.path().join("a"), &server, 5);
    let path = format!("{PATH}/shards/0/snapshot");
    let answer = server.client().send("GET", &path, &[], None);
    let mut bytes = Vec::new();
    answer
        .expect("an answer")
        .into_body()
        .into_reader()
        .read_to_end(&mut bytes)
        .expect("a snapshot");
    let backup = folder.path().join("backup.snapshot");
    std::fs::write(&backup, bytes).expect("written");
    edge.shard()
        .upsert((6..=25).map(point).collect())
        .expect("a write");
    let _ = drain(&edge);

    server.restore(COLLECTION, &backup).expect("restored");
    edge.shard().upsert(vec![point(26)]).expect("a write");
    let edge = reopened(edge, &server);
    let report = edge.push().expect("a report");
    assert!(stops(&report), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (0, 1));
    assert_eq!(ids(&server), [1, 2, 3, 4, 5]);
    restore(&edge).expect_err("a backup");
    assert_eq!(all_points(&edge).len(), 26);
}

fn lead_to(server: &QdrantDouble, collection: &str) {
    let body = json!({"actions": [
        {"delete_alias": {"alias_name": COLLECTION}},
        {"create_alias": {"alias_name": COLLECTION, "collection_name": collection}},
    ]});
    let path = "/collections/aliases";
    server.client().result("POST", path, Some(&body));
}

#[test]
fn an_alias_that_leads_elsewhere_now_is_another_collection() {
    // In a process of its own, and in one that goes on: there it has nothing to go by but what it
    // asks, since the other collection has counted further.
    for goes_on in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        for name in ["blue", "green"] {
            make_collection(&server, name, &config());
        }
        let body = json!({"points": [{"id": 1, "vector": [9, 9, 9, 9]}]});
        for _ in 0..50 {
            let path = "/collections/green/points?wait=true";
            server.client().result("PUT", path, Some(&body));
        }
        lead_to(&server, "blue");
        let mut edge = synced(folder.path(), &server, 5);
        assert_eq!(server.count("blue").expect("a count"), 5);
        lead_to(&server, "green");
        edge.shard().upsert(vec![point(6)]).expect("a write");
        if !goes_on {
            edge = reopened(edge, &server);
        }
        let report = edge.push().expect("a report");
        assert!(stops(&report), "goes on: {goes_on}: {report:?}");
        let why = words(&report);
        assert!(why.contains("blue") && why.contains("green"), "{why}");
        restore(&edge).expect_err("another collection");
        assert_eq!(server.count("green").expect("a count"), 1);
        assert_eq!(all_points(&edge).len(), 6);
    }
}

#[test]
fn a_collection_that_is_replaced_under_a_running_process_confirms_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = synced(folder.path(), &server, 30);
    server.client().result("DELETE", PATH, None);
    make_collection(&server, COLLECTION, &config());
    edge.shard()
        .upsert((31..=60).map(point).collect())
        .expect("a write");
    let report = edge.push().expect("a report");
    assert!(stops(&report), "{report:?}");
    assert_eq!((report.uploaded, report.remaining), (0, 30));
    assert_eq!((rejected(&edge).len(), all_points(&edge).len()), (0, 60));
}

#[test]
fn a_typo_in_the_collection_makes_nothing_and_takes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    let edge = synced(data, &server, 6);
    edge.shard().upsert(vec![point(7)]).expect("a write");
    drop(edge);
    let url = server.url();
    // One that is not there, and one that is and holds a single point.
    make_collection(&server, "device", &config());
    let body = json!({"points": [{"id": 1, "vector": [9, 9, 9, 9]}]});
    let path = "/collections/device/points?wait=true";
    server.client().result("PUT", path, Some(&body));
    for name in ["devicse", "device"] {
        for command in [&["sync"][..], &["sync", "--resend"], &["restore"]] {
            let flags = ["--url", &url, "--collection", name];
            let stopped = ran(data, &flags, command, None);
            assert_eq!(stopped.code, 7, "{stopped:?}");
            let why = stopped.why();
            for said in [name, COLLECTION, "--rebind"] {
                assert!(why.contains(said), "{said}: {why}");
            }
        }
    }
    assert_eq!(collections(&server), ["device", COLLECTION]);
    assert_eq!(server.count("device").expect("a count"), 1);
    // What was refused has queued nothing.
    assert_eq!(result(data, &["status"], &Value::Null)["queued"], 1);
    assert_eq!(result(data, &["count"], &json!({})), json!({"count": 7}));
    // The right one is known by now.
    let sync = ran(data, &[], &["sync"], None);
    assert_eq!((sync.code, &sync.result()["uploaded"]), (0, &json!(1)));
    assert_eq!(ids(&server), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_restore_makes_no_collection() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let fresh = ran_at(&folder.path().join("fresh"), &server, &["restore"]);
    assert_eq!(fresh.code, 7, "{fresh:?}");
    let data = folder.path().join("filled");
    drop(filled(&data, &server, 3));
    let stopped = ran_at(&data, &server, &["restore"]);
    assert_eq!(stopped.code, 7, "{stopped:?}");
    assert_eq!(collections(&server), [""; 0]);
    assert_eq!(result(&data, &["count"], &json!({})), json!({"count": 3}));
}

#[test]
fn the_same_collection_in_a_new_place_needs_rebind_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    let edge = synced(data, &server, 5);
    edge.shard().upsert(vec![point(6)]).expect("a write");
    drop(edge);
    let moved = server.url().replace("127.0.0.1", "localhost");
    let flags = ["--url", &moved, "--collection", COLLECTION];
    for command in ["sync", "restore"] {
        let stopped = ran(data, &flags, &[command], None);
        assert_eq!(stopped.code, 7, "{stopped:?}");
        assert!(stopped.why().contains("--rebind"), "{stopped:?}");
    }
    assert_eq!(server.count(COLLECTION).expect("a count"), 5);
    let rebound = ran(data, &flags, &["sync", "--rebind"], None);
    assert_eq!(rebound.code, 0, "{rebound:?}");
    assert_eq!(ids(&server), [1, 2, 3, 4, 5, 6]);

    // From now on the new place is meant, and needs neither flag nor variable.
    let status = result(data, &["status"], &Value::Null);
    assert_eq!(status["server"], format!("{moved}{PATH}"));
    for command in ["sync", "restore"] {
        let done = ran(data, &[], &[command], None);
        assert_eq!(done.code, 0, "{done:?}");
    }
    assert_eq!(ran_at(data, &server, &["sync"]).code, 7);
}

#[test]
fn an_empty_server_is_not_taken_for_the_one_that_was_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let (before, after) = (server(), server());
    drop(synced(data, &before, 20));
    for arguments in [&["sync"][..], &["restore"], &["sync", "--rebind"]] {
        let stopped = ran_at(data, &after, arguments);
        assert_eq!(stopped.code, 7, "{arguments:?}: {stopped:?}");
        assert_eq!(collections(&after), [""; 0], "{arguments:?}");
    }
    let sent = ran_at(data, &after, &["sync", "--rebind", "--resend"]);
    assert_eq!(sent.code, 0, "{sent:?}");
    assert_eq!(ids(&after), (1..=20).collect::<Vec<_>>());
    assert_eq!(on_server(&before), on_server(&after));
}

#[test]
fn a_restore_that_would_drop_most_points_asks_first() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    drop(synced(data, &server, 40));
    let other = restored(&folder.path().join("other"), &server);
    let gone = (5..=40).map(PointId::Num).collect();
    other.shard().delete(gone).expect("a deletion");
    let _ = drain(&other);
    let held = || result(data, &["count"], &json!({}))["count"].clone();
    let asks = ran(data, &[], &["restore"], None);
    assert_eq!(asks.code, 11, "{asks:?}");
    let why = asks.why();
    assert!(why.contains("4 points") && why.contains("40"), "{why}");
    assert_eq!(held(), 40);
    let forced = ran(data, &[], &["restore", "--force"], None);
    assert_eq!(forced.code, 0, "{forced:?}");
    assert_eq!(held(), 4);
}

// What the collection must be like.

#[test]
fn a_collection_of_shard_keys_stops_with_the_reason_where_no_key_is_named() {
    let said = "sharded by keys";
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("a");
    let server = server();
    let mut config = config();
    config["sharding_method"] = json!("custom");
    make_collection(&server, COLLECTION, &config);
    drop(filled(&data, &server, 5));
    for command in ["sync", "restore"] {
        let stopped = ran_at(&data, &server, &[command]);
        assert_eq!(stopped.code, 7, "{stopped:?}");
        assert!(stopped.why().contains(said), "{stopped:?}");
    }
    let fresh = ran_at(&folder.path().join("b"), &server, &["restore"]);
    assert_eq!(fresh.code, 7, "{fresh:?}");
    assert!(fresh.why().contains(said), "{fresh:?}");
    assert_eq!(server.count(COLLECTION).expect("a count"), 0);
    let status = result(&data, &["status"], &Value::Null);
    assert_eq!(
        (&status["points"], &status["queued"], &status["rejected"]),
        (&json!(5), &json!(5), &json!(0))
    );
}

#[test]
fn what_a_newer_server_adds_to_its_answers_does_not_matter() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = synced(&folder.path().join("a"), &server, 5);
    let mut info = server.client().result("GET", PATH, None);
    info["status"] = json!("purple");
    info["optimizer_status"] = json!({"unheard_of": [1, {"a": null}]});
    info["new"] = json!({"fields": true});
    info["config"]["new"] = json!([[]]);
    info["config"]["params"]["new"] = json!(1.5);
    info["config"]["params"]["vectors"]["new"] = json!({"storage": "holographic"});
    info["config"]["params"]["vectors"]["memory"] = json!(7);
    info["config"]["hnsw_config"] = json!("another shape");
    info["config"]["optimizer_config"] = Value::Null;
    let newer = Fault::Results(Results::Replaced(info));
    let rule = Rule::on("GET", "^/collections/devices$").fault(newer);
    server.faults().add(rule.always());
    edge.shard().upsert(vec![point(6)]).expect("a write");
    assert_eq!(drain(&edge).uploaded, 1);
    restore(&edge).expect("a restore");
    let other = restored(&folder.path().join("b"), &server);
    assert_eq!(all_points(&other), on_server(&server));
    assert_eq!(all_points(&edge), on_server(&server));
}

#[test]
fn a_named_vector_that_only_one_side_has_does_not_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    let dense = json!({"size": 2, "distance": "Dot"});
    let named = json!({"vectors": {"a": dense}});
    let point = |id: u64, vector: Value| json!({"points": [{"id": id, "vector": vector}]});
    let upsert = |body: &Value| result(data, &["upsert", "--body", "-"], body);
    result(data, &["create", "--config", "-"], &named);
    upsert(&point(1, json!({"a": [1, 2]})));
    assert_eq!(ran_at(data, &server, &["sync"]).code, 0);

    // Each of these commands is a new process: the queue holds what mends the difference.
    let body = json!({"dense": dense});
    result(data, &["vectors", "create", "b"], &body);
    upsert(&point(2, json!({"a": [1, 2], "b": [3, 4]})));
    let sync = ran_at(data, &server, &["sync"]);
    assert_eq!(sync.code, 0, "{sync:?}");
    assert_eq!(sync.result()["uploaded"], 2);

    // Another device has added one, and dropped one, of which nothing is queued here.
    let client = server.client();
    let vectors = format!("{PATH}/vectors");
    client.result("PUT", &format!("{vectors}/c?wait=true"), Some(&body));
    client.result("DELETE", &format!("{vectors}/b?wait=true"), None);
    upsert(&point(3, json!({"a": [5, 6]})));
    let sync = ran_at(data, &server, &["sync"]);
    assert_eq!(sync.code, 0, "{sync:?}");
    assert_eq!(ids(&server), [1, 2, 3]);

    // One in common that is not the same is another collection.
    client.result("DELETE", &format!("{vectors}/a?wait=true"), None);
    let other = json!({"dense": {"size": 3, "distance": "Dot"}});
    client.result("PUT", &format!("{vectors}/a?wait=true"), Some(&other));
    upsert(&point(4, json!({"a": [5, 6]})));
    let stopped = ran_at(data, &server, &["sync"]);
    assert_eq!(stopped.code, 7, "{stopped:?}");
    assert!(stopped.why().contains("`a` is 2 x"), "{stopped:?}");
    assert_eq!(result(data, &["rejected", "list"], &Value::Null), json!([]));
}

// What an answer means.

#[test]
fn only_the_shape_of_an_acknowledgement_is_one() {
    let envelope = |result: Value| json!({"result": result, "status": "ok", "time": 0.0});
    let answers = [
        Reply::json(200, &json!({"result": null})),
        Reply::json(200, &envelope(Value::Null)),
        Reply::json(200, &envelope(json!([]))),
        Reply::json(200, &envelope(json!(false))),
        Reply::json(200, &envelope(json!(true))),
        Reply::json(200, &envelope(json!("login page"))),
        Reply::json(200, &envelope(json!({"status": "completed"}))),
        Reply::json(
            200,
            &envelope(json!([{"status": "completed"}, {"status": "completed"}])),
        ),
        Reply::json(202, &envelope(json!([{"status": "completed"}]))),
        Reply::json(200, &json!([{"status": "completed"}])),
        Reply::json(200, &json!(false)),
        Reply::json(204, &json!("")),
        Reply::html(200, "Welcome to our hotel"),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = filled(folder.path(), &server, 15);
    for answer in answers {
        server
            .faults()
            .add(on_batches(Fault::Reply(answer.clone())));
        let report = edge.push().expect("a report");
        assert!(passes(&report), "{answer:?}: {report:?}");
        assert_eq!(
            (report.uploaded, report.rejected, report.remaining),
            (0, 0, 15),
            "{answer:?}"
        );
        server.faults().clear();
    }
    assert_eq!(drain(&edge).uploaded, 15);
    assert_eq!(on_server(&server), all_points(&edge));
}

#[test]
fn what_the_server_took_but_did_not_confirm_is_looked_after() {
    // Applied, and confirmed less than that.
    let results = [
        Results::First,
        Results::Status("acknowledged"),
        Results::Status("wait_timeout"),
    ];
    for results in results {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = filled(folder.path(), &server, 12);
        server
            .faults()
            .add(on_batches(Fault::Results(results.clone())));
        let report = edge.push().expect("a report");
        assert!(report.failure.is_none(), "{results:?}: {report:?}");
        assert_eq!((report.uploaded, report.rejected), (12, 0), "{results:?}");
        assert_eq!(on_server(&server), all_points(&edge), "{results:?}");
    }
    // Not applied, whatever it says.
    for status in ["acknowledged", "wait_timeout"] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = filled(folder.path(), &server, 1);
        let body = json!({"result": [{"status": status}], "status": "ok", "time": 0.0});
        server
            .faults()
            .add(on_batches(Fault::Reply(Reply::json(200, &body))));
        let report = edge.push().expect("a report");
        assert!(report.failure.is_some(), "{status}: {report:?}");
        assert_eq!(
            (report.uploaded, report.rejected, report.remaining),
            (0, 0, 1),
            "{status}"
        );
        server.faults().clear();
        let _ = drain(&edge);
        assert_eq!(ids(&server), [1], "{status}");
    }
}

#[test]
fn a_portal_is_passing_and_never_followed() {
    for status in [301, 302, 303, 307, 308] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let (server, elsewhere) = (server(), server());
        drop(filled(data, &server, 3));
        let host = elsewhere.url().replace("127.0.0.1", "localhost");
        let location = format!("{host}/login?from=device");
        let portal = Fault::Reply(Reply::redirect(status, &location));
        server.faults().add(on_everything(portal));
        for command in ["sync", "restore"] {
            let stopped = ran_at(data, &server, &[command]);
            assert_eq!(stopped.code, 6, "{stopped:?}");
            assert!(stopped.why().contains(&location), "{stopped:?}");
        }
        assert_eq!(elsewhere.exchanges().len(), 0);
        server.faults().clear();
        let sync = ran_at(data, &server, &["sync"]);
        assert_eq!((sync.code, &sync.result()["uploaded"]), (0, &json!(3)));
    }
}

#[test]
fn a_portal_in_the_middle_of_an_upload_puts_nothing_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = filled(folder.path(), &server, 30);
    server.faults().add(on_batches(Fault::portal()).skip(1));
    let report = edge.push().expect("a report");
    assert!(passes(&report), "{report:?}");
    assert!(
        words(&report).contains("portal.invalid/login"),
        "{report:?}"
    );
    assert_eq!(
        (report.uploaded, report.rejected, report.remaining),
        (10, 0, 20)
    );
    // On the same host it is the URL that is not quite right, which does not pass.
    server.faults().clear();
    let slash = Reply::redirect(301, "/qdrant/collections/devices");
    server.faults().add(on_everything(Fault::Reply(slash)));
    let report = edge.push().expect("a report");
    assert!(stops(&report), "{report:?}");
    assert!(words(&report).contains("/qdrant/"), "{report:?}");
}

#[test]
fn a_payload_that_a_firewall_refuses_is_isolated() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    let edge = device(data, &server).create(CONFIG).expect("a shard");
    let noted = |id: u64| {
        let note = match id {
            3 => "DELETE FROM a; DROP TABLE b;",
            _ => "harmless",
        };
        Point {
            payload: Some(json!({ "note": note }).to_string()),
            ..point(id)
        }
    };
    edge.shard()
        .upsert((1..=5).map(noted).collect())
        .expect("a write");
    drop(edge);
    let blocked = Fault::Reply(Reply::html(403, "Request blocked by policy 17"));
    server
        .faults()
        .add(on_batches(blocked).with_text("DROP TABLE|information_schema"));
    let sync = ran_at(data, &server, &["sync"]);
    assert_eq!(sync.code, 10, "{sync:?}");
    assert_eq!(ids(&server), [1, 2, 4, 5]);
    let aside = result(data, &["rejected", "list"], &Value::Null);
    assert_eq!(aside.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&aside[0]["sequence"], &aside[0]["status"]),
        (&json!(3), &json!(403))
    );
    let why = aside[0]["message"].as_str().expect("words");
    assert!(why.contains("Request blocked by policy 17"), "{why}");
    let restored = ran_at(data, &server, &["restore"]);
    assert_eq!(restored.code, 0, "{restored:?}");
    let told = "1 refused point is only in the rejected log now";
    assert!(
        restored.errors.contains(told) || restored.output.contains(told),
        "{restored:?}"
    );
}

#[test]
fn a_firewall_that_refuses_everything_stops_and_puts_nothing_aside() {
    for rule in [
        on_batches(Fault::firewall()),
        on_everything(Fault::firewall()),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        drop(filled(folder.path(), &server, 12));
        server.faults().add(rule);
        let stopped = ran_at(folder.path(), &server, &["sync"]);
        assert_eq!(stopped.code, 7, "{stopped:?}");
        let why = stopped.why();
        assert!(
            why.contains("403") && why.contains("Request blocked"),
            "{why}"
        );
        let status = result(folder.path(), &["status"], &Value::Null);
        assert_eq!(
            (&status["queued"], &status["rejected"]),
            (&json!(12), &json!(0))
        );
    }
}

#[test]
fn a_refusal_of_every_write_stops_after_a_few() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = filled(folder.path(), &server, 500);
    let words_of_server = "Wrong input: Shard key not specified";
    server
        .faults()
        .add(on_batches(Fault::status(400, words_of_server)).with_text("upsert"));
    for run in 0..3 {
        let report = edge.push().expect("a report");
        assert!(stops(&report), "{run}: {report:?}");
        assert!(words(&report).contains(words_of_server), "{report:?}");
        let aside = rejected(&edge).len() as u64;
        assert!(aside <= MOST_ALIKE, "{run}: {aside} put aside");
        assert_eq!(waiting(&edge), 500 - aside, "{run}");
    }
    server.faults().clear();
    edge.shard().retry_all_rejected().expect("a retry");
    let _ = drain(&edge);
    assert_eq!(on_server(&server), all_points(&edge));
}

#[test]
fn a_full_collection_stops_the_queue_and_what_was_put_aside_goes_out_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    drop(synced(data, &server, 0));
    let limit = |most: u64| {
        let body = json!({"strict_mode_config": {"enabled": true, "max_points_count": most}});
        server.client().result("PATCH", PATH, Some(&body));
    };
    limit(10);
    let edge = device(data, &server).open().expect("a shard");
    edge.shard()
        .upsert((1..=500).map(point).collect())
        .expect("a write");
    drop(edge);
    let stopped = ran_at(data, &server, &["sync"]);
    assert_eq!(stopped.code, 7, "{stopped:?}");
    let why = stopped.why();
    assert!(
        why.contains("Max points count limit of 10 reached"),
        "{why}"
    );
    assert!(why.contains("rejected retry --all"), "{why}");
    let status = result(data, &["status"], &Value::Null);
    let aside = status["rejected"].as_u64().expect("a number");
    assert!((1..=MOST_ALIKE).contains(&aside), "{status}");
    assert_eq!(status["queued"], 490 - aside, "{status}");

    limit(100_000);
    result(data, &["rejected", "retry", "--all"], &Value::Null);
    let sync = ran_at(data, &server, &["sync"]);
    assert_eq!(sync.code, 0, "{sync:?}");
    assert_eq!(ids(&server), (1..=500).collect::<Vec<_>>());
    assert_eq!(result(data, &["rejected", "list"], &Value::Null), json!([]));
}

#[test]
fn a_vector_that_is_dropped_during_an_upload_does_not_empty_the_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let dense = json!({"size": 2, "distance": "Dot"});
    let named = json!({"vectors": {"a": dense, "b": dense}});
    let edge = device(folder.path(), &server)
        .create(&named.to_string())
        .expect("a shard");
    let points: Vec<Value> = (1..=60)
        .map(|id| json!({"id": id, "vector": {"a": [id, 1], "b": [1, id]}}))
        .collect();
    write(&edge, "PUT", "/points", &json!({ "points": points }));
    let drop_vector = format!("{PATH}/vectors/b?wait=true");
    let mut dropped = false;
    let report = edge
        .sync_with(&Cancel::new(), |step| {
            if let Progress::Uploaded { .. } = step
                && !dropped
            {
                server.client().result("DELETE", &drop_vector, None);
                dropped = true;
            }
        })
        .expect("a report");
    assert!(stops(&report), "{report:?}");
    assert!(report.rejected <= MOST_ALIKE, "{report:?}");
    assert!(words(&report).contains("vector name"), "{report:?}");
    let create = json!({ "dense": dense });
    let path = format!("{PATH}/vectors/b?wait=true");
    server.client().result("PUT", &path, Some(&create));
    edge.shard().retry_all_rejected().expect("a retry");
    let _ = drain(&edge);
    assert_eq!(ids(&server), (1..=60).collect::<Vec<_>>());
}

#[test]
fn a_proxy_that_refuses_for_a_while_condemns_nothing() {
    for status in [400, 404, 405, 411, 421, 451, 502] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = filled(folder.path(), &server, 30);
        let page = Fault::Reply(Reply::html(status, "Out of order"));
        for rule in [on_batches(page.clone()).skip(1), on_everything(page)] {
            server.faults().add(rule);
            let report = edge.push().expect("a report");
            assert!(passes(&report), "{status}: {report:?}");
            assert!(words(&report).contains("Out of order"), "{report:?}");
            assert_eq!((report.rejected, report.remaining), (0, 20), "{status}");
            server.faults().clear();
        }
        // Shorter than a sync's patience, it is not even noticed.
        let page = Fault::Reply(Reply::html(status, "Out of order"));
        server.faults().add(Rule::on("*", "").fault(page).times(4));
        assert_eq!(drain(&edge).uploaded, 20, "{status}");
        assert_eq!(on_server(&server), all_points(&edge), "{status}");
    }
}

#[test]
fn requests_say_how_long_they_are_and_want_plain_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    server.faults().add(
        Rule::on("*", "")
            .chunked()
            .fault(Fault::length_required())
            .always(),
    );
    let edge = synced(folder.path(), &server, 25);
    edge.shard()
        .create_payload_index("n", "\"integer\"")
        .expect("an index");
    let vector = json!({"dense": {"size": 2, "distance": "Dot"}});
    write(&edge, "PUT", "/vectors/extra", &vector);
    write(&edge, "DELETE", "/vectors/extra", &Value::Null);
    edge.shard().delete_payload_index("n").expect("a deletion");
    let _ = drain(&edge);
    for source in [SnapshotSource::Stream, SnapshotSource::Stored] {
        edge.restore(&RestoreSource::Server(source), &Cancel::new(), |_| {})
            .expect("a restore");
    }
    let exchanges = server.exchanges();
    for exchange in &exchanges {
        let header = |name: &str| exchange.headers.get(name).map(String::as_str);
        let what = format!("{} {}", exchange.method, exchange.path);
        assert_eq!(header("accept-encoding"), Some("identity"), "{what}");
        assert_eq!(header("transfer-encoding"), None, "{what}");
        if exchange.body_bytes > 0 {
            let bytes = exchange.body_bytes.to_string();
            assert_eq!(header("content-length"), Some(&*bytes), "{what}");
            assert_eq!(header("content-type"), Some("application/json"), "{what}");
        }
    }
    // Writes are confirmed when they are applied, and replicas keep their order.
    let is_write = |exchange: &&Exchange| {
        let below = exchange.path.strip_prefix(PATH).unwrap_or_default();
        let writing = ["/points/batch", "/index", "/vectors"];
        exchange.method != "GET" && writing.iter().any(|path| below.starts_with(path))
    };
    let writes: Vec<_> = exchanges.iter().filter(is_write).collect();
    assert!(writes.len() >= 7, "{}", writes.len());
    for exchange in writes {
        let query = &exchange.query;
        assert!(query.contains("ordering=strong"), "{query}");
        let probe = json!({"operations": [{"delete": {"points": [PROBE_POINT]}}]});
        let looks = exchange.body.as_ref() == Some(&probe);
        assert!(query.contains("wait=true") || looks, "{query}");
    }
    let created = exchanges
        .iter()
        .find(|exchange| exchange.method == "PUT" && exchange.path == PATH);
    let body = created.and_then(|exchange| exchange.body.as_ref());
    assert_eq!(body.expect("a body")["shard_number"], 1);
}

/// Deleting it changes nothing: no device writes it.
const PROBE_POINT: &str = "ed6e0000-5e1f-8000-8000-000000000000";

// How much, and how fast.

/// Retries at once, whatever the server asks for.
fn hurried() -> SyncOptions {
    impatient().backoff(
        impatient()
            .backoff
            .retry_after_cap(Duration::from_millis(1)),
    )
}

fn limit_rate(server: &QdrantDouble, points: u32) {
    let limit = json!({"strict_mode_config": {"enabled": true, "write_rate_limit": points}});
    server.client().result("PATCH", PATH, Some(&limit));
}

/// Uploads to a server whose minute passes whenever it is waited for.
fn sync_by_the_minute(edge: &EdgeSync, server: &QdrantDouble) -> SyncReport {
    edge.sync_with(&Cancel::new(), |step| {
        if let Progress::Waiting { .. } = step {
            server.refill_rate_limit(COLLECTION).expect("a collection");
        }
    })
    .expect("a report")
}

#[test]
fn batches_shrink_below_a_rate_limit() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(folder.path(), &server)
        .sync_options(hurried())
        .create(CONFIG)
        .expect("a shard");
    let _ = drain(&edge);
    limit_rate(&server, 5);
    edge.shard()
        .upsert((1..=20).map(point).collect())
        .expect("a write");
    let report = sync_by_the_minute(&edge, &server);
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (0, 0));
    assert_eq!(on_server(&server), all_points(&edge));
}

#[test]
fn an_operation_on_more_points_than_a_rate_limit_is_split() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = device(folder.path(), &server)
        .sync_options(hurried())
        .create(CONFIG)
        .expect("a shard");
    edge.shard()
        .upsert((1..=50).map(point).collect())
        .expect("a write");
    let _ = drain(&edge);
    limit_rate(&server, 5);
    let filter = json!({"must": [{"key": "n", "range": {"gte": 0}}]});
    let body = json!({"payload": {"seen": true}, "filter": filter});
    write(&edge, "POST", "/points/payload", &body);
    let report = sync_by_the_minute(&edge, &server);
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (0, 0));
    assert_eq!(on_server(&server), all_points(&edge));
}

#[test]
fn a_rate_limit_below_one_point_stops_and_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    drop(filled(folder.path(), &server, 20));
    server
        .faults()
        .add(on_batches(Fault::larger_than_rate_limit()));
    let stopped = ran_at(folder.path(), &server, &["sync"]);
    assert_eq!(stopped.code, 7, "{stopped:?}");
    assert!(stopped.why().contains("write_rate_limit"), "{stopped:?}");
    let status = result(folder.path(), &["status"], &Value::Null);
    assert_eq!(
        (&status["queued"], &status["rejected"]),
        (&json!(20), &json!(0))
    );
}

#[test]
fn a_large_operation_that_is_refused_before_it_is_sent_ends_up_aside() {
    let words_of_qdrant = json!({"status": {"error":
        "Wrong input: JSON payload (2000000 bytes) is larger than allowed (limit: 1048576 bytes)."
    }, "time": 0.0});
    let refusals = [
        Fault::too_large_at_once(),
        Fault::Early {
            reply: Reply::html(413, "413 Request Entity Too Large"),
            after: 64 << 10,
        },
        Fault::Early {
            reply: Reply::json(400, &words_of_qdrant),
            after: 0,
        },
        Fault::too_large(),
    ];
    for refusal in refusals {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = filled(folder.path(), &server, 1);
        let large = json!({"text": "x".repeat(2_000_000)}).to_string();
        let large = Point {
            payload: Some(large),
            ..point(2)
        };
        edge.shard().upsert(vec![large]).expect("a write");
        edge.shard().upsert(vec![point(3)]).expect("a write");
        server
            .faults()
            .add(on_batches(refusal.clone()).larger_than(500_000));
        let report = edge.push().expect("a report");
        assert!(report.failure.is_none(), "{refusal:?}: {report:?}");
        assert_eq!((report.rejected, report.remaining), (1, 0), "{refusal:?}");
        assert_eq!(ids(&server), [1, 3], "{refusal:?}");
        let aside = rejected(&edge).remove(0);
        let why = aside.message.to_lowercase();
        assert!(why.contains("2000"), "its size is not told: {why}");
        // Closing a connection on which more is sent may take the answer away with it.
        if aside.status > 0 {
            assert!(matches!(aside.status, 400 | 413), "{aside:?}");
            assert!(why.contains("large"), "{why}");
        } else {
            assert!(matches!(refusal, Fault::Early { .. }), "{aside:?}");
        }

        server.faults().clear();
        edge.shard().retry_all_rejected().expect("a retry");
        let _ = drain(&edge);
        assert_eq!(on_server(&server), all_points(&edge));
    }
}

#[test]
fn large_operations_on_which_the_connection_is_closed_end_up_aside_with_their_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = filled(folder.path(), &server, 2);
    // More than may be refused alike: each is refused for its own size.
    let large = |id: u64| Point {
        payload: Some(json!({"text": "x".repeat(600_000)}).to_string()),
        ..point(id)
    };
    edge.shard()
        .upsert((3..=10).map(large).collect())
        .expect("a write");
    edge.shard().upsert(vec![point(11)]).expect("a write");
    server
        .faults()
        .add(on_batches(Fault::DropRequest).larger_than(500_000));
    let report = edge.push().expect("a report");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (8, 0));
    assert_eq!(ids(&server), [1, 2, 11]);
    for aside in rejected(&edge) {
        assert!(aside.message.contains("6000"), "{}", aside.message);
    }
}

#[test]
fn an_operation_on_more_ids_than_a_request_may_carry_is_split() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = QdrantDouble::start(Options {
        body_limit: 32 << 10,
        ..Options::default()
    })
    .expect("a server");
    let edge = device(data, &server).create(CONFIG).expect("a shard");
    let old = |number: u64| Point {
        id: PointId::Uuid(format!("6ba7b810-9dad-41d1-80b4-{number:012x}")),
        payload: Some(json!({"kind": "old"}).to_string()),
        ..point(number)
    };
    for first in (0..3000).step_by(500) {
        edge.shard()
            .upsert((first..first + 500).map(old).collect())
            .expect("a write");
    }
    let _ = drain(&edge);
    drop(edge);
    let filter = json!({"must": [{"key": "kind", "match": {"value": "old"}}]});
    let body = json!({"payload": {"seen": true}, "filter": filter});
    result(data, &["payload", "set"], &body);
    let sync = ran_at(data, &server, &["sync"]);
    assert_eq!(sync.code, 0, "{sync:?}");
    let seen = json!({"filter": {"must": [{"key": "seen", "match": {"value": true}}]}});
    let count = server.inspect(COLLECTION, "POST", "/points/count", &seen);
    assert_eq!(count.expect("a count")["count"], 3000);

    result(
        data,
        &["delete", "--filter", &filter.to_string()],
        &Value::Null,
    );
    let sync = ran_at(data, &server, &["sync"]);
    assert_eq!(sync.code, 0, "{sync:?}");
    assert_eq!(server.count(COLLECTION).expect("a count"), 0);
    assert_eq!(result(data, &["rejected", "list"], &Value::Null), json!([]));
}

#[test]
fn odd_waits_that_a_server_asks_for_are_capped_or_ignored() {
    let passing = [
        RetryAfter::Text("-1"),
        RetryAfter::Text("1.5"),
        RetryAfter::Text(""),
        RetryAfter::Text("soon"),
        RetryAfter::Text("Sun, 06 Nov 1994 08:49:37 GMT"),
    ];
    let long = [
        RetryAfter::Seconds(86_400),
        RetryAfter::Text("18446744073709551615"),
        RetryAfter::Text("99999999999999999999999999"),
        RetryAfter::Date(Duration::from_secs(370 * 86_400)),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = filled(folder.path(), &server, 1);
    let sync = || {
        edge.sync_with(&Cancel::new(), |step| {
            if let Progress::Waiting { after, failure } = step {
                assert!(after < Duration::from_secs(5), "{after:?}: {failure}");
            }
        })
        .expect("a report")
    };
    for odd in long {
        let busy = Fault::too_many_requests(odd);
        server.faults().add(Rule::on("POST", BATCH).fault(busy));
        let report = sync();
        assert!(passes(&report), "{odd:?}: {report:?}");
        assert_eq!((report.rejected, report.remaining), (0, 1), "{odd:?}");
        assert_eq!(server.faults().pending(), 0);
    }
    for odd in passing {
        let busy = Fault::too_many_requests(odd);
        server.faults().add(Rule::on("POST", BATCH).fault(busy));
        edge.shard().upsert(vec![point(2)]).expect("a write");
        let report = sync();
        assert!(report.failure.is_none(), "{odd:?}: {report:?}");
        assert_eq!(report.remaining, 0, "{odd:?}");
        assert_eq!(server.faults().pending(), 0);
    }
}

#[test]
fn a_command_in_the_foreground_says_when_to_come_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = synced(folder.path(), &server, 5);
    edge.shard().upsert(vec![point(6)]).expect("a write");
    drop(edge);
    let writes = Rule::on("POST", BATCH).with_text("upsert");
    let downloads = Rule::on("POST", PARTIAL);
    for (command, rule) in [("sync", writes), ("restore", downloads)] {
        let busy = Fault::too_many_requests(RetryAfter::Seconds(86_400));
        server.faults().add(rule.fault(busy).always());
        let output = edge_sync(folder.path(), &[command]).output();
        let output = output.expect("the command runs");
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(6), "{told}");
        assert!(told.contains("come back in 1 day"), "{told}");
        server.faults().clear();
    }
}

#[test]
fn an_operation_that_the_server_always_fails_at_does_not_hold_up_the_others() {
    let failures = [
        Fault::status(500, "Service internal error: task panicked"),
        Fault::plain_text(502, "<html><h1>502 Bad Gateway</h1></html>"),
        Fault::DropRequest,
        Fault::Silence,
    ];
    for failure in failures {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let mut settings = ServerSettings::new(server.url(), COLLECTION);
        settings.http = HttpLimits::default().first_byte(Duration::from_millis(500));
        let edge = device(folder.path(), &server)
            .server(settings)
            .create(CONFIG)
            .expect("a shard");
        edge.shard()
            .upsert((1..=15).map(point).collect())
            .expect("a write");
        server
            .faults()
            .add(on_batches(failure.clone()).with_point(1));
        let report = edge.push().expect("a report");
        assert!(report.failure.is_none(), "{failure:?}: {report:?}");
        assert_eq!((report.rejected, report.remaining), (1, 0), "{failure:?}");
        assert_eq!(rejected(&edge)[0].sequence, 1, "{failure:?}");
        assert_eq!(ids(&server), (2..=15).collect::<Vec<_>>(), "{failure:?}");
        server.faults().clear();
        edge.shard().retry_all_rejected().expect("a retry");
        let _ = drain(&edge);
        assert_eq!(on_server(&server), all_points(&edge));
    }
}

#[test]
fn a_server_that_fails_at_everything_gets_nothing_put_aside() {
    let failures = [
        Fault::status(500, "Service internal error: no disk"),
        Fault::status(503, "Shard temporarily unavailable"),
        Fault::DropRequest,
    ];
    for failure in failures {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = filled(folder.path(), &server, 15);
        server.faults().add(on_batches(failure.clone()));
        for _ in 0..3 {
            let report = edge.push().expect("a report");
            assert!(passes(&report), "{failure:?}: {report:?}");
            assert_eq!((report.rejected, report.remaining), (0, 15), "{failure:?}");
        }
        server.faults().clear();
        let _ = drain(&edge);
        assert_eq!(on_server(&server), all_points(&edge));
    }
}

#[test]
fn writes_that_are_applied_and_never_answered_in_time_make_progress() {
    let failures = [
        Fault::ReplyAfter(Reply::html(504, "Gateway Time-out")),
        Fault::DropAnswer,
    ];
    for failure in failures {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = filled(folder.path(), &server, 4);
        let body = json!({"payload": {"seen": true}, "points": [1, 2]});
        write(&edge, "POST", "/points/payload", &body);
        edge.shard()
            .delete(vec![PointId::Num(3)])
            .expect("a deletion");
        server.faults().add(on_batches(failure.clone()));
        // A foreground sync may give up on the way; the next one comes further.
        for _ in 0..10 {
            if edge.push().expect("a report").remaining == 0 {
                break;
            }
        }
        assert_eq!(waiting(&edge), 0, "{failure:?}");
        assert_eq!(rejected(&edge).len(), 0, "{failure:?}");
        assert_eq!(on_server(&server), all_points(&edge), "{failure:?}");
    }
}

// What arrives, and what is said of it.

#[test]
fn answers_that_come_compressed_are_named_and_lose_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    drop(synced(data, &server, 5));
    let edge = device(data, &server).open().expect("a shard");
    edge.shard().upsert(vec![point(6)]).expect("a write");
    drop(edge);
    server.faults().add(on_everything(Fault::Gzip));
    for arguments in [&["sync"][..], &["restore"], &["restore", "--stored"]] {
        let stopped = ran_at(data, &server, arguments);
        assert_eq!(stopped.code, 6, "{stopped:?}");
        let why = stopped.why();
        assert!(why.contains("compressed (gzip)"), "{why}");
    }
    let status = result(data, &["status"], &Value::Null);
    assert_eq!(
        (&status["points"], &status["queued"], &status["rejected"]),
        (&json!(6), &json!(1), &json!(0))
    );
    server.faults().clear();
    assert_eq!(ran_at(data, &server, &["sync"]).code, 0);
    assert_eq!(ids(&server), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_snapshot_that_comes_compressed_is_restored_or_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = synced(&folder.path().join("a"), &server, 5);
    // On the way from the server: a stream is decoded, a file of an announced size is not.
    let on_downloads = |path: &str| Rule::on("GET", path).fault(Fault::Gzip).always();
    server.faults().add(on_downloads("/shards/0/snapshot$"));
    server
        .faults()
        .add(Rule::on("POST", PARTIAL).fault(Fault::Gzip).always());
    restore(&edge).expect("a restore");
    assert_eq!(all_points(&edge), on_server(&server));
    server.faults().clear();
    server
        .faults()
        .add(on_downloads("/shards/0/snapshots/[^/]+$"));
    let before = all_points(&edge);
    let stored = RestoreSource::Server(SnapshotSource::Stored);
    let refused = edge
        .restore(&stored, &Cancel::new(), |_| {})
        .expect_err("a compressed snapshot");
    assert!(refused.to_string().contains("compressed"), "{refused}");
    assert_eq!(all_points(&edge), before);

    // As a file.
    server.faults().clear();
    let path = format!("{PATH}/shards/0/snapshot");
    let answer = server.client().send("GET", &path, &[], None);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(
        &mut answer.expect("an answer").into_body().into_reader(),
        &mut encoder,
    )
    .expect("a snapshot");
    let file = folder.path().join("x.snapshot.gz");
    std::fs::write(&file, encoder.finish().expect("compressed")).expect("written");
    let data = folder.path().join("b");
    let name = file.to_str().expect("UTF-8");
    let restored = ran(&data, &[], &["restore", "--snapshot", name], None);
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(result(&data, &["count"], &json!({})), json!({"count": 5}));
}

#[test]
fn what_comes_in_place_of_a_snapshot_passes_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path();
    let server = server();
    drop(synced(data, &server, 5));
    let answers = [
        (Reply::html(200, "Welcome to our hotel"), "web page"),
        (Reply::html(502, "Bad Gateway"), "Bad Gateway"),
        (
            Reply::redirect(302, "http://portal.invalid/login"),
            "portal.invalid/login",
        ),
    ];
    for (answer, said) in answers {
        let rules = [
            Rule::on("GET", "/shards/0/snapshot"),
            Rule::on("POST", PARTIAL),
        ];
        for rule in rules {
            let answer = Fault::Reply(answer.clone());
            server.faults().add(rule.fault(answer).always());
        }
        for arguments in [&["restore"][..], &["restore", "--stored"]] {
            let stopped = ran(data, &[], arguments, None);
            assert_eq!(stopped.code, 6, "{said}: {stopped:?}");
            // The list of stored snapshots is JSON, in place of which the page is quoted.
            let quoted = said == "web page" && stopped.why().contains("Welcome to our hotel");
            assert!(
                stopped.why().contains(said) || quoted,
                "{said}: {stopped:?}"
            );
        }
        server.faults().clear();
        assert_eq!(result(data, &["count"], &json!({})), json!({"count": 5}));
    }
    assert_eq!(ran(data, &[], &["restore"], None).code, 0);
}

#[test]
fn a_key_that_only_permits_reading_restores() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let a = synced(&folder.path().join("a"), &server, 5);
    for method in ["POST", "PUT", "DELETE"] {
        let rule = Rule::on(method, "").fault(Fault::forbidden());
        server.faults().add(rule.always());
    }
    let b = restored(&folder.path().join("b"), &server);
    restore(&b).expect("once more");
    assert_eq!(all_points(&b), all_points(&a));
    b.shard().upsert(vec![point(6)]).expect("a write");
    let report = b.push().expect("a report");
    assert!(stops(&report), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (0, 1));
}

#[test]
fn a_connection_that_is_cut_is_told_in_words_for_people() {
    for fault in [
        Fault::DropRequest,
        Fault::CutBody { after: 0 },
        Fault::CutBody { after: 20 },
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path();
        let server = server();
        drop(filled(data, &server, 3));
        server.faults().add(on_everything(fault.clone()));
        for command in ["sync", "restore"] {
            let stopped = ran_at(data, &server, &[command]);
            assert_eq!(stopped.code, 6, "{fault:?}: {stopped:?}");
            for inner in ["StreamError", "LastOperationFailed", "handle:", "ErrorCode"] {
                assert!(!stopped.errors.contains(inner), "{stopped:?}");
            }
            let why = stopped.why();
            assert!(why.contains("cut") || why.contains("closed"), "{why}");
        }
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

#[test]
fn an_api_key_that_the_server_echoes_is_shown_and_kept_nowhere() {
    const KEY: &str = "v3ry-s3cret/key+7f9a";
    let echo = Reply::API_KEY;
    let words = json!({"status": {"error": format!("Bad request: {echo} may not")}, "time": 0.0});
    let redirect = format!("http://portal.invalid/?key={echo}");
    let escaped = words.to_string().replace(echo, Reply::ESCAPED_API_KEY);
    let escaped = |status| {
        Fault::Reply(Reply {
            body: escaped.clone().into_bytes(),
            ..Reply::json(status, &words)
        })
    };
    let rules = [
        on_batches(escaped(400)).with_point(1),
        on_everything(escaped(403)),
        Rule::on("*", "/shards/").fault(escaped(404)).always(),
        on_batches(Fault::Reply(Reply::json(400, &words))).with_point(1),
        on_everything(Fault::Reply(Reply::json(403, &words))),
        on_everything(Fault::Reply(Reply::json(500, &words))),
        on_everything(Fault::Reply(Reply::html(401, echo))),
        on_everything(Fault::Reply(Reply::html(403, echo))),
        on_everything(Fault::Reply(Reply::html(200, echo))),
        on_everything(Fault::Reply(Reply::redirect(302, &redirect))),
        on_everything(Fault::Reply(
            Reply::html(429, echo).header("retry-after", echo),
        )),
        on_everything(Fault::Reply(
            Reply::html(200, echo).header("content-encoding", echo),
        )),
        Rule::on("*", "/shards/")
            .fault(Fault::Reply(Reply::html(500, echo)))
            .always(),
        Rule::on("*", "/shards/")
            .fault(Fault::Reply(Reply::json(404, &words)))
            .always(),
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let server = QdrantDouble::start(Options {
        api_key: Some(KEY.to_owned()),
        ..Options::default()
    })
    .expect("a server");
    let url = server.url();
    let flags = ["--url", &url, "--collection", COLLECTION];
    for (number, rule) in rules.into_iter().enumerate() {
        let data = folder.path().join(number.to_string());
        drop(filled(&data, &server, 3));
        server.faults().add(rule.clone());
        let mut said = String::new();
        for arguments in [
            &["sync"][..],
            &["restore"],
            &["restore", "--stored"],
            &["status"],
            &["rejected", "list"],
            &["queue", "show"],
        ] {
            let ran = ran(&data, &flags, arguments, Some(KEY));
            said.push_str(&ran.output);
            said.push_str(&ran.errors);
        }
        assert!(
            said.contains("[API key]"),
            "{rule:?}: nothing was echoed: {said}"
        );
        assert!(!said.contains(KEY), "{rule:?}: {said}");
        for file in files(&data) {
            // What an exchange leaves is small; the engine's files are not its work.
            let size = file.metadata().expect("its size").len();
            if size > 4 << 20 {
                continue;
            }
            let bytes = std::fs::read(&file).expect("a file");
            let found = bytes.windows(KEY.len()).any(|part| part == KEY.as_bytes());
            assert!(!found, "{rule:?}: {}", file.display());
        }
        server.faults().clear();
        server.client().result("DELETE", PATH, None);
    }
}

// The same in the end, however often it is sent.

#[test]
fn a_batch_that_was_applied_in_part_comes_out_the_same() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let dense = json!({"size": 2, "distance": "Dot"});
    let named = json!({"vectors": {"a": dense, "b": dense}});
    let edge = device(folder.path(), &server)
        .create(&named.to_string())
        .expect("a shard");
    let upsert = |id: u64, n: u64| {
        json!({"upsert": {"points": [
            {"id": id, "vector": {"a": [id, n]}, "payload": {"n": n}}
        ]}})
    };
    let send = |operations: Value| {
        write(
            &edge,
            "POST",
            "/points/batch",
            &json!({ "operations": operations }),
        );
    };
    send(json!([upsert(2, 0), upsert(3, 0)]));
    let _ = drain(&edge);
    // The server refuses the point 9 by now: it has no vector `b` any more.
    let path = format!("{PATH}/vectors/b?wait=true");
    server.client().result("DELETE", &path, None);
    server.take_exchanges();
    send(json!([
        upsert(1, 1),
        {"set_payload": {"payload": {"seen": 1}, "points": [1]}},
        {"upsert": {"points": [{"id": 9, "vector": {"b": [1, 1]}, "payload": {}}]}},
        upsert(1, 2),
        {"delete": {"points": [2]}},
        upsert(2, 3),
    ]));
    // The first two are applied when the third is refused; and once more the connection is cut.
    let writes = Rule::on("POST", BATCH).with_text("upsert");
    server.faults().add(writes.skip(2).fault(Fault::DropAnswer));
    let report = edge.push().expect("a report");
    assert!(report.failure.is_none(), "{report:?}");
    assert_eq!((report.rejected, report.remaining), (1, 0), "{report:?}");
    assert!(rejected(&edge)[0].operation.contains("\"id\":9"));
    let refused_whole = server.exchanges().iter().any(|exchange| {
        exchange.status == Some(400) && exchange.batch_size().is_some_and(|size| size > 2)
    });
    assert!(refused_whole, "no batch was refused in its middle");
    let mut held = all_points(&edge);
    held.retain(|point| point["id"] != 9);
    assert_eq!(on_server(&server), held);
}

#[test]
fn conditional_writes_that_are_sent_twice_do_not_turn_out_otherwise() {
    for fault in [Fault::DropAnswer, Fault::Duplicate] {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let edge = synced(folder.path(), &server, 1);
        let put = |mode: Option<&str>, filter: Option<Value>, id: u64, v: u64| {
            let mut body = json!({"points": [
                {"id": id, "vector": [v, 1, 1, 1], "payload": {"v": v}}
            ]});
            if let Some(mode) = mode {
                body["update_mode"] = json!(mode);
            }
            if let Some(filter) = filter {
                body["update_filter"] = filter;
            }
            write(&edge, "PUT", "/points", &body);
        };
        let is = |v: u64| json!({"must": [{"key": "v", "match": {"value": v}}]});
        put(Some("insert_only"), None, 2, 1);
        put(None, Some(is(1)), 2, 2);
        put(Some("insert_only"), None, 2, 3);
        put(None, Some(is(1)), 2, 4);
        put(Some("update_only"), None, 3, 1);
        put(None, None, 3, 2);
        put(None, Some(is(2)), 3, 3);
        server.faults().add(
            Rule::on("POST", BATCH)
                .with_text("upsert")
                .fault(fault.clone())
                .times(3),
        );
        let _ = drain(&edge);
        let value = |id: u64| {
            let points = on_server(&server);
            let found = points.iter().find(|point| point["id"] == id);
            found.map(|point| point["payload"]["v"].clone())
        };
        assert_eq!((value(2), value(3)), (Some(json!(2)), Some(json!(3))));
        assert_eq!(on_server(&server), all_points(&edge), "{fault:?}");
    }
}
