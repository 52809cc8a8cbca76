//! Requests of Qdrant's points API, by method, path and body.

use qdrant_edge::{Filter, JsonPath, OrderBy, WithPayloadInterface, WithVector};
use serde_json::Value;

use crate::changes::Changes;
use crate::error::{Error, Result};
use crate::filter::{filter, order_by, with_payload};
use crate::json::{Ignored, Node, Strictness, parse_json};
use crate::path::decoded;
use crate::point::PointId;
use crate::query::{
    Access, GroupsBody, QueryBody, groups_body, limit, no_shard_key, query_body, vector_selection,
};
pub use crate::write::Write;
use crate::write::{self, WriteKind, single};

/// A parsed request.
#[allow(
    clippy::large_enum_variant,
    reason = "made once a request, and taken apart at once"
)]
#[derive(Debug, Clone)]
pub enum Request {
    /// Changes nothing; for [`crate::Shard::read`].
    Read(ReadRequest),
    /// Changes points, payload indexes or named vectors; for [`crate::Shard::prepare`].
    Write(Write),
    /// Changes the collection's parameters; for [`crate::CollectionConfig::changed`].
    Configure(Changes),
}

/// A parsed request that only reads.
#[derive(Debug, Clone)]
pub struct ReadRequest(pub(crate) Read);

