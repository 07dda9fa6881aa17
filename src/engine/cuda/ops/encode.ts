/**
 * load and encode: rows gathered; the encoder's product in chunks of rows, from each of which the
 * top k are taken before the next is computed.
 */

import { SaettaError } from "../../../util/errors.ts";
import { formatOf, NORMALIZATIONS } from "../../contract/names.ts";
import { type Codes, type Normalization, type Params, type Step, SUMS, type Tensor } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import { WHERE } from "../driver/libraries.ts";
import { type CudaCodes, EMPTY, ownCodes, PAIRS, type Strategy } from "../memory/codes.ts";
import { centredRows, copyOf } from "../memory/copies.ts";
import { markRowsAsRead, waitForRows } from "../memory/inflow.ts";
import { at, checked, stepAddresses } from "../memory/tensor.ts";
import { type DeadList, deadListOf } from "./dead-list.ts";

/**
 * Bytes of pre-activations that exist at a time: larger chunks are no faster; a small card has no
 * room for so many.
 */
const LARGEST_CHUNK = 512 * 1024 * 1024;
const PART_OF_CARD = 64;
const FEWEST_ROWS = 1024;

/** The most that select.cu takes. */
export const MOST_LIVE = 1024;
export const MOST_DEAD = 2048;

/**
 * Products over all dead latents are faster than pair by pair up to so many of them, and so many
 * for each code of a row.
 */
const MOST_DENSE = 16384;
const DENSE_A_CODE = 64;

export function load(
  cuda: CudaContext,
  raw: Tensor,
  rows: Tensor,
  x: Tensor,
  t: Step,
  fault: number,
  { kind, factor }: Normalization,
): void {
  const { device, kernels } = cuda;
  const [B, d] = x.shape as [number, number];
  const [rawRows, width] = raw.shape as [number, number];
  const [n] = t.fired.shape as [number];
  const format = formatOf(raw.dtype);
  if (raw.shape.length !== 2 || width !== d || format < 0) {
    throw new SaettaError(`load: rows ${raw.dtype} [${raw.shape}] cannot become x [${x.shape}]`, { where: WHERE });
  }
  const from = checked(raw, raw.dtype);
  const { sums, fired, bad, sq } = stepAddresses(t);
  const own = checked(x, "f32", B, d);
  const numbers = at(rows, "u32", B);
  kernels.launch(
    "load_begin",
    { blocks: Math.ceil(Math.max(n, SUMS.length + 2 * d) / 256), threads: 256 },
    { sums, fired, bad, sq, n, d },
  );
  waitForRows(device, from);
  const launch = { blocks: Math.ceil(B / 8), threads: 256 };
  const normalization = NORMALIZATIONS.indexOf(kind);
  kernels.launch("load_rows", launch, {
    ...{ format, raw: from.address, m: rawRows, rows: numbers },
    ...{ x: own.address, B, d, bad },
    ...{ normalization, factor, fault },
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

export function encode(
  cuda: CudaContext,
  p: Params,
  x: Tensor,
  t: Step,
  live: Codes,
  dead: Codes | undefined,
  age: Tensor | undefined,
): DeadUse | undefined {
  const [n, d] = p.encoder.shape as [number, number];
  const [B] = x.shape as [number];
  const { hyper, sums, fired, bad } = stepAddresses(t);
  const [liveCodes, deadCodes] = [ownCodes(live, B), dead && ownCodes(dead, B)];
  const encoder = copyOf(cuda, checked(p.encoder, "f32", n, d));
  const bias = at(p.latentBias, "f32", n);
  const rows = centredRows(cuda, checked(x, "f32", B, d), checked(p.preBias, "f32", d), bad, false);
  checked(t.fired, "u32", n);
  liveCodes.strategy = PAIRS;
  const use = age === undefined ? undefined : findDead(cuda, age, n, hyper, sums, deadCodes);
  const isSelected = deadCodes !== undefined && deadCodes.strategy !== EMPTY;
  if (deadCodes?.strategy === EMPTY) clear(cuda, deadCodes);

  const stride = 8 * Math.ceil(n / 8);
  const chunk = chunkRows(cuda, B, stride);
  const z = cuda.scratch.get("pre-activations", chunk * stride * cuda.bytes);
  for (let first = 0; first < B; first += chunk) {
    const C = Math.min(chunk, B - first);
    const a = rows + first * d * cuda.bytes;
    cuda.cublas.multiply({ m: C, n, k: d, a, b: encoder, bTransposed: true, c: z, strideC: stride, out: "compute" });
    const { capacity: k } = liveCodes;
    const capacity = candidates(k);
    cuda.kernels.launch(
      "select_live",
      { blocks: C, threads: 128, shared: 10 * capacity },
      { z, latentBias: bias, hyper, fired, bad, ...liveCodes.from(first), n, ldz: stride, k, capacity },
    );
    if (!isSelected || use === undefined) continue;
    const { capacity: auxk } = deadCodes;
    const deadCapacity = candidates(auxk);
    const { list, counts } = use.list;
    cuda.kernels.launch(
      "select_dead",
      { blocks: C, threads: 256, shared: 10 * deadCapacity },
      {
        ...{ z, latentBias: bias, list, counts, bad },
        ...deadCodes.from(first),
        ...{ ldz: stride, auxk, capacity: deadCapacity },
      },
    );
  }
  if (use !== undefined && !cuda.device.recording) use.list.end();
  return use;
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

function chunkRows(cuda: CudaContext, B: number, stride: number): number {
  const bytes = Math.min(LARGEST_CHUNK, cuda.device.memory / PART_OF_CARD);
  return Math.min(B, Math.max(FEWEST_ROWS, 128 * Math.floor(bytes / (128 * stride * cuda.bytes))));
}

/** Candidates that select.cu has room for. */
function candidates(k: number): number {
  let room = FEWEST_ROWS;
  while (room < 4 * k && room < 4096) room *= 2;
  return room;
}
