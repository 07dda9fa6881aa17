/**
 * Pre-activations of some rows at a time, and what is selected from them: all selections are taken
 * from a chunk before the next is computed.
 */

import type { Params } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import { SIZES, type StructOf } from "../contract.ts";
import type { Address } from "../driver/driver.ts";
import type { CudaCodes } from "../memory/codes.ts";
import { copyOf } from "../memory/copies.ts";
import { checked } from "../memory/tensor.ts";

/** Candidates that select.cu has room for, at least. */
const FEWEST_CANDIDATES = 1024;

/** Rows from `first` on, C of them, whose pre-activations are at z. */
export interface Chunk {
  readonly z: Address;
  readonly first: number;
  readonly C: number;
}

export interface HighestOf {
  readonly fired: Address;
  readonly annealed: number;
}

type Selected = StructOf<"Selected">;

/** Codes of the chunk by a threshold and in the band; latent 0: they are not asked for. */
export interface ThresholdOf {
  readonly live: Selected;
  readonly band: Selected;
  readonly fired: Address;
  /** u32 [C]: how many live ones there are. */
  readonly counts: Address;
}

/** Thresholds that latents are compared with: a number each, or one for all. */
export interface Limits {
  readonly threshold: Address;
  readonly thresholds: number;
  readonly live: Selected;
  readonly band: Selected;
}

export interface ChunksInput {
  readonly p: Params;
  /** x - preBias [B,d] in the compute type. */
  readonly rows: Address;
  readonly B: number;
  readonly latentBias: Address;
  readonly hyper: Address;
  readonly bad: Address;
  /** Elements from one row of z to the next, a multiple of 8. */
  readonly stride: number;
  /** Where something is selected by a threshold. */
  readonly limits: Limits | undefined;
}

export interface Chunks {
  /** Of z. */
  readonly elementBytes: number;
  /** -> z [C,stride]. */
  multiply(z: Address, first: number, C: number): void;
  /** -> codes: the highest of each row. */
  highest(chunk: Chunk, codes: CudaCodes, of: HighestOf): void;
  /** -> codes by `limits`. */
  threshold(chunk: Chunk, of: ThresholdOf): void;
}

/** In the compute type. */
export class PlainChunks implements Chunks {
  readonly elementBytes: number;
  readonly #cuda: CudaContext;
  readonly #input: ChunksInput;
  readonly #encoder: Address;

  constructor(cuda: CudaContext, input: ChunksInput) {
    const [n, d] = input.p.encoder.shape as [number, number];
    this.elementBytes = cuda.bytes;
    this.#cuda = cuda;
    this.#input = input;
    this.#encoder = copyOf(cuda, checked(input.p.encoder, "f32", n, d));
  }

  multiply(z: Address, first: number, C: number): void {
    const { p, rows, stride } = this.#input;
    const [n, d] = p.encoder.shape as [number, number];
    const a = rows + first * d * this.#cuda.bytes;
    const b = this.#encoder;
    this.#cuda.cublas.multiply({ m: C, n, k: d, a, b, bTransposed: true, c: z, strideC: stride, out: "compute" });
  }

  highest({ z, first, C }: Chunk, codes: CudaCodes, of: HighestOf): void {
    const { p, latentBias, hyper, bad, stride } = this.#input;
    const [n] = p.encoder.shape as [number];
    const { capacity: k } = codes;
    const capacity = candidates(k);
    const args = { z, latentBias, bad, hyper, ...of, ...codes.from(first), n, ldz: stride, k, capacity };
    this.#cuda.kernels.launch("select_live", { blocks: C, threads: 128, shared: 10 * capacity }, args);
  }

  threshold({ z, C }: Chunk, of: ThresholdOf): void {
    const { p, latentBias, hyper, bad, stride, limits } = this.#input;
    const [n] = p.encoder.shape as [number];
    const { threshold, thresholds } = limits!;
    this.#cuda.kernels.launch(
      "select_threshold",
      { blocks: Math.ceil(C / SIZES.THRESHOLD_ROWS), threads: 256 },
      { z, latentBias, bad, threshold, thresholds, hyper, n, ldz: stride, C, ...of },
    );
  }
}

/** Candidates that select.cu has room for. */
export function candidates(k: number): number {
  let room = FEWEST_CANDIDATES;
  while (room < 4 * k && room < Math.max(4096, 2 * k)) room *= 2;
  return room;
}
