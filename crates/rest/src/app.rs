//! What every handler is given: the backend, the settings, the counts.

use std::fmt;
use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};

use crate::load::Load;
use crate::metrics::Metrics;
use crate::turns::Access;
use crate::{Backend, Error, Result};

/// Settings of the layer.
#[derive(Clone)]
pub struct Options {
    /// Required in every request but those that ask whether the service is alive.
    pub api_key: Option<String>,
    /// Refuse requests whose `Host` is not a name of this machine itself (`localhost`, a loopback
    /// address). A web page whose name resolves to a loopback address is then no way in; for
    /// endpoints on loopback that require no key.
    pub local_hosts_only: bool,
    /// Largest request body, in bytes. Qdrant's default is 32 MiB.
    pub body_limit: usize,
    /// Which bodies are read.
    pub content_types: ContentTypes,
    /// What `GET /` answers.
    pub identity: Identity,
    /// How much is done and held at once. None: as much as is asked.
    pub load: Option<Arc<Load>>,
    /// A header, and its value, that go with every answer.
    pub header: Option<(HeaderName, HeaderValue)>,
}

impl Options {
    pub(crate) fn load(&self) -> Option<&Load> {
        self.load.as_deref()
    }
}

impl fmt::Debug for Options {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .field("local_hosts_only", &self.local_hosts_only)
            .field("body_limit", &self.body_limit)
            .field("content_types", &self.content_types)
            .field("identity", &self.identity)
            .field("load", &self.load)
            .field("header", &self.header)
            .finish()
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            api_key: None,
            local_hosts_only: false,
            body_limit: 32 * 1024 * 1024,
            content_types: ContentTypes::Json,
            identity: Identity::default(),
            load: None,
            header: None,
        }
    }
}

/// Which bodies are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentTypes {
    /// Those that say that they are JSON. A browser sends no such body to another origin without
    /// asking first, so that a web page is no way in.
    Json,
    /// All, as the server does: what is no JSON is refused when it is read.
    Any,
}

/// What `GET /` answers. Clients compare the version with their own.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Name of the service.
    pub title: String,
    /// The version of Qdrant's API that is spoken.
    pub version: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            title: "qdrant - vector search engine".to_owned(),
            version: "1.19.0".to_owned(),
        }
    }
}

pub(crate) struct App<B> {
    pub(crate) backend: Arc<B>,
    pub(crate) options: Options,
    pub(crate) metrics: Arc<Metrics>,
}

impl<B: Backend> App<B> {
    /// Calls the backend when it is the request's turn.
    pub(crate) async fn in_turn<T: Send + 'static>(
        &self,
        kind: Access,
        call: impl FnOnce(&B) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = match self.options.load() {
            Some(load) => Some(load.turn(kind).await?),
            None => None,
        };
        self.blocking(move |backend| {
            // Until it is done, also if the client has gone.
            let _turn = turn;
            call(backend)
        })
        .await
    }

    /// Calls the backend where it may block, without a turn: for what waits for something else than
    /// the data.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        call: impl FnOnce(&B) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let backend = Arc::clone(&self.backend);
        tokio::task::spawn_blocking(move || call(&backend))
            .await
            .unwrap_or_else(|error| Err(Error::Internal(format!("the request died: {error}"))))
    }
}
