// The file system by itself, over handles in memory whose machine may go down at any of their calls.
import assert from "node:assert/strict";
import { test } from "node:test";

import { Disk, ROOT } from "../src/disk.mjs";

/** A file as a worker has it: what was written since the last flush may be lost, in any part. */
class Handle {
  buffer = new Uint8Array(1 << 16);
  length = 0;
  durable = new Uint8Array(0);
  /** Writes and sizes since the last flush. */
  cached = [];
  constructor(machine) {
    this.machine = machine;
  }
  getSize() {
    return this.length;
  }
  get bytes() {
    return this.buffer.subarray(0, this.length);
  }
  set bytes(bytes) {
    this.buffer = bytes;
    this.length = bytes.length;
  }
  read(buffer, { at }) {
    const part = this.bytes.subarray(at, at + buffer.byteLength);
    buffer.set(part);
    return part.length;
  }
  write(buffer, { at }) {
    this.machine.call();
    const bytes = new Uint8Array(buffer);
    if (this.machine.grown(at + bytes.length - this.length)) return 0;
    this.#do({ at, bytes });
    return bytes.length;
  }
  truncate(size) {
    this.machine.call();
    if (this.machine.grown(size - this.length)) {
      throw Object.assign(new Error("full"), { name: "QuotaExceededError" });
    }
    this.#do({ size });
  }
  flush() {
    this.machine.call();
    this.durable = this.bytes.slice();
    this.cached = [];
  }
  close() {}
  #do(change) {
    this.cached.push(change);
    const { at, bytes, size } = change;
    const length = size ?? Math.max(this.length, at + bytes.length);
    if (length > this.buffer.length) {
      const longer = new Uint8Array(length * 2);
      longer.set(this.bytes);
      this.buffer = longer;
    }
    this.buffer.fill(0, length, this.length);
    this.length = length;
    if (bytes) this.buffer.set(bytes, at);
  }
  /** What is there after the machine went down: some of what was not flushed. */
  afterCrash(random) {
    let bytes = this.durable.slice();
    for (const change of this.cached) if (random() < 0.5) bytes = changed(bytes, change);
    return bytes;
  }
}

function changed(before, { at, bytes, size }) {
  const after = new Uint8Array(size ?? Math.max(before.length, at + bytes.length));
  after.set(before.subarray(0, after.length));
  if (bytes) after.set(bytes, at);
  return after;
}

class Machine {
  left = Infinity;
  room = Infinity;
  call() {
    if (this.left <= 0) throw new Error("the machine is down");
    this.left -= 1;
  }
  grown(bytes) {
    if (bytes > this.room) return true;
    this.room -= Math.max(0, bytes);
    return false;
  }
  files = [new Handle(this), new Handle(this), new Handle(this)];
  disk() {
    const [data, ...names] = this.files;
    return new Disk({ data, names }, 7n);
  }
  /** What another worker finds if only this one was ended. */
  ended() {
    const next = new Machine();
    next.files.forEach((file, n) => {
      file.bytes = this.files[n].bytes.slice();
      file.durable = file.bytes.slice();
    });
    return next;
  }
  crashed(random) {
    const next = new Machine();
    next.files.forEach((file, n) => {
      file.bytes = this.files[n].afterCrash(random);
      file.durable = file.bytes.slice();
    });
    return next;
  }
}

/** Numbers from 0 to 1, the same for a seed. */
function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Every path and what is in it, as the disk tells. */
function tree(disk, folder = disk.node(ROOT), path = "") {
  const found = new Map();
  for (const [name, node] of folder.entries) {
    if (node.isFolder) {
      found.set(`${path}${name}/`, "");
      for (const entry of tree(disk, node, `${path}${name}/`)) found.set(...entry);
    } else {
      const bytes = new Uint8Array(node.size);
      for (let at = 0; at < node.size; ) {
        const part = disk.read(node, node.size - at, at);
        assert.ok(part.length > 0);
        bytes.set(part, at);
        at += part.length;
      }
      found.set(`${path}${name}`, Buffer.from(bytes).toString("latin1"));
    }
  }
  return new Map([...found].sort());
}

const NAMES = ["a", "b", "c", "folder/a", "folder/b", "folder/deep/a"];

