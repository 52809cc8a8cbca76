"use strict";

/** A call that failed. It changed nothing, except where its documentation says so. */
class EdgeSyncError extends Error {
  constructor(kind, message, details = {}) {
    super(message);
    this.name = "EdgeSyncError";
    this.kind = kind;
    Object.assign(this, details);
  }
}

/** The error of a WIT `error` variant. */
function errorOf({ tag, val }) {
  switch (tag) {
    case "invalid-input":
      return new EdgeSyncError(tag, val.field ? `${val.field}: ${val.message}` : val.message, {
        field: val.field,
      });
    case "storage": {
      const at = val.path ? ` (${val.path})` : "";
      return new EdgeSyncError(tag, `cannot ${val.operation}${at}: ${val.message}`, {
        reason: val.kind,
        operation: val.operation,
        path: val.path,
      });
    }
    case "no-memory":
      return new EdgeSyncError(
        tag,
        `too little memory: the write needs ${val.neededBytes} bytes, ${val.freeBytes} of ` +
          `${val.limitBytes} are free`,
        { neededBytes: val.neededBytes, freeBytes: val.freeBytes, limitBytes: val.limitBytes },
      );
    case "lost-operations":
      return new EdgeSyncError(
        tag,
        `operations ${val.first} to ${val.last} wait for upload and are no longer in the log; ` +
          "what they did is in the shard: sync({ resend: true })",
        { first: val.first, last: val.last },
      );
    case "corrupt":
      return new EdgeSyncError(tag, `${val.file} is damaged: ${val.message}`, {
        file: val.file,
        offset: val.offset,
      });
    case "server": {
      const status = val.status === undefined ? "" : `status ${val.status}: `;
      return new EdgeSyncError(tag, `${val.request}: ${status}${val.message}`, {
        reason: val.class,
        status: val.status,
        request: val.request,
        retryAfterMs: val.retryAfterMs,
      });
    }
    default:
      return new EdgeSyncError(tag, val === undefined ? tag : String(val));
  }
}

module.exports = { EdgeSyncError, errorOf };
