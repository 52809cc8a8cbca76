"""Syncs: with which server, how, and what they did. On a thread of its own if asked for."""

from __future__ import annotations

import datetime
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from . import errors
from ._instance import Origin, error_of, fields, record
from ._shard import Shard
from .results import PullReport, SourceShard, SyncReport

CONNECT_TIMEOUT_MS = 10_000

# After a failure, doubled each time.
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0


@dataclass(frozen=True)
class Part:
    """Which part of a collection; all of it without any."""

    shard: int | None = None
    shard_key: str | None = None
    tenant: str | None = None

    def __bool__(self) -> bool:
        return self != Part()


@dataclass(frozen=True)
class Server:
    """Which collection on which server."""

    url: str
    collection: str
    api_key: str | None = field(repr=False)
    origin: Origin = field(repr=False)
    part: Part

    @classmethod
    def of(
        cls, url: str, collection: str, part: Part, api_key: str | None, timeout: float
    ) -> Server:
        """Raises: `InvalidInput`."""
        try:
            parts = urlsplit(url)
            parts.port  # noqa: B018  (it is looked at now)
        except ValueError as error:
            raise errors.InvalidInput("url", str(error)) from None
        if parts.scheme not in ("http", "https"):
            raise errors.InvalidInput("url", "expected a URL such as http://127.0.0.1:6333")
        if "@" in parts.netloc:
            raise errors.InvalidInput("url", "user names and passwords do not belong in it")
        if not parts.hostname or parts.query or parts.fragment:
            raise errors.InvalidInput("url", "expected scheme, host, port and path only")
        if not collection:
            raise errors.InvalidInput("collection", "expected the collection's name")
        path = parts.path.rstrip("/")
        origin = Origin(parts.scheme == "https", parts.netloc, timeout)
        return cls(f"{parts.scheme}://{parts.netloc}{path}", collection, api_key, origin, part)

    def record(self) -> Any:
        return record(
            url=self.url,
            collection=self.collection,
            api_key=self.api_key,
            connect_timeout_ms=CONNECT_TIMEOUT_MS,
            shard=self.part.shard,
            shard_key=self.part.shard_key,
            tenant=self.part.tenant,
        )


class Exchange:
    """The syncs of a shard with its server, one at a time."""

    def __init__(self, shard: Shard, server: Server) -> None:
        self._shard = shard
        self.server = server
        self.last_sync: datetime.datetime | None = None
        self.last_error: Exception | None = None

    def sync(
        self,
        direction: str = "both",
        attempts: int = 5,
        patience: float = 60.0,
        batch_operations: int = 10,
        most_batch_operations: int = 1000,
        batch_bytes: int = 8 << 20,
        rebind: bool = False,
        resend: bool = False,
        create_shard_key: bool = False,
    ) -> SyncReport:
        """Raises: `ServerError` with what was done before it gave up; anything that a call can."""
        options = record(
            operations=batch_operations,
            bytes=batch_bytes,
            most_operations=most_batch_operations,
            attempts=attempts,
            patience_ms=int(patience * 1000),
            rebind=rebind,
            resend=resend,
            direction=direction,
            create_shard_key=create_shard_key,
        )
        try:
            answer = fields(self._shard.call("sync", "sync", self.server.record(), options))
            failure = answer.pop("failure")
            report = _report(answer)
            if failure is not None:
                error = error_of(failure)
                if isinstance(error, errors.ServerError):
                    error.report = report
                raise error
        except Exception as error:
            self.last_error = error
            raise
        self.last_sync = datetime.datetime.now(datetime.timezone.utc)
        self.last_error = None
        return report


def _report(answer: dict[str, Any]) -> SyncReport:
    pulled = answer["pulled"]
    if pulled is not None:
        values = fields(pulled)
        # What came by file is for those who tune it.
        del values["pulled"]
        values["shards"] = [SourceShard(**fields(shard)) for shard in values["shards"]]
        pulled = PullReport(**values)
    return SyncReport(**{**answer, "pulled": pulled})


class Worker:
    """Uploads on a thread of its own soon after a write, and fetches what others wrote now and then."""

    def __init__(
        self,
        exchange: Exchange,
        every: float,
        on_sync: Callable[[SyncReport], None] | None,
    ) -> None:
        self._exchange = exchange
        self._every = every
        self._on_sync = on_sync
        self._wake = threading.Event()
        self._stop = threading.Event()
        # Daemonic, so that it keeps no program from ending; `close` joins it.
        self._thread = threading.Thread(target=self._run, name="edge-sync", daemon=True)
        self._thread.start()

    def written(self) -> None:
        """Something waits for upload."""
        self._wake.set()

    def stop(self) -> None:
        """Waits for the exchange under way."""
        self._stop.set()
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        failures = 0
        pull_at = time.monotonic()
        while not self._stop.is_set():
            self._wake.clear()
            pulls = time.monotonic() >= pull_at
            try:
                report = self._exchange.sync(
                    "both" if pulls else "push", attempts=1, patience=0.0
                )
            except errors.Closed:
                return
            except Exception as error:
                # Kept in `last_error`; what waits stays in the queue. Writes do not end the wait: they
                # would have a server that is down asked after each.
                failures += 1
                self._stop.wait(_wait(failures, error))
                continue
            failures = 0
            if pulls:
                # Jitter, so that many devices do not come together.
                pull_at = time.monotonic() + self._every * random.uniform(0.9, 1.1)
            if self._on_sync is not None and (report.uploaded or _changed(report)):
                try:
                    self._on_sync(report)
                except Exception:
                    logging.getLogger("edge_sync").exception("on_sync failed")
            self._wake.wait(max(0.0, pull_at - time.monotonic()))


def _changed(report: SyncReport) -> bool:
    return report.pulled is not None and report.pulled.changed


def _wait(failures: int, error: Exception) -> float:
    if isinstance(error, errors.ServerError):
        if error.retry_after is not None:
            return error.retry_after
        if error.reason == "stop":
            return LONGEST_WAIT
    doubled = FIRST_WAIT * 2.0 ** min(failures - 1, 10)
    return min(doubled, LONGEST_WAIT) * random.uniform(0.5, 1.0)
