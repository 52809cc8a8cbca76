//! The server double is as strict as a server, and what can stand in front of one stands in front of
//! it on demand.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use edge_sync_clients::rest::Client;
use edge_sync_double::{Fault, Options, QdrantDouble, Reply, Results, RetryAfter, Rule};
use serde_json::{Value, json};

const C: &str = "/collections/c";
const POINTS: &str = "/collections/c/points?wait=true";
const BATCH: &str = "/collections/c/points/batch?wait=true";

fn start() -> QdrantDouble {
    start_with(json!({}))
}

/// A double with a collection that was created with these settings as well.
fn start_with(settings: Value) -> QdrantDouble {
    let double = QdrantDouble::start(Options::default()).expect("a server");
    let mut config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    for (name, value) in settings.as_object().expect("settings") {
        config[name] = value.clone();
    }
    double.client().result("PUT", C, Some(&config));
    double.take_exchanges();
    double
}

fn points(ids: impl IntoIterator<Item = u64>) -> Value {
    let points: Vec<_> = ids
        .into_iter()
        .map(|id| json!({"id": id, "vector": [1.0, 2.0]}))
        .collect();
    json!({"points": points})
}

fn upsert(id: u64) -> Value {
    json!({"upsert": points([id])})
}

fn mark(ids: &[u64]) -> Value {
    json!({"set_payload": {"payload": {"seen": true}, "points": ids}})
}

fn batch(operations: &[Value]) -> Value {
    json!({"operations": operations})
}

fn count(double: &QdrantDouble) -> u64 {
    double.count("c").expect("the collection")
}

fn is_marked(double: &QdrantDouble, id: u64) -> bool {
    double.points("c").expect("points")[&id.to_string()]["payload"]["seen"] == true
}

#[test]
fn what_stands_before_a_refused_operation_of_a_batch_stays() {
    let double = start();
    let client = double.client();
    let operations = [upsert(1), mark(&[9]), upsert(2)];
    let refused = client.refusal("POST", BATCH, Some(&batch(&operations)));
    assert_eq!(
        refused,
        (404, "Not found: No point with id 9 found".to_owned())
    );
    assert_eq!(count(&double), 1);
    // The one that was applied and the one that was refused have a number each.
    let receipts = client.result("POST", BATCH, Some(&batch(&[upsert(2), upsert(3)])));
    assert_eq!(receipts[0]["operation_id"], 3);
    assert_eq!(receipts[1]["operation_id"], 4);
}

#[test]
fn points_that_are_there_are_changed_before_the_missing_one_is_told() {
    let double = start();
    let client = double.client();
    client.result("PUT", POINTS, Some(&points(1..=80)));
    // 32 at a time: the missing one is in the second lot, and the third is not reached.
    let ids: Vec<u64> = (1..=40).chain([99]).chain(41..=80).collect();
    let refused = client.refusal("POST", BATCH, Some(&batch(&[mark(&ids)])));
    assert_eq!(
        refused,
        (404, "Not found: No point with id 99 found".to_owned())
    );
    assert!(is_marked(&double, 1) && is_marked(&double, 40) && is_marked(&double, 63));
    assert!(!is_marked(&double, 64) && !is_marked(&double, 80));
    // A filter finds what is there, and no more.
    let filter = json!({"payload": {"n": 1}, "filter": {"must": [{"has_id": [1, 99]}]}});
    client.result(
        "POST",
        "/collections/c/points/payload?wait=true",
        Some(&filter),
    );
}

#[test]
fn numbers_of_operations_begin_anew_with_a_collection() {
    let double = start();
    let client = double.client();
    let receipt = |client: &Client| client.result("PUT", POINTS, Some(&points([1])));
    assert_eq!(receipt(&client)["operation_id"], 1);
    assert_eq!(receipt(&client)["operation_id"], 2);
    client.result("DELETE", C, None);
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    client.result("PUT", C, Some(&config));
    assert_eq!(receipt(&client)["operation_id"], 1);
    assert_eq!(count(&double), 1);
}

