import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { createServer } from "node:net";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

import { EdgeSync, EdgeSyncError } from "edge-sync";

import { COLLECTION, CONFIG, folder, ids, point, server } from "./support.mjs";

/** Opens a shard that is closed after the test. */
async function open(t, options) {
  const edge = await EdgeSync.open(options);
  t.after(() => edge.close());
  return edge;
}

test("what is written is found, exactly", async (t) => {
  const edge = await open(t, { path: folder(t), config: CONFIG });
  await edge.upsert(Array.from({ length: 20 }, (_, n) => point(n)));
  const vector = new Float32Array([0.1, 0.2, 0.3, 0.4]);
  await edge.upsert([{ id: "00000000-0000-4000-8000-00000000000a", vector }]);
  const [stored] = await edge.retrieve(["00000000-0000-4000-8000-00000000000a"], { with_vector: true });
  assert.deepEqual(new Float32Array(stored.vector), vector);
  const even = { must: [{ key: "even", match: { value: true } }] };
  const hits = await edge.search([0, 1, 0, 0], { filter: even, limit: 2 });
  assert.deepEqual(hits.map(({ id, score, payload }) => [id, score, payload.n]), [[18, 18, 18], [16, 16, 16]]);
  assert.equal(await edge.count(even), 10);
  assert.equal((await edge.query({ query: 3, limit: 1 }))[0].id, 19);
  const batches = await edge.queryBatch([{ query: 3, limit: 1 }, { query: 4, limit: 2 }]);
  assert.deepEqual(batches.map((found) => found.length), [1, 2]);
  const groups = await edge.queryGroups({ query: [0, 1, 0, 0], group_by: "n", group_size: 1, limit: 1 });
  assert.equal(groups[0].hits[0].id, 19);
  await edge.createPayloadIndex("even", "bool");
  assert.deepEqual((await edge.facet({ key: "even" })).map(({ count }) => count), [10, 10]);
  const page = await edge.scroll({ limit: 3 });
  assert.deepEqual([page.points.map(({ id }) => id), page.next_page_offset], [[0, 1, 2], 3]);
  await edge.setPayload({ seen: true }, [0, 1]);
  await edge.overwritePayload({ only: 1 }, 2);
  await edge.deletePayload(["n", "even"], { must: [{ has_id: [1] }] });
  await edge.clearPayload({ points: [3] });
  await edge.delete(even);
  await edge.updateVectors([{ id: 5, vector: [9, 9, 9, 9] }]);
  await edge.batch([{ upsert: { points: [point(30)] } }, { delete: { points: [19] } }]);
  const left = [1, 2, 3, 5, 7, 9, 11, 13, 15, 17, 30, "00000000-0000-4000-8000-00000000000a"];
  assert.deepEqual(await ids(edge.points()), left);
  const payloads = (await edge.retrieve([1, 2, 3])).map(({ payload }) => payload);
  assert.deepEqual(payloads, [{ seen: true }, { only: 1 }, {}]);
  assert.equal(typeof (await edge.optimize()), "boolean");
  await edge.flush();
  const info = await edge.info();
  assert.deepEqual(info.config.vectors, CONFIG.vectors);
  assert.deepEqual(Object.keys(info.payloadSchema), ["even"]);
});

test("what is wrong is an Error that names the field, and changes nothing", async (t) => {
  const edge = await open(t, { path: folder(t), config: CONFIG });
  const wrong = [
    [[{ id: 1, vector: [1, 2] }], "points[0].vector"],
    [[{ id: 1, vector: [1, NaN, 2, 3] }], "points[0].vector[1]"],
    [[{ id: 1, vector: new Float32Array([1, Infinity, 2, 3]) }], "points[0].vector[1]"],
    [[point(1), { id: -1, vector: [1, 2, 3, 4] }], "points[1].id"],
    [[{ id: 1n, vector: [1, 2, 3, 4] }], "points[0].id"],
  ];
  for (const [points, field] of wrong) {
    await assert.rejects(edge.upsert(points), (error) => {
      assert.ok(error instanceof EdgeSyncError && error instanceof Error);
      assert.deepEqual([error.kind, error.field], ["invalid-input", field]);
      return true;
    });
  }
  assert.equal(await edge.count(), 0);
  await assert.rejects(edge.query({ query: 99 }), { kind: "not-found" });
  await assert.rejects(edge.request("GET", "/snapshots"), { kind: "unsupported" });
  await assert.rejects(edge.sync(), { kind: "invalid-input", field: "url" });
  await edge.close();
  await edge.close();
  await assert.rejects(edge.count(), { kind: "closed" });
  await assert.rejects(EdgeSync.open({ path: folder(t) }), { kind: "not-found" });
  for (const url of ["ftp://host", "host:6333", "http://u:p@host", "http://h/?q"]) {
    const options = { path: folder(t), config: CONFIG, url, collection: "c" };
    await assert.rejects(EdgeSync.open(options), { kind: "invalid-input", field: "url" });
  }
});

