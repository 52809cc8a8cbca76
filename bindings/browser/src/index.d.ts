/**
 * A Qdrant Edge shard in a page, with a durable log and an upload queue, in step with a Qdrant server.
 *
 * Bodies and results are Qdrant's REST JSON, so that the types of `@qdrant/js-client-rest` fit. Where a
 * vector is expected, a typed array does as well. Ids above 2^53 lose digits, as everywhere in JavaScript.
 */

/** A number, or a UUID as text. */
export type PointId = number | string;

/** A vector: numbers, rows of numbers, a sparse vector, or an object of these by name. */
export type Vector =
  | number[]
  | number[][]
  | Float32Array
  | Float64Array
  | { indices: number[]; values: number[] }
  | { [name: string]: Vector };

/** A JSON object. */
export type Json = { [field: string]: unknown };

/** A point to be written. */
export interface Point {
  id: PointId;
  vector: Vector;
  payload?: Json | null;
}

/** A stored point. */
export interface StoredPoint {
  id: PointId;
  payload?: Json | null;
  /** As far as it was asked for (`with_vector`). */
  vector?: unknown;
  /** The value that a scroll was ordered by. */
  order_value?: unknown;
}

/** A result of a search. */
export interface ScoredPoint extends StoredPoint {
  version: number;
  score: number;
}

/** Proof that a write is on disk as the durability promises, and applied. */
export interface UpdateResult {
  /** Sequence of the last operation that was logged. */
  operation_id: number;
  /** `completed`. */
  status: string;
}

/** Ids, a REST filter (resolved to ids now), or an object with `points` or `filter`. */
export type Selector = PointId | PointId[] | Json;

/** What a read returns of each point; both as in REST. */
export interface Selection {
  /** True unless told otherwise. */
  with_payload?: boolean | string[] | Json;
  with_vector?: boolean | string[];
}

/** The fields of `POST /points/query`, without those named here. */
export interface QueryOptions extends Selection {
  prefetch?: unknown;
  /** Which of several vectors. */
  using?: string;
  filter?: Json;
  params?: Json;
  limit?: number;
  offset?: number;
  score_threshold?: number;
  lookup_from?: Json;
}

/** How to open a shard. */
export interface Options {
  /** Name of the data directory in the storage of this site; made if it is not there. */
  path: string;
  /**
   * For a shard that is not there yet: the body of Qdrant's `PUT /collections/{c}`. Without it, a shard
   * that is not there is restored from the server.
   */
  config?: Json;
  /** The server; without it, the one that the shard is bound to. */
  url?: string;
  /** The collection there. */
  collection?: string;
  /** Sent to that server only, and never shown. */
  apiKey?: string;
  /** Only the shard of this number of a collection of several. */
  shard?: number;
  /** The shards of this key, in a collection that is sharded by keys. */
  shardKey?: string | number;
  /**
   * `FIELD=VALUE`: only the points of one tenant, told apart by a field of the payload. VALUE is its own
   * shard key once there is one; until then `shardKey`, or `default`, is the one that it shares.
   */
  tenant?: string;
  /** Sync by itself: soon after a write, and every `everyMs` to fetch what others wrote. */
  background?: boolean;
  /** A minute unless told otherwise. */
  everyMs?: number;
  /** Told of each sync in the background that did something. */
  onSync?: (report: SyncReport) => void;
  /** Longest time of one request, its answer included; ten minutes unless told otherwise. Calls wait meanwhile. */
  timeoutMs?: number;
  /**
   * When a write is handed to the disk (`FileSystemSyncAccessHandle.flush`): before its promise is kept
   * (`always`), when the system sees fit (`os`), or at least every so many milliseconds while writes come.
   */
  durability?: "always" | "os" | number;
  /** Most memory of the component in MiB, 64 to 4095; 2048 unless told otherwise. */
  memoryMiB?: number;
}

/** How to sync. */
export interface SyncOptions {
  /** Upload and then fetch (`both`), or one of the two. */
  direction?: "both" | "push" | "pull";
  /** Failures in a row after which it gives up; 5. */
  attempts?: number;
  /** Longest wait between two attempts; a minute. */
  patienceMs?: number;
  /** Operations of the first request; 10. */
  batchOperations?: number;
  /** Most operations of a request, to which the first grows while answers come quickly; 1,000. */
  mostBatchOperations?: number;
  /** Bytes of one request; 8 MiB. */
  batchBytes?: number;
  /** The collection is the one that was bound before, in a new place. */
  rebind?: boolean;
  /** Queue everything that the shard holds again, for a server that has lost it. */
  resend?: boolean;
  /** Make the shard key if the collection does not have it. */
  createShardKey?: boolean;
}

/** A shard of a collection on a server. */
export interface SourceShard {
  shard: number;
  /** In a collection that is sharded by keys: a number, or a name in double quotes. */
  shardKey?: string;
}

