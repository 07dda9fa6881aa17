/**
 * Rows of a stream, kept as safetensors files on their way: `rows-000000.safetensors` and so on in
 * one folder, each with `hidden_states`, `tokens` and `mask` where there are some, and the origin
 * as metadata. Every command reads the folder.
 */

import { mkdir, readdir, rmdir } from "node:fs/promises";
import { join } from "node:path";
import { layOut, type SafetensorsPart } from "../formats/safetensors.ts";
import { AtomicFile, refuseExisting, refuseWriting } from "../util/atomic-write.ts";
import { BYTES, bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { encodeBfloat16, encodeFloat16 } from "../util/float16.ts";
import { relativeTo } from "../util/moved.ts";
import { rowsToFloat32 } from "./convert.ts";
import { encodeInt8, SCALES } from "./int8-rows.ts";
import type { Origin, RowDType } from "./source.ts";

/** How rows may be stored; int8 with one scale per row. */
export const KEPT_DTYPES = ["f16", "bf16", "f32", "int8"] as const;
export type KeptDType = (typeof KEPT_DTYPES)[number];

export interface KeepOptions {
  /** Made where it does not exist; must be empty. */
  readonly folder: string;
  /** Default: as the rows come. */
  readonly dtype?: KeptDType | undefined;
  /** Called with what went wrong, instead of throwing it from `add`. */
  readonly onFailure?: ((error: SaettaError) => void) | undefined;
  /** Bytes of rows per file. */
  readonly fileBytes?: number | undefined;
}

/** What is the same for all rows of a stream. */
export interface KeptRows {
  readonly width: number;
  readonly dtype: RowDType;
  /** Rows of a context; parts hold whole contexts then. */
  readonly context?: number | undefined;
  readonly origin?: Origin | undefined;
}

/** Rows in the order in which they are kept. */
export interface RowPart {
  readonly rows: number;
  /** [rows, width] in the dtype of the stream. */
  readonly values: Uint8Array;
  readonly tokens?: Int32Array | undefined;
  readonly mask?: Uint8Array | undefined;
}

const FILE_BYTES = 256 * 2 ** 20;
/** Rows of so many bytes are converted at a time. */
const PIECE = 8 * 2 ** 20;
const STORED = { f16: "F16", bf16: "BF16", f32: "F32", f64: "F64", int8: "I8" } as const;

export class RowKeeper {
  readonly #options: KeepOptions;
  readonly #made: boolean;
  #about: KeptRows | undefined;
  #metadata: Readonly<Record<string, string>> = {};
  #file: KeptFile | undefined;
  #mostRows = 0;
  #over = false;
  files = 0;
  rows = 0;

  private constructor(options: KeepOptions, made: boolean) {
    this.#options = options;
    this.#made = made;
  }

  /** Throws UsageError where the folder holds anything, SaettaError where it cannot be written. */
  static async open(options: KeepOptions): Promise<RowKeeper> {
    const { folder } = options;
    const made = await mkdir(folder, { recursive: true }).catch((cause: unknown) => refuseWriting(folder, cause));
    const names = await readdir(folder).catch((cause: unknown) => refuseWriting(folder, cause));
    if (names.length > 0) throw new UsageError("the folder is not empty", { where: folder, mend: "name another" });
    return new RowKeeper(options, made !== undefined);
  }

  /** Says what the rows are; called once, before the first `add`. */
  async begin(about: KeptRows): Promise<void> {
    const { fileBytes = FILE_BYTES, folder } = this.#options;
    const context = about.context ?? 1;
    const rowBytes = about.width * bytesPerElement(this.#options.dtype ?? about.dtype);
    this.#about = about;
    this.#mostRows = context * Math.max(1, Math.floor(fileBytes / rowBytes / context));
    this.#metadata = await metadataOf(about.origin ?? {}, folder);
  }

  /**
   * Writes the rows. Where that fails, for example because the disk is full, nothing is left of the
   * file under way, the files before are whole, and no more rows are kept.
   */
  async add(part: RowPart): Promise<void> {
    if (this.#over) return;
    const { width, dtype } = this.#about!;
    const rowBytes = width * BYTES[dtype];
    const piece = Math.max(1, Math.floor(PIECE / rowBytes));
    try {
      for (let at = 0; at < part.rows; ) {
        this.#file ??= await this.#next();
        const end = Math.min(part.rows, at + piece, at + this.#mostRows - this.#file.rows);
        await this.#file.add({
          rows: end - at,
          values: part.values.subarray(at * rowBytes, end * rowBytes),
          tokens: part.tokens?.subarray(at, end),
          mask: part.mask?.subarray(at, end),
        });
        at = end;
        if (this.#file.rows === this.#mostRows) await this.#finish();
      }
    } catch (thrown) {
      this.#over = true;
      await this.#file?.abandon();
      this.#file = undefined;
      const { onFailure } = this.#options;
      if (onFailure === undefined || !(thrown instanceof SaettaError)) throw thrown;
      onFailure(thrown);
    }
  }

  /** Gives the last file its name. */
  async close(): Promise<void> {
    try {
      if (!this.#over) await this.#finish();
    } catch (thrown) {
      await this.#file?.abandon();
      throw thrown;
    } finally {
      this.#over = true;
      if (this.files === 0 && this.#made) await rmdir(this.#options.folder).catch(() => undefined);
    }
  }

  async #next(): Promise<KeptFile> {
    const path = join(this.#options.folder, `rows-${String(this.files).padStart(6, "0")}.safetensors`);
    return KeptFile.create(path, this.#about!, this.#options.dtype, this.#metadata);
  }

  async #finish(): Promise<void> {
    if (this.#file === undefined) return;
    await this.#file.finish();
    this.rows += this.#file.rows;
    this.files++;
    this.#file = undefined;
  }
}

/** One file, under a temporary name until it is whole. */
class KeptFile {
  readonly #path: string;
  readonly #file: AtomicFile;
  readonly #about: KeptRows;
  readonly #dtype: KeptDType | undefined;
  readonly #metadata: Readonly<Record<string, string>>;
  #rows = 0;
  readonly #scales: Float32Array[] = [];
  readonly #tokens: Int32Array[] = [];
  readonly #mask: Uint8Array[] = [];

  private constructor(
    path: string,
    file: AtomicFile,
    about: KeptRows,
    dtype: KeptDType | undefined,
    metadata: Readonly<Record<string, string>>,
  ) {
    this.#path = path;
    this.#file = file;
    this.#about = about;
    this.#dtype = dtype;
    this.#metadata = metadata;
  }

  static async create(
    path: string,
    about: KeptRows,
    dtype: KeptDType | undefined,
    metadata: Readonly<Record<string, string>>,
  ): Promise<KeptFile> {
    return new KeptFile(path, await AtomicFile.create(path), about, dtype, metadata);
  }

  get rows(): number {
    return this.#rows;
  }

  async add({ rows, values, tokens, mask }: RowPart): Promise<void> {
    if (this.#rows === 0) await this.#file.write(new Uint8Array(headBytes(this.#metadata)));
    await this.#file.write(this.#stored(values, rows));
    if (tokens !== undefined) this.#tokens.push(tokens.slice());
    if (mask !== undefined) this.#mask.push(mask.slice());
    this.#rows += rows;
  }

  async finish(): Promise<void> {
    const { width, dtype, context } = this.#about;
    const each = context === undefined ? [this.#rows] : [this.#rows / context, context];
    const part = (name: string, type: SafetensorsPart["dtype"], shape: readonly number[]) => ({
      name,
      dtype: type,
      shape,
    });
    const sides = [
      { ...part(SCALES, "F32", each), pieces: this.#scales },
      { ...part("tokens", "I32", each), pieces: this.#tokens },
      { ...part("mask", "U8", each), pieces: this.#mask },
    ].filter(({ pieces }) => pieces.length > 0);
    for (const { pieces } of sides) for (const piece of pieces) await this.#file.write(bytesOf(piece));
    const values = part("hidden_states", STORED[this.#dtype ?? dtype], [...each, width]);
    const { head } = layOut([values, ...sides.map(({ pieces: _, ...side }) => side)], this.#metadata, {
      headBytes: headBytes(this.#metadata),
    });
    await this.#file.write(head, 0);
    await refuseExisting(this.#path);
    await this.#file.finish();
  }

  abandon(): Promise<void> {
    return this.#file.abandon();
  }

  #stored(values: Uint8Array, rows: number): Uint8Array {
    const { width, dtype } = this.#about;
    const to = this.#dtype ?? dtype;
    if (to === dtype) return values;
    const numbers = rowsToFloat32(values, dtype, rows * width);
    if (to === "int8") {
      const [into, scales] = [new Int8Array(numbers.length), new Float32Array(rows)];
      encodeInt8(numbers, width, into, scales);
      this.#scales.push(scales);
      return bytesOf(into);
    }
    if (to === "f32") return bytesOf(numbers);
    const into = new Uint16Array(numbers.length);
    const overflow = to === "f16" ? encodeFloat16(numbers, into) : encodeBfloat16(numbers, into);
    if (overflow < 0) return bytesOf(into);
    throw new SaettaError(`${numbers[overflow]} is too large for ${to}`, {
      where: this.#path,
      mend: "keep the rows in another dtype, such as f32",
    });
  }
}

function bytesPerElement(dtype: KeptDType | RowDType): number {
  return dtype === "int8" ? BYTES.i8 : BYTES[dtype];
}

/** Bytes of a file before its rows. The names and shapes of four arrays take less than 1 KiB. */
function headBytes(metadata: Readonly<Record<string, string>>): number {
  return 8 * Math.ceil((1024 + Buffer.byteLength(JSON.stringify(metadata))) / 8);
}

/** Names and texts of a file's metadata; places of a local model also from the folder. */
async function metadataOf(origin: Origin, folder: string): Promise<Readonly<Record<string, string>>> {
  const { model, modelSha256, tensor, tokenizer, startToken } = origin;
  const local = modelSha256 !== undefined && model !== undefined && tokenizer !== undefined;
  const [modelNear, tokenizerNear] = local ? await relativeTo(folder, [model, tokenizer]) : [];
  const all = {
    model,
    model_relative: modelNear,
    model_sha256: modelSha256,
    tensor,
    tokenizer,
    tokenizer_relative: tokenizerNear,
    start_token: startToken === undefined ? undefined : String(startToken),
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined)) as Record<string, string>;
}
