/**
 * cfg.json of a checkpoint: sparsify's keys, so that it loads there as it is, and an object
 * `saetta` with what sparsify has no key for (https://github.com/EleutherAI/sparsify,
 * SparseCoderConfig). Files of sparsify itself have no `saetta`. The weights beside it have
 * sparsify's names too.
 */

import { CFG } from "../run-files/names.ts";
import { FormatError } from "../util/errors.ts";
import { Fields, type Json, type JsonObject } from "../util/json.ts";
import {
  type ArchitectureSpec,
  architectureCalled,
  architectureNamed,
  computedInstead,
  paramsOf,
  rulesOf,
} from "./architectures/index.ts";
import { autoencoderDims, type Dims, transcoderDims } from "./dims.ts";
import { NO_NORMALIZATION, type Normalization } from "./math.ts";
import type { ParamName } from "./params.ts";

/** The version of the files in a checkpoint folder; a reader refuses a later one. */
export const FORMAT_VERSION = 1;

/** Where an autoencoder comes from and how its inputs were prepared. */
export interface Provenance {
  /** Version of Saetta that wrote it. */
  readonly version: string;
  /** The engine's description. */
  readonly engine: string;
  /** What was done to rows before training. */
  readonly normalization: Normalization["kind"];
  /**
   * What "scale" multiplied rows by; it is folded into the saved weights, which take rows as they
   * are.
   */
  readonly normalizationFactor?: number;
  /** What "scale" multiplied the targets of a transcoder by; it is folded, too. */
  readonly targetFactor?: number;
  /**
   * "layer_norm" is undone with the size that rows were divided by; "std": with their standard
   * deviation alone, without the 1e-5, as OpenAI's and SAELens' loaders do.
   */
  readonly undoneWith?: "std";
  /** The program whose file the weights come from, where that was not Saetta. */
  readonly importedFrom?: string;
  /** m of the running average of the weights; undefined when none is kept. */
  readonly emaDecay?: number;
  /**
   * Names of the language model and of its tensor, and the path of its tokenizer, as the
   * activations file gives them.
   */
  readonly model?: string;
  readonly tensor?: string;
  /** The tensor of the targets of a transcoder. */
  readonly targetTensor?: string;
  readonly tokenizer?: string;
}

export interface SaeDescription {
  readonly dims: Dims;
  /** Whether a transcoder has a linear map from input to output next to the latents. */
  readonly skip?: boolean;
  /** Whether training keeps decoder rows at norm 1; default: it does, but not in a transcoder. */
  readonly decoderNorm?: "unit" | "free";
  readonly spec: ArchitectureSpec;
  /** undefined in files of others. */
  readonly saetta: Provenance | undefined;
}

/** How rows were normalised in training. */
export function normalizationOf({ saetta }: SaeDescription): Normalization {
  return saetta === undefined
    ? NO_NORMALIZATION
    : { kind: saetta.normalization, factor: saetta.normalizationFactor ?? 1 };
}

/** How the targets were; an autoencoder's are its inputs. */
export function targetNormalizationOf(description: SaeDescription): Normalization {
  const { kind, factor } = normalizationOf(description);
  if (description.dims.untied !== true) return { kind, factor };
  return { kind, factor: description.saetta?.targetFactor ?? 1 };
}

/** The parameters of an autoencoder or transcoder. */
export function paramNames({ spec, skip = false }: Pick<SaeDescription, "spec" | "skip">): readonly ParamName[] {
  return skip ? [...paramsOf(spec), "skip"] : paramsOf(spec);
}

/** Whether decoder rows have norm 1, but for rounding. */
export function hasUnitDecoder({ dims, decoderNorm }: Pick<SaeDescription, "dims" | "decoderNorm">): boolean {
  return decoderNorm === undefined ? dims.untied !== true : decoderNorm === "unit";
}

/** The object to write as cfg.json; keys in a fixed order. */
export function descriptionJson(description: SaeDescription): JsonObject {
  const { dims, skip = false, spec, saetta } = description;
  const { dIn, n, dOut, untied = false } = dims;
  const { cfg, called } = architectureNamed(spec.architecture);
  const written = cfg.write(spec);
  const sparsify = {
    activation: called.sparsify,
    expansion_factor: Math.ceil(n / dIn), // whole, as sparsify declares it; num_latents is what counts
    normalize_decoder: hasUnitDecoder(description),
    num_latents: n,
    ...written.sparsify,
    skip_connection: skip,
    transcode: untied,
    d_in: dIn,
  };
  if (saetta === undefined) return sparsify;
  const {
    version,
    engine,
    normalization,
    normalizationFactor,
    targetFactor,
    undoneWith,
    importedFrom,
    emaDecay,
    model,
    tensor,
    targetTensor,
    tokenizer,
  } = saetta;
  const prepared = {
    normalization_factor: normalizationFactor,
    target_normalization_factor: targetFactor,
    undone_with: undoneWith,
    imported_from: importedFrom,
    ema_decay: emaDecay,
  };
  const optional = { ...prepared, model, tensor, target_tensor: targetTensor, tokenizer };
  const given = Object.fromEntries(
    Object.entries(optional).filter((entry): entry is [string, string | number] => entry[1] !== undefined),
  );
  return {
    ...sparsify,
    saetta: {
      format_version: FORMAT_VERSION,
      version,
      engine,
      ...(untied ? { d_out: dOut } : {}),
      ...written.own,
      normalization,
      ...given,
    },
  };
}

