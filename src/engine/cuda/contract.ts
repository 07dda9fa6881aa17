/**
 * What the cuda engine and its kernels agree on: kernels/contract.cuh is made from this file (npm
 * run build). B rows, d inputs, n latents; matrices are row-major; null (0) is an argument that is
 * left out. What each kernel does with its arguments is said where it is defined.
 */

import { headerOf, parametersOf } from "../contract/header.ts";
import { type ArgumentsOf, type Contract, type Fields, sizeOfStruct } from "../contract/layout.ts";
import { SHARED_CONSTANTS, SHARED_ENUMS } from "../contract/names.ts";
import { FILES } from "./kernel-arguments.ts";

export { FILES } from "./kernel-arguments.ts";

/** What products are computed in. */
export const COMPUTE = ["f32", "bf16", "fp16"] as const;
export type Compute = (typeof COMPUTE)[number];

/**
 * `norm_rows`: gradient rows are formed, formed and kept for the update to come, or kept already.
 */
const KEEP = ["formOnly", "formAndKeep", "formed"] as const;

/** Sums of a block's rows in `partial`, before the column sums of err and of x - b_pre. */
const PARTIAL = ["err2", "x2", "centred2", "active"] as const;

export const SIZES = {
  /**
   * Threads of a block that works on rows: min(this, as many as take all columns at once, in whole
   * warps), T(d). Sums depend on it.
   */
  MOST_THREADS: 256,
  /**
   * Columns that a thread takes at a time of a gradient row, where d is a multiple of it, else 1.
   */
  ROW_WIDTH: 4,
  /** As MOST_THREADS, of gradient rows: R(d). */
  MOST_ROW_THREADS: 512,
  /** Rows of x that a block of `center` takes. */
  CENTER_ROWS: 8,
  /** Latents that a block of dead_count and dead_list takes. */
  DEAD_BLOCK: 4096,
  /**
   * How many steps ahead deaths are forecast: the host's lag (dead-list.ts), and the step that is
   * running.
   */
  FORECAST_STEPS: 5,
  /** Parts that dense_bias cuts a chunk in: a lane of dense_check adds each. */
  DENSE_PARTS: 32,
  /**
   * Entries of a list that are brought into shared memory ahead of their use, and how many such
   * stages there are.
   */
  STAGED: 64,
  STAGES: 3,
  /** Slots that list_fill places at a time. */
  LIST_TILE: 2048,
  /** Latents of a block of list_bias, and the threads that share one. */
  BIAS_LATENTS: 32,
  BIAS_SHARE: 8,
  /** Slots whose decoder rows `reconstruct` keeps. */
  HELD: 32,
  /** Prefixes at most. */
  MOST_PREFIXES: 16,
  /** Slots of a row that `decode` and `code_grad` keep in shared memory. */
  SHARED_SLOTS: 1024,
  /** Parts of the rows that input_columns sums. */
  COLUMN_PARTS: 64,
  /** Blocks of skip_squares. */
  SKIP_BLOCKS: 256,
  /** Rows that a block of cut_apply takes. */
  CUT_ROWS: 32,
  /** Latents of unusual weight that the screen looks at one by one. */
  MOST_HEAVY: 64,
  /** Rows of pre-activations that a block of select_threshold takes. */
  THRESHOLD_ROWS: 4,
  /** Set in the row of an entry of the dead branch. */
  DEAD_PATH: 0x8000_0000,
} as const;

