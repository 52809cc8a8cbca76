//! `edge-sync serve` where clients are slow, many, greedy, or itself.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge_sync_clients::rest::Client;
use serde_json::{Value, json};

use crate::served::{Served, config, edge_sync, points};
use crate::support::{COLLECTION, server};

/// After so long without what a test waits for, it has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// One point whose payload makes the body about so many bytes long.
fn large(bytes: usize) -> Value {
    json!({"points": [{"id": 1, "vector": [1, 1, 1, 1], "payload": {"x": "x".repeat(bytes)}}]})
}

/// The command that serves with these limits, which are lines of the settings file.
fn limited(folder: &Path, limits: &str, arguments: &[&str]) -> Command {
    let file = folder.join("limits.toml");
    std::fs::write(&file, limits).expect("a file");
    let mut command = edge_sync(
        &folder.join("data"),
        &[
            "--json",
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config-file",
        ],
    );
    command.arg(file).args(arguments);
    command
}

/// Serves an empty collection `c` with these limits.
fn serve(folder: &Path, limits: &str) -> Served {
    let served = Served::spawn(limited(folder, limits, &[]));
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    served
}

fn connect(served: &Served) -> TcpStream {
    let address = served.url().trim_start_matches("http://");
    let stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// What comes until the other side closes, which it has to.
fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("still open: {error}"),
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The head of a request that announces a body, once the server has asked for that.
fn asked_for_body(served: &Served, length: usize) -> TcpStream {
    let mut stream = connect(served);
    let head = format!(
        "PUT /collections/c/points?wait=true HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\
         expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// Sends a byte now and then until the other side has closed.
fn drip(mut stream: TcpStream, byte: u8) {
    while stream.write_all(&[byte]).is_ok() {
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The samples of `/metrics` by name with labels.
struct Metrics(Vec<(String, f64)>);

impl Metrics {
    fn of(client: &Client) -> Self {
        let (status, text) = client.call("GET", "/metrics", None).expect("an answer");
        assert_eq!(status, 200, "{text}");
        Self::parsed(text.as_str().expect("text"))
    }

    /// Reads the text format: each sample belongs to a family that was announced before it.
    fn parsed(text: &str) -> Self {
        let mut family = String::new();
        let mut samples = Vec::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().expect("a name").to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a kind");
                assert_eq!(name, family);
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a value");
                assert!(name.starts_with(&family), "{line} below {family}");
                let value = value.parse().expect("a number");
                samples.push((name.to_owned(), value));
            }
        }
        assert!(text.ends_with('\n'));
        Self(samples)
    }

    fn get(&self, name: &str) -> Option<f64> {
        let found = self.0.iter().find(|(sample, _)| sample == name);
        found.map(|(_, value)| *value)
    }

    fn value(&self, name: &str) -> f64 {
        self.get(name)
            .unwrap_or_else(|| panic!("no {name} in {:#?}", self.0))
    }
}

#[test]
fn half_open_and_dripping_connections_are_closed_and_others_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = "serve_head_seconds = 1\nserve_body_seconds = 1\nserve_answer_seconds = 1\n";
    let served = serve(folder.path(), limits);
    let client = served.client();
    client.result(
        "PUT",
        "/collections/c/points?wait=true",
        Some(&large(20_000_000)),
    );

    let mut silent = connect(&served);
    let mut head = connect(&served);
    let mut answered = connect(&served);
    let alive = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    answered.write_all(alive).expect("sent");
    let mut body = asked_for_body(&served, 1000);
    // Nobody takes this answer.
    let mut greedy = connect(&served);
    let ask = "POST /collections/c/points HTTP/1.1\r\nhost: localhost\r\n\
               content-type: application/json\r\ncontent-length: 33\r\n\r\n\
               {\"ids\": [1], \"with_payload\":true}";
    greedy.write_all(ask.as_bytes()).expect("sent");
    std::thread::scope(|scope| {
        let dripping = head.try_clone().expect("a socket");
        scope.spawn(move || drip(dripping, b'G'));
        let dripping = body.try_clone().expect("a socket");
        scope.spawn(move || drip(dripping, b' '));
        assert_eq!(rest(&mut silent), "");
        assert!(!rest(&mut head).contains("200 OK"));
        assert!(rest(&mut answered).contains("healthz check passed"));
        let late = rest(&mut body);
        // The answer may be lost where the client goes on to send.
        assert!(
            late.is_empty() || late.starts_with("HTTP/1.1 408"),
            "{late}"
        );
        let found = client.result("POST", "/collections/c/points/count", Some(&json!({})));
        assert_eq!(found["count"], 1);
    });
    until("a connection stays open", || {
        Metrics::of(&client).value("edge_sync_connections") <= 1.0
    });
    let metrics = Metrics::of(&client);
    assert_eq!(
        metrics.value("edge_sync_refused_total{limit=\"body_time\"}"),
        1.0
    );
    // It was cut in the middle.
    assert!(rest(&mut greedy).len() < 20_000_000);
}

#[test]
fn one_connection_too_many_is_told_so_and_others_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = serve(
        folder.path(),
        "serve_connections = 3\nserve_head_seconds = 600\n",
    );
    // On the connection that it has kept.
    let first = served.client();
    first.result("GET", "/collections", None);
    // Of the client that made the collection, closed with it.
    until("a connection is open", || {
        Metrics::of(&first).value("edge_sync_connections") == 1.0
    });
    let mut held: Vec<TcpStream> = (0..2).map(|_| connect(&served)).collect();
    until("a connection is missing", || {
        Metrics::of(&first).value("edge_sync_connections") == 3.0
    });
    let (status, retry_after, words) = refused(&served.client(), &points([1]));
    assert_eq!((status, retry_after.as_deref()), (503, Some("1")));
    assert!(words.contains("3 connections"), "{words}");
    first.result("PUT", "/collections/c/points", Some(&points([1])));
    assert_eq!(
        Metrics::of(&first).value("edge_sync_refused_total{limit=\"connections\"}"),
        1.0
    );
    held.pop();
    until("no place for a client", || {
        let asked = served.client().call("GET", "/collections", None);
        asked.is_ok_and(|(status, _)| status == 200)
    });
}

/// Puts points and is refused: status, `Retry-After` and words.
fn refused(client: &Client, body: &Value) -> (u16, Option<String>, String) {
    let text = body.to_string();
    let path = "/collections/c/points?wait=true";
    let mut answer = client
        .send("PUT", path, &[], Some(text.as_bytes()))
        .expect("an answer");
    let retry_after = answer.headers().get("retry-after");
    let retry_after = retry_after.map(|value| value.to_str().expect("text").to_owned());
    let words = answer.body_mut().read_to_string().expect("a body");
    (answer.status().as_u16(), retry_after, words)
}

#[test]
fn bodies_beyond_the_room_for_all_of_them_are_refused_and_small_ones_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    // Three of them for large bodies.
    let served = serve(
        folder.path(),
        "serve_bodies_mib = 4\nserve_body_seconds = 600\n",
    );
    let client = served.client();
    let two = large(2 << 20);
    let length = two.to_string().len();
    let mut holding = asked_for_body(&served, length);
    let metrics = Metrics::of(&client);
    assert!(metrics.value("edge_sync_request_bytes") >= f64::from(2 << 20));
    let (status, retry_after, words) = refused(&client, &two);
    assert_eq!(
        (status, retry_after.as_deref()),
        (503, Some("1")),
        "{words}"
    );
    assert!(words.contains("bodies"), "{words}");
    let metrics = Metrics::of(&client);
    assert_eq!(
        metrics.value("edge_sync_refused_total{limit=\"bodies\"}"),
        1.0
    );
    // Without a length, and so without being asked before it is there.
    let mut unannounced = connect(&served);
    let head = "PUT /collections/c/points HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    unannounced.write_all(head.as_bytes()).expect("sent");
    let chunk = format!("{length:x}\r\n{two}\r\n0\r\n\r\n");
    unannounced.write_all(chunk.as_bytes()).expect("sent");
    assert!(rest(&mut unannounced).starts_with("HTTP/1.1 503"));
    let path = "/collections/c/points?wait=true";
    client.result("PUT", path, Some(&points([1, 2])));
    let found = client.result("POST", "/collections/c/points/count", Some(&json!({})));
    assert_eq!(found["count"], 2);
    // What there can never be room for is no matter of waiting.
    let mut too_large = connect(&served);
    let head = "PUT /collections/c/points HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                content-type: application/json\r\ncontent-length: 4194304\r\n\r\n";
    too_large.write_all(head.as_bytes()).expect("sent");
    let answer = rest(&mut too_large);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(answer.contains("limit: 3145728 bytes"), "{answer}");

    holding.write_all(two.to_string().as_bytes()).expect("sent");
    let mut answer = [0; 12];
    holding.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
    client.result("PUT", path, Some(&two));
    until("room is not given back", || {
        Metrics::of(&client).value("edge_sync_request_bytes") == 0.0
    });
}

