/**
 * Torch files with some bytes changed at random: each is read, or refused in one line, soon.
 * SAETTA_FUZZ=20000 tries more than the 150 of an ordinary run; a failure says the seed that makes
 * its file again.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { parsePickle } from "../../src/formats/torch-pickle.ts";
import { readZip } from "../../src/formats/zip.ts";
import { SaettaError } from "../../src/util/errors.ts";
import { Rng } from "../../src/util/rng.ts";
import { readTensors, readWeights } from "../fuzz/formats/torch.ts";
import { zip } from "./torch-files.ts";

const TRIES = Number(process.env.SAETTA_FUZZ ?? 150);
/** No file here has more than some kilobytes. */
const SLOW_S = 2;

const fixture = (path: string) => readFileSync(new URL(path, import.meta.url));
const FILES = [
  fixture("../../src/formats/fixtures/torch-types.pt"),
  fixture("../interchange/fixtures/openai.pt"),
  fixture("../interchange/fixtures/openai-views.pt"),
  fixture("../interchange/fixtures/dictionary_learning/ae.pt"),
  fixture("../interchange/fixtures/dictionary_learning-matryoshka/ae.pt"),
  fixture("../interchange/fixtures/dictionary_learning-jumprelu/ae.pt"),
];

const folder = mkdtempSync(join(tmpdir(), "saetta-fuzz-"));
const path = join(folder, "a.pt");
afterAll(() => rmSync(folder, { recursive: true }));

/** One to four changes: bytes replaced, removed, repeated or put in. */
function mutated(bytes: Uint8Array, rng: Rng): Buffer {
  let out = Buffer.from(bytes);
  for (let changes = 1 + rng.below(4); changes > 0 && out.length > 0; changes--) {
    const at = rng.below(out.length);
    const length = Math.min(out.length - at, 1 + rng.below(rng.below(4) === 0 ? 64 : 4));
    const kind = rng.below(6);
    if (kind === 0) out[at] = out[at]! ^ (1 << rng.below(8));
    else if (kind === 1) out[at] = rng.below(256);
    else if (kind === 2) out.fill([0, 0xff, 0x7f, 0x80][rng.below(4)]!, at, at + length);
    else if (kind === 3) out = Buffer.concat([out.subarray(0, at), out.subarray(at + length)]);
    else if (kind === 4) out = Buffer.concat([out.subarray(0, at + length), out.subarray(at)]);
    else
      out = Buffer.concat([
        out.subarray(0, at),
        out.subarray(rng.below(out.length)).subarray(0, length),
        out.subarray(at),
      ]);
  }
  return out;
}

/** Runs what must end in a value or a one-line error, with little time of the processor. */
async function survives(seed: number, what: () => unknown): Promise<"read" | "refused"> {
  const before = process.cpuUsage();
  try {
    await what();
    return "read";
  } catch (thrown) {
    if (!(thrown instanceof SaettaError)) throw new Error(`seed ${seed}`, { cause: thrown });
    expect(thrown.message, `seed ${seed}`).not.toMatch(/\n/);
    return "refused";
  } finally {
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1e6, `seconds of seed ${seed}`).toBeLessThan(SLOW_S);
  }
}

it(`${TRIES} changed archives`, { timeout: 0 }, async () => {
  const ends = { read: 0, refused: 0 };
  for (let seed = 0; seed < TRIES; seed++) {
    const rng = new Rng(1, seed);
    writeFileSync(path, mutated(FILES[seed % FILES.length]!, rng));
    ends[await survives(seed, () => readTensors(path))]++;
  }
  expect(Math.min(ends.read, ends.refused)).toBeGreaterThan(0);
});

/** The entries of each archive. */
async function entriesOfAll(): Promise<{ name: string; data: Buffer }[][]> {
  const all = [];
  for (const bytes of FILES) {
    writeFileSync(path, bytes);
    const handle = await open(path);
    const entries = await readZip(handle, bytes.byteLength, path);
    await handle.close();
    all.push(
      [...entries.values()].map(({ name, begin, end }) => ({ name, data: Buffer.from(bytes.subarray(begin, end)) })),
    );
  }
  return all;
}

it(`${TRIES} changed pickles in archives that are right`, { timeout: 0 }, async () => {
  const archives = await entriesOfAll();
  const ends = { read: 0, refused: 0 };
  for (let seed = 0; seed < TRIES; seed++) {
    const rng = new Rng(2, seed);
    const entries = archives[seed % FILES.length]!.map(({ name, data }) => ({
      name,
      data: name.endsWith("data.pkl") ? mutated(data, rng) : data,
    }));
    writeFileSync(path, zip(entries));
    ends[await survives(seed, () => (seed % 2 === 0 ? readTensors(path) : readWeights(path)))]++;
  }
  expect(Math.min(ends.read, ends.refused)).toBeGreaterThan(0);
});

it(`${4 * TRIES} changed pickles`, { timeout: 0 }, async () => {
  const pickles = (await entriesOfAll()).map((entries) => entries.find(({ name }) => name.endsWith("data.pkl"))!.data);
  const ends = { read: 0, refused: 0 };
  for (let seed = 0; seed < 4 * TRIES; seed++) {
    const rng = new Rng(3, seed);
    const bytes = mutated(pickles[seed % pickles.length]!, rng);
    ends[await survives(seed, () => parsePickle(bytes, "a.pt"))]++;
  }
  expect(Math.min(ends.read, ends.refused)).toBeGreaterThan(0);
});
