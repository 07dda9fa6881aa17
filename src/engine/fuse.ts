/**
 * Puts decode, residual and codeGrad of one branch together for engines that can do the three in
 * one pass. An operation is held back until the next call shows whether it belongs to the three;
 * anything else lets it go first. What an operation does, and the order of all operations, stay as
 * they are.
 */

import type { Branch, Codes, Params, Step, Tensor } from "./engine.ts";

interface Held {
  readonly decoder: Tensor;
  readonly codes: Codes;
  readonly err: Tensor;
  /** Of a skip connection. */
  readonly x: Tensor | undefined;
  /** Queues the operation alone; everything it is given has been checked. */
  readonly run: () => void;
  /** Of the residual that followed. */
  residual?: {
    readonly target: Tensor;
    readonly step: Step;
    readonly preBias: Tensor;
    readonly live: Branch | undefined;
    readonly run: () => void;
  };
}

/** What the three have in common, for the operation that does all of them. */
export interface Reconstruct {
  readonly x: Tensor | undefined;
  readonly target: Tensor;
  readonly live: Branch | undefined;
}

export class Fusion {
  #held: Held | undefined;

  /** `run` queues the decode alone. `x`: of a skip connection. */
  decode(p: Params, codes: Codes, err: Tensor, run: () => void, x?: Tensor): void {
    this.flush();
    this.#held = { decoder: p.decoder, codes, err, x, run };
  }

  /** `run` queues the residual alone. */
  residual(p: Params, target: Tensor, step: Step, branch: Branch, live: Branch | undefined, run: () => void): void {
    const held = this.#held;
    if (held !== undefined && held.residual === undefined && belongs(held, p, branch) && live?.err !== branch.err) {
      held.residual = { target, step, preBias: p.preBias, live, run };
      return;
    }
    this.flush();
    run();
  }

  /** `run` queues the codes' gradient alone, `all` the three operations at once. */
  codeGrad(p: Params, branch: Branch, step: Step, run: () => void, all: (it: Reconstruct) => void): void {
    const held = this.#held;
    const residual = held?.residual;
    if (held !== undefined && residual?.step === step && residual.preBias === p.preBias && belongs(held, p, branch)) {
      this.#held = undefined;
      all({ x: held.x, target: residual.target, live: residual.live });
      return;
    }
    this.flush();
    run();
  }

  /** Lets go what is held back; before every other operation. */
  flush(): void {
    const held = this.#held;
    this.#held = undefined;
    held?.run();
    held?.residual?.run();
  }
}

function belongs(held: Held, p: Params, branch: Branch): boolean {
  return held.decoder === p.decoder && held.codes === branch.codes && held.err === branch.err;
}
