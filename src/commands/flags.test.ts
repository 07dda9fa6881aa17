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
    [["--k", "0"], "--k must be a whole number of at least 1, such as 1000, 10k or 1.5M, but is '0'"],
    [["--k", "-1"], "--k must be a whole number of at least 1, such as 1000, 10k or 1.5M, but is '-1'"],
    [["--k", "ten"], "--k must be a whole number of at least 1, such as 1000, 10k or 1.5M, but is 'ten'"],
    [["--lr", "fast"], '--lr: "fast" is not a number'],
    [["--lr", ""], '--lr: "" is not a number'],
    [["--lr", "-1"], /^--lr: -1 is not allowed \(/],
    [["--ema", "1"], /^--ema: 1 is not allowed \(/],
    [["--clip", "Infinity"], '--clip: "Infinity" is not a number'],
    [["--engine", "gpu"], /^--engine: "gpu" is not allowed \(.*"auto".*"reference".*\); did you mean cpu\?$/],
    [["--exclude-tokens", "begin"], /^--exclude-tokens: "begin" is not allowed \(/],
    [["--exclude-tokens", "1,,2"], /^--exclude-tokens: "1,,2" is not allowed \(/],
    [["--mse-scale", "big"], /^--mse-scale: "big" is not allowed \(/],
    [["--non-finite", "ignore"], /^--non-finite: "ignore" is not allowed \(/],
  ])("%j is refused, naming the flag", (argv, message) => {
    expect(() => given(...argv)).toThrow(UsageError);
    expect(() => given(...argv)).toThrow(message);
  });
});
