import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { FLOAT, INT64, node, model as onnxModel, tensor, tinyModel, valueInfo } from "../../test/support/onnx.ts";
import { dimsOf } from "../../test/topk.ts";
import { type LanguageModel, loadModel } from "../language-model/load.ts";
import { openSession } from "../language-model/session.ts";
import { float32Of } from "../util/bytes.ts";
import { type Ablate, measureLoss, type Reconstructor } from "./loss.ts";
import { type Contexts, contextsOfIds } from "./loss-contexts.ts";
import { crossEntropy, divergence, predictionsOf } from "./loss-math.ts";

interface Case {
  readonly tensor: string;
  readonly keeps_start: boolean;
  readonly ablate: Ablate;
  readonly results: Readonly<
    Record<"original" | "scaled" | "zero" | "mean", { readonly cross_entropy: number; readonly kl: number }>
  >;
}

/** What plain PyTorch makes of it in float64: test/parity/make_loss_fixture.py. */
const fixture = JSON.parse(readFileSync(new URL("../../test/parity/fixtures/loss.json", import.meta.url), "utf8")) as {
  readonly scale: number;
  readonly context: number;
  readonly tokens: readonly number[];
  readonly cases: readonly Case[];
};
const FILE = "examples/brown-gpt/model.onnx";
const BLOCK_3 = "/transformer/h.3/Add_1_output_0";
const tokens = Int32Array.from(fixture.tokens);
let model: LanguageModel;
beforeAll(async () => {
  model = await loadModel(FILE);
});

/** In the place of an autoencoder of the example's width: any function of a number. */
function elementwise(f: (x: number) => number, d = 256): Reconstructor {
  return {
    path: undefined,
    dims: dimsOf({ d, n: 1 }),
    reconstructRaw: async (raw) => ({
      output: float32Of(raw).map(f),
      codes: { k: 1, latent: new Uint32Array(0), value: new Float32Array(0) },
    }),
  };
}

const contexts = (exclude: "start" | "none"): Contexts =>
  contextsOfIds(tokens, fixture.context, { excludeTokens: exclude, startToken: 0 }, "the fixture");

