//! What the command reads.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::Path;

use edge_sync_host::{Error, Point};
use serde_json::Value;

/// Opens `file`; standard input for none and `-`.
pub fn open(file: Option<&Path>) -> Result<Box<dyn BufRead>, Error> {
    match file {
        Some(path) if path != Path::new("-") => {
            let file = File::open(path).map_err(|source| Error::Io {
                operation: "open",
                path: path.to_owned(),
                source,
            })?;
            Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
        }
        _ => {
            if std::io::stdin().is_terminal() {
                eprintln!("reading JSON from the terminal; end with Ctrl-D");
            }
            Ok(Box::new(BufReader::with_capacity(
                1 << 16,
                std::io::stdin(),
            )))
        }
    }
}

/// The body of a request, checked to be JSON.
pub fn body(file: Option<&Path>) -> Result<String, Error> {
    let mut text = String::new();
    open(file)?
        .read_to_string(&mut text)
        .map_err(|source| read_error(file, source))?;
    check(&text)?;
    Ok(text)
}

/// A body that may be left out: nothing on standard input, or a terminal, stands for `{}`.
pub fn optional_body(file: Option<&Path>) -> Result<String, Error> {
    if file.is_none() && std::io::stdin().is_terminal() {
        return Ok("{}".to_owned());
    }
    let mut text = String::new();
    open(file)?
        .read_to_string(&mut text)
        .map_err(|source| read_error(file, source))?;
    if text.trim().is_empty() {
        return Ok("{}".to_owned());
    }
    check(&text)?;
    Ok(text)
}

/// JSON given as an argument: the text itself, or `@FILE`.
pub fn argument(text: &str) -> Result<String, Error> {
    match text.strip_prefix('@') {
        Some(path) => body(Some(Path::new(path))),
        None => {
            check(text)?;
            Ok(text.to_owned())
        }
    }
}

fn check(text: &str) -> Result<(), Error> {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::InvalidInput {
            field: "body".to_owned(),
            message: format!("not JSON: {error}"),
        }),
    }
}

fn read_error(file: Option<&Path>, source: std::io::Error) -> Error {
    let path = file.unwrap_or(Path::new("standard input")).to_owned();
    if source.kind() == std::io::ErrorKind::InvalidData {
        return Error::InvalidInput {
            field: path.display().to_string(),
            message: source.to_string(),
        };
    }
    Error::Io {
        operation: "read",
        path,
        source,
    }
}

/// Points of a JSON Lines file with the lines they are on. Blank lines are skipped.
pub struct Points {
    input: Box<dyn BufRead>,
    line: u64,
    buffer: String,
}

impl Points {
    pub fn new(input: Box<dyn BufRead>) -> Points {
        Points {
            input,
            line: 0,
            buffer: String::new(),
        }
    }
}

impl Iterator for Points {
    type Item = (u64, Result<Point, Error>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            self.buffer.clear();
            self.line += 1;
            match self.input.read_line(&mut self.buffer) {
                Ok(0) => return None,
                Ok(_) if self.buffer.trim().is_empty() => {}
                Ok(_) => {
                    let point = Point::from_json(self.buffer.trim())
                        .map_err(|error| on_line(error, self.line));
                    return Some((self.line, point));
                }
                Err(source) => {
                    let error = on_line(read_error(None, source), self.line);
                    return Some((self.line, Err(error)));
                }
            }
        }
    }
}

/// Says which line an input error is about.
pub fn on_line(error: Error, line: u64) -> Error {
    match error {
        Error::InvalidInput { field, message } => Error::InvalidInput {
            field: if field.is_empty() {
                format!("line {line}")
            } else {
                format!("line {line}: {field}")
            },
            message,
        },
        other => other,
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

    #[test]
    fn points_know_their_lines() {
        let text = "{\"id\":1,\"vector\":[1]}\n\n{\"id\":2}\n{\"id\":3,\"vector\":[1]}";
        let points: Vec<_> = Points::new(Box::new(text.as_bytes())).collect();
        assert_eq!(
            points.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            [1, 3, 4]
        );
        let error = points[1].1.as_ref().unwrap_err().to_string();
        assert!(error.starts_with("line 3"), "{error}");
        assert!(points[2].1.is_ok());
    }

    #[test]
    fn finds_the_point_that_a_field_is_in() {
        assert_eq!(point_index("points[3].vectors.a"), Some((3, "vectors.a")));
        assert_eq!(point_index("points[0]"), Some((0, "")));
        assert_eq!(point_index("filter.must[3]"), None);
    }
}
