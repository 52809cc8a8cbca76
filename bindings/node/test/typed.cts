// Checked by tsc, not run: CommonJS has types of its own.
import { EdgeSync, EdgeSyncError } from "edge-sync";

export async function full(path: string): Promise<number> {
  const edge = await EdgeSync.open({ path });
  try {
    return await edge.count();
  } catch (error) {
    if (!(error instanceof EdgeSyncError)) throw error;
    const { operation = "", path: file = "", neededBytes = 0, first = 0, last = 0 } = error;
    return operation.length + file.length + neededBytes + last - first;
  }
}
