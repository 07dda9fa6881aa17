/** Options of `saetta train` that a transcoder has; `config.ts` has them in its schema. */

import { z } from "zod";
import { UsageError } from "./util/errors.ts";

export const transcoderOptions = {
  target: z
    .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
    .describe("targets of a transcoder: a file or folder with the same rows as the data; may be given several times")
    .meta({ placeholder: "DATA" }),
  targetDataset: z
    .string()
    .min(1)
    .describe("name of the dataset, tensor or column in the files of the targets")
    .meta({ default: "as --dataset", placeholder: "NAME" }),
  skip: z.boolean().describe("of a transcoder: a linear map from input to output next to the latents"),
} as const;

/** The paths of the targets as a list; undefined for an autoencoder. */
export function targetPaths({
  target,
}: {
  readonly target?: string | readonly string[] | undefined;
}): readonly string[] | undefined {
  return typeof target === "string" ? [target] : target;
}

interface Asked {
  readonly targetDataset?: string | undefined;
  readonly skip?: boolean | undefined;
  readonly normalize?: string | undefined;
}

/** Throws UsageError for options that only a transcoder has, or that none has. */
export function checkTarget({ targetDataset, skip, normalize }: Asked, isTranscoder: boolean): void {
  const flag = skip === true ? "--skip" : targetDataset === undefined ? undefined : "--target-dataset";
  if (!isTranscoder && flag !== undefined) {
    throw new UsageError(`${flag} is of a transcoder, which --target trains`, {
      mend: `give --target, or leave out ${flag}`,
    });
  }
  if (isTranscoder && (normalize === "unit" || normalize === "layer_norm")) {
    throw new UsageError(
      `--normalize ${normalize} and --target exclude each other: an output has no row of its input's size to undo it with`,
      { mend: "give --normalize scale or none" },
    );
  }
}
