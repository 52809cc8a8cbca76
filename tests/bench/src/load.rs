//! `edge-sync serve` under load: what clients that read and write wait for, alone and beside others that
//! hold connections open or send large bodies at once.

use std::fmt;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edge_sync_clients::rest::Client;
use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use crate::contestants::Result;
use crate::figures::{Figure, Measured};
use crate::latencies::Latencies;
use crate::served::{COLLECTION, Served};

/// Clients that read and write.
const CLIENTS: usize = 64;

/// Requests of which one writes.
const ONE_WRITE_IN: u64 = 4;

/// Points of a write.
const WRITTEN: u64 = 10;

/// Points of a write while the shard is filled.
const FILLED: u64 = 1_000;

/// Connections of the slow, which send a byte of a head or a body now and then, and are replaced when
/// they are closed.
const SLOW: usize = 200;

/// Clients that send nothing but large bodies.
const FLOODING: usize = 30;

/// How large.
const LARGE_BODY: usize = 30_000_000;

/// How often the memory is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Points in the shard at the beginning.
    pub points: u64,
    /// Their dimensions.
    pub dimensions: usize,
    /// How long each row took.
    pub seconds: f64,
    /// One for each kind of company.
    pub rows: Vec<Row>,
}

/// How the clients fared.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Beside whom.
    pub beside: &'static str,
    /// Searches.
    pub reads: Latencies,
    /// Upserts.
    pub writes: Latencies,
    /// Requests that were answered 503, which the clients made again.
    pub refused: u64,
    /// Large bodies that were answered 503.
    pub refused_bodies: u64,
    /// Largest resident memory that was seen, in bytes.
    pub memory_bytes: u64,
}

impl Measured for Load {
    fn figures(&self) -> Vec<Figure> {
        let of = |row: &Row| {
            let beside = row.beside;
            let reads = row.reads.figures(&format!("searches beside {beside}"));
            let writes = row.writes.figures(&format!("upserts beside {beside}"));
            let memory = Figure::single(format!("memory beside {beside}"), row.memory_bytes as f64);
            reads
                .into_iter()
                .chain(writes)
                .chain([memory])
                .collect::<Vec<_>>()
        };
        self.rows.iter().flat_map(of).collect()
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} points of {} dimensions, {CLIENTS} clients, {:.0} s each\n",
            self.points, self.dimensions, self.seconds
        )?;
        writeln!(
            f,
            "| beside | requests | a second | median | 95 % | 99 % | slowest | 503 | memory |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
        for row in &self.rows {
            for (what, latencies) in [("searches", &row.reads), ("upserts", &row.writes)] {
                writeln!(
                    f,
                    "| {} | {what} | {:.0} | {:.1} ms | {:.1} ms | {:.1} ms | {:.0} ms | {} | {:.0} MB |",
                    row.beside,
                    latencies.count as f64 / self.seconds,
                    latencies.median,
                    latencies.p95,
                    latencies.p99,
                    latencies.max,
                    row.refused,
                    row.memory_bytes as f64 / 1e6,
                )?;
            }
        }
        Ok(())
    }
}

/// Fills a shard, serves it, and asks it for `seconds` beside each kind of company.
///
/// # Errors
/// `serve` does not start, or answers something else than it should.
pub fn measure(folder: &Path, points: u64, dimensions: usize, seconds: u64) -> Result<Load> {
    let served = Served::start(&folder.join("data"), &[])?;
    let client = served.client();
    let config = json!({"vectors": {"size": dimensions, "distance": "Dot"}});
    client.result("PUT", COLLECTION, Some(&config));
    let mut random = Rng::with_seed(1);
    let mut next = 0;
    while next < points {
        let count = FILLED.min(points - next);
        write(&client, next..next + count, dimensions, &mut random)?;
        next += count;
    }
    let time = Duration::from_secs(seconds);
    let mut rows = Vec::new();
    for (beside, slow, flooding) in [
        ("nobody", 0, 0),
        ("200 slow connections", SLOW, 0),
        ("30 clients with bodies of 30 MB", 0, FLOODING),
    ] {
        eprintln!("beside {beside}");
        rows.push(row(
            &served,
            beside,
            (slow, flooding),
            points,
            dimensions,
            time,
        )?);
    }
    Ok(Load {
        points,
        dimensions,
        seconds: time.as_secs_f64(),
        rows,
    })
}

