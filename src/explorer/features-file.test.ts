import { readdirSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { FeatureSummary } from "../run-files/feature-summary.ts";
import { FEATURES, FEATURES_FILE } from "../run-files/names.ts";
import { bytesOf } from "../util/bytes.ts";
import { SaettaError, UsageError } from "../util/errors.ts";
import { explorerApi, featuresFile } from "./api.ts";
import { writeHtml } from "./html.ts";
import { openFeatures } from "./open.ts";
import { MAGIC, PER_SHARD, PER_TEXT, type StoredLatent, type StoredPassage } from "./shared/format.ts";
import { FeatureReader } from "./shared/reader.ts";
import { FeatureWriter } from "./write.ts";

const LATENTS = 2 * PER_SHARD + 1;
/** Two whole pieces of text and one token. */
const TEXTS = Array.from({ length: 2 * PER_TEXT + 1 }, (_, i) => ` w${i}`);

const SUMMARY: FeatureSummary = {
  title: "runs/<b>\"a\"&'b'</b></title><script>alert(1)</script>",
  step: 12,
  latents: LATENTS,
  k: 4,
  width: 8,
  rows: 1000,
  data: "memory",
  model: null,
  tensor: null,
  sequence: 50,
  fvu: 0.25,
  l0: 3.5,
  dead: 1,
  density: [{ from: -1, to: 0, latents: LATENTS }],
  first: 3,
  text: true,
  logits: false,
};

function passage(latent: number): StoredPassage {
  // Latent 40's passage goes over the end of a piece, the last latent's ends with the last token.
  const text = latent === 40 ? PER_TEXT - 2 : latent === LATENTS - 1 ? TEXTS.length - 5 : latent;
  return { value: 2, row: 100 + latent, text, length: 5, at: 1, active: [1, 2, 3, 0.5] };
}

function latentOf(latent: number): StoredLatent {
  const none = latent === 7;
  return {
    contexts: 3,
    histogram: { width: 0.5, counts: [1, 2] },
    strongest: none ? [] : [passage(latent)],
    ranges: none
      ? []
      : [{ from: 1, to: 2, firings: 3, passages: [{ ...passage(latent), text: -1, length: 0, at: 0, active: [] }] }],
    tokens: [],
    nearest: [{ latent: (latent + 1) % LATENTS, cosine: 0.5 }],
    promoted: null,
    suppressed: null,
  };
}

let folder = "";
let path = "";
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-features-"));
  path = join(folder, FEATURES_FILE);
  const writer = await FeatureWriter.create(path);
  for (let first = 0; first < LATENTS; first += PER_SHARD) {
    const count = Math.min(PER_SHARD, LATENTS - first);
    await writer.json(
      `latents/${first / PER_SHARD}`,
      Array.from({ length: count }, (_, i) => latentOf(first + i)),
    );
  }
  for (let i = 0; i * PER_TEXT < TEXTS.length; i++)
    await writer.json(`text/${i}`, TEXTS.slice(i * PER_TEXT, (i + 1) * PER_TEXT));
  const column = (of: (latent: number) => number) => Array.from({ length: LATENTS }, (_, latent) => of(latent));
  const reals = [
    column((latent) => latent % 10),
    column((latent) => 1 / (latent + 1)),
    column((latent) => (latent * 7) % LATENTS),
  ];
  await writer.bytes(
    "table",
    Buffer.concat([
      bytesOf(Uint32Array.from(column((latent) => 10 * latent))),
      ...reals.map((each) => bytesOf(Float32Array.from(each))),
    ]),
  );
  await writer.json(
    "words",
    column((latent) => latent).map((latent) => ({ on: [` Word${latent}`, " the"], up: [`next${latent}`] })),
  );
  await writer.finish(SUMMARY);
});
afterEach(() => rm(folder, { recursive: true }));

