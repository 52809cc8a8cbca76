//! `wasi:cli/run`: the component as a program under a stock engine.
//!
//! ```sh
//! wasmtime run -S http --dir ./data::/data edge_sync.wasm create --config config.json
//! ```

use std::fs;
use std::io::{self, BufRead, Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};
use edge_sync_upload::{FollowedShards, NamedPart};
use serde_json::{Value, json};

use crate::Component;
use crate::binding;
use crate::bindings::courier::{Server as ServerSettings, SnapshotSource};
use crate::bindings::peek::Mirror;
use crate::bindings::queue::WaitingOperation;
use crate::bindings::shard::Opened;
use crate::bindings::sync::{Direction, PullReport, SyncOptions};
use crate::bindings::types::{Durability, Options};
use crate::courier::Server;
use crate::directory::Directory;
use crate::error::{Error, Result, describe, invalid, storage};
use crate::instance::{close, open_with, request, with_store};
use crate::listing::PAGE_OPERATIONS;
use crate::peek;
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
        /// Points in each write.
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
    /// Upload what is queued, then fetch what others wrote.
    Sync {
        #[command(flatten)]
        server: ServerArguments,
        /// Operations of the first request.
        #[arg(long, default_value_t = 10)]
        batch_size: u32,
        /// Most operations of a request, to which the first grows while answers come quickly.
        #[arg(long, default_value_t = 1000)]
        most_batch_size: u32,
        /// Attempts at each request while failures are passing ones.
        #[arg(long, default_value_t = 5)]
        attempts: u32,
        /// Take the address and the collection for those that were used before, in a new place.
        #[arg(long)]
        rebind: bool,
        /// Queue everything that the shard holds again, for a server that has lost it.
        #[arg(long)]
        resend: bool,
        /// Upload only.
        #[arg(long, conflicts_with = "pull")]
        push: bool,
        /// Fetch only.
        #[arg(long, conflicts_with = "resend")]
        pull: bool,
        /// Create the shard key if the collection does not have it.
        #[arg(long)]
        create_shard_key: bool,
    },
    /// Operations that wait for upload.
    #[command(subcommand)]
    Queue(Queue),
    /// Operations that the server refused.
    #[command(subcommand)]
    Rejected(Rejected),
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

