// Does the steps of `tests/fixtures/hosts.json`, of all devices: one JSON object a line comes, one a line goes.
// Each device is a page with a data directory of its own; a kill closes the page, and its worker with it.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

import { browser, page, site } from "./support.mjs";

const profile = mkdtempSync(join(tmpdir(), "edge-sync-profile-"));
const { url: home, through, close } = await site();
const context = await browser(profile);
const pages = new Map();

/** Runs in the page. */
async function perform(step) {
  const { do: kind, path, config, url, collection, method, path_of_request, body, direction } = step;
  const { EdgeSync, EdgeSyncError } = globalThis;
  const act = async () => {
    if (kind === "create") globalThis.edge = await EdgeSync.open({ path, config, url, collection });
    // Where there is no shard, this restores one.
    else if (kind === "open" || !globalThis.edge) globalThis.edge = await EdgeSync.open({ path, url, collection });
    else if (kind === "restore") await globalThis.edge.restore();
    else if (kind === "request") return globalThis.edge.request(method, path_of_request, body);
    else if (kind === "sync") {
      const { uploaded, remaining, pulled } = await globalThis.edge.sync({ direction });
      return { uploaded, remaining, pulled };
    } else throw new Error(`what is ${kind}?`);
    return null;
  };
  try {
    return { gives: await act() };
  } catch (error) {
    if (!(error instanceof EdgeSyncError)) throw error;
    return { refused: { kind: error.kind, field: error.field ?? "" }, words: error.message };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  const { do: kind, path } = step;
  let answer = { gives: null };
  if (kind === "kill" || kind === "close") {
    if (kind === "close") await pages.get(path)?.evaluate(() => globalThis.edge?.close());
    await pages.get(path)?.close();
    pages.delete(path);
  } else {
    if (!pages.has(path)) pages.set(path, await page(context, home));
    answer = await pages.get(path).evaluate(perform, { ...step, url: through(step.url) });
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await context.close();
close();
rmSync(profile, { recursive: true, force: true });
