//! Taking the API key out of what a server says.

/// What stands for the key.
const REDACTED: &str = "[API key]";

/// A key shorter than this is not looked for: it would be found everywhere.
const SHORTEST: usize = 4;

/// The text without the key, however its characters are spelt: as they are, or escaped as in JSON,
/// in a URL or in HTML. A server may echo a key in any of these, and who decodes its answer later
/// would have the key again.
pub fn without_key(text: &str, key: &str) -> String {
    if key.len() < SHORTEST {
        return text.to_owned();
    }
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = length_of(rest, key) {
            redacted.push_str(REDACTED);
            rest = &rest[length..];
        } else {
            redacted.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    redacted
}

/// Bytes of the spelling of `key` that `text` begins with.
fn length_of(text: &str, key: &str) -> Option<usize> {
    let Some(next) = key.chars().next() else {
        return Some(0);
    };
    let key = &key[next.len_utf8()..];
    spellings(text, next)
        .into_iter()
        .flatten()
        .find_map(|length| {
            let rest = length_of(text.get(length..)?, key)?;
            Some(length + rest)
        })
}

/// Bytes of the spellings of `c` that `text` begins with, the longer ones first.
fn spellings(text: &str, c: char) -> [Option<usize>; 4] {
    let first = text.chars().next();
    let escaped = |escape: char| first == Some(escape);
    [
        escaped('\\').then(|| in_json(text, c)).flatten(),
        escaped('%').then(|| in_url(text, c)).flatten(),
        escaped('&').then(|| in_html(text, c)).flatten(),
        (first == Some(c)).then(|| c.len_utf8()),
    ]
}

/// `\/`, `\u002F`; with several backslashes where JSON stands in a string of JSON.
fn in_json(text: &str, c: char) -> Option<usize> {
    let mut rest = text;
    let mut units = [0; 2];
    for unit in c.encode_utf16(&mut units) {
        let escaped = rest.trim_start_matches('\\');
        if escaped.len() == rest.len() {
            return None;
        }
        rest = match escaped
            .strip_prefix('u')
            .and_then(|it| number(it.get(..4)?, 16))
        {
            Some(code) if code == u32::from(*unit) => &escaped[5..],
            _ if c == '\\' => escaped,
            _ => escaped.strip_prefix(c)?,
        };
    }
    Some(text.len() - rest.len())
}

/// `%2F`, for each byte.
fn in_url(text: &str, c: char) -> Option<usize> {
    let mut bytes = [0; 4];
    let bytes = c.encode_utf8(&mut bytes).as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        let spelt = text.get(3 * at..3 * at + 3)?.strip_prefix('%')?;
        if number(spelt, 16)? != u32::from(*byte) {
            return None;
        }
    }
    Some(3 * bytes.len())
}

/// `&#47;`, `&#x2F;`, `&amp;`.
fn in_html(text: &str, c: char) -> Option<usize> {
    let end = text.bytes().take(12).position(|byte| byte == b';')?;
    let name = text.get(1..end)?;
    let is_it = match name.strip_prefix('#') {
        Some(digits) => {
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(digits) => number(digits, 16),
                None => number(digits, 10),
            };
            code == Some(u32::from(c))
        }
        None => matches!(
            (name, c),
            ("amp", '&') | ("lt", '<') | ("gt", '>') | ("quot", '"') | ("apos", '\'')
        ),
    };
    is_it.then_some(end + 1)
}

fn number(digits: &str, radix: u32) -> Option<u32> {
    let all = digits.bytes().all(|byte| byte.is_ascii_alphanumeric());
    all.then(|| u32::from_str_radix(digits, radix).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: &str = "s3cr/t+K=\"ü\u{1f511}\\";

    #[test]
    fn a_key_is_found_however_it_is_spelt() {
        for spelt in [
            KEY.to_owned(),
            serde_json::to_string(KEY)
                .unwrap()
                .trim_matches('"')
                .to_owned(),
            "s3cr\\/t\\u002bK=\\\"\\u00FC\\ud83d\\uDD11\\\\".to_owned(),
            "\\u0073\\u0033cr%2Ft%2bK%3D%22%C3%BC%f0%9f%94%91%5c".to_owned(),
            "s3cr&#47;t&#x2B;K&#61;&quot;&#252;&#x1f511;\\".to_owned(),
            "s3cr\\\\\\/t\\\\u002bK=\\\\\\\"ü\u{1f511}\\\\\\\\".to_owned(),
        ] {
            let text = format!("before {spelt} after {spelt}");
            let expected = "before [API key] after [API key]";
            assert_eq!(without_key(&text, KEY), expected, "{spelt}");
        }
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for text in [
            "",
            "s3cr",
            "\\u00",
            "%",
            "%2",
            "&#",
            "&#;",
            "&",
            "\\",
            "s3cr/t+K=",
            "ü%C3",
        ] {
            assert_eq!(without_key(text, KEY), text);
            assert_eq!(without_key(text, "\u{1f511}%&\\"), text);
        }
        assert_eq!(without_key("abc", "abc"), "abc");
    }

    proptest! {
        #[test]
        fn no_answer_decodes_to_the_key(
            key in "[ -~ü\u{1f511}]{4,12}",
            before in "[ -~]{0,9}",
            spellings in proptest::collection::vec(0..4_u8, 12),
        ) {
            let mut spelt = String::new();
            for (c, how) in key.chars().zip(spellings) {
                match how {
                    0 => spelt.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}"))),
                    1 => spelt.push_str(&format!("&#{};", u32::from(c))),
                    2 => spelt.extend(c.encode_utf8(&mut [0; 4]).bytes().map(|byte| format!("%{byte:02X}"))),
                    _ if c == '"' || c == '\\' => spelt.extend(['\\', c]),
                    _ => spelt.push(c),
                }
            }
            let redacted = without_key(&format!("{before}{spelt}"), &key);
            prop_assert!(redacted.contains(REDACTED), "{redacted}");
        }

        #[test]
        fn any_text_is_read_to_its_end(text in "\\PC*|[\\\\u%&#;x0-9a-f]{0,40}", key in "\\PC{0,9}") {
            without_key(&text, &key);
        }
    }
}