/// Clients that do nothing but search, until `end`.
fn search(served: &Served, end: &AtomicBool, answers: &Mutex<Vec<u16>>) {
    let client = served.client();
    let body = json!({"query": [1, 2, 3, 4], "limit": 2000, "with_vector": true});
    while !end.load(Ordering::Relaxed) {
        let path = "/collections/c/points/query";
        if let Ok((status, _)) = client.call("POST", path, Some(&body)) {
            answers.lock().expect("no panic").push(status);
        }
    }
}

#[test]
fn many_searching_clients_do_not_starve_a_writer() {
    const READERS: usize = 200;
    const WRITES: u64 = 10;
    let folder = tempfile::tempdir().expect("a folder");
    let served = serve(folder.path(), "");
    let writer = served.client();
    let path = "/collections/c/points?wait=true";
    writer.result("PUT", path, Some(&points(0..2000)));
    let (end, answers) = (AtomicBool::new(false), Mutex::default());
    let searched = std::thread::scope(|scope| {
        for _ in 0..READERS {
            scope.spawn(|| search(&served, &end, &answers));
        }
        let waiting = "edge_sync_requests_waiting{kind=\"read\"}";
        until("no crowd", || {
            Metrics::of(&writer).value(waiting) >= READERS as f64 * 0.75
        });
        let before = searches(&writer);
        for id in 0..WRITES {
            writer.result("PUT", path, Some(&points([id])));
        }
        let after = searches(&writer);
        end.store(true, Ordering::Relaxed);
        after - before
    });
    // In the order of their coming, each write would wait for nearly all the readers.
    let fair = WRITES as f64 * READERS as f64 / 4.0;
    assert!(
        searched < fair,
        "{searched} searches between {WRITES} writes"
    );
    let answers = answers.into_inner().expect("no panic");
    assert!(answers.iter().all(|status| *status == 200));
}

