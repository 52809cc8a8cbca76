//! Collections of several shards, shard keys, and tenants: a device holds the part of a collection
//! that its settings name, and no other.

use std::collections::BTreeMap;
use std::path::Path;

use edge_sync_double::{Fault, QdrantDouble, Reply, Rule};
use edge_sync_host::{
    Cancel, Direction, EdgeSync, Error, PointId, RestoreSource, ServerSettings, SnapshotSource,
    SyncPermissions,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::commands::{result, run};
use crate::support::{
    COLLECTION, CONFIG, by_id, cluster, component, holds, ids, impatient, point, server,
    set_payload_if_there, sync,
};

const PATH: &str = "/collections/devices";

/// Makes a collection of several shards, or with shard keys, as somebody else does.
fn collection(server: &QdrantDouble, sharding: &Value, keys: &[Value]) {
    let client = server.client();
    let mut config: Value = serde_json::from_str(CONFIG).expect("JSON");
    for (name, value) in sharding.as_object().expect("an object") {
        config[name] = value.clone();
    }
    client.result("PUT", PATH, Some(&config));
    for key in keys {
        let body = json!({ "shard_key": key });
        client.result("PUT", &format!("{PATH}/shards"), Some(&body));
    }
}

fn keyed(server: &QdrantDouble, keys: &[Value]) {
    collection(server, &json!({"sharding_method": "custom"}), keys);
}

fn settings(server: &QdrantDouble) -> ServerSettings {
    ServerSettings::new(server.url(), COLLECTION)
}

fn device(data: &Path, settings: ServerSettings) -> EdgeSync {
    EdgeSync::builder(component(), data)
        .server(settings)
        .sync_options(impatient())
        .open_or_create(CONFIG)
        .expect("a shard")
}

fn write(edge: &EdgeSync, ids: std::ops::RangeInclusive<u64>) {
    let points = ids.map(point).collect();
    edge.shard().upsert(points).expect("a write");
}

fn payload(edge: &EdgeSync, id: u64, payload: &Value) {
    let body = json!({"payload": payload, "points": [id]}).to_string();
    edge.shard()
        .request("POST", "/points/payload", &body)
        .expect("a write");
}

fn refusal(edge: &EdgeSync) -> String {
    let failure = edge.sync().expect("a report").failure.expect("a failure");
    assert!(matches!(failure, Error::Server(_)), "{failure}");
    failure.to_string()
}

/// What the server holds; with a key, in its shard.
fn held(server: &QdrantDouble, key: Option<&Value>) -> BTreeMap<u64, Value> {
    let mut body = json!({"limit": 1_000_000, "with_payload": true, "with_vector": true});
    if let Some(key) = key {
        body["shard_key"] = key.clone();
    }
    let path = format!("{PATH}/points/scroll");
    let result = server.client().result("POST", &path, Some(&body));
    by_id(result["points"].as_array().expect("points"))
}

fn restored(data: &Path, settings: ServerSettings) -> EdgeSync {
    let edge = EdgeSync::builder(component(), data)
        .server(settings)
        .sync_options(impatient())
        .attach()
        .expect("a directory");
    restore(&edge);
    edge
}

fn restore(edge: &EdgeSync) {
    let source = RestoreSource::Server(SnapshotSource::Stream);
    edge.restore(&source, &Cancel::new(), |_| {})
        .expect("a restore");
}

/// Bodies of all writes that the server got, and where they went.
fn bodies(server: &QdrantDouble) -> Vec<(String, Value)> {
    let is_write = |path: &str| path.starts_with("/collections/devices/points");
    server
        .exchanges()
        .into_iter()
        .filter(|exchange| exchange.method == "POST" && is_write(&exchange.path))
        .filter_map(|exchange| Some((exchange.path, exchange.body?)))
        .collect()
}

#[test]
fn two_devices_with_two_keys_never_see_each_others_points_although_ids_coincide() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("a"), json!("b")]);
    let a = device(&folder.path().join("a"), settings(&server).shard_key("a"));
    let b = device(&folder.path().join("b"), settings(&server).shard_key("b"));
    write(&a, 1..=20);
    write(&b, 11..=40);
    payload(&a, 15, &json!({"of": "a"}));
    payload(&b, 15, &json!({"of": "b"}));
    sync(&a);
    sync(&b);
    b.shard().delete(vec![PointId::Num(12)]).expect("a write");
    let report = sync(&b);
    assert_eq!(report.shards[0].shard_key.as_deref(), Some("\"b\""));
    let report = sync(&a);
    assert_eq!((report.shards.len(), report.shards[0].shard), (1, 1));
    assert!(report.peer.is_some(), "{report:?}");
    assert_eq!(ids(&a), (1..=20).collect::<Vec<_>>());
    assert_eq!(
        ids(&b),
        (11..=40).filter(|id| *id != 12).collect::<Vec<_>>()
    );
    assert_eq!(holds(&a), held(&server, Some(&json!("a"))));
    assert_eq!(holds(&b), held(&server, Some(&json!("b"))));
    assert_eq!(holds(&a)[&15][1], json!({"n": 15, "of": "a"}));

    // Another device of the same key gets all of it, and only that.
    let other = restored(&folder.path().join("c"), settings(&server).shard_key("a"));
    assert_eq!(holds(&other), holds(&a));
    write(&other, 50..=51);
    sync(&other);
    let report = sync(&a);
    assert!(report.pulled.is_some() && report.reasons.is_empty());
    assert_eq!(holds(&a), holds(&other));
    assert!(!ids(&b).contains(&50));
}

