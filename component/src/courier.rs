//! The exchange with one Qdrant server: requests out, answers in, snapshots to files.
//!
//! What an answer means is decided by `edge_sync_upload`. The API key goes into the request header
//! and nowhere else; should the server echo it, it is taken out of the answer here.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use edge_sync_engine::encode_segment;
use edge_sync_upload::{
    Answer, Class, Failure, NoAnswer, NoAnswerKind, Request, Target, Verdict, judge_read,
    judge_write, verdict::no_answer,
};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use waki::Method;

use crate::bindings::courier::{DownloadProgress, Server as ServerSettings, SnapshotSource};
use crate::bindings::types::{FailureClass, ServerFailure};
use crate::error::{Error, Result, invalid, storage};
use crate::http::{self, Origin, Outgoing, Response};

/// Answers other than snapshots are small; what is beyond this is not Qdrant's.
const MAX_ANSWER_BYTES: usize = 16 << 20;
const CHUNK_BYTES: u64 = 256 << 10;
/// How long one `download.step` reads on before it reports.
const STEP: Duration = Duration::from_millis(250);
/// A key shorter than this is not looked for in answers: it would be found everywhere.
const SHORTEST_SECRET: usize = 4;
/// What stands for the key.
const REDACTED: &str = "[API key]";

/// One collection on one server.
#[derive(Clone)]
pub struct Server {
    origin: Origin,
    /// Path of the URL, without a slash at its end.
    prefix: String,
    /// For paths: percent-encoded.
    collection: String,
    target: Target,
    shard: u32,
    api_key: Option<String>,
    connect_timeout: Duration,
}

impl Server {
    /// Checks the settings. Errors name the field, and never hold the API key.
    pub fn new(settings: ServerSettings) -> Result<Self> {
        let refuse = |why: &str| invalid("server.url", format!("`{}` {why}", settings.url));
        let target = Target::new(&settings.url, &settings.collection);
        let Some((scheme, rest)) = target.url.split_once("://") else {
            return Err(refuse("has no http:// or https:// scheme"));
        };
        let secure = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(refuse("has no http:// or https:// scheme")),
        };
        if target.url.contains(['?', '#']) || target.url.contains(char::is_whitespace) {
            return Err(refuse("has a query, a fragment or blanks"));
        }
        let (authority, prefix) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        if authority.is_empty() {
            return Err(refuse("has no host"));
        }
        if authority.contains('@') {
            return Err(invalid(
                "server.url",
                "it has a user name or a password; use an API key",
            ));
        }
        if matches!(settings.collection.as_str(), "" | "." | "..") {
            return Err(invalid(
                "server.collection",
                format!("`{}` is no name of a collection", settings.collection),
            ));
        }
        let api_key = settings.api_key.map(|key| key.trim().to_owned());
        if let Some(key) = &api_key
            && !key.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        {
            return Err(invalid(
                "server.api-key",
                "it has characters that a header cannot carry",
            ));
        }
        Ok(Self {
            origin: Origin {
                secure,
                authority: authority.to_owned(),
            },
            prefix: prefix.to_owned(),
            collection: encode_segment(&settings.collection),
            target,
            shard: settings.shard,
            api_key,
            connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
        })
    }

    /// The place that the settings name.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends one request and reads the answer whole, whatever its status.
    pub fn exchange(&self, request: &Request) -> Result<std::result::Result<Answer, NoAnswer>> {
        let method = method_of(&request.method)?;
        let path = if request.server_wide {
            request.path.clone()
        } else {
            format!("/collections/{}{}", self.collection, request.path)
        };
        let described = describe(&request.method, &path);
        let answer = self
            .open_path(method, &path, &request.body, None)
            .and_then(|response| self.read_answer(&response, &described));
        Ok(answer.map_err(|broken| NoAnswer {
            kind: broken.kind,
            request: described,
            message: self.without_key(&broken.message),
        }))
    }

    /// Sends a write and judges the answer. True: applied. False: taken, not applied yet.
    pub fn send(&self, request: &Request) -> Result<bool> {
        let verdict = match self.exchange(request)? {
            Ok(answer) => judge_write(request, &answer, now_ms()),
            Err(no) => Verdict::Failed(no_answer(&no)),
        };
        settle(verdict)
    }

    /// One request below the collection, of which Qdrant's `result` is wanted.
    fn call(&self, method: &str, path: &str) -> Result<Value> {
        let judged = match self.exchange(&Request::new(method, path, ""))? {
            Ok(answer) => judge_read(&answer, now_ms()),
            Err(no) => Err(no_answer(&no)),
        };
        judged.map_err(server_error)
    }

    /// The head of the answer to a request below the collection, and the request for people.
    fn open(&self, path: &str, range_from: Option<u64>) -> Result<(Response, String)> {
        let path = format!("/collections/{}{path}", self.collection);
        let described = describe("GET", &path);
        match self.open_path(Method::Get, &path, "", range_from) {
            Ok(response) => Ok((response, described)),
            Err(broken) => Err(server_error(no_answer(&NoAnswer {
                kind: broken.kind,
                request: described,
                message: self.without_key(&broken.message),
            }))),
        }
    }

    fn open_path(
        &self,
        method: Method,
        path: &str,
        body: &str,
        range_from: Option<u64>,
    ) -> std::result::Result<Response, http::Broken> {
        let mut headers = vec![("accept-encoding".to_owned(), b"identity".to_vec())];
        let mut add = |name: &str, value: &str| {
            headers.push((name.to_owned(), value.as_bytes().to_vec()));
        };
        if let Some(key) = &self.api_key {
            add("api-key", key);
        }
        if !body.is_empty() {
            add("content-type", "application/json");
        }
        if let Some(from) = range_from {
            add("range", &format!("bytes={from}-"));
        }
        http::send(
            &self.origin,
            Outgoing {
                method,
                path: &format!("{}{path}", self.prefix),
                headers,
                body: body.as_bytes(),
                connect_timeout: self.connect_timeout,
            },
        )
    }

    fn read_answer(
        &self,
        response: &Response,
        described: &str,
    ) -> std::result::Result<Answer, http::Broken> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk(CHUNK_BYTES)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER_BYTES {
                return Err(http::Broken {
                    kind: NoAnswerKind::Cut,
                    message: format!("the answer is longer than {MAX_ANSWER_BYTES} bytes"),
                });
            }
        }
        let header = |name: &str| response.header(name).map(|value| self.without_key(value));
        Ok(Answer {
            status: response.status_code(),
            request: described.to_owned(),
            host: self.origin.authority.clone(),
            retry_after: header("retry-after"),
            location: header("location"),
            content_encoding: header("content-encoding"),
            body: self.without_key(&String::from_utf8_lossy(&body)),
        })
    }

    /// The text without the API key, as it is and as it stands in URLs.
    fn without_key(&self, text: &str) -> String {
        let Some(key) = self
            .api_key
            .as_deref()
            .filter(|key| key.len() >= SHORTEST_SECRET)
        else {
            return text.to_owned();
        };
        text.replace(key, REDACTED)
            .replace(&encode_segment(key), REDACTED)
    }
}

