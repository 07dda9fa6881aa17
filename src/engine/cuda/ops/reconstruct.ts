/**
 * decode, residual and codeGrad: pair by pair, in one kernel where the three belong together; or
 * with products over all dead latents.
 */

import { type Branch, type Params, type Step, SUMS, type Tensor } from "../../engine.ts";
import { sumsLength } from "../../sums.ts";
import type { CudaContext } from "../context.ts";
import { PARTIAL_COLUMNS, SIZES } from "../contract.ts";
import { type CudaCodes, type DenseStrategy, ownCodes } from "../memory/codes.ts";
import { centredRows, copyOf, copyToWrite, wroteWithCopy } from "../memory/copies.ts";
import { errShape, planesOf, prefixesOf } from "../memory/prefixes.ts";
import { at, checked, stepAddresses } from "../memory/tensor.ts";

const HELD_BYTES = 16 * SIZES.HELD;
/** Blocks of rows that are summed apart. */
const BLOCKS = 2048;
const MOST_ROWS_A_BLOCK = 64;
const TANH_BLOCKS = 1024;

/** Bytes of a matrix [C,capacity] of dead codes that exists at a time. */
const LARGEST_DENSE = 128 * 1024 * 1024;

/**
 * Where there is a skip connection that this shard adds: -> err: skip x, which `decode` then adds
 * to. Returns whether there is one.
 */
export function skipped(cuda: CudaContext, p: Params, branch: Branch, x: Tensor | undefined): boolean {
  if (p.skip === undefined || x === undefined || cuda.exchange.collective.grid.shard > 0) return false;
  const [dOut, dIn] = p.skip.shape as [number, number];
  const [B] = x.shape as [number];
  const out = checked(branch.err, "f32", ...errShape(branch, B, dOut));
  const skip = copyOf(cuda, checked(p.skip, "f32", dOut, dIn));
  const rows = centredRows(cuda, p, x, cuda.scratch.get("nobody", 16), true);
  cuda.cublas.multiply({ m: B, n: dOut, k: dIn, a: rows, b: skip, bTransposed: true, c: out.address, out: "f32" });
  return true;
}

/** `add`: to what `skipped` has left in err. */
export function decode(cuda: CudaContext, p: Params, branch: Branch, add: boolean): void {
  const [n, d] = p.decoder.shape as [number, number];
  const { rows: B } = branch.codes;
  const codes = ownCodes(branch.codes, B);
  const decoder = copyOf(cuda, checked(p.decoder, "f32", n, d));
  const out = checked(branch.err, "f32", ...errShape(branch, B, d));
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
    const k = codes.capacity;
    const launch = { blocks: B, threads: cuda.threads(d), shared: 8 * Math.min(k, SIZES.SHARED_SLOTS) };
    const prefixes = prefixesOf(branch, n);
    const args = { decoder, latent, value, k, err: out.address, B, d, prefixes, add: add ? 1 : 0 };
    cuda.kernels.launch("decode", launch, args);
  }
  out.wrote();
}

export function residual(
  cuda: CudaContext,
  p: Params,
  target: Tensor,
  t: Step,
  branch: Branch,
  live: Branch | undefined,
): void {
  const it = residualOf(cuda, p, target, t, branch, live);
  const { value } = ownCodes(branch.codes, it.args.B).from();
  const launch = { blocks: it.blocks, threads: cuda.threads(it.args.d) };
  const planes = it.prefixes.count;
  if (planes === 1) cuda.kernels.launch("residual", launch, { ...it.args, value });
  else {
    const shared = 8 * (planes - 1) * launch.threads;
    cuda.kernels.launch("residual_planes", { ...launch, shared }, { ...it.args, prefixes: it.prefixes, value });
  }
  addSums(cuda, p, t, branch, it, live !== undefined);
}

