//! The courier instance: one HTTP origin and the staging folder, no shard.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use edge_sync_upload::{Answer, Request, Routing, Setting, Target};
use wasmtime::Store;
use wasmtime::component::ResourceAny;
use wasmtime_wasi::FsPerms;

use crate::actor::Actor;
use crate::bindings::EdgeSync;
use crate::bindings::exports::edge_sync::shard::courier::{
    DownloadProgress, OptimizerState, Placement, Server,
};
use crate::bindings::exports::edge_sync::shard::types::Error as GuestError;
use crate::cancel::Cancel;
use crate::client::Client;
use crate::component::Component;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::http_limits::HttpLimits;
use crate::instance::{Grants, Instance, Preopen};
use crate::origin::{Origin, is_loopback, server_url, server_url_text};
use crate::outbound::{Outbound, Unanswered};
use crate::secret::Secret;
use crate::setters::setters;
use crate::tls::TlsSettings;
use crate::types::{PointId, SnapshotSource, UploadRequest};

/// The staging folder's name in the guest.
const GUEST_STAGING: &str = "/staging";

/// Longest wait for a server to delete a stored snapshot when a download ends, which may be because
/// somebody gave it up. What it does not delete then it is asked again by the next download.
const DELETE_PATIENCE: Duration = Duration::from_secs(5);

/// A request body is a few MiB, an answer less; a snapshot is written out as it comes.
const MEMORY_BYTES: usize = 1 << 30;

/// Which collection on which server, and how to reach it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerSettings {
    /// `http` or `https` URL of the server; a path is a prefix of every request's. `HTTPS_PROXY`,
    /// `HTTP_PROXY` and `NO_PROXY` say whether there is a proxy in between.
    pub url: String,
    /// The collection's name.
    pub collection: String,
    /// Sent as the `api-key` header.
    pub api_key: Option<Secret>,
    /// Only this shard of a collection of several. What is written goes to all of them, and what
    /// belongs to another one is not here any more after a pull. Default: the whole collection.
    pub shard: Option<u32>,
    /// The shard key, in a collection that is sharded by keys: the device holds what is in that
    /// key's shards. A whole number, a name, or a name in double quotes.
    pub shard_key: Option<String>,
    /// `FIELD=VALUE`: the device holds the points of one tenant, told apart by a field of the
    /// payload, which is put on what it writes. VALUE is the tenant's own shard key once there is
    /// one; until then `shard_key`, or `default`, is the one that it shares with others.
    pub tenant: Option<String>,
    /// Time-outs and size limits.
    pub http: HttpLimits,
    /// Whom to trust over `https`, and what to show.
    pub tls: TlsSettings,
    /// Compress what is uploaded (gzip), for slow links. Qdrant reads it; where something does not,
    /// the same goes out as it is. Default: false.
    pub compress_uploads: bool,
}

impl ServerSettings {
    /// The collection `collection` on the server at `url`, without an API key.
    pub fn new(url: impl Into<String>, collection: impl Into<String>) -> ServerSettings {
        ServerSettings {
            url: url.into(),
            collection: collection.into(),
            api_key: None,
            shard: None,
            shard_key: None,
            tenant: None,
            http: HttpLimits::default(),
            tls: TlsSettings::default(),
            compress_uploads: false,
        }
    }

    /// The settings with the URL as it is understood: scheme and host in lower case, names in ASCII
    /// (`xn--`), addresses written out, no default port, no slash at its end.
    ///
    /// Errors: [`Error::Setting`] for a URL that cannot be a server's (with a query, a fragment, a
    /// user name, blanks, ...), for a collection name that a path cannot hold, and for a key that a
    /// header cannot hold.
    pub fn checked(mut self) -> Result<ServerSettings> {
        self.url = server_url_text(&self.url)?;
        let refuse = |name, message: &str| {
            Err(Error::Setting {
                name,
                message: message.to_owned(),
            })
        };
        match self.collection.as_str() {
            "" => return refuse("collection", "must not be empty"),
            // A path that ends in these is another path: of all collections, or of the server.
            "." | ".." => return refuse("collection", "`.` and `..` are no names of collections"),
            _ => {}
        }
        if let Some(key) = &self.api_key
            && http::HeaderValue::from_str(key.expose()).is_err()
        {
            return refuse("api_key", "holds characters that an HTTP header cannot");
        }
        self.routing()?;
        Ok(self)
    }

    /// The place that the settings name.
    ///
    /// Errors: [`Error::Setting`] for a shard key or a tenant that cannot be one.
    pub(crate) fn target(&self) -> Result<Target> {
        Ok(Target::new(&self.url, &self.collection).routed(self.routing()?))
    }

