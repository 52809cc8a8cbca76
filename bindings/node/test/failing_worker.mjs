// The thread of the package on a shim whose writes fail with a code of Node's, as those of a disk do, while
// `workerData.failing` is not 0.
import { workerData } from "node:worker_threads";

import { filesystem } from "@bytecodealliance/preview2-shim";

const { codes, failing } = workerData;
const { Descriptor } = filesystem.types;
const write = Descriptor.prototype.write;
Descriptor.prototype.write = function (...args) {
  const code = codes[Atomics.load(failing, 0) - 1];
  if (code !== undefined) throw Object.assign(new Error(`${code}: for the test`), { code });
  return write.apply(this, args);
};
await import("../src/worker.mjs");
