// The class `EdgeSync` over a platform, which is what Node and a browser do not have in common:
//
// - `place(path)`: the data directory's name;
// - `lock(place)`: answers a function that gives it up, or throws `{ holder }`;
// - `start(place, settings)`: a thread with the component, once it can take jobs: `post(job)`, `ref()`,
//   `unref()`, `end()`, and it calls `onmessage(message)`, and `onlost(error)` should it end;
// - `put(run, place, name, snapshot)` and `drop(run, place, name)`: a snapshot's file in the data directory.
"use strict";

const { EdgeSyncError, errorOf } = require("./errors.cjs");

/** For `reopen`: nothing is to be taken back. */
const ALL_RETURNED = 2n ** 64n - 1n;
const CONNECT_TIMEOUT_MS = 10_000n;
const PAGE = 1000;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 60_000;

/** The class for a platform. What is documented is in index.d.ts. */
function edgeSyncOn(platform) {
  return class EdgeSync extends Edge {
    static async open(options = {}) {
      const edge = new EdgeSync();
      await edge._openOn(platform, options);
      return edge;
    }
  };
}

class Edge {
  #platform;
  #path;
  #settings;
  #server;
  #worker;
  #release;
  #pending;
  // Jobs wait for each other: the component does one thing at a time.
  #tail = Promise.resolve();
  // The log's last sequence when a call began that failed: what it logged after that is taken back.
  #returned;
  #began;
  #isClosed = false;
  #background;
  #notes = [];
  #lastSync = null;
  #lastError = null;

  /** @private */
  _openOn(platform, options) {
    this.#platform = platform;
    return this.#open(options);
  }

  async #open(options) {
    const { path, config, url, collection, apiKey, background = false } = options;
    const { everyMs = 60_000, onSync } = options;
    const { timeoutMs = this.#platform.timeoutMs } = options;
    const { durability = "always", memoryMiB = 2048 } = options;
    if (typeof path !== "string" || !path) throw invalid("path", "expected a folder");
    if ((url === undefined) !== (collection === undefined)) {
      throw invalid(url === undefined ? "url" : "collection", "expected both url and collection, or none");
    }
    if (!(timeoutMs > 0)) throw invalid("timeoutMs", "expected milliseconds");
    if (!(everyMs > 0)) throw invalid("everyMs", "expected milliseconds");
    if (!(memoryMiB >= 64 && memoryMiB <= 4095)) throw invalid("memoryMiB", "expected 64 to 4095");
    this.#path = this.#platform.place(path);
    const part = partOf(options);
    const named =
      url === undefined ? undefined : serverOf(url, collection, part, apiKey, timeoutMs);
    this.#settings = {
      memoryBytes: Math.floor(memoryMiB) * 2 ** 20,
      durability: durabilityOf(durability),
    };
    try {
      this.#release = await this.#platform.lock(this.#path);
    } catch (error) {
      const { holder } = error;
      if (holder === undefined) throw error;
      throw new EdgeSyncError("locked", `${this.#path} is in use by ${holder}`);
    }
    try {
      await this.#start();
      const { isPresent, binding } = await this.#job({ kind: "look" });
      this.#server = named ?? bound(binding, part, apiKey, timeoutMs);
      if (background && !this.#server) throw invalid("background", "needs url and collection");
      await this.#allow();
      await this.#find(isPresent, config);
    } catch (error) {
      await this.#stop();
      throw error;
    }
    if (background) {
      this.#background = { everyMs, onSync, pullAt: 0, failures: 0 };
      this.#schedule(0);
    }
  }