#[test]
fn every_kind_of_request_carries_the_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!(7)]);
    let edge = device(&folder.path().join("a"), settings(&server).shard_key("7"));
    write(&edge, 1..=5);
    payload(&edge, 1, &json!({"x": 1}));
    for (path, body) in [
        (
            "/points/payload/delete",
            json!({"keys": ["x"], "points": [1]}),
        ),
        ("/points/payload/clear", json!({"points": [2]})),
        ("/points/delete", json!({"points": [3]})),
    ] {
        edge.shard()
            .request("POST", path, &body.to_string())
            .expect("a write");
    }
    for (path, body) in [
        (
            "/points/payload",
            json!({"payload": {"y": 1}, "points": [4]}),
        ),
        (
            "/points/vectors",
            json!({"points": [{"id": 5, "vector": [1, 2, 3, 4]}]}),
        ),
        (
            "/index",
            json!({"field_name": "y", "field_schema": "integer"}),
        ),
    ] {
        edge.shard()
            .request("PUT", path, &body.to_string())
            .expect("a write");
    }
    sync(&edge);
    assert_eq!(holds(&edge), held(&server, Some(&json!(7))));
    for (path, body) in bodies(&server) {
        let operations = body["operations"].as_array().cloned();
        let parts: Vec<Value> = match operations {
            Some(operations) => operations
                .iter()
                .flat_map(|operation| operation.as_object().expect("one").values().cloned())
                .collect(),
            None => vec![body],
        };
        for part in parts {
            assert_eq!(part["shard_key"], 7, "{path}: {part}");
        }
    }
}

#[test]
fn a_collection_of_ours_gets_its_keys_and_one_of_others_only_if_asked_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    let a = device(&folder.path().join("a"), settings(&server).shard_key("a"));
    write(&a, 1..=3);
    let report = a.sync().expect("a report").into_result().expect("a sync");
    assert!(report.created_collection);
    let info = server.client().result("GET", PATH, None);
    assert_eq!(info["config"]["params"]["sharding_method"], "custom");
    // An edge-sync made it, so that another one may add its key.
    let b = device(&folder.path().join("b"), settings(&server).shard_key("b"));
    write(&b, 1..=1);
    sync(&b);
    assert_eq!(held(&server, Some(&json!("b"))).len(), 1);

    server.client().result("DELETE", PATH, None);
    keyed(&server, &[json!("other")]);
    let c = device(&folder.path().join("c"), settings(&server).shard_key("c"));
    write(&c, 1..=2);
    let words = refusal(&c);
    assert!(words.contains("no shard key \"c\""), "{words}");
    assert!(words.contains("--create-shard-key"), "{words}");
    assert_eq!(c.shard().queue_status().expect("a status").queued, 2);
    let permissions = SyncPermissions::default().create_shard_key(true);
    c.sync_permitted(Direction::Both, permissions, &Cancel::new(), |_| {})
        .expect("a report")
        .into_result()
        .expect("a sync");
    assert_eq!(holds(&c), held(&server, Some(&json!("c"))));
}

