import { tmpdir } from "node:os";
import { describe, expect, it, vi } from "vitest";
import { whyNoCpu } from "../support/engines.ts";
import { start } from "./saetta.ts";

const bench = (...args: string[]) => start(tmpdir(), "bench", ...args).ended;

describe("saetta bench", () => {
  it("trains on a synthetic dictionary and tells how much of it was found", async () => {
    const size =
      "--directions 16 --width 12 --active 2 --rows 2k --latents 32 --k 2 --batch 100 --engine reference".split(" ");
    const { code, out, err } = await bench(
      "--synthetic",
      ...size,
      "--amplitude",
      "1..2",
      "--together",
      "0.5",
      "--json",
    );
    expect(err).toBe("");
    expect(code).toBe(0);
    const { dictionary, training, rows, recovery } = JSON.parse(out);
    expect(dictionary).toMatchObject({
      directions: 16,
      width: 12,
      active: 2,
      amplitude: [1, 2],
      together: 0.5,
      noise: 0.02,
    });
    expect(training).toMatchObject({ latents: 32, k: 2, batch: 100, lr: 1e-3, auxk: 0 });
    expect(rows).toBe(2000);
    expect(recovery.mean_max_cosine).toBeGreaterThan(0.4);
    expect(recovery.above.map(({ cosine }: { cosine: number }) => cosine)).toEqual([0.9, 0.95, 0.99]);
  });

  it("times a step", async () => {
    const { code, out } = await bench(
      ..."--latents 32 --width 8 --k 2 --auxk 0 --batch 16 --seconds 0.01 --engine reference".split(" "),
    );
    expect(code).toBe(0);
    expect(out).toMatch(/d 8, n 32, k 2, auxk 0, batch 16: [\d.]+ ms a step, [\d,]+ rows\/s/);
  });

  it.skipIf(whyNoCpu() !== undefined).each(["cpu", "auto"])(
    "refuses bf16 where there is none, with --engine %s",
    async (engine) => {
      vi.stubEnv("SAETTA_CPU", "portable");
      const { code, out, err } = await bench("--dtype", "bf16", "--engine", engine, "--seconds", "0.01");
      vi.unstubAllEnvs();
      expect({ code, out }).toEqual({ code: 2, out: "" });
      expect(err).toMatch(/^saetta: .*portable has no product in bf16; .*\n$/);
    },
  );

  it.each([
    [["--noise", "0.1"], "--noise means nothing without --synthetic"],
    [["--synthetic", "--seconds", "1"], "--seconds means nothing with --synthetic"],
    [
      ["--synthetic", "--amplitude", "1..x"],
      '--amplitude must be a range of numbers from 0 up, such as 0.5..1.5, but is "1..x"',
    ],
    [
      ["--synthetic", "--amplitude", "1..2..3"],
      '--amplitude must be a range of numbers from 0 up, such as 0.5..1.5, but is "1..2..3"',
    ],
    [["--synthetic", "--together", "2"], '--together must be a number from 0 to 1, but is "2"'],
    [["--seconds", "0"], '--seconds must be a number above 0 and of at most 86400, but is "0"'],
    [["--synthetic", "--active", "200"], "200 active directions a row are more than half of 256"],
    [["--latents", "4"], "--k 32 is more than the 4 latents"],
  ])("refuses %j", async (args, message) => {
    const { code, out, err } = await bench(...args);
    expect(err).toContain(message);
    expect(err.trim().split("\n").length).toBe(1);
    expect({ code, out }).toEqual({ code: 2, out: "" });
  });
});
