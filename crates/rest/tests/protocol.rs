//! The layer's own behaviour, over a backend that only remembers what it was asked.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use edge_sync_rest::{
    Backend, CollectionState, ContentTypes, Error, Limits, Load, Options, Result,
    SnapshotDescription, SnapshotScope, StoredSnapshot, router, serve,
};
use http_body_util::BodyExt as _;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tower::ServiceExt as _;

const SNAPSHOT: &[u8] = b"0123456789";

struct Memory {
    asked: Mutex<Vec<(String, String, String)>>,
    folder: tempfile::TempDir,
}

impl Memory {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            asked: Mutex::default(),
            folder: tempfile::tempdir().expect("a folder"),
        })
    }

    fn asked(&self) -> Vec<(String, String, String)> {
        self.asked.lock().expect("no panic").clone()
    }
}

impl Backend for Memory {
    fn collections(&self) -> Result<Vec<String>> {
        Ok(vec!["zebras".to_owned(), "ants & bees".to_owned()])
    }

    fn collection(&self, collection: &str) -> Result<CollectionState> {
        Err(Error::no_collection(collection))
    }

    fn request(&self, _: &str, method: &str, path: &str, body: &str) -> Result<Box<RawValue>> {
        let asked = (method.to_owned(), path.to_owned(), body.to_owned());
        self.asked.lock().expect("no panic").push(asked);
        let result = match path {
            "/points/scroll" => panic!("on purpose"),
            "/points/count" => {
                std::thread::sleep(Duration::from_millis(200));
                json!({"count": 1})
            }
            "/points/batch" => json!([{"operation_id": 1, "status": "completed"}]),
            "/points/query" => return Err(Error::invalid("query[3]", "expected a number")),
            _ => json!({"operation_id": 1, "status": "completed"}),
        };
        Ok(to_raw_value(&result).expect("JSON"))
    }

    fn optimize(&self, _: &str) -> Result<()> {
        self.asked.lock().expect("no panic").push((
            "optimize".to_owned(),
            String::new(),
            String::new(),
        ));
        Ok(())
    }

    fn create_collection(&self, collection: &str, _: &str) -> Result<()> {
        Err(Error::collection_exists(collection))
    }

    fn snapshots(&self, scope: SnapshotScope<'_>) -> Result<Vec<SnapshotDescription>> {
        assert_eq!(scope.shard, Some(3));
        Ok(Vec::new())
    }

    fn stored_snapshot(&self, _: SnapshotScope<'_>, name: &str) -> Result<StoredSnapshot> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, SNAPSHOT).expect("written");
        Ok(StoredSnapshot { path })
    }

    fn stream_snapshot(&self, _: &str, _: u32) -> Result<File> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(SNAPSHOT).expect("written");
        file.seek(SeekFrom::Start(0)).expect("rewound");
        Ok(file)
    }
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).expect("JSON")
    }

    fn words(&self) -> String {
        self.json()["status"]["error"]
            .as_str()
            .expect("an error")
            .to_owned()
    }
}

async fn ask(backend: &Arc<Memory>, options: Options, request: Request<Body>) -> Answer {
    let router = router(Arc::clone(backend), options);
    let response = router.oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    Answer {
        status: parts.status,
        headers: parts.headers,
        bytes: body.collect().await.expect("a body").to_bytes().to_vec(),
    }
}

fn request(method: &str, path: &str, body: &str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    if !body.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    request
        .body(Body::from(body.to_owned()))
        .expect("a request")
}

async fn plain(method: &str, path: &str, body: &str) -> Answer {
    ask(
        &Memory::new(),
        Options::default(),
        request(method, path, body),
    )
    .await
}

#[tokio::test]
async fn answers_come_in_the_envelope() {
    let answer = plain("GET", "/collections", "").await;
    assert_eq!(answer.status, StatusCode::OK);
    let body = answer.json();
    assert_eq!(body["status"], "ok");
    assert!(body["time"].as_f64().expect("seconds") >= 0.0);
    let names = json!([{"name": "ants & bees"}, {"name": "zebras"}]);
    assert_eq!(body["result"]["collections"], names);
    let exists = plain("GET", "/collections/ants%20%26%20bees/exists", "").await;
    assert_eq!(exists.json()["result"]["exists"], true);
}

#[tokio::test]
async fn the_backend_gets_the_raw_path_without_the_query_string() {
    let backend = Memory::new();
    let path = "/collections/c/index/nested%5B%5D.x%2Fy?wait=true&ordering=strong&timeout=3";
    ask(&backend, Options::default(), request("DELETE", path, "")).await;
    let expected = (
        "DELETE".to_owned(),
        "/index/nested%5B%5D.x%2Fy".to_owned(),
        String::new(),
    );
    assert_eq!(backend.asked(), [expected]);
}

