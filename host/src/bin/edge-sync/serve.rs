//! `serve`: Qdrant's REST API over the shard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edge_sync_host::{EdgeSync, Error, Syncer, SyncerOptions, WorkerState};
use edge_sync_rest::{Options, Router, router};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::Session;
use crate::arguments::Serve;
use crate::backend::{self, ShardBackend};
use crate::output::exit;
use crate::settings::Serving;
use crate::status::again;

/// How often it looks for news to print.
const NEWS_TICK: Duration = Duration::from_millis(500);

/// How long a stop waits for requests under way. What they have begun in the shard is waited for
/// in any case.
const GRACE: Duration = Duration::from_secs(10);

impl Session {
    pub fn serve(&self, arguments: &Serve) -> Result<u8, Error> {
        let serving = self.settings.serving(arguments)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("edge-sync serve")
            .enable_all()
            .build()
            .map_err(|error| Error::Internal(format!("starting to serve: {error}")))?;
        // Reserved before the shard is opened, which may take long, and listened on after it.
        let socket = reserve(&runtime, &serving.addresses)?;
        let backend = Arc::new(self.backend(arguments)?);
        self.notes(backend.edge());
        let served = runtime.block_on(self.answer(&backend, socket, &serving));
        let shard = backend.edge().shard().clone();
        let closed = end(backend);
        for note in shard.notes() {
            self.output.note(&note);
        }
        // Requests that were given up on must not keep the process.
        runtime.shutdown_background();
        served.and(closed)?;
        self.output.say(&json!({ "stopped": true }), "stopped")?;
        Ok(0)
    }

    fn backend(&self, arguments: &Serve) -> Result<ShardBackend, Error> {
        let directory = self.settings.data_dir();
        let mut fixed = self.settings.collection().map(str::to_owned);
        let mut builder = EdgeSync::builder(self.component()?, directory)
            .options(self.shard_options())
            .sync_options(self.settings.sync_options());
        let has_server = self.settings.has_url();
        if has_server && !arguments.no_sync {
            let stored = backend::stored_name(directory)?;
            let server = self.server(self.settings.server_with(stored.as_deref())?);
            // Uploads go to this collection, so it is the one that is served.
            fixed = Some(server.collection.clone());
            let pull_interval = match arguments.no_pull {
                true => None,
                false => arguments.every.or(SyncerOptions::default().pull_interval),
            };
            builder = builder
                .server(server)
                .background(SyncerOptions::default().pull_interval(pull_interval));
        }
        ShardBackend::new(builder.attach()?, fixed, has_server)
    }

    /// Answers requests until a signal to stop, then finishes those under way.
    async fn answer(
        &self,
        backend: &Arc<ShardBackend>,
        socket: TcpSocket,
        serving: &Serving,
    ) -> Result<(), Error> {
        // From here on a signal is a wish to stop, also one that comes right after the ready line.
        let mut signals = Signals::listen()?;
        let listener = socket.listen(1024).map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let options = Options {
            api_key: serving.key.as_ref().map(|key| key.expose().to_owned()),
            local_hosts_only: serving.key.is_none(),
            ..Options::default()
        };
        let router = router(Arc::clone(backend), options);
        let (stop, stopping) = oneshot::channel::<()>();
        let mut server = tokio::spawn(serve_until(listener, router, stopping));
        self.say_ready(backend, address)?;

        let mut news = News::default();
        let mut tick = tokio::time::interval(NEWS_TICK);
        loop {
            tokio::select! {
                () = signals.next() => break,
                _ = tick.tick() => self.say_news(&mut news, backend.edge()),
                ended = &mut server => {
                    let why = match ended {
                        Ok(Ok(())) => "it ended".to_owned(),
                        Ok(Err(error)) => error.to_string(),
                        Err(error) => error.to_string(),
                    };
                    return Err(Error::Internal(format!("serving at {address}: {why}")));
                }
            }
        }
        tokio::spawn(async move {
            signals.next().await;
            std::process::exit(i32::from(exit::CANCELLED));
        });
        let _ = stop.send(());
        if tokio::time::timeout(GRACE, &mut server).await.is_err() {
            server.abort();
            self.output
                .note("requests were still under way; their connections are closed");
            let _ = server.await;
        }
        self.say_news(&mut news, backend.edge());
        Ok(())
    }