fn method_of(name: &str) -> Result<Method> {
    Ok(match name {
        "GET" => Method::Get,
        "PUT" => Method::Put,
        "POST" => Method::Post,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        other => {
            return Err(invalid(
                "request.method",
                format!("unknown method `{other}`"),
            ));
        }
    })
}

/// Method and path without its query, for people.
fn describe(method: &str, path: &str) -> String {
    format!("{method} {}", path.split('?').next().unwrap_or_default())
}

/// True: applied. False: taken, not applied yet.
pub fn settle(verdict: Verdict) -> Result<bool> {
    match verdict {
        Verdict::Confirmed { .. } => Ok(true),
        Verdict::Taken => Ok(false),
        Verdict::Failed(failure) => Err(server_error(failure)),
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// A failed exchange as an error.
pub fn server_error(failure: Failure) -> Error {
    Error::Server(ServerFailure {
        class: match failure.class {
            Class::Retry => FailureClass::Retry,
            Class::Unclear => FailureClass::Unclear,
            Class::Stop => FailureClass::Stop,
            Class::Reject => FailureClass::Reject,
            Class::TooLarge => FailureClass::TooLarge,
            Class::Missing => FailureClass::Missing,
        },
        status: failure.status,
        request: failure.request,
        message: failure.message,
        retry_after_ms: failure
            .retry_after
            .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// A failure of a download that another attempt may heal.
fn passing(status: Option<u16>, request: &str, message: String) -> Error {
    Error::Server(ServerFailure {
        class: FailureClass::Unclear,
        status,
        request: request.to_owned(),
        message,
        retry_after_ms: None,
    })
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

/// A snapshot on its way to a file.
pub struct Download {
    server: Server,
    target: PathBuf,
    file: File,
    stored: Option<Stored>,
    response: Option<Response>,
    hash: Sha256,
    bytes: u64,
    total: Option<u64>,
    done: bool,
}

/// A snapshot that the server keeps: it has a name and can be read from any offset.
struct Stored {
    name: String,
    checksum: Option<String>,
}

impl Download {
    /// Creates the file and, for a stored snapshot, has the server make one.
    pub fn start(server: Server, source: SnapshotSource, target: PathBuf) -> Result<Self> {
        let file = create(&target)?;
        let mut download = Self {
            server,
            target,
            file,
            stored: None,
            response: None,
            hash: Sha256::new(),
            bytes: 0,
            total: None,
            done: false,
        };
        if let SnapshotSource::Stored = source {
            download.make_snapshot()?;
        }
        Ok(download)
    }

    fn snapshots_path(&self) -> String {
        format!("/shards/{}/snapshots", self.server.shard)
    }

    fn make_snapshot(&mut self) -> Result<()> {
        let path = format!("{}?wait=true", self.snapshots_path());
        let made = self.server.call("POST", &path)?;
        let Some(name) = made.get("name").and_then(Value::as_str) else {
            let request = format!("POST {path}");
            let message = "the answer names no snapshot".to_owned();
            return Err(passing(None, &request, message));
        };
        self.total = made.get("size").and_then(Value::as_u64);
        self.stored = Some(Stored {
            name: encode_segment(name),
            checksum: made
                .get("checksum")
                .and_then(Value::as_str)
                .map(str::to_owned),
        });
        Ok(())
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
            done: self.done,
        })
    }

    fn is_all_there(&self) -> bool {
        self.stored.is_some() && self.bytes > 0 && self.total == Some(self.bytes)
    }

    fn connect(&mut self) -> Result<()> {
        let (path, range) = match &self.stored {
            Some(stored) => (
                format!("{}/{}", self.snapshots_path(), stored.name),
                (self.bytes > 0).then_some(self.bytes),
            ),
            None => {
                self.restart()?;
                (format!("/shards/{}/snapshot", self.server.shard), None)
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
            _ => {
                return Err(self.refused(&response, &request));
            }
        }
        if self.stored.is_none() || self.total.is_none() {
            self.total = response
                .header("content-length")
                .and_then(|value| value.parse::<u64>().ok())
                .map(|rest| self.bytes + rest);
        }
        self.response = Some(response);
        Ok(())
    }

    /// Why there is no snapshot in the answer. The snapshot endpoints answer in plain text.
    fn refused(&self, response: &Response, request: &str) -> Error {
        let answer = match self.server.read_answer(response, request) {
            Ok(answer) => answer,
            Err(broken) => return self.cut(&broken.message),
        };
        let failure = match judge_read(&answer, now_ms()) {
            Ok(_) => return passing(Some(answer.status), request, "no snapshot".to_owned()),
            Err(failure) => failure,
        };
        let plain = !answer.body.trim_start().starts_with('<');
        let class = match (answer.status, failure.class) {
            // "Not found: shard 99 not found", "Shard 0 is not a local or queue proxy shard"
            (400..=404, _) if plain => Class::Stop,
            (_, Class::Reject | Class::Missing | Class::TooLarge) => Class::Stop,
            (_, class) => class,
        };
        server_error(failure.with_class(class))
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
            match response.chunk(CHUNK_BYTES) {
                Ok(Some(chunk)) => {
                    self.file
                        .write_all(&chunk)
                        .map_err(|error| storage("write snapshot", &self.target, &error))?;
                    self.hash.update(&chunk);
                    self.bytes += chunk.len() as u64;
                }
                Ok(None) => {
                    self.response = None;
                    return self.finish();
                }
                Err(error) => {
                    self.response = None;
                    return Err(self.cut(&error.message));
                }
            }
        }
        Ok(())
    }

    fn cut(&self, how: &str) -> Error {
        passing(
            None,
            "GET snapshot",
            format!("the download was cut off after {} bytes: {how}", self.bytes),
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
            .and_then(|stored| stored.checksum.clone())
        {
            let found = hex(&self.hash.clone().finalize());
            if !expected.eq_ignore_ascii_case(&found) {
                self.delete_stored();
                return Err(Error::BadSnapshot(format!(
                    "its SHA-256 is {found}, the server announced {expected}"
                )));
            }
        }
        self.file
            .sync_all()
            .map_err(|error| storage("sync snapshot to disk", &self.target, &error))?;
        self.delete_stored();
        self.done = true;
        Ok(())
    }

    /// The server keeps snapshots until told otherwise. A failure here costs it disk space only.
    fn delete_stored(&mut self) {
        if let Some(stored) = self.stored.take() {
            let path = format!("{}/{}", self.snapshots_path(), stored.name);
            if let Err(error) = self.server.call("DELETE", &path) {
                eprintln!("edge-sync: the server's snapshot was not deleted: {error:?}");
            }
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        self.delete_stored();
        if !self.done {
            let _ = fs::remove_file(&self.target);
        }
    }
}

fn create(path: &Path) -> Result<File> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)
            .map_err(|error: io::Error| storage("create staging folder", parent, &error))?;
    }
    File::create(path).map_err(|error| storage("create snapshot file", path, &error))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
