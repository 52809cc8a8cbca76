"""The shard by itself: what is written is there, and what is wrong is said."""

import json
import os
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import uuid

import numpy as np
import pytest
from conftest import CONFIG, Open, point, program
from qdrant_client import models

from edge_sync import EdgeSync, _instance, errors


def test_points_in_every_form_are_the_same(device: Open) -> None:
    edge = device(config=CONFIG)
    values = [0.1, 0.2, 0.3, 0.4]
    name = uuid.uuid4()
    edge.upsert([{"id": 1, "vector": values, "payload": {"n": None}}])
    edge.upsert([models.PointStruct(id=2, vector=values, payload={"n": None})])
    edge.upsert([{"id": np.int64(3), "vector": np.array(values, "float32"), "payload": {"n": None}}])
    edge.upsert(models.Batch(ids=[4], vectors=[values], payloads=[{"n": None}]))
    edge.upsert(point for point in [{"id": name, "vector": tuple(values), "payload": {"n": None}}])
    assert edge.count() == 5
    records = edge.retrieve([str(name), 4, 3, 2, 1, 99], with_vector=True)
    assert [record.id for record in records] == [str(name), 4, 3, 2, 1]
    for record in records:
        assert record.payload == {"n": None}
        assert np.array_equal(np.array(record.vector, "float32"), np.array(values, "float32"))


def test_arrays_arrive_bit_by_bit_and_searches_are_exact(device: Open) -> None:
    edge = device(config=models.VectorParams(size=32, distance=models.Distance.DOT))
    vectors = np.random.default_rng(7).normal(size=(2500, 32)).astype("float32")
    assert edge.upload(vectors, range(2500), ({"row": row} for row in range(2500))) == 2500
    stored = np.array([p.vector for p in edge.points(with_vector=True)], "float32")
    assert np.array_equal(stored, vectors)
    query = vectors[17]
    scores = vectors.astype("float64") @ query.astype("float64")
    hits = edge.search(query, limit=5)
    assert [hit.id for hit in hits] == list(np.argsort(-scores)[:5])
    assert hits[0].payload == {"row": hits[0].id}
    np.testing.assert_allclose([hit.score for hit in hits], -np.sort(-scores)[:5], rtol=1e-5)


def test_an_upload_by_names_in_steps(device: Open) -> None:
    edge = device(
        config=models.CreateCollection(
            vectors={
                "image": models.VectorParams(size=2, distance=models.Distance.DOT),
                "text": models.VectorParams(size=3, distance=models.Distance.DOT),
            }
        )
    )
    arrays = {"image": np.eye(2)[[0, 1, 0]], "text": np.eye(3)}
    assert edge.upload(arrays, [1, 2, 3], batch_size=2) == 3
    assert edge.info().points == 3
    assert edge.search([0, 1], using="image", limit=1)[0].id == 2
    with pytest.raises(errors.InvalidInput) as refused:
        edge.upload(arrays, [1, 2])
    assert refused.value.field == "vectors.image"


def test_reads_take_models_and_dicts(device: Open) -> None:
    edge = device(config=CONFIG)
    edge.upsert([point(n) for n in range(20)])
    even = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
    same = {"must": [{"key": "even", "match": {"value": True}}]}
    assert edge.count(even) == edge.count(same) == 10
    assert [hit.id for hit in edge.search([0, 1, 0, 0], filter=even, limit=2)] == [18, 16]
    hits = edge.query(models.RecommendQuery(recommend=models.RecommendInput(positive=[3])), limit=2)
    assert [hit.id for hit in hits] == [19, 18]
    fused = edge.query(
        models.FusionQuery(fusion=models.Fusion.RRF),
        prefetch=[models.Prefetch(query=[0, 1, 0, 0], limit=3), {"query": 7, "limit": 3}],
        limit=1,
    )
    assert fused[0].id == 19
    both = edge.query_batch([{"query": 3, "limit": 1}, models.QueryRequest(query=4, limit=1)])
    assert [[hit.id for hit in hits] for hits in both] == [[19], [19]]
    page, following = edge.scroll(filter=even, limit=3, with_payload=["n"])
    assert ([record.id for record in page], following) == ([0, 2, 4], 6)
    assert page[1].payload == {"n": 2}
    edge.create_payload_index("n", models.IntegerIndexParams(type=models.IntegerIndexType.INTEGER))
    edge.create_payload_index("even", "bool")
    page, _ = edge.scroll(order_by=models.OrderBy(key="n", direction=models.Direction.DESC), limit=2)
    assert [record.id for record in page] == [19, 18]
    assert page[0].order_value == 19
    assert {hit.value: hit.count for hit in edge.facet("even")} == {True: 10, False: 10}
    groups = edge.query_groups([0, 1, 0, 0], "n", group_size=1, limit=2, filter=even)
    assert [(group.id, [hit.id for hit in group.hits]) for group in groups] == [(18, [18]), (16, [16])]
    assert len(edge.matrix_pairs(sample=3, limit=2)["pairs"]) > 0
    assert set(edge.info().payload_schema) == {"n", "even"}
    edge.delete_payload_index("n")
    assert set(edge.info().payload_schema) == {"even"}


