//! A small blocking client of Qdrant's REST API, for tests.

use std::fmt;
use std::time::Duration;

use serde_json::Value;
use ureq::http::{Request, Response};
use ureq::{Agent, Body};

/// Sends requests to one server. Cloning shares the connections.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    url: String,
    api_key: Option<String>,
}

impl fmt::Debug for Client {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// A request that got no complete answer.
#[derive(Debug, thiserror::Error)]
#[error("{method} {path}: {source}")]
pub struct NoAnswer {
    method: String,
    path: String,
    source: Box<ureq::Error>,
}

impl Client {
    /// A client of the server at `url` (`http://127.0.0.1:6333`), which sends `api_key` if given.
    pub fn new(url: &str, api_key: Option<&str>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self {
            agent: config.into(),
            url: url.trim_end_matches('/').to_owned(),
            api_key: api_key.map(str::to_owned),
        }
    }

    /// Sends a request and returns the answer as it is, its body unread. A body is sent as JSON.
    ///
    /// # Errors
    /// [`NoAnswer`] if the connection fails. A refusal by the server is an answer.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>, NoAnswer> {
        let json = ("content-type", "application/json");
        let json = body.is_some().then_some(json);
        let headers: Vec<_> = headers.iter().copied().chain(json).collect();
        self.send_raw(method, path, &headers, body)
    }

    /// As [`Client::send`], with no header of its own but the API key.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn send_raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<Response<Body>, NoAnswer> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url));
        if let Some(key) = &self.api_key {
            request = request.header("api-key", key);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let sent = match body {
            Some(body) => request
                .body(body)
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
            None => request
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| self.agent.run(request)),
        };
        sent.map_err(|error| no_answer(method, path, error))
    }

    /// Sends a request and reads the answer: its status, and its body as JSON (as a JSON string
    /// where it is not JSON).
    ///
    /// # Errors
    /// [`NoAnswer`] if the connection fails or is cut.
    pub fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), NoAnswer> {
        let body = body.map(Value::to_string);
        let response = self.send(method, path, &[], body.as_deref().map(str::as_bytes))?;
        read(method, path, response)
    }

    /// As [`Client::call`], with the headers and the body as they are given.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn call_raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Result<(u16, Value), NoAnswer> {
        let response = self.send_raw(method, path, headers, body)?;
        read(method, path, response)
    }

    /// The `result` of a request that has to succeed.
    ///
    /// # Panics
    /// If it does not; with the server's words.
    pub fn result(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, mut answer) = self
            .call(method, path, body)
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer["result"].take()
    }

    /// Status and `status.error` of a request that has to be refused.
    ///
    /// # Panics
    /// If it succeeds or gets no answer.
    pub fn refusal(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let (status, answer) = self
            .call(method, path, body)
            .unwrap_or_else(|error| panic!("{error}"));
        assert!(status >= 400, "{method} {path} was not refused: {answer}");
        let words = answer["status"]["error"]
            .as_str()
            .map_or(answer.to_string(), str::to_owned);
        (status, words)
    }
}

fn read(method: &str, path: &str, mut response: Response<Body>) -> Result<(u16, Value), NoAnswer> {
    let status = response.status().as_u16();
    let text = response
        .body_mut()
        .with_config()
        .limit(u64::MAX)
        .read_to_string()
        .map_err(|error| no_answer(method, path, error))?;
    Ok((
        status,
        serde_json::from_str(&text).unwrap_or(Value::String(text)),
    ))
}

fn no_answer(method: &str, path: &str, error: ureq::Error) -> NoAnswer {
    NoAnswer {
        method: method.to_owned(),
        path: path.to_owned(),
        source: Box::new(error),
    }
}
