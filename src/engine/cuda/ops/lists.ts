/**
 * The codes of a batch inverted: for each latent the list of places where it is on
 * (kernels/lists.cu).
 */

import type { Step } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import { ENTRY_BYTES, SIZES, type StructOf, sizeOf } from "../contract.ts";
import type { Buffers } from "../driver/buffers.ts";
import type { Address } from "../driver/driver.ts";
import { stepAddresses } from "../memory/tensor.ts";
import type { Share } from "../replicas/owned-rows.ts";

/** A part of the rows that is counted in 16 bits. */
const MOST_ROWS_A_PART = 65535;
/** Parts that the rows of a replica are counted in. */
const PARTS = 128;
const ROWS_A_PART = 16;
/** Shared memory of list_fill besides its counts. */
const FILL_BYTES = 4 * SIZES.LIST_TILE;
/** Entries of a piece of a long list, at least, and pieces in all. */
const SHORTEST_PIECE = 256;
/** Factors of the loss: live, dead, of the pre-activation loss of a row. */
export const SCALES_BYTES = 32;
const PIECES = 4096;

/** Where codes are. */
export interface CodesAt {
  readonly latent: Address;
  readonly value: Address;
  readonly grad: Address;
  readonly k: number;
}

export interface Lists {
  readonly start: Address;
  readonly pieceAt: Address;
  readonly entries: Address;
  readonly pieceRows: Address;
  readonly scales: Address;
  readonly pieceOf: Address;
  readonly pieceCount: Address;
  readonly totals: Address;
}

/**
 * Entries of a list that are summed at once, of lists that have so many at most: the same however
 * much of them is used.
 */
export function chunkOf(entries: number): number {
  return Math.max(SHORTEST_PIECE, Math.ceil(entries / PIECES));
}

export interface ListedBatch {
  /** Rows, and how many there can be, of all replicas whose rows these are. */
  readonly B: number;
  readonly most: number;
  readonly replicas: number;
  readonly n: number;
  readonly dIn: number;
  readonly dOut: number;
  readonly chunk: number;
  /** The latents that have lists. */
  readonly listed: Share;
  readonly prefixes: StructOf<"Prefixes">;
  /** The parameter `sparsity`, and ages where the dead have a pre-activation loss; or 0. */
  readonly sparsity: Address;
  readonly age: Address;
  /** Sums of the wide branch, which the second then is; or 0. */
  readonly wideSums: Address;
  /** These are codes of a band, whose lists are apart from the others. */
  readonly isBand: boolean;
}

/** The chunk of lists that are not cut. */
export const WHOLE = 2 ** 32 - 1;

/**
 * The lists, live before dead; `dead`: undefined where those do not go by lists. They are in
 * `kept`, which outlives the operation.
 */
export function invert(
  cuda: CudaContext,
  kept: Buffers,
  t: Step,
  batch: ListedBatch,
  live: CodesAt,
  dead: CodesAt | undefined,
): Lists {
  const { B, most, replicas, n, dIn, dOut, chunk, listed, prefixes, sparsity, age, wideSums, isBand } = batch;
  const { hyper, sums } = stepAddresses(t);
  const parts = Math.max(
    Math.min(PARTS * replicas, Math.max(1, Math.ceil(B / ROWS_A_PART))),
    Math.ceil(B / MOST_ROWS_A_PART),
  );
  const rowsPerPart = Math.ceil(B / parts);
  const allParts = parts * (dead === undefined ? 1 : 2);
  const width = 2 * Math.ceil(Math.min(n, 65536, (cuda.device.shared - FILL_BYTES - 2048) >> 1) / 2);
  const ranges = Math.ceil(n / width);
  const capacity = most * (live.k + (dead?.k ?? 0));
  const pieces = 2 * Math.ceil(capacity / chunk) + 1;
  const counts = cuda.scratch.get("counts of lists", 4 * allParts * n);
  const totals = cuda.scratch.get("lengths of lists", 4 * n);
  const of = isBand ? "the band's " : "";
  const lists = {
    start: kept.get(`${of}starts of lists`, 4 * (n + 1)),
    pieceAt: kept.get(`${of}pieces of lists`, 4 * n),
    entries: kept.get(`${of}entries of lists`, ENTRY_BYTES * capacity),
    pieceRows: isBand ? 0 : kept.get("rows of pieces", 8 * pieces * Math.max(dIn, dOut)),
    scales: kept.get("factors of the loss", SCALES_BYTES),
    pieceOf: cuda.scratch.get("latents of pieces", 4 * pieces),
    pieceCount: cuda.scratch.get("number of pieces", 4),
    totals: cuda.scratch.get("totals of pieces", sizeOf("Totals") * pieces),
  };
  const launch = { blocks: [ranges, allParts] as const, threads: 1024 };
  const parted = {
    ...{ live: live.latent, k: live.k, dead: dead?.latent ?? 0, auxk: dead?.k ?? 0 },
    ...{ B, rowsPerPart, P: parts, n, width, listed, counts },
  };
  cuda.kernels.launch("list_count", { ...launch, shared: 2 * width }, parted);
  const prefix = { blocks: Math.ceil(n / 32), threads: [32, 8] as const };
  cuda.kernels.launch("list_prefix", prefix, { counts, parts: allParts, n, totals });
  const { start, pieceAt, pieceOf, pieceCount, scales, entries } = lists;
  cuda.kernels.launch(
    "list_scan",
    { blocks: 1, threads: 1024 },
    { totals, n, d: dOut, chunk, hyper, sums, wideSums, ...{ start, pieceAt, pieceOf, pieceCount, scales } },
  );
  cuda.kernels.launch(
    "list_fill",
    { ...launch, shared: 2 * width + FILL_BYTES },
    {
      ...parted,
      ...{ liveValue: live.value, liveGrad: live.grad, deadValue: dead?.value ?? 0, deadGrad: dead?.grad ?? 0 },
      ...{ start, scales, entries, prefixes, rowsEach: B / replicas, hyper, sparsity, age, band: isBand ? 1 : 0 },
    },
  );
  return lists;
}
