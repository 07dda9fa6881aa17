/** Writes a features file. */

import { deflateRawSync } from "node:zlib";
import type { FeatureSummary } from "../run-files/feature-summary.ts";
import { AtomicFile } from "../util/atomic-write.ts";
import { bytesOf } from "../util/bytes.ts";
import { type FeatureIndex, MAGIC, VERSION } from "./shared/format.ts";

export class FeatureWriter {
  readonly #file: AtomicFile;
  readonly #chunks: Record<string, [number, number]> = {};
  #at = 0;

  private constructor(file: AtomicFile) {
    this.#file = file;
  }

  /**
   * Begins the file that will be at `path`, in place of any that is there. Throws SaettaError when
   * it cannot be written.
   */
  static async create(path: string): Promise<FeatureWriter> {
    const writer = new FeatureWriter(await AtomicFile.create(path));
    await writer.#write(Buffer.from(MAGIC));
    return writer;
  }

  async bytes(name: string, bytes: Uint8Array): Promise<void> {
    const deflated = deflateRawSync(bytes, { level: 9 });
    this.#chunks[name] = [this.#at, deflated.length];
    await this.#write(deflated);
  }

  json(name: string, value: unknown): Promise<void> {
    return this.bytes(name, Buffer.from(JSON.stringify(value)));
  }

  async finish(summary: FeatureSummary): Promise<void> {
    const index: FeatureIndex = { version: VERSION, summary, chunks: this.#chunks };
    const deflated = deflateRawSync(JSON.stringify(index), { level: 9 });
    await this.#write(Buffer.concat([deflated, bytesOf(Uint32Array.of(deflated.length)), Buffer.from(MAGIC)]));
    await this.#file.finish();
  }

  /** Leaves nothing. */
  abandon(): Promise<void> {
    return this.#file.abandon();
  }

  async #write(bytes: Uint8Array): Promise<void> {
    await this.#file.write(bytes);
    this.#at += bytes.length;
  }
}