#[tokio::test]
async fn a_write_is_acknowledged_unless_it_was_waited_for() {
    let body = r#"{"points": []}"#;
    for (query, status) in [
        ("", "acknowledged"),
        ("?wait=false", "acknowledged"),
        ("?wait=true", "completed"),
    ] {
        let answer = plain("PUT", &format!("/collections/c/points{query}"), body).await;
        assert_eq!(answer.json()["result"]["status"], status, "{query}");
    }
    let batch = plain(
        "POST",
        "/collections/c/points/batch",
        r#"{"operations": []}"#,
    )
    .await;
    assert_eq!(batch.json()["result"][0]["status"], "acknowledged");
}

#[tokio::test]
async fn bad_requests_are_refused_in_the_servers_words() {
    let points = "/collections/c/points";
    let cases = [
        (
            "PUT",
            points,
            "{",
            400,
            "Format error in JSON body: EOF while parsing",
        ),
        (
            "PUT",
            points,
            "",
            400,
            "Format error in JSON body: EOF while parsing",
        ),
        (
            "PUT",
            "/collections/c/points?wait=maybe",
            "{}",
            400,
            "Deserialize error in query parameters",
        ),
        (
            "PUT",
            "/collections/c/points?ordering=loose",
            "{}",
            400,
            "Deserialize error in query parameters",
        ),
        (
            "POST",
            "/collections/c/points?consistency=some",
            "{}",
            400,
            "Deserialize error in query parameters",
        ),
        (
            "POST",
            "/collections/c/points/query",
            "{}",
            400,
            "Wrong input: query[3]: expected a number",
        ),
        (
            "GET",
            "/collections/nope",
            "",
            404,
            "Not found: Collection `nope` doesn't exist!",
        ),
        (
            "PUT",
            "/collections/c",
            "{}",
            409,
            "Wrong input: Collection `c` already exists!",
        ),
        (
            "PUT",
            "/collections/a%2Fb",
            "{}",
            422,
            "Validation error in path parameters: [collection_name: collection name cannot contain \"/\" char]",
        ),
        (
            "POST",
            "/collections/aliases",
            "{}",
            501,
            "Not supported: this endpoint serves a fixed set of collections, without aliases",
        ),
        (
            "PUT",
            points,
            r#"{"points": [], "points": []}"#,
            400,
            "Format error in JSON body: duplicate field `points`",
        ),
        ("DELETE", "/collections/c", "", 501, "Not supported: "),
        (
            "PATCH",
            "/collections/c",
            r#"{"hnsw_config": {"m": 3}}"#,
            501,
            "Not supported: ",
        ),
        (
            "PATCH",
            "/collections/c",
            "[]",
            400,
            "Format error in JSON body: ",
        ),
        (
            "POST",
            "/collections/c/points/search",
            r#"{"vector": [1]}"#,
            400,
            "Format error in JSON body: missing field `limit` at line 1 column 15",
        ),
        (
            "POST",
            "/collections/c/snapshots",
            "",
            501,
            "Not supported: ",
        ),
        (
            "GET",
            "/collections/c/shards/x/snapshots",
            "",
            400,
            "Deserialize error in path parameters",
        ),
        (
            "POST",
            "/collections/c/points/scroll",
            "{}",
            500,
            "Service internal error: ",
        ),
    ];
    for (method, path, body, status, words) in cases {
        let answer = plain(method, path, body).await;
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {path}: {}",
            answer.words()
        );
        assert!(
            answer.words().starts_with(words),
            "{method} {path}: {}",
            answer.words()
        );
    }
}

#[tokio::test]
async fn what_there_is_not_is_an_empty_404() {
    for (method, path) in [
        ("GET", "/nowhere"),
        ("DELETE", "/collections/c/points/query"),
        ("PUT", "/collections"),
    ] {
        let answer = plain(method, path, "").await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}");
        assert!(answer.bytes.is_empty(), "{method} {path}");
    }
}

#[tokio::test]
async fn any_body_is_read_where_any_content_type_is_taken() {
    let options = Options {
        content_types: ContentTypes::Any,
        ..Options::default()
    };
    for content_type in ["text/plain", "application/json; charset=utf-8"] {
        let mut request = request("PUT", "/collections/c/points", "{}");
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            content_type.parse().expect("a header"),
        );
        let answer = ask(&Memory::new(), options.clone(), request).await;
        assert_eq!(answer.status, StatusCode::OK, "{content_type}");
    }
}

