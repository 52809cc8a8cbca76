// The component on a thread of its own: its calls block. `jobs.mjs` has the jobs.

import { readFile } from "node:fs/promises";
import { existsSync, readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";

import { filesystem, http } from "@bytecodealliance/preview2-shim";
import { WASIShim } from "@bytecodealliance/preview2-shim/instantiation";

import { instantiate } from "../generated/edge_sync.js";
import { DIRECTORY, jobs } from "./jobs.mjs";

const { path } = workerData;

// The C library asks for `mutate-directory` with each file that is opened for writing, and this shim
// refuses that on files.
const { Descriptor, filesystemErrorCode } = filesystem.types;
const openAt = Descriptor.prototype.openAt;
Descriptor.prototype.openAt = function (pathFlags, name, openFlags, flags) {
  return openAt.call(this, pathFlags, name, openFlags, { ...flags, mutateDirectory: false });
};

// Alone of its calls, these let errors of Node's pass, which are traps: a full disk would be one.
for (const name of ["read", "write"]) {
  const call = Descriptor.prototype[name];
  Descriptor.prototype[name] = function (...args) {
    try {
      return call.apply(this, args);
    } catch (error) {
      throw typeof error === "string" ? error : codeOf(error);
    }
  };
}

/** An error of Node's file system as WASI names it. */
function codeOf(error) {
  try {
    return filesystemErrorCode({ payload: error });
  } catch {
    return "io";
  }
}

/** Requests to one scheme, host and port pass; without a server, none. */
function handle(request, options) {
  const secure = request.scheme()?.tag === "HTTPS";
  const known = secure || request.scheme()?.tag === "HTTP";
  const { origin } = run;
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

function freeBytes() {
  try {
    const disk = statfsSync(path, { bigint: true });
    return disk.blocks > 0n ? disk.bavail * disk.bsize : undefined;
  } catch {
    return undefined;
  }
}

function read(name) {
  try {
    return readFileSync(join(path, name), "utf8");
  } catch {
    return undefined;
  }
}

const run = jobs(component, workerData, {
  freeBytes,
  look: () => ({ isPresent: existsSync(join(path, "CURRENT")), binding: read("server.json") }),
  post: (message) => parentPort.postMessage(message),
});
parentPort.on("message", (job) => {
  parentPort.postMessage(run(job));
});
parentPort.postMessage({ ready: true });
