//! The component as a program, under an engine that offers plain WASI 0.2 and nothing of ours:
//! what `wasmtime run -S http --dir ...` gives.

use std::io::Read;
use std::path::Path;

use edge_sync_double::{Fault, Rule};
use serde_json::{Value, json};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::p2::bindings::sync::Command;
use wasmtime_wasi::p2::pipe::{MemoryInputPipe, MemoryOutputPipe};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView, default_hooks};

use crate::support::{COLLECTION, CONFIG, cluster, component_file, server};

struct State {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            hooks: default_hooks(),
            table: &mut self.table,
            ctx: &mut self.http,
        }
    }
}

struct Stock {
    engine: Engine,
    component: Component,
    linker: Linker<State>,
}

impl Stock {
    fn new() -> Self {
        let mut config = Config::new();
        // Which not all engines have.
        config.wasm_relaxed_simd(false);
        config.cache(wasmtime::Cache::from_file(None).ok());
        let engine = Engine::new(&config).expect("an engine");
        let component = Component::from_file(&engine, component_file()).expect("the component");
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker).expect("wasi");
        wasmtime_wasi_http::p2::add_only_http_to_linker_sync(&mut linker).expect("wasi:http");
        Self {
            engine,
            component,
            linker,
        }
    }

    /// Runs a command that succeeds, and answers what it prints.
    fn json(&self, data: &Path, url: &str, arguments: &[&str], input: &str) -> Value {
        let (succeeded, text) = self.run(data, url, arguments, input);
        assert!(succeeded, "{arguments:?}: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    /// Runs the command line; answers its standard output, or error, and whether it succeeded.
    fn run(&self, data: &Path, url: &str, arguments: &[&str], input: &str) -> (bool, String) {
        let output = MemoryOutputPipe::new(1 << 20);
        let errors = MemoryOutputPipe::new(1 << 20);
        let wasi = WasiCtx::builder()
            .arg("edge_sync.wasm")
            .args(arguments)
            .env("QDRANT_URL", url)
            .env("EDGE_SYNC_COLLECTION", COLLECTION)
            .stdin(MemoryInputPipe::new(input.to_owned()))
            .stdout(output.clone())
            .stderr(errors.clone())
            .preopened_dir(data, "/data", FsPerms::ReadWrite)
            .expect("the folder")
            .build();
        let state = State {
            wasi,
            http: WasiHttpCtx::new(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&self.engine, state);
        let command = Command::instantiate(&mut store, &self.component, &self.linker)
            .expect("plain WASI is enough");
        let ended = command
            .wasi_cli_run()
            .call_run(&mut store)
            .expect("no trap");
        let text = |pipe: MemoryOutputPipe| String::from_utf8_lossy(&pipe.contents()).into_owned();
        match ended {
            Ok(()) => (true, text(output)),
            Err(()) => (false, text(errors)),
        }
    }
}

#[test]
fn the_component_is_a_program_of_its_own() {
    let stock = Stock::new();
    let server = server();
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str], input: &str| {
        stock.json(folder.path(), &server.url(), arguments, input)
    };

    assert_eq!(run(&["create"], CONFIG)["generation"], 1);
    let points: String = (0..12)
        .map(|id| format!("{}\n", json!({ "id": id, "vector": [1, id, 0, 0] })))
        .collect();
    assert_eq!(run(&["upsert"], &points)["upserted"], 12);
    let found = run(&["search"], r#"{"query": [0, 1, 0, 0], "limit": 2}"#);
    assert_eq!(found["points"][0]["id"], 11);
    assert_eq!(found["points"][1]["id"], 10);
    assert_eq!(run(&["status"], "")["queued"], 12);
    let report = run(&["sync"], "");
    assert_eq!(
        (&report["uploaded"], &report["remaining"]),
        (&json!(12), &json!(0))
    );
    assert_eq!(server.count(COLLECTION).expect("a count"), 12);
    // It has fetched everything, so that from now on only what changed comes.
    assert_eq!(report["pulled"]["changed"], true);
    let nothing = run(&["sync"], "");
    assert_eq!(nothing["pulled"]["changed"], false);
    // Its client may not bear the server's 304; then the manifests come, and no data.
    let bytes = |report: &Value| report["pulled"]["bytes"].as_u64().expect("a number");
    assert!(bytes(&nothing) < bytes(&report) / 2, "{nothing} {report}");
    run(&["upsert"], "{\"id\": 20, \"vector\": [1, 20, 0, 0]}\n");
    let pulled = run(&["sync", "--pull"], "");
    assert_eq!(
        (&pulled["uploaded"], &pulled["remaining"]),
        (&json!(0), &json!(1))
    );
    let pushed = run(&["sync", "--push"], "");
    assert_eq!(
        (&pushed["uploaded"], &pushed["pulled"]),
        (&json!(1), &json!(null))
    );
    server.client().result(
        "POST",
        &format!("/collections/{COLLECTION}/points/delete?wait=true"),
        Some(&json!({ "points": [20] })),
    );
    let pulled = run(&["sync"], "");
    assert_eq!(
        (
            &pulled["pulled"]["points_before"],
            &pulled["pulled"]["points"]
        ),
        (&json!(13), &json!(12))
    );

    server.client().result(
        "POST",
        &format!("/collections/{COLLECTION}/points/delete?wait=true"),
        Some(&json!({ "points": [11] })),
    );
    assert_eq!(run(&["restore"], "")["generation"], 4);
    let found = run(&["search"], r#"{"query": [0, 1, 0, 0], "limit": 1}"#);
    assert_eq!(found["points"][0]["id"], 10);

    let (succeeded, text) = stock.run(folder.path(), &server.url(), &["create"], CONFIG);
    assert!(!succeeded && text.contains("already"), "{text}");
    let (succeeded, text) = stock.run(folder.path(), &server.url(), &["upsert"], "{\"id\": 1\n");
    assert!(!succeeded && text.contains("line 1"), "{text}");
}

#[test]
fn a_file_that_would_drop_many_points_has_to_be_forced() {
    let stock = Stock::new();
    let server = server();
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str], input: &str| {
        stock.json(folder.path(), &server.url(), arguments, input)
    };
    run(&["create"], CONFIG);
    let points = |ids: std::ops::Range<u32>| -> String {
        ids.map(|id| format!("{}\n", json!({ "id": id, "vector": [1, id, 0, 0] })))
            .collect()
    };
    run(&["upsert"], &points(0..5));
    run(&["sync"], "");
    let path = format!("/collections/{COLLECTION}/shards/0/snapshot");
    let answer = server.client().send("GET", &path, &[], None);
    let mut snapshot = Vec::new();
    answer
        .expect("an answer")
        .into_body()
        .into_reader()
        .read_to_end(&mut snapshot)
        .expect("a snapshot");
    std::fs::write(folder.path().join("few.snapshot"), snapshot).expect("a file");
    run(&["upsert"], &points(5..20));
    run(&["sync"], "");

    let restore = ["restore", "--snapshot", "/data/few.snapshot"];
    let (succeeded, text) = stock.run(folder.path(), &server.url(), &restore, "");
    assert!(!succeeded, "{text}");
    assert!(text.contains("5 points and the shard 20"), "{text}");
    let info = run(&["info"], "");
    assert_eq!(
        (&info["points_count"], &info["generation"]),
        (&json!(20), &json!(3))
    );

    let forced = run(&[&restore[..], &["--force"]].concat(), "");
    assert_eq!(forced["generation"], 4);
    assert_eq!(run(&["info"], "")["points_count"], 5);
}

#[test]
fn the_program_follows_its_part_of_a_collection() {
    let stock = Stock::new();
    let server = cluster();
    let client = server.client();
    let path = format!("/collections/{COLLECTION}");
    let mut config: Value = serde_json::from_str(CONFIG).expect("JSON");
    config["sharding_method"] = json!("custom");
    client.result("PUT", &path, Some(&config));
    for key in ["default", "b"] {
        let body = json!({ "shard_key": key });
        client.result("PUT", &format!("{path}/shards"), Some(&body));
    }
    let folder = tempfile::tempdir().expect("a folder");
    let run = |name: &str, arguments: &[&str], input: &str| {
        let data = folder.path().join(name);
        std::fs::create_dir_all(&data).expect("a folder");
        stock.json(&data, &server.url(), arguments, input)
    };
    let count = |name: &str| run(name, &["info"], "")["points_count"].clone();
    let upsert = |name: &str, ids: std::ops::Range<u32>| {
        let points: String = ids
            .map(|id| format!("{}\n", json!({ "id": id, "vector": [1, id, 0, 0] })))
            .collect();
        run(name, &["upsert"], &points);
    };
    let parts = [
        ("anna", ["--tenant", "user=anna"]),
        ("ben", ["--tenant", "user=ben"]),
        ("key", ["--shard-key", "b"]),
    ];
    for (number, (name, part)) in (0..).zip(&parts) {
        run(name, &["create"], CONFIG);
        // Tenants share a shard, so they need ids of their own; keys do not.
        upsert(name, 10 * number % 20..10 * number % 20 + 10);
        let report = run(name, &[&["sync"], &part[..]].concat(), "");
        assert_eq!(report["uploaded"], 10, "{report}");
    }
    // A second device of each gets what the first has, and nothing of the others.
    for (name, part) in &parts {
        let other = format!("{name}-2");
        run(&other, &[&["restore"], &part[..]].concat(), "");
        assert_eq!(count(&other), 10, "{name}");
    }
    // The part is remembered; what was deleted by others goes.
    let body = json!({"points": [0, 1], "shard_key": "default"});
    let delete = format!("{path}/points/delete?wait=true");
    client.result("POST", &delete, Some(&body));
    for (name, points) in [("anna", 8), ("anna-2", 8), ("ben", 10), ("key", 10)] {
        let report = run(name, &["sync"], "");
        assert_eq!(report["pulled"]["points"], points, "{name}: {report}");
        assert_eq!(count(name), points, "{name}");
    }
    let mirrors = |name: &str| run(name, &["info"], "")["mirrors"].clone();
    assert_eq!(mirrors("anna"), json!([]));
    assert_eq!(mirrors("key")[0]["shard_key"], "\"b\"");
    assert_eq!(mirrors("key"), run("key", &["status"], "")["mirrors"]);
    let report = run("key", &["sync"], "");
    let from = json!([{ "shard": 2, "shard_key": "\"b\"" }]);
    assert_eq!(report["pulled"]["shards"], from, "{report}");
}

#[test]
fn the_program_sends_less_at_once_to_a_server_that_takes_no_more() {
    const LIMIT: usize = 900;
    let stock = Stock::new();
    let server = server();
    let folder = tempfile::tempdir().expect("a folder");
    let run = |arguments: &[&str], input: &str| {
        stock.json(folder.path(), &server.url(), arguments, input)
    };
    run(&["create"], CONFIG);
    let long = "x".repeat(LIMIT);
    let points: String = (0..40)
        .map(|id| match id {
            20 => json!({ "id": id, "vector": [1, id, 0, 0], "payload": { "long": long } }),
            _ => json!({ "id": id, "vector": [1, id, 0, 0] }),
        })
        .map(|point| format!("{point}\n"))
        .collect();
    run(&["upsert"], &points);
    server.faults().add(
        Rule::on("POST", "/points/batch")
            .larger_than(LIMIT)
            .fault(Fault::too_large())
            .always(),
    );
    let report = run(&["sync"], "");
    assert_eq!(
        (
            &report["uploaded"],
            &report["rejected"],
            &report["remaining"]
        ),
        (&json!(39), &json!(1), &json!(0))
    );
    assert_eq!(server.count(COLLECTION).expect("a count"), 39);
    // It does not fall to one operation a request.
    let requests = report["requests"].as_u64().expect("a number");
    assert!(requests < 30, "{requests} requests");
}
