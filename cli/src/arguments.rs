//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::flags::{Flags, number};

const AFTER_HELP: &str = "\
Settings come from flags, then the environment, then a TOML file (edge-sync.toml), whose keys are
data_dir, url, collection, api_key_file, ca_file, client_certificate_file, client_key_file, shard,
shard_key, tenant, component, cache_dir, durability, memory_mib, batch_operations,
most_batch_operations, batch_bytes, compress_uploads, attempts, listen, serve_api_key_file,
auto_optimize and the limits of `serve` (serve_connections, ...; docs/commands.md). The server's API
key comes from QDRANT_API_KEY or a file, the one that `serve` requires from EDGE_SYNC_SERVE_API_KEY or
a file.

Exit codes: 0 done, 1 internal error, 2 wrong flags or settings, 3 input refused, 4 not found,
5 storage failed or damaged, 6 server not reachable (queue kept), 7 server refuses (queue kept),
8 data directory in use, 9 bad snapshot (nothing changed), 10 synced but operations were rejected,
11 a restore would drop many points (--force), 130 interrupted, 141 nobody reads the output.";

/// As [`number`], from 1 to `most`.
fn from_1_to(
    most: u32,
) -> impl Fn(&str) -> Result<u32, String> + Clone + Send + std::marker::Sync + 'static {
    move |text| match number(text)? {
        number if (1..=most).contains(&number) => Ok(number),
        number => Err(format!("{number} is not in 1..={most}")),
    }
}

/// A local Qdrant Edge shard, kept in step with a collection on a Qdrant server.
#[derive(Parser, Debug)]
#[command(name = "edge-sync", version, after_long_help = AFTER_HELP, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    pub settings: Flags,
    /// Print one JSON value a line, errors and notes on stderr included
    #[arg(long, global = true, help_heading = "Settings")]
    pub json: bool,
    /// What notes, errors and the log look like on stderr: `json` is one object a line, requests to
    /// `serve` among them
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        help_heading = "Settings"
    )]
    pub log_format: Option<LogFormat>,
    #[command(subcommand)]
    pub command: Command,
}

/// What is written to stderr.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people
    Text,
    /// For programs that gather logs
    Json,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Create a shard
    Create(Create),
    /// Upsert points: JSON Lines, a JSON array, `{"points": [...]}`, or a table
    Upsert(Upsert),
    /// Delete points by id or by filter
    Delete(Delete),
    /// Print points by id
    Retrieve(Retrieve),
    /// Find points: the nearest to a vector, or any body of `POST /points/query` or `.../query/batch`
    #[command(visible_alias = "query")]
    Search(Search),
    /// Walk over points in order of id: a body of `POST /points/scroll`
    Scroll(Scroll),
    /// Count points: a body of `POST /points/count`
    Count(Count),
    /// Count payload values: a body of `POST /facet`
    Facet(Body),
    /// Query in groups: a body of `POST /points/query/groups`
    Groups(Body),
    /// Distances between sampled points: a body of `POST /points/search/matrix/...`
    Matrix(Matrix),
    /// A mix of writes, in order: a body of `POST /points/batch`
    Batch(Body),
    /// Change payloads: bodies of `.../points/payload`
    Payload(Payload),
    /// Change vectors: bodies of `.../points/vectors`, and named vectors of the shard
    #[command(subcommand)]
    Vectors(Vectors),
    /// Any request of the points API, by method and path below `/collections/{c}`
    Request(Request),
    /// Payload indexes
    #[command(subcommand)]
    Index(Index),
    /// Compile the component for this machine, so that no other command has to wait for it
    Prepare,
    /// Merge segments and build indexes, for a shard without a server
    Optimize(Optimize),
    /// Make everything durable in the shard itself and shorten the log
    Flush,
    /// Show the shard's configuration and counts
    Info,
    /// Upload what waits, then fetch what others wrote
    Sync(Sync),
    /// Answer Qdrant's REST API over the shard, and upload meanwhile if a server is set
    Serve(Serve),
    /// Restore from the server's snapshot, or from a local one
    Restore(Restore),
    /// Show what is stored, what waits, and what happens next
    Status,
    /// Operations that wait for upload
    #[command(subcommand)]
    Queue(Queue),
    /// Operations that the server refused
    #[command(subcommand)]
    Rejected(Rejected),
    /// Print a shell's completions
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands to a folder
    Man {
        /// Folder for the pages, which is created
        folder: Option<PathBuf>,
    },
}