test("calls in flight keep their order, and nothing blocks", async (t) => {
  const edge = await open(t, { path: folder(t), config: CONFIG, durability: "os" });
  const writes = Array.from({ length: 50 }, (_, n) => edge.upsert([{ ...point(1), payload: { n } }]));
  const read = edge.retrieve([1]);
  // The event loop turns before the last of them is done.
  let turned = false;
  setImmediate(() => (turned = true));
  const sequences = (await Promise.all(writes)).map(({ operation_id }) => operation_id);
  assert.deepEqual(sequences, Array.from({ length: 50 }, (_, n) => n + 1));
  assert.ok(turned);
  assert.equal((await read)[0].payload.n, 49);
});

const KILLED = `
import { EdgeSync } from "edge-sync";
const config = { vectors: { size: 4, distance: "Dot" } };
const edge = await EdgeSync.open({ path: process.argv[1], config });
for (let n = 0; n < 30; n += 1) await edge.upsert([{ id: n, vector: [1, n, 0, 0] }]);
await edge.delete([0]);
process.kill(process.pid, "SIGKILL");
`;

test("what was returned survives a kill", async (t) => {
  const path = folder(t);
  const cwd = fileURLToPath(new URL("..", import.meta.url));
  const killed = spawnSync(process.execPath, ["--input-type=module", "-e", KILLED, path], { cwd });
  assert.equal(killed.signal, "SIGKILL", String(killed.stderr));
  const edge = await open(t, { path });
  assert.deepEqual(await ids(edge.points()), Array.from({ length: 29 }, (_, n) => n + 1));
  assert.equal((await edge.status()).queued, 31);
});

test("one process has the directory", { skip: process.platform !== "linux" && "no flock(1)" }, async (t) => {
  const path = folder(t);
  const edge = await EdgeSync.open({ path, config: CONFIG });
  await assert.rejects(EdgeSync.open({ path }), (error) => {
    assert.equal(error.kind, "locked");
    assert.match(error.message, new RegExp(`process ${process.pid}`));
    return true;
  });
  const count = ["--data-dir", path, "--json", "count"];
  const beside = spawnSync(process.env.EDGE_SYNC_BIN, count, { encoding: "utf8" });
  assert.equal(beside.status, 8, beside.stderr);
  await edge.upsert([point(1)]);
  await edge.close();
  const alone = execFileSync(process.env.EDGE_SYNC_BIN, count, { encoding: "utf8" });
  assert.deepEqual(JSON.parse(alone), { count: 1 });
});

test("devices and a server stay in step", async (t) => {
  const { url } = await server(t);
  const there = { url, collection: COLLECTION };
  const one = await open(t, { path: folder(t), config: CONFIG, ...there });
  await one.upsert(Array.from({ length: 25 }, (_, n) => point(n)));
  const first = await one.sync();
  assert.deepEqual([first.uploaded, first.remaining, first.createdCollection], [25, 0, true]);
  // A new device has nothing but the server.
  const path = folder(t);
  const two = await EdgeSync.open({ path, ...there });
  await two.delete([0]);
  await two.upsert([point(30)]);
  assert.equal((await two.sync({ direction: "push" })).uploaded, 2);
  await two.close();
  const { pulled } = await one.sync();
  assert.deepEqual([pulled.changed, pulled.pointsBefore, pulled.points], [true, 25, 25]);
  const expected = [...Array.from({ length: 24 }, (_, n) => n + 1), 30];
  assert.deepEqual(await ids(one.points()), expected);
  // It knows its server by now.
  const again = await open(t, { path });
  assert.equal((await again.status()).url, url);
  await again.sync();
  assert.deepEqual(await ids(again.points()), expected);
  await again.restore();
  await again.restore({ stored: true });
  assert.equal(await again.count(), 25);
});

test("what was written waits for a server that is down", async (t) => {
  const { url, stop, startAgain } = await server(t);
  const edge = await open(t, { path: folder(t), config: CONFIG, url, collection: COLLECTION });
  await stop();
  await edge.upsert([point(1), point(2)]);
  await assert.rejects(edge.sync({ attempts: 1 }), (error) => {
    assert.deepEqual([error.kind, error.reason, error.report.remaining], ["server", "retry", 2]);
    return true;
  });
  const status = await edge.status();
  assert.deepEqual([status.queued, status.lastSync], [2, null]);
  assert.equal(status.lastError.kind, "server");
  await startAgain();
  assert.equal((await edge.sync()).uploaded, 2);
});

