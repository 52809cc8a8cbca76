//! What following a server costs: bytes and seconds of a pull after so many points have changed, beside
//! a restore of everything, on a large collection with an index.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use edge_sync_host::{
    Cancel, Component, EdgeSync, RestoreSource, ServerSettings, SnapshotSource, SyncOptions,
};
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use super::contestants::Result;
use crate::double::{Options, QdrantDouble};

/// How many points change before a pull.
const CHANGES: [usize; 3] = [1, 100, 10_000];

/// Points of a request to the server.
const BATCH: usize = 1_000;

/// The collection.
const COLLECTION: &str = "bench";

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was fetched.
    pub what: String,
    /// Seconds from the question to the new state in force.
    pub seconds: f64,
    /// Bytes downloaded.
    pub received_bytes: u64,
    /// Bytes of files that did not have to come.
    pub kept_bytes: u64,
    /// Bytes of these and of those that came that were copied for the shard to write to.
    pub copied_bytes: u64,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Pulls {
    /// Points of the collection.
    pub points: usize,
    /// Dimensions of their vectors.
    pub dimensions: usize,
    /// In the order of the run.
    pub rows: Vec<Row>,
}

impl fmt::Display for Pulls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} points of {} dimensions\n",
            self.points, self.dimensions
        )?;
        writeln!(f, "| fetched | time | received | kept | copied |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            let megabytes = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
            writeln!(
                f,
                "| {} | {:.2} s | {} | {} | {} |",
                row.what,
                row.seconds,
                megabytes(row.received_bytes),
                megabytes(row.kept_bytes),
                megabytes(row.copied_bytes)
            )?;
        }
        Ok(())
    }
}

/// Fills a server double, restores a device from it, and pulls after each number of changes.
///
/// # Errors
/// Whatever fails first.
pub fn measure(
    component: &Component,
    folder: &Path,
    points: usize,
    dimensions: usize,
    seed: u64,
) -> Result<Pulls> {
    let server = QdrantDouble::start(Options {
        directory: Some(folder.join("server")),
        ..Options::default()
    })?;
    server.record_bodies(false);
    let mut random = Rng::with_seed(seed);
    let config = json!({"vectors": {"size": dimensions, "distance": "Cosine"}});
    let path = format!("/collections/{COLLECTION}");
    server.client().result("PUT", &path, Some(&config));
    let ids: Vec<usize> = (0..points).collect();
    write(&server, &ids, dimensions, &mut random);
    eprintln!("the server builds its index");
    server.optimize(COLLECTION)?;

    let edge = EdgeSync::builder(component.clone(), folder.join("device"))
        .server(ServerSettings::new(server.url(), COLLECTION))
        .sync_options(SyncOptions::default())
        .attach()?;
    let started = Instant::now();
    let source = RestoreSource::Server(SnapshotSource::Stream);
    let restored = edge.restore(&source, &Cancel::new(), |_| {})?;
    let mut rows = vec![Row {
        what: "everything, by `restore`".to_owned(),
        seconds: started.elapsed().as_secs_f64(),
        received_bytes: restored.snapshot_bytes,
        kept_bytes: 0,
        copied_bytes: 0,
    }];
    rows.push(pull(&edge, "nothing new")?);
    for changes in CHANGES.into_iter().filter(|changes| *changes <= points) {
        let ids: Vec<usize> = (0..changes).map(|_| random.usize(..points)).collect();
        write(&server, &ids, dimensions, &mut random);
        rows.push(pull(&edge, &format!("{changes} changed points"))?);
    }
    Ok(Pulls {
        points,
        dimensions,
        rows,
    })
}

fn write(server: &QdrantDouble, ids: &[usize], dimensions: usize, random: &mut Rng) {
    let client = server.client();
    let path = format!("/collections/{COLLECTION}/points?wait=true");
    for ids in ids.chunks(BATCH) {
        let points: Vec<Value> = ids
            .iter()
            .map(|id| {
                let vector: Vec<f32> = (0..dimensions).map(|_| random.f32() - 0.5).collect();
                json!({"id": id, "vector": vector, "payload": {"n": id}})
            })
            .collect();
        client.result("PUT", &path, Some(&json!({ "points": points })));
    }
}

fn pull(edge: &EdgeSync, what: &str) -> Result<Row> {
    let started = Instant::now();
    let report = edge.pull()?;
    let pulled = report.pulled;
    Ok(Row {
        what: what.to_owned(),
        seconds: started.elapsed().as_secs_f64(),
        received_bytes: report.bytes,
        kept_bytes: pulled.map_or(0, |pulled| pulled.kept_bytes),
        copied_bytes: pulled.map_or(0, |pulled| pulled.copied_bytes),
    })
}
