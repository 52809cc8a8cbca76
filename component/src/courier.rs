//! The exchange with one Qdrant server.
//!
//! What a failure means is decided here, from the transport's error or the HTTP status; the
//! callers only look at the class. The API key goes into the request header and nowhere else.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use edge_sync_engine::{CollectionConfig, encode_segment};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use waki::header::{HeaderMap, HeaderValue};
use waki::{Client, ErrorCode, Method, Response};

use crate::bindings::courier::{DownloadProgress, Server as ServerSettings, SnapshotSource};
use crate::bindings::queue::UploadRequest;
use crate::bindings::types::{FailureClass, ServerFailure};
use crate::error::{Error, Result, invalid, storage};

/// Answers other than snapshots are small; what is beyond this is not Qdrant's.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How much of a server's words goes into an error.
const MAX_MESSAGE_CHARS: usize = 1_000;
const CHUNK_BYTES: u64 = 256 << 10;
/// How long one `download.step` reads on before it reports.
const STEP: Duration = Duration::from_millis(250);

/// One collection on one server.
#[derive(Clone)]
pub struct Server {
    base: String,
    collection: String,
    shard: u32,
    api_key: Option<HeaderValue>,
    connect_timeout: Duration,
}

/// An answer that was read whole.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Server {
    /// Checks the settings. Errors name the field, and never hold the API key.
    pub fn new(settings: ServerSettings) -> Result<Self> {
        let base = settings.url.trim_end_matches('/').to_owned();
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(invalid(
                "server.url",
                format!("`{base}` has no http:// or https:// scheme"),
            ));
        }
        if settings.collection.is_empty() {
            return Err(invalid("server.collection", "it is empty"));
        }
        let api_key = match settings.api_key {
            Some(key) => {
                let mut value = HeaderValue::from_str(key.trim()).map_err(|_| {
                    invalid(
                        "server.api-key",
                        "it has characters that a header cannot carry",
                    )
                })?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Self {
            base,
            collection: encode_segment(&settings.collection),
            shard: settings.shard,
            api_key,
            connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
        })
    }

    /// Sends one queued request; returns once the server has confirmed it.
    pub fn send(&self, request: &UploadRequest) -> Result<()> {
        let method = match request.method.as_str() {
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
        };
        let body = (!request.body.is_empty()).then_some(request.body.as_str());
        self.call(method, &request.method, &request.path, body)
            .map(drop)
    }

    /// Creates the collection unless it is there; one that is there must have the same vectors.
    pub fn ensure_collection(&self, config: &str) -> Result<bool> {
        let expected = CollectionConfig::from_json(config)?;
        if let Some(info) = self.collection_info()? {
            self.check_collection(&expected, &info)?;
            return Ok(false);
        }
        match self.call(Method::Put, "PUT", "", Some(config)) {
            Ok(_) => Ok(true),
            // Another device was faster.
            Err(Error::Server(failure)) if failure.status == Some(409) => {
                if let Some(info) = self.collection_info()? {
                    self.check_collection(&expected, &info)?;
                }
                Ok(false)
            }
            Err(Error::Server(failure)) if failure.class == FailureClass::Reject => {
                Err(Error::Server(ServerFailure {
                    class: FailureClass::Stop,
                    ..failure
                }))
            }
            Err(error) => Err(error),
        }
    }

    fn collection_info(&self) -> Result<Option<Value>> {
        match self.call(Method::Get, "GET", "", None) {
            Ok(result) => Ok(Some(result)),
            Err(Error::Server(failure)) if failure.status == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn check_collection(&self, expected: &CollectionConfig, info: &Value) -> Result<()> {
        let found = CollectionConfig::from_collection_info(info)
            .and_then(|found| expected.check_same_vectors(&found));
        found.map_err(|error| {
            Error::Server(ServerFailure {
                class: FailureClass::Stop,
                status: None,
                request: format!("GET /collections/{}", self.collection),
                message: format!("the server's collection differs from the shard: {error}"),
                retry_after_ms: None,
            })
        })
    }

    /// One request below the collection; answers Qdrant's `result`.
    fn call(&self, method: Method, name: &str, path: &str, body: Option<&str>) -> Result<Value> {
        let (response, request) = self.open(method, name, path, body, None)?;
        let answer = read_answer(response, &request)?;
        check_status(&answer, &request)?;
        // A portal or a proxy may answer 200 too; only Qdrant's envelope counts as confirmation.
        let not_qdrant = || {
            failure(
                FailureClass::Retry,
                Some(answer.status),
                &request,
                "the answer is not Qdrant's: no `result` in it".to_owned(),
            )
        };
        let mut envelope: Value = serde_json::from_slice(&answer.body).map_err(|_| not_qdrant())?;
        envelope
            .get_mut("result")
            .map(Value::take)
            .ok_or_else(not_qdrant)
    }

    fn open(
        &self,
        method: Method,
        name: &str,
        path: &str,
        body: Option<&str>,
        range_from: Option<u64>,
    ) -> Result<(Response, String)> {
        let path = format!("/collections/{}{path}", self.collection);
        let request = format!("{name} {path}");
        let mut headers = HeaderMap::new();
        if let Some(key) = &self.api_key {
            headers.insert("api-key", key.clone());
        }
        if body.is_some() {
            headers.insert("content-type", HeaderValue::from_static("application/json"));
        }
        if let Some(from) = range_from
            && let Ok(value) = HeaderValue::from_str(&format!("bytes={from}-"))
        {
            headers.insert("range", value);
        }
        let response = Client::new()
            .request(method, &format!("{}{path}", self.base))
            .connect_timeout(self.connect_timeout)
            .headers(headers.iter())
            .body(body.unwrap_or_default().as_bytes().to_vec())
            .send()
            .map_err(|error| transport_failure(&error, &request))?;
        Ok((response, request))
    }
}

fn read_answer(response: Response, request: &str) -> Result<Answer> {
    let status = response.status_code();
    let headers = response.headers().clone();
    let mut body = Vec::new();
    loop {
        match response.chunk(CHUNK_BYTES) {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => {
                let cut = format!("the answer was cut off: {error}");
                return Err(failure(FailureClass::Retry, Some(status), request, cut));
            }
        }
        if body.len() > MAX_ANSWER_BYTES {
            let long = format!("the answer is longer than {MAX_ANSWER_BYTES} bytes");
            return Err(failure(FailureClass::Retry, Some(status), request, long));
        }
    }
    Ok(Answer {
        status,
        headers,
        body,
    })
}

/// Anything but a 2xx, as the failure it stands for.
fn check_status(answer: &Answer, request: &str) -> Result<()> {
    let mut message = server_words(&answer.body);
    let class = match answer.status {
        200..=299 => return Ok(()),
        // The server will not be able to do later what it cannot do at all.
        501 => FailureClass::Reject,
        408 | 425 | 429 | 500..=599 => FailureClass::Retry,
        // 404 below a collection: it, or the shard, is not there. Redirects are not followed:
        // they would carry the key and the data to an origin that nobody configured.
        300..=399 | 401 | 403 | 404 => FailureClass::Stop,
        413 => FailureClass::TooLarge,
        // So Qdrant 1.19 says it: "JSON payload (N bytes) is larger than allowed (limit: M bytes)".
        400 if message.contains("larger than allowed") => FailureClass::TooLarge,
        _ => FailureClass::Reject,
    };
    if let 300..=399 = answer.status {
        let to = answer
            .headers
            .get("location")
            .and_then(|to| to.to_str().ok());
        message = format!(
            "redirects are not followed; configure the final URL ({})",
            to.unwrap_or("the server names none")
        );
    }
    let retry_after = answer
        .headers
        .get("retry-after")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| retry_after(value, SystemTime::now()));
    Err(Error::Server(ServerFailure {
        class,
        status: Some(answer.status),
        request: request.to_owned(),
        message,
        retry_after_ms: retry_after
            .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
    }))
}

