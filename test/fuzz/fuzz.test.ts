import { execFile } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, describe, expect, it } from "vitest";
import { SaettaError } from "../../src/util/errors.ts";
import { FORMATS } from "./formats/index.ts";

const folder = mkdtempSync(join(tmpdir(), "saetta-fuzz-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe.each(FORMATS)("the samples of $name", (format) => {
  it("are read, or refused where they must be", async () => {
    for (const [i, { name, file, bytes, beside = {}, refused = false }] of (await format.samples()).entries()) {
      const place = join(folder, `${format.name}-${i}`);
      mkdirSync(place);
      for (const [other, content] of Object.entries(beside)) writeFileSync(join(place, other), content);
      writeFileSync(join(place, file), bytes);
      const thrown = await format.read(join(place, file)).catch((error: unknown) => error);
      if (thrown !== undefined && !(thrown instanceof SaettaError)) throw thrown;
      expect([name, thrown instanceof SaettaError ? thrown.message : "read"]).toEqual([
        name,
        refused ? expect.stringContaining(place) : "read",
      ]);
      expect(format.boundaries(bytes).every((at) => Number.isInteger(at) && at >= 0 && at <= bytes.length)).toBe(true);
    }
  });
});

/** Runs test/fuzz/main.ts in a process; its lines. */
async function fuzzed(format: string, count: number, seconds = 2): Promise<string[]> {
  const args = ["scripts/fuzz.mjs", "--format", format, "--count", String(count), "--seconds", String(seconds)];
  const { stdout } = await promisify(execFile)(process.execPath, args).catch((failed: { stdout: string }) => failed);
  return stdout.trimEnd().split("\n");
}

describe("the fuzzer", () => {
  it("sees every way to fail, and goes on", async () => {
    const lines = (await fuzzed("self-test", 12, 1)).filter((line) => line.startsWith("self-test"));
    expect(lines.map((line) => line.slice(0, 60))).toEqual([
      expect.stringMatching(/seed 2: threw TypeError: raw/),
      expect.stringMatching(/seed 3: an error that does not name the file/),
      expect.stringMatching(/seed 4: an error that is not for a terminal/),
      expect.stringMatching(/seed 5: the process ended with SIGSEGV/),
      expect.stringMatching(/seed 6: hangs/),
      expect.stringMatching(/seed 7: took \d\.\d s/),
      expect.stringMatching(/seed 8: took (\d\.\d s and )?\d+ MiB/),
      expect.stringMatching(/seed 9: the process ended with code 3/),
      expect.stringMatching(/seed 10: rejected and nobody waited: TypeError/),
      expect.stringMatching(/12 mutations from seed 0, 9 failures, 3 acc/),
    ]);
  });

  it("finds nothing in some hundreds of mutations of every format", async () => {
    const quick = FORMATS.map(({ name }) => name).filter((name) => name !== "hdf5");
    const lines = [...(await fuzzed(quick.join(","), 250)), ...(await fuzzed("hdf5", 100))];
    expect(lines.filter((line) => !/ mutations from seed 0, 0 failures, /.test(line))).toEqual([]);
    expect(lines).toHaveLength(FORMATS.length);
  });
});
