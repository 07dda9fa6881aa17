/**
 * The codes of float32 from a product in f16 (kernels/screen.cu, decision 0114): what the engine
 * does in f32 where nothing is selected among the dead.
 */

import type { CudaContext } from "../context.ts";
import { SIZES } from "../contract.ts";
import type { Address } from "../driver/driver.ts";
import type { CudaCodes } from "../memory/codes.ts";
import { PerTensor } from "../memory/per-tensor.ts";
import { type CudaTensor, checked } from "../memory/tensor.ts";
import { type Chunk, type Chunks, type ChunksInput, candidates, type HighestOf, type ThresholdOf } from "./chunks.ts";

/** Bytes of a pair of f32. */
const PAIR = 8;
/** Numbers that are common to all latents, of 4 bytes: screen.cu, ScreenCommon. */
const COMMON = 5 + SIZES.MOST_HEAVY;

/** The encoder in f16 [width,d], zeros from row n on; weight [n]; the numbers common to latents. */
interface Encoder16 {
  readonly address: Address;
  readonly weight: Address;
  readonly common: Address;
  readonly size: number;
  /** The content that it was made from; undefined: it has not been made. */
  from: string | undefined;
}

const encoders = new PerTensor<Encoder16>(({ address, size }, device) => device.free(address, size));

/** Slots of a row for candidates by a threshold: some more than codes, so that these decide. */
function roomFor(slots: number, n: number): number {
  return Math.min(n, slots + Math.ceil(slots / 2) + 64);
}

/** Products in f16, with what says how far they are from pre-activations in f32. */
export class ScreenedChunks implements Chunks {
  readonly elementBytes = 2;
  readonly #cuda: CudaContext;
  readonly #input: ChunksInput;
  readonly #encoder: Encoder16;
  readonly #rows: Address;
  readonly #ends: Address;
  readonly #columns: Address;
  readonly #usual: Address;
  readonly #limit: Address;
  readonly #room: number;

