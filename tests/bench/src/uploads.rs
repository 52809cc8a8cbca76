//! What an upload takes: points a second from the device's queue to the server, beside a client that
//! sends requests which it has made before (what the server takes at most), and beside the loop of
//! Qdrant's documentation in Python; on this machine and over a slow link.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use edge_sync_clients::python;
use edge_sync_clients::rest::Client;
use edge_sync_double::{Options, QdrantDouble};
use edge_sync_host::{BatchLimits, Component, EdgeSync, Point, ServerSettings, SyncOptions};
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contestants::Result;
use crate::figures::{Figure, Measured};
use crate::link::Link;
use crate::report::median;

/// Points that go over the slow link.
const SLOW_POINTS: usize = 1_000;

/// A mobile connection on a bad day.
const SLOW: Link = Link {
    round_trip: Duration::from_millis(100),
    bits_per_second: 1_000_000,
};

/// Points of one request, of those who do not let them grow.
const BATCHES: [u32; 2] = [10, 500];

const PYTHON_PROGRAM: &str = include_str!("../../clients/python/upload.py");
const PYTHON_REQUIREMENTS: &str = include_str!("../../clients/python/requirements.txt");

/// Who uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contestant {
    /// Requests that were made before: the server's own limit, and the link's.
    Prepared(u32),
    /// edge-sync with requests of one size.
    Fixed(u32),
    /// edge-sync as it is by default: requests grow.
    Growing,
    /// `qdrant-client` in a loop.
    Python(u32),
}

impl Contestant {
    fn name(self) -> String {
        match self {
            Contestant::Prepared(batch) => format!("requests of {batch}, made before"),
            Contestant::Fixed(batch) => format!("edge-sync, requests of {batch}"),
            Contestant::Growing => "edge-sync, requests grow".to_owned(),
            Contestant::Python(batch) => format!("qdrant-client in Python, requests of {batch}"),
        }
    }
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Over which link.
    pub link: &'static str,
    /// Who uploaded.
    pub by: String,
    /// Points that went up.
    pub points: usize,
    /// Seconds: the median of the repetitions.
    pub seconds: f64,
    /// The fastest of them, and the slowest.
    pub range: [f64; 2],
    /// Requests that carried points, where that is told.
    pub requests: Option<u64>,
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Uploads {
    /// Dimensions of the vectors.
    pub dimensions: usize,
    /// By link and contestant.
    pub rows: Vec<Row>,
}

impl fmt::Display for Uploads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "points of {} dimensions\n", self.dimensions)?;
        writeln!(
            f,
            "| link | by | points | requests | time | points a second |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            let requests = row.requests.map_or_else(String::new, |it| it.to_string());
            writeln!(
                f,
                "| {} | {} | {} | {requests} | {:.2} s | {:.0} |",
                row.link,
                row.by,
                row.points,
                row.seconds,
                row.points as f64 / row.seconds
            )?;
        }
        Ok(())
    }
}

impl Measured for Uploads {
    fn figures(&self) -> Vec<Figure> {
        let of = |row: &Row| Figure {
            name: format!("{}, {}, seconds", row.link, row.by),
            value: row.seconds,
            min: row.range[0],
            max: row.range[1],
        };
        self.rows.iter().map(of).collect()
    }
}

/// Uploads everything once for each contestant, over both links, `repetitions` times in turns.
///
/// # Errors
/// Whatever fails first. Without Python its rows are left out, and a message says why.
pub fn measure(
    component: &Component,
    folder: &Path,
    (points, dimensions): (usize, usize),
    repetitions: usize,
    seed: u64,
) -> Result<Uploads> {
    let server = QdrantDouble::start(Options {
        directory: Some(folder.join("server")),
        ..Options::default()
    })?;
    server.record_bodies(false);
    let python = python::environment("python-client", PYTHON_REQUIREMENTS.trim());
    if let Err(why) = &python {
        eprintln!("without qdrant-client: {why}");
    }
    let mut contestants = vec![Contestant::Prepared(500), Contestant::Growing];
    contestants.extend(BATCHES.map(Contestant::Fixed));
    if python.is_ok() {
        contestants.extend(BATCHES.map(Contestant::Python));
    }
    let links = [
        ("loopback", server.address(), points),
        (
            "100 ms, 1 Mbit/s",
            SLOW.to(server.address())?,
            points.min(SLOW_POINTS),
        ),
    ];
    let mut rows = Vec::new();
    for (link, address, points) in links {
        let uploads = Upload {
            component,
            server: &server,
            address,
            python: python.as_deref().ok(),
            vectors: vectors(points, dimensions, seed),
        };
        let mut times: Vec<Vec<f64>> = contestants.iter().map(|_| Vec::new()).collect();
        let mut requests = vec![None; contestants.len()];
        for repetition in 0..repetitions.max(1) {
            for turn in 0..contestants.len() {
                // Another one begins each time.
                let at = (turn + repetition) % contestants.len();
                let folder = folder.join(format!("device-{at}-{repetition}"));
                let (seconds, sent) = uploads.run(contestants[at], &folder)?;
                times[at].push(seconds);
                requests[at] = sent;
                if folder.exists() {
                    std::fs::remove_dir_all(&folder)?;
                }
            }
        }
        for ((contestant, times), requests) in contestants.iter().zip(&times).zip(requests) {
            rows.push(Row {
                link,
                by: contestant.name(),
                points,
                seconds: median(times),
                range: [
                    times.iter().copied().fold(f64::INFINITY, f64::min),
                    times.iter().copied().fold(0.0, f64::max),
                ],
                requests,
            });
        }
    }
    Ok(Uploads { dimensions, rows })
}

