/** Steering and ablation of latents in the example's model, next to plain PyTorch in float64. */

import { readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { readText } from "../../src/ask/read-text.ts";
import { steer } from "../../src/ask/steer.ts";
import { type Subject, Subjects } from "../../src/ask/subject.ts";
import type { Engine } from "../../src/engine/engine.ts";
import { createReferenceEngine } from "../../src/engine/reference.ts";
import type { SteerEdit } from "../../src/explorer/shared/ask.ts";
import { ablationOf } from "../../src/metrics/ablation.ts";
import { measureLoss } from "../../src/metrics/loss.ts";
import { contextsOfIds } from "../../src/metrics/loss-contexts.ts";
import { PLAIN_SUMS } from "../../src/metrics/loss-math.ts";
import { MODEL, wave } from "../support/asked.ts";
import { WIDTH, writeTiedSae } from "../support/planted.ts";
import { scratch } from "../support/scratch.ts";

/** What plain PyTorch computes: test/parity/make_steering_fixture.py. */
const fixture = JSON.parse(readFileSync(new URL("../parity/fixtures/steering.json", import.meta.url), "utf8")) as {
  readonly tensor: string;
  readonly latents: number;
  readonly k: number;
  readonly text: string;
  readonly tokens: readonly number[];
  readonly activations: readonly (readonly number[])[];
  readonly cases: readonly {
    readonly name: string;
    readonly edits: readonly SteerEdit[];
    readonly top: readonly number[];
    readonly logits: readonly number[];
    readonly probabilities: readonly number[];
    readonly loss: number;
    readonly greedy: readonly number[];
  }[];
  /** Latents that are removed from `contexts` [.., context]. */
  readonly context: number;
  readonly contexts: readonly number[];
  readonly ablated: readonly {
    readonly latents: readonly number[];
    readonly firings: number;
    readonly original: number;
    readonly cross_entropy: number;
    readonly kl: number;
    readonly loss_increase_where_active: number | null;
  }[];
};
const GREEDY = { tokens: 8, seed: 0, temperature: 0 };

let folder = "";
let engine: Engine;
let subjects: Subjects;
let subject: Subject;
beforeAll(async () => {
  folder = await scratch("steering");
  const rows = wave(fixture.latents * WIDTH, 0.5);
  for (let first = 0; first < rows.length; first += WIDTH) {
    const row = rows.subarray(first, first + WIDTH);
    const size = Math.hypot(...row);
    for (let i = 0; i < WIDTH; i++) row[i]! /= size;
  }
  const bias = wave(fixture.latents, 1.5).map((value) => 0.1 * value);
  const path = await writeTiedSae(folder, WIDTH, fixture.k, rows, bias, wave(WIDTH, 2.5));
  engine = createReferenceEngine();
  subjects = await Subjects.open({ model: MODEL, tensor: fixture.tensor, threads: 1 }, engine);
  subject = await subjects.get(path);
});
afterAll(async () => {
  await subjects?.[Symbol.asyncDispose]();
  await engine?.[Symbol.asyncDispose]();
  await rm(folder, { recursive: true });
});

const near = (value: number, expected: number) => expect(Math.abs(value - expected)).toBeLessThan(1e-4);
const steered = (edits: readonly SteerEdit[], continuation = GREEDY) =>
  steer(subject, { text: fixture.text, edits, continuation }, PLAIN_SUMS);

describe("steering equals plain PyTorch", () => {
  it("in the tokens and the latents of the text", async () => {
    const { tokens } = await readText(subject, { text: fixture.text }, PLAIN_SUMS);
    expect(tokens.map(({ text }) => text)).toEqual(subject.model.tokenizer.pieces([...fixture.tokens]));
    for (const [i, { codes, counted }] of tokens.entries()) {
      expect(counted).toBe(i > 0);
      const due = fixture.activations[i]!;
      expect(codes.length).toBe(i === 0 ? 0 : due.filter((value) => value > 0).length);
      for (const [latent, value] of codes) near(value, due[latent]!);
    }
  });

  it.each(fixture.cases)("$name: logits, probabilities, loss and continuation", async (due) => {
    const answer = await steered(due.edits);
    const unedited = fixture.cases[0]!;
    for (const [i, id] of due.top.entries()) {
      const found = answer.next.find(({ text, after }) => {
        return text === subject.model.textOf(id) && Math.abs(after - due.probabilities[i]!) < 1e-4;
      });
      expect(found).toBeDefined();
      near(found!.logits[1], due.logits[i]!);
    }
    near(answer.loss!.with, due.loss);
    near(answer.loss!.without, unedited.loss);
    const upToEnd = (ids: readonly number[]) => {
      const end = ids.indexOf(subject.model.tokenizer.startToken);
      return subject.model.tokenizer.pieces([...fixture.tokens, ...(end < 0 ? ids : ids.slice(0, end))]);
    };
    expect(answer.continuation.with).toEqual(upToEnd(due.greedy).slice(fixture.tokens.length));
    expect(answer.continuation.without).toEqual(upToEnd(unedited.greedy).slice(fixture.tokens.length));
  });
});

describe("ablation equals plain PyTorch", () => {
  it("in cross-entropy, divergence, firings and the loss where a latent is active", async () => {
    const ids = Int32Array.from(fixture.contexts);
    const text = contextsOfIds(ids, fixture.context, { excludeTokens: "start", startToken: 0 }, "the fixture");
    const latents = [...new Set(fixture.ablated.flatMap((each) => each.latents))];
    const measure = async (some: readonly number[]) => {
      const { sae, model } = subject;
      const ablation = await ablationOf(sae, some);
      const options = { ablation, threads: 1 };
      return (await measureLoss(model.language, fixture.tensor, text, [sae], options))[0]!.ablation!;
    };
    const all = await measure(latents);
    expect(all.effects.map((effect) => effect.latents)).toEqual([...latents.map((latent) => [latent]), latents]);
    for (const due of fixture.ablated) {
      const effects = due.latents.length > 1 ? (await measure(due.latents)).effects : all.effects;
      const found = effects.find((effect) => effect.latents.join() === due.latents.join())!;
      near(found.crossEntropy, due.cross_entropy);
      near(found.lossIncrease, due.cross_entropy - due.original);
      near(found.klDivergence, due.kl);
      expect(found.firings).toBe(due.firings);
      if (due.loss_increase_where_active === null) expect(found.lossIncreaseWhereActive).toBeNull();
      else near(found.lossIncreaseWhereActive!, due.loss_increase_where_active);
    }
    // A latent that never fires is removed without a trace, to the bit.
    const silent = all.effects.find(({ firings }) => firings === 0)!;
    expect([silent.lossIncrease, silent.klDivergence]).toEqual([0, 0]);
  });
});

describe("an edit that changes nothing", () => {
  it("leaves every bit of logits, losses and continuation", async () => {
    const plain = await steered([], { tokens: 6, seed: 3, temperature: 1 });
    const { tokens } = plain;
    const { tokens: read } = await readText(subject, { text: fixture.text }, PLAIN_SUMS);
    const position = 4;
    const [latent, value] = read[position]!.codes[0]!;
    const silent = Array.from({ length: fixture.latents }, (_, each) => each).find((each) =>
      read.every(({ codes }) => codes.every(([other]) => other !== each)),
    )!;
    const same = await steered(
      [
        { latent, kind: "set", value, positions: [position] },
        { latent, kind: "add", value: 0, positions: "all" },
        {
          latent: silent,
          kind: "remove",
          value: 0,
          positions: tokens.flatMap(({ counted }, i) => (counted ? [i] : [])),
        },
      ],
      { tokens: 6, seed: 3, temperature: 1 },
    );
    for (const { divergence } of same.tokens) expect(divergence).toBe(0);
    for (const { before, after, logits } of same.next) {
      expect(after).toBe(before);
      expect(Object.is(logits[0], logits[1])).toBe(true);
    }
    expect(same.next).toEqual(plain.next);
    expect(same.loss!.with).toBe(same.loss!.without);
    expect(same.continuation.with).toEqual(same.continuation.without);
    // And the smallest change is seen.
    const moved = await steered([{ latent, kind: "add", value: 0.5, positions: "all" }]);
    expect(moved.loss!.with).not.toBe(moved.loss!.without);
  });
});

describe("edits", () => {
  it("at chosen tokens change nothing before them", async () => {
    const { tokens } = await steered([{ latent: 7, kind: "set", value: 12, positions: [8] }]);
    expect(tokens.slice(0, 8).map(({ divergence }) => divergence)).toEqual(Array.from({ length: 8 }, () => 0));
    expect(tokens[8]!.divergence).toBeGreaterThan(0);
  });

  it("of a token or latent that cannot be edited are refused", async () => {
    const edit = { latent: 7, kind: "set", value: 1 } as const;
    await expect(steered([{ ...edit, positions: [0] }])).rejects.toThrow(
      "token 0 has no latents: training leaves such tokens out; choose another token",
    );
    await expect(steered([{ ...edit, positions: [99] }])).rejects.toThrow(
      "there is no token 99; they are numbered from 0 to 16",
    );
    await expect(steered([{ ...edit, latent: 48, positions: "all" }])).rejects.toThrow(
      "there is no latent 48; they are numbered from 0 to 47",
    );
    const long = { text: "old ".repeat(200), edits: [], continuation: { ...GREEDY, tokens: 64 } };
    await expect(steer(subject, long, PLAIN_SUMS)).rejects.toThrow(
      "the text and 64 new tokens do not fit one context of 256 tokens; shorten the text or the continuation",
    );
  });

  it("draw the same tokens from the same seed, and others from another", async () => {
    const drawn = async (seed: number) =>
      (await steered([], { tokens: 12, seed, temperature: 1 })).continuation.without.join("");
    expect(await drawn(1)).toBe(await drawn(1));
    expect(await drawn(1)).not.toBe(await drawn(2));
  });
});