#[derive(Subcommand)]
enum Queue {
    /// Show the head of the queue, as the request that it would be.
    Show {
        /// How many operations.
        #[arg(long, default_value_t = 1)]
        limit: u32,
        /// Begin after this sequence.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Move the head of the queue to the rejected log.
    Skip {
        /// How many operations.
        #[arg(long, default_value_t = 1)]
        count: u32,
    },
}

#[derive(Subcommand)]
enum Rejected {
    /// Show them, with the server's words.
    List {
        /// How many; all of them without it.
        #[arg(long)]
        limit: Option<u32>,
        /// Begin after this sequence.
        #[arg(long, default_value_t = 0)]
        after: u64,
    },
    /// Queue them again.
    Retry(Chosen),
    /// Forget them.
    Drop(Chosen),
}

#[derive(clap::Args)]
struct Chosen {
    /// Sequences, as `list` shows them.
    #[arg(required_unless_present = "all")]
    sequences: Vec<u64>,
    /// All of them.
    #[arg(long, conflicts_with = "sequences")]
    all: bool,
}

#[derive(clap::Args)]
struct ServerArguments {
    /// The server's address.
    #[arg(long, env = "QDRANT_URL")]
    url: Option<String>,
    /// The collection on the server.
    #[arg(long, env = "EDGE_SYNC_COLLECTION")]
    collection: Option<String>,
    /// Only this shard of a collection of several; `all` for all of them again.
    #[arg(long, env = "EDGE_SYNC_SHARD", value_name = "N", conflicts_with_all = ["shard_key", "tenant"])]
    shard: Option<FollowedShards>,
    /// The shard key, in a collection that is sharded by keys.
    #[arg(long, env = "EDGE_SYNC_SHARD_KEY")]
    shard_key: Option<String>,
    /// FIELD=VALUE: only the points of one tenant, told apart by a field of the payload.
    #[arg(long, env = "EDGE_SYNC_TENANT")]
    tenant: Option<String>,
}

impl ServerArguments {
    /// What is not given is what the shard was bound to before.
    fn server(self, directory: &Directory) -> Result<Server> {
        let missing = |field: &str, variable: &str| {
            invalid(field, format!("not set; give --{field} or {variable}"))
        };
        let bound = binding::load(directory)?;
        let bound = bound.unwrap_or_default();
        let part = NamedPart {
            shard: self.shard,
            shard_key: self.shard_key,
            tenant: self.tenant,
        };
        let part = part.or_bound(bound.named_part());
        let named = |name: String| Some(name).filter(|name| !name.is_empty());
        let (url, collection) = (named(bound.url), named(bound.collection));
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
            connect_timeout_ms: 10_000,
            shard: part.shard_number(),
            shard_key: part.shard_key,
            tenant: part.tenant,
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
        // These look in beside whatever instance has the directory open.
        Command::Status => return print(&peek_status(&directory)?),
        Command::Queue(Queue::Show { limit, after }) => {
            let waiting = peek::waiting(&directory, after, limit)?;
            return print(&waiting.into_iter().map(waiting_json).collect());
        }
        Command::Rejected(Rejected::List { limit, after }) => {
            return print_rejected(&directory, after, limit);
        }
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
    let printed = print(&answer);
    for note in close()? {
        let _ = writeln!(io::stderr(), "edge-sync: note: {note}");
    }
    printed
}

fn print(answer: &Value) -> Result<()> {
    write_out(format_args!("{answer}\n"))
}

fn write_out(text: std::fmt::Arguments<'_>) -> Result<()> {
    io::stdout()
        .write_fmt(text)
        .map_err(|error| storage("write the answer", Path::new("<stdout>"), &error))
}

fn peek_status(directory: &Directory) -> Result<Value> {
    let peeked = peek::status(directory)?;
    let status = peeked.queue;
    Ok(json!({
        "generation": peeked.generation,
        "mirrors": peeked.mirrors.iter().map(mirror_json).collect::<Vec<_>>(),
        "logged": status.logged,
        "applied": status.applied,
        "acknowledged": status.acknowledged,
        "queued": status.queued,
        "queued_bytes": status.queued_bytes,
        "oldest_queued_ms": status.oldest_queued_ms,
        "rejected": status.rejected,
    }))
}

fn waiting_json(operation: WaitingOperation) -> Value {
    json!({
        "sequence": operation.sequence,
        "logged_ms": operation.logged_ms,
        "bytes": operation.bytes,
        "method": operation.request.method,
        "path": operation.request.path,
        "body": text_json(&operation.request.body),
    })
}

/// One array on one line, page by page.
fn print_rejected(directory: &Directory, mut after: u64, limit: Option<u32>) -> Result<()> {
    let mut left = limit.unwrap_or(u32::MAX);
    let mut separator = "[";
    while left > 0 {
        let page = peek::rejected(directory, after, left)?;
        let Some(last) = page.last() else { break };
        after = last.sequence;
        left = left.saturating_sub(u32::try_from(page.len()).unwrap_or(u32::MAX));
        for one in page {
            let one = json!({
                "sequence": one.sequence,
                "status": one.status,
                "message": one.message,
                "rejected_ms": one.rejected_ms,
                "operation": text_json(&one.operation),
            });
            write_out(format_args!("{separator}{one}"))?;
            separator = ",";
        }
    }
    let begin = if separator == "[" { "[" } else { "" };
    write_out(format_args!("{begin}]\n"))
}

/// JSON text as the value that it is; none for no text.
fn text_json(text: &str) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
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
        Some(snapshot) => sync::restore_file(directory, snapshot, force, OPTIONS)?,
        None => {
            let server = server.server(&directory)?;
            sync::restore(directory, &server, SnapshotSource::Stream, force, OPTIONS)?
        }
    };
    Ok(opened_json(opened))
}

