import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { start } from "../../test/cli/saetta.ts";
import { tinyTokenizer } from "../../test/support/onnx.ts";
import { openSource } from "../data/open.ts";
import type { Engine } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { harvest } from "../harvest/harvest.ts";
import { train } from "../train/train.ts";
import type { EvalData } from "./eval-data.ts";
import { lossesOf } from "./eval-loss.ts";
import { judgeAll } from "./eval-run.ts";
import { type Judged, markdown, resultText } from "./eval-text.ts";

const MODEL = "examples/brown-gpt";
const BLOCK_3 = "/transformer/h.3/Add_1_output_0";
const CONTEXT = 16;
const CONTEXTS = 40;

let folder: string;
let acts: string;
let engine: Engine;
const run = (name: string): string => join(folder, name);
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "saetta-eval-run-"));
  acts = join(folder, "acts.h5");
  engine = createReferenceEngine();
  await harvest({
    model: MODEL,
    text: "examples/brown.txt.gz",
    tensor: BLOCK_3,
    out: acts,
    tokens: CONTEXTS * CONTEXT,
    context: CONTEXT,
  });
  const source = await openSource([acts]);
  const shape = { latents: 64, k: 8, auxk: 0, batch: 64, statisticsRows: 256, engine: "reference" } as const;
  await (await train(source, { ...shape, holdout: 0.2, out: run("a") })).finished;
  await (await train(source, { ...shape, k: 2, holdout: 0.1, excludeTokens: "none", out: run("b") })).finished;
  await (await train(source, { ...shape, holdout: 0, out: run("none") })).finished;
  await source.close();
});
afterAll(async () => {
  await engine.close();
  rmSync(folder, { recursive: true });
});

const judge = (first: string, more: readonly string[], flags = {}): Promise<Judged[]> =>
  judgeAll(first, more, {}, flags, engine);
const PAGE = { columns: 120, bold: false };

