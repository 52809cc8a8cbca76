//! `GET /collections/{collection}/optimizations`: its lists come only if they are asked for.

use axum::extract::Query;
use axum::http::Uri;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{CollectionState, Error, Result};

/// How many that have ended are listed, unless the request says.
const COMPLETED: usize = 16;

#[derive(Deserialize)]
struct Params {
    with: Option<String>,
    completed_limit: Option<usize>,
}

/// The lists that a request asks for.
#[derive(Default)]
pub(crate) struct Lists {
    queued: bool,
    /// At most so many, the newest first.
    completed: Option<usize>,
    idle_segments: bool,
}

impl Lists {
    /// What the query string asks for; unknown names are refused.
    pub(crate) fn asked_for(uri: &Uri) -> Result<Self> {
        let Query(params) = Query::<Params>::try_from_uri(uri).map_err(|error| {
            Error::Malformed(format!(
                "Deserialize error in query parameters: {}",
                error.body_text()
            ))
        })?;
        let mut lists = Self::default();
        for name in params.with.as_deref().unwrap_or_default().split(',') {
            match name.trim() {
                "" => {}
                "queued" => lists.queued = true,
                "completed" => lists.completed = Some(params.completed_limit.unwrap_or(COMPLETED)),
                "idle_segments" => lists.idle_segments = true,
                _ => {
                    return Err(Error::invalid(
                        "",
                        format!("Unknown field in 'with' parameter: {name}"),
                    ));
                }
            }
        }
        Ok(lists)
    }

    /// What the collection says of its optimizations, with these lists and no others.
    pub(crate) fn of(&self, state: CollectionState) -> Value {
        let mut told = match state.optimizations {
            Value::Null => json!({
                "summary": {
                    "queued_optimizations": 0,
                    "queued_segments": 0,
                    "queued_points": 0,
                    "idle_segments": state.segments,
                },
                "running": [],
            }),
            told => told,
        };
        let Some(fields) = told.as_object_mut() else {
            return told;
        };
        if self.queued {
            fields.entry("queued").or_insert_with(|| json!([]));
        } else {
            fields.remove("queued");
        }
        match self.completed {
            Some(limit) => {
                let completed = fields.entry("completed").or_insert_with(|| json!([]));
                if let Some(completed) = completed.as_array_mut() {
                    completed.truncate(limit);
                }
            }
            None => {
                fields.remove("completed");
            }
        }
        if !self.idle_segments {
            fields.remove("idle_segments");
        }
        told
    }
}
