import { describe, expect, it } from "vitest";
import type { Sae } from "../inference/sae.ts";
import { float32Of } from "../util/bytes.ts";
import { type DictionaryOptions, syntheticDictionary } from "./dictionary.ts";
import { firingMatch } from "./firing-match.ts";

const OPTIONS: DictionaryOptions = {
  ...{ directions: 32, width: 40, active: 2, amplitude: [1, 1], noise: 0, together: 0 },
  ...{ children: 3, rows: 20_000, seed: 3 },
};

describe("families of directions", () => {
  const source = syntheticDictionary(OPTIONS);

  it("a child is on only with its parent, one at most, in 7 of 10 rows; families follow Zipf", () => {
    const often = new Float64Array(8);
    let children = 0;
    for (let row = 0; row < 4000; row++) {
      const on = source.onIn(row);
      const parents = on.filter((each) => each % 4 === 0);
      expect(parents.length).toBe(2);
      for (const parent of parents) often[parent / 4]!++;
      const own = on.filter((each) => each % 4 !== 0);
      children += own.length;
      expect(new Set(own.map((child) => child - (child % 4))).size).toBe(own.length);
      for (const child of own) expect(parents).toContain(child - (child % 4));
    }
    expect(Math.abs(children / 8000 - 0.7)).toBeLessThan(0.02);
    // Drawn without replacement: the first is on in most rows, the last seldom, in order.
    for (let family = 1; family < 8; family++) expect(often[family]!).toBeLessThan(often[family - 1]!);
    expect(often[0]! / often[7]!).toBeGreaterThan(4);
  });

  it("rows are the sums of what is on", async () => {
    const raw = new Uint8Array(4 * 40 * 5);
    await source.read(7, 5, raw);
    const values = float32Of(raw);
    for (let row = 0; row < 5; row++) {
      for (let i = 0; i < 40; i++) {
        const sum = source.onIn(7 + row).reduce((all, direction) => all + source.truth[direction * 40 + i]!, 0);
        expect(values[row * 40 + i]).toBeCloseTo(sum, 5);
      }
    }
  });

  it("are whole, and exclude partners", () => {
    expect(() => syntheticDictionary({ ...OPTIONS, directions: 33 })).toThrow("33 directions are no whole families");
    expect(() => syntheticDictionary({ ...OPTIONS, together: 0.5 })).toThrow("exclude each other");
    expect(() => syntheticDictionary({ ...OPTIONS, active: 5 })).toThrow("more than half");
  });
});

describe("firings", () => {
  const source = syntheticDictionary(OPTIONS);
  /** One latent per direction, which fires on exactly the rows that `fires` says. */
  const saeOf = (fires: (direction: number, row: number) => boolean): Sae => {
    let at = 0;
    return {
      encodeRaw: async (_: Uint8Array, __: string, rows: number) => {
        const latent = new Uint32Array(rows * 32);
        const value = new Float32Array(rows * 32);
        for (let row = 0; row < rows; row++, at++)
          for (let j = 0; j < 32; j++) {
            latent[row * 32 + j] = j;
            value[row * 32 + j] = fires(j, at) ? 1 : 0;
          }
        return { k: 32, latent, value };
      },
    } as unknown as Sae;
  };
  const measure = (sae: Sae) => firingMatch(sae, source, source.truth, { first: 0, count: 3000, children: 3 });

  it("of an autoencoder that knows the truth have F1 1", async () => {
    const found = await measure(saeOf((direction, row) => source.onIn(row).includes(direction)));
    expect(found).toMatchObject({ rows: 3000, f1: 1, parentF1: 1, childF1: 1, parentsFound: 1 });
  });

  it("of parents that a child absorbs are not found", async () => {
    const found = await measure(
      saeOf((direction, row) => {
        const on = source.onIn(row);
        if (!on.includes(direction)) return false;
        return direction % 4 !== 0 || !on.some((each) => each > direction && each < direction + 4);
      }),
    );
    expect(found.childF1).toBe(1);
    // A parent fires in 3 of 10 of its rows: precision 1, recall 0.3.
    expect(found.parentF1).toBeCloseTo((2 * 0.3) / 1.3, 1);
    expect(found.parentsFound).toBe(0);
  });
});
