"""The loop with which Qdrant's documentation for Edge empties its upload queue: so many points a
request, one request after another. Prints the seconds that it takes.

Arguments: URL, collection, points, dimensions, points of a request.
"""

import json
import random
import sys
import time

from qdrant_client import QdrantClient, models

url, collection = sys.argv[1:3]
points, dimensions, batch = map(int, sys.argv[3:])
queue = [
    models.PointStruct(
        id=number,
        vector=[random.random() - 0.5 for _ in range(dimensions)],
        payload={"n": number},
    )
    for number in range(points)
]
client = QdrantClient(url=url, timeout=60, check_compatibility=False)
client.get_collections()
started = time.perf_counter()
while queue:
    client.upsert(collection, points=queue[:batch])
    queue = queue[batch:]
print(json.dumps({"seconds": time.perf_counter() - started}))
