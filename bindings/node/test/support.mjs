// What the tests share. `cargo xtask test` sets EDGE_SYNC_DOUBLE (the program `qdrant-double`) and
// EDGE_SYNC_BIN (the command `edge-sync`).
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

export const CONFIG = { vectors: { size: 4, distance: "Dot" } };
export const COLLECTION = "devices";

/** A folder that goes with the test. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "edge-sync-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A double of a Qdrant server: its URL, and how to stop it and start it again with what it held. */
export async function server(t) {
  const program = process.env.EDGE_SYNC_DOUBLE;
  assert.ok(program, "EDGE_SYNC_DOUBLE is not set; `cargo xtask test node` sets it");
  const directory = folder(t);
  let child;
  const start = async (address) => {
    child = spawn(program, ["--dir", directory, "--listen", address], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    return new Promise((resolve, reject) => {
      child.stdout.once("data", (line) => resolve(String(line).trim()));
      child.once("exit", () => reject(new Error("the double did not start")));
    });
  };
  const url = await start("127.0.0.1:0");
  const stop = () =>
    new Promise((resolve) => {
      if (child.exitCode !== null || child.signalCode !== null) return resolve();
      child.once("exit", resolve);
      child.kill();
    });
  t.after(stop);
  return { url, stop, startAgain: () => start(new URL(url).host) };
}

/** A point whose vector and payload tell its id. */
export function point(id) {
  return { id, vector: [1, id, id / 2, 0.5], payload: { n: id, even: id % 2 === 0 } };
}

export async function ids(points) {
  const found = [];
  for await (const { id } of points) found.push(id);
  return found;
}
