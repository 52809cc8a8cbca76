"use strict";

const { spawn } = require("node:child_process");
const { readFileSync, writeFileSync } = require("node:fs");
const { join } = require("node:path");

const TAKEN = 75;

/**
 * The lock of a data directory that the other hosts take, `flock(2)` of `.lock`. Node cannot take one,
 * so a child does: `flock` (of util-linux) with a `cat` that ends with this process, however that ends.
 * Where there is no such program, as on macOS, nothing is locked.
 *
 * Answers a function that gives it up, or throws `{ holder }`.
 */
async function lock(directory) {
  const file = join(directory, ".lock");
  const arguments_ = ["--nonblock", "--conflict-exit-code", String(TAKEN), "--no-fork", file, "cat"];
  const child = spawn("flock", arguments_, { stdio: ["pipe", "pipe", "ignore"] });
  const taken = await new Promise((resolve, reject) => {
    child.once("error", () => resolve(false));
    child.once("exit", (code) => (code === TAKEN ? reject({ holder: holder(file) }) : resolve(false)));
    // What `cat` gives back comes when the lock is held.
    child.stdout.once("data", () => resolve(true));
    child.stdin.on("error", () => {});
    child.stdin.write("\n");
  });
  if (!taken) return async () => {};
  // It keeps no program from ending.
  for (const handle of [child, child.stdin, child.stdout]) handle.unref();
  const who = { pid: process.pid, command: "edge-sync (Node)", since_ms: Date.now() };
  try {
    writeFileSync(file, `${JSON.stringify(who)}\n`);
  } catch {
    // A courtesy to whoever is refused.
  }
  return () =>
    new Promise((resolve) => {
      child.once("exit", resolve);
      child.ref();
      child.stdin.end();
    });
}

function holder(file) {
  try {
    const { pid, command } = JSON.parse(readFileSync(file, "utf8"));
    return `process ${Number(pid)}, \`${command}\``;
  } catch {
    return "another process";
  }
}

module.exports = { lock };
