//! Following the server: what others wrote arrives, by the files that changed, and nothing that waits
//! is lost on the way.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use edge_sync_double::{Fault, QdrantDouble, Rule};
use edge_sync_host::{
    Cancel, EdgeSync, Error, Peek, PointId, RestoreSource, ServerSettings, ShardOptions,
    SnapshotSource, SyncReport, SyncerOptions,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::gateway::{Gateway, GatewayKind};
use crate::support::{
    COLLECTION, CONFIG, all_points, by_id, cluster, component, device, holds, ids, impatient,
    point, server, server_points, set_payload_if_there, sync,
};

/// The request that asks for what changed.
const PARTIAL: &str = "^/collections/devices/shards/0/snapshot/partial/create$";

/// Indexes as soon as there is a kilobyte.
const INDEXED: &str = r#"{"vectors": {"size": 4, "distance": "Dot"}, "optimizers_config": {"indexing_threshold": 1}}"#;

fn made(data: &Path, server: &QdrantDouble, ids: std::ops::RangeInclusive<u64>) -> EdgeSync {
    let edge = device(data, server).create(CONFIG).expect("a shard");
    edge.shard()
        .upsert(ids.map(point).collect())
        .expect("a write");
    edge
}

/// What the server holds.
fn held(server: &QdrantDouble) -> BTreeMap<u64, Value> {
    by_id(&server_points(server))
}

fn partial_requests(server: &QdrantDouble) -> Vec<Value> {
    server
        .exchanges()
        .iter()
        .filter(|exchange| exchange.path.ends_with("/snapshot/partial/create"))
        .map(|exchange| exchange.body.clone().expect("a manifest"))
        .collect()
}

#[test]
fn what_others_wrote_and_deleted_arrives_by_the_files_that_changed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let one = device(&folder.path().join("one"), &server)
        .create(INDEXED)
        .expect("a shard");
    let points = (1..=2_000).map(point).collect();
    one.shard().upsert(points).expect("a write");
    one.push().expect("a report").into_result().expect("a push");
    assert!(server.optimize(COLLECTION).expect("optimized"));
    let two = device(&folder.path().join("two"), &server)
        .attach()
        .expect("a directory");
    two.restore(
        &RestoreSource::Server(SnapshotSource::Stream),
        &Cancel::new(),
        |_| {},
    )
    .expect("a restore");
    assert_eq!(ids(&two).len(), 2_000);
    // A restore asks for everything, with manifests, so that this is a pull of what changed.
    assert_eq!(partial_requests(&server).last(), Some(&json!({})));

    let nothing = sync(&two);
    assert!(!nothing.changed(), "{nothing:?}");
    assert_eq!((nothing.points_before, nothing.points), (2_000, 2_000));
    assert_eq!(nothing.unsettled, None);

    one.shard().upsert(vec![point(5_000)]).expect("a write");
    one.shard().delete(vec![PointId::Num(7)]).expect("a write");
    sync(&one);
    let report = sync(&two);
    assert!(report.changed());
    assert_eq!((report.points_before, report.points), (2_000, 2_000));
    let pulled = report.pulled.expect("files");
    assert!(
        pulled.kept_bytes > 0 && pulled.linked_files > 0,
        "{pulled:?}"
    );
    assert!(pulled.segments_kept > 0, "{pulled:?}");
    assert_eq!(report.reasons, Vec::<String>::new());
    assert_eq!(holds(&two), held(&server));
    assert_eq!(holds(&one), held(&server));
    assert!(!ids(&two).contains(&7) && ids(&two).contains(&5_000));
}

#[test]
fn what_waits_is_kept_above_what_arrives_and_goes_up_later() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let one = made(&folder.path().join("one"), &server, 1..=20);
    sync(&one);
    let two = made(&folder.path().join("two"), &server, 11..=30);
    sync(&two);

    one.shard().upsert(vec![point(100)]).expect("a write");
    one.shard().delete(vec![PointId::Num(2)]).expect("a write");
    two.shard().delete(vec![PointId::Num(1)]).expect("a write");
    two.push().expect("a report").into_result().expect("a push");
    // Fetches only: what waits stays where it is.
    let report = one.pull().expect("a pull");
    assert_eq!(report.replayed, 2);
    assert_eq!(one.shard().queue_status().expect("a status").queued, 2);
    let here = ids(&one);
    assert!(here.contains(&100) && here.contains(&30));
    assert!(!here.contains(&1) && !here.contains(&2), "{here:?}");
    assert!(!held(&server).contains_key(&100));

    sync(&one);
    sync(&two);
    assert_eq!(holds(&one), held(&server));
    assert_eq!(holds(&two), held(&server));
}

