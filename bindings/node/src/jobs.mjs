// What a thread with the component does for the main thread.
//
// The main thread sends one job at a time, `{ kind, ... }`, and waits for the answer: `{ value }`, `{ error }`,
// or `{ trap }`, after which this thread is of no use any more. A write tells `{ began }` before.

import { toJson } from "./json.mjs";

/** Where the component finds the data directory. */
export const DIRECTORY = "/data";
const ALL_RETURNED = 2n ** 64n - 1n;

/**
 * A function that does a job. Its `origin` is the server that requests may be made to, once that is known.
 * `platform`: `freeBytes()` of the disk, `look()` what is in the data directory, `post(message)` to the
 * main thread, and jobs of its own (`also`).
 */
export function jobs(component, { memoryBytes, durability }, platform) {
  const options = {
    durability,
    logSegmentBytes: undefined,
    flushAfterBytes: undefined,
    memoryBytes: BigInt(memoryBytes),
  };

  /** The log's last sequence when a write began that failed, until a call succeeds. */
  let failedAt;

  const kinds = {
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
    look: () => platform.look(),
    allow: ({ origin }) => {
      run.origin = origin;
    },
    ...platform.also,
    call: ({ of, name, args }) => component[of][name](...args),
  };

  function run(job) {
    let returned = failedAt ?? ALL_RETURNED;
    try {
      if (job.kind === "request") job.text = job.body === undefined ? "" : toJson(job.body, "");
      if (job.writes) {
        const logged = component.shard.beforeWrite(platform.freeBytes());
        if (logged < returned) returned = logged;
        // On its way before the call: should this thread be lost, the main thread knows what to take back.
        platform.post({ began: returned });
      }
      const value = kinds[job.kind](job);
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
  return run;
}

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
