//! What came back for a request, before anybody has decided what it means.

use std::time::Duration;

use serde_json::Value;

/// How much of a server's words goes into a failure.
const MAX_WORDS: usize = 1_000;

/// One request to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// HTTP method.
    pub method: String,
    /// Path and query, below `/collections/{c}` unless `server_wide`.
    pub path: String,
    /// JSON body; empty for none.
    pub body: String,
    /// The path is the server's own, such as `/aliases`.
    pub server_wide: bool,
}

impl Request {
    /// A request below the collection.
    pub fn new(method: &str, path: impl Into<String>, body: impl Into<String>) -> Self {
        Self {
            method: method.to_owned(),
            path: path.into(),
            body: body.into(),
            server_wide: false,
        }
    }

    /// A request that is not below a collection, without a body.
    pub fn server_wide(method: &str, path: &str) -> Self {
        Self {
            server_wide: true,
            ..Self::new(method, path, "")
        }
    }

    /// Method and path, for people.
    pub fn describe(&self) -> String {
        let path = self.path.split('?').next().unwrap_or_default();
        if self.server_wide {
            format!("{} {path}", self.method)
        } else {
            format!("{} /collections/…{path}", self.method)
        }
    }
}

/// An HTTP answer that was read whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Method and full path of the request, for people.
    pub request: String,
    /// Host and port that were asked.
    pub host: String,
    /// `Retry-After`, as sent.
    pub retry_after: Option<String>,
    /// `Location`, as sent.
    pub location: Option<String>,
    /// `Content-Encoding`, as sent.
    pub content_encoding: Option<String>,
    /// The body, as text.
    pub body: String,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    /// How far the exchange came.
    pub kind: NoAnswerKind,
    /// Method and full path of the request, for people.
    pub request: String,
    /// What happened, for people.
    pub message: String,
}

/// How far an exchange without an answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswerKind {
    /// The request never reached the server: no name, no route, no connection.
    Unreached,
    /// The connection broke, the time ran out, or what came is no HTTP. The server may have applied
    /// the request.
    Cut,
    /// The host does not permit the request, or the settings cannot work.
    Denied,
}

/// Qdrant's own envelope: `{"result": ..., "status": "ok" | {"error": ...}, "time": ...}`.
#[derive(Debug)]
pub enum Envelope {
    /// `status` is `ok`.
    Success(Value),
    /// `status.error`: Qdrant's own words.
    Error(String),
    /// Anything else: not an answer of Qdrant.
    Foreign,
}

impl Answer {
    /// Reads the body as Qdrant's envelope.
    pub fn envelope(&self) -> Envelope {
        let Ok(Value::Object(mut fields)) = serde_json::from_str(&self.body) else {
            return Envelope::Foreign;
        };
        match fields.get("status") {
            Some(Value::String(status)) if status == "ok" => match fields.remove("result") {
                Some(result) => Envelope::Success(result),
                None => Envelope::Foreign,
            },
            Some(Value::Object(status)) => match status.get("error").and_then(Value::as_str) {
                Some(error) => Envelope::Error(words(error)),
                None => Envelope::Foreign,
            },
            _ => Envelope::Foreign,
        }
    }

    /// The first words of a body that is not Qdrant's, for people.
    pub fn first_words(&self) -> String {
        let text: String = self
            .body
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
            .chars()
            .take(200)
            .collect();
        if text.is_empty() {
            "no body".to_owned()
        } else {
            format!("`{text}`")
        }
    }

    /// The encoding of the body, if it is not plain.
    pub fn encoding(&self) -> Option<&str> {
        let encoding = self.content_encoding.as_deref()?.trim();
        let plain = encoding.is_empty() || encoding.eq_ignore_ascii_case("identity");
        (!plain).then_some(encoding)
    }
}

/// At most [`MAX_WORDS`] characters.
pub(crate) fn words(text: &str) -> String {
    text.chars().take(MAX_WORDS).collect()
}

/// `Retry-After` (RFC 9110, section 10.2.3): whole seconds or an HTTP date. What is neither says
/// nothing. `now_ms` are milliseconds since 1970; a date in the past, or one that a wrong clock
/// makes absurd, is cut by the caller's limit.
pub fn retry_after(value: &str, now_ms: u64) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let at = date
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    Some(at.saturating_sub(Duration::from_millis(now_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_takes_seconds_and_dates_and_ignores_junk() {
        let now = 1_700_000_000_000;
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("99999999999999999999999", now),
            Some(Duration::from_secs(u64::MAX))
        );
        for junk in ["-1", "1.5", "", "soon", "+3", "0x10"] {
            assert_eq!(retry_after(junk, now), None, "{junk}");
        }
        let date = "Tue, 14 Nov 2023 22:14:20 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(60)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now),
            Some(Duration::ZERO)
        );
    }

    #[test]
    fn only_the_whole_envelope_is_qdrants() {
        let envelope = |body: &str| {
            Answer {
                status: 200,
                body: body.to_owned(),
                ..Answer::default()
            }
            .envelope()
        };
        assert!(matches!(
            envelope(r#"{"result": true, "status": "ok", "time": 0.1}"#),
            Envelope::Success(_)
        ));
        assert!(matches!(
            envelope(r#"{"status": {"error": "no"}, "time": 0.1}"#),
            Envelope::Error(words) if words == "no"
        ));
        for foreign in [
            "",
            "<html>",
            "[]",
            "false",
            r#""login page""#,
            r#"{"result": null}"#,
            r#"{"result": true}"#,
            r#"{"result": true, "status": "accepted"}"#,
            r#"{"status": "ok"}"#,
            r#"{"status": {"message": "x"}}"#,
        ] {
            assert!(matches!(envelope(foreign), Envelope::Foreign), "{foreign}");
        }
    }
}
