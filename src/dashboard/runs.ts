/**
 * Which runs there are below the folders that were named. The only place where an address becomes a
 * folder: by looking it up.
 */

import { readdir, realpath, stat } from "node:fs/promises";
import { basename, join, relative, resolve } from "node:path";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { isRunFolder, Run } from "./run.ts";

/** How deep runs may lie below a folder, and how many folders are looked into. */
const DEPTH = 3;
const MOST_FOLDERS = 5000;
const MOST_RUNS = 1000;

export class Runs {
  readonly #roots: readonly string[];
  /** By folder; a run that is gone keeps its place, so that its id stays its own. */
  readonly #ids = new Map<string, string>();
  #runs = new Map<string, Run>();
  readonly #now: (() => number) | undefined;

  private constructor(roots: readonly string[], now: (() => number) | undefined) {
    this.#roots = roots;
    this.#now = now;
  }

  /**
   * `folders`: run folders, and folders of such. `now`: what `Run` takes. Throws SaettaError when a
   * folder is not there.
   */
  static async open(folders: readonly string[], now?: () => number): Promise<Runs> {
    const roots: string[] = [];
    for (const folder of folders) {
      const found = await stat(folder).catch((thrown: unknown) => {
        const missing = hasCode(thrown, "ENOENT", "ENOTDIR");
        throw new SaettaError(missing ? "no such folder" : `cannot be read (${messageOf(thrown)})`, {
          where: folder,
          mend: "name run folders, or a folder of them",
          cause: thrown,
        });
      });
      if (!found.isDirectory())
        throw new SaettaError("not a folder", { where: folder, mend: "name run folders, or a folder of them" });
      roots.push(await realpath(folder));
    }
    const runs = new Runs([...new Set(roots)], now);
    await runs.scan();
    return runs;
  }

  get all(): readonly Run[] {
    return Array.from(this.#runs.values());
  }

  get(id: string): Run | undefined {
    return this.#runs.get(id);
  }

  /** Looks again which runs there are. */
  async scan(): Promise<void> {
    const known = new Map(Array.from(this.#runs.values(), (run) => [run.folder, run]));
    const next = new Map<string, Run>();
    for (const { folder, name } of await this.#find()) {
      if (next.size >= MOST_RUNS) break;
      const run = known.get(folder) ?? new Run(this.#idOf(folder, name), name, folder, this.#now);
      next.set(run.id, run);
    }
    this.#runs = next;
  }

  async #find(): Promise<{ folder: string; name: string }[]> {
    const found = new Map<string, string>();
    let budget = MOST_FOLDERS;
    const look = async (root: string, folder: string, depth: number): Promise<void> => {
      if (budget-- <= 0) return;
      if (await isRunFolder(folder, depth > 0)) {
        if (!found.has(folder)) found.set(folder, relative(root, folder) || basename(folder) || folder);
        return;
      }
      if (depth === DEPTH) return;
      const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
      // Links are not followed: what is shown lies below what was named.
      const folders = entries.filter(
        (entry) => entry.isDirectory() && !entry.name.startsWith(".") && entry.name !== "node_modules",
      );
      const names = folders.map(({ name }) => name).toSorted((a, b) => a.localeCompare(b, "en", { numeric: true }));
      for (const name of names) await look(root, join(folder, name), depth + 1);
    };
    for (const root of this.#roots) await look(root, resolve(root), 0);
    return Array.from(found, ([folder, name]) => ({ folder, name }));
  }

  #idOf(folder: string, name: string): string {
    const known = this.#ids.get(folder);
    if (known !== undefined) return known;
    const plain = name.replaceAll(/[^A-Za-z0-9._-]+/g, "~").slice(0, 80);
    const taken = new Set(this.#ids.values());
    let id = /^\.*$/.test(plain) ? "run" : plain;
    for (let i = 2; taken.has(id); i++) id = `${plain}~${i}`;
    this.#ids.set(folder, id);
    return id;
  }
}
