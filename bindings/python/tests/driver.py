"""Does the steps of `tests/fixtures/hosts.json`: one JSON object a line comes, one a line goes."""

import json
import sys
from typing import Any

from edge_sync import EdgeSync, EdgeSyncError

opened: list[EdgeSync] = []


def do(step: dict[str, Any]) -> Any:
    kind = step["do"]
    there = {"url": step["url"], "collection": step["collection"]}
    if kind == "create":
        opened.append(EdgeSync(step["path"], config=step["config"], **there))
    elif kind == "open" or not opened:
        # Where there is no shard, this restores one.
        opened.append(EdgeSync(step["path"], **there))
    elif kind == "restore":
        opened[0].restore()
    elif kind == "request":
        return opened[0].request(step["method"], step["path_of_request"], step["body"])
    elif kind == "sync":
        report = opened[0].sync(step.get("direction", "both"))
        pulled = report.pulled
        return {
            "uploaded": report.uploaded,
            "remaining": report.remaining,
            "pulled": pulled and {"changed": pulled.changed, "points": pulled.points},
        }
    return None


for line in sys.stdin:
    try:
        answer = {"gives": do(json.loads(line))}
    except EdgeSyncError as error:
        answer = {"refused": {"kind": error.kind, "field": getattr(error, "field", "")}}
    print(json.dumps(answer), flush=True)
for edge in opened:
    edge.close()
