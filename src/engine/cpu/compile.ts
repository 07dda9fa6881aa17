/**
 * The kernels, compiled by the system's compiler at first use and cached: npm runs no install
 * script. The library's name has two SHA-256: of the sources and flags, and of the compiler's
 * version, so that a cached one is never stale. Where no compiler can be run, any library of these
 * sources and flags is used. It is written aside and renamed, so that it is never half written.
 */

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheFolders, trustedFolders, writableFolder } from "../../util/cache.ts";
import { hasCode, messageOf, SaettaError } from "../../util/errors.ts";

const KERNELS = fileURLToPath(new URL("kernels/", import.meta.url));

/**
 * Not -march=native: the instruction set is chosen at run time, function by function. Not
 * -ffast-math: what is not finite must be found.
 */
const FLAGS = ["-O3", "-std=c++17", "-fPIC", "-pthread", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"];

export interface KernelOptions {
  /** Command of the compiler; default `$CXX`, else `c++`. */
  readonly compiler?: string;
  /** Folders to keep the library in, the first writable one; default: `cacheFolders()`. */
  readonly folders?: readonly string[];
  /** Flags besides the usual ones, such as `-fsanitize=thread`. */
  readonly flags?: readonly string[];
}

/**
 * Path of the compiled kernels, compiled now if they are not yet. Throws SaettaError when they are
 * not and there is no compiler, it fails, or no folder can be written.
 */
export async function kernelLibrary(options: KernelOptions = {}): Promise<string> {
  const compiler = (options.compiler ?? (process.env.CXX || "c++")).trim().split(/\s+/);
  const flags = [...FLAGS, ...(options.flags ?? (process.env.SAETTA_CXXFLAGS ?? "").split(/\s+/).filter(Boolean))];
  const folders = options.folders ?? cacheFolders();
  const names = (await readdir(KERNELS)).filter((name) => /\.(cc|h)$/.test(name)).sort();
  const hash = createHash("sha256").update(JSON.stringify([process.platform, process.arch, flags]));
  for (const name of names) {
    const text = await readFile(join(KERNELS, name));
    hash.update(`${name} ${text.length}\n`).update(text);
  }
  const sources = hash.digest("hex").slice(0, 32);
  const trusted = await trustedFolders(folders);
  let version: string;
  try {
    version = await run(compiler, ["--version"]);
  } catch (thrown) {
    const made = await newestOf(trusted, sources);
    if (made === undefined) throw thrown;
    return made;
  }
  const by = createHash("sha256").update(JSON.stringify([compiler, version]));
  const key = `${sources}-${by.digest("hex").slice(0, 16)}`;
  const cached = trusted.map((folder) => join(folder, `${key}.so`)).find((path) => existsSync(path));
  return cached ?? (await build(compiler, flags, names, key, await writableFolder(folders, "cpu engine")));
}

/** The library of these sources that was compiled last, by whatever compiler. */
async function newestOf(folders: readonly string[], sources: string): Promise<string | undefined> {
  let newest: { readonly path: string; readonly time: number } | undefined;
  for (const folder of folders) {
    const names = await readdir(folder).catch(() => []);
    for (const name of names.filter((each) => each.startsWith(`${sources}-`) && each.endsWith(".so"))) {
      const path = join(folder, name);
      const time = (await stat(path).catch(() => undefined))?.mtimeMs ?? 0;
      if (newest === undefined || time > newest.time) newest = { path, time };
    }
  }
  return newest?.path;
}

async function build(
  compiler: readonly string[],
  flags: readonly string[],
  names: readonly string[],
  key: string,
  folder: string,
): Promise<string> {
  const objects = await mkdtemp(join(tmpdir(), "saetta-kernels-")).catch(() => mkdtemp(join(folder, ".objects-")));
  const temporary = join(folder, `${key}.${process.pid}.tmp`);
  try {
    const sources = names.filter((name) => name.endsWith(".cc"));
    const objectOf = (name: string) => join(objects, `${name}.o`);
    const next = sources.values();
    const compileSome = async () => {
      for (const name of next) {
        await run(compiler, [...flags, "-c", join(KERNELS, name), "-o", objectOf(name)]);
      }
    };
    await Promise.all(Array.from({ length: Math.min(sources.length, availableParallelism()) }, compileSome));
    await run(compiler, [...flags, "-shared", ...sources.map(objectOf), "-o", temporary, "-ldl"]);
    const library = join(folder, `${key}.so`);
    await rename(temporary, library);
    return library;
  } finally {
    await rm(objects, { recursive: true, force: true });
    await rm(temporary, { force: true });
  }
}

/** Output of the compiler. */
function run([command, ...first]: readonly string[], args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(command, [...first, ...args], { maxBuffer: 1 << 24 }, (error, stdout, stderr) => {
      if (error === null) {
        resolve(stdout);
      } else if (hasCode(error, "ENOENT", "EACCES")) {
        reject(
          new SaettaError(`the C++ compiler "${command}" cannot be run`, {
            where: "cpu engine",
            mend: "install g++ (Debian, Ubuntu: apt install g++) or set CXX to a C++17 compiler",
            cause: error,
          }),
        );
      } else {
        const lines = (stderr.trim() || messageOf(error)).split("\n").slice(0, 3);
        reject(
          new SaettaError(`the C++ compiler "${command}" failed: ${lines.join(" | ")}`, {
            where: "cpu engine",
            mend: "use g++ 9 or clang 12 or later (set CXX)",
            cause: error,
          }),
        );
      }
    });
  });
}