test("requests go to one origin only", async (t) => {
  const other = createServer().listen(0, "127.0.0.1");
  await once(other, "listening");
  t.after(() => other.close());
  let connections = 0;
  other.on("connection", () => (connections += 1));
  const { url } = await server(t);
  const path = folder(t);
  const edge = await open(t, { path, config: CONFIG, url, collection: COLLECTION });
  await edge.upsert([point(1)]);
  // The server hands on to another host; the component asks there only if it may.
  const elsewhere = `http://127.0.0.1:${other.address().port}`;
  const { Worker } = await import("node:worker_threads");
  await edge.close();
  const worker = new Worker(new URL("../src/worker.mjs", import.meta.url), {
    workerData: {
      path,
      memoryBytes: 2 ** 31,
      durability: { tag: "always" },
    },
  });
  t.after(() => worker.terminate());
  const ask = async (job) => {
    worker.postMessage(job);
    return (await once(worker, "message"))[0];
  };
  await once(worker, "message");
  await ask({ kind: "open" });
  const origin = { secure: false, authority: new URL(url).host, timeoutMs: 5000 };
  await ask({ kind: "allow", origin });
  const record = { collection: COLLECTION, shard: 0, connectTimeoutMs: 5000n };
  const settings = {
    operations: 10,
    bytes: 1 << 20,
    attempts: 1,
    patienceMs: 0n,
    rebind: false,
    resend: false,
    direction: "push",
  };
  for (const wrong of [elsewhere, url.replace("http:", "https:")]) {
    const { value } = await ask({ kind: "sync", server: { ...record, url: wrong }, settings });
    assert.equal(value.failure.val.class, "stop");
    assert.match(value.failure.val.message, /does not permit/);
  }
  assert.equal(connections, 0);
  const { value } = await ask({ kind: "sync", server: { ...record, url }, settings });
  assert.deepEqual([value.uploaded, value.failure], [1, undefined]);
  await ask({ kind: "close" });
});

test("it syncs in the background", async (t) => {
  const { url, stop, startAgain } = await server(t);
  await stop();
  const path = folder(t);
  const uploaded = Promise.withResolvers?.() ?? resolvers();
  const edge = await open(t, {
    path,
    config: CONFIG,
    url,
    collection: COLLECTION,
    background: true,
    onSync: uploaded.resolve,
  });
  await edge.upsert([point(1)]);
  await startAgain();
  // The timers of the package keep no program from ending.
  const waits = setInterval(() => {}, 1000);
  assert.equal((await uploaded.promise).uploaded, 1);
  clearInterval(waits);
  assert.equal((await edge.status()).queued, 0);
});

function resolvers() {
  let resolve;
  const promise = new Promise((kept) => (resolve = kept));
  return { promise, resolve };
}

test("what the server refuses is put aside", async (t) => {
  const edge = await open(t, { path: folder(t), config: CONFIG });
  await edge.upsert([point(1), point(2)]);
  assert.equal(await edge.skip(1), 1);
  const aside = [];
  for await (const item of edge.rejected()) aside.push(item);
  assert.deepEqual(aside.map(({ status, message }) => [status, message]), [[0, "skipped by hand"]]);
  await edge.retryRejected(aside[0].sequence);
  const { queued, rejected } = await edge.status();
  assert.deepEqual([queued, rejected], [2, 0]);
  await assert.rejects(edge.dropRejected(aside[0].sequence), { kind: "not-found" });
});

test("a file that is no snapshot leaves the shard as it is", async (t) => {
  const path = folder(t);
  const edge = await open(t, { path, config: CONFIG });
  await edge.upsert([point(1)]);
  const snapshot = fileURLToPath(import.meta.url);
  await assert.rejects(edge.restore({ snapshot }), { kind: "bad-snapshot" });
  assert.deepEqual(await ids(edge.points()), [1]);
});

test("the README does what it says", async (t) => {
  const { url } = await server(t);
  const text = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const blocks = [...text.matchAll(/^```(.*?)\n(.*?)^```$/gms)].map(([, info, body]) => ({ info, body }));
  const program = blocks.filter(({ info }) => info === "js").map(({ body }) => body).join("");
  const shown = blocks.filter(({ info }) => info === "text output").map(({ body }) => body).join("");
  assert.ok(program && shown);
  const cwd = fileURLToPath(new URL("..", import.meta.url));
  const path = folder(t);
  const code = program.replaceAll("http://127.0.0.1:6333", url).replace(/path: "/g, `path: "${path}/`);
  const ran = spawnSync(process.execPath, ["--input-type=module", "-e", code], { cwd, encoding: "utf8" });
  assert.deepEqual([ran.stderr, ran.status], ["", 0]);
  assert.equal(ran.stdout, shown);
});
