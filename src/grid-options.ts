/** Options of `saetta train` for several ranks; `config.ts` has them in its schema. */

import { z } from "zod";

const count = z.number().int().positive();

export const gridOptions = {
  shards: count.describe("ranks that share the latents").meta({ default: 1 }),
  replicas: count
    .describe("ranks that share the rows of a batch")
    .meta({ default: "the ranks there are, over the shards" }),
  capacityFactor: z
    .number()
    .positive()
    .describe(
      "latents that a shard may select a row, as a multiple of its share of k: less to exchange, but only approximately the top k",
    )
    .meta({ default: "exact" }),
  wire: z
    .enum(["f32", "bf16", "fp16"])
    .describe(
      "what ranks on processors send each other's gradients and reconstructions as; sums stay f32; fp16 with a dynamic loss scale",
    ),
};
