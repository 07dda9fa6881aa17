import { describe, expect, it } from "vitest";
import type { Source } from "../data/source.ts";
import type { Tokenizer } from "../language-model/tokenizer.ts";
import { reportText } from "../metrics/print.ts";
import { DENSITY_UNIT } from "../run-files/density.ts";
import { chooseFeatures, describeLatent, type Feature } from "./features.ts";
import type { ReportWithFeatures } from "./in-text.ts";
import { featuresText, type Page, pageOf } from "./print.ts";
import { Profiles } from "./profiles.ts";
import { examplesOf, RowsInText } from "./row-text.ts";
import { TokenUses } from "./token-uses.ts";

const WORDS = ["<start>", " the", " cat", " cats", " dog", " sat", "\n", "x", "\u001b[31m", "Dog"];
const tokenizer: Tokenizer = {
  path: "tokenizer.json",
  vocabSize: WORDS.length,
  textSize: WORDS.length,
  startToken: 0,
  encode: () => new Int32Array(0),
  decode: (ids) => Array.from(ids, (id) => WORDS[id]).join(""),
  pieces: (ids) => Array.from(ids, (id) => WORDS[id]),
};
const textOf = (token: number) => WORDS[token];

/** A file of 2-D or 3-D data that has these tokens. */
function sourceOf(tokens: readonly number[], sequence?: number): Source {
  return {
    description: "memory",
    paths: ["memory"],
    dIn: 1,
    rows: tokens.length,
    dtype: "f32",
    sequence,
    grain: 1,
    origin: { startToken: 0 },
    tokens: async (first, count) => Int32Array.from(tokens.slice(first, first + count)),
    read: async () => undefined,
    locate: (row) => `memory, row ${row}`,
    close: async () => undefined,
  };
}

/** The firings of a latent: [row, value]. */
type Firings = readonly (readonly [number, number])[];

/** What is found when the rows of `source` have these firings. */
async function profilesOf(source: Source, latents: readonly Firings[]) {
  const k = latents.length;
  const codes = {
    k,
    latent: Uint32Array.from({ length: source.rows * k }, (_, slot) => slot % k),
    value: new Float32Array(source.rows * k),
  };
  for (const [latent, firings] of latents.entries())
    for (const [row, value] of firings) codes.value[row * k + latent] = value;
  const profiles = new Profiles(k);
  const uses = new TokenUses(k);
  const rows = await new RowsInText(source, textOf).next(Float64Array.from({ length: source.rows }, (_, row) => row));
  profiles.add(rows, codes);
  uses.add(rows.kinds!, codes);
  profiles.finish();
  return { profiles, uses };
}

async function choose(latents: readonly Firings[], count: number, k: number, tokens = corpus): Promise<Feature[]> {
  const { profiles, uses } = await profilesOf(sourceOf(tokens, 50), latents);
  const features = latents.map((_, latent) => describeLatent(profiles, latent, uses.of(latent), k));
  return chooseFeatures(features, count, textOf);
}

/** 2,000 rows in 40 contexts of 50; in each: a cat at 10, cats at 20, a dog at 30, x at 40. */
const corpus = Array.from({ length: 2000 }, (_, row) => ({ 10: 2, 20: 3, 30: 4, 40: 7 })[row % 50] ?? 1);
const at = (place: number, contexts: number, value = 1) =>
  Array.from({ length: contexts }, (_, i) => [i * 50 + place, value] as const);