export function codeGrad(cuda: CudaContext, p: Params, branch: Branch, t: Step): void {
  const [n, d] = p.decoder.shape as [number, number];
  const { rows: B } = branch.codes;
  const codes = ownCodes(branch.codes, B);
  const { bad } = stepAddresses(t);
  const err = checked(branch.err, "f32", ...errShape(branch, B, d));
  const decoder = copyOf(cuda, checked(p.decoder, "f32", n, d));
  const { latent, grad } = codes.from();
  if (codes.strategy.kind === "empty") return;
  if (codes.strategy.kind === "pairs") {
    const k = codes.capacity;
    const launch = { blocks: B, threads: cuda.threads(d), shared: 4 * (d + Math.min(k, SIZES.SHARED_SLOTS)) };
    const args = { decoder, latent, grad, k, err: err.address, B, d, prefixes: prefixesOf(branch, n), bad };
    cuda.kernels.launch("code_grad", launch, args);
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
 * Which kernel does the three operations of a branch: of the live one `reconstruct_wide` also where
 * rows have few slots, since it is faster, by 4 % of a step; of the dead one `reconstruct`.
 */
type Fused = "reconstruct" | "reconstruct_wide" | "reconstruct_planes";

/** The kernel and its shared memory; undefined where there is none. */
function fusedOf(
  cuda: CudaContext,
  branch: Branch,
  p: Params,
  isLive: boolean,
): { readonly kernel: Fused; readonly shared: number } | undefined {
  const [, d] = p.decoder.shape as [number, number];
  const codes = ownCodes(branch.codes, branch.codes.rows);
  if (codes.strategy.kind !== "pairs" || !cuda.covers(d)) return undefined;
  const planes = planesOf(branch);
  const kernel =
    planes > 1 ? "reconstruct_planes" : codes.capacity > SIZES.HELD || isLive ? "reconstruct_wide" : "reconstruct";
  // The dead have kernels of their own where there are many in a row.
  if (kernel !== "reconstruct" && !isLive) return undefined;
  const ofPlanes = planes > 1 ? 4 * cuda.wide * planes + 8 * (cuda.wide + planes - 1) : 0;
  const ofGradients = kernel === "reconstruct" ? 0 : 8;
  const shared = (HELD_BYTES + ofGradients + ofPlanes) * cuda.threads(d);
  return shared + 8192 <= cuda.device.shared ? { kernel, shared } : undefined;
}

/**
 * Whether the three operations of this branch can be one kernel. It gives the same bits as they do.
 */
export function canReconstruct(cuda: CudaContext, branch: Branch, p: Params, live: Branch | undefined): boolean {
  return fusedOf(cuda, branch, p, live === undefined) !== undefined;
}

/** The three in one. */
export function reconstruct(
  cuda: CudaContext,
  p: Params,
  target: Tensor,
  t: Step,
  branch: Branch,
  live: Branch | undefined,
  add: boolean,
): void {
  const [n] = p.decoder.shape as [number, number];
  const it = residualOf(cuda, p, target, t, branch, live);
  const { args, blocks, prefixes } = it;
  const decoder = copyOf(cuda, checked(p.decoder, "f32", n, args.d));
  const { kernel, shared } = fusedOf(cuda, branch, p, live === undefined)!;
  const launch = { blocks, threads: cuda.threads(args.d), shared };
  const all = { ...args, decoder, ...ownCodes(branch.codes, args.B).from() };
  if (kernel === "reconstruct") cuda.kernels.launch(kernel, launch, { ...all, n });
  else cuda.kernels.launch(kernel, launch, { ...all, prefixes, add: add ? 1 : 0 });
  addSums(cuda, p, t, branch, it, live !== undefined);
}

function residualOf(cuda: CudaContext, p: Params, target: Tensor, t: Step, branch: Branch, live: Branch | undefined) {
  const [B, d] = target.shape as [number, number];
  const [n] = p.decoder.shape as [number, number];
  const planes = planesOf(branch);
  const length = sumsLength(d, planes);
  const width = PARTIAL_COLUMNS + length - SUMS.length;
  at(t.sums, "f64", ...(live === undefined ? [length] : []));
  const err = checked(branch.err, "f32", ...errShape(branch, B, d));
  const R = Math.min(MOST_ROWS_A_BLOCK, Math.max(1, Math.ceil(B / BLOCKS)));
  const blocks = Math.ceil(B / R);
  const args = {
    preBias: at(p.preBias, "f32", d),
    x: at(target, "f32", B, d),
    err: err.address,
    err16: copyToWrite(cuda, err),
    live: live === undefined ? 0 : at(live.err, "f32", ...errShape(live, B, d)) + 4 * (planesOf(live) - 1) * B * d,
    k: branch.codes.capacity,
    ...{ B, d, R },
    partial: cuda.scratch.get("sums of rows", 8 * blocks * width),
    bad: stepAddresses(t).bad,
  };
  return { err, blocks, width, prefixes: prefixesOf(branch, n), args };
}

/** Adds the lines of `partial`, one for each block of rows, to the step's sums. */
function addSums(
  cuda: CudaContext,
  p: Params,
  t: Step,
  { codes }: Branch,
  { err, blocks, width, args: { partial, bad } }: ReturnType<typeof residualOf>,
  isDead: boolean,
): void {
  const { sums, hyper } = stepAddresses(t);
  const launch = { blocks: Math.ceil(width / 32), threads: 1024 };
  cuda.kernels.launch("residual_sums", launch, { partial, blocks, width, dead: isDead ? 1 : 0, sums, bad });
  wroteWithCopy(err);
  if (isDead || p.sparsity === undefined) return;
  const [k, B] = [codes.capacity, codes.rows];
  const rows = Math.min(TANH_BLOCKS, Math.ceil(B / 8));
  const tanh = cuda.scratch.get("sums of tanh", 8 * TANH_BLOCKS);
  const { value } = ownCodes(codes, B).from();
  cuda.kernels.launch("tanh_rows", { blocks: rows, threads: 256 }, { value, k, B, hyper, partial: tanh });
  cuda.kernels.launch("tanh_total", { blocks: 1, threads: 1024 }, { partial: tanh, blocks: rows, hyper, sums });
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