def test_writes_change_what_they_name(device: Open) -> None:
    edge = device(config={"vectors": {"a": {"size": 2, "distance": "Dot"}}})
    edge.upsert([{"id": n, "vector": {"a": [n, 1]}, "payload": {"n": n}} for n in range(6)])
    edge.set_payload({"seen": True}, [0, 1])
    edge.overwrite_payload({"only": 1}, models.PointIdsList(points=[2]))
    edge.delete_payload(["n"], models.Filter(must=[models.HasIdCondition(has_id=[1])]))
    edge.clear_payload([3])
    edge.update_vectors([models.PointVectors(id=4, vector={"a": np.array([9.0, 9.0])})])
    edge.create_vector("b", {"dense": {"size": 1, "distance": "Dot"}})
    edge.update_vectors([{"id": 4, "vector": {"b": [5]}}])
    edge.delete({"filter": {"must": [{"key": "n", "match": {"value": 5}}]}})
    records = {record.id: record for record in edge.points(with_vector=True)}
    assert {n: record.payload for n, record in records.items()} == {
        0: {"n": 0, "seen": True},
        1: {"seen": True},
        2: {"only": 1},
        3: {},
        4: {"n": 4},
    }
    assert records[4].vector == {"a": [9.0, 9.0], "b": [5.0]}
    edge.delete_vectors(["b"], [4])
    edge.delete_vector("b")
    results = edge.batch(
        [
            models.UpsertOperation(
                upsert=models.PointsList(points=[models.PointStruct(id=7, vector={"a": [7, 7]})])
            ),
            {"delete": {"points": [0]}},
        ]
    )
    assert [result.status for result in results] == ["completed", "completed"]
    assert [record.id for record in edge.points()] == [1, 2, 3, 4, 7]
    assert edge.status().logged == results[-1].operation_id


def test_an_update_mode_is_kept_to(device: Open) -> None:
    edge = device(config=CONFIG)
    edge.upsert([point(1)])
    edge.upsert([{**point(1), "payload": {"new": 1}}, point(2)], update_mode="insert_only")
    assert edge.retrieve([1, 2], with_payload=["new"])[0].payload == {}
    assert edge.count() == 2


@pytest.mark.parametrize(
    ("points", "field"),
    [
        ([{"id": 1, "vector": [1, 2]}], "points[0].vector"),
        ([{"id": 1, "vector": [1, 2, float("nan"), 3]}], "points[0].vector[2]"),
        ([{"id": 1, "vector": np.array([1, np.inf, 2, 3])}], "points[0].vector[1]"),
        ([point(1), {"id": -1, "vector": [1, 2, 3, 4]}], "points[1].id"),
        ([{"id": 1, "vector": [1, 2, 3, 4], "payload": {"x": {1j}}}], "points[0].payload.x[0]"),
    ],
)
def test_wrong_input_is_named_and_changes_nothing(device: Open, points: object, field: str) -> None:
    edge = device(config=CONFIG)
    with pytest.raises(ValueError) as refused:
        edge.upsert(points)
    assert isinstance(refused.value, errors.InvalidInput)
    assert refused.value.field == field, refused.value
    assert edge.count() == 0
    # And the shard goes on.
    edge.upsert([point(1)])
    assert edge.count() == 1


def test_other_refusals_have_classes_of_their_own(device: Open, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.NotFound):
        EdgeSync(tmp_path / "nowhere")
    with pytest.raises(errors.InvalidInput) as refused:
        EdgeSync(tmp_path / "wrong", config={"vectors": {"size": 0, "distance": "Dot"}})
    assert "size" in str(refused.value)
    edge = device(config=CONFIG)
    with pytest.raises(errors.NotFound):
        edge.query(99)
    with pytest.raises(errors.InvalidInput):
        edge.request("POST", "/points/query", {"query": 1, "limits": 3})
    with pytest.raises(errors.Unsupported):
        edge.request("GET", "/snapshots")
    with pytest.raises(errors.InvalidInput) as no_server:
        edge.sync()
    assert no_server.value.field == "url"
    with pytest.raises(errors.InvalidInput) as sideways:
        edge.sync("sideways")  # type: ignore[arg-type]
    assert sideways.value.field == "direction"
    edge.close()
    edge.close()
    with pytest.raises(errors.Closed):
        edge.count()


def test_a_config_is_for_a_new_shard_only(device: Open) -> None:
    edge = device(config=CONFIG)
    edge.upsert([point(1)])
    edge.close()
    again = device(config={"vectors": {"size": 9, "distance": "Cosine"}})
    assert again.info().config["vectors"] == CONFIG["vectors"]
    assert again.count() == 1