/** The same change to a disk and to a model of it: paths and what is in them. Files may have several names. */
function step(disk, model, random) {
  const root = disk.node(ROOT);
  const pick = (list) => list[Math.floor(random() * list.length)];
  const name = pick(NAMES);
  const file = model.get(name);
  const open = (flags, act) => {
    const node = disk.openAt(root, name, flags);
    try {
      return act(node);
    } finally {
      disk.closed(node);
    }
  };
  const content = () => model.get(name) ?? model.set(name, { bytes: new Uint8Array(0) }).get(name);
  switch (pick(["write", "write", "write", "append", "append", "size", "truncate", "rename", "link", "remove"])) {
    case "write": {
      const at = Math.floor(random() * 20_000);
      const bytes = new Uint8Array(Math.floor(random() * 12_000)).fill(1 + Math.floor(random() * 255));
      open({ create: true }, (node) => disk.write(node, bytes, at));
      const kept = content();
      if (bytes.length > 0) kept.bytes = changed(kept.bytes, { at, bytes });
      break;
    }
    case "append": {
      const bytes = new Uint8Array(Math.floor(random() * 300)).fill(1 + Math.floor(random() * 255));
      open({ create: true }, (node) => disk.write(node, bytes, node.size));
      const kept = content();
      if (bytes.length > 0) kept.bytes = changed(kept.bytes, { at: kept.bytes.length, bytes });
      break;
    }
    case "size": {
      const size = Math.floor(random() * 30_000);
      open({ create: true }, (node) => disk.setSize(node, size));
      content().bytes = changed(content().bytes, { size });
      break;
    }
    case "truncate":
      open({ create: true, truncate: true }, () => {});
      content().bytes = new Uint8Array(0);
      break;
    case "rename": {
      const to = pick(NAMES);
      if (!file) break;
      disk.rename(root, name, root, to);
      // Two names of one file stay, as POSIX has it.
      if (model.get(to) !== file) {
        model.delete(name);
        model.set(to, file);
      }
      break;
    }
    case "link": {
      const to = pick(NAMES);
      if (!file) break;
      if (model.has(to)) assert.throws(() => disk.link(root, name, root, to), (code) => code === "exist");
      else {
        disk.link(root, name, root, to);
        model.set(to, file);
      }
      break;
    }
    case "remove":
      if (!file) assert.throws(() => disk.remove(root, name, false), (code) => code === "no-entry");
      else {
        disk.remove(root, name, false);
        model.delete(name);
      }
  }
}

/** What a model says of a tree. */
function told(model) {
  const files = [...model].map(([name, { bytes }]) => [name, Buffer.from(bytes).toString("latin1")]);
  return new Map([...files, ["folder/", ""], ["folder/deep/", ""]].sort());
}

function begin(machine) {
  const disk = machine.disk();
  disk.makeFolder(disk.node(ROOT), "folder");
  disk.makeFolder(disk.node(ROOT), "folder/deep");
  return disk;
}

test("a random life is as a model has it, and another worker finds the same", () => {
  for (let seed = 1; seed <= 20; seed += 1) {
    const random = generator(seed);
    let machine = new Machine();
    let disk = begin(machine);
    const model = new Map();
    for (let n = 0; n < 150; n += 1) {
      step(disk, model, random);
      if (random() < 0.1) disk.sync();
      if (random() < 0.05) {
        machine = machine.ended();
        disk = machine.disk();
      }
    }
    assert.deepEqual(tree(disk), told(model), `seed ${seed}`);
  }
});

test("what was synced is there after the machine went down, whatever was being done", () => {
  for (let seed = 1; seed <= 150; seed += 1) {
    const random = generator(seed);
    const machine = new Machine();
    const disk = begin(machine);
    const model = new Map();
    for (let n = 0; n < 40; n += 1) step(disk, model, random);
    disk.sync();
    const before = told(model);
    // What goes on touches other files, so that all of these have to be as they were.
    machine.left = Math.floor(random() * 40);
    const root = disk.node(ROOT);
    try {
      for (let n = 0; ; n += 1) {
        const node = disk.openAt(root, `other-${n % 3}`, { create: true, truncate: true });
        disk.write(node, new Uint8Array(9000).fill(n + 1), 0);
        disk.closed(node);
        disk.remove(root, `other-${n % 3}`, false);
        if (n % 5 === 4) disk.sync();
      }
    } catch (error) {
      assert.equal(error, "io");
    }
    const after = tree(machine.crashed(random).disk());
    for (const name of after.keys()) if (name.startsWith("other-")) after.delete(name);
    assert.deepEqual(after, before, `seed ${seed}`);
  }
});

