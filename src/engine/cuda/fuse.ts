/**
 * decode, residual and codeGrad of one path belong together: one pass over the decoder's rows does all three. Their calls come one after the other, so the first two
 * are held back until the next call shows whether they do; what comes then is one kernel, or what was held back, in order.
 */

import type { Codes, Params, Path, Step, Tensor } from "../engine.ts";

/** The operations on their own, and the three in one. */
export interface Operations {
  decode(p: Params, z: Codes, err: Tensor): void;
  residual(p: Params, x: Tensor, t: Step, path: Path, live: Path | undefined): void;
  codeGrad(p: Params, path: Path, t: Step): void;
  canReconstruct(path: Path, p: Params): boolean;
  reconstruct(p: Params, x: Tensor, t: Step, path: Path, live: Path | undefined): void;
}

type Held = Pick<Path, "codes" | "err"> & { readonly p: Params };
type Residual = { readonly x: Tensor; readonly t: Step; readonly path: Path; readonly live: Path | undefined };

export class Fuse {
  readonly #operations: Operations;
  #decode: Held | undefined;
  #residual: Residual | undefined;

  constructor(operations: Operations) {
    this.#operations = operations;
  }

  decode(p: Params, z: Codes, err: Tensor): void {
    this.flush();
    this.#decode = { p, codes: z, err };
  }

  residual(p: Params, x: Tensor, t: Step, path: Path, live: Path | undefined): void {
    const held = this.#decode;
    const follows = held !== undefined && this.#residual === undefined && same(held, p, path) && live?.err !== path.err;
    if (follows && this.#operations.canReconstruct(path, p)) {
      this.#residual = { x, t, path, live };
      return;
    }
    this.flush();
    this.#operations.residual(p, x, t, path, live);
  }

  codeGrad(p: Params, path: Path, t: Step): void {
    const [held, then] = [this.#decode, this.#residual];
    if (held === undefined || then === undefined || !same(held, p, path) || then.t.bad !== t.bad) {
      this.flush();
      this.#operations.codeGrad(p, path, t);
      return;
    }
    this.#forget();
    this.#operations.reconstruct(p, then.x, t, path, then.live);
  }

  /** Queues what was held back. Every other operation begins with this. */
  flush(): void {
    const [held, then] = [this.#decode, this.#residual];
    this.#forget();
    if (held !== undefined) this.#operations.decode(held.p, held.codes, held.err);
    if (held !== undefined && then !== undefined) this.#operations.residual(held.p, then.x, then.t, then.path, then.live);
  }

  #forget(): void {
    this.#decode = undefined;
    this.#residual = undefined;
  }
}

function same(held: Held, p: Params, path: Path): boolean {
  return held.p.decoder === p.decoder && held.p.preBias === p.preBias && held.codes === path.codes && held.err === path.err;
}
