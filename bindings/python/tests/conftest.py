"""What the tests share: a double of a Qdrant server, and shards.

`cargo xtask test` sets the variables: EDGE_SYNC_COMPONENT, EDGE_SYNC_DOUBLE (the program
`qdrant-double`), EDGE_SYNC_BIN (the command `edge-sync`), EDGE_SYNC_CACHE.
"""

import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from edge_sync import EdgeSync

CONFIG = {"vectors": {"size": 4, "distance": "Dot"}}
COLLECTION = "devices"


def program(variable: str) -> str:
    path = os.environ.get(variable)
    assert path, f"{variable} is not set; `cargo xtask test python` sets it"
    return path


class Server:
    """A double of a Qdrant server, as a process of its own."""

    def __init__(self, folder: pathlib.Path, key: str | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._arguments = [program("EDGE_SYNC_DOUBLE"), "--dir", str(folder / "collections")]
        if key is not None:
            file = folder / "key"
            file.write_text(key)
            self._arguments += ["--api-key-file", str(file)]
        self._start("127.0.0.1:0")

    def _start(self, address: str) -> None:
        self._process = subprocess.Popen(
            [*self._arguments, "--listen", address],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the double did not start"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def start_again(self) -> None:
        """With what it held, where it was."""
        self._start(self.url.removeprefix("http://"))


@pytest.fixture
def server(tmp_path: pathlib.Path) -> Iterator[Server]:
    double = Server(tmp_path / "server")
    yield double
    double.stop()


Open = Callable[..., EdgeSync]


@pytest.fixture
def device(tmp_path: pathlib.Path) -> Iterator[Open]:
    """Opens a shard of that name; closed after the test."""
    opened = []

    def open_device(name: str = "device", **settings: object) -> EdgeSync:
        edge = EdgeSync(tmp_path / name, **settings)  # type: ignore[arg-type]
        opened.append(edge)
        return edge

    yield open_device
    for edge in opened:
        edge.close()


def point(number: int) -> dict[str, object]:
    """A point whose vector and payload tell its id."""
    return {
        "id": number,
        "vector": [1.0, float(number), number / 2, 0.5],
        "payload": {"n": number, "even": number % 2 == 0},
    }
