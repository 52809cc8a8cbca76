//! Settings from flags, the environment and a TOML file, in this order.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edge_sync_host::{
    BoundServer, ClientCertificate, Component, ComponentOptions, Error, MOST_READERS, Secret,
    ServerSettings, ShardOptions, SyncOptions, TlsSettings, bound_server,
};
use edge_sync_rest::Limits;
use edge_sync_upload::{FollowedShards, NamedPart, Routing};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::Serve;
use crate::flags::{DurabilitySetting, Flags, number};

/// Looked for in the working directory, then in the user's configuration folder.
const FILE_NAME: &str = "edge-sync.toml";

/// Where the shard is when nothing says so.
const DEFAULT_DATA_DIR: &str = "edge-sync-data";

/// Where `serve` listens when nothing says so: Qdrant's port.
const DEFAULT_LISTEN: &str = "127.0.0.1:6333";

/// How long `serve` waits for requests under way when it is asked to stop, and for the shard after
/// that.
const STOP_TIME: Duration = Duration::from_secs(10);

/// How long a shard of several stays open without a request.
const IDLE_TIME: Duration = Duration::from_secs(300);

/// Readers of a shard that is served, where it is not said how many, on a machine that has the cores:
/// each takes as much memory as the shard.
const READERS: usize = 3;

/// What limits of `serve` may be set to.
const MOST_CONNECTIONS: usize = 100_000;
const MOST_BODIES_MIB: usize = 4096;
const MOST_SECONDS: u64 = 24 * 3600;

/// Memory of a shard, in MiB: an empty one takes half of the least, and a component addresses no more
/// than the most.
const MEMORY_MIB: RangeInclusive<usize> = 32..=4096;

/// Every variable that the command reads.
const VARIABLES: [&str; 13] = [
    "EDGE_SYNC_DATA_DIR",
    "EDGE_SYNC_COLLECTION",
    "EDGE_SYNC_SHARD",
    "EDGE_SYNC_SHARD_KEY",
    "EDGE_SYNC_TENANT",
    "EDGE_SYNC_COMPONENT",
    "EDGE_SYNC_DURABILITY",
    "EDGE_SYNC_MEMORY_MIB",
    "EDGE_SYNC_LISTEN",
    "EDGE_SYNC_SERVE_API_KEY",
    "EDGE_SYNC_AUTO_OPTIMIZE",
    "EDGE_SYNC_COMPRESS_UPLOADS",
    "EDGE_SYNC_CACHE",
];

/// Variables that others read, under the same prefix: the log's filter, the repository's tests and
/// chores.
const VARIABLES_OF_OTHERS: [&str; 4] = [
    "EDGE_SYNC_LOG",
    "EDGE_SYNC_BIN",
    "EDGE_SYNC_PACKAGES",
    "EDGE_SYNC_CACHE_LOCK_HELD",
];

/// What is set by another variable than one would think, since every client of Qdrant reads that.
const VARIABLES_OF_QDRANT: [(&str, &str); 2] = [
    ("EDGE_SYNC_URL", "QDRANT_URL"),
    ("EDGE_SYNC_API_KEY", "QDRANT_API_KEY"),
];

/// How alike names are that one may be taken for the other.
const ALIKE: f64 = 0.9;

/// What a person should know of variables that look like settings and are none.
pub fn unknown_variables() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    names.filter_map(|name| unknown_variable(&name)).collect()
}

fn unknown_variable(name: &str) -> Option<String> {
    let is_known = VARIABLES.contains(&name) || VARIABLES_OF_OTHERS.contains(&name);
    if is_known || !name.starts_with("EDGE_SYNC_") {
        return None;
    }
    if let Some((_, meant)) = VARIABLES_OF_QDRANT.iter().find(|(of, _)| *of == name) {
        return Some(format!(
            "{name} is no variable that edge-sync reads; that is {meant}"
        ));
    }
    let meant = VARIABLES
        .into_iter()
        .map(|known| {
            (
                strsim::jaro_winkler(&name["EDGE_SYNC_".len()..], &known["EDGE_SYNC_".len()..]),
                known,
            )
        })
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    Some(match meant {
        Some((_, known)) => {
            format!("{name} is no variable that edge-sync reads; did you mean {known}?")
        }
        None => format!("{name} is no variable that edge-sync reads"),
    })
}

/// A shard key: in the TOML file a number is a number.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Value")]
enum ShardKeySetting {
    Number(u64),
    Text(String),
}

impl TryFrom<Value> for ShardKeySetting {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match (value.as_u64(), value) {
            (Some(number), _) => Ok(ShardKeySetting::Number(number)),
            (None, Value::String(text)) => Ok(ShardKeySetting::Text(text)),
            (None, other) => Err(format!("{other} is neither a name nor a whole number")),
        }
    }
}

impl std::fmt::Display for ShardKeySetting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ShardKeySetting::Number(number) => write!(f, "{number}"),
            ShardKeySetting::Text(text) => f.write_str(text),
        }
    }
}

