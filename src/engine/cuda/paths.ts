/** decode, residual and codeGrad: pair by pair, in one kernel where the three belong together; or with products over all dead latents. */

import type { Codes, Params, Path, Step, Tensor } from "../engine.ts";
import { sumsLength } from "../sums.ts";
import { PARTIAL_COLUMNS, SIZES } from "./contract.ts";
import type { Machine } from "./machine.ts";
import { at, type CudaCodes, checked, ownCodes, stepAddresses, type Way } from "./memory.ts";

const HELD_BYTES = 16 * SIZES.HELD;
/** Blocks of rows that are summed apart. */
const BLOCKS = 2048;
const MOST_ROWS_A_BLOCK = 64;

/** Bytes of a matrix [C,capacity] of dead codes that exists at a time. */
const LARGEST_DENSE = 128 * 1024 * 1024;

export type Dense = Extract<Way, { kind: "dense" }>;

export function decode(m: Machine, p: Params, z: Codes, err: Tensor): void {
  const [n, d] = p.decoder.shape as [number, number];
  const [B] = err.shape as [number];
  const codes = ownCodes(z, B);
  const decoder = m.copyOf(checked(p.decoder, "f32", n, d));
  const out = checked(err, "f32", B, d);
  if (codes.way.kind === "empty") {
    m.device.fill(out.address, 0, out.size);
  } else if (codes.way.kind === "dense") {
    const { capacity, dead } = codes.way;
    const rows = deadRows(m, codes.way, d);
    const bad = m.room.get("nobody", 16);
    m.kernels.launch(
      "dense_rows",
      { blocks: capacity, threads: m.threads(d) },
      { decoder, list: dead.list, count: dead.counts, cap: capacity, d, to: rows, bad },
    );
    eachDenseChunk(m, B, capacity, (first, C) => {
      const a = denseCodes(m, codes, codes.way as Dense, "value", first, C);
      m.cublas.multiply({ m: C, n: d, k: capacity, a, b: rows, c: out.address + 4 * first * d, out: "f32" });
    });
  } else {
    const { latent, value } = codes.from();
    const grid = { blocks: B, threads: m.threads(d), shared: 8 * codes.capacity };
    m.kernels.launch("decode", grid, { decoder, latent, value, k: codes.capacity, err: out.address, B, d, n });
  }
  m.wrote(out);
}

export function residual(m: Machine, p: Params, x: Tensor, t: Step, path: Path, live: Path | undefined): void {
  const { err, blocks, args } = residualOf(m, p, x, t, path, live);
  const { value } = ownCodes(path.codes, args.B).from();
  m.kernels.launch("residual", { blocks, threads: m.threads(args.d) }, { ...args, value });
  addSums(m, t, args, blocks, live !== undefined);
  m.wrote(err, true);
}

export function codeGrad(m: Machine, p: Params, path: Path, t: Step): void {
  const [n, d] = p.decoder.shape as [number, number];
  const [B] = path.err.shape as [number];
  const codes = ownCodes(path.codes, B);
  const { bad } = stepAddresses(t);
  const err = checked(path.err, "f32", B, d);
  const decoder = m.copyOf(checked(p.decoder, "f32", n, d));
  const { latent, grad } = codes.from();
  if (codes.way.kind === "empty") return;
  if (codes.way.kind === "pairs") {
    const grid = { blocks: B, threads: m.threads(d), shared: 4 * (d + codes.capacity) };
    m.kernels.launch("code_grad", grid, { decoder, latent, grad, k: codes.capacity, err: err.address, B, d, n, bad });
    return;
  }
  const { capacity, dead } = codes.way;
  const rows = deadRows(m, codes.way, d);
  const err16 = m.copyOf(err);
  eachDenseChunk(m, B, capacity, (first, C) => {
    const c = m.room.get("dead codes", denseChunk(m, B, capacity) * capacity * m.bytes);
    const a = err16 + first * d * m.bytes;
    m.cublas.multiply({ m: C, n: capacity, k: d, a, b: rows, bTransposed: true, c, out: "compute" });
    const at = codes.from(first);
    const grid = { blocks: Math.ceil((C * codes.capacity) / 256), threads: 256 };
    m.kernels.launch("dense_pick", grid, {
      ...{ latent: at.latent, C, auxk: codes.capacity, slot: dead.slot, cap: capacity },
      ...{ from: c, grad: at.grad, bad },
    });
  });
}