/** What a pull did. */
export interface PullReport {
  /** False if the server has nothing new. */
  changed: boolean;
  pointsBefore: number;
  points: number;
  /** Bytes downloaded. */
  bytes: number;
  /** The shards that it came from. */
  shards: SourceShard[];
  /** The peer of the cluster that sent them, if it was asked. */
  peer?: number;
  /** Points that the shard lost to other shards of the collection, where the server has them. */
  elsewhere: number;
  /** Why more was fetched than changed. */
  reasons: string[];
  /** Why the shard may not be what the server held; the next pull gets it. */
  unsettled?: string;
  notes: string[];
}

/** What a sync did. */
export interface SyncReport {
  /** Operations that the server confirmed. */
  uploaded: number;
  requests: number;
  /** Operations that the server refused, now in the rejected log. */
  rejected: number;
  /** Operations that still wait; 0 unless the sync gave up. */
  remaining: number;
  createdCollection: boolean;
  /** Nothing if only an upload was asked for. */
  pulled?: PullReport;
}

/** What is stored, what waits, how the last sync went. */
export interface Status {
  points: number;
  /** A restore or a pull makes the next. */
  generation: number;
  /** Sequence of the last operation that was logged, and of the last that the server confirmed. */
  logged: number;
  acknowledged: number;
  /** Operations that wait for upload, and their bytes. */
  queued: number;
  queuedBytes: number;
  oldestQueued: Date | null;
  /** Operations that the server refused. */
  rejected: number;
  url: string | null;
  collection: string | null;
  /** Why the collection is not the one that it was. */
  lost: string | null;
  /** When a sync of this object last ended well, and how the last one failed. */
  lastSync: Date | null;
  lastError: Error | null;
  /** What a person should know: what was repaired when the shard was opened, and since. */
  notes: string[];
}

/** State of the open shard. */
export interface ShardInfo {
  /** The body of `PUT /collections/{c}`. */
  config: Json;
  payloadSchema: Json;
  points: number;
  indexedVectors: number;
  segments: number;
  generation: number;
  /** Memory that the component holds; it never shrinks. */
  memoryBytes: number;
}

/** An operation that the server refused. */
export interface RejectedOperation {
  sequence: number;
  /** HTTP status of the refusal; 0 if it was skipped by hand. */
  status: number;
  /** The server's words. */
  message: string;
  rejectedAt: Date;
  /** The REST request body that carried it. */
  operation: Json;
}

/** A call that failed. It changed nothing, except where its documentation says so. */
export class EdgeSyncError extends Error {
  /**
   * `invalid-input`, `not-found`, `already-exists`, `unsupported`, `storage`, `no-memory`, `corrupt`,
   * `bad-snapshot`, `lost-operations`, `server`, `locked`, `closed`, `trapped`, `component-missing`,
   * `needs-reopen`, `unsupported`, `internal`.
   */
  readonly kind: string;
  /** Of `invalid-input`: the field at fault, as a path (`points[3].vector`). */
  readonly field?: string;
  /**
   * Of `server`: `retry` and `unclear` may pass by themselves, `stop` needs a person, `reject`,
   * `too-large` and `missing`: the server refuses this request. Of `storage`: `no-space`,
   * `permission`, `not-found`, `io`.
   */
  readonly reason?: string;
  /** Of `storage`: what was being done. */
  readonly operation?: string;
  /** Of `storage`: to which file, below `/data`, which is the data directory; empty where that is not known. */
  readonly path?: string;
  /** Of `corrupt`: which file, and the byte at which the damage begins, where that is known. */
  readonly file?: string;
  readonly offset?: number;
  /** Of `no-memory`: what the write needs, with what must be possible after it. */
  readonly neededBytes?: number;
  /** Of `no-memory`: what the component may still grow by, and the most that it may have. */
  readonly freeBytes?: number;
  readonly limitBytes?: number;
  /** Of `lost-operations`: sequences of the first and the last of them. */
  readonly first?: number;
  readonly last?: number;
  /** Of `server`: HTTP status, where an answer came. */
  readonly status?: number;
  /** Of `server`: method and path of the request. */
  readonly request?: string;
  /** Of `server`: how long the server asks to wait. */
  readonly retryAfterMs?: number;
  /** Of `server`, from `sync`: what was done before it gave up. That holds. */
  readonly report?: SyncReport;
}

/**
 * A shard on this device. Writes go to a durable log and to the shard, then the promise is kept. What
 * was written waits in the log until the server has confirmed it.
 *
 * The component works in a worker of its own and does one thing at a time: calls wait for each other,
 * and for a sync. All reject with `EdgeSyncError`.
 */
export class EdgeSync {
  private constructor();

  /** Opens the shard in `path`; makes it if there is none. */
  static open(options: Options): Promise<EdgeSync>;

  /** Removes a data directory, what waits for upload included. `locked` if it is open somewhere. */
  static remove(path: string): Promise<void>;