#[test]
fn a_key_that_is_gone_stops_the_device_and_is_not_made_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("a"), json!("b")]);
    let edge = device(&folder.path().join("a"), settings(&server).shard_key("a"));
    write(&edge, 1..=5);
    sync(&edge);
    let body = json!({"shard_key": "a"});
    let path = format!("{PATH}/shards/delete");
    server.client().result("POST", &path, Some(&body));
    write(&edge, 6..=6);
    let words = refusal(&edge);
    assert!(words.contains("no shard key \"a\" any more"), "{words}");
    assert_eq!(ids(&edge).len(), 6);
    assert_eq!(edge.shard().queue_status().expect("a status").queued, 1);
    // A person decides: everything goes up again, into a new shard of that key.
    let permissions = SyncPermissions::default()
        .resend(true)
        .create_shard_key(true);
    edge.sync_permitted(Direction::Both, permissions, &Cancel::new(), |_| {})
        .expect("a report")
        .into_result()
        .expect("a sync");
    assert_eq!(held(&server, Some(&json!("a"))).len(), 6);
    assert_eq!(held(&server, Some(&json!("b"))).len(), 0);
}

#[test]
fn settings_that_do_not_fit_the_collection_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("a")]);
    let edge = device(&folder.path().join("none"), settings(&server));
    write(&edge, 1..=1);
    let words = refusal(&edge);
    assert!(words.contains("sharded by keys"), "{words}");
    assert!(words.contains("`shard_key`"), "{words}");

    server.client().result("DELETE", PATH, None);
    collection(&server, &json!({"shard_number": 2}), &[]);
    let edge = device(&folder.path().join("a"), settings(&server).shard_key("a"));
    write(&edge, 1..=1);
    let words = refusal(&edge);
    assert!(words.contains("no shard keys"), "{words}");

    let mut wrong = settings(&server).shard_key("a");
    wrong.shard = Some(1);
    for (wrong, field) in [
        (wrong, "shard"),
        (settings(&server).shard_key(""), "shard_key"),
        (settings(&server).tenant("user"), "tenant"),
        (settings(&server).tenant("a.b=c"), "tenant"),
    ] {
        match wrong.checked() {
            Err(Error::Setting { name, .. }) => assert_eq!(name, field),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_binding_is_to_a_part_of_the_collection() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("a"), json!("b")]);
    let data = folder.path().join("a");
    let edge = device(&data, settings(&server).shard_key("a"));
    write(&edge, 1..=5);
    sync(&edge);
    drop(edge);
    let edge = device(&data, settings(&server).shard_key("b"));
    write(&edge, 6..=6);
    let words = refusal(&edge);
    assert!(words.contains("shard key \"a\""), "{words}");
    assert!(words.contains("shard key \"b\""), "{words}");
    assert_eq!(held(&server, Some(&json!("b"))).len(), 0);
    let bound = edge_sync_host::bound_server(&data)
        .expect("a file")
        .expect("one");
    assert_eq!(bound.shard_key.as_deref(), Some("\"a\""));
}

