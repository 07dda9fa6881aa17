import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { InferenceSession, Tensor } from "onnxruntime-node";
import { afterAll, beforeEach, describe, expect, it } from "vitest";
import {
  exposed,
  FLOAT,
  INT64,
  model,
  node,
  tensor,
  tinyModel,
  tinyTokenizer,
  valueInfo,
} from "../../test/support/onnx.ts";
import { openSource } from "../data/open.ts";
import { loadTokenizer } from "../language-model/tokenizer.ts";
import { bytesOf } from "../util/bytes.ts";
import { encodeFloat16 } from "../util/float16.ts";
import { type HarvestOptions, type HarvestProgress, harvest } from "./harvest.ts";

const EXAMPLE = "examples/brown-gpt";
const TEXT = "examples/brown.txt.gz";
const BLOCK_3 = "/transformer/h.3/Add_1_output_0";

const root = mkdtempSync(join(tmpdir(), "saetta-harvest-"));
afterAll(() => rmSync(root, { recursive: true, force: true }));
let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(root, "case-"));
});

/** A model with tokens <s>, a, b, c, d of the rows given, and its tokenizer. */
function tiny(table: readonly number[], tokens = ["<s>", "a", "b", "c", "d"]): string {
  const at = join(folder, "model");
  mkdirSync(at);
  writeFileSync(join(at, "model.onnx"), tinyModel(table));
  writeFileSync(join(at, "tokenizer.json"), tinyTokenizer(tokens));
  return at;
}

function text(content: string): string {
  const path = join(folder, "text.txt");
  writeFileSync(path, content);
  return path;
}

const PLAIN = [0, 0, 1, 10, 2, 20, 3, 30, 4, 40];

/** Harvests from a tiny model with contexts of 4 into the case's folder. */
function run(options: Partial<HarvestOptions> & Pick<HarvestOptions, "model" | "text">) {
  return harvest({ tensor: "doubled", out: join(folder, "acts.h5"), context: 4, ...options });
}

async function contents(path: string) {
  const source = await openSource([path]);
  const into = new Uint8Array(source.rows * source.dIn * (source.dtype === "f32" ? 4 : 2));
  await source.read(0, source.rows, into);
  const tokens = await source.tokens!(0, source.rows);
  const { dIn, rows, dtype, sequence, origin } = source;
  await source.close();
  return { dIn, rows, dtype, sequence, origin, bytes: into, tokens: [...tokens] };
}

