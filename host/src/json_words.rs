//! What is wrong with JSON text, for people.

/// Characters of the text that a message shows.
const SHOWN: usize = 40;

/// What the parser says of `text`, without the place, and with what stands there where it does not
/// say that: `` `NaN` is no number in JSON ``.
pub fn json_error(text: &str, error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let message = message.strip_suffix(&place).unwrap_or(&message);
    if let Some(rest) = message.strip_prefix("control character") {
        return format!("a control character{rest}; JSON writes it as \\u and its number");
    }
    if !matches!(
        message,
        "expected value" | "expected ident" | "invalid number"
    ) {
        return message.to_owned();
    }
    let line = text.lines().nth(error.line().saturating_sub(1));
    let word = word_at(line.unwrap_or_default(), error.column());
    match word
        .trim_start_matches(['+', '-'])
        .to_ascii_lowercase()
        .as_str()
    {
        "" => "expected a value".to_owned(),
        "nan" | "inf" | "infinity" => format!("`{word}` is no number in JSON"),
        _ if message == "invalid number" => format!("`{word}` is no number in JSON"),
        _ => format!("`{word}` is no JSON value"),
    }
}

/// The word around a column, which counts bytes from 1, as far as it is shown.
fn word_at(line: &str, column: usize) -> String {
    let at = line.floor_char_boundary(column.saturating_sub(1).min(line.len()));
    let is_end = |character: char| {
        character.is_whitespace() || matches!(character, ',' | ':' | '[' | ']' | '{' | '}' | '"')
    };
    let (before, after) = line.split_at(at);
    let begin = before.rfind(is_end).map_or(0, |end| {
        end + before[end..].chars().next().map_or(0, char::len_utf8)
    });
    let end = after.find(is_end).map_or(line.len(), |end| at + end);
    line[begin..end].chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_shown() {
        for (text, words) in [
            ("[1, NaN]", "`NaN` is no number in JSON"),
            ("[1,-inf]", "`-inf` is no number in JSON"),
            ("[1,x]", "`x` is no JSON value"),
            ("[1., 2]", "`1.` is no number in JSON"),
            ("{\n\"a\": nul}", "`nul` is no JSON value"),
            ("nofile.json", "`nofile.json` is no JSON value"),
            ("[1,]", "trailing comma"),
            ("[,1]", "expected a value"),
            ("[\u{e4}\u{f6}, 1]", "`\u{e4}\u{f6}` is no JSON value"),
            ("", "EOF while parsing a value"),
            (
                "\"a\u{1b}b\"",
                "a control character (\\u0000-\\u001F) found",
            ),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).unwrap_err();
            let told = json_error(text, &error);
            assert!(told.contains(words), "{text}: {told}");
            assert!(!told.contains(" at line "), "{told}");
        }
    }
}
