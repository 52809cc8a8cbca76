//! The server double does what its script says, and nothing else.

use std::io::Read as _;
use std::time::{Duration, Instant, SystemTime};

use edge_sync_clients::rest::Client;
use edge_sync_double::{
    Exchange, Fault, Options, PresentedKey, QdrantDouble, RandomFaults, RetryAfter, Rule,
};
use serde_json::{Value, json};

const POINTS: &str = "/collections/c/points?wait=true";

fn start() -> QdrantDouble {
    let double = QdrantDouble::start(Options::default()).expect("a server");
    create(&double.client());
    double.take_exchanges();
    double
}

fn create(client: &Client) {
    let config = json!({"vectors": {"size": 2, "distance": "Dot"}});
    client.result("PUT", "/collections/c", Some(&config));
}

fn points(ids: &[u64]) -> Value {
    let points: Vec<_> = ids
        .iter()
        .map(|id| json!({"id": id, "vector": [1.0, 2.0]}))
        .collect();
    json!({"points": points})
}

fn count(double: &QdrantDouble) -> u64 {
    double.count("c").expect("the collection")
}

#[test]
fn requests_are_recorded_in_order_and_without_secrets() {
    let double = QdrantDouble::start(Options {
        api_key: Some("top-secret".to_owned()),
        ..Options::default()
    })
    .expect("a server");
    create(&double.client());
    double
        .client()
        .result("PUT", POINTS, Some(&points(&[1, 2, 3])));
    Client::new(&double.url(), Some("wrong")).refusal("GET", "/collections/c", None);
    let exchanges = double.exchanges();
    let summary: Vec<_> = exchanges
        .iter()
        .map(|e| (e.method.as_str(), e.path.as_str(), e.api_key, e.status))
        .collect();
    let expected = [
        ("PUT", "/collections/c", PresentedKey::Right, Some(200)),
        (
            "PUT",
            "/collections/c/points",
            PresentedKey::Right,
            Some(200),
        ),
        ("GET", "/collections/c", PresentedKey::Other, Some(401)),
    ];
    assert_eq!(summary, expected);
    assert_eq!(exchanges[1].query, "wait=true");
    assert_eq!(exchanges[1].batch_size(), Some(3));
    assert!(!format!("{exchanges:?}").contains("top-secret"));
}

#[test]
fn down_refuses_and_up_again_has_its_state_and_port() {
    let double = QdrantDouble::start(Options {
        down: true,
        ..Options::default()
    })
    .expect("a server");
    let client = double.client();
    client
        .call("GET", "/collections", None)
        .expect_err("it is down");
    double.resume().expect("up");
    create(&client);
    client.result("PUT", POINTS, Some(&points(&[1])));
    for _ in 0..3 {
        double.stop().expect("down");
        client
            .call("GET", "/collections", None)
            .expect_err("it is down");
        double.resume().expect("up");
        assert_eq!(
            client.result("GET", "/collections/c", None)["points_count"],
            1
        );
    }
}

#[test]
fn a_double_takes_up_its_folder_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options {
        directory: Some(folder.path().to_owned()),
        ..Options::default()
    };
    let double = QdrantDouble::start(options.clone()).expect("a server");
    create(&double.client());
    double
        .client()
        .result("PUT", POINTS, Some(&points(&[1, 2])));
    drop(double);
    let double = QdrantDouble::start(options).expect("a server");
    assert_eq!(count(&double), 2);
}

#[test]
fn connections_can_be_refused_a_number_of_times() {
    let double = start();
    double.refuse_connections(2);
    let fresh = || Client::new(&double.url(), None).call("GET", "/collections", None);
    fresh().expect_err("refused");
    fresh().expect_err("refused");
    fresh().expect("served");
}

#[test]
fn a_dropped_request_is_not_applied_and_a_dropped_answer_is() {
    let double = start();
    let client = double.client();
    double
        .faults()
        .add(Rule::on("PUT", "/points").fault(Fault::DropRequest));
    client
        .call("PUT", POINTS, Some(&points(&[1])))
        .expect_err("no answer");
    assert_eq!(count(&double), 0);
    double
        .faults()
        .add(Rule::on("PUT", "/points").fault(Fault::DropAnswer));
    client
        .call("PUT", POINTS, Some(&points(&[1])))
        .expect_err("no answer");
    assert_eq!(count(&double), 1);
    double
        .faults()
        .add(Rule::on("PUT", "/points").fault(Fault::Duplicate));
    client.result("PUT", POINTS, Some(&points(&[2])));
    assert_eq!(count(&double), 2);
    let applied: Vec<_> = double
        .exchanges()
        .iter()
        .map(|e| (e.applied, e.status))
        .collect();
    assert_eq!(applied, [(0, None), (1, None), (2, Some(200))]);
}

