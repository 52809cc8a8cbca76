//! `edge-sync serve`: the one collection, who may ask, and how it ends.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use edge_sync_clients::rest::Client;
use serde_json::{Value, json};

use crate::served::{Served, config, edge_sync, points};
use crate::support::{COLLECTION, server};

fn count(client: &Client, collection: &str) -> Value {
    let path = format!("/collections/{collection}/points/count");
    client.result("POST", &path, Some(&json!({})))["count"].clone()
}

#[test]
fn an_empty_directory_gets_the_collection_that_a_client_creates() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let served = Served::start(&data, &[]);
    assert_eq!(served.ready["collection"], Value::Null);
    let client = served.client();
    assert_eq!(
        client.result("GET", "/collections", None),
        json!({"collections": []})
    );
    assert_eq!(client.refusal("GET", "/collections/red", None).0, 404);
    let (status, words) = client.refusal("PUT", "/collections/red/points", Some(&points([1])));
    assert_eq!(
        (status, words.as_str()),
        (404, "Not found: Collection `red` doesn't exist!")
    );
    // A configuration that cannot be leaves nothing behind.
    let bad = json!({"vectors": {"size": 0, "distance": "Dot"}});
    assert_eq!(client.refusal("PUT", "/collections/red", Some(&bad)).0, 400);
    assert_eq!(
        client.result("PUT", "/collections/red", Some(&config())),
        true
    );
    assert_eq!(
        client.refusal("PUT", "/collections/red", Some(&config())).0,
        409
    );
    let (status, words) = client.refusal("PUT", "/collections/blue", Some(&config()));
    assert_eq!(status, 501);
    assert!(words.contains("one collection, `red`"), "{words}");
    let exists = |name: &str| {
        client.result("GET", &format!("/collections/{name}/exists"), None)["exists"].clone()
    };
    assert_eq!((exists("red"), exists("blue")), (json!(true), json!(false)));
    client.result(
        "PUT",
        "/collections/red/points?wait=true",
        Some(&points(1..=3)),
    );
    assert!(served.stop().status.success());

    // The name stays with the data.
    let served = Served::start(&data, &[]);
    assert_eq!(served.ready["collection"], "red");
    assert_eq!(count(&served.client(), "red"), 3);
    assert!(served.stop().status.success());
    // Unless another is set.
    let served = Served::start(&data, &["--collection", "rouge"]);
    assert_eq!(count(&served.client(), "rouge"), 3);
    assert_eq!(
        served.client().refusal("GET", "/collections/red", None).0,
        404
    );
    drop(served);
    assert_eq!(Served::start(&data, &[]).ready["collection"], "rouge");
}

#[test]
fn a_shard_without_a_name_is_called_like_its_folder_or_as_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("colours");
    let created = edge_sync(&data, &["create", "--size", "4", "--distance", "dot"]).output();
    assert!(created.expect("the command").status.success());
    let served = Served::start(&data, &[]);
    assert_eq!(served.ready["collection"], "colours");
    drop(served);
    // A name that is set is the only one.
    let empty = folder.path().join("empty");
    let served = Served::start(&empty, &["--collection", "set"]);
    let client = served.client();
    let (status, words) = client.refusal("PUT", "/collections/other", Some(&config()));
    assert_eq!(status, 501);
    assert!(words.contains("`set`"), "{words}");
    client.result("PUT", "/collections/set", Some(&config()));
}

#[test]
fn a_collection_that_no_server_knows_is_deleted_and_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let client = served.client();
    for size in [4, 2] {
        // What `recreate_collection` of the clients does.
        let deleted = client.result("DELETE", "/collections/red", None);
        assert_eq!(deleted, json!(size == 2));
        let config = json!({"vectors": {"size": size, "distance": "Dot"}});
        client.result("PUT", "/collections/red", Some(&config));
        assert_eq!(count(&client, "red"), 0);
        let vector = vec![1; size];
        let body = json!({"points": [{"id": 1, "vector": vector}]});
        client.result("PUT", "/collections/red/points?wait=true", Some(&body));
    }
    assert_eq!(client.result("DELETE", "/collections/blue", None), false);
    assert_eq!(client.result("DELETE", "/collections/red", None), true);
    assert_eq!(client.refusal("GET", "/collections/red", None).0, 404);
    // Another name can be had now.
    client.result("PUT", "/collections/blue", Some(&config()));
    client.result("PUT", "/collections/blue/points", Some(&points([7])));
    drop(served);
    let served = Served::start(folder.path(), &[]);
    assert_eq!(count(&served.client(), "blue"), 1);
}

