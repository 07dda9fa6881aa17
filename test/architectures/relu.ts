/**
 * Plain ReLU over thresholds, for inference: an architecture that Saetta does not have, to show
 * that there is room for it.
 */

import type { Architecture } from "../../src/sae/architectures/architecture.ts";
import { CORE_PARAMS } from "../../src/sae/params.ts";

export interface ReluSpec {
  readonly architecture: "relu";
}

export const relu: Architecture<ReluSpec> = {
  name: "relu",
  options: {},
  defaults: {},
  params: () => [...CORE_PARAMS, "threshold"],
  spec: () => ({ architecture: "relu" }),
  rules: () => ({
    live: { kind: "threshold", param: "threshold" },
    inference: { kind: "threshold", param: "threshold" },
  }),
  numbers: () => ({}),
  called: { sparsify: "relu" },
  cfg: {
    isOfSparsify: false,
    write: () => ({ sparsify: {}, own: {} }),
    read: () => ({ architecture: "relu" }),
  },
};
