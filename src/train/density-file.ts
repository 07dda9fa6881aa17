/** density.jsonl of a run folder, a line an evaluation. */

import { appendFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DENSITY_UNIT, type DensityLine } from "../run-files/density.ts";
import { DENSITY } from "../run-files/names.ts";
import type { HeldOutDensity } from "./validate.ts";

/**
 * Nothing but pages reads it, so a disk that refuses it stops no run; it is not written as what a
 * run needs is (checkpoint/storage.ts).
 */
export class DensityFile {
  readonly #path: string;
  #writing: Promise<void>;

  /** `step`: where the run begins; what the file says of later ones will be said again. */
  constructor(dir: string, step: number) {
    this.#path = join(dir, DENSITY);
    this.#writing = this.#cut(step);
  }

  /** Appends a line. */
  append(step: number, density: HeldOutDensity): void {
    const line: DensityLine = { step, ...density, density_unit: DENSITY_UNIT };
    this.#writing = this.#writing
      .then(() => appendFile(this.#path, `${JSON.stringify(line)}\n`))
      .catch(() => undefined);
  }

  async close(): Promise<void> {
    await this.#writing;
  }

  async #cut(step: number): Promise<void> {
    try {
      const lines = (await readFile(this.#path, "utf8")).split("\n").slice(0, -1);
      const kept = lines.filter((line) => (JSON.parse(line) as DensityLine).step <= step);
      if (kept.length < lines.length) await writeFile(this.#path, kept.map((line) => `${line}\n`).join(""));
    } catch {
      await rm(this.#path, { force: true }).catch(() => undefined); // not there, or not what we write
    }
  }
}