#[test]
fn a_push_asks_for_nothing_and_a_pull_sends_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let edge = made(&folder.path().join("one"), &server, 1..=3);
    let report: SyncReport = edge.push().expect("a report");
    assert!(
        report.pulled.is_none() && report.failure.is_none(),
        "{report:?}"
    );
    assert_eq!(partial_requests(&server), Vec::<Value>::new());

    edge.shard().upsert(vec![point(4)]).expect("a write");
    let before = server.exchanges().len();
    edge.pull().expect("a pull");
    let exchanges = server.exchanges();
    let sent: Vec<_> = exchanges[before..]
        .iter()
        .filter(|exchange| exchange.path.contains("/points"))
        // What looks how far the server has counted.
        .filter(|exchange| {
            !exchange
                .body
                .clone()
                .unwrap_or_default()
                .to_string()
                .contains("ed6e0000-5e1f-8000")
        })
        .map(|exchange| exchange.path.clone())
        .collect();
    assert_eq!(sent, Vec::<String>::new());
    assert!(!held(&server).contains_key(&4));
    assert!(ids(&edge).contains(&4));
}

/// Servers before 1.14.1 do not know the request, and some proxies do not let it through.
#[test]
fn a_server_without_partial_snapshots_is_followed_by_whole_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    server.faults().add(
        Rule::on("POST", PARTIAL)
            .fault(Fault::no_such_path())
            .always(),
    );
    let one = made(&folder.path().join("one"), &server, 1..=10);
    sync(&one);
    let two = made(&folder.path().join("two"), &server, 11..=20);
    let report = sync(&two);
    assert!(report.changed() && report.pulled.is_none(), "{report:?}");
    assert_eq!(holds(&two), held(&server));
    sync(&one);
    assert_eq!(holds(&one), held(&server));
}

#[test]
fn a_pull_that_is_cut_changes_nothing_and_the_next_one_ends_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let one = made(&folder.path().join("one"), &server, 1..=200);
    sync(&one);
    let two = made(&folder.path().join("two"), &server, 201..=210);
    sync(&two);
    one.shard()
        .delete((1..=50).map(PointId::Num).collect())
        .expect("a write");
    one.push().expect("a report").into_result().expect("a push");

    let before = holds(&two);
    for bytes in [0, 1, 600, 5_000, 20_000] {
        server.faults().clear();
        server.faults().add(
            Rule::on("POST", PARTIAL)
                .fault(Fault::CutBody { after: bytes })
                .always(),
        );
        let failure = two.pull().expect_err("it is cut");
        assert!(matches!(failure, Error::Server(_)), "{bytes}: {failure}");
        assert_eq!(holds(&two), before);
    }
    server.faults().clear();
    two.pull().expect("a pull");
    assert_eq!(holds(&two), held(&server));
}

/// "Nothing new" is an answer only to all that is here.
#[test]
fn an_answer_that_nothing_is_new_is_not_believed_where_something_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let data = folder.path().join("one");
    let edge = made(&data, &server, 1..=10);
    server.faults().add(
        Rule::on("POST", PARTIAL)
            .fault(Fault::plain_text(304, ""))
            .always(),
    );
    // There is no mirror yet, so everything was asked for.
    edge.push()
        .expect("a report")
        .into_result()
        .expect("a push");
    let failure = edge.pull().expect_err("nothing came");
    assert!(matches!(failure, Error::BadSnapshot(_)), "{failure}");
    assert_eq!(ids(&edge).len(), 10);
}