describe("harvest", () => {
  it("agrees bit for bit with ONNX Runtime's own run of the whole model", async () => {
    const T = 64;
    const sequences = 21;
    const [wide, narrow] = [join(folder, "wide.h5"), join(folder, "narrow.h5")];
    const options = { model: EXAMPLE, text: TEXT, tensor: BLOCK_3, context: T, tokens: sequences * T };
    await harvest({ ...options, out: wide, dtype: "f32" });
    const { tokens, bytes } = await contents(wide);

    // The model as it is, logits and all; only the tensor's name is added to its outputs, and the
    // runtime is used as it comes.
    const whole = await InferenceSession.create(exposed(readFileSync(`${EXAMPLE}/model.onnx`), BLOCK_3), {
      logSeverityLevel: 4,
    });
    expect(whole.outputNames).toEqual(["logits", BLOCK_3]);
    const results = await whole.run({
      input_ids: new Tensor("int64", BigInt64Array.from(tokens, BigInt), [sequences, T]),
    });
    const expected = results[BLOCK_3]!.data as Float32Array;
    await whole.release();
    expect(expected.length).toBe(sequences * T * 256);
    expect(Buffer.from(bytes).equals(Buffer.from(bytesOf(expected)))).toBe(true);

    await harvest({ ...options, out: narrow });
    const rounded = new Uint16Array(expected.length);
    expect(encodeFloat16(expected, rounded)).toBe(-1);
    expect(Buffer.from((await contents(narrow)).bytes).equals(Buffer.from(bytesOf(rounded)))).toBe(true);
  });

  it("writes the file of the contract, and says where it came from", async () => {
    const out = join(folder, "new", "acts.h5");
    const result = await harvest({ model: EXAMPLE, text: TEXT, tensor: "/transformer/Add_output_0", out, tokens: 300 });
    expect(result).toMatchObject({ out, sequences: 2, context: 256, width: 256, rows: 512, dtype: "f16" });
    const { origin, tokens, ...rest } = await contents(out);
    expect(rest).toMatchObject({ dIn: 256, rows: 512, dtype: "f16", sequence: 256 });
    expect(origin).toMatchObject({
      model: resolve(EXAMPLE, "model.onnx"),
      tensor: "/transformer/Add_output_0",
      tokenizer: resolve(EXAMPLE, "tokenizer.json"),
      startToken: 0,
    });
    expect(origin.modelSha256).toMatch(/^[0-9a-f]{64}$/);
    const tokenizer = await loadTokenizer(origin.tokenizer!);
    expect(tokenizer.decode(tokens.slice(1, 256))).toMatch(/^The Fulton County Grand Jury said Friday/);
    expect([tokens[0], tokens[256]]).toEqual([0, 0]);
    expect(readdirSync(dirname(out))).toEqual(["acts.h5"]);
  });

  it("writes several tensors in one pass, each as a harvest of it alone does", async () => {
    const names = [BLOCK_3, "/transformer/Add_output_0", "logits"];
    const options = { model: EXAMPLE, text: TEXT, context: 32, tokens: 700 };
    const alone = names.map((_, i) => join(folder, `alone-${i}.h5`));
    for (const [i, tensor] of names.entries()) await harvest({ ...options, tensor, out: alone[i]! });
    const together = names.map((_, i) => join(folder, `together-${i}.h5`));
    const progress: HarvestProgress[] = [];
    const onProgress = (it: HarvestProgress) => progress.push(it);
    const result = await harvest({ ...options, tensor: names, out: together, onProgress });
    expect(result.files.map(({ width }) => width)).toEqual([256, 256, 8192]);
    expect(result).toMatchObject({ out: together[0], width: 256, rows: 704 });
    expect(progress.filter(({ done, total }) => done === total)).toHaveLength(2); // tokenized, harvested
    for (const [i, tensor] of names.entries()) {
      expect(result.files[i]).toMatchObject({ tensor, out: together[i] });
      const { bytes, ...said } = await contents(together[i]!);
      const { bytes: expected, ...other } = await contents(alone[i]!);
      expect(said).toEqual(other);
      expect(said.origin.tensor).toBe(tensor);
      expect(Buffer.from(bytes).equals(Buffer.from(expected))).toBe(true);
    }
  });

  it("names files in a folder after their tensors", async () => {
    const model = tiny(PLAIN);
    const out = join(folder, "new", "acts");
    const document = text("abcd");
    const result = await run({ model, text: document, tensor: ["embedded", "doubled"], out });
    expect(result.files.map((file) => file.out)).toEqual([join(out, "embedded.h5"), join(out, "doubled.h5")]);
    expect(readdirSync(out).sort()).toEqual(["doubled.h5", "embedded.h5"]);
    rmSync(join(out, "doubled.h5"));
    expect((await run({ model, text: document, out })).out).toBe(join(out, "doubled.h5"));
    const both = run({ model, text: document, tensor: ["embedded", "doubled"], out });
    await expect(both).rejects.toThrow(/embedded\.h5: exists already; remove it or choose another --out/);
    const nested = await harvest({ model: EXAMPLE, text: TEXT, context: 8, tokens: 8, tensor: BLOCK_3, out: folder });
    expect(nested.out).toBe(join(folder, "transformer-h.3-Add_1_output_0.h5"));
  });

  it("leaves no file where one of several tensors cannot be written", async () => {
    const model = tiny([0, 0, 1, 10, 2, 20, 3, 40_000, 4, 5]);
    const out = ["embedded.h5", "doubled.h5"].map((name) => join(folder, name));
    const options = { model, text: text("abababcba"), tensor: ["embedded", "doubled"], out };
    await expect(run(options)).rejects.toThrow(/80000 is too large for float16 in tensor 'doubled', sequence 2/);
    expect(readdirSync(folder).sort()).toEqual(["model", "text.txt"]);
    // The name of the second file is taken after the harvest began: the first is complete by then.
    const onProgress = ({ stage }: HarvestProgress) => stage === "harvest" && mkdirSync(out[1]!, { recursive: true });
    await expect(run({ ...options, dtype: "f32", onProgress })).rejects.toThrow(/doubled\.h5/);
    expect(readdirSync(folder).sort()).toEqual(["doubled.h5", "model", "text.txt"]);
  });

  it("packs documents into contexts that begin with the start token, and drops what does not fill one", async () => {
    const progress: HarvestProgress[] = [];
    const result = await run({
      model: tiny(PLAIN),
      text: text("abcd\n\na\n\nbcdb"),
      dtype: "f32",
      onProgress: (it) => progress.push(it),
    });
    const { tokens, bytes } = await contents(result.out);
    expect(tokens).toEqual([0, 1, 2, 3, 0, 4, 0, 1, 0, 2, 3, 4]);
    expect([...new Float32Array(bytes.buffer)]).toEqual(tokens.flatMap((id) => [2 * id, 20 * id]));
    expect(progress.at(-1)).toEqual({ stage: "harvest", done: 12, total: 12 });
  });

  it("rounds --tokens up to whole contexts, and says when the text has fewer", async () => {
    const model = tiny(PLAIN);
    const document = text("abcd".repeat(9));
    expect((await run({ model, text: document, tokens: 5, out: join(folder, "a.h5") })).rows).toBe(8);
    expect((await run({ model, text: document, tokens: 8, out: join(folder, "b.h5") })).rows).toBe(8);
    const notes: string[] = [];
    const result = await run({
      model,
      text: document,
      tokens: 1000,
      out: join(folder, "c.h5"),
      onNote: (note) => notes.push(note),
    });
    expect(result.rows).toBe(48);
    expect(notes).toEqual(["the text gives 48 tokens, not 1000"]);
  });

  it("stops where a value does not fit float16 and names --dtype f32, which takes it", async () => {
    const model = tiny([0, 0, 1, 10, 2, 20, 3, 40_000, 4, 5]);
    const options = { model, text: text("abababcba") };
    await expect(run(options)).rejects.toThrow(
      /80000 is too large for float16 in tensor 'doubled', sequence 2, position 1; use --dtype f32/,
    );
    expect(readdirSync(folder).sort()).toEqual(["model", "text.txt"]);
    expect((await run({ ...options, dtype: "f32" })).rows).toBe(12);
  });

  it.each([
    Number.NaN,
    Number.NEGATIVE_INFINITY,
  ])("stops where the model computes %s, whatever the dtype", async (value) => {
    const options = { model: tiny([0, 0, 1, 10, 2, 20, 3, value, 4, 5]), text: text("abcabc") };
    for (const dtype of ["f16", "f32"] as const) {
      await expect(run({ ...options, dtype })).rejects.toThrow(
        `the model computes ${value} in tensor 'doubled', sequence 0, position 3`,
      );
    }
    expect(existsSync(join(folder, "acts.h5"))).toBe(false);
  });

  it("leaves no file behind when it is stopped", async () => {
    const controller = new AbortController();
    const options = { model: tiny(PLAIN), text: text("abcd".repeat(2000)), signal: controller.signal };
    const onProgress = ({ stage }: HarvestProgress) => stage === "harvest" && controller.abort();
    await expect(run({ ...options, onProgress })).rejects.toThrow(/stopped before the end; nothing was written/);
    expect(readdirSync(folder).sort()).toEqual(["model", "text.txt"]);
  });
});

