// A small file system in three files that are open for synchronous access, as a dedicated worker has them of
// the origin private file system. The browser's own folders cannot serve: opening, renaming and removing are
// asynchronous there, and the component's calls are not.
//
// `data` has the content, in blocks. `names-0` and `names-1` are journals of what the blocks mean: of the
// two, the one with the higher epoch is in force; the other is written anew when the first has grown.
//
// What holds, as on any disk:
// - whoever ends the worker, what a call has returned is there;
// - if the machine goes down, what `sync` has returned is there, with every name, size and byte of before;
//   what was done since may be there in part. A block that a durable file gave up is not written again
//   before that is durable.
//
// Errors are thrown as the error codes of `wasi:filesystem`.

const BLOCK = 4096;
const ZEROS = new Uint8Array(BLOCK);
const MAGIC = "edgesync";
const VERSION = 1;
const HEADER = 40;
/** Before each record: its length and its sum. */
const FRAME = 8;
/** The journal's file grows by this, and by this much is kept ahead for what removes. */
const STEP = 256 << 10;
const SPARE = 64 << 10;
const LEAST_JOURNAL = 1 << 20;
/** Blocks given up and not usable yet, from which on they are made usable. */
const MOST_PENDING = 8192;
/** Bytes that one read gives at most. */
const READ_BYTES = 16 << 20;
const HOLE = -1;
export const ROOT = 1;

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit += 1) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/** CRC-32, going on from `sum`. */
function crc(bytes, sum) {
  let value = ~sum;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 0xff] ^ (value >>> 8);
  return ~value >>> 0;
}

