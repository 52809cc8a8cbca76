//! A tenant's points, where they lie among those of others: on their way from the server to a file,
//! and what the file holds.
//!
//! The file has one JSON object a line: first `{"collection": ...}`, the `result` of
//! `GET /collections/{c}`; then the points, as a scroll gives them; at last `{"points": N}`. It is
//! read by this component and nobody else.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use edge_sync_engine::{
    CollectionConfig, Request as EngineRequest, Shard, Strictness, parse_request_as,
};
use edge_sync_upload::Request;
use serde_json::{Value, json};

use crate::bindings::courier::{Content, DownloadProgress, SnapshotSource};
use crate::bindings::restore::Difference;
use crate::bindings::types::FailureClass;
use crate::courier::{Server, failure};
use crate::error::{Error, Result, invalid, storage};

/// Points of the first page; the next ones are as long as fits.
const FIRST_PAGE: u64 = 10;
const LARGEST_PAGE: u64 = 1_000;
/// Bytes that a page should have: a quarter of the longest answer that is read.
const PAGE_BYTES: u64 = 4 << 20;

/// Points that are read from a file at once.
const BATCH: usize = 500;

/// How far two numbers of a vector may be apart, relative to the larger one, and be the same: a
/// server normalizes with other instructions.
const VECTOR_TOLERANCE: f64 = 1e-6;

/// A scroll over a tenant's points into a file.
pub struct PointsDownload {
    server: Server,
    target: PathBuf,
    file: File,
    begun: bool,
    /// Where the next page begins; none at the beginning.
    offset: Option<Value>,
    page: u64,
    points: u64,
    bytes: u64,
    done: bool,
}

impl PointsDownload {
    /// Creates the file.
    pub fn start(server: Server, target: PathBuf) -> Result<Self> {
        if server.target().routing.tenant().is_none() {
            return Err(invalid(
                "server.tenant",
                "not set; only a tenant's points are downloaded one by one",
            ));
        }
        Ok(Self {
            server,
            file: crate::download::create(&target)?,
            target,
            begun: false,
            offset: None,
            page: FIRST_PAGE,
            points: 0,
            bytes: 0,
            done: false,
        })
    }

    /// Fetches one page. After a failure the next step asks for the same page again.
    pub fn step(&mut self) -> Result<DownloadProgress> {
        if !self.begun {
            let (collection, _) = self.server.describe()?;
            self.write(&json!({ "collection": collection }))?;
            self.begun = true;
        } else if !self.done {
            let page = self.fetch_page();
            let (points, next) = page.inspect_err(|_| self.page = (self.page / 2).max(1))?;
            let before = self.bytes;
            for point in &points {
                self.write(point)?;
            }
            self.points += points.len() as u64;
            if let Some(each) = (self.bytes - before).checked_div(points.len() as u64) {
                self.page = (PAGE_BYTES / each.max(1)).clamp(1, LARGEST_PAGE);
            }
            match next {
                Some(next) => self.offset = Some(next),
                None => self.end()?,
            }
        }
        Ok(DownloadProgress {
            bytes: self.bytes,
            total: None,
            source: SnapshotSource::Stream,
            content: Content::Points,
            done: self.done,
        })
    }

    fn fetch_page(&self) -> Result<(Vec<Value>, Option<Value>)> {
        let mut body = json!({"limit": self.page, "with_payload": true, "with_vector": true});
        if let Some(offset) = &self.offset {
            body["offset"] = offset.clone();
        }
        let request = Request::new("POST", "/points/scroll", body.to_string());
        let request = self.server.address(&request)?;
        let mut told = self
            .server
            .call(&request.method, &request.path, &request.body)?;
        let next = told
            .get("next_page_offset")
            .filter(|next| !next.is_null())
            .cloned();
        match told.get_mut("points").map(Value::take) {
            Some(Value::Array(points)) if next.is_none() || next != self.offset => {
                Ok((points, next))
            }
            _ => {
                let message = "the answer is no page of points".to_owned();
                let request = request.describe();
                Err(failure(FailureClass::Retry, None, &request, message))
            }
        }
    }

    fn end(&mut self) -> Result<()> {
        self.write(&json!({"points": self.points}))?;
        self.file
            .sync_all()
            .map_err(|error| storage("sync points to disk", &self.target, &error))?;
        self.done = true;
        Ok(())
    }

    fn write(&mut self, line: &Value) -> Result<()> {
        let mut text = line.to_string();
        text.push('\n');
        self.bytes += text.len() as u64;
        self.file
            .write_all(text.as_bytes())
            .map_err(|error| storage("write points", &self.target, &error))
    }
}

impl Drop for PointsDownload {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.target);
        }
    }
}

/// A file that [`PointsDownload`] wrote, from which points are read batch by batch.
pub struct PointsFile {
    lines: BufReader<File>,
    path: PathBuf,
    collection: Value,
    points: u64,
    ended: bool,
}