#[test]
fn a_collection_of_several_shards_is_held_whole_and_followed_shard_by_shard() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    collection(&server, &json!({"shard_number": 3}), &[]);
    let one = device(&folder.path().join("one"), settings(&server));
    write(&one, 1..=300);
    let report = sync(&one);
    assert_eq!(report.shards.len(), 3);
    assert_eq!(holds(&one), held(&server, None));
    let two = restored(&folder.path().join("two"), settings(&server));
    assert_eq!(holds(&two), holds(&one));
    assert!(!sync(&two).changed());

    one.shard()
        .delete((1..=30).map(PointId::Num).collect())
        .expect("a write");
    payload(&one, 77, &json!({"x": 1}));
    sync(&one);
    write(&two, 400..=410);
    let report = sync(&two);
    assert!(report.changed(), "{report:?}");
    assert_eq!(holds(&two), held(&server, None));

    // One changed point is in one shard: the others have nothing new, and nothing of them comes.
    sync(&one);
    payload(&two, 78, &json!({"x": 2}));
    sync(&two);
    let before = server.exchanges().len();
    let report = sync(&one);
    let answers: Vec<u16> = server.exchanges()[before..]
        .iter()
        .filter(|exchange| exchange.path.ends_with("/snapshot/partial/create"))
        .filter_map(|exchange| exchange.status)
        .collect();
    assert_eq!(
        answers.iter().filter(|it| **it == 304).count(),
        2,
        "{answers:?}"
    );
    assert_eq!(answers.len(), 3);
    let pulled = report.pulled.expect("files");
    assert!(
        pulled.kept_bytes > 0 && pulled.segments_kept > 0,
        "{pulled:?}"
    );
    assert_eq!(report.reasons, Vec::<String>::new());
    assert_eq!(holds(&one), held(&server, None));

    server.optimize(COLLECTION).expect("optimized");
    write(&one, 500..=501);
    sync(&one);
    sync(&two);
    assert_eq!(holds(&one), held(&server, None));
    assert_eq!(holds(&two), holds(&one));
    let mirrors = folder.path().join("two/generations");
    let generation = two.shard().info().expect("info").generation;
    for shard in 0..3 {
        let mirror = mirrors.join(format!("{generation}/mirror/{shard}/mirror.json"));
        assert!(mirror.is_file(), "{}", mirror.display());
    }
}

/// Before 1.14.1 there are snapshots of everything only.
#[test]
fn several_shards_are_restored_from_whole_and_from_stored_snapshots() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    collection(&server, &json!({"shard_number": 2}), &[]);
    let one = device(&folder.path().join("one"), settings(&server));
    write(&one, 1..=50);
    sync(&one);
    let stored = EdgeSync::builder(component(), folder.path().join("stored"))
        .server(settings(&server))
        .sync_options(impatient())
        .attach()
        .expect("a directory");
    let source = RestoreSource::Server(SnapshotSource::Stored);
    let report = stored
        .restore(&source, &Cancel::new(), |_| {})
        .expect("a restore");
    assert_eq!((report.points, report.shards.len()), (50, 2));
    assert_eq!(holds(&stored), holds(&one));
    server.faults().add(
        Rule::on("POST", "/snapshot/partial/create$")
            .fault(Fault::no_such_path())
            .always(),
    );
    let whole = restored(&folder.path().join("whole"), settings(&server));
    assert_eq!(holds(&whole), holds(&one));
    write(&one, 51..=60);
    sync(&one);
    sync(&whole);
    assert_eq!(holds(&whole), held(&server, None));
}

#[test]
fn a_device_of_one_shard_says_what_went_to_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    collection(&server, &json!({"shard_number": 2}), &[]);
    let all = device(&folder.path().join("all"), settings(&server));
    write(&all, 1..=100);
    sync(&all);
    let mut only = settings(&server);
    only.shard = Some(1);
    let one = restored(&folder.path().join("one"), only);
    let there = ids(&one);
    assert!(!there.is_empty() && there.len() < 100, "{there:?}");

    write(&one, 101..=140);
    let report = sync(&one);
    let kept = ids(&one).into_iter().filter(|id| *id > 100).count() as u64;
    assert_eq!(report.elsewhere, 40 - kept, "{report:?}");
    assert!(report.elsewhere > 0 && kept > 0);
    // Nothing is lost: all are on the server.
    assert_eq!(held(&server, None).len(), 140);
    sync(&all);
    assert_eq!(ids(&all).len(), 140);
    // What was told once is not told again.
    assert_eq!(sync(&one).elsewhere, 0);
}

