"""What calls answer. Fields are called as in Qdrant's REST API and in `qdrant_client.models`."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, Union

PointId = Union[int, str]
"""A number, or a UUID as text."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stored point."""

    id: PointId
    payload: dict[str, Any] | None = None
    vector: Any = None
    """A list of numbers, or a dict by name, as far as it was asked for."""
    order_value: int | float | None = None
    """The value that a scroll was ordered by."""


@dataclass(frozen=True, slots=True)
class ScoredPoint:
    """A result of a search."""

    id: PointId
    version: int
    score: float
    payload: dict[str, Any] | None = None
    vector: Any = None
    order_value: int | float | None = None


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """Proof that a write is on disk as the durability promises, and applied."""

    operation_id: int
    """Sequence of the last operation that was logged."""
    status: str
    """`completed`."""


@dataclass(frozen=True, slots=True)
class PointGroup:
    id: str | int
    """The value that the points of the group share."""
    hits: list[ScoredPoint]
    lookup: Record | None = None


@dataclass(frozen=True, slots=True)
class FacetHit:
    value: str | int | bool
    count: int


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """State of the open shard."""

    config: dict[str, Any]
    """The body of `PUT /collections/{c}`."""
    payload_schema: dict[str, Any]
    points: int
    indexed_vectors: int
    segments: int
    generation: int
    """A restore or a pull makes the next."""
    memory_bytes: int
    """Memory that the component holds; it never shrinks."""


@dataclass(frozen=True, slots=True)
class SourceShard:
    """A shard of a collection on a server."""

    shard: int
    shard_key: str | None = None
    """In a collection that is sharded by keys: a number, or a name in double quotes."""


@dataclass(frozen=True, slots=True)
class PullReport:
    """What a pull did."""

    changed: bool
    """False if the server has nothing new."""
    points_before: int
    points: int
    bytes: int
    """Bytes downloaded."""
    shards: list[SourceShard]
    """The shards that it came from."""
    peer: int | None
    """The peer of the cluster that sent them, if it was asked."""
    elsewhere: int
    """Points that the shard lost to other shards of the collection, where the server has them."""
    reasons: list[str]
    """Why more was fetched than changed."""
    unsettled: str | None
    """Why the shard may not be what the server held; the next pull gets it."""
    notes: list[str]


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did."""

    uploaded: int
    """Operations that the server confirmed."""
    requests: int
    rejected: int
    """Operations that the server refused, now in the rejected log."""
    remaining: int
    """Operations that still wait; 0 unless the sync gave up."""
    created_collection: bool
    pulled: PullReport | None
    """None if only an upload was asked for."""


@dataclass(frozen=True, slots=True)
class RejectedOperation:
    sequence: int
    status: int
    """HTTP status of the refusal; 0 if it was skipped by hand."""
    message: str
    """The server's words."""
    rejected_at: datetime.datetime
    operation: dict[str, Any]
    """The REST request body that carried it."""


@dataclass(frozen=True, slots=True)
class Status:
    """What is stored, what waits, how the last sync went."""

    points: int
    generation: int
    logged: int
    """Sequence of the last operation that was logged."""
    acknowledged: int
    """Of the last that the server confirmed, or that was put aside."""
    queued: int
    """Operations that wait for upload."""
    queued_bytes: int
    oldest_queued: datetime.datetime | None
    rejected: int
    url: str | None
    """The server, without the API key."""
    collection: str | None
    lost: str | None
    """Why the collection is not the one that it was; see `sync(rebind=True)` and `resend=True`."""
    last_sync: datetime.datetime | None
    """When a sync of this object last ended well."""
    last_error: Exception | None
    """How the last sync of this object failed; None after one that ended well."""
    notes: list[str] = field(default_factory=list)
    """What a person should know: what was repaired when the shard was opened, and since."""