/// One source of settings; also the form of the TOML file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Layer {
    data_dir: Option<PathBuf>,
    url: Option<String>,
    /// The URL is from a file that was found in the working directory, so that whoever made that
    /// folder has chosen it.
    #[serde(skip)]
    url_found_here: bool,
    collection: Option<String>,
    #[serde(skip)]
    api_key: Option<Secret>,
    #[serde(skip)]
    key_from_environment: bool,
    api_key_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    client_certificate_file: Option<PathBuf>,
    client_key_file: Option<PathBuf>,
    shard: Option<FollowedShards>,
    shard_key: Option<ShardKeySetting>,
    tenant: Option<String>,
    component: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    durability: Option<DurabilitySetting>,
    memory_mib: Option<usize>,
    batch_operations: Option<u32>,
    most_batch_operations: Option<u32>,
    batch_bytes: Option<u32>,
    attempts: Option<u32>,
    listen: Option<String>,
    #[serde(skip)]
    serve_api_key: Option<Secret>,
    serve_api_key_file: Option<PathBuf>,
    serve_connections: Option<usize>,
    serve_queue: Option<usize>,
    serve_readers: Option<usize>,
    serve_bodies_mib: Option<usize>,
    serve_head_seconds: Option<u64>,
    serve_body_seconds: Option<u64>,
    serve_answer_seconds: Option<u64>,
    serve_stop_seconds: Option<u64>,
    serve_idle_seconds: Option<u64>,
    auto_optimize: Option<bool>,
    compress_uploads: Option<bool>,
}

impl Layer {
    fn from_flags(flags: &Flags) -> Layer {
        Layer {
            data_dir: flags.data_dir.clone(),
            url: flags.url.clone(),
            collection: flags.collection.clone(),
            api_key_file: flags.api_key_file.clone(),
            ca_file: flags.ca_file.clone(),
            shard: flags.shard,
            shard_key: flags.shard_key.clone().map(ShardKeySetting::Text),
            tenant: flags.tenant.clone(),
            component: flags.component.clone(),
            durability: flags.durability,
            memory_mib: flags.memory_mib,
            ..Layer::default()
        }
    }

    /// `variable` looks a variable up. One that is empty counts as not set, but for the key that
    /// clients of `serve` have to present: whoever sets that does not mean none.
    fn from_environment(variable: impl Fn(&str) -> Option<OsString>) -> Result<Layer, Error> {
        let raw = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &'static str| match raw(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(setting(name, "is not valid UTF-8")),
        };
        let truth = |name: &'static str| match text(name)? {
            Some(value) => value
                .parse()
                .map(Some)
                .map_err(|_| setting(name, format!("`{value}` is neither `true` nor `false`"))),
            None => Ok(None),
        };
        let serve_api_key = match variable("EDGE_SYNC_SERVE_API_KEY") {
            Some(key) if key.is_empty() => {
                let message = "is empty, which protects nothing; set a key, or unset the variable";
                return Err(setting("EDGE_SYNC_SERVE_API_KEY", message));
            }
            _ => text("EDGE_SYNC_SERVE_API_KEY")?.map(Secret::new),
        };
        Ok(Layer {
            data_dir: raw("EDGE_SYNC_DATA_DIR").map(PathBuf::from),
            url: text("QDRANT_URL")?,
            collection: text("EDGE_SYNC_COLLECTION")?,
            api_key: text("QDRANT_API_KEY")?.map(Secret::new),
            shard: text("EDGE_SYNC_SHARD")?
                .map(|text| text.parse())
                .transpose()
                .map_err(|message: String| setting("EDGE_SYNC_SHARD", message))?,
            shard_key: text("EDGE_SYNC_SHARD_KEY")?.map(ShardKeySetting::Text),
            tenant: text("EDGE_SYNC_TENANT")?,
            component: raw("EDGE_SYNC_COMPONENT").map(PathBuf::from),
            listen: text("EDGE_SYNC_LISTEN")?,
            serve_api_key,
            cache_dir: raw("EDGE_SYNC_CACHE")
                .map(|root| PathBuf::from(root).join("component-cache")),
            durability: text("EDGE_SYNC_DURABILITY")?
                .map(|text| text.parse())
                .transpose()
                .map_err(|message: String| setting("EDGE_SYNC_DURABILITY", message))?,
            memory_mib: text("EDGE_SYNC_MEMORY_MIB")?
                .map(|text| number(&text))
                .transpose()
                .map_err(|message: String| setting("EDGE_SYNC_MEMORY_MIB", message))?,
            auto_optimize: truth("EDGE_SYNC_AUTO_OPTIMIZE")?,
            compress_uploads: truth("EDGE_SYNC_COMPRESS_UPLOADS")?,
            ..Layer::default()
        })
    }

    /// Relative paths in the file start at the file's folder.
    fn from_toml(text: &str, folder: &Path) -> Result<Layer, String> {
        let mut layer: Layer = toml::from_str(text).map_err(|error| error.to_string())?;
        for path in [
            &mut layer.data_dir,
            &mut layer.api_key_file,
            &mut layer.ca_file,
            &mut layer.client_certificate_file,
            &mut layer.client_key_file,
            &mut layer.serve_api_key_file,
            &mut layer.component,
            &mut layer.cache_dir,
        ]
        .into_iter()
        .flatten()
        {
            *path = folder.join(&path);
        }
        Ok(layer)
    }

    fn part(&self) -> NamedPart {
        NamedPart {
            shard: self.shard,
            shard_key: self.shard_key.as_ref().map(ToString::to_string),
            tenant: self.tenant.clone(),
        }
    }

    /// What this layer says, else what `below` says.
    fn over(self, below: Layer) -> Layer {
        // The two ways to give a key are one setting: a file named by a flag beats the
        // environment's key, and that beats a file named in the TOML file.
        let (api_key, api_key_file) = if self.api_key.is_some() || self.api_key_file.is_some() {
            (self.api_key, self.api_key_file)
        } else {
            (below.api_key, below.api_key_file)
        };
        let (serve_api_key, serve_api_key_file) =
            if self.serve_api_key.is_some() || self.serve_api_key_file.is_some() {
                (self.serve_api_key, self.serve_api_key_file)
            } else {
                (below.serve_api_key, below.serve_api_key_file)
            };
        Layer {
            data_dir: self.data_dir.or(below.data_dir),
            url_found_here: match self.url {
                Some(_) => self.url_found_here,
                None => below.url_found_here,
            },
            url: self.url.or(below.url),
            collection: self.collection.or(below.collection),
            api_key,
            api_key_file,
            key_from_environment: false,
            ca_file: self.ca_file.or(below.ca_file),
            client_certificate_file: self
                .client_certificate_file
                .or(below.client_certificate_file),
            client_key_file: self.client_key_file.or(below.client_key_file),
            shard: self.shard.or(below.shard),
            shard_key: self.shard_key.or(below.shard_key),
            tenant: self.tenant.or(below.tenant),
            component: self.component.or(below.component),
            cache_dir: self.cache_dir.or(below.cache_dir),
            durability: self.durability.or(below.durability),
            memory_mib: self.memory_mib.or(below.memory_mib),
            batch_operations: self.batch_operations.or(below.batch_operations),
            most_batch_operations: self.most_batch_operations.or(below.most_batch_operations),
            batch_bytes: self.batch_bytes.or(below.batch_bytes),
            attempts: self.attempts.or(below.attempts),
            listen: self.listen.or(below.listen),
            serve_api_key,
            serve_api_key_file,
            serve_connections: self.serve_connections.or(below.serve_connections),
            serve_queue: self.serve_queue.or(below.serve_queue),
            serve_readers: self.serve_readers.or(below.serve_readers),
            serve_bodies_mib: self.serve_bodies_mib.or(below.serve_bodies_mib),
            serve_head_seconds: self.serve_head_seconds.or(below.serve_head_seconds),
            serve_body_seconds: self.serve_body_seconds.or(below.serve_body_seconds),
            serve_answer_seconds: self.serve_answer_seconds.or(below.serve_answer_seconds),
            serve_stop_seconds: self.serve_stop_seconds.or(below.serve_stop_seconds),
            serve_idle_seconds: self.serve_idle_seconds.or(below.serve_idle_seconds),
            auto_optimize: self.auto_optimize.or(below.auto_optimize),
            compress_uploads: self.compress_uploads.or(below.compress_uploads),
        }
    }
}

