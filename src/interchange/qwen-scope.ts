/**
 * Qwen-Scope (https://huggingface.co/collections/Qwen/qwen-scope): layerN.sae.pt, a torch file of
 * W_enc [n,d], b_enc [n], W_dec [d,n], b_dec [d]. Latents are the k highest of W_enc x + b_enc:
 * b_dec is not taken from the input. Only the repository's name says k, as L0_50.
 */

import { join, resolve } from "node:path";
import type { TorchValue } from "../formats/torch-pickle.ts";
import { autoencoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { chosenK, describeForeign, paramReader } from "./description.ts";
import type { Foreign, ForeignReader, Place, Told } from "./format.ts";
import { topkOf } from "./selection.ts";
import { plusProduct, unusedNote } from "./tensors.ts";
import { rulesOfArrays, type TorchArrays, type TorchLayout, withArrays } from "./torch-arrays.ts";

const NAMES = { preBias: "b_dec", latentBias: "b_enc", encoder: "W_enc", decoder: "W_dec" };
const LAYOUT: TorchLayout = { names: NAMES, transposed: ["decoder"] };

/** Whether the names are those of such a file. */
export function isQwenScope(items: ReadonlyMap<string, TorchValue>): boolean {
  return Object.values(NAMES).every((name) => items.has(name)) && !items.has("threshold");
}

interface Opened extends TorchArrays {
  readonly k: number;
  readonly notes: readonly string[];
}

function opened({ folder, file = "" }: Place, told: Told): Promise<Opened> {
  const path = join(folder, file);
  return withArrays(
    path,
    () => LAYOUT,
    async (arrays) => {
      const named = kInName(folder);
      const k = chosenK(undefined, { ...told, k: told.k ?? named }, path);
      const notes = [
        "b_dec is not taken from the input: the encoder's product with it is in the latents' bias",
        "latents below 0 are off",
        ...(told.k === undefined && named !== undefined ? [`k is ${named}, from the folder's name`] : []),
      ];
      return { ...arrays, k, notes };
    },
  );
}

/** The 50 of .../SAE-Res-Qwen3-8B-Base-W64K-L0_50/...: of the innermost folder that has one. */
function kInName(folder: string): number | undefined {
  const found = resolve(folder)
    .split(/[\\/]/)
    .findLast((name) => /[-_]L0_[1-9]\d{0,8}$/.test(name));
  return found === undefined ? undefined : Number(found.slice(found.lastIndexOf("_") + 1));
}

async function open(place: Place, told: Told): Promise<Foreign> {
  const { file, items, read, notes, d, n, k } = await opened(place, told);
  return closedOnFailure(file, () => ({
    format: "qwen_scope",
    files: [place.file ?? ""],
    description: describeForeign("qwen_scope", { dims: autoencoderDims(d, n), spec: topkOf(k) }, file.path),
    notes: [...notes, ...unusedNote(items.keys(), Object.values(NAMES), place.file ?? "")],
    read: paramReader(async (name) =>
      name === "latentBias"
        ? plusProduct(await read("latentBias"), await read("encoder"), await read("preBias"))
        : read(name),
    ),
    close: () => file.close(),
  }));
}

export const qwenScope: ForeignReader = {
  name: "qwen_scope",
  open,
  async rules(place, told) {
    const arrays = await opened(place, told);
    return rulesOfArrays(arrays, { selects: { kind: "topk", k: arrays.k }, subtract: false });
  },
};
