// What the tests share: a site on this machine, and pages of it in Chromium. `cargo xtask test` sets
// EDGE_SYNC_CHROMIUM (the program) and EDGE_SYNC_DOUBLE (the program `qdrant-double`).
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const PACKAGE = fileURLToPath(new URL("..", import.meta.url));
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".css": "text/css",
  ".csv": "text/csv",
  ".wasm": "application/wasm",
};

const EMPTY = `<!doctype html><title>tests</title><link rel="icon" href="data:,">`;

const ARGUMENTS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * A site: the package's folders, an empty page, and servers of this machine below `/to/PORT/`, as a proxy in
 * front of a Qdrant server has them.
 */
export async function site() {
  const seen = [];
  const server = createServer((asked, answer) => {
    const { pathname } = new URL(asked.url, "http://localhost");
    const to = /^\/to\/(\d+)(\/.*)/.exec(asked.url);
    if (to) {
      const [, port, path] = to;
      seen.push(`${asked.method} ${path}`);
      const headers = { ...asked.headers, host: `127.0.0.1:${port}` };
      const on = request({ host: "127.0.0.1", port, path, method: asked.method, headers }, (reply) => {
        answer.writeHead(reply.statusCode, reply.headers);
        reply.pipe(answer);
      });
      on.on("error", () => answer.destroy());
      asked.pipe(on);
      return;
    }
    try {
      const body = pathname === "/" ? EMPTY : readFileSync(join(PACKAGE, pathname.endsWith("/") ? `${pathname}index.html` : pathname));
      answer.writeHead(200, { "content-type": TYPES[extname(pathname)] ?? "text/html" });
      answer.end(body);
    } catch {
      answer.writeHead(404);
      answer.end();
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address();
  const url = `http://localhost:${port}`;
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url, seen, through: (other) => `${url}/to/${new URL(other).port}`, close };
}

/** A browser whose storage is in `profile`. */
export function browser(profile) {
  return chromium.launchPersistentContext(profile, {
    executablePath: process.env.EDGE_SYNC_CHROMIUM ?? "/usr/bin/chromium",
    headless: true,
    args: ARGUMENTS,
  });
}

/** A page of the site with `EdgeSync` in it. */
export async function page(context, url) {
  const page = await context.newPage();
  page.on("console", (message) => console.error(`[page] ${message.text()}`));
  await page.goto(url);
  await page.evaluate(async () => Object.assign(globalThis, await import("/dist/edge-sync.js")));
  return page;
}

/** A folder that goes with the test. */
export function folder(t) {
  const path = mkdtempSync(join(tmpdir(), "edge-sync-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A double of a Qdrant server: its URL, and how to stop it. */
export async function double(t) {
  const program = process.env.EDGE_SYNC_DOUBLE;
  if (!program) throw new Error("EDGE_SYNC_DOUBLE is not set; `cargo xtask test browser` sets it");
  const child = spawn(program, ["--dir", folder(t), "--listen", "127.0.0.1:0"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  const stop = () => child.kill();
  t.after(stop);
  const line = await new Promise((resolve, reject) => {
    child.stdout.once("data", resolve);
    child.once("exit", () => reject(new Error("the double did not start")));
  });
  return { url: String(line).trim(), stop };
}
