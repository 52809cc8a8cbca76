"""Universal queries of Qdrant's Python client against the endpoint given as the first argument:
every kind, by dense, sparse and multivectors. Prints one line at the end.
"""

import sys
import warnings

from qdrant_client import QdrantClient, models

warnings.simplefilter("error")
warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")

NAME = "lines"


def expect(what, got, expected):
    assert got == expected, f"{what}: expected {expected!r}, got {got!r}"


def ids(answer):
    return [point.id for point in answer.points]


client = QdrantClient(url=sys.argv[1], api_key=sys.argv[2] if len(sys.argv) > 2 else None)
if client.collection_exists(NAME):
    client.delete_collection(NAME)
client.create_collection(
    NAME,
    vectors_config={
        "dense": models.VectorParams(size=2, distance=models.Distance.EUCLID),
        "rows": models.VectorParams(
            size=2,
            distance=models.Distance.DOT,
            multivector_config=models.MultiVectorConfig(
                comparator=models.MultiVectorComparator.MAX_SIM
            ),
        ),
        "small": models.VectorParams(
            size=2,
            distance=models.Distance.DOT,
            datatype=models.Datatype.FLOAT16,
            quantization_config=models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
            ),
        ),
    },
    sparse_vectors_config={"sparse": models.SparseVectorParams()},
    hnsw_config=models.HnswConfigDiff(m=8),
)
for field, schema in [
    ("n", models.PayloadSchemaType.INTEGER),
    ("group", models.PayloadSchemaType.KEYWORD),
    ("at", models.PayloadSchemaType.GEO),
    ("when", models.PayloadSchemaType.DATETIME),
    ("text", models.TextIndexParams(type="text", tokenizer=models.TokenizerType.WORD)),
]:
    client.create_payload_index(NAME, field, schema, wait=True)
client.upsert(
    NAME,
    points=[
        models.PointStruct(
            id=n,
            vector={
                "dense": [n, 0],
                "rows": [[n, 1], [1, n]],
                "small": [n, 1],
                "sparse": models.SparseVector(indices=[n, 100], values=[1.0, n]),
            },
            payload={
                "n": n,
                "group": "even" if n % 2 == 0 else "odd",
                "at": {"lon": n, "lat": 0},
                "when": f"2024-01-0{n}T00:00:00Z",
                "text": f"number {n}",
                "tags": [{"kind": "a", "of": n}, {"kind": "b", "of": -n}],
            },
        )
        for n in range(1, 9)
    ],
    wait=True,
)


def query(query=None, **arguments):
    arguments.setdefault("using", "dense")
    arguments.setdefault("limit", 2)
    return client.query_points(NAME, query=query, **arguments)


near = [3.1, 0]
everything = models.Prefetch(query=near, using="dense", limit=8)
decay = models.DecayParamsExpression(x="n", target=6, scale=2)
cases = [
    ("nearest", [3, 4], query(near)),
    ("by id", [7, 6], query(8)),
    ("offset", [4, 2], query(near, offset=1)),
    ("threshold", [3], query(near, score_threshold=0.5)),
    ("exact", [3, 4], query(near, search_params=models.SearchParams(exact=True, hnsw_ef=16))),
    ("rows", [8, 7], query([[2, 1]], using="rows")),
    ("float16", [8, 7], query([1, 0], using="small")),
    ("sparse", [5], query(models.SparseVector(indices=[5], values=[1.0]), using="sparse")),
    ("recommend", [3, 4], query(models.RecommendQuery(recommend=models.RecommendInput(positive=[1, 2])))),
    (
        "best score",
        [8, 7],
        query(
            models.RecommendQuery(
                recommend=models.RecommendInput(
                    negative=[1], strategy=models.RecommendStrategy.BEST_SCORE
                )
            )
        ),
    ),
    (
        "discover",
        [5, 6],
        query(
            models.DiscoverQuery(
                discover=models.DiscoverInput(
                    target=3, context=[models.ContextPair(positive=8, negative=1)]
                )
            ),
            query_filter=models.Filter(must=[models.FieldCondition(key="n", range=models.Range(gt=3))]),
        ),
    ),
    ("order by", [8, 7], query(models.OrderByQuery(order_by=models.OrderBy(key="n", direction="desc")))),
    ("by id, all", [1, 2], query()),
    (
        "mmr",
        [3],
        query(models.NearestQuery(nearest=near, mmr=models.Mmr(diversity=0.1)), limit=1),
    ),
    (
        "rrf",
        [3],
        query(
            models.FusionQuery(fusion=models.Fusion.RRF),
            prefetch=[everything, models.Prefetch(query=4, using="dense", limit=3)],
            limit=1,
        ),
    ),
    (
        "dbsf",
        [8],
        query(
            models.FusionQuery(fusion=models.Fusion.DBSF),
            prefetch=[
                models.Prefetch(query=[1, 0], using="small", limit=8),
                models.Prefetch(query=[[1, 0]], using="rows", limit=8),
            ],
            limit=1,
        ),
    ),
    ("rescoring", [8, 7], query([9, 0], prefetch=everything)),
    (
        "formula",
        [8, 7],
        query(
            models.FormulaQuery(formula=models.SumExpression(sum=["n", 1.0])), prefetch=everything
        ),
    ),
    (
        "decay",
        [6],
        query(
            models.FormulaQuery(formula=models.GaussDecayExpression(gauss_decay=decay)),
            prefetch=everything,
            limit=1,
        ),
    ),
]
for what, expected, answer in cases:
    expect(what, ids(answer), expected)