describe("one autoencoder in its model", () => {
  it("is measured on the contexts of its held-out rows, with definitions", async () => {
    const [found, ...more] = await judge(run("a"), [], { loss: true });
    expect(more).toEqual([]);
    const { loss, metrics } = found!;
    expect(loss!.splicedRows).toBe(metrics.rows);
    expect(loss!.predictions % (CONTEXT - 2)).toBe(0); // not at the start token, and there is no next token at the end
    const { original, reconstruction, zero } = loss!.crossEntropy;
    expect(original).toBeLessThan(reconstruction);
    expect(reconstruction).toBeLessThan(zero);
    expect(loss!.lossRecovered.fromZero).toBe((zero - reconstruction) / (zero - original));
    expect(loss!.tensor).toBe(BLOCK_3);
    const text = resultText([found!], PAGE);
    expect(text).toContain("FVU  ");
    for (const definition of Object.values(loss!.definitions))
      expect(text).toContain(definition.replace("loss recovered: ", ""));
  });

  it("is left alone unless that is asked for", async () => {
    const [found] = await judge(run("a"), []);
    expect(found!.loss).toBeNull();
    expect(resultText([found!], PAGE)).not.toContain("recovered");
  });

  it("is measured on other text, of about as many tokens as asked for", async () => {
    const text = join(folder, "held-out.txt");
    writeFileSync(
      text,
      "The jury praised the administration of the city.\n\nIt was a fine day for the race. ".repeat(20),
    );
    const [found] = await judge(run("none"), [acts], { text, lossTokens: 100 });
    expect(found!.loss!.text).toBe(`${Math.ceil(100 / CONTEXT)} contexts of ${CONTEXT} tokens of ${text}`);
    expect(found!.loss!.splicedRows).toBeLessThan(7 * CONTEXT - 6);
  });

  it("reads other text with the tokenizer that is named, a file or its folder, and not with the model's", async () => {
    const [text, other] = [join(folder, "held-out-too.txt"), join(folder, "tokenizer")];
    writeFileSync(text, "The jury praised the administration of the city. ".repeat(20));
    mkdirSync(other);
    // The ids of "The" and "Ġthe" change places.
    const own = JSON.parse(readFileSync(join(MODEL, "tokenizer.json"), "utf8"));
    const vocab = own.model.vocab as Record<string, number>;
    [vocab.The, vocab.Ġthe] = [vocab.Ġthe!, vocab.The!];
    writeFileSync(join(other, "tokenizer.json"), JSON.stringify(own));
    const asked = { text, lossTokens: 100 };
    const [usual] = await judge(run("none"), [acts], asked);
    const [byFolder] = await judge(run("none"), [acts], { ...asked, tokenizer: other });
    const [byFile] = await judge(run("none"), [acts], { ...asked, tokenizer: join(other, "tokenizer.json") });
    expect(byFolder!.loss).toEqual(byFile!.loss);
    expect(byFolder!.loss!.predictions).toBe(usual!.loss!.predictions);
    expect(byFolder!.loss!.crossEntropy.original).toBeGreaterThan(usual!.loss!.crossEntropy.original + 0.1);
    writeFileSync(join(other, "tokenizer.json"), tinyTokenizer(["<s>", "a"]));
    await expect(judge(run("none"), [acts], { ...asked, tokenizer: other })).rejects.toThrow(
      /tokenizer\.json: the tokenizer has 2 tokens but the model 8192/,
    );
  });

  it("shows how far it is, of how many tokens, and the time left", async () => {
    const lines: string[] = [];
    const write = vi.spyOn(process.stderr, "write").mockImplementation((text) => lines.push(String(text)) > 0);
    let clock = performance.now();
    const now = vi.spyOn(performance, "now").mockImplementation(() => {
      clock += 20_000;
      return clock;
    });
    try {
      await judge(run("a"), [], { loss: true, lossTokens: 4 * CONTEXT });
    } finally {
      now.mockRestore();
      write.mockRestore();
    }
    const losses = lines.filter((line) => line.includes("loss: "));
    expect(losses[0]).toMatch(/loss: 0 of 64 tokens/);
    expect(losses.at(-1)).toMatch(/loss: 64 of 64 tokens, .*tokens\/s, 0 s left/);
  });

  it("is the same without a compiler and without kernels compiled before, with a note", async () => {
    const [usual] = await judge(run("a"), [], { loss: true, lossTokens: 4 * CONTEXT });
    // Kernels that were compiled before had other flags.
    const env = { CXX: join(folder, "no-such-compiler"), SAETTA_CXXFLAGS: "-DNEVER_COMPILED" };
    const flags = ["--loss-tokens", String(4 * CONTEXT), "--engine", "reference", "--json"];
    const { out, err } = await start(folder, env, "eval", run("a"), "--loss", ...flags).ended;
    expect(err).toMatch(/note: losses are summed in JavaScript, many times slower .*no-such-compiler/);
    const { cross_entropy: crossEntropy, kl_divergence: divergence } = JSON.parse(out).loss;
    for (const place of ["original", "reconstruction", "zero", "mean"] as const)
      expect(crossEntropy[place]).toBeCloseTo(usual!.loss!.crossEntropy[place], 9);
    for (const place of ["reconstruction", "zero", "mean"] as const)
      expect(divergence[place]).toBeCloseTo(usual!.loss!.klDivergence[place], 9);
  });

  it("needs a model that is there, and is the one of the activations unless named", async () => {
    const other = join(folder, "model");
    mkdirSync(other);
    for (const file of ["model.onnx", "tokenizer.json"]) copyFileSync(join(MODEL, file), join(other, file));
    const [same] = await judge(run("a"), [], { model: other, lossTokens: CONTEXT });
    expect(same!.loss!.model).toBe(join(other, "model.onnx"));
    await expect(judge(run("a"), [], { model: join(folder, "nowhere") })).rejects.toThrow(
      /nowhere: there is no such file/,
    );
    await expect(judge(run("a"), [], { tensor: "/transformer/h.3/Add_1" })).rejects.toThrow(
      /did you mean '\/transformer\/h\.3\/Add_1_output_0'/,
    );
  });
});

