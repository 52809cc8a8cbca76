//! `wasi:cli/run`: the component as a program under a stock engine.
//!
//! ```sh
//! wasmtime run -S http --dir ./data::/data edge_sync.wasm create --config config.json
//! ```

use std::fs;
use std::io::{self, BufRead, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

use crate::Component;
use crate::binding;
use crate::bindings::courier::{Server as ServerSettings, SnapshotSource};
use crate::bindings::shard::Opened;
use crate::bindings::sync::SyncOptions;
use crate::bindings::types::{Durability, Options};
use crate::courier::Server;
use crate::directory::Directory;
use crate::error::{Error, Result, describe, invalid, storage};
use crate::exports::{close, open_with, with_store};
use crate::queue;
use crate::store::Store;
use crate::sync;

/// A local Qdrant Edge shard, kept in step with a collection on a Qdrant server.
///
/// Prints REST results as JSON. The API key comes from QDRANT_API_KEY only.
#[derive(Parser)]
#[command(name = "edge-sync", version)]
struct Arguments {
    /// The shard's directory, as the engine mounts it.
    #[arg(long, env = "EDGE_SYNC_DATA_DIR", default_value = "/data")]
    data_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Create a shard from the body of `PUT /collections/{c}`.
    Create {
        /// A JSON file; standard input without it.
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// Upsert REST points, one JSON object a line.
    Upsert {
        /// A JSON Lines file; standard input without it.
        file: Option<PathBuf>,
        /// Points a write.
        #[arg(long, default_value_t = 100)]
        batch_size: usize,
    },
    /// Delete points by id (a number or a UUID).
    Delete { ids: Vec<String> },
    /// Answer the body of `POST /points/query`.
    Search {
        /// A JSON file; standard input without it.
        file: Option<PathBuf>,
    },
    /// Answer any request of the points API, given as method and path below the collection.
    Request {
        method: String,
        path: String,
        /// A JSON file; standard input without it.
        file: Option<PathBuf>,
    },
    /// Merge segments and build indexes.
    Optimize,
    /// Show the shard's configuration and counts.
    Info,
    /// Show where the upload queue stands.
    Status,
    /// Upload what is queued.
    Sync {
        #[command(flatten)]
        server: ServerArguments,
        /// Operations a request.
        #[arg(long, default_value_t = 10)]
        batch_size: u32,
        /// Attempts at each request while failures are passing ones.
        #[arg(long, default_value_t = 5)]
        attempts: u32,
        /// Take the address and the collection for those that were used before, in a new place.
        #[arg(long)]
        rebind: bool,
        /// Queue everything that the shard holds again, for a server that has lost it.
        #[arg(long)]
        resend: bool,
    },
    /// Restore from the server's snapshot, or from a local one.
    Restore {
        /// A shard snapshot file.
        #[arg(long)]
        snapshot: Option<PathBuf>,
        /// Restore although many points would be dropped, or from another collection than before.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: ServerArguments,
    },
}

#[derive(clap::Args)]
struct ServerArguments {
    /// The server's address.
    #[arg(long, env = "QDRANT_URL")]
    url: Option<String>,
    /// The collection on the server.
    #[arg(long, env = "EDGE_SYNC_COLLECTION")]
    collection: Option<String>,
    /// Which of the collection's shards to restore from.
    #[arg(long, default_value_t = 0)]
    shard: u32,
}

impl ServerArguments {
    /// What is not given is what the shard was bound to before.
    fn server(self, directory: &Directory) -> Result<Server> {
        let missing = |field: &str, variable: &str| {
            invalid(field, format!("not set; give --{field} or {variable}"))
        };
        let bound = binding::load(directory)?;
        let (url, collection) = match bound {
            Some(bound) => (Some(bound.url), Some(bound.collection)),
            None => (None, None),
        };
        Server::new(ServerSettings {
            url: self
                .url
                .or(url)
                .ok_or_else(|| missing("url", "QDRANT_URL"))?,
            collection: self
                .collection
                .or(collection)
                .ok_or_else(|| missing("collection", "EDGE_SYNC_COLLECTION"))?,
            api_key: std::env::var("QDRANT_API_KEY").ok(),
            shard: self.shard,
            connect_timeout_ms: 10_000,
        })
    }
}

const OPTIONS: Options = Options {
    durability: Durability::Always,
    log_segment_bytes: None,
    flush_after_bytes: None,
    memory_bytes: None,
};

impl crate::bindings::exports::wasi::cli::run::Guest for Component {
    fn run() -> std::result::Result<(), ()> {
        let arguments = match Arguments::try_parse() {
            Ok(arguments) => arguments,
            Err(error) => {
                // Help and version are answers, not failures.
                let failed = error.use_stderr();
                let _ = error.print();
                return if failed { Err(()) } else { Ok(()) };
            }
        };
        run(arguments).map_err(|error| {
            let _ = writeln!(io::stderr(), "edge-sync: {}", describe(&error));
        })
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let directory = Directory::new(arguments.data_dir);
    let answer = match arguments.command {
        Command::Create { config } => {
            let config = read_text(config.as_deref())?;
            let opened = open_with(|| Store::create(directory, &config, OPTIONS))?;
            opened_json(opened)
        }
        Command::Restore {
            snapshot,
            force,
            server,
        } => restore(directory, snapshot.as_deref(), force, server)?,
        command => {
            // Alone with the directory, so nobody is downloading.
            directory.clear_staging()?;
            let opened = open_with(|| Store::open(directory.clone(), OPTIONS))?;
            for note in opened.notes {
                let _ = writeln!(io::stderr(), "edge-sync: note: {note}");
            }
            on_shard(command, &directory)?
        }
    };
    // First: what was done is done, however the shard closes.
    let printed = writeln!(io::stdout(), "{answer}")
        .map_err(|error| storage("write the answer", Path::new("<stdout>"), &error));
    for note in close()? {
        let _ = writeln!(io::stderr(), "edge-sync: note: {note}");
    }
    printed
}

fn restore(
    directory: Directory,
    snapshot: Option<&Path>,
    force: bool,
    server: ServerArguments,
) -> Result<Value> {
    // A snapshot that lies there is the user's.
    let is_there = |snapshot: &Path| snapshot.starts_with(directory.staging());
    if !snapshot.is_some_and(is_there) {
        directory.clear_staging()?;
    }
    match open_with(|| Store::open(directory.clone(), OPTIONS)) {
        Ok(_) | Err(Error::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let opened = match snapshot {
        Some(snapshot) => sync::restore_file(directory, snapshot, OPTIONS)?,
        None => {
            let server = server.server(&directory)?;
            sync::restore(directory, &server, SnapshotSource::Stream, force, OPTIONS)?
        }
    };
    Ok(opened_json(opened))
}

fn on_shard(command: Command, directory: &Directory) -> Result<Value> {
    match command {
        Command::Create { .. } | Command::Restore { .. } => {
            Err(Error::Internal("this command opens no shard".to_owned()))
        }
        Command::Upsert { file, batch_size } => upsert(file.as_deref(), batch_size),
        Command::Delete { ids } => {
            let points: Vec<Value> = ids
                .into_iter()
                .map(|id| {
                    id.parse::<u64>()
                        .map_or_else(|_| json!(id), |number| json!(number))
                })
                .collect();
            let body = json!({ "points": points }).to_string();
            with_store(|store| store.request("POST", "/points/delete", &body))
        }
        Command::Search { file } => {
            let body = read_text(file.as_deref())?;
            with_store(|store| store.request("POST", "/points/query", &body))
        }
        Command::Request { method, path, file } => {
            let bodyless = matches!(method.as_str(), "GET" | "DELETE") && file.is_none();
            let body = if bodyless {
                String::new()
            } else {
                read_text(file.as_deref())?
            };
            with_store(|store| store.request(&method, &path, &body))
        }
        Command::Optimize => with_store(|store| Ok(json!({ "optimized": store.optimize()? }))),
        Command::Info => with_store(|store| {
            let shard = store.shard()?;
            let info = shard.info()?;
            Ok(json!({
                "config": shard.config().to_json(),
                "payload_schema": info.payload_schema,
                "points_count": info.points,
                "indexed_vectors_count": info.indexed_vectors,
                "segments_count": info.segments,
                "generation": store.current().generation,
            }))
        }),
        Command::Status => with_store(|store| {
            let status = queue::status(store)?;
            Ok(json!({
                "logged": status.logged,
                "applied": status.applied,
                "acknowledged": status.acknowledged,
                "queued": status.queued,
                "queued_bytes": status.queued_bytes,
                "oldest_queued_ms": status.oldest_queued_ms,
                "rejected": status.rejected,
            }))
        }),
        Command::Sync {
            server,
            batch_size,
            attempts,
            rebind,
            resend,
        } => {
            let server = server.server(directory)?;
            let options = SyncOptions {
                operations: batch_size,
                bytes: 8 << 20,
                attempts,
                patience_ms: 60_000,
                rebind,
                resend,
            };
            let report = with_store(|store| sync::drain(store, &server, &options))?;
            if let Some(failure) = report.failure {
                return Err(failure);
            }
            Ok(json!({
                "uploaded": report.uploaded,
                "requests": report.requests,
                "rejected": report.rejected,
                "remaining": report.remaining,
                "created_collection": report.created_collection,
            }))
        }
    }
}

fn upsert(file: Option<&Path>, batch_size: usize) -> Result<Value> {
    if batch_size == 0 {
        return Err(invalid("batch-size", "0 points; at least 1 is needed"));
    }
    let name = file.map_or(Path::new("<stdin>"), |file| file);
    let mut lines: Box<dyn BufRead> = match file {
        Some(path) => Box::new(io::BufReader::new(
            fs::File::open(path).map_err(|error| storage("open points", path, &error))?,
        )),
        None => Box::new(io::stdin().lock()),
    };
    let mut points = Vec::with_capacity(batch_size);
    let mut written = 0_usize;
    let mut line = String::new();
    for number in 1_usize.. {
        line.clear();
        let length = lines
            .read_line(&mut line)
            .map_err(|error| storage("read points", name, &error))?;
        if !line.trim().is_empty() {
            let point: Value = serde_json::from_str(&line)
                .map_err(|error| invalid(format!("line {number}"), format!("not JSON: {error}")))?;
            points.push(point);
        }
        if points.len() == batch_size || (length == 0 && !points.is_empty()) {
            written += points.len();
            let body = json!({ "points": std::mem::take(&mut points) }).to_string();
            with_store(|store| store.request("PUT", "/points", &body)).map_err(
                |error| match error {
                    Error::InvalidInput(input) => invalid(
                        format!("lines up to {number}: {}", input.field),
                        input.message,
                    ),
                    other => other,
                },
            )?;
        }
        if length == 0 {
            break;
        }
    }
    Ok(json!({ "upserted": written }))
}

fn read_text(file: Option<&Path>) -> Result<String> {
    let mut text = String::new();
    match file {
        Some(path) => fs::File::open(path)
            .and_then(|mut file| file.read_to_string(&mut text))
            .map_err(|error| storage("read", path, &error))?,
        None => io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| storage("read", Path::new("<stdin>"), &error))?,
    };
    Ok(text)
}

fn opened_json(opened: Opened) -> Value {
    json!({
        "generation": opened.generation,
        "replayed": opened.replayed,
        "notes": opened.notes,
    })
}