impl Command {
    /// Whether it is about a folder of collections, and not about the shard in the data directory.
    pub fn has_collections(&self) -> bool {
        matches!(
            self,
            Command::Serve(Serve {
                collections: Some(_),
                ..
            })
        )
    }

    /// As it is typed.
    pub fn name(&self) -> &'static str {
        match self {
            Command::Create(_) => "create",
            Command::Upsert(_) => "upsert",
            Command::Delete(_) => "delete",
            Command::Retrieve(_) => "retrieve",
            Command::Search(_) => "search",
            Command::Scroll(_) => "scroll",
            Command::Count(_) => "count",
            Command::Facet(_) => "facet",
            Command::Groups(_) => "groups",
            Command::Matrix(_) => "matrix",
            Command::Batch(_) => "batch",
            Command::Payload(_) => "payload",
            Command::Vectors(_) => "vectors",
            Command::Request(_) => "request",
            Command::Index(_) => "index",
            Command::Prepare => "prepare",
            Command::Optimize(_) => "optimize",
            Command::Flush => "flush",
            Command::Info => "info",
            Command::Sync(Sync { watch: true, .. }) => "sync --watch",
            Command::Sync(_) => "sync",
            Command::Serve(_) => "serve",
            Command::Restore(_) => "restore",
            Command::Status => "status",
            Command::Queue(_) => "queue",
            Command::Rejected(_) => "rejected",
            Command::Completions { .. } => "completions",
            Command::Man { .. } => "man",
        }
    }
}

#[derive(Args, Debug)]
pub struct Body {
    /// The JSON body, or a file that holds it; standard input without it
    pub file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Search {
    /// The JSON body, or a file that holds it; standard input without it and --vector. Flags say
    /// something else than its fields
    #[arg(conflicts_with = "vector")]
    pub file: Option<PathBuf>,
    /// Query vector, instead of a body: `0.1,0.2`, a JSON list, or `@FILE`
    #[arg(long, allow_hyphen_values = true)]
    pub vector: Option<String>,
    /// How many points
    #[arg(long, value_parser = number::<u32>)]
    pub limit: Option<u32>,
    /// REST filter: JSON, or `@FILE`
    #[arg(long)]
    pub filter: Option<String>,
    /// Name of the vector to search
    #[arg(long, value_name = "NAME")]
    pub using: Option<String>,
    /// Print the payloads
    #[arg(long)]
    pub with_payload: bool,
    /// Print the vectors
    #[arg(long)]
    pub with_vector: bool,
}

#[derive(Args, Debug)]
pub struct Create {
    /// Body of Qdrant's `PUT /collections/{c}`, or a file that holds it; standard input without it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["size", "distance"])]
    pub config: Option<PathBuf>,
    /// Size of the default vector, instead of a body
    #[arg(long, requires = "distance", value_parser = number::<u32>)]
    pub size: Option<u32>,
    /// Distance of the default vector
    #[arg(long, requires = "size", value_enum, ignore_case = true)]
    pub distance: Option<Distance>,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum Distance {
    Cosine,
    Dot,
    Euclid,
    Manhattan,
}

impl Distance {
    /// As in the REST API.
    pub fn name(self) -> &'static str {
        match self {
            Distance::Cosine => "Cosine",
            Distance::Dot => "Dot",
            Distance::Euclid => "Euclid",
            Distance::Manhattan => "Manhattan",
        }
    }
}

#[derive(Args, Debug)]
pub struct Upsert {
    /// File of points, or JSON; standard input without it
    pub file: Option<PathBuf>,
    /// Body of `PUT /points` instead (update_mode, update_filter, batch form), or a file that holds
    /// it; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "batch_size", "format"])]
    pub body: Option<PathBuf>,
    /// What the input is; otherwise the end of the file's name says so (.csv, .tsv, .parquet), and
    /// anything else is JSON
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    #[command(flatten)]
    pub columns: Columns,
    /// Most points in one write, which ends before it has more than 4 MiB of them: each write is durable
    /// when its receipt is printed
    #[arg(long, default_value_t = 100, value_parser = from_1_to(100_000))]
    pub batch_size: u32,
}

/// What points are written as.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// JSON Lines, a JSON array, or `{"points": [...]}`
    Json,
    /// Comma-separated, with a header
    Csv,
    /// Separated by tabs, with a header
    Tsv,
    /// Parquet
    Parquet,
}

