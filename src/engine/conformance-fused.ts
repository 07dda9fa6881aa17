/**
 * The cases of operations that an engine may do in one pass: in a row they must have the bits that
 * they have one by one.
 */

import type { Case } from "./conformance-case.ts";
import { draw } from "./conformance-draw.ts";
import { GuardedStep } from "./conformance-guarded-step.ts";
import { Tally } from "./conformance-tally.ts";

const SHAPES = [
  { d: 1, n: 3, k: 2, auxk: 1, B: 1 },
  { d: 13, n: 37, k: 5, auxk: 7, B: 11 },
  { d: 64, n: 128, k: 32, auxk: 30, B: 33 },
  { d: 259, n: 90, k: 8, auxk: 0, B: 100 },
  { d: 300, n: 64, k: 64, auxk: 20, B: 67 },
];

export const FUSED: Case = {
  name: "decode, residual and codeGrad in a row: the bits of one by one",
  run: async (engine) => {
    for (const shape of SHAPES) {
      const setup = draw({ ...shape, hyper: { clip: 1 } });
      const [apart, together] = [await GuardedStep.create(engine, setup), await GuardedStep.create(engine, setup)];
      await apart.whole();
      await together.whole(true);
      for (const name of apart.names)
        new Tally().same(`${name} of d=${shape.d} B=${shape.B}`, together.get(name), apart.get(name));
      apart.free();
      together.free();
    }
    return { worst: 0 };
  },
};
