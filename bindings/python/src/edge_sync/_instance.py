"""One instance of the component: its directory, its one HTTP origin, its calls."""

from __future__ import annotations

import pathlib
from collections import deque
from typing import Any

import wasmtime
from wasmtime import component as wasm

from . import errors
from ._component import Loaded

PACKAGE = "edge-sync:shard"
VERSION = "0.1.0"

GUEST_DIRECTORY = "/data"
"""Where the component sees the data directory."""


class Origin:
    """The one place that requests may go to."""

    def __init__(self, secure: bool, authority: str, timeout: float) -> None:
        self.secure = secure
        self.authority = authority
        self.timeout = timeout
        """Longest silence before and within an answer, in seconds."""


def record(**fields: Any) -> wasm.Record:
    """A WIT record; underscores stand for hyphens."""
    value = wasm.Record()
    for name, item in fields.items():
        setattr(value, name.replace("_", "-"), item)
    return value


def fields(value: Any) -> dict[str, Any]:
    """A WIT record as a dict, with underscores."""
    return {name.replace("-", "_"): item for name, item in vars(value).items()}


class Instance:
    """Not for two threads at once."""

    def __init__(
        self,
        loaded: Loaded,
        directory: pathlib.Path,
        memory_bytes: int,
        origin: Origin | None,
    ) -> None:
        self._stderr: deque[str] = deque(maxlen=20)
        self._store = wasmtime.Store(loaded.engine)
        self._store.set_limits(memory_size=memory_bytes)
        wasi = wasmtime.WasiConfig()
        wasi.preopen_dir(str(directory), GUEST_DIRECTORY)
        wasi.stderr_custom = self._heard
        self._store.set_wasi(wasi)
        self._store.set_wasi_http()
        self._functions: dict[tuple[str, str], wasm.Func] = {}
        self._instance = self._instantiate(loaded, origin)

    def _instantiate(self, loaded: Loaded, origin: Origin | None) -> wasm.Instance:
        linker = wasm.Linker(loaded.engine)
        linker.add_wasip2()
        linker.add_wasi_http()
        guard = linker.instantiate(self._store, loaded.guard)
        allow, handle = (self._function(guard, None, name) for name in ("allow", "handle"))
        if origin is not None:
            nanoseconds = int(origin.timeout * 1e9)
            allow(self._store, origin.secure, origin.authority, nanoseconds)
            allow.post_return(self._store)

        def guarded(store: wasmtime.StoreContext, request: Any, options: Any) -> Any:
            answer = handle(store, request, options)
            handle.post_return(store)
            return answer

        linker = wasm.Linker(loaded.engine)
        linker.allow_shadowing = True
        linker.add_wasip2()
        linker.add_wasi_http()
        with linker.root() as root, root.add_instance(loaded.handler) as handler:
            handler.add_func("handle", guarded)
        return linker.instantiate(self._store, loaded.component)

    def _heard(self, text: bytes) -> None:
        self._stderr.extend(text.decode("utf-8", "replace").splitlines())

    def _function(self, instance: wasm.Instance, interface: str | None, name: str) -> wasm.Func:
        within = None
        if interface is not None:
            within = instance.get_export_index(
                self._store, f"{PACKAGE}/{interface}@{VERSION}"
            )
        index = instance.get_export_index(self._store, name, within)
        function = None if index is None else instance.get_func(self._store, index)
        if function is None:
            raise errors.ComponentMissing(f"the component has no {interface}.{name}")
        return function

    def call(self, interface: str, name: str, *arguments: Any) -> Any:
        """Calls a function of the component. Its error is raised.

        Raises: `Trapped`, after which the instance is of no use any more.
        """
        key = (interface, name)
        function = self._functions.get(key)
        if function is None:
            function = self._functions[key] = self._function(self._instance, interface, name)
        self._stderr.clear()
        try:
            answer = function(self._store, *arguments)
            function.post_return(self._store)
        except (wasmtime.WasmtimeError, wasmtime.Trap) as error:
            said = "\n".join([str(error), *self._stderr])
            raise errors.Trapped(f"the component trapped in {interface}.{name}: {said}") from None
        if isinstance(answer, wasm.Variant):
            # A result whose two sides look alike is told apart by name; another is what it holds.
            if answer.tag == "ok":
                return answer.payload
            raise error_of(answer.payload if answer.tag == "err" else answer)
        return answer


class NeedsReopen(errors.Internal):
    """An earlier failure left the shard in doubt; or there is none open."""

    kind = "needs-reopen"


def error_of(variant: Any) -> errors.EdgeSyncError:
    """The exception of a WIT `error`."""
    tag, payload = variant.tag, variant.payload
    words = {
        "not-found": errors.NotFound,
        "already-exists": errors.AlreadyExists,
        "unsupported": errors.Unsupported,
        "bad-snapshot": errors.BadSnapshot,
        "needs-reopen": NeedsReopen,
        "internal": errors.Internal,
    }
    if tag in words:
        return words[tag](payload)
    if tag in ("not-open", "already-open"):
        return NeedsReopen(f"the component says `{tag}`")
    values = fields(payload)
    if tag == "invalid-input":
        return errors.InvalidInput(values["field"], values["message"])
    if tag == "storage":
        reason = values["kind"]
        kind = errors.NoSpace if reason == "no-space" else errors.StorageError
        return kind(reason, values["operation"], values["path"], values["message"])
    if tag == "no-memory":
        return errors.NoMemory(**values)
    if tag == "lost-operations":
        return errors.LostOperations(**values)
    if tag == "corrupt":
        return errors.Corrupt(**values)
    if tag == "server":
        after = values["retry_after_ms"]
        return errors.ServerError(
            values["class"],
            values["status"],
            values["request"],
            values["message"],
            None if after is None else after / 1000,
        )
    return errors.Internal(f"an error that this package does not know: {tag}")
