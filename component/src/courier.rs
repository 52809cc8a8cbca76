//! The exchange with one Qdrant server: requests out, answers in.
//!
//! What an answer means is decided by `edge_sync_upload`. The API key goes into the request header
//! and nowhere else; should the server echo it, it is taken out of the answer here.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::Duration;

use edge_sync_clock::now_ms;
use edge_sync_engine::encode_segment;
use edge_sync_upload::{
    Answer, Class, Failure, NoAnswer, NoAnswerKind, Request, Routing, ServerCollection, Target,
    Verdict, judge_read, judge_write, verdict::no_answer, without_key,
};
use serde_json::Value;
use waki::Method;

use crate::bindings::courier::Server as ServerSettings;
use crate::bindings::types::{FailureClass, ServerFailure};
use crate::error::{Error, Result, invalid};
use crate::http::{self, Origin, Outgoing, Response};

/// Answers other than snapshots are small; what is beyond this is not Qdrant's.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// How much of an answer is read at a time.
pub const CHUNK_BYTES: u64 = 256 << 10;

/// One collection on one server.
#[derive(Clone)]
pub struct Server {
    origin: Origin,
    /// Path of the URL, without a slash at its end.
    prefix: String,
    /// For paths: percent-encoded.
    collection: String,
    target: Target,
    api_key: Option<String>,
    connect_timeout: Duration,
    /// Whether the collection has shard keys, once that was asked.
    keyed: Cell<Option<bool>>,
}

impl Server {
    /// Checks the settings. Errors name the field, and never hold the API key.
    pub fn new(settings: ServerSettings) -> Result<Self> {
        let refuse = |why: &str| invalid("server.url", format!("`{}` {why}", settings.url));
        let routing = routing(&settings)?;
        let target = Target::new(&settings.url, &settings.collection).routed(routing);
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
            api_key,
            connect_timeout: Duration::from_millis(settings.connect_timeout_ms),
            keyed: Cell::new(None),
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

    /// The request as it goes to the part of the collection that the settings name.
    pub fn address<'a>(&self, request: &'a Request) -> Result<Cow<'a, Request>> {
        let routing = &self.target.routing;
        if routing.part().is_none() {
            return Ok(Cow::Borrowed(request));
        }
        Ok(routing.address(request, self.is_keyed()?))
    }

    /// Whether the collection has shard keys.
    pub fn is_keyed(&self) -> Result<bool> {
        if let Some(keyed) = self.keyed.get() {
            return Ok(keyed);
        }
        Ok(self.describe()?.1.shard_keys)
    }

    /// What the server says of the collection.
    pub fn describe(&self) -> Result<(Value, ServerCollection)> {
        let told = self.call("GET", "", "")?;
        let collection = ServerCollection::read(&told).map_err(|message| {
            let request = Request::new("GET", "", "").describe();
            failure(FailureClass::Unclear, None, &request, message)
        })?;
        self.keyed.set(Some(collection.shard_keys));
        Ok((told, collection))
    }

    /// Sends a write and judges the answer. True: applied. False: taken, not applied yet.
    pub fn send(&self, request: &Request) -> Result<bool> {
        let request = &*self.address(request)?;
        let verdict = match self.exchange(request)? {
            Ok(answer) => judge_write(request, &answer, now_ms()),
            Err(no) => Verdict::Failed(no_answer(&no)),
        };
        settle(verdict)
    }

    /// One request below the collection, of which Qdrant's `result` is wanted.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Result<Value> {
        let judged = match self.exchange(&Request::new(method, path, body))? {
            Ok(answer) => judge_read(&answer, now_ms()),
            Err(no) => Err(no_answer(&no)),
        };
        judged.map_err(server_error)
    }

    /// The head of the answer to a request below the collection, and the request for people.
    pub fn open(&self, path: &str, range_from: Option<u64>) -> Result<(Response, String)> {
        self.open_with("GET", path, "", range_from)
    }

    /// As [`Server::open`], for another method and with a body.
    pub fn open_with(
        &self,
        method: &str,
        path: &str,
        body: &str,
        range_from: Option<u64>,
    ) -> Result<(Response, String)> {
        let path = format!("/collections/{}{path}", self.collection);
        let described = describe(method, &path);
        match self.open_path(method_of(method)?, &path, body, range_from) {
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

    /// Reads an answer to its end.
    pub fn read_answer(
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

    /// The text without the API key, however it is spelt there.
    fn without_key(&self, text: &str) -> String {
        match &self.api_key {
            Some(key) => without_key(text, key),
            None => text.to_owned(),
        }
    }
}

/// Which part of the collection the settings name. Errors name the field.
fn routing(settings: &ServerSettings) -> Result<Routing> {
    let (key, tenant) = (settings.shard_key.as_deref(), settings.tenant.as_deref());
    Routing::read(key, tenant, settings.shard).map_err(|(setting, why)| {
        let field = format!("server.{}", setting.name().replace('_', "-"));
        invalid(&field, why)
    })
}

/// A failed exchange, in words of ours.
pub fn failure(class: FailureClass, status: Option<u16>, request: &str, message: String) -> Error {
    Error::Server(ServerFailure {
        class,
        status,
        request: request.to_owned(),
        message,
        retry_after_ms: None,
    })
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
