//! `docs/api.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;

use super::engine::{ITEMS, Reach};
use super::schema::{Part, Parts, Sort};

/// What came of sending the requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Requests of the API: method, path, and why it is refused if it is.
    pub requests: Vec<(String, String, Option<String>)>,
    /// Writes: the request, and how it was uploaded.
    pub uploads: Vec<(String, String)>,
    /// All parts of the bodies of those that are understood.
    pub parts: Parts,
    /// Parts that an understood request used, with the JSON of the first.
    pub used: BTreeMap<Part, Value>,
    /// Parts that are refused, and the shard's words.
    pub refused: BTreeMap<Part, String>,
    /// Requests of the engine that no server of 1.19 has: name, method and path, what shows it.
    pub newer: Vec<(String, String, String)>,
}

/// What of a configuration is the server's: kept, sent when the collection is made there, and
/// without effect on the device.
const FOR_THE_SERVER: &[(&str, &[&str])] = &[
    (
        "CreateCollection",
        &[
            "shard_number",
            "sharding_method",
            "replication_factor",
            "write_consistency_factor",
            "wal_config",
            "strict_mode_config",
            "metadata",
        ],
    ),
    ("UpdateCollection", &["strict_mode_config", "metadata"]),
    (
        "CollectionParamsDiff",
        &[
            "replication_factor",
            "write_consistency_factor",
            "read_fan_out_factor",
            "read_fan_out_delay_ms",
        ],
    ),
    (
        "OptimizersConfigDiff",
        &[
            "memmap_threshold",
            "flush_interval_sec",
            "max_optimization_threads",
        ],
    ),
];

/// Sections, with the schemas in each; the rest goes to the last.
const SECTIONS: &[(&str, &str, &[&str])] = &[
    (
        "Queries",
        "What `query` of `POST /points/query`, its batch, its groups and its prefetches can be.",
        &[
            "QueryInterface",
            "Query",
            "VectorInput",
            "ExtendedPointId",
            "NearestQuery",
            "Mmr",
            "RecommendInput",
            "RecommendStrategy",
            "DiscoverInput",
            "ContextInput",
            "ContextPair",
            "OrderByInterface",
            "OrderBy",
            "Direction",
            "StartFrom",
            "Fusion",
            "Rrf",
            "FormulaQuery",
            "Sample",
            "RelevanceFeedbackInput",
            "FeedbackItem",
            "FeedbackStrategy",
            "NaiveFeedbackStrategyParams",
        ],
    ),
    (
        "Formula expressions",
        "What `formula` can be made of.",
        &[
            "Expression",
            "GeoDistanceParams",
            "DivParams",
            "PowParams",
            "DecayParamsExpression",
        ],
    ),
    (
        "Search parameters",
        "`params` of a query.",
        &[
            "SearchParams",
            "QuantizationSearchParams",
            "AcornSearchParams",
            "IdfParams",
            "IdfScope",
        ],
    ),
    (
        "Filters",
        "`filter` of every read, of the writes that select points by it, and `update_filter`.",
        &[
            "Filter",
            "Condition",
            "FieldCondition",
            "Match",
            "ValueVariants",
            "AnyVariants",
            "RangeInterface",
            "Range",
            "DatetimeRange",
            "GeoBoundingBox",
            "GeoRadius",
            "GeoPolygon",
            "GeoPoint",
            "ValuesCount",
            "MinShould",
            "Nested",
            "Slice",
        ],
    ),
    (
        "Reads",
        "The bodies of the requests that read.",
        &[
            "QueryRequest",
            "Prefetch",
            "QueryGroupsRequest",
            "SearchMatrixRequest",
            "ScrollRequest",
            "PointRequest",
            "CountRequest",
            "FacetRequest",
            "WithPayloadInterface",
            "WithVector",
        ],
    ),
    (
        "Writes",
        "The bodies of the requests that write.",
        &[
            "PointInsertOperations",
            "PointsList",
            "PointsBatch",
            "Batch",
            "BatchVectorStruct",
            "PointStruct",
            "VectorStruct",
            "Vector",
            "SparseVector",
            "Document",
            "DocumentOptions",
            "Bm25Config",
            "UpdateMode",
            "PointsSelector",
            "PointIdsList",
            "FilterSelector",
            "UpdateVectors",
            "PointVectors",
            "DeleteVectors",
            "SetPayload",
            "DeletePayload",
            "UpdateOperation",
        ],
    ),
    (
        "Payload indexes",
        "`PUT /index`, of every kind with all parameters.",
        &[
            "CreateFieldIndex",
            "PayloadFieldSchema",
            "PayloadSchemaType",
            "PayloadSchemaParams",
            "KeywordIndexParams",
            "IntegerIndexParams",
            "FloatIndexParams",
            "GeoIndexParams",
            "TextIndexParams",
            "BoolIndexParams",
            "DatetimeIndexParams",
            "UuidIndexParams",
            "TokenizerType",
            "StopwordsInterface",
            "StopwordsSet",
            "Language",
            "StemmingAlgorithm",
            "SnowballParams",
            "SnowballLanguage",
        ],
    ),
    (
        "Named vectors",
        "`PUT /vectors/{vector_name}`.",
        &[
            "VectorNameConfig",
            "DenseVectorConfig",
            "SparseVectorConfig",
            "VectorStorageDatatype",
        ],
    ),
    (
        "Configuration of a collection",
        "The body of `PUT /collections/{c}`, which `create` takes.",
        &[],
    ),
];

