//! Points as people have them: JSON Lines, a JSON array, or `{"points": [...]}`, read as they come.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_sync_host::Error;

use super::locate::mistake;
use super::source::{Source, UTF8_MARK, text, utf16};
use super::spot::Spot;

/// Longest point that is read: a request is no longer.
const MAX_POINT_BYTES: usize = 32 << 20;

const CHUNK_BYTES: usize = 1 << 16;

/// The texts of points with the lines that they begin on.
pub struct Points {
    bytes: Bytes,
    form: Form,
    is_first: bool,
    is_over: bool,
    /// Points before the next.
    count: u64,
}

/// What the lines of a file are called.
const UNIT: &str = "line";

/// What the points stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// One after another; most often one on each line.
    Lines,
    /// `[...]`.
    Array,
    /// `{"points": [...]}`.
    Object,
}

/// How a value ended.
enum Ended {
    Whole,
    /// It was the beginning of `{"points": [`.
    IsObject,
    /// The line, or the input, ended in the middle of it.
    Cut,
}

impl Points {
    /// Errors: as [`Source::open`].
    pub fn open(source: &Source) -> Result<Points, Error> {
        Ok(Points::new(source.open()?))
    }

    pub fn new(input: Box<dyn Read + Send>) -> Points {
        Points {
            bytes: Bytes::new(input),
            form: Form::Lines,
            is_first: true,
            is_over: false,
            count: 0,
        }
    }

