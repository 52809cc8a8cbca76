"""The shard and a server."""

import pathlib
import socket
import threading
import urllib.request

import pytest
from conftest import COLLECTION, CONFIG, Open, Server, point
from qdrant_client import QdrantClient, models

from edge_sync import SyncReport, errors
from edge_sync._exchange import Part
from edge_sync._exchange import Server as Settings


def client_of(server: Server) -> QdrantClient:
    # Asked on a thread of its own, which may outlive a test.
    return QdrantClient(server.url, check_compatibility=False)


def test_devices_and_a_server_stay_in_step(device: Open, server: Server) -> None:
    there = {"url": server.url, "collection": COLLECTION}
    one = device("one", config=CONFIG, **there)
    one.upsert([point(n) for n in range(25)])
    report = one.sync()
    assert (report.uploaded, report.remaining, report.created_collection) == (25, 0, True)
    client = client_of(server)
    assert client.count(COLLECTION).count == 25
    # A new device has nothing but the server.
    two = device("two", **there)
    assert two.count() == 25
    two.delete([0])
    two.upsert([point(30)])
    assert two.sync("push").uploaded == 2
    pulled = one.sync().pulled
    assert pulled is not None and pulled.changed
    assert (pulled.points_before, pulled.points) == (25, 25)
    expected = [*range(1, 25), 30]
    assert [p.id for p in one.points()] == [p.id for p in two.points()] == expected
    assert [p.id for p in client.scroll(COLLECTION, limit=100)[0]] == expected
    client.close()


def test_a_shard_knows_its_server_from_then_on(device: Open, server: Server) -> None:
    edge = device(config=CONFIG, url=server.url, collection=COLLECTION)
    edge.sync()
    edge.close()
    again = device()
    again.upsert([point(1)])
    assert again.sync("push").uploaded == 1
    assert again.status().url == server.url


def test_what_was_written_waits_for_a_server_that_is_down(device: Open, server: Server) -> None:
    edge = device(config=CONFIG, url=server.url, collection=COLLECTION)
    server.stop()
    edge.upsert([point(n) for n in range(3)])
    with pytest.raises(errors.ServerError) as down:
        edge.sync(attempts=1)
    assert down.value.reason == "retry" and down.value.status is None
    assert down.value.report is not None and down.value.report.remaining == 3
    status = edge.status()
    assert (status.queued, status.last_error, status.last_sync) == (3, down.value, None)
    assert edge.count() == 3
    server.start_again()
    assert edge.sync().uploaded == 3
    assert edge.status().last_error is None


def test_the_key_goes_to_the_server_and_nowhere_else(device: Open, tmp_path: pathlib.Path) -> None:
    key = "a-key-of-the-test"
    server = Server(tmp_path / "locked", key)
    try:
        there = {"url": server.url, "collection": COLLECTION}
        stranger = device("stranger", config=CONFIG, api_key="wrong-key", **there)
        with pytest.raises(errors.ServerError) as refused:
            stranger.sync(attempts=1)
        assert (refused.value.reason, refused.value.status) == ("stop", 401)
        edge = device("edge", config=CONFIG, api_key=key, **there)
        edge.upsert([point(1)])
        assert edge.sync().uploaded == 1
        for text in (repr(edge), repr(edge.status()), str(refused.value), repr(stranger)):
            assert key not in text and "wrong-key" not in text
        edge.close()
        files = [file for file in (tmp_path / "edge").rglob("*") if file.is_file()]
        assert files and not any(key.encode() in file.read_bytes() for file in files)
    finally:
        server.stop()


def test_requests_go_to_one_origin_only(device: Open, server: Server) -> None:
    edge = device(config=CONFIG, url=server.url, collection=COLLECTION)
    edge.upsert([point(1)])
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0)
        port = other.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}", f"https://127.0.0.1:{server.url.rsplit(':')[-1]}"):
            # The component is told another server than the guard.
            elsewhere = Settings.of(url, COLLECTION, Part(), None, 5.0)
            assert edge._exchange is not None
            edge._exchange.server = elsewhere
            with pytest.raises(errors.ServerError) as denied:
                edge.sync(attempts=1)
            assert denied.value.reason == "stop"
            assert "does not permit" in str(denied.value)
        with pytest.raises(BlockingIOError):
            other.accept()
    client = client_of(server)
    assert not client.collection_exists(COLLECTION)
    client.close()


@pytest.mark.parametrize(
    "url", ["ftp://host", "http://", "http://u:p@host", "host:6333", "http://host:x", "http://h/?q"]
)
def test_a_url_that_is_none_is_refused_before_anything_is_made(
    device: Open, tmp_path: pathlib.Path, url: str
) -> None:
    with pytest.raises(errors.InvalidInput) as refused:
        device(config=CONFIG, url=url, collection=COLLECTION)
    assert refused.value.field == "url"
    assert not (tmp_path / "device").exists()


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_was_asked(device: Open) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        edge = device(config=CONFIG, url=url, collection=COLLECTION, timeout=0.2)
        edge.upsert([point(1)])
        with pytest.raises(errors.ServerError):
            edge.sync(attempts=1)
        assert edge.status().queued == 1