async function withReader<T>(use: (reader: FeatureReader, reads: string[]) => Promise<T>): Promise<T> {
  const file = await openFeatures(path);
  const reads: string[] = [];
  try {
    return await use(
      new FeatureReader(
        file.index.summary,
        (name) => {
          reads.push(name);
          return file.read(name);
        },
        path,
      ),
      reads,
    );
  } finally {
    await file.close();
  }
}

const QUERY = { search: "", sort: "latent", descending: false, offset: 0, count: 10 } as const;

describe("a features file", () => {
  it("gives a latent with its passages, and reads no more than that takes", async () => {
    await withReader(async (reader, reads) => {
      const latent = await reader.latent(40);
      expect(latent).toMatchObject({
        latent: 40,
        firings: 400,
        density: 0.4,
        max: 0,
        on: [" Word40", " the"],
        up: ["next40"],
      });
      expect(latent.importance).toBeCloseTo(1 / 41, 6);
      expect(latent.strongest).toEqual([
        { value: 2, row: 140, tokens: TEXTS.slice(PER_TEXT - 2, PER_TEXT + 3), values: [0, 2, 0, 0.5, 0], at: 1 },
      ]);
      expect(latent.ranges[0]?.passages).toEqual([{ value: 2, row: 140, tokens: [], values: [], at: 0 }]);
      expect(latent.nearest).toEqual([{ latent: 41, cosine: 0.5, on: [" Word41", " the"] }]);
      expect(new Set(reads)).toEqual(new Set(["table", "words", "latents/1", "text/0", "text/1"]));
      const last = await reader.latent(LATENTS - 1);
      expect(last.strongest[0]?.tokens).toEqual(TEXTS.slice(-5));
      expect(last.nearest[0]?.on).toEqual([" Word0", " the"]);
      expect((await reader.latent(7)).strongest).toEqual([]);
      await reader.latent(40);
      expect(reads.length).toBe(new Set(reads).size);
    });
  });

  it("says that there is no such latent", async () => {
    await withReader(async (reader) => {
      for (const latent of [-1, LATENTS, 1.5, Number.NaN])
        await expect(reader.latent(latent)).rejects.toThrow(UsageError);
    });
  });

  it("searches, sorts and pages", async () => {
    await withReader(async (reader) => {
      const numbers = async (query: Partial<Parameters<FeatureReader["latents"]>[0]>) => {
        const { total, rows } = await reader.latents({ ...QUERY, ...query });
        return [total, ...rows.map(({ latent }) => latent)];
      };
      expect(await numbers({ count: 3 })).toEqual([LATENTS, 0, 1, 2]);
      expect(await numbers({ count: 3, offset: 63 })).toEqual([LATENTS, 63, 64]);
      expect(await numbers({ sort: "density", descending: true, count: 2 })).toEqual([LATENTS, 64, 63]);
      expect(await numbers({ sort: "importance", descending: true, count: 2 })).toEqual([LATENTS, 0, 1]);
      expect(await numbers({ sort: "max", descending: true, count: 3 })).toEqual([LATENTS, 9, 19, 29]);
      expect(await numbers({ sort: "score", descending: true, count: 1 })).toEqual([
        LATENTS,
        Array.from({ length: LATENTS }, (_, i) => i).find((i) => (i * 7) % LATENTS === LATENTS - 1),
      ]);
      expect(await numbers({ search: " wORD6 " })).toEqual([6, 6, 60, 61, 62, 63, 64]);
      expect(await numbers({ search: "next12" })).toEqual([1, 12]);
      expect(await numbers({ search: "#12" })).toEqual([1, 12]);
      // A number is a latent, and may be in words too.
      expect(await numbers({ search: "33" })).toEqual([1, 33]);
      expect(await numbers({ search: "nowhere" })).toEqual([0]);
      // The latent of that number comes first, however the others are sorted, and the best match
      // next.
      expect(await numbers({ search: "6", sort: "match", descending: true, count: 3 })).toEqual([11, 6, 46, 64]);
      expect(await numbers({ search: "6", sort: "latent", descending: true, count: 2 })).toEqual([11, 6, 64]);
      expect(await numbers({ search: "6", sort: "latent", count: 2 })).toEqual([11, 6, 16]);
      expect(await numbers({ search: "word6 the", sort: "match", descending: true, count: 1 })).toEqual([6, 6]);
      expect(await numbers({ search: "", sort: "match", descending: true, count: 1 })).toEqual(
        await numbers({ sort: "score", descending: true, count: 1 }),
      );
    });
  });

  it("is a FormatError or SaettaError wherever it is cut off or changed, or right", async () => {
    const whole = await readFile(path);
    const expected = await withReader((reader) => reader.latent(40));
    const look = async (bytes: Uint8Array) => {
      await writeFile(path, bytes);
      try {
        return await withReader((reader) => reader.latent(40));
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(SaettaError);
        return undefined;
      }
    };
    for (let length = 0; length < whole.length; length += 331)
      expect(await look(whole.subarray(0, length))).toBeUndefined();
    let refused = 0;
    for (let at = 0; at < whole.length; at += 127) {
      const changed = Buffer.from(whole);
      changed[at]! ^= 0x55;
      if ((await look(changed)) === undefined) refused++;
    }
    expect(refused).toBeGreaterThan(10);
    expect(await look(whole)).toEqual(expected);
  });

  it.each([
    [{ version: 2, summary: SUMMARY, chunks: {} }, "has version 2, not 1"],
    [null, "has version undefined, not 1"],
    // Nothing is allocated for what cannot be.
    [{ version: 1, summary: SUMMARY, chunks: { table: [8, 1e15] } }, 'chunk "table" does not lie in the file'],
    [{ version: 1, summary: SUMMARY, chunks: { table: [-1, 2] } }, 'chunk "table" does not lie in the file'],
    [{ version: 1, summary: SUMMARY, chunks: { table: [8, -1] } }, 'chunk "table" does not lie in the file'],
    [{ version: 1, summary: SUMMARY, chunks: { table: "8" } }, 'chunk "table" does not lie in the file'],
  ])("refuses an index that cannot be: %j", async (index, message) => {
    const bytes = deflateRawSync(JSON.stringify(index));
    await writeFile(
      path,
      Buffer.concat([Buffer.from(MAGIC), bytes, bytesOf(Uint32Array.of(bytes.length)), Buffer.from(MAGIC)]),
    );
    await expect(openFeatures(path)).rejects.toThrow(message);
    await writeFile(path, Buffer.concat([Buffer.from(MAGIC), bytes, bytesOf(Uint32Array.of(1e9)), Buffer.from(MAGIC)]));
    await expect(openFeatures(path)).rejects.toThrow("states an index of 1000000000 bytes");
  });

  it("stands there whole or not at all", async () => {
    const writer = await FeatureWriter.create(path);
    await writer.json("words", []);
    await writer.abandon();
    expect(await readdir(folder)).toEqual([path.slice(folder.length + 1)]);
    expect((await withReader((reader) => reader.latent(1))).latent).toBe(1);
    await expect(FeatureWriter.create(join(folder, "none", "x"))).rejects.toThrow(/x: cannot be written/);
  });
});

