/** TopK autoencoders of given sizes for tests, from the numbers that tests state. */

import { shardOf, type TopkSizes } from "../src/bench/workload.ts";
import { allocParams } from "../src/engine/allocate.ts";
import type {
  Codes,
  Dims,
  Engine,
  Normalization,
  Params,
  Selection,
  SelectionPlan,
  State,
} from "../src/engine/engine.ts";
import type { ArchitectureSpec } from "../src/sae/architectures/index.ts";
import { autoencoderDims } from "../src/sae/dims.ts";
import { CORE_PARAMS, type CoreParam, PARAMS, type PerParam, perParam } from "../src/sae/params.ts";
import { trainingSelections } from "../src/train/rank-shard.ts";
import { allocState } from "../src/train/state.ts";
import { createTrainStep, type TrainStep } from "../src/train/step.ts";

export { shardOf, type TopkSizes } from "../src/bench/workload.ts";

export function dimsOf({ d, n }: Pick<TopkSizes, "d" | "n">): Dims {
  return autoencoderDims(d, n);
}

/** What a description says of it. */
export function described({ k, auxk, ...sizes }: TopkSizes): { readonly dims: Dims; readonly spec: ArchitectureSpec } {
  return { dims: dimsOf(sizes), spec: { architecture: "topk", k, auxk } };
}

export function selectionsOf({ k, auxk }: Pick<TopkSizes, "k" | "auxk">): readonly SelectionPlan[] {
  return trainingSelections(shardOf({ d: 1, n: Math.max(k, auxk), k, auxk }));
}

/** What `encode` selects into these codes. */
export function selectTopk({ k, auxk }: Pick<TopkSizes, "k" | "auxk">, live: Codes, dead?: Codes): Selection[] {
  return [
    { rule: { kind: "topk", k }, among: "all", codes: live },
    ...(dead === undefined ? [] : [{ rule: { kind: "topk", k: auxk }, among: "dead", codes: dead } as const]),
  ];
}

/** Why the engine cannot run it. */
export function refusal(engine: Engine, { d, n, k, auxk }: TopkSizes): string | undefined {
  const plan = (among: SelectionPlan["among"], slots: number): SelectionPlan => ({
    rule: { kind: "topk", k: slots },
    among,
    slots,
  });
  return engine.refuses(dimsOf({ d, n }), [plan("all", k), ...(auxk === 0 ? [] : [plan("dead", auxk)])]);
}

export function paramShapes(sizes: Pick<TopkSizes, "d" | "n">): PerParam<readonly number[]> {
  return perParam(CORE_PARAMS, (_, { shape }) => shape(dimsOf(sizes)));
}

export function paramLength(name: CoreParam, sizes: Pick<TopkSizes, "d" | "n">): number {
  return PARAMS[name].shape(dimsOf(sizes)).reduce((a, b) => a * b, 1);
}

export function newParams(engine: Engine, sizes: Pick<TopkSizes, "d" | "n">): Params {
  return allocParams(engine, dimsOf(sizes), CORE_PARAMS);
}

export function newState(engine: Engine, sizes: Pick<TopkSizes, "d" | "n">, ema = false): State {
  return allocState(engine, dimsOf(sizes), CORE_PARAMS, ema);
}

export function newStep(
  engine: Engine,
  sizes: TopkSizes,
  rows: number,
  options: { readonly dense?: boolean; readonly normalization?: Normalization | undefined } = {},
): TrainStep {
  return createTrainStep(engine, { shard: shardOf(sizes), rows, ...options });
}