/// Searches that were answered.
fn searches(client: &Client) -> f64 {
    let name = "rest_responses_total{\
                endpoint=\"/collections/{collection_name}/points/query\",\
                method=\"POST\",status=\"200\"}";
    Metrics::of(client).get(name).unwrap_or_default()
}

#[test]
fn a_queue_that_is_full_is_told_and_leaves_room_for_the_other_kind() {
    let folder = tempfile::tempdir().expect("a folder");
    let served = serve(folder.path(), "serve_queue = 2\n");
    let writer = served.client();
    let path = "/collections/c/points?wait=true";
    writer.result("PUT", path, Some(&points(0..2000)));
    let (end, answers) = (AtomicBool::new(false), Mutex::<Vec<u16>>::default());
    std::thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| search(&served, &end, &answers));
        }
        until("nobody is refused", || {
            let answers = answers.lock().expect("no panic");
            answers.contains(&503) && answers.contains(&200)
        });
        for id in 0..10 {
            writer.result("PUT", path, Some(&points([id])));
        }
        end.store(true, Ordering::Relaxed);
    });
    let answers = answers.into_inner().expect("no panic");
    assert!(answers.iter().all(|status| [200, 503].contains(status)));
    let refused = answers.iter().filter(|status| **status == 503).count();
    let metrics = Metrics::of(&writer);
    assert_eq!(
        metrics.value("edge_sync_refused_total{limit=\"queue\"}"),
        refused as f64
    );
}

/// Passes connections on, to wherever it is told later, and counts them.
struct Forwarder {
    address: SocketAddr,
    target: Arc<Mutex<Option<SocketAddr>>>,
    passed: Arc<AtomicUsize>,
}

