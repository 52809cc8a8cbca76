"""One host for each data directory, as the `edge-sync` command has it: WASI has no file locks."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import time

from .errors import Locked

FILE_NAME = ".lock"

# Whoever looks who has it takes it for a moment.
ATTEMPTS = 10
BETWEEN_ATTEMPTS = 0.01


class DirectoryLock:
    """Held until `release`. The operating system gives it up with the process."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._file = open(directory / FILE_NAME, "a+", encoding="utf-8")
        try:
            self._take(directory)
        except BaseException:
            self._file.close()
            raise
        # A courtesy to whoever is refused; the lock holds without it.
        holder = {
            "pid": os.getpid(),
            "command": "edge_sync (Python)",
            "since_ms": int(time.time() * 1000),
        }
        try:
            self._file.truncate(0)
            self._file.write(json.dumps(holder) + "\n")
            self._file.flush()
        except OSError:
            pass

    def _take(self, directory: pathlib.Path) -> None:
        for attempt in range(ATTEMPTS):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if attempt + 1 < ATTEMPTS:
                    time.sleep(BETWEEN_ATTEMPTS)
        self._file.seek(0)
        raise Locked(f"{directory} is in use by {_holder(self._file.read())}")

    def release(self) -> None:
        self._file.close()


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        pid, command = int(holder["pid"]), str(holder["command"])
    except (ValueError, KeyError, TypeError):
        return "another process"
    return f"process {pid}, `{command}`"
