/**
 * What an architecture is: data that training, inference and the file formats read. One file per
 * architecture; `index.ts` lists them.
 */

import type { ZodType } from "zod";
import type { Fields, JsonObject } from "../../util/json.ts";
import type { Prefix } from "../math.ts";
import type { ParamName } from "../params.ts";
import type { Rule } from "../rule.ts";

/** How codes are selected. */
export interface SelectionRules {
  /** In a training step, among all latents. */
  readonly live: Rule;
  /**
   * In a training step, among the dead latents, for the auxiliary loss (AuxK); undefined: no
   * auxiliary loss.
   */
  readonly dead?: Rule | undefined;
  /** In a training step, among all latents, for the second loss of multi-TopK; not with `dead`. */
  readonly wide?: Rule | undefined;
  /** In a training step, for the gradient of thresholds. */
  readonly band?: Rule | undefined;
  /**
   * Reconstructions by a part of the latents that the loss is summed over; undefined: only by all.
   */
  readonly prefixes?: readonly Prefix[] | undefined;
  /** By the trained autoencoder: on the hold-out, in eval, reports and inference. */
  readonly inference: Rule;
}

/** Programs whose files name an architecture. */
export type Program = "sparsify" | "saelens" | "openai" | "dictionary_learning";

/** Options of a run by their names; an architecture reads its own, which are there by then. */
export type ArchitectureOptions = Readonly<Record<string, unknown>>;

/** Numbers of a step that an architecture decides, by their names in the engine's HYPER. */
export type StepNumbers = {
  readonly [N in
    | "rowK"
    | "kept"
    | "cutDecay"
    | "bandwidth"
    | "penalty"
    | "sparsity"
    | "tanhScale"
    | "targetL0"
    | "deadPenalty"
    | "gain"
    | "wideCoef"]?: number;
};

export interface StepOf {
  readonly step: number;
  readonly steps: number;
  /** Rows of the global batch. */
  readonly rows: number;
}

/** `S`: the numbers of one autoencoder of this architecture, besides its dimensions. */
export interface Architecture<S extends { readonly architecture: string }> {
  readonly name: S["architecture"];
  /**
   * Options of `saetta train` that belong to it, by the names of the library, and their defaults.
   */
  readonly options: Readonly<Record<string, ZodType>>;
  readonly defaults: Readonly<Record<string, unknown>>;
  params(spec: S): readonly ParamName[];

  rules(spec: S): SelectionRules;
  /**
   * The autoencoder of a run, of which all options are known. Throws UsageError for values that
   * contradict each other, with the flag.
   */
  spec(options: ArchitectureOptions, latents: number): S;
  /** Numbers of a run's steps that only it has. */
  hyper?(options: ArchitectureOptions, spec: S): StepNumbers;
  /** Those that change from step to step; `step` counts from 0, `steps` is how many there are. */
  stepHyper?(options: ArchitectureOptions, at: StepOf): StepNumbers;
  /** Weight of the reconstruction loss by all latents, where there are prefixes; default 1. */
  lossWeight?(spec: S): number;
  /** What its own parameters start from, where that is not 0. */
  start?(options: ArchitectureOptions): { readonly [N in ParamName]?: readonly number[] };
  /** Options, besides k, of a run that starts from such an autoencoder; default: none. */
  like?(spec: S): ArchitectureOptions;
  /** Its numbers, as state.json and reports state them. */
  numbers(spec: S): Readonly<Record<string, number>>;
  /**
   * What other programs call it in their files; not there: they cannot say it. sparsify's is also
   * the `activation` of cfg.json.
   */
  readonly called: { readonly [P in Program]?: string } & { readonly sparsify: string };
  /**
   * What cfg.json says besides `activation`: keys that sparsify knows, and keys of our own object
   * `saetta`.
   */
  readonly cfg: {
    /**
     * Whether sparsify computes the same from the file: then the weights are in `sae.safetensors`,
     * which it reads.
     */
    readonly isOfSparsify: boolean;
    write(spec: S): { readonly sparsify: JsonObject; readonly own: JsonObject };
    /** `own`: the object `saetta`; undefined in files of sparsify. */
    read(sparsify: Fields, own: Fields | undefined): S;
  };
}