describe("chooseFeatures", () => {
  it("prefers a latent with several related tokens to one with a single token, to one that fires anywhere", async () => {
    const cats = [...at(10, 10), ...at(20, 10)];
    const dog = at(30, 20);
    const anywhere = at(5, 20);
    const features = await choose([anywhere, dog, cats], 3, 1);
    expect(features.map(({ latent }) => latent)).toEqual([2, 1, 0]);
    expect(features[0]).toMatchObject({ latent: 2, firings: 20, density: 0.01, contexts: 10, max: 1 });
    expect(features[0]?.tokens.map(({ token, firings, occurrences }) => [token, firings, occurrences])).toEqual([
      [2, 10, 40],
      [3, 10, 40],
    ]);
    expect(features[0]?.energyShare).toBeCloseTo(1 / 3, 6);
  });

  it("counts tokens that differ in case and spaces as one, by the most frequent of them", async () => {
    const tokens = corpus.map((id, row) => (row % 50 === 30 && row < 500 ? 9 : id));
    const [feature] = await choose([at(30, 20)], 1, 1, tokens);
    expect(feature?.tokens.map(({ token, firings, occurrences }) => [token, firings, occurrences])).toEqual([
      [4, 20, 40],
    ]);
  });

  it("prefers whole words to their fragments", async () => {
    // Everything is the same, but that "dog" at 30 is followed by "x" in one text and by " the" in
    // the other.
    const score = async (next: number) => {
      const tokens = corpus.map((id, row) => (row % 50 === 31 ? next : id));
      return (await choose([at(30, 20)], 1, 1, tokens))[0]?.score ?? 0;
    };
    expect(await score(7)).toBeCloseTo((await score(1)) / 10, 12);
    expect(await score(1)).toBeGreaterThan(0);
  });

  it("leaves out what fires too seldom, too often, or in too few contexts", async () => {
    const seldom = [...at(10, 5), ...at(20, 4)];
    const often = [...at(10, 40), ...at(20, 40)];
    const local = Array.from({ length: 20 }, (_, i) => [i, 1] as const);
    const latents = [seldom, often, local, ...Array.from({ length: 97 }, () => [])];
    expect(await choose(latents, 3, 1)).toEqual([]);
    // With k / n = 4 % even the second is no more than usual.
    expect((await choose(latents, 3, 4)).map(({ latent }) => latent)).toEqual([1]);
  });

  it("shows different kinds: one a band of density, none with a main token of another", async () => {
    const strong = [...at(10, 19, 9), ...at(20, 19, 9)];
    const alike = [...at(10, 18, 9), ...at(20, 18, 9)];
    const other = [...at(30, 8), ...at(40, 8), ...at(5, 3)];
    const features = await choose([strong, alike, other], 2, 1);
    expect(new Set(features.map(({ latent }) => latent))).toEqual(new Set([0, 2]));
  });
});

describe("RowsInText", () => {
  const tokens = [0, 1, 2, 0, 4, 5, 0, 1, 2, 3, 4, 5];
  const rows = Float64Array.of(1, 2, 4, 5, 7, 9, 11);

  it("numbers contexts by sequence and by document, however the rows are split", async () => {
    for (let split = 0; split <= rows.length; split++) {
      const reader = new RowsInText(sourceOf(tokens, 6), textOf);
      const parts = [await reader.next(rows.subarray(0, split)), await reader.next(rows.subarray(split))];
      expect(parts.flatMap(({ ids }) => [...(ids ?? [])])).toEqual([1, 2, 4, 5, 1, 3, 5]);
      expect(parts.flatMap(({ contexts }) => [...contexts])).toEqual([1, 1, 2, 2, 3, 3, 3]);
    }
  });

  it("begins another context where many rows were left out, and one a row where nothing tells", async () => {
    const far = Float64Array.of(1, 2, 100, 101);
    const long = Array.from({ length: 200 }, () => 1);
    expect([...(await new RowsInText(sourceOf(long)).next(far)).contexts]).toEqual([1, 1, 2, 2]);
    const bare: Source = { ...sourceOf(long), tokens: undefined };
    const { ids, contexts } = await new RowsInText(bare).next(far);
    expect(ids).toBeUndefined();
    expect(new Set(contexts).size).toBe(4);
  });

  it("calls tokens that differ in case and spaces one kind", async () => {
    const words = [" We", "we", "WE", " us", " ", "  "];
    const reader = new RowsInText(sourceOf([0, 1, 2, 3, 4, 5]), (token) => words[token]);
    const { kinds } = await reader.next(Float64Array.from([0, 1, 2, 3, 4, 5]));
    expect([...(kinds ?? [])]).toEqual([0, 0, 0, 3, 4, 5]);
  });
});

describe("examplesOf", () => {
  it("takes the strongest firings, from different contexts, with the text of their own document", async () => {
    const tokens = [0, 1, 2, 5, 0, 1, 3, 5, 0, 1, 4, 5, 0, 1, 2, 5, 0, 1, 2, 6];
    const firings: Firings = [
      [2, 5],
      [3, 4.5],
      [6, 7],
      [10, 3],
      [14, 6],
      [18, 5.5],
    ];
    const kept = (await profilesOf(sourceOf(tokens), [firings])).profiles.strongest(0);
    const examples = await examplesOf(kept, sourceOf(tokens), tokenizer, 5);
    // Row 2 is a third " cat"; row 3 is weaker than it and in its context.
    expect(examples).toEqual([
      { value: 7, where: "memory, row 6", before: " the", token: " cats", after: " sat" },
      { value: 6, where: "memory, row 14", before: " the", token: " cat", after: " sat" },
      { value: 5.5, where: "memory, row 18", before: " the", token: " cat", after: "\n" },
      { value: 3, where: "memory, row 10", before: " the", token: " dog", after: " sat" },
    ]);
  });

  it("shows a token that is a part of a character by the whole of it", async () => {
    const parts: Tokenizer = { ...tokenizer, pieces: (ids) => Array.from(ids, (id) => (id === 2 ? "" : WORDS[id])) };
    const source = sourceOf([0, 1, 2, 2, 5, 6, 2]);
    const kept = (at: number) => [{ value: 1, number: at, context: 0, around: new Float32Array(0) }];
    expect((await examplesOf(kept(2), source, parts, 1))[0]).toMatchObject({
      before: " the",
      token: " sat",
      after: "\n",
    });
    expect((await examplesOf(kept(6), source, parts, 1))[0]).toMatchObject({ token: "", after: "" });
  });
});