    fn routing(&self) -> Result<Routing> {
        let (key, tenant) = (self.shard_key.as_deref(), self.tenant.as_deref());
        Routing::read(key, tenant, self.shard).map_err(|(setting, message)| Error::Setting {
            name: match setting {
                Setting::Shard => "shard",
                Setting::ShardKey => "shard_key",
                Setting::Tenant => "tenant",
            },
            message,
        })
    }

    /// True if the API key goes to another machine in clear, where everybody on the way can read it.
    pub fn exposes_key(&self) -> bool {
        self.api_key.is_some()
            && server_url(&self.url).is_ok_and(|url| url.scheme() == "http" && !is_loopback(&url))
    }

    /// Sets the API key.
    #[must_use]
    pub fn api_key(mut self, key: Secret) -> ServerSettings {
        self.api_key = Some(key);
        self
    }

    /// Sets the shard's number.
    #[must_use]
    pub fn shard(mut self, shard: u32) -> ServerSettings {
        self.shard = Some(shard);
        self
    }

    /// Sets the shard key.
    #[must_use]
    pub fn shard_key(mut self, key: impl Into<String>) -> ServerSettings {
        self.shard_key = Some(key.into());
        self
    }

    /// Sets the tenant.
    #[must_use]
    pub fn tenant(mut self, tenant: impl Into<String>) -> ServerSettings {
        self.tenant = Some(tenant.into());
        self
    }

    fn for_guest(&self) -> Server {
        Server {
            url: self.url.clone(),
            collection: self.collection.clone(),
            api_key: self.api_key.as_ref().map(|key| key.expose().to_owned()),
            connect_timeout_ms: u64::try_from(self.http.connect.as_millis()).unwrap_or(u64::MAX),
            shard: self.shard,
            shard_key: self.shard_key.clone(),
            tenant: self.tenant.clone(),
        }
    }
}

setters!(ServerSettings {
    http: HttpLimits,
    tls: TlsSettings,
    compress_uploads: bool,
});

/// Talks to one collection on one server. Calls wait for those before them.
pub struct Courier {
    actor: Actor<CourierState>,
    target: Target,
    client: Arc<Client>,
    /// The peer of a cluster that sent what is here.
    peer: Mutex<Option<u64>>,
}

impl Courier {
    /// A courier that writes downloads below the folder `staging`.
    ///
    /// Errors: [`Error::Setting`] for a URL or collection name that cannot be one.
    pub fn start(
        component: &Component,
        staging: impl AsRef<Path>,
        server: ServerSettings,
    ) -> Result<Courier> {
        let server = server.checked()?;
        let target = server.target()?;
        let origin = Origin::of_url(&server.url)?;
        let client = Client::new(&server.url, &server.tls, server.http.connect)?
            .compressing(server.compress_uploads);
        let client = Arc::new(client);
        if server.exposes_key() {
            tracing::warn!("the API key goes to {origin} in clear; https would hide it");
        }
        let actor = Actor::spawn(
            "courier",
            CourierState {
                component: component.clone(),
                staging: staging.as_ref().to_owned(),
                origin,
                client: Arc::clone(&client),
                unanswered: Unanswered::default(),
                for_guest: server.for_guest(),
                limits: server.http,
                instance: None,
                download: None,
                cancel: Cancel::new(),
            },
        )?;
        Ok(Courier {
            actor,
            target,
            client,
            peer: Mutex::default(),
        })
    }