#[test]
fn the_shard_that_is_followed_is_kept_and_can_be_another_or_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    collection(&server, &json!({"shard_number": 2}), &[]);
    let all = device(&folder.path().join("all"), settings(&server));
    write(&all, 1..=60);
    sync(&all);
    let everything = ids(&all);

    let data = folder.path().join("one");
    let sync_by_command = |flags: &[&str]| {
        let arguments = [&["sync"], flags].concat();
        let report = result(&data, &arguments, &Value::Null);
        let edge = EdgeSync::builder(component(), &data)
            .open()
            .expect("a shard");
        let here = ids(&edge);
        drop(edge);
        (report, here)
    };
    let (code, _) = run(
        &data,
        &["create"],
        &serde_json::from_str(CONFIG).expect("JSON"),
    );
    assert_eq!(code, 0);
    let url = server.url();
    let place = ["--url", &url, "--collection", COLLECTION];
    let (_, here) = sync_by_command(&[&place[..], &["--shard", "1"]].concat());
    assert!(!here.is_empty() && here.len() < 60, "{here:?}");
    let bound = edge_sync_host::bound_server(&data).expect("a file");
    assert_eq!(bound.expect("a binding").shard, Some(1));

    // Without the flag the same shard is followed.
    let (report, again) = sync_by_command(&[]);
    assert_eq!(again, here, "{report}");
    assert_eq!(report["pulled"]["changed"], false, "{report}");
    let status = result(&data, &["status"], &Value::Null);
    assert_eq!(status["part"]["shard"], 1, "{status}");

    // The other one, all of them, and one of these again: what is not followed goes.
    let (_, other) = sync_by_command(&["--shard", "0"]);
    let rest: Vec<u64> = everything
        .iter()
        .copied()
        .filter(|id| !here.contains(id))
        .collect();
    assert_eq!(other, rest);
    let (_, whole) = sync_by_command(&["--shard", "all"]);
    assert_eq!(whole, everything);
    assert_eq!(sync_by_command(&[]).1, everything);
    let (report, one) = sync_by_command(&["--shard", "1"]);
    assert_eq!(one, here, "{report}");
    let reasons = report["pulled"]["reasons"].to_string();
    assert!(reasons.contains("not followed any more"), "{report}");
    assert_eq!(held(&server, None).len(), 60, "the server lost nothing");
}

#[test]
fn a_shard_that_is_not_there_is_told_before_anything_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    let mut seventh = settings(&server);
    seventh.shard = Some(7);
    // Nor is a collection made that could not have it.
    let edge = device(&folder.path().join("none"), seventh.clone());
    write(&edge, 1..=2);
    let words = refusal(&edge);
    assert!(words.contains("no shard 7; its only shard is 0"), "{words}");
    let (status, _) = server.client().call("GET", PATH, None).expect("an answer");
    assert_eq!(status, 404);

    collection(&server, &json!({"shard_number": 3}), &[]);
    let edge = device(&folder.path().join("three"), seventh);
    write(&edge, 1..=2);
    let words = refusal(&edge);
    assert!(
        words.contains("no shard 7; its shards are 0 to 2"),
        "{words}"
    );
    assert_eq!(held(&server, None).len(), 0);
    assert_eq!(edge.shard().queue_status().expect("a status").queued, 2);
    let bound = edge_sync_host::bound_server(folder.path().join("three")).expect("no failure");
    assert_eq!(bound, None, "a mistake binds to nothing");
}

#[test]
fn a_shard_on_another_peer_is_told_with_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    collection(&server, &json!({"shard_number": 2}), &[]);
    let edge = device(&folder.path().join("one"), settings(&server));
    write(&edge, 1..=10);
    let answer = json!({
        "result": {
            "peer_id": 11, "shard_count": 2,
            "local_shards": [{"shard_id": 0, "points_count": 5, "state": "Active"}],
            "remote_shards": [{"shard_id": 1, "peer_id": 22, "state": "Active"}],
            "shard_transfers": [],
        },
        "status": "ok", "time": 0.0,
    });
    server.faults().add(
        Rule::on("GET", "/cluster$")
            .fault(Fault::Reply(Reply::json(200, &answer)))
            .always(),
    );
    let report = edge.sync().expect("a report");
    // Uploads go to the server, which knows where to put them.
    assert_eq!(report.uploaded, 10);
    let words = report.failure.expect("a failure").to_string();
    assert!(words.contains("shard 1 is not at peer 11"), "{words}");
    assert!(words.contains("peer 22 (Active)"), "{words}");
    assert_eq!(ids(&edge).len(), 10);
}

