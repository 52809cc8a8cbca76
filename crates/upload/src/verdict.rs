//! What an answer to a write means.
//!
//! Only an answer in Qdrant's own envelope can condemn data, and only the shape that the request
//! must be answered with confirms it. Everything else is somebody between the device and the
//! server, or a server that could not finish.

use std::time::Duration;

use serde_json::Value;

use crate::answer::{Answer, Envelope, NoAnswer, NoAnswerKind, Request, retry_after, words};

/// What to do about an exchange that did not confirm the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Passing, and not about this request: send the same again later.
    Retry,
    /// No usable answer: the connection broke, the time ran out, the server failed, or what
    /// answered is not Qdrant. It may be passing and it may be about this very request.
    Unclear,
    /// The settings or the collection are wrong. The queue is kept; a person is needed.
    Stop,
    /// Qdrant refuses this content.
    Reject,
    /// The request is too large, in bytes or in points.
    TooLarge,
    /// Qdrant does not have what the request names: a point, or the collection.
    Missing,
}

/// A failed exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub class: Class,
    /// HTTP status, where an answer came.
    pub status: Option<u16>,
    /// Method and path of the request.
    pub request: String,
    /// The server's own words, or what happened.
    pub message: String,
    /// The server's `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The time limit passed, or the connection broke: the write may have been applied.
    pub perhaps_applied: bool,
}

impl Failure {
    /// A failure that stops the queue.
    pub fn stop(request: &str, message: impl Into<String>) -> Self {
        Self {
            class: Class::Stop,
            status: None,
            request: request.to_owned(),
            message: message.into(),
            retry_after: None,
            perhaps_applied: false,
        }
    }

    /// The same failure with another class.
    #[must_use]
    pub fn with_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }
}

/// What an answer to a write means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server has applied the request.
    Confirmed {
        /// The highest number that the server gave one of its operations. Grows within a shard.
        operation: Option<u64>,
    },
    /// The server has taken the request and says that it is not applied yet, or not whether it is.
    Taken,
    /// It is not confirmed.
    Failed(Failure),
}

/// What an exchange without an answer stands for.
pub fn no_answer(no: &NoAnswer) -> Failure {
    let class = match no.kind {
        NoAnswerKind::Unreached => Class::Retry,
        NoAnswerKind::Cut => Class::Unclear,
        NoAnswerKind::Denied => Class::Stop,
    };
    Failure {
        class,
        status: None,
        request: no.request.clone(),
        message: no.message.clone(),
        retry_after: None,
        perhaps_applied: class == Class::Unclear,
    }
}

/// Judges the answer to a read: Qdrant's `result`, or why there is none. `now_ms`: milliseconds
/// since 1970.
///
/// # Errors
/// The failure; 404 in Qdrant's envelope is [`Class::Missing`].
pub fn judge_read(answer: &Answer, now_ms: u64) -> Result<Value, Failure> {
    match (answer.status, answer.encoding(), answer.envelope()) {
        (200, None, Envelope::Success(result)) => Ok(result),
        _ => Err(failure(answer, now_ms)),
    }
}

/// Judges the answer to a write. `now_ms`: milliseconds since 1970.
pub fn judge_write(request: &Request, answer: &Answer, now_ms: u64) -> Verdict {
    let envelope = answer.envelope();
    if answer.status == 200
        && answer.encoding().is_none()
        && let Envelope::Success(result) = &envelope
    {
        return confirmation(request, result).unwrap_or_else(|| {
            Verdict::Failed(Failure {
                class: Class::Unclear,
                message: format!(
                    "the answer confirms nothing of this request: {}",
                    answer.first_words()
                ),
                ..failure(answer, now_ms)
            })
        });
    }
    let failure = failure(answer, now_ms);
    // What is to go is gone: done, whoever removed it.
    if request.method == "DELETE"
        && answer.status == 400
        && failure.class == Class::Reject
        && failure.message.contains("Not existing vector name")
    {
        return Verdict::Confirmed { operation: None };
    }
    Verdict::Failed(failure)
}

