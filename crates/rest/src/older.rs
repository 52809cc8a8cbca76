//! The queries of earlier versions, which a server still answers and clients still send: `search`,
//! `recommend` and `discover`, each alone, in batches and in groups. Each is put as the body of
//! `/points/query` that means the same.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Path, Request, State};
use axum::routing::{MethodRouter, post};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::app::App;
use crate::points::{CollectionPath, Params, json_body};
use crate::turns::Access;
use crate::{Backend, Error, Result, envelope};

type Raw = Box<RawValue>;

pub(crate) fn routes<B: Backend>() -> Vec<(&'static str, MethodRouter<Arc<App<B>>>)> {
    vec![
        ("/points/search", one::<B, Search>()),
        ("/points/search/batch", batch::<B, Search>()),
        ("/points/search/groups", groups::<B, Search>()),
        ("/points/recommend", one::<B, Recommend>()),
        ("/points/recommend/batch", batch::<B, Recommend>()),
        ("/points/recommend/groups", groups::<B, Recommend>()),
        ("/points/discover", one::<B, Discover>()),
        ("/points/discover/batch", batch::<B, Discover>()),
    ]
}

/// What an earlier version asks for, of what is not the same in a query.
trait Older: DeserializeOwned + Send + 'static {
    /// The query, and the name of the vector if the query has it.
    fn query(self) -> Result<(Raw, Option<Raw>)>;
}

fn one<B: Backend, T: Older>() -> MethodRouter<Arc<App<B>>> {
    route("/points/query", |body| put(&query::<T>(body)?))
}

fn batch<B: Backend, T: Older>() -> MethodRouter<Arc<App<B>>> {
    route("/points/query/batch", |body| {
        let Batch { searches } = read::<Batch<Raw>>(body)?;
        let searches = searches.iter().map(|search| query::<T>(search.get()));
        let searches = searches.collect::<Result<Vec<_>>>()?;
        put(&Batch { searches })
    })
}

fn groups<B: Backend, T: Older>() -> MethodRouter<Arc<App<B>>> {
    route("/points/query/groups", |body| {
        let mut query = query::<T>(body)?;
        let groups: Groups = read(body)?;
        query.group_by = Some(groups.group_by);
        query.group_size = Some(groups.group_size);
        query.with_lookup = groups.with_lookup;
        put(&query)
    })
}

fn query<T: Older>(body: &str) -> Result<Query> {
    // Each of the two readings passes over the other's fields.
    let (asked, using) = read::<T>(body)?.query()?;
    let mut query: Query = read(body)?;
    query.query = Some(asked);
    query.using = using.or(query.using);
    Ok(query)
}

fn read<T: DeserializeOwned>(body: &str) -> Result<T> {
    serde_json::from_str(body).map_err(Error::body_format)
}

fn put(query: &impl Serialize) -> Result<String> {
    serde_json::to_string(query).map_err(internal)
}

fn internal(error: serde_json::Error) -> Error {
    Error::Internal(format!("an earlier form of a query: {error}"))
}

/// A route that asks the backend at `path` for what `translate` makes of the body.
fn route<B: Backend>(
    path: &'static str,
    translate: impl Fn(&str) -> Result<String> + Clone + Send + Sync + 'static,
) -> MethodRouter<Arc<App<B>>> {
    post(
        async move |State(app): State<Arc<App<B>>>,
                    Path(CollectionPath { collection }): Path<CollectionPath>,
                    request: Request| {
            let started = Instant::now();
            let answered = async {
                let (parts, body) = request.into_parts();
                Params::of(&parts.uri)?;
                let body = json_body(&parts.headers, body, &app.options).await?;
                app.in_turn(Access::Read, move |backend| {
                    let query = translate(&body)?;
                    let result = backend.request(&collection, "POST", path, &query)?;
                    match path {
                        "/points/query" => points(&result),
                        "/points/query/batch" => lists(&result),
                        _ => Ok(result),
                    }
                })
                .await
            };
            envelope::answer(started, answered.await)
        },
    )
}

#[derive(Deserialize, Serialize)]
struct Batch<T> {
    searches: Vec<T>,
}

/// A query as it is now. What is read of an earlier form are the fields that are the same.
#[derive(Deserialize, Serialize)]
struct Query {
    #[serde(skip_deserializing)]
    query: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    using: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lookup_from: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard_key: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<Raw>,
    /// Has a default now.
    limit: Raw,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    with_payload: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "with_vectors")]
    with_vector: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    score_threshold: Option<Raw>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    group_by: Option<Raw>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    group_size: Option<Raw>,
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    with_lookup: Option<Raw>,
}

/// What groups have besides.
#[derive(Deserialize)]
struct Groups {
    group_by: Raw,
    group_size: Raw,
    with_lookup: Option<Raw>,
}

#[derive(Deserialize)]
struct Search {
    /// Numbers, or a vector with its name.
    vector: Raw,
}

#[derive(Deserialize)]
struct NamedVector {
    name: Raw,
    vector: Raw,
}

impl Older for Search {
    fn query(self) -> Result<(Raw, Option<Raw>)> {
        if !self.vector.get().starts_with('{') {
            return Ok((self.vector, None));
        }
        let NamedVector { name, vector } = read(self.vector.get())?;
        Ok((vector, Some(name)))
    }
}

#[derive(Deserialize, Serialize)]
struct Recommend {
    #[serde(skip_serializing_if = "Option::is_none")]
    positive: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    negative: Option<Raw>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<Raw>,
}

impl Older for Recommend {
    fn query(self) -> Result<(Raw, Option<Raw>)> {
        let query = to_raw_value(&json!({ "recommend": self })).map_err(internal)?;
        Ok((query, None))
    }
}

#[derive(Deserialize)]
struct Discover {
    target: Option<Raw>,
    context: Option<Raw>,
}

impl Older for Discover {
    /// Without a target only the context is searched.
    fn query(self) -> Result<(Raw, Option<Raw>)> {
        let context = match self.context {
            Some(context) => context,
            None => RawValue::from_string("[]".to_owned()).map_err(internal)?,
        };
        let query = match self.target {
            Some(target) => {
                to_raw_value(&json!({"discover": {"target": target, "context": context}}))
            }
            None => to_raw_value(&json!({ "context": context })),
        };
        Ok((query.map_err(internal)?, None))
    }
}

#[derive(Deserialize)]
struct Points {
    points: Raw,
}

/// The list that earlier versions answer.
fn points(result: &RawValue) -> Result<Raw> {
    let Points { points } = serde_json::from_str(result.get()).map_err(internal)?;
    Ok(points)
}

fn lists(result: &RawValue) -> Result<Raw> {
    let results: Vec<Points> = serde_json::from_str(result.get()).map_err(internal)?;
    let lists: Vec<Raw> = results.into_iter().map(|result| result.points).collect();
    to_raw_value(&lists).map_err(internal)
}
