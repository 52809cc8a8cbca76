"use strict";

const assert = require("node:assert/strict");
const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { test } = require("node:test");

const { EdgeSync, EdgeSyncError } = require("edge-sync");

test("CommonJS has the same", async () => {
  assert.equal((await import("edge-sync")).EdgeSyncError, EdgeSyncError);
  const path = mkdtempSync(join(tmpdir(), "edge-sync-"));
  const edge = await EdgeSync.open({ path, config: { vectors: { size: 1, distance: "Dot" } } });
  await edge.upsert([{ id: 1, vector: [2] }]);
  assert.equal((await edge.search([3]))[0].score, 6);
  await edge.close();
  rmSync(path, { recursive: true });
});