/// The highest number that the server gave one of the operations of a request, whatever it says of
/// them.
pub(crate) fn operation_of(answer: &Answer) -> Option<u64> {
    let Envelope::Success(result) = answer.envelope() else {
        return None;
    };
    let number = |update: &Value| update.get("operation_id").and_then(Value::as_u64);
    match &result {
        Value::Array(updates) => updates.iter().filter_map(number).max(),
        update => number(update),
    }
}

/// The confirmation that `result` is of `request`; none if it is not of its shape.
fn confirmation(request: &Request, result: &Value) -> Option<Verdict> {
    let path = request.path.split('?').next().unwrap_or_default();
    if path.is_empty() {
        // `PUT /collections/{c}`
        return (result == &Value::Bool(true)).then_some(Verdict::Confirmed { operation: None });
    }
    let updates: Vec<&Value> = if path == "/points/batch" {
        let updates = result.as_array()?;
        if updates.len() != operations_in(&request.body)? {
            return None;
        }
        updates.iter().collect()
    } else {
        vec![result]
    };
    let mut applied = true;
    let mut operation = None;
    for update in updates {
        match update.get("status")?.as_str()? {
            "completed" => {}
            "acknowledged" | "wait_timeout" => applied = false,
            _ => return None,
        }
        operation = operation.max(update.get("operation_id").and_then(Value::as_u64));
    }
    Some(if applied {
        Verdict::Confirmed { operation }
    } else {
        Verdict::Taken
    })
}

/// How many operations a body of `POST /points/batch` has.
fn operations_in(body: &str) -> Option<usize> {
    #[derive(serde::Deserialize)]
    struct Body {
        operations: Vec<serde::de::IgnoredAny>,
    }
    let body: Body = serde_json::from_str(body).ok()?;
    Some(body.operations.len())
}

/// Anything but a success, as the failure that it stands for.
fn failure(answer: &Answer, now_ms: u64) -> Failure {
    let status = answer.status;
    let (class, message) = if let Some(encoding) = answer.encoding() {
        let message = format!(
            "the answer comes compressed ({}) although the request asks for a plain one: \
             something between the device and the server does that",
            words(encoding)
        );
        (Class::Unclear, message)
    } else {
        match answer.envelope() {
            Envelope::Error(message) => (class_of_words(status, &message), message),
            Envelope::Success(_) => (
                Class::Unclear,
                format!("status {status} with a result is no answer of Qdrant"),
            ),
            Envelope::Foreign => foreign(answer),
        }
    };
    Failure {
        class,
        status: Some(status),
        request: answer.request.clone(),
        message,
        retry_after: answer
            .retry_after
            .as_deref()
            .and_then(|value| retry_after(value, now_ms)),
        perhaps_applied: false,
    }
}

/// What Qdrant's own refusal means (1.19: `src/actix/helpers.rs` maps errors to statuses).
fn class_of_words(status: u16, message: &str) -> Class {
    match status {
        // "JSON payload (N bytes) is larger than allowed (limit: M bytes)"
        413 => Class::TooLarge,
        400 if message.contains("larger than allowed") => Class::TooLarge,
        // "Write rate limit exceeded, request larger than rate limiter capacity, please try to
        // split your request": waiting does not help.
        429 if message.contains("larger than rate limiter capacity") => Class::TooLarge,
        425 | 429 | 503 => Class::Retry,
        // 507: the node's quota; 403: no right to write, or storage that is locked.
        401 | 403 | 507 => Class::Stop,
        404 => Class::Missing,
        501 => Class::Reject,
        408 | 500..=599 => Class::Unclear,
        400..=499 => Class::Reject,
        _ => Class::Unclear,
    }
}

/// What an answer without Qdrant's envelope means: it comes from something in front of the server,
/// or from the part of the server that checks keys, which answers in plain text.
fn foreign(answer: &Answer) -> (Class, String) {
    let words = answer.first_words();
    let status = answer.status;
    match status {
        200..=299 => (
            Class::Unclear,
            format!("the answer is not Qdrant's: {words}"),
        ),
        304 => (Class::Unclear, "the answer is not Qdrant's: 304".to_owned()),
        300..=399 => redirect(answer),
        // "Must provide an API key or an Authorization bearer token"
        401 => (Class::Stop, words),
        // "Invalid API key or JWT"; a firewall answers with a page.
        403 if !answer.body.trim_start().starts_with('<') => (Class::Unclear, words),
        413 => (Class::TooLarge, words),
        429 => (Class::Retry, words),
        _ => (
            Class::Unclear,
            format!("the answer is not Qdrant's: {words}"),
        ),
    }
}

