"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");

const { EdgeSyncError, errorOf } = require("../src/errors.cjs");

const KEPT = [
  ["invalid-input", { field: "points[0].id", message: "wrong" }, ["field"]],
  [
    "storage",
    { kind: "no-space", operation: "append", path: "/data/log", message: "full" },
    ["operation", "path"],
  ],
  [
    "no-memory",
    { neededBytes: 3, freeBytes: 2, limitBytes: 5 },
    ["neededBytes", "freeBytes", "limitBytes"],
  ],
  ["lost-operations", { first: 4, last: 7 }, ["first", "last"]],
  ["corrupt", { file: "a.log", offset: 12, message: "no checksum" }, ["file", "offset"]],
  [
    "server",
    { class: "retry", status: 503, request: "GET /", message: "busy", retryAfterMs: 9 },
    ["status", "request", "retryAfterMs"],
  ],
];

test("an error has what its kind tells", () => {
  for (const [tag, val, names] of KEPT) {
    const error = errorOf({ tag, val });
    assert.ok(error instanceof EdgeSyncError);
    assert.equal(error.kind, tag);
    for (const name of names) assert.equal(error[name], val[name], `${tag}: ${name}`);
    assert.equal(error.reason, val.kind ?? val.class);
  }
});