#[test]
fn another_peer_behind_a_balancer_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("a")]);
    let edge = device(&folder.path().join("one"), settings(&server).shard_key("a"));
    write(&edge, 1..=20);
    sync(&edge);
    assert!(!sync(&edge).changed());
    // The mirror is of another peer: what versions say there means nothing here.
    let generation = edge.shard().info().expect("info").generation;
    let mirror = folder
        .path()
        .join(format!("one/generations/{generation}/mirror/1/mirror.json"));
    drop(edge);
    let text = std::fs::read_to_string(&mirror).expect("a mirror");
    std::fs::write(&mirror, of_another_peer(&text)).expect("written");
    let edge = device(&folder.path().join("one"), settings(&server).shard_key("a"));
    write(&edge, 21..=21);
    let report = sync(&edge);
    let reasons = report.reasons.join("; ");
    assert!(reasons.contains("peer"), "{reasons}");
    assert_eq!(holds(&edge), held(&server, Some(&json!("a"))));
    assert!(!sync(&edge).changed());
}

/// `mirror.json` with another peer and the checksum that belongs to it.
fn of_another_peer(text: &str) -> String {
    let (covered, _) = text.rsplit_once(",\"crc32c\":\"").expect("a checksum");
    let mut value: Value = serde_json::from_str(&format!("{covered}}}")).expect("JSON");
    value["lineage"]["peer"] = json!(99);
    let mut text = value.to_string();
    text.pop();
    let crc = crc32c::crc32c(text.as_bytes());
    format!("{text},\"crc32c\":\"{crc:08x}\"}}\n")
}

fn tenant(server: &QdrantDouble, name: &str) -> ServerSettings {
    settings(server).tenant(format!("user={name}"))
}

fn without_field(points: BTreeMap<u64, Value>) -> BTreeMap<u64, Value> {
    points
        .into_iter()
        .map(|(id, mut point)| {
            if let Some(payload) = point[1].as_object_mut() {
                payload.remove("user");
            }
            (id, point)
        })
        .collect()
}

/// A tenant's points in the shard of `key`.
fn of_tenant(server: &QdrantDouble, key: &str, name: &str) -> BTreeMap<u64, Value> {
    held(server, Some(&json!(key)))
        .into_iter()
        .filter(|(_, point)| point[1]["user"] == name)
        .collect()
}

#[test]
fn a_tenant_gets_its_own_points_from_a_shard_that_it_shares() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("default")]);
    let anna = device(&folder.path().join("anna"), tenant(&server, "anna"));
    let ben = device(&folder.path().join("ben"), tenant(&server, "ben"));
    write(&anna, 1..=20);
    write(&ben, 101..=120);
    sync(&anna);
    sync(&ben);
    assert_eq!(ids(&anna), (1..=20).collect::<Vec<_>>());
    assert_eq!(ids(&ben), (101..=120).collect::<Vec<_>>());
    assert_eq!(of_tenant(&server, "default", "anna").len(), 20);
    // No snapshot of the shared shard was asked for: it holds the points of others.
    let snapshots = server.exchanges();
    assert!(!snapshots.iter().any(|it| it.path.contains("/snapshot")));

    // Another device of the same tenant, with deletions, changes and what waits.
    let other = restored(&folder.path().join("other"), tenant(&server, "anna"));
    assert_eq!(ids(&other), (1..=20).collect::<Vec<_>>());
    other
        .shard()
        .delete((1..=15).map(PointId::Num).collect())
        .expect("a write");
    payload(&other, 16, &json!({"x": 1}));
    write(&other, 30..=31);
    sync(&other);
    write(&anna, 40..=41);
    let report = anna.pull().expect("a pull");
    assert!(report.changed() && report.replayed == 2, "{report:?}");
    assert_eq!(report.shards, []);
    let mut expected: Vec<u64> = (16..=20).chain([30, 31, 40, 41]).collect();
    assert_eq!(ids(&anna), expected);
    sync(&anna);
    assert!(!sync(&anna).changed());
    sync(&other);
    expected.sort_unstable();
    assert_eq!(ids(&other), expected);
    let there = without_field(of_tenant(&server, "default", "anna"));
    assert_eq!(without_field(holds(&anna)), there);
    assert_eq!(without_field(holds(&other)), there);
    // Nothing of it touched the other tenant.
    assert_eq!(of_tenant(&server, "default", "ben").len(), 20);
}