function sumOf(length, payload, chain) {
  const head = new Uint8Array(new Uint32Array([length]).buffer);
  return crc(payload, crc(head, chain));
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** Writes all, or throws. A browser refuses what is over the quota, or takes a part of it. */
function writeAll(handle, bytes, at) {
  let written;
  try {
    written = handle.write(bytes, { at });
  } catch (error) {
    throw codeOf(error);
  }
  if (written < bytes.byteLength) throw "insufficient-space";
}

function codeOf(error) {
  if (typeof error === "string") return error;
  return error?.name === "QuotaExceededError" ? "insufficient-space" : "io";
}

function flush(handle) {
  try {
    handle.flush();
  } catch (error) {
    throw codeOf(error);
  }
}

/** One of the two journals. */
class Names {
  constructor(handle) {
    this.handle = handle;
    this.position = HEADER;
    this.capacity = 0;
    this.chain = 0;
    this.isDirty = false;
  }

  /** Epoch and identity of the disk, or nothing if this journal was never completed. */
  header() {
    const bytes = new Uint8Array(HEADER);
    if (this.handle.read(bytes, { at: 0 }) < HEADER) return undefined;
    const view = new DataView(bytes.buffer);
    if (new TextDecoder().decode(bytes.subarray(0, 8)) !== MAGIC) return undefined;
    if (view.getUint32(36, true) !== crc(bytes.subarray(0, 36), 0)) return undefined;
    const version = view.getUint32(8, true);
    if (version !== VERSION) throw new Error(`the disk is in format ${version}, this is for ${VERSION}`);
    const length = view.getUint32(32, true);
    return { epoch: view.getUint32(12, true), id: view.getBigUint64(16, true), length };
  }

  /** The records; cuts off what a stop left of the last ones. */
  *records(epoch) {
    this.capacity = this.handle.getSize();
    this.chain = epoch;
    const bytes = new Uint8Array(this.capacity);
    this.handle.read(bytes, { at: 0 });
    const view = new DataView(bytes.buffer);
    let at = HEADER;
    while (at + FRAME <= bytes.length) {
      const length = view.getUint32(at, true);
      if (length === 0 || at + FRAME + length > bytes.length) break;
      const payload = bytes.subarray(at + FRAME, at + FRAME + length);
      const sum = view.getUint32(at + 4, true);
      if (sum !== sumOf(length, payload, this.chain)) break;
      yield JSON.parse(decoder.decode(payload));
      this.chain = sum;
      at += FRAME + length;
      this.position = at;
    }
  }

  frame(record) {
    const payload = encoder.encode(JSON.stringify(record));
    const frame = new Uint8Array(FRAME + payload.length);
    const view = new DataView(frame.buffer);
    const sum = sumOf(payload.length, payload, this.chain);
    view.setUint32(0, payload.length, true);
    view.setUint32(4, sum, true);
    frame.set(payload, FRAME);
    return { frame, sum };
  }

  /** Writes a record. One that removes something may take the last room. */
  append(record, removes) {
    const { frame, sum } = this.frame(record);
    const end = this.position + frame.length;
    if (end + SPARE > this.capacity) {
      try {
        this.handle.truncate(end + STEP);
        this.capacity = end + STEP;
      } catch (error) {
        if (!removes || end > this.capacity) throw codeOf(error);
      }
    }
    writeAll(this.handle, frame, this.position);
    this.isDirty = true;
    this.position = end;
    this.chain = sum;
  }

  /** Becomes the journal of `epoch`, with these records. Durable when it returns. */
  rewrite(epoch, id, records) {
    this.position = HEADER;
    this.chain = epoch;
    const frames = [];
    let length = 0;
    for (const record of records) {
      const { frame, sum } = this.frame(record);
      this.chain = sum;
      frames.push(frame);
      length += frame.length;
    }
    const all = new Uint8Array(length);
    for (const frame of frames) {
      all.set(frame, this.position - HEADER);
      this.position += frame.length;
    }
    const header = new Uint8Array(HEADER);
    header.set(encoder.encode(MAGIC));
    const view = new DataView(header.buffer);
    view.setUint32(8, VERSION, true);
    view.setUint32(12, epoch, true);
    view.setBigUint64(16, id, true);
    view.setUint32(32, length, true);
    view.setUint32(36, crc(header.subarray(0, 36), 0), true);
    try {
      this.handle.truncate(0);
      this.handle.truncate(HEADER + length + STEP);
    } catch (error) {
      throw codeOf(error);
    }
    this.capacity = HEADER + length + STEP;
    writeAll(this.handle, all, HEADER);
    flush(this.handle);
    writeAll(this.handle, header, 0);
    flush(this.handle);
    this.isDirty = false;
  }
}

/** A file or a folder. */
class Node {
  /** Descriptors that are open. */
  open = 0;
  links = 0;
  size = 0;
  constructor(id, isFolder, time) {
    this.id = id;
    this.time = time;
    if (isFolder) this.entries = new Map();
    else this.blocks = [];
  }
  get isFolder() {
    return this.entries !== undefined;
  }
}

export class Disk {
  #data;
  #names;
  #other;
  #epoch;
  #id;
  #nodes = new Map();
  #next = ROOT + 1;
  /** Which blocks of `data` are in use, one byte each. */
  #used = new Uint8Array(1024);
  #blocks = 0;
  #free = 0;
  #cursor = 0;
  /** Blocks that were given up, and are in use until that is durable. */
  #pending = [];
  #isDataDirty = false;
  #touched = new Set();
  #checkpoint = 0;

  /**
   * The disk in three open files, made if there is none. `random` is 64 bits for a new disk's identity.
   * Throws an Error if what is there is no disk of this format.
   */
  constructor({ data, names }, random) {
    this.#data = data;
    const journals = names.map((handle) => new Names(handle));
    const headers = journals.map((journal) => journal.header());
    const epochs = headers.map((header) => header?.epoch ?? 0);
    const current = epochs[1] > epochs[0] ? 1 : 0;
    [this.#names, this.#other] = [journals[current], journals[1 - current]];
    this.#epoch = epochs[current];
    this.#nodes.set(ROOT, new Node(ROOT, true, 0));
    if (this.#epoch === 0) {
      this.#id = random;
      this.#rewrite();
      return;
    }
    this.#id = headers[current].id;
    for (const record of this.#names.records(this.#epoch)) this.#replay(record);
    if (this.#names.position < HEADER + headers[current].length) {
      throw new Error("the list of files is damaged");
    }
    this.#checkpoint = headers[current].length;
    for (const node of this.#nodes.values()) {
      if (node.id !== ROOT && node.links === 0) {
        // Removed while it was open.
        this.#nodes.delete(node.id);
        continue;
      }
      for (const block of node.blocks ?? []) if (block !== HOLE) this.#take(block);
    }
    this.#free = this.#blocks - this.#used.subarray(0, this.#blocks).reduce((sum, used) => sum + used, 0);
  }

  /** Identity of the disk, and of no other. */
  get id() {
    return this.#id;
  }

  /** Bytes of the disk's files that can be written again. */
  get freeBytes() {
    return this.#free * BLOCK;
  }

  node(id) {
    return this.#nodes.get(id);
  }

  // What records mean.

  #replay([kind, ...of]) {
    switch (kind) {
      case "f":
      case "d": {
        const [id, folder, name, time] = of;
        const node = new Node(id, kind === "d", time);
        this.#nodes.set(id, node);
        this.#next = Math.max(this.#next, id + 1);
        node.links = 1;
        this.#nodes.get(folder).entries.set(name, node);
        break;
      }
      case "l": {
        const [id, folder, name] = of;
        const node = this.#nodes.get(id);
        node.links += 1;
        this.#nodes.get(folder).entries.set(name, node);
        break;
      }
      case "u": {
        const [folder, name] = of;
        const { entries } = this.#nodes.get(folder);
        entries.get(name).links -= 1;
        entries.delete(name);
        break;
      }
      case "r": {
        const [from, name, to, newName] = of;
        this.#moved(this.#nodes.get(from), name, this.#nodes.get(to), newName);
        break;
      }
      case "s": {
        const [id, size, time] = of;
        const node = this.#nodes.get(id);
        node.size = size;
        node.time = time;
        node.blocks.length = Math.min(node.blocks.length, Math.ceil(size / BLOCK));
        break;
      }
      case "m": {
        const [id, at, start, count, size, time] = of;
        this.#map(this.#nodes.get(id), at, start, count);
        this.#nodes.get(id).size = size;
        this.#nodes.get(id).time = time;
        break;
      }
      case "b":
        for (const record of of[0]) this.#replay(record);
        break;
      case "n":
        this.#next = Math.max(this.#next, of[0]);
        break;
      default:
        throw new Error(`the list of files has a record of kind ${kind}`);
    }
  }

  #map(node, at, start, count) {
    while (node.blocks.length < at) node.blocks.push(HOLE);
    for (let n = 0; n < count; n += 1) node.blocks[at + n] = start + n;
  }

  #moved(from, name, to, newName) {
    const node = from.entries.get(name);
    const replaced = to.entries.get(newName);
    if (replaced === node) return undefined;
    from.entries.delete(name);
    to.entries.set(newName, node);
    if (replaced) replaced.links -= 1;
    return replaced;
  }

  /** Records that make what there is now. */
  *#state() {
    yield ["n", this.#next];
    const seen = new Set();
    const folders = [this.#nodes.get(ROOT)];
    for (const folder of folders) {
      for (const [name, node] of folder.entries) {
        if (node.isFolder) {
          folders.push(node);
          yield ["d", node.id, folder.id, name, node.time];
        } else if (seen.has(node.id)) {
          yield ["l", node.id, folder.id, name];
        } else {
          seen.add(node.id);
          yield ["f", node.id, folder.id, name, node.time];
          for (const [at, start, count] of runs(node.blocks, 0, node.blocks.length)) {
            if (start !== HOLE) yield ["m", node.id, at, start, count, node.size, node.time];
          }
          yield ["s", node.id, node.size, node.time];
        }
      }
    }
  }

  #rewrite() {
    const epoch = this.#epoch + 1;
    this.#other.rewrite(epoch, this.#id, this.#state());
    [this.#names, this.#other] = [this.#other, this.#names];
    this.#epoch = epoch;
    this.#checkpoint = this.#names.position - HEADER;
    try {
      // The space is not needed until the next one is written.
      this.#other.handle.truncate(0);
    } catch {
      // Then it stays.
    }
  }

  // Blocks.

  #take(block) {
    if (block >= this.#used.length) {
      const longer = new Uint8Array(Math.max(block + 1, this.#used.length * 2));
      longer.set(this.#used);
      this.#used = longer;
    }
    this.#used[block] = 1;
    if (block >= this.#blocks) this.#blocks = block + 1;
  }

  /** Numbers of blocks that nobody uses, taken. */
  #allocate(count) {
    if (this.#pending.length > MOST_PENDING) this.sync();
    const found = [];
    for (let looked = 0; found.length < count && this.#free > 0 && looked < this.#blocks; looked += 1) {
      if (this.#cursor >= this.#blocks) this.#cursor = 0;
      if (this.#used[this.#cursor] === 0) {
        this.#used[this.#cursor] = 1;
        this.#free -= 1;
        found.push(this.#cursor);
      }
      this.#cursor += 1;
    }
    while (found.length < count) {
      const block = this.#blocks;
      this.#take(block);
      found.push(block);
    }
    return found;
  }

  #giveBack(blocks) {
    for (const block of blocks) {
      this.#used[block] = 0;
      this.#free += 1;
    }
  }

  /** Forgets the unused blocks at the end: the file may not reach as far. */
  #cutOff() {
    let end = this.#blocks;
    while (end > 0 && this.#used[end - 1] === 0) end -= 1;
    this.#free -= this.#blocks - end;
    this.#blocks = end;
  }

  #giveUp(blocks) {
    for (const block of blocks) if (block !== HOLE) this.#pending.push(block);
  }

  #write(bytes, at) {
    this.#isDataDirty = true;
    writeAll(this.#data, bytes, at);
  }

  // Names.

  /** A name below a folder, and the folder that it is in. `..` does not lead out. */
  #resolve(folder, path) {
    const names = [];
    for (const name of path.split("/")) {
      if (name === "" || name === ".") continue;
      if (name !== "..") names.push(name);
      else if (names.pop() === undefined) throw "not-permitted";
    }
    const last = names.pop();
    for (const name of names) {
      const entry = folder.entries?.get(name);
      if (!folder.isFolder) throw "not-directory";
      if (!entry) throw "no-entry";
      folder = entry;
    }
    if (!folder.isFolder) throw "not-directory";
    return { folder, name: last };
  }

  /** The file or folder of that name. */
  lookup(from, path) {
    const { folder, name } = this.#resolve(from, path);
    const node = name === undefined ? folder : folder.entries.get(name);
    if (!node) throw "no-entry";
    return node;
  }

  /** Opens, by the flags of `open-at`. */
  openAt(from, path, { create, directory, exclusive, truncate }) {
    const { folder, name } = this.#resolve(from, path);
    let node = name === undefined ? folder : folder.entries.get(name);
    if (node && exclusive && create) throw "exist";
    if (!node) {
      if (!create) throw "no-entry";
      if (directory) throw "invalid";
      node = this.#make(folder, name, false);
    }
    if (directory && !node.isFolder) throw "not-directory";
    if (truncate) {
      if (node.isFolder) throw "is-directory";
      if (node.size > 0) this.setSize(node, 0);
    }
    node.open += 1;
    return node;
  }

  closed(node) {
    node.open -= 1;
    this.#forget(node);
  }

  #forget(node) {
    if (node.links > 0 || node.open > 0 || !this.#nodes.delete(node.id)) return;
    this.#touched.delete(node);
    this.#giveUp(node.blocks ?? []);
  }

  #make(folder, name, isFolder) {
    const node = new Node(this.#next, isFolder, Date.now());
    this.#names.append([isFolder ? "d" : "f", node.id, folder.id, name, node.time]);
    this.#next += 1;
    this.#nodes.set(node.id, node);
    node.links = 1;
    folder.entries.set(name, node);
    return node;
  }

  makeFolder(from, path) {
    const { folder, name } = this.#resolve(from, path);
    if (name === undefined || folder.entries.has(name)) throw "exist";
    this.#make(folder, name, true);
  }

  remove(from, path, isFolder) {
    const { folder, name } = this.#resolve(from, path);
    const node = folder.entries.get(name);
    if (name === undefined) throw "invalid";
    if (!node) throw "no-entry";
    if (isFolder && !node.isFolder) throw "not-directory";
    if (!isFolder && node.isFolder) throw "is-directory";
    if (isFolder && node.entries.size > 0) throw "not-empty";
    this.#names.append(["u", folder.id, name], true);
    folder.entries.delete(name);
    node.links -= 1;
    this.#forget(node);
  }

  rename(from, path, to, newPath) {
    const source = this.#resolve(from, path);
    const target = this.#resolve(to, newPath);
    if (source.name === undefined || target.name === undefined) throw "invalid";
    const node = source.folder.entries.get(source.name);
    if (!node) throw "no-entry";
    const replaced = target.folder.entries.get(target.name);
    if (node.isFolder && this.#isBelow(node, target.folder)) throw "invalid";
    if (replaced && replaced !== node) {
      if (node.isFolder && !replaced.isFolder) throw "not-directory";
      if (!node.isFolder && replaced.isFolder) throw "is-directory";
      if (replaced.isFolder && replaced.entries.size > 0) throw "not-empty";
    }
    this.#names.append(["r", source.folder.id, source.name, target.folder.id, target.name]);
    const gone = this.#moved(source.folder, source.name, target.folder, target.name);
    if (gone) this.#forget(gone);
  }

  #isBelow(folder, node) {
    if (folder === node) return true;
    return [...folder.entries.values()].some((entry) => entry.isFolder && this.#isBelow(entry, node));
  }

  link(from, path, to, newPath) {
    const node = this.lookup(from, path);
    if (node.isFolder) throw "not-permitted";
    const { folder, name } = this.#resolve(to, newPath);
    if (name === undefined || folder.entries.has(name)) throw "exist";
    this.#names.append(["l", node.id, folder.id, name]);
    node.links += 1;
    folder.entries.set(name, node);
  }

  // Content.

  read(node, length, offset) {
    if (node.isFolder) throw "is-directory";
    const bytes = new Uint8Array(Math.max(0, Math.min(length, READ_BYTES, node.size - offset)));
    const end = offset + bytes.length;
    const first = Math.floor(offset / BLOCK);
    for (const [at, start, count] of runs(node.blocks, first, Math.ceil(end / BLOCK))) {
      if (start === HOLE) continue;
      const from = Math.max(offset, at * BLOCK);
      const part = bytes.subarray(from - offset, Math.min(end, (at + count) * BLOCK) - offset);
      let read;
      try {
        read = this.#data.read(part, { at: start * BLOCK + (from - at * BLOCK) });
      } catch (error) {
        throw codeOf(error);
      }
      if (read < part.length) throw "io";
    }
    return bytes;
  }

  write(node, bytes, offset) {
    if (node.isFolder) throw "is-directory";
    if (bytes.length === 0) return;
    const end = offset + bytes.length;
    if (!Number.isSafeInteger(end)) throw "file-too-large";
    const [first, last] = [Math.floor(offset / BLOCK), Math.ceil(end / BLOCK)];
    const missing = [];
    for (let at = first; at < last; at += 1) {
      if ((node.blocks[at] ?? HOLE) === HOLE) missing.push(at);
    }
    this.#again(missing.length > 0, () => {
      const fresh = this.#allocate(missing.length);
      try {
        this.#clearEnd(node, offset);
        const blocks = node.blocks.slice(first, last);
        while (blocks.length < last - first) blocks.push(HOLE);
        missing.forEach((at, n) => (blocks[at - first] = fresh[n]));
        // What of new blocks is not written reads as zeros.
        if (missing[0] === first && offset > first * BLOCK) {
          this.#write(ZEROS.subarray(0, offset - first * BLOCK), blocks[0] * BLOCK);
        }
        if (missing.at(-1) === last - 1 && end < last * BLOCK) {
          const rest = last * BLOCK - end;
          this.#write(ZEROS.subarray(0, rest), blocks.at(-1) * BLOCK + BLOCK - rest);
        }
        for (const [at, start, count] of runs(blocks, 0, blocks.length)) {
          const from = Math.max(offset, (first + at) * BLOCK);
          const to = Math.min(end, (first + at + count) * BLOCK);
          const within = from - (first + at) * BLOCK;
          this.#write(bytes.subarray(from - offset, to - offset), start * BLOCK + within);
        }
        this.#changed(node, blocks, first, missing, Math.max(node.size, end));
      } catch (error) {
        this.#giveBack(fresh);
        this.#cutOff();
        throw error;
      }
    });
  }

  /** Notes new blocks and a new size. What was noted holds; blocks that were not are the caller's again. */
  #changed(node, blocks, first, missing, size) {
    const time = Date.now();
    const added = missing.length > 0 ? runs(blocks, 0, blocks.length) : [];
    const isNew = new Set(missing);
    const records = [];
    for (const [at, start, count] of added) {
      for (let n = 0; n < count; ) {
        let length = 1;
        const wanted = isNew.has(first + at + n);
        while (n + length < count && isNew.has(first + at + n + length) === wanted) length += 1;
        if (wanted) records.push(["m", node.id, first + at + n, start + n, length, size, time]);
        n += length;
      }
    }
    if (records.length === 0 && size !== node.size) records.push(["s", node.id, size, time]);
    if (records.length > 1) this.#names.append(["b", records]);
    else if (records.length === 1) this.#names.append(records[0]);
    else this.#touched.add(node);
    for (const [kind, , at, start, count] of records) {
      if (kind === "m") this.#map(node, at, start, count);
    }
    node.size = size;
    node.time = time;
  }

  /** Once more after what was given up has become usable, where there is too little room. */
  #again(mayHelp, run) {
    try {
      run();
    } catch (error) {
      if (error !== "insufficient-space" || !mayHelp || this.#pending.length === 0) throw error;
      this.sync();
      run();
    }
  }

  /** Behind the end of a file its last block may hold anything: zeros, before the end is beyond. */
  #clearEnd(node, to) {
    if (to <= node.size || node.size % BLOCK === 0) return;
    const at = Math.floor(node.size / BLOCK);
    const block = node.blocks[at] ?? HOLE;
    if (block === HOLE) return;
    const until = Math.min(to, (at + 1) * BLOCK);
    this.#write(ZEROS.subarray(0, until - node.size), block * BLOCK + (node.size % BLOCK));
  }

  setSize(node, size) {
    if (node.isFolder) throw "is-directory";
    if (!Number.isSafeInteger(size)) throw "file-too-large";
    this.#clearEnd(node, size);
    const time = Date.now();
    this.#names.append(["s", node.id, size, time], size < node.size);
    this.#giveUp(node.blocks.splice(Math.ceil(size / BLOCK)));
    node.size = size;
    node.time = time;
  }

  setTime(node, time) {
    node.time = time;
    if (!node.isFolder) this.#touched.add(node);
  }

  /** Makes everything durable. */
  sync() {
    for (const node of this.#touched) this.#names.append(["s", node.id, node.size, node.time]);
    this.#touched.clear();
    if (this.#isDataDirty) {
      flush(this.#data);
      this.#isDataDirty = false;
    }
    if (this.#names.isDirty) {
      flush(this.#names.handle);
      this.#names.isDirty = false;
    }
    this.#giveBack(this.#pending.splice(0));
    const length = this.#names.position - HEADER;
    if (length > LEAST_JOURNAL && length > 4 * this.#checkpoint) this.#shorten();
  }

  #shorten() {
    try {
      this.#rewrite();
    } catch (error) {
      // It goes on with the one that is there.
      if (error !== "insufficient-space") throw error;
      return;
    }
    this.#cutOff();
    try {
      this.#data.truncate(this.#blocks * BLOCK);
    } catch {
      // Then it stays as long as it is.
    }
  }
}

/** Runs of neighbours in a list of blocks, as `[position, block, count]`; a run of holes has no block. */
function* runs(blocks, from, to) {
  for (let at = from; at < to; ) {
    const start = blocks[at] ?? HOLE;
    let count = 1;
    while (at + count < to && (blocks[at + count] ?? HOLE) === (start === HOLE ? HOLE : start + count)) {
      count += 1;
    }
    yield [at, start, count];
    at += count;
  }
}
