//! What an operator asks of a device: where its uploads stand, what waits, what was refused. Qdrant has
//! none of that, so the paths begin with `/edge-sync`, and exist only where a backend has an
//! [`Operator`].

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{Query, Request, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::{MethodRouter, get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::app::App;
use crate::points::optional_json_body;
use crate::{Backend, Error, Result, envelope};

/// Most operations of one answer.
const PAGE: u32 = 1000;

/// The device's side of `/edge-sync`. All answers are the `result` that is sent.
pub trait Operator {
    /// What is stored, what waits, how the last exchanges with the server went, what comes next.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is nothing yet.
    fn status(&self) -> Result<Value>;

    /// Up to `limit` operations that wait for upload, with sequences above `after`, each as the
    /// request that it would be.
    ///
    /// # Errors
    /// As [`Operator::status`].
    fn queue(&self, after: u64, limit: u32) -> Result<Value>;

    /// Moves up to `count` operations from the head of the queue to the refused ones.
    ///
    /// # Errors
    /// As [`Operator::status`].
    fn skip(&self, count: u32) -> Result<Value>;

    /// Up to `limit` operations that the server refused, with sequences above `after`.
    ///
    /// # Errors
    /// As [`Operator::status`].
    fn rejected(&self, after: u64, limit: u32) -> Result<Value>;

    /// Queues refused operations again.
    ///
    /// # Errors
    /// As [`Operator::status`]; [`Error::NotFound`] for a sequence that is not among them.
    fn retry(&self, chosen: Chosen) -> Result<Value>;

    /// Forgets refused operations.
    ///
    /// # Errors
    /// As [`Operator::retry`].
    fn forget(&self, chosen: Chosen) -> Result<Value>;
}

/// Which of the refused operations are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chosen {
    /// All that there are.
    All,
    /// Those with these sequences.
    Sequences(Vec<u64>),
}

pub(crate) fn routes<B: Backend>() -> Vec<(&'static str, MethodRouter<Arc<App<B>>>)> {
    vec![
        ("/edge-sync/status", get(status::<B>)),
        ("/edge-sync/queue", get(queue::<B>)),
        ("/edge-sync/queue/skip", post(skip::<B>)),
        ("/edge-sync/rejected", get(rejected::<B>)),
        ("/edge-sync/rejected/retry", post(retry::<B>)),
        ("/edge-sync/rejected/drop", post(forget::<B>)),
    ]
}

type Shared<B> = State<Arc<App<B>>>;

async fn status<B: Backend>(app: Shared<B>, uri: Uri) -> Response {
    answer(app, uri, |operator| operator.status()).await
}

async fn queue<B: Backend>(app: Shared<B>, uri: Uri) -> Response {
    let page = parameters::<Page>(&uri);
    answer(app, uri, move |operator| {
        let page = page?;
        operator.queue(page.after, page.limit.unwrap_or(1).min(PAGE))
    })
    .await
}

async fn rejected<B: Backend>(app: Shared<B>, uri: Uri) -> Response {
    let page = parameters::<Page>(&uri);
    answer(app, uri, move |operator| {
        let page = page?;
        operator.rejected(page.after, page.limit.unwrap_or(20).min(PAGE))
    })
    .await
}

async fn skip<B: Backend>(app: Shared<B>, request: Request) -> Response {
    with_body(app, request, |operator, body: Skip| {
        match body.count.unwrap_or(1) {
            0 => Err(Error::invalid("count", "0; at least 1 is needed")),
            count => operator.skip(count),
        }
    })
    .await
}

async fn retry<B: Backend>(app: Shared<B>, request: Request) -> Response {
    with_body(app, request, |operator, body: Choice| {
        operator.retry(body.chosen()?)
    })
    .await
}

async fn forget<B: Backend>(app: Shared<B>, request: Request) -> Response {
    with_body(app, request, |operator, body: Choice| {
        operator.forget(body.chosen()?)
    })
    .await
}

/// Query parameters of what is listed.
#[derive(Deserialize)]
struct Page {
    limit: Option<u32>,
    #[serde(default)]
    after: u64,
}

/// The query parameter that says which device of several is meant.
#[derive(Deserialize)]
struct Of {
    collection: Option<String>,
}

fn parameters<T: DeserializeOwned>(uri: &Uri) -> Result<T> {
    Query::try_from_uri(uri)
        .map(|Query(parameters)| parameters)
        .map_err(|refused| {
            Error::Malformed(format!(
                "Deserialize error in query parameters: {}",
                refused.body_text()
            ))
        })
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Skip {
    count: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Choice {
    all: Option<bool>,
    sequences: Option<Vec<u64>>,
}

impl Choice {
    fn chosen(self) -> Result<Chosen> {
        match (self.all.unwrap_or_default(), self.sequences) {
            (true, None) => Ok(Chosen::All),
            (false, Some(sequences)) => Ok(Chosen::Sequences(sequences)),
            _ => Err(Error::invalid(
                "",
                "the body says which operations are meant: {\"all\": true} or {\"sequences\": [...]}",
            )),
        }
    }
}

async fn with_body<B: Backend, T: DeserializeOwned + Default + Send + 'static>(
    State(app): Shared<B>,
    request: Request,
    call: impl FnOnce(&dyn Operator, T) -> Result<Value> + Send + 'static,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = match optional_json_body(&parts.headers, body, &app.options).await {
        Ok(text) if text.trim().is_empty() => Ok(T::default()),
        Ok(text) => serde_json::from_str(&text).map_err(Error::body_format),
        Err(error) => Err(error),
    };
    answer(State(app), parts.uri, move |operator| call(operator, body?)).await
}

async fn answer<B: Backend>(
    State(app): Shared<B>,
    uri: Uri,
    call: impl FnOnce(&dyn Operator) -> Result<Value> + Send + 'static,
) -> Response {
    let started = Instant::now();
    let result = app.blocking(move |backend| {
        let Of { collection } = parameters(&uri)?;
        match backend.operator(collection.as_deref())? {
            Some(operator) => call(&*operator),
            None => Err(Error::NotFound(format!("no endpoint {}", uri.path()))),
        }
    });
    envelope::answer(started, result.await)
}
