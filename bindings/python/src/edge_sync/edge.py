"""The interface: `EdgeSync`."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import shutil
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Union
from urllib.parse import quote

from wasmtime.component import Variant

from . import _component, _json, errors
from ._exchange import Exchange, Part, Server, Worker
from ._instance import fields
from ._shard import Settings, Shard
from .results import (
    FacetHit,
    PointGroup,
    PointId,
    Record,
    RejectedOperation,
    ScoredPoint,
    ShardInfo,
    Status,
    SyncReport,
    UpdateResult,
)

Durability = Union[Literal["always", "os"], int]
"""When a write is on disk: before the call returns; when the operating system sees fit; or at least
every so many milliseconds while writes come. With the latter two a crash of the process loses nothing,
a power cut the last writes."""

Body = Any
"""A value of `qdrant_client.models`, or plain dicts and lists in Qdrant's REST schema. Where a vector
is expected, a numpy array as well."""

MOST_BODY_BYTES = 32 << 20
"""Longest JSON of one request."""

UPLOAD_BYTES = 8 << 20
"""Of JSON in one step of `upload`, about."""

PAGE = 1000
"""Points, or operations, that are read at once where all are wanted."""


class EdgeSync:
    """A shard on this device. Writes go to a durable log and to the shard, then the call returns.
    What was written waits in the log until the server has confirmed it.

    ```python
    with EdgeSync("data", config={"vectors": {"size": 3, "distance": "Cosine"}},
                  url="http://127.0.0.1:6333", collection="colours") as edge:
        edge.upsert([{"id": 1, "vector": [1.0, 0.0, 0.0], "payload": {"name": "red"}}])
        edge.search([0.9, 0.1, 0.0], limit=1)
        edge.sync()
    ```

    For any number of threads. Calls wait for each other, and for a sync: the component does one thing
    at a time. Arguments take `qdrant_client.models` or plain values, as `Body` says. Of every call:
    `InvalidInput` names the field at fault, `StorageError` and `Corrupt` come from the files, `Closed`
    after `close`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        config: Body | None = None,
        url: str | None = None,
        collection: str | None = None,
        api_key: str | None = None,
        shard: int | None = None,
        shard_key: str | int | None = None,
        tenant: str | None = None,
        background: bool = False,
        every: float = 60.0,
        on_sync: Callable[[SyncReport], None] | None = None,
        timeout: float = 60.0,
        durability: Durability = "always",
        memory_mib: int = 2048,
        component: str | os.PathLike[str] | None = None,
        progress: Callable[[str], None] = _component.to_stderr,
    ) -> None:
        """Opens the shard in `path`; makes it if there is none.

        config: for a shard that is not there yet: the body of Qdrant's `PUT /collections/{c}`, a
            `models.CreateCollection`, or `models.VectorParams` alone. Without it, a shard that is
            not there is restored from the server.
        url, collection: the server; without them, the one that the shard is bound to.
        api_key: sent to that server only, and never shown.
        shard: only the shard of this number of a collection of several.
        shard_key: the shards of this key, in a collection that is sharded by keys.
        tenant: `FIELD=VALUE`: only the points of one tenant, told apart by a field of the payload.
            VALUE is its own shard key once there is one; until then `shard_key`, or `default`, is
            the one that it shares with others.
        background: sync on a thread of its own: soon after a write, and every `every` seconds to
            fetch what others wrote. `on_sync` is told of each that did something, on that thread.
        timeout: longest silence of the server, in seconds. No call returns while one is waited for.
        memory_mib: most memory of the component, at most 4095.
        component: its file, if not the one of the package.
        progress: told a line when something takes long: the first start on a machine compiles.

        Raises: `NotFound` if there is no shard, no `config` and no server; `Locked`;
        `ComponentMissing`; `ServerError` from a restore.
        """
        self.path = pathlib.Path(path)
        if not 64 <= memory_mib <= 4095:
            raise errors.InvalidInput("memory_mib", "expected 64 to 4095")
        if not timeout > 0 or not every > 0:
            raise errors.InvalidInput("timeout" if not timeout > 0 else "every", "expected seconds")
        if (url is None) != (collection is None):
            raise errors.InvalidInput(
                "url" if url is None else "collection", "expected both url and collection, or none"
            )
        # What is wrong is told before anything is made.
        part = Part(shard, None if shard_key is None else _shard_key(shard_key), tenant)
        server = None
        if url is not None and collection is not None:
            server = Server.of(url, collection, part, api_key, timeout)
        settings = Settings(self.path, _durability(durability), memory_mib << 20)
        opened = Shard(_component.load(component, progress), settings)
        self._shard = opened
        self._exchange: Exchange | None = None
        self._worker: Worker | None = None
        try:
            if server is None and opened.is_present:
                bound = _binding(self.path)
                if bound is not None:
                    url, collection, bound_part = bound
                    server = Server.of(url, collection, part or bound_part, api_key, timeout)
            if server is not None:
                opened.admit(server.origin)
                self._exchange = Exchange(opened, server)
            self._open(config, server)
            if background:
                if self._exchange is None:
                    raise errors.InvalidInput("background", "needs url and collection")
                self._worker = Worker(self._exchange, every, on_sync)
        except BaseException:
            with contextlib.suppress(errors.EdgeSyncError):
                opened.close()
            raise
        self._finalizer = weakref.finalize(self, _close, opened, self._worker)

    def _open(self, config: Body | None, server: Server | None) -> None:
        if self._shard.is_present:
            self._shard.open()
        elif config is not None:
            self._shard.create(_config(config))
        elif server is not None:
            self._shard.restore(server.record(), "stream", False)
        else:
            raise errors.NotFound(
                f"there is no shard in {self.path}; config= makes one, url= and collection= fetch one"
            )

    def __enter__(self) -> EdgeSync:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        server = "" if self._exchange is None else f", {self._exchange.server}"
        return f"EdgeSync({str(self.path)!r}{server})"

    def close(self) -> None:
        """Waits for the sync under way, flushes, closes. Nothing that was returned depends on it."""
        self._finalizer()

    # Writes.

    def upsert(
        self, points: Body, *, update_filter: Body | None = None, update_mode: str | None = None
    ) -> UpdateResult:
        """Writes points, or replaces those whose ids exist: all of them or, on error, none.

        points: a list of points (`{"id", "vector", "payload"}` or `models.PointStruct`), or a
            `models.Batch`. At most 32 MiB as JSON; `upload` takes more.
        update_filter, update_mode: as in Qdrant: which existing points may be changed.
        """
        values = _json.plain(points)
        if isinstance(values, Mapping):
            body = dict(values) if "batch" in values else {"batch": values}
        else:
            body = {"points": _listed(values)}
        _put(body, update_filter=update_filter, update_mode=update_mode)
        return self._update("PUT", "/points", body)

    def upload(
        self,
        vectors: Any,
        ids: Iterable[Any],
        payloads: Iterable[Mapping[str, Any] | None] | None = None,
        *,
        batch_size: int | None = None,
    ) -> int:
        """Writes many points, from a numpy array of a row each (by name: a dict of arrays), in several
        steps of `batch_size` points. Each step is all or nothing; an error leaves those before it.

        Returns: how many points were written.
        """
        columns = vectors if isinstance(vectors, Mapping) else {"": vectors}
        ids = list(ids)
        rows = len(ids)
        given = None if payloads is None else list(payloads)
        lengths = {f"vectors.{name}" if name else "vectors": len(c) for name, c in columns.items()}
        if given is not None:
            lengths["payloads"] = len(given)
        for field, length in lengths.items():
            if length != rows:
                raise errors.InvalidInput(field, f"has {length} rows, and there are {rows} ids")
        if batch_size is None:
            batch_size = _batch_size(columns)
        if batch_size < 1:
            raise errors.InvalidInput("batch_size", "expected at least 1")
        for start in range(0, rows, batch_size):
            part = slice(start, start + batch_size)
            slices = {name: column[part] for name, column in columns.items()}
            batch: dict[str, Any] = {
                "ids": ids[part],
                "vectors": slices if isinstance(vectors, Mapping) else slices[""],
            }
            if given is not None:
                batch["payloads"] = given[part]
            self._update("PUT", "/points", {"batch": batch})
        return rows

    def delete(self, points: Body) -> UpdateResult:
        """Deletes points: a list of ids, a `models.Filter` (resolved to ids now), or a selector."""
        return self._update("POST", "/points/delete", _selected(points))

    def set_payload(
        self, payload: Mapping[str, Any], points: Body, *, key: str | None = None
    ) -> UpdateResult:
        """Sets fields of payloads and leaves the others; below `key`, a path, if there is one."""
        body = {"payload": payload, **_selected(points)}
        return self._update("POST", "/points/payload", _put(body, key=key))

    def overwrite_payload(
        self, payload: Mapping[str, Any], points: Body, *, key: str | None = None
    ) -> UpdateResult:
        """Replaces payloads."""
        body = {"payload": payload, **_selected(points)}
        return self._update("PUT", "/points/payload", _put(body, key=key))

    def delete_payload(self, keys: Sequence[str], points: Body) -> UpdateResult:
        """Removes fields of payloads."""
        return self._update(
            "POST", "/points/payload/delete", {"keys": list(keys), **_selected(points)}
        )

    def clear_payload(self, points: Body) -> UpdateResult:
        """Removes all fields of payloads."""
        return self._update("POST", "/points/payload/clear", _selected(points))

    def update_vectors(self, points: Body, *, update_filter: Body | None = None) -> UpdateResult:
        """Replaces vectors of points that exist: a list of `{"id", "vector"}`."""
        body = _put({"points": _listed(_json.plain(points))}, update_filter=update_filter)
        return self._update("PUT", "/points/vectors", body)

    def delete_vectors(self, names: Sequence[str], points: Body) -> UpdateResult:
        """Removes named vectors of points."""
        return self._update(
            "POST", "/points/vectors/delete", {"vector": list(names), **_selected(points)}
        )

    def batch(self, operations: Sequence[Body]) -> list[UpdateResult]:
        """Several writes in order: `{"upsert": {...}}`, `{"delete": {...}}`, or what
        `client.batch_update_points` takes. All are checked before the first is applied."""
        answer = self._write("POST", "/points/batch", {"operations": list(operations)})
        return [UpdateResult(**result) for result in answer]

    def create_payload_index(self, field_name: str, field_schema: Body) -> UpdateResult:
        """Makes a payload index: `"keyword"`, or an object with `type` and parameters."""
        body = {"field_name": field_name, "field_schema": field_schema}
        return self._update("PUT", "/index", body)

    def delete_payload_index(self, field_name: str) -> UpdateResult:
        """Removes a payload index; one that is not there is fine."""
        return self._update("DELETE", f"/index/{_quoted(field_name)}", None)

    def create_vector(self, name: str, config: Body) -> UpdateResult:
        """Adds a named vector to the shard: the body of `PUT /vectors/{vector_name}`."""
        return self._update("PUT", f"/vectors/{_quoted(name)}", config)

    def delete_vector(self, name: str) -> UpdateResult:
        """Removes a named vector from the shard."""
        return self._update("DELETE", f"/vectors/{_quoted(name)}", None)

    # Reads.

    def search(
        self,
        vector: Any,
        *,
        using: str | None = None,
        filter: Body | None = None,
        limit: int = 10,
        offset: int | None = None,
        score_threshold: float | None = None,
        params: Body | None = None,
        with_payload: Body = True,
        with_vector: Body = False,
    ) -> list[ScoredPoint]:
        """The points nearest to a vector, best first. `using` names which of several vectors."""
        return self.query(
            {"nearest": vector},
            using=using,
            filter=filter,
            limit=limit,
            offset=offset,
            score_threshold=score_threshold,
            params=params,
            with_payload=with_payload,
            with_vector=with_vector,
        )

    def query(
        self,
        query: Body | None = None,
        *,
        prefetch: Body | None = None,
        using: str | None = None,
        filter: Body | None = None,
        limit: int = 10,
        offset: int | None = None,
        score_threshold: float | None = None,
        params: Body | None = None,
        lookup_from: Body | None = None,
        with_payload: Body = True,
        with_vector: Body = False,
    ) -> list[ScoredPoint]:
        """Any universal query: a vector, a point's id, `models.RecommendQuery`, `models.FusionQuery`
        over `prefetch`, ...; the fields of `POST /points/query`."""
        body = {"limit": limit, "with_payload": with_payload, "with_vector": with_vector}
        _put(
            body,
            query=query,
            prefetch=prefetch,
            using=using,
            filter=filter,
            offset=offset,
            score_threshold=score_threshold,
            params=params,
            lookup_from=lookup_from,
        )
        return _scored(self._read("POST", "/points/query", body)["points"])

    def query_batch(self, requests: Sequence[Body]) -> list[list[ScoredPoint]]:
        """Several queries: bodies of `POST /points/query`, or `models.QueryRequest`."""
        answer = self._read("POST", "/points/query/batch", {"searches": list(requests)})
        return [_scored(result["points"]) for result in answer]

    def query_groups(
        self,
        query: Body | None,
        group_by: str,
        *,
        group_size: int = 3,
        limit: int = 10,
        prefetch: Body | None = None,
        using: str | None = None,
        filter: Body | None = None,
        score_threshold: float | None = None,
        params: Body | None = None,
        with_payload: Body = True,
        with_vector: Body = False,
    ) -> list[PointGroup]:
        """A query whose results are grouped by a payload field."""
        body = {
            "group_by": group_by,
            "group_size": group_size,
            "limit": limit,
            "with_payload": with_payload,
            "with_vector": with_vector,
        }
        _put(
            body,
            query=query,
            prefetch=prefetch,
            using=using,
            filter=filter,
            score_threshold=score_threshold,
            params=params,
        )
        groups = self._read("POST", "/points/query/groups", body)["groups"]
        return [PointGroup(group["id"], _scored(group["hits"])) for group in groups]

    def retrieve(
        self, ids: Sequence[Any], *, with_payload: Body = True, with_vector: Body = False
    ) -> list[Record]:
        """Points by id, in the order asked; ids that do not exist are left out."""
        body = {"ids": list(ids), "with_payload": with_payload, "with_vector": with_vector}
        return _records(self._read("POST", "/points", body))

    def scroll(
        self,
        *,
        filter: Body | None = None,
        limit: int = 10,
        offset: PointId | None = None,
        order_by: Body | None = None,
        with_payload: Body = True,
        with_vector: Body = False,
    ) -> tuple[list[Record], PointId | None]:
        """A page of points in order of id, and where the next begins; None at the end."""
        body = {"limit": limit, "with_payload": with_payload, "with_vector": with_vector}
        _put(body, filter=filter, offset=offset, order_by=order_by)
        page = self._read("POST", "/points/scroll", body)
        return _records(page["points"]), page["next_page_offset"]

    def points(
        self, *, filter: Body | None = None, with_payload: Body = True, with_vector: Body = False
    ) -> Iterator[Record]:
        """All points in order of id, read a page at a time."""
        offset = None
        while True:
            page, offset = self.scroll(
                filter=filter,
                limit=PAGE,
                offset=offset,
                with_payload=with_payload,
                with_vector=with_vector,
            )
            yield from page
            if offset is None:
                return

    def count(self, filter: Body | None = None) -> int:
        """How many points match, exactly; all of them without a filter."""
        body = _put({"exact": True}, filter=filter)
        return int(self._read("POST", "/points/count", body)["count"])

    def facet(self, key: str, *, limit: int = 10, filter: Body | None = None) -> list[FacetHit]:
        """The values of an indexed payload field, and how many points have each."""
        body = _put({"key": key, "limit": limit, "exact": True}, filter=filter)
        return [FacetHit(**hit) for hit in self._read("POST", "/facet", body)["hits"]]

    def matrix_pairs(self, **body: Any) -> dict[str, Any]:
        """Distances between sampled points, as pairs: fields of `POST /points/search/matrix/pairs`."""
        answer: dict[str, Any] = self._read("POST", "/points/search/matrix/pairs", body)
        return answer

    def matrix_offsets(self, **body: Any) -> dict[str, Any]:
        """As `matrix_pairs`, in the form of a sparse matrix."""
        answer: dict[str, Any] = self._read("POST", "/points/search/matrix/offsets", body)
        return answer

    def request(self, method: str, path: str, body: Body | None = None) -> Any:
        """Any request of Qdrant's points API, by its path below `/collections/{c}`; its `result`."""
        return self._write(method, path, body)

    def info(self) -> ShardInfo:
        """State of the open shard."""
        values = fields(self._shard.call("shard", "info"))
        for name in ("config", "payload_schema"):
            values[name] = json.loads(values[name])
        return ShardInfo(**values)

    # Upkeep.

    def optimize(self) -> bool:
        """Merges segments and builds indexes (HNSW). May take long. Whether anything was done."""
        return bool(self._shard.call("shard", "optimize"))

    def flush(self) -> None:
        """Makes everything durable in the shard itself, and shortens the log."""
        self._shard.call("shard", "flush")

    # With the server.

    def sync(
        self,
        direction: Literal["both", "push", "pull"] = "both",
        *,
        attempts: int = 5,
        patience: float = 60.0,
        batch_operations: int = 10,
        most_batch_operations: int = 1000,
        batch_bytes: int = 8 << 20,
        rebind: bool = False,
        resend: bool = False,
        create_shard_key: bool = False,
    ) -> SyncReport:
        """Uploads what waits, then fetches what others wrote.

        attempts: failures in a row after which it gives up.
        patience: longest wait between two of them, in seconds.
        batch_operations: of the first request; while answers come quickly, the next ones grow to
            most_batch_operations.
        batch_bytes: of one request.
        rebind: the collection is the one that was bound before, in a new place.
        resend: queues everything that the shard holds again, for a server that has lost it.
        create_shard_key: makes the shard key if the collection does not have it.

        Raises: `ServerError`, whose `report` says what was done; what waits stays in the queue.
        """
        if direction not in ("both", "push", "pull"):
            raise errors.InvalidInput("direction", "expected 'both', 'push' or 'pull'")
        for name, value in (
            ("attempts", attempts),
            ("batch_operations", batch_operations),
            ("most_batch_operations", most_batch_operations),
            ("batch_bytes", batch_bytes),
        ):
            if not 1 <= value < 2**32:
                raise errors.InvalidInput(name, "expected at least 1")
        if patience < 0:
            raise errors.InvalidInput("patience", "expected seconds")
        return self._server().sync(
            direction,
            attempts,
            patience,
            batch_operations,
            most_batch_operations,
            batch_bytes,
            rebind,
            resend,
            create_shard_key,
        )

    def restore(
        self,
        snapshot: str | os.PathLike[str] | None = None,
        *,
        stored: bool = False,
        force: bool = False,
    ) -> None:
        """Replaces what the shard holds by the server's snapshot, or by one in a file. What waits for
        upload is kept.

        stored: have the server store the snapshot first, so that the download can be resumed.
        force: although many points would be dropped, or from another collection than before.

        Raises: `BadSnapshot`, `ServerError`, `InvalidInput`; the shard is as before.
        """
        if snapshot is None:
            exchange = self._server()
            source = "stored" if stored else "stream"
            self._shard.restore(exchange.server.record(), source, force)
            return
        # The component sees the data directory only.
        staged = self.path / ".restore.snapshot"
        try:
            shutil.copyfile(snapshot, staged)
            self._shard.restore_file(staged.name, force)
        finally:
            staged.unlink(missing_ok=True)

    def status(self) -> Status:
        """What is stored, what waits, how the last sync went. Asks no server."""
        queue = fields(self._shard.call("queue", "status"))
        standing = fields(self._shard.call("queue", "standing"))
        info = fields(self._shard.call("shard", "info"))
        binding = standing["binding"]
        exchange = self._exchange
        server = None if exchange is None else exchange.server
        return Status(
            points=info["points"],
            generation=info["generation"],
            logged=queue["logged"],
            acknowledged=queue["acknowledged"],
            queued=queue["queued"],
            queued_bytes=queue["queued_bytes"],
            oldest_queued=_time(queue["oldest_queued_ms"]),
            rejected=queue["rejected"],
            url=None if server is None else server.url,
            collection=None if server is None else server.collection,
            lost=None if binding is None else fields(binding)["lost"],
            last_sync=None if exchange is None else exchange.last_sync,
            last_error=None if exchange is None else exchange.last_error,
            notes=list(self._shard.notes),
        )

    def rejected(self) -> Iterator[RejectedOperation]:
        """What the server refused, oldest first."""
        after = 0
        while True:
            page = self._shard.call("queue", "rejected", after, PAGE)
            for item in page:
                values = fields(item)
                after = values["sequence"]
                at = _time(values.pop("rejected_ms"))
                assert at is not None
                operation = json.loads(values.pop("operation"))
                yield RejectedOperation(rejected_at=at, operation=operation, **values)
            if not page:
                return

    def retry_rejected(self, sequences: Iterable[int] | None = None) -> int:
        """Queues rejected operations again, each point as the shard holds it now; all without
        `sequences`. How many. Raises: `NotFound`; `InvalidInput` if the shard does not take one."""
        if sequences is None:
            sequences = [operation.sequence for operation in self.rejected()]
        count = 0
        for sequence in sequences:
            self._shard.write("queue", "retry-rejected", sequence)
            count += 1
        self._written()
        return count

    def drop_rejected(self, sequences: Iterable[int] | None = None) -> int:
        """Forgets rejected operations; all without `sequences`. How many. Raises: `NotFound`."""
        if sequences is None:
            return int(self._shard.call("queue", "drop-rejected-up-to", 2**64 - 1))
        count = 0
        for sequence in sequences:
            self._shard.call("queue", "drop-rejected", sequence)
            count += 1
        return count

    def skip(self, count: int = 1) -> int:
        """Moves operations from the head of the queue to the rejected log. How many."""
        if not 1 <= count < 2**32:
            raise errors.InvalidInput("count", "expected at least 1")
        return int(self._shard.call("queue", "skip", count))

    # Within.

    def _server(self) -> Exchange:
        if self._exchange is None:
            raise errors.InvalidInput("url", "no server is set: EdgeSync(..., url=, collection=)")
        return self._exchange

    def _read(self, method: str, path: str, body: Body | None) -> Any:
        return json.loads(self._shard.request(method, path, body, writes=False))

    def _write(self, method: str, path: str, body: Body | None) -> Any:
        answer = json.loads(self._shard.request(method, path, body, writes=True))
        self._written()
        return answer

    def _update(self, method: str, path: str, body: Body | None) -> UpdateResult:
        return UpdateResult(**self._write(method, path, body))

    def _written(self) -> None:
        if self._worker is not None:
            self._worker.written()