#[test]
fn a_damaged_mirror_costs_a_download_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let data = folder.path().join("one");
    let edge = made(&data, &server, 1..=300);
    sync(&edge);
    let generation = edge.shard().info().expect("info").generation;
    drop(edge);
    let mirror = data.join(format!("generations/{generation}/mirror/0"));
    assert!(mirror.join("mirror.json").is_file());
    let mut damaged = 0;
    for entry in walk(&mirror.join("segments")) {
        if entry.ends_with("version.info") {
            std::fs::write(&entry, "damage").expect("written");
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let edge = device(&data, &server).open().expect("a shard");
    let report = sync(&edge);
    assert!(report.changed() && !report.reasons.is_empty(), "{report:?}");
    assert_eq!(holds(&edge), held(&server));
    assert!(!sync(&edge).changed());
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(walk(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// A segment that was built has nothing left that says so, except for its id tracker.
#[test]
fn a_built_segment_without_any_vector_keeps_its_points_and_the_mirror_its_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let client = server.client();
    let path = format!("/collections/{COLLECTION}");
    let config = json!({
        "vectors": {"a": {"size": 2, "distance": "Dot"}, "b": {"size": 2, "distance": "Dot"}},
        "optimizers_config": {"indexing_threshold": 1},
    });
    client.result("PUT", &path, Some(&config));
    let points: Vec<Value> = (1..=300_u32)
        .map(|id| json!({"id": id, "vector": {"a": [id, 1], "b": [1, id]}, "payload": {"n": id}}))
        .collect();
    let upsert = format!("{path}/points?wait=true");
    client.result("PUT", &upsert, Some(&json!({ "points": points })));
    server.optimize(COLLECTION).expect("optimized");
    let data = folder.path().join("one");
    let open = || {
        device(&data, &server)
            .open_or_create(&config.to_string())
            .expect("a shard")
    };
    let edge = device(&data, &server).attach().expect("a directory");
    let source = RestoreSource::Server(SnapshotSource::Stream);
    edge.restore(&source, &Cancel::new(), |_| {})
        .expect("a restore");
    assert!(edge.shard().info().expect("info").indexed_vectors > 0);
    let generation = edge.shard().info().expect("info").generation;
    let mirror = data.join(format!("generations/{generation}/mirror"));
    let bytes = || -> Vec<(PathBuf, Vec<u8>)> {
        let files = walk(&mirror).into_iter();
        files
            .map(|path| (path.clone(), std::fs::read(path).expect("a file")))
            .collect()
    };
    let before = bytes();
    for name in ["a", "b"] {
        let path = format!("/vectors/{name}");
        edge.shard().request("DELETE", &path, "").expect("dropped");
    }
    drop(edge);
    for _ in 0..2 {
        let edge = open();
        let payloads: Vec<Value> = all_points(&edge)
            .iter()
            .map(|point| json!([point["id"], point["payload"]["n"]]))
            .collect();
        let expected: Vec<Value> = (1..=300).map(|id| json!([id, id])).collect();
        assert!(payloads == expected, "{} points", payloads.len());
        // New points go to a segment of their own.
        let point = json!({"id": 400, "vector": {}, "payload": {"n": 400}});
        let body = json!({ "points": [point] }).to_string();
        edge.shard()
            .request("PUT", "/points", &body)
            .expect("a write");
        let body = json!({"points": [7], "payload": {"n": 7, "x": "y".repeat(1000)}}).to_string();
        let set = edge.shard().request("POST", "/points/payload", &body);
        set.expect("a write");
        assert_eq!(edge.shard().count(None).expect("a count"), 301);
        let body = json!({ "points": [400] }).to_string();
        let deleted = edge.shard().request("POST", "/points/delete", &body);
        deleted.expect("a write");
        edge.shard().flush().expect("flushed");
        assert!(bytes() == before, "the mirror was written to");
        drop(edge);
    }
}

#[test]
fn an_unsettled_pull_is_told_until_a_settled_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let one = device(&folder.path().join("one"), &server)
        .sync_options(impatient().settle(Duration::from_millis(10)))
        .create(CONFIG)
        .expect("a shard");
    one.shard()
        .upsert((1..=10).map(point).collect())
        .expect("a write");
    one.push().expect("a report").into_result().expect("a push");
    let running = json!({
        "summary": {"queued_optimizations": 0},
        "running": [{"uuid": "x"}],
        "completed": [],
    });
    server
        .set_optimizations(COLLECTION, running.clone())
        .expect("set");
    assert!(sync(&one).unsettled.is_some());
    assert!(one.sync_record().unsettled.is_some());
    // Nothing is new since, which does not make it settled.
    let again = sync(&one);
    assert!(!again.changed() && again.unsettled.is_some(), "{again:?}");
    server
        .set_optimizations(COLLECTION, Value::Null)
        .expect("set");
    one.shard().upsert(vec![point(11)]).expect("a write");
    let settled = sync(&one);
    assert!(
        settled.changed() && settled.unsettled.is_none(),
        "{settled:?}"
    );
    assert_eq!(one.sync_record().unsettled, None);

    // What is deleted while an optimization runs does not show in the server's manifest.
    server.set_optimizations(COLLECTION, running).expect("set");
    let nothing = sync(&one);
    assert!(
        !nothing.changed() && nothing.unsettled.is_some(),
        "{nothing:?}"
    );
    server
        .set_optimizations(COLLECTION, Value::Null)
        .expect("set");
    let nothing = sync(&one);
    assert!(
        !nothing.changed() && nothing.unsettled.is_none(),
        "{nothing:?}"
    );
}

#[test]
fn nothing_new_while_no_optimization_runs_settles_what_came_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let one = device(&folder.path().join("one"), &server)
        .sync_options(impatient().settle(Duration::from_millis(10)))
        .create(CONFIG)
        .expect("a shard");
    one.shard().upsert(vec![point(1)]).expect("a write");
    one.push().expect("a report").into_result().expect("a push");
    let optimizations = |running: Value, queued: u64| {
        let told = json!({
            "summary": {"queued_optimizations": queued}, "running": running, "completed": [],
        });
        server.set_optimizations(COLLECTION, told).expect("set");
    };
    let options = ShardOptions::default();
    let is_settled = || {
        let peek = Peek::open(&component(), folder.path().join("one"), &options).expect("a look");
        let mirrors = peek.status().expect("a status").mirrors;
        mirrors.iter().all(|mirror| mirror.settled)
    };
    optimizations(json!([{"uuid": "x"}]), 0);
    assert!(sync(&one).unsettled.is_some());
    assert!(!is_settled());
    // The server would begin one, and may be set to begin none: that is no optimization.
    optimizations(json!([]), 3);
    let again = sync(&one);
    assert!(!again.changed() && again.unsettled.is_none(), "{again:?}");
    assert!(is_settled());
}

#[test]
fn what_others_deleted_before_the_first_pull_is_no_mistake() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let one = made(&folder.path().join("one"), &server, 1..=100);
    one.push().expect("a report").into_result().expect("a push");
    let two = made(&folder.path().join("two"), &server, 101..=101);
    sync(&two);
    let gone = (1..=60).map(PointId::Num).collect();
    two.shard().delete(gone).expect("a write");
    sync(&two);
    sync(&one);
    assert_eq!(ids(&one), (61..=101).collect::<Vec<_>>());
    assert_eq!(ids(&two), ids(&one));
}