test("what a removed file gave up is not written to before the removal is durable", () => {
  const machine = new Machine();
  const disk = machine.disk();
  const root = disk.node(ROOT);
  const write = (name, byte) => {
    const node = disk.openAt(root, name, { create: true });
    disk.write(node, new Uint8Array(8192).fill(byte), 0);
    disk.closed(node);
  };
  write("kept", 1);
  disk.sync();
  disk.remove(root, "kept", false);
  write("new", 2);
  // The names' file loses what was not flushed; the data's file has all of it.
  machine.files[0].flush();
  const found = tree(machine.crashed(() => 1).disk());
  assert.deepEqual([...found.keys()], ["kept"]);
  assert.equal(found.get("kept"), "\u0001".repeat(8192));
});

test("the list of files stays short, and the disk's file ends where its last block is", () => {
  const machine = new Machine();
  const disk = machine.disk();
  const root = disk.node(ROOT);
  const node = disk.openAt(root, "log", { create: true });
  for (let n = 0; n < 40_000; n += 1) disk.write(node, Uint8Array.of(n), n);
  disk.sync();
  assert.ok(machine.files[1].getSize() + machine.files[2].getSize() < 1 << 20);
  const found = tree(machine.ended().disk()).get("log");
  assert.equal(found.length, 40_000);
  assert.equal(found.charCodeAt(39_999), 39_999 % 256);
});

test("where there is no more room, nothing changes, and what is removed makes some", () => {
  const machine = new Machine();
  const disk = machine.disk();
  const root = disk.node(ROOT);
  const open = (name) => disk.openAt(root, name, { create: true });
  machine.room = 1 << 20;
  const node = open("a");
  let written = 0;
  assert.throws(
    () => {
      for (;;) {
        disk.write(node, new Uint8Array(10_000).fill(3), written);
        written += 10_000;
      }
    },
    (code) => code === "insufficient-space",
  );
  assert.ok(written > 300_000, `${written}`);
  assert.equal(node.size, written);
  disk.closed(node);
  disk.remove(root, "a", false);
  const next = open("b");
  disk.write(next, new Uint8Array(200_000).fill(4), 0);
  disk.closed(next);
  disk.sync();
  assert.deepEqual([...tree(machine.ended().disk()).keys()], ["b"]);
});

test("a removed file can be read as long as it is open, and is gone afterwards", () => {
  const machine = new Machine();
  const disk = machine.disk();
  const root = disk.node(ROOT);
  const node = disk.openAt(root, "a", { create: true });
  disk.write(node, Uint8Array.of(1, 2, 3), 0);
  disk.remove(root, "a", false);
  disk.sync();
  assert.deepEqual([...disk.read(node, 9, 0)], [1, 2, 3]);
  assert.equal(machine.ended().disk().node(node.id), undefined);
  disk.closed(node);
  assert.equal(disk.node(node.id), undefined);
});

test("a file is known by a number that no other has, whatever it is called", () => {
  const machine = new Machine();
  const disk = machine.disk();
  const root = disk.node(ROOT);
  const make = (name) => {
    const node = disk.openAt(root, name, { create: true });
    disk.closed(node);
    return node.id;
  };
  const [first, second] = [make("a"), make("b")];
  disk.rename(root, "b", root, "a");
  assert.equal(disk.lookup(root, "a").id, second);
  const again = machine.ended().disk();
  const third = again.openAt(again.node(ROOT), "c", { create: true }).id;
  assert.equal(new Set([first, second, third]).size, 3);
});

test("a list of files that is damaged is not taken for a shorter one", () => {
  const machine = new Machine();
  const disk = machine.disk();
  const root = disk.node(ROOT);
  const node = disk.openAt(root, "log", { create: true });
  for (let n = 0; n < 40_000; n += 1) disk.write(node, Uint8Array.of(n), n);
  disk.sync();
  const file = machine.files.slice(1).find((file) => file.getSize() > 0);
  file.buffer[60] ^= 1;
  assert.throws(() => machine.disk(), /damaged/);
});
