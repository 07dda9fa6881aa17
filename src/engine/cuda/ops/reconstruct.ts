/**
 * decode, residual and codeGrad: pair by pair, in one kernel where the three belong together; or
 * with products over all dead latents.
 */

import type { Branch, Codes, Params, Step, Tensor } from "../../engine.ts";
import { sumsLength } from "../../sums.ts";
import type { CudaContext } from "../context.ts";
import { PARTIAL_COLUMNS, SIZES } from "../contract.ts";
import { type CudaCodes, type DenseStrategy, ownCodes } from "../memory/codes.ts";
import { copyOf, copyToWrite, wroteWithCopy } from "../memory/copies.ts";
import { at, checked, stepAddresses } from "../memory/tensor.ts";

const HELD_BYTES = 16 * SIZES.HELD;
/** Blocks of rows that are summed apart. */
const BLOCKS = 2048;
const MOST_ROWS_A_BLOCK = 64;

/** Bytes of a matrix [C,capacity] of dead codes that exists at a time. */
const LARGEST_DENSE = 128 * 1024 * 1024;

export function decode(cuda: CudaContext, p: Params, z: Codes, err: Tensor): void {
  const [n, d] = p.decoder.shape as [number, number];
  const [B] = err.shape as [number];
  const codes = ownCodes(z, B);
  const decoder = copyOf(cuda, checked(p.decoder, "f32", n, d));
  const out = checked(err, "f32", B, d);
  if (codes.strategy.kind === "empty") {
    cuda.device.fill(out.address, 0, out.size);
  } else if (codes.strategy.kind === "dense") {
    const { capacity, dead } = codes.strategy;
    const rows = deadRows(cuda, codes.strategy, d);
    const bad = cuda.scratch.get("nobody", 16);
    cuda.kernels.launch(
      "dense_rows",
      { blocks: capacity, threads: cuda.threads(d) },
      { decoder, list: dead.list, count: dead.counts, cap: capacity, d, to: rows, bad },
    );
    eachDenseChunk(cuda, B, capacity, (first, C) => {
      const a = denseCodes(cuda, codes, codes.strategy as DenseStrategy, "value", first, C);
      cuda.cublas.multiply({ m: C, n: d, k: capacity, a, b: rows, c: out.address + 4 * first * d, out: "f32" });
    });
  } else {
    const { latent, value } = codes.from();
    const launch = { blocks: B, threads: cuda.threads(d), shared: 8 * codes.capacity };
    cuda.kernels.launch("decode", launch, { decoder, latent, value, k: codes.capacity, err: out.address, B, d, n });
  }
  out.wrote();
}

export function residual(
  cuda: CudaContext,
  p: Params,
  x: Tensor,
  t: Step,
  branch: Branch,
  live: Branch | undefined,
): void {
  const { err, blocks, args } = residualOf(cuda, p, x, t, branch, live);
  const { value } = ownCodes(branch.codes, args.B).from();
  cuda.kernels.launch("residual", { blocks, threads: cuda.threads(args.d) }, { ...args, value });
  addSums(cuda, t, args, blocks, live !== undefined);
  wroteWithCopy(err);
}

export function codeGrad(cuda: CudaContext, p: Params, branch: Branch, t: Step): void {
  const [n, d] = p.decoder.shape as [number, number];
  const [B] = branch.err.shape as [number];
  const codes = ownCodes(branch.codes, B);
  const { bad } = stepAddresses(t);
  const err = checked(branch.err, "f32", B, d);
  const decoder = copyOf(cuda, checked(p.decoder, "f32", n, d));
  const { latent, grad } = codes.from();
  if (codes.strategy.kind === "empty") return;
  if (codes.strategy.kind === "pairs") {
    const launch = { blocks: B, threads: cuda.threads(d), shared: 4 * (d + codes.capacity) };
    cuda.kernels.launch("code_grad", launch, {
      decoder,
      latent,
      grad,
      k: codes.capacity,
      err: err.address,
      B,
      d,
      n,
      bad,
    });
    return;
  }
  const { capacity, dead } = codes.strategy;
  const rows = deadRows(cuda, codes.strategy, d);
  const err16 = copyOf(cuda, err);
  eachDenseChunk(cuda, B, capacity, (first, C) => {
    const c = cuda.scratch.get("dead codes", denseChunk(cuda, B, capacity) * capacity * cuda.bytes);
    const a = err16 + first * d * cuda.bytes;
    cuda.cublas.multiply({ m: C, n: capacity, k: d, a, b: rows, bTransposed: true, c, out: "compute" });
    const at = codes.from(first);
    const launch = { blocks: Math.ceil((C * codes.capacity) / 256), threads: 256 };
    cuda.kernels.launch("dense_pick", launch, {
      ...{ latent: at.latent, C, auxk: codes.capacity, slot: dead.slot, cap: capacity },
      ...{ from: c, grad: at.grad, bad },
    });
  });
}