fn bound_part(bound: &BoundServer) -> NamedPart {
    NamedPart {
        shard: bound.shard.map(FollowedShards::One),
        shard_key: bound.shard_key.clone(),
        tenant: bound.tenant.clone(),
    }
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Settings(Layer);

impl Settings {
    /// Reads all three sources. `has_shard`: the command is about the shard in the data directory,
    /// whose binding is a setting too.
    pub fn load(flags: &Flags, has_shard: bool) -> Result<Settings, Error> {
        let file = match &flags.config_file {
            Some(path) => Some(path.clone()),
            None => default_file(),
        };
        let file = match file {
            Some(path) => {
                let text = read_named("config_file", &path)?;
                let folder = path.parent().unwrap_or(Path::new(""));
                let mut layer = Layer::from_toml(&text, folder).map_err(|message| {
                    setting("config_file", format!("{}: {message}", path.display()))
                })?;
                layer.url_found_here = flags.config_file.is_none() && path == Path::new(FILE_NAME);
                layer
            }
            None => Layer::default(),
        };
        let environment = Layer::from_environment(|name| std::env::var_os(name))?;
        let mut merged = Layer::from_flags(flags).over(environment).over(file);
        merged.key_from_environment = merged.api_key.is_some();
        if let (None, Some(path)) = (&merged.api_key, &merged.api_key_file) {
            merged.api_key = Some(read_key("api_key_file", path)?);
        }
        let mut settings = Settings(merged);
        if !has_shard {
            settings.check()?;
            return Ok(settings);
        }
        // Once a shard is in step with a collection, that is where its commands go.
        if settings.data_dir().is_file() {
            let message = format!(
                "{} is a file; expected a folder, or a place for one",
                settings.data_dir().display()
            );
            return Err(setting("data_dir", message));
        }
        if let Some(bound) = bound_server(settings.data_dir())? {
            let of_settings = &mut settings.0;
            let part = of_settings.part().or_bound(bound_part(&bound));
            of_settings.shard = part.shard;
            of_settings.shard_key = part.shard_key.map(ShardKeySetting::Text);
            of_settings.tenant = part.tenant;
            of_settings.url.get_or_insert(bound.url);
            of_settings.collection.get_or_insert(bound.collection);
        }
        settings.check()?;
        Ok(settings)
    }

    /// What is wrong whatever the command is.
    fn check(&self) -> Result<(), Error> {
        let layer = &self.0;
        if let Some(mib) = layer.memory_mib.filter(|mib| !MEMORY_MIB.contains(mib)) {
            let (least, most) = (MEMORY_MIB.start(), MEMORY_MIB.end());
            let message =
                format!("{mib} is not in {least}..={most} (--memory-mib, EDGE_SYNC_MEMORY_MIB)");
            return Err(setting("memory_mib", message));
        }
        for (name, number) in [
            ("attempts", layer.attempts),
            ("batch_operations", layer.batch_operations),
            ("most_batch_operations", layer.most_batch_operations),
            ("batch_bytes", layer.batch_bytes),
        ] {
            if number == Some(0) {
                return Err(setting(name, "0; at least 1 is needed"));
            }
        }
        if let (Some(first), Some(most)) = (layer.batch_operations, layer.most_batch_operations)
            && first > most
        {
            let message = format!("{most} is less than batch_operations, which is {first}");
            return Err(setting("most_batch_operations", message));
        }
        let shard_key = layer.shard_key.as_ref().map(ToString::to_string);
        Routing::read(shard_key.as_deref(), layer.tenant.as_deref(), self.shard())
            .map(|_| ())
            .map_err(|(of, message)| setting(of.name(), message))
    }

    /// The only shard that is followed, if the settings name one.
    fn shard(&self) -> Option<u32> {
        self.0.shard.and_then(FollowedShards::number)
    }

    pub fn data_dir(&self) -> &Path {
        self.0
            .data_dir
            .as_deref()
            .unwrap_or(Path::new(DEFAULT_DATA_DIR))
    }

    /// `URL/collections/NAME`, for people, as far as it is set and can be a server's: what cannot may
    /// hold a password.
    pub fn server_name(&self) -> Option<String> {
        let (url, collection) = (self.0.url.as_deref()?, self.0.collection.as_deref()?);
        let server = ServerSettings::new(url, collection).checked().ok()?;
        Some(format!("{}/collections/{}", server.url, server.collection))
    }

    /// The collection that the shard is bound to, for people, if the settings name another one.
    pub fn contradiction(&self) -> Result<Option<String>, Error> {
        let Some(bound) = bound_server(self.data_dir())? else {
            return Ok(None);
        };
        let bound = ServerSettings::new(&bound.url, &bound.collection).checked()?;
        let bound = format!("{}/collections/{}", bound.url, bound.collection);
        let named = self.server_name();
        Ok(Some(bound).filter(|bound| named.is_some_and(|named| named != *bound)))
    }

    /// Which part of the server's collection, as it is set; null for all of it.
    pub fn part(&self) -> Value {
        if self.shard().is_none() && self.0.shard_key.is_none() && self.0.tenant.is_none() {
            return Value::Null;
        }
        json!({
            "shard": self.shard(),
            "shard_key": self.0.shard_key.as_ref().map(ToString::to_string),
            "tenant": self.0.tenant,
        })
    }

    /// The part of the collection, for people.
    pub fn part_text(&self) -> Option<String> {
        let layer = &self.0;
        let parts = [
            self.shard().map(|shard| format!("shard {shard}")),
            layer
                .shard_key
                .as_ref()
                .map(|key| format!("shard key {key}")),
            layer
                .tenant
                .as_ref()
                .map(|tenant| format!("tenant {tenant}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// `on_compile`: as [`ComponentOptions::on_compile`].
    pub fn component(
        &self,
        on_compile: impl Fn() + Send + Sync + 'static,
    ) -> Result<Component, Error> {
        let path = Component::find(self.0.component.as_deref())?;
        let mut options = ComponentOptions::cached().on_compile(on_compile);
        if let Some(cache) = &self.0.cache_dir {
            options = options.cache(cache);
        }
        Component::load_with(path, &options)
    }

    pub fn shard_options(&self) -> ShardOptions {
        let mut options = ShardOptions::default();
        if let Some(DurabilitySetting(durability)) = self.0.durability {
            options.durability = durability;
        }
        if let Some(mib) = self.0.memory_mib {
            options.memory_bytes = mib.saturating_mul(1 << 20);
        }
        options
    }

    pub fn sync_options(&self) -> SyncOptions {
        let defaults = SyncOptions::default();
        let batch = defaults
            .batch
            .operations(self.0.batch_operations.unwrap_or(defaults.batch.operations))
            .most_operations(
                self.0
                    .most_batch_operations
                    .unwrap_or(defaults.batch.most_operations),
            )
            .bytes(self.0.batch_bytes.unwrap_or(defaults.batch.bytes));
        let attempts = self.0.attempts.unwrap_or(defaults.attempts);
        defaults.batch(batch).attempts(attempts)
    }

    /// What `serve` is told by its own flags, over what the environment and the file say.
    pub fn serving(&self, flags: &Serve) -> Result<Serving, Error> {
        let key = match (&flags.serve_api_key_file, &self.0.serve_api_key) {
            (Some(file), _) => Some(read_key("serve_api_key_file", file)?),
            (None, Some(key)) => Some(key.clone()),
            (None, None) => self
                .0
                .serve_api_key_file
                .as_deref()
                .map(|file| read_key("serve_api_key_file", file))
                .transpose()?,
        };
        if let Some(key) = &key {
            let text = key.expose();
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(setting(
                    "serve_api_key",
                    "a key has at least one character, and only such as can be in a header: \
                     letters, digits and punctuation of ASCII",
                ));
            }
        }
        let listen = flags.listen.as_deref().or(self.0.listen.as_deref());
        let listen = listen.unwrap_or(DEFAULT_LISTEN);
        let addresses: Vec<SocketAddr> = listen
            .to_socket_addrs()
            .map_err(|error| {
                let message = format!("`{listen}` is no ADDRESS:PORT to listen on: {error}");
                setting("listen", message)
            })?
            .collect();
        let remote = addresses.iter().any(|address| !address.ip().is_loopback());
        if remote && !flags.allow_remote {
            return Err(setting(
                "listen",
                format!(
                    "`{listen}` can be reached from other machines; give --allow-remote if that is \
                     meant"
                ),
            ));
        }
        if remote && key.is_none() {
            return Err(setting(
                "serve_api_key",
                format!(
                    "`{listen}` can be reached from other machines, so an API key is required: set \
                     EDGE_SYNC_SERVE_API_KEY, or give --serve-api-key-file"
                ),
            ));
        }
        let readers = self.serve_readers(flags)?;
        Ok(Serving {
            addresses,
            key,
            limits: self.serve_limits(readers)?,
            readers,
            stop_time: seconds("serve_stop_seconds", self.0.serve_stop_seconds, STOP_TIME)?,
            idle_time: seconds("serve_idle_seconds", self.0.serve_idle_seconds, IDLE_TIME)?,
            auto_optimize: flags.auto_optimize || self.0.auto_optimize.unwrap_or(false),
        })
    }

    /// Most instances that answer reads beside each shard's own.
    fn serve_readers(&self, flags: &Serve) -> Result<usize, Error> {
        match flags.readers.or(self.0.serve_readers) {
            Some(readers) if readers <= MOST_READERS => Ok(readers),
            Some(readers) => {
                let message = format!("{readers} is not in 0..={MOST_READERS}");
                Err(setting("serve_readers", message))
            }
            // The shard's own instance has the first core.
            None => Ok((cores() - 1).min(READERS)),
        }
    }

    /// How much `serve` does and holds at once.
    fn serve_limits(&self, readers: usize) -> Result<Limits, Error> {
        let defaults = Limits::default();
        let layer = &self.0;
        let bodies = match layer.serve_bodies_mib {
            Some(mib) => within("serve_bodies_mib", mib, MOST_BODIES_MIB)? << 20,
            None => defaults.bodies,
        };
        let count = |name, count: Option<usize>, default| match count {
            Some(count) => within(name, count, MOST_CONNECTIONS),
            None => Ok(default),
        };
        Ok(Limits {
            at_once: defaults.at_once + readers,
            connections: count(
                "serve_connections",
                layer.serve_connections,
                defaults.connections,
            )?,
            queue: count("serve_queue", layer.serve_queue, defaults.queue)?,
            bodies,
            head_time: seconds(
                "serve_head_seconds",
                layer.serve_head_seconds,
                defaults.head_time,
            )?,
            body_grace: seconds(
                "serve_body_seconds",
                layer.serve_body_seconds,
                defaults.body_grace,
            )?,
            answer_time: seconds(
                "serve_answer_seconds",
                layer.serve_answer_seconds,
                defaults.answer_time,
            )?,
        })
    }

    /// The collection that is set.
    pub fn collection(&self) -> Option<&str> {
        self.0.collection.as_deref()
    }

    /// True if a server is set.
    pub fn has_url(&self) -> bool {
        self.0.url.is_some()
    }

    /// The server's URL, as it was set.
    pub fn url(&self) -> Option<&str> {
        self.0.url.as_deref()
    }

    /// The server, which the command at hand cannot do without.
    pub fn server(&self) -> Result<ServerSettings, Error> {
        self.server_with(None)
    }

    /// [`Settings::server`], with a collection for when none is set.
    pub fn server_with(&self, collection: Option<&str>) -> Result<ServerSettings, Error> {
        let url = self
            .0
            .url
            .as_ref()
            .ok_or_else(|| setting("url", "no server is set; give --url or QDRANT_URL"))?;
        let collection = self.collection().or(collection).ok_or_else(|| {
            setting(
                "collection",
                "no collection is set; give --collection or EDGE_SYNC_COLLECTION",
            )
        })?;
        self.server_of(url, collection)
    }

    /// The server of the shard in `directory`, one of several, which is served as `collection`: the
    /// one that it is bound to, or else the one that is set. None if neither is there.
    pub fn server_in(
        &self,
        directory: &Path,
        collection: &str,
    ) -> Result<Option<ServerSettings>, Error> {
        let bound = bound_server(directory)?;
        let (url, collection) = match (&self.0.url, &bound) {
            (Some(url), Some(bound)) => (url, bound.collection.as_str()),
            (Some(url), None) => (url, collection),
            (None, Some(bound)) => (&bound.url, bound.collection.as_str()),
            (None, None) => return Ok(None),
        };
        let mut server = self.server_of(url, collection)?;
        if let Some(bound) = bound {
            let part = self.0.part().or_bound(bound_part(&bound));
            server.shard = part.shard_number();
            server.shard_key = part.shard_key;
            server.tenant = part.tenant;
        }
        Ok(Some(server))
    }

    fn server_of(&self, url: &str, collection: &str) -> Result<ServerSettings, Error> {
        if self.0.url_found_here && self.0.key_from_environment {
            return Err(setting(
                "url",
                format!(
                    "it comes from {FILE_NAME} in the working directory, to which the key in \
                     QDRANT_API_KEY is not sent; give the URL with --url or QDRANT_URL, or the file \
                     with --config-file {FILE_NAME}"
                ),
            ));
        }
        let mut server = ServerSettings::new(url, collection);
        server.api_key = self.0.api_key.clone();
        server.shard = self.shard();
        server.shard_key = self.0.shard_key.as_ref().map(ToString::to_string);
        server.tenant = self.0.tenant.clone();
        server.tls = self.tls()?;
        server.compress_uploads = self.0.compress_uploads.unwrap_or(false);
        server.checked()
    }

    fn tls(&self) -> Result<TlsSettings, Error> {
        let files = (&self.0.client_certificate_file, &self.0.client_key_file);
        let client = match files {
            (Some(certificate), Some(key)) => {
                Some(ClientCertificate::new(certificate.clone(), key.clone()))
            }
            (None, None) => None,
            (Some(_), None) => {
                let message = "client_certificate_file needs it; both may name one file";
                return Err(setting("client_key_file", message));
            }
            (None, Some(_)) => {
                let message = "client_key_file needs it; both may name one file";
                return Err(setting("client_certificate_file", message));
            }
        };
        Ok(TlsSettings::default()
            .ca_file(self.0.ca_file.clone())
            .client(client))
    }
}

/// Where and for whom `serve` answers.
#[derive(Debug)]
pub struct Serving {
    /// What the address to listen on stands for; the first that can be had is taken.
    pub addresses: Vec<SocketAddr>,
    /// The key that clients have to present.
    pub key: Option<Secret>,
    /// How much is done and held at once.
    pub limits: Limits,
    /// Most instances that answer reads beside each shard's own.
    pub readers: usize,
    /// How long the end waits for requests under way, and then for the shard.
    pub stop_time: Duration,
    /// How long a shard of several stays open without a request.
    pub idle_time: Duration,
    /// Optimize whenever there is enough to index, without a server.
    pub auto_optimize: bool,
}

/// A number from 1 on.
fn within(name: &'static str, number: usize, most: usize) -> Result<usize, Error> {
    if (1..=most).contains(&number) {
        return Ok(number);
    }
    Err(setting(name, format!("{number} is not in 1..={most}")))
}

/// A time, as [`within`].
fn seconds(name: &'static str, seconds: Option<u64>, default: Duration) -> Result<Duration, Error> {
    match seconds {
        None => Ok(default),
        Some(seconds) if (1..=MOST_SECONDS).contains(&seconds) => Ok(Duration::from_secs(seconds)),
        Some(seconds) => Err(setting(
            name,
            format!("{seconds} is not in 1..={MOST_SECONDS}"),
        )),
    }
}

fn read_key(name: &'static str, path: &Path) -> Result<Secret, Error> {
    let key = Secret::new(read_named(name, path)?);
    if key.expose().is_empty() {
        let message = format!("{} is empty; expected a key", path.display());
        return Err(setting(name, message));
    }
    Ok(key)
}

/// The text in a file that the setting `name` names.
fn read_named(name: &'static str, path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "there is no such file".to_owned(),
            std::io::ErrorKind::IsADirectory => "that is a folder; expected a file".to_owned(),
            _ => error.to_string(),
        };
        setting(name, format!("{}: {why}", path.display()))
    })
}

fn setting(name: &'static str, message: impl Into<String>) -> Error {
    Error::Setting {
        name,
        message: message.into(),
    }
}

fn default_file() -> Option<PathBuf> {
    let configuration = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".config")));
    [
        Some(PathBuf::from(FILE_NAME)),
        configuration.map(|folder| folder.join("edge-sync").join(FILE_NAME)),
    ]
    .into_iter()
    .flatten()
    .find(|path| path.is_file())
}

