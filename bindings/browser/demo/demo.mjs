// A digit is drawn, and its neighbours among 1,797 handwritten ones are found, with or without a network.
// `?url=http://127.0.0.1:6333&collection=digits` also keeps them in step with a Qdrant server.

import { EdgeSync } from "./edge-sync.js";

/** Images of 8 by 8 pixels, each of which counts the ink of 4 by 4 finer ones: 0 to 16. */
const SIDE = 8;
const FINE = 32;
const NEIGHBOURS = 8;
/** Ids of what is drawn here begin behind those of the set. */
const FIRST_OWN = 1_000_000;
const BATCH = 600;

const element = (id) => document.getElementById(id);
const paper = element("paper");
const pen = paper.getContext("2d");

let strokes = [];
let edge;

function say(text) {
  element("state").textContent = text;
}

async function digits() {
  const response = await fetch("digits.csv.gz");
  const text = await new Response(response.body.pipeThrough(new DecompressionStream("gzip"))).text();
  return text.trim().split("\n").map((line, id) => {
    const values = line.split(",").map(Number);
    return { id, vector: values.slice(0, -1), payload: { digit: values.at(-1) } };
  });
}

async function begin() {
  const asked = new URLSearchParams(location.search);
  const server = asked.has("url")
    ? { url: asked.get("url"), collection: asked.get("collection") ?? "digits", background: true, onSync: tell }
    : {};
  const config = { vectors: { size: SIDE * SIDE, distance: "Euclid" } };
  edge = await EdgeSync.open({ path: "digits", config, ...server });
  // The last one tells that the set was written as a whole.
  const points = (await edge.count()) === 0 || (await missing()) ? await digits() : [];
  for (let at = 0; at < points.length; at += BATCH) {
    say(`Storing the digits: ${at} of ${points.length}…`);
    await edge.upsert(points.slice(at, at + BATCH));
  }
  if (points.length > 0) await edge.flush();
  // A page may not have to be asked: then what is stored is not evicted when the disk is short.
  await navigator.storage.persist?.();
  await tell();
}

async function missing() {
  return (await edge.retrieve([1796])).length === 0;
}

async function tell() {
  const [all, own] = await Promise.all([
    edge.count(),
    edge.count({ must: [{ key: "own", match: { value: true } }] }),
  ]);
  say(`Ready: ${all - own} digits are here.`);
  element("mine").textContent = own > 0 ? `Drawn by you and kept: ${own}.` : "";
}

/** What was drawn, as the set has its digits: moved and scaled to fill the image. */
function image() {
  const points = strokes.flat();
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const [left, top] = [Math.min(...xs), Math.min(...ys)];
  const [width, height] = [Math.max(...xs) - left, Math.max(...ys) - top];
  const scale = (FINE - 5) / Math.max(width, height, 1);
  const [dx, dy] = [(FINE - width * scale) / 2, (FINE - height * scale) / 2];
  const canvas = new OffscreenCanvas(FINE, FINE);
  const context = canvas.getContext("2d");
  Object.assign(context, { lineWidth: 3.5, lineCap: "round", lineJoin: "round" });
  for (const stroke of strokes) {
    context.beginPath();
    stroke.forEach(([x, y]) => context.lineTo((x - left) * scale + dx, (y - top) * scale + dy));
    context.stroke();
  }
  const { data } = context.getImageData(0, 0, FINE, FINE);
  const counts = new Float32Array(SIDE * SIDE);
  for (let y = 0; y < FINE; y += 1) {
    for (let x = 0; x < FINE; x += 1) {
      const isInk = data[(y * FINE + x) * 4 + 3] > 127;
      if (isInk) counts[(y >> 2) * SIDE + (x >> 2)] += 1;
    }
  }
  return counts;
}

function picture(vector) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(SIDE, SIDE);
  vector.forEach((ink, n) => {
    const grey = 255 - Math.round((ink / 16) * 255);
    pixels.data.set([grey, grey, grey, 255], n * 4);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

async function find() {
  if (!edge || strokes.length === 0) return;
  const began = performance.now();
  const found = await edge.search(image(), { limit: NEIGHBOURS, with_vector: true });
  const took = performance.now() - began;
  const votes = new Map();
  for (const { payload } of found) votes.set(payload.digit, (votes.get(payload.digit) ?? 0) + 1);
  const [best] = [...votes].sort(([, a], [, b]) => b - a)[0] ?? [];
  element("guess").textContent = `It looks like a ${best} (${took.toFixed(0)} ms).`;
  element("label").value = best;
  element("found").replaceChildren(
    ...found.map(({ vector, payload }) => {
      const item = document.createElement("li");
      item.append(picture(vector), document.createElement("br"), String(payload.digit));
      return item;
    }),
  );
}

function clear() {
  strokes = [];
  pen.clearRect(0, 0, paper.width, paper.height);
  element("guess").textContent = "\u00a0";
  element("found").replaceChildren();
}

function at(event) {
  const box = paper.getBoundingClientRect();
  const scale = paper.width / box.width;
  return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
}

paper.addEventListener("pointerdown", (event) => {
  paper.setPointerCapture(event.pointerId);
  strokes.push([at(event)]);
});
paper.addEventListener("pointermove", (event) => {
  if (event.buttons === 0 || strokes.length === 0) return;
  const stroke = strokes.at(-1);
  Object.assign(pen, { lineWidth: 22, lineCap: "round", strokeStyle: "#111" });
  pen.beginPath();
  pen.moveTo(...stroke.at(-1));
  stroke.push(at(event));
  pen.lineTo(...stroke.at(-1));
  pen.stroke();
});
paper.addEventListener("pointerup", find);
element("clear").addEventListener("click", clear);
element("keep").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!edge || strokes.length === 0) return;
  const payload = { digit: Number(element("label").value), own: true };
  await edge.upsert([{ id: FIRST_OWN + Date.now(), vector: image(), payload }]);
  clear();
  await tell();
});

begin().catch((error) => say(error.message));
navigator.serviceWorker?.register("offline.js");