def test_a_background_sync_uploads_and_fetches(device: Open, server: Server) -> None:
    there = {"url": server.url, "collection": COLLECTION}
    uploaded, fetched = threading.Event(), threading.Event()

    def on_upload(report: SyncReport) -> None:
        if report.uploaded:
            uploaded.set()

    def on_fetch(report: SyncReport) -> None:
        if report.pulled is not None and report.pulled.points == 1:
            fetched.set()

    writer = device("writer", config=CONFIG, background=True, on_sync=on_upload, **there)
    # Nothing is there yet for a second device to be made of.
    writer.upsert([point(0)])
    assert uploaded.wait(60)
    reader = device("reader", background=True, every=0.1, on_sync=on_fetch, **there)
    assert reader.count() == 1
    writer.upsert([point(1)])
    writer.delete([0])
    assert fetched.wait(60)
    writer.close()
    reader.close()
    again = device("writer")
    assert [p.id for p in again.points()] == [1]


def test_a_background_sync_goes_on_after_the_server_was_down(device: Open, server: Server) -> None:
    server.stop()
    uploaded = threading.Event()
    edge = device(
        config=CONFIG,
        url=server.url,
        collection=COLLECTION,
        background=True,
        on_sync=lambda report: uploaded.set(),
    )
    edge.upsert([point(1)])
    server.start_again()
    assert uploaded.wait(60)
    assert edge.status().queued == 0


def test_what_the_server_refuses_is_put_aside(device: Open, server: Server) -> None:
    size = models.VectorParams(size=2, distance=models.Distance.DOT)
    client = client_of(server)
    client.create_collection(COLLECTION, vectors_config={"a": size})
    client.close()
    edge = device(
        config=models.CreateCollection(vectors={"a": size, "b": size}),
        url=server.url,
        collection=COLLECTION,
    )
    edge.upsert([{"id": 1, "vector": {"a": [1, 2]}}, {"id": 2, "vector": {"b": [1, 2]}}])
    report = edge.sync("push")
    assert (report.uploaded, report.rejected, report.remaining) == (1, 1, 0)
    (refused,) = edge.rejected()
    assert refused.status == 400 and "b" in refused.message
    assert refused.operation["upsert"]["points"][0]["id"] == 2
    # As the shard holds it now.
    edge.update_vectors([{"id": 2, "vector": {"a": [3, 4]}}])
    edge.delete_vectors(["b"], [2])
    assert edge.retry_rejected([refused.sequence]) == 1
    assert list(edge.rejected()) == []
    edge.sync("push")
    with pytest.raises(errors.NotFound):
        edge.drop_rejected([refused.sequence])


def test_a_person_moves_the_head_of_the_queue_aside(device: Open) -> None:
    edge = device(config=CONFIG)
    edge.upsert([point(1), point(2)])
    assert edge.skip() == 1
    assert [(item.status, item.message) for item in edge.rejected()] == [(0, "skipped by hand")]
    assert edge.status().queued == 1
    assert edge.retry_rejected() == 1
    assert (edge.status().queued, edge.status().rejected) == (2, 0)
    assert edge.skip(5) == 2
    assert edge.drop_rejected() == 2
    assert edge.status().rejected == 0


def test_a_snapshot_is_restored_from_the_server_and_from_a_file(
    device: Open, server: Server, tmp_path: pathlib.Path
) -> None:
    edge = device(config=CONFIG, url=server.url, collection=COLLECTION)
    edge.upsert([point(n) for n in range(8)])
    edge.sync()
    client = client_of(server)
    client.upsert(COLLECTION, [{"id": 100, "vector": [1, 2, 3, 4]}], wait=True)  # type: ignore[list-item]
    client.close()
    edge.restore()
    assert edge.count() == 9
    edge.restore(stored=True)
    assert edge.count() == 9
    snapshot = tmp_path / "shard.snapshot"
    url = f"{server.url}/collections/{COLLECTION}/shards/0/snapshot"
    with urllib.request.urlopen(url) as answer:
        snapshot.write_bytes(answer.read())
    other = device("other", config=CONFIG)
    other.restore(snapshot, force=True)
    assert other.count() == 9
    snapshot.write_bytes(b"not a snapshot")
    with pytest.raises(errors.BadSnapshot):
        other.restore(snapshot)
    assert other.count() == 9
    assert not list((tmp_path / "other").glob("*.snapshot"))
