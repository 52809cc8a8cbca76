"""An open shard: the instance that has it, and how it comes back after a failure."""

from __future__ import annotations

import os
import pathlib
import threading
from dataclasses import dataclass
from typing import Any

from wasmtime.component import Variant

from . import _json, errors
from ._component import Loaded
from ._instance import GUEST_DIRECTORY, Instance, NeedsReopen, Origin, fields, record
from ._lock import DirectoryLock

ALL_RETURNED = 2**64 - 1
"""For `reopen`: nothing is to be taken back."""


@dataclass(frozen=True)
class Settings:
    """What an instance is made with."""

    directory: pathlib.Path
    durability: Variant
    memory_bytes: int


class Shard:
    """For any number of threads; calls wait for each other."""

    def __init__(self, loaded: Loaded, settings: Settings) -> None:
        self._loaded = loaded
        self._settings = settings
        self._mutex = threading.RLock()
        self._instance: Instance | None = None
        self._origin: Origin | None = None
        self._returned = ALL_RETURNED
        self._failed_at: int | None = None
        self._is_closed = False
        self.notes: list[str] = []
        settings.directory.mkdir(parents=True, exist_ok=True)
        self._lock = DirectoryLock(settings.directory)

    @property
    def is_present(self) -> bool:
        """Whether there is a shard in the directory."""
        return (self._settings.directory / "CURRENT").exists()

    def create(self, config: Any) -> None:
        """Makes a shard. Raises: `InvalidInput`, `AlreadyExists`, `StorageError`."""
        with self._mutex:
            self._note(
                self._fresh().call(
                    "shard", "create", GUEST_DIRECTORY, _json.dumps(config), self._options()
                )
            )

    def open(self) -> None:
        """Opens the shard. Raises: `NotFound`, `Corrupt`, `StorageError`."""
        with self._mutex:
            self._note(self._fresh().call("shard", "open", GUEST_DIRECTORY, self._options()))

    def admit(self, origin: Origin) -> None:
        """Lets the component reach one server. To be called before there is an instance."""
        self._origin = origin

    def restore(self, server: Any, source: str, force: bool) -> None:
        """Replaces the shard by what the server holds, or makes it."""
        arguments = (GUEST_DIRECTORY, server, Variant(source), force, self._options())
        with self._mutex:
            if self.is_present:
                opened = self.call("sync", "restore", *arguments)
            else:
                opened = self._fresh().call("sync", "restore", *arguments)
            self._note(opened)

    def restore_file(self, file: str, force: bool) -> None:
        """Replaces the shard by a snapshot in a file below the data directory, or makes it."""
        arguments = (GUEST_DIRECTORY, f"{GUEST_DIRECTORY}/{file}", force, self._options())
        with self._mutex:
            if self.is_present:
                opened = self.call("sync", "restore-file", *arguments)
            else:
                opened = self._fresh().call("sync", "restore-file", *arguments)
            self._note(opened)

    def write(self, interface: str, name: str, *arguments: Any) -> Any:
        """A call that may log operations. What one logs that fails is taken back."""
        with self._mutex:
            return self._recovering(interface, name, arguments, True)

    def call(self, interface: str, name: str, *arguments: Any) -> Any:
        """Any other call."""
        with self._mutex:
            return self._recovering(interface, name, arguments, False)

    def request(self, method: str, path: str, body: Any, writes: bool) -> Any:
        """A request of Qdrant's points API; the text of its `result`."""
        text = "" if body is None else _json.dumps(body)
        call = self.write if writes else self.call
        return call("shard", "request", method, path, text)

    def close(self) -> None:
        """Flushes and closes. A second time is fine."""
        with self._mutex:
            if self._is_closed:
                return
            self._is_closed = True
            instance, self._instance = self._instance, None
            try:
                if instance is not None:
                    self.notes.extend(instance.call("shard", "close"))
            except NeedsReopen:
                # Nothing is open, or what is in memory is in doubt: the log has what was returned.
                pass
            finally:
                del instance
                self._lock.release()

    def _recovering(
        self, interface: str, name: str, arguments: tuple[Any, ...], writes: bool
    ) -> Any:
        """The call, once more if an earlier failure had left the shard in doubt."""
        if self._is_closed:
            raise errors.Closed("this EdgeSync was closed")
        if self._instance is None:
            self._reopen()
        returned = ALL_RETURNED if self._failed_at is None else self._failed_at
        try:
            try:
                returned = self._before(writes)
                answer = self._instance_call(interface, name, arguments)
            except NeedsReopen as why:
                before, self._returned = returned, returned
                self._reopen()
                self.notes.append(f"the shard was opened again after: {why}")
                # What a batch of several steps has done may be flushed, and then it stays.
                if self._before(writes) != before and before != ALL_RETURNED:
                    raise
                answer = self._instance_call(interface, name, arguments)
        except errors.Trapped as trapped:
            self._instance = None
            self._returned = returned
            try:
                self._reopen()
                self.notes.append("the shard was opened again after a trap")
            except errors.EdgeSyncError as error:
                # Tried again with the next call.
                trapped.__cause__ = error
            raise
        except errors.EdgeSyncError:
            if writes:
                self._failed_at = returned
            raise
        # The queue says nothing of whether the shard is in doubt.
        if interface != "queue":
            self._failed_at = None
        return answer

    def _before(self, writes: bool) -> int:
        """The log's last sequence that no call under way has logged; after a write that failed, the one
        before that."""
        if not writes:
            logged = ALL_RETURNED
        else:
            logged = self._instance_call("shard", "before-write", (self._free_bytes(),))
        return logged if self._failed_at is None else min(logged, self._failed_at)

    def _instance_call(self, interface: str, name: str, arguments: tuple[Any, ...]) -> Any:
        if self._instance is None:
            raise NeedsReopen("the shard is not open")
        return self._instance.call(interface, name, *arguments)

    def _reopen(self) -> None:
        try:
            opened = self._fresh().call(
                "shard", "reopen", GUEST_DIRECTORY, self._options(), self._returned
            )
        except errors.EdgeSyncError:
            # The next call tries it again, and takes the same back.
            self._instance = None
            raise
        self._returned = ALL_RETURNED
        self._failed_at = None
        self._note(opened)

    def _fresh(self) -> Instance:
        # The old one first: two would need twice the memory.
        self._instance = None
        instance = Instance(
            self._loaded,
            self._settings.directory,
            self._settings.memory_bytes,
            self._origin,
        )
        self._instance = instance
        return instance

    def _options(self) -> Any:
        return record(
            durability=self._settings.durability,
            log_segment_bytes=None,
            flush_after_bytes=None,
            memory_bytes=self._settings.memory_bytes,
        )

    def _note(self, opened: Any) -> None:
        self.notes.extend(fields(opened)["notes"])

    def _free_bytes(self) -> int | None:
        try:
            status = os.statvfs(self._settings.directory)
        except OSError:
            return None
        # Some network file systems know nothing.
        return status.f_bavail * status.f_frsize if status.f_blocks else None
