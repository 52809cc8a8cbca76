//! When two refusals say the same.

use std::hash::{DefaultHasher, Hasher};

/// A number for what `words` say apart from what they say it of: words with digits (ids, counts,
/// dates) and quoted parts do not count, nor do case and spacing. Equal for `No point with id 7
/// found` and `No point with id 8 found`. Not to be stored: another version may compute others.
pub fn fingerprint(words: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    for word in plain_words(words) {
        hasher.write(word.to_lowercase().as_bytes());
        hasher.write_u8(0xff);
    }
    hasher.finish()
}

/// Whether two refusals differ only in what they are about; see [`fingerprint`].
pub fn same_words(one: &str, other: &str) -> bool {
    let lower = |word: &str| word.to_lowercase();
    plain_words(one)
        .map(lower)
        .eq(plain_words(other).map(lower))
}

/// The words of a text in order, without quoted parts and words with digits.
fn plain_words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    let mut before = None;
    std::iter::from_fn(move || {
        loop {
            let first = rest.chars().next()?;
            if let Some(after) = after_quotes(rest, first, before) {
                before = Some(first);
                rest = after;
                continue;
            }
            let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            if end == 0 {
                before = Some(first);
                rest = &rest[first.len_utf8()..];
                continue;
            }
            let (word, after) = rest.split_at(end);
            before = word.chars().next_back();
            rest = after;
            if !word.contains(|c: char| c.is_numeric()) {
                return Some(word);
            }
        }
    })
}

/// UUIDs, dates and names with underscores are one word each.
fn in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '_'
}

/// What follows the quoted part that `text` begins with; none if it begins with none. An
/// apostrophe within a word opens nothing, nor does a mark without its like.
fn after_quotes(text: &str, first: char, before: Option<char>) -> Option<&str> {
    let closing = match first {
        '"' | '`' => first,
        '\'' if before.is_none_or(|c| !c.is_alphanumeric()) => first,
        '“' => '”',
        _ => return None,
    };
    let inner = &text[first.len_utf8()..];
    let end = inner.find(closing)?;
    Some(&inner[end + closing.len_utf8()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_numbers_and_quoted_parts_do_not_count() {
        for (one, other) in [
            (
                "Not found: No point with id 7 found",
                "Not found: No point with id 12 found",
            ),
            (
                "Not found: No point with id 5c56c793-69f3-4fbf-87e6-c4bf54c28c26 found",
                "Not found: No point with id 5f56c793-69f3-4fbf-87e6-c4bf54c28c27 found",
            ),
            (
                "Wrong input: Vector dimension error: expected dim: 4, got 3",
                "Wrong input: Vector dimension error: expected dim: 128, got 1",
            ),
            (
                "Wrong input: Shard key \"a\" not found",
                "wrong input:  Shard key \"b c\" not found",
            ),
            (
                "Collection `a` doesn't exist",
                "Collection `b` doesn't exist",
            ),
            ("the name 'a' is taken", "the name 'bc' is taken"),
        ] {
            assert!(same_words(one, other), "{one} | {other}");
            assert_eq!(fingerprint(one), fingerprint(other), "{one} | {other}");
        }
    }

    #[test]
    fn other_words_are_others() {
        for (one, other) in [
            ("Shard key not specified", "Shard key \"a\" not found"),
            ("it doesn't exist 'now", "it doesn't exist 'then"),
            ("", "anything"),
            ("an \"open quote", "an \"open quotation"),
        ] {
            assert!(!same_words(one, other), "{one} | {other}");
            assert_ne!(fingerprint(one), fingerprint(other), "{one} | {other}");
        }
        assert!(same_words("", "7 8 \"9\""));
    }
}