/** Whether the three operations of this path can be one kernel. It gives the same bits as they do. */
export function canReconstruct(m: Machine, path: Path, p: Params): boolean {
  const [, d] = p.decoder.shape as [number, number];
  const codes = ownCodes(path.codes, path.codes.rows);
  return (
    codes.way.kind === "pairs" &&
    codes.capacity <= SIZES.HELD &&
    m.covers(d) &&
    HELD_BYTES * m.threads(d) + 8192 <= m.device.shared
  );
}

/** The three in one. */
export function reconstruct(m: Machine, p: Params, x: Tensor, t: Step, path: Path, live: Path | undefined): void {
  const [n] = p.decoder.shape as [number, number];
  const { err, blocks, args } = residualOf(m, p, x, t, path, live);
  const { d } = args;
  const decoder = m.copyOf(checked(p.decoder, "f32", n, d));
  m.kernels.launch(
    "reconstruct",
    { blocks, threads: m.threads(d), shared: HELD_BYTES * m.threads(d) },
    { ...args, decoder, ...ownCodes(path.codes, args.B).from(), n },
  );
  addSums(m, t, args, blocks, live !== undefined);
  m.wrote(err, true);
}

function residualOf(m: Machine, p: Params, x: Tensor, t: Step, path: Path, live: Path | undefined) {
  const [B, d] = x.shape as [number, number];
  at(t.sums, "f64", sumsLength(d));
  const err = checked(path.err, "f32", B, d);
  const R = Math.min(MOST_ROWS_A_BLOCK, Math.max(1, Math.ceil(B / BLOCKS)));
  const blocks = Math.ceil(B / R);
  const args = {
    preBias: at(p.preBias, "f32", d),
    x: at(x, "f32", B, d),
    err: err.address,
    err16: m.copyRoom(err).address,
    live: live === undefined ? 0 : at(live.err, "f32", B, d),
    k: path.codes.capacity,
    ...{ B, d, R },
    partial: m.room.get("sums of rows", 8 * blocks * (PARTIAL_COLUMNS + 2 * d)),
    bad: stepAddresses(t).bad,
  };
  return { err, blocks, args };
}

/** Adds the lines of `partial`, one for each block of rows, to the step's sums. */
function addSums(
  m: Machine,
  t: Step,
  { partial, d, bad }: { readonly partial: number; readonly d: number; readonly bad: number },
  blocks: number,
  isDead: boolean,
): void {
  const grid = { blocks: Math.ceil((PARTIAL_COLUMNS + 2 * d) / 32), threads: 1024 };
  const { sums } = stepAddresses(t);
  m.kernels.launch("residual_sums", grid, { partial, blocks, d, dead: isDead ? 1 : 0, sums, bad });
}

// ---- products over all dead latents ----

/** [capacity,d]: decoder rows of the dead, as decode left them. */
function deadRows(m: Machine, { capacity }: Dense, d: number): number {
  return m.room.get("dead rows", capacity * d * m.bytes);
}

/** visit(first row, rows) for each chunk, in order. */
export function eachDenseChunk(
  m: Machine,
  B: number,
  capacity: number,
  visit: (first: number, C: number) => void,
): void {
  const chunk = denseChunk(m, B, capacity);
  for (let first = 0; first < B; first += chunk) visit(first, Math.min(chunk, B - first));
}

function denseChunk(m: Machine, B: number, capacity: number): number {
  return Math.min(B, Math.max(256, Math.floor(LARGEST_DENSE / (capacity * m.bytes))));
}

/** -> [C,capacity]: values or gradients of the codes of rows from `first` on, in their latents' columns. */
export function denseCodes(
  m: Machine,
  codes: CudaCodes,
  { capacity, dead }: Dense,
  what: "value" | "grad",
  first: number,
  C: number,
): number {
  const to = m.room.get("dead codes", denseChunk(m, codes.rows, capacity) * capacity * m.bytes);
  const at = codes.from(first);
  const grid = { blocks: C, threads: 256, shared: capacity * m.bytes };
  m.kernels.launch("dense_codes", grid, {
    ...{ latent: at.latent, number: at[what], auxk: codes.capacity, slot: dead.slot },
    ...{ cap: capacity, to },
  });
  return to;
}
