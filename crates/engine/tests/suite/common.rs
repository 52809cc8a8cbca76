//! What the tests share.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use edge_sync_engine::{
    CollectionConfig, Operation, Request, Result, Shard, SnapshotLimits, Write, parse_request,
    unpack_snapshot,
};
use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

pub fn fixture(name: &str) -> PathBuf {
    fixtures().join("qdrant-1.19-all-kinds").join(name)
}

pub fn fixtures() -> PathBuf {
    // As cargo says it when it runs the test: the build may be another clone's.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it");
    Path::new(&package).join("../../tests/fixtures")
}

pub fn gunzipped(name: &str) -> GzDecoder<File> {
    GzDecoder::new(File::open(fixture(name)).expect("the fixture is there"))
}

pub fn json_lines(name: &str) -> Vec<Value> {
    BufReader::new(gunzipped(name))
        .lines()
        .map(|line| serde_json::from_str(&line.expect("text")).expect("JSON"))
        .collect()
}

pub fn json_file(name: &str) -> Value {
    let file = File::open(fixture(name)).expect("the fixture is there");
    serde_json::from_reader(file).expect("JSON")
}

/// The fixture's snapshot, gunzipped into `dir`.
pub fn snapshot_file(dir: &Path) -> PathBuf {
    let path = dir.join("shard.snapshot");
    let mut file = File::create(&path).expect("create");
    io::copy(&mut gunzipped("shard.snapshot.gz"), &mut file).expect("copy");
    path
}

/// A shard restored from the fixture's snapshot.
pub fn restored() -> (TempDir, Shard) {
    let dir = tempfile::tempdir().expect("a directory");
    let snapshot = snapshot_file(dir.path());
    let shard_dir = dir.path().join("shard");
    unpack_snapshot(&snapshot, &shard_dir, SnapshotLimits::default()).expect("a good snapshot");
    let shard = Shard::load(&shard_dir).expect("loads");
    (dir, shard)
}

pub fn created(config: &Value) -> (TempDir, Shard) {
    let dir = tempfile::tempdir().expect("a directory");
    let config = CollectionConfig::from_value(config).expect("a good configuration");
    let shard = Shard::create(&dir.path().join("shard"), &config).expect("creates");
    (dir, shard)
}

pub fn write_request(method: &str, path: &str, body: &Value) -> Result<Write> {
    match parse_request(method, path, &body.to_string())? {
        Request::Write(write) => Ok(write),
        _ => panic!("{method} {path} is no write"),
    }
}

/// Prepares and applies a request, step by step, and returns its operations.
pub fn write(shard: &Shard, method: &str, path: &str, body: &Value) -> Result<Vec<Operation>> {
    let write = write_request(method, path, body)?;
    shard.validate(&write)?;
    let mut all = Vec::new();
    for step in write.steps() {
        let operations = shard.prepare(step)?;
        all.extend_from_slice(&operations);
        shard.apply(operations)?;
    }
    Ok(all)
}

pub fn read(shard: &Shard, method: &str, path: &str, body: &Value) -> Result<Value> {
    match parse_request(method, path, &body.to_string())? {
        Request::Read(read) => shard.read(read),
        _ => panic!("{method} {path} is no read"),
    }
}
