//! Refusals in a row, which may be about every write and not about the operations that met them.

use std::collections::{BTreeMap, BTreeSet};

use crate::answer::Request;
use crate::words::{fingerprint, same_words};

/// So many operations in a row may be put aside with the same words, others between them or not; the
/// next such refusal stops the queue. It may be about every write: a limit of the collection, a missing
/// shard key.
pub const MOST_ALIKE: u32 = 5;

/// The same of refusals in whatever words.
pub const MOST_REFUSED: u32 = 20;

/// Refusals with no write of their kind confirmed in between. Their words may take turns: a server
/// that is full in two ways names now one, now the other.
#[derive(Debug, Default)]
pub(crate) struct Streak {
    /// The server's words, and how many refusals were in them.
    refusals: Vec<(String, u32)>,
    /// Kinds of the refused writes; empty where they are not known.
    kinds: BTreeSet<String>,
}

impl Streak {
    /// Goes on from where the rejected log ends, unless this row already knows better.
    pub(crate) fn resume(&mut self, words: &str, kept: u32) {
        if kept == 0 || is_about_a_point(words) {
            return;
        }
        match self.of_words(words) {
            Some(count) => *count = kept.max(*count),
            // What is known here is not what was put aside last.
            None => {
                *self = Self {
                    refusals: vec![(words.to_owned(), kept)],
                    kinds: BTreeSet::new(),
                }
            }
        }
    }

    fn of_words(&mut self, words: &str) -> Option<&mut u32> {
        self.refusals
            .iter_mut()
            .find(|(known, _)| same_words(known, words))
            .map(|(_, count)| count)
    }

    /// Whether one more refusal in these words stops the queue, and what there was before it, for
    /// people.
    pub(crate) fn full(&self, message: &str) -> Option<String> {
        let alike = self
            .refusals
            .iter()
            .any(|(words, count)| *count >= MOST_ALIKE && same_words(words, message));
        let all: u32 = self.refusals.iter().map(|(_, count)| count).sum();
        if alike && self.refusals.len() == 1 {
            Some(format!(
                "{MOST_ALIKE} operations in a row were refused in the same words"
            ))
        } else if alike {
            Some(format!(
                "{MOST_ALIKE} of {all} operations in a row were refused in the same words"
            ))
        } else if all >= MOST_REFUSED {
            Some(format!("{all} operations in a row were refused"))
        } else {
            None
        }
    }

    /// A write was put aside.
    pub(crate) fn refused(&mut self, message: &str, request: &Request) {
        match self.of_words(message) {
            Some(count) => *count = count.saturating_add(1),
            None => self.refusals.push((message.to_owned(), 1)),
        }
        self.kinds.append(&mut kinds(request));
    }

    /// A write was confirmed. It ends the row if it is of the kind that was refused: where the
    /// collection is full, deletions still pass.
    pub(crate) fn confirmed(&mut self, request: &Request) {
        if self.refusals.is_empty() {
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
            assert_eq!(streak.full("full: 10"), None);
            streak.refused("full: 10", &request("upsert"));
            streak.confirmed(&request("delete"));
        }
        assert!(streak.full("full: 11").is_some());
        assert_eq!(streak.full("another reason"), None);
        streak.confirmed(&request("upsert"));
        assert_eq!(streak.full("full: 11"), None);
    }

    #[test]
    fn the_rejected_log_is_where_a_row_goes_on() {
        let mut streak = Streak::default();
        streak.resume("full", MOST_ALIKE);
        assert!(streak.full("full").is_some());
        // What was put aside was queued again: the row is still known here.
        streak.resume("", 0);
        assert!(streak.full("full").is_some());
        streak.resume("other", 1);
        assert!(streak.full("full").is_none() && streak.full("other").is_none());
        let mut streak = Streak::default();
        streak.resume("Not found: No point with id 7 found", 9);
        assert_eq!(streak.full("Not found: No point with id 7 found"), None);
    }

    #[test]
    fn words_that_take_turns_are_one_row() {
        let mut streak = Streak::default();
        for _ in 0..MOST_ALIKE {
            for words in ["vectors take 10 MB", "payloads take 10 MB"] {
                assert_eq!(streak.full(words), None);
                streak.refused(words, &request("upsert"));
            }
        }
        let words = streak.full("payloads take 11 MB").unwrap();
        assert!(words.starts_with("5 of 10 operations"), "{words}");
        let mut streak = Streak::default();
        for n in 0..MOST_REFUSED {
            let words = format!("reason {}", "I".repeat(n as usize));
            assert_eq!(streak.full(&words), None);
            streak.refused(&words, &request("upsert"));
        }
        assert!(streak.full("one more reason").is_some());
    }
}