#[test]
fn a_shard_key_needs_a_cluster() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = server();
    let mut keyed = settings(&server);
    keyed.shard_key = Some("a".to_owned());
    let edge = device(folder.path(), keyed);
    write(&edge, 1..=2);
    let words = refusal(&edge);
    assert!(words.contains("it is no cluster"), "{words}");
    // Nothing was made that keeps others away.
    let (status, _) = server.client().call("GET", PATH, None).expect("an answer");
    assert_eq!(status, 404);
}

#[test]
fn a_shard_key_that_goes_while_operations_are_uploaded_stops_the_queue() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("a"), json!("b")]);
    let mut at_a = settings(&server);
    at_a.shard_key = Some("a".to_owned());
    let edge = device(folder.path(), at_a);
    write(&edge, 1..=3);
    sync(&edge);
    write(&edge, 4..=30);
    let body = json!({"shard_key": "a"});
    server
        .client()
        .result("POST", &format!("{PATH}/shards/delete"), Some(&body));
    let words = refusal(&edge);
    assert!(words.contains("no shard key \"a\""), "{words}");
    let status = edge.shard().queue_status().expect("a status");
    assert_eq!((status.queued, status.rejected), (27, 0));
}

#[test]
fn a_tenant_touches_no_point_of_another_under_the_same_id() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("default")]);
    let anna = device(&folder.path().join("anna"), tenant(&server, "anna"));
    let ben = device(&folder.path().join("ben"), tenant(&server, "ben"));
    write(&anna, 1..=3);
    sync(&anna);
    let before = of_tenant(&server, "default", "anna");
    write(&ben, 1..=5);
    payload(&ben, 1, &json!({"x": "ben"}));
    ben.shard().delete(vec![PointId::Num(2)]).expect("a write");
    ben.push().expect("a report").into_result().expect("a push");
    assert_eq!(of_tenant(&server, "default", "anna"), before);
    assert_eq!(of_tenant(&server, "default", "ben").len(), 2);
}

#[test]
fn a_promoted_tenant_moves_to_its_own_key_and_loses_nothing_that_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    keyed(&server, &[json!("default")]);
    let anna = device(&folder.path().join("anna"), tenant(&server, "anna"));
    let ben = device(&folder.path().join("ben"), tenant(&server, "ben"));
    write(&anna, 1..=50);
    write(&ben, 101..=110);
    sync(&anna);
    sync(&ben);
    write(&anna, 51..=55);
    anna.shard().delete(vec![PointId::Num(1)]).expect("a write");

    let filter = json!({"must": [{"key": "user", "match": {"value": "anna"}}]});
    let (from, to) = (json!("default"), json!("anna"));
    server
        .promote(COLLECTION, &filter, &from, &to)
        .expect("promoted");
    let report = sync(&anna);
    assert_eq!(report.shards[0].shard_key.as_deref(), Some("\"anna\""));
    let expected: Vec<u64> = (2..=55).collect();
    assert_eq!(ids(&anna), expected);
    assert_eq!(holds(&anna).len(), held(&server, Some(&to)).len());
    // From now on only what changed comes.
    write(&anna, 60..=60);
    sync(&anna);
    assert!(!sync(&anna).changed());
    assert_eq!(of_tenant(&server, "default", "anna").len(), 0);
    assert_eq!(of_tenant(&server, "default", "ben").len(), 10);
    sync(&ben);
    assert_eq!(ids(&ben), (101..=110).collect::<Vec<_>>());
}

