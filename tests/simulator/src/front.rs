//! What stands before the server and may answer in its place: proxies, firewalls, captive portals.

use crate::exchange::Answer;

/// What stands before the server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Front {
    /// Nothing.
    #[default]
    Open,
    /// Every request is answered with a page and this status, none reaches the server.
    Page(u16),
    /// Every request is sent to a login on another host.
    Portal,
    /// Requests that hold this text are answered with a page and 403.
    Firewall(String),
}

impl Front {
    /// The answer, if it is not the server's to give.
    pub(super) fn answer(&self, body: &[u8]) -> Option<Answer> {
        match self {
            Front::Open => None,
            Front::Page(status) => Some(page(*status)),
            Front::Portal => Some(portal()),
            Front::Firewall(text) => {
                let text = text.as_bytes();
                let holds = !text.is_empty() && body.windows(text.len()).any(|part| part == text);
                holds.then(|| page(403))
            }
        }
    }
}

/// What a captive portal sends.
pub(super) fn portal() -> Answer {
    let mut answer = page(302);
    let location = "http://portal.test/login".to_owned();
    answer.headers.push(("location", location));
    answer
}

/// A page with this status.
pub(super) fn page(status: u16) -> Answer {
    let body = format!("<html><body><h1>{status}</h1></body></html>\n").into_bytes();
    Answer {
        status,
        headers: vec![
            ("content-type", "text/html".to_owned()),
            ("content-length", body.len().to_string()),
        ],
        body,
    }
}
