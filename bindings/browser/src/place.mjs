// Where a data directory is in the origin private file system.

const TOP = "edge-sync";
const FILES = ["data", "names-0", "names-1"];

/** How long and how often a worker that has ended is waited for to give its files up. */
const PATIENCE_MS = 10_000;
const PAUSE_MS = 20;

/** Does what takes files for this worker alone. */
export async function alone(run) {
  const until = performance.now() + PATIENCE_MS;
  for (;;) {
    try {
      return await run();
    } catch (error) {
      if (error.name !== "NoModificationAllowedError" || performance.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

const nameOf = (place) => encodeURIComponent(place);

/** The three files of a disk, made if they are not there. */
export async function filesOf(place) {
  const top = await (await navigator.storage.getDirectory()).getDirectoryHandle(TOP, { create: true });
  const folder = await top.getDirectoryHandle(nameOf(place), { create: true });
  return Promise.all(FILES.map((name) => folder.getFileHandle(name, { create: true })));
}

/** Removes a disk, if there is one. */
export async function remove(place) {
  const storage = await navigator.storage.getDirectory();
  try {
    const top = await storage.getDirectoryHandle(TOP);
    await alone(() => top.removeEntry(nameOf(place), { recursive: true }));
  } catch (error) {
    if (error.name !== "NotFoundError") throw error;
  }
}
