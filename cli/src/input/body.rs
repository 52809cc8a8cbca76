//! Bodies of requests, and filters.

use std::io::IsTerminal as _;
use std::path::Path;

use edge_sync_host::{Error, PointId, json_error};
use serde_json::Value;
use uuid::Uuid;

use super::locate::position_of;
use super::source::{Place, Source};

/// The JSON body of a request, and where it came from.
#[derive(Debug)]
pub struct Body {
    pub text: String,
    pub json: Value,
    place: Place,
}

impl Body {
    /// Reads the body that `argument` names or is.
    ///
    /// Errors: [`Error::InvalidInput`] if there is none, or it is not JSON.
    pub fn read(argument: Option<&Path>) -> Result<Body, Error> {
        let missing = "there is no body: give it as FILE, as an argument or on standard input";
        Body::read_or(argument, missing)
    }

    /// [`Body::read`], with what to say where nothing was given.
    pub fn read_or(argument: Option<&Path>, missing: &str) -> Result<Body, Error> {
        let source = Source::new(argument);
        let text = source.read()?;
        if !text.trim().is_empty() {
            return Body::parse(text, source.place());
        }
        Err(match argument {
            None => Error::InvalidInput {
                field: String::new(),
                message: missing.to_owned(),
            },
            Some(_) => Error::InvalidInput {
                field: source.name(),
                message: "is empty; expected a JSON body".to_owned(),
            },
        })
    }

    /// A body that may be left out: nothing on standard input, or a terminal, stands for `{}`.
    pub fn optional(argument: Option<&Path>) -> Result<Body, Error> {
        let source = Source::new(argument);
        if source == Source::Stdin && argument.is_none() && std::io::stdin().is_terminal() {
            return Ok(Body::of(Value::Object(serde_json::Map::new())));
        }
        let text = source.read()?;
        if text.trim().is_empty() {
            return Ok(Body::of(Value::Object(serde_json::Map::new())));
        }
        Body::parse(text, source.place())
    }

    /// A body that the command makes from flags.
    pub fn of(json: Value) -> Body {
        Body {
            text: json.to_string(),
            json,
            place: Place::Argument,
        }
    }

    /// Of a request that has none.
    pub fn none() -> Body {
        Body {
            text: String::new(),
            json: Value::Null,
            place: Place::Argument,
        }
    }

    fn parse(text: String, place: Place) -> Result<Body, Error> {
        match serde_json::from_str(&text) {
            Ok(json) => Ok(Body { text, json, place }),
            Err(error) => {
                let (line, column) = (error.line(), error.column());
                let field = match place {
                    Place::Lines => format!("line {line}, column {column}"),
                    Place::Argument => format!("column {column}"),
                };
                Err(Error::InvalidInput {
                    field,
                    message: format!("not JSON: {}", json_error(&text, &error)),
                })
            }
        }
    }

    /// True if the body is an object that has the field.
    pub fn has(&self, name: &str) -> bool {
        self.json.get(name).is_some()
    }

    /// Says on which line the field is that was refused.
    pub fn locate(&self, error: Error) -> Error {
        match error {
            Error::InvalidInput { field, message }
                if self.place == Place::Lines && self.text.trim_end().contains('\n') =>
            {
                let field = match position_of(&self.text, &field) {
                    Some(at) => format!("line {}: {field}", at.line),
                    None => field,
                };
                Error::InvalidInput { field, message }
            }
            other => other,
        }
    }
}

/// A filter given as an argument: JSON, or `@FILE`.
pub fn filter(argument: &str) -> Result<Value, Error> {
    let body = match argument.strip_prefix('@') {
        Some(path) => Body::read(Some(Path::new(path))),
        None => Body::parse(argument.to_owned(), Place::Argument),
    };
    match body {
        Ok(body) => Ok(body.json),
        Err(Error::InvalidInput { field, message }) => {
            let is_name = !argument.starts_with(['@', '{', '[']);
            Err(Error::InvalidInput {
                field: format!("--filter: {field}"),
                message: match is_name {
                    true => format!("{message}; a file is named as `@{argument}`"),
                    false => message,
                },
            })
        }
        Err(error) => Err(error),
    }
}

/// An id as it is typed: digits, or a UUID.
pub fn point_id(text: &str) -> Result<PointId, Error> {
    let id = PointId::from_text(text);
    match &id {
        PointId::Uuid(uuid) if Uuid::try_parse(uuid).is_err() => Err(Error::InvalidInput {
            field: "id".to_owned(),
            message: format!("`{text}` is no point id; expected an unsigned integer or a UUID"),
        }),
        _ => Ok(id),
    }
}

/// An id as REST has it.
pub fn id_json(id: &PointId) -> Value {
    match id {
        PointId::Num(number) => Value::from(*number),
        PointId::Uuid(uuid) => Value::from(uuid.as_str()),
    }
}

/// A vector given as an argument: numbers with commas between them, a JSON list, or `@FILE`.
pub fn vector(argument: &str) -> Result<Value, Error> {
    let text = match argument.strip_prefix('@') {
        Some(path) => Source::File(path.into()).read()?,
        None => argument.to_owned(),
    };
    let text = text.trim();
    let json = match text.starts_with(['[', '{']) {
        true => text.to_owned(),
        false => format!("[{text}]"),
    };
    serde_json::from_str(&json).map_err(|_| Error::InvalidInput {
        field: "--vector".to_owned(),
        message: format!(
            "expected numbers with commas between them, or a JSON list, got `{}`",
            text.chars().take(60).collect::<String>()
        ),
    })
}
