//! `edge-sync serve --collections`: a folder of several collections, each with a shard of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use edge_sync_clients::rest::Client;
use serde_json::{Value, json};

use crate::served::{Served, edge_sync};
use crate::support::{command, server};

const PATIENCE: Duration = Duration::from_secs(60);

/// Over `folder`, with settings of its own.
fn serve(folder: &Path, arguments: &[&str]) -> Served {
    let folder = folder.to_str().expect("UTF-8");
    let all = [&["--collections", folder], arguments].concat();
    // No shard is there: nothing is to be looked for in it.
    Served::start(Path::new("no such data directory"), &all)
}

fn create(client: &Client, name: &str, size: u32) {
    let config = json!({"vectors": {"size": size, "distance": "Dot"}});
    client.result("PUT", &format!("/collections/{name}"), Some(&config));
}

fn write(client: &Client, name: &str, ids: &[u64], vector: &[f32]) {
    let points: Vec<Value> = ids
        .iter()
        .map(|id| json!({"id": id, "vector": vector, "payload": {"of": name}}))
        .collect();
    let path = format!("/collections/{name}/points?wait=true");
    client.result("PUT", &path, Some(&json!({ "points": points })));
}

fn count(client: &Client, name: &str) -> u64 {
    let path = format!("/collections/{name}/points/count");
    let answer = client.result("POST", &path, Some(&json!({"exact": true})));
    answer["count"].as_u64().expect("a count")
}

fn names(client: &Client) -> Vec<String> {
    let list = client.result("GET", "/collections", None);
    let list = list["collections"].as_array().expect("a list").iter();
    let mut names: Vec<String> = list
        .map(|it| it["name"].as_str().expect("a name").to_owned())
        .collect();
    names.sort_unstable();
    names
}

/// Collections whose shard is in memory.
fn open(client: &Client) -> u64 {
    let (_, text) = client.call("GET", "/metrics", None).expect("an answer");
    let text = text.as_str().expect("text");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("edge_sync_open_shards "));
    line.expect("a gauge").parse().expect("a number")
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what} never came");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn collections_are_made_kept_and_removed_each_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path().join("collections");
    let served = serve(&folder, &[]);
    assert_eq!(served.ready["collections"], json!([]));
    let client = served.client();
    create(&client, "one", 2);
    create(&client, "two.2", 3);
    // In the server's words.
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    let again = client.refusal("PUT", "/collections/one", Some(&config));
    assert_eq!(again.0, 409, "{again:?}");
    // A configuration that cannot be leaves nothing behind.
    let wrong = json!({"vectors": {"size": 0, "distance": "Dot"}});
    assert_ne!(
        client.refusal("PUT", "/collections/three", Some(&wrong)).0,
        200
    );
    assert!(!folder.join("three").exists());

    // Equal ids, and vectors of different sizes.
    write(&client, "one", &[1, 2], &[1.0, 2.0]);
    write(&client, "two.2", &[2, 3, 4], &[1.0, 2.0, 3.0]);
    assert_eq!(names(&client), ["one", "two.2"]);
    assert_eq!((count(&client, "one"), count(&client, "two.2")), (2, 3));
    let path = "/collections/two.2/points/2";
    assert_eq!(client.result("GET", path, None)["payload"]["of"], "two.2");
    let stopped = served.stop();
    assert!(stopped.status.success(), "{stopped:?}");

    let served = serve(&folder, &[]);
    let client = served.client();
    assert_eq!(served.ready["collections"], json!(["one", "two.2"]));
    assert_eq!((count(&client, "one"), count(&client, "two.2")), (2, 3));
    assert_eq!(client.result("DELETE", "/collections/two.2", None), true);
    assert_eq!(client.result("DELETE", "/collections/two.2", None), false);
    assert_eq!(client.refusal("GET", "/collections/two.2", None).0, 404);
    assert!(!folder.join("two%2E2").exists());
    assert_eq!(count(&client, "one"), 2);
    create(&client, "two.2", 1);
    write(&client, "two.2", &[9], &[1.0]);
    assert_eq!(count(&client, "two.2"), 1);
    drop(served);

    // Each is a data directory like any other.
    let mut counted = edge_sync(&folder.join("one"), &["--json", "count"]);
    let output = counted.output().expect("the command");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"count\":2}\n");
}

#[test]
fn memory_of_what_nobody_asks_for_is_given_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, "serve_idle_seconds = 1\n").expect("written");
    let settings = settings.to_str().expect("UTF-8");
    let served = serve(
        &folder.path().join("collections"),
        &["--config-file", settings],
    );
    let client = served.client();
    for name in ["a", "b", "c"] {
        create(&client, name, 2);
        write(&client, name, &[1], &[1.0, 2.0]);
    }
    wait_until("the end of what is not in use", || open(&client) == 0);
    assert_eq!(names(&client), ["a", "b", "c"]);
    assert_eq!(open(&client), 0, "a list opens nothing");
    // What was closed is opened by whoever asks, also by several at once.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(count(&served.client(), "b"), 1));
        }
    });
    assert_eq!(open(&client), 1);
    write(&client, "b", &[2], &[3.0, 4.0]);
    wait_until("the end of it", || open(&client) == 0);
    assert_eq!(count(&client, "b"), 2);
}

#[test]
fn each_collection_has_a_collection_on_the_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = server();
    let url = upstream.url();
    let served = serve(folder.path(), &["--url", &url, "--every", "1s"]);
    let client = served.client();
    for (name, ids) in [("left", vec![1, 2, 3]), ("right", vec![2, 3])] {
        create(&client, name, 2);
        write(&client, name, &ids, &[1.0, 2.0]);
    }
    let on_server = |name: &str| upstream.count(name).unwrap_or_default();
    wait_until("both", || (on_server("left"), on_server("right")) == (3, 2));
    // What others write comes back, to the one that it is for.
    write(&upstream.client(), "right", &[7], &[5.0, 6.0]);
    wait_until("what another wrote", || count(&client, "right") == 3);
    assert_eq!(count(&client, "left"), 3);

    let status = client.result("GET", "/edge-sync/status?collection=left", None);
    assert_eq!(status["collection"], "left", "{status}");
    let (code, words) = client.refusal("GET", "/edge-sync/status", None);
    assert_eq!(code, 400, "{words}");
    assert!(words.contains("?collection=NAME"), "{words}");
    let (code, _) = client.refusal("GET", "/edge-sync/queue?collection=none", None);
    assert_eq!(code, 404);
    drop(served);

    // Bound by now: the server need not be named any more.
    let served = serve(folder.path(), &["--every", "1s"]);
    let client = served.client();
    write(&client, "left", &[9], &[1.0, 2.0]);
    wait_until("one more", || on_server("left") == 4);
}

#[test]
fn a_name_for_all_of_them_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut named = std::process::Command::new(command());
    named
        .args(["--collection", "x", "serve", "--listen", "127.0.0.1:0"])
        .arg("--collections")
        .arg(folder.path());
    let output = named.output().expect("the command");
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{words}");
    assert!(words.contains("setting `collection`"), "{words}");
}
