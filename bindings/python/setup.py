"""Puts the component into the package. Everything else is in pyproject.toml."""

import os
import pathlib
import shutil
from typing import Any

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = pathlib.Path(__file__).resolve().parent


def component() -> pathlib.Path:
    """The component that `cargo xtask build` left in the clone, or that the environment names."""
    named = os.environ.get("EDGE_SYNC_COMPONENT")
    path = pathlib.Path(named) if named else HERE.parents[1] / "target/edge-sync/edge_sync.wasm"
    if not path.is_file():
        raise SystemExit(
            f"the component is not at {path}: run `cargo xtask build` in the clone first, "
            "or name another with EDGE_SYNC_COMPONENT"
        )
    return path


class BuildWithComponent(build_py):
    def run(self) -> None:
        # What an earlier build left there may have been removed from the sources since.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()
        # An editable installation runs from the clone, and finds the component there.
        if not self.editable_mode:
            target = pathlib.Path(self.build_lib) / "edge_sync" / "edge_sync.wasm"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(component(), target)


class WheelOfSameModes(bdist_wheel):
    """A wheel keeps the modes of its files, and the clone's are those of whoever made it."""

    def write_wheelfile(self, *arguments: Any) -> None:
        super().write_wheelfile(*arguments)
        # All that goes into the wheel is in this folder by now.
        for path in pathlib.Path(self.bdist_dir).rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)


setup(cmdclass={"build_py": BuildWithComponent, "bdist_wheel": WheelOfSameModes})