#[test]
fn writes_reach_the_server_and_none_is_deleted_before_that() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = server();
    let url = upstream.url();
    let served = Served::start(folder.path(), &["--url", &url, "--collection", COLLECTION]);
    let client = served.client();
    let collection = format!("/collections/{COLLECTION}");
    client.result("PUT", &collection, Some(&config()));
    let path = format!("{collection}/points?wait=true");
    client.result("PUT", &path, Some(&points(1..=20)));
    let arrived = upstream.wait_for(Duration::from_secs(60), |_| {
        upstream.count(COLLECTION).is_ok_and(|count| count == 20)
    });
    assert!(arrived, "{}", served.errors());

    upstream.stop().expect("down");
    client.result("PUT", &path, Some(&points([21])));
    let (status, words) = client.refusal("DELETE", &collection, None);
    assert_eq!(status, 409);
    assert!(words.contains("1 operation waits for upload"), "{words}");
    served.wait_for_note("uploads: waiting");
    assert_eq!(count(&client, COLLECTION), 21);

    upstream.resume().expect("up");
    assert_eq!(client.result("DELETE", &collection, None), true);
    assert_eq!(client.refusal("GET", &collection, None).0, 404);
    // The server's collection is the server's.
    assert_eq!(upstream.count(COLLECTION).expect("a count"), 21);

    // What is made anew uploads to it again.
    client.result("PUT", &collection, Some(&config()));
    client.result("PUT", &path, Some(&points([22])));
    assert!(upstream.wait_for(Duration::from_secs(60), |_| {
        upstream.count(COLLECTION).is_ok_and(|count| count == 22)
    }));
    served.wait_for_note("uploads: in step with the server");
    let stopped = served.stop();
    assert!(stopped.status.success(), "{stopped:?}");
    // It told of the time in between, too.
    assert!(stopped.errors.contains("uploads: waiting"), "{stopped:?}");
}

#[test]
fn a_shard_that_was_synced_is_not_deleted_with_writes_that_wait() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = server();
    let served = Served::start(folder.path(), &["--collection", COLLECTION]);
    let client = served.client();
    let collection = format!("/collections/{COLLECTION}");
    client.result("PUT", &collection, Some(&config()));
    assert!(served.stop().status.success());
    let synced = edge_sync(
        folder.path(),
        &["--url", &upstream.url(), "--collection", COLLECTION, "sync"],
    );
    assert!({ synced }.status().expect("the command").success());

    // It does not upload, but there is a server.
    let served = Served::start(folder.path(), &["--no-sync"]);
    let client = served.client();
    client.result("PUT", &format!("{collection}/points"), Some(&points([1])));
    let (status, words) = client.refusal("DELETE", &collection, None);
    assert_eq!(status, 409);
    assert!(words.contains("edge-sync sync"), "{words}");
    assert_eq!(count(&client, COLLECTION), 1);
}

/// Runs `serve`, which has to fail; its exit code and what it says.
fn refused(data: &Path, arguments: &[&str], key: Option<&str>) -> (i32, String) {
    let mut command = edge_sync(data, &["serve"]);
    command.args(arguments);
    if let Some(key) = key {
        command.env("EDGE_SYNC_SERVE_API_KEY", key);
    }
    let output = command.output().expect("the command");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    (output.status.code().expect("an exit code"), text)
}

