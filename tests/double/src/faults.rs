//! The script of faults: which requests go wrong, and how.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use regex::Regex;
use serde_json::Value;

/// What goes wrong with an exchange.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Nothing, but later.
    Delay(Duration),
    /// The connection closes without an answer; nothing was applied.
    DropRequest,
    /// The request is applied, then the connection closes without an answer.
    DropAnswer,
    /// The request is applied twice; the second answer is sent.
    Duplicate,
    /// The answer's body breaks off after so many bytes, and the connection with it; at its end if
    /// it is shorter.
    CutBody {
        /// Bytes of body that still arrive.
        after: u64,
    },
    /// The answer's body ends early but properly: shorter, with nothing to show that.
    TruncateBody {
        /// Bytes that are left.
        to: u64,
    },
    /// Bits of the answer's body flip.
    CorruptBody {
        /// Offset of the first changed byte.
        at: u64,
        /// How many bytes are changed.
        bytes: u64,
    },
    /// Of a stored snapshot, another part is sent than was asked for.
    OtherRange {
        /// Offset of its first byte.
        from: u64,
    },
    /// The answer's body arrives slowly.
    Throttle {
        /// Bytes a second.
        bytes_per_second: u64,
    },
    /// The request does not reach the server: what stands in front of it (a proxy, a firewall, a
    /// captive portal) answers.
    Reply(Reply),
    /// The request is applied, and answered by what stands in front of the server.
    ReplyAfter(Reply),
    /// What stands in front of the server answers before it has read the request's body, and closes
    /// the connection on the rest. Decided by the request's head alone: such a rule cannot look at
    /// the body, and takes the announced length for its size.
    Early {
        /// The answer.
        reply: Reply,
        /// Bytes of the body that are read before.
        after: u64,
    },
    /// Nothing is answered, ever, and nothing applied.
    Silence,
    /// The request is applied, and nothing answered, ever.
    SilenceAfter,
    /// The request is applied, and its `result` is another.
    Results(Results),
    /// The answer's body comes compressed, whatever was asked for.
    Gzip,
    /// The request is not applied and answered with this instead.
    Answer {
        /// HTTP status.
        status: u16,
        /// The words; in Qdrant's error shape unless `plain_text`.
        message: String,
        /// `Retry-After`, if it is to be sent.
        retry_after: Option<RetryAfter>,
        /// Send the words as they are, as the server does with a refused API key and proxies do
        /// with everything.
        plain_text: bool,
    },
}

/// An answer as it is sent, byte by byte.
///
/// Where a header or the body has [`Reply::API_KEY`], the API key that the client presented is put: a
/// careless server echoes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers beside the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// Stands for the API key that the client presented.
    pub const API_KEY: &str = "{api-key}";
    /// The same with each of its characters escaped, as JSON may spell them.
    pub const ESCAPED_API_KEY: &str = "{escaped-api-key}";

    /// A page, as proxies and portals send it.
    pub fn html(status: u16, words: &str) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: format!("<html><body><h1>{words}</h1></body></html>\n").into_bytes(),
        }
        .header("content-type", "text/html")
    }

    /// JSON, in whatever shape.
    pub fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_string().into_bytes(),
        }
        .header("content-type", "application/json")
    }

    /// To another place, as a captive portal answers.
    pub fn redirect(status: u16, location: &str) -> Self {
        Self::html(status, "Log in").header("location", location)
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With the key in its place.
    pub(super) fn with_key(&self, key: &str) -> Self {
        let escaped: String = key
            .encode_utf16()
            .map(|unit| format!("\\u{unit:04X}"))
            .collect();
        let put = |text: &str| {
            text.replace(Self::API_KEY, key)
                .replace(Self::ESCAPED_API_KEY, &escaped)
        };
        let headers = self.headers.iter();
        Self {
            status: self.status,
            headers: headers
                .map(|(name, value)| (name.clone(), put(value)))
                .collect(),
            body: match std::str::from_utf8(&self.body) {
                Ok(text) => put(text).into_bytes(),
                Err(_) => self.body.clone(),
            },
        }
    }
}

/// What becomes of the `result` of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Results {
    /// Of a list, only the first entry is left.
    First,
    /// The `status` of a write is this, in every entry of a list.
    Status(&'static str),
    /// The result is this.
    Replaced(Value),
}

impl Results {
    pub(super) fn change(&self, answer: &mut Value) {
        let result = &mut answer["result"];
        match self {
            Self::First => {
                if let Some(results) = result.as_array_mut() {
                    results.truncate(1);
                }
            }
            Self::Status(status) => {
                let results = match result {
                    Value::Array(results) => results.as_mut_slice(),
                    one => std::slice::from_mut(one),
                };
                for result in results {
                    if let Some(update) = result.as_object_mut() {
                        update.insert("status".to_owned(), Value::from(*status));
                    }
                }
            }
            Self::Replaced(value) => *result = value.clone(),
        }
    }
}

