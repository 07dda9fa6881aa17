import { describe, expect, it } from "vitest";
import { checkOptions, flagOf } from "./config.ts";
import { ourWord } from "./other-words.ts";

const TRAIN = ["latents", "k", "batch", "tokens", "lr", "warmup", "beta1", "decoderNorm", "out"];
const answered = (word: string, known = TRAIN) => ourWord(word, flagOf, known);

describe("a word of another program", () => {
  it.each([
    ["--batch-size", "; here it is --batch (it counts rows)"],
    ["train_batch_size_tokens", "; here it is --batch (it counts rows)"],
    ["d_sae", "; here it is --latents"],
    ["dict_size", "; here it is --latents"],
    ["trainingTokens", "; here it is --tokens (it counts rows)"],
    ["--steps", "; here it is --tokens (it counts rows: steps x batch)"],
    ["learning_rate", "; here it is --lr"],
    ["lr-warm-up-steps", "; here it is --warmup (it counts steps)"],
    ["l1_coefficient", "; --k sets the sparsity of a TopK autoencoder"],
    ["architecture", "; TopK is what is trained; --k sets its sparsity"],
    ["adam_beta1", "; here it is --beta1"],
    ["betas", "; here it is --beta1 (and beta2 apart)"],
    ["normalize_decoder", "; here it is --decoder-norm"],
    ["output_dir", "; here it is --out"],
  ])("%s", (word, answer) => {
    expect(answered(word)).toBe(answer);
  });

  it("is answered only with an option that there is", () => {
    expect(answered("d_sae", ["k"])).toBeUndefined();
    expect(answered("l1", ["out"])).toBeUndefined();
    expect(answered("whatever")).toBeUndefined();
    expect(answered("__proto__")).toBeUndefined();
  });

  it("is answered in the library's spelling", () => {
    for (const word of ["batch_size", "batchSize", "batch-size"])
      expect(() => checkOptions({ [word]: 3 }, undefined, (name) => name)).toThrow(
        `unknown option ${word}; here it is batch (it counts rows)`,
      );
    expect(() => checkOptions({ num_epochs: 3 }, undefined, (name) => name)).toThrow("here it is epochs");
    expect(() => checkOptions({ latens: 3 }, undefined, (name) => name)).toThrow("did you mean latents?");
  });
});