const INTRODUCTION: &str = "\
# What of Qdrant's API is understood

Written by a test (`tests/system/src/api_table.rs`), which sends the requests of
`tests/system/src/api/examples.rs` through the component and the native engine, compares the answers,
and fails when Qdrant's API description or the engine's source has something that is not listed
here. `EDGE_SYNC_BLESS=1 cargo xtask test api_table` writes it anew.

The requests are those of Qdrant 1.19 below `/collections/{c}`; `shard.request` takes them by method,
path and body, `edge-sync request` and `edge-sync serve` hand them on. \"yes\" is shown by a request that
was answered as the native engine answers it. \"no\" comes with the words of the refusal. A field that is
not listed is an error that names it.

## Limits

A component has little memory, and an allocation that fails there ends the instance. So a request
that asks for too much is refused, with the field that asks for it:

- A body has at most 32 MiB, the server's default.
- All limits of a request (of its prefetches and searches too) add up to at most 2,097,152 results,
  where a limit beyond the number of points counts as all points. One query may read all points.
- The vectors of one answer hold at most 16,777,216 numbers, and so do the examples of one query.
- MMR compares at most 4,096 candidates, of dense vectors or multivectors: the engine has no MMR of
  sparse ones.
- There are at most 128 named vectors and 128 payload indexes. Payloads nest 96 deep.
- Filters, prefetches and expressions nest 32 deep; there are at most 1,024 prefetches.
- A dense vector has at most 65,536 dimensions, as on the server; an HNSW graph at most 1,024 links a
  point.
";

/// The whole document.
pub fn markdown(outcome: &Outcome) -> String {
    let mut text = INTRODUCTION.to_owned();
    requests(&mut text, outcome);
    uploads(&mut text, outcome);
    let mut placed = BTreeSet::new();
    for (title, about, schemas) in SECTIONS {
        let mine = |schema: &str| {
            let root = schema.split('.').next().unwrap_or_default();
            if schemas.is_empty() {
                !SECTIONS.iter().any(|(_, _, list)| list.contains(&root))
            } else {
                schemas.contains(&root)
            }
        };
        let parts: Vec<_> = outcome
            .parts
            .iter()
            .filter(|(part, _)| mine(&part.schema))
            .collect();
        placed.extend(parts.iter().map(|(part, _)| part));
        section(&mut text, title, about, &parts, schemas, outcome);
    }
    debug_assert_eq!(placed.len(), outcome.parts.len());
    newer(&mut text, outcome);
    engine(&mut text);
    text
}

fn requests(text: &mut String, outcome: &Outcome) {
    text.push_str("\n## Requests\n\n| request | | |\n| --- | --- | --- |\n");
    for (method, path, refused) in &outcome.requests {
        let (verdict, why) = verdict(refused.as_deref());
        let path = if path.is_empty() {
            "/collections/{c}"
        } else {
            path
        };
        line(text, &[&code(&format!("{method} {path}")), verdict, &why]);
    }
}

fn uploads(text: &mut String, outcome: &Outcome) {
    text.push_str(
        "\n## How writes are uploaded\n\nEach through the matching operation, by the ids that the \
         device's filters found.\n\n| write | uploaded as |\n| --- | --- |\n",
    );
    let mut shown = BTreeSet::new();
    for (write, upload) in &outcome.uploads {
        if shown.insert((write, upload)) {
            line(text, &[&code(write), &code(upload)]);
        }
    }
}

