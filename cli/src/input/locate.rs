//! The line on which a field stands in JSON text, so that a message about `filter.must[0].key` can say
//! where that is.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// The line, from 1, of what `path` names; of the innermost part that is there, if the rest is missing.
/// None if nothing of it is there.
pub fn line_of(text: &str, path: &str) -> Option<u64> {
    let mut value: &RawValue = serde_json::from_str(text).ok()?;
    let mut rest = path;
    let mut found = None;
    while let Some((inner, left)) = step(value.get(), rest) {
        found = Some(inner);
        value = inner;
        rest = left;
    }
    // Slices of one text: their distance is the place.
    let at = (found?.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
    let before = text.get(..at)?;
    Some(1 + before.bytes().filter(|byte| *byte == b'\n').count() as u64)
}

/// The member or element that the path begins with, and the rest of the path.
fn step<'a, 'p>(value: &'a str, path: &'p str) -> Option<(&'a RawValue, &'p str)> {
    if let Some(indexed) = path.strip_prefix('[') {
        let (index, rest) = indexed.split_once(']')?;
        let elements: Vec<&RawValue> = serde_json::from_str(value).ok()?;
        let element = elements.get(index.parse::<usize>().ok()?)?;
        return Some((element, rest.strip_prefix('.').unwrap_or(rest)));
    }
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(value).ok()?;
    // A key may hold dots itself; the longest that fits is meant.
    let (key, value) = members
        .into_iter()
        .filter(|(key, _)| {
            path.strip_prefix(key.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
        .max_by_key(|(key, _)| key.len())?;
    let rest = &path[key.len()..];
    Some((value, rest.strip_prefix('.').unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\n  \"query\": [1, 2],\n  \"filter\": {\n    \"must\": [\n      \
                        {\"key\": \"a\"},\n      {\"a.b\": 1}\n    ]\n  }\n}";

    #[test]
    fn fields_have_lines() {
        for (path, line) in [
            ("query", Some(2)),
            ("query[1]", Some(2)),
            ("filter.must[0].key", Some(5)),
            ("filter.must[1].a.b", Some(6)),
            // Missing: where it would have to be.
            ("filter.must[0].match", Some(5)),
            ("filter.must[7]", Some(4)),
            ("limit", None),
        ] {
            assert_eq!(line_of(TEXT, path), line, "{path}");
        }
        assert_eq!(line_of("{", "query"), None);
    }
}
