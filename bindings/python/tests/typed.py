"""Checked by mypy, not run: what the types of the package say to those who use it."""

import numpy as np
from qdrant_client import models

from edge_sync import EdgeSync, PointId, Record, ScoredPoint, SyncReport


def use(path: str) -> None:
    with EdgeSync(path, config=models.VectorParams(size=3, distance=models.Distance.DOT)) as edge:
        sequence: int = edge.upsert([{"id": 1, "vector": np.zeros(3)}]).operation_id
        hits: list[ScoredPoint] = edge.search(np.zeros(3), limit=sequence)
        scores: list[float] = [hit.score for hit in hits]
        page: tuple[list[Record], PointId | None] = edge.scroll()
        report: SyncReport = edge.sync("push")
        edge.sync("sideways")  # type: ignore[arg-type]
        edge.search(np.zeros(3), limits=3)  # type: ignore[call-arg]
        print(scores, page, report)