describe("what the model loses", () => {
  it("is nothing, to the bit, where the tensor's own values are spliced in", async () => {
    const [found] = await measureLoss(model, BLOCK_3, contexts("none"), [elementwise((x) => x)]);
    expect(found!.identityDifference).toBe(0);
    expect(found!.crossEntropy.reconstruction).toBe(found!.crossEntropy.original);
    expect(found!.klDivergence.reconstruction).toBe(0);
    expect(found!.lossRecovered).toEqual({ fromZero: 1, fromMean: 1 });
    // The file as it is, run by the runtime: the same loss again.
    const plain = await openSession(readFileSync(FILE), FILE, 1);
    let loss = 0;
    for (let i = 0; i < 3; i++) {
      const ids = tokens.subarray(i * fixture.context, (i + 1) * fixture.context);
      const { values, shape } = (await plain.run(ids, 1, ["logits"])).get("logits")!;
      const predictions = predictionsOf(values, shape[2]!);
      for (let t = 0; t + 1 < fixture.context; t++) loss += crossEntropy(predictions, t, ids[t + 1]!);
    }
    await plain.close();
    expect(loss / (3 * (fixture.context - 1))).toBeCloseTo(found!.crossEntropy.original, 5);
  });

  it.each(
    fixture.cases,
  )("is what PyTorch computes: $tensor, start tokens kept: $keeps_start, ablated: $ablate", async ({
    tensor,
    keeps_start,
    ablate,
    results,
  }) => {
    const saes = [elementwise((x) => Math.fround(fixture.scale * x)), elementwise(() => 0)];
    const [scaled, zeros] = await measureLoss(model, tensor, contexts(keeps_start ? "start" : "none"), saes, {
      ablate,
    });
    const starts = tokens.filter((id) => id === 0).length;
    expect(starts).toBeGreaterThan(3);
    expect(scaled).toMatchObject({
      predictions: 3 * (fixture.context - 1) - (keeps_start ? starts : 0),
      splicedRows: tokens.length - (keeps_start ? starts : 0),
    });
    const { crossEntropy: ce, klDivergence: kl, lossRecovered } = scaled!;
    const near = (value: number, expected: number) => expect(Math.abs(value - expected)).toBeLessThan(1e-5);
    near(ce.original, results.original.cross_entropy);
    near(ce.reconstruction, results.scaled.cross_entropy);
    near(ce.zero, results.zero.cross_entropy);
    near(ce.mean, results.mean.cross_entropy);
    near(kl.reconstruction, results.scaled.kl);
    near(kl.zero, results.zero.kl);
    near(kl.mean, results.mean.kl);
    const recovered = (from: "zero" | "mean") =>
      (results[from].cross_entropy - results.scaled.cross_entropy) /
      (results[from].cross_entropy - results.original.cross_entropy);
    near(lossRecovered.fromZero!, recovered("zero"));
    near(lossRecovered.fromMean!, recovered("mean"));
    if (keeps_start && ablate === "all") expect(zeros!.crossEntropy.reconstruction).not.toBe(ce.zero);
    else expect(zeros).toMatchObject({ crossEntropy: { reconstruction: ce.zero }, lossRecovered: { fromZero: 0 } });
  });

  it("is the same however many contexts go through the model at a time", async () => {
    const sae = elementwise((x) => 0.5 * x);
    const [all] = await measureLoss(model, BLOCK_3, contexts("start"), [sae]);
    const whole = contexts("start");
    const sums = [0, 0];
    for (let i = 0; i < 3; i++) {
      const one: Contexts = { ...whole, count: 1, read: () => whole.read(i, 1) };
      const [part] = await measureLoss(model, BLOCK_3, one, [sae]);
      sums[0]! += (part!.crossEntropy.reconstruction * part!.predictions) / all!.predictions;
      sums[1]! += (part!.klDivergence.reconstruction * part!.predictions) / all!.predictions;
    }
    expect(all!.crossEntropy.reconstruction).toBeCloseTo(sums[0]!, 5);
    expect(all!.klDivergence.reconstruction).toBeCloseTo(sums[1]!, 5);
  });

  it("says where the model is worse than guessing, and how much of the text is done", async () => {
    const notes: string[] = [];
    const done: (readonly number[])[] = [];
    const tell = { onNote: (text: string) => notes.push(text), onProgress: (...of: number[]) => done.push(of) };
    await measureLoss(model, BLOCK_3, contexts("none"), [elementwise((x) => x)], tell);
    expect(notes).toEqual([]);
    expect(done[0]).toEqual([0, tokens.length]);
    expect(done.at(-1)).toEqual([tokens.length, tokens.length]);
    // Ids that are not of this text: what another tokenizer gives.
    const wrong = contextsOfIds(
      tokens.map((id) => (id * 2711 + 77) % 8192),
      fixture.context,
      { excludeTokens: "none", startToken: 0 },
      "another text",
    );
    await measureLoss(model, BLOCK_3, wrong, [], tell);
    expect(notes).toEqual([
      expect.stringMatching(
        /model\.onnx: cross-entropy \d+\.\d+ is above ln\(8192\) = 9\.01, worse than guessing: is this its tokenizer\?$/,
      ),
    ]);
  });

  it("is not measured where the widths differ, no row is left, or there is no next token", async () => {
    await expect(measureLoss(model, BLOCK_3, contexts("start"), [elementwise((x) => x, 64)])).rejects.toThrow(
      `takes rows of 64 numbers, but the tensor '${BLOCK_3}' has 256`,
    );
    const starts = contextsOfIds(new Int32Array(8), 4, { excludeTokens: "start", startToken: 0 }, "starts");
    await expect(measureLoss(model, BLOCK_3, starts, [])).rejects.toThrow(
      /2 contexts of 4 tokens of starts: every row .* --exclude-tokens none/,
    );
    await expect(
      measureLoss(model, BLOCK_3, contextsOfIds(tokens, 1, { excludeTokens: "none", startToken: 0 }, "ones"), []),
    ).rejects.toThrow(/no text of two tokens or more/);
    const ends = contextsOfIds(Int32Array.of(0, 5, 0, 7), 2, { excludeTokens: "start", startToken: 0 }, "ends");
    await expect(measureLoss(model, BLOCK_3, ends, [])).rejects.toThrow(/ends: no spliced row has a next token/);
    await expect(measureLoss(model, "/transformer/h.3/Add_2", contexts("start"), [])).rejects.toThrow(
      /no tensor '\/transformer\/h\.3\/Add_2'/,
    );
    await expect(measureLoss(model, "/transformer/h.0/attn/Softmax_output_0", contexts("start"), [])).rejects.toThrow(
      /has the shape \[1, 4, 24, 24\] .* not \[batch, sequence, width\]/,
    );
  });
});