#[test]
fn metadata_and_settings_are_kept_changed_and_shown() {
    let double = start_with(json!({"metadata": {"made-by": "a"}, "shard_number": 1}));
    let client = double.client();
    let config = |client: &Client| client.result("GET", C, None)["config"].clone();
    assert_eq!(config(&client)["metadata"], json!({"made-by": "a"}));
    let patch = json!({
        "metadata": {"id": 7},
        "optimizers_config": {"indexing_threshold": 1},
        "unknown": {},
    });
    client.result("PATCH", C, Some(&patch));
    assert_eq!(
        config(&client)["metadata"],
        json!({"made-by": "a", "id": 7})
    );
    assert_eq!(config(&client)["optimizer_config"]["indexing_threshold"], 1);
    client.result("PATCH", C, Some(&json!({"metadata": {"id": null}})));
    assert_eq!(config(&client)["metadata"], json!({"made-by": "a"}));
}

#[test]
fn a_write_rate_limit_counts_points() {
    let strict = json!({"enabled": true, "write_rate_limit": 5});
    let double = start_with(json!({"strict_mode_config": strict}));
    let client = double.client();
    let send = |body: &Value| {
        let body = body.to_string();
        let answer = client
            .send("POST", BATCH, &[], Some(body.as_bytes()))
            .expect("an answer");
        let wait = answer.headers().get("retry-after").is_some();
        let words = answer.into_body().read_to_string().expect("a body");
        (wait, words)
    };
    let (wait, words) = send(&batch(&[json!({"upsert": points(1..=6)})]));
    assert!(
        !wait && words.contains("request larger than rate limiter capacity"),
        "{words}"
    );
    assert_eq!(count(&double), 0);
    // Operation by operation: five pass, and stay.
    let operations: Vec<_> = (1..=6).map(upsert).collect();
    let (wait, words) = send(&batch(&operations));
    assert!(
        wait && words.contains("Operation requires 1 tokens"),
        "{words}"
    );
    assert_eq!(count(&double), 5);
    double.refill_rate_limit("c").expect("a limit");
    let (_, words) = send(&batch(&[upsert(6)]));
    assert!(words.contains("completed"), "{words}");
}

#[test]
fn strict_mode_refuses_in_the_servers_words() {
    let strict = json!({"enabled": true, "max_points_count": 2, "upsert_max_batchsize": 3});
    let double = start_with(json!({"strict_mode_config": strict}));
    let client = double.client();
    assert_eq!(
        client.refusal("PUT", POINTS, Some(&points(1..=4))),
        (
            400,
            "Bad request: Limit exceeded 4 > 3 for \"upsert limit\". Help: Reduce the \"upsert \
             limit\" parameter to or below 3."
                .to_owned()
        )
    );
    client.result("PUT", POINTS, Some(&points(1..=2)));
    let full = (
        400,
        "Bad request: Max points count limit of 2 reached!".to_owned(),
    );
    assert_eq!(client.refusal("PUT", POINTS, Some(&points([1]))), full);
    // Of a batch, all is checked before anything is applied.
    let operations = [json!({"delete": {"points": [1]}}), upsert(3)];
    assert_eq!(
        client.refusal("POST", BATCH, Some(&batch(&operations))),
        full
    );
    assert_eq!(count(&double), 2);
    client.result("POST", BATCH, Some(&batch(&operations[..1])));
    client.result(
        "PATCH",
        C,
        Some(&json!({"strict_mode_config": {"max_points_count": 10}})),
    );
    client.result("POST", BATCH, Some(&batch(&operations[1..])));
}

#[test]
fn custom_sharding_wants_a_key() {
    let double = start_with(json!({"sharding_method": "custom"}));
    let client = double.client();
    let refused = client.refusal("POST", BATCH, Some(&batch(&[upsert(1)])));
    assert_eq!(
        refused,
        (400, "Wrong input: Shard key not specified".to_owned())
    );
    let info = client.result("GET", C, None);
    assert_eq!(info["config"]["params"]["sharding_method"], "custom");
    let (status, words) = client
        .call("GET", "/collections/c/shards/0/snapshot", None)
        .expect("an answer");
    assert_eq!(
        (status, words),
        (404, json!("Not found: shard 0 not found"))
    );
}

