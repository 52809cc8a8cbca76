// The package in pages of a headless Chromium, with a double of a Qdrant server behind a proxy.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { browser, double, page, site } from "./support.mjs";

let home;
let context;
const profile = mkdtempSync(join(tmpdir(), "edge-sync-profile-"));

before(async () => {
  home = await site();
  context = await browser(profile);
});
after(async () => {
  await context.close();
  home.close();
  rmSync(profile, { recursive: true, force: true });
});

const config = { vectors: { size: 4, distance: "Dot" } };

/** A page, closed after the test, in which `work` can be run. */
async function open(t) {
  const opened = await page(context, home.url);
  t.after(() => opened.close());
  return opened;
}

test("one tab holds a shard; another is told, and gets it when the first is closed", async (t) => {
  const first = await open(t);
  await first.evaluate(async (config) => {
    globalThis.edge = await EdgeSync.open({ path: "locked", config });
    await edge.upsert([{ id: 1, vector: new Float32Array([1, 2, 3, 4]) }]);
  }, config);
  const second = await open(t);
  const refused = await second.evaluate(() =>
    EdgeSync.open({ path: "locked" }).catch(({ name, kind, message }) => [name, kind, message]),
  );
  assert.deepEqual(refused, ["EdgeSyncError", "locked", "locked is in use by another tab or worker of this site"]);
  const kept = await second.evaluate(() => EdgeSync.remove("locked").catch(({ kind }) => kind));
  assert.equal(kept, "locked");
  await first.close();
  const count = await second.evaluate(async () => {
    // The page is still going away, which an opening waits for.
    const edge = await EdgeSync.open({ path: "locked" });
    const count = await edge.count();
    await edge.close();
    await EdgeSync.remove("locked");
    return [count, await EdgeSync.open({ path: "locked" }).catch(({ kind }) => kind)];
  });
  assert.deepEqual(count, [1, "not-found"]);
});

test("what was returned is there after the browser was started again", async (t) => {
  const own = mkdtempSync(join(tmpdir(), "edge-sync-profile-"));
  t.after(() => rmSync(own, { recursive: true, force: true }));
  const first = await browser(own);
  const opened = await page(first, home.url);
  await opened.evaluate(async (config) => {
    const edge = await EdgeSync.open({ path: "kept", config });
    const points = Array.from({ length: 500 }, (_, id) => ({ id, vector: [id, 1, 1, 1], payload: { id } }));
    await edge.upsert(points);
    await edge.flush();
    await edge.delete({ must: [{ key: "id", range: { lt: 100 } }] });
  }, config);
  await first.close();
  const second = await browser(own);
  t.after(() => second.close());
  const again = await page(second, home.url);
  const found = await again.evaluate(async () => {
    const edge = await EdgeSync.open({ path: "kept" });
    const [hit] = await edge.search([1, 0, 0, 0], { limit: 1 });
    return [await edge.count(), hit.id, (await edge.status()).queued];
  });
  assert.equal(found[0], 400);
  assert.equal(found[1], 499);
  assert.ok(found[2] > 0);
});

test("a worker that is lost costs the call under way, and nothing that was returned", async (t) => {
  const opened = await open(t);
  const [lost, next, notes] = await opened.evaluate(async (config) => {
    const Real = globalThis.Worker;
    let worker;
    globalThis.Worker = class extends Real {
      constructor(...settings) {
        super(...settings);
        worker = this;
      }
    };
    const edge = await EdgeSync.open({ path: "lost", config });
    globalThis.Worker = Real;
    await edge.upsert([{ id: 1, vector: [1, 0, 0, 0] }]);
    // As a trap that nobody caught.
    const lost = edge.upsert([{ id: 2, vector: [2, 0, 0, 0] }]).catch(({ kind }) => kind);
    await new Promise((resolve) => worker.addEventListener("message", resolve, { once: true }));
    worker.terminate();
    worker.dispatchEvent(new ErrorEvent("error", { message: "lost" }));
    const outcome = await lost;
    const points = await edge.retrieve([1, 2]);
    const { notes } = await edge.status();
    await edge.close();
    return [outcome, points.map(({ id }) => id), notes.join()];
  }, config);
  assert.equal(lost, "trapped");
  assert.ok(next.includes(1));
  assert.match(notes, /opened again/);
});

test("devices follow each other, by requests to one server only", async (t) => {
  const { url, stop } = await double(t);
  const server = { url: home.through(url), collection: "devices" };
  const [one, two] = [await open(t), await open(t)];
  const uploaded = await one.evaluate(
    async ({ config, server }) => {
      globalThis.edge = await EdgeSync.open({ path: "one", config, ...server });
      const points = Array.from({ length: 40 }, (_, id) => ({ id, vector: [id, 1, 1, 1], payload: { id } }));
      await edge.upsert(points);
      return (await edge.sync()).uploaded;
    },
    { config, server },
  );
  assert.equal(uploaded, 40);
  const second = await two.evaluate(async (server) => {
    globalThis.edge = await EdgeSync.open({ path: "two", ...server });
    await edge.delete([0, 1]);
    await edge.upsert([{ id: 99, vector: [0, 0, 0, 1] }]);
    return [await edge.count(), (await edge.sync()).uploaded];
  }, server);
  // A deletion is one operation, whatever it deletes.
  assert.deepEqual(second, [39, 2]);
  const first = await one.evaluate(async () => {
    const { pulled } = await edge.sync();
    return [pulled.changed, pulled.points, await edge.count()];
  });
  assert.deepEqual(first, [true, 39, 39]);
  stop();
  const down = await one.evaluate(async () => {
    await edge.upsert([{ id: 100, vector: [1, 1, 1, 1] }]);
    const error = await edge.sync({ attempts: 1 }).catch((error) => error);
    return [error.kind, error.reason, (await edge.status()).queued];
  });
  assert.deepEqual([down[0], down[2]], ["server", 1]);
  assert.notEqual(down[1], "stop");
});