/// What the columns of a table are. Vectors stand in `vector` or `vector.NAME` as JSON lists, or number
/// by number in `vector[0]`, `vector[1]`, ...; every other column becomes a payload field.
#[derive(Args, Clone, Debug)]
pub struct Columns {
    /// Of a table: the column of the ids
    #[arg(long, value_name = "NAME", default_value = "id")]
    pub id_column: String,
    /// Of a table: columns whose cells stay text, also if they look like numbers
    #[arg(long = "text-column", value_name = "NAME")]
    pub text_columns: Vec<String>,
}

#[derive(Args, Debug)]
pub struct Delete {
    /// Point ids, or a JSON body; a body on standard input without them
    pub ids: Vec<String>,
    /// REST filter: JSON, or `@FILE`
    #[arg(long, conflicts_with = "ids")]
    pub filter: Option<String>,
    /// Body of `POST /points/delete` instead, or a file that holds it; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ids", "filter"])]
    pub body: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Retrieve {
    /// Point ids, or a JSON body; a body on standard input without them
    pub ids: Vec<String>,
    /// Print the vectors too
    #[arg(long)]
    pub with_vector: bool,
    /// Leave the payloads out
    #[arg(long)]
    pub no_payload: bool,
    /// Body of `POST /points` instead, or a file that holds it; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ids", "with_vector", "no_payload"])]
    pub body: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub struct Scroll {
    /// The JSON body, or a file that holds it; standard input without it, unless a flag is given
    #[arg(conflicts_with_all = ["limit", "offset", "filter"])]
    pub file: Option<PathBuf>,
    /// Points a page, instead of a body
    #[arg(long, value_parser = number::<u32>)]
    pub limit: Option<u32>,
    /// Id that the page begins with
    #[arg(long, value_name = "ID")]
    pub offset: Option<String>,
    /// REST filter: JSON, or `@FILE`
    #[arg(long)]
    pub filter: Option<String>,
}

#[derive(Args, Debug)]
pub struct Count {
    /// The JSON body, or a file that holds it; standard input without it, unless a flag is given
    #[arg(conflicts_with = "filter")]
    pub file: Option<PathBuf>,
    /// REST filter, instead of a body: JSON, or `@FILE`
    #[arg(long)]
    pub filter: Option<String>,
}

#[derive(Args, Debug)]
pub struct Matrix {
    #[arg(value_enum)]
    pub form: MatrixForm,
    #[command(flatten)]
    pub body: Body,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum MatrixForm {
    Pairs,
    Offsets,
}

impl MatrixForm {
    pub fn path(self) -> &'static str {
        match self {
            MatrixForm::Pairs => "pairs",
            MatrixForm::Offsets => "offsets",
        }
    }
}

#[derive(Args, Debug)]
pub struct Payload {
    #[arg(value_enum)]
    pub operation: PayloadOperation,
    #[command(flatten)]
    pub body: Body,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum PayloadOperation {
    /// Merge fields into payloads
    Set,
    /// Replace payloads
    Overwrite,
    /// Remove fields
    Delete,
    /// Remove payloads
    Clear,
}

impl PayloadOperation {
    /// Method and path.
    pub fn endpoint(self) -> (&'static str, &'static str) {
        match self {
            PayloadOperation::Set => ("POST", "/points/payload"),
            PayloadOperation::Overwrite => ("PUT", "/points/payload"),
            PayloadOperation::Delete => ("POST", "/points/payload/delete"),
            PayloadOperation::Clear => ("POST", "/points/payload/clear"),
        }
    }
}

#[derive(Subcommand, Debug)]
pub enum Vectors {
    /// Replace vectors of points: a body of `PUT /points/vectors`
    Update(Body),
    /// Remove named vectors from points: a body of `POST /points/vectors/delete`
    Delete(Body),
    /// Add a named vector to the shard: a body of `PUT /vectors/{name}`
    Create {
        /// The vector's name
        name: String,
        #[command(flatten)]
        body: Body,
    },
    /// Remove a named vector from the shard, and from every point
    Drop {
        /// The vector's name
        name: String,
    },
}

/// Methods of Qdrant's API.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
#[value(rename_all = "UPPER")]
pub enum Method {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    pub fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
        }
    }
}

#[derive(Args, Debug)]
pub struct Request {
    /// HTTP method
    #[arg(value_enum, ignore_case = true)]
    pub method: Method,
    /// Path below `/collections/{c}`, with its query string: `/points/count`
    pub path: String,
    #[command(flatten)]
    pub body: Body,
}

#[derive(Subcommand, Debug)]
pub enum Index {
    /// Create a payload index
    Create {
        /// Payload field
        field: String,
        /// `keyword`, `integer`, ..., or a JSON object with `type` and parameters
        schema: String,
    },
    /// Remove a payload index
    Delete {
        /// Payload field
        field: String,
    },
    /// Show the payload indexes
    List,
}

#[derive(Args, Debug)]
pub struct Sync {
    /// Go on until interrupted: upload what is queued as it comes, and fetch what others write
    #[arg(long)]
    pub watch: bool,
    /// Take the server and the collection for the ones that this shard was synced with before, in a
    /// new place
    #[arg(long)]
    pub rebind: bool,
    /// Send everything that the shard holds again, to a collection that has lost it or is another
    /// one; creates it if it is not there
    #[arg(long)]
    pub resend: bool,
    /// Create the shard key if the collection does not have it. In a collection that edge-sync made,
    /// that needs no permission
    #[arg(long)]
    pub create_shard_key: bool,
    /// Upload only
    #[arg(long, conflicts_with = "pull")]
    pub push: bool,
    /// Fetch only what others wrote; what waits for upload stays
    #[arg(long, conflicts_with_all = ["resend", "watch"])]
    pub pull: bool,
    /// With --watch: how often to fetch what others wrote, with some jitter; default 60s
    #[arg(long, value_name = "TIME", requires = "watch", conflicts_with = "push", value_parser = every)]
    pub every: Option<Duration>,
}

/// Shortest time between two pulls: each makes the server write its segments to disk.
const LEAST_EVERY: Duration = Duration::from_secs(1);

fn every(text: &str) -> Result<Duration, String> {
    let every = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; give it as 60s, 5m or 1h"))?;
    if every < LEAST_EVERY {
        return Err(format!("{text} is less than 1s"));
    }
    Ok(every)
}

#[derive(Args, Debug)]
pub struct Serve {
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:6333]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// A folder of several collections, each with a data directory of its own in it, that clients
    /// create and delete; instead of the one in --data-dir. With a server, each is synced with the
    /// collection of its name
    #[arg(long, value_name = "FOLDER")]
    pub collections: Option<PathBuf>,
    /// Listen on other addresses than loopback ones too; an API key is required then
    #[arg(long)]
    pub allow_remote: bool,
    /// File that holds the API key that clients have to present; otherwise it is taken from
    /// EDGE_SYNC_SERVE_API_KEY. It is not the server's, which is QDRANT_API_KEY
    #[arg(long, value_name = "FILE")]
    pub serve_api_key_file: Option<PathBuf>,
    /// Neither upload nor fetch, although a server is set
    #[arg(long)]
    pub no_sync: bool,
    /// Upload, but do not fetch what others wrote
    #[arg(long, conflicts_with = "no_sync")]
    pub no_pull: bool,
    /// How often to fetch what others wrote, with some jitter; default 60s
    #[arg(long, value_name = "TIME", conflicts_with_all = ["no_sync", "no_pull"], value_parser = every)]
    pub every: Option<Duration>,
    /// Most instances that answer searches beside each shard's own, 0 to 16; each takes as much memory as
    /// the shard [default: one less than the machine's cores, at most 3]
    #[arg(long, value_name = "N", value_parser = number::<usize>)]
    pub readers: Option<usize>,
    /// Optimize whenever there is enough to index; not beside a server, which does that better
    /// [EDGE_SYNC_AUTO_OPTIMIZE]
    #[arg(long)]
    pub auto_optimize: bool,
}

