"""A shard of `qdrant-edge-py`, driven by the benchmarks: as an application has it that keeps to the
package's defaults, its write-ahead log included.

usage: contestant.py FOLDER

A line of JSON on standard input for each command, and its vectors behind it as 32-bit floats; a line of
JSON on standard output for each answer. Only calls are timed, not the making of their arguments.
"""

import array
import json
import sys
import time

from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeVectorParams,
    Point,
    Query,
    QueryRequest,
    SearchParams,
    UpdateOperation,
)

folder = sys.argv[1]
shard = None


def vectors(command):
    """The floats behind a command, so many a vector."""
    size = command["dimensions"]
    floats = array.array("f", sys.stdin.buffer.read(4 * size * command["vectors"]))
    if sys.byteorder == "big":
        floats.byteswap()
    return [floats[at : at + size].tolist() for at in range(0, len(floats), size)]


def timed(call, *arguments):
    started = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - started, result


def create(command):
    global shard
    optimizers = EdgeOptimizersConfig(
        default_segment_number=1, indexing_threshold=command["indexing_threshold"]
    )
    vector = EdgeVectorParams(size=command["size"], distance=Distance.Cosine)
    shard = EdgeShard.create(folder, EdgeConfig(vectors=vector, optimizers=optimizers))
    return {}


def load(command):
    global shard
    seconds, shard = timed(EdgeShard.load, folder)
    return {"seconds": seconds}


def upsert(command):
    points = [
        Point(number, vector, payload)
        for number, vector, payload in zip(command["ids"], vectors(command), command["payloads"])
    ]
    batches = [[point] for point in points] if command["each"] else [points]
    operations = [UpdateOperation.upsert_points(batch) for batch in batches]
    return {"seconds": sum(timed(shard.update, operation)[0] for operation in operations)}


def search(command):
    [vector] = vectors(command)
    request = QueryRequest(
        limit=command["limit"],
        query=Query.Nearest(vector),
        with_payload=True,
        params=SearchParams(exact=command["exact"]),
    )
    seconds, found = timed(shard.query, request)
    return {"seconds": seconds, "ids": [point.id for point in found]}


def flush(command):
    return {"seconds": timed(shard.flush)[0]}


def optimize(command):
    return {"seconds": timed(shard.optimize)[0]}


def reopen(command):
    shard.flush()
    shard.close()
    return load(command)


def restore(command):
    started = time.perf_counter()
    EdgeShard.unpack_snapshot(command["snapshot"], folder)
    restored = EdgeShard.load(folder)
    seconds = time.perf_counter() - started
    restored.close()
    return {"seconds": seconds}


def state(command):
    info = shard.info()
    return {
        "points": info.points_count,
        "indexed": info.indexed_vectors_count,
        "segments": info.segments_count,
    }


COMMANDS = {
    command.__name__: command
    for command in [create, load, upsert, search, flush, optimize, reopen, restore, state]
}
while line := sys.stdin.buffer.readline():
    command = json.loads(line)
    print(json.dumps(COMMANDS[command["do"]](command)), flush=True)
