/**
 * The kernels, compiled by NVRTC at first use for one architecture and one compute type, and
 * cached: a file's name is the SHA-256 of its source, the headers, the options and NVRTC's version,
 * so that a cached one is never stale; it is written aside and renamed, so that it is never half
 * written.
 */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheFolders, keepIn } from "../../../util/cache.ts";
import { SaettaError } from "../../../util/errors.ts";
import { COMPUTE, type Compute } from "../contract.ts";
import { builtinsBeside, includeFolder, loadLibrary, WHERE } from "./libraries.ts";

export const KERNELS = fileURLToPath(new URL("../kernels/", import.meta.url));

/**
 * Denormals are 0 as on the cpu engine; no fast mathematics besides, so that what is not finite is
 * found.
 */
const OPTIONS = ["--std=c++17", "-ftz=true", "-default-device"];

type Call = (...args: unknown[]) => number;

interface Library {
  readonly calls: Readonly<Record<string, Call>>;
  readonly compile: (program: number, count: number, options: BigUint64Array) => Promise<number>;
  readonly textOf: (code: number) => string;
  readonly addressOf: (bytes: Uint8Array) => number;
}

const SIGNATURES: Readonly<Record<string, readonly string[]>> = {
  nvrtcVersion: ["void *", "void *"],
  nvrtcGetNumSupportedArchs: ["void *"],
  nvrtcGetSupportedArchs: ["void *"],
  nvrtcCreateProgram: ["void *", "void *", "str", "int", "uint64_t", "uint64_t"],
  nvrtcDestroyProgram: ["void *"],
  nvrtcGetProgramLogSize: ["uint64_t", "void *"],
  nvrtcGetProgramLog: ["uint64_t", "void *"],
  nvrtcGetCUBINSize: ["uint64_t", "void *"],
  nvrtcGetCUBIN: ["uint64_t", "void *"],
};

export class Nvrtc {
  readonly version: string;
  readonly path: string;
  readonly include: string;
  /** Compute capabilities that it knows, such as 90. */
  readonly architectures: readonly number[];
  readonly #library: Library;

  private constructor(library: Library, path: string) {
    this.#library = library;
    this.path = path;
    const [major, minor] = [new Int32Array(1), new Int32Array(1)];
    this.#check("asking NVRTC for its version", library.calls.nvrtcVersion!(major, minor));
    this.version = `${major[0]}.${minor[0]}`;
    const count = new Int32Array(1);
    this.#check("asking NVRTC what it compiles for", library.calls.nvrtcGetNumSupportedArchs!(count));
    const all = new Int32Array(count[0]!);
    this.#check("asking NVRTC what it compiles for", library.calls.nvrtcGetSupportedArchs!(all));
    this.architectures = [...all];
    this.include = includeFolder(path);
  }

  /** Throws SaettaError when there is none, or no headers for it. */
  static async load(): Promise<Nvrtc> {
    const { default: koffi } = await import("koffi");
    const { library, path } = loadLibrary("nvrtc", (name) => {
      for (const beside of builtinsBeside(name)) koffi.load(beside);
      const loaded = koffi.load(name);
      const calls = Object.fromEntries(
        Object.entries(SIGNATURES).map(([symbol, types]) => [symbol, loaded.func(symbol, "int", [...types]) as Call]),
      );
      const compile = loaded.func("nvrtcCompileProgram", "int", ["uint64_t", "int", "void *"]);
      return {
        calls,
        compile: (program: number, count: number, options: BigUint64Array) =>
          new Promise<number>((resolve, reject) => {
            compile.async(program, count, options, (error: unknown, code: number) =>
              error ? reject(error) : resolve(code),
            );
          }),
        textOf: loaded.func("nvrtcGetErrorString", "str", ["int"]) as (code: number) => string,
        addressOf: (bytes: Uint8Array) => Number(koffi.address(bytes)),
      };
    });
    return new Nvrtc(library, path);
  }