#[test]
fn a_collection_of_several_shards_has_a_snapshot_of_each() {
    let double = start_with(json!({"shard_number": 3}));
    let client = double.client();
    client.result("PUT", POINTS, Some(&points(1..=30)));
    client.result(
        "POST",
        BATCH,
        Some(&batch(&[json!({"delete": {"points": [1, 2]}})])),
    );
    let info = client.result("GET", C, None);
    assert_eq!(info["config"]["params"]["shard_number"], 3);
    let cluster = client.result("GET", "/collections/c/cluster", None);
    let counts: Vec<u64> = (0..3)
        .map(|shard| {
            assert_eq!(cluster["local_shards"][shard]["shard_id"], shard);
            cluster["local_shards"][shard]["points_count"]
                .as_u64()
                .expect("a count")
        })
        .collect();
    assert_eq!(counts.iter().sum::<u64>(), 28);
    assert!(
        counts.iter().all(|count| (1..28).contains(count)),
        "{counts:?}"
    );
    // What is restored from a shard is what belongs to that shard.
    let folder = tempfile::tempdir().expect("a folder");
    for (shard, count) in counts.iter().enumerate() {
        let path = format!("/collections/c/shards/{shard}/snapshot");
        let answer = client.send("GET", &path, &[], None).expect("an answer");
        let mut bytes = Vec::new();
        answer
            .into_body()
            .into_reader()
            .read_to_end(&mut bytes)
            .expect("a snapshot");
        let file = folder.path().join("shard.snapshot");
        std::fs::write(&file, bytes).expect("written");
        double.restore("part", &file).expect("restored");
        assert_eq!(double.count("part").expect("there"), *count);
    }
}

#[test]
fn an_alias_stands_for_its_collection() {
    let double = start();
    let client = double.client();
    let change = |action: Value| {
        client.result(
            "POST",
            "/collections/aliases",
            Some(&json!({"actions": [action]})),
        )
    };
    change(json!({"create_alias": {"collection_name": "c", "alias_name": "a"}}));
    client.result("PUT", "/collections/a/points?wait=true", Some(&points([1])));
    assert_eq!(count(&double), 1);
    assert_eq!(
        client.result("GET", "/collections/a", None)["points_count"],
        1
    );
    assert_eq!(
        client.result("GET", "/collections/a/exists", None)["exists"],
        true
    );
    let aliases = json!({"aliases": [{"alias_name": "a", "collection_name": "c"}]});
    assert_eq!(
        client.result("GET", "/collections/c/aliases", None),
        aliases
    );
    assert_eq!(client.result("GET", "/aliases", None), aliases);
    // It is no name for another collection, and none to delete one by.
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    assert_eq!(
        client.refusal("PUT", "/collections/a", Some(&config)).0,
        400
    );
    assert_eq!(client.result("DELETE", "/collections/a", None), false);
    change(json!({"rename_alias": {"old_alias_name": "a", "new_alias_name": "b"}}));
    assert_eq!(client.refusal("GET", "/collections/a", None).0, 404);
    change(json!({"delete_alias": {"alias_name": "b"}}));
    assert_eq!(client.refusal("GET", "/collections/b", None).0, 404);
}

#[test]
fn optimizations_are_told_as_the_script_says() {
    let double = start();
    let client = double.client();
    let path = "/collections/c/optimizations";
    assert_eq!(client.result("GET", path, None)["running"], json!([]));
    let running =
        json!({"summary": {"queued_optimizations": 1}, "running": [{"optimizer": "merge"}]});
    double.set_optimizations("c", running.clone()).expect("set");
    assert_eq!(client.result("GET", path, None), running);
}