    /// The peer of a cluster that sent what is here, if that is known.
    pub(crate) fn known_peer(&self) -> Option<u64> {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This peer sent what is here.
    pub(crate) fn follow_peer(&self, peer: Option<u64>) {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = peer;
    }

    /// Behind a balancer, the next request may come to another peer.
    pub(crate) fn reconnect(&self) {
        self.client.reconnect();
    }

    /// Sends one request and reads the answer, whatever its status.
    ///
    /// Errors: [`Error::Server`] if there is no answer; its class says whether the server may have
    /// got the request.
    pub(crate) fn exchange(&self, request: &Request) -> Result<Answer> {
        let server_wide = request.server_wide;
        let request = UploadRequest {
            method: request.method.clone(),
            path: request.path.clone(),
            body: request.body.clone(),
        };
        let answer = self.actor.call(move |state| {
            state.run("exchange", Expected::Answer, |guest, store, server| {
                guest
                    .edge_sync_shard_courier()
                    .call_exchange(store, server, &request, server_wide)
            })
        })?;
        Ok(Answer {
            status: answer.status,
            request: answer.request,
            host: answer.host,
            retry_after: answer.retry_after,
            location: answer.location,
            content_encoding: answer.content_encoding,
            body: answer.body,
        })
    }

    /// What the server's optimizer does.
    pub(crate) fn optimizer(&self) -> Result<OptimizerState> {
        self.actor.call(|state| {
            state.run("optimizer", Expected::Answer, |guest, store, server| {
                guest
                    .edge_sync_shard_courier()
                    .call_optimizer(store, server)
            })
        })
    }

    /// Those of the points that the server does not hold.
    pub(crate) fn absent(&self, ids: Vec<PointId>) -> Result<Vec<PointId>> {
        self.actor.call(move |state| {
            state.run("absent", Expected::Answer, |guest, store, server| {
                guest
                    .edge_sync_shard_courier()
                    .call_absent(store, server, &ids)
            })
        })
    }

    /// Which shards hold what is meant.
    pub(crate) fn locate(&self) -> Result<Placement> {
        self.actor.call(|state| {
            state.run("locate", Expected::Answer, |guest, store, server| {
                guest.edge_sync_shard_courier().call_locate(store, server)
            })
        })
    }

    /// Downloads a snapshot of a shard into the file `name` of the staging folder and returns its
    /// size in bytes. `progress` is told after each piece and may stop it.
    ///
    /// Errors: [`Error::Server`], [`Error::Storage`], [`Error::BadSnapshot`] for a wrong checksum,
    /// [`Error::Cancelled`].
    pub fn download(
        &self,
        shard: u32,
        source: SnapshotSource,
        name: &str,
        mut progress: impl FnMut(u64, Option<u64>) -> ControlFlow<()>,
    ) -> Result<u64> {
        let mut download = self.begin_download(shard, source, name, &Cancel::new())?;
        loop {
            let so_far = download.step()?;
            let go_on = progress(so_far.bytes, so_far.total);
            if so_far.done {
                return Ok(so_far.bytes);
            }
            if go_on.is_break() {
                return Err(Error::Cancelled);
            }
        }
    }

    /// Starts a download; only one can be under way. `cancel` ends a step that waits for the server.
    pub(crate) fn begin_download(
        &self,
        shard: u32,
        source: SnapshotSource,
        name: &str,
        cancel: &Cancel,
    ) -> Result<Download<'_>> {
        self.begin(name, cancel, move |guest, store, server, file| {
            guest
                .edge_sync_shard_courier()
                .call_start_download(store, server, shard, source, file)
        })
    }

    /// Starts a download of what changed since `manifest`, as [`Courier::begin_download`] does of a
    /// snapshot.
    pub(crate) fn begin_partial(
        &self,
        shard: u32,
        manifest: &str,
        name: &str,
        cancel: &Cancel,
    ) -> Result<Download<'_>> {
        let manifest = manifest.to_owned();
        self.begin(name, cancel, move |guest, store, server, file| {
            guest
                .edge_sync_shard_courier()
                .call_start_partial(store, server, shard, &manifest, file)
        })
    }

    /// Starts a download of the tenant's points.
    pub(crate) fn begin_points(&self, name: &str, cancel: &Cancel) -> Result<Download<'_>> {
        self.begin(name, cancel, |guest, store, server, file| {
            guest
                .edge_sync_shard_courier()
                .call_start_points(store, server, file)
        })
    }

    fn begin(
        &self,
        name: &str,
        cancel: &Cancel,
        start: impl FnOnce(
            &EdgeSync,
            &mut Store<Guest>,
            &Server,
            &str,
        ) -> wasmtime::Result<Result<ResourceAny, GuestError>>
        + Send
        + 'static,
    ) -> Result<Download<'_>> {
        let file = format!("{GUEST_STAGING}/{name}");
        let cancel = cancel.clone();
        self.actor.call(move |state| {
            state.end_download();
            state.cancel = cancel;
            // All that it asks of the server is to delete what earlier downloads left there.
            let download = state.run(
                "start-download",
                Expected::Deletion,
                |guest, store, server| start(guest, store, server, &file),
            )?;
            state.download = Some(download);
            Ok(())
        })?;
        Ok(Download(self))
    }

    /// The place that the settings name.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }
}

/// A download under way; dropping it ends it, and removes the file unless it is complete.
pub(crate) struct Download<'a>(&'a Courier);