#[test]
fn scripted_answers_replace_the_servers() {
    let double = start();
    let client = double.client();
    let cases = [
        (Fault::status(500, "broken"), 500),
        (Fault::status(503, "busy"), 503),
        (Fault::forbidden(), 403),
        (Fault::no_collection("c"), 404),
        (Fault::too_large(), 413),
        (Fault::unauthorized(), 401),
    ];
    for (fault, status) in cases {
        double.faults().add(Rule::on("PUT", "/points").fault(fault));
        let (answered, _) = client.refusal("PUT", POINTS, Some(&points(&[1])));
        assert_eq!(answered, status);
    }
    assert_eq!(count(&double), 0);
    assert_eq!(double.faults().pending(), 0);
    client.result("PUT", POINTS, Some(&points(&[1])));
}

#[test]
fn retry_after_comes_in_both_forms() {
    let double = start();
    let header = |after| {
        double
            .faults()
            .add(Rule::on("GET", "/").fault(Fault::too_many_requests(after)));
        let answer = double
            .client()
            .send("GET", "/collections", &[], None)
            .expect("an answer");
        assert_eq!(answer.status().as_u16(), 429);
        answer.headers()["retry-after"]
            .to_str()
            .expect("text")
            .to_owned()
    };
    assert_eq!(header(RetryAfter::Seconds(7)), "7");
    let now = SystemTime::now();
    let date = httpdate::parse_http_date(&header(RetryAfter::Date(Duration::from_secs(90))));
    let ahead = date
        .expect("a date")
        .duration_since(now)
        .expect("in the future");
    assert!((88..=120).contains(&ahead.as_secs()), "{ahead:?}");
}

#[test]
fn a_batch_is_refused_as_long_as_it_holds_the_point() {
    let double = start();
    let client = double.client();
    let refuse = Fault::status(400, "Wrong input: point 3 is cursed");
    double.faults().add(
        Rule::on("PUT", "/points")
            .with_point(3)
            .always()
            .fault(refuse),
    );
    client.refusal("PUT", POINTS, Some(&points(&[1, 2, 3, 4])));
    client.result("PUT", POINTS, Some(&points(&[1, 2, 4])));
    client.refusal("PUT", POINTS, Some(&points(&[3])));
    assert_eq!(count(&double), 3);
}

#[test]
fn bodies_are_cut_truncated_and_corrupted_at_the_byte() {
    let double = start();
    let client = double.client();
    client.result("PUT", POINTS, Some(&points(&[1, 2, 3])));
    let stored = client.result("POST", "/collections/c/shards/0/snapshots", None);
    let name = stored["name"].as_str().expect("a name");
    let path = format!("/collections/c/shards/0/snapshots/{name}");
    let download = |fault: Option<Fault>| {
        if let Some(fault) = fault {
            double
                .faults()
                .add(Rule::on("GET", "/snapshots/").fault(fault));
        }
        let mut answer = client.send("GET", &path, &[], None).expect("an answer");
        let mut bytes = Vec::new();
        let complete = answer
            .body_mut()
            .as_reader()
            .read_to_end(&mut bytes)
            .is_ok();
        (complete, bytes)
    };
    let (complete, whole) = download(None);
    assert!(complete);
    assert_eq!(whole.len() as u64, stored["size"]);
    let (complete, cut) = download(Some(Fault::CutBody { after: 5000 }));
    assert_eq!((complete, cut.as_slice()), (false, &whole[..5000]));
    let (complete, shorter) = download(Some(Fault::TruncateBody { to: 5000 }));
    assert_eq!((complete, shorter.as_slice()), (true, &whole[..5000]));
    let (complete, corrupt) = download(Some(Fault::CorruptBody { at: 700, bytes: 3 }));
    assert!(complete);
    let changed: Vec<_> = (0..whole.len())
        .filter(|&at| whole[at] != corrupt[at])
        .collect();
    assert_eq!(changed, [700, 701, 702]);
    assert_eq!(download(None), (true, whole));
}

