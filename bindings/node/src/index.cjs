"use strict";

const { copyFile, mkdir, rm } = require("node:fs/promises");
const { join, resolve } = require("node:path");
const { Worker } = require("node:worker_threads");

const { edgeSyncOn, EdgeSyncError } = require("./edge.cjs");
const { lock } = require("./lock.cjs");

const platform = {
  timeoutMs: 60_000,
  place: (path) => resolve(path),
  async lock(place) {
    await mkdir(place, { recursive: true });
    return lock(place);
  },
  async start(place, settings) {
    const workerData = { ...settings, path: place };
    // Flags of the program (`--input-type`) are not the thread's.
    const worker = new Worker(join(__dirname, "worker.mjs"), { workerData, execArgv: [] });
    const thread = {
      post: (job) => worker.postMessage(job),
      ref: () => worker.ref(),
      unref: () => worker.unref(),
      end: () => worker.terminate(),
    };
    await new Promise((ready, failed) => {
      const lost = (error) => {
        failed(error);
        thread.onlost?.(error);
      };
      worker.on("error", lost);
      worker.on("exit", (code) => lost(new Error(`the thread ended with ${code}`)));
      worker.once("message", () => {
        worker.on("message", (message) => thread.onmessage?.(message));
        ready();
      });
    });
    return thread;
  },
  // The component sees the data directory only.
  put: (_, place, name, snapshot) => copyFile(snapshot, join(place, name)),
  drop: (_, place, name) => rm(join(place, name), { force: true }),
};

module.exports = { EdgeSync: edgeSyncOn(platform), EdgeSyncError };
