// The page without a network: what it consists of is kept, and taken from there when the network fails.

const CACHE = "edge-sync-demo";
const PARTS = [
  "./",
  "demo.css",
  "demo.mjs",
  "digits.csv.gz",
  "edge-sync.js",
  "worker.js",
  "edge_sync.core.wasm",
  "edge_sync.core2.wasm",
  "edge_sync.core3.wasm",
];

addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(PARTS)));
});
addEventListener("activate", (event) => event.waitUntil(clients.claim()));
addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || new URL(request.url).origin !== location.origin) return;
  event.respondWith(
    fetch(request).catch(async (error) => {
      const kept = await caches.match(request, { ignoreSearch: true });
      if (kept) return kept;
      throw error;
    }),
  );
});
