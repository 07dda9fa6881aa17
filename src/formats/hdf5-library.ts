/**
 * libhdf5 compiled to WebAssembly (h5wasm), in a thread of its own (hdf5-worker.ts), which is
 * started at first use and ends with the process. Whatever it does with a damaged file becomes a
 * FormatError: a failed call, an abort, too much memory, and a call that does not come back.
 */

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { Worker } from "node:worker_threads";
import { FormatError, messageOf, SaettaError } from "../util/errors.ts";
import {
  type Hdf5Answer,
  type Hdf5Listing,
  type Hdf5Patch,
  type Hdf5Request,
  type Hdf5WorkerData,
  hdf5Worker,
} from "./hdf5-worker.ts";

/** Objects that a file may have; a file of activations has a handful. */
const MAX_OBJECTS = 10_000;
const MAX_ATTRIBUTE_BYTES = 64 * 1024;

/**
 * Every dataset and link of a file and the attributes of its root. `patch`: bytes that the library
 * is to find in place of those of the file. Throws FormatError when the library cannot tell.
 */
export function listHdf5(path: string, patch: Hdf5Patch | undefined): Promise<Hdf5Listing> {
  return LibraryThread.shared().list(path, patch);
}

interface Waiting {
  readonly path: string;
  readonly patch: Hdf5Patch | undefined;
  readonly settle: (value: Hdf5Listing) => void;
  readonly reject: (error: SaettaError) => void;
}

/**
 * What one call of the library may take of the processor's time; a group with ten thousand members
 * takes a tenth of it.
 */
const CALL_MS = 1000;
const WATCH_MS = 50;
/** Where the thread's own time is not known, a clock on the wall allows this many times as much. */
const WALL_FACTOR = 20;
const TICKS_PER_SECOND = 100;

class LibraryThread {
  static #current: LibraryThread | undefined;

  static shared(): LibraryThread {
    if (LibraryThread.#current === undefined || LibraryThread.#current.dead)
      LibraryThread.#current = new LibraryThread();
    return LibraryThread.#current;
  }

  readonly #worker: Worker;
  readonly #shared = new Int32Array(new SharedArrayBuffer(4));
  /** In the order of the requests: the first is being answered. */
  readonly #waiting = new Map<number, Waiting>();
  #asked = 0;
  #watch: NodeJS.Timeout | undefined;
  /** The call that was under way at the last look, and the thread's time then. */
  #seen = { calls: -1, since: 0 };
  /** /proc/PID/task/TID, where there is such a thing. */
  #proc: string | undefined;
  dead = false;

  private constructor() {
    const url = new URL("hdf5_util.js", import.meta.resolve("h5wasm/node")).href;
    const workerData: Hdf5WorkerData = {
      url,
      shared: this.#shared,
      maxObjects: MAX_OBJECTS,
      maxAttributeBytes: MAX_ATTRIBUTE_BYTES,
    };
    const code = `(${hdf5Worker})((url) => import(url), require("node:worker_threads"), require("node:fs"))`;
    this.#worker = new Worker(code, { eval: true, workerData, execArgv: [], stdout: true, stderr: true });
    this.#worker.on("message", (message: Hdf5Answer | { readonly thread: string | undefined }) => {
      if ("id" in message) this.#answered(message);
      else this.#setClock(message.thread === undefined ? undefined : `/proc/${message.thread}`);
    });
    this.#worker.on("error", (thrown) => this.#end(messageOf(thrown)));
    this.#worker.on("exit", () => this.#end("the library ended"));
    this.#worker.unref();
  }

  list(path: string, patch: Hdf5Patch | undefined): Promise<Hdf5Listing> {
    return new Promise((settle, reject) => {
      const id = ++this.#asked;
      this.#waiting.set(id, { path, patch, settle, reject });
      this.#worker.ref(); // the process waits for an answer
      this.#watch ??= setInterval(() => this.#look(), WATCH_MS);
      const request: Hdf5Request = { id, path: resolve(path), patch };
      this.#worker.postMessage(request);
    });
  }

  #answered(answer: Hdf5Answer): void {
    const waiting = this.#waiting.get(answer.id);
    if (waiting === undefined) return;
    this.#waiting.delete(answer.id);
    if (this.#waiting.size === 0) this.#rest();
    const { path, settle, reject } = waiting;
    if ("value" in answer) settle(answer.value);
    else if ("refusal" in answer) reject(new FormatError(answer.refusal, { where: path }));
    else if ("noLibrary" in answer) reject(notStarted(answer.noLibrary));
    else reject(failed(path, reason(answer.error)));
  }

  #rest(): void {
    clearInterval(this.#watch);
    this.#watch = undefined;
    this.#worker.unref();
  }

  /**
   * Ends the thread when the call that is under way has had more of the processor's time than it
   * may take.
   */
  #look(): void {
    const now = this.#milliseconds();
    const calls = Atomics.load(this.#shared, 0);
    if (calls !== this.#seen.calls) this.#seen = { calls, since: now };
    const underWay = calls % 2 !== 0;
    if (underWay && now - this.#seen.since > CALL_MS) {
      void this.#worker.terminate();
      this.#end("the HDF5 library did not come back");
    }
  }

  /** Times of different clocks are not compared: the next look begins anew. */
  #setClock(proc: string | undefined): void {
    this.#proc = proc;
    this.#seen = { calls: -1, since: 0 };
  }

  #milliseconds(): number {
    if (this.#proc !== undefined) {
      try {
        const fields = readFileSync(`${this.#proc}/stat`, "latin1")
          .replace(/^.*\) /s, "")
          .split(" ");
        return ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS_PER_SECOND;
      } catch {
        this.#setClock(undefined);
      }
    }
    return performance.now() / WALL_FACTOR;
  }

  /**
   * The file that was asked for first is to blame; those behind it are listed by another thread.
   */
  #end(why: string): void {
    if (this.dead) return;
    this.dead = true;
    const [first, ...others] = this.#waiting.values();
    this.#waiting.clear();
    this.#rest();
    first?.reject(failed(first.path, why));
    for (const { path, patch, settle, reject } of others) listHdf5(path, patch).then(settle, reject);
  }
}

/**
 * The file is not to blame: WebAssembly reserves about 10 GiB of addresses, of which it uses a few
 * MiB, to catch reads out of bounds.
 */
function notStarted(why: string): SaettaError {
  return new SaettaError(`HDF5 files need WebAssembly, which has no room for its guard memory (${why})`, {
    mend: "raise the limit on addresses (ulimit -v), or set NODE_OPTIONS=--disable-wasm-trap-handler, which does without",
  });
}

function failed(path: string, why: string): FormatError {
  return new FormatError(`opening failed: ${why}`, { where: path, mend: "write the file again or check it with h5py" });
}

/**
 * The last entry of HDF5's error stack is the innermost; " #005: /path/H5F.c line 388 in
 * H5F__super_read(): file signature not found".
 */
function reason(text: string): string {
  const entries = [...text.matchAll(/^\s*#\d+: .*?\(\): (.+)$/gm)];
  return entries.at(-1)?.[1] ?? text.slice(0, 200);
}
