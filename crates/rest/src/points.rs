//! Everything that goes to [`Backend::request`]: points, payload indexes, named vectors, facets.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::routing::{MethodFilter, MethodRouter, on};
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::app::{App, ContentTypes, Options};
use crate::bodies;
use crate::load::Load;
use crate::room::Reservation;
use crate::turns::Access;
use crate::{Backend, Error, Result, envelope};

/// Method, path below the collection, and whether it writes.
const ENDPOINTS: [(MethodFilter, &str, Access); 23] = {
    use Access::{Read, Write};
    const GET: MethodFilter = MethodFilter::GET;
    const POST: MethodFilter = MethodFilter::POST;
    const PUT: MethodFilter = MethodFilter::PUT;
    const DELETE: MethodFilter = MethodFilter::DELETE;
    [
        (GET, "/points/{id}", Read),
        (POST, "/points", Read),
        (PUT, "/points", Write),
        (POST, "/points/delete", Write),
        (PUT, "/points/vectors", Write),
        (POST, "/points/vectors/delete", Write),
        (POST, "/points/payload", Write),
        (PUT, "/points/payload", Write),
        (POST, "/points/payload/delete", Write),
        (POST, "/points/payload/clear", Write),
        (POST, "/points/batch", Write),
        (POST, "/points/scroll", Read),
        (POST, "/points/count", Read),
        (POST, "/points/query", Read),
        (POST, "/points/query/batch", Read),
        (POST, "/points/query/groups", Read),
        (POST, "/points/search/matrix/pairs", Read),
        (POST, "/points/search/matrix/offsets", Read),
        (POST, "/facet", Read),
        (PUT, "/index", Write),
        (DELETE, "/index/{field}", Write),
        (PUT, "/vectors/{vector}", Write),
        (DELETE, "/vectors/{vector}", Write),
    ]
};

pub(crate) fn routes<B: Backend>() -> Vec<(String, MethodRouter<Arc<App<B>>>)> {
    let route = |(method, below, kind)| {
        (
            format!("/collections/{{collection}}{below}"),
            on(
                method,
                async move |State(app): State<Arc<App<B>>>,
                            Path(CollectionPath { collection }): Path<CollectionPath>,
                            request: Request| {
                    let started = Instant::now();
                    envelope::answer(started, forward(app, collection, request, kind).await)
                },
            ),
        )
    };
    ENDPOINTS.into_iter().map(route).collect()
}

#[derive(Deserialize)]
pub(crate) struct CollectionPath {
    pub(crate) collection: String,
}

/// Query parameters that points endpoints take. There is one replica, and a write is durable and
/// applied before it is answered; so all but `wait` are checked and then without effect.
#[derive(Deserialize)]
#[allow(dead_code, reason = "parsed to refuse what the server refuses")]
pub(crate) struct Params {
    pub(crate) wait: Option<bool>,
    ordering: Option<Ordering>,
    timeout: Option<u64>,
    consistency: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ordering {
    Weak,
    Medium,
    Strong,
}

impl Params {
    pub(crate) fn of(uri: &Uri) -> Result<Self> {
        let refuse = |what: &dyn std::fmt::Display| {
            Error::Malformed(format!("Deserialize error in query parameters: {what}"))
        };
        let Query(params) = Query::<Self>::try_from_uri(uri).map_err(|e| refuse(&e.body_text()))?;
        match params.consistency.as_deref() {
            None | Some("majority" | "quorum" | "all") => Ok(params),
            Some(factor) if factor.parse::<std::num::NonZeroU32>().is_ok() => Ok(params),
            Some(other) => Err(refuse(&format_args!(
                "consistency: `{other}` is none of `majority`, `quorum`, `all`, or a number of replicas"
            ))),
        }
    }
}

async fn forward<B: Backend>(
    app: Arc<App<B>>,
    collection: String,
    request: Request,
    kind: Access,
) -> Result<Box<RawValue>> {
    let (parts, body) = request.into_parts();
    let params = Params::of(&parts.uri)?;
    let path = below_collection(parts.uri.path()).to_owned();
    let body = if parts.method == "GET" || parts.method == "DELETE" {
        None
    } else {
        Some(json_body(&parts.headers, body, &app.options).await?)
    };
    let result = app
        .in_turn(kind, move |backend| {
            let body = body.as_deref().unwrap_or_default();
            backend.request(&collection, parts.method.as_str(), &path, body)
        })
        .await?;
    if kind == Access::Write && params.wait != Some(true) {
        return acknowledged(&result);
    }
    Ok(result)
}

/// The raw path after `/collections/{collection}`; a collection name holds no raw slash.
fn below_collection(path: &str) -> &str {
    let after = path.strip_prefix("/collections/").unwrap_or_default();
    after
        .find('/')
        .and_then(|at| after.get(at..))
        .unwrap_or_default()
}

/// Without `wait=true` the server promises only to have logged the write. It holds here as well
/// that it has been applied, but clients compare the word.
fn acknowledged(result: &RawValue) -> Result<Box<RawValue>> {
    let internal = |error: serde_json::Error| Error::Internal(format!("result: {error}"));
    let mut result: Value = serde_json::from_str(result.get()).map_err(internal)?;
    mark_acknowledged(&mut result);
    serde_json::value::to_raw_value(&result).map_err(internal)
}

fn mark_acknowledged(result: &mut Value) {
    match result {
        Value::Array(results) => results.iter_mut().for_each(mark_acknowledged),
        Value::Object(update) if update.get("status") == Some(&json!("completed")) => {
            update.insert("status".to_owned(), json!("acknowledged"));
        }
        _ => {}
    }
}

/// A body, and the room that it has until it is dropped.
pub(crate) struct Text {
    text: String,
    #[allow(dead_code, reason = "kept for as long as the text")]
    held: Reservation,
}

impl std::ops::Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

/// Reads a body that has to be JSON.
pub(crate) async fn json_body(headers: &HeaderMap, body: Body, options: &Options) -> Result<Text> {
    let is_json = || {
        headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|mime| mime.trim().eq_ignore_ascii_case("application/json"))
    };
    let text = text_body(headers, body, options.body_limit, options.load()).await?;
    // No body is of no type.
    if options.content_types == ContentTypes::Json && !text.is_empty() && !is_json() {
        return Err(Error::Malformed("Content type error".to_owned()));
    }
    // Syntax only: what the JSON has to hold is the backend's business.
    serde_json::from_str::<NoFieldTwice>(&text).map_err(Error::body_format)?;
    Ok(text)
}

/// A body that may be left out, with its content type.
pub(crate) async fn optional_json_body(
    headers: &HeaderMap,
    body: Body,
    options: &Options,
) -> Result<Text> {
    if headers.contains_key(header::CONTENT_TYPE) {
        json_body(headers, body, options).await
    } else {
        text_body(headers, body, options.body_limit, options.load()).await
    }
}

/// Any JSON, unless it is an object with a field that is there twice. Deeper in a body fields may be
/// a client's own, as those of payloads are.
struct NoFieldTwice;

impl<'de> Deserialize<'de> for NoFieldTwice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for NoFieldTwice {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some((field, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
            if seen.contains(&field) {
                return Err(A::Error::custom(format!("duplicate field `{field}`")));
            }
            seen.insert(field);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> std::result::Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> std::result::Result<Self, E> {
        Ok(self)
    }
}

/// Reads a body as text.
pub(crate) async fn text_body(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    load: Option<&Load>,
) -> Result<Text> {
    let (bytes, held) = bodies::read(headers, body, limit, load).await?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Text { text, held }),
        Err(error) => Err(Error::body_format(error.utf8_error())),
    }
}
