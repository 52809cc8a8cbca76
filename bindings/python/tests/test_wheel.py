"""The wheel, as it is made of the clone."""

import os
import pathlib
import shutil
import stat
import subprocess
import sys
import zipfile

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
LEFT_OUT = shutil.ignore_patterns("tests", "build", "*.egg-info", "__pycache__")


def test_its_modes_are_not_those_of_the_clone(tmp_path: pathlib.Path) -> None:
    clone = tmp_path / "clone"
    shutil.copytree(PACKAGE, clone, ignore=LEFT_OUT)
    for path in clone.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    component = tmp_path / "component"
    component.write_bytes(b"component")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    environment = {**os.environ, "EDGE_SYNC_COMPONENT": str(component)}
    subprocess.run([*wheel, str(clone)], env=environment, umask=0o077, check=True)
    (made,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        assert archive.read("edge_sync/edge_sync.wasm") == b"component"
        for file in archive.infolist():
            mode = stat.S_IMODE(file.external_attr >> 16)
            # That list is the archive's own, and has always this mode.
            expected = 0o664 if file.filename.endswith("/RECORD") else 0o644
            assert mode == expected, file.filename