/// A redirect is never followed: it would carry the key and the data to a place that nobody
/// configured. One to another host is what captive portals send, and passes; one on the same host
/// says that the URL is not quite right.
fn redirect(answer: &Answer) -> (Class, String) {
    let Some(location) = answer.location.as_deref() else {
        let message = "a redirect to nowhere; redirects are not followed";
        return (Class::Unclear, message.to_owned());
    };
    let shown = words(location);
    let host = location
        .split_once("//")
        .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default())
        .map(|authority| authority.rsplit('@').next().unwrap_or_default());
    match host {
        Some(host) if !same_host(host, &answer.host) => (
            Class::Unclear,
            format!("a redirect to another host, {shown}; redirects are not followed"),
        ),
        _ => (
            Class::Stop,
            format!("a redirect to {shown}; redirects are not followed, configure the final URL"),
        ),
    }
}

/// Whether two authorities name one host, whatever their ports.
fn same_host(one: &str, other: &str) -> bool {
    let host = |authority: &str| {
        let end = authority.rfind(']').map_or(0, |at| at + 1);
        let end = authority[end..]
            .find(':')
            .map_or(authority.len(), |at| end + at);
        authority[..end].to_ascii_lowercase()
    };
    host(one) == host(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn batch(operations: usize) -> Request {
        let operations = vec![serde_json::json!({"delete": {"points": [1]}}); operations];
        let body = serde_json::json!({ "operations": operations }).to_string();
        Request::new("POST", "/points/batch?wait=true", body)
    }

    fn judge(request: &Request, status: u16, body: &str) -> Verdict {
        let answer = Answer {
            status,
            body: body.to_owned(),
            ..Answer::default()
        };
        judge_write(request, &answer, NOW)
    }

    fn class(status: u16, body: &str) -> Class {
        match judge(&batch(1), status, body) {
            Verdict::Failed(failure) => failure.class,
            other => panic!("{other:?}"),
        }
    }

    fn error(message: &str) -> String {
        serde_json::json!({"status": {"error": message}, "time": 0.0}).to_string()
    }

    fn results(statuses: &[&str]) -> String {
        let results: Vec<Value> = statuses
            .iter()
            .enumerate()
            .map(|(at, status)| serde_json::json!({"operation_id": at, "status": status}))
            .collect();
        serde_json::json!({"result": results, "status": "ok", "time": 0.0}).to_string()
    }

    #[test]
    fn an_acknowledgement_has_the_shape_of_its_request() {
        assert_eq!(
            judge(&batch(2), 200, &results(&["completed", "completed"])),
            Verdict::Confirmed { operation: Some(1) }
        );
        assert_eq!(
            judge(&batch(2), 200, &results(&["completed", "acknowledged"])),
            Verdict::Taken
        );
        assert_eq!(
            judge(&batch(1), 200, &results(&["wait_timeout"])),
            Verdict::Taken
        );
        for (request, status, body) in [
            (batch(10), 200, results(&["completed"])),
            (batch(1), 200, results(&["completed", "completed"])),
            (batch(1), 200, results(&["rejected"])),
            (batch(1), 202, results(&["completed"])),
            (batch(1), 200, r#"{"result": null, "status": "ok"}"#.into()),
            (batch(1), 200, r#"{"result": true, "status": "ok"}"#.into()),
            (batch(1), 200, r#"{"result": null}"#.into()),
            (
                batch(1),
                200,
                r#"{"result": "login page", "status": "ok"}"#.into(),
            ),
            (batch(1), 200, "[]".into()),
            (batch(1), 200, "false".into()),
            (batch(1), 200, "<html>hotel</html>".into()),
            (batch(1), 204, String::new()),
            (
                Request::new("PUT", "", "{}"),
                200,
                r#"{"result": false, "status": "ok"}"#.into(),
            ),
            (
                Request::new("PUT", "/index?wait=true", "{}"),
                200,
                results(&["completed"]),
            ),
        ] {
            let Verdict::Failed(failure) = judge(&request, status, &body) else {
                panic!("{status} {body}");
            };
            assert_eq!(failure.class, Class::Unclear, "{status} {body}");
        }
        let one = r#"{"result": {"operation_id": 7, "status": "completed"}, "status": "ok"}"#;
        assert_eq!(
            judge(&Request::new("PUT", "/index?wait=true", "{}"), 200, one),
            Verdict::Confirmed { operation: Some(7) }
        );
        let created = r#"{"result": true, "status": "ok"}"#;
        assert_eq!(
            judge(&Request::new("PUT", "", "{}"), 200, created),
            Verdict::Confirmed { operation: None }
        );
    }

    #[test]
    fn only_the_envelope_condemns() {
        for status in [400, 402, 405, 406, 409, 411, 415, 421, 422, 431, 451] {
            assert_eq!(class(status, &error("no")), Class::Reject, "{status}");
            assert_eq!(class(status, "<html>no</html>"), Class::Unclear, "{status}");
        }
        assert_eq!(
            class(404, &error("Not found: No point with id 1 found")),
            Class::Missing
        );
        assert_eq!(class(404, ""), Class::Unclear);
        assert_eq!(class(403, "<html>blocked</html>"), Class::Unclear);
        assert_eq!(class(403, &error("Forbidden: no")), Class::Stop);
        assert_eq!(
            class(507, &error("Insufficient storage: quota")),
            Class::Stop
        );
        assert_eq!(class(401, "Invalid API key or JWT"), Class::Stop);
        assert_eq!(class(413, "<html>too large</html>"), Class::TooLarge);
        assert_eq!(
            class(
                400,
                &error("JSON payload (9 bytes) is larger than allowed (limit: 8 bytes).")
            ),
            Class::TooLarge
        );
        assert_eq!(
            class(
                429,
                &error(
                    "Rate limiting exceeded: Write rate limit exceeded, request larger than rate limiter capacity, please try to split your request"
                )
            ),
            Class::TooLarge
        );
        assert_eq!(
            class(429, &error("Rate limiting exceeded: wait")),
            Class::Retry
        );
        for status in [500, 502, 504] {
            assert_eq!(class(status, &error("oh")), Class::Unclear);
            assert_eq!(class(status, "oh"), Class::Unclear);
        }
        assert_eq!(class(302, "<html>moved</html>"), Class::Unclear);
    }

    #[test]
    fn redirects_to_other_hosts_pass_and_those_on_the_same_do_not() {
        for (location, class) in [
            ("http://portal.hotel/login", Class::Unclear),
            ("//portal.hotel/login", Class::Unclear),
            ("https://server.example/collections", Class::Stop),
            ("https://SERVER.example:443/", Class::Stop),
            ("/collections/", Class::Stop),
            ("http://server.example@evil/", Class::Unclear),
        ] {
            let answer = Answer {
                status: 302,
                location: Some(location.to_owned()),
                host: "server.example:6333".to_owned(),
                ..Answer::default()
            };
            let Verdict::Failed(failure) = judge_write(&batch(1), &answer, NOW) else {
                panic!("confirmed");
            };
            assert_eq!(failure.class, class, "{location}");
            assert!(failure.message.contains(location));
        }
    }

    #[test]
    fn a_compressed_answer_is_named() {
        let answer = Answer {
            status: 200,
            content_encoding: Some("gzip".into()),
            body: "\u{1f}\u{fffd}".into(),
            ..Answer::default()
        };
        let Verdict::Failed(failure) = judge_write(&batch(1), &answer, NOW) else {
            panic!("confirmed");
        };
        assert!(failure.message.contains("compressed (gzip)"));
    }

    #[test]
    fn a_vector_that_is_gone_already_is_dropped() {
        let request = Request::new("DELETE", "/vectors/a?wait=true", "");
        let words = error("Wrong input: Not existing vector name error: a");
        assert_eq!(
            judge(&request, 400, &words),
            Verdict::Confirmed { operation: None }
        );
    }
}