impl PointsFile {
    /// Opens it and reads what it says of the collection.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| storage("open points", path, &error))?;
        let mut lines = BufReader::new(file);
        let mut header = read_line(&mut lines, path)?;
        Ok(Self {
            lines,
            path: path.to_owned(),
            collection: header["collection"].take(),
            points: 0,
            ended: false,
        })
    }

    /// The next points; none at the end.
    fn next(&mut self) -> Result<Vec<Value>> {
        let mut points = Vec::new();
        while !self.ended && points.len() < BATCH {
            let line = read_line(&mut self.lines, &self.path)?;
            if line.get("id").is_some() {
                self.points += 1;
                points.push(line);
            } else if line["points"].as_u64() == Some(self.points) {
                self.ended = true;
            } else {
                return Err(Error::BadSnapshot(format!(
                    "it ends after {} points, which are not all",
                    self.points
                )));
            }
        }
        Ok(points)
    }

    /// Makes a shard of them in `folder`, with the indexes that the server has.
    pub fn build(&mut self, folder: &Path) -> Result<Shard> {
        let unfit = |error: edge_sync_engine::Error| {
            Error::BadSnapshot(format!("a tenant's points cannot be taken: {error}"))
        };
        let config = CollectionConfig::from_collection_info(&self.collection).map_err(unfit)?;
        let shard = Shard::create(folder, &config)?;
        let schema = self.collection.get("payload_schema");
        for (field, told) in schema.and_then(Value::as_object).into_iter().flatten() {
            let kind = told.get("params").filter(|params| params.is_object());
            let kind = kind.or(told.get("data_type"));
            let body = json!({"field_name": field, "field_schema": kind});
            write(&shard, "PUT", "/index", &body).map_err(unfit)?;
        }
        loop {
            let points = self.next()?;
            if points.is_empty() {
                return Ok(shard);
            }
            let points: Vec<Value> = points.into_iter().map(without_shard_key).collect();
            write(&shard, "PUT", "/points", &json!({ "points": points })).map_err(unfit)?;
        }
    }

    /// How they differ from those of a shard. What this device wrote without the tenant's field, which
    /// was put on it on the way, differs from what came of it.
    pub fn compare(&mut self, shard: &Shard) -> Result<Difference> {
        let mut found = Difference {
            added: 0,
            changed: 0,
            removed: 0,
        };
        let mut common = 0;
        loop {
            let theirs = self.next()?;
            if theirs.is_empty() {
                found.removed = shard.info()?.points.saturating_sub(common);
                return Ok(found);
            }
            let ids: Vec<&Value> = theirs.iter().filter_map(|point| point.get("id")).collect();
            let body = json!({"ids": ids, "with_payload": true, "with_vector": true});
            let read = parse_request_as(Strictness::Server, "POST", "/points", &body.to_string())?;
            let EngineRequest::Read(read) = read else {
                return Err(Error::Internal("POST /points is no read".to_owned()));
            };
            let ours = shard.read(read)?;
            let ours: BTreeMap<String, &Value> = ours
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|point| Some((point.get("id")?.to_string(), point)))
                .collect();
            for point in &theirs {
                match ours.get(&point["id"].to_string()) {
                    None => found.added += 1,
                    Some(our) => {
                        common += 1;
                        found.changed += u64::from(!is_same(our, point));
                    }
                }
            }
        }
    }
}

fn is_same(ours: &Value, theirs: &Value) -> bool {
    let payload = |point: &Value| match point.get("payload") {
        Some(Value::Object(payload)) => payload.clone(),
        _ => serde_json::Map::new(),
    };
    payload(ours) == payload(theirs) && are_alike(&ours["vector"], &theirs["vector"])
}

fn read_line(lines: &mut BufReader<File>, path: &Path) -> Result<Value> {
    let mut line = String::new();
    lines
        .read_line(&mut line)
        .map_err(|error| storage("read points", path, &error))?;
    if !line.ends_with('\n') {
        return Err(Error::BadSnapshot(
            "the file of points is cut off".to_owned(),
        ));
    }
    serde_json::from_str(&line)
        .map_err(|error| Error::BadSnapshot(format!("a line of its points is no JSON: {error}")))
}

fn write(
    shard: &Shard,
    method: &str,
    path: &str,
    body: &Value,
) -> std::result::Result<(), edge_sync_engine::Error> {
    match parse_request_as(Strictness::Server, method, path, &body.to_string())? {
        EngineRequest::Write(write) => {
            for step in write.steps() {
                shard.apply(shard.prepare(step)?)?;
            }
            Ok(())
        }
        EngineRequest::Read(_) | EngineRequest::Configure(_) => Ok(()),
    }
}

/// Says where a point is, which is nothing that is stored with it.
fn without_shard_key(mut point: Value) -> Value {
    if let Some(point) = point.as_object_mut() {
        point.retain(|name, _| matches!(name.as_str(), "id" | "payload" | "vector"));
        point.entry("vector").or_insert_with(|| json!({}));
    }
    point
}

/// Whether two vectors, or maps of vectors, are the same.
fn are_alike(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= VECTOR_TOLERANCE * a.abs().max(b.abs()),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| are_alike(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(name, a)| b.get(name).is_some_and(|b| are_alike(a, b)))
        }
        // No vector at all is written in several ways.
        (Value::Null, Value::Object(none)) | (Value::Object(none), Value::Null) => none.is_empty(),
        _ => a == b,
    }
}
