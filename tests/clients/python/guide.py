"""Follows a server as Qdrant's guide for Edge has it: a shard from a full snapshot, then partial ones.

usage: guide.py URL COLLECTION FOLDER

Restores into FOLDER, then pulls once for each line of standard input. Prints a line of JSON for each:
bytes downloaded, and seconds from the question to the new state in force. The guide's second shard,
for local writes, and the merging of two result lists are not in it.
"""

import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

from qdrant_edge import EdgeShard

url, collection, folder = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
shard_url = f"{url}/collections/{collection}/shards/0"


def download(method, path, body=None):
    """The file, and how many bytes it has; none if nothing is new."""
    target = folder / "snapshot"
    request = urllib.request.Request(shard_url + path, method=method)
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    received = 0
    try:
        with urllib.request.urlopen(request) as answer, open(target, "wb") as file:
            while chunk := answer.read(1 << 16):
                received += file.write(chunk)
    except urllib.error.HTTPError as error:
        if error.code != 304:
            raise
        return None, 0
    return str(target), received


def tell(started, received, points):
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "bytes": received, "points": points}), flush=True)


def points(shard):
    return shard.info().points_count


started = time.perf_counter()
file, received = download("GET", "/snapshot")
EdgeShard.unpack_snapshot(file, str(folder / "shard"))
shard = EdgeShard.load(str(folder / "shard"))
tell(started, received, points(shard))

for _ in sys.stdin:
    started = time.perf_counter()
    file, received = download("POST", "/snapshot/partial/create", shard.snapshot_manifest())
    if file is not None:
        shard.update_from_snapshot(file)
    tell(started, received, points(shard))