#[derive(Debug, Clone)]
pub(crate) enum Read {
    Query(Box<QueryBody>),
    QueryBatch(Vec<QueryBody>),
    Groups(Box<GroupsBody>),
    Matrix {
        sample: usize,
        limit: usize,
        filter: Option<Filter>,
        using: String,
        form: MatrixForm,
    },
    Scroll {
        offset: Option<PointId>,
        limit: usize,
        filter: Option<Filter>,
        with_payload: WithPayloadInterface,
        with_vector: WithVector,
        order_by: Option<OrderBy>,
    },
    Retrieve {
        ids: Vec<PointId>,
        with_payload: WithPayloadInterface,
        with_vector: WithVector,
    },
    Point(PointId),
    Count {
        filter: Option<Filter>,
        exact: bool,
    },
    Facet {
        key: JsonPath,
        limit: usize,
        filter: Option<Filter>,
        exact: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MatrixForm {
    Pairs,
    Offsets,
}

/// More neighbours or sampled points than this are cut to it: the engine compares them pairwise.
const MAX_SAMPLE: usize = 1 << 16;

/// Parses a request. `path` is below `/collections/{c}` and may carry a query string
/// (`/points?wait=true`), which is ignored: a local shard always waits. `body` may be empty where
/// the request has none.
///
/// Errors: [`Error::InvalidInput`] names the field; [`Error::Unsupported`] says why, also for paths
/// that are about more than points; [`Error::NotFound`] for a path that Qdrant does not have.
pub fn parse_request(method: &str, path: &str, body: &str) -> Result<Request> {
    parse_request_as(Strictness::Strict, method, path, body)
}

/// As [`parse_request`], read as `strictness` says.
///
/// Errors: as [`parse_request`]; [`Error::Refused`] for what only a server refuses, in its words.
pub fn parse_request_as(
    strictness: Strictness,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Request> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut json = if body.trim().is_empty() {
        Value::Null
    } else {
        parse_json("", body)?
    };
    if strictness == Strictness::Strict {
        return parse_body(method, path, &Node::root("", &json));
    }
    let ignored = Ignored::default();
    let request = parse_body(method, path, &Node::as_server(&json, &ignored))?;
    if ignored.is_empty() {
        return Ok(request);
    }
    // Parts of a body are kept as they are (schemas, conditions): they must be readable again.
    ignored.remove_from(&mut json);
    let ignored = Ignored::default();
    parse_body(method, path, &Node::as_server(&json, &ignored))
}

fn parse_body(method: &str, path: &str, node: &Node<'_>) -> Result<Request> {
    let segments: Vec<_> = path.trim_matches('/').split('/').collect();
    let method = method.to_ascii_uppercase();
    let write = |kind| Ok(Request::Write(single(kind, node.strictness())));
    let read = |read| Ok(Request::Read(ReadRequest(read)));
    match (method.as_str(), segments.as_slice()) {
        ("POST", ["points", "query"]) => read(Read::Query(Box::new(query_body(node)?))),
        ("POST", ["points", "query", "batch"]) => {
            node.fields(&["searches"])?;
            read(Read::QueryBatch(
                node.required("searches")?
                    .items()?
                    .map(|item| query_body(&item))
                    .collect::<Result<_>>()?,
            ))
        }
        ("POST", ["points", "query", "groups"]) => read(Read::Groups(Box::new(groups_body(node)?))),
        ("POST", ["points", "search", "matrix", "pairs"]) => read(matrix(node, MatrixForm::Pairs)?),
        ("POST", ["points", "search", "matrix", "offsets"]) => {
            read(matrix(node, MatrixForm::Offsets)?)
        }
        ("POST", ["points", "scroll"]) => read(scroll(node)?),
        ("POST", ["points"]) => read(retrieve(node)?),
        ("GET", ["points", id]) => read(Read::Point(decoded(id)?.parse()?)),
        ("POST", ["points", "count"]) => read(count(node)?),
        ("POST", ["facet"]) => read(facet(node)?),

        ("PUT", ["points"]) => write(write::upsert(node)?),
        ("POST", ["points", "delete"]) => write(WriteKind::Delete(write::points_selector(node)?)),
        ("PUT", ["points", "vectors"]) => write(write::update_vectors(node)?),
        ("POST", ["points", "vectors", "delete"]) => write(write::delete_vectors(node)?),
        ("POST", ["points", "payload"]) => write(write::set_payload(node)?),
        ("PUT", ["points", "payload"]) => write(write::overwrite_payload(node)?),
        ("POST", ["points", "payload", "delete"]) => write(write::delete_payload(node)?),
        ("POST", ["points", "payload", "clear"]) => {
            write(WriteKind::ClearPayload(write::points_selector(node)?))
        }
        ("POST", ["points", "batch"]) => write::batch(node).map(Request::Write),
        ("PUT", ["index"]) => write(write::create_index(node)?),
        ("DELETE", ["index", field]) => write(write::delete_index(decoded(field)?)?),
        ("PUT", ["vectors", name]) => write(write::create_vector_name(node, decoded(name)?)?),
        ("DELETE", ["vectors", name]) => write(WriteKind::DeleteVectorName {
            name: decoded(name)?,
            may_be_missing: node.is_read_as_server(),
        }),

        ("PATCH", [""]) => Changes::parse(node).map(Request::Configure),

        (_, ["points", "search" | "recommend" | "discover", ..]) => Err(Error::Unsupported(
            format!("{method} {path}: removed from Qdrant's API; use POST /points/query"),
        )),
        (_, segments) => Err(match elsewhere(segments) {
            Some(why) => Error::Unsupported(format!("{method} {path}: {why}")),
            None => Error::NotFound(format!("{method} {path}: not a request of the points API")),
        }),
    }
}

/// Why a request that Qdrant has is none of a local shard's.
fn elsewhere(segments: &[&str]) -> Option<&'static str> {
    Some(match segments {
        [""] | ["exists"] => {
            "a local shard is made by `create`, described by `info` and deleted with its \
             directory"
        }
        ["snapshots", ..] | ["shards", _, "snapshot" | "snapshots", ..] => {
            "a local shard takes snapshots (`restore`), from a server or a file, and makes none: \
             what it holds reaches the server as operations"
        }
        ["shards", ..] | ["cluster"] => "a local shard is one shard, without shard keys and peers",
        ["aliases"] => "a local shard has no name that an alias could stand for",
        ["optimizations"] => "`optimize` runs to its end and says if there was anything to do",
        _ => return None,
    })
}

fn optional_filter(node: &Node<'_>) -> Result<Option<Filter>> {
    node.get("filter").map(|node| filter(&node)).transpose()
}

/// `with_payload`, or `otherwise` if it is not given.
fn payload_selection(node: &Node<'_>, otherwise: bool) -> Result<WithPayloadInterface> {
    node.get("with_payload")
        .map_or(Ok(WithPayloadInterface::Bool(otherwise)), |node| {
            with_payload(&node)
        })
}

/// A server takes no null for `with_vector` in these two requests.
fn no_null_vector_selection(node: &Node<'_>) -> Result<()> {
    match node.value.get("with_vector") {
        Some(null @ Value::Null) if node.is_read_as_server() => Err(node
            .child("with_vector", null)
            .expected("a boolean, or an array of strings")),
        _ => Ok(()),
    }
}

fn flag(node: &Node<'_>, key: &str, default: bool) -> Result<bool> {
    node.get(key).map_or(Ok(default), |flag| flag.bool())
}

fn matrix(node: &Node<'_>, form: MatrixForm) -> Result<Read> {
    node.fields(&["shard_key", "filter", "sample", "limit", "using"])?;
    no_shard_key(node, Access::Read)?;
    Ok(Read::Matrix {
        sample: node
            .get("sample")
            .map_or(Ok(10), |sample| sample.limit(2, MAX_SAMPLE))?,
        limit: node
            .get("limit")
            .map_or(Ok(3), |limit| limit.limit(1, MAX_SAMPLE))?,
        filter: optional_filter(node)?,
        using: node
            .get("using")
            .map_or(Ok(""), |using| using.string())?
            .to_owned(),
        form,
    })
}

fn scroll(node: &Node<'_>) -> Result<Read> {
    node.fields(&[
        "shard_key",
        "offset",
        "limit",
        "filter",
        "with_payload",
        "with_vector",
        "with_vectors",
        "order_by",
    ])?;
    no_null_vector_selection(node)?;
    no_shard_key(node, Access::Read)?;
    Ok(Read::Scroll {
        offset: node
            .get("offset")
            .map(|offset| offset.point_id())
            .transpose()?,
        limit: limit(node)?,
        filter: optional_filter(node)?,
        with_payload: payload_selection(node, true)?,
        with_vector: vector_selection(node)?,
        order_by: node
            .get("order_by")
            .map(|node| order_by(&node))
            .transpose()?,
    })
}

fn retrieve(node: &Node<'_>) -> Result<Read> {
    node.fields(&[
        "shard_key",
        "ids",
        "with_payload",
        "with_vector",
        "with_vectors",
    ])?;
    no_null_vector_selection(node)?;
    no_shard_key(node, Access::Read)?;
    Ok(Read::Retrieve {
        ids: node.required("ids")?.point_ids()?,
        // The server's documentation says that payloads are returned unless asked otherwise; the
        // server returns none.
        with_payload: payload_selection(node, !node.is_read_as_server())?,
        with_vector: vector_selection(node)?,
    })
}

fn count(node: &Node<'_>) -> Result<Read> {
    if node.value.is_null() && !node.is_read_as_server() {
        return Ok(Read::Count {
            filter: None,
            exact: true,
        });
    }
    node.fields(&["shard_key", "filter", "exact"])?;
    no_shard_key(node, Access::Read)?;
    Ok(Read::Count {
        filter: optional_filter(node)?,
        exact: flag(node, "exact", true)?,
    })
}

fn facet(node: &Node<'_>) -> Result<Read> {
    node.fields(&["shard_key", "key", "limit", "filter", "exact"])?;
    no_shard_key(node, Access::Read)?;
    Ok(Read::Facet {
        key: node.required("key")?.json_path()?,
        limit: limit(node)?,
        filter: optional_filter(node)?,
        exact: flag(node, "exact", false)?,
    })
}
