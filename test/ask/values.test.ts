/** What a typed text gives is what `saetta harvest` and `saetta encode` give of a file with it. */

import { writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readText } from "../../src/ask/read-text.ts";
import { Subjects } from "../../src/ask/subject.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { TextAnswer } from "../../src/explorer/shared/ask.ts";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { PLAIN_SUMS } from "../../src/metrics/loss-math.ts";
import { float32Of } from "../../src/util/bytes.ts";
import { saetta } from "../cli/saetta.ts";
import { MODEL, TENSOR, trainOnExample } from "../support/asked.ts";
import { scratch } from "../support/scratch.ts";

let folder = "";
/** Files of activations that were written. */
let files = 0;
let run = "";
let engine: Engine;
beforeAll(async () => {
  folder = await scratch("ask");
  run = await trainOnExample(folder);
  engine = createReferenceEngine();
});
afterAll(async () => {
  await engine?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

/** Reads a text in contexts of so many tokens. */
async function read(text: string, context: number): Promise<TextAnswer> {
  await using subjects = await Subjects.open({ model: MODEL, context, threads: 1 }, engine);
  return await readText(await subjects.get(run), { text }, PLAIN_SUMS);
}

/** Codes of each row of a file with the text, by latent; undefined where `encode` leaves it out. */
async function encoded(text: string, context: number): Promise<(ReadonlyMap<number, number> | undefined)[]> {
  const of = async (...words: string[]) => expect((await saetta(folder, ...words)).code).toBe(0);
  writeFileSync(join(folder, "typed.txt"), text);
  const number = ++files;
  const acts = `typed-${number}.h5`;
  const codes = `typed-${number}.safetensors`;
  const harvest = ["harvest", "--model", MODEL, "--text", "typed.txt", "--tensor", TENSOR, "--dtype", "f32"];
  await of(...harvest, "--context", String(context), "--out", acts);
  await of("encode", "runs/first", acts, "--out", codes);
  const file = await openSafetensors(join(folder, codes));
  const integers = async (name: string) =>
    Array.from(new BigInt64Array((await file.read(name)).slice().buffer), Number);
  const [starts, numbers] = [await integers("indptr"), await integers("row_numbers")];
  const latents = new Int32Array((await file.read("indices")).slice().buffer);
  const values = float32Of(await file.read("data"));
  await file.close();
  const rows: (ReadonlyMap<number, number> | undefined)[] = [];
  for (const [i, row] of numbers.entries()) {
    const places = Array.from({ length: starts[i + 1]! - starts[i]! }, (_, at) => starts[i]! + at);
    rows[row] = new Map(places.map((at) => [latents[at]!, values[at]!]));
  }
  return rows;
}

const TEXTS = {
  "a sentence": "The jury said it did find that many of the laws were out of date.",
  "paragraphs, with Windows' ends of lines":
    "It rained all night.\r\n\r\n\r\nThe old man said nothing,\r\nand went home.\r\n",
  "what is no English": "Ünïcödé 🎉 漢字 \u0007 <b>&amp;</b> half a pair: \ud83c. tabs\t\tand   spaces",
};

describe.each(Object.entries(TEXTS))("%s", (_, text) => {
  it.each([12, "all"] as const)("in contexts of %s tokens: the same activations", async (size) => {
    const whole = await read(text, 256);
    const context = size === "all" ? whole.tokens.length : size;
    const { tokens } = await read(text, context);
    const rows = await encoded(text, context);
    expect(rows.length).toBeGreaterThan(context - 2);
    let codes = 0;
    for (const [i, row] of rows.entries()) {
      const token = tokens[i]!;
      expect([i, token.position, token.counted]).toEqual([i, i % context, row !== undefined]);
      expect(token.codes.length).toBe(row?.size ?? 0);
      for (const [latent, value] of token.codes) {
        expect(Math.abs(value - row!.get(latent)!)).toBeLessThan(1e-5);
        codes++;
      }
    }
    expect(codes).toBeGreaterThan(50);
  });
});

describe("an answer", () => {
  it("has the losses and the FVU of saetta eval", async () => {
    const text = TEXTS["a sentence"];
    const { tokens, loss, fvu } = await read(text, 256);
    writeFileSync(join(folder, "held.txt"), text);
    const acts = ["harvest", "--model", MODEL, "--text", "held.txt", "--tensor", TENSOR, "--dtype", "f32"];
    const sized = [...acts, "--context", String(tokens.length), "--out", "held.h5"];
    expect((await saetta(folder, ...sized)).code).toBe(0);
    const { out } = await saetta(folder, "eval", "runs/first", "held.h5", "--text", "held.txt", "--json");
    const found = JSON.parse(out) as {
      readonly metrics: { readonly fvu: number };
      readonly loss: { readonly cross_entropy: { readonly original: number; readonly reconstruction: number } };
    };
    expect(loss!.original).toBeCloseTo(found.loss.cross_entropy.original, 5);
    expect(loss!.reconstruction).toBeCloseTo(found.loss.cross_entropy.reconstruction, 5);
    expect(fvu).toBeCloseTo(found.metrics.fvu, 5);
  });

  it("has every value of a latent that is asked for, and says when codes are left out", async () => {
    await using subjects = await Subjects.open({ model: MODEL, threads: 1 }, engine);
    const subject = await subjects.get(run);
    const { complete, tokens } = await readText(subject, { text: "One two three." }, PLAIN_SUMS);
    expect(complete).toBe(true);
    for (const { codes } of tokens)
      expect(codes.map(([, value]) => value)).toEqual(codes.map(([, value]) => value).toSorted((a, b) => b - a));
    await expect(readText(subject, { text: "One", latents: [128] }, PLAIN_SUMS)).rejects.toThrow(
      "there is no latent 128",
    );
  });
});

describe("saetta eval --ablate", () => {
  const EVAL = ["eval", "runs/first", "acts.h5", "--loss-tokens", "1k"];

  it("has the loss without each latent and without all of them, with definitions", async () => {
    const { out, err, code } = await saetta(folder, ...EVAL, "--ablate", "5,70", "--model", MODEL, "--json");
    expect([code, err]).toEqual([0, ""]);
    const { loss } = JSON.parse(out) as {
      readonly loss: {
        readonly cross_entropy: { readonly original: number };
        readonly ablation: {
          readonly effects: readonly Readonly<Record<string, number | null | readonly number[]>>[];
          readonly definitions: Readonly<Record<string, string>>;
        };
      };
    };
    const { effects, definitions } = loss.ablation;
    expect(effects.map(({ latents }) => latents)).toEqual([[5], [70], [5, 70]]);
    for (const effect of effects) {
      expect(effect.loss_increase).toBeCloseTo((effect.cross_entropy as number) - loss.cross_entropy.original, 10);
      expect(effect.kl_divergence).toBeGreaterThanOrEqual(0);
      expect(Object.keys(effect).toSorted()).toEqual([
        "cross_entropy",
        "firings",
        "kl_divergence",
        "latents",
        "loss_increase",
        "loss_increase_where_active",
      ]);
    }
    expect(Object.keys(definitions)).toContain("loss_increase_where_active");
    const { out: text } = await saetta(folder, ...EVAL, "--ablate", "5,70");
    expect(text).toMatch(/^without latent {2}fires +CE +loss increase +where active +KL$/m);
    expect(text).toMatch(/^70 +\d+ +\d\.\d{4} +-?\d\.\d{4} +(-?\d\.\d{4}|-) +\d\.\d{4}$/m);
    expect(text).toMatch(/^all of them /m);
    const { out: table } = await saetta(folder, ...EVAL, "--ablate", "5", "--markdown");
    expect(table).toMatch(/^\| 5 \|/m);
    expect(table).not.toContain("all of them");
  });

  it.each([
    ["128", 2, "there is no latent 128; they are numbered from 0 to 127"],
    ["spiced", 2, '--ablate must be all, spliced, or numbers of latents such as 12,99, but is "spiced"'],
    ["1,,2", 2, '--ablate must be all, spliced, or numbers of latents such as 12,99, but is "1,,2"'],
    ["-1", 2, "--ablate"],
    [Array.from({ length: 1001 }, (_, i) => i).join(), 2, "--ablate names 1001 latents, but at most 1000 are removed"],
  ])("refuses a list that is none: %.20s", async (list, code, message) => {
    const ended = await saetta(folder, ...EVAL, `--ablate=${list}`);
    expect(ended.err).toContain(message);
    expect([ended.code, ended.out]).toEqual([code, ""]);
  });

  it("is of one autoencoder", async () => {
    const { code, err } = await saetta(folder, "eval", "runs/first", "runs/first", "acts.h5", "--ablate", "1");
    expect([code, err]).toEqual([
      2,
      "saetta: --ablate removes latents of one autoencoder, not of several; evaluate them one at a time\n",
    ]);
  });
});
