/** decode, residual and codeGrad: pair by pair, in one kernel where the three belong together; or with products over all dead latents. */

import type { Codes, Params, Path, Step, Tensor } from "../engine.ts";
import { sumsLength } from "../sums.ts";
import type { Machine } from "./machine.ts";
import { at, type CudaCodes, checked, ownCodes, stepAddresses, type Way } from "./memory.ts";

/** Slots that reconstruct.cu keeps rows for. */
const HELD = 32;
const HELD_BYTES = 16 * HELD;
/** Columns of a line of partial sums, besides two for each input. */
const PARTIAL = 4;
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
      decoder,
      dead.list,
      dead.counts,
      capacity,
      d,
      rows,
      bad,
    );
    eachDenseChunk(m, B, capacity, (first, C) => {
      const a = denseCodes(m, codes, codes.way as Dense, "value", first, C);
      m.cublas.multiply({ m: C, n: d, k: capacity, a, b: rows, c: out.address + 4 * first * d, out: "f32" });
    });
  } else {
    const { latent, value } = codes.from();
    const grid = { blocks: B, threads: m.threads(d), shared: 8 * codes.capacity };
    m.kernels.launch("decode", grid, decoder, latent, value, codes.capacity, out.address, B, d, n);
  }
  m.wrote(out);
}

export function residual(m: Machine, p: Params, x: Tensor, t: Step, path: Path, live: Path | undefined): void {
  const { B, d, err, err16, liveErr, rows, partial, blocks, bad, sums } = residualOf(m, x, t, path, live);
  const codes = ownCodes(path.codes, B);
  const preBias = at(p.preBias, "f32", d);
  const grid = { blocks, threads: m.threads(d) };
  m.kernels.launch(
    "residual",
    grid,
    preBias,
    at(x, "f32", B, d),
    err.address,
    err16,
    liveErr,
    codes.from().value,
    codes.capacity,
    B,
    d,
    rows,
    partial,
    bad,
  );
  addSums(m, blocks, d, partial, live !== undefined, sums, bad);
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
    m.kernels.launch("code_grad", grid, decoder, latent, grad, codes.capacity, err.address, B, d, n, bad);
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
    m.kernels.launch("dense_pick", grid, at.latent, C, codes.capacity, dead.slot, capacity, c, at.grad, bad);
  });
}

/** Whether the three operations of this path can be one kernel. It gives the same bits as they do. */
export function canReconstruct(m: Machine, path: Path, p: Params): boolean {
  const [, d] = p.decoder.shape as [number, number];
  const codes = ownCodes(path.codes, path.codes.rows);
  return (
    codes.way.kind === "pairs" &&
    codes.capacity <= HELD &&
    m.covers(d) &&
    HELD_BYTES * m.threads(d) + 8192 <= m.device.shared
  );
}

/** The three in one. */
export function reconstruct(m: Machine, p: Params, x: Tensor, t: Step, path: Path, live: Path | undefined): void {
  const [n] = p.decoder.shape as [number, number];
  const { B, d, err, err16, liveErr, rows, partial, blocks, bad, sums } = residualOf(m, x, t, path, live);
  const codes = ownCodes(path.codes, B);
  const decoder = m.copyOf(checked(p.decoder, "f32", n, d));
  const [preBias, input] = [at(p.preBias, "f32", d), at(x, "f32", B, d)];
  const { latent, value, grad } = codes.from();
  m.kernels.launch(
    "reconstruct",
    { blocks, threads: m.threads(d), shared: HELD_BYTES * m.threads(d) },
    ...[
      decoder,
      latent,
      value,
      grad,
      codes.capacity,
      preBias,
      input,
      err.address,
      err16,
      liveErr,
      B,
      d,
      n,
      rows,
      partial,
      bad,
    ],
  );
  addSums(m, blocks, d, partial, live !== undefined, sums, bad);
  m.wrote(err, true);
}

function residualOf(m: Machine, x: Tensor, t: Step, path: Path, live: Path | undefined) {
  const [B, d] = x.shape as [number, number];
  const { sums, bad } = stepAddresses(t);
  at(t.sums, "f64", sumsLength(d));
  const err = checked(path.err, "f32", B, d);
  const rows = Math.min(MOST_ROWS_A_BLOCK, Math.max(1, Math.ceil(B / BLOCKS)));
  const blocks = Math.ceil(B / rows);
  const partial = m.room.get("sums of rows", 8 * blocks * (PARTIAL + 2 * d));
  const liveErr = live === undefined ? 0 : at(live.err, "f32", B, d);
  return { B, d, err, err16: m.copyRoom(err).address, liveErr, rows, blocks, partial, sums, bad };
}

function addSums(
  m: Machine,
  blocks: number,
  d: number,
  partial: number,
  isDead: boolean,
  sums: number,
  bad: number,
): void {
  const grid = { blocks: Math.ceil((PARTIAL + 2 * d) / 32), threads: 1024 };
  m.kernels.launch("residual_sums", grid, partial, blocks, d, isDead ? 1 : 0, sums, bad);
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
  m.kernels.launch("dense_codes", grid, at.latent, at[what], codes.capacity, dead.slot, capacity, to);
  return to;
}
