// The API for a page: `index.d.ts` documents it. The class is that of the Node package, over a browser.

import edge from "../../node/src/edge.cjs";
import { remove } from "./place.mjs";

const { edgeSyncOn, EdgeSyncError } = edge;

/** What the transpiled component consists of; its names are those of the files beside this one. */
const MODULES = ["edge_sync.core.wasm", "edge_sync.core2.wasm", "edge_sync.core3.wasm"];

/** Compiled once for a page, however many shards it opens. */
let compiled;
function modules() {
  compiled ??= Promise.all(
    MODULES.map(async (name) => [
      name,
      await WebAssembly.compileStreaming(fetch(new URL(name, import.meta.url))),
    ]),
  ).then(Object.fromEntries);
  compiled.catch(() => (compiled = undefined));
  return compiled;
}

/** How long a page that was closed, or is loaded again, may take to give its lock up. */
const LOCK_PATIENCE_MS = 1_000;

/** Holds the lock of a place as long as this page lives, or until it is given up. */
function lock(place) {
  return new Promise((taken, failed) => {
    const options = { signal: AbortSignal.timeout(LOCK_PATIENCE_MS) };
    const hold = () =>
      new Promise((release) => {
        taken(async () => {
          release();
          await held;
        });
      });
    const held = navigator.locks.request(`edge-sync:${place}`, options, hold);
    held.catch((error) =>
      failed(options.signal.aborted ? { holder: "another tab or worker of this site" } : error),
    );
  });
}

const platform = {
  timeoutMs: 600_000,
  place: (path) => path,
  async lock(place) {
    if (!globalThis.navigator?.locks || !navigator.storage?.getDirectory) {
      throw new EdgeSyncError(
        "unsupported",
        "there is no storage for it here: the page has to come by HTTPS or from localhost, in a browser that has " +
          "the origin private file system",
      );
    }
    return lock(place);
  },
  async start(place, settings) {
    const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    const thread = {
      post: (job) => worker.postMessage(job),
      ref() {},
      unref() {},
      async end() {
        worker.terminate();
      },
    };
    try {
      await new Promise((ready, failed) => {
        worker.onerror = (event) => {
          const error = new Error(event.message ?? "the worker cannot be loaded");
          failed(error);
          thread.onlost?.(error);
        };
        worker.onmessage = ({ data }) => {
          if (data.failed !== undefined) return failed(new Error(data.failed));
          worker.onmessage = (event) => thread.onmessage?.(event.data);
          ready();
        };
        modules().then((modules) => worker.postMessage({ place, settings, modules }), failed);
      });
    } catch (error) {
      worker.terminate();
      throw error;
    }
    return thread;
  },
  async put(run, _, file, snapshot) {
    const bytes = new Uint8Array(await new Blob([snapshot]).arrayBuffer());
    await run({ kind: "put", file, bytes });
  },
  drop: (run, _, file) => run({ kind: "drop", file }),
};

const EdgeSync = edgeSyncOn(platform);

EdgeSync.remove = async (path) => {
  let release;
  try {
    release = await platform.lock(path);
  } catch (error) {
    if (error.holder === undefined) throw error;
    throw new EdgeSyncError("locked", `${path} is in use by ${error.holder}`);
  }
  try {
    await remove(path);
  } finally {
    await release();
  }
};

export { EdgeSync, EdgeSyncError };
