/** Writes a features file: aside, and renamed when it is whole. */

import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { deflateRawSync } from "node:zlib";
import type { FeatureSummary } from "../run-files/feature-summary.ts";
import { bytesOf } from "../util/bytes.ts";
import { messageOf, SaettaError } from "../util/errors.ts";
import { type FeatureIndex, MAGIC, VERSION } from "./shared/format.ts";

export class FeatureWriter {
  readonly #path: string;
  readonly #aside: string;
  readonly #file: FileHandle;
  readonly #chunks: Record<string, [number, number]> = {};
  #at = 0;

  private constructor(path: string, aside: string, file: FileHandle) {
    this.#path = path;
    this.#aside = aside;
    this.#file = file;
  }

  /** Begins a file that will stand at `path`, in place of what stands there. Throws SaettaError when it cannot be written. */
  static async create(path: string): Promise<FeatureWriter> {
    const aside = `${path}.${process.pid}.tmp`;
    const file = await open(aside, "w").catch((cause: unknown) => {
      throw new SaettaError(`cannot be written (${messageOf(cause)})`, { where: path, cause });
    });
    const writer = new FeatureWriter(path, aside, file);
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
    await this.#file.sync();
    await this.#file.close();
    await rename(this.#aside, this.#path);
  }

  /** Leaves nothing. */
  async abandon(): Promise<void> {
    await this.#file.close();
    await rm(this.#aside, { force: true });
  }

  async #write(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) done += (await this.#file.write(bytes, done)).bytesWritten;
    this.#at += bytes.length;
  }
}
