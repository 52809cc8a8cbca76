//! What stands between a device and its server: a script of faults, one for each exchange, and
//! rules that last.

use std::collections::VecDeque;

use edge_sync_upload::{Answer, NoAnswer, NoAnswerKind, Request};

use super::qdrant::Qdrant;

/// What happens to one exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Somebody who is not Qdrant answers in its place.
    Page { status: u16, body: String },
    /// A captive portal sends elsewhere.
    Portal,
    /// No connection.
    Unreached,
    /// Cut before the server got it.
    CutBefore,
    /// The server got it; the answer is lost.
    CutAfter,
    /// The server applies it with the next write; the time runs out.
    TimeOut,
    /// The server's answer comes compressed.
    Compressed,
    /// The server takes the write and says that it is not applied yet.
    Slow,
    /// Qdrant's own failure.
    Internal,
    /// Qdrant's rate limit, with or without `Retry-After`.
    RateLimit(Option<String>),
    /// The server restarts: 503.
    Starting,
    /// An answer to a write that confirms less than was asked, though everything was applied.
    ShortAnswer,
}

/// A rule that lasts: what is done to a body that contains a text.
#[derive(Clone, Debug)]
pub struct Rule {
    pub text: String,
    pub fault: Fault,
    /// The way is broken for so many exchanges afterwards.
    pub outage: u32,
}

#[derive(Debug, Default)]
pub struct Proxy {
    pub faults: VecDeque<Option<Fault>>,
    pub rules: Vec<Rule>,
    /// Bodies above so many bytes get 413 with a page.
    pub max_bytes: Option<usize>,
    /// Writes other than these paths get this fault.
    pub all_writes: Option<Fault>,
    /// Reads get this fault.
    pub all_reads: Option<Fault>,
    /// Servers behind a balancer that gives them writes by turns: what is wrong with each.
    pub backends: VecDeque<Option<Fault>>,
    outage: u32,
}

pub type Exchange = Result<Answer, NoAnswer>;

impl Proxy {
    /// Whether faults of the script are still to come.
    pub fn is_quiet(&self) -> bool {
        self.faults.is_empty() && self.outage == 0
    }

    fn fault(&mut self, request: &Request) -> Option<Fault> {
        if self.outage > 0 {
            self.outage -= 1;
            return Some(Fault::Unreached);
        }
        if let Some(Some(fault)) = self.faults.pop_front() {
            return Some(fault);
        }
        let read = request.method == "GET" || request.path == "/points";
        if read {
            return self.all_reads.clone();
        }
        if let Some(rule) = self
            .rules
            .iter()
            .find(|rule| request.body.contains(&rule.text))
        {
            self.outage = rule.outage;
            return Some(rule.fault.clone());
        }
        if let Some(fault) = &self.all_writes {
            return Some(fault.clone());
        }
        if !self.backends.is_empty() {
            self.backends.rotate_left(1);
            if let Some(fault) = &self.backends[0] {
                return Some(fault.clone());
            }
        }
        self.max_bytes
            .is_some_and(|most| request.body.len() > most)
            .then(|| page(413))
    }

    pub fn exchange(&mut self, qdrant: &mut Qdrant, name: &str, request: &Request) -> Exchange {
        let described = request.describe();
        let no = |kind, message: &str| {
            Err(NoAnswer {
                kind,
                request: described.clone(),
                message: message.to_owned(),
            })
        };
        let answer = |status: u16, body: &str| Answer {
            status,
            body: body.to_owned(),
            ..Answer::default()
        };
        let error =
            |words: &str| serde_json::json!({"status": {"error": words}, "time": 0.0}).to_string();
        let mut answer = match self.fault(request) {
            None => qdrant.answer(name, request),
            Some(Fault::Page { status, body }) => answer(status, &body),
            Some(Fault::Portal) => Answer {
                location: Some("http://portal.hotel/login".to_owned()),
                ..answer(302, "<html>moved</html>")
            },
            Some(Fault::Unreached) => {
                return no(NoAnswerKind::Unreached, "the connection was refused");
            }
            Some(Fault::CutBefore) => return no(NoAnswerKind::Cut, "the connection was cut"),
            Some(Fault::CutAfter) => {
                qdrant.take(name, request, true);
                return no(NoAnswerKind::Cut, "the connection was cut");
            }
            Some(Fault::TimeOut) => {
                qdrant.take(name, request, false);
                return no(NoAnswerKind::Cut, "no answer within 60 s");
            }
            Some(Fault::Compressed) => Answer {
                content_encoding: Some("gzip".to_owned()),
                body: "\u{1f}\u{fffd}".to_owned(),
                ..qdrant.answer(name, request)
            },
            Some(Fault::Slow) => {
                qdrant.slow = 1;
                let answer = qdrant.answer(name, request);
                qdrant.slow = 0;
                answer
            }
            Some(Fault::Internal) => answer(500, &error("Service internal error: oh")),
            Some(Fault::RateLimit(retry_after)) => Answer {
                retry_after,
                ..answer(
                    429,
                    &error("Rate limiting exceeded: Write rate limit exceeded"),
                )
            },
            Some(Fault::Starting) => answer(503, "<html>starting</html>"),
            Some(Fault::ShortAnswer) => {
                let mut answer = qdrant.answer(name, request);
                if answer.status == 200 && request.path != "/points" {
                    answer.body = r#"{"result": [], "status": "ok", "time": 0.0}"#.to_owned();
                }
                answer
            }
        };
        answer.request = described;
        answer.host = "server.example:6333".to_owned();
        Ok(answer)
    }
}

/// Somebody else's page.
pub fn page(status: u16) -> Fault {
    Fault::Page {
        status,
        body: format!("<html>{status} no</html>"),
    }
}