#[test]
fn behind_a_balancer_the_peer_that_sent_what_is_here_is_looked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let peers = [cluster(), cluster()];
    let on_both = |path: &str, body: &Value| {
        for peer in &peers {
            peer.client().result("PUT", path, Some(body));
        }
    };
    let mut config: Value = serde_json::from_str(CONFIG).expect("JSON");
    config["replication_factor"] = json!(2);
    let path = format!("/collections/{COLLECTION}");
    on_both(&path, &config);
    let write = |id: u64| {
        let body = json!({"points": [{"id": id, "vector": [id, 1, 2, 3]}]});
        on_both(&format!("{path}/points?wait=true"), &body);
    };
    (1..=20).for_each(write);
    let addresses = peers.iter().map(QdrantDouble::address).collect();
    let gateway = Gateway::start(peers[0].address(), GatewayKind::Balancer(addresses));
    let open = || {
        let url = format!("http://{}", gateway.address());
        EdgeSync::builder(component(), folder.path())
            .server(ServerSettings::new(url, COLLECTION))
            .sync_options(impatient())
            .attach()
            .expect("a directory")
    };
    let edge = open();
    let source = RestoreSource::Server(SnapshotSource::Stream);
    let restored = edge.restore(&source, &Cancel::new(), |_| {});
    let peer = restored.expect("a restore").peer;
    assert!(peer.is_some());
    let mut edge = Some(edge);
    for round in 1..=6 {
        write(100 + round);
        // Another process knows it too.
        if round == 4 {
            edge = None;
        }
        let report = edge.get_or_insert_with(open).pull().expect("a pull");
        assert_eq!((report.peer, report.reasons), (peer, vec![]), "{round}");
        assert_eq!(report.points, 20 + round);
    }
}

