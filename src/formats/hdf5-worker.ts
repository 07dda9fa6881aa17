/**
 * The thread that libhdf5 (h5wasm) runs in. A damaged file can make the library do anything that its WebAssembly sandbox allows: fail, abort, take memory, or run for
 * ever. Here it may do so without harm: hdf5-library.ts ends the thread when a call takes too long, memory is bounded below, and no other file than the ones
 * asked for can be opened.
 *
 * `hdf5Worker` is given to the thread as text, so that it runs from the source and from dist/ alike: it may use nothing of this module but types.
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

/** What stands in the memory that both sides see: [calls begun + calls ended, milliseconds that the current one may take]. */
export const SHARED_CALLS = 0;
export const SHARED_ALLOWED = 1;

export type Hdf5Request =
  | { readonly kind: "list"; readonly path: string }
  | { readonly kind: "open"; readonly path: string }
  | {
      readonly kind: "read";
      readonly file: number;
      readonly name: string;
      readonly start: readonly number[];
      readonly size: readonly number[];
      readonly bytes: number;
      readonly chunkBytes: number;
    }
  | { readonly kind: "close"; readonly file: number };

export interface Hdf5Listing {
  /** Name and address of the object header of every dataset that hard links reach. */
  readonly datasets: readonly (readonly [name: string, address: bigint])[];
  readonly attributes: readonly (readonly [name: string, value: string | number])[];
}

/** `error`: what the library threw, or `refusal`: what is wrong in our own words. */
export type Hdf5Answer =
  | { readonly id: number; readonly value: Hdf5Listing | number | Uint8Array | undefined }
  | { readonly id: number; readonly error: string }
  | { readonly id: number; readonly refusal: string };

export interface Hdf5WorkerData {
  /** The library's module. */
  readonly url: string;
  readonly shared: Int32Array;
  readonly maxObjects: number;
  readonly maxAttributeBytes: number;
}

