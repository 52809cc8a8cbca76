//! Puts the parts together: routes, API key, limits, and the server loop.

use std::sync::Arc;
use std::time::Instant;

/// What [`router`] makes.
pub use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower_http::set_header::SetResponseHeaderLayer;

use crate::app::{App, Options};
use crate::metrics::Metrics;
use crate::points::{self, Params, json_body};
use crate::turns::Access;
use crate::{
    Backend, Error, Result, access, collection_info, envelope, metrics, older, operator,
    optimizations, service, snapshots,
};

/// Qdrant's REST API over `backend`.
pub fn router<B: Backend>(backend: Arc<B>, options: Options) -> Router {
    let key = options.api_key.clone();
    let local_hosts_only = options.local_hosts_only;
    let header = options.header.clone();
    let metrics = Arc::new(Metrics::new());
    let mut router = Router::new()
        .route("/collections", get(list::<B>))
        .route(
            "/collections/{collection}",
            get(info::<B>)
                .put(create::<B>)
                .patch(update::<B>)
                .delete(delete::<B>),
        )
        .route("/collections/{collection}/exists", get(exists::<B>))
        .route(
            "/collections/{collection}/cluster",
            get(cluster::<B>).post(async || service::unsupported("cluster operations")),
        )
        .route(
            "/collections/{collection}/shards",
            get(shard_keys::<B>).put(create_shard_key::<B>),
        )
        .route(
            "/collections/{collection}/shards/delete",
            post(delete_shard_key::<B>),
        )
        .route(
            "/collections/{collection}/optimizations",
            get(optimizations::<B>),
        )
        .route("/aliases", get(aliases::<B>))
        .route("/collections/{collection}/aliases", get(aliases_of::<B>))
        .route("/collections/aliases", post(change_aliases::<B>));
    for (path, route) in service::routes() {
        router = router.route(path, route);
    }
    for (path, route) in operator::routes() {
        router = router.route(path, route);
    }
    for (path, route) in points::routes() {
        router = router.route(&path, route);
    }
    for (path, route) in older::routes() {
        router = router.route(&format!("/collections/{{collection}}{path}"), route);
    }
    for (path, route) in snapshots::routes() {
        router = router.route(path, route);
    }
    let mut router = router
        // The server's answer to both has no body.
        .fallback(async || StatusCode::NOT_FOUND)
        .method_not_allowed_fallback(async || StatusCode::NOT_FOUND)
        // Bodies are read, limited and refused in Qdrant's words in one place.
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::new(App {
            backend,
            options,
            metrics: Arc::clone(&metrics),
        }));
    if let Some(key) = key {
        router = router.layer(from_fn_with_state(Arc::from(key), access::require_key));
    }
    if local_hosts_only {
        router = router.layer(from_fn(access::require_local_host));
    }
    if let Some((name, value)) = header {
        router = router.layer(SetResponseHeaderLayer::overriding(name, value));
    }
    router
        .layer(from_fn_with_state(metrics, metrics::count))
        .layer(from_fn(access::log))
}

type Shared<B> = State<Arc<App<B>>>;

async fn list<B: Backend>(State(app): Shared<B>) -> Response {
    let started = Instant::now();
    let result = app.blocking(|backend| backend.collections()).await;
    envelope::answer(
        started,
        result.map(|mut names| {
            names.sort_unstable();
            let collections: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"collections": collections})
        }),
    )
}

async fn info<B: Backend>(State(app): Shared<B>, Path(name): Path<String>) -> Response {
    let started = Instant::now();
    let result = app
        .in_turn(Access::Read, move |backend| {
            Ok(collection_info(&backend.collection(&name)?))
        })
        .await;
    envelope::answer(started, result)
}

async fn exists<B: Backend>(State(app): Shared<B>, Path(name): Path<String>) -> Response {
    let started = Instant::now();
    let result = app.blocking(move |backend| {
        let exists = backend.collections()?.contains(&name)
            || backend
                .aliases()?
                .iter()
                .any(|alias| alias.alias_name == name);
        Ok(json!({"exists": exists}))
    });
    envelope::answer(started, result.await)
}

async fn cluster<B: Backend>(State(app): Shared<B>, Path(name): Path<String>) -> Response {
    let started = Instant::now();
    let result = app.in_turn(Access::Read, move |backend| {
        let state = backend.collection(&name)?;
        let local = service::shards_of(&state);
        Ok(json!({
            "peer_id": state.peer.unwrap_or(1),
            "shard_count": local.len(),
            "local_shards": local,
            "remote_shards": [],
            "shard_transfers": [],
        }))
    });
    envelope::answer(started, result.await)
}

async fn shard_keys<B: Backend>(State(app): Shared<B>, Path(name): Path<String>) -> Response {
    let started = Instant::now();
    let result = app.in_turn(Access::Read, move |backend| {
        let state = backend.collection(&name)?;
        Ok(match state.config["sharding_method"].as_str() {
            Some("custom") => {
                let keys = state.shards.iter().filter_map(|shard| shard.key.as_ref());
                let keys: Vec<_> = keys.map(|key| json!({ "key": key })).collect();
                json!({ "shard_keys": keys })
            }
            _ => json!({}),
        })
    });
    envelope::answer(started, result.await)
}