#[test]
fn the_worker_pulls_by_itself_and_tells() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let one = made(&folder.path().join("one"), &server, 1..=5);
    sync(&one);
    let (told, news) = mpsc::channel();
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let two = device(&folder.path().join("two"), &server)
        .background(SyncerOptions::default().pull_interval(Some(Duration::from_millis(50))))
        .on_pull(move |report| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = told.send(report.points);
        })
        .create(CONFIG)
        .expect("a shard");
    while news.recv_timeout(Duration::from_secs(60)).expect("a pull") != 5 {}
    one.shard().upsert(vec![point(6)]).expect("a write");
    sync(&one);
    while news.recv_timeout(Duration::from_secs(60)).expect("a pull") != 6 {}
    assert_eq!(ids(&two), [1, 2, 3, 4, 5, 6]);
    assert!(calls.load(Ordering::SeqCst) >= 2);
    assert!(two.sync_record().last_pull_ms.is_some());
}

#[derive(Clone, Debug)]
enum Step {
    Upsert(u64),
    Delete(u64),
    Payload(u64, u8),
    Sync,
    Pull,
    Push,
    OptimizeServer,
    OptimizeHere,
    Reopen,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let id = 1..40_u64;
    let step = prop_oneof![
        6 => id.clone().prop_map(Step::Upsert),
        3 => id.clone().prop_map(Step::Delete),
        2 => (id, any::<u8>()).prop_map(|(id, value)| Step::Payload(id, value)),
        3 => Just(Step::Sync),
        2 => Just(Step::Pull),
        1 => Just(Step::Push),
        1 => Just(Step::OptimizeServer),
        1 => Just(Step::OptimizeHere),
        1 => Just(Step::Reopen),
    ];
    (0..3_usize, step)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Devices that write, change and delete shared points, and sync at random, end equal to each
    /// other and to the server.
    #[test]
    fn devices_that_share_points_end_equal(steps in prop::collection::vec(step(), 1..80)) {
        let folder = tempfile::tempdir().expect("a folder");
        let server = server();
        let mut devices: Vec<Option<EdgeSync>> = (0..3)
            .map(|number| {
                let data = folder.path().join(number.to_string());
                Some(device(&data, &server).create(CONFIG).expect("a shard"))
            })
            .collect();
        for (number, step) in steps {
            let edge = devices[number].take().expect("a device");
            let edge = run(edge, &folder.path().join(number.to_string()), &server, step);
            devices[number] = Some(edge);
        }
        let devices: Vec<EdgeSync> = devices.into_iter().flatten().collect();
        for edge in &devices {
            edge.push().expect("a report").into_result().expect("a push");
        }
        for edge in &devices {
            let report = edge.pull().expect("a pull");
            prop_assert_eq!(&report.reasons, &Vec::<String>::new());
            prop_assert_eq!(holds(edge), held(&server));
        }
    }
}

fn run(edge: EdgeSync, data: &Path, server: &QdrantDouble, step: Step) -> EdgeSync {
    let shard = edge.shard();
    match step {
        Step::Upsert(id) => drop(shard.upsert(vec![point(id)]).expect("a write")),
        Step::Delete(id) => drop(shard.delete(vec![PointId::Num(id)]).expect("a write")),
        Step::Payload(id, value) => {
            set_payload_if_there(&edge, id, &json!({ "value": value }));
        }
        Step::Sync => {
            let report = edge.sync().expect("a report");
            settled(report.failure);
        }
        Step::Pull => settled(edge.pull().err()),
        Step::Push => settled(edge.push().expect("a report").failure),
        Step::OptimizeServer => {
            // There is none before the first upload.
            let _ = server.optimize(COLLECTION);
        }
        Step::OptimizeHere => drop(shard.optimize().expect("optimized")),
        Step::Reopen => {
            drop(edge);
            return device(data, server).open().expect("a shard");
        }
    }
    edge
}

/// A pull before anything was uploaded finds no collection.
fn settled(failure: Option<Error>) {
    match failure {
        None => {}
        Some(Error::Server(failure)) if failure.status == Some(404) => {}
        Some(error) => panic!("{error}"),
    }
}
