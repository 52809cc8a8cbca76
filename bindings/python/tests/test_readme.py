"""The README does what it says."""

import inspect
import pathlib
import re
import urllib.request

import pytest
import qdrant_edge
from conftest import Open, Server

import edge_sync
from edge_sync import EdgeSync, errors

README = pathlib.Path(__file__).parents[1] / "README.md"
URL = "http://127.0.0.1:6333"
BLOCK = re.compile(r"^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_blocks_print_what_is_shown(
    server: Server,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(README.read_text("utf-8"))
    names: dict[str, object] = {}
    shown = 0
    printed = ""
    for info, text in blocks:
        if info == "python":
            exec(compile(text.replace(URL, server.url), f"README: {text[:40]}", "exec"), names)
            printed = capsys.readouterr().out
        elif info == "text output":
            assert printed == text
            shown += 1
        else:
            assert info.startswith("sh no-test: "), info
    assert shown >= 5


def rows() -> list[tuple[str, str]]:
    section = README.read_text("utf-8").split("## Coming from `qdrant_edge`")[1].split("\n## ")[0]
    found = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)
    return found[2:] if found[1][0].startswith("---") else found[1:]


def test_each_call_of_qdrant_edge_has_one_here(
    device: Open, server: Server, tmp_path: pathlib.Path
) -> None:
    table = rows()
    left = " ".join(row[0] for row in table)
    for name, _ in inspect.getmembers(qdrant_edge.EdgeShard):
        if not name.startswith("_"):
            assert re.search(rf"\.{name}\(", left), f"the README's table lacks {name}"
    config = {"vectors": {"size": 3, "distance": "Dot"}}
    path = str(tmp_path / "device")
    edge = device(config=config, url=server.url, collection="c")
    edge.upsert([{"id": 2, "vector": [3, 2, 1]}])
    edge.sync()
    file = tmp_path / "shard.snapshot"
    with urllib.request.urlopen(f"{server.url}/collections/c/shards/0/snapshot") as answer:
        file.write_bytes(answer.read())
    for _, right in table:
        for code in re.findall(r"`(.+?)`", right):
            opens = code.startswith("EdgeSync(")
            if opens:
                edge.close()
            values = {"edge": edge, "path": path, "config": config, "file": file}
            answer = eval(code, {"EdgeSync": EdgeSync}, values)
            if opens:
                answer.close()
            if opens or code == "edge.close()":
                edge = device(url=server.url, collection="c")
    assert edge.count() > 0


def test_the_table_of_errors_has_all_of_them() -> None:
    section = README.read_text("utf-8").split("\n## Errors")[1].split("\n## ")[0]
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.EdgeSyncError) and kind is not errors.EdgeSyncError:
            assert f"`{name}`" in section, name


def test_everything_public_has_words() -> None:
    for name in edge_sync.__all__:
        assert inspect.getdoc(getattr(edge_sync, name)) or name in ("Durability", "PointId")
    for name, member in inspect.getmembers(EdgeSync):
        if not name.startswith("_"):
            assert inspect.getdoc(member), name
