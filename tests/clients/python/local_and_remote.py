"""What Qdrant's Python client answers by itself (`:memory:`) and through the endpoint given as the
first argument, for the same random points, changes and questions. Prints one line at the end.
"""

import random
import sys
import warnings

from qdrant_client import QdrantClient, models

warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
# What the client says of its own memory: indexes have no effect there, and it is not for many points.
warnings.filterwarnings("ignore", message="Payload indexes have no effect")

NAME = "compared"
POINTS = 200
random.seed(11)

remote = QdrantClient(url=sys.argv[1], api_key=sys.argv[2] if len(sys.argv) > 2 else None)
local = QdrantClient(":memory:")
BOTH = [local, remote]


def numbers(count):
    # Few digits: both sides then add up alike.
    return [round(random.uniform(-1, 1), 2) for _ in range(count)]


def sparse():
    indices = sorted(random.sample(range(60), 8))
    return models.SparseVector(indices=indices, values=[round(random.uniform(0.1, 1), 2) for _ in indices])


def payload(n):
    made = {
        "n": random.randrange(50),
        "price": round(random.uniform(0, 10), 1),
        "colour": random.choice(["red", "green", "blue"]),
        "tags": random.sample(["new", "old", "big", "small"], random.randrange(3)),
        "sold": random.random() < 0.5,
        "when": f"2024-{random.randrange(1, 13):02}-{random.randrange(1, 28):02}T00:00:00Z",
        "at": {"lon": round(random.uniform(-10, 10), 3), "lat": round(random.uniform(-10, 10), 3)},
        "parts": [{"kind": random.choice("ab"), "of": random.randrange(5)} for _ in range(random.randrange(3))],
    }
    if n % 7 == 0:
        del made["n"]
    if n % 11 == 0:
        made["colour"] = None
    return made


def point(n):
    return models.PointStruct(
        id=n,
        vector={
            "dense": numbers(8),
            "cosine": numbers(4),
            "rows": [numbers(3) for _ in range(random.randrange(1, 4))],
            "sparse": sparse(),
        },
        payload=payload(n),
    )


def condition():
    field = models.FieldCondition
    return random.choice(
        [
            lambda: field(key="colour", match=models.MatchValue(value=random.choice(["red", "green"]))),
            lambda: field(key="colour", match=models.MatchAny(any=["red", "blue"])),
            lambda: field(key="colour", match=models.MatchExcept(**{"except": ["red"]})),
            lambda: field(key="n", range=models.Range(gte=random.randrange(30), lt=45)),
            lambda: field(key="price", range=models.Range(gt=round(random.uniform(0, 6), 1))),
            lambda: field(key="when", range=models.DatetimeRange(gte="2024-05-01T00:00:00Z")),
            lambda: field(key="tags", values_count=models.ValuesCount(gte=1)),
            lambda: field(key="sold", match=models.MatchValue(value=True)),
            lambda: field(
                key="at",
                geo_radius=models.GeoRadius(center=models.GeoPoint(lon=0, lat=0), radius=700_000.0),
            ),
            lambda: field(
                key="at",
                geo_bounding_box=models.GeoBoundingBox(
                    top_left=models.GeoPoint(lon=-5, lat=8), bottom_right=models.GeoPoint(lon=7, lat=-3)
                ),
            ),
            lambda: models.IsEmptyCondition(is_empty=models.PayloadField(key="n")),
            lambda: models.IsNullCondition(is_null=models.PayloadField(key="colour")),
            lambda: models.HasIdCondition(has_id=random.sample(range(POINTS), 90)),
            lambda: models.HasVectorCondition(has_vector="rows"),
            lambda: models.NestedCondition(
                nested=models.Nested(
                    key="parts",
                    filter=models.Filter(
                        must=[
                            field(key="kind", match=models.MatchValue(value="a")),
                            field(key="of", range=models.Range(gte=2)),
                        ]
                    ),
                )
            ),
        ]
    )()


def where():
    if random.random() < 0.3:
        return None
    return models.Filter(
        must=[condition() for _ in range(random.randrange(2))] or None,
        should=[condition() for _ in range(random.randrange(3))] or None,
        must_not=[condition() for _ in range(random.randrange(2))] or None,
    )


def same(what, one, other):
    """Equal, but for the last digits of numbers."""
    if isinstance(one, float) and isinstance(other, (int, float)):
        assert abs(one - other) <= 1e-4 * max(1, abs(one)), f"{what}: {one} and {other}"
    elif isinstance(one, dict) and isinstance(other, dict):
        assert one.keys() == other.keys(), f"{what}: {one} and {other}"
        for key in one:
            same(f"{what}.{key}", one[key], other[key])
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        assert len(one) == len(other), f"{what}: {one} and {other}"
        for at, (left, right) in enumerate(zip(one, other)):
            same(f"{what}[{at}]", left, right)
    else:
        assert one == other, f"{what}: {one!r} and {other!r}"


def scored(found):
    """By id: of points with nearly the same score neither side promises an order."""
    return sorted((point.id, float(point.score), point.payload) for point in found)


def compare(what, ask, read):
    mine, theirs = (read(ask(client)) for client in BOTH)
    same(what, mine, theirs)
    return mine