describe("the page of a features file", () => {
  it("holds every chunk, and no markup from what it shows", async () => {
    const assets = new URL(`file://${folder}/`);
    await writeFile(new URL("static.js", assets), "start();\n");
    await writeFile(new URL("static.css", assets), "p { color: red }\n");
    const file = await openFeatures(path);
    const out = join(folder, "a.html");
    await writeHtml(file, out, { assets });
    await file.close();
    const html = await readFile(out, "utf8");
    expect(html).toContain(
      "<title>Features of runs/&#60;b&#62;&#34;a&#34;&#38;&#39;b&#39;&#60;/b&#62;&#60;/title&#62;&#60;script&#62;alert(1)&#60;/script&#62;</title>",
    );
    // What is in angle brackets or in quotes is ours.
    expect(html.match(/<script/g)).toHaveLength(Object.keys(file.index.chunks).length + 2);
    expect(html).toMatch(
      /content="default-src 'none'; script-src 'sha256-[A-Za-z0-9+/]{43}='; style-src 'sha256-[A-Za-z0-9+/]{43}='; img-src data:;/,
    );
    for (const name of Object.keys(file.index.chunks))
      expect(html).toMatch(new RegExp(`<script type="text/plain" id="${name}">[A-Za-z0-9+/]+=*</script>`));
    expect(html).not.toMatch(/https?:/);
    await writeFile(new URL("static.js", assets), 'const a = "</script>";');
    const again = await openFeatures(path);
    await expect(writeHtml(again, out, { assets })).rejects.toThrow("cannot stand in a page");
    await again.close();
    await writeFile(new URL("static.js", assets), "start();\n");
    await rm(new URL("static.css", assets));
    await expect(writeHtml(again, out, { assets })).rejects.toThrow(
      /static\.css: a part of Saetta is missing; npm run build/,
    );
  });
});