#[test]
fn other_machines_need_a_flag_and_a_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |arguments: &[&str], key| refused(folder.path(), arguments, key);
    let everywhere = ["--listen", "0.0.0.0:0"];
    let allowed = ["--listen", "0.0.0.0:0", "--allow-remote"];
    let (code, text) = refused(&everywhere, Some("secret"));
    assert_eq!(code, 2);
    assert!(text.contains("--allow-remote"), "{text}");
    let (code, text) = refused(&allowed, None);
    assert_eq!(code, 2);
    assert!(text.contains("EDGE_SYNC_SERVE_API_KEY"), "{text}");
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "\n").expect("a file");
    let (code, text) = refused(
        &[
            &allowed[..],
            &["--serve-api-key-file", empty.to_str().expect("UTF-8")],
        ]
        .concat(),
        None,
    );
    assert_eq!(code, 2);
    assert!(text.contains("is empty; expected a key"), "{text}");
    // The server's key is not this one's.
    let mut command = edge_sync(folder.path(), &["serve"]);
    command.args(allowed).env("QDRANT_API_KEY", "secret");
    assert_eq!(command.status().expect("the command").code(), Some(2));

    let mut command = edge_sync(folder.path(), &["--json", "serve"]);
    command
        .args(allowed)
        .env("EDGE_SYNC_SERVE_API_KEY", "hunter2");
    command.env("EDGE_SYNC_LOG", "trace");
    let served = Served::spawn(command);
    let url = served.url().replace("0.0.0.0", "127.0.0.1");
    let ask = |key: Option<&str>| Client::new(&url, key).call("GET", "/collections", None);
    assert_eq!(ask(None).expect("an answer").0, 401);
    assert_eq!(ask(Some("hunter")).expect("an answer").0, 401);
    assert_eq!(ask(Some("hunter2")).expect("an answer").0, 200);
    let stopped = served.stop();
    assert!(stopped.status.success());
    assert!(!stopped.errors.contains("hunter"), "{}", stopped.errors);
}

#[test]
fn a_key_is_asked_for_on_loopback_too_if_there_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("key");
    std::fs::write(&file, "secret\n").expect("a file");
    let data = folder.path().join("data");
    let served = Served::start(
        &data,
        &["--serve-api-key-file", file.to_str().expect("UTF-8")],
    );
    assert_eq!(served.client().refusal("GET", "/collections", None).0, 401);
    let client = Client::new(served.url(), Some("secret"));
    client.result("GET", "/collections", None);
}

#[test]
fn a_page_in_a_browser_is_no_way_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let (status, answer) = served
        .client()
        .call_raw(
            "GET",
            "/collections",
            &[("host", "evil.example:6333")],
            None,
        )
        .expect("an answer");
    assert_eq!(status, 403);
    let words = answer["status"]["error"].as_str().expect("an error");
    assert!(words.contains("evil.example"), "{words}");
}

#[test]
fn a_port_or_a_directory_that_is_taken_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let address = served.url().trim_start_matches("http://").to_owned();
    let other = folder.path().join("other");
    let (code, text) = refused(&other, &["--listen", &address], None);
    assert_eq!(code, 2);
    assert!(
        text.contains(&address) && text.contains("another program"),
        "{text}"
    );
    assert!(!other.exists(), "a directory was made");
    let (code, text) = refused(folder.path(), &["--listen", "127.0.0.1:0"], None);
    assert_eq!(code, 8, "{text}");
    // Commands that need the directory say who has it.
    let status = edge_sync(folder.path(), &["count"])
        .output()
        .expect("the command");
    assert_eq!(status.status.code(), Some(8));
    let (code, text) = refused(&other, &["--listen", "nonsense"], None);
    assert_eq!(code, 2, "{text}");
}

#[test]
fn many_clients_at_once_lose_nothing() {
    const CLIENTS: u64 = 8;
    const WRITES: u64 = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let client = served.client();
            scope.spawn(move || {
                for write in 0..WRITES {
                    let id = number * WRITES + write;
                    // One of their own, and one that all of them write.
                    let path = "/collections/c/points?wait=true";
                    client.result("PUT", path, Some(&points([id, 1_000_000])));
                    let found = client.result(
                        "POST",
                        "/collections/c/points/query",
                        Some(&json!({"query": [0, 0, 0, 1], "limit": 3})),
                    );
                    assert!(!found["points"].as_array().expect("points").is_empty());
                    let own = client.result("GET", &format!("/collections/c/points/{id}"), None);
                    assert_eq!(own["payload"]["n"], id);
                }
            });
        }
    });
    assert_eq!(count(&client, "c"), CLIENTS * WRITES + 1);
}

