/**
 * What a disk may hold after a power cut. A recording storage notes what every call did to files
 * and names; from the notes up to any moment a folder is made that has what was synced by then, and
 * of the rest whatever a chooser lets survive: data and names of the last moments reach a disk in
 * any order, or not at all.
 */

import { mkdir, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { disk, type OutputFile, type Storage } from "../../src/checkpoint/storage.ts";

/** One effect of a call. Files and folders are numbered; 0 is the folder that is there before. */
type Effect =
  | { readonly kind: "link"; readonly folder: number; readonly name: string; readonly node: number }
  | { readonly kind: "unlink"; readonly folder: number; readonly name: string }
  | {
      readonly kind: "rename";
      readonly folder: number;
      readonly from: string;
      readonly to: string;
      readonly node: number;
    }
  | { readonly kind: "write"; readonly node: number; readonly at: number; readonly bytes: Uint8Array }
  | { readonly kind: "truncate"; readonly node: number; readonly size: number }
  | { readonly kind: "sync"; readonly node: number };

/**
 * How much of an effect that was not synced survives, from 0 (nothing) to 1. Only writes can
 * survive in part.
 */
export type Chooser = () => number;

/** A file system as names and bytes. A folder has `names`. */
interface Node {
  readonly names: Map<string, number> | undefined;
  bytes: Uint8Array;
}

export interface Recording {
  readonly storage: Storage;
  /** Effects so far. */
  readonly length: () => number;
  /**
   * Makes the folder `into` as it may be found when the power is cut after the first `length`
   * effects.
   */
  readonly restore: (length: number, choose: Chooser, into: string) => Promise<void>;
}

/** Records what is done in the folder `root`, which exists and is empty. */
export function recording(root: string): Recording {
  const real: Storage = { ...disk };
  const effects: Effect[] = [];
  const live: Node[] = [newNode(true)];

  const find = (path: string): number => {
    if (path === root) return 0;
    const found = live[find(dirname(path))]?.names?.get(basename(path));
    if (found === undefined) throw new Error(`${path} was made by nobody`);
    return found;
  };
  const has = (path: string): boolean => path === root || live[find(dirname(path))]!.names!.has(basename(path));
  const note = (effect: Effect): void => {
    effects.push(effect);
    apply(live, effect, 1);
  };
  const link = (path: string, folder: boolean): number => {
    const node = live.push(newNode(folder)) - 1;
    note({ kind: "link", folder: find(dirname(path)), name: basename(path), node });
    return node;
  };
  const forget = (path: string): void => {
    if (!has(path)) return;
    for (const name of live[find(path)]!.names?.keys() ?? []) forget(join(path, name));
    note({ kind: "unlink", folder: find(dirname(path)), name: basename(path) });
  };
  const opened = <T extends OutputFile>(file: T, node: number): T => ({
    ...file,
    async write(bytes: Uint8Array, at: number) {
      await file.write(bytes, at);
      note({ kind: "write", node, at, bytes: bytes.slice() });
    },
    async truncate(size: number) {
      await file.truncate(size);
      note({ kind: "truncate", node, size });
    },
    async sync() {
      await file.sync();
      note({ kind: "sync", node });
    },
  });

  const storage: Storage = {
    ...real,
    async makeFolder(path) {
      const made = await real.makeFolder(path);
      if (!has(path)) link(path, true);
      return made;
    },
    async create(path) {
      return opened(await real.create(path), link(path, false));
    },
    async open(path) {
      const file = await real.open(path);
      return opened(file, has(path) ? find(path) : link(path, false));
    },
    async rename(from, to) {
      await real.rename(from, to);
      note({ kind: "rename", folder: find(dirname(from)), from: basename(from), to: basename(to), node: find(from) });
    },
    async remove(path) {
      await real.remove(path);
      forget(path);
    },
    async syncFolder(path) {
      await real.syncFolder(path);
      if (path === dirname(root)) return;
      note({ kind: "sync", node: find(path) });
    },
  };
  return {
    storage,
    length: () => effects.length,
    restore: (length, choose, into) => {
      const done = effects.slice(0, length);
      const found = live.map(({ names }) => newNode(names !== undefined));
      for (const [i, effect] of done.entries()) {
        const node = "folder" in effect ? effect.folder : effect.node;
        const synced = done.slice(i + 1).some((later) => later.kind === "sync" && later.node === node);
        apply(found, effect, synced ? 1 : choose());
      }
      return build(found, 0, into);
    },
  };
}

const newNode = (folder: boolean): Node => ({ names: folder ? new Map() : undefined, bytes: new Uint8Array(0) });

function apply(nodes: readonly Node[], effect: Effect, share: number): void {
  if (effect.kind === "sync" || share === 0) return;
  if (effect.kind === "write") {
    const { node, at, bytes } = effect;
    const kept = bytes.subarray(0, Math.floor(bytes.byteLength * share));
    nodes[node]!.bytes = resized(nodes[node]!.bytes, Math.max(nodes[node]!.bytes.byteLength, at + kept.byteLength));
    nodes[node]!.bytes.set(kept, at);
    return;
  }
  if (effect.kind === "truncate") {
    nodes[effect.node]!.bytes = resized(nodes[effect.node]!.bytes, effect.size);
    return;
  }
  const names = nodes[effect.folder]!.names!;
  if (effect.kind === "link") names.set(effect.name, effect.node);
  else if (effect.kind === "unlink") names.delete(effect.name);
  else {
    if (names.get(effect.from) === effect.node) names.delete(effect.from);
    names.set(effect.to, effect.node);
  }
}

function resized(bytes: Uint8Array, size: number): Uint8Array {
  const result = new Uint8Array(size);
  result.set(bytes.subarray(0, size));
  return result;
}

async function build(nodes: readonly Node[], node: number, path: string): Promise<void> {
  const { names, bytes } = nodes[node]!;
  if (names === undefined) return writeFile(path, bytes);
  await mkdir(path);
  for (const [name, child] of names) await build(nodes, child, join(path, name));
}