def _close(shard: Shard, worker: Worker | None) -> None:
    if worker is not None:
        worker.stop()
    shard.close()


def _durability(value: Durability) -> Variant:
    if value in ("always", "os"):
        return Variant(str(value))
    if isinstance(value, int) and 0 < value < 2**32:
        return Variant("interval", value)
    raise errors.InvalidInput("durability", "expected 'always', 'os' or milliseconds")


def _config(config: Body) -> Any:
    """The body of `PUT /collections/{c}`; the parameters of a vector stand for the only one."""
    body = _json.plain(config)
    if isinstance(body, Mapping) and {"size", "distance"} <= body.keys():
        return {"vectors": body}
    if isinstance(body, Mapping):
        # It names the collection in some versions of the client.
        return {name: value for name, value in body.items() if name != "collection_name"}
    raise errors.InvalidInput("config", "expected the body of PUT /collections/{c}")


def _shard_key(key: str | int) -> str:
    """Text that looks like a number is text."""
    return json.dumps(key) if isinstance(key, str) else str(key)


def _binding(path: pathlib.Path) -> tuple[str, str, Part] | None:
    """The server that a sync has bound the shard to."""
    try:
        binding = json.loads((path / "server.json").read_text("utf-8"))
        url, collection = binding["url"], binding["collection"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # Empty after a contact with a server that nobody named.
    if isinstance(url, str) and isinstance(collection, str) and url and collection:
        part = Part(
            binding.get("shard"), binding.get("shard_key"), binding.get("tenant")
        )
        return url, collection, part
    return None


def _listed(values: Any) -> Any:
    return list(values) if isinstance(values, (Iterator, tuple)) else values


def _put(body: dict[str, Any], **values: Any) -> dict[str, Any]:
    body.update({name: value for name, value in values.items() if value is not None})
    return body


def _selected(points: Body) -> dict[str, Any]:
    """`points` or `filter` of a request: from a list of ids, a filter, or a selector of both."""
    values = _json.plain(points)
    if isinstance(values, Mapping):
        is_selector = bool({"points", "filter"} & values.keys())
        return dict(values) if is_selector else {"filter": dict(values)}
    if isinstance(values, (str, int)):
        return {"points": [values]}
    return {"points": list(values)}


def _batch_size(columns: Mapping[str, Any]) -> int:
    numbers = 0
    for column in columns.values():
        first = _json.plain(column[0]) if len(column) else []
        numbers += len(first) if isinstance(first, list) else 1
    # A number is some 20 bytes.
    return max(1, min(PAGE, UPLOAD_BYTES // (20 * max(1, numbers))))


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _records(values: Any) -> list[Record]:
    return [
        Record(v["id"], v.get("payload"), v.get("vector"), v.get("order_value")) for v in values
    ]


def _scored(values: Any) -> list[ScoredPoint]:
    return [
        ScoredPoint(
            v["id"],
            v["version"],
            v["score"],
            v.get("payload"),
            v.get("vector"),
            v.get("order_value"),
        )
        for v in values
    ]


def _time(milliseconds: int | None) -> datetime.datetime | None:
    if milliseconds is None:
        return None
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)
