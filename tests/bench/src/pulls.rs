//! What following a server costs: bytes and seconds of a pull after so many points have changed, beside
//! a restore of everything, on a large collection with an index; and what the way of Qdrant's guide
//! for Edge costs in Python, in the same run.

use std::fmt;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use edge_sync_clients::python;
use edge_sync_double::{Options, QdrantDouble};
use edge_sync_host::{
    Cancel, Component, EdgeSync, RestoreSource, ServerSettings, SnapshotSource, SyncOptions,
};
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contestants::Result;
use crate::figures::{Figure, Measured};

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
    /// Who fetched it.
    pub by: &'static str,
    /// Seconds from the question to the new state in force.
    pub seconds: f64,
    /// Bytes downloaded.
    pub received_bytes: u64,
    /// Bytes of files that did not have to come.
    /// Not told by the guide's way.
    pub kept_bytes: Option<u64>,
    /// Bytes of these and of those that came that were copied for the shard to write to. Not told
    /// by the guide's way.
    pub copied_bytes: Option<u64>,
}

const HERE: &str = "edge-sync";
const GUIDE: &str = "the guide, in Python";

/// The first row.
const EVERYTHING: &str = "everything, by a restore";

/// The guide's way, and what it needs.
const GUIDE_PROGRAM: &str = include_str!("../../clients/python/guide.py");
const GUIDE_REQUIREMENTS: &str = include_str!("../../clients/python/guide-requirements.txt");

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
        writeln!(f, "| fetched | by | time | received | kept | copied |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            let megabytes = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
            let or_none = |bytes: Option<u64>| bytes.map_or_else(String::new, megabytes);
            writeln!(
                f,
                "| {} | {} | {:.2} s | {} | {} | {} |",
                row.what,
                row.by,
                row.seconds,
                megabytes(row.received_bytes),
                or_none(row.kept_bytes),
                or_none(row.copied_bytes)
            )?;
        }
        Ok(())
    }
}

impl Measured for Pulls {
    fn figures(&self) -> Vec<Figure> {
        let of = |row: &Row| {
            let name = format!("{}, {}", row.what, row.by);
            [
                Figure::single(format!("{name}, seconds"), row.seconds),
                Figure::single(format!("{name}, bytes"), row.received_bytes as f64),
            ]
        };
        self.rows.iter().flat_map(of).collect()
    }
}

/// Fills a server double, restores a device from it, and pulls after each number of changes; the
/// guide's way does the same where there is Python, and a message says why where not.
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
        what: EVERYTHING.to_owned(),
        by: HERE,
        seconds: started.elapsed().as_secs_f64(),
        received_bytes: restored.snapshot_bytes,
        kept_bytes: Some(0),
        copied_bytes: Some(0),
    }];
    let python = python::environment("python-guide", GUIDE_REQUIREMENTS);
    let mut guide = match &python {
        Ok(python) => {
            let (guide, row) = Guide::start(python, &server.url(), folder)?;
            rows.push(row);
            Some(guide)
        }
        Err(why) => {
            eprintln!("without the guide's way: {why}");
            None
        }
    };
    let mut both = |what: &str, rows: &mut Vec<Row>| -> Result<()> {
        rows.push(pull(&edge, what)?);
        if let Some(guide) = &mut guide {
            rows.push(guide.pull(what)?);
        }
        Ok(())
    };
    both("nothing new", &mut rows)?;
    for changes in CHANGES.into_iter().filter(|changes| *changes <= points) {
        let ids: Vec<usize> = (0..changes).map(|_| random.usize(..points)).collect();
        write(&server, &ids, dimensions, &mut random);
        let what = match changes {
            1 => "1 changed point".to_owned(),
            _ => format!("{changes} changed points"),
        };
        both(&what, &mut rows)?;
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
        by: HERE,
        kept_bytes: Some(pulled.map_or(0, |pulled| pulled.kept_bytes)),
        copied_bytes: Some(pulled.map_or(0, |pulled| pulled.copied_bytes)),
    })
}

/// `tests/clients/python/guide.py`, under way.
struct Guide {
    program: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Guide {
    /// Restores everything.
    fn start(python: &Path, url: &str, folder: &Path) -> Result<(Self, Row)> {
        let folder = folder.join("guide");
        std::fs::create_dir(&folder)?;
        let mut program = Command::new(python)
            .args(["-c", GUIDE_PROGRAM])
            .args([url, COLLECTION])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (program.stdin.take(), program.stdout.take()) else {
            return Err("the guide's program has no pipes".into());
        };
        let mut guide = Self {
            program,
            input,
            output: BufReader::new(output),
        };
        let row = guide.row(EVERYTHING)?;
        Ok((guide, row))
    }

    fn pull(&mut self, what: &str) -> Result<Row> {
        self.input.write_all(b"\n")?;
        self.row(what)
    }

    fn row(&mut self, what: &str) -> Result<Row> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let told: Value = serde_json::from_str(&line)
            .map_err(|error| format!("the guide's program said {line:?}: {error}"))?;
        let (Some(seconds), Some(bytes)) = (told["seconds"].as_f64(), told["bytes"].as_u64())
        else {
            return Err(format!("the guide's program said {line:?}").into());
        };
        Ok(Row {
            what: what.to_owned(),
            by: GUIDE,
            seconds,
            received_bytes: bytes,
            kept_bytes: None,
            copied_bytes: None,
        })
    }
}

impl Drop for Guide {
    fn drop(&mut self) {
        // It waits for a line that never comes.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