describe("harvest refuses", () => {
  it("tensors and files that do not go together", async () => {
    const options = { model: tiny(PLAIN), text: text("abcd"), tensor: ["embedded", "doubled"] };
    const [a, b] = [join(folder, "a.h5"), join(folder, "b.h5")];
    await expect(run({ ...options, out: a })).rejects.toThrow(
      /^2 tensors and 1 file were named with --tensor and --out; give an --out per --tensor/,
    );
    await expect(run({ ...options, out: [a, b, join(folder, "c.h5")] })).rejects.toThrow(/^2 tensors and 3 files/);
    await expect(run({ ...options, out: [a, `${folder}/./a.h5`] })).rejects.toThrow(
      /a\.h5: the tensors embedded and doubled would be written to the same file; give an --out per --tensor/,
    );
    await expect(run({ ...options, tensor: ["doubled", "doubled"], out: [a, b] })).rejects.toThrow(
      /^--tensor doubled is given twice/,
    );
    await expect(run({ ...options, tensor: ["doubled", "dubbled"], out: [a, b] })).rejects.toThrow(
      /no tensor 'dubbled'; did you mean/,
    );
    expect(readdirSync(folder).sort()).toEqual(["model", "text.txt"]);
  });

  it("a tokenizer of another model, before any work", async () => {
    const letters = [..."abcdefgh"];
    await expect(run({ model: tiny(PLAIN, ["<s>", ...letters]), text: text("abc") })).rejects.toThrow(
      /tokenizer\.json: the tokenizer has 9 tokens but the model 5: they do not belong together; use the tokenizer\.json/,
    );
    // An added token beyond the embedding is none that this text yields.
    const model = join(folder, "model");
    writeFileSync(join(model, "tokenizer.json"), tinyTokenizer(["<s>", "a", "b", "c", "d", "<pad>"]));
    await run({ model, text: text("abcdabcd") });
    rmSync(join(folder, "acts.h5"));
    await expect(run({ model, text: text("abc<pad>d") })).rejects.toThrow(
      /tokenizer\.json: the text has the token 5 \("<pad>"\), but the model knows 5; take that token out of the text/,
    );
    const at = join(folder, "mixed");
    mkdirSync(at);
    copyFileSync(`${EXAMPLE}/model.onnx`, join(at, "model.onnx"));
    writeFileSync(join(at, "tokenizer.json"), tinyTokenizer(["<s>", ...letters]));
    await expect(run({ model: at, text: text("abc"), tensor: BLOCK_3 })).rejects.toThrow(
      /has 9 tokens but the model 8192/,
    );
  });

  it("a tokenizer of another model also where the graph does not show its embedding", async () => {
    const at = tiny(PLAIN, ["<s>", "a", "b", "c", "d", "e"]);
    const parts = { nodes: [node("Neg", ["table"], ["negative"]), node("Gather", ["negative", "ids"], ["looked_up"])] };
    const inputs = [valueInfo("ids", INT64, ["b", "s"])];
    const table = tensor("table", [5, 2], Float32Array.from(PLAIN));
    const outputs = [valueInfo("looked_up", FLOAT, ["b", "s", 2])];
    writeFileSync(join(at, "model.onnx"), model({ ...parts, initializers: [table], inputs, outputs }));
    const options = { model: at, tensor: "looked_up" };
    expect((await run({ ...options, text: text("abcd"), out: join(folder, "within.h5") })).rows).toBe(4);
    await expect(run({ ...options, text: text("abeabc") })).rejects.toThrow(
      /model\.onnx: ONNX Runtime failed on 2 contexts of 4 tokens \(.*idx=5 must be within the inclusive range \[-5,4\]/,
    );
    expect(existsSync(join(folder, "acts.h5"))).toBe(false);
  });

  it("a file that exists, and a folder that cannot be one", async () => {
    const options = { model: tiny(PLAIN), text: text("abcd") };
    const out = text("keep me");
    await expect(run({ ...options, out })).rejects.toThrow(
      /text\.txt: exists already; remove it or choose another --out/,
    );
    expect(readFileSync(out, "utf8")).toBe("keep me");
    for (const folder of [out, join(out, "deeper"), "/proc/none", "/proc/none/deeper"]) {
      await expect(run({ ...options, out: join(folder, "acts.h5") })).rejects.toThrow(
        /nothing can be written there .*choose another --out/,
      );
    }
  });

  it("tensors that are not there or not [batch, sequence, width]", async () => {
    const options = { model: EXAMPLE, text: TEXT, context: 8, out: join(folder, "acts.h5") };
    await expect(harvest({ ...options, tensor: "/transformer/h.3/Add_2_output_0" })).rejects.toThrow(
      /did you mean .*h\.3\/Add_1_output_0/,
    );
    await expect(harvest({ ...options, tensor: "/transformer/h.0/attn/MatMul_output_0" })).rejects.toThrow(
      /has 4 dimensions, not \[batch, sequence, width\]/,
    );
    await expect(harvest({ ...options, tensor: "/transformer/Shape_output_0" })).rejects.toThrow(
      /is of int64, not of float32 or float16/,
    );
    await expect(harvest({ ...options, tensor: "input_ids" })).rejects.toThrow(/has no tensor 'input_ids'/);
  });

  it("contexts that the model does not take", async () => {
    const options = { model: EXAMPLE, text: TEXT, tensor: BLOCK_3, out: join(folder, "acts.h5") };
    await expect(harvest({ ...options, context: 257 })).rejects.toThrow(
      /a context of 257 tokens: the model takes at most 256; give another --context/,
    );
    await expect(harvest({ ...options, context: 1 })).rejects.toThrow(/at least 2/);
  });

  it("a text that fills no context, and one that is not there", async () => {
    const model = tiny(PLAIN);
    await expect(run({ model, text: text("ab") })).rejects.toThrow(/text\.txt: 3 tokens do not fill one context of 4/);
    await expect(run({ model, text: join(folder, "none.txt") })).rejects.toThrow(/none\.txt: there is no such file/);
  });

  it("a model that is not there, or is none", async () => {
    const document = text("abcd");
    await expect(run({ model: join(folder, "none"), text: document })).rejects.toThrow(
      /none: there is no such file; name a \.onnx file, or a folder/,
    );
    const garbage = join(folder, "garbage.onnx");
    writeFileSync(garbage, "this is not a model");
    await expect(run({ model: garbage, text: document })).rejects.toThrow(/garbage\.onnx: not an ONNX model/);
    writeFileSync(garbage, readFileSync(`${EXAMPLE}/model.onnx`).subarray(0, 5_000_000));
    await expect(run({ model: garbage, text: document })).rejects.toThrow(
      /garbage\.onnx: not an ONNX model: a field of \d+ bytes where \d+ are left/,
    );
  });
});
