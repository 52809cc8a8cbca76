//! `serve`: Qdrant's REST API over the shard.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use edge_sync_host::{
    AutoOptimizeOptions, DEVICE_HEADER, EdgeSync, Error, Origin, Shard, Syncer, SyncerOptions,
    WorkerState, device_id,
};
use edge_sync_rest::{Aliased, HeaderName, HeaderValue, Load, Options, Router, router};
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::arguments::Serve;
use crate::backend::{self, Devices, ShardBackend};
use crate::collections::Collections;
use crate::output::{exit, exit_code};
use crate::session::Session;
use crate::settings::Serving;
use crate::signals::Signals;
use crate::status::again;

/// Beside the collection's name in a data directory, or in the folder of several collections.
const ALIASES_FILE: &str = ".aliases.json";

/// How often it looks for news to print.
const NEWS_TICK: Duration = Duration::from_millis(500);

/// How often the end looks whether requests are over.
const END_LOOK: Duration = Duration::from_millis(5);

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
        if !arguments.no_sync {
            self.refuse_itself(&socket)?;
        }
        match &arguments.collections {
            Some(folder) => {
                let collections = self.collections(folder, arguments, &serving)?;
                self.serve_from(Arc::new(collections), runtime, socket, &serving)
            }
            None => {
                let backend = self.backend(arguments, &serving)?;
                self.serve_from(Arc::new(backend), runtime, socket, &serving)
            }
        }
    }

    fn serve_from<B: Devices>(
        &self,
        backend: Arc<B>,
        runtime: Runtime,
        socket: TcpSocket,
        serving: &Serving,
    ) -> Result<u8, Error> {
        for (_, edge) in backend.open_shards() {
            self.notes(&edge);
        }
        let served = runtime.block_on(self.answer(&backend, socket, serving));
        let shards: Vec<Shard> = backend
            .open_shards()
            .iter()
            .map(|(_, edge)| edge.shard().clone())
            .collect();
        let uploads = within(serving.stop_time, "edge-sync end", move || {
            end_uploads(backend)
        });
        if uploads.is_none() {
            self.output.note(
                "a request, or an exchange with the server, is still under way; what that does not \
                 come to confirm is sent again",
            );
        }
        let flushed = within(serving.stop_time, "edge-sync close", {
            let shards = shards.clone();
            move || shards.iter().try_for_each(Shard::close)
        });
        for note in shards.iter().flat_map(Shard::notes) {
            self.output.note(&note);
        }
        if flushed.is_none() {
            self.output.note(
                "the shard is still at work and is not flushed; nothing that was answered is lost, and \
                 the next start replays it",
            );
        }
        let is_over = uploads.is_some() && flushed.is_some();
        let is_flushed = flushed.is_some();
        let outcome = served.and(flushed.unwrap_or(Ok(()))).and_then(|()| {
            self.output.say(
                &json!({ "stopped": true, "flushed": is_flushed }),
                "stopped",
            )
        });
        if !is_over {
            // Whoever waited for what is left would wait for as long as it takes.
            if let Err(error) = &outcome {
                self.output.error(error, true);
            }
            std::process::exit(
                outcome
                    .map_or_else(|error| exit_code(&error), |()| 0)
                    .into(),
            );
        }
        // Requests that were given up on must not keep the process.
        runtime.shutdown_background();
        outcome.map(|()| 0)
    }

    /// Refuses a server that is the endpoint which is about to listen.
    fn refuse_itself(&self, socket: &TcpSocket) -> Result<(), Error> {
        let Some(url) = self.settings.url() else {
            return Ok(());
        };
        let address = socket.local_addr().map_err(cannot_listen)?;
        if Origin::of_url(url)?.is_at(address) {
            return Err(Error::Setting {
                name: "url",
                message: format!(
                    "the server is this very endpoint, which listens on {address} and would upload to \
                     itself; give the server's own address, or another one to --listen"
                ),
            });
        }
        Ok(())
    }

    fn collections(
        &self,
        folder: &Path,
        arguments: &Serve,
        serving: &Serving,
    ) -> Result<Collections, Error> {
        if self.settings.collection().is_some() {
            return Err(Error::Setting {
                name: "collection",
                message:
                    "with --collections, each collection has the name that its client gives it; \
                          leave --collection and EDGE_SYNC_COLLECTION out"
                        .to_owned(),
            });
        }
        let component = self.component()?;
        let options = self.shard_options().readers(serving.readers);
        let settings = self.settings.clone();
        let syncs = !arguments.no_sync;
        let has_server = settings.has_url();
        let syncer = self.syncer_options(arguments);
        let optimizes = serving.auto_optimize;
        if syncs && let Some(url) = settings.url() {
            // What is to be known of it is said once, and not with each collection.
            self.server(settings.server_with(Some("collection"))?);
            tracing::debug!("collections are synced with {url}");
        }
        let attach = move |directory: &Path, collection: &str| {
            let mut builder = EdgeSync::builder(component.clone(), directory)
                .options(options.clone())
                .sync_options(settings.sync_options());
            let server = match syncs {
                true => settings.server_in(directory, collection)?,
                false => None,
            };
            let has_server = has_server || server.is_some();
            if let Some(server) = server {
                builder = builder.server(server).background(syncer.clone());
            }
            if optimizes {
                builder = builder.auto_optimize(AutoOptimizeOptions::default());
            }
            ShardBackend::new(builder.attach()?, Some(collection.to_owned()), has_server)
        };
        Collections::open(folder.to_owned(), serving.idle_time, Box::new(attach))
    }

    fn syncer_options(&self, arguments: &Serve) -> SyncerOptions {
        let defaults = SyncerOptions::default();
        let pull_interval = match arguments.no_pull {
            true => None,
            false => arguments.every.or(defaults.pull_interval),
        };
        defaults.pull_interval(pull_interval)
    }

    fn backend(&self, arguments: &Serve, serving: &Serving) -> Result<ShardBackend, Error> {
        let directory = self.settings.data_dir();
        let mut fixed = self.settings.collection().map(str::to_owned);
        let mut builder = EdgeSync::builder(self.component()?, directory)
            .options(self.shard_options().readers(serving.readers))
            .sync_options(self.settings.sync_options());
        let has_server = self.settings.has_url();
        if has_server && !arguments.no_sync {
            let stored = backend::stored_name(directory)?;
            let server = self.server(self.settings.server_with(stored.as_deref())?);
            // Uploads go to this collection, so it is the one that is served.
            fixed = Some(server.collection.clone());
            let options = self.syncer_options(arguments);
            builder = builder.server(server).background(options);
        }
        if serving.auto_optimize {
            builder = builder.auto_optimize(AutoOptimizeOptions::default());
        }
        ShardBackend::new(builder.attach()?, fixed, has_server)
    }

    /// Answers requests until a signal to stop, then finishes those under way.
    async fn answer<B: Devices>(
        &self,
        backend: &Arc<B>,
        socket: TcpSocket,
        serving: &Serving,
    ) -> Result<(), Error> {
        // From here on a signal is a wish to stop, also one that comes right after the ready line.
        let mut signals = Signals::listen()?;
        let listener = socket.listen(1024).map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let load = Load::new(serving.limits.clone());
        let defaults = Options::default();
        let options = Options {
            api_key: serving.key.as_ref().map(|key| key.expose().to_owned()),
            local_hosts_only: serving.key.is_none(),
            body_limit: defaults.body_limit.min(load.largest_body()),
            load: Some(Arc::clone(&load)),
            header: Some((
                HeaderName::from_static(DEVICE_HEADER),
                HeaderValue::from_static(device_id()),
            )),
            ..defaults
        };
        let aliased = self.aliased(backend)?;
        let router = router(Arc::new(aliased), options);
        let (stop, stopping) = oneshot::channel::<()>();
        let mut server = tokio::spawn(serve_until(listener, router, load, stopping));
        self.say_ready(&**backend, address)?;

        let mut news = BTreeMap::new();
        let mut tick = tokio::time::interval(NEWS_TICK);
        let mut giving_back: Option<JoinHandle<()>> = None;
        loop {
            tokio::select! {
                () = signals.next() => break,
                _ = tick.tick() => {
                    self.say_news(&mut news, &**backend);
                    let backend = Arc::clone(backend);
                    // It may close a shard, which takes its time.
                    if giving_back.as_ref().is_none_or(JoinHandle::is_finished) {
                        giving_back = Some(tokio::task::spawn_blocking(move || backend.give_back()));
                    }
                }
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
        if tokio::time::timeout(serving.stop_time, &mut server)
            .await
            .is_err()
        {
            server.abort();
            self.output
                .note("requests were still under way; their connections are closed");
            let _ = server.await;
        }
        self.say_news(&mut news, &**backend);
        Ok(())
    }

    /// What is served, under its aliases too. They are kept where the collections are.
    fn aliased<B: Devices>(&self, backend: &Arc<B>) -> Result<Aliased<B>, Error> {
        let file = backend.folder().join(ALIASES_FILE);
        Aliased::new(Arc::clone(backend), file.clone()).map_err(|source| Error::Io {
            operation: "read the aliases in",
            path: file,
            source,
        })
    }

    /// The line that tells whoever started this that requests are answered from now on.
    fn say_ready(&self, backend: &impl Devices, address: SocketAddr) -> Result<(), Error> {
        let url = format!("http://{address}");
        let collections = backend.ready();
        let only = collections.first().filter(|_| collections.len() == 1);
        let syncs = |(_, edge): &(Option<String>, EdgeSync)| edge.has_server();
        let server = self
            .settings
            .server_with(only.map(String::as_str))
            .ok()
            .filter(|_| backend.open_shards().iter().any(syncs))
            .map(|server| {
                let url = server.url.trim_end_matches('/');
                format!("{url}/collections/{}", server.collection)
            });
        let text = match (&*collections, only) {
            (_, Some(name)) => format!("serving the collection `{name}` at {url}"),
            ([], None) => format!("serving at {url}, no collection yet"),
            (several, None) => format!("serving {} collections at {url}", several.len()),
        };
        let value = json!({
            "url": url,
            "collection": only,
            "collections": collections,
            "data_dir": self.settings.data_dir(),
            "server": server,
        });
        self.output.say(&value, &text)
    }

    fn say_news(&self, news: &mut BTreeMap<Option<String>, News>, backend: &impl Devices) {
        let open = backend.open_shards();
        news.retain(|name, _| open.iter().any(|(open, _)| open == name));
        for (name, edge) in open {
            self.notes(&edge);
            let of = name.as_ref().map(|name| format!("`{name}`: "));
            if let Some(line) = news.entry(name).or_default().of(&edge) {
                self.output
                    .note(&format!("{}{line}", of.unwrap_or_default()));
            }
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
    load: Arc<Load>,
    stopping: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    edge_sync_rest::serve(listener, router, load, async {
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

/// Ends the uploads, after the requests that are carried out and the exchange under way.
fn end_uploads<B>(mut backend: Arc<B>) {
    loop {
        match Arc::try_unwrap(backend) {
            Ok(backend) => return drop(backend),
            Err(in_use) => backend = in_use,
        }
        std::thread::sleep(END_LOOK);
    }
}

/// What `work` gives, unless it takes longer than `patience`; then it goes on by itself.
fn within<T: Send + 'static>(
    patience: Duration,
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, outcome) = mpsc::channel();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _ = done.send(work());
        })
        .ok()?;
    outcome.recv_timeout(patience).ok()
}
