/**
 * Qwen-Scope (https://huggingface.co/collections/Qwen/qwen-scope): layerN.sae.pt, a torch file of
 * W_enc [n,d], b_enc [n], W_dec [d,n], b_dec [d]. Latents are the k highest of W_enc x + b_enc:
 * b_dec is not taken from the input. Only the repository's name says k, as L0_50.
 */

import { join, resolve } from "node:path";
import { autoencoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { openTorchArrays } from "./array-file.ts";
import { chosenK } from "./description.ts";
import type { Foreign, ForeignReader, Place, Told } from "./format.ts";
import { encoderShape, type FourArrays, type Layout, openFourArrays, rulesOfFourArrays } from "./four-arrays.ts";

const LAYOUT: Layout = {
  names: { encoder: "W_enc", encoderBias: "b_enc", decoder: "W_dec", decoderBias: "b_dec" },
  transposed: ["decoder"],
};

/** Whether the names are those of such a file. */
export function isQwenScope(names: ReadonlySet<string>): boolean {
  return Object.values(LAYOUT.names).every((name) => names.has(name)) && !names.has("threshold");
}

async function opened({ folder, file: name = "" }: Place, told: Told): Promise<FourArrays> {
  const path = join(folder, name);
  const file = await openTorchArrays(path);
  return closedOnFailure(file, () => {
    const [n, d] = encoderShape(file, LAYOUT);
    const k = chosenK(undefined, { ...told, k: told.k ?? kInName(folder) }, path);
    const selects = { kind: "topk" as const, k };
    return { file, dims: autoencoderDims(d, n), layout: LAYOUT, selects, subtract: false, says: "W_enc" };
  });
}

/** The 50 of .../SAE-Res-Qwen3-8B-Base-W64K-L0_50/...: of the innermost folder that has one. */
function kInName(folder: string): number | undefined {
  const found = resolve(folder)
    .split(/[\\/]/)
    .findLast((name) => /[-_]L0_[1-9]\d{0,8}$/.test(name));
  return found === undefined ? undefined : Number(found.slice(found.lastIndexOf("_") + 1));
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const named = told.k === undefined ? kInName(place.folder) : undefined;
  const notes = named === undefined ? [] : [`k is ${named}, from the folder's name`];
  const about = { format: "qwen_scope" as const, files: [place.file ?? ""] };
  return openFourArrays(await opened(place, told), { ...about, notes: ["latents below 0 are off", ...notes] });
}

export const qwenScope: ForeignReader = {
  name: "qwen_scope",
  open,
  async rules(place, told) {
    return rulesOfFourArrays(await opened(place, told));
  },
};