/**
 * Parses cfg.json strictly: what would make the autoencoder or transcoder compute something else
 * than Saetta does is refused, not ignored. `where` names the file in errors; `transcode`: whether
 * something else than the file says that it is a transcoder.
 */
export function parseDescription(json: Json, where: string, transcode = false): SaeDescription {
  const cfg = new Fields(json, CFG, where);
  const activation = cfg.has("activation") ? cfg.string("activation") : "topk"; // the first versions of sparsify had no other
  const architecture = architectureCalled("sparsify", activation);
  if (architecture === undefined)
    throw new FormatError(`activation "${activation}" ${computedInstead("sparsify")}`, { where });
  if (cfg.boolean("signed", false)) throw new FormatError('"signed" is true, which Saetta does not compute', { where });
  const untied = cfg.boolean("transcode", false) || transcode;
  const skip = cfg.boolean("skip_connection", false);
  if (skip && !untied) {
    throw new FormatError('"skip_connection" is true without "transcode", which Saetta does not compute', { where });
  }
  const d = cfg.integer("d_in", 1);
  const stated = cfg.has("num_latents") ? cfg.integer("num_latents") : 0;
  const n = stated > 0 ? stated : d * cfg.integer("expansion_factor", 1);
  const own = cfg.has("saetta") ? cfg.fields("saetta") : undefined;
  const dOut = untied && own?.has("d_out") ? own.integer("d_out", 1) : d; // sparsify's are as wide as their inputs
  const dims = untied ? transcoderDims(d, n, dOut) : autoencoderDims(d, n);
  checkSizes(dims, where);
  const version = own?.integer("format_version", 1) ?? FORMAT_VERSION;
  if (version > FORMAT_VERSION) {
    throw new FormatError(
      `format version ${version} is later than ${FORMAT_VERSION}, the last that this Saetta knows`,
      {
        where,
        mend: "install a newer Saetta",
      },
    );
  }
  // sparsify's transcoders say true, and do not.
  const unit = own === undefined ? !untied : cfg.boolean("normalize_decoder", !untied);
  const spec = architectureNamed(architecture).cfg.read(cfg, own);
  checkK(spec, dims, where);
  return {
    dims,
    ...(skip ? { skip } : {}),
    ...(unit === untied ? { decoderNorm: unit ? "unit" : "free" } : {}),
    spec,
    saetta: own && parseProvenance(own, untied),
  };
}

/** Throws FormatError for sizes that make no sense; `where` names the file. */
export function checkSizes({ dIn: d, n, dOut, untied = false }: Dims, where: string): void {
  if (Number.isSafeInteger(n * d) && Number.isSafeInteger(n * dOut) && n < 0xffff_ffff) return;
  const widths = untied ? `${d} inputs and ${dOut} outputs` : `${d} inputs`;
  throw new FormatError(`${n} latents x ${widths} are too many`, { where });
}

/** Throws FormatError where more latents are to be active than there are. */
export function checkK(spec: ArchitectureSpec, { n }: Dims, where: string): void {
  const { inference } = rulesOf(spec);
  if (inference.kind === "topk" && inference.k > n)
    throw new FormatError(`k is ${inference.k}, but there are only ${n} latents`, { where });
}

const NORMALIZATIONS: readonly Normalization["kind"][] = ["none", "scale", "unit", "layer_norm"];

function parseProvenance(own: Fields, untied: boolean): Provenance {
  const stated = own.string("normalization");
  const normalization = NORMALIZATIONS.find((kind) => kind === stated);
  if (normalization === undefined) throw new FormatError(`normalization "${stated}" is unknown`, { where: own.where });
  if (untied && (normalization === "unit" || normalization === "layer_norm"))
    throw new FormatError(`normalization "${normalization}" means nothing for a transcoder`, { where: own.where });
  const factorOf = (name: string): number => {
    const factor = own.number(name);
    if (factor > 0) return factor;
    throw new FormatError(`"${name}" must be above 0, but is ${factor}`, { where: own.where });
  };
  const scaled = normalization === "scale";
  const text = (name: string, as = name) => (own.has(name) ? { [as]: own.string(name) } : {});
  const undoneWith = own.has("undone_with") ? own.string("undone_with") : undefined;
  if (undoneWith !== undefined && (undoneWith !== "std" || normalization !== "layer_norm")) {
    throw new FormatError(
      `"undone_with" is "${undoneWith}", which means nothing with normalization "${normalization}"`,
      {
        where: own.where,
      },
    );
  }
  const emaDecay = own.has("ema_decay") ? own.number("ema_decay") : undefined;
  if (emaDecay !== undefined && !(emaDecay > 0 && emaDecay < 1)) {
    throw new FormatError(`"ema_decay" must be between 0 and 1, but is ${emaDecay}`, { where: own.where });
  }
  return {
    version: own.string("version"),
    engine: own.string("engine"),
    normalization,
    ...(scaled ? { normalizationFactor: factorOf("normalization_factor") } : {}),
    ...(scaled && untied ? { targetFactor: factorOf("target_normalization_factor") } : {}),
    ...(undoneWith === undefined ? {} : { undoneWith }),
    ...text("imported_from", "importedFrom"),
    ...(emaDecay === undefined ? {} : { emaDecay }),
    ...text("model"),
    ...text("tensor"),
    ...text("target_tensor", "targetTensor"),
    ...text("tokenizer"),
  };
}
