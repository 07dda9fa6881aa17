/**
 * The thread that libhdf5 (h5wasm) runs in. A damaged file can make the library do anything that
 * its WebAssembly sandbox allows: fail, abort, take memory, or run for ever. Here it may do so
 * without harm: hdf5-library.ts ends the thread when a call takes too long, memory is bounded
 * below, and no other file than the ones asked for can be opened.
 *
 * `hdf5Worker` is given to the thread as text, so that it runs from the source and from dist/
 * alike: it may use nothing of this module but types.
 */

import type { ready } from "h5wasm/node";

type Library = Awaited<typeof ready>;

/** As much of the global WebAssembly as is used; Node's types do not have it. */
interface WebAssemblyApi {
  compile(binary: Uint8Array): Promise<object>;
  instantiate(module: object, imports: object): Promise<object>;
}
interface WebAssemblyInstance {
  readonly exports: { readonly memory: { readonly buffer: ArrayBuffer; grow(pages: number): number } };
}

export interface Hdf5Listing {
  /** Name and address of the object header of every dataset that hard links reach. */
  readonly datasets: readonly (readonly [name: string, address: bigint])[];
  /** Soft links, and the further hard links of a group: name and target, a path from the root. */
  readonly links: readonly (readonly [name: string, target: string])[];
  /** External links: name, and the file that they lead to. */
  readonly external: readonly (readonly [name: string, file: string])[];
  readonly attributes: readonly (readonly [name: string, value: string | number])[];
}

/**
 * `error`: what the library threw; `refusal`: what is wrong in our own words; `noLibrary`: why
 * WebAssembly could not start it.
 */
export type Hdf5Answer =
  | { readonly id: number; readonly value: Hdf5Listing }
  | { readonly id: number; readonly error: string }
  | { readonly id: number; readonly refusal: string }
  | { readonly id: number; readonly noLibrary: string };

export interface Hdf5Request {
  readonly id: number;
  readonly path: string;
  readonly patch: Hdf5Patch | undefined;
}

/** Bytes of a file that the library reads otherwise than they are. */
export interface Hdf5Patch {
  readonly at: number;
  readonly bytes: Uint8Array;
}

export interface Hdf5WorkerData {
  /** The library's module. */
  readonly url: string;
  /** [calls begun + calls ended], which both sides see: odd while the library is at work. */
  readonly shared: Int32Array;
  readonly maxObjects: number;
  readonly maxAttributeBytes: number;
}

/**
 * Lists one file after the other, in the order of the requests { id, path }, until the thread is
 * ended.
 */
