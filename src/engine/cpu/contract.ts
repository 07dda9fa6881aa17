/**
 * What the cpu engine and its C++ kernels agree on: kernels/contract.h is made from this file (npm
 * run build). B rows, d inputs (dIn where there are d outputs), n latents; matrices are row-major;
 * null (0) is an argument that is left out.
 */

import { OVERS, REDUCE_OPS, WIRE_TYPES } from "../../collective/collective.ts";
import { headerOf, parametersOf } from "../contract/header.ts";
import type { ArgumentsOf, Contract, Fields } from "../contract/layout.ts";
import { NARROW, SHARED_CONSTANTS, SHARED_ENUMS } from "../contract/names.ts";
import type { Rule } from "../engine.ts";

/**
 * Each from `avx512` on also has what those before it have; the last two screen the encoder's
 * product in bfloat16.
 */
export const INSTRUCTION_SETS = ["portable", "avx2", "avx512", "avx512_bf16", "amx"] as const;

/** Of the live codes. */
export const RULES = ["topk", "batchtopk", "threshold"] as const satisfies readonly Rule["kind"][];

const STRUCTS = {
  /** Null where there is no such parameter. */
  Params: {
    encoder: "float*",
    latentBias: "float*",
    decoder: "float*",
    preBias: "float*",
    threshold: "float*",
    cut: "float*",
    sparsity: "float*",
    skip: "float*",
  },
  Codes: { latent: "u32*", value: "float*", grad: "float*", k: "size_t" },
  Step: {
    hyper: "const double*",
    sums: "double*",
    fired: "u32*",
    bad: "u32*",
    sq: "double*",
    cut: "float*",
    active: "double*",
  },
  /**
   * Latents below ends[g] are in prefix g, and all in the last, whose weight is 1. `count` 1: no
   * prefixes.
   */
  Prefixes: { count: "size_t", ends: "const u32*", weights: "const double*" },
  /** One way through the autoencoder: codes, and err [count,B,d] of their reconstruction. */
  Branch: {
    decoder: "const float*",
    z: "Codes",
    err: "float*",
    B: "size_t",
    d: "size_t",
    n: "size_t",
    prefixes: "Prefixes",
  },
  /** Open MPI's functions and handles, and this rank's place in the grid. `deadline`: seconds. */
  Peers: {
    iallreduce: "void*",
    iallgather: "void*",
    ialltoall: "void*",
    test: "void*",
    comms: `void*[${OVERS.length}]`,
    types: `void*[${WIRE_TYPES.length}]`,
    ops: `void*[${REDUCE_OPS.length}]`,
    shards: "size_t",
    shard: "size_t",
    replicas: "size_t",
    replica: "size_t",
    deadline: "double",
  },
  /**
   * Columns `column` to column + d of the rows of raw [m,width] numbered by `rows` [B] -> x.
   * `sums`: how many there are.
   */
  Load: {
    format: "Format",
    raw: "const char*",
    m: "size_t",
    width: "size_t",
    column: "size_t",
    rows: "const u32*",
    x: "float*",
    B: "size_t",
    d: "size_t",
    n: "size_t",
    sums: "size_t",
    t: "Step",
    normalization: "Normalization",
    factor: "double",
  },
  /**
   * `age` null: the dead are neither counted nor selected. dead.k of 0: counted only. `rule`: of
   * the live codes. `thresholds`, of RULE_THRESHOLD: of each latent, or one of all where
   * `thresholdStep` is 0. band.k of 0: none. `wide`: the codes `dead` are among all latents.
   */
  Encode: {
    p: "Params",
    x: "const float*",
    B: "size_t",
    d: "size_t",
    n: "size_t",
    t: "Step",
    live: "Codes",
    dead: "Codes",
    age: "const u32*",
    rule: "Rule",
    thresholds: "const float*",
    thresholdStep: "size_t",
    band: "Codes",
    wide: "u32",
  },
  /** `isLive`: t.fired is written. */
  Merge: { peers: "const Peers*", z: "Codes", B: "size_t", k: "size_t", n: "size_t", t: "Step", isLive: "u32" },
  /** `peers` null: one rank. */
  Cut: { peers: "const Peers*", z: "Codes", B: "size_t", n: "size_t", t: "Step" },
  AllReduce: { peers: "const Peers*", over: "Over", type: "WireType", op: "ReduceOp", at: "void*", count: "size_t" },
  /** The sum over ranks, with 16-bit numbers on the wire (engine.ts, Narrowing). */
  NarrowSum: {
    peers: "const Peers*",
    over: "Over",
    as: "Narrow",
    at: "float*",
    count: "size_t",
    t: "Step",
    scaled: "u32",
  },
  /** `skip` [d,dIn]: is added to plane 0, times x [B,dIn]. */
  Decode: { branch: "Branch", skip: "const float*", x: "const float*", dIn: "size_t" },
  /** `live`: the last plane of the live err where this is the dead branch, else null. */
  Residual: { branch: "Branch", preBias: "const float*", target: "const float*", live: "const float*", t: "Step" },
  CodeGrad: { branch: "Branch", t: "Step" },
  /** decode, residual and codeGrad of one branch. */
  Reconstruct: { decode: "Decode", residual: "Residual" },
  /**
   * `capacity`: entries of the lists. `g`: encoder and decoder are null unless whole gradients are
   * kept.
   */
  NewGradients: { n: "size_t", dIn: "size_t", dOut: "size_t", capacity: "size_t", g: "Params" },
  /**
   * dead.err null: no dead branch. `wideSums`: of the wide branch, which `dead` then is; else null.
   * `untied`: b_dec is not subtracted from x. `countsErr`: this rank
   * counts err's sum, which all ranks have; `countsRows`: this replica counts what the sums say of
   * all replicas' rows.
   */
  ParamGrad: {
    p: "Params",
    x: "const float*",
    t: "Step",
    live: "Branch",
    dead: "Branch",
    wideSums: "const double*",
    band: "Codes",
    age: "const u32*",
    g: "Gradients*",
    untied: "u32",
    countsErr: "u32",
    countsRows: "u32",
  },
  /** `countsShared`: this shard counts preBias and skip, which all shards have. */
  Norm: { decoder: "const float*", g: "const Gradients*", t: "Step", countsShared: "u32" },
  /**
   * ema.encoder null: no average is kept. `firstLatent`: the number of latent 0 among those of all
   * shards.
   */
  Update: {
    p: "Params",
    m: "Params",
    v: "Params",
    ema: "Params",
    age: "u32*",
    counters: "double*",
    g: "const Gradients*",
    t: "Step",
    firstLatent: "u32",
  },
  /**
   * Of the rows numbered by `rows` [B] of logits [.., v] -> sums [B], and divergence [B] from the
   * same rows of `from`, whose sums are known; `from` null: none.
   */
  LogSums: {
    logits: "const float*",
    from: "const float*",
    fromSums: "const double*",
    rows: "const u32*",
    B: "size_t",
    v: "size_t",
    sums: "double*",
    divergence: "double*",
  },
} as const satisfies Readonly<Record<string, Fields>>;