test("an answer from elsewhere is not taken", async (t) => {
  const other = createServer((_, answer) => {
    answer.writeHead(200, { "access-control-allow-origin": "*", "access-control-allow-headers": "*" });
    answer.end("{}");
  });
  await new Promise((listening) => other.listen(0, "127.0.0.1", listening));
  const hands = createServer((_, answer) => {
    answer.writeHead(307, { location: `http://127.0.0.1:${other.address().port}/` });
    answer.end();
  });
  await new Promise((listening) => hands.listen(0, "127.0.0.1", listening));
  t.after(() => [other, hands].forEach((server) => (server.closeAllConnections(), server.close())));
  const opened = await open(t);
  const server = { url: home.through(`http://127.0.0.1:${hands.address().port}`), collection: "c" };
  const error = await opened.evaluate(
    async ({ config, server }) => {
      const edge = await EdgeSync.open({ path: "elsewhere", config, ...server });
      const error = await edge.sync({ attempts: 1 }).catch(({ kind, reason, message }) => [kind, reason, message]);
      await edge.close();
      return error;
    },
    { config, server },
  );
  assert.deepEqual(error.slice(0, 2), ["server", "stop"]);
  assert.match(error[2], /does not permit/);
});

test("the README does what it says", async (t) => {
  const text = readFileSync(new URL("../README.md", import.meta.url), "utf8");
  const block = (kind) => new RegExp(`\\n\`\`\`${kind}\\n(.*?)\`\`\``, "s").exec(text)[1];
  const { url } = await double(t);
  const program = block("js").replace(/import .*\n/, "").replace("https://qdrant.example.com", home.through(url));
  const opened = await open(t);
  const printed = await opened.evaluate(async (program) => {
    const lines = [];
    const console = { log: (...words) => lines.push(words.join(" ")) };
    const Program = Object.getPrototypeOf(async () => {}).constructor;
    await new Program("console", program)(console);
    return lines;
  }, program);
  assert.deepEqual(printed, block("text output").trim().split("\n"));
});

test("where the browser gives no more room, writes are refused and reads go on", async (t) => {
  const opened = await open(t);
  const session = await context.newCDPSession(opened);
  await opened.evaluate(async (config) => {
    globalThis.edge = await EdgeSync.open({ path: "full", config });
    await edge.upsert([{ id: 1, vector: [1, 0, 0, 0] }]);
  }, config);
  const { usage } = await opened.evaluate(() => navigator.storage.estimate());
  await session.send("Storage.overrideQuotaForOrigin", { origin: home.url, quotaSize: usage + (1 << 20) });
  const refused = await opened.evaluate(async () => {
    const payload = { text: "x".repeat(1 << 20) };
    for (let id = 2; id < 40; id += 1) {
      const error = await edge.upsert([{ id, vector: [1, 1, 1, 1], payload }]).catch((error) => error);
      if (error.kind) return [error.kind, error.reason, await edge.count()];
    }
    return undefined;
  });
  assert.deepEqual(refused?.slice(0, 2), ["storage", "no-space"]);
  await session.send("Storage.overrideQuotaForOrigin", { origin: home.url });
  const found = await opened.evaluate(async () => {
    await edge.upsert([{ id: 100, vector: [1, 1, 1, 1] }]);
    const count = await edge.count();
    await edge.close();
    return count;
  });
  assert.equal(found, refused[2] + 1);
});

test("the demo finds a digit, and is there offline", async (t) => {
  const demo = await context.newPage();
  t.after(async () => {
    await context.setOffline(false);
    await demo.close();
  });
  await demo.goto(`${home.url}/dist/`);
  const ready = () => demo.waitForFunction(() => document.getElementById("state").textContent.startsWith("Ready"));
  await ready();
  assert.equal(await demo.textContent("#state"), "Ready: 1797 digits are here.");
  const draw = async (points) => {
    const box = await demo.locator("#paper").boundingBox();
    const [[x, y], ...rest] = points.map(([x, y]) => [box.x + x * box.width, box.y + y * box.height]);
    await demo.mouse.move(x, y);
    await demo.mouse.down();
    for (const [x, y] of rest) await demo.mouse.move(x, y, { steps: 4 });
    await demo.mouse.up();
    await demo.waitForFunction(() => document.getElementById("found").children.length > 0);
    return demo.textContent("#guess");
  };
  const zero = Array.from({ length: 25 }, (_, n) => [
    0.5 + 0.25 * Math.sin((n / 24) * 2 * Math.PI),
    0.5 - 0.4 * Math.cos((n / 24) * 2 * Math.PI),
  ]);
  assert.match(await draw(zero), /looks like a 0/);
  await demo.click("text=Keep it");
  await demo.waitForFunction(() => document.getElementById("mine").textContent.includes("kept: 1."));
  await demo.evaluate(async () => (await navigator.serviceWorker.ready).active.state);
  await context.setOffline(true);
  await demo.reload();
  await ready();
  assert.match(await demo.textContent("#mine"), /kept: 1\./);
  assert.match(await draw(zero), /looks like a 0/);
});
