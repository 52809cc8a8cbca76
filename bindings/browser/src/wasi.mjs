// WASI 0.2 for the component in a dedicated worker, where every call may block: files on a `Disk`, requests by
// `XMLHttpRequest`, which waits there.

import { ROOT } from "./disk.mjs";

const dispose = Symbol.dispose || Symbol.for("dispose");

/** Bytes that a stream takes at once. */
const PERMIT = 1n << 20n;

class IoError extends Error {
  constructor(code) {
    super(typeof code === "string" ? code : code.tag);
    this.code = code;
  }
  toDebugString() {
    return this.message;
  }
}

const failed = (code) => ({ tag: "last-operation-failed", val: new IoError(code) });

/** Nothing but time passes while the worker waits. */
class Pollable {
  #ready;
  #until;
  static of(ready, until) {
    const pollable = new Pollable();
    pollable.#ready = ready;
    pollable.#until = until;
    return pollable;
  }
  ready() {
    return this.#until === undefined ? this.#ready() : performance.now() >= this.#until;
  }
  get until() {
    return this.#until ?? Infinity;
  }
  block() {
    poll([this]);
  }
}
const always = () => Pollable.of(() => true);

// `Atomics.wait` takes shared memory only, and in this way there is some on any page.
const idle = new Int32Array(new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true }).buffer);

function poll(pollables) {
  for (;;) {
    const ready = [...pollables.keys()].filter((n) => pollables[n].ready());
    if (ready.length > 0) return Uint32Array.from(ready);
    const until = Math.min(...pollables.map((pollable) => pollable.until));
    if (until === Infinity) throw new Error("waits for what cannot come");
    Atomics.wait(idle, 0, 0, Math.max(1, until - performance.now()));
  }
}

class InputStream {
  #read;
  static of(read) {
    const stream = new InputStream();
    stream.#read = read;
    return stream;
  }
  /** The next bytes, at least one; throws `closed` at the end. */
  read(length) {
    const bytes = this.#read(Number(length));
    if (bytes.length === 0 && length > 0n) throw { tag: "closed" };
    return bytes;
  }
  blockingRead(length) {
    return this.read(length);
  }
  subscribe() {
    return always();
  }
}

class OutputStream {
  #write;
  static of(write) {
    const stream = new OutputStream();
    stream.#write = write;
    return stream;
  }
  checkWrite() {
    return PERMIT;
  }
  write(bytes) {
    this.#write(bytes);
  }
  blockingWriteAndFlush(bytes) {
    this.#write(bytes);
  }
  flush() {}
  blockingFlush() {}
  subscribe() {
    return always();
  }
}

/** What goes to the console, by lines. */
function console_(print) {
  const decoder = new TextDecoder();
  let pending = "";
  return OutputStream.of((bytes) => {
    const lines = (pending + decoder.decode(bytes, { stream: true })).split("\n");
    pending = lines.pop();
    lines.forEach((line) => print(line));
  });
}

// Files.

const number = (value) => {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw "file-too-large";
  return Number(value);
};
const datetime = (ms) => ({
  seconds: BigInt(Math.floor(ms / 1000)),
  nanoseconds: Math.floor(ms % 1000) * 1_000_000,
});

