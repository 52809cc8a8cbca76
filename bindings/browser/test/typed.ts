// Checked by tsc, not run: what the types of the package say to those who use it.
import { EdgeSync, EdgeSyncError, type ScoredPoint } from "edge-sync-browser";

export async function use(): Promise<number> {
  const config = { vectors: { size: 3, distance: "Dot" } };
  await using edge = await EdgeSync.open({ path: "a", config, url: "http://host", collection: "c" });
  const { operation_id } = await edge.upsert([{ id: 1, vector: new Float32Array(3) }]);
  const hits: ScoredPoint[] = await edge.search([1, 2, 3], { limit: operation_id });
  await edge.restore({ snapshot: new Blob([]) });
  // @ts-expect-error a page has no files
  await edge.restore({ snapshot: "a.snapshot" });
  // @ts-expect-error it is opened
  new EdgeSync();
  await EdgeSync.remove("a");
  return edge.count().catch((error: EdgeSyncError) => error.kind.length + hits.length);
}
