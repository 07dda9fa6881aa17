/**
 * Dense products through cuBLASLt, row-major, with f32 accumulation. A plan (descriptors and
 * algorithm) is found once for each shape and kept. The same plan on the same card gives the same
 * bits: partial sums over the inner dimension are added in a fixed order or not made at all.
 */

import type { Compute } from "../contract.ts";
import { type Address, CudaError } from "./driver.ts";
import { loadLibrary } from "./libraries.ts";

/** Bytes of working memory that a product may use. */
export const WORKSPACE = 32 * 1024 * 1024;

/**
 * C [m,n] = A B (+ C with `add`). A is [m,k], or [k,m] transposed; B is [k,n], or [n,k] transposed.
 */
export interface Product {
  readonly m: number;
  readonly n: number;
  readonly k: number;
  readonly a: Address;
  readonly aTransposed?: boolean;
  readonly b: Address;
  readonly bTransposed?: boolean;
  readonly c: Address;
  /** Elements from one row of C to the next; default n. */
  readonly strideC?: number;
  /** Of A and B; default: the compute type. */
  readonly of?: Compute;
  /** Of C. */
  readonly out: "compute" | Compute;
  readonly add?: boolean;
}

interface Plan {
  readonly description: number;
  readonly layouts: readonly [number, number, number];
  readonly algorithm: Uint8Array;
}

type Call = (...args: (number | ArrayBufferView)[]) => number;

/** cudaDataType. */
const DATA: Readonly<Record<Compute, number>> = { f32: 0, bf16: 14, fp16: 2 };
/** CUBLAS_COMPUTE_32F: tf32 stays off. */
const COMPUTE_F32 = 68;
const TRANSPOSE = { a: 3, b: 4 } as const;
const PREFERENCE = { workspace: 1, reduction: 3, alignment: [5, 6, 7, 8] } as const;
/**
 * CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE: partial sums in f32, added by a step of their own; never
 * where they meet in any order.
 */
const REDUCTION = 2;
/**
 * cublasLtMatmulHeuristicResult_t: the algorithm (64 bytes), the bytes it works in (8), whether it
 * can be used (4), and more.
 */
const RESULT_BYTES = 96;
const ALGORITHM_BYTES = 64;
const STATUS_AT = 72;
const RESULTS = 8;

export class Cublas {
  readonly #calls: Readonly<Record<string, Call>>;
  readonly #textOf: (code: number) => string;
  readonly #compute: Compute;
  readonly #stream: number;
  readonly #workspace: Address;
  readonly #handle: number;
  readonly #plans = new Map<string, Plan>();
  readonly #one = Float32Array.of(1);
  readonly #zero = Float32Array.of(0);

  private constructor(
    calls: Readonly<Record<string, Call>>,
    textOf: (code: number) => string,
    compute: Compute,
    stream: number,
    workspace: Address,
  ) {
    this.#calls = calls;
    this.#textOf = textOf;
    this.#compute = compute;
    this.#stream = stream;
    this.#workspace = workspace;
    this.#handle = this.#make("starting cuBLASLt", "cublasLtCreate");
  }

  /**
   * Throws SaettaError when there is no cuBLASLt. What it returns starts it in the current context;
   * `workspace`: WORKSPACE bytes on the device.
   */
  static async load(): Promise<(compute: Compute, stream: number, workspace: Address) => Cublas> {
    const library = await loadCublas();
    return (compute, stream, workspace) => new Cublas(library.calls, library.textOf, compute, stream, workspace);
  }

  multiply(p: Product): void {
    if (p.m === 0 || p.n === 0) return;
    const { description, layouts, algorithm } = this.#plan(p);
    // In cuBLAS's eyes, which reads columns, every matrix is transposed: C^T = B^T A^T.
    const [first, second, out] = layouts;
    const beta = p.add ? this.#one : this.#zero;
    const [handle, workspace] = [this.#handle, this.#workspace];
    this.#check(
      `the product [${p.m},${p.k}] x [${p.k},${p.n}]`,
      "cublasLtMatmul",
      ...[
        handle,
        description,
        this.#one,
        p.b,
        first,
        p.a,
        second,
        beta,
        p.c,
        out,
        p.c,
        out,
        algorithm,
        workspace,
        WORKSPACE,
        this.#stream,
      ],
    );
  }

  close(): void {
    for (const { description, layouts } of this.#plans.values()) {
      this.#calls.cublasLtMatmulDescDestroy!(description);
      for (const layout of layouts) this.#calls.cublasLtMatrixLayoutDestroy!(layout);
    }
    this.#calls.cublasLtDestroy!(this.#handle);
  }

