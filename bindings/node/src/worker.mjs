// The component on a thread of its own: its calls block.
//
// The main thread sends one job at a time, `{ kind, ... }`, and waits for the answer: `{ value }`, `{ error }`,
// or `{ trap }`, after which this thread is of no use any more. A write tells `{ began }` before.

import { readFile } from "node:fs/promises";
import { statfsSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";

import { filesystem, http } from "@bytecodealliance/preview2-shim";
import { WASIShim } from "@bytecodealliance/preview2-shim/instantiation";

import { instantiate } from "../generated/edge_sync.js";
import { toJson } from "./json.mjs";

const DIRECTORY = "/data";
const ALL_RETURNED = 2n ** 64n - 1n;
const { path, memoryBytes, durability, origin } = workerData;

// The C library asks for `mutate-directory` with each file that is opened for writing, and this shim
// refuses that on files.
const { Descriptor } = filesystem.types;
const openAt = Descriptor.prototype.openAt;
Descriptor.prototype.openAt = function (pathFlags, name, openFlags, flags) {
  return openAt.call(this, pathFlags, name, openFlags, { ...flags, mutateDirectory: false });
};

/** Requests to one scheme, host and port pass; without a server, none. */
function handle(request, options) {
  const secure = request.scheme()?.tag === "HTTPS";
  const known = secure || request.scheme()?.tag === "HTTP";
  if (!origin || !known || secure !== origin.secure || request.authority() !== origin.authority) {
    throw { tag: "HTTP-request-denied" };
  }
  const silence = BigInt(Math.round(origin.timeoutMs * 1e6));
  options?.setFirstByteTimeout(silence);
  options?.setBetweenBytesTimeout(silence);
  return http.outgoingHandler.handle(request, options);
}

const shim = new WASIShim({
  sandbox: { preopens: { [DIRECTORY]: path }, env: {}, args: ["edge-sync"] },
  http: { ...http, outgoingHandler: { ...http.outgoingHandler, handle } },
});

const component = await instantiate(async (name) => {
  const file = new URL(`../generated/${name}`, import.meta.url);
  return WebAssembly.compile(await readFile(file));
}, shim.getImportObject());

const options = {
  durability,
  logSegmentBytes: undefined,
  flushAfterBytes: undefined,
  memoryBytes: BigInt(memoryBytes),
};

function freeBytes() {
  try {
    const disk = statfsSync(path, { bigint: true });
    return disk.blocks > 0n ? disk.bavail * disk.bsize : undefined;
  } catch {
    return undefined;
  }
}

/** The log's last sequence when a write began that failed, until a call succeeds. */
let failedAt;

const jobs = {
  create: ({ config }) => component.shard.create(DIRECTORY, toJson(config, "config"), options),
  open: () => component.shard.open(DIRECTORY, options),
  reopen: ({ returned }) => component.shard.reopen(DIRECTORY, options, returned),
  close: () => component.shard.close(),
  request: ({ method, url, text }) => component.shard.request(method, url, text),
  sync: ({ server, settings }) => component.sync.sync(server, settings),
  restore: ({ server, source, force }) =>
    component.sync.restore(DIRECTORY, server, { tag: source }, force, options),
  restoreFile: ({ file, force }) =>
    component.sync.restoreFile(DIRECTORY, `${DIRECTORY}/${file}`, force, options),
  call: ({ of, name, args }) => component[of][name](...args),
};

/** Numbers of 64 bits as numbers, where they fit: JSON has no others. */
function plain(value) {
  if (typeof value === "bigint") {
    return value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
  }
  if (Array.isArray(value)) return value.map(plain);
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
  }
  return value;
}

function run(job) {
  let returned = failedAt ?? ALL_RETURNED;
  try {
    if (job.kind === "request") job.text = job.body === undefined ? "" : toJson(job.body, "");
    if (job.writes) {
      const logged = component.shard.beforeWrite(freeBytes());
      if (logged < returned) returned = logged;
      // On its way before the call: should this thread be lost, the main thread knows what to take back.
      parentPort.postMessage({ began: returned });
    }
    const value = jobs[job.kind](job);
    // The queue says nothing of whether the shard is in doubt.
    if (job.of !== "queue") failedAt = undefined;
    return { value: plain(value) };
  } catch (error) {
    // What `toJson` refuses, and what the component answers; all else is a trap.
    const payload = error?.input ?? error?.payload;
    if (payload === undefined || payload.tag === undefined) {
      return { trap: String(error?.stack ?? error), returned };
    }
    if (job.writes && !error.input) failedAt = returned;
    return { error: plain(payload), returned };
  }
}

parentPort.on("message", (job) => {
  parentPort.postMessage(run(job));
});
parentPort.postMessage({ ready: true });
