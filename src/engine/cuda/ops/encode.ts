/**
 * load and encode: rows gathered; the encoder's product in chunks of rows, from each of which all
 * selections are taken before the next is computed.
 */

import { SaettaError } from "../../../util/errors.ts";
import { formatOf, NORMALIZATIONS } from "../../contract/names.ts";
import type { Normalization, Params, Rule, Step, Tensor } from "../../engine.ts";
import type { Sides } from "../../selections.ts";
import type { CudaContext } from "../context.ts";
import type { StructOf } from "../contract.ts";
import { WHERE } from "../driver/libraries.ts";
import { type CudaCodes, EMPTY, ownCodes, PAIRS, type Strategy } from "../memory/codes.ts";
import { centredRows } from "../memory/copies.ts";
import { markRowsAsRead, waitForRows } from "../memory/inflow.ts";
import { at, checked, stepAddresses } from "../memory/tensor.ts";
import { type Chunks, candidates, PlainChunks } from "./chunks.ts";
import { type DeadList, deadListOf } from "./dead-list.ts";
import { ScreenedChunks } from "./screen.ts";

/**
 * Bytes of pre-activations that exist at a time: larger chunks are no faster; a small card has no
 * room for so many.
 */
const LARGEST_CHUNK = 512 * 1024 * 1024;
const PART_OF_CARD = 64;
const FEWEST_ROWS = 1024;

/** The most that select.cu takes, of "topk" and of "batchtopk". */
export const MOST_LIVE = 1024;
export const MOST_OF_ROW = 8192;
export const MOST_DEAD = 2048;

/**
 * Products over all dead latents are faster than pair by pair up to so many of them, and so many
 * for each code of a row.
 */
const MOST_DENSE = 16384;
const DENSE_A_CODE = 64;

export interface LoadInput {
  readonly raw: Tensor;
  readonly rows: Tensor;
  readonly x: Tensor;
  readonly t: Step;
  readonly normalization: Normalization;
  readonly column: number;
  readonly fault: number;
}

export function load(cuda: CudaContext, { raw, rows, x, t, normalization, column, fault }: LoadInput): void {
  const { device, kernels } = cuda;
  const [B, d] = x.shape as [number, number];
  const [rawRows, width] = raw.shape as [number, number];
  const [n] = t.fired.shape as [number];
  const format = formatOf(raw.dtype);
  if (raw.shape.length !== 2 || width < column + d || format < 0) {
    throw new SaettaError(
      `load: rows ${raw.dtype} [${raw.shape}] cannot become x [${x.shape}] from column ${column} on`,
      { where: WHERE },
    );
  }
  const from = checked(raw, raw.dtype);
  const { sums, fired, bad, sq } = stepAddresses(t);
  const own = checked(x, "f32", B, d);
  const numbers = at(rows, "u32", B);
  const length = t.sums.shape[0]!;
  if (column === 0) {
    kernels.launch(
      "load_begin",
      { blocks: Math.ceil(Math.max(n, length) / 256), threads: 256 },
      { ...{ sums, length, fired, n, bad, sq }, cut: at(t.cut, "f32", 1), active: at(t.active, "f64", 1) },
    );
  }
  waitForRows(device, from);
  const launch = { blocks: Math.ceil(B / 8), threads: 256 };
  kernels.launch("load_rows", launch, {
    ...{ format, raw: from.address, m: rawRows, width, column, rows: numbers },
    ...{ x: own.address, B, d, bad },
    ...{ normalization: NORMALIZATIONS.indexOf(normalization.kind), factor: normalization.factor, fault },
  });
  markRowsAsRead(device, from);
  own.wrote();
}

/** What a recorded step must say before it runs, for each encode with a dead side. */
export interface DeadUse {
  readonly list: DeadList;
  readonly ages: number;
  readonly hyper: number;
}

export interface EncodeInput {
  readonly p: Params;
  readonly x: Tensor;
  readonly t: Step;
  readonly sides: Sides;
  readonly age: Tensor | undefined;
}