/// A `Retry-After` header, in either of its forms, or in none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Whole seconds.
    Seconds(u64),
    /// An HTTP date, this far in the future when it is sent. Its resolution is a second.
    Date(Duration),
    /// Whatever this is.
    Text(&'static str),
}

impl RetryAfter {
    pub(super) fn header(self) -> String {
        match self {
            Self::Seconds(seconds) => seconds.to_string(),
            Self::Date(ahead) => httpdate::fmt_http_date(SystemTime::now() + ahead),
            Self::Text(text) => text.to_owned(),
        }
    }
}

impl Fault {
    /// An answer in Qdrant's error shape.
    pub fn status(status: u16, message: &str) -> Self {
        Self::Answer {
            status,
            message: message.to_owned(),
            retry_after: None,
            plain_text: false,
        }
    }

    /// 429 as the server's rate limiter answers it.
    pub fn too_many_requests(retry_after: RetryAfter) -> Self {
        Self::Answer {
            status: 429,
            message: "Rate limiting exceeded: Write rate limit exceeded, retry later".to_owned(),
            retry_after: Some(retry_after),
            plain_text: false,
        }
    }

    /// 401, as the server answers a wrong key: plain text.
    pub fn unauthorized() -> Self {
        Self::plain_text(401, "Invalid API key or JWT")
    }

    /// 403, as the server answers a key that only permits reading.
    pub fn forbidden() -> Self {
        Self::status(403, "Forbidden: Global manage access is required")
    }

    /// 413, as proxies answer a large body.
    pub fn too_large() -> Self {
        Self::plain_text(413, "413 Request Entity Too Large")
    }

    /// 404 for the collection.
    pub fn no_collection(name: &str) -> Self {
        Self::status(
            404,
            &format!("Not found: Collection `{name}` doesn't exist!"),
        )
    }

    /// 404 as the server answers a path that it does not have: with nothing at all. Partial snapshots
    /// before 1.14.1, for example.
    pub fn no_such_path() -> Self {
        Self::Reply(Reply {
            status: 404,
            headers: Vec::new(),
            body: Vec::new(),
        })
    }

    /// An answer that is no JSON.
    pub fn plain_text(status: u16, message: &str) -> Self {
        Self::Answer {
            status,
            message: message.to_owned(),
            retry_after: None,
            plain_text: true,
        }
    }

    /// 429 for a write of more points than the limit has room for at any time. It is no use to
    /// wait, and the server names no time.
    pub fn larger_than_rate_limit() -> Self {
        Self::Answer {
            status: 429,
            message: "Rate limiting exceeded: Write rate limit exceeded, request larger than rate \
                      limiter capacity, please try to split your request"
                .to_owned(),
            retry_after: None,
            plain_text: false,
        }
    }

    /// A firewall's refusal of what a request holds.
    pub fn firewall() -> Self {
        Self::Reply(Reply::html(403, "Request blocked"))
    }

    /// A captive portal's answer to everything: the way to its login, on another host.
    pub fn portal() -> Self {
        Self::Reply(Reply::redirect(302, "http://portal.invalid/login"))
    }

    /// The refusal of a body that comes in chunks, by proxies that want to know its length.
    pub fn length_required() -> Self {
        Self::Early {
            reply: Reply::html(411, "411 Length Required"),
            after: 0,
        }
    }

    /// The refusal of a large body, from its announced length.
    pub fn too_large_at_once() -> Self {
        Self::Early {
            reply: Reply::html(413, "413 Request Entity Too Large"),
            after: 0,
        }
    }

    /// Whether the request reaches the server proper.
    pub(super) fn applies(&self) -> bool {
        !matches!(
            self,
            Self::DropRequest
                | Self::Answer { .. }
                | Self::Reply(_)
                | Self::Early { .. }
                | Self::Silence
        )
    }

    fn is_early(&self) -> bool {
        matches!(self, Self::Early { .. })
    }
}

/// When a fault strikes. A rule without restrictions strikes at every request.
#[derive(Debug, Clone)]
pub struct Rule {
    method: Option<String>,
    path: Option<Regex>,
    point: Option<Value>,
    text: Option<Regex>,
    chunked: bool,
    compressed: bool,
    larger_than: Option<usize>,
    skip: u32,
    times: Option<u32>,
    fault: Fault,
}