impl Download<'_> {
    /// Reads on for a little while.
    pub(crate) fn step(&mut self) -> Result<DownloadProgress> {
        self.0.actor.call(|state| {
            let download = state
                .download
                .ok_or(Error::Internal("the download was lost".into()))?;
            state.run("download.step", Expected::Snapshot, |guest, store, _| {
                guest
                    .edge_sync_shard_courier()
                    .download()
                    .call_step(store, download)
            })
        })
    }
}

impl Drop for Download<'_> {
    fn drop(&mut self) {
        let _ = self.0.actor.call(|state| {
            state.end_download();
            Ok(())
        });
    }
}

/// What a call expects from the server.
#[derive(Clone, Copy)]
enum Expected {
    Answer,
    Snapshot,
    /// That a stored snapshot is deleted.
    Deletion,
}

struct CourierState {
    component: Component,
    staging: PathBuf,
    origin: Origin,
    client: Arc<Client>,
    unanswered: Unanswered,
    for_guest: Server,
    limits: HttpLimits,
    instance: Option<Instance>,
    download: Option<ResourceAny>,
    /// Ends the exchanges of the download.
    cancel: Cancel,
}

impl CourierState {
    fn run<R>(
        &mut self,
        name: &'static str,
        expected: Expected,
        function: impl FnOnce(
            &EdgeSync,
            &mut Store<Guest>,
            &Server,
        ) -> wasmtime::Result<Result<R, GuestError>>,
    ) -> Result<R> {
        let outbound = self.outbound(expected);
        let limit = self.call_limit(expected);
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                self.download = None;
                std::fs::create_dir_all(&self.staging)
                    .map_err(Error::io("create the staging folder", &self.staging))?;
                Instance::new(
                    &self.component,
                    Grants {
                        preopens: vec![Preopen::new(
                            &self.staging,
                            GUEST_STAGING,
                            FsPerms::ReadWrite,
                        )],
                        outbound: Outbound::Denied,
                        memory_bytes: MEMORY_BYTES,
                    },
                )?
            }
        };
        instance.guest_mut().outbound = outbound;
        let server = &self.for_guest;
        let mut outcome = instance.call(name, limit, |guest, store| function(guest, store, server));
        if let Err(Error::Server(failure)) = &mut outcome
            && failure.status.is_none()
            && let Some(words) = self.unanswered.words(&failure.request)
        {
            failure.message = words;
        }
        match &outcome {
            Err(error) if error.ends_instance() => self.download = None,
            _ => self.instance = Some(instance),
        }
        outcome
    }

    fn outbound(&self, expected: Expected) -> Outbound {
        let mut limits = self.limits.clone();
        let mut first_body_byte = limits.between_bytes;
        let mut cancel = Cancel::new();
        let response_bytes = match expected {
            Expected::Answer => limits.response_bytes,
            Expected::Snapshot => {
                limits.first_byte = limits.snapshot_first_byte;
                first_body_byte = limits.snapshot_first_byte.max(first_body_byte);
                cancel = self.cancel.clone();
                limits.snapshot_bytes
            }
            Expected::Deletion => {
                limits.connect = limits.connect.min(DELETE_PATIENCE);
                limits.first_byte = limits.first_byte.min(DELETE_PATIENCE);
                first_body_byte = first_body_byte.min(DELETE_PATIENCE);
                limits.between_bytes = limits.between_bytes.min(DELETE_PATIENCE);
                limits.response_bytes
            }
        };
        Outbound::Only {
            origin: self.origin.clone(),
            client: Arc::clone(&self.client),
            unanswered: self.unanswered.clone(),
            limits,
            response_bytes,
            first_body_byte,
            cancel,
        }
    }

    /// The time-outs of the exchange end a call long before this does; it is against a guest that
    /// hangs. A call may make a few exchanges.
    fn call_limit(&self, expected: Expected) -> Duration {
        let first_byte = match expected {
            Expected::Answer | Expected::Deletion => self.limits.first_byte,
            // Of the head and of the body.
            Expected::Snapshot => self.limits.snapshot_first_byte * 2,
        };
        (self.limits.connect * 2 + first_byte + self.limits.between_bytes) * 4
            + Duration::from_secs(300)
    }

    fn end_download(&mut self) {
        let outbound = self.outbound(Expected::Deletion);
        if let (Some(download), Some(instance)) = (self.download.take(), &mut self.instance) {
            let limit = Duration::from_secs(60);
            instance.guest_mut().outbound = outbound;
            let dropped = instance.call("drop download", limit, |_, store| {
                download.resource_drop(store).map(Ok)
            });
            if dropped.is_err() {
                self.instance = None;
            }
        }
    }
}