#[tokio::test]
async fn large_bodies_are_refused_whether_announced_or_not() {
    let options = Options {
        body_limit: 100,
        ..Options::default()
    };
    let body = format!("{{\"x\": \"{}\"}}", "y".repeat(200));
    let mut announced = request("PUT", "/collections/c/points", &body);
    announced
        .headers_mut()
        .insert(header::CONTENT_LENGTH, body.len().into());
    let chunked = request("PUT", "/collections/c/points", &body);
    for request in [announced, chunked] {
        let backend = Memory::new();
        let answer = ask(&backend, options.clone(), request).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(
            answer.words().starts_with("Payload error: JSON payload"),
            "{}",
            answer.words()
        );
        assert!(backend.asked().is_empty());
    }
}

#[tokio::test]
async fn the_key_is_required_but_for_signs_of_life() {
    let options = Options {
        api_key: Some("secret".to_owned()),
        ..Options::default()
    };
    let with = async |name: &str, value: &str, path: &str| {
        let mut request = request("GET", path, "");
        if let Ok(name) = header::HeaderName::try_from(name) {
            request
                .headers_mut()
                .insert(name, value.parse().expect("a header"));
        }
        ask(&Memory::new(), options.clone(), request).await
    };
    for path in ["/", "/healthz", "/livez", "/readyz"] {
        assert_eq!(with("", "", path).await.status, StatusCode::OK, "{path}");
    }
    let list = "/collections";
    assert_eq!(with("api-key", "secret", list).await.status, StatusCode::OK);
    assert_eq!(
        with("authorization", "Bearer secret", list).await.status,
        StatusCode::OK
    );
    let none = with("", "", list).await;
    assert_eq!(none.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        none.bytes,
        b"Must provide an API key or an Authorization bearer token"
    );
    for (name, value) in [
        ("api-key", "secre"),
        ("api-key", "secret2"),
        ("api-key", ""),
        ("authorization", "Bearer x"),
    ] {
        let wrong = with(name, value, list).await;
        assert_eq!(wrong.status, StatusCode::UNAUTHORIZED, "{value}");
        // In plain text, as the server does it.
        assert_eq!(wrong.bytes, b"Invalid API key or JWT");
    }
}

#[tokio::test]
async fn a_change_of_nothing_optimizes_as_on_the_server() {
    let backend = Memory::new();
    for body in [
        "{}",
        r#"{"optimizers_config": {"indexing_threshold": null}}"#,
    ] {
        let answer = ask(
            &backend,
            Options::default(),
            request("PATCH", "/collections/c", body),
        )
        .await;
        assert_eq!(answer.json()["result"], true, "{body}");
    }
    assert_eq!(backend.asked().len(), 2);
}

#[tokio::test]
async fn local_endpoints_answer_their_own_names_only() {
    let options = Options {
        local_hosts_only: true,
        ..Options::default()
    };
    for (host, status) in [
        ("localhost:6333", 200),
        ("127.0.0.1", 200),
        ("evil.example", 403),
    ] {
        let mut request = request("GET", "/collections", "");
        request
            .headers_mut()
            .insert(header::HOST, host.parse().expect("a header"));
        let answer = ask(&Memory::new(), options.clone(), request).await;
        assert_eq!(answer.status.as_u16(), status, "{host}");
        if status == 403 {
            assert!(
                answer.words().starts_with("Forbidden: "),
                "{}",
                answer.words()
            );
        }
    }
}