  constructor(cuda: CudaContext, input: ChunksInput) {
    const { kernels, scratch } = cuda;
    const { p, rows, B, bad, hyper, limits } = input;
    const [n, d] = p.encoder.shape as [number, number];
    const width = input.stride;
    this.#cuda = cuda;
    this.#input = input;
    this.#encoder = encoder16(cuda, checked(p.encoder, "f32", n, d), checked(p.latentBias, "f32", n));
    this.#columns = scratch.get("columns of the screen", PAIR * width);
    this.#usual = scratch.get("columns of usual weight", 4 * width);
    this.#limit = scratch.get("limits of the screen", 4 * width);
    this.#ends = scratch.get("ends of rows", PAIR * B);
    this.#rows = scratch.get("rows in f16", 2 * B * d);
    this.#room = limits === undefined ? 0 : roomFor(Math.max(limits.live.capacity, limits.band.capacity), n);
    const { weight, common } = this.#encoder;
    kernels.launch(
      "screen_columns",
      { blocks: Math.ceil(width / 256), threads: 256 },
      {
        ...{ latentBias: input.latentBias, weight, common, hyper, n, width, bad },
        ...{ columns: this.#columns, usual: this.#usual, limit: this.#limit },
        ...{ threshold: limits?.threshold ?? 0, thresholds: limits?.thresholds ?? 0 },
        ...{ isLive: limits?.live.latent ? 1 : 0, isBand: limits?.band.latent ? 1 : 0 },
      },
    );
    const to = { xc16: this.#rows, ends: this.#ends };
    kernels.launch("screen_inputs", warps(B), { xc: rows, B, d, common, ...to, bad });
  }

  multiply(z: Address, first: number, C: number): void {
    const { p, stride } = this.#input;
    const [, d] = p.encoder.shape as [number, number];
    const a = this.#rows + 2 * first * d;
    const b = this.#encoder.address;
    // All columns: those behind the last latent are 0, and never candidates.
    this.#cuda.cublas.multiply({ m: C, n: stride, k: d, a, b, bTransposed: true, c: z, out: "fp16", of: "fp16" });
  }

  highest({ z, first, C }: Chunk, codes: CudaCodes, of: HighestOf): void {
    const { p, rows, latentBias, hyper, stride } = this.#input;
    const [n, d] = p.encoder.shape as [number, number];
    const { kernels, scratch } = this.#cuda;
    const { capacity: k } = codes;
    const { fired, annealed } = of;
    const capacity = candidates(k);
    const room = capacity / 2;
    const own = {
      ...{ z, ldz: stride, columns: this.#columns, ends: this.#ends + PAIR * first, hyper, n, k, annealed, capacity },
      ...{ found: scratch.get("candidates of rows", 4 * C * room), room, counts: scratch.get("how many", 4 * C) },
    };
    const { common } = this.#encoder;
    const launch = { blocks: C, threads: 128 };
    kernels.launch("screen_highest", { ...launch, shared: 10 * capacity }, { ...own, usual: this.#usual, common });
    kernels.launch(
      "score_highest",
      { ...launch, shared: 8 * capacity },
      {
        ...{ ...own, xc: rows + 4 * first * d, encoder: checked(p.encoder, "f32", n, d).address, latentBias, d },
        ...{ fired, ...codes.from(first) },
      },
    );
  }

  threshold({ z, first, C }: Chunk, { live, band, fired, counts }: ThresholdOf): void {
    const { kernels, scratch } = this.#cuda;
    const { p, rows, latentBias, hyper, bad, stride, limits } = this.#input;
    const [n, d] = p.encoder.shape as [number, number];
    const found = {
      found: scratch.get("candidates by a threshold", 4 * C * this.#room),
      room: this.#room,
      counts,
      bad,
    };
    kernels.launch(
      "screen_threshold",
      { blocks: Math.ceil(C / SIZES.THRESHOLD_ROWS), threads: 256 },
      { z, ldz: stride, columns: this.#columns, ends: this.#ends + PAIR * first, limit: this.#limit, n, C, ...found },
    );
    kernels.launch(
      "score_threshold",
      { blocks: C, threads: 128 },
      {
        ...{
          ...found,
          xc: rows + 4 * first * d,
          encoder: checked(p.encoder, "f32", n, d).address,
          latentBias,
          d,
          hyper,
        },
        ...{ threshold: limits!.threshold, thresholds: limits!.thresholds, fired, live, band },
      },
    );
  }
}

function encoder16(cuda: CudaContext, encoder: CudaTensor, latentBias: CudaTensor): Encoder16 {
  const { device, kernels } = cuda;
  const [n, d] = encoder.shape as [number, number];
  const copy = encoders.get(encoder) ?? encoders.add(encoder, allocate(cuda, n, d));
  const from = `${encoder.state} ${latentBias.state} ${cuda.replays}`;
  // A recorded step finds another encoder each time.
  if (copy.from === from && !device.recording) return copy;
  const { address, weight, common } = copy;
  device.fill(common, 0, 4 * COMMON);
  kernels.launch("screen_norms", warps(n), { encoder: encoder.address, n, d, norm: weight, common });
  const to = { encoder16: address, weight, common };
  kernels.launch("screen_encoder", warps(n), { encoder: encoder.address, n, d, ...to });
  const columns = { weight, latentBias: latentBias.address, n, common };
  kernels.launch("screen_common", { blocks: 1, threads: 1024 }, columns);
  copy.from = device.recording ? undefined : from;
  return copy;
}

function allocate({ device }: CudaContext, n: number, d: number): Encoder16 {
  const width = 8 * Math.ceil(n / 8);
  const rows = 16 * Math.ceil((2 * width * d) / 16);
  const size = rows + 4 * width + 4 * COMMON;
  const address = device.alloc(size, "the encoder in f16");
  device.fill(address, 0, size);
  return { address, weight: address + rows, common: address + rows + 4 * width, size, from: undefined };
}

/** A warp each, eight a block. */
function warps(count: number): { blocks: number; threads: number } {
  return { blocks: Math.ceil(count / 8), threads: 256 };
}
