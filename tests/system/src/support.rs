//! What the whole-system tests share: the component, compiled once, and devices on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use edge_sync_double::{Options, QdrantDouble};
use edge_sync_host::{
    BackoffOptions, Builder, Component, EdgeSync, NamedVector, Point, PointId, PullReport,
    ServerSettings, SyncOptions, Synced, Vector,
};
use edge_sync_simulator::guest::Program;
use serde_json::{Value, json};
use std::time::Duration;

/// The collection that the devices of a test share.
pub const COLLECTION: &str = "devices";

/// The request for what changed, and for everything where nothing is here yet.
pub const PARTIAL: &str = "/shards/0/snapshot/partial/create";

/// Four dimensions by dot product: results are easily worked out by hand.
pub const CONFIG: &str = r#"{"vectors": {"size": 4, "distance": "Dot"}}"#;

/// The component that was built for this test run.
pub fn component() -> Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    COMPONENT
        .get_or_init(|| Component::load(component_file()).expect("the component"))
        .clone()
}

/// Where the component lies.
pub fn component_file() -> PathBuf {
    Component::find(None).expect("EDGE_SYNC_COMPONENT; `cargo xtask test` sets it")
}

/// The `edge-sync` command that was built for this test run.
pub fn command() -> PathBuf {
    std::env::var_os("EDGE_SYNC_BIN")
        .map(PathBuf::from)
        .expect("EDGE_SYNC_BIN; `cargo xtask test` sets it")
}

/// A program that was built with it.
pub fn built(name: &str) -> PathBuf {
    command().with_file_name(name)
}

/// The clone that the tests are run in, as cargo says it when it runs them. What was known when they
/// were built may be another clone, since clones share what they build.
pub fn repository() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR")
        .map(|package| PathBuf::from(package).join("../.."))
        .expect("CARGO_MANIFEST_DIR of cargo test")
}

/// Settings of whoever runs the tests, which are none of theirs.
pub const SETTINGS: [&str; 14] = [
    "QDRANT_URL",
    "QDRANT_API_KEY",
    "EDGE_SYNC_AUTO_OPTIMIZE",
    "EDGE_SYNC_COLLECTION",
    "EDGE_SYNC_COMPRESS_UPLOADS",
    "EDGE_SYNC_DATA_DIR",
    "EDGE_SYNC_DURABILITY",
    "EDGE_SYNC_LISTEN",
    "EDGE_SYNC_LOG",
    "EDGE_SYNC_MEMORY_MIB",
    "EDGE_SYNC_SERVE_API_KEY",
    "EDGE_SYNC_SHARD",
    "EDGE_SYNC_SHARD_KEY",
    "EDGE_SYNC_TENANT",
];

/// A number from the environment, by which long runs are asked for.
pub fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// The component for the simulator.
pub fn program() -> Program {
    Program::load(&component_file()).expect("the component is compiled and linked")
}

/// A server with nothing on it.
pub fn server() -> QdrantDouble {
    QdrantDouble::start(Options::default()).expect("a server")
}

/// The same, as one node of a cluster, which has shard keys.
pub fn cluster() -> QdrantDouble {
    QdrantDouble::start(Options {
        cluster: true,
        ..Options::default()
    })
    .expect("a server")
}

/// A device in `directory` that knows the server.
pub fn device(directory: &Path, server: &QdrantDouble) -> Builder {
    EdgeSync::builder(component(), directory)
        .server(ServerSettings::new(server.url(), COLLECTION))
        .sync_options(impatient())
}

/// Retries without the waits that are meant for real networks.
pub fn impatient() -> SyncOptions {
    SyncOptions::default().backoff(
        BackoffOptions::default()
            .base(Duration::from_millis(1))
            .cap(Duration::from_millis(20)),
    )
}

/// A point whose vector and payload tell its id.
pub fn point(id: u64) -> Point {
    Point {
        id: PointId::Num(id),
        vectors: vec![NamedVector {
            name: String::new(),
            vector: Vector::Dense(vector(id)),
        }],
        payload: Some(json!({ "n": id }).to_string()),
    }
}

/// The vector of [`point`].
pub fn vector(id: u64) -> Vec<f32> {
    let id = id as f32;
    vec![1.0, id, id / 2.0, 0.5]
}

/// All points of a shard by REST, in order of id.
pub fn all_points(edge: &EdgeSync) -> Vec<Value> {
    let body = json!({ "limit": 1_000_000, "with_payload": true, "with_vector": true });
    let page = edge
        .shard()
        .request("POST", "/points/scroll", &body.to_string())
        .expect("scroll");
    let page: Value = serde_json::from_str(&page).expect("JSON");
    page["points"].as_array().expect("points").clone()
}

/// All points that the server holds, in order of id.
pub fn server_points(server: &QdrantDouble) -> Vec<Value> {
    let body = json!({ "limit": 1_000_000, "with_payload": true, "with_vector": true });
    let path = format!("/collections/{COLLECTION}/points/scroll");
    let result = server.client().result("POST", &path, Some(&body));
    result["points"].as_array().expect("points").clone()
}

/// Uploads; nothing may fail.
pub fn push(edge: &EdgeSync) -> Synced {
    edge.push()
        .expect("a report")
        .into_result()
        .expect("a push")
}

/// Uploads, and brings what others wrote; nothing may fail.
pub fn sync(edge: &EdgeSync) -> PullReport {
    let report = edge
        .sync()
        .expect("a report")
        .into_result()
        .expect("a sync");
    assert_eq!((report.rejected, report.remaining), (0, 0), "{report:?}");
    report.pulled.expect("a pull")
}

/// Ids that the shard holds.
pub fn ids(edge: &EdgeSync) -> Vec<u64> {
    let id = |point: &Value| point["id"].as_u64().expect("a number");
    all_points(edge).iter().map(id).collect()
}

/// What a device holds.
pub fn holds(edge: &EdgeSync) -> BTreeMap<u64, Value> {
    by_id(&all_points(edge))
}

/// Vector and payload of points, by id.
pub fn by_id(points: &[Value]) -> BTreeMap<u64, Value> {
    points
        .iter()
        .map(|point| {
            let id = point["id"].as_u64().expect("a number");
            (id, json!([point["vector"], point["payload"]]))
        })
        .collect()
}

/// Changes the payload of a point if the shard holds it. Of a point that is gone the change would be
/// refused, which is another test's.
pub fn set_payload_if_there(edge: &EdgeSync, id: u64, payload: &Value) {
    let filter = json!({"must": [{"has_id": [id]}]});
    let body = json!({"payload": payload, "filter": filter}).to_string();
    edge.shard()
        .request("POST", "/points/payload", &body)
        .expect("a write");
}