describe("a model that is not the one of the activations", () => {
  it("is refused where nobody named it, and told of where somebody did", async () => {
    const source = await openSource([acts]);
    const wrong: EvalData = {
      source: { ...source, origin: { ...source.origin, modelSha256: "0".repeat(64) } },
      ranges: [{ first: 0, count: CONTEXT }],
      nonFinite: "stop",
      excludeTokens: "start",
      excludePositions: "none",
    };
    const notes: string[] = [];
    const tell = { onNote: (text: string) => notes.push(text), onProgress: () => undefined };
    await expect(lossesOf([], wrong, { loss: true }, tell)).rejects.toThrow(
      /model\.onnx: is not the model that .*acts\.h5 was made with/,
    );
    expect(await lossesOf([], wrong, { model: MODEL }, tell)).toEqual([]);
    expect(notes).toEqual([expect.stringMatching(/its SHA-256 is another/)]);
    const gone: EvalData = {
      ...wrong,
      source: { ...source, origin: { ...source.origin, model: join(folder, "gone.onnx"), modelPlaces: [] } },
    };
    await expect(lossesOf([], gone, { loss: true }, tell)).rejects.toThrow(
      /gone\.onnx: the model that .* made with is not there any more; name it with --model PATH$/,
    );
    const bare: EvalData = { ...wrong, source: { ...source, origin: {} } };
    await expect(lossesOf([], bare, { loss: true }, tell)).rejects.toThrow(
      /which model they are of; name it with --model PATH/,
    );
    await source.close();
  });
});

describe("several autoencoders", () => {
  it("are judged on the rows that all runs held out and none excludes", async () => {
    const both = await judge(run("a"), [run("b")], { loss: true });
    const alone = await Promise.all([judge(run("a"), []), judge(run("b"), [])]);
    expect(both[0]!.metrics.rows).toBe(both[1]!.metrics.rows);
    expect(both[0]!.metrics.rows).toBeLessThan(alone[0]![0]!.metrics.rows);
    expect(both[0]!.metrics.rows).toBeLessThan(alone[1]![0]!.metrics.rows);
    expect(both[0]!.metrics.rows % (CONTEXT - 1)).toBe(0);
    expect(both[0]!.loss!.crossEntropy.original).toBe(both[1]!.loss!.crossEntropy.original);
    expect(both[0]!.loss!.crossEntropy.reconstruction).not.toBe(both[1]!.loss!.crossEntropy.reconstruction);
    const text = resultText(both, PAGE);
    const rows = text.split("\n").filter((line) => line.startsWith(folder));
    expect(rows).toHaveLength(2);
    expect(rows[1]).toContain(both[1]!.loss!.lossRecovered.fromZero!.toFixed(4));
    const table = markdown(both).split("\n");
    expect(table[0]).toMatch(/^\| autoencoder \|.* recovered \| from mean \|$/);
    expect(table[3]).toContain(`| ${both[1]!.loss!.klDivergence.reconstruction.toFixed(4)} |`);
    for (const column of ["FVU", "L0", "CE", "KL", "recovered", "from mean"])
      expect(table.some((line) => line.startsWith(`- ${column}: `))).toBe(true);
    expect(markdown(await judge(run("a"), [run("b")]))).not.toContain("recovered");
  });

  it("are judged on the files that are named, whatever the runs held out", async () => {
    const [a, none] = await judge(run("a"), [acts, run("none")]);
    expect(a!.metrics.rows).toBe(none!.metrics.rows);
    const [b] = await judge(run("b"), [acts]);
    expect(b!.metrics.rows).toBe(CONTEXTS * CONTEXT);
    const [, mixed] = await judge(run("b"), [run("a"), acts]);
    expect(mixed!.metrics.rows).toBe(a!.metrics.rows);
  });

  it("have no latents shown, and may be run on fewer threads", async () => {
    await expect(judge(run("a"), [run("b")], { features: 3 })).rejects.toThrow(
      /--features shows latents of one autoencoder/,
    );
    const [one] = await judgeAll(run("a"), [], { threads: 1 }, { loss: true, lossTokens: CONTEXT }, engine);
    expect(one!.loss!.crossEntropy.original).toBeGreaterThan(0);
  });

  it("are not compared where nothing is held out, or the files are others", async () => {
    await expect(judge(run("a"), [run("none")])).rejects.toThrow(/held no rows out/);
    const elsewhere = join(folder, "elsewhere.h5");
    copyFileSync(acts, elsewhere);
    const source = await openSource([elsewhere]);
    const options = {
      latents: 32,
      k: 2,
      auxk: 0,
      batch: 64,
      statisticsRows: 256,
      holdout: 0.2,
      engine: "reference",
      out: run("c"),
    } as const;
    await (await train(source, options)).finished;
    await source.close();
    await expect(judge(run("a"), [run("c")])).rejects.toThrow(
      /the runs were trained on different files; name the activations/,
    );
  });
});