fn vectors(points: usize, dimensions: usize, seed: u64) -> Vec<Vec<f32>> {
    let mut random = Rng::with_seed(seed);
    let mut vector = || (0..dimensions).map(|_| random.f32() - 0.5).collect();
    (0..points).map(|_| vector()).collect()
}

/// What is uploaded, and whereto.
struct Upload<'a> {
    component: &'a Component,
    server: &'a QdrantDouble,
    address: SocketAddr,
    python: Option<&'a Path>,
    vectors: Vec<Vec<f32>>,
}

/// Every upload goes to a collection of its own, of this name, which is removed after it.
const COLLECTION: &str = "bench";

impl Upload<'_> {
    /// Seconds, and how many requests carried points.
    fn run(&self, contestant: Contestant, folder: &Path) -> Result<(f64, Option<u64>)> {
        let path = format!("/collections/{COLLECTION}");
        let taken = match contestant {
            Contestant::Prepared(batch) => self.prepared(batch as usize)?,
            Contestant::Fixed(batch) => {
                let batch = BatchLimits::default()
                    .operations(batch)
                    .most_operations(batch);
                self.device(folder, batch)?
            }
            Contestant::Growing => self.device(folder, BatchLimits::default())?,
            Contestant::Python(batch) => (self.in_python(batch)?, None),
        };
        let client = self.server.client();
        let count = client.result("POST", &format!("{path}/points/count"), Some(&json!({})));
        if count["count"] != self.vectors.len() {
            return Err(format!("{}: the server has {count}", contestant.name()).into());
        }
        client.result("DELETE", &path, None);
        Ok(taken)
    }

    fn create(&self) {
        let size = self.vectors.first().map_or(1, Vec::len);
        let config = json!({"vectors": {"size": size, "distance": "Cosine"}});
        let path = format!("/collections/{COLLECTION}");
        self.server.client().result("PUT", &path, Some(&config));
    }

    fn prepared(&self, batch: usize) -> Result<(f64, Option<u64>)> {
        self.create();
        let points = self.vectors.iter().enumerate().map(|(id, vector)| {
            // As few digits as a float needs: JSON of `Value` would have those of a double.
            let vector = serde_json::to_string(vector)?;
            Ok(format!(
                r#"{{"id":{id},"vector":{vector},"payload":{{"n":{id}}}}}"#
            ))
        });
        let points = points.collect::<Result<Vec<String>>>()?;
        let bodies: Vec<String> = points
            .chunks(batch)
            .map(|points| {
                let points = points.join(",");
                format!(r#"{{"operations":[{{"upsert":{{"points":[{points}]}}}}]}}"#)
            })
            .collect();
        let client = Client::new(&format!("http://{}", self.address), None);
        let path = format!("/collections/{COLLECTION}/points/batch?wait=true");
        let started = Instant::now();
        for body in &bodies {
            let (status, answer) = client.call_raw(
                "POST",
                &path,
                &[("content-type", "application/json")],
                Some(body.as_bytes()),
            )?;
            if status != 200 {
                return Err(format!("status {status}: {answer}").into());
            }
        }
        Ok((started.elapsed().as_secs_f64(), Some(bodies.len() as u64)))
    }

    fn device(&self, folder: &Path, batch: BatchLimits) -> Result<(f64, Option<u64>)> {
        let size = self.vectors.first().map_or(1, Vec::len);
        let config = json!({"vectors": {"size": size, "distance": "Cosine"}}).to_string();
        let server = ServerSettings::new(format!("http://{}", self.address), COLLECTION);
        let edge = EdgeSync::builder(self.component.clone(), folder)
            .server(server)
            .sync_options(SyncOptions::default().batch(batch))
            .create(&config)?;
        for (at, vectors) in self.vectors.chunks(500).enumerate() {
            let point = |(of, vector): (usize, &Vec<f32>)| {
                let id = (at * 500 + of) as u64;
                Point::dense(id, vector.clone()).with_payload(json!({"n": id}).to_string())
            };
            edge.shard()
                .upsert(vectors.iter().enumerate().map(point).collect())?;
        }
        let started = Instant::now();
        let report = edge.push()?.into_result()?;
        Ok((started.elapsed().as_secs_f64(), Some(report.requests)))
    }

    fn in_python(&self, batch: u32) -> Result<f64> {
        let python = self.python.ok_or("there is no Python")?;
        self.create();
        let size = self.vectors.first().map_or(1, Vec::len);
        let output = Command::new(python)
            .args(["-c", PYTHON_PROGRAM])
            .arg(format!("http://{}", self.address))
            .arg(COLLECTION)
            .args([self.vectors.len(), size, batch as usize].map(|number| number.to_string()))
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        let told: Value = serde_json::from_str(&said).map_err(|error| {
            let why = String::from_utf8_lossy(&output.stderr);
            format!("the program in Python said {said:?}: {error}: {why}")
        })?;
        let seconds = told["seconds"].as_f64();
        seconds.ok_or_else(|| format!("the program in Python said {said:?}").into())
    }
}
