/**
 * Goodfire (https://huggingface.co/Goodfire): a torch file of encoder_linear.weight [n,d],
 * encoder_linear.bias [n], decoder_linear.weight [d,n], decoder_linear.bias [d]. The activation is
 * ReLU, and the decoder's bias is not taken from the input.
 */

import { join } from "node:path";
import { autoencoderDims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { openTorchArrays } from "./array-file.ts";
import type { ForeignReader, Place, Told } from "./format.ts";
import { encoderShape, type FourArrays, type Layout, openFourArrays, rulesOfFourArrays } from "./four-arrays.ts";
import { noK } from "./selection.ts";

const LAYOUT: Layout = {
  names: {
    ...{ encoder: "encoder_linear.weight", encoderBias: "encoder_linear.bias" },
    ...{ decoder: "decoder_linear.weight", decoderBias: "decoder_linear.bias" },
  },
  transposed: ["decoder"],
};

/** Whether the names are those of such a file. */
export function isGoodfire(names: ReadonlySet<string>): boolean {
  return Object.values(LAYOUT.names).every((name) => names.has(name));
}

async function opened({ folder, file: name = "" }: Place, told: Told): Promise<FourArrays> {
  const file = await openTorchArrays(join(folder, name));
  return closedOnFailure(file, () => {
    noK(told, file.path);
    const [n, d] = encoderShape(file, LAYOUT);
    const selects = { kind: "relu" as const };
    return { file, dims: autoencoderDims(d, n), layout: LAYOUT, selects, subtract: false, says: LAYOUT.names.encoder };
  });
}

export const goodfire: ForeignReader = {
  name: "goodfire",
  async open(place, told) {
    return openFourArrays(await opened(place, told), { format: "goodfire", files: [place.file ?? ""] });
  },
  async rules(place, told) {
    return rulesOfFourArrays(await opened(place, told));
  },
};