def test_one_process_has_the_directory(device: Open, tmp_path: pathlib.Path) -> None:
    edge = device(config=CONFIG)
    with pytest.raises(errors.Locked) as refused:
        device()
    assert f"process {os.getpid()}" in str(refused.value)
    command = [program("EDGE_SYNC_BIN"), "--data-dir", str(tmp_path / "device"), "count"]
    beside = subprocess.run(command, capture_output=True, text=True)
    assert beside.returncode == 8 and f"process {os.getpid()}" in beside.stderr, beside
    edge.upsert([point(1)])
    edge.close()
    beside = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert json.loads(beside.stdout) == {"count": 1}, beside


KILLED = """
import os, signal, sys
from edge_sync import EdgeSync
edge = EdgeSync(sys.argv[1], config={"vectors": {"size": 4, "distance": "Dot"}})
for n in range(50):
    edge.upsert([{"id": n, "vector": [1, n, 0, 0]}])
edge.delete([0])
print("written", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_returned_survives_a_kill(device: Open, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "device")]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL and killed.stdout == "written\n", killed
    edge = device()
    assert [record.id for record in edge.points()] == list(range(1, 50))
    assert edge.status().queued == 51


@pytest.mark.parametrize("reopening_fails", [False, True])
def test_a_trap_undoes_its_call_and_the_shard_goes_on(
    device: Open, monkeypatch: pytest.MonkeyPatch, reopening_fails: bool
) -> None:
    edge = device(config=CONFIG)
    edge.upsert([point(1)])
    call = _instance.Instance.call

    def trapping(self: _instance.Instance, interface: str, name: str, *arguments: object) -> object:
        if name == "reopen" and reopening_fails:
            raise errors.StorageError("io", "open", "log", "for the test")
        answer = call(self, interface, name, *arguments)
        if name == "request":
            # It was logged and applied by now, and never answered.
            raise errors.Trapped("the component trapped in shard.request: for the test")
        return answer

    monkeypatch.setattr(_instance.Instance, "call", trapping)
    with pytest.raises(errors.Trapped):
        edge.upsert([point(2)])
    monkeypatch.undo()
    assert [record.id for record in edge.points()] == [1]
    assert edge.status().queued == 1
    if not reopening_fails:
        assert any("after a trap" in note for note in edge.status().notes)
    edge.upsert([point(3)])
    assert [record.id for record in edge.points()] == [1, 3]


def test_at_the_ceiling_of_memory_reads_and_deletions_go_on(device: Open) -> None:
    # A third is kept free: twice what a file of the engine grows by at once.
    edge = device(
        config={"vectors": {"size": 1024, "distance": "Dot"}}, memory_mib=192, durability="os"
    )
    vectors = np.random.default_rng(3).normal(size=(500, 1024)).astype("float32")
    with pytest.raises(MemoryError) as full:
        for first in range(0, 100_000, 500):
            edge.upload(vectors, range(first, first + 500))
    assert isinstance(full.value, errors.NoMemory)
    assert full.value.limit_bytes == 192 << 20
    held = edge.count()
    assert held > 0
    edge.delete([1])
    assert edge.count() == held - 1
    assert edge.search(vectors[0], limit=1)[0].id % 500 == 0
    assert edge.status().notes == []


def test_a_file_that_may_not_grow_is_no_space(device: Open) -> None:
    edge = device(config=CONFIG)
    edge.upsert([point(1)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        for _ in range(2):
            with pytest.raises(errors.NoSpace) as full:
                edge.upsert([point(2)])
            assert isinstance(full.value, OSError) and full.value.reason == "no-space"
            # What is there is read meanwhile.
            assert edge.search([1, 0, 0, 0])[0].id == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    edge.upsert([point(3)])
    assert [record.id for record in edge.points()] == [1, 3]


LEFT_OPEN = """
import sys
from edge_sync import EdgeSync
config = {"vectors": {"size": 1, "distance": "Dot"}}
there = {"url": "http://127.0.0.1:1", "collection": "c"}
edge = EdgeSync(sys.argv[1], config=config, background=True, **there)
edge.upsert([{"id": 1, "vector": [1]}])
print("end", flush=True)
"""


def test_a_program_ends_that_closes_nothing(device: Open, tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-c", LEFT_OPEN, str(tmp_path / "device")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "end\n", "")
    assert device().count() == 1


def test_threads_share_a_shard(device: Open) -> None:
    edge = device(config=CONFIG, durability="os")
    failures: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for n in range(first, first + 20):
                edge.upsert([point(n)])
                assert edge.retrieve([n])[0].id == n
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(100 * k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert edge.count() == 80


def test_an_index_is_built_and_kept(device: Open) -> None:
    config = {**CONFIG, "optimizers_config": {"indexing_threshold": 10}, "hnsw_config": {"m": 8}}
    edge = device(config=config)
    vectors = np.random.default_rng(1).normal(size=(4000, 4)).astype("float32")
    edge.upload(vectors, range(4000))
    assert edge.optimize()
    assert edge.info().indexed_vectors == 4000
    edge.flush()
    edge.close()
    again = device()
    exact = again.search(vectors[5], limit=10, params=models.SearchParams(exact=True))
    near = again.search(vectors[5], limit=10)
    assert len({hit.id for hit in exact} & {hit.id for hit in near}) >= 9
