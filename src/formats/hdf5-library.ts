/**
 * libhdf5 compiled to WebAssembly (h5wasm), in a thread of its own (hdf5-worker.ts), which is started at first use and ends with the process. Whatever it does with a damaged
 * file becomes a FormatError: a failed call, an abort, too much memory, and a call that does not come back.
 */

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { Worker } from "node:worker_threads";
import { FormatError, messageOf } from "../util/errors.ts";
import {
  type Hdf5Answer,
  type Hdf5Listing,
  type Hdf5Request,
  type Hdf5WorkerData,
  hdf5Worker,
  SHARED_ALLOWED,
  SHARED_CALLS,
} from "./hdf5-worker.ts";

export type { Hdf5Listing } from "./hdf5-worker.ts";

/** Objects that a file may have; a file of activations has a handful. */
const MAX_OBJECTS = 10_000;
const MAX_ATTRIBUTE_BYTES = 64 * 1024;

const MEND = "write the file again or check it with h5py";

/** Every dataset of a file and the attributes of its root. Throws FormatError when the library cannot tell. */
export async function listHdf5(path: string): Promise<Hdf5Listing> {
  return (await LibraryThread.shared().ask({ kind: "list", path: resolve(path) }, path, "opening")) as Hdf5Listing;
}

/** One file in the library, which is opened when it is first read. */
export class Hdf5LibraryFile {
  readonly #path: string;
  /** The file's number in a thread. */
  #open: { readonly thread: LibraryThread; readonly file: Promise<number> } | undefined;
  /** Nothing more is asked of a file with which the library did not come back. */
  #hung: FormatError | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** A slab of a dataset, little-endian. `chunkBytes`: of its largest chunk, unpacked. */
  async read(name: string, start: readonly number[], size: readonly number[], bytes: number, chunkBytes: number): Promise<Uint8Array> {
    if (this.#hung !== undefined) throw this.#hung;
    try {
      if (this.#open === undefined || this.#open.thread.dead) {
        const thread = LibraryThread.shared();
        const file = thread.ask({ kind: "open", path: resolve(this.#path) }, this.#path, "opening") as Promise<number>;
        file.catch(() => undefined); // it is awaited below
        this.#open = { thread, file };
      }
      const { thread, file } = this.#open;
      const request = { kind: "read", file: await file, name, start, size, bytes, chunkBytes } as const;
      return (await thread.ask(request, this.#path, `reading ${name}`)) as Uint8Array;
    } catch (thrown) {
      if (thrown instanceof HungError) this.#hung = thrown;
      throw thrown;
    }
  }

  async close(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    if (open === undefined || open.thread.dead) return;
    const file = await open.file.catch(() => undefined);
    if (file !== undefined) await open.thread.ask({ kind: "close", file }, this.#path, "closing");
  }
}

class HungError extends FormatError {}

interface Waiting {
  readonly where: string;
  readonly doing: string;
  readonly settle: (value: unknown) => void;
  readonly reject: (error: FormatError) => void;
}

const WATCH_MS = 50;
/** Where the thread's own time is not known, a clock on the wall allows this many times as much. */
const WALL_FACTOR = 20;
const TICKS_PER_SECOND = 100;

class LibraryThread {
  static #current: LibraryThread | undefined;

  static shared(): LibraryThread {
    if (LibraryThread.#current === undefined || LibraryThread.#current.dead) LibraryThread.#current = new LibraryThread();
    return LibraryThread.#current;
  }

  readonly #worker: Worker;
  readonly #shared = new Int32Array(new SharedArrayBuffer(8));
  /** In the order of the requests: the first is being answered. */
  readonly #waiting = new Map<number, Waiting>();
  #asked = 0;
  #watch: NodeJS.Timeout | undefined;
  /** The call that was under way at the last look, and the thread's time then. */
  #seen = { calls: 0, since: 0 };
  /** /proc/PID/task/TID, where there is such a thing. */
  #proc: string | undefined;
  dead = false;

  private constructor() {
    const url = new URL("hdf5_util.js", import.meta.resolve("h5wasm/node")).href;
    const workerData: Hdf5WorkerData = { url, shared: this.#shared, maxObjects: MAX_OBJECTS, maxAttributeBytes: MAX_ATTRIBUTE_BYTES };
    const code = `(${hdf5Worker})((url) => import(url), require("node:worker_threads"), require("node:fs"))`;
    this.#worker = new Worker(code, { eval: true, workerData, execArgv: [], stdout: true, stderr: true });
    this.#worker.on("message", (message: Hdf5Answer | { readonly thread: string | undefined }) => {
      if ("id" in message) this.#answered(message);
      else if (message.thread !== undefined) this.#proc = `/proc/${message.thread}`;
    });
    this.#worker.on("error", (thrown) => this.#end(messageOf(thrown)));
    this.#worker.on("exit", () => this.#end("the library ended"));
    this.#worker.unref();
  }

  ask(request: Hdf5Request, where: string, doing: string): Promise<unknown> {
    return new Promise((settle, reject) => {
      const id = ++this.#asked;
      this.#waiting.set(id, { where, doing, settle, reject });
      this.#worker.ref(); // the process waits for an answer
      this.#watch ??= setInterval(() => this.#look(), WATCH_MS);
      this.#worker.postMessage({ id, request });
    });
  }

  #answered(answer: Hdf5Answer): void {
    const waiting = this.#waiting.get(answer.id);
    if (waiting === undefined) return;
    this.#waiting.delete(answer.id);
    if (this.#waiting.size === 0) this.#rest();
    const { where, doing, settle, reject } = waiting;
    if ("value" in answer) settle(answer.value);
    else if ("refusal" in answer) reject(new FormatError(answer.refusal, { where }));
    else reject(new FormatError(`${doing} failed: ${reason(answer.error)}`, { where, mend: MEND, cause: answer.error }));
  }

  #rest(): void {
    clearInterval(this.#watch);
    this.#watch = undefined;
    this.#worker.unref();
  }

  /** Ends the thread when the call that is under way has had more of the processor's time than it may take. */
  #look(): void {
    const calls = Atomics.load(this.#shared, SHARED_CALLS);
    const now = this.#milliseconds();
    if (calls !== this.#seen.calls) this.#seen = { calls, since: now };
    const underWay = calls % 2 !== 0;
    if (underWay && now - this.#seen.since > Atomics.load(this.#shared, SHARED_ALLOWED)) {
      void this.#worker.terminate();
      this.#end("the HDF5 library did not come back", true);
    }
  }

  #milliseconds(): number {
    if (this.#proc !== undefined) {
      try {
        const fields = readFileSync(`${this.#proc}/stat`, "latin1")
          .replace(/^.*\) /s, "")
          .split(" ");
        return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
      } catch {
        this.#proc = undefined;
        this.#seen = { calls: 0, since: 0 };
      }
    }
    return performance.now() / WALL_FACTOR;
  }

  /** What was asked first is to blame; what waits behind it is asked again by nobody, and says so. */
  #end(why: string, hung = false): void {
    if (this.dead) return;
    this.dead = true;
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    this.#rest();
    for (const { where, doing, reject } of all) {
      const context = { where, mend: MEND };
      reject(hung ? new HungError(`${doing} failed: ${why}`, context) : new FormatError(`${doing} failed: ${why}`, context));
    }
  }
}

/** The last entry of HDF5's error stack is the innermost; "  #005: /path/H5F.c line 388 in H5F__super_read(): file signature not found". */
function reason(text: string): string {
  const entries = [...text.matchAll(/^\s*#\d+: .*?\(\): (.+)$/gm)];
  return entries.at(-1)?.[1] ?? text.slice(0, 200);
}