  /**
   * Every kernel file as a cubin, by its name without the ending; compiled now where the cache has
   * none. `capability`: 90 for 9.0.
   */
  async cubins(
    capability: number,
    compute: Compute,
    folders: readonly string[] = cacheFolders(),
  ): Promise<ReadonlyMap<string, Uint8Array>> {
    const names = readdirSync(KERNELS).sort();
    const sources = names.filter((name) => name.endsWith(".cu"));
    const text = (name: string) => readFileSync(join(KERNELS, name));
    const headers = names.filter((name) => name.endsWith(".cuh")).map(text);
    const options = [
      ...OPTIONS,
      `-arch=${this.#architecture(capability)}`,
      `-DSAETTA_COMPUTE=${COMPUTE.indexOf(compute)}`,
    ];
    const compiled = sources.map(async (name) => {
      const source = text(name);
      const hash = createHash("sha256").update(
        JSON.stringify([name, this.version, options, headers.map((header) => header.length)]),
      );
      for (const header of headers) hash.update(header);
      const key = hash.update(source).digest("hex").slice(0, 32);
      const cubin = await keepIn(folders, `${key}.cubin`, () => this.compile(name, source, options));
      return [name.slice(0, -".cu".length), cubin] as const;
    });
    return new Map(await Promise.all(compiled));
  }

  /** Kernels of 9.0 and later use what only that very architecture has. */
  #architecture(capability: number): string {
    if (this.architectures.includes(capability)) return capability >= 90 ? `sm_${capability}a` : `sm_${capability}`;
    const most = Math.max(...this.architectures);
    throw new SaettaError(
      `NVRTC ${this.version} does not know this card's architecture, sm_${capability} (it goes to sm_${most})`,
      {
        where: WHERE,
        mend: "install a newer CUDA toolkit, or pip install -U nvidia-cuda-nvrtc nvidia-cuda-runtime",
      },
    );
  }

  /**
   * One source to a cubin, in another thread. Throws SaettaError with the first lines of what NVRTC
   * complained about.
   */
  async compile(name: string, source: Uint8Array, options: readonly string[]): Promise<Uint8Array> {
    const { calls, addressOf } = this.#library;
    const program = new BigUint64Array(1);
    this.#check(`reading ${name}`, calls.nvrtcCreateProgram!(program, terminated(source), name, 0, 0, 0));
    const handle = Number(program[0]);
    try {
      const texts = [...options, `-I${KERNELS}`, `-I${this.include}`, `-I${join(this.include, "cccl")}`].map((option) =>
        terminated(Buffer.from(option)),
      );
      const code = await this.#library.compile(
        handle,
        texts.length,
        BigUint64Array.from(texts, (option) => BigInt(addressOf(option))),
      );
      if (code !== 0) {
        const log = Buffer.from(this.#bytes(handle, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog"))
          .toString()
          .replaceAll("\0", "");
        const lines = log.split("\n").filter((line) => line.trim() !== "");
        throw new SaettaError(
          `${name} cannot be compiled (NVRTC ${this.version}): ${lines.slice(0, 3).join(" | ") || this.#library.textOf(code)}`,
          {
            where: WHERE,
            mend: "use NVRTC and headers of one CUDA toolkit, 12.4 or later",
          },
        );
      }
      return this.#bytes(handle, "nvrtcGetCUBINSize", "nvrtcGetCUBIN");
    } finally {
      calls.nvrtcDestroyProgram!(program);
    }
  }

  #bytes(program: number, size: string, content: string): Uint8Array {
    const bytes = new BigUint64Array(1);
    this.#check("asking NVRTC for a size", this.#library.calls[size]!(program, bytes));
    const to = new Uint8Array(new ArrayBuffer(Number(bytes[0])));
    this.#check("asking NVRTC for its result", this.#library.calls[content]!(program, to));
    return to;
  }

  #check(doing: string, code: number): void {
    if (code !== 0) throw new SaettaError(`${doing} failed: ${this.#library.textOf(code)}`, { where: WHERE });
  }
}

/** On memory of its own, which does not move, with the 0 that C wants at the end. */
function terminated(text: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(new ArrayBuffer(text.length + 1));
  bytes.set(text);
  return bytes;
}