export function hdf5Worker(
  load: (url: string) => Promise<unknown>,
  { parentPort, workerData }: typeof import("node:worker_threads"),
  fs: typeof import("node:fs"),
): void {
  /**
   * Memory that the library may have: its own, its caches, the objects of a file. No data of
   * datasets is ever in it.
   */
  const MAX_BYTES = 96 * 2 ** 20;
  const { url, shared, maxObjects, maxAttributeBytes } = workerData as Hdf5WorkerData;

  class Refusal extends Error {}

  let allowed: string | undefined;
  let patch: Hdf5Patch | undefined;
  /**
   * While the library itself is loaded, which later versions of node do with these same functions;
   * no file has been asked for then.
   */
  let loading = false;

  // The library's memory grows by this call alone; refused, its malloc returns 0 and it gives up
  // with an error. All of this is the thread's own.
  const wasm = (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;
  const { instantiate } = wasm;
  let compiled: Promise<object> | undefined;
  let noLibrary: string | undefined;
  wasm.instantiate = async (binary, imports) => {
    compiled ??= wasm.compile(binary as Uint8Array);
    const module = await compiled;
    const instance = (await instantiate(module, imports).catch((thrown: unknown) => {
      // The library's loader tries again in another way, and reports only why that failed.
      noLibrary = thrown instanceof Error ? thrown.message : String(thrown);
      throw thrown;
    })) as WebAssemblyInstance;
    const { memory } = instance.exports;
    const grow = memory.grow.bind(memory);
    memory.grow = (pages) => {
      if (memory.buffer.byteLength + pages * 65536 > MAX_BYTES) throw new RangeError("no more memory for this file");
      return grow(pages);
    };
    return { instance, module };
  };
  // It opens what was asked for and nothing else; what it would print goes nowhere. Its error
  // messages go through a new file of C's tmpfile().
  const { openSync, closeSync, readSync, writeSync } = fs;
  const messages = new Set<number>();
  const descriptors = new Set<number>();
  Object.assign(fs, {
    openSync: (...args: Parameters<typeof openSync>) => {
      const [path, flags] = args;
      const isNew =
        typeof flags === "number" && (flags & fs.constants.O_CREAT) !== 0 && (flags & fs.constants.O_EXCL) !== 0;
      const isMessage = isNew && /^\/tmp\/tmpfile_\w+$/.test(String(path));
      if (!isMessage && !loading && path !== allowed) {
        throw Object.assign(new Error("not a file that was asked for"), { code: "ENOENT", errno: -2 });
      }
      const file = openSync(...args);
      descriptors.add(file);
      if (isMessage) messages.add(file);
      return file;
    },
    closeSync: (file: number) => {
      descriptors.delete(file);
      messages.delete(file);
      closeSync(file);
    },
    readSync: (file: number, into: Uint8Array, at: number, length: number, position: number | null) => {
      const read = readSync(file, into, at, length, position);
      if (patch === undefined || position === null || messages.has(file) || loading) return read;
      const [first, end] = [Math.max(position, patch.at), Math.min(position + read, patch.at + patch.bytes.length)];
      if (first < end) into.set(patch.bytes.subarray(first - patch.at, end - patch.at), at + first - position);
      return read;
    },
    writeSync: (file: number, bytes: Uint8Array, at: number, length: number, position: number | null) =>
      messages.has(file) ? writeSync(file, bytes, at, length, position) : length,
  });

  /** A call that fails leaves files open, which no other instance can use. */
  function tidy(): void {
    for (const file of descriptors) closeSync(file);
    descriptors.clear();
    messages.clear();
  }

  let current: Promise<Library> | undefined;
  async function loaded(): Promise<Library> {
    // The package's own entry makes one instance for good, and lets it print to stderr; this is
    // what it makes it with.
    loading = current === undefined;
    current ??= load(url).then(async (module) => {
      loading = false;
      const { default: factory } = module as { default: (options: object) => Promise<Library> };
      const library = await factory({ noInitialRun: true, print: () => undefined, printErr: () => undefined });
      // Without it a failed call returns garbage.
      library.activate_throwing_error_handler();
      return library;
    });
    return current;
  }

  /** A call of the library, which the other side watches. */
  function call<T>(run: () => T): T {
    Atomics.add(shared, 0, 1);
    try {
      return run();
    } finally {
      Atomics.add(shared, 0, 1);
    }
  }

  /** An object reference of the old kind is the address of the object's header. */
  function addressOf(library: Library, id: bigint, name: string): bigint {
    return Buffer.from(call(() => library.create_object_reference(id, name))).readBigUInt64LE();
  }

  function list(library: Library, path: string): Hdf5Listing {
    allowed = path;
    const id = call(() => library.open(path, library.H5F_ACC_RDONLY, false, -1, -1));
    try {
      const datasets: [string, bigint][] = [];
      const links: [string, string][] = [];
      const external: [string, string][] = [];
      /** Groups by their address: the first name of each. */
      const seen = new Map<bigint, string>([[addressOf(library, id, "/"), ""]]);
      const groups = [""];
      let objects = 0;
      for (let prefix = groups.shift(); prefix !== undefined; prefix = groups.shift()) {
        const group = prefix;
        for (const child of call(() => library.get_names(id, `/${group}`, false))) {
          if (++objects > maxObjects) throw new Refusal(`more than ${maxObjects} objects`);
          const name = group + child;
          const file = call(() => library.get_external_link(id, name).filename);
          if (file !== undefined) external.push([name, file]);
          const target = call(() => library.get_symbolic_link(id, name));
          if (target !== null && file === undefined)
            links.push([name, target.startsWith("/") ? target : group + target]);
          if (file !== undefined || target !== null) continue;
          const type = call(() => library.get_type(id, name));
          const address = addressOf(library, id, name);
          if (type === library.H5G_DATASET) datasets.push([name, address]);
          if (type !== library.H5G_GROUP) continue;
          const first = seen.get(address);
          if (first !== undefined) links.push([name, first]);
          else {
            seen.set(address, name);
            groups.push(`${name}/`);
          }
        }
      }
      const attributes: [string, string | number][] = [];
      for (const name of call(() => library.get_attribute_names(id, "/") as string[])) {
        const value = call(() => scalarAttribute(library, id, name));
        if (value !== undefined) attributes.push([name, value]);
      }
      return { datasets, links, external, attributes };
    } finally {
      call(() => library.close_file(id));
    }
  }

  /** A string or a number that JavaScript holds exactly; undefined for anything else. */
  function scalarAttribute(library: Library, id: bigint, name: string): string | number | undefined {
    const { type, size, shape, vlen, signed } = library.get_attribute_metadata(id, "/", name);
    const { H5T_STRING, H5T_INTEGER, H5T_FLOAT } = library.H5T_class_t;
    const text = type === H5T_STRING.value;
    const whole = type === H5T_INTEGER.value && [1, 2, 4, 8].includes(size);
    if (shape?.length !== 0 || size > maxAttributeBytes) return undefined;
    if (!text && !whole && !(type === H5T_FLOAT.value && (size === 4 || size === 8))) return undefined;
    const at = library._malloc(size);
    if (at === 0) throw new Error(`no memory for an attribute of ${size} bytes`);
    try {
      library.get_attribute_data(id, "/", name, BigInt(at));
      const bytes = Buffer.from(library.HEAPU8.slice(at, at + size));
      if (text && vlen) {
        const value = library.UTF8ToString(bytes.readUInt32LE());
        library.reclaim_vlen_memory(id, "/", name, BigInt(at));
        return value;
      }
      if (text) return bytes.toString("utf8").replace(/\0.*$/s, "");
      if (!whole) return size === 4 ? bytes.readFloatLE() : bytes.readDoubleLE();
      if (size < 8) return signed ? bytes.readIntLE(0, size) : bytes.readUIntLE(0, size);
      const value = Number(signed ? bytes.readBigInt64LE() : bytes.readBigUInt64LE());
      return Number.isSafeInteger(value) ? value : undefined;
    } finally {
      library._free(at);
    }
  }

  let before: Promise<void> = Promise.resolve();
  parentPort!.on("message", (request: Hdf5Request) => {
    before = before.then(async () => {
      const { id, path } = request;
      patch = request.patch;
      try {
        parentPort!.postMessage({ id, value: list(await loaded(), path) });
      } catch (thrown) {
        if (thrown instanceof Refusal) return parentPort!.postMessage({ id, refusal: thrown.message });
        // The next file gets a new instance: a failed call leaves its objects open, and the library
        // would answer for another file of the same inode from what it remembers of this one.
        current = undefined;
        tidy();
        if (noLibrary !== undefined) return parentPort!.postMessage({ id, noLibrary });
        parentPort!.postMessage({ id, error: thrown instanceof Error ? thrown.message : String(thrown) });
      }
    });
  });
  // Of the thread, for the clock of the other side; there is none where there is no /proc.
  let thread: string | undefined;
  try {
    thread = fs.readlinkSync("/proc/thread-self");
  } catch {}
  parentPort!.postMessage({ thread });
}