const STRUCTS = {
  /** Null where there is no such parameter. */
  Weights: {
    encoder: "float*",
    latentBias: "float*",
    decoder: "float*",
    preBias: "float*",
    threshold: "float*",
    cut: "float*",
    sparsity: "float*",
    skip: "float*",
  },
  /** Prefixes of the latents, `count` of them; one: all latents in one reconstruction. */
  Prefixes: { count: "u32", ends: "u32[16]", weights: "float[16]" },
  /** Codes from a row on; latent null: there are none. */
  Selected: { latent: "u32*", value: "float*", grad: "float*", capacity: "u64" },
  /** Latents: those from `first` to before `end`, and those from `rest` on (owned-rows.ts). */
  Share: { first: "u32", end: "u32", rest: "u32" },
  /** Sums over a list in float64: of gradients, and of absolute factors. */
  Totals: { grad: "double", grads: "double", values: "double" },
  /**
   * The numbers of Adam, in f32: w -= rate m / (sqrt(v) root + eps), with PyTorch's bias
   * correction. `go`: this step is applied; `t` of Adam; `averages`: an average is kept;
   * `firstLatent`: the number that latent 0 has among those of all shards; `unit`: decoder rows
   * keep norm 1; `rows` of the batch.
   */
  Numbers: {
    ...{ factor: "float", beta1: "float", beta2: "float", rest1: "float", rest2: "float" },
    ...{ rate: "float", root: "float", eps: "float", emaRest: "float" },
    ...{ go: "u32", t: "u32", averages: "u32", firstLatent: "u32", unit: "u32", rows: "double" },
  },
  /**
   * What paramGrad leaves for norm and update: the codes inverted to a list for each latent, from
   * which gradient rows are formed.
   */
  Gradients: {
    n: "u64",
    dIn: "u64",
    dOut: "u64",
    /** Entries of a list that are summed at once; a longer list is cut. */
    chunk: "u64",
    /** Rows of deadEncoder and deadDecoder. */
    cap: "u64",
    /**
     * The rows that kernels over all rows go over: encoder rows are 0 to n - 1, decoder rows n to 2
     * n - 1. Blocks take them as they get to it: `taken`, 0 before, counts.
     */
    from: "u64",
    to: "u64",
    taken: "u32*",
    /**
     * [n + 1]: the list of latent j is entries [start[j], start[j + 1]), in the order of the rows,
     * live before dead.
     */
    start: "u32*",
    /** [n]: where in pieceRows the pieces of a long list are, or NONE. */
    pieceAt: "u32*",
    /**
     * {row, factor of err's row, factor of the row of x - preBias, row of err}: value and grad with
     * the factors of the loss applied, as floats. Both rows have DEAD_PATH in the dead branch.
     */
    entries: "uint4*",
    /** [piece][2][max(dIn, dOut)]: encoder and decoder row of each piece of the long lists. */
    pieceRows: "float*",
    /** x - preBias [B,dIn], the residuals [planes][B,dOut] and those of the dead [B,dOut]. */
    xc16: "const half_t*",
    liveErr16: "const half_t*",
    deadErr16: "const half_t*",
    /**
     * [n]: position of a latent among the dead, or NONE; null where dead rows do not come from
     * dense products.
     */
    deadSlot: "const u32*",
    /** [cap,dIn] and [cap,dOut], without the factor of the loss. */
    deadEncoder: "const float*",
    deadDecoder: "const float*",
    /**
     * Where dead latents have a pre-activation loss, else null: ages [n], and column sums of x -
     * preBias [dIn].
     */
    age: "const u32*",
    deadColumns: "const double*",
    /**
     * Factors of the loss: live, dead; of the pre-activation loss of a row; the age that dead
     * latents are above.
     */
    scales: "const double*",
    /** [n,dIn] and [n,dOut]: rows that are formed already, for those who are told so. */
    formedEncoder: "float*",
    formedDecoder: "float*",
  },
} as const satisfies Readonly<Record<string, Fields>>;

/** Bytes of an entry of a list: uint4. */
export const ENTRY_BYTES = 16;

export const CONTRACT = {
  enums: {
    ...SHARED_ENUMS,
    Keep: { values: KEEP },
    Partial: { values: PARTIAL, prefix: "P_", count: "P_COLUMNS" },
  },
  constants: { ...SHARED_CONSTANTS, ...SIZES },
  structs: STRUCTS,
} as const satisfies Contract;

type Files = typeof FILES;
type Kernels = { [F in keyof Files]: { [K in keyof Files[F]]: Files[F][K] } }[keyof Files];
type Merged<T> = (T extends unknown ? (it: T) => void : never) extends (it: infer All) => void ? All : never;
export type Kernel = keyof Merged<Kernels> & string;
export type KernelArguments<K extends Kernel> = Merged<Kernels>[K] extends infer F extends Fields
  ? ArgumentsOf<F, typeof STRUCTS>
  : never;
export type StructOf<K extends keyof typeof STRUCTS> = ArgumentsOf<(typeof STRUCTS)[K], typeof STRUCTS>;

export function sizeOf(struct: keyof typeof STRUCTS): number {
  return sizeOfStruct(STRUCTS[struct], CONTRACT);
}

/** The number of a name of an enum. */
export const keepOf = (keep: (typeof KEEP)[number]): number => KEEP.indexOf(keep);
export const PARTIAL_COLUMNS = PARTIAL.length;

/** kernels/contract.cuh. A kernel `name` is defined as name(PARAMETERS(name)). */
export function cudaHeader(): string {
  const parameters = Object.entries<Readonly<Record<string, Fields>>>(FILES).flatMap(([file, kernels]) => [
    "",
    `// ${file}.cu`,
    ...Object.entries(kernels).map(([kernel, fields]) => `#define PARAMETERS_${kernel} ${parametersOf(fields)}`),
  ]);
  return headerOf({
    source: "src/engine/cuda/contract.ts",
    contract: CONTRACT,
    open: [],
    after: ["", "#define PARAMETERS(kernel) PARAMETERS_##kernel", ...parameters],
  });
}