    /// How many bytes were read so far, for whoever shows that.
    pub fn progress(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes.read)
    }

    /// The next point and where it stands; none at the end.
    fn next_value(&mut self) -> Result<Option<(Spot, String)>, Error> {
        if self.is_first {
            self.bytes.skip_mark()?;
        }
        self.bytes.skip_space()?;
        if self.is_first && self.bytes.peek()? == Some(b'[') {
            self.bytes.bump();
            self.form = Form::Array;
            self.is_first = false;
            if self.is_at_end_of_array()? {
                return Ok(None);
            }
        } else if !self.is_first && self.form != Form::Lines && !self.is_next_in_array()? {
            return Ok(None);
        }
        let Some(first) = self.bytes.peek()? else {
            return match self.form {
                Form::Lines => Ok(None),
                Form::Array | Form::Object => Err(self.here("the list of points has no end")),
            };
        };
        if self.form == Form::Lines && matches!(first, b',' | b']') {
            let message = "a comma or bracket between points; a list of points begins with `[`";
            return Err(self.here(message));
        }
        let spot = self.spot();
        let mut value = Vec::new();
        let ended = self.value(&mut value)?;
        self.is_first = false;
        if matches!(ended, Ended::IsObject) {
            self.form = Form::Object;
            if self.is_at_end_of_array()? {
                return Ok(None);
            }
            return self.next_value_of_array();
        }
        checked(value, spot, matches!(ended, Ended::Cut)).map(|point| Some((spot, point)))
    }

    /// The first point of `{"points": [`, whose bracket has been read.
    fn next_value_of_array(&mut self) -> Result<Option<(Spot, String)>, Error> {
        self.bytes.skip_space()?;
        let spot = self.spot();
        let mut value = Vec::new();
        let ended = self.value(&mut value)?;
        checked(value, spot, matches!(ended, Ended::Cut)).map(|point| Some((spot, point)))
    }

    /// Of the point that begins here.
    fn spot(&self) -> Spot {
        Spot {
            unit: UNIT,
            line: self.bytes.line,
            column: Some(self.bytes.column),
            element: (self.form != Form::Lines).then_some(self.count),
        }
    }

    /// Reads what stands between two points of a list; false at its end.
    fn is_next_in_array(&mut self) -> Result<bool, Error> {
        match self.bytes.peek()? {
            Some(b',') => {
                self.bytes.bump();
                self.bytes.skip_space()?;
                match self.bytes.peek()? {
                    Some(b']') => Err(self.here("a comma after the last point of the list")),
                    _ => Ok(true),
                }
            }
            Some(b']') => Ok(!self.is_at_end_of_array()?),
            Some(_) => Err(self.here("expected `,` or `]` after a point of the list")),
            None => Err(self.here("the list of points has no end")),
        }
    }

    /// At `]`, reads it and what is behind it.
    fn is_at_end_of_array(&mut self) -> Result<bool, Error> {
        self.bytes.skip_space()?;
        if self.bytes.peek()? != Some(b']') {
            return Ok(false);
        }
        self.bytes.bump();
        self.bytes.skip_space()?;
        if self.form == Form::Object {
            match self.bytes.peek()? {
                Some(b'}') => {
                    self.bytes.bump();
                    self.bytes.skip_space()?;
                }
                Some(b',') => {
                    return Err(self.here(
                        "only `points` is read here; `upsert --body` takes the other fields of \
                         `PUT /points`",
                    ));
                }
                _ => return Err(self.here("expected `}` after the list of points")),
            }
        }
        match self.bytes.peek()? {
            None => Ok(true),
            Some(_) => Err(self.here("expected nothing after the list of points")),
        }
    }

    /// Reads one value, as far as brackets and quotes tell its end.
    fn value(&mut self, value: &mut Vec<u8>) -> Result<Ended, Error> {
        let mut depth = 0_u32;
        let mut is_text = false;
        let mut is_escaped = false;
        let begins_indented = self.bytes.column > 0;
        while let Some(byte) = self.bytes.peek()? {
            if depth == 0 && !is_text && !value.is_empty() {
                // Numbers and words end where something else begins.
                if matches!(byte, b',' | b']' | b'}') || byte.is_ascii_whitespace() {
                    return Ok(Ended::Whole);
                }
            }
            self.bytes.bump();
            value.push(byte);
            if value.len() > MAX_POINT_BYTES {
                return Err(self.here(&format!(
                    "a point of more than {} MiB",
                    MAX_POINT_BYTES >> 20
                )));
            }
            if is_text {
                match byte {
                    _ if is_escaped => is_escaped = false,
                    b'\\' => is_escaped = true,
                    b'"' => is_text = false,
                    // A text has no line breaks in JSON.
                    b'\n' => return Ok(Ended::Cut),
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => is_text = true,
                b'[' if self.is_first && depth == 1 && is_points(value) => {
                    return Ok(Ended::IsObject);
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Ok(Ended::Whole);
                    }
                }
                // An object that begins where lines begin is the next point: this one was not finished.
                b'\n'
                    if self.form == Form::Lines
                        && !begins_indented
                        && self.bytes.peek()? == Some(b'{') =>
                {
                    return Ok(Ended::Cut);
                }
                _ => {}
            }
        }
        Ok(if depth == 0 && !is_text {
            Ended::Whole
        } else {
            Ended::Cut
        })
    }

    fn here(&self, message: &str) -> Error {
        Error::InvalidInput {
            field: format!("line {}", self.bytes.line),
            message: message.to_owned(),
        }
    }
}

impl Iterator for Points {
    type Item = (Spot, Result<String, Error>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_value();
        // After an error nobody knows where the next point begins.
        self.is_over = !matches!(next, Ok(Some(_)));
        match next {
            Ok(Some((spot, point))) => {
                self.count += 1;
                Some((spot, Ok(point)))
            }
            Ok(None) => None,
            Err(error) => Some((self.spot(), Err(error))),
        }
    }
}

/// Whether the bytes, without space, are `{"points":[`.
fn is_points(bytes: &[u8]) -> bool {
    let solid = bytes.iter().filter(|byte| !byte.is_ascii_whitespace());
    solid.eq(b"{\"points\":[")
}