  async #find(isPresent, config) {
    if (isPresent) this.#note(await this.#job({ kind: "open" }));
    else if (config !== undefined) this.#note(await this.#job({ kind: "create", config }));
    else if (this.#server) {
      const { record: server } = this.#server;
      this.#note(await this.#job({ kind: "restore", server, source: "stream", force: false }));
    } else {
      throw new EdgeSyncError(
        "not-found",
        `there is no shard in ${this.#path}; config makes one, url and collection fetch one`,
      );
    }
  }

  #note(opened) {
    this.#notes.push(...opened.notes);
  }

  // The thread.

  async #start() {
    let thread;
    try {
      thread = await this.#platform.start(this.#path, this.#settings);
    } catch (error) {
      throw new EdgeSyncError("component-missing", `cannot use the component: ${error.message}`);
    }
    thread.onmessage = (message) => {
      if (message.began !== undefined) this.#began = message.began;
      else this.#pending?.(message);
    };
    thread.onlost = (error) => {
      if (this.#worker !== thread) return;
      this.#worker = undefined;
      this.#pending?.({ trap: String(error.stack ?? error) });
    };
    this.#worker = thread;
    // It keeps the program from ending only while a call is under way.
    thread.unref();
  }

  /** Tells the thread which server requests may be made to. */
  async #allow() {
    if (this.#server) await this.#job({ kind: "allow", origin: this.#server.origin });
  }

  async #end() {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.end();
  }

  async #stop() {
    await this.#end();
    await this.#release?.();
  }

  /** One job on the thread, as it answers. */
  #ask(job) {
    const worker = this.#worker;
    if (!worker) return Promise.resolve({ trap: "the thread is gone" });
    worker.ref();
    this.#began = undefined;
    return new Promise((answered) => {
      this.#pending = answered;
      worker.post(job);
    }).finally(() => {
      this.#pending = undefined;
      worker.unref();
    });
  }

  /** What a job answers, or the error. */
  async #job(job) {
    const answer = await this.#ask(job);
    if (answer.trap !== undefined) {
      this.#returned = answer.returned ?? this.#began ?? ALL_RETURNED;
      await this.#end();
      throw new EdgeSyncError("trapped", `the component trapped: ${answer.trap}`);
    }
    if (answer.error !== undefined) {
      this.#returned = answer.returned;
      throw errorOf(answer.error);
    }
    return answer.value;
  }

  /** Waits for the calls before; opens the shard again if an earlier one has lost it. */
  #run(job) {
    const work = async () => {
      if (this.#isClosed) throw new EdgeSyncError("closed", "this EdgeSync was closed");
      if (!this.#worker) await this.#reopen("an earlier trap");
      try {
        return await this.#job(job);
      } catch (error) {
        if (error.kind !== "needs-reopen" && error.kind !== "not-open") {
          // The next call opens the shard again if this one trapped.
          throw error;
        }
        await this.#end();
        await this.#reopen(error.message);
        return this.#job(job);
      }
    };
    const result = this.#tail.then(work);
    this.#tail = result.catch(() => {});
    return result;
  }

  async #reopen(why) {
    const returned = this.#returned ?? ALL_RETURNED;
    try {
      await this.#start();
      await this.#allow();
      this.#note(await this.#job({ kind: "reopen", returned }));
    } catch (error) {
      // The next call tries it again, and takes the same back.
      await this.#end();
      this.#returned = returned;
      throw error;
    }
    this.#returned = undefined;
    this.#notes.push(`the shard was opened again after ${why}`);
  }

  #call(of, name, ...args) {
    return this.#run({ kind: "call", of, name, args });
  }

  async request(method, path, body) {
    const text = await this.#run({ kind: "request", method, url: path, body, writes: true });
    this.#written();
    return JSON.parse(text);
  }

  async #read(path, body) {
    return JSON.parse(await this.#run({ kind: "request", method: "POST", url: path, body }));
  }

  // Writes.

  upsert(points) {
    return this.request("PUT", "/points", Array.isArray(points) ? { points } : points);
  }

  delete(points) {
    return this.request("POST", "/points/delete", selected(points));
  }

  setPayload(payload, points, key) {
    return this.request("POST", "/points/payload", { payload, key, ...selected(points) });
  }

  overwritePayload(payload, points, key) {
    return this.request("PUT", "/points/payload", { payload, key, ...selected(points) });
  }

  deletePayload(keys, points) {
    return this.request("POST", "/points/payload/delete", { keys, ...selected(points) });
  }

  clearPayload(points) {
    return this.request("POST", "/points/payload/clear", selected(points));
  }

  updateVectors(points) {
    return this.request("PUT", "/points/vectors", { points });
  }

  deleteVectors(names, points) {
    return this.request("POST", "/points/vectors/delete", { vector: names, ...selected(points) });
  }

  batch(operations) {
    return this.request("POST", "/points/batch", { operations });
  }

  createPayloadIndex(field, schema) {
    return this.request("PUT", "/index", { field_name: field, field_schema: schema });
  }

  deletePayloadIndex(field) {
    return this.request("DELETE", `/index/${encodeURIComponent(field)}`);
  }

  createVector(name, config) {
    return this.request("PUT", `/vectors/${encodeURIComponent(name)}`, config);
  }

  deleteVector(name) {
    return this.request("DELETE", `/vectors/${encodeURIComponent(name)}`);
  }

  // Reads.

  search(vector, body = {}) {
    return this.query({ query: { nearest: vector }, ...body });
  }

  async query(body) {
    return (await this.#read("/points/query", { with_payload: true, ...body })).points;
  }

  async queryBatch(searches) {
    const results = await this.#read("/points/query/batch", { searches });
    return results.map(({ points }) => points);
  }

  async queryGroups(body) {
    return (await this.#read("/points/query/groups", { with_payload: true, ...body })).groups;
  }

  retrieve(ids, body = {}) {
    return this.#read("/points", { ids, with_payload: true, ...body });
  }

  scroll(body = {}) {
    return this.#read("/points/scroll", { with_payload: true, ...body });
  }

  async *points(body = {}) {
    let offset = null;
    do {
      const page = await this.scroll({ limit: PAGE, ...body, offset });
      yield* page.points;
      offset = page.next_page_offset;
    } while (offset !== null && offset !== undefined);
  }

  async count(filter) {
    return (await this.#read("/points/count", { filter, exact: true })).count;
  }

  async facet(body) {
    return (await this.#read("/facet", { exact: true, ...body })).hits;
  }

  async info() {
    const info = await this.#call("shard", "info");
    return {
      ...info,
      config: JSON.parse(info.config),
      payloadSchema: JSON.parse(info.payloadSchema),
    };
  }

  // Upkeep.

  optimize() {
    return this.#call("shard", "optimize");
  }

  async flush() {
    await this.#call("shard", "flush");
  }

  // With the server.

  async sync(options = {}) {
    const { direction = "both", attempts = 5, patienceMs = 60_000 } = options;
    const { batchOperations = 10, mostBatchOperations = 1000, batchBytes = 8 << 20 } = options;
    const { rebind = false, resend = false } = options;
    const { createShardKey = false } = options;
    if (!this.#server) throw invalid("url", "no server is set: EdgeSync.open({ url, collection })");
    if (!["both", "push", "pull"].includes(direction)) {
      throw invalid("direction", "expected 'both', 'push' or 'pull'");
    }
    for (const [name, value] of Object.entries({
      attempts,
      batchOperations,
      mostBatchOperations,
      batchBytes,
    })) {
      if (!(Number.isInteger(value) && value >= 1 && value < 2 ** 32)) {
        throw invalid(name, "expected at least 1");
      }
    }
    if (!(patienceMs >= 0)) throw invalid("patienceMs", "expected milliseconds");
    const settings = {
      operations: batchOperations,
      bytes: batchBytes,
      mostOperations: mostBatchOperations,
      attempts,
      patienceMs: BigInt(Math.floor(patienceMs)),
      rebind,
      resend,
      direction,
      createShardKey,
    };
    try {
      const server = this.#server.record;
      const { failure, ...report } = await this.#run({ kind: "sync", server, settings });
      if (failure) throw Object.assign(errorOf(failure), { report });
      this.#lastSync = new Date();
      this.#lastError = null;
      return report;
    } catch (error) {
      this.#lastError = error;
      throw error;
    }
  }

  async restore({ snapshot, stored = false, force = false } = {}) {
    if (snapshot !== undefined) {
      // The component sees the data directory only.
      const file = ".restore.snapshot";
      const run = (job) => this.#run(job);
      try {
        await this.#platform.put(run, this.#path, file, snapshot);
        this.#note(await this.#run({ kind: "restoreFile", file, force }));
      } finally {
        await this.#platform.drop(run, this.#path, file);
      }
      return;
    }
    if (!this.#server) throw invalid("url", "no server is set: EdgeSync.open({ url, collection })");
    const { record: server } = this.#server;
    const source = stored ? "stored" : "stream";
    this.#note(await this.#run({ kind: "restore", server, source, force }));
  }

  async status() {
    const queue = await this.#call("queue", "status");
    const { binding } = await this.#call("queue", "standing");
    const { points, generation } = await this.#call("shard", "info");
    return {
      points,
      generation,
      logged: queue.logged,
      acknowledged: queue.acknowledged,
      queued: queue.queued,
      queuedBytes: queue.queuedBytes,
      oldestQueued: queue.oldestQueuedMs === undefined ? null : new Date(queue.oldestQueuedMs),
      rejected: queue.rejected,
      url: this.#server?.record.url ?? null,
      collection: this.#server?.record.collection ?? null,
      lost: binding?.lost ?? null,
      lastSync: this.#lastSync,
      lastError: this.#lastError,
      notes: [...this.#notes],
    };
  }

  async *rejected() {
    let after = 0;
    for (;;) {
      const page = await this.#call("queue", "rejected", BigInt(after), PAGE);
      if (page.length === 0) return;
      for (const { sequence, status, message, rejectedMs, operation } of page) {
        after = sequence;
        const at = new Date(rejectedMs);
        yield { sequence, status, message, rejectedAt: at, operation: JSON.parse(operation) };
      }
    }
  }

  async retryRejected(sequence) {
    await this.#run({
      kind: "call",
      of: "queue",
      name: "retryRejected",
      args: [BigInt(sequence)],
      writes: true,
    });
    this.#written();
  }

  async dropRejected(sequence) {
    await this.#call("queue", "dropRejected", BigInt(sequence));
  }

  skip(count = 1) {
    return this.#call("queue", "skip", count);
  }

  close() {
    if (this.#isClosed) return this.#tail.then(() => {});
    clearTimeout(this.#background?.timer);
    this.#background = undefined;
    const work = async () => {
      this.#isClosed = true;
      try {
        // Before the thread ends: an instance that is dropped with an open shard takes the process along.
        if (this.#worker) this.#notes.push(...(await this.#job({ kind: "close" })));
      } catch (error) {
        // What is in memory is in doubt, or lost: the log has what was returned.
        if (!["needs-reopen", "not-open", "trapped"].includes(error.kind)) throw error;
      } finally {
        await this.#stop();
      }
    };
    const result = this.#tail.then(work);
    this.#tail = result.catch(() => {});
    return result;
  }

  [Symbol.asyncDispose ?? Symbol.for("Symbol.asyncDispose")]() {
    return this.close();
  }

  // In the background.

  #written() {
    if (this.#background && this.#background.failures === 0) this.#schedule(0);
  }

  #schedule(delay) {
    const background = this.#background;
    if (!background) return;
    clearTimeout(background.timer);
    background.timer = setTimeout(() => this.#exchange(background), delay);
    background.timer.unref?.();
  }

  async #exchange(background) {
    if (background.isBusy) {
      background.again = true;
      return;
    }
    background.isBusy = true;
    background.again = false;
    const pulls = Date.now() >= background.pullAt;
    let delay;
    try {
      const direction = pulls ? "both" : "push";
      const report = await this.sync({ direction, attempts: 1, patienceMs: 0 });
      background.failures = 0;
      // Jitter, so that many devices do not come together.
      if (pulls) background.pullAt = Date.now() + background.everyMs * (0.9 + 0.2 * Math.random());
      delay = background.again ? 0 : Math.max(0, background.pullAt - Date.now());
      if (report.uploaded > 0 || report.pulled?.changed) {
        // Not within this try: its failures are no sync's.
        queueMicrotask(() => background.onSync?.(report));
      }
    } catch (error) {
      // Kept in `lastError`; what waits stays in the queue.
      background.failures += 1;
      const doubled = FIRST_WAIT_MS * 2 ** Math.min(background.failures - 1, 10);
      const wait = error.reason === "stop" ? LONGEST_WAIT_MS : Math.min(doubled, LONGEST_WAIT_MS);
      delay = error.retryAfterMs ?? wait * (0.5 + 0.5 * Math.random());
    }
    background.isBusy = false;
    if (this.#background === background) this.#schedule(delay);
  }
}

function invalid(field, message) {
  return new EdgeSyncError("invalid-input", `${field}: ${message}`, { field });
}

function durabilityOf(value) {
  if (value === "always" || value === "os") return { tag: value };
  if (Number.isInteger(value) && value > 0 && value < 2 ** 32) return { tag: "interval", val: value };
  throw invalid("durability", "expected 'always', 'os' or milliseconds");
}

/** `points` or `filter` of a request: from ids, a filter, or an object with one of the two. */
function selected(points) {
  if (Array.isArray(points)) return { points };
  if (points && typeof points === "object") {
    return "points" in points || "filter" in points ? points : { filter: points };
  }
  return { points: [points] };
}

/** Which part of a collection. */
function partOf({ shard, shardKey, tenant }) {
  // Text that looks like a number is text.
  const key = typeof shardKey === "string" ? JSON.stringify(shardKey) : shardKey?.toString();
  return { shard, shardKey: key, tenant };
}

function serverOf(url, collection, part, apiKey, timeoutMs) {
  let parsed;
  try {
    parsed = new URL(url);
  } catch {
    throw invalid("url", "expected a URL such as http://127.0.0.1:6333");
  }
  const secure = parsed.protocol === "https:";
  if (!secure && parsed.protocol !== "http:") {
    throw invalid("url", "expected a URL such as http://127.0.0.1:6333");
  }
  if (parsed.username || parsed.password) {
    throw invalid("url", "user names and passwords do not belong in it");
  }
  if (parsed.search || parsed.hash) throw invalid("url", "expected scheme, host, port and path only");
  if (typeof collection !== "string" || !collection) {
    throw invalid("collection", "expected the collection's name");
  }
  const record = {
    url: `${parsed.origin}${parsed.pathname.replace(/\/+$/, "")}`,
    collection,
    apiKey,
    connectTimeoutMs: CONNECT_TIMEOUT_MS,
    ...part,
  };
  return { record, origin: { secure, authority: parsed.host, timeoutMs } };
}

/** The server that a sync has bound the shard to, by its `server.json`. */
function bound(text, part, apiKey, timeoutMs) {
  let binding;
  try {
    binding = JSON.parse(text);
  } catch {
    return undefined;
  }
  const { url, collection, shard_key: shardKey, tenant, shard } = binding ?? {};
  // Empty after a contact with a server that nobody named.
  if (!url || !collection) return undefined;
  const isNamed = Object.values(part).some((value) => value !== undefined);
  const known = isNamed ? part : { shard, shardKey, tenant };
  return serverOf(url, collection, known, apiKey, timeoutMs);
}

module.exports = { edgeSyncOn, EdgeSyncError };
