/** What the kernels are given of a branch: its codes, its err and its prefixes, checked. */

import type { Prefix } from "../../sae/math.ts";
import { bytesOf } from "../../util/bytes.ts";
import { SaettaError } from "../../util/errors.ts";
import type { Branch, Engine, Params, Step, Tensor } from "../engine.ts";
import { sumsLength } from "../sums.ts";
import type { StructOf } from "./contract.ts";
import { at, type CpuTensor, NO_CODES, ownCodes, ownTensor, stepAddresses, WHERE } from "./memory.ts";

/** One plane of err for all latents. */
const ONE_PLANE: StructOf<"Prefixes"> = { count: 1, ends: 0, weights: 0 };

/** Where a branch would be that is left out. */
export const NO_BRANCH: StructOf<"Branch"> = {
  ...{ decoder: 0, z: NO_CODES, err: 0, B: 0, d: 0, n: 0 },
  prefixes: ONE_PLANE,
};

/** Where prefixes are kept. */
interface Memory extends Pick<Engine, "write"> {
  alloc(...args: Parameters<Engine["alloc"]>): CpuTensor;
}

export class BranchArguments {
  readonly #engine: Memory;
  readonly #shard: number;
  readonly #prefixes = new WeakMap<readonly Prefix[], StructOf<"Prefixes">>();

  /** `shard`: whose engine it is; the first has the skip connection's part. */
  constructor(engine: Memory, shard: number) {
    this.#engine = engine;
    this.#shard = shard;
  }

  branch(p: Params, { codes, err, prefixes }: Branch): StructOf<"Branch"> {
    const [n, d] = p.decoder.shape;
    const B = codes.rows;
    const some = prefixes === undefined || prefixes.length === 1 ? undefined : prefixes;
    return {
      decoder: at(p.decoder, "f32", n, d),
      z: ownCodes(codes).addresses(B),
      err: at(err, "f32", ...(some === undefined ? [] : [some.length]), B, d),
      ...{ B, d, n },
      prefixes: some === undefined ? ONE_PLANE : this.#held(some, n),
    };
  }

  /** `x`: for a skip connection. */
  decode(p: Params, branch: Branch, x: Tensor | undefined): StructOf<"Decode"> {
    const args = this.branch(p, branch);
    if (p.skip === undefined || x === undefined || this.#shard > 0) return { branch: args, skip: 0, x: 0, dIn: 0 };
    const dIn = p.encoder.shape[1]!;
    return { branch: args, skip: at(p.skip, "f32", args.d, dIn), x: at(x, "f32", args.B, dIn), dIn };
  }

  residual(p: Params, target: Tensor, t: Step, branch: Branch, live: Branch | undefined): StructOf<"Residual"> {
    const args = this.branch(p, branch);
    const { B, d } = args;
    at(t.sums, "f64", sumsLength(d, (live ?? branch).prefixes?.length));
    const before = live === undefined ? 0 : this.branch(p, live).prefixes.count - 1;
    return {
      branch: args,
      preBias: at(p.preBias, "f32", d),
      target: at(target, "f32", B, d),
      live: live === undefined ? 0 : ownTensor(live.err).address + 4 * before * B * d,
      t: stepAddresses(t),
    };
  }

  /** The prefixes in memory of the engine, which holds them as long as it lives. */
  #held(prefixes: readonly Prefix[], n: number): StructOf<"Prefixes"> {
    const known = this.#prefixes.get(prefixes);
    if (known !== undefined) return known;
    const count = prefixes.length;
    const last = prefixes[count - 1]!;
    const ascend = prefixes.every(({ end }, g) => end >= (prefixes[g - 1]?.end ?? 0));
    if (!ascend || last.end < n || last.weight !== 1)
      throw new SaettaError("prefixes must ascend, and the last must hold all latents with weight 1", {
        where: WHERE,
      });
    const ends = this.#engine.alloc("u32", [count]);
    const weights = this.#engine.alloc("f64", [count]);
    this.#engine.write(ends, bytesOf(Uint32Array.from(prefixes, ({ end }) => end)));
    this.#engine.write(weights, bytesOf(Float64Array.from(prefixes, ({ weight }) => weight)));
    const held = { count, ends: ends.address, weights: weights.address };
    this.#prefixes.set(prefixes, held);
    return held;
  }
}