#[test]
fn a_stop_in_the_middle_of_writes_keeps_what_was_confirmed_and_flushes() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    let stopping = AtomicBool::new(false);
    let (confirmed, stopped) = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u64)
            .map(|number| {
                let client = served.client();
                let stopping = &stopping;
                scope.spawn(move || {
                    let mut confirmed = Vec::new();
                    for id in (number * 1_000_000).. {
                        // Once it stops, connections fail.
                        let path = "/collections/c/points?wait=true";
                        match client.call("PUT", path, Some(&points([id]))) {
                            Ok((200, _)) => confirmed.push(id),
                            answer => {
                                assert!(stopping.load(Ordering::SeqCst), "{answer:?}");
                                break;
                            }
                        }
                    }
                    confirmed
                })
            })
            .collect();
        while count(&client, "c").as_u64() < Some(100) {}
        stopping.store(true, Ordering::SeqCst);
        let stopped = served.stop();
        let confirmed: BTreeSet<u64> = writers
            .into_iter()
            .flat_map(|writer| writer.join().expect("no panic"))
            .collect();
        (confirmed, stopped)
    });
    assert!(stopped.status.success(), "{stopped:?}");
    let said: Value = serde_json::from_str(&stopped.output).expect("JSON");
    assert_eq!(said, json!({"stopped": true, "flushed": true}));
    // Flushed: there is nothing to replay.
    let output = edge_sync(folder.path(), &["--json", "status"]).output();
    let status: Value = serde_json::from_slice(&output.expect("the command").stdout).expect("JSON");
    assert_eq!(status["applied"], status["logged"]);
    let served = Served::start(folder.path(), &[]);
    let body = json!({"limit": 1_000_000, "with_payload": false});
    let held = served
        .client()
        .result("POST", "/collections/c/points/scroll", Some(&body));
    let held: BTreeSet<u64> = held["points"]
        .as_array()
        .expect("points")
        .iter()
        .filter_map(|point| point["id"].as_u64())
        .collect();
    assert!(
        held.is_superset(&confirmed),
        "{:?}",
        confirmed.difference(&held)
    );
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut served = Served::start(folder.path(), &[]);
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    client.result("PUT", "/collections/c/points?wait=true", Some(&points([1])));
    // A request that never comes to its end: the first signal waits for it.
    let address = served.url().trim_start_matches("http://").to_owned();
    let mut hanging = TcpStream::connect(&address).expect("connected");
    let head = "PUT /collections/c/points HTTP/1.1\r\nhost: localhost\r\n\
                content-type: application/json\r\ncontent-length: 100\r\n\
                expect: 100-continue\r\n\r\n";
    hanging.write_all(head.as_bytes()).expect("sent");
    // Asked for the body, so it is under way.
    let mut answer = [0; 12];
    hanging.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 100");
    // Signals of one kind that follow closely are one.
    let status = loop {
        served.terminate();
        std::thread::sleep(Duration::from_millis(100));
        if let Some(status) = served.ended() {
            break status;
        }
    };
    assert_eq!(status.code(), Some(130));
    let _ = hanging.read(&mut [0]);
    drop(served);
    // As after a crash: nothing that was confirmed is gone.
    let served = Served::start(folder.path(), &[]);
    assert_eq!(count(&served.client(), "c"), 1);
}

