"""Machine code is made once, and used only where it can be trusted."""

import pathlib

import pytest
import wasmtime
from wasmtime import component as wasm

from edge_sync import _component, errors


@pytest.fixture
def lines(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("EDGE_SYNC_CACHE", str(tmp_path / "cache"))
    return []


def compiled(lines: list[str], file: pathlib.Path, text: str = "(component)") -> bool:
    """Whether a small component had to be compiled."""
    file.write_text(text)
    lines.clear()
    engine = wasmtime.Engine(_component._config())
    assert isinstance(_component._component(engine, file, lines.append), wasm.Component)
    return bool(lines)


def test_code_is_kept(lines: list[str], tmp_path: pathlib.Path) -> None:
    file = tmp_path / "small.wasm"
    assert compiled(lines, file)
    assert "once" in lines[0] and str(tmp_path / "cache/python") in lines[1]
    assert not compiled(lines, file)


def test_damaged_code_is_made_anew(lines: list[str], tmp_path: pathlib.Path) -> None:
    file = tmp_path / "small.wasm"
    compiled(lines, file)
    (kept,) = (tmp_path / "cache/python").glob("*.cwasm")
    code = bytearray(kept.read_bytes())
    code[len(code) // 2] ^= 1
    kept.write_bytes(code)
    assert compiled(lines, file)
    assert not compiled(lines, file)


def test_code_that_others_can_write_is_not_used(lines: list[str], tmp_path: pathlib.Path) -> None:
    file = tmp_path / "small.wasm"
    compiled(lines, file)
    (tmp_path / "cache/python").chmod(0o777)
    assert compiled(lines, file)


def test_code_of_earlier_versions_goes(lines: list[str], tmp_path: pathlib.Path) -> None:
    file = tmp_path / "small.wasm"
    for version in range(_component.MOST_KEPT + 2):
        assert compiled(lines, file, f"(component) ;; {version}")
    kept = list((tmp_path / "cache/python").iterdir())
    assert len(kept) == 2 * _component.MOST_KEPT, kept
    assert not compiled(lines, file, f"(component) ;; {version}")


def test_a_component_that_is_none_is_named(lines: list[str], tmp_path: pathlib.Path) -> None:
    missing = tmp_path / "missing.wasm"
    with pytest.raises(errors.ComponentMissing, match="missing.wasm"):
        _component.load(missing, lines.append)
    other = tmp_path / "other.wasm"
    other.write_text("(component)")
    with pytest.raises(errors.ComponentMissing, match="other.wasm"):
        _component.load(other, lines.append)
