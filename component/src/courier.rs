//! The exchange with one Qdrant server.
//!
//! What a failure means is decided here, from the transport's error or the HTTP status; the
//! callers only look at the class. The API key goes into the request header and nowhere else.

use std::time::{Duration, SystemTime};

use edge_sync_engine::{CollectionConfig, encode_segment};
use serde_json::Value;
use waki::header::{HeaderMap, HeaderValue};
use waki::{Client, ErrorCode, Method, Response};

use crate::bindings::courier::Server as ServerSettings;
use crate::bindings::queue::UploadRequest;
use crate::bindings::types::{FailureClass, ServerFailure};
use crate::error::{Error, Result, invalid};

/// Answers other than snapshots are small; what is beyond this is not Qdrant's.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How much of a server's words goes into an error.
const MAX_MESSAGE_CHARS: usize = 1_000;
pub const CHUNK_BYTES: u64 = 256 << 10;

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
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
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

    /// The shard whose snapshots are meant.
    pub fn shard(&self) -> u32 {
        self.shard
    }

    /// The server's URL and the collection, as it stands in paths. No key.
    pub fn place(&self) -> (&str, &str) {
        (&self.base, &self.collection)
    }

    /// One request below the collection; answers Qdrant's `result`.
    pub fn call(
        &self,
        method: Method,
        name: &str,
        path: &str,
        body: Option<&str>,
    ) -> Result<Value> {
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

    /// Sends a request below the collection; the answer's body is not read yet.
    pub fn open(
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
        // A compressed snapshot has another length and another checksum than were announced.
        headers.insert("accept-encoding", HeaderValue::from_static("identity"));
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

/// Reads an answer to its end.
pub fn read_answer(response: Response, request: &str) -> Result<Answer> {
    let status = response.status_code();
    let headers = response.headers().clone();
    let mut body = Vec::new();
    loop {
        match response.chunk(CHUNK_BYTES) {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            // What the stream says of itself means nothing to a person.
            Err(_) => {
                let cut = "the connection was cut within the answer".to_owned();
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
    Err(Error::Server(ServerFailure {
        class,
        status: Some(answer.status),
        request: request.to_owned(),
        message,
        retry_after_ms: retry_after_ms(&answer.headers),
    }))
}

/// What the answer's `Retry-After` asks for, in milliseconds.
pub fn retry_after_ms(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get("retry-after")?.to_str().ok()?;
    let delay = retry_after(value, SystemTime::now())?;
    Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
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
pub fn server_words(body: &[u8]) -> String {
    let words = serde_json::from_slice::<Value>(body)
        .ok()
        .and_then(|json| Some(json.pointer("/status/error")?.as_str()?.to_owned()))
        .unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    words.chars().take(MAX_MESSAGE_CHARS).collect()
}

/// A failed exchange without `Retry-After`.
pub fn failure(class: FailureClass, status: Option<u16>, request: &str, message: String) -> Error {
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