def query_kinds():
    there = local.scroll(NAME, limit=POINTS, with_payload=False)[0]
    ids = random.sample([point.id for point in there], 6)
    yield "nearest", dict(query=numbers(8), using="dense")
    yield "cosine", dict(query=numbers(4), using="cosine")
    yield "sparse", dict(query=sparse(), using="sparse")
    yield "rows", dict(query=[numbers(3), numbers(3)], using="rows")
    recommend = models.RecommendInput(positive=ids[:2], negative=ids[2:3])
    yield "recommend", dict(query=models.RecommendQuery(recommend=recommend), using="dense")
    best = models.RecommendInput(positive=ids[:2], negative=ids[2:4], strategy="best_score")
    yield "best score", dict(query=models.RecommendQuery(recommend=best), using="cosine")
    pairs = [models.ContextPair(positive=ids[0], negative=ids[1])]
    discover = models.DiscoverInput(target=numbers(8), context=pairs)
    yield "discover", dict(query=models.DiscoverQuery(discover=discover), using="dense")
    yield "fusion", dict(
        prefetch=[
            models.Prefetch(query=numbers(8), using="dense", limit=POINTS),
            models.Prefetch(query=sparse(), using="sparse", limit=POINTS),
        ],
        query=models.FusionQuery(fusion=models.Fusion.RRF),
    )


def look():
    limit = random.randrange(1, 30)
    filter_ = where()
    kinds = list(query_kinds())
    for name, arguments in kinds:
        # A whole page, so that equal scores at its end do not matter.
        compare(
            name,
            lambda client: client.query_points(
                NAME, query_filter=None if name == "fusion" else filter_, limit=POINTS, **arguments
            ),
            # Ranks of two points that are nearly alike may be swapped in a prefetch.
            (lambda answer: sorted(point.id for point in answer.points))
            if name == "fusion"
            else lambda answer: scored(answer.points),
        )
    compare("count", lambda it: it.count(NAME, count_filter=filter_, exact=True), lambda it: it.count)
    compare(
        "scroll",
        lambda it: it.scroll(NAME, scroll_filter=filter_, limit=limit, with_vectors=True),
        lambda it: ([point.model_dump(exclude={"shard_key", "order_value"}) for point in it[0]], it[1]),
    )
    compare(
        "facet",
        lambda it: it.facet(NAME, key="colour", facet_filter=filter_, exact=True),
        lambda it: sorted((hit.value, hit.count) for hit in it.hits),
    )
    vector = numbers(8)
    compare(
        "groups",
        lambda it: it.query_points_groups(
            NAME, query=vector, using="dense", group_by="colour", query_filter=filter_, limit=3, group_size=4
        ),
        lambda it: [(group.id, scored(group.hits)) for group in it.groups],
    )
    ids = random.sample(range(POINTS + 20), 10)
    compare(
        "retrieve",
        lambda it: it.retrieve(NAME, ids, with_vectors=True),
        lambda it: sorted((point.id, point.payload) for point in it) and {point.id: point.vector for point in it},
    )


def change():
    some = random.sample(range(POINTS), 12)
    there = [point.id for point in local.retrieve(NAME, some, with_payload=False)]
    filter_ = where() or models.Filter(must=[condition()])
    new = [point(n) for n in some[:5]]
    row = [models.PointVectors(id=n, vector={"dense": numbers(8)}) for n in there[:3]]
    what = random.choice(
        [
            lambda it: it.upsert(NAME, new, wait=True),
            lambda it: it.delete(NAME, some[:4], wait=True),
            lambda it: it.set_payload(NAME, {"price": 3.5, "extra": {"a": 1}}, points=there, wait=True),
            lambda it: it.set_payload(NAME, {"marked": True}, points=models.FilterSelector(filter=filter_), wait=True),
            lambda it: it.overwrite_payload(NAME, {"n": 7, "colour": "red"}, points=there[:3], wait=True),
            lambda it: it.delete_payload(NAME, ["price", "when"], points=there[3:6], wait=True),
            lambda it: it.clear_payload(NAME, points_selector=models.PointIdsList(points=there[:2]), wait=True),
            lambda it: it.update_vectors(NAME, row, wait=True),
            lambda it: it.delete_vectors(NAME, ["rows"], points=there[:2], wait=True),
        ]
    )
    for client in BOTH:
        what(client)


if remote.collection_exists(NAME):
    remote.delete_collection(NAME)
for client in BOTH:
    client.create_collection(
        NAME,
        vectors_config={
            "dense": models.VectorParams(size=8, distance=models.Distance.EUCLID),
            "cosine": models.VectorParams(size=4, distance=models.Distance.COSINE),
            "rows": models.VectorParams(
                size=3,
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(comparator="max_sim"),
            ),
        },
        sparse_vectors_config={"sparse": models.SparseVectorParams()},
    )
    for field, schema in [
        ("n", "integer"),
        ("price", "float"),
        ("colour", "keyword"),
        ("at", "geo"),
        ("when", "datetime"),
        ("sold", "bool"),
    ]:
        client.create_payload_index(NAME, field, schema, wait=True)
points = [point(n) for n in range(POINTS)]
for client in BOTH:
    client.upsert(NAME, points, wait=True)
for _ in range(40):
    look()
    change()
look()
remote.delete_collection(NAME)
print("local and remote: done")
