//! The engine's own public API, and which of it is reached how.

use super::examples::{Example, newer_reads, newer_writes, reads, writes};
use crate::support::repository;

/// How something in the engine's API is reached.
#[derive(Debug, Clone, Copy)]
pub enum Reach {
    /// By the example of that name.
    Example(&'static str),
    /// By something other than a request; what.
    By(&'static str),
    /// Not at all; why.
    No(&'static str),
}

use Reach::{By, Example as In, No};

const INTERNAL_COPY: &str =
    "a server's way to send points to another; a device's points arrive as operations";

/// Type and member, and how it is reached. [`check`] compares it with the engine's source.
pub const ITEMS: &[(&str, &str, Reach)] = &[
    ("EdgeShard", "new", By("`shard.create`")),
    ("EdgeShard", "load", By("`shard.open`")),
    ("EdgeShard", "config", By("`shard.info`: `config`")),
    (
        "EdgeShard",
        "path",
        By("the directory given to `create` and `open`"),
    ),
    (
        "EdgeShard",
        "set_hnsw_config",
        By("`shard.request`: `PATCH /collections/{c}`, after which the shard is loaded again"),
    ),
    (
        "EdgeShard",
        "set_vector_hnsw_config",
        By("`shard.request`: `PATCH /collections/{c}`, after which the shard is loaded again"),
    ),
    (
        "EdgeShard",
        "set_optimizers_config",
        By("`shard.request`: `PATCH /collections/{c}`, after which the shard is loaded again"),
    ),
    (
        "EdgeShard",
        "flush",
        By("`shard.flush`, and at checkpoints"),
    ),
    ("EdgeShard", "optimize", By("`shard.optimize`")),
    (
        "EdgeShard",
        "optimize_with_budget",
        No("a budget counts threads, and a component has one"),
    ),
    (
        "EdgeShard",
        "update",
        By("every write, once it is in the log"),
    ),
    (
        "EdgeShard",
        "unpack_snapshot",
        By("`restore`, with an unpacking of its own that limits and checks what it writes"),
    ),
    (
        "EdgeShard",
        "snapshot_manifest",
        No("for partial snapshots; a restore takes a full one"),
    ),
    (
        "EdgeShard",
        "recover_partial_snapshot",
        No("changes the shard in place; a restore is all or nothing"),
    ),
    (
        "EdgeShardRead",
        "search",
        No("deprecated by the engine; `query` does it"),
    ),
    (
        "EdgeShardRead",
        "query",
        In("query: nearest to a dense vector"),
    ),
    ("EdgeShardRead", "query_batch", In("batched queries")),
    ("EdgeShardRead", "scroll", In("scroll")),
    ("EdgeShardRead", "retrieve", In("retrieve")),
    ("EdgeShardRead", "count", In("count")),
    ("EdgeShardRead", "facet", In("facet")),
    ("EdgeShardRead", "search_matrix", In("matrix as pairs")),
    ("EdgeShardRead", "query_groups", In("groups")),
    ("EdgeShardRead", "info", By("`shard.info`")),
    (
        "EdgeShardRead",
        "config_snapshot",
        By("`shard.info`: `config`"),
    ),
    (
        "EdgeShardRead",
        "path",
        By("the directory given to `create` and `open`"),
    ),
    (
        "ScoringQuery",
        "Vector",
        In("query: nearest to a dense vector"),
    ),
    ("ScoringQuery", "Fusion", In("query: fusion: RRF")),
    ("ScoringQuery", "OrderBy", In("query: order by a field")),
    ("ScoringQuery", "Formula", In("formula: sum")),
    ("ScoringQuery", "Sample", In("query: sample")),
    ("ScoringQuery", "Mmr", In("query: MMR")),
    ("ScoringQuery", "Text", In("text query")),
    (
        "QueryEnum",
        "Nearest",
        In("query: nearest to a dense vector"),
    ),
    (
        "QueryEnum",
        "RecommendBestScore",
        In("query: recommend, best score"),
    ),
    (
        "QueryEnum",
        "RecommendSumScores",
        In("query: recommend, sum of scores"),
    ),
    ("QueryEnum", "Discover", In("query: discover")),
    ("QueryEnum", "Context", In("query: context")),
    (
        "QueryEnum",
        "FeedbackNaive",
        In("query: relevance feedback"),
    ),
    ("FusionInternal", "Rrf", In("query: RRF with parameters")),
    ("FusionInternal", "Dbsf", In("query: fusion: DBSF")),
    ("SampleInternal", "Random", In("query: sample")),
    ("ExpressionInternal", "Constant", In("formula: a constant")),
    ("ExpressionInternal", "Variable", In("formula: a variable")),
    (
        "ExpressionInternal",
        "Condition",
        In("formula: a condition"),
    ),
    (
        "ExpressionInternal",
        "GeoDistance",
        In("formula: geo distance"),
    ),
    ("ExpressionInternal", "Datetime", In("formula: a time")),
    (
        "ExpressionInternal",
        "DatetimeKey",
        In("formula: a time of the payload"),
    ),
    ("ExpressionInternal", "Mult", In("formula: product")),
    ("ExpressionInternal", "Sum", In("formula: sum")),
    ("ExpressionInternal", "Max", In("formula: largest")),
    ("ExpressionInternal", "Min", In("formula: smallest")),
    ("ExpressionInternal", "Neg", In("formula: negation")),
    ("ExpressionInternal", "Div", In("formula: quotient")),
    ("ExpressionInternal", "Sqrt", In("formula: square root")),
    ("ExpressionInternal", "Pow", In("formula: power")),
    ("ExpressionInternal", "Exp", In("formula: exponential")),
    (
        "ExpressionInternal",
        "Log10",
        In("formula: decimal logarithm"),
    ),
    ("ExpressionInternal", "Ln", In("formula: natural logarithm")),
    (
        "ExpressionInternal",
        "Acosh",
        In("formula: inverse hyperbolic cosine"),
    ),
    ("ExpressionInternal", "Abs", In("formula: absolute value")),
    ("ExpressionInternal", "Decay", In("formula: Gauss decay")),
    ("DecayKind", "Lin", In("formula: linear decay")),
    ("DecayKind", "Gauss", In("formula: Gauss decay")),
    ("DecayKind", "Exp", In("formula: exponential decay")),
    ("Condition", "Field", In("filter: match a string")),
    ("Condition", "IsEmpty", In("filter: is empty, of a field")),
    ("Condition", "IsNull", In("filter: is null, of a field")),
    ("Condition", "HasId", In("filter: has id")),
    ("Condition", "HasVector", In("filter: has vector")),
    ("Condition", "Slice", In("filter: slice")),
    ("Condition", "Nested", In("filter: nested")),
    ("Condition", "Filter", In("filter: a filter in a filter")),
    (
        "Condition",
        "CustomIdChecker",
        No("a function of the caller's, which no request can carry"),
    ),
    ("Match", "Value", In("filter: match a string")),
    ("Match", "Text", In("filter: match text")),
    ("Match", "TextAny", In("filter: match any word")),
    ("Match", "Phrase", In("filter: match a phrase")),
    ("Match", "Prefix", In("filter: match a prefix")),
    ("Match", "Substring", In("match a substring")),
    ("Match", "Any", In("filter: match any string")),
    ("Match", "Except", In("filter: match except strings")),
    ("PointOperations", "UpsertPoints", In("upsert points")),
    (
        "PointOperations",
        "UpsertPointsConditional",
        In("upsert if a filter matches"),
    ),
    ("PointOperations", "DeletePoints", In("delete points")),
    (
        "PointOperations",
        "DeletePointsByFilter",
        In("delete points by filter"),
    ),
    ("PointOperations", "SyncPoints", No(INTERNAL_COPY)),
    ("PointOperations", "UpsertPointsRaw", No(INTERNAL_COPY)),
    ("PointOperations", "SyncPointsRaw", No(INTERNAL_COPY)),
    ("VectorOperations", "UpdateVectors", In("update vectors")),
    (
        "VectorOperations",
        "DeleteVectors",
        In("delete vectors of points"),
    ),
    (
        "VectorOperations",
        "DeleteVectorsByFilter",
        In("delete vectors by filter"),
    ),
    ("PayloadOps", "SetPayload", In("set payload of points")),
    ("PayloadOps", "DeletePayload", In("delete payload keys")),
    ("PayloadOps", "ClearPayload", In("clear payload of points")),
    (
        "PayloadOps",
        "ClearPayloadByFilter",
        In("clear payload by filter"),
    ),
    ("PayloadOps", "OverwritePayload", In("overwrite payload")),
    ("FieldIndexOperations", "CreateIndex", In("index kw")),
    ("FieldIndexOperations", "DeleteIndex", In("delete an index")),
    (
        "VectorNameOperations",
        "CreateVectorName",
        In("create a dense vector"),
    ),
    (
        "VectorNameOperations",
        "DeleteVectorName",
        In("delete a vector"),
    ),
    ("PayloadSchemaParams", "Keyword", In("index kw")),
    ("PayloadSchemaParams", "Integer", In("index o.x")),
    ("PayloadSchemaParams", "Float", In("index p.float")),
    ("PayloadSchemaParams", "Geo", In("index p.geo")),
    ("PayloadSchemaParams", "Text", In("index body")),
    ("PayloadSchemaParams", "Bool", In("index p.bool")),
    ("PayloadSchemaParams", "Datetime", In("index p.datetime")),
    ("PayloadSchemaParams", "Uuid", In("index p.uuid")),
    ("TokenizerType", "Prefix", In("index p.prefix")),
    ("TokenizerType", "Whitespace", In("index p.whitespace")),
    ("TokenizerType", "Word", In("index body")),
    ("TokenizerType", "Multilingual", In("index p.multilingual")),
    ("TokenizerType", "Code", In("index ranked2")),
    ("EdgeBm25", "embed_document", In("upsert points")),
    (
        "EdgeBm25",
        "embed_query",
        In("query: nearest to a text by BM25"),
    ),
];

/// Where the engine's source has each type: file, and what stands before its members.
const SOURCES: &[(&str, &str, &str)] = &[
    ("EdgeShard", "edge/edge_shard/mod.rs", "impl EdgeShard {"),
    (
        "EdgeShard",
        "edge/edge_shard/optimize.rs",
        "impl EdgeShard {",
    ),
    ("EdgeShard", "edge/edge_shard/update.rs", "impl EdgeShard {"),
    (
        "EdgeShard",
        "edge/edge_shard/snapshots.rs",
        "impl EdgeShard {",
    ),
    (
        "EdgeShardRead",
        "edge/read_view/shard_read.rs",
        "pub trait EdgeShardRead: sealed::Sealed {",
    ),
    (
        "ScoringQuery",
        "shard/query/mod.rs",
        "pub enum ScoringQuery {",
    ),
    (
        "FusionInternal",
        "shard/query/mod.rs",
        "pub enum FusionInternal {",
    ),
    (
        "SampleInternal",
        "shard/query/mod.rs",
        "pub enum SampleInternal {",
    ),
    (
        "QueryEnum",
        "shard/query/query_enum.rs",
        "pub enum QueryEnum {",
    ),
    (
        "ExpressionInternal",
        "shard/query/formula.rs",
        "pub enum ExpressionInternal {",
    ),
    (
        "DecayKind",
        "segment/index/query_optimization/rescore_formula/parsed_formula.rs",
        "pub enum DecayKind {",
    ),
    ("Condition", "segment/types.rs", "pub enum Condition {"),
    ("Match", "segment/types.rs", "pub enum Match {"),
    (
        "PointOperations",
        "shard/operations/point_ops.rs",
        "pub enum PointOperations {",
    ),
    (
        "VectorOperations",
        "shard/operations/vector_ops.rs",
        "pub enum VectorOperations {",
    ),
    (
        "PayloadOps",
        "shard/operations/payload_ops.rs",
        "pub enum PayloadOps {",
    ),
    (
        "FieldIndexOperations",
        "shard/operations/mod.rs",
        "pub enum FieldIndexOperations {",
    ),
    (
        "VectorNameOperations",
        "shard/operations/vector_name_ops.rs",
        "pub enum VectorNameOperations {",
    ),
    (
        "PayloadSchemaParams",
        "segment/types.rs",
        "pub enum PayloadSchemaParams {",
    ),
    (
        "TokenizerType",
        "segment/data_types/index.rs",
        "pub enum TokenizerType {",
    ),
    ("EdgeBm25", "edge/bm25_embed.rs", "impl EdgeBm25 {"),
];

/// The members that the engine's source gives a type: variants, or public functions.
fn members(source: &str, start: &str) -> Vec<String> {
    let mut found = Vec::new();
    let Some((_, block)) = source.split_once(start) else {
        return found;
    };
    let mut depth = 1_i32;
    let is_trait = start.starts_with("pub trait");
    for line in block.lines() {
        let code = line.trim();
        if depth == 1 && !code.starts_with("//") && !code.starts_with('#') {
            let function = code
                .strip_prefix("pub fn ")
                .or_else(|| code.strip_prefix("fn ").filter(|_| is_trait));
            let variant = code
                .split(|c: char| !c.is_alphanumeric())
                .next()
                .filter(|name| name.starts_with(|c: char| c.is_ascii_uppercase()));
            let member = match function {
                Some(function) => function.split(['(', '<']).next(),
                None if start.starts_with("pub enum") => variant,
                None => None,
            };
            found.extend(member.map(str::to_owned));
        }
        for c in code.chars() {
            depth += match c {
                '{' | '(' => 1,
                '}' | ')' => -1,
                _ => 0,
            };
        }
        if depth <= 0 {
            break;
        }
    }
    found
}

/// Every way in which [`ITEMS`] departs from the engine's source, or names an example that is not
/// there.
pub fn check() -> Vec<String> {
    let mut problems = Vec::new();
    let root = repository().join(".ports/qdrant-edge/src");
    for (name, file, start) in SOURCES {
        let path = root.join(file);
        let source = match std::fs::read_to_string(&path) {
            Ok(source) => source,
            Err(error) => {
                problems.push(format!("{}: {error}", path.display()));
                continue;
            }
        };
        let members = members(&source, start);
        if members.is_empty() {
            problems.push(format!("{file}: nothing found behind `{start}`"));
        }
        // Not everything public is for callers: constructors of the engine's own.
        for member in members {
            let own = *name == "EdgeBm25" && member == "new";
            let listed = ITEMS
                .iter()
                .any(|(known, item, _)| known == name && *item == member);
            if !listed && !own {
                problems.push(format!("{name}::{member} is not in the table"));
            }
        }
    }
    let names: Vec<String> = [writes(), newer_writes(), reads(), newer_reads()]
        .into_iter()
        .flatten()
        .map(|Example { name, .. }| name)
        .collect();
    for (name, item, reach) in ITEMS {
        if let Reach::Example(example) = reach
            && !names.iter().any(|known| known == example)
        {
            problems.push(format!("{name}::{item}: no example `{example}`"));
        }
    }
    problems
}
