"use strict";

const assert = require("node:assert/strict");
const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { test } = require("node:test");
const threads = require("node:worker_threads");

// The thread that the package starts, so that it can be lost as by a trap.
let thread;
threads.Worker = class extends threads.Worker {
  constructor(...settings) {
    super(...settings);
    thread = this;
  }
};
const { EdgeSync } = require("edge-sync");

test("a thread that is lost costs the call under way, and nothing that was returned", async (t) => {
  const path = mkdtempSync(join(tmpdir(), "edge-sync-"));
  t.after(() => rmSync(path, { recursive: true }));
  const edge = await EdgeSync.open({ path, config: { vectors: { size: 1, distance: "Dot" } } });
  await edge.upsert([{ id: 1, vector: [1] }]);
  const lost = edge.upsert(Array.from({ length: 5000 }, (_, n) => ({ id: n + 2, vector: [n] })));
  const next = edge.retrieve([1]);
  await thread.terminate();
  await assert.rejects(lost, { kind: "trapped" });
  assert.equal((await next).length, 1);
  // All of it or nothing: it was never answered.
  assert.ok([1, 5001].includes(await edge.count()));
  assert.match((await edge.status()).notes.join(), /opened again/);
  await edge.upsert([{ id: 1, vector: [2] }]);
  // Lost while nothing is under way: nobody notices.
  await thread.terminate();
  assert.deepEqual((await edge.retrieve([1], { with_vector: true }))[0].vector, [2]);
  await thread.terminate();
  await edge.close();
  const again = await EdgeSync.open({ path });
  assert.deepEqual((await again.retrieve([1], { with_vector: true }))[0].vector, [2]);
  await again.close();
});