#[test]
fn what_it_does_not_do_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    let nothing = json!({});
    let cases = [
        (
            "PUT",
            "/collections/c/shards",
            Some(&nothing),
            501,
            "shard keys",
        ),
        (
            "POST",
            "/collections/c/snapshots",
            Some(&nothing),
            501,
            "edge-sync restore",
        ),
        (
            "GET",
            "/collections/c/shards/0/snapshot",
            None,
            501,
            "edge-sync restore",
        ),
        (
            "POST",
            "/collections/nope/snapshots",
            Some(&nothing),
            404,
            "nope",
        ),
        (
            "GET",
            "/collections/c/snapshots/x",
            None,
            404,
            "./snapshots/c",
        ),
        // As on the server, without words.
        ("GET", "/nowhere", None, 404, ""),
        ("PATCH", "/collections/c/points", Some(&nothing), 404, ""),
    ];
    for (method, path, body, expected, why) in cases {
        let (status, words) = client.refusal(method, path, body);
        assert_eq!(status, expected, "{method} {path}: {words}");
        assert!(words.contains(why), "{method} {path}: {words}");
    }
    assert_eq!(
        client.result("GET", "/collections/c/snapshots", None),
        json!([])
    );
    let none = json!({"aliases": []});
    assert_eq!(client.result("GET", "/collections/c/aliases", None), none);
}

/// Clients may be newer than the endpoint, and older; the command line stays strict.
#[test]
fn requests_are_read_as_the_server_reads_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    let point = json!({
        "points": [{"id": 1, "vector": [1, 2, 3, 4], "payload": {"n": 1}, "new": true}],
        "newer": 1,
    });
    client.result("PUT", "/collections/c/points?wait=true", Some(&point));
    let listed = json!({"ids": [1], "newer": 1});
    assert_eq!(
        client.result("POST", "/collections/c/points", Some(&listed)),
        json!([{"id": 1}])
    );
    let cases = [
        ("POST", "/points/scroll", json!({"limit": 0}), 422),
        ("PUT", "/points", json!({"points": []}), 400),
        (
            "POST",
            "/points/count",
            json!({"filter": {"mist": []}}),
            400,
        ),
        (
            "POST",
            "/points/payload",
            json!({"payload": {}, "points": [9]}),
            404,
        ),
    ];
    for (method, path, body, expected) in cases {
        let path = format!("/collections/c{path}");
        let (status, words) = client.refusal(method, &path, Some(&body));
        assert_eq!(status, expected, "{method} {path}: {words}");
    }
    // A named vector that is gone is done.
    client.result("DELETE", "/collections/c/vectors/gone?wait=true", None);
}