/// The text of a point, once it is sure that it is JSON: here its place is known.
fn checked(mut value: Vec<u8>, spot: Spot, is_cut: bool) -> Result<String, Error> {
    while value.last().is_some_and(u8::is_ascii_whitespace) {
        value.pop();
    }
    let invalid = |message: String| Error::InvalidInput {
        field: spot.of_field("", None),
        message,
    };
    let json = text(value).map_err(invalid)?;
    if !json.starts_with('{') {
        let message = format!(
            "expected a point, as {{\"id\": 1, \"vector\": [0.1, 0.2]}}, got `{}`",
            json.chars().take(20).collect::<String>()
        );
        return Err(invalid(message));
    }
    match mistake(&json) {
        None if is_cut => Err(invalid("the point has no end".to_owned())),
        None => Ok(json),
        Some(mistake) => Err(Error::InvalidInput {
            field: spot.of_field(&mistake.field, Some(mistake.at)),
            message: mistake.message,
        }),
    }
}

/// Bytes one by one, with the line they are on.
struct Bytes {
    input: Box<dyn Read + Send>,
    chunk: Vec<u8>,
    at: usize,
    line: u64,
    /// Bytes since the line's beginning.
    column: u64,
    read: Arc<AtomicU64>,
}

impl Bytes {
    fn new(input: Box<dyn Read + Send>) -> Bytes {
        Bytes {
            input,
            chunk: Vec::new(),
            at: 0,
            line: 1,
            column: 0,
            read: Arc::default(),
        }
    }

    fn peek(&mut self) -> Result<Option<u8>, Error> {
        if self.at == self.chunk.len() {
            self.fill(0)?;
        }
        Ok(self.chunk.get(self.at).copied())
    }

    /// Reads on, with `kept` bytes of the chunk that were not looked at yet.
    fn fill(&mut self, kept: usize) -> Result<(), Error> {
        self.chunk.drain(..self.at);
        self.at = 0;
        self.chunk.resize(kept + CHUNK_BYTES, 0);
        let count = loop {
            match self.input.read(&mut self.chunk[kept..]) {
                Ok(count) => break count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    self.chunk.truncate(kept);
                    return Err(Error::Io {
                        operation: "read",
                        path: "the input".into(),
                        source,
                    });
                }
            }
        };
        self.chunk.truncate(kept + count);
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Past the byte that was peeked at.
    fn bump(&mut self) {
        if self.chunk.get(self.at) == Some(&b'\n') {
            self.line += 1;
            self.column = 0;
        } else {
            self.column += 1;
        }
        self.at += 1;
    }

    fn skip_space(&mut self) -> Result<(), Error> {
        while self.peek()?.is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.bump();
        }
        Ok(())
    }

    /// Past a byte order mark at the beginning.
    fn skip_mark(&mut self) -> Result<(), Error> {
        // A pipe may give less than a mark at once.
        loop {
            let before = self.chunk.len();
            if before >= UTF8_MARK.len() || self.at > 0 {
                break;
            }
            self.fill(before)?;
            if self.chunk.len() == before {
                break;
            }
        }
        if let Some(message) = utf16(&self.chunk) {
            return Err(Error::InvalidInput {
                field: "line 1".to_owned(),
                message,
            });
        }
        if self.chunk.starts_with(UTF8_MARK) {
            self.at = UTF8_MARK.len();
        }
        Ok(())
    }
}

