import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { CONTEXT, DEAD, HOSTILE, LATENTS, latentOf, MODEL, type Planted, plant } from "../../test/support/planted.ts";
import { openSource } from "../data/open.ts";
import type { Source } from "../data/source.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { openFeatures } from "../explorer/open.ts";
import { FeatureReader } from "../explorer/shared/reader.ts";
import type { Document, Latent, LatentMap } from "../explorer/shared/source.ts";
import { loadSae, type Sae } from "../inference/sae.ts";
import { loadModel } from "../language-model/load.ts";
import { loadTokenizer, type Tokenizer } from "../language-model/tokenizer.ts";
import { openUnembedding } from "../language-model/unembedding.ts";
import { findModel, findTokenizer } from "./find-model.ts";
import { type FeatureReportOptions, writeFeatureReport } from "./write-features.ts";

const SEQUENCES = 12;
/** The rows that are no start tokens. */
const RANGES = Array.from({ length: SEQUENCES }, (_, i) => ({ first: i * CONTEXT + 1, count: CONTEXT - 1 }));

let folder = "";
let planted: Planted;
let source: Source;
let sae: Sae;
let tokenizer: Tokenizer;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-report-"));
  planted = await plant(folder, SEQUENCES);
  source = await openSource([planted.acts]);
  sae = await loadSae(planted.sae, { engine: createReferenceEngine() });
  tokenizer = await loadTokenizer(join(MODEL, "tokenizer.json"));
});
afterAll(async () => {
  await sae.close();
  await source.close();
  await rm(folder, { recursive: true });
});

/** All latents of a report on the rows that are no start tokens. */
async function reportOf(
  from: Source,
  options: Partial<FeatureReportOptions> = {},
): Promise<{ latents: Latent[]; reader: FeatureReader; documents: Document[]; map: LatentMap | undefined }> {
  const out = join(folder, "features");
  const summary = await writeFeatureReport(sae, from, RANGES, { out, ...options });
  const file = await openFeatures(out);
  const reader = new FeatureReader(file.index.summary, file.read, out);
  expect(await reader.summary()).toEqual(summary);
  const latents = await Promise.all(Array.from({ length: LATENTS }, (_, latent) => reader.latent(latent)));
  const documents: Document[] = [];
  for (const name of Object.keys(file.index.chunks))
    if (name.startsWith("documents/")) documents.push(await reader.document(documents.length));
  const map = await reader.map();
  await file.close();
  return { latents, reader, documents, map };
}

