// Does the steps of `tests/fixtures/hosts.json`: one JSON object a line comes, one a line goes.
import { createInterface } from "node:readline";

import { EdgeSync, EdgeSyncError } from "edge-sync";

let edge;

async function perform(step) {
  const { do: kind, path, config, url, collection, method, path_of_request, body, direction } = step;
  if (kind === "create") edge = await EdgeSync.open({ path, config, url, collection });
  // Where there is no shard, this restores one.
  else if (kind === "open" || !edge) edge = await EdgeSync.open({ path, url, collection });
  else if (kind === "restore") await edge.restore();
  else if (kind === "request") return edge.request(method, path_of_request, body);
  else if (kind === "sync") {
    const { uploaded, remaining, pulled } = await edge.sync({ direction });
    return { uploaded, remaining, pulled };
  }
  return null;
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = { gives: await perform(JSON.parse(line)) };
  } catch (error) {
    if (!(error instanceof EdgeSyncError)) throw error;
    answer = { refused: { kind: error.kind, field: error.field ?? "" } };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
await edge?.close();
