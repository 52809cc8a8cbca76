// Checked by tsc, not run: what the types of the package say to those who use it.
import { EdgeSync, EdgeSyncError, type ScoredPoint } from "edge-sync";

export async function use(path: string): Promise<number> {
  const config = { vectors: { size: 3, distance: "Dot" } };
  await using edge = await EdgeSync.open({ path, config, url: "http://host", collection: "c" });
  const { operation_id } = await edge.upsert([{ id: 1, vector: new Float32Array(3) }]);
  const hits: ScoredPoint[] = await edge.search([1, 2, 3], { limit: operation_id });
  for await (const point of edge.points()) console.log(point.id);
  // @ts-expect-error there is no such direction
  await edge.sync({ direction: "sideways" });
  // @ts-expect-error it needs a path
  await EdgeSync.open({ config });
  // @ts-expect-error it is opened
  new EdgeSync();
  return edge.count().catch((error: EdgeSyncError) => error.kind.length + hits.length);
}