describe("a report", () => {
  it("tells of each latent what was planted", async () => {
    const { latents, reader } = await reportOf(source, { tokenizer });
    const rows = Array.from(planted.tokens.keys()).filter((row) => row % CONTEXT !== 0);
    const kinds = new Map(rows.map((row) => [row, tokenizer.pieces([planted.tokens[row]!])[0]!.trim().toLowerCase()]));
    for (const latent of latents) {
      if (DEAD.includes(latent.latent)) {
        expect(latent).toMatchObject({ firings: 0, max: 0, score: 0, strongest: [], ranges: [], tokens: [], on: [] });
        continue;
      }
      // Whatever is above half the maximum is the latent's own direction; noise is far below.
      const own = rows.filter((row) => latentOf(planted.tokens[row]!) === latent.latent);
      expect(latent.firings).toBeGreaterThanOrEqual(own.length);
      expect(latent.density).toBeCloseTo(latent.firings / rows.length, 12);
      expect(latent.histogram.counts.reduce((sum, count) => sum + count, 0)).toBe(latent.firings);
      expect(latent.ranges.reduce((sum, range) => sum + range.firings, 0)).toBe(latent.firings);
      if (own.length === 0) continue;
      expect(latent.strongest[0]?.value).toBeCloseTo(latent.max, 2);
      const [main] = latent.tokens;
      const kind = main?.text.trim().toLowerCase();
      expect(own.map((row) => kinds.get(row))).toContain(kind);
      const occurrences = rows.filter((row) => kinds.get(row) === kind).length;
      expect(main?.occurrences).toBe(occurrences);
      for (const passage of [...latent.strongest, ...latent.ranges.flatMap(({ passages }) => passages)])
        expectTrue(passage, latent);
      expect(latent.promoted).toBeNull();
    }
    const { total, rows: found } = await reader.latents({
      search: "<",
      sort: "density",
      descending: true,
      offset: 0,
      count: 5,
    });
    expect(total).toBeGreaterThan(0);
    expect(found[0]?.on.join(" ")).toContain("<");
    const all = await reader.latents({ search: "", sort: "score", descending: true, offset: 0, count: 1 });
    expect((await reader.summary()).first).toBe(all.rows[0]?.latent);
    expect(latents.reduce((sum, { importance }) => sum + importance, 0)).toBeCloseTo(1, 5);
    expect((await reader.summary()).dead).toBe(DEAD.length);
    expect(latents[10]?.nearest[0]).toEqual({ latent: 11, cosine: 0.6, on: [] });
    expect(latents[11]?.nearest[0]).toEqual({ latent: 10, cosine: 0.6, on: latents[10]?.on });
  });

  it("has whole texts with the codes of their rows, and leads to them", async () => {
    const { latents, documents, map } = await reportOf(source, { tokenizer });
    expect([map?.x.length, map?.y.length, map?.named]).toEqual([LATENTS, LATENTS, []]);
    // They are small enough for all sequences to be in, each after its start token.
    const length = CONTEXT - 1;
    expect(documents.map(({ row, tokens }) => [row, tokens.length])).toEqual(
      RANGES.map(({ first, count }) => [first, count]),
    );
    for (const { row, tokens, begin, latents: fired, values, strongest } of documents) {
      expect(tokens).toEqual(tokenizer.pieces(planted.tokens.subarray(row, row + length)));
      expect([begin.length, begin[0], begin.at(-1)]).toEqual([length + 1, 0, fired.length]);
      const raw = new Uint8Array(length * 256 * 4);
      await source.read(row, length, raw);
      const { k, latent, value } = await sae.encodeRaw(raw, source.dtype, length);
      for (let token = 0; token < length; token++) {
        const codes = (of: ArrayLike<number>, from: number, to: number) => Array.from(of).slice(from, to);
        const [from, to] = [begin[token]!, begin[token + 1]!];
        const used = codes(value, token * k, (token + 1) * k).filter((each) => each > 0).length;
        expect(codes(fired, from, to)).toEqual(codes(latent, token * k, token * k + used));
        for (const [i, each] of codes(values, from, to).entries())
          expect(Math.abs(each / value[token * k + i]! - 1)).toBeLessThan(0.006);
      }
      const sums = new Map<number, number>();
      for (const [i, each] of fired.entries()) sums.set(each, (sums.get(each) ?? 0) + values[i]!);
      expect(sums.get(strongest[0]!.latent)).toBe(Math.max(...sums.values()));
    }
    for (const { strongest, documents: strong } of latents) {
      expect(strong!.length).toBeLessThanOrEqual(4);
      for (const { row, document } of strongest) expect(document).toBe(Math.floor(row / CONTEXT));
    }
  });

  it("shows no value above the maximum", async () => {
    const { latents } = await reportOf(source, { tokenizer });
    for (const { max, strongest, ranges } of latents)
      for (const { value, values } of [...strongest, ...ranges.flatMap(({ passages }) => passages)])
        expect(Math.max(value, ...values)).toBeLessThanOrEqual(max);
  });

  /**
   * The text of a passage is that of its document around its row, and the values stand on their
   * tokens.
   */
  function expectTrue({ row, tokens, values, at, value }: Latent["strongest"][number], latent: Latent): void {
    const begin = Math.floor(row / CONTEXT) * CONTEXT + 1;
    const first = Math.max(begin, row - 24);
    expect(at).toBe(row - first);
    expect(tokens.length).toBe(Math.min(begin + CONTEXT - 1, row + 16) - first);
    const ids = planted.tokens.subarray(first, first + tokens.length);
    expect(tokens.join("")).toBe(tokenizer.pieces(ids).join(""));
    expect(values[at]).toBe(value);
    // Rows along the latent's own direction are at least 1 long.
    expect(Array.from(values, (each) => each > 0.5)).toEqual(Array.from(ids, (id) => latentOf(id) === latent.latent));
  }

  it("keeps hostile text as text", async () => {
    const { latents } = await reportOf(source, { tokenizer });
    const texts = latents.flatMap(({ strongest }) => strongest.map(({ tokens }) => tokens.join("")));
    expect(texts.some((text) => text.includes("<script>window.hacked"))).toBe(true);
    expect(HOSTILE).toContain("<script>window.hacked");
  });

  it("tells the tokens that the unembedding promotes and suppresses", async () => {
    const model = await loadModel(MODEL);
    const { latents } = await reportOf(source, { tokenizer, model });
    await using end = await openUnembedding(model, 1);
    const effects = await end.effects((await sae.parameter("decoder")).slice(40 * end.width, 41 * end.width));
    const order = Array.from(effects.keys()).sort((a, b) => effects[b]! - effects[a]!);
    const shown = (ids: readonly number[]) => ids.map((id) => tokenizer.pieces([id])[0]);
    expect(latents[40]?.promoted?.map(({ text }) => text)).toEqual(shown(order.slice(0, 10)));
    expect(latents[40]?.suppressed?.map(({ text }) => text)).toEqual(shown(order.slice(-10).reverse()));
    expect(latents[40]?.promoted?.[0]?.effect).toBeCloseTo(effects[order[0]!]!, 2);
    expect(latents[40]?.up).toEqual(shown(order.slice(0, 6)));
    // A model may have rows for more tokens than there are.
    const fewer = { ...tokenizer, vocabSize: Math.min(...order.slice(0, 3)) };
    const { latents: without } = await reportOf(source, { tokenizer: fewer, model });
    expect(without[40]?.promoted?.map(({ text }) => text)).toEqual(
      shown(order.filter((id) => id < fewer.vocabSize).slice(0, 10)),
    );
  });

  it("does without tokens, and without a tokenizer", async () => {
    const { latents: bare } = await reportOf({ ...source, tokens: undefined });
    const some = bare.find(({ firings }) => firings > 10)!;
    expect(some.strongest[0]).toMatchObject({ tokens: [], values: [], at: 0 });
    expect(some.strongest[0]?.value).toBeCloseTo(some.max, 2);
    expect([some.on, some.tokens]).toEqual([[], []]);
    const { latents: numbered } = await reportOf(source);
    const passage = numbered.find(({ firings }) => firings > 10)?.strongest[0];
    expect(passage?.tokens[passage.at]).toBe(`⟨${planted.tokens[passage?.row ?? 0]}⟩`);
  });

  it("refuses rows and models of another width, and leaves nothing", async () => {
    await expect(reportOf({ ...source, dIn: 8 })).rejects.toThrow(
      /rows have 8 numbers, but the autoencoder.* takes 256/,
    );
    const model = await loadModel(MODEL);
    const other = { ...model, structure: { ...model.structure, tokens: 99 } };
    await expect(reportOf(source, { tokenizer, model: other })).rejects.toThrow(
      "it gives 8192 numbers a token, but knows 99 tokens",
    );
  });
});