/// The index and the rest of a field path like `points[3].vectors.image`.
pub fn point_index(field: &str) -> Option<(usize, &str)> {
    let (index, rest) = field.strip_prefix("points[")?.split_once(']')?;
    Some((index.parse().ok()?, rest.trim_start_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, as a pipe may.
    struct Trickle(Vec<u8>, usize);

    impl Read for Trickle {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len()).min(into.len());
            into[..count].copy_from_slice(&self.0[..count]);
            self.0.drain(..count);
            Ok(count)
        }
    }

    /// Ids with their lines, and the error after them.
    fn read(text: &[u8]) -> (Vec<(u64, u64)>, Option<String>) {
        let mut outcomes = [1, 2, 5, 1 << 20].map(|size| {
            let mut read = (Vec::new(), None);
            for (Spot { line, .. }, point) in Points::new(Box::new(Trickle(text.to_vec(), size))) {
                match point {
                    Ok(text) => {
                        let point: serde_json::Value = serde_json::from_str(&text).unwrap();
                        read.0.push((line, point["id"].as_u64().unwrap()));
                    }
                    Err(error) => read.1 = Some(error.to_string()),
                }
            }
            read
        });
        let last = outcomes.last_mut().map(std::mem::take).unwrap();
        for outcome in &outcomes[..3] {
            assert_eq!(*outcome, last, "however it comes");
        }
        last
    }

    #[test]
    fn every_form_that_people_have_is_read() {
        for (text, lines) in [
            (
                "{\"id\":1,\"vector\":[1]}\n\n{\"id\":2,\"vector\":[1]}",
                [1, 3],
            ),
            (
                "{\"id\":1,\"vector\":[1]}\r\n{\"id\":2,\"vector\":[1]}\r\n",
                [1, 2],
            ),
            (
                "\u{feff}{\"id\":1,\"vector\":[1]} {\"id\":2,\"vector\":[1]}",
                [1, 1],
            ),
            (
                "[{\"id\":1,\"vector\":[1]},\n{\"id\":2,\"vector\":[1]}]\n",
                [1, 2],
            ),
            (
                "\u{feff}\n[\n  {\n    \"id\": 1,\n    \"vector\": [\n      1\n    ]\n  },\n  \
              {\"id\": 2, \"vector\": [1]}\n]",
                [3, 9],
            ),
            (
                "{\"points\": [\n{\"id\":1,\"vector\":[1]},\n{\"id\":2,\"vector\":[1]}\n]}",
                [2, 3],
            ),
            (
                "{\n  \"points\" : [ {\"id\":1,\"vector\":[1]}, {\"id\":2,\"vector\":[1]} ]\n}\n",
                [2, 2],
            ),
            // Written by a formatter, one after another.
            (
                "{\n  \"id\": 1,\n  \"vector\": [1]\n}\n{\n  \"id\": 2,\n  \"vector\": [1]\n}",
                [1, 5],
            ),
            (
                "{\"id\":1,\"vector\":[1],\"payload\":{\"a\":\"}\\\"]\\\\\"}}\n{\"id\":2,\"vector\":[1]}",
                [1, 2],
            ),
        ] {
            let expected = vec![(lines[0], 1), (lines[1], 2)];
            assert_eq!(read(text.as_bytes()), (expected, None), "{text}");
        }
        for empty in ["", " \n", "\u{feff}", "[]", " [ ] ", "{\"points\": [ ] }"] {
            assert_eq!(read(empty.as_bytes()), (vec![], None), "{empty}");
        }
    }

    #[test]
    fn what_is_json_passes_as_it_is() {
        let texts = [
            // A text that is embedded where it is written.
            r#"{"id": 1, "vector": {"words": {"text": "red  stones",  "model": "qdrant/bm25"}}}"#,
            "{\"payload\": {\"b\": 1.50, \"a\": 1e2,\n\t\"big\": 12345678901234567890123}, \"id\": \"x\"}",
            // Not what a point is, which the shard says.
            r#"{"id": -1, "vector": [1, null], "update_mode": "upsert"}"#,
            "{}",
        ];
        let list = format!("[{}]", texts.join(" , "));
        let named = format!("{{\"points\": {list}}}");
        for input in [texts.join("\n"), list, named] {
            let points = Points::new(Box::new(Trickle(input.into_bytes(), 5)));
            let read: Vec<String> = points.map(|(_, point)| point.unwrap()).collect();
            assert_eq!(read, texts);
        }
    }

    #[test]
    fn a_mistake_has_its_line_and_its_field() {
        let good = "{\"id\":1,\"vector\":[1]}\n";
        for (bad, begin, part) in [
            (
                "{\"id\":2,\"vector\":[1,NaN]}",
                "line 2, column 21: vector[1]: ",
                "`NaN` is no number",
            ),
            (
                "{\"id\":2,\"vector\":[1,2}",
                "line 2, column ",
                "expected `,` or `]`",
            ),
            // Not finished; the line after it is not at fault.
            (
                "{\"id\":2,\"vector\":[1,2\n{\"id\":3,\"vector\":[1]}",
                "line 2, column ",
                "EOF",
            ),
            (
                "{\"id\":2,\"vector\":[1],\"payload\":{\"a\":\"x\n{\"id\":3}",
                "line 2, column ",
                "",
            ),
            (
                "{\"id\":2,\n \"vector\":\n [1,\n x]}",
                "line 5, column 2: vector[1]: ",
                "`x` is no JSON value",
            ),
            (
                "{\"id\":2,\"vector\":[1]},\n{\"id\":3,\"vector\":[1]}",
                "line 2: ",
                "begins with `[`",
            ),
            ("5", "line 2", "expected a point"),
            ("id,vector\n", "line 2: ", "got `id`"),
            ("[2,[1]]", "line 2: ", "expected a point"),
        ] {
            let (read, error) = read(format!("{good}{bad}").as_bytes());
            let error = error.unwrap_or_else(|| panic!("{bad}"));
            assert!(
                error.starts_with(begin) && error.contains(part),
                "{bad}: {error}"
            );
            assert_eq!(error.matches("line ").count(), 1, "{error}");
            assert_eq!(read.first(), Some(&(1, 1)), "{bad}");
        }
    }

    #[test]
    fn a_list_that_is_wrong_says_where() {
        for (bad, words) in [
            (
                "[{\"id\":1,\"vector\":[1]}\n{\"id\":2,\"vector\":[1]}]",
                "line 2: expected `,` or `]`",
            ),
            (
                "[{\"id\":1,\"vector\":[1]},\n",
                "line 2: the list of points has no end",
            ),
            (
                "[{\"id\":1,\"vector\":[1]}\n",
                "line 2: the list of points has no end",
            ),
            (
                "[{\"id\":1,\"vector\":[1]}]\n\nx",
                "line 3: expected nothing",
            ),
            (
                "{\"points\":[{\"id\":1,\"vector\":[1]}],\n\"update_mode\":\"upsert\"}",
                "line 1: only `points`",
            ),
            ("{\"points\":[{\"id\":1,\"vector\":[1]}]", "expected `}`"),
            (
                "[{\"id\":1,\"vector\":[1]}, ]",
                "line 1: a comma after the last point",
            ),
            // On one line, where the line tells nothing.
            (
                "[{\"id\":1,\"vector\":[1]}, {\"id\":2,\"vector\":[1,x]}]",
                "line 1, column 45: points[1].vector[1]: `x` is no JSON value",
            ),
            (
                "[{\"id\":1,\"vector\":[1]}, 2]",
                "line 1: points[1]: expected a point, as ",
            ),
            (
                "{\"points\": [{\"id\":1,\"vector\":[1]},\n {\"id\":2,\"vector\":[NaN]}]}",
                "line 2, column 20: points[1].vector[0]: `NaN` is no number",
            ),
        ] {
            let (points, error) = read(bad.as_bytes());
            let error = error.unwrap_or_else(|| panic!("{bad}"));
            assert!(error.contains(words), "{bad}: {error}");
            assert_eq!(points, [(1, 1)], "{bad}");
        }
        let (_, error) = read(b"\xff\xfe{\0");
        assert!(error.unwrap().contains("UTF-16"));
    }

    #[test]
    fn finds_the_point_that_a_field_is_in() {
        assert_eq!(point_index("points[3].vectors.a"), Some((3, "vectors.a")));
        assert_eq!(point_index("points[0]"), Some((0, "")));
        assert_eq!(point_index("filter.must[3]"), None);
    }
}
