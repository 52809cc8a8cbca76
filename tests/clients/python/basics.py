"""What the documentation of Qdrant's Python client begins with, against the endpoint given as the
first argument: a collection, points, searches, payloads, deletions. Prints one line at the end.
"""

import sys
import warnings

import numpy
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

# The client warns of versions that do not go together. And of a key without TLS, which is as meant
# on loopback.
warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")

NAME = "cities"


def expect(what, got, expected):
    assert got == expected, f"{what}: expected {expected!r}, got {got!r}"


def refused(status, call):
    try:
        call()
    except UnexpectedResponse as error:
        expect("status", error.status_code, status)
        return error.content.decode()
    raise AssertionError("was not refused")


def ids(points):
    return [point.id for point in points]


def main():
    client = QdrantClient(url=sys.argv[1], api_key=sys.argv[2] if len(sys.argv) > 2 else None)
    expect("version", client.info().version.split(".")[0], "1")

    # The collection.
    if client.collection_exists(NAME):
        client.delete_collection(NAME)
    expect("collections", client.get_collections().collections, [])
    config = models.VectorParams(size=4, distance=models.Distance.DOT)
    assert client.create_collection(NAME, vectors_config=config)
    refused(409, lambda: client.create_collection(NAME, vectors_config=config))
    assert client.collection_exists(NAME)
    expect("names", [c.name for c in client.get_collections().collections], [NAME])
    with warnings.catch_warnings():
        # The client deprecates it.
        warnings.simplefilter("ignore")
        assert client.recreate_collection(NAME, vectors_config=config)
    info = client.get_collection(NAME)
    expect("status", info.status, models.CollectionStatus.GREEN)
    expect("size", info.config.params.vectors.size, 4)
    expect("points", info.points_count, 0)

    # Points.
    cities = ["Berlin", "London", "Moscow", "Berlin", "London", "Oslo"]
    vectors = [
        [0.05, 0.61, 0.76, 0.74],
        [0.19, 0.81, 0.75, 0.11],
        [0.36, 0.55, 0.47, 0.94],
        [0.18, 0.01, 0.85, 0.80],
        [0.24, 0.18, 0.22, 0.44],
        [0.35, 0.08, 0.11, 0.44],
    ]
    points = [
        models.PointStruct(id=n + 1, vector=vector, payload={"city": city, "rank": n})
        for n, (vector, city) in enumerate(zip(vectors, cities))
    ]
    answer = client.upsert(NAME, points=points, wait=True)
    expect("upsert", answer.status, models.UpdateStatus.COMPLETED)
    answer = client.upsert(NAME, points=points[:1], wait=False)
    expect("upsert", answer.status, models.UpdateStatus.ACKNOWLEDGED)
    expect("count", client.count(NAME, exact=True).count, 6)
    refused(
        400,
        lambda: client.upsert(NAME, points=[models.PointStruct(id=9, vector=[1.0, 2.0])]),
    )

    # Searches.
    found = client.query_points(NAME, query=[0.2, 0.1, 0.9, 0.7], limit=3, with_payload=True).points
    expect("nearest", ids(found), [4, 1, 3])
    expect("payload", found[0].payload, {"city": "Berlin", "rank": 3})
    in_london = models.Filter(
        must=[models.FieldCondition(key="city", match=models.MatchValue(value="London"))]
    )
    found = client.query_points(
        NAME, query=numpy.array([0.2, 0.1, 0.9, 0.7]), query_filter=in_london, with_vectors=True
    ).points
    expect("in London", ids(found), [2, 5])
    expect("vector", [round(x, 2) for x in found[0].vector], vectors[1])
    missing = refused(400, lambda: client.query_points(NAME, query=[1.0]))
    assert "expected dim: 4, got 1" in missing, missing
    refused(404, lambda: client.query_points("nowhere", query=[1.0]))

    # Walking, counting, reading.
    page, offset = client.scroll(NAME, limit=4, with_payload=["rank"])
    expect("first page", (ids(page), offset), ([1, 2, 3, 4], 5))
    page, offset = client.scroll(NAME, limit=4, offset=offset)
    expect("last page", (ids(page), offset), ([5, 6], None))
    expect("count", client.count(NAME, count_filter=in_london).count, 2)
    expect("retrieve", ids(client.retrieve(NAME, ids=[6, 99, 1])), [6, 1])

    # Payload indexes.
    client.create_payload_index(NAME, "city", models.PayloadSchemaType.KEYWORD, wait=True)
    client.create_payload_index(
        NAME, "rank", models.IntegerIndexParams(type="integer", lookup=True, range=True), wait=True
    )
    schema = client.get_collection(NAME).payload_schema
    expect("schema", schema["city"].data_type, models.PayloadSchemaType.KEYWORD)
    hits = client.facet(NAME, key="city", exact=True).hits
    expect("facet", {hit.value: hit.count for hit in hits}, {"Berlin": 2, "London": 2, "Moscow": 1, "Oslo": 1})
    page, _ = client.scroll(NAME, order_by=models.OrderBy(key="rank", direction="desc"), limit=2)
    expect("by rank", ids(page), [6, 5])
    client.delete_payload_index(NAME, "rank", wait=True)

    # Payloads.
    client.set_payload(NAME, payload={"seen": True}, points=[1, 2], wait=True)
    client.set_payload(NAME, payload={"deep": 1}, key="nest", points=[1], wait=True)
    client.overwrite_payload(NAME, payload={"only": 1}, points=[3], wait=True)
    client.delete_payload(NAME, keys=["rank"], points=in_london, wait=True)
    client.clear_payload(NAME, points_selector=[4], wait=True)
    payloads = {point.id: point.payload for point in client.scroll(NAME)[0]}
    expect("set", payloads[1], {"city": "Berlin", "rank": 0, "seen": True, "nest": {"deep": 1}})
    expect("deleted", payloads[2], {"city": "London", "seen": True})
    expect("overwritten", payloads[3], {"only": 1})
    expect("cleared", payloads[4], {})

    # Vectors.
    client.update_vectors(NAME, points=[models.PointVectors(id=5, vector=[9, 9, 9, 9])], wait=True)
    expect("updated", client.query_points(NAME, query=[1, 1, 1, 1], limit=1).points[0].id, 5)

    # Several writes in one request.
    client.batch_update_points(
        NAME,
        update_operations=[
            models.UpsertOperation(
                upsert=models.PointsList(points=[models.PointStruct(id=7, vector=[1, 0, 0, 0])])
            ),
            models.SetPayloadOperation(
                set_payload=models.SetPayload(payload={"batch": True}, points=[7])
            ),
            models.DeleteOperation(delete=models.PointIdsList(points=[6])),
        ],
        wait=True,
    )
    expect("batch", client.retrieve(NAME, ids=[6, 7])[0].payload, {"batch": True})

    # Deletions.
    client.delete(NAME, points_selector=[7], wait=True)
    client.delete(NAME, points_selector=models.FilterSelector(filter=in_london), wait=True)
    expect("left", ids(client.scroll(NAME)[0]), [1, 3, 4])

    # Many points, in batches and from several processes.
    client.upload_collection(
        NAME,
        vectors=numpy.random.default_rng(1).random((500, 4)),
        payload=[{"n": n} for n in range(500)],
        ids=range(1000, 1500),
        batch_size=64,
        wait=True,
    )
    client.upload_points(
        NAME,
        points=(models.PointStruct(id=n, vector=[n, 1, 1, 1]) for n in range(2000, 2500)),
        batch_size=50,
        parallel=2,
        wait=True,
    )
    expect("uploaded", client.count(NAME).count, 3 + 500 + 500)

    # What there is none of says so.
    refused(501, lambda: client.create_snapshot(NAME))
    create = models.CreateAliasOperation(
        create_alias=models.CreateAlias(collection_name=NAME, alias_name="towns")
    )
    delete = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="towns"))
    assert client.update_collection_aliases([create])
    expect("count by alias", client.count("towns").count, client.count(NAME).count)
    assert client.update_collection_aliases([delete])
    expect("aliases", client.get_aliases().aliases, [])
    fewer = models.HnswConfigDiff(m=8)
    assert client.update_collection(NAME, hnsw_config=fewer)
    expect("links", client.get_collection(NAME).config.hnsw_config.m, 8)
    # A change of nothing starts the optimizers.
    assert client.update_collection(NAME, optimizers_config=models.OptimizersConfigDiff())

    assert client.delete_collection(NAME)
    assert not client.collection_exists(NAME)
    print("basics: done")


# The client uploads from processes that import this file anew.
if __name__ == "__main__":
    main()
