"""Finding the component, and keeping its machine code."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import metadata, resources

import wasmtime
from wasmtime import component as wasm

from .errors import ComponentMissing

Progress = Callable[[str], None]
"""Told a line for people when something takes long."""

MOST_KEPT = 4
"""Components whose machine code is kept: those of other versions."""

_lock = threading.Lock()
_loaded: dict[pathlib.Path, Loaded] = {}


class Loaded:
    """The component and the guard as machine code, shared by all shards of the process."""

    def __init__(self, engine: wasmtime.Engine, component: wasm.Component) -> None:
        self.engine = engine
        self.component = component
        guard = resources.files(__package__).joinpath("guard.wat").read_text("utf-8")
        self.guard = wasm.Component(engine, guard)
        self.handler = next(
            name
            for name in component.type.imports(engine)
            if name.startswith("wasi:http/outgoing-handler@")
        )


def to_stderr(line: str) -> None:
    """The default `Progress`."""
    print(f"edge-sync: {line}", file=sys.stderr, flush=True)


def load(path: str | os.PathLike[str] | None, progress: Progress) -> Loaded:
    """The component at `path`, or where it is found; compiled once on each machine.

    Compiling takes half a minute and 600 MB of memory. The machine code, 62 MB, is kept in
    `$EDGE_SYNC_CACHE/python`, `$XDG_CACHE_HOME/edge-sync/python` or `~/.cache/edge-sync/python`.

    Raises: `ComponentMissing`.
    """
    file = find(path).resolve()
    with _lock:
        loaded = _loaded.get(file)
        if loaded is None:
            engine = wasmtime.Engine(_config())
            try:
                component = _component(engine, file, progress)
                loaded = Loaded(engine, component)
            except (OSError, StopIteration, wasmtime.WasmtimeError) as error:
                raise ComponentMissing(f"cannot use the component {file}: {error}") from error
            _loaded[file] = loaded
        return loaded


def find(path: str | os.PathLike[str] | None) -> pathlib.Path:
    """Where the component lies: `path`, `EDGE_SYNC_COMPONENT`, the package, the clone."""
    here = pathlib.Path(__file__).resolve()
    named = path or os.environ.get("EDGE_SYNC_COMPONENT")
    if named:
        places = [pathlib.Path(named)]
    else:
        places = [here.with_name("edge_sync.wasm")]
        # bindings/python/src/edge_sync of a clone.
        if len(here.parents) > 4:
            places.append(here.parents[4] / "target/edge-sync/edge_sync.wasm")
    for place in places:
        if place.is_file():
            return place
    raise ComponentMissing(f"the component is not at {places[0]}: run `cargo xtask build`")


def _config() -> wasmtime.Config:
    config = wasmtime.Config()
    # Results that depend on the processor would make devices disagree.
    config.wasm_relaxed_simd = False
    return config


def _component(
    engine: wasmtime.Engine, file: pathlib.Path, progress: Progress
) -> wasm.Component:
    code = file.read_bytes()
    parts = (metadata.version("wasmtime"), sys.platform, platform.machine(), "1")
    key = hashlib.sha256(code + "\0".join(parts).encode()).hexdigest()
    kept = _cache() / f"{key}.cwasm"
    component = _kept(engine, kept)
    if component is None:
        progress("compiling for this machine, which takes about half a minute, once")
        began = time.monotonic()
        component = wasm.Component(engine, code)
        took = time.monotonic() - began
        try:
            _keep(kept, bytes(component.serialize()))
            progress(f"compiled in {took:.0f} s, kept in {kept.parent}")
        except OSError as error:
            progress(f"compiled in {took:.0f} s, and cannot be kept: {error}")
    return component


def _cache() -> pathlib.Path:
    own = os.environ.get("EDGE_SYNC_CACHE")
    if own:
        return pathlib.Path(own) / "python"
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification wants relative paths to be ignored.
    parent = pathlib.Path(xdg) if os.path.isabs(xdg) else pathlib.Path.home() / ".cache"
    return parent / "edge-sync" / "python"


def _digest_file(kept: pathlib.Path) -> pathlib.Path:
    return kept.with_suffix(".sha256")


def _kept(engine: wasmtime.Engine, kept: pathlib.Path) -> wasm.Component | None:
    """Machine code from the cache. It is trusted, so what another user could have written, or what
    is damaged, is not used."""
    try:
        status = kept.parent.stat()
        if status.st_uid != os.getuid() or status.st_mode & 0o022:
            return None
        code = kept.read_bytes()
        if hashlib.sha256(code).hexdigest() != _digest_file(kept).read_text("ascii"):
            return None
        component = wasm.Component.deserialize_file(engine, str(kept))
        # Used now: others go first.
        os.utime(kept)
        return component
    except (OSError, ValueError, wasmtime.WasmtimeError):
        return None


def _keep(kept: pathlib.Path, code: bytes) -> None:
    kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    others = sorted(kept.parent.glob("*.cwasm"), key=lambda path: path.stat().st_mtime)
    for other in others[: -(MOST_KEPT - 1)]:
        _digest_file(other).unlink(missing_ok=True)
        other.unlink(missing_ok=True)
    # The digest last: without it the code is not used.
    for path, content in (
        (kept, code),
        (_digest_file(kept), hashlib.sha256(code).hexdigest().encode("ascii")),
    ):
        with tempfile.NamedTemporaryFile(dir=kept.parent, delete=False) as file:
            try:
                file.write(content)
                file.close()
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