impl Forwarder {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let forwarder = Self {
            address: listener.local_addr().expect("an address"),
            target: Arc::default(),
            passed: Arc::default(),
        };
        let (target, passed) = (Arc::clone(&forwarder.target), Arc::clone(&forwarder.passed));
        std::thread::spawn(move || {
            for here in listener.incoming().map_while(Result::ok) {
                let Some(target) = *target.lock().expect("no panic") else {
                    continue;
                };
                let there = TcpStream::connect(target).expect("connected");
                passed.fetch_add(1, Ordering::Relaxed);
                for (mut from, mut to) in [
                    (here.try_clone(), there.try_clone()),
                    (there.try_clone(), here.try_clone()),
                ]
                .map(|(from, to)| (from.expect("a socket"), to.expect("a socket")))
                {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        forwarder
    }
}

#[test]
fn a_server_that_is_this_very_endpoint_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("an address").port()
    };
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["--json", "--collection", "c", "serve", "--listen", &listen];
    for url in [
        format!("http://127.0.0.1:{port}"),
        format!("http://localhost:{port}/"),
    ] {
        let mut command = edge_sync(&data, &arguments);
        let output = command.args(["--url", &url]).output().expect("the command");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("this very endpoint"), "{text}");
        assert!(!data.exists(), "a directory was made");
    }
    // What does not upload may name any server.
    let url = format!("http://{listen}");
    let mut command = edge_sync(&data, &arguments);
    command.args(["--url", &url, "--no-sync"]);
    assert!(Served::spawn(command).stop().status.success());