/// Clients of earlier versions send them, and newer ones where a program asks for them.
#[test]
fn queries_of_earlier_versions_find_what_queries_find() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let client = served.client();
    let config = json!({"vectors": {
        "a": {"size": 4, "distance": "Cosine"},
        "b": {"size": 2, "distance": "Dot"},
    }});
    client.result("PUT", "/collections/c", Some(&config));
    let points: Vec<Value> = (1..=20_u64)
        .map(|id| {
            json!({
                "id": id,
                "vector": {"a": [1, id, id % 3, id % 5], "b": [id, 1]},
                "payload": {"n": id, "g": id % 4},
            })
        })
        .collect();
    let body = json!({ "points": points });
    client.result("PUT", "/collections/c/points?wait=true", Some(&body));
    let ask = |path: &str, body: Value| {
        client.result(
            "POST",
            &format!("/collections/c/points/{path}"),
            Some(&body),
        )
    };
    let filter = json!({"must": [{"key": "n", "range": {"gte": 3}}]});
    let search = json!({
        "vector": {"name": "a", "vector": [1, 2, 3, 4]}, "filter": filter, "limit": 3,
        "with_payload": ["n"], "with_vector": ["b"], "score_threshold": 0.1, "offset": 1,
    });
    let query = json!({
        "query": [1, 2, 3, 4], "using": "a", "filter": filter, "limit": 3,
        "with_payload": ["n"], "with_vector": ["b"], "score_threshold": 0.1, "offset": 1,
    });
    let recommend = json!({
        "positive": [1, [1, 1, 1, 1]], "negative": [2], "strategy": "best_score",
        "using": "a", "limit": 2,
    });
    let recommended = json!({
        "query": {"recommend": {
            "positive": [1, [1, 1, 1, 1]], "negative": [2], "strategy": "best_score",
        }},
        "using": "a", "limit": 2,
    });
    let pair = json!([{"positive": 3, "negative": 4}]);
    let discover = json!({"target": 5, "context": pair, "using": "b", "limit": 4});
    let discovered = json!({
        "query": {"discover": {"target": 5, "context": pair}}, "using": "b", "limit": 4,
    });
    let context = json!({"context": pair, "using": "b", "limit": 4});
    let in_context = json!({"query": {"context": pair}, "using": "b", "limit": 4});
    for (path, older, now) in [
        ("search", &search, &query),
        ("recommend", &recommend, &recommended),
        ("discover", &discover, &discovered),
        ("discover", &context, &in_context),
    ] {
        let found = ask(path, older.clone());
        assert_eq!(
            found.as_array().map(Vec::len),
            now["limit"].as_u64().map(|n| n as usize)
        );
        assert_eq!(found, ask("query", now.clone())["points"], "{path}");
        let batch = json!({"searches": [older, older]});
        assert_eq!(ask(&format!("{path}/batch"), batch), json!([found, found]));
    }
    for (path, older, now) in [
        ("search/groups", &search, &query),
        ("recommend/groups", &recommend, &recommended),
    ] {
        let (mut older, mut now) = (older.clone(), now.clone());
        for body in [&mut older, &mut now] {
            body["group_by"] = json!("g");
            body["group_size"] = json!(2);
            if let Some(fields) = body.as_object_mut() {
                fields.remove("offset");
            }
        }
        let found = ask(path, older);
        assert!(!found["groups"].as_array().expect("groups").is_empty());
        assert_eq!(found, ask("query/groups", now), "{path}");
    }
    assert_eq!(ask("discover/batch", json!({"searches": []})), json!([]));
    let unknown = json!({"vector": [1, 2, 3, 4], "limit": 1});
    let (status, words) = client.refusal("POST", "/collections/c/points/search", Some(&unknown));
    assert_eq!(status, 400);
    assert!(words.contains("Not existing vector name"), "{words}");
}

fn points_of_64_dimensions(ids: std::ops::Range<u64>) -> Value {
    let points = ids.map(|id| {
        let vector: Vec<u64> = (0..64).map(|n| (id * n) % 17).collect();
        json!({"id": id, "vector": vector})
    });
    json!({ "points": points.collect::<Vec<_>>() })
}

#[test]
fn parameters_are_changed_kept_and_followed_by_the_next_optimization() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let client = served.client();
    let path = "/collections/c";
    let config = json!({ "vectors": {"size": 64, "distance": "Euclid"} });
    client.result("PUT", path, Some(&config));
    let upsert = "/collections/c/points?wait=true";
    client.result("PUT", upsert, Some(&points_of_64_dimensions(0..200)));
    let search = |client: &Client| {
        let body = json!({ "query": 7, "limit": 5 });
        client.result("POST", "/collections/c/points/query", Some(&body))
    };
    let found = search(&client);
    let indexed = |client: &Client| {
        let info = client.result("GET", path, None);
        (
            info["indexed_vectors_count"].clone(),
            info["config"].clone(),
        )
    };
    client.result("PATCH", path, Some(&json!({})));
    assert_eq!(indexed(&client).0, 0);

    let change = json!({
        "optimizers_config": {"indexing_threshold": 10},
        "hnsw_config": {"full_scan_threshold": 10, "m": 8},
        "quantization_config": {"scalar": {"type": "int8"}},
        "unknown": 1,
    });
    assert_eq!(client.result("PATCH", path, Some(&change)), true);
    // All is there as it was, before the next write and after it.
    assert_eq!(search(&client), found);
    client.result("PUT", upsert, Some(&points_of_64_dimensions(200..210)));
    client.result("PATCH", path, Some(&json!({})));
    let (count, shown) = indexed(&client);
    assert_eq!(count, 210, "{shown}");
    assert_eq!(shown["hnsw_config"]["m"], 8);
    assert_eq!(shown["quantization_config"]["scalar"]["type"], "int8");
    let refused = [
        (
            json!({"hnsw_config": {"ef_construct": 1}}),
            422,
            "ef_construct",
        ),
        (
            json!({"vectors": {"a": {}}}),
            400,
            "Vector params for a are not",
        ),
        (json!({"hnsw_config": 1}), 400, "expected a map"),
    ];
    for (change, status, words) in refused {
        let refusal = client.refusal("PATCH", path, Some(&change));
        assert_eq!(refusal.0, status, "{change}: {}", refusal.1);
        assert!(refusal.1.contains(words), "{change}: {}", refusal.1);
    }

    let stopped = served.stop();
    assert!(stopped.status.success(), "{}", stopped.errors);
    let served = Served::start(folder.path(), &[]);
    assert_eq!(indexed(&served.client()), (count, shown));
    let ids = |found: &Value| -> Vec<Value> {
        let points = found["points"].as_array().expect("points");
        points.iter().map(|point| point["id"].clone()).collect()
    };
    assert!(!ids(&search(&served.client())).is_empty(), "{found}");
}