class Descriptor {
  #disk;
  #node;
  #flags;
  static of(disk, node, flags) {
    const descriptor = new Descriptor();
    descriptor.#disk = disk;
    descriptor.#node = node;
    descriptor.#flags = flags;
    return descriptor;
  }
  #writable() {
    if (!this.#flags.write) throw "bad-descriptor";
  }
  readViaStream(offset) {
    let at = number(offset);
    return InputStream.of((length) => {
      try {
        const bytes = this.#disk.read(this.#node, length, at);
        at += bytes.length;
        return bytes;
      } catch (code) {
        throw typeof code === "string" ? failed(code) : code;
      }
    });
  }
  #streamAt(position) {
    this.#writable();
    return OutputStream.of((bytes) => {
      try {
        this.#disk.write(this.#node, bytes, position(bytes.length));
      } catch (code) {
        throw typeof code === "string" ? failed(code) : code;
      }
    });
  }
  writeViaStream(offset) {
    let at = number(offset);
    return this.#streamAt((length) => (at += length) - length);
  }
  appendViaStream() {
    return this.#streamAt(() => this.#node.size);
  }
  advise() {}
  syncData() {
    this.#disk.sync();
  }
  sync() {
    this.#disk.sync();
  }
  getFlags() {
    return this.#flags;
  }
  getType() {
    return typeOf(this.#node);
  }
  setSize(size) {
    this.#writable();
    this.#disk.setSize(this.#node, number(size));
  }
  setTimes(_, modified) {
    setTime(this.#disk, this.#node, modified);
  }
  setTimesAt(_, path, __, modified) {
    setTime(this.#disk, this.#disk.lookup(this.#node, path), modified);
  }
  read(length, offset) {
    const at = number(offset);
    const most = length > BigInt(Number.MAX_SAFE_INTEGER) ? Number.MAX_SAFE_INTEGER : Number(length);
    const bytes = this.#disk.read(this.#node, most, at);
    return [bytes, at + bytes.length >= this.#node.size];
  }
  write(bytes, offset) {
    this.#writable();
    this.#disk.write(this.#node, bytes, number(offset));
    return BigInt(bytes.length);
  }
  readDirectory() {
    if (!this.#node.isFolder) throw "not-directory";
    return DirectoryEntryStream.of(this.#node);
  }
  createDirectoryAt(path) {
    this.#disk.makeFolder(this.#node, path);
  }
  stat() {
    return stat(this.#node);
  }
  statAt(_, path) {
    return stat(this.#disk.lookup(this.#node, path));
  }
  linkAt(_, path, folder, newPath) {
    this.#disk.link(this.#node, path, folder.#node, newPath);
  }
  openAt(_, path, open, flags) {
    const node = this.#disk.openAt(this.#node, path, open);
    const writes = node.isFolder ? { mutateDirectory: true } : { write: flags.write ?? false };
    return Descriptor.of(this.#disk, node, { read: flags.read ?? false, ...writes });
  }
  readlinkAt(path) {
    this.#disk.lookup(this.#node, path);
    throw "invalid";
  }
  symlinkAt() {
    throw "unsupported";
  }
  removeDirectoryAt(path) {
    this.#disk.remove(this.#node, path, true);
  }
  renameAt(path, folder, newPath) {
    this.#disk.rename(this.#node, path, folder.#node, newPath);
  }
  unlinkFileAt(path) {
    this.#disk.remove(this.#node, path, false);
  }
  isSameObject(other) {
    return this.#node === other.#node;
  }
  /** Which file it is, whatever is done to it: numbers are not given twice. */
  metadataHash() {
    return { lower: BigInt(this.#node.id), upper: this.#disk.id };
  }
  metadataHashAt(_, path) {
    return { lower: BigInt(this.#disk.lookup(this.#node, path).id), upper: this.#disk.id };
  }
  [dispose]() {
    const node = this.#node;
    this.#node = undefined;
    if (node) this.#disk.closed(node);
  }
}

function typeOf(node) {
  return node.isFolder ? "directory" : "regular-file";
}

function stat(node) {
  const time = datetime(node.time);
  return {
    type: typeOf(node),
    linkCount: BigInt(node.links),
    size: BigInt(node.size),
    dataAccessTimestamp: time,
    dataModificationTimestamp: time,
    statusChangeTimestamp: time,
  };
}

function setTime(disk, node, { tag, val }) {
  if (tag === "no-change") return;
  const given = val && Number(val.seconds) * 1000 + val.nanoseconds / 1_000_000;
  disk.setTime(node, tag === "now" ? Date.now() : given);
}

class DirectoryEntryStream {
  #entries;
  static of(folder) {
    const stream = new DirectoryEntryStream();
    // As they are now: some may go while the list is read.
    stream.#entries = [...folder.entries].map(([name, node]) => ({ name, type: typeOf(node) }));
    return stream;
  }
  readDirectoryEntry() {
    return this.#entries.shift();
  }
}

// Requests.

class Fields {
  #entries;
  static fromList(entries) {
    const fields = new Fields();
    fields.#entries = entries.map(([name, value]) => [name.toLowerCase(), value]);
    return fields;
  }
  entries() {
    return this.#entries;
  }
}

class OutgoingBody {
  chunks = [];
  isFinished = false;
  write() {
    return OutputStream.of((bytes) => this.chunks.push(bytes.slice()));
  }
  static finish(body) {
    body.isFinished = true;
  }
  [dispose]() {}
}

class OutgoingRequest {
  #body = new OutgoingBody();
  constructor(headers) {
    this.headers = headers;
    this.method = { tag: "get" };
  }
  body() {
    return this.#body;
  }
  setMethod(method) {
    this.method = method;
  }
  setPathWithQuery(path) {
    this.path = path;
  }
  setScheme(scheme) {
    this.scheme = scheme;
  }
  setAuthority(authority) {
    this.authority = authority;
  }
}

class RequestOptions {
  // A browser has one limit, for the whole exchange.
  setConnectTimeout() {}
  setFirstByteTimeout() {}
  setBetweenBytesTimeout() {}
}

class IncomingBody {
  #bytes;
  static of(bytes) {
    const body = new IncomingBody();
    body.#bytes = bytes;
    return body;
  }
  stream() {
    let at = 0;
    return InputStream.of((length) => this.#bytes.subarray(at, (at = Math.min(at + length, this.#bytes.length))));
  }
}

class IncomingResponse {
  #status;
  #headers;
  #bytes;
  static of(status, headers, bytes) {
    const response = new IncomingResponse();
    response.#status = status;
    response.#headers = headers;
    response.#bytes = bytes;
    return response;
  }
  status() {
    return this.#status;
  }
  headers() {
    return this.#headers;
  }
  consume() {
    return IncomingBody.of(this.#bytes);
  }
}

class FutureIncomingResponse {
  #body;
  #send;
  #isTaken = false;
  static of(body, send) {
    const future = new FutureIncomingResponse();
    future.#body = body;
    future.#send = send;
    return future;
  }
  subscribe() {
    return Pollable.of(() => this.#body.isFinished);
  }
  get() {
    if (!this.#body.isFinished) return undefined;
    if (this.#isTaken) return { tag: "err" };
    this.#isTaken = true;
    try {
      return { tag: "ok", val: { tag: "ok", val: this.#send() } };
    } catch (code) {
      if (code?.tag === undefined) throw code;
      return { tag: "ok", val: { tag: "err", val: code } };
    }
  }
}

const latin = new TextDecoder("latin1");

/** What a browser sets by itself, or refuses to have set. */
const BROWSERS_OWN = new Set(["accept-encoding", "content-length", "host", "connection", "user-agent"]);

/** One exchange, to its end. */
function exchange(request, body, origin) {
  const url = `${origin.secure ? "https" : "http"}://${request.authority}${request.path}`;
  const call = new XMLHttpRequest();
  const method = request.method.val ?? request.method.tag;
  try {
    call.open(method.toUpperCase(), url, false);
    call.responseType = "arraybuffer";
    call.timeout = origin.timeoutMs;
    for (const [name, value] of request.headers.entries()) {
      if (!BROWSERS_OWN.has(name)) call.setRequestHeader(name, latin.decode(value));
    }
    call.send(body.chunks.length > 0 ? new Blob(body.chunks) : null);
  } catch (error) {
    if (error?.name === "TimeoutError") throw { tag: "connection-read-timeout" };
    // Why, a browser tells its console only: the request may have arrived.
    throw { tag: "connection-terminated" };
  }
  // A browser follows redirects: what came from elsewhere is not taken.
  if (new URL(call.responseURL).origin !== new URL(url).origin) throw { tag: "HTTP-request-denied" };
  const encoder = new TextEncoder();
  const headers = call
    .getAllResponseHeaders()
    .split("\r\n")
    .filter((line) => line.includes(":"))
    .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]);
  // A browser has decoded the body.
  const isDecoded = headers.some(([name]) => name.toLowerCase() === "content-encoding");
  const told = headers.filter(([name]) => !isDecoded || !/^content-(encoding|length)$/i.test(name));
  const fields = Fields.fromList(told.map(([name, value]) => [name, encoder.encode(value)]));
  return IncomingResponse.of(call.status, fields, new Uint8Array(call.response));
}

/** The imports. `directory` is the guest's name of the disk; `origin()` which server may be asked, if any. */
export function imports(disk, directory, origin) {
  const root = disk.node(ROOT);
  const [out, err] = [console_((line) => console.log(line)), console_((line) => console.error(line))];
  class TerminalInput {}
  class TerminalOutput {}
  return {
    "wasi:cli/environment": { getEnvironment: () => [], getArguments: () => ["edge-sync"] },
    "wasi:cli/exit": {
      exit() {
        throw new Error("the component exited");
      },
    },
    "wasi:cli/stdin": { getStdin: () => InputStream.of(() => new Uint8Array()) },
    "wasi:cli/stdout": { getStdout: () => out },
    "wasi:cli/stderr": { getStderr: () => err },
    "wasi:cli/terminal-input": { TerminalInput },
    "wasi:cli/terminal-output": { TerminalOutput },
    "wasi:cli/terminal-stdin": { getTerminalStdin: () => undefined },
    "wasi:cli/terminal-stdout": { getTerminalStdout: () => undefined },
    "wasi:cli/terminal-stderr": { getTerminalStderr: () => undefined },
    "wasi:clocks/monotonic-clock": {
      now: () => BigInt(Math.floor(performance.now() * 1e6)),
      resolution: () => 1_000_000n,
      subscribeDuration: (ns) => Pollable.of(undefined, performance.now() + Number(ns) / 1e6),
      subscribeInstant: (ns) => Pollable.of(undefined, Number(ns) / 1e6),
    },
    "wasi:clocks/wall-clock": {
      now: () => datetime(Date.now()),
      resolution: () => ({ seconds: 0n, nanoseconds: 1_000_000 }),
    },
    "wasi:filesystem/preopens": {
      getDirectories() {
        root.open += 1;
        return [[Descriptor.of(disk, root, { read: true, mutateDirectory: true }), directory]];
      },
    },
    "wasi:filesystem/types": {
      Descriptor,
      DirectoryEntryStream,
      filesystemErrorCode: (error) => (typeof error.code === "string" ? error.code : undefined),
    },
    "wasi:http/types": {
      Fields,
      FutureIncomingResponse,
      IncomingBody,
      IncomingResponse,
      OutgoingBody,
      OutgoingRequest,
      RequestOptions,
      httpErrorCode: (error) => (typeof error.code === "object" ? error.code : undefined),
    },
    "wasi:http/outgoing-handler": {
      /** Requests to one scheme, host and port pass; without a server, none. */
      handle(request) {
        const allowed = origin();
        const scheme = allowed?.secure ? "HTTPS" : "HTTP";
        if (!allowed || request.scheme?.tag !== scheme || request.authority !== allowed.authority) {
          throw { tag: "HTTP-request-denied" };
        }
        const body = request.body();
        return FutureIncomingResponse.of(body, () => exchange(request, body, allowed));
      },
    },
    "wasi:io/error": { Error: IoError },
    "wasi:io/poll": { Pollable, poll },
    "wasi:io/streams": { InputStream, OutputStream },
    "wasi:random/random": {
      getRandomU64: () => crypto.getRandomValues(new BigUint64Array(1))[0],
      getRandomBytes: (length) => crypto.getRandomValues(new Uint8Array(Number(length))),
    },
    "wasi:random/insecure-seed": {
      insecureSeed: () => [...crypto.getRandomValues(new BigUint64Array(2))],
    },
  };
}