  /** Writes points, or replaces those whose ids exist: all of them or none. At most 32 MiB as JSON. */
  upsert(points: Point[] | Json): Promise<UpdateResult>;
  /** Deletes points. */
  delete(points: Selector): Promise<UpdateResult>;
  /** Sets fields of payloads and leaves the others; below `key`, a path, if there is one. */
  setPayload(payload: Json, points: Selector, key?: string): Promise<UpdateResult>;
  /** Replaces payloads. */
  overwritePayload(payload: Json, points: Selector, key?: string): Promise<UpdateResult>;
  /** Removes fields of payloads. */
  deletePayload(keys: string[], points: Selector): Promise<UpdateResult>;
  /** Removes all fields of payloads. */
  clearPayload(points: Selector): Promise<UpdateResult>;
  /** Replaces vectors of points that exist. */
  updateVectors(points: { id: PointId; vector: Vector }[]): Promise<UpdateResult>;
  /** Removes named vectors of points. */
  deleteVectors(names: string[], points: Selector): Promise<UpdateResult>;
  /** Several writes in order: the operations of `POST /points/batch`. */
  batch(operations: Json[]): Promise<UpdateResult[]>;
  /** Makes a payload index: `"keyword"`, or an object with `type` and parameters. */
  createPayloadIndex(field: string, schema: string | Json): Promise<UpdateResult>;
  /** Removes a payload index; one that is not there is fine. */
  deletePayloadIndex(field: string): Promise<UpdateResult>;
  /** Adds a named vector to the shard: the body of `PUT /vectors/{vector_name}`. */
  createVector(name: string, config: Json): Promise<UpdateResult>;
  /** Removes a named vector from the shard. */
  deleteVector(name: string): Promise<UpdateResult>;

  /** The points nearest to a vector, best first. */
  search(vector: Vector, options?: QueryOptions): Promise<ScoredPoint[]>;
  /** Any universal query: the body of `POST /points/query`. */
  query(body: QueryOptions & { query?: unknown }): Promise<ScoredPoint[]>;
  /** Several queries. */
  queryBatch(searches: (QueryOptions & { query?: unknown })[]): Promise<ScoredPoint[][]>;
  /** A query whose results are grouped by a payload field: the body of `POST /points/query/groups`. */
  queryGroups(body: Json): Promise<{ id: string | number; hits: ScoredPoint[] }[]>;
  /** Points by id, in the order asked; ids that do not exist are left out. */
  retrieve(ids: PointId[], selection?: Selection): Promise<StoredPoint[]>;
  /** A page of points: the body of `POST /points/scroll`. */
  scroll(
    body?: Selection & { filter?: Json; limit?: number; offset?: PointId | null; order_by?: unknown },
  ): Promise<{ points: StoredPoint[]; next_page_offset?: PointId | null }>;
  /** All points in order of id, read a page at a time. */
  points(body?: Selection & { filter?: Json }): AsyncGenerator<StoredPoint, void>;
  /** How many points match, exactly; all of them without a filter. */
  count(filter?: Json): Promise<number>;
  /** The values of an indexed payload field, and how many points have each: the body of `POST /facet`. */
  facet(body: Json): Promise<{ value: string | number | boolean; count: number }[]>;
  /** Any request of Qdrant's points API, by its path below `/collections/{c}`; its `result`. */
  request(method: string, path: string, body?: unknown): Promise<any>;
  /** State of the open shard. */
  info(): Promise<ShardInfo>;

  /** Merges segments and builds indexes (HNSW). May take long. Whether anything was done. */
  optimize(): Promise<boolean>;
  /** Makes everything durable in the shard itself, and shortens the log. */
  flush(): Promise<void>;

  /** Uploads what waits, then fetches what others wrote. What waits stays in the queue if it fails. */
  sync(options?: SyncOptions): Promise<SyncReport>;
  /**
   * Replaces what the shard holds by the server's snapshot, or by one that is at hand (`snapshot`). What waits
   * for upload is kept. `stored`: the server stores the snapshot first, so that the download can be
   * resumed. `force`: although many points would be dropped, or from another collection than before.
   */
  restore(options?: { snapshot?: Blob | BufferSource; stored?: boolean; force?: boolean }): Promise<void>;
  /** What is stored, what waits, how the last sync went. Asks no server. */
  status(): Promise<Status>;
  /** What the server refused, oldest first. */
  rejected(): AsyncGenerator<RejectedOperation, void>;
  /** Queues a rejected operation again, each point as the shard holds it now. */
  retryRejected(sequence: number): Promise<void>;
  /** Forgets a rejected operation. */
  dropRejected(sequence: number): Promise<void>;
  /** Moves operations from the head of the queue to the rejected log. How many. */
  skip(count?: number): Promise<number>;

  /** Waits for the calls before, flushes, closes. Nothing that was returned depends on it. */
  close(): Promise<void>;
  /** `close`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}