#[test]
fn an_interrupted_download_resumes_with_range() {
    let double = start();
    let client = double.client();
    client.result("PUT", POINTS, Some(&points(&[1])));
    let stored = client.result("POST", "/collections/c/shards/0/snapshots", None);
    let name = stored["name"].as_str().expect("a name");
    let path = format!("/collections/c/shards/0/snapshots/{name}");
    double
        .faults()
        .add(Rule::on("GET", "/snapshots/").fault(Fault::CutBody { after: 1000 }));
    let mut bytes = Vec::new();
    let mut first = client.send("GET", &path, &[], None).expect("an answer");
    first
        .body_mut()
        .as_reader()
        .read_to_end(&mut bytes)
        .expect_err("cut");
    let range = format!("bytes={}-", bytes.len());
    let mut rest = client
        .send("GET", &path, &[("range", &range)], None)
        .expect("an answer");
    assert_eq!(rest.status().as_u16(), 206);
    rest.body_mut()
        .as_reader()
        .read_to_end(&mut bytes)
        .expect("the rest");
    use sha2::Digest as _;
    assert_eq!(
        hex::encode(sha2::Sha256::digest(&bytes)),
        stored["checksum"]
    );
    let beyond = format!("bytes={}-", bytes.len());
    let answer = client
        .send("GET", &path, &[("range", &beyond)], None)
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 416);
}

#[test]
fn throttled_bytes_take_their_time_and_nothing_else_does() {
    let double = start();
    let client = double.client();
    let path = "/collections/c/shards/0/snapshot";
    let size = {
        let mut answer = client.send("GET", path, &[], None).expect("an answer");
        let mut bytes = Vec::new();
        answer
            .body_mut()
            .as_reader()
            .read_to_end(&mut bytes)
            .expect("complete");
        bytes.len() as u64
    };
    // Half a second for the snapshot. Slower machines only make the lower bound truer.
    double.throttle_snapshots(Some(size * 2));
    let started = Instant::now();
    let mut answer = client.send("GET", path, &[], None).expect("an answer");
    client.result("GET", "/collections/c", None);
    let mut bytes = Vec::new();
    answer
        .body_mut()
        .as_reader()
        .read_to_end(&mut bytes)
        .expect("complete");
    assert_eq!(bytes.len() as u64, size);
    assert!(
        started.elapsed() >= Duration::from_millis(400),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn random_faults_lose_nothing_that_is_retried() {
    let double = start();
    double.faults().random(Some(RandomFaults::passing(7, 0.3)));
    let client = double.client();
    let mut failures = 0;
    for id in 0..200 {
        let done = (0..100).any(|_| {
            let answer = client.call("PUT", POINTS, Some(&points(&[id])));
            let done = answer.is_ok_and(|(status, _)| status == 200);
            failures += u32::from(!done);
            done
        });
        assert!(done, "point {id} never arrived");
    }
    assert!(failures > 20, "{failures} of 200 requests failed");
    assert_eq!(count(&double), 200);
}

#[test]
fn tests_can_wait_for_a_request() {
    let double = start();
    let client = double.client();
    let upserts = |exchanges: &[Exchange]| {
        exchanges
            .iter()
            .filter(|e| e.method == "PUT" && e.status == Some(200))
            .count()
    };
    assert!(!double.wait_for(Duration::from_millis(20), |seen| upserts(seen) > 0));
    std::thread::scope(|scope| {
        scope.spawn(|| client.result("PUT", POINTS, Some(&points(&[1]))));
        assert!(double.wait_for(Duration::from_secs(30), |seen| upserts(seen) == 1));
    });
}

#[test]
fn a_write_with_a_bad_point_changes_nothing() {
    let double = start();
    let client = double.client();
    for (vector, status) in [
        (json!([]), 422),
        (json!([1.0, 2.0, 3.0]), 400),
        (json!([1.0, "x"]), 400),
    ] {
        let body =
            json!({"points": [{"id": 2, "vector": [1.0, 2.0]}, {"id": 1, "vector": vector}]});
        assert_eq!(
            client.refusal("PUT", POINTS, Some(&body)).0,
            status,
            "{body}"
        );
        assert_eq!(count(&double), 0, "{body}");
    }
}

#[test]
fn the_double_can_be_dropped_inside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let double = start();
        double.stop().expect("down");
        double.resume().expect("up");
    });
}