async fn create_shard_key<B: Backend>(
    State(app): Shared<B>,
    Path(name): Path<String>,
    body: String,
) -> Response {
    let started = Instant::now();
    let result = app.blocking(move |backend| backend.create_shard_key(&name, &body));
    envelope::answer(started, result.await.map(|()| true))
}

async fn delete_shard_key<B: Backend>(
    State(app): Shared<B>,
    Path(name): Path<String>,
    body: String,
) -> Response {
    let started = Instant::now();
    let result = app.blocking(move |backend| backend.delete_shard_key(&name, &body));
    envelope::answer(started, result.await.map(|()| true))
}

async fn optimizations<B: Backend>(
    State(app): Shared<B>,
    Path(name): Path<String>,
    uri: Uri,
) -> Response {
    let started = Instant::now();
    let result = async {
        let lists = optimizations::Lists::asked_for(&uri)?;
        app.in_turn(Access::Read, move |backend| {
            Ok(lists.of(backend.collection(&name)?))
        })
        .await
    };
    envelope::answer(started, result.await)
}

async fn aliases<B: Backend>(State(app): Shared<B>) -> Response {
    let started = Instant::now();
    let result = app.blocking(|backend| Ok(json!({"aliases": backend.aliases()?})));
    envelope::answer(started, result.await)
}

async fn aliases_of<B: Backend>(State(app): Shared<B>, Path(name): Path<String>) -> Response {
    let started = Instant::now();
    let result = app.blocking(move |backend| {
        let mut aliases = backend.aliases()?;
        aliases.retain(|alias| alias.collection_name == name);
        Ok(json!({"aliases": aliases}))
    });
    envelope::answer(started, result.await)
}

async fn change_aliases<B: Backend>(State(app): Shared<B>, request: Request) -> Response {
    with_body(&app, request, |backend, body| backend.change_aliases(body)).await
}

async fn create<B: Backend>(
    State(app): Shared<B>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    with_body(&app, request, move |backend, body| {
        check_collection_name(&name)?;
        backend.create_collection(&name, body)
    })
    .await
}

async fn update<B: Backend>(
    State(app): Shared<B>,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    with_body(&app, request, move |backend, body| {
        if !serde_json::from_str::<Value>(body).is_ok_and(|body| body.is_object()) {
            return Err(Error::body_format("expected an object"));
        }
        let changes: Changes = serde_json::from_str(body).map_err(Error::body_format)?;
        if changes.change_nothing() {
            backend.optimize(&name)
        } else {
            backend.update_collection(&name, body)
        }
    })
    .await
}

/// The body of `PATCH /collections/{collection}`. On the server, one that changes nothing starts
/// the optimizers, which its documentation recommends for collections that are not optimized.
#[derive(Deserialize)]
struct Changes {
    vectors: Option<Map<String, Value>>,
    optimizers_config: Option<Map<String, Value>>,
    params: Option<Map<String, Value>>,
    hnsw_config: Option<Map<String, Value>>,
    quantization_config: Option<Value>,
    sparse_vectors: Option<Map<String, Value>>,
    strict_mode_config: Option<Map<String, Value>>,
    metadata: Option<Map<String, Value>>,
}

impl Changes {
    fn change_nothing(&self) -> bool {
        let objects = [
            &self.vectors,
            &self.optimizers_config,
            &self.params,
            &self.hnsw_config,
            &self.sparse_vectors,
            &self.strict_mode_config,
        ];
        let empty = |object: &Map<String, Value>| object.values().all(Value::is_null);
        // A null takes a key of the metadata away.
        objects.into_iter().flatten().all(empty)
            && self.quantization_config.is_none()
            && self.metadata.as_ref().is_none_or(Map::is_empty)
    }
}

async fn with_body<B: Backend>(
    app: &App<B>,
    request: Request,
    call: impl FnOnce(&B, &str) -> Result<()> + Send + 'static,
) -> Response {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let result = async {
        Params::of(&parts.uri)?;
        let body = json_body(&parts.headers, body, &app.options).await?;
        app.in_turn(Access::Write, move |backend| call(backend, &body))
            .await
    };
    envelope::answer(started, result.await.map(|()| true))
}

async fn delete<B: Backend>(State(app): Shared<B>, Path(name): Path<String>) -> Response {
    let started = Instant::now();
    let result = app.blocking(move |backend| backend.delete_collection(&name));
    envelope::answer(started, result.await)
}

/// The server's rule: a name becomes a directory.
fn check_collection_name(name: &str) -> Result<()> {
    const FORBIDDEN: [char; 11] = ['<', '>', ':', '"', '/', '\\', '|', '?', '*', '\0', '\u{1F}'];
    let message = if name.is_empty() || name.len() > 255 {
        "a collection name has 1 to 255 bytes".to_owned()
    } else if name == "." || name == ".." {
        format!("collection name cannot be `{name}`")
    } else if let Some(character) = name.chars().find(|c| FORBIDDEN.contains(c)) {
        // As JSON has it.
        format!("collection name cannot contain {} char", json!(character))
    } else {
        return Ok(());
    };
    Err(Error::OutOfRange(format!(
        "path parameters: [collection_name: {message}]"
    )))
}