impl Rule {
    /// A rule for requests with this method (`*`: any) whose path and query string match the
    /// regular expression (anywhere; anchor it with `^` and `$`). Until [`Rule::fault`] says
    /// otherwise, it answers 500, once.
    ///
    /// # Panics
    /// If `path` is not a regular expression.
    pub fn on(method: &str, path: &str) -> Self {
        let path =
            Regex::new(path).unwrap_or_else(|e| panic!("{path} is no regular expression: {e}"));
        Self {
            method: (method != "*").then(|| method.to_owned()),
            path: Some(path),
            point: None,
            text: None,
            chunked: false,
            compressed: false,
            larger_than: None,
            skip: 0,
            times: Some(1),
            fault: Fault::status(500, "Service internal error: scripted"),
        }
    }

    /// Only requests whose body names this point id.
    #[must_use]
    pub fn with_point(mut self, id: impl Into<Value>) -> Self {
        self.point = Some(id.into());
        self
    }

    /// Only requests in whose body the regular expression matches, as firewalls look at it.
    ///
    /// # Panics
    /// If `text` is not a regular expression.
    #[must_use]
    pub fn with_text(mut self, text: &str) -> Self {
        let text =
            Regex::new(text).unwrap_or_else(|e| panic!("{text} is no regular expression: {e}"));
        self.text = Some(text);
        self
    }

    /// Only requests whose body comes in chunks, without `content-length`.
    #[must_use]
    pub fn chunked(mut self) -> Self {
        self.chunked = true;
        self
    }

    /// Only requests whose body has a `content-encoding`.
    #[must_use]
    pub fn compressed(mut self) -> Self {
        self.compressed = true;
        self
    }

    /// Only requests whose body has more bytes than this.
    #[must_use]
    pub fn larger_than(mut self, bytes: usize) -> Self {
        self.larger_than = Some(bytes);
        self
    }

    /// Lets the first `count` matching requests pass.
    #[must_use]
    pub fn skip(mut self, count: u32) -> Self {
        self.skip = count;
        self
    }

    /// Strikes at `count` requests and is spent.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.times = Some(count);
        self
    }

    /// Strikes until the script is cleared.
    #[must_use]
    pub fn always(mut self) -> Self {
        self.times = None;
        self
    }

    /// What happens.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    fn matches(&self, request: &Request<'_>) -> bool {
        self.method
            .as_deref()
            .is_none_or(|method| method == request.method)
            && self
                .path
                .as_ref()
                .is_none_or(|path| path.is_match(request.path_and_query))
            && self
                .larger_than
                .is_none_or(|limit| request.body_bytes > limit)
            && (!self.chunked || request.chunked)
            && (!self.compressed || request.compressed)
            && self
                .point
                .as_ref()
                .is_none_or(|id| request.body.is_some_and(|b| names_point(b, id)))
            && self
                .text
                .as_ref()
                .is_none_or(|text| request.text.is_some_and(|body| text.is_match(body)))
    }
}

/// Whether a request body holds a point of this id, or lists it among `points` or `ids`.
fn names_point(body: &Value, id: &Value) -> bool {
    match body {
        Value::Object(fields) => fields.iter().any(|(name, value)| match name.as_str() {
            "id" => value == id,
            // A payload may hold anything.
            "payload" => false,
            "points" | "ids" => {
                value.as_array().is_some_and(|list| list.contains(id)) || names_point(value, id)
            }
            _ => names_point(value, id),
        }),
        Value::Array(values) => values.iter().any(|value| names_point(value, id)),
        _ => false,
    }
}

/// What a rule looks at.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path_and_query: &'a str,
    /// As JSON; none while only the head is there.
    pub(super) body: Option<&'a Value>,
    /// As text; none while only the head is there.
    pub(super) text: Option<&'a str>,
    pub(super) body_bytes: usize,
    /// Without `content-length`.
    pub(super) chunked: bool,
    /// With `content-encoding`.
    pub(super) compressed: bool,
}

/// Faults that strike at random, reproducibly from a seed (as far as requests arrive in a
/// reproducible order).
#[derive(Debug, Clone)]
pub struct RandomFaults {
    /// Where the random numbers begin.
    pub seed: u64,
    /// The share of exchanges that fail, 0 to 1.
    pub share: f64,
    /// What may happen, each as likely as the other.
    pub kinds: Vec<Fault>,
}