describe("the model and the tokenizer of activations", () => {
  const found = async (origin: Source["origin"], path?: string) => {
    const notes: string[] = [];
    const model = await findModel({ ...source, origin }, path, (note) => notes.push(note));
    return [model?.path, notes.join()];
  };
  const here = join(MODEL, "model.onnx");

  it("are those that they name, or that are given", async () => {
    expect(await found({ model: here })).toEqual([here, ""]);
    expect(await found({}, MODEL)).toEqual([here, ""]);
    expect(await found({})).toEqual([undefined, ""]);
    expect(await found({ model: "/none/model.onnx" })).toEqual([
      undefined,
      expect.stringContaining("/none/model.onnx is not here") as string,
    ]);
    const { sha256 } = await loadModel(MODEL);
    expect(await found({ model: here, modelSha256: sha256 })).toEqual([here, ""]);
    expect(await found({ model: here, modelSha256: "0" })).toEqual([
      undefined,
      expect.stringContaining("has changed since") as string,
    ]);
    await expect(found({ modelSha256: "0" }, MODEL)).rejects.toThrow("its SHA-256 is another");
  });

  it("say what is missing in a note", async () => {
    const notes: string[] = [];
    const note = (text: string) => void notes.push(text);
    expect((await findTokenizer(source, {}, note))?.vocabSize).toBe(8192);
    expect(await findTokenizer({ ...source, tokens: undefined }, {}, note)).toBeUndefined();
    expect(await findTokenizer({ ...source, origin: {} }, {}, note)).toBeUndefined();
    expect(await findTokenizer({ ...source, origin: {} }, { others: ["/none/tokenizer.json"] }, note)).toBeUndefined();
    expect(notes).toEqual([
      expect.stringContaining("has no tokens: latents are shown without text"),
      expect.stringContaining("it is not known which tokenizer"),
      "the tokenizer cannot be read (/none/tokenizer.json: the tokenizer that the activations were made with is not there any more; name it with --tokenizer PATH): tokens are shown as numbers",
    ]);
    const bare = { ...source, origin: {} };
    expect((await findTokenizer(bare, { asked: MODEL }, note))?.vocabSize).toBe(8192);
    await expect(findTokenizer(bare, { asked: "/none/tokenizer.json" }, note)).rejects.toThrow("/none/tokenizer.json");
    expect(notes).toHaveLength(3);
  });
});
