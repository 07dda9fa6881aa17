import { Command } from "commander";
import { describe, expect, it } from "vitest";
import { DEFAULTS, flagOf, type TrainOptions, trainOptions } from "../config.ts";
import { UsageError } from "../util/errors.ts";
import { addFlags, givenOptions } from "./flags.ts";

function command(): Command {
  return addFlags(
    new Command("test").exitOverride().configureOutput({ writeErr: () => undefined, writeOut: () => undefined }),
  );
}

function given(...argv: string[]): TrainOptions {
  const parsed = command().parse(argv, { from: "user" });
  return givenOptions(parsed);
}

describe("flags", () => {
  it("stand for every option, with its default in the help", () => {
    const help = command().helpInformation().replace(/\s+/g, " ");
    for (const name of Object.keys(trainOptions.shape))
      expect(help).toMatch(new RegExp(`--(\\[no-\\])?${flagOf(name).slice(2)} `));
    expect(help).toContain("--[no-]shuffle rows in a seeded random order");
    expect(help).toMatch(
      /Autoencoder: --preset .* Optimisation: --auxk-coef .* Data: --non-finite .* Run: --eval-every /,
    );
    expect(help).toContain("--eps <X>");
    expect(help).toContain(`(default: ${DEFAULTS.eps})`);
    expect(help).toContain("--engine <auto|cpu|cuda|reference>");
    expect(help).toContain("--dtype <auto|f32|bf16|fp16> what products are computed in;");
    expect(help).toContain("--mse-scale <auto|X>");
    expect(help).toContain("--exclude-tokens <start|none|IDS>");
    expect(help).toContain("--latents <N> number of latents n (default: about 16 x width");
    expect(help).not.toContain("undefined");
  });

  it("of paths may be given several times", () => {
    expect(command().helpInformation()).toContain("--target <DATA>");
    expect(given("--target", "a.h5")).toEqual({ target: ["a.h5"] });
    expect(given("--target", "a.h5", "--skip", "--target", "b.h5")).toEqual({ target: ["a.h5", "b.h5"], skip: true });
  });

  it("may have a value of their own where none is given", () => {
    expect(command().helpInformation()).toContain("--multi-topk [WEIGHT]");
    expect(given("--multi-topk")).toEqual({ multiTopk: 0.125 });
    expect(given("--multi-topk", "--k", "3")).toEqual({ multiTopk: 0.125, k: 3 });
    expect(given("--multi-topk", "0.5")).toEqual({ multiTopk: 0.5 });
    expect(() => given("--multi-topk", "acts.h5")).toThrow('--multi-topk must be a number above 0, but is "acts.h5"');
  });

  it("that are lists of numbers take fractions", () => {
    expect(given("--prefixes", "0.0625,0.25,1", "--prefix-weights", "1,2.5,1")).toEqual({
      ...{ prefixes: [0.0625, 0.25, 1], prefixWeights: [1, 2.5, 1] },
    });
    expect(given("--prefixes", "2048,8192,32768")).toEqual({ prefixes: [2048, 8192, 32768] });
    for (const text of ["0.5,,1", "a,b", "0.5;1", "0.5,0", ""])
      expect(() => given("--prefixes", text)).toThrow(`--prefixes must be a list of numbers above 0, but is "${text}"`);
  });

  it("that were not given are not there", () => {
    expect(given()).toEqual({});
  });

  it("become values of their type", () => {
    expect(
      given(
        "--tokens",
        "10M",
        "--k",
        "4",
        "--lr",
        "1e-4",
        "--mse-scale",
        "auto",
        "--engine",
        "cpu",
        "--seed",
        "0",
        "--warmup",
        "0",
      ),
    ).toEqual({
      tokens: 10_000_000,
      k: 4,
      lr: 1e-4,
      mseScale: "auto",
      engine: "cpu",
      seed: 0,
      warmup: 0,
    });
    expect(given("--mse-scale", "0.5", "--exclude-tokens", "5,7", "--no-shuffle", "--encoder-rescale")).toEqual({
      mseScale: 0.5,
      excludeTokens: [5, 7],
      shuffle: false,
      encoderRescale: true,
    });
    expect(given("--exclude-tokens", "none", "--shuffle", "--no-drop-last")).toEqual({
      excludeTokens: "none",
      shuffle: true,
      dropLast: false,
    });
    expect(given("--exclude-tokens", "5")).toEqual({ excludeTokens: [5] });
  });

  it.each([
    [["--k", "0"], '--k must be a number above 0, but is "0"'],
    [["--k", "-1"], '--k must be a number above 0, but is "-1"'],
    [["--k", "ten"], '--k must be a number above 0, but is "ten"'],
    [["--lr", "fast"], '--lr must be auto or a number above 0, but is "fast"'],
    [["--lr", ""], '--lr must be auto or a number above 0, but is ""'],
    [["--lr", "-1"], '--lr must be auto or a number above 0, but is "-1"'],
    [["--lr", "1e400"], '--lr must be auto or a number above 0, but is "1e400"'],
    [["--holdout", "0.9"], '--holdout must be a number from 0 to 0.5, but is "0.9"'],
    [["--wandb", ""], '--wandb must be a project, but is ""'],
    [["--init", ""], '--init must be a path, but is ""'],
    [["--ema", "1"], '--ema must be a number of at least 0 and below 1, but is "1"'],
    [["--clip", "Infinity"], '--clip must be a number of at least 0, but is "Infinity"'],
    [["--engine", "gpu"], '--engine must be auto, cpu, cuda or reference, but is "gpu"; did you mean cuda?'],
    [
      ["--exclude-tokens", "begin"],
      /^--exclude-tokens must be start, none or a list of whole numbers of at least 0 and start, but is "begin"$/,
    ],
    [["--exclude-tokens", "1,,2"], /^--exclude-tokens must be start, none or .*, but is "1,,2"$/],
    [["--mse-scale", "big"], '--mse-scale must be auto or a number above 0, but is "big"'],
    [["--non-finite", "ignore"], '--non-finite must be stop or skip, but is "ignore"'],
  ])("%j is refused, naming the flag", (argv, message) => {
    expect(() => given(...argv)).toThrow(UsageError);
    expect(() => given(...argv)).toThrow(message);
  });
});