#[tokio::test]
async fn stored_snapshots_come_whole_or_in_ranges() {
    let path = "/collections/c/shards/0/snapshots/s.snapshot";
    let ranged = async |range: Option<&str>| {
        let mut request = request("GET", path, "");
        if let Some(range) = range {
            request
                .headers_mut()
                .insert(header::RANGE, range.parse().expect("a header"));
        }
        ask(&Memory::new(), Options::default(), request).await
    };
    let whole = ranged(None).await;
    assert_eq!(
        (whole.status, whole.bytes.as_slice()),
        (StatusCode::OK, SNAPSHOT)
    );
    assert_eq!(
        whole.headers[header::CONTENT_TYPE],
        "application/octet-stream"
    );
    assert_eq!(whole.headers[header::ACCEPT_RANGES], "bytes");
    let rest = ranged(Some("bytes=4-")).await;
    assert_eq!(rest.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(rest.bytes, b"456789");
    assert_eq!(rest.headers[header::CONTENT_RANGE], "bytes 4-9/10");
    let beyond = ranged(Some("bytes=10-")).await;
    assert_eq!(beyond.status, StatusCode::RANGE_NOT_SATISFIABLE);
}

#[tokio::test]
async fn a_shard_is_streamed_without_announcing_its_length() {
    let answer = plain("GET", "/collections/c/shards/0/snapshot", "").await;
    assert_eq!(
        (answer.status, answer.bytes.as_slice()),
        (StatusCode::OK, SNAPSHOT)
    );
    assert!(!answer.headers.contains_key(header::CONTENT_LENGTH));
    let listed = plain("GET", "/collections/c/shards/3/snapshots", "").await;
    assert_eq!(listed.json()["result"], json!([]));
}

#[tokio::test]
async fn queries_of_earlier_versions_are_put_as_they_are_now() {
    let filter = r#""filter":{"must":[]},"limit":3,"with_vector":true"#;
    for (path, body, now, expected) in [
        (
            "search",
            format!(r#"{{"vector": [1, 2.5], "newer": 1, {filter}}}"#),
            "/points/query",
            format!(r#"{{"query":[1, 2.5],{filter}}}"#),
        ),
        (
            "search",
            r#"{"limit": 1, "vector": {"name": "a", "vector": [1]}, "offset": null}"#.to_owned(),
            "/points/query",
            r#"{"query":[1],"using":"a","limit":1}"#.to_owned(),
        ),
        (
            "search/batch",
            r#"{"searches": [{"vector": [1], "limit": 1}, {"vector": [2], "limit": 2}]}"#.to_owned(),
            "/points/query/batch",
            r#"{"searches":[{"query":[1],"limit":1},{"query":[2],"limit":2}]}"#.to_owned(),
        ),
        (
            "search/groups",
            r#"{"vector": [1], "limit": 1, "group_by": "g", "group_size": 2}"#.to_owned(),
            "/points/query/groups",
            r#"{"query":[1],"limit":1,"group_by":"g","group_size":2}"#.to_owned(),
        ),
        (
            "recommend",
            r#"{"positive": [1], "strategy": "best_score", "using": "a", "limit": 1, "lookup_from": {"collection": "c"}}"#
                .to_owned(),
            "/points/query",
            r#"{"query":{"recommend":{"positive":[1],"strategy":"best_score"}},"using":"a","lookup_from":{"collection": "c"},"limit":1}"#
                .to_owned(),
        ),
        (
            "recommend/groups",
            r#"{"positive": [1], "limit": 1, "group_by": "g", "group_size": 2, "with_lookup": "d"}"#
                .to_owned(),
            "/points/query/groups",
            r#"{"query":{"recommend":{"positive":[1]}},"limit":1,"group_by":"g","group_size":2,"with_lookup":"d"}"#
                .to_owned(),
        ),
        (
            "discover",
            r#"{"target": 1, "context": [{"positive": 2, "negative": 3}], "limit": 1}"#.to_owned(),
            "/points/query",
            r#"{"query":{"discover":{"target":1,"context":[{"positive": 2, "negative": 3}]}},"limit":1}"#
                .to_owned(),
        ),
        (
            "discover/batch",
            r#"{"searches": [{"context": [{"positive": 2, "negative": 3}], "limit": 1}]}"#.to_owned(),
            "/points/query/batch",
            r#"{"searches":[{"query":{"context":[{"positive": 2, "negative": 3}]},"limit":1}]}"#
                .to_owned(),
        ),
    ] {
        let backend = Memory::new();
        let path = format!("/collections/c/points/{path}");
        let _ = ask(&backend, Options::default(), request("POST", &path, &body)).await;
        let asked = backend.asked();
        assert_eq!(asked.len(), 1, "{path}");
        let json = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
        assert_eq!(asked[0].1, now, "{path}");
        assert_eq!(json(&asked[0].2), json(&expected), "{path}");
    }
    for (path, body, words) in [
        ("search", r#"{"limit": 1}"#, "missing field `vector`"),
        ("recommend", r#"{"positive": [1]}"#, "missing field `limit`"),
        ("recommend/batch", "{}", "missing field `searches`"),
        (
            "search/groups",
            r#"{"vector": [1], "limit": 1, "group_by": "g"}"#,
            "missing field `group_size`",
        ),
        (
            "search",
            r#"{"vector": {"name": "a"}, "limit": 1}"#,
            "missing field `vector`",
        ),
    ] {
        let answer = plain("POST", &format!("/collections/c/points/{path}"), body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        let error = answer.json()["status"]["error"].to_string();
        assert!(error.contains(words), "{path}: {error}");
    }
}

#[tokio::test]
async fn running_requests_finish_before_the_server_stops() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let backend = Memory::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve(
        listener,
        router(Arc::clone(&backend), Options::default()),
        Load::new(Limits::default()),
        async {
            let _ = stopped.await;
        },
    ));
    let mut client = tokio::net::TcpStream::connect(address)
        .await
        .expect("connected");
    let head = "POST /collections/c/points/count HTTP/1.1\r\nhost: x\r\n\
                content-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    client.write_all(head.as_bytes()).await.expect("sent");
    while backend.asked().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stop.send(()).expect("serving");
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.await.expect("no panic").expect("served");
}