/// Tenants are told apart in any collection.
#[test]
fn a_tenant_of_a_collection_without_keys_gets_its_own_points() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = cluster();
    let anna = device(&folder.path().join("anna"), tenant(&server, "anna"));
    let ben = device(&folder.path().join("ben"), tenant(&server, "ben"));
    write(&anna, 1..=5);
    write(&ben, 11..=15);
    sync(&anna);
    sync(&ben);
    write(&anna, 6..=6);
    sync(&anna);
    assert_eq!(ids(&anna), (1..=6).collect::<Vec<_>>());
    assert_eq!(ids(&ben), (11..=15).collect::<Vec<_>>());
    assert_eq!(held(&server, None).len(), 11);
    let info = server.client().result("GET", PATH, None);
    assert_eq!(info["payload_schema"]["user"]["data_type"], "keyword");
}

#[derive(Clone, Debug)]
enum Step {
    Upsert(u64),
    Delete(u64),
    Payload(u64, u8),
    Sync,
    Pull,
    OptimizeServer,
    OptimizeHere,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let id = 1..30_u64;
    let step = prop_oneof![
        6 => id.clone().prop_map(Step::Upsert),
        3 => id.clone().prop_map(Step::Delete),
        2 => (id, any::<u8>()).prop_map(|(id, value)| Step::Payload(id, value)),
        3 => Just(Step::Sync),
        2 => Just(Step::Pull),
        1 => Just(Step::OptimizeServer),
        1 => Just(Step::OptimizeHere),
    ];
    (0..6_usize, step)
}

/// Does the steps on devices with the settings `parts`, and compares each in the end with what the
/// server holds for it.
fn end_equal(
    steps: Vec<(usize, Step)>,
    server: &QdrantDouble,
    parts: &[(ServerSettings, Option<Value>)],
) -> std::result::Result<(), TestCaseError> {
    let folder = tempfile::tempdir().expect("a folder");
    let devices: Vec<EdgeSync> = parts
        .iter()
        .enumerate()
        .map(|(number, (settings, _))| {
            device(&folder.path().join(number.to_string()), settings.clone())
        })
        .collect();
    for (number, step) in steps {
        let edge = &devices[number % devices.len()];
        let shard = edge.shard();
        match step {
            Step::Upsert(id) => drop(shard.upsert(vec![point(id)]).expect("a write")),
            Step::Delete(id) => drop(shard.delete(vec![PointId::Num(id)]).expect("a write")),
            Step::Payload(id, value) => {
                set_payload_if_there(edge, id, &json!({ "value": value }));
            }
            Step::Sync => drop(sync(edge)),
            Step::Pull => drop(edge.pull().expect("a pull")),
            Step::OptimizeServer => drop(server.optimize(COLLECTION).expect("optimized")),
            Step::OptimizeHere => drop(shard.optimize().expect("optimized")),
        }
    }
    for edge in &devices {
        edge.push()
            .expect("a report")
            .into_result()
            .expect("a push");
    }
    for (edge, (_, key)) in devices.iter().zip(parts) {
        let report = edge.pull().expect("a pull");
        prop_assert_eq!(&report.reasons, &Vec::<String>::new());
        prop_assert_eq!(holds(edge), held(server, key.as_ref()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// Devices over two shards that write, change and delete shared points, and sync at random, end
    /// equal to each other and to the server.
    #[test]
    fn devices_over_two_shards_end_equal(steps in prop::collection::vec(step(), 1..60)) {
        let server = cluster();
        collection(&server, &json!({"shard_number": 2}), &[]);
        let all = (settings(&server), None);
        end_equal(steps, &server, &[all.clone(), all.clone(), all])?;
    }

    /// Two devices each of three keys, with the same ids.
    #[test]
    fn devices_over_three_keys_end_equal(steps in prop::collection::vec(step(), 1..80)) {
        let server = cluster();
        let keys = [json!("a"), json!("b"), json!(7)];
        keyed(&server, &keys);
        let parts: Vec<_> = keys
            .iter()
            .chain(&keys)
            .map(|key| {
                let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                (settings(&server).shard_key(name), Some(key.clone()))
            })
            .collect();
        end_equal(steps, &server, &parts)?;
    }
}