export function encode(cuda: CudaContext, { p, x, t, sides, age }: EncodeInput): DeadUse | undefined {
  const [n] = p.encoder.shape as [number];
  const [B] = x.shape as [number];
  const { hyper, sums, fired, bad } = stepAddresses(t);
  const { rule } = sides.live;
  const live = ownCodes(sides.live.codes, B);
  const [dead, wide, band] = [sides.dead, sides.wide, sides.band].map((codes) => codes && ownCodes(codes, B));
  const latentBias = at(p.latentBias, "f32", n);
  const rows = centredRows(cuda, p, x, bad, false);
  checked(t.fired, "u32", n);
  live.strategy = PAIRS;
  if (band !== undefined) band.strategy = PAIRS;
  if (wide !== undefined) wide.strategy = PAIRS;
  const use = age === undefined ? undefined : findDead(cuda, age, n, hyper, sums, dead);
  const isSelected = dead !== undefined && dead.strategy !== EMPTY;
  if (dead?.strategy === EMPTY) clear(cuda, dead);

  if (isHighest(rule) && live.capacity > mostOf(rule)) tooMany(live.capacity, mostOf(rule));
  const byThreshold = band !== undefined || !isHighest(rule);
  const selected = (first: number) => ({
    live: isHighest(rule) ? NO_CODES : selectedFrom(live, first),
    band: band === undefined ? NO_CODES : selectedFrom(band, first),
  });
  const limits = byThreshold ? { ...thresholdsOf(p, rule, n), ...selected(0) } : undefined;
  const stride = 8 * Math.ceil(n / 8);
  const input = { p, rows, B, latentBias, hyper, bad, stride, limits };
  // Dead latents are of the same product, in the compute type.
  const isScreened = cuda.compute === "f32" && !isSelected;
  const chunks: Chunks = isScreened ? new ScreenedChunks(cuda, input) : new PlainChunks(cuda, input);
  const chunk = chunkRows(cuda, B, stride, chunks.elementBytes);
  const z = cuda.scratch.get("pre-activations", chunk * stride * chunks.elementBytes);
  for (let first = 0; first < B; first += chunk) {
    const C = Math.min(chunk, B - first);
    const part = { z, first, C };
    chunks.multiply(z, first, C);
    if (isHighest(rule)) chunks.highest(part, live, { fired, annealed: rule.kind === "topk" ? 1 : 0 });
    // Only what the live codes have fires.
    if (wide !== undefined)
      chunks.highest(part, wide, { fired: cuda.scratch.get("firings of no account", 4 * n), annealed: 0 });
    if (byThreshold) {
      const counts = cuda.scratch.get("selected of rows", 4 * B) + 4 * first;
      chunks.threshold(part, { ...selected(first), fired, counts });
    }
    if (!isSelected || use === undefined) continue;
    const { capacity: auxk } = dead;
    const deadCapacity = candidates(auxk);
    const { list, counts } = use.list;
    cuda.kernels.launch(
      "select_dead",
      { blocks: C, threads: 256, shared: 10 * deadCapacity },
      { z, latentBias, bad, list, counts, ...dead.from(first), ldz: stride, auxk, capacity: deadCapacity },
    );
  }
  if (!isHighest(rule)) {
    const counts = cuda.scratch.get("selected of rows", 4 * B);
    cuda.kernels.launch("select_total", { blocks: 1, threads: 1024 }, { counts, B, active: at(t.active, "f64", 1) });
  }
  if (use !== undefined && !cuda.device.recording) use.list.end();
  return use;
}

const NO_CODES: StructOf<"Selected"> = { latent: 0, value: 0, grad: 0, capacity: 0 };

function selectedFrom(codes: CudaCodes, first: number): StructOf<"Selected"> {
  return { ...codes.from(first), capacity: codes.capacity };
}

/** Whether the rule takes the highest of a row. */
function isHighest({ kind }: Rule): boolean {
  return kind === "topk" || kind === "batchtopk";
}

/** Slots of a row that the rule can fill. */
export function mostOf({ kind }: Rule): number {
  return kind === "topk" ? MOST_LIVE : kind === "batchtopk" ? MOST_OF_ROW : Number.POSITIVE_INFINITY;
}

function tooMany(slots: number, most: number): never {
  throw new SaettaError(`a row of the batch needs ${slots} slots, and the kernels have room for ${most}`, {
    where: WHERE,
    mend: "use a smaller k",
  });
}

/** What latents are compared with: a number each, or one for all. */
function thresholdsOf(p: Params, rule: Rule, n: number): { readonly threshold: number; readonly thresholds: number } {
  const name = rule.kind === "threshold" ? rule.param : "threshold";
  const tensor = p[name];
  if (tensor === undefined) throw new SaettaError(`the parameter ${name} is needed to select`, { where: WHERE });
  const thresholds = name === "cut" ? 1 : n;
  return { threshold: at(tensor, "f32", thresholds), thresholds };
}

/** Counts the dead, lists them, and decides how their codes will be computed. */
function findDead(
  cuda: CudaContext,
  age: Tensor,
  n: number,
  hyper: number,
  sums: number,
  codes: CudaCodes | undefined,
): DeadUse {
  const ages = checked(age, "u32", n);
  const list = deadListOf(cuda, ages);
  if (!cuda.device.recording) list.begin(ages.address, hyper);
  list.queue(ages.address, hyper, sums);
  if (codes !== undefined) codes.strategy = strategyOf(list, codes.capacity);
  return { list, ages: ages.address, hyper };
}

function strategyOf(dead: DeadList, slots: number): Strategy {
  const { capacity } = dead;
  if (capacity === 0) return EMPTY;
  return capacity <= Math.min(MOST_DENSE, DENSE_A_CODE * slots) ? { kind: "dense", capacity, dead } : PAIRS;
}

function clear({ device }: CudaContext, { tensors }: CudaCodes): void {
  device.fill(tensors.latent.address, 0xff, tensors.latent.size);
  device.fill(tensors.value.address, 0, tensors.value.size);
  device.fill(tensors.grad.address, 0, tensors.grad.size);
}

function chunkRows(cuda: CudaContext, B: number, stride: number, elementBytes: number): number {
  const bytes = Math.min(LARGEST_CHUNK, cuda.device.memory / PART_OF_CARD);
  return Math.min(B, Math.max(FEWEST_ROWS, 128 * Math.floor(bytes / (128 * stride * elementBytes))));
}
