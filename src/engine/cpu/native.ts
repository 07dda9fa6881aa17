/**
 * The plain C functions of kernels/*.cc, as JavaScript functions. An address is a number: 47 bits
 * on every machine that this runs on.
 */

import { SaettaError } from "../../util/errors.ts";
import { layoutOf } from "../contract/layout.ts";
import { CONTRACT, FUNCTIONS, type INSTRUCTION_SETS, OPERATIONS, type StructOf } from "./contract.ts";

export type Address = number;
export type InstructionSet = (typeof INSTRUCTION_SETS)[number];

type Call = (...args: (number | Uint8Array)[]) => number;

/** Operations with named arguments; they are copied before it returns. */
type Operations = {
  readonly [K in keyof typeof OPERATIONS]: (stream: Address, args: StructOf<(typeof OPERATIONS)[K][1]>) => void;
};

type Positional = Exclude<keyof typeof FUNCTIONS, "close" | "wait" | "error" | "peers" | "gradients">;

export interface Native extends Operations, Readonly<Record<Positional, Call>> {
  /** Blocks in another thread. */
  close(stream: Address): Promise<void>;
  /** Blocks in another thread until the ticket is passed. */
  wait(stream: Address, ticket: number): Promise<void>;
  /** The same, in this thread. */
  block(stream: Address, ticket: number): void;
  /** What went wrong in an operation, "" when nothing did. */
  error(stream: Address): string;
  /** A copy that lives as long as the process. */
  peers(args: StructOf<"Peers">): Address;
  /** 0 when there is no room. */
  gradients(args: StructOf<"NewGradients">): Address;
  addressOf(bytes: Uint8Array): Address;
}

/** Types of C as koffi knows them. Addresses and numbers of 64 bits are both passed as such. */
function typeOf(type: string): string {
  if (type === "const char*") return "str";
  if (OF_JAVASCRIPT.includes(type)) return "const void *";
  if (type.includes("*") || type === "u64") return "uint64_t";
  return type === "u32" ? "uint32_t" : type;
}

const OF_JAVASCRIPT = ["const u8*", ...Object.keys(CONTRACT.structs).map((name) => `const ${name}*`)];

export async function loadNative(path: string): Promise<Native> {
  const { default: koffi } = await import("koffi");
  let library: ReturnType<typeof koffi.load>;
  try {
    library = koffi.load(path);
  } catch (cause) {
    throw new SaettaError("the compiled kernels cannot be loaded", {
      where: path,
      mend: "delete the file so that it is compiled again",
      cause,
    });
  }
  const functions = Object.fromEntries(
    Object.entries(FUNCTIONS).map(([name, [symbol, result, fields]]) => [
      name,
      library.func(symbol, typeOf(result), Object.values<string>(fields).map(typeOf)),
    ]),
  ) as Readonly<Record<keyof typeof FUNCTIONS, ReturnType<typeof library.func>>>;
  const inThread =
    (name: "close" | "wait") =>
    (...args: number[]) =>
      new Promise<void>((resolve, reject) => {
        functions[name].async(...args, (error: unknown) => (error ? reject(error) : resolve()));
      });
  const packed = (struct: keyof typeof CONTRACT.structs) => {
    const { size, put } = layoutOf(CONTRACT.structs[struct], CONTRACT);
    const view = new DataView(new ArrayBuffer(size + 8));
    const bytes = new Uint8Array(view.buffer);
    return (args: object): Uint8Array => {
      put(view, 0, args);
      return bytes;
    };
  };
  const operations = Object.fromEntries(
    Object.entries(OPERATIONS).map(([name, [symbol, struct]]) => {
      const call = library.func(symbol, "void", ["uint64_t", "const void *"]) as (
        stream: Address,
        args: Uint8Array,
      ) => void;
      const pack = packed(struct);
      return [name, (stream: Address, args: object) => call(stream, pack(args))];
    }),
  ) as unknown as Operations;
  const [packPeers, packGradients] = [packed("Peers"), packed("NewGradients")];
  return {
    ...(functions as unknown as Readonly<Record<Positional, Call>>),
    ...operations,
    error: functions.error as unknown as Native["error"],
    peers: (args) => functions.peers(packPeers(args)) as Address,
    gradients: (args) => functions.gradients(packGradients(args)) as Address,
    block: functions.wait as unknown as Native["block"],
    close: inThread("close"),
    wait: inThread("wait"),
    addressOf: (bytes) => Number(koffi.address(bytes)),
  };
}
