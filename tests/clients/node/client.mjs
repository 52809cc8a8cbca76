// Qdrant's own client for JavaScript, unchanged: a collection is made, filled, searched, changed and
// removed.
//
// Arguments: URL, API key.

import assert from "node:assert/strict";
import { QdrantClient } from "@qdrant/js-client-rest";

const [url, apiKey] = process.argv.slice(2);
const client = new QdrantClient({ url, apiKey, checkCompatibility: false });
const name = "javascript";

assert.deepEqual((await client.getCollections()).collections, []);
await client.createCollection(name, {
  vectors: { size: 3, distance: "Euclid" },
  sparse_vectors: { words: {} },
});
assert.equal((await client.collectionExists(name)).exists, true);
const colours = [
  ["red", [255, 0, 0], true],
  ["orange", [255, 128, 0], true],
  ["blue", [0, 0, 255], false],
  ["navy", [0, 0, 128], false],
];
const points = colours.map(([colour, vector, warm], index) => ({
  id: index + 1,
  vector: { "": vector, words: { indices: [index, 9], values: [1, 0.5] } },
  payload: { colour, warm },
}));
const written = await client.upsert(name, { wait: true, points });
assert.equal(written.status, "completed");
await client.createPayloadIndex(name, { field_name: "warm", field_schema: "bool", wait: true });
assert.equal((await client.getCollection(name)).payload_schema.warm.data_type, "bool");

const isCold = { must: [{ key: "warm", match: { value: false } }] };
const nearest = async (body) =>
  (await client.query(name, { with_payload: true, ...body })).points.map((it) => it.payload.colour);
assert.deepEqual(await nearest({ query: [250, 10, 0], limit: 2 }), ["red", "orange"]);
assert.deepEqual(await nearest({ query: [250, 10, 0], filter: isCold }), ["navy", "blue"]);
assert.deepEqual(
  await nearest({ query: { indices: [3], values: [1] }, using: "words", limit: 1 }),
  ["navy"],
);
const older = await client.search(name, { vector: [0, 0, 250], limit: 1 });
assert.equal(older[0].id, 3);
const batch = await client.queryBatch(name, {
  searches: [
    { query: 1, limit: 1 },
    { query: 4, limit: 1 },
  ],
});
assert.deepEqual(batch.map((it) => it.points[0].id), [2, 3]);
const page = await client.scroll(name, { limit: 3, with_vector: false });
assert.deepEqual([page.points.length, page.next_page_offset], [3, 4]);
const facet = await client.facet(name, { key: "warm" });
assert.deepEqual(facet.hits.map((it) => it.count), [2, 2]);

await client.setPayload(name, { payload: { seen: 1 }, points: [1, 2], wait: true });
const [red] = await client.retrieve(name, { ids: [1], with_payload: true });
assert.deepEqual(red.payload, { colour: "red", warm: true, seen: 1 });
await client.delete(name, { filter: isCold, wait: true });
assert.equal((await client.count(name, { exact: true })).count, 2);
await client.batchUpdate(name, {
  wait: true,
  operations: [
    { delete: { points: [1] } },
    { clear_payload: { points: [2] } },
  ],
});
const [orange] = await client.retrieve(name, { ids: [1, 2], with_payload: true });
assert.deepEqual([orange.id, orange.payload], [2, {}]);
await assert.rejects(client.upsert(name, { points: [{ id: 1, vector: [1] }] }), { status: 400 });
await client.deleteCollection(name);
assert.equal((await client.collectionExists(name)).exists, false);
console.log("client: done");
