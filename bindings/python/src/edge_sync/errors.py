"""Every way in which a call can fail. All are `EdgeSyncError`; `kind` is the name that the command
and the other hosts give it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .results import SyncReport


class EdgeSyncError(Exception):
    """No call changes anything when it fails, except where its documentation says so."""

    kind: ClassVar[str] = "internal"


class InvalidInput(EdgeSyncError, ValueError):
    """The input was refused before anything was changed."""

    kind = "invalid-input"

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field
        """The field at fault, as a path (`points[3].vector`); empty for the whole input."""
        self.message = message
        """What is wrong with it and what would be accepted."""


class NotFound(EdgeSyncError, LookupError):
    """There is no such shard, point, vector, file or rejected operation."""

    kind = "not-found"


class AlreadyExists(EdgeSyncError):
    """There is one already."""

    kind = "already-exists"


class Unsupported(EdgeSyncError):
    """The engine, or this build of it, cannot do that."""

    kind = "unsupported"


class StorageError(EdgeSyncError, OSError):
    """The file system failed."""

    kind = "storage"

    def __init__(self, reason: str, operation: str, path: str, message: str) -> None:
        super().__init__(f"cannot {operation}{f' ({path})' if path else ''}: {message}")
        self.reason = reason
        """`no-space`, `permission`, `not-found` or `io`."""
        self.operation = operation
        """What was being done."""
        self.path = path
        """To which file, below `/data`; empty where that is not known."""


class NoSpace(StorageError):
    """The disk or the quota is full. Reading, deleting and uploading go on."""


class NoMemory(EdgeSyncError, MemoryError):
    """Too little memory is free for a write. Reading, deleting and uploading go on."""

    kind = "no-memory"

    def __init__(self, needed_bytes: int, free_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"too little memory: the write needs {needed_bytes >> 20} MiB, with what must be "
            f"possible after it, and {free_bytes >> 20} MiB of {limit_bytes >> 20} MiB are free"
        )
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.limit_bytes = limit_bytes


class LostOperations(EdgeSyncError):
    """Operations wait for upload and are no longer in the log. `sync(resend=True)` is the way out."""

    kind = "lost-operations"

    def __init__(self, first: int, last: int) -> None:
        super().__init__(
            f"operations {first} to {last} wait for upload and are no longer in the log; "
            "what they did is in the shard: sync(resend=True)"
        )
        self.first = first
        self.last = last


class Corrupt(EdgeSyncError):
    """Stored bytes are not what was written."""

    kind = "corrupt"

    def __init__(self, file: str, offset: int | None, message: str) -> None:
        at = "" if offset is None else f" at byte {offset}"
        super().__init__(f"{file} is damaged{at}: {message}")
        self.file = file
        self.offset = offset


class BadSnapshot(EdgeSyncError):
    """The snapshot cannot be restored. The shard is as it was before."""

    kind = "bad-snapshot"


class ServerError(EdgeSyncError):
    """An exchange with the server failed. What waits for upload is kept."""

    kind = "server"

    def __init__(
        self,
        reason: str,
        status: int | None,
        request: str,
        message: str,
        retry_after: float | None,
    ) -> None:
        words = message if status is None else f"status {status}: {message}"
        super().__init__(f"{request}: {words}")
        self.reason = reason
        """`retry` and `unclear` may pass by themselves; `stop` needs a person (a wrong key, another
        collection); `reject`, `too-large`, `missing`: the server refuses this request."""
        self.status = status
        """HTTP status, where an answer came."""
        self.request = request
        """Method and path."""
        self.retry_after = retry_after
        """Seconds that the server asks to wait."""
        self.report: SyncReport | None = None
        """What the sync did before it gave up. That holds."""


class Internal(EdgeSyncError):
    """A bug in the component, the engine or this package."""


class Trapped(EdgeSyncError):
    """The component trapped. The call is undone, and the shard is open again."""

    kind = "trapped"


class Locked(EdgeSyncError):
    """Another process, or another `EdgeSync` of this one, has the directory open."""

    kind = "locked"


class Closed(EdgeSyncError):
    """The `EdgeSync` was closed."""

    kind = "closed"


class ComponentMissing(EdgeSyncError):
    """The component's file is not there, or cannot be used."""

    kind = "component-missing"