/// `Retry-After`: seconds, or an HTTP date (RFC 9110, section 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The `status.error` of Qdrant's error shape, or the body as it is.
fn server_words(body: &[u8]) -> String {
    let words = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|json| Some(json.pointer("/status/error")?.as_str()?.to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    words.chars().take(MAX_MESSAGE_CHARS).collect()
}

fn failure(class: FailureClass, status: Option<u16>, request: &str, message: String) -> Error {
    Error::Server(ServerFailure {
        class,
        status,
        request: request.to_owned(),
        message,
        retry_after_ms: None,
    })
}

/// A request that got no answer. Only a host that forbids the origin is more than a passing
/// failure.
fn transport_failure(error: &anyhow::Error, request: &str) -> Error {
    let (class, message) = match error.downcast_ref::<ErrorCode>() {
        Some(code @ ErrorCode::HttpRequestDenied) => (FailureClass::Stop, transport_words(code)),
        Some(code) => (FailureClass::Retry, transport_words(code)),
        None => (FailureClass::Retry, error.to_string()),
    };
    failure(class, None, request, message)
}

/// What an error of `wasi:http` means to a person.
fn transport_words(code: &ErrorCode) -> String {
    let words = match code {
        ErrorCode::DnsTimeout | ErrorCode::DnsError(_) | ErrorCode::DestinationNotFound => {
            "the server's name cannot be resolved"
        }
        ErrorCode::DestinationUnavailable | ErrorCode::DestinationIpUnroutable => {
            "there is no way to the server"
        }
        ErrorCode::DestinationIpProhibited | ErrorCode::HttpRequestDenied => {
            "the host does not permit requests to this server"
        }
        ErrorCode::ConnectionRefused => "the server refuses connections",
        ErrorCode::ConnectionTerminated | ErrorCode::HttpResponseIncomplete => {
            "the connection was cut"
        }
        ErrorCode::ConnectionTimeout => "the server could not be reached in time",
        ErrorCode::ConnectionReadTimeout | ErrorCode::HttpResponseTimeout => {
            "the server did not answer in time"
        }
        ErrorCode::ConnectionWriteTimeout => "the server did not take the request in time",
        ErrorCode::TlsProtocolError => "no secure connection: the server does not speak TLS",
        ErrorCode::TlsCertificateError => "no secure connection: the certificate is not accepted",
        ErrorCode::HttpResponseBodySize(limit) => {
            return match limit {
                Some(limit) => format!("the answer is longer than {limit} bytes"),
                None => "the answer is too long".to_owned(),
            };
        }
        ErrorCode::HttpProtocolError => "the answer is not HTTP",
        ErrorCode::InternalError(Some(message)) => return message.clone(),
        other => return format!("the request failed: {other:?}"),
    };
    words.to_owned()
}

/// Whether a partial answer is the part from `from` on (RFC 9110, section 14.4). Qdrant names it.
fn begins_at(response: &Response, from: u64) -> bool {
    response
        .header("content-range")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            value
                .strip_prefix("bytes ")?
                .split_once('-')?
                .0
                .parse()
                .ok()
        })
        == Some(from)
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
        let made = self.server.call(Method::Post, "POST", &path, None)?;
        let Some(name) = made.get("name").and_then(Value::as_str) else {
            let request = format!("POST {path}");
            let message = "the answer names no snapshot".to_owned();
            return Err(failure(FailureClass::Retry, None, &request, message));
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
        let (response, request) = self.server.open(Method::Get, "GET", &path, None, range)?;
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
                let answer = read_answer(response, &request)?;
                check_status(&answer, &request)?;
                let message = "an answer that is no snapshot".to_owned();
                return Err(failure(
                    FailureClass::Retry,
                    Some(answer.status),
                    &request,
                    message,
                ));
            }
        }
        if self.stored.is_none() || self.total.is_none() {
            self.total = response
                .header("content-length")
                .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
                .map(|rest| self.bytes + rest);
        }
        self.response = Some(response);
        Ok(())
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
                    return Err(self.cut(&error.to_string()));
                }
            }
        }
        Ok(())
    }

    fn cut(&self, how: &str) -> Error {
        failure(
            FailureClass::Retry,
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
            if let Err(error) = self.server.call(Method::Delete, "DELETE", &path, None) {
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