#[test]
fn a_collection_answers_to_its_aliases_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let several = folder.path().join("several");
    let several = several.to_str().expect("UTF-8");
    for arguments in [&[][..], &["--collections", several]] {
        let data = folder.path().join("data");
        let served = Served::start(&data, arguments);
        let client = served.client();
        client.result("PUT", "/collections/red", Some(&config()));
        client.result(
            "PUT",
            "/collections/red/points?wait=true",
            Some(&points(1..=3)),
        );
        let actions = |action: Value| json!({ "actions": [action] });
        let create = json!({"create_alias": {"collection_name": "red", "alias_name": "rouge"}});
        client.result("POST", "/collections/aliases", Some(&actions(create)));
        client.result(
            "PUT",
            "/collections/rouge/points?wait=true",
            Some(&points([4])),
        );
        assert_eq!(count(&client, "rouge"), 4);
        let stopped = served.stop();
        assert!(stopped.status.success(), "{}", stopped.errors);

        let served = Served::start(&data, arguments);
        let client = served.client();
        assert_eq!(
            (count(&client, "red"), count(&client, "rouge")),
            (json!(4), json!(4))
        );
        assert_eq!(
            client
                .refusal("PUT", "/collections/rouge", Some(&config()))
                .0,
            400
        );
        client.result("DELETE", "/collections/red", None);
        assert_eq!(
            client.result("GET", "/aliases", None),
            json!({"aliases": []})
        );
        assert_eq!(client.refusal("GET", "/collections/rouge", None).0, 404);
    }
}

#[test]
fn a_change_of_nothing_optimizes() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = Served::start(folder.path(), &[]);
    let client = served.client();
    let config = json!({
        "vectors": {"size": 64, "distance": "Euclid"},
        "optimizers_config": {"indexing_threshold": 10},
        "hnsw_config": {"full_scan_threshold": 10},
    });
    client.result("PUT", "/collections/c", Some(&config));
    let body = points_of_64_dimensions(0..200);
    client.result("PUT", "/collections/c/points?wait=true", Some(&body));
    let indexed = || client.result("GET", "/collections/c", None)["indexed_vectors_count"].clone();
    assert_eq!(indexed(), 0);
    let change = json!({"optimizers_config": {}});
    assert_eq!(
        client.result("PATCH", "/collections/c", Some(&change)),
        true
    );
    assert_eq!(indexed(), 200);
}

/// What an empty shard takes of memory that is not shared: code and first contents are mapped from files.
#[test]
#[cfg(target_os = "linux")]
fn an_empty_shard_takes_little_memory_of_its_own() {
    const MOST_KIB: u64 = 24 << 10;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("empty");
    drop(
        edge_sync_host::EdgeSync::builder(crate::support::component(), &data)
            .create(crate::support::CONFIG)
            .expect("a shard"),
    );
    let served = Served::start(&data, &[]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", served.id())).expect("a file");
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
        number.and_then(|it| it.parse().ok()).expect("a number")
    };
    let own = kib("RssAnon:") + kib("RssShmem:");
    assert!(own < MOST_KIB, "{own} KiB\n{status}");
    assert!(served.stop().status.success());
}
