"use strict";

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const { mkdtempSync, rmSync } = require("node:fs");
const { tmpdir } = require("node:os");
const { join } = require("node:path");
const { test } = require("node:test");
const threads = require("node:worker_threads");

const REASONS = { ENOSPC: "no-space", EDQUOT: "no-space", EFBIG: "no-space", EIO: "io", ENEW: "io" };
const codes = Object.keys(REASONS);

/** Which of the codes the writes fail with, from 1; 0 for none. */
const failing = new Int32Array(new SharedArrayBuffer(4));
threads.Worker = class extends threads.Worker {
  constructor(_, { workerData, ...settings }) {
    const data = { ...workerData, codes, failing };
    super(join(__dirname, "failing_worker.mjs"), { ...settings, workerData: data });
  }
};
const { EdgeSync } = require("edge-sync");

async function shard(t) {
  const path = mkdtempSync(join(tmpdir(), "edge-sync-"));
  t.after(() => rmSync(path, { recursive: true }));
  const edge = await EdgeSync.open({ path, config: { vectors: { size: 1, distance: "Dot" } } });
  t.after(() => edge.close());
  await edge.upsert([{ id: 1, vector: [1] }]);
  return edge;
}

/** Reads go on while writes are refused, and writes do afterwards. */
async function refusesWrites(edge, reason) {
  for (const _ of [1, 2]) {
    await assert.rejects(edge.upsert([{ id: 2, vector: [2] }]), (error) => {
      assert.deepEqual([error.kind, error.reason], ["storage", reason]);
      assert.equal(error.operation, "append to log segment");
      assert.match(error.path, /^\/data\/log\//);
      return true;
    });
    assert.equal((await edge.search([3]))[0].score, 3);
  }
}

for (const code of codes) {
  test(`a write that fails with ${code} is an error, and the shard goes on`, async (t) => {
    const edge = await shard(t);
    Atomics.store(failing, 0, codes.indexOf(code) + 1);
    t.after(() => Atomics.store(failing, 0, 0));
    await refusesWrites(edge, REASONS[code]);
    Atomics.store(failing, 0, 0);
    await edge.upsert([{ id: 3, vector: [3] }]);
    assert.deepEqual((await edge.scroll()).points.map(({ id }) => id), [1, 3]);
  });
}

const skip = process.platform !== "linux" && "no prlimit(1)";
test("a file that may not grow is no-space, as the system says it", { skip }, async (t) => {
  const edge = await shard(t);
  // The soft limit only, which may be raised again.
  const limit = (bytes) => {
    execFileSync("prlimit", [`--pid=${process.pid}`, `--fsize=${bytes}:`]);
  };
  t.after(() => limit("unlimited"));
  limit(1);
  await refusesWrites(edge, "no-space");
  limit("unlimited");
  await edge.upsert([{ id: 3, vector: [3] }]);
  assert.deepEqual((await edge.scroll()).points.map(({ id }) => id), [1, 3]);
});
