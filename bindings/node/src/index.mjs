// One implementation for both kinds of modules, so that its classes are the same in both.
import edgeSync from "./index.cjs";

export const { EdgeSync, EdgeSyncError } = edgeSync;
