/**
 * allReduce of tensors. Reductions are held back until another operation is called, so that
 * neighbours become one launch. They run on the stream of the operations.
 */

import type { WireType } from "../../../collective/collective.ts";
import { SaettaError } from "../../../util/errors.ts";
import type { DType, Over, ReduceOp, Tensor } from "../../engine.ts";
import type { CudaContext } from "../context.ts";
import { WHERE } from "../driver/libraries.ts";
import { addressOf, type CudaTensor, ownTensor } from "../memory/tensor.ts";

interface Reduction {
  readonly tensor: CudaTensor;
  readonly op: ReduceOp;
  readonly over: Over;
}

export class Reductions {
  readonly #cuda: CudaContext;
  readonly #held: Reduction[] = [];

  constructor(cuda: CudaContext) {
    this.#cuda = cuda;
  }

  /**
   * `hold`: hold it back. Only in a step that is recorded, where all ranks call the same operations
   * and nothing else, do neighbours become one launch on all of them.
   */
  add(t: Tensor, op: ReduceOp, over: Over, hold: boolean): void {
    const tensor = ownTensor(t);
    this.#held.push({ tensor, op, over });
    tensor.wrote();
    if (!hold) this.flush();
  }

  /** Queues what is held back; called before every other operation. */
  flush(): void {
    const held = this.#held.splice(0);
    const { exchange, device } = this.#cuda;
    while (held.length > 0) {
      // One group of ranks per launch: several would have to come in the same order on all ranks.
      const size = exchange.sizeOf(held[0]!.over);
      const other = held.findIndex(({ over }) => exchange.sizeOf(over) !== size);
      const neighbours = held.splice(0, other < 0 ? held.length : other);
      const all = () => {
        for (const { tensor, op, over } of neighbours) {
          const count = tensor.shape.reduce((a, b) => a * b, 1);
          const elements = { at: addressOf(tensor), count, dtype: wireOf(tensor.dtype) };
          exchange.collective.allReduce(elements, op, over, device.stream);
        }
      };
      if (neighbours.length > 1) exchange.asOneLaunch(all);
      else all();
    }
  }
}

function wireOf(dtype: DType): WireType {
  if (dtype === "f64" || dtype === "f32" || dtype === "u32" || dtype === "u8") return dtype;
  throw new SaettaError(`a tensor of ${dtype} cannot be reduced`, { where: WHERE });
}
