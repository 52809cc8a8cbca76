//! Partial snapshots as the server answers them: through the REST layer that the double is behind, too.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::sync::Arc;

use axum::body::Body;
use edge_sync_rest::{Backend, CollectionState, ContentTypes, Error, Options, Result, router};
use edge_sync_snapshots::Lineage;
use http_body_util::BodyExt as _;
use serde_json::Value;
use serde_json::value::RawValue;
use tower::ServiceExt as _;

use crate::exchange::{Answer, Request};
use crate::shard::Files;

/// A server of nothing but one shard's files.
struct OfFiles {
    files: Arc<Files>,
    lineage: Lineage,
}

fn not_asked() -> Error {
    Error::Internal("only a partial snapshot is asked for here".to_owned())
}

impl Backend for OfFiles {
    fn collections(&self) -> Result<Vec<String>> {
        Err(not_asked())
    }

    fn collection(&self, _: &str) -> Result<CollectionState> {
        Err(not_asked())
    }

    fn request(&self, _: &str, _: &str, _: &str, _: &str) -> Result<Box<RawValue>> {
        Err(not_asked())
    }

    fn partial_snapshot(&self, _: &str, _: u32, manifest: &Value) -> Result<Option<File>> {
        let internal = |error: std::io::Error| Error::Internal(error.to_string());
        let changes = self.files.changes(manifest, self.lineage);
        let changes = changes.map_err(|error| Error::Internal(error.to_string()))?;
        let Some(bytes) = changes else {
            return Ok(None);
        };
        let mut file = tempfile::tempfile().map_err(internal)?;
        file.write_all(&bytes).map_err(internal)?;
        file.rewind().map_err(internal)?;
        Ok(Some(file))
    }
}

/// The answer to a request for what changed since the manifest in its body.
pub(super) fn answer(files: &Arc<Files>, lineage: Lineage, asked: &Request<'_>) -> Answer {
    let backend = OfFiles {
        files: Arc::clone(files),
        lineage,
    };
    let options = Options {
        content_types: ContentTypes::Any,
        ..Options::default()
    };
    let mut request = http::Request::builder().method(asked.method).uri(asked.uri);
    if let Some(content_type) = asked.content_type {
        request = request.header("content-type", content_type);
    }
    let request = request.header("content-length", asked.body.len());
    let request = request
        .body(Body::from(asked.body.to_vec()))
        .expect("a request that came can be sent on");
    let exchange = async {
        let answered = router(Arc::new(backend), options).oneshot(request).await;
        let (parts, body) = answered.expect("the layer answers").into_parts();
        let header = |name: &'static str| {
            let value = parts.headers.get(name)?.to_str().ok()?;
            Some((name, value.to_owned()))
        };
        Answer {
            status: parts.status.as_u16(),
            headers: ["content-type", "content-length"]
                .into_iter()
                .filter_map(header)
                .collect(),
            body: body.collect().await.expect("a body").to_bytes().to_vec(),
        }
    };
    // The exchange that this is in runs in a runtime already, which another may not be started in.
    std::thread::scope(|scope| {
        let answered = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            runtime.expect("a runtime").block_on(exchange)
        });
        answered.join().expect("the layer does not panic")
    })
}