export const CONTRACT = {
  enums: {
    ...SHARED_ENUMS,
    InstructionSet: { values: INSTRUCTION_SETS },
    Rule: { values: RULES, prefix: "RULE_" },
    Over: { values: OVERS },
    WireType: { values: WIRE_TYPES, prefix: "WIRE_" },
    ReduceOp: { values: REDUCE_OPS, prefix: "REDUCE_" },
    Narrow: { values: NARROW, prefix: "NARROW_" },
  },
  constants: SHARED_CONSTANTS,
  structs: STRUCTS,
} as const satisfies Contract;

/** Operations, which are queued: the C function and the struct of its arguments. */
export const OPERATIONS = {
  load: ["saetta_load", "Load"],
  encode: ["saetta_encode", "Encode"],
  merge: ["saetta_merge", "Merge"],
  cut: ["saetta_cut", "Cut"],
  allReduce: ["saetta_all_reduce", "AllReduce"],
  narrowSum: ["saetta_narrow_sum", "NarrowSum"],
  decode: ["saetta_decode", "Decode"],
  residual: ["saetta_residual", "Residual"],
  codeGrad: ["saetta_code_grad", "CodeGrad"],
  reconstruct: ["saetta_reconstruct", "Reconstruct"],
  paramGrad: ["saetta_param_grad", "ParamGrad"],
  norm: ["saetta_norm", "Norm"],
  update: ["saetta_update", "Update"],
  logSums: ["saetta_log_sums", "LogSums"],
} as const satisfies Readonly<Record<string, readonly [symbol: string, struct: keyof typeof STRUCTS]>>;