    /// The line that tells whoever started this that requests are answered from now on.
    fn say_ready(&self, backend: &ShardBackend, address: SocketAddr) -> Result<(), Error> {
        let url = format!("http://{address}");
        let collection = backend.collection_name();
        let server = self
            .settings
            .server_with(collection.as_deref())
            .ok()
            .filter(|_| backend.edge().has_server())
            .map(|server| {
                let url = server.url.trim_end_matches('/');
                format!("{url}/collections/{}", server.collection)
            });
        let text = match &collection {
            Some(name) => format!("serving the collection `{name}` at {url}"),
            None => format!("serving at {url}, no collection yet"),
        };
        let value = json!({
            "url": url,
            "collection": collection,
            "data_dir": self.settings.data_dir(),
            "server": server,
        });
        self.output.say(&value, &text)
    }

    fn say_news(&self, news: &mut News, edge: &EdgeSync) {
        self.notes(edge);
        if let Some(line) = news.of(edge) {
            self.output.note(&line);
        }
    }
}

/// What was last said about the uploads.
#[derive(Default)]
struct News {
    said: Option<(WorkerState, Option<String>)>,
}

impl News {
    /// A line if the uploads have come to stand differently. One for each upload would be noise.
    fn of(&mut self, edge: &EdgeSync) -> Option<String> {
        let record = edge.syncer().map(Syncer::record)?;
        let error = record
            .last_error
            .as_ref()
            .map(|error| error.message.clone());
        let state = match record.worker? {
            state @ (WorkerState::Idle | WorkerState::Waiting | WorkerState::Stopped) => state,
            WorkerState::Uploading | WorkerState::Paused => return None,
        };
        let now = (state, error);
        if self.said.as_ref() == Some(&now) {
            return None;
        }
        let again = again(&record);
        let text = match (&now.0, &now.1) {
            (WorkerState::Idle, _) => "uploads: in step with the server".to_owned(),
            (WorkerState::Stopped, Some(error)) => {
                format!("uploads: stopped, trying again {again}: {error}")
            }
            (_, Some(error)) => format!("uploads: waiting, trying again {again}: {error}"),
            (_, None) => format!("uploads: waiting, trying again {again}"),
        };
        self.said = Some(now);
        Some(text)
    }
}

async fn serve_until(
    listener: TcpListener,
    router: Router,
    stopping: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    edge_sync_rest::serve(listener, router, async {
        // Dropping the sender is a wish to stop as well.
        let _ = stopping.await;
    })
    .await
}

/// Binds the first of the addresses that can be had. Nobody can connect before it listens.
fn reserve(runtime: &Runtime, addresses: &[SocketAddr]) -> Result<TcpSocket, Error> {
    let _in_runtime = runtime.enter();
    let bind = |address: &SocketAddr| {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        // Connections of the last listener may linger on the port.
        socket.set_reuseaddr(true)?;
        socket.bind(*address)?;
        Ok(socket)
    };
    let mut failure = Error::Setting {
        name: "listen",
        message: "the name stands for no address".to_owned(),
    };
    for address in addresses {
        match bind(address) {
            Ok(socket) => return Ok(socket),
            Err(error) => {
                failure = Error::Setting {
                    name: "listen",
                    message: format!("cannot listen on {address}: {}", describe(&error)),
                }
            }
        }
    }
    Err(failure)
}

fn describe(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::AddrInUse {
        return "another program listens there".to_owned();
    }
    error.to_string()
}

fn cannot_listen(error: std::io::Error) -> Error {
    Error::Setting {
        name: "listen",
        message: format!("cannot listen: {}", describe(&error)),
    }
}

/// Ends the uploads, then flushes and closes the shard.
fn end(backend: Arc<ShardBackend>) -> Result<(), Error> {
    let shard = backend.edge().shard().clone();
    match Arc::into_inner(backend) {
        Some(backend) => drop(backend.into_edge()),
        // A request that was given up on still has it. The shard finishes what it is at, and
        // closes after that.
        None => tracing::warn!("a request is still under way"),
    }
    shard.close()
}

/// Signals that ask for a stop.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on they are received instead of ending the process.
    fn listen() -> Result<Signals, Error> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let listen = |kind| {
                signal(kind)
                    .map_err(|error| Error::Internal(format!("waiting for signals: {error}")))
            };
            Ok(Signals {
                interrupt: listen(SignalKind::interrupt())?,
                terminate: listen(SignalKind::terminate())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Signals {})
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
