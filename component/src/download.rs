//! Snapshots on their way from the server to a file.
//!
//! A server makes one snapshot of a shard at a time: who asks for another gets the head of an
//! answer, and its first byte when the one before is done. So silence at the beginning is waited
//! for as long as a head is, and where it ends without a byte twice, the server is asked to store a
//! snapshot instead, which can be read when it is there.
//!
//! A stored snapshot stays on the server until it is deleted. Its name is in the ledger before
//! anything is done with it, so that a later download deletes what this one could not; and when the
//! answer that would tell the name is lost, the server's list is looked at before another is made.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use edge_sync_clock::now_ms;
use edge_sync_engine::encode_segment;
use edge_sync_mirror::{Archive, Limits, SnapshotManifest};
use edge_sync_upload::{Answer, Class, Request, judge_read, verdict::no_answer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::bindings::courier::{Content, DownloadProgress, SnapshotSource};
use crate::bindings::types::{FailureClass, ServerFailure};
use crate::courier::{CHUNK_BYTES, Server, failure, server_error};
use crate::error::{Error, Result, describe, storage};
use crate::http::{Broken, Response};
use crate::ledger::Ledger;

/// How long one step reads on before it reports.
const STEP: Duration = Duration::from_millis(250);

/// Streams that may bring no byte before the server is asked to store the snapshot.
const SILENT_ATTEMPTS: u32 = 2;

/// A wait for bytes that was at least this long before it failed was a silence, not a cut.
const SILENCE: Duration = Duration::from_secs(5);

/// A snapshot on its way to a file.
pub struct Download {
    server: Server,
    shard: u32,
    target: PathBuf,
    file: File,
    source: SnapshotSource,
    /// What the server's files are compared with, as long as a partial snapshot is asked for.
    manifest: Option<String>,
    /// A 304 does not arrive on this way to the server, it seems.
    without_304: bool,
    nothing_new: bool,
    stored: Option<StoredSnapshot>,
    /// What the server had stored, and its clock, before a request to store one more whose answer
    /// did not arrive.
    unanswered: Option<Before>,
    ledger: Ledger,
    response: Option<Response>,
    /// Answers in a row that began and brought no byte.
    silent: u32,
    hash: Sha256,
    bytes: u64,
    total: Option<u64>,
    done: bool,
}

/// A snapshot that the server keeps: it can be read from any offset.
struct StoredSnapshot {
    name: String,
    checksum: Option<String>,
}

/// The list of stored snapshots at some moment.
struct Before {
    names: Vec<String>,
    /// By the server's clock, in seconds since 1970.
    at: Option<u64>,
}

impl Download {
    /// Creates the file, and deletes from the server what earlier downloads left there.
    pub fn start(
        server: Server,
        shard: u32,
        source: SnapshotSource,
        target: PathBuf,
    ) -> Result<Self> {
        let file = create(&target)?;
        let download = Self {
            ledger: Ledger::beside(&target, shard),
            server,
            shard,
            target,
            file,
            source,
            manifest: None,
            without_304: false,
            nothing_new: false,
            stored: None,
            unanswered: None,
            response: None,
            silent: 0,
            hash: Sha256::new(),
            bytes: 0,
            total: None,
            done: false,
        };
        for name in download.ledger.names(&download.server)? {
            download.delete(&name);
        }
        Ok(download)
    }

    /// Of what changed since `manifest`; see `courier.start-partial`.
    pub fn partial(server: Server, shard: u32, manifest: String, target: PathBuf) -> Result<Self> {
        let mut download = Self::start(server, shard, SnapshotSource::Stream, target)?;
        download.manifest = Some(manifest);
        Ok(download)
    }

    fn snapshots_path(&self) -> String {
        format!("/shards/{}/snapshots", self.shard)
    }

    /// Reads on. After a `retry` failure the next step takes the download up again: where it
    /// stopped for a stored snapshot, from the start for a streamed one, which is made anew.
    pub fn step(&mut self) -> Result<DownloadProgress> {
        if !self.done {
            if self.response.is_none() && self.is_all_there() {
                // It was cut after its last byte; there is nothing to ask for.
                self.finish()?;
            } else {
                if self.response.is_none() {
                    self.connect()?;
                }
                self.read_some()?;
            }
        }
        Ok(DownloadProgress {
            bytes: self.bytes,
            total: self.total,
            source: self.source,
            content: match &self.manifest {
                _ if self.nothing_new => Content::NothingNew,
                Some(_) => Content::Partial,
                None => Content::Snapshot,
            },
            done: self.done,
        })
    }

    fn is_all_there(&self) -> bool {
        self.stored.is_some() && self.bytes > 0 && self.total == Some(self.bytes)
    }

    /// Asks for what changed. False: the server, or something on the way, does not take that
    /// request, and a snapshot of everything is what is left to ask for.
    fn connect_partial(&mut self, manifest: &str) -> Result<bool> {
        self.restart()?;
        let (response, request) = self.ask_partial(manifest)?;
        match response.status_code() {
            200 if is_encoded(&response) => return Ok(false),
            200 => self.check_headers(&response, &request)?,
            304 => return self.end_with_nothing_new().map(|()| true),
            // No such path (before 1.14.1), a manifest of another form, one that is too long, a key
            // that may read only. If it is the shard that is not there, the server says so.
            status @ (400 | 403 | 404 | 405 | 411 | 413 | 415 | 422 | 501) => {
                let answer = self
                    .server
                    .read_answer(&response, &request)
                    .map_err(|broken| self.cut(&broken.message))?;
                return match status == 404 && answer.body.starts_with("Not found: ") {
                    true => Err(refused(&answer)),
                    false => Ok(false),
                };
            }
            _ => {
                let answer = self
                    .server
                    .read_answer(&response, &request)
                    .map_err(|broken| self.cut(&broken.message))?;
                return Err(refused(&answer));
            }
        }
        self.total = response
            .header("content-length")
            .and_then(|value| value.parse().ok());
        self.response = Some(response);
        Ok(true)
    }

    /// Behind the head of a 304 Qdrant (1.19) sends words without their length, at which an HTTP
    /// client may fail the exchange (that of Wasmtime 48 does). An exchange that is cut before its
    /// head is therefore tried once more in a way to which there is no 304.
    fn ask_partial(&mut self, manifest: &str) -> Result<(Response, String)> {
        let path = format!("/shards/{}/snapshot/partial/create", self.shard);
        let ask = |manifest: &str| self.server.open_with("POST", &path, manifest, None);
        if !self.without_304 {
            match ask(manifest) {
                Err(error) if is_cut(&error) && !is_of_nothing(manifest) => {}
                answered => return answered,
            }
        }
        let unequal = SnapshotManifest::parse(manifest.as_bytes())?.made_unequal();
        let answered = ask(&unequal.to_json());
        self.without_304 = true;
        answered
    }

    /// Whether an answer to a question without 304 would have been one: the server's manifest is
    /// equal to the one that it was asked with.
    fn is_nothing_new(&self) -> Result<bool> {
        let Some(manifest) = self.manifest.as_ref().filter(|_| self.without_304) else {
            return Ok(false);
        };
        let asked = SnapshotManifest::parse(manifest.as_bytes())?;
        let answer = Archive::read(&self.target, Limits::default())?;
        Ok(asked == answer.manifest())
    }

    fn end_with_nothing_new(&mut self) -> Result<()> {
        self.nothing_new = true;
        self.done = true;
        fs::remove_file(&self.target)
            .map_err(|error| storage("remove snapshot file", &self.target, &error))
    }

    fn connect(&mut self) -> Result<()> {
        if let Some(manifest) = self.manifest.take() {
            let connected = self.connect_partial(&manifest);
            // Unless it was refused for good.
            if !matches!(connected, Ok(false)) {
                self.manifest = Some(manifest);
                return connected.map(|_| ());
            }
        }
        if matches!(self.source, SnapshotSource::Stored) && self.stored.is_none() {
            self.restart()?;
            self.stored = Some(self.make_snapshot()?);
        }
        let (path, range) = match &self.stored {
            Some(stored) => (
                format!("{}/{}", self.snapshots_path(), encode_segment(&stored.name)),
                (self.bytes > 0).then_some(self.bytes),
            ),
            None => {
                self.restart()?;
                (format!("/shards/{}/snapshot", self.shard), None)
            }
        };
        let (response, request) = self.server.open(&path, range)?;
        match response.status_code() {
            206 if begins_at(&response, range.unwrap_or(0)) => {}
            // Another part than was asked for: all of it again.
            206 => {
                self.restart()?;
                return Err(self.cut("the answer is another part of the snapshot"));
            }
            // The whole file again, from a server that does not know `Range`.
            200 => self.restart()?,
            status => {
                let answer = self
                    .server
                    .read_answer(&response, &request)
                    .map_err(|broken| self.cut(&broken.message))?;
                if status == 404 && self.stored.take().is_some() {
                    // Somebody deleted it. The next step has another made.
                    self.restart()?;
                    return Err(failure(
                        FailureClass::Retry,
                        Some(status),
                        &request,
                        format!("the stored snapshot is gone: {}", answer.body.trim()),
                    ));
                }
                return Err(refused(&answer));
            }
        }
        self.check_headers(&response, &request)?;
        if self.stored.is_none() || self.total.is_none() {
            self.total = response
                .header("content-length")
                .and_then(|value| value.parse::<u64>().ok())
                .map(|rest| self.bytes + rest);
        }
        self.response = Some(response);
        Ok(())
    }

    /// Whether what comes can be the snapshot.
    fn check_headers(&self, response: &Response, request: &str) -> Result<()> {
        let header = |name: &str| {
            response
                .header(name)
                .map(|value| value.trim().to_ascii_lowercase())
                .unwrap_or_default()
        };
        let status = Some(response.status_code());
        if header("content-type").starts_with("text/html") {
            let message =
                "a web page came instead of the snapshot; something between here and the \
                           server answers in its place"
                    .to_owned();
            return Err(failure(FailureClass::Retry, status, request, message));
        }
        match header("content-encoding").as_str() {
            "" | "identity" => Ok(()),
            // The restore decodes it, and nothing was announced that it would not match.
            "gzip" | "x-gzip" | "zstd" if self.stored.is_none() => Ok(()),
            encoding => {
                let message = format!(
                    "the snapshot arrives compressed ({encoding}), which it was asked not to be; \
                     something between here and the server does that"
                );
                Err(failure(FailureClass::Stop, status, request, message))
            }
        }
    }

    fn restart(&mut self) -> Result<()> {
        if self.bytes > 0 {
            self.file = create(&self.target)?;
            self.hash = Sha256::new();
            self.bytes = 0;
        }
        Ok(())
    }

    fn read_some(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < STEP {
            let Some(response) = &self.response else {
                return Ok(());
            };
            let asked = Instant::now();
            match response.chunk(CHUNK_BYTES) {
                Ok(Some(chunk)) => {
                    self.file
                        .write_all(&chunk)
                        .map_err(|error| storage("write snapshot", &self.target, &error))?;
                    // Only of a stored snapshot is a checksum announced.
                    if self.stored.is_some() {
                        self.hash.update(&chunk);
                    }
                    self.bytes += chunk.len() as u64;
                    if !chunk.is_empty() {
                        self.silent = 0;
                    }
                }
                Ok(None) => {
                    self.response = None;
                    return self.finish();
                }
                Err(broken) => {
                    self.response = None;
                    return Err(self.broken(&broken, asked.elapsed()));
                }
            }
        }
        Ok(())
    }

    /// The connection ended after nothing had come for `silence`.
    fn broken(&mut self, broken: &Broken, silence: Duration) -> Error {
        let silent = silence >= SILENCE;
        if self.bytes > 0 {
            return self.cut(&match silent {
                true => format!("nothing came for {} s", silence.as_secs()),
                false => broken.message.clone(),
            });
        }
        let mut message = match silent {
            true => format!(
                "the server is busy with another snapshot: it sent nothing for {} s",
                silence.as_secs()
            ),
            false => format!("{} before the snapshot began", broken.message),
        };
        if matches!(self.source, SnapshotSource::Stream) {
            self.silent += 1;
            // What changed is not stored; there it is waited for.
            if self.silent >= SILENT_ATTEMPTS && self.manifest.as_deref().is_none_or(is_of_nothing)
            {
                self.manifest = None;
                self.source = SnapshotSource::Stored;
                message.push_str("; it is asked to store one from now on");
            }
        }
        failure(FailureClass::Retry, None, &self.what(), message)
    }

    fn what(&self) -> String {
        format!("GET snapshot of `{}`", self.server.target().collection)
    }

    fn cut(&self, how: &str) -> Error {
        failure(
            FailureClass::Retry,
            None,
            &self.what(),
            format!("the download ended after {} bytes: {how}", self.bytes),
        )
    }

    fn finish(&mut self) -> Result<()> {
        match self.total {
            Some(total) if self.bytes < total => {
                return Err(self.cut(&format!("{total} were announced")));
            }
            Some(total) if self.bytes > total => {
                return Err(Error::BadSnapshot(format!(
                    "it has {} bytes, the server announced {total}",
                    self.bytes
                )));
            }
            _ => {}
        }
        if let Some(expected) = self
            .stored
            .as_ref()
            .and_then(|stored| stored.checksum.as_ref())
        {
            let found = hex::encode(self.hash.clone().finalize());
            if !expected.eq_ignore_ascii_case(&found) {
                return Err(Error::BadSnapshot(format!(
                    "its SHA-256 is {found}, the server announced {expected}"
                )));
            }
        }
        if self.is_nothing_new()? {
            return self.end_with_nothing_new();
        }
        self.file
            .sync_all()
            .map_err(|error| storage("sync snapshot to disk", &self.target, &error))?;
        self.done = true;
        Ok(())
    }
}

/// Stored snapshots.
impl Download {
    /// Has the server make one, or finds the one that it made when its answer was lost.
    fn make_snapshot(&mut self) -> Result<StoredSnapshot> {
        let listed = self.list()?;
        if let Some(before) = &self.unanswered
            && let Some(made) = made_since(before, &listed.0)
        {
            return self.keep(made);
        }
        let path = format!("{}?wait=true", self.snapshots_path());
        let before = Before {
            names: names(&listed.0),
            at: listed.1,
        };
        let made = self.ask("POST", &path).inspect_err(|error| {
            // The server may make it all the same.
            if let Error::Server(failure) = error
                && matches!(failure.class, FailureClass::Retry | FailureClass::Unclear)
            {
                self.unanswered.get_or_insert(before);
            }
        })?;
        if made.get("name").and_then(Value::as_str).is_none() {
            let message = "the answer names no snapshot".to_owned();
            let request = format!("POST {path}");
            return Err(failure(FailureClass::Retry, None, &request, message));
        }
        self.keep(&made)
    }

    /// Notes a snapshot, durably, before it is used.
    fn keep(&mut self, made: &Value) -> Result<StoredSnapshot> {
        let text = |name: &str| made.get(name).and_then(Value::as_str).map(str::to_owned);
        let name = text("name").unwrap_or_default();
        if let Err(error) = self.ledger.add(&self.server, &name) {
            self.delete(&name);
            return Err(error);
        }
        self.unanswered = None;
        self.total = made.get("size").and_then(Value::as_u64);
        Ok(StoredSnapshot {
            name,
            checksum: text("checksum"),
        })
    }

    /// The stored snapshots of the shard, and the server's clock.
    fn list(&self) -> Result<(Vec<Value>, Option<u64>)> {
        let (response, request) = self.server.open(&self.snapshots_path(), None)?;
        let at = response
            .header("date")
            .and_then(|date| httpdate::parse_http_date(date).ok())
            .and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map(|since| since.as_secs());
        let answer = self
            .server
            .read_answer(&response, &request)
            .map_err(|broken| failure(FailureClass::Retry, None, &request, broken.message))?;
        match judge_read(&answer, now_ms()) {
            Ok(Value::Array(listed)) => Ok((listed, at)),
            Ok(_) => {
                let message = "the answer is no list of snapshots".to_owned();
                let status = Some(answer.status);
                Err(failure(FailureClass::Retry, status, &request, message))
            }
            Err(_) => Err(refused(&answer)),
        }
    }

    /// One request about stored snapshots: Qdrant's `result`.
    fn ask(&self, method: &str, path: &str) -> Result<Value> {
        let answer = self
            .server
            .exchange(&Request::new(method, path, ""))?
            .map_err(|no| server_error(no_answer(&no)))?;
        judge_read(&answer, now_ms()).map_err(|_| refused(&answer))
    }

    /// The server keeps snapshots until told otherwise. A failure here costs it disk space until the
    /// next download.
    fn delete(&self, name: &str) {
        let path = format!("{}/{}", self.snapshots_path(), encode_segment(name));
        let gone = match self.ask("DELETE", &path) {
            Ok(_) => true,
            Err(Error::Server(failure)) if failure.status == Some(404) => true,
            Err(error) => {
                eprintln!(
                    "edge-sync: the server's snapshot {name} was not deleted: {}",
                    describe(&error)
                );
                false
            }
        };
        if gone && let Err(error) = self.ledger.remove(&self.server, name) {
            eprintln!(
                "edge-sync: {name} stays in the list of snapshots to delete: {}",
                describe(&error)
            );
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // Ends the exchange under way first.
        self.response = None;
        if let Some(stored) = self.stored.take() {
            self.delete(&stored.name);
        }
        if !self.done {
            let _ = fs::remove_file(&self.target);
        }
    }
}

/// An answer of the snapshot endpoints that brings nothing. Where a snapshot itself is asked for they
/// answer in plain text, without Qdrant's envelope: 404 for a shard or a collection that is not there,
/// 400 for a shard that is on another machine. Neither changes by waiting.
fn refused(answer: &Answer) -> Error {
    let judged = match judge_read(answer, now_ms()) {
        Ok(_) => {
            let message = "the answer is no snapshot".to_owned();
            let status = Some(answer.status);
            return failure(FailureClass::Retry, status, &answer.request, message);
        }
        Err(judged) => judged,
    };
    let plain = !answer.body.trim_start().starts_with('<');
    let class = match (answer.status, judged.class) {
        (400..=404, _) if plain => Class::Stop,
        (_, Class::Reject | Class::Missing | Class::TooLarge) => Class::Stop,
        (_, class) => class,
    };
    server_error(judged.with_class(class))
}

fn names(listed: &[Value]) -> Vec<String> {
    listed
        .iter()
        .filter_map(|made| made.get("name").and_then(Value::as_str).map(str::to_owned))
        .collect()
}

/// The snapshot that a request brought about whose answer was lost: the first that is new since.
/// One that was begun earlier, as its name tells, is another device's, and may lack what this one
/// wrote last.
fn made_since<'a>(before: &Before, listed: &'a [Value]) -> Option<&'a Value> {
    listed
        .iter()
        .filter_map(|made| Some((made.get("name")?.as_str()?, made)))
        .filter(|(name, _)| before.names.iter().all(|known| known != name))
        .filter(|(name, _)| match (begun(name), before.at) {
            (Some(begun), Some(at)) => begun >= at,
            _ => true,
        })
        .min_by_key(|(name, _)| (begun(name), *name))
        .map(|(_, made)| made)
}