/**
 * The other functions: result and parameters. What is `const u8*` or points at a struct is
 * JavaScript's, for the time of the call.
 */
export const FUNCTIONS = {
  paths: ["saetta_paths", "u32", {}],
  open: ["saetta_open", "Stream*", { path: "u32", threads: "u32" }],
  close: ["saetta_close", "void", { stream: "Stream*" }],
  held: ["saetta_held", "u64", {}],
  peak: ["saetta_peak", "u64", {}],
  resetPeak: ["saetta_reset_peak", "void", {}],
  allocate: ["saetta_allocate", "void*", { bytes: "u64" }],
  release: ["saetta_release", "void", { stream: "Stream*", address: "void*" }],
  write: ["saetta_write", "void", { stream: "Stream*", to: "void*", from: "const u8*", bytes: "u64" }],
  read: ["saetta_read", "u64", { stream: "Stream*", from: "const void*", to: "void*", bytes: "u64" }],
  done: ["saetta_done", "u64", { stream: "Stream*" }],
  wait: ["saetta_wait", "void", { stream: "Stream*", ticket: "u64" }],
  error: ["saetta_error", "const char*", { stream: "Stream*" }],
  sentBytes: ["saetta_sent_bytes", "u64", {}],
  peers: ["saetta_peers", "Peers*", { peers: "const Peers*" }],
  gradients: ["saetta_gradients", "Gradients*", { a: "const NewGradients*" }],
  gradientsRelease: ["saetta_gradients_release", "void", { stream: "Stream*", g: "Gradients*" }],
} as const satisfies Readonly<Record<string, readonly [symbol: string, result: string, parameters: Fields]>>;

export type StructOf<K extends keyof typeof STRUCTS> = ArgumentsOf<(typeof STRUCTS)[K], typeof STRUCTS>;

/** kernels/contract.h. */
export function cpuHeader(): string {
  const names = new RegExp(
    `\\b(${["Stream", "Gradients", "u8", "u32", "u64", ...Object.keys(STRUCTS)].join("|")})\\b(?=[*\\s])`,
    "g",
  );
  const prototypes = [
    ...Object.values(FUNCTIONS).map(([symbol, result, fields]) => `${result} ${symbol}(${parametersOf(fields)});`),
    ...Object.values(OPERATIONS).map(([symbol, struct]) => `void ${symbol}(Stream* stream, const ${struct}* a);`),
  ].map((prototype) => prototype.replace(names, "saetta::$1"));
  return headerOf({
    source: "src/engine/cpu/contract.ts",
    contract: CONTRACT,
    open: [
      "#include <cstddef>",
      "#include <cstdint>",
      "",
      "namespace saetta {",
      "",
      "using u8 = uint8_t;",
      "using u32 = uint32_t;",
      "using u64 = uint64_t;",
      "",
      "class Stream;",
      "struct Gradients;",
      "",
    ],
    after: ["", "}  // namespace saetta", "", 'extern "C" {', ...prototypes, '}  // extern "C"'],
  });
}
