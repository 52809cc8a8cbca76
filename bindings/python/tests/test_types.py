"""The package is typed, in itself and for those who use it."""

import pathlib
import subprocess
import sys


def test_mypy_has_nothing_to_say() -> None:
    folder = pathlib.Path(__file__).parents[1]
    command = [sys.executable, "-m", "mypy", "--python-version", "3.10"]
    checked = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