#[test]
fn a_firewall_looks_at_what_a_request_holds() {
    let double = start();
    let client = double.client();
    let blocked = Rule::on("*", "").with_text("(?i)drop table").always();
    double.faults().add(blocked.fault(Fault::firewall()));
    let point = json!({"points": [
        {"id": 1, "vector": [1.0, 2.0], "payload": {"note": "DROP TABLE b;"}},
    ]});
    let (status, page) = client.call("PUT", POINTS, Some(&point)).expect("an answer");
    assert_eq!(status, 403);
    assert!(
        page.as_str().is_some_and(|page| page.starts_with("<html>")),
        "{page}"
    );
    client.result("PUT", POINTS, Some(&points([2])));
    assert_eq!(count(&double), 1);
}

#[test]
fn answers_of_others_have_no_envelope() {
    let double = start();
    let client = double.client();
    for status in [200, 400, 405, 421, 451, 502] {
        let reply = Fault::Reply(Reply::html(status, "not Qdrant"));
        double.faults().add(Rule::on("*", "").fault(reply));
        let (got, page) = client
            .call("PUT", POINTS, Some(&points([1])))
            .expect("an answer");
        assert_eq!(got, status);
        assert!(page.is_string(), "{page}");
    }
    double
        .faults()
        .add(Rule::on("*", "").fault(Fault::portal()));
    let sent = TcpStream::connect(double.address()).and_then(|mut stream| {
        stream.write_all(b"GET /collections/c HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.to_ascii_lowercase())
    });
    let answer = sent.expect("an answer");
    assert!(answer.starts_with("http/1.1 302"), "{answer}");
    assert!(
        answer.contains("location: http://portal.invalid/login"),
        "{answer}"
    );
    assert_eq!(count(&double), 0);
}

#[test]
fn results_are_changed_after_the_request_was_applied() {
    let double = start();
    let client = double.client();
    let operations = batch(&[upsert(1), upsert(2)]);
    let mut answers = Vec::new();
    for results in [
        Results::First,
        Results::Status("acknowledged"),
        Results::Status("wait_timeout"),
        Results::Replaced(Value::Null),
        Results::Replaced(json!([])),
        Results::Replaced(json!(false)),
    ] {
        double
            .faults()
            .add(Rule::on("POST", "/batch").fault(Fault::Results(results)));
        answers.push(client.result("POST", BATCH, Some(&operations)));
    }
    assert_eq!(answers[0].as_array().map(Vec::len), Some(1));
    assert_eq!(answers[1][1]["status"], "acknowledged");
    assert_eq!(answers[2][0]["status"], "wait_timeout");
    assert_eq!(answers[3..], [Value::Null, json!([]), json!(false)]);
    assert_eq!(count(&double), 2);
    let accepted = Reply::json(202, &json!({"status": "acknowledged", "time": 0.0}));
    double
        .faults()
        .add(Rule::on("POST", "/batch").fault(Fault::ReplyAfter(accepted)));
    let (status, _) = client
        .call("POST", BATCH, Some(&batch(&[upsert(3)])))
        .expect("an answer");
    assert_eq!((status, count(&double)), (202, 3));
}

#[test]
fn an_answer_comes_compressed_if_the_script_says_so() {
    let double = start();
    double.faults().add(Rule::on("GET", "").fault(Fault::Gzip));
    let answer = double
        .client()
        .send("GET", C, &[("accept-encoding", "identity")], None)
        .expect("an answer");
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let mut text = String::new();
    flate2::read::GzDecoder::new(answer.into_body().into_reader())
        .read_to_string(&mut text)
        .expect("gzip");
    assert!(text.contains("points_count"), "{text}");
}

/// Sends the head of a request and a part of its body, and reads what comes.
fn half_a_request(double: &QdrantDouble, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(double.address()).expect("a connection");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("set");
    let head = format!("POST {BATCH} HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    stream.write_all(body).expect("sent");
    let mut answer = Vec::new();
    // A reset is an end as well: what came before it counts.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_proxy_refuses_before_the_body_was_sent() {
    let double = start();
    let large = Rule::on("POST", "/batch").larger_than(1000).always();
    double.faults().add(large.fault(Fault::too_large_at_once()));
    // The body never comes, and the answer does.
    let answer = half_a_request(&double, "content-length: 1000000", b"");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    double
        .client()
        .result("POST", BATCH, Some(&batch(&[upsert(1)])));
    assert_eq!(count(&double), 1);
    let after = Fault::Early {
        reply: Reply::html(400, "Bad Request"),
        after: 10,
    };
    double.faults().clear();
    double.faults().add(Rule::on("POST", "/batch").fault(after));
    let answer = half_a_request(&double, "content-length: 1000000", &[b' '; 10]);
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let exchange = double.take_exchanges().pop().expect("an exchange");
    assert_eq!((exchange.status, exchange.body_bytes), (Some(400), 10));
}

#[test]
fn a_proxy_wants_to_know_the_length() {
    let double = start();
    let chunked = Rule::on("POST", "").chunked().always();
    double.faults().add(chunked.fault(Fault::length_required()));
    let answer = half_a_request(&double, "transfer-encoding: chunked", b"2\r\n{}\r\n");
    assert!(answer.starts_with("HTTP/1.1 411"), "{answer}");
    double
        .client()
        .result("POST", BATCH, Some(&batch(&[upsert(1)])));
    assert_eq!(count(&double), 1);
}

#[test]
fn silence_lasts_and_may_come_after_the_deed() {
    let double = start();
    let impatient = |seconds: u64| {
        let mut stream = TcpStream::connect(double.address()).expect("a connection");
        let patience = Duration::from_millis(100 * seconds);
        stream.set_read_timeout(Some(patience)).expect("set");
        let body = batch(&[upsert(1)]).to_string();
        let request = format!(
            "POST {BATCH} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut byte = [0];
        stream.read(&mut byte).map_err(|error| error.kind())
    };
    double
        .faults()
        .add(Rule::on("POST", "").fault(Fault::Silence));
    impatient(1).expect_err("nothing comes");
    assert_eq!(count(&double), 0);
    double
        .faults()
        .add(Rule::on("POST", "").fault(Fault::SilenceAfter));
    impatient(1).expect_err("nothing comes");
    assert!(double.wait_for(Duration::from_secs(60), |exchanges| {
        exchanges.iter().any(|exchange| exchange.applied == 1)
    }));
    assert_eq!(count(&double), 1);
}

#[test]
fn a_careless_server_echoes_the_key() {
    let double = QdrantDouble::start(Options {
        api_key: Some("top-secret".to_owned()),
        ..Options::default()
    })
    .expect("a server");
    let location = format!("http://elsewhere.invalid/?key={}", Reply::API_KEY);
    double
        .faults()
        .add(Rule::on("GET", "/body").fault(Fault::Reply(Reply::json(
            400,
            &json!({"status": {"error": format!("no access with {}", Reply::API_KEY)}}),
        ))));
    double
        .faults()
        .add(Rule::on("GET", "/head").fault(Fault::Reply(
            Reply::html(400, "x").header("location", &location),
        )));
    let client = double.client();
    assert_eq!(
        client.refusal("GET", "/body", None).1,
        "no access with top-secret"
    );
    let answer = client.send("GET", "/head", &[], None).expect("an answer");
    assert_eq!(
        answer.headers()["location"],
        "http://elsewhere.invalid/?key=top-secret"
    );
    // What is recorded does not hold it.
    assert!(!format!("{:?}", double.exchanges()).contains("top-secret"));
}

#[test]
fn retry_after_may_be_anything() {
    let double = start();
    for text in ["-1", "1.5", "18446744073709551615", "soon", "86400"] {
        double
            .faults()
            .add(Rule::on("GET", "").fault(Fault::too_many_requests(RetryAfter::Text(text))));
        let answer = double
            .client()
            .send("GET", C, &[], None)
            .expect("an answer");
        assert_eq!(answer.headers()["retry-after"], text);
    }
}
