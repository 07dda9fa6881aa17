/**
 * libhdf5 compiled to WebAssembly (h5wasm), which reads files in place with ordinary system calls. It is loaded at first use. Its calls block the event loop,
 * and a damaged file can make it fail in any way: every call goes through `ask`.
 */

import type { ready } from "h5wasm/node";
import { FormatError, messageOf } from "../util/errors.ts";

export type Hdf5Library = Awaited<typeof ready>;

type Factory = (options: { noInitialRun: boolean; printErr: () => void }) => Promise<Hdf5Library>;

let loading: Promise<Hdf5Library> | undefined;

export function loadHdf5(): Promise<Hdf5Library> {
  loading ??= load();
  return loading;
}

async function load(): Promise<Hdf5Library> {
  // The package's own entry makes one instance for good, and lets it print to stderr; this is what it makes it with.
  const { default: factory } = (await import(/* @vite-ignore */ new URL("hdf5_util.js", import.meta.resolve("h5wasm/node")).href)) as {
    default: Factory;
  };
  const library = await factory({ noInitialRun: true, printErr: () => undefined });
  // Without it a failed call returns garbage.
  library.activate_throwing_error_handler();
  return library;
}

/**
 * Runs a call of the library; whatever it throws becomes a FormatError that says `doing` and HDF5's innermost reason. What is opened afterwards gets a new
 * instance: a failed call leaves its objects open, and the library would answer for another file of the same inode from what it remembers of this one.
 */
export function ask<T>(where: string, doing: string, call: () => T): T {
  try {
    return call();
  } catch (cause) {
    if (cause instanceof FormatError) throw cause;
    loading = undefined;
    throw new FormatError(`${doing} failed: ${reason(cause)}`, { where, mend: "write the file again or check it with h5py", cause });
  }
}

/** The last entry of HDF5's error stack is the innermost; "  #005: /path/H5F.c line 388 in H5F__super_read(): file signature not found". */
function reason(thrown: unknown): string {
  const text = thrown instanceof Error ? thrown.message : String(thrown);
  const entries = [...text.matchAll(/^\s*#\d+: .*?\(\): (.+)$/gm)];
  return entries.at(-1)?.[1] ?? messageOf(thrown).slice(0, 200);
}
