"""A Qdrant Edge shard with a durable log and an upload queue, in step with a Qdrant server.

`EdgeSync` is where to begin.
"""

from . import errors
from .edge import Durability, EdgeSync
from .errors import EdgeSyncError
from .results import (
    FacetHit,
    PointGroup,
    PointId,
    PullReport,
    Record,
    RejectedOperation,
    ScoredPoint,
    ShardInfo,
    SourceShard,
    Status,
    SyncReport,
    UpdateResult,
)

__all__ = [
    "Durability",
    "EdgeSync",
    "EdgeSyncError",
    "FacetHit",
    "PointGroup",
    "PointId",
    "PullReport",
    "Record",
    "RejectedOperation",
    "ScoredPoint",
    "ShardInfo",
    "SourceShard",
    "Status",
    "SyncReport",
    "UpdateResult",
    "errors",
]
