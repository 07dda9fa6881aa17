/**
 * sparsify (https://github.com/EleutherAI/sparsify), the folder of one hookpoint: cfg.json and
 * sae.safetensors with encoder.weight [n,d], encoder.bias [n], W_dec [n,d], b_dec [d], and W_skip
 * [d,d] of a transcoder with a skip connection. A transcoder does not take b_dec from the input.
 * Checkpoints of Saetta have this layout too, and what their cfg.json says beyond sparsify's is
 * read.
 */

import { basename, dirname, join, resolve } from "node:path";
import { openSafetensors, type Safetensors } from "../formats/safetensors.ts";
import {
  descriptionJson,
  type Provenance,
  paramNames,
  parseDescription,
  type SaeDescription,
} from "../sae/description.ts";
import { PARAMS } from "../sae/params.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError, SaettaError, UsageError } from "../util/errors.ts";
import { Fields, readJsonFile } from "../util/json.ts";
import { openArrays } from "./array-file.ts";
import { describeForeign, rowNormalization, sayable } from "./description.ts";
import type { Exchanged, Foreign, ForeignFormat, OutputFile, Place, WriteOptions, Written } from "./format.ts";
import { type Layout, rulesOfFourArrays } from "./four-arrays.ts";
import { lostWith, onlyTopk, topkOf } from "./selection.ts";
import { jsonFile, safetensorsFile, safetensorsFloats, unusedNote } from "./tensors.ts";

const CFG = "cfg.json";
export const SPARSIFY_WEIGHTS = "sae.safetensors";

/**
 * The description in a folder of sparsify's layout. The first versions of sparsify said that a
 * hookpoint has a transcoder only in the config.json of the run, above the folder.
 */
export async function readDescription(folder: string): Promise<SaeDescription> {
  const where = join(folder, CFG);
  const json = await readJsonFile(where);
  const isOwn = typeof json === "object" && json !== null && "saetta" in json;
  return parseDescription(json, where, !isOwn && (await isRunOfTranscoders(folder)));
}

async function isRunOfTranscoders(folder: string): Promise<boolean> {
  const config = await runConfig(folder);
  const sae = config?.get("sae");
  const inner = typeof sae === "object" && sae !== null && "transcode" in sae ? sae.transcode : undefined;
  return config?.get("transcode") === true || inner === true;
}

async function opened({
  folder,
}: Place): Promise<{ readonly description: SaeDescription; readonly file: Safetensors }> {
  const where = join(folder, CFG);
  const description = await readDescription(folder);
  if (rowNormalization(description) !== "none")
    throw new FormatError("says that rows are normalised, which sparsify cannot say", { where });
  const file = await openSafetensors(join(folder, SPARSIFY_WEIGHTS));
  if (description.skip === true || !file.tensors.has("W_skip")) return { description, file };
  await file.close();
  throw new FormatError('has a tensor "W_skip", but cfg.json says no "skip_connection"', { where: file.path });
}

async function open(place: Place): Promise<Foreign> {
  const { description, file } = await opened(place);
  return closedOnFailure(file, async () => {
    const { dims } = description;
    const names = paramNames(description);
    return {
      format: "sparsify",
      files: [CFG, SPARSIFY_WEIGHTS],
      description:
        description.saetta === undefined
          ? describeForeign("sparsify", { ...description, ...(await hookpointOf(place)) }, join(place.folder, CFG))
          : description,
      notes: unusedNote(
        file.tensors.keys(),
        names.map((name) => PARAMS[name].file),
        SPARSIFY_WEIGHTS,
      ),
      read: (name) => safetensorsFloats(file, PARAMS[name].file, PARAMS[name].shape(dims)),
      close: () => file.close(),
    };
  });
}

/**
 * The config.json of a run of sparsify, above the folders of its hookpoints; undefined where there
 * is none.
 */
async function runConfig(folder: string): Promise<Fields | undefined> {
  const above = join(dirname(resolve(folder)), "config.json");
  return readJsonFile(above).then(
    (json) => new Fields(json, "config.json", above),
    (thrown: unknown) => {
      if (thrown instanceof SaettaError) return undefined;
      throw thrown;
    },
  );
}

async function hookpointOf({ folder }: Place): Promise<{ readonly model?: string; readonly tensor?: string }> {
  const path = resolve(folder);
  const config = await runConfig(folder);
  if (config === undefined || typeof config.get("model") !== "string") return {};
  return { model: config.string("model"), tensor: basename(path) };
}

function write(sae: Exchanged, dtype: "f32" | "f64", options: WriteOptions): Written {
  const { spec, saetta } = sae.description;
  sayable(sae.description, "sparsify", false, options);
  const { dIn, dOut } = sae.description.dims;
  if (dOut !== dIn) {
    throw new UsageError(
      `sparsify's transcoders are as wide as their inputs; this one reads ${dIn} and writes ${dOut}`,
      {
        mend: "use --format saelens",
      },
    );
  }
  const k = onlyTopk(sae.description, "sparsify");
  const description = {
    ...sae.description,
    spec: spec.architecture === "topk" ? spec : topkOf(k),
    saetta: saetta && written(saetta, options),
  };
  return {
    files: [
      jsonFile(CFG, descriptionJson(description)),
      sparsifyWeights(SPARSIFY_WEIGHTS, { ...sae, description }, dtype),
    ],
    notes: lostWith(sae.description, "sparsify"),
  };
}

/** The weights in this layout, as the file `name`. */
export function sparsifyWeights(name: string, sae: Exchanged, dtype: "f32" | "f64"): OutputFile {
  const arrays = paramNames(sae.description).map((name) => ({
    name: PARAMS[name].file,
    shape: PARAMS[name].shape(sae.description.dims),
    read: () => sae.read(name),
  }));
  return safetensorsFile(name, dtype, arrays);
}

/** No average is written; names are the user's where given. */
function written({ emaDecay: _, ...kept }: Provenance, { model, hook, targetHook }: WriteOptions): Provenance {
  return {
    ...kept,
    ...(model === undefined ? {} : { model }),
    ...(hook === undefined ? {} : { tensor: hook }),
    ...(targetHook === undefined ? {} : { targetTensor: targetHook }),
  };
}

const LAYOUT: Layout = {
  names: { encoder: "encoder.weight", encoderBias: "encoder.bias", decoder: "W_dec", decoderBias: "b_dec" },
  transposed: [],
};

export const sparsify: ForeignFormat = {
  name: "sparsify",
  open,
  write,
  async rules(place) {
    const { description, file } = await opened(place);
    await file.close();
    const { dims, skip = false } = description;
    return rulesOfFourArrays({
      ...{ file: await openArrays(file.path), dims, layout: LAYOUT, subtract: dims.untied !== true, says: CFG },
      selects: { kind: "topk", k: onlyTopk(description, "sparsify") },
      skip: skip ? { array: PARAMS.skip.file } : undefined,
    });
  },
};