fn section(
    text: &mut String,
    title: &str,
    about: &str,
    parts: &[&(Part, Sort)],
    order: &[&str],
    outcome: &Outcome,
) {
    let _ = write!(
        text,
        "\n## {title}\n\n{about}\n\n| in | what | | |\n| --- | --- | --- | --- |\n"
    );
    let mut by_schema: Vec<(&str, Vec<&(Part, Sort)>)> = Vec::new();
    for entry in parts {
        match by_schema
            .iter_mut()
            .find(|(name, _)| *name == entry.0.schema)
        {
            Some((_, list)) => list.push(entry),
            None => by_schema.push((&entry.0.schema, vec![entry])),
        }
    }
    let place = |name: &str| {
        let root = name.split('.').next().unwrap_or_default();
        order.iter().position(|known| *known == root)
    };
    by_schema.sort_by(|(a, _), (b, _)| (place(a), a).cmp(&(place(b), b)));
    for (schema, list) in by_schema {
        let schema_code = code(schema);
        for (part, sort) in &list {
            if *sort == Sort::Form || outcome.refused.contains_key(part) {
                let refused = outcome.refused.get(part).map(String::as_str);
                let (verdict, mut why) = verdict(refused);
                if let (true, Some(used)) = (refused.is_none(), outcome.used.get(part)) {
                    why = code(&abridged(used));
                }
                line(text, &[&schema_code, &code(&part.name), verdict, &why]);
            }
        }
        let plain = |for_server: bool| -> Vec<String> {
            list.iter()
                .filter(|(part, sort)| *sort != Sort::Form && !outcome.refused.contains_key(part))
                .filter(|(part, _)| is_for_the_server(part) == for_server)
                .map(|(part, _)| code(&part.name))
                .collect()
        };
        let (ours, server) = (plain(false), plain(true));
        if !ours.is_empty() {
            line(text, &[&schema_code, &ours.join(", "), "yes", ""]);
        }
        if !server.is_empty() {
            let note = "kept for the server; without effect on the device";
            line(text, &[&schema_code, &server.join(", "), "yes", note]);
        }
    }
}

fn is_for_the_server(part: &Part) -> bool {
    part.schema.starts_with("StrictMode")
        || part.schema == "WalConfigDiff"
        || FOR_THE_SERVER
            .iter()
            .any(|(schema, names)| *schema == part.schema && names.contains(&part.name.as_str()))
}

fn newer(text: &mut String, outcome: &Outcome) {
    text.push_str(
        "\n## Beyond Qdrant 1.19\n\nThe engine is newer than the server whose API this is. What it has \
         beyond that is understood in the form that Qdrant 1.20 gives it; a server of 1.19 leaves out \
         the index and collection parameters among it when they are uploaded.\n\n| what | | |\n| --- | --- | --- |\n",
    );
    for (name, _, shown) in &outcome.newer {
        line(text, &[name, "yes", &code(shown)]);
    }
}

fn engine(text: &mut String) {
    text.push_str(
        "\n## The engine's public API\n\nThe types of `qdrant-edge` 0.9.0, by their names in its source.\n\n\
         | type | member | | |\n| --- | --- | --- | --- |\n",
    );
    for (name, member, reach) in ITEMS {
        let (verdict, how) = match reach {
            Reach::Example(example) => ("yes", format!("example \"{example}\"")),
            Reach::By(what) => ("yes", (*what).to_owned()),
            Reach::No(why) => ("no", (*why).to_owned()),
        };
        line(text, &[&code(name), &code(member), verdict, &how]);
    }
}

fn verdict(refused: Option<&str>) -> (&'static str, String) {
    match refused {
        None => ("yes", String::new()),
        Some(why) => ("no", escaped(why)),
    }
}

fn line(text: &mut String, cells: &[&str]) {
    text.push('|');
    for cell in cells {
        if !cell.is_empty() {
            text.push(' ');
            text.push_str(cell);
        }
        text.push_str(" |");
    }
    text.push('\n');
}

fn code(words: &str) -> String {
    format!("`{}`", words.replace('|', "\\|"))
}

fn escaped(words: &str) -> String {
    words.replace('|', "\\|").replace('\n', " ")
}

/// JSON as it may stand in a cell.
pub fn abridged(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(90) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