/// Cores that this process may use; 1 if nobody tells.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Layer {
        let variables: Vec<(String, String)> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Layer::from_environment(|name| {
            variables
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.into())
        })
        .unwrap()
    }

    #[test]
    fn flags_beat_the_environment_and_that_beats_the_file() {
        let file = Layer::from_toml(
            "data_dir = \"data\"\nurl = \"http://file\"\ncollection = \"file\"\nattempts = 3\n\
             durability = \"interval:200\"",
            Path::new("/etc/edge"),
        )
        .unwrap();
        let environment = environment(&[
            ("QDRANT_URL", "http://environment"),
            ("EDGE_SYNC_COLLECTION", "environment"),
            ("EDGE_SYNC_DATA_DIR", ""),
        ]);
        let flags = Layer::from_flags(&Flags {
            url: Some("http://flag".into()),
            ..Flags::default()
        });
        let settings = Settings(flags.over(environment).over(file));
        let server = settings.server().unwrap();
        assert_eq!(server.url, "http://flag");
        assert_eq!(server.collection, "environment");
        assert_eq!(settings.data_dir(), Path::new("/etc/edge/data"));
        assert_eq!(settings.sync_options().attempts, 3);
        assert_eq!(
            settings.shard_options().durability,
            edge_sync_host::Durability::Interval(200)
        );
    }

    #[test]
    fn the_api_key_comes_from_the_topmost_source_that_has_one() {
        let file = Layer::from_toml("api_key_file = \"key\"", Path::new("/f")).unwrap();
        let variable = environment(&[("QDRANT_API_KEY", "secret")]);
        let merged = Layer::default().over(variable.clone()).over(file.clone());
        assert_eq!(merged.api_key, Some(Secret::new("secret")));
        assert!(merged.api_key_file.is_none());

        let flags = Layer::from_flags(&Flags {
            api_key_file: Some("flag".into()),
            ..Flags::default()
        });
        let merged = flags.over(variable).over(file.clone());
        assert_eq!(
            (merged.api_key, merged.api_key_file),
            (None, Some("flag".into()))
        );

        let merged = Layer::default().over(file);
        assert_eq!(merged.api_key_file, Some("/f/key".into()));
        assert!(
            !format!("{:?}", environment(&[("QDRANT_API_KEY", "hunter2")])).contains("hunter2")
        );
    }

    #[test]
    fn a_key_of_the_environment_is_not_for_a_url_that_was_found_here() {
        let file = |found_here| Layer {
            url: Some("http://file".into()),
            collection: Some("c".into()),
            url_found_here: found_here,
            ..Layer::default()
        };
        let key = || environment(&[("QDRANT_API_KEY", "secret")]);
        let merged = |above: Layer, found_here| {
            let mut merged = above.over(file(found_here));
            merged.key_from_environment = true;
            Settings(merged)
        };
        let refused = merged(key(), true).server().unwrap_err().to_string();
        assert!(refused.contains("--config-file"), "{refused}");
        assert!(!refused.contains("secret"), "{refused}");
        assert!(merged(key(), false).server().is_ok());
        let variables = [("QDRANT_API_KEY", "secret"), ("QDRANT_URL", "http://mine")];
        let server = merged(environment(&variables), true).server().unwrap();
        assert_eq!(server.url, "http://mine");
    }

    #[test]
    fn certificates_are_named_in_pairs_and_by_the_folder_of_the_file() {
        let text = "ca_file = \"ca.pem\"\nclient_certificate_file = \"/c.pem\"";
        let settings = Settings(Layer::from_toml(text, Path::new("/f")).unwrap());
        let refused = settings.tls().unwrap_err().to_string();
        assert!(refused.contains("client_key_file"), "{refused}");
        let text = format!("{text}\nclient_key_file = \"k.pem\"");
        let tls = Settings(Layer::from_toml(&text, Path::new("/f")).unwrap()).tls();
        let tls = tls.unwrap();
        assert_eq!(tls.ca_file, Some("/f/ca.pem".into()));
        let client = tls.client.unwrap();
        assert_eq!(client.certificate_file, Path::new("/c.pem"));
        assert_eq!(client.key_file, Path::new("/f/k.pem"));
    }

    #[test]
    fn what_serve_is_told_comes_from_its_flags_first() {
        let file = Layer::from_toml(
            "listen = \"127.0.0.1:1\"\nserve_api_key_file = \"nowhere\"",
            Path::new("/f"),
        )
        .unwrap();
        let variables = environment(&[
            ("EDGE_SYNC_LISTEN", "127.0.0.1:2"),
            ("EDGE_SYNC_SERVE_API_KEY", "secret"),
            // The server's, which is another.
            ("QDRANT_API_KEY", "other"),
        ]);
        let mut flags = Serve {
            listen: None,
            collections: None,
            allow_remote: false,
            serve_api_key_file: None,
            no_sync: false,
            no_pull: false,
            every: None,
            readers: None,
            auto_optimize: false,
        };
        let settings = Settings(Layer::default().over(variables).over(file));
        let serving = settings.serving(&flags).unwrap();
        assert!(!serving.auto_optimize);
        flags.auto_optimize = true;
        assert!(settings.serving(&flags).unwrap().auto_optimize);
        flags.auto_optimize = false;
        assert_eq!(serving.addresses, ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(serving.key, Some(Secret::new("secret")));

        flags.listen = Some("[::]:3".into());
        let refused = settings.serving(&flags).unwrap_err().to_string();
        assert!(refused.contains("--allow-remote"), "{refused}");
        flags.allow_remote = true;
        assert!(settings.serving(&flags).is_ok());
        let without_key = Settings(Layer::default());
        let refused = without_key.serving(&flags).unwrap_err().to_string();
        assert!(refused.contains("EDGE_SYNC_SERVE_API_KEY"), "{refused}");
        flags.listen = Some("[::1]:3".into());
        assert!(without_key.serving(&flags).is_ok());
    }

    #[test]
    fn optimizing_unasked_is_a_setting_of_each_source() {
        let file = Layer::from_toml("auto_optimize = true", Path::new("/f")).unwrap();
        assert_eq!(
            Layer::default().over(file.clone()).auto_optimize,
            Some(true)
        );
        let variable = environment(&[("EDGE_SYNC_AUTO_OPTIMIZE", "false")]);
        assert_eq!(variable.over(file).auto_optimize, Some(false));
        let wrong = Layer::from_environment(|name| {
            (name == "EDGE_SYNC_AUTO_OPTIMIZE").then(|| "sometimes".into())
        });
        let refused = wrong.unwrap_err().to_string();
        assert!(refused.contains("EDGE_SYNC_AUTO_OPTIMIZE"), "{refused}");
    }

    #[test]
    fn misspelt_settings_and_keys_in_the_file_are_refused() {
        for text in [
            "urll = \"x\"",
            "api_key = \"secret\"",
            "durability = \"never\"",
        ] {
            assert!(Layer::from_toml(text, Path::new("")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_variable_is_told() {
        for known in [
            "EDGE_SYNC_URL_OF_OTHERS",
            "EDGE_SYNC_COLLECTON",
            "EDGE_SYNC_DATADIR",
        ] {
            assert!(unknown_variable(known).is_some(), "{known}");
        }
        let told = unknown_variable("EDGE_SYNC_COLLECTON").unwrap();
        assert!(
            told.ends_with("did you mean EDGE_SYNC_COLLECTION?"),
            "{told}"
        );
        assert!(!unknown_variable("EDGE_SYNC_X").unwrap().contains("mean"));
        for name in VARIABLES
            .into_iter()
            .chain(["PATH", "QDRANT_URL", "EDGE_SYNC_LOG"])
        {
            assert!(unknown_variable(name).is_none(), "{name}");
        }
    }

    #[test]
    fn what_qdrants_clients_read_is_named_by_its_variable() {
        let told = unknown_variable("EDGE_SYNC_URL").unwrap();
        assert!(told.ends_with("that is QDRANT_URL"), "{told}");
    }

    #[test]
    fn a_value_that_is_wrong_is_shown_with_what_is_taken() {
        let refused = |name: &'static str, value: &'static str| {
            let layer = Layer::from_environment(|asked| (asked == name).then(|| value.into()));
            layer.unwrap_err().to_string()
        };
        for (name, value, words) in [
            (
                "EDGE_SYNC_MEMORY_MIB",
                "much",
                "`much` is not a whole number",
            ),
            (
                "EDGE_SYNC_SHARD",
                "one",
                "`one` is neither the number of a shard nor `all`",
            ),
            (
                "EDGE_SYNC_AUTO_OPTIMIZE",
                "now",
                "`now` is neither `true` nor `false`",
            ),
            ("EDGE_SYNC_DURABILITY", "never", "expected `always`"),
            ("EDGE_SYNC_SERVE_API_KEY", "", "is empty"),
        ] {
            let told = refused(name, value);
            assert!(told.contains(name) && told.contains(words), "{told}");
        }
        for (mib, is_right) in [
            (0, false),
            (31, false),
            (32, true),
            (4096, true),
            (4097, false),
        ] {
            let settings = Settings(environment(&[("EDGE_SYNC_MEMORY_MIB", &mib.to_string())]));
            let checked = settings.check();
            assert_eq!(checked.is_ok(), is_right, "{checked:?}");
            if let Err(refused) = checked {
                let told = refused.to_string();
                assert!(
                    told.contains("32..=4096") && told.contains("EDGE_SYNC_MEMORY_MIB"),
                    "{told}"
                );
            }
        }
    }

    #[test]
    fn a_shard_is_a_number_or_all_and_goes_with_no_key() {
        let of = |text: &str| Settings(Layer::from_toml(text, Path::new("/f")).unwrap());
        assert_eq!(of("shard = 1").part()["shard"], 1);
        assert_eq!(of("shard = \"1\"").part()["shard"], 1);
        assert_eq!(of("shard = \"all\"").part(), Value::Null);
        assert!(Layer::from_toml("shard = \"some\"", Path::new("/f")).is_err());
        let both = of("shard = 1\nshard_key = \"a\"").check().unwrap_err();
        assert!(both.to_string().contains("cannot go together"), "{both}");
        let tenant = of("tenant = \"user\"").check().unwrap_err().to_string();
        assert!(tenant.contains("FIELD=VALUE"), "{tenant}");
    }

    #[test]
    fn the_first_request_is_no_larger_than_the_largest() {
        let layer = |first, most| Layer {
            batch_operations: Some(first),
            most_batch_operations: Some(most),
            ..Layer::default()
        };
        assert!(Settings(layer(100, 100)).check().is_ok());
        let refused = Settings(layer(500, 100)).check().unwrap_err().to_string();
        assert!(
            refused.contains("most_batch_operations") && refused.contains("500"),
            "{refused}"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_a_wrong_setting() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read_key("api_key_file", &folder.path().join("key")).unwrap_err();
        assert!(
            matches!(
                missing,
                Error::Setting {
                    name: "api_key_file",
                    ..
                }
            ),
            "{missing}"
        );
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let refused = read_key("api_key_file", &empty).unwrap_err().to_string();
        assert!(refused.contains("is empty"), "{refused}");
    }

    #[test]
    fn missing_server_settings_say_how_to_give_them() {
        let error = Settings(Layer::default()).server().unwrap_err();
        assert!(error.to_string().contains("QDRANT_URL"), "{error}");
    }
}