sample = query(models.SampleQuery(sample=models.Sample.RANDOM), limit=8)
expect("sample", sorted(ids(sample)), list(range(1, 9)))
context = models.ContextQuery(context=[models.ContextPair(positive=8, negative=1)])
expect("context", len(ids(query(context, limit=10))), 6)


# Filters.
def matching(*must):
    return ids(query(query_filter=models.Filter(must=list(must)), limit=10))


def field(key, **condition):
    return models.FieldCondition(key=key, **condition)


filters = [
    ("any", [2, 4], matching(field("n", match=models.MatchAny(any=[2, 4])))),
    ("except", [1, 8], matching(field("n", match=models.MatchExcept(**{"except": [2, 3, 4, 5, 6, 7]})))),
    ("text", [5], matching(field("text", match=models.MatchText(text="number 5")))),
    ("range", [6, 7], matching(field("n", range=models.Range(gte=6, lt=8)))),
    ("dates", [1, 2], matching(field("when", range=models.DatetimeRange(lte="2024-01-02T12:00:00Z")))),
    (
        "box",
        [2, 3],
        matching(
            field(
                "at",
                geo_bounding_box=models.GeoBoundingBox(
                    top_left=models.GeoPoint(lon=1.5, lat=1),
                    bottom_right=models.GeoPoint(lon=3.5, lat=-1),
                ),
            )
        ),
    ),
    (
        "radius",
        [4],
        matching(
            field("at", geo_radius=models.GeoRadius(center=models.GeoPoint(lon=4, lat=0), radius=1000))
        ),
    ),
    ("values count", list(range(1, 9)), matching(field("tags", values_count=models.ValuesCount(gte=2)))),
    ("empty", list(range(1, 9)), matching(models.IsEmptyCondition(is_empty=models.PayloadField(key="none")))),
    ("ids", [3, 5], matching(models.HasIdCondition(has_id=[5, 3, 99]))),
    ("vectors", list(range(1, 9)), matching(models.HasVectorCondition(has_vector="rows"))),
    (
        "nested",
        [3],
        matching(
            models.NestedCondition(
                nested=models.Nested(
                    key="tags",
                    filter=models.Filter(
                        must=[
                            field("kind", match=models.MatchValue(value="b")),
                            field("of", match=models.MatchValue(value=-3)),
                        ]
                    ),
                )
            )
        ),
    ),
]
for what, expected, got in filters:
    expect(what, sorted(got), expected)

# Several at once, in groups, and distances between points.
batch = client.query_batch_points(
    NAME,
    requests=[
        models.QueryRequest(query=near, using="dense", limit=1),
        models.QueryRequest(query=5, using="dense", limit=1, with_payload=True),
    ],
)
expect("batch", [ids(answer)[0] in (3, 4, 6) for answer in batch], [True, True])
groups = client.query_points_groups(
    NAME, query=near, using="dense", group_by="group", limit=2, group_size=2
).groups
expect("groups", {group.id: [hit.id for hit in group.hits] for group in groups}, {"odd": [3, 5], "even": [4, 2]})
pairs = client.search_matrix_pairs(NAME, sample=8, limit=1, using="dense").pairs
expect("pairs", {pair.score for pair in pairs}, {1.0})
offsets = client.search_matrix_offsets(NAME, sample=8, limit=1, using="dense")
expect("offsets", sorted(offsets.ids), list(range(1, 9)))

assert client.delete_collection(NAME)
print("queries: done")