/**
 * Whether the three operations of this branch can be one kernel. It gives the same bits as they do.
 */
export function canReconstruct(cuda: CudaContext, branch: Branch, p: Params): boolean {
  const [, d] = p.decoder.shape as [number, number];
  const codes = ownCodes(branch.codes, branch.codes.rows);
  return (
    codes.strategy.kind === "pairs" &&
    codes.capacity <= SIZES.HELD &&
    cuda.covers(d) &&
    HELD_BYTES * cuda.threads(d) + 8192 <= cuda.device.shared
  );
}

/** The three in one. */
export function reconstruct(
  cuda: CudaContext,
  p: Params,
  x: Tensor,
  t: Step,
  branch: Branch,
  live: Branch | undefined,
): void {
  const [n] = p.decoder.shape as [number, number];
  const { err, blocks, args } = residualOf(cuda, p, x, t, branch, live);
  const { d } = args;
  const decoder = copyOf(cuda, checked(p.decoder, "f32", n, d));
  cuda.kernels.launch(
    "reconstruct",
    { blocks, threads: cuda.threads(d), shared: HELD_BYTES * cuda.threads(d) },
    { ...args, decoder, ...ownCodes(branch.codes, args.B).from(), n },
  );
  addSums(cuda, t, args, blocks, live !== undefined);
  wroteWithCopy(err);
}

function residualOf(cuda: CudaContext, p: Params, x: Tensor, t: Step, branch: Branch, live: Branch | undefined) {
  const [B, d] = x.shape as [number, number];
  at(t.sums, "f64", sumsLength(d));
  const err = checked(branch.err, "f32", B, d);
  const R = Math.min(MOST_ROWS_A_BLOCK, Math.max(1, Math.ceil(B / BLOCKS)));
  const blocks = Math.ceil(B / R);
  const args = {
    preBias: at(p.preBias, "f32", d),
    x: at(x, "f32", B, d),
    err: err.address,
    err16: copyToWrite(cuda, err),
    live: live === undefined ? 0 : at(live.err, "f32", B, d),
    k: branch.codes.capacity,
    ...{ B, d, R },
    partial: cuda.scratch.get("sums of rows", 8 * blocks * (PARTIAL_COLUMNS + 2 * d)),
    bad: stepAddresses(t).bad,
  };
  return { err, blocks, args };
}

/** Adds the lines of `partial`, one for each block of rows, to the step's sums. */
function addSums(
  cuda: CudaContext,
  t: Step,
  { partial, d, bad }: { readonly partial: number; readonly d: number; readonly bad: number },
  blocks: number,
  isDead: boolean,
): void {
  const launch = { blocks: Math.ceil((PARTIAL_COLUMNS + 2 * d) / 32), threads: 1024 };
  const { sums } = stepAddresses(t);
  cuda.kernels.launch("residual_sums", launch, { partial, blocks, d, dead: isDead ? 1 : 0, sums, bad });
}

// ---- products over all dead latents ----

/** [capacity,d]: decoder rows of the dead, as decode left them. */
function deadRows(cuda: CudaContext, { capacity }: DenseStrategy, d: number): number {
  return cuda.scratch.get("dead rows", capacity * d * cuda.bytes);
}

/** visit(first row, rows) for each chunk, in order. */
export function eachDenseChunk(
  cuda: CudaContext,
  B: number,
  capacity: number,
  visit: (first: number, C: number) => void,
): void {
  const chunk = denseChunk(cuda, B, capacity);
  for (let first = 0; first < B; first += chunk) visit(first, Math.min(chunk, B - first));
}

function denseChunk(cuda: CudaContext, B: number, capacity: number): number {
  return Math.min(B, Math.max(256, Math.floor(LARGEST_DENSE / (capacity * cuda.bytes))));
}

/**
 * -> [C,capacity]: values or gradients of the codes of rows from `first` on, in their latents'
 * columns.
 */
export function denseCodes(
  cuda: CudaContext,
  codes: CudaCodes,
  { capacity, dead }: DenseStrategy,
  what: "value" | "grad",
  first: number,
  C: number,
): number {
  const to = cuda.scratch.get("dead codes", denseChunk(cuda, codes.rows, capacity) * capacity * cuda.bytes);
  const at = codes.from(first);
  const launch = { blocks: C, threads: 256, shared: capacity * cuda.bytes };
  cuda.kernels.launch("dense_codes", launch, {
    ...{ latent: at.latent, number: at[what], auxk: codes.capacity, slot: dead.slot },
    ...{ cap: capacity, to },
  });
  return to;
}