    // Behind another address it shows in what answers.
    let forwarder = Forwarder::start();
    let url = format!("http://{}", forwarder.address);
    let served = Served::start(&data, &["--url", &url, "--collection", "c"]);
    let address = served.url().trim_start_matches("http://");
    *forwarder.target.lock().expect("no panic") = Some(address.parse().expect("an address"));
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    client.result("PUT", "/collections/c/points?wait=true", Some(&points([1])));
    served.wait_for_note("this very device");
    let status = client.result("GET", "/edge-sync/status", None);
    assert_eq!(
        (&status["logged"], &status["queued"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(status["worker"], "stopped");
    assert!(forwarder.passed.load(Ordering::Relaxed) > 0);
    assert!(served.stop().status.success());
}

#[test]
fn metrics_are_in_prometheus_text_format_and_tell_of_the_queue_and_the_exchanges() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = server();
    let url = upstream.url();
    // The first pull fails: there is no shard yet.
    let arguments = ["--url", &url, "--collection", COLLECTION, "--every", "1s"];
    let served = Served::start(folder.path(), &arguments);
    let client = served.client();
    let metrics = Metrics::of(&client);
    assert_eq!(metrics.value("collections_total"), 0.0);
    assert_eq!(
        metrics.value("app_info{name=\"qdrant\",version=\"1.19.0\"}"),
        1.0
    );
    let collection = format!("/collections/{COLLECTION}");
    client.result("PUT", &collection, Some(&config()));
    let path = format!("{collection}/points?wait=true");
    client.result("PUT", &path, Some(&points(1..=3)));
    assert_eq!(client.refusal("PUT", &path, Some(&json!({}))).0, 400);
    assert_eq!(client.refusal("GET", "/nowhere", None).0, 404);
    served.wait_for_note("in step with the server");
    until("no pull", || {
        let metrics = Metrics::of(&client);
        metrics
            .get("edge_sync_last_pull_timestamp_seconds")
            .is_some()
    });
    let metrics = Metrics::of(&client);
    let points_of = format!("collection_points{{id=\"{COLLECTION}\"}}");
    for (name, value) in [
        ("collections_total", 1.0),
        (points_of.as_str(), 3.0),
        ("edge_sync_has_server", 1.0),
        ("edge_sync_queue_length", 0.0),
        ("edge_sync_queue_age_seconds", 0.0),
        ("edge_sync_rejected", 0.0),
        ("edge_sync_last_sync_failed", 0.0),
        ("edge_sync_last_pull_failed", 0.0),
    ] {
        assert_eq!(metrics.value(name), value, "{name}");
    }
    assert!(metrics.value("edge_sync_last_sync_timestamp_seconds") > 1.7e9);
    for (status, count) in [("200", 1.0), ("400", 1.0)] {
        let labels = format!(
            "{{endpoint=\"/collections/{{collection_name}}/points\",method=\"PUT\",status=\"{status}\"}}"
        );
        for name in [
            "rest_responses_total",
            "rest_responses_duration_seconds_count",
        ] {
            assert_eq!(metrics.value(&format!("{name}{labels}")), count, "{name}");
        }
    }
    if cfg!(target_os = "linux") {
        assert!(metrics.value("memory_resident_bytes") > 1e6);
    }

    upstream.stop().expect("down");
    client.result("PUT", &path, Some(&points([4])));
    served.wait_for_note("uploads: waiting");
    let metrics = Metrics::of(&client);
    assert_eq!(metrics.value("edge_sync_queue_length"), 1.0);
    assert!(metrics.value("edge_sync_queue_age_seconds") > 0.0);
    assert!(metrics.value("edge_sync_queue_bytes") > 0.0);
    assert_eq!(metrics.value("edge_sync_last_sync_failed"), 1.0);

    let answer = client
        .send("GET", "/metrics", &[], None)
        .expect("an answer");
    let content_type = answer.headers()["content-type"].to_str().expect("text");
    assert_eq!(content_type, "text/plain; version=0.0.4");
}

#[test]
fn it_ends_although_a_request_is_open_and_the_server_is_silent() {
    let folder = tempfile::tempdir().expect("a folder");
    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", silent.local_addr().expect("an address"));
    let limits = "serve_stop_seconds = 1\nserve_body_seconds = 600\nserve_head_seconds = 600\n";
    let arguments = ["--url", &url, "--collection", "c"];
    let served = Served::spawn(limited(folder.path(), limits, &arguments));
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    client.result("PUT", "/collections/c/points?wait=true", Some(&points([1])));
    let mut asked = silent.accept().expect("a connection").0;
    asked.read_exact(&mut [0]).expect("a request");
    let mut hanging = asked_for_body(&served, 1000);
    let mut half_open = connect(&served);
    half_open.write_all(b"GET /collec").expect("sent");
    let stopped = served.stop();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    let said: Value = serde_json::from_str(&stopped.output).expect("JSON");
    assert_eq!(said, json!({"stopped": true, "flushed": true}));
    for words in ["requests were still under way", "exchange with the server"] {
        assert!(stopped.errors.contains(words), "{words}: {stopped:?}");
    }
    let _ = (rest(&mut hanging), rest(&mut half_open));
    let data = folder.path().join("data");
    let output = edge_sync(&data, &["--json", "status"]).output();
    let status: Value = serde_json::from_slice(&output.expect("the command").stdout).expect("JSON");
    assert_eq!(
        (&status["applied"], &status["queued"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn limits_that_cannot_be_are_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    for limit in [
        "serve_connections = 0",
        "serve_queue = 0",
        "serve_bodies_mib = 0",
        "serve_bodies_mib = 4097",
        "serve_head_seconds = 0",
        "serve_body_seconds = 86401",
        "serve_answer_seconds = 0",
        "serve_stop_seconds = 0",
    ] {
        let output = limited(folder.path(), limit, &[]).output();
        let output = output.expect("the command");
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(output.status.code(), Some(2), "{limit}: {text}");
        let name = limit.split(' ').next().expect("a name");
        assert!(text.contains(name), "{limit}: {text}");
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_log_in_json_has_notes_requests_and_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let arguments = [
        "--log-format",
        "json",
        "--url",
        "http://127.0.0.1:1",
        "--json",
    ];
    let mut command = edge_sync(&data, &arguments);
    command.args(["--collection", "c", "serve", "--listen", "127.0.0.1:0"]);
    let served = Served::spawn(command);
    let client = served.client();
    client.result("PUT", "/collections/c", Some(&config()));
    client.result("PUT", "/collections/c/points", Some(&points([1])));
    served.wait_for_note("uploads: waiting");
    let taken = edge_sync(&data, &["--log-format", "json", "count"]).output();
    let taken = taken.expect("the command");
    assert_eq!(taken.status.code(), Some(8));
    let stopped = served.stop();
    let events = |text: &str| -> Vec<Value> {
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect()
    };
    let log = events(&stopped.errors);
    for event in &log {
        assert!(
            event["timestamp"].is_string() && event["level"].is_string(),
            "{event}"
        );
    }
    let has = |target: &str, field: &str, value: &str| {
        log.iter().any(|event| {
            event["target"] == target
                && event["fields"][field]
                    .as_str()
                    .is_some_and(|text| text.starts_with(value))
        })
    };
    assert!(has("edge_sync", "message", "uploads: waiting"));
    assert!(has(
        "edge_sync_rest::access",
        "path",
        "/collections/c/points"
    ));
    let errors = events(&String::from_utf8(taken.stderr).expect("UTF-8"));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(errors[0]["fields"]["kind"], "locked");
    assert_eq!(errors[0]["level"], "ERROR");
}