/// When a snapshot was begun, in seconds since 1970, from its name:
/// `{collection}-shard-{shard}-2026-11-25-17-14-34.snapshot`.
fn begun(name: &str) -> Option<u64> {
    let stem = name.strip_suffix(".snapshot")?;
    let stamp = stem.get(stem.len().checked_sub("2026-11-25-17-14-34".len())?..)?;
    let fields: Vec<&str> = stamp.split('-').collect();
    let [year, month, day, hour, minute, second] = fields.as_slice() else {
        return None;
    };
    let date = format!("{day} {} {year}", month_name(month)?);
    // A weekday that is wrong is not looked at.
    let text = format!("Thu, {date} {hour}:{minute}:{second} GMT");
    let time = httpdate::parse_http_date(&text).ok()?;
    Some(time.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs())
}

fn month_name(number: &str) -> Option<&'static str> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let number: usize = number.parse().ok()?;
    MONTHS.get(number.checked_sub(1)?).copied()
}

/// Whether a partial answer is the part from `from` on (RFC 9110, section 14.4). Qdrant names it.
fn begins_at(response: &Response, from: u64) -> bool {
    response.header("content-range").and_then(|value| {
        value
            .strip_prefix("bytes ")?
            .split_once('-')?
            .0
            .parse()
            .ok()
    }) == Some(from)
}

fn is_encoded(response: &Response) -> bool {
    response
        .header("content-encoding")
        .is_some_and(|encoding| !matches!(encoding.trim(), "" | "identity"))
}

/// Whether an exchange ended before there was a head, although the server was reached.
fn is_cut(error: &Error) -> bool {
    matches!(
        error,
        Error::Server(ServerFailure {
            class: FailureClass::Unclear,
            status: None,
            ..
        })
    )
}

/// Whether a manifest asks for everything.
fn is_of_nothing(manifest: &str) -> bool {
    manifest.trim() == "{}"
}

/// Creates the file of a download, and its folder.
pub fn create(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .map_err(|error: io::Error| storage("create staging folder", parent, &error))?;
    }
    File::create(path).map_err(|error| storage("create snapshot file", path, &error))
}