describe("explorerApi", () => {
  const inRun = (run: string) => featuresFile(run);
  beforeEach(async () => {
    await mkdir(join(folder, FEATURES));
    await copyFile(path, inRun(folder));
  });

  it("answers with the summary, a page of latents and one latent", async () => {
    await using api = explorerApi();
    const get = (parts: readonly string[], query = "") => api.answer(folder, parts, new URLSearchParams(query));
    expect(await get(["summary"])).toEqual(SUMMARY);
    expect(await get(["latents"], "search=word6&sort=density&order=down&offset=1&count=2")).toMatchObject({
      total: 6,
      rows: [{ latent: 63 }, { latent: 62 }],
    });
    expect(await get(["latents"])).toEqual({ total: LATENTS, rows: [] });
    expect(await get(["latents"], "count=100000&sort=latent&order=up")).toMatchObject({ total: LATENTS });
    expect(await get(["latents", "40"])).toMatchObject({ latent: 40, strongest: [{ row: 140 }] });
    for (const parts of [
      [],
      [""],
      [".."],
      ["summary", "1"],
      ["latents", ".."],
      ["latents", "-1"],
      ["latents", "1e1"],
      ["latents", ""],
      ["latents", "1", "2"],
      ["latents", "65"],
    ]) {
      expect(await get(parts), parts.join("/")).toBeUndefined();
    }
    expect(await api.answer(join(folder, "none"), ["summary"], new URLSearchParams())).toBeUndefined();
  });

  it("follows a file that is made anew, and says when it is damaged", async () => {
    await using api = explorerApi();
    const get = (...parts: string[]) => api.answer(folder, parts, new URLSearchParams());
    expect(await Promise.all([get("summary"), get("latents", "1"), get("summary")])).toMatchObject([
      SUMMARY,
      { latent: 1 },
      SUMMARY,
    ]);
    const writer = await FeatureWriter.create(inRun(folder));
    await writer.finish({ ...SUMMARY, title: "another" });
    expect(await get("summary")).toMatchObject({ title: "another" });
    await expect(get("latents", "1")).rejects.toThrow('has no chunk "table"');
    await writeFile(inRun(folder), "not this");
    await expect(get("summary")).rejects.toThrow("this is no whole features file; make it again with saetta report");
    await rm(inRun(folder));
    expect(await get("summary")).toBeUndefined();
  });

  it("keeps few files open", async () => {
    await using api = explorerApi();
    const open = () => readdirSync("/proc/self/fd").length;
    const before = open();
    for (let i = 0; i < 30; i++) {
      const run = join(folder, `run-${i}`);
      await mkdir(join(run, FEATURES), { recursive: true });
      await copyFile(path, inRun(run));
      expect(await api.answer(run, ["summary"], new URLSearchParams())).toEqual(SUMMARY);
    }
    expect(open() - before).toBeLessThan(15);
  });
});