  #plan(p: Product): Plan {
    const { m, n, k, aTransposed = false, bTransposed = false, strideC = n, of = this.#compute } = p;
    const out = p.out === "compute" ? this.#compute : p.out;
    const alignments = [p.b, p.a, p.c, p.c].map(alignment);
    const key = [m, n, k, aTransposed, bTransposed, strideC, of, out, ...alignments].join();
    const known = this.#plans.get(key);
    if (known !== undefined) return known;
    const data = DATA[of];
    const description = this.#make("describing a product", "cublasLtMatmulDescCreate", COMPUTE_F32, DATA.f32);
    const transposes = [
      [TRANSPOSE.a, bTransposed],
      [TRANSPOSE.b, aTransposed],
    ] as const;
    for (const [attribute, is] of transposes) {
      this.#check(
        "describing a product",
        "cublasLtMatmulDescSetAttribute",
        description,
        attribute,
        Int32Array.of(is ? 1 : 0),
        4,
      );
    }
    const layout = (rows: number, columns: number, type: number, stride = columns) =>
      this.#make("describing a matrix", "cublasLtMatrixLayoutCreate", type, columns, rows, stride);
    const b = bTransposed ? layout(n, k, data) : layout(k, n, data);
    const a = aTransposed ? layout(k, m, data) : layout(m, k, data);
    const c = layout(m, n, DATA[out], strideC);
    const plan = {
      description,
      layouts: [b, a, c] as const,
      algorithm: this.#algorithm(description, [b, a, c], alignments, `[${m},${k}] x [${k},${n}] in ${of}`),
    };
    this.#plans.set(key, plan);
    return plan;
  }

  /** The first that cuBLASLt proposes and can run. */
  #algorithm(
    description: number,
    [b, a, c]: readonly [number, number, number],
    alignments: readonly number[],
    what: string,
  ): Uint8Array {
    const preference = this.#make("describing a product", "cublasLtMatmulPreferenceCreate");
    const set = (attribute: number, value: ArrayBufferView) =>
      this.#check(
        "describing a product",
        "cublasLtMatmulPreferenceSetAttribute",
        preference,
        attribute,
        value,
        value.byteLength,
      );
    set(PREFERENCE.workspace, BigUint64Array.of(BigInt(WORKSPACE)));
    set(PREFERENCE.reduction, Uint32Array.of(REDUCTION));
    PREFERENCE.alignment.forEach((attribute, i) => {
      set(attribute, Uint32Array.of(alignments[i]!));
    });
    const results = new Uint8Array(new ArrayBuffer(RESULTS * RESULT_BYTES));
    const count = new Int32Array(1);
    const code = this.#calls.cublasLtMatmulAlgoGetHeuristic!(
      this.#handle,
      description,
      b,
      a,
      c,
      c,
      preference,
      RESULTS,
      results,
      count,
    );
    this.#calls.cublasLtMatmulPreferenceDestroy!(preference);
    const words = new DataView(results.buffer);
    for (let i = 0; code === 0 && i < count[0]!; i++) {
      const at = i * RESULT_BYTES;
      if (words.getInt32(at + STATUS_AT, true) === 0) return results.slice(at, at + ALGORITHM_BYTES);
    }
    throw new CudaError(code, `cuBLASLt has no way to compute ${what}${code === 0 ? "" : ` (${this.#textOf(code)})`}`);
  }

  #make(doing: string, symbol: string, ...args: number[]): number {
    const to = new BigUint64Array(1);
    this.#check(doing, symbol, to, ...args);
    return Number(to[0]);
  }

  #check(doing: string, symbol: string, ...args: (number | ArrayBufferView)[]): void {
    const code = this.#calls[symbol]!(...args);
    if (code !== 0) throw new CudaError(code, `${doing} failed: ${this.#textOf(code)}`);
  }
}

/** Bytes on whose multiple an address stands, at most 16: more makes no difference. */
function alignment(address: Address): number {
  return [16, 8, 4, 2].find((bytes) => address % bytes === 0) ?? 1;
}

const SIGNATURES: Readonly<Record<string, readonly string[]>> = {
  cublasLtCreate: ["void *"],
  cublasLtDestroy: ["uint64_t"],
  cublasLtMatmulDescCreate: ["void *", "int", "int"],
  cublasLtMatmulDescDestroy: ["uint64_t"],
  cublasLtMatmulDescSetAttribute: ["uint64_t", "int", "void *", "uint64_t"],
  cublasLtMatrixLayoutCreate: ["void *", "int", "uint64_t", "uint64_t", "int64_t"],
  cublasLtMatrixLayoutDestroy: ["uint64_t"],
  cublasLtMatmulPreferenceCreate: ["void *"],
  cublasLtMatmulPreferenceDestroy: ["uint64_t"],
  cublasLtMatmulPreferenceSetAttribute: ["uint64_t", "int", "void *", "uint64_t"],
  cublasLtMatmulAlgoGetHeuristic: [...Array<string>(7).fill("uint64_t"), "int", "void *", "void *"],
  cublasLtMatmul: [
    ...[
      "uint64_t",
      "uint64_t",
      "void *",
      "uint64_t",
      "uint64_t",
      "uint64_t",
      "uint64_t",
      "void *",
      "uint64_t",
      "uint64_t",
      "uint64_t",
      "uint64_t",
    ],
    ...["void *", "uint64_t", "uint64_t", "uint64_t"],
  ],
};

interface Library {
  readonly calls: Readonly<Record<string, Call>>;
  readonly textOf: (code: number) => string;
}

/** Throws SaettaError that says how to come by it. */
export async function loadCublas(): Promise<Library & { readonly path: string }> {
  const { default: koffi } = await import("koffi");
  const { library, path } = loadLibrary("cublasLt", (name): Library => {
    const loaded = koffi.load(name);
    return {
      calls: Object.fromEntries(
        Object.entries(SIGNATURES).map(([symbol, types]) => [symbol, loaded.func(symbol, "int", [...types]) as Call]),
      ),
      textOf: loaded.func("cublasLtGetStatusString", "str", ["int"]) as (code: number) => string,
    };
  });
  return { ...library, path };
}