fn row(
    served: &Served,
    beside: &'static str,
    (slow, flooding): (usize, usize),
    points: u64,
    dimensions: usize,
    time: Duration,
) -> Result<Row> {
    let end = AtomicBool::new(false);
    let refused_bodies = AtomicU64::new(0);
    let large = json!({"points": [], "x": "x".repeat(LARGE_BODY)}).to_string();
    let (outcomes, memory) = std::thread::scope(|scope| {
        for number in 0..slow {
            let end = &end;
            scope.spawn(move || be_slow(&served.address, number % 2 == 0, end));
        }
        for _ in 0..flooding {
            scope.spawn(|| flood(served, &large, &end, &refused_bodies));
        }
        let clients: Vec<_> = (0..CLIENTS as u64)
            .map(|number| {
                let end = &end;
                scope.spawn(move || ask(served, number, points, dimensions, end))
            })
            .collect();
        let memory = look(served, time);
        end.store(true, Ordering::Relaxed);
        let outcomes: Vec<_> = clients
            .into_iter()
            .map(|client| {
                client
                    .join()
                    .unwrap_or_else(|_| Err("a client panicked".to_owned()))
            })
            .collect();
        (outcomes, memory)
    });
    let (mut reads, mut writes, mut refused) = (Vec::new(), Vec::new(), 0);
    for outcome in outcomes {
        let asked = outcome?;
        reads.extend(asked.reads);
        writes.extend(asked.writes);
        refused += asked.refused;
    }
    Ok(Row {
        beside,
        reads: Latencies::of(reads),
        writes: Latencies::of(writes),
        refused,
        refused_bodies: refused_bodies.into_inner(),
        memory_bytes: memory?,
    })
}

/// What one client saw.
#[derive(Default)]
struct Exchanged {
    reads: Vec<f64>,
    writes: Vec<f64>,
    refused: u64,
}

fn ask(
    served: &Served,
    number: u64,
    points: u64,
    dimensions: usize,
    end: &AtomicBool,
) -> std::result::Result<Exchanged, String> {
    let client = served.client();
    let mut random = Rng::with_seed(number);
    let mut asked = Exchanged::default();
    for turn in number.. {
        if end.load(Ordering::Relaxed) {
            break;
        }
        let (method, below, body, times) = if turn % ONE_WRITE_IN == 0 {
            let from = random.u64(0..points.saturating_sub(WRITTEN).max(1));
            let body = upsert(from..from + WRITTEN, dimensions, &mut random);
            ("PUT", "/points?wait=true", body, &mut asked.writes)
        } else {
            let body = json!({"query": vector(dimensions, &mut random), "limit": 10});
            ("POST", "/points/query", body, &mut asked.reads)
        };
        let started = Instant::now();
        let (status, answer) = client
            .call(method, &format!("{COLLECTION}{below}"), Some(&body))
            .map_err(|error| error.to_string())?;
        match status {
            200 => times.push(started.elapsed().as_secs_f64() * 1000.0),
            503 => asked.refused += 1,
            _ => return Err(format!("{method} {below}: {status}: {answer}")),
        }
    }
    Ok(asked)
}

/// Largest memory while `time` passes.
fn look(served: &Served, time: Duration) -> Result<u64> {
    let client = served.client();
    let end = Instant::now() + time;
    let mut most = 0;
    while Instant::now() < end {
        let (_, text) = client.call("GET", "/metrics", None)?;
        let bytes = text
            .as_str()
            .and_then(|text| {
                text.lines()
                    .find_map(|line| line.strip_prefix("memory_resident_bytes "))
            })
            .and_then(|value| value.parse::<u64>().ok());
        most = most.max(bytes.unwrap_or_default());
        std::thread::sleep(LOOK);
    }
    Ok(most)
}

/// Keeps a connection busy with next to nothing, and makes another when it is closed.
fn be_slow(address: &str, with_body: bool, end: &AtomicBool) {
    while !end.load(Ordering::Relaxed) {
        let Ok(mut stream) = TcpStream::connect(address) else {
            std::thread::sleep(LOOK);
            continue;
        };
        let head = match with_body {
            true => format!(
                "PUT {COLLECTION}/points HTTP/1.1\r\nhost: localhost\r\n\
                 content-type: application/json\r\ncontent-length: 100000\r\n\r\n"
            ),
            false => String::new(),
        };
        let _ = stream.write_all(head.as_bytes());
        while !end.load(Ordering::Relaxed) && stream.write_all(b"x").is_ok() {
            std::thread::sleep(LOOK);
        }
    }
}

/// Sends large bodies, which hold nothing that could be written.
fn flood(served: &Served, body: &str, end: &AtomicBool, refused: &AtomicU64) {
    let client = served.client();
    while !end.load(Ordering::Relaxed) {
        let sent = client.send(
            "PUT",
            &format!("{COLLECTION}/points"),
            &[],
            Some(body.as_bytes()),
        );
        if sent.is_ok_and(|answer| answer.status() == 503) {
            refused.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn vector(dimensions: usize, random: &mut Rng) -> Vec<f32> {
    (0..dimensions).map(|_| random.f32() - 0.5).collect()
}

fn upsert(ids: std::ops::Range<u64>, dimensions: usize, random: &mut Rng) -> Value {
    let points: Vec<Value> = ids
        .map(|id| json!({"id": id, "vector": vector(dimensions, random), "payload": {"n": id}}))
        .collect();
    json!({ "points": points })
}

fn write(
    client: &Client,
    ids: std::ops::Range<u64>,
    dimensions: usize,
    random: &mut Rng,
) -> Result<()> {
    let body = upsert(ids, dimensions, random);
    let path = format!("{COLLECTION}/points?wait=true");
    match client.call("PUT", &path, Some(&body))? {
        (200, _) => Ok(()),
        (status, answer) => Err(format!("{status}: {answer}").into()),
    }
}