/** Answers requests until the thread is ended; one at a time, in their order. */
export function hdf5Worker(
  load: (url: string) => Promise<unknown>,
  { parentPort, workerData }: typeof import("node:worker_threads"),
  fs: typeof import("node:fs"),
): void {
  /** Memory that the library may have for what is not data: its code's own, its caches, the objects of a file. */
  const BASE_BYTES = 96 * 2 ** 20;
  /** What a call may take; reading has more, for 50 MB/s. */
  const CALL_MS = 500;
  const BYTES_PER_MS = 50_000;
  const { url, shared, maxObjects, maxAttributeBytes } = workerData as Hdf5WorkerData;

  let limit = BASE_BYTES;
  const files = new Map<number, { readonly library: Library; readonly id: bigint }>();
  const allowed = new Set<string>();
  let opened = 0;

  // The library's memory grows by this call alone; refused, its malloc returns 0 and it gives up with an error. All of this is the thread's own.
  const wasm = (globalThis as unknown as { WebAssembly: WebAssemblyApi }).WebAssembly;
  const { instantiate } = wasm;
  let compiled: Promise<object> | undefined;
  wasm.instantiate = async (binary, imports) => {
    compiled ??= wasm.compile(binary as Uint8Array);
    const module = await compiled;
    const instance = (await instantiate(module, imports)) as WebAssemblyInstance;
    const { memory } = instance.exports;
    const grow = memory.grow.bind(memory);
    memory.grow = (pages) => {
      if (memory.buffer.byteLength + pages * 65536 > limit) throw new RangeError("no more memory for this file");
      return grow(pages);
    };
    return { instance, module };
  };
  // It opens what was asked for and nothing else; what it would print goes nowhere. Its error messages go through a new file of C's tmpfile().
  const { openSync, closeSync, writeSync } = fs;
  const messages = new Set<number>();
  const descriptors = new Set<number>();
  Object.assign(fs, {
    openSync: (...args: Parameters<typeof openSync>) => {
      const [path, flags] = args;
      const isNew = typeof flags === "number" && (flags & fs.constants.O_CREAT) !== 0 && (flags & fs.constants.O_EXCL) !== 0;
      const isMessage = isNew && /^\/tmp\/tmpfile_\w+$/.test(String(path));
      if (!isMessage && !allowed.has(String(path))) {
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
    writeSync: (file: number, bytes: Uint8Array, at: number, length: number, position: number | null) =>
      messages.has(file) ? writeSync(file, bytes, at, length, position) : length,
  });

  /** A call that fails leaves files open: what no instance can use any more is closed. */
  function tidy(): void {
    if (files.size > 0) return;
    for (const file of descriptors) closeSync(file);
    descriptors.clear();
    messages.clear();
  }

  let current: Promise<Library> | undefined;
  async function loaded(): Promise<Library> {
    // The package's own entry makes one instance for good, and lets it print to stderr; this is what it makes it with.
    current ??= load(url).then(async (module) => {
      const { default: factory } = module as { default: (options: object) => Promise<Library> };
      const library = await factory({ noInitialRun: true, print: () => undefined, printErr: () => undefined });
      // Without it a failed call returns garbage.
      library.activate_throwing_error_handler();
      return library;
    });
    return current;
  }

  /** A call of the library, which the other side watches. */
  function call<T>(run: () => T, milliseconds = 0): T {
    Atomics.store(shared, 1, CALL_MS + milliseconds);
    Atomics.add(shared, 0, 1);
    try {
      return run();
    } finally {
      Atomics.add(shared, 0, 1);
    }
  }

  class Refusal extends Error {}

  function openFile(library: Library, path: string): bigint {
    allowed.add(path);
    return call(() => library.open(path, library.H5F_ACC_RDONLY, false, -1, -1));
  }

  /** An object reference of the old kind is the address of the object's header. */
  function addressOf(library: Library, id: bigint, name: string): bigint {
    return Buffer.from(call(() => library.create_object_reference(id, name))).readBigUInt64LE();
  }

  function list(library: Library, path: string): Hdf5Listing {
    const id = openFile(library, path);
    try {
      const datasets: [string, bigint][] = [];
      const seen = new Set<bigint>([addressOf(library, id, "/")]);
      const groups = [""];
      let objects = 0;
      for (let prefix = groups.pop(); prefix !== undefined; prefix = groups.pop()) {
        const group = prefix;
        for (const child of call(() => library.get_names(id, `/${group}`, false))) {
          if (++objects > maxObjects) throw new Refusal(`more than ${maxObjects} objects`);
          const name = group + child;
          const elsewhere = call(
            () => library.get_external_link(id, name).filename !== undefined || library.get_symbolic_link(id, name) !== null,
          );
          if (elsewhere) continue;
          const type = call(() => library.get_type(id, name));
          const address = addressOf(library, id, name);
          if (type === library.H5G_DATASET) datasets.push([name, address]);
          else if (type === library.H5G_GROUP && !seen.has(address)) groups.push(`${name}/`);
          seen.add(address);
        }
      }
      const attributes: [string, string | number][] = [];
      for (const name of call(() => library.get_attribute_names(id, "/") as string[])) {
        const value = call(() => scalarAttribute(library, id, name));
        if (value !== undefined) attributes.push([name, value]);
      }
      return { datasets, attributes };
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

  function read({ file, name, start, size, bytes, chunkBytes }: Extract<Hdf5Request, { kind: "read" }>): Uint8Array {
    const { library, id } = files.get(file)!;
    // A chunk as stored and as it was, while it is inflated into ever larger memory; the slab.
    limit = BASE_BYTES + 4 * chunkBytes + 2 * bytes;
    const at = library._malloc(bytes);
    if (at === 0) throw new Error(`no memory for a slab of ${bytes} bytes`);
    try {
      const [count, offset] = [size.map(BigInt), start.map(BigInt)];
      const stride = size.map(() => 1n);
      const status = call(() => library.get_dataset_data(id, name, count, offset, stride, BigInt(at)), (bytes + chunkBytes) / BYTES_PER_MS);
      if (status < 0) throw new Error("the library gives no reason");
      return library.HEAPU8.slice(at, at + bytes);
    } finally {
      library._free(at);
    }
  }

  async function answer(request: Hdf5Request): Promise<Hdf5Listing | number | Uint8Array | undefined> {
    limit = BASE_BYTES;
    if (request.kind === "read") return read(request);
    if (request.kind === "list") return list(await loaded(), request.path);
    if (request.kind === "open") {
      const library = await loaded();
      files.set(++opened, { library, id: openFile(library, request.path) });
      return opened;
    }
    const { library, id } = files.get(request.file)!;
    files.delete(request.file);
    call(() => library.close_file(id));
    if (current === undefined) tidy();
    return undefined;
  }

  let before: Promise<void> = Promise.resolve();
  parentPort!.on("message", ({ id, request }: { id: number; request: Hdf5Request }) => {
    before = before.then(async () => {
      try {
        const value = await answer(request);
        parentPort!.postMessage({ id, value }, value instanceof Uint8Array ? [value.buffer as ArrayBuffer] : []);
      } catch (thrown) {
        if (thrown instanceof Refusal) return parentPort!.postMessage({ id, refusal: thrown.message });
        // What is opened from now on gets a new instance: a failed call leaves its objects open, and the library would answer for another file of the same
        // inode from what it remembers of this one.
        current = undefined;
        tidy();
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
