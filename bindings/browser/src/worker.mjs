// The component in a dedicated worker: its calls block. `jobs.mjs` of the Node package has the jobs.

import { instantiate } from "../../node/generated/edge_sync.js";
import { DIRECTORY, jobs } from "../../node/src/jobs.mjs";
import { Disk, ROOT } from "./disk.mjs";
import { alone, filesOf } from "./place.mjs";
import { imports } from "./wasi.mjs";

/** Bytes that the component may still write, as far as the browser tells. */
let quota;
async function askQuota(disk) {
  try {
    const { quota: most, usage } = await navigator.storage.estimate();
    quota = BigInt(Math.max(0, most - usage) + disk.freeBytes);
  } catch {
    quota = undefined;
  }
}

function read(disk, name) {
  const root = disk.node(ROOT);
  try {
    const node = disk.lookup(root, name);
    return new TextDecoder().decode(disk.read(node, node.size, 0));
  } catch {
    return undefined;
  }
}

async function start({ place, settings, modules }) {
  const files = await filesOf(place);
  const [data, ...names] = await Promise.all(
    files.map((file) => alone(() => file.createSyncAccessHandle())),
  );
  const disk = new Disk({ data, names }, crypto.getRandomValues(new BigUint64Array(1))[0]);
  const root = disk.node(ROOT);
  const run = await instantiate(
    async (name) => modules[name],
    imports(disk, DIRECTORY, () => run.origin),
  ).then((component) =>
    jobs(component, settings, {
      freeBytes: () => quota,
      look: () => ({ isPresent: root.entries.has("CURRENT"), binding: read(disk, "server.json") }),
      post: (message) => postMessage(message),
      also: {
        put({ file, bytes }) {
          const node = disk.openAt(root, file, { create: true, truncate: true });
          try {
            disk.write(node, bytes, 0);
          } finally {
            disk.closed(node);
          }
        },
        drop({ file }) {
          if (root.entries.has(file)) disk.remove(root, file, false);
        },
      },
    }),
  );
  onmessage = async ({ data: job }) => {
    if (job.writes) await askQuota(disk);
    postMessage(run(job));
  };
}

onmessage = ({ data: settings }) => {
  start(settings).then(
    () => postMessage({ ready: true }),
    (error) => postMessage({ failed: String(error?.message ?? error) }),
  );
};