impl RandomFaults {
    /// Everything that passes: nothing here is a reason for a client to give up.
    pub fn passing(seed: u64, share: f64) -> Self {
        Self {
            seed,
            share,
            kinds: vec![
                Fault::Delay(Duration::from_millis(5)),
                Fault::DropRequest,
                Fault::DropAnswer,
                Fault::Duplicate,
                Fault::CutBody { after: 10 },
                Fault::CutBody { after: 0 },
                Fault::too_many_requests(RetryAfter::Seconds(0)),
                Fault::status(500, "Service internal error: scripted"),
                Fault::plain_text(502, "<html><h1>502 Bad Gateway</h1></html>"),
                Fault::status(503, "Shard temporarily unavailable: scripted"),
            ],
        }
    }
}

/// The script of a double. Rules are tried in the order in which they were added, and the first
/// that matches strikes; where none does, the random faults have their chance.
#[derive(Debug, Default)]
pub struct Faults {
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    rules: Vec<Rule>,
    random: Option<(RandomFaults, fastrand::Rng)>,
}

impl Faults {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a rule after the others.
    pub fn add(&self, rule: Rule) {
        self.script().rules.push(rule);
    }

    /// Turns random faults on, or off with `None`.
    pub fn random(&self, random: Option<RandomFaults>) {
        self.script().random = random.map(|random| {
            let generator = fastrand::Rng::with_seed(random.seed);
            (random, generator)
        });
    }

    /// Drops all rules and random faults.
    pub fn clear(&self) {
        *self.script() = Script::default();
    }

    /// Rules that can still strike.
    pub fn pending(&self) -> usize {
        self.script()
            .rules
            .iter()
            .filter(|rule| rule.times != Some(0))
            .count()
    }

    /// The fault that strikes at a request of which only the head has come. It counts as used.
    pub(super) fn strike_early(&self, request: &Request<'_>) -> Option<Fault> {
        self.script().rule(request, true)
    }

    /// The fault that strikes at this request, which counts as used.
    pub(super) fn strike(&self, request: &Request<'_>) -> Option<Fault> {
        let mut script = self.script();
        if let Some(fault) = script.rule(request, false) {
            return Some(fault);
        }
        let (random, generator) = script.random.as_mut()?;
        if random.kinds.is_empty() || generator.f64() >= random.share {
            return None;
        }
        let kind = generator.usize(..random.kinds.len());
        random.kinds.get(kind).cloned()
    }
}

impl Script {
    fn rule(&mut self, request: &Request<'_>, early: bool) -> Option<Fault> {
        let rules = self.rules.iter_mut();
        for rule in rules.filter(|rule| rule.times != Some(0)) {
            if rule.fault.is_early() != early || !rule.matches(request) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            return Some(rule.fault.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn request<'a>(path_and_query: &'a str, body: Option<&'a Value>) -> Request<'a> {
        Request {
            method: "POST",
            path_and_query,
            body,
            text: None,
            body_bytes: body.map_or(0, |body| body.to_string().len()),
            chunked: false,
            compressed: false,
        }
    }

    #[test]
    fn rules_strike_in_order_and_are_spent() {
        let faults = Faults::default();
        faults.add(
            Rule::on("POST", "/batch")
                .times(2)
                .fault(Fault::DropRequest),
        );
        faults.add(Rule::on("*", "/batch").skip(1).fault(Fault::DropAnswer));
        let strike = || faults.strike(&request("/collections/c/points/batch?wait=true", None));
        assert_eq!(strike(), Some(Fault::DropRequest));
        assert_eq!(strike(), Some(Fault::DropRequest));
        assert_eq!(strike(), None);
        assert_eq!(strike(), Some(Fault::DropAnswer));
        assert_eq!(strike(), None);
        assert_eq!(faults.pending(), 0);
    }

    #[test]
    fn a_point_is_found_where_it_is_named_and_nowhere_else() {
        let named = [
            json!({"points": [{"id": 7, "vector": [1.0]}]}),
            json!({"points": [3, 7]}),
            json!({"operations": [{"delete": {"points": [7]}}]}),
            json!({"operations": [{"upsert": {"points": [{"id": 7}]}}]}),
        ];
        for body in &named {
            assert!(names_point(body, &json!(7)), "{body}");
            assert!(!names_point(body, &json!(8)), "{body}");
        }
        let payload = json!({"points": [{"id": 1, "payload": {"id": 7, "points": [7]}}]});
        assert!(!names_point(&payload, &json!(7)));
        assert!(!names_point(
            &json!({"points": [{"id": 1, "vector": [7]}]}),
            &json!(7)
        ));
    }

    #[test]
    fn random_faults_repeat_from_their_seed() {
        let run = |seed| {
            let faults = Faults::default();
            faults.random(Some(RandomFaults::passing(seed, 0.3)));
            (0..200)
                .map(|_| faults.strike(&request("/x", None)))
                .collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let struck = run(1).iter().flatten().count();
        assert!((30..=90).contains(&struck), "{struck} of 200");
    }
}