describe("the printed report", () => {
  const inText = (report: ReportWithFeatures, page: Page) => `${reportText(report)}\n\n${featuresText(report, page)}`;
  const report: ReportWithFeatures = {
    autoencoder: "runs/a",
    step: 1234,
    weights: "raw",
    engine: "reference",
    data: "memory",
    metrics: {
      rows: 1000,
      normalization: "none",
      fvu: 0.25,
      rawFvu: null,
      normalizedMse: null,
      mse: 0.5,
      l0: 3,
      l0Training: null,
      prefixFvu: [],
      latents: 100,
      dead: 1,
      deadFraction: 0.01,
      density: [{ from: -0.5, to: 0, latents: 99 }],
      densityUnit: DENSITY_UNIT,
    },
    fvuWithoutUnitDecoder: null,
    featuresNote: null,
    features: [
      {
        latent: 7,
        firings: 20,
        density: 0.02,
        energyShare: 0.001,
        contexts: 9,
        max: 3,
        score: 1,
        tokens: [
          { token: 2, firings: 10, occurrences: 12, share: 0.5, text: " cat" },
          { token: 4, firings: 3, occurrences: 4, share: 0.5, text: " dog" },
        ],
        label: { name: "pets\u202e", note: "also\nwild ones" },
        examples: [
          {
            value: 3,
            where: "memory, row 2",
            before: `${"long ".repeat(40)}\u001b[31m the`,
            token: " cat",
            after: " sat\non",
          },
        ],
      },
    ],
  };

  it("states each number with its definition, and marks the token in its text", () => {
    const lines = inText(report, { columns: 80, bold: false }).split("\n");
    expect(lines).toContain(
      "FVU                0.2500   fraction of variance unexplained: sum (x - x_hat)^2 / sum (x - mean of x)^2",
    );
    expect(lines).toContain("normalised MSE  undefined   sum (x - x_hat)^2 / sum x^2");
    expect(lines).toContain(
      "dead                    1   of 100 latents (1 %) have no value above 0 in any of these rows",
    );
    expect(lines).toContain("  32 % to 100 %             99  ████████████████████████████████████████");
    expect(lines).toContain("latent 7   fires on 2 % of the tokens (20, in 9 contexts), 0.1 % of all energy");
    expect(lines).toContain("  on: cat 10/12   dog 3/4");
    expect(lines).toContain("  name: pets·");
    expect(lines).toContain("  note: also⏎wild ones");
    const last = lines.at(-1) ?? "";
    expect(last).toMatch(/^ {4}3\.00 {2}…(ng|g|) ?(long )+·\[31m the ›cat‹ sat⏎on$/);
    expect([...last].length).toBeLessThanOrEqual(80);
  });

  it("says why it shows fewer latents than were asked for", () => {
    const featuresNote = "1 of the 500 latents asked for: 1 of 100 latents fires often enough";
    expect(inText({ ...report, featuresNote }, { columns: 80, bold: false })).toMatch(/asked for: 1 of 100 latents/);
  });

  it("lets no text turn a line around", () => {
    const [feature] = report.features;
    const examples = [{ ...feature.examples[0], before: "a\u202e", token: "\u200fb\u2067" }];
    const tokens = [{ ...feature.tokens[0], text: "\u061c<0xE2>" }];
    const text = inText({ ...report, features: [{ ...feature, examples, tokens }] }, { columns: 80, bold: false });
    expect(text).toContain("a·›·b·‹");
    expect(text).toContain("on: ·<0xE2> 10/12");
  });

  it("uses bold on a terminal only, and no control characters of the text", () => {
    const text = inText(report, { columns: 80, bold: true });
    expect(text).toContain(" the \u001b[1mcat\u001b[22m sat");
    expect(text).not.toContain("\u001b[31m");
    expect(pageOf({ isTTY: false })).toEqual({ columns: 110, bold: false });
    expect(pageOf({ isTTY: true, columns: 10 }).columns).toBe(60);
  });
});