describe("a model that was exported for one context at a time", () => {
  it("is given one at a time", async () => {
    const folder = mkdtempSync(join(tmpdir(), "saetta-loss-"));
    const path = join(folder, "model.onnx");
    writeFileSync(path, tinyModel([1, 2, 3, 1, 0, 1, 5, 2]));
    const dynamic = await loadModel(path);
    const one = {
      nodes: [node("Gather", ["table", "input_ids"], ["embedded"]), node("Add", ["embedded", "embedded"], ["logits"])],
      initializers: [tensor("table", [4, 2], Float32Array.of(1, 2, 3, 1, 0, 1, 5, 2))],
      inputs: [valueInfo("input_ids", INT64, [1, "s"])],
      outputs: [valueInfo("logits", FLOAT, [1, "s", 2])],
    };
    writeFileSync(path, onnxModel(one));
    const single = await loadModel(path);
    const text = contextsOfIds(Int32Array.of(1, 0, 1, 1, 0, 1), 2, { excludeTokens: "none", startToken: 0 }, "text");
    const sae = elementwise((x) => x + 1, 2);
    const [found] = await measureLoss(single, "embedded", text, [sae]);
    const [expected] = await measureLoss(dynamic, "embedded", text, [sae]);
    expect(found!.crossEntropy).toEqual(expected!.crossEntropy);
    rmSync(folder, { recursive: true });
  });
});

describe("cross-entropy and divergence", () => {
  const logits = (...rows: number[][]) => predictionsOf(Float32Array.from(rows.flat()), rows[0]!.length);

  it("are those of the softmax", () => {
    const p = logits([Math.log(1), Math.log(2), Math.log(5)], [1000, 1000, 1000]);
    const q = logits([Math.log(2), Math.log(2), Math.log(4)], [1000, 1000, 1001]);
    expect(crossEntropy(p, 0, 2)).toBeCloseTo(-Math.log(5 / 8), 6);
    expect(crossEntropy(p, 1, 0)).toBeCloseTo(Math.log(3), 6);
    expect(divergence(p, q, 0)).toBeCloseTo((1 / 8) * Math.log(1 / 2) + (5 / 8) * Math.log(5 / 4), 6);
    expect(divergence(p, q, 1)).toBeCloseTo(Math.log(2 + Math.E) - Math.log(3) - 1 / 3, 6);
    expect(divergence(p, p, 0)).toBe(0);
  });

  it("take no notice of a token that both rule out", () => {
    const p = logits([0, Number.NEGATIVE_INFINITY, 0]);
    expect(divergence(p, logits([0, Number.NEGATIVE_INFINITY, Math.log(3)]), 0)).toBeCloseTo(
      0.5 * Math.log(2) + 0.5 * Math.log(2 / 3),
      6,
    );
  });
});