fn on_shard(command: Command, directory: &Directory) -> Result<Value> {
    match command {
        Command::Create { .. }
        | Command::Restore { .. }
        | Command::Status
        | Command::Queue(Queue::Show { .. })
        | Command::Rejected(Rejected::List { .. }) => {
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
            request("POST", "/points/delete", &body)
        }
        Command::Search { file } => {
            let body = read_text(file.as_deref())?;
            request("POST", "/points/query", &body)
        }
        Command::Request { method, path, file } => {
            let bodyless = matches!(method.as_str(), "GET" | "DELETE") && file.is_none();
            let body = if bodyless {
                String::new()
            } else {
                read_text(file.as_deref())?
            };
            request(&method, &path, &body)
        }
        Command::Optimize => with_store(|store| Ok(json!({ "optimized": store.optimize()? }))),
        Command::Info => with_store(|store| {
            let shard = store.shard()?;
            let info = shard.info()?;
            let generation = store.current().generation;
            let mirrors = peek::mirrors(store.directory(), generation)?;
            Ok(json!({
                "config": shard.config().to_json(),
                "payload_schema": info.payload_schema,
                "points_count": info.points,
                "indexed_vectors_count": info.indexed_vectors,
                "segments_count": info.segments,
                "generation": generation,
                "mirrors": mirrors.iter().map(mirror_json).collect::<Vec<_>>(),
            }))
        }),
        Command::Queue(Queue::Skip { count }) => {
            with_store(|store| Ok(json!({ "skipped": store.skip(count)? })))
        }
        Command::Rejected(Rejected::Retry(chosen)) => with_store(|store| retry(store, &chosen)),
        Command::Rejected(Rejected::Drop(chosen)) => with_store(|store| {
            if chosen.all {
                return Ok(json!({ "dropped": store.drop_rejected_up_to(u64::MAX)? }));
            }
            for sequence in &chosen.sequences {
                store.drop_rejected(*sequence)?;
            }
            Ok(json!({ "dropped": chosen.sequences.len() }))
        }),
        Command::Sync {
            server,
            batch_size,
            attempts,
            rebind,
            resend,
            push,
            pull,
            create_shard_key,
            most_batch_size,
        } => {
            let server = server.server(directory)?;
            let options = SyncOptions {
                operations: batch_size,
                bytes: 8 << 20,
                most_operations: most_batch_size,
                attempts,
                patience_ms: 60_000,
                rebind,
                resend,
                direction: match (push, pull) {
                    (true, false) => Direction::Push,
                    (false, true) => Direction::Pull,
                    _ => Direction::Both,
                },
                create_shard_key,
            };
            let report = sync::sync(&server, &options)?;
            if let Some(failure) = report.failure {
                return Err(failure);
            }
            Ok(json!({
                "uploaded": report.uploaded,
                "requests": report.requests,
                "rejected": report.rejected,
                "remaining": report.remaining,
                "created_collection": report.created_collection,
                "pulled": report.pulled.map(pulled_json),
            }))
        }
    }
}

/// Queues rejected operations again. Those that the shard refuses stay, and are an error at the end.
fn retry(store: &mut Store, chosen: &Chosen) -> Result<Value> {
    if !chosen.all {
        for sequence in &chosen.sequences {
            store.retry_rejected(*sequence)?;
        }
        return Ok(json!({ "retried": chosen.sequences.len() }));
    }
    let (mut count, mut failure, mut next) = (0, None, Some(0));
    while let Some(after) = next {
        let retried = store.retry_rejected_after(after, PAGE_OPERATIONS)?;
        count += retried.sequences.len();
        next = retried.next;
        for failed in retried.failures {
            let what = format!(
                "rejected operation {}: {}",
                failed.sequence,
                describe(&failed.why)
            );
            let _ = writeln!(io::stderr(), "edge-sync: {what}");
            failure = Some(failed.why);
        }
    }
    match failure {
        Some(failure) => Err(failure),
        None => Ok(json!({ "retried": count })),
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
            request("PUT", "/points", &body).map_err(|error| match error {
                Error::InvalidInput(input) => invalid(
                    format!("lines up to {number}: {}", input.field),
                    input.message,
                ),
                other => other,
            })?;
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

fn pulled_json(report: PullReport) -> Value {
    json!({
        "changed": report.changed,
        "points_before": report.points_before,
        "points": report.points,
        "bytes": report.bytes,
        "shards": report.shards.iter().map(|it| json!({
            "shard": it.shard,
            "shard_key": it.shard_key,
        })).collect::<Vec<_>>(),
        "peer": report.peer,
        "elsewhere": report.elsewhere,
        "files": report.pulled.map(|pulled| json!({
            "received_bytes": pulled.received_bytes,
            "received_files": pulled.received_files,
            "kept_bytes": pulled.kept_bytes,
            "kept_files": pulled.kept_files,
            "segments_kept": pulled.segments_kept,
            "segments_fetched": pulled.segments_fetched,
            "segments_removed": pulled.segments_removed,
            "linked_files": pulled.linked_files,
            "copied_bytes": pulled.copied_bytes,
        })),
        "reasons": report.reasons,
        "unsettled": report.unsettled,
        "notes": report.notes,
    })
}

fn mirror_json(mirror: &Mirror) -> Value {
    json!({
        "url": mirror.of.url,
        "collection": mirror.of.collection,
        "shard": mirror.of.shard,
        "shard_key": mirror.of.shard_key,
        "peer": mirror.peer,
        "segments": mirror.segments,
        "bytes": mirror.bytes,
        "settled": mirror.settled,
    })
}

fn opened_json(opened: Opened) -> Value {
    json!({
        "generation": opened.generation,
        "replayed": opened.replayed,
        "notes": opened.notes,
    })
}