#[derive(Args, Debug)]
pub struct Optimize {
    /// Most instances that build at the same time, 1 to 64, where several optimizations are due; each takes
    /// as much memory as its segments [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = number::<usize>)]
    pub builders: Option<usize>,
}

#[derive(Args, Debug)]
pub struct Restore {
    /// Restore from this shard snapshot instead of the server's
    #[arg(long, value_name = "FILE", conflicts_with = "stored")]
    pub snapshot: Option<PathBuf>,
    /// Have the server store the snapshot first: it comes with a checksum, and a download that is
    /// cut resumes
    #[arg(long)]
    pub stored: bool,
    /// Longest wait for the server's optimizer, which may spoil a snapshot; default 60
    #[arg(long, value_name = "SECONDS", conflicts_with = "snapshot", value_parser = number::<u64>)]
    pub settle: Option<u64>,
    /// Restore although many points would be dropped, or from another collection than before
    #[arg(long)]
    pub force: bool,
}

#[derive(Subcommand, Debug)]
pub enum Queue {
    /// Show the head of the queue, as the request that it would be
    Show(Page),
    /// Move the head of the queue to the rejected log, so that what is behind it goes on
    Skip(Skip),
}

#[derive(Args, Debug)]
pub struct Page {
    /// How many operations [default: of the queue 1; of what was refused 20, with --json all]
    #[arg(long, value_parser = number::<u32>)]
    pub limit: Option<u32>,
    /// Begin after this sequence
    #[arg(
        long,
        value_name = "SEQUENCE",
        default_value_t = 0,
        hide_default_value = true,
        value_parser = number::<u64>
    )]
    pub after: u64,
}

#[derive(Args, Debug)]
pub struct Skip {
    /// How many operations
    #[arg(long, default_value_t = 1, value_parser = from_1_to(u32::MAX))]
    pub count: u32,
    /// Do not ask; needed in a script
    #[arg(long)]
    pub yes: bool,
}

#[derive(Subcommand, Debug)]
pub enum Rejected {
    /// Show them, with the server's words
    List(Page),
    /// Queue them again
    Retry(Chosen),
    /// Forget them
    Drop(Chosen),
}

#[derive(Args, Debug)]
pub struct Chosen {
    /// Sequences, as `list` shows them
    #[arg(value_parser = number::<u64>)]
    pub sequences: Vec<u64>,
    /// All of them
    #[arg(long, conflicts_with = "sequences")]
    pub all: bool,
}
