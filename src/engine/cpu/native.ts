/** The plain C functions of kernels/*.cc, as JavaScript functions. An address is a number: 47 bits on every machine that this runs on. */

import { SaettaError } from "../../util/errors.ts";

export type Address = number;

/** Instruction sets, in the order of kernels/saetta.h. */
export const PATHS = ["portable", "avx2", "avx512", "avx512_bf16", "amx"] as const;
export type Path = (typeof PATHS)[number];

type Call = (...args: (number | Uint8Array)[]) => number;

export interface Native {
  paths: Call;
  open: Call;
  /** Blocks in another thread. */
  close(stream: Address): Promise<void>;
  held: Call;
  peak: Call;
  resetPeak: Call;
  allocate: Call;
  release: Call;
  write: Call;
  read: Call;
  done: Call;
  /** Blocks in another thread until the ticket is passed. */
  wait(stream: Address, ticket: number): Promise<void>;
  /** The same, in this thread. */
  block: Call;
  /** What went wrong in an operation, "" when nothing did. */
  error(stream: Address): string;
  gradients: Call;
  gradientsRelease: Call;
  load: Call;
  encode: Call;
  decode: Call;
  residual: Call;
  codeGrad: Call;
  reconstruct: Call;
  paramGrad: Call;
  world: Call;
  allReduce: Call;
  merge: Call;
  norm: Call;
  update: Call;
  addressOf(bytes: Uint8Array): Address;
}

/** Parameters of each function: p an address, u a number, f a number in float64, b bytes of JavaScript; `>` what it returns. */
export const SIGNATURES = {
  paths: "saetta_paths >u",
  open: "saetta_open u u >p",
  held: "saetta_held >p",
  peak: "saetta_peak >p",
  resetPeak: "saetta_reset_peak",
  allocate: "saetta_allocate p >p",
  release: "saetta_release p p",
  write: "saetta_write p p b p",
  read: "saetta_read p p p p >p",
  done: "saetta_done p >p",
  block: "saetta_wait p p",
  gradients: "saetta_gradients p p p p p p p >p",
  gradientsRelease: "saetta_gradients_release p p",
  load: "saetta_load p u p p p p p p p p p p p p u f",
  encode: `saetta_encode ${"p ".repeat(23)}`,
  decode: `saetta_decode ${"p ".repeat(10)}`,
  residual: `saetta_residual ${"p ".repeat(14)}`,
  codeGrad: `saetta_code_grad ${"p ".repeat(15)}`,
  reconstruct: `saetta_reconstruct ${"p ".repeat(18)}`,
  paramGrad: `saetta_param_grad ${"p ".repeat(23)}u`,
  norm: `saetta_norm ${"p ".repeat(8)}u`,
  update: `saetta_update ${"p ".repeat(25)}u`,
  world: "saetta_world b p p f >p",
  allReduce: "saetta_all_reduce p p u u u p p",
  merge: `saetta_merge ${"p ".repeat(9)}u ${"p ".repeat(5)}`,
} as const;

/** Addresses, and numbers of 64 bits, both passed as such. */
const TYPES: Readonly<Record<string, string>> = { p: "uint64_t", u: "uint32_t", f: "double", b: "const void *" };

export async function loadNative(path: string): Promise<Native> {
  const { default: koffi } = await import("koffi");
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load(path);
  } catch (cause) {
    throw new SaettaError("the compiled kernels cannot be loaded", {
      where: path,
      mend: "delete the file so that it is compiled anew",
      cause,
    });
  }
  const calls = Object.fromEntries(
    Object.entries(SIGNATURES).map(([name, signature]) => {
      const [symbol, ...words] = signature.trim().split(" ");
      const result = words.find((word) => word.startsWith(">"))?.slice(1);
      const parameters = words.filter((word) => !word.startsWith(">")).map((word) => TYPES[word]);
      return [name, library.func(symbol, result === undefined ? "void" : TYPES[result], parameters) as Call];
    }),
  ) as unknown as Pick<Native, keyof typeof SIGNATURES>;
  const inThread = (symbol: string, parameters: string[]) => {
    const call = library.func(symbol, "void", parameters);
    return (...args: number[]) =>
      new Promise<void>((resolve, reject) => {
        call.async(...args, (error: unknown) => (error ? reject(error) : resolve()));
      });
  };
  const close = inThread("saetta_close", ["uint64_t"]);
  const wait = inThread("saetta_wait", ["uint64_t", "uint64_t"]);
  const error = library.func("saetta_error", "str", ["uint64_t"]) as (stream: Address) => string;
  return {
    ...calls,
    error,
    close,
    wait,
    addressOf: (bytes) => Number(koffi.address(bytes)),
  };
}
