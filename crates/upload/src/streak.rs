//! Refusals in a row, which may be about every write and not about the operations that met them.

use std::collections::{BTreeMap, BTreeSet};

use crate::answer::Request;
use crate::uploader::{MOST_ALIKE, Standing};
use crate::words::{fingerprint, same_words};

/// Refusals in the same words, with no write of their kind confirmed in between.
#[derive(Debug, Default)]
pub(crate) struct Streak {
    count: u32,
    /// The server's, of the last of them.
    words: String,
    /// Kinds of the refused writes; empty where they are not known.
    kinds: BTreeSet<String>,
}

impl Streak {
    /// Goes on from where the rejected log ends, unless this row already knows better.
    pub(crate) fn resume(&mut self, standing: &Standing) {
        let kept = if is_about_a_point(&standing.refused_words) {
            Self::default()
        } else {
            Self {
                count: standing.refused_in_a_row,
                words: standing.refused_words.clone(),
                kinds: BTreeSet::new(),
            }
        };
        if kept.count > 0 && same_words(&kept.words, &self.words) {
            self.count = self.count.max(kept.count);
        } else if kept.count > 0 || self.count == 0 {
            *self = kept;
        }
    }

    /// Whether one more refusal in these words stops the queue.
    pub(crate) fn is_full(&self, message: &str) -> bool {
        self.count >= MOST_ALIKE && same_words(&self.words, message)
    }

    /// A write was put aside.
    pub(crate) fn refused(&mut self, message: &str, request: &Request) {
        if !same_words(&self.words, message) {
            *self = Self::default();
        }
        self.words = message.to_owned();
        self.count = self.count.saturating_add(1);
        self.kinds.append(&mut kinds(request));
    }

    /// A write was confirmed. It ends the row if it is of the kind that was refused: where the
    /// collection is full, deletions still pass.
    pub(crate) fn confirmed(&mut self, request: &Request) {
        if self.count == 0 {
            return;
        }
        if self.kinds.is_empty() || !self.kinds.is_disjoint(&kinds(request)) {
            *self = Self::default();
        }
    }
}

/// How Qdrant begins to say that a point is not there.
const NO_POINT: &str = "No point with id";

/// Whether the server's words are about a point that it does not have. Such refusals are about one
/// operation each; a row of refusals goes on over them.
pub fn is_about_a_point(message: &str) -> bool {
    message.contains(NO_POINT)
}

/// For a row of refusals in the rejected log: equal for two that say the same of different operations.
/// None for words about a missing point, which a row goes on over. Not to be stored.
pub fn refusal_fingerprint(message: &str) -> Option<u64> {
    (!is_about_a_point(message)).then(|| fingerprint(message))
}

/// What kinds of write a request has: the names of the elements of a batch, or method and endpoint.
fn kinds(request: &Request) -> BTreeSet<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        operations: Vec<BTreeMap<String, serde::de::IgnoredAny>>,
    }
    let path = request.path.split('?').next().unwrap_or_default();
    if path == "/points/batch"
        && let Ok(body) = serde_json::from_str::<Body>(&request.body)
    {
        return body
            .operations
            .into_iter()
            .flat_map(BTreeMap::into_keys)
            .collect();
    }
    let endpoint = path.split('/').nth(1).unwrap_or_default();
    BTreeSet::from([format!("{} {endpoint}", request.method)])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(kind: &str) -> Request {
        let body = serde_json::json!({"operations": [{kind: {"points": [1]}}]}).to_string();
        Request::new("POST", "/points/batch?wait=true", body)
    }

    #[test]
    fn only_a_write_of_the_refused_kind_ends_the_row() {
        let mut streak = Streak::default();
        for _ in 0..MOST_ALIKE {
            assert!(!streak.is_full("full: 10"));
            streak.refused("full: 10", &request("upsert"));
            streak.confirmed(&request("delete"));
        }
        assert!(streak.is_full("full: 11"));
        assert!(!streak.is_full("another reason"));
        streak.confirmed(&request("upsert"));
        assert!(!streak.is_full("full: 11"));
    }

    #[test]
    fn the_rejected_log_is_where_a_row_goes_on() {
        let standing = |row: u32, words: &str| Standing {
            refused_in_a_row: row,
            refused_words: words.to_owned(),
            ..Standing::default()
        };
        let mut streak = Streak::default();
        streak.resume(&standing(MOST_ALIKE, "full"));
        assert!(streak.is_full("full"));
        // What was put aside was queued again: the row is still known here.
        streak.resume(&standing(0, ""));
        assert!(streak.is_full("full"));
        streak.resume(&standing(1, "other"));
        assert!(!streak.is_full("full") && !streak.is_full("other"));
        let mut streak = Streak::default();
        streak.resume(&standing(9, "Not found: No point with id 7 found"));
        assert!(!streak.is_full("Not found: No point with id 7 found"));
    }
}
