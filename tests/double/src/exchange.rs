//! The record of requests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::Value;

use crate::Fault;

/// One request and what became of it.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Number of the request, from 0, since the double was started.
    pub number: u64,
    /// HTTP method, upper case.
    pub method: String,
    /// Path, as sent, without query string.
    pub path: String,
    /// Query string, without the question mark; empty if there is none.
    pub query: String,
    /// Headers by lower-case name, without those that carry secrets.
    pub headers: BTreeMap<String, String>,
    /// What was presented as API key.
    pub api_key: PresentedKey,
    /// The body, if it is JSON (and bodies are recorded).
    pub body: Option<Value>,
    /// Size of the request body.
    pub body_bytes: usize,
    /// What was done to the exchange by the script.
    pub fault: Option<Fault>,
    /// How often it was handed to the server proper: 0 if a fault came before, 2 if duplicated.
    pub applied: u32,
    /// Status of the answer; none if there was none, or not yet.
    pub status: Option<u16>,
}

/// What was presented as API key. The key itself is not recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PresentedKey {
    /// Nothing.
    None,
    /// The key that the double was started with.
    Right,
    /// Anything else, or anything when no key is required.
    Other,
}

impl PresentedKey {
    fn of(headers: &HeaderMap, secret: Option<&str>) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let presented = text("api-key")
            .or_else(|| text("authorization").map(|v| v.strip_prefix("Bearer ").unwrap_or(v)));
        match (presented, secret) {
            (None, _) => Self::None,
            (Some(presented), Some(secret)) if presented == secret => Self::Right,
            (Some(_), _) => Self::Other,
        }
    }
}

impl Exchange {
    /// The points, ids or operations that the body lists: the length of `points`, `ids` or
    /// `operations`.
    pub fn batch_size(&self) -> Option<usize> {
        let body = self.body.as_ref()?;
        ["points", "ids", "operations"]
            .iter()
            .find_map(|name| body.get(name)?.as_array().map(Vec::len))
    }
}

#[derive(Debug, Default)]
pub(super) struct Log {
    entries: Mutex<Entries>,
    changed: Condvar,
    drop_bodies: AtomicBool,
}

#[derive(Debug, Default)]
struct Entries {
    next: u64,
    kept: Vec<Exchange>,
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the arrival of a request and returns its number.
    pub(super) fn arrived(
        &self,
        parts: &Parts,
        secret: Option<&str>,
        body: Option<&Value>,
        body_bytes: usize,
        fault: Option<Fault>,
    ) -> u64 {
        let secret_headers = ["api-key", "authorization"];
        let headers = parts
            .headers
            .iter()
            .filter(|(name, _)| !secret_headers.contains(&name.as_str()))
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.as_str().to_owned(), value)
            })
            .collect();
        let keep_body = !self.drop_bodies.load(Ordering::Relaxed);
        let mut entries = self.entries();
        let number = entries.next;
        entries.next += 1;
        entries.kept.push(Exchange {
            number,
            method: parts.method.as_str().to_owned(),
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            headers,
            api_key: PresentedKey::of(&parts.headers, secret),
            body: body.filter(|_| keep_body).cloned(),
            body_bytes,
            fault,
            applied: 0,
            status: None,
        });
        number
    }

    pub(super) fn update(&self, number: u64, change: impl FnOnce(&mut Exchange)) {
        let mut entries = self.entries();
        // Entries may have been taken since, but never reordered.
        if let Ok(at) = entries.kept.binary_search_by_key(&number, |e| e.number)
            && let Some(exchange) = entries.kept.get_mut(at)
        {
            change(exchange);
        }
        drop(entries);
        self.changed.notify_all();
    }

    pub(super) fn all(&self) -> Vec<Exchange> {
        self.entries().kept.clone()
    }

    pub(super) fn take(&self) -> Vec<Exchange> {
        std::mem::take(&mut self.entries().kept)
    }

    pub(super) fn keep_bodies(&self, keep: bool) {
        self.drop_bodies.store(!keep, Ordering::Relaxed);
    }

    pub(super) fn wait_for(
        &self,
        patience: Duration,
        mut condition: impl FnMut(&[Exchange]) -> bool,
    ) -> bool {
        let deadline = Instant::now() + patience;
        let mut entries = self.entries();
        loop {
            if condition(&entries.kept) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            entries = self
                .changed
                .wait_timeout(entries, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
