import { afterEach, expect, it } from "vitest";
import { described, newParams } from "../../test/topk.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { type Sae, saeOver } from "../inference/sae.ts";
import { bytesOf } from "../util/bytes.ts";
import { Rng } from "../util/rng.ts";
import { nearestLatents } from "./nearest.ts";

const D = 3;
const engine = createReferenceEngine();
let sae: Sae | undefined;
afterEach(() => sae?.close());

/** An autoencoder with these decoder rows. */
async function saeOf(decoder: Float64Array): Promise<Sae> {
  const shape = { d: D, n: decoder.length / D, k: 2, auxk: 0 };
  const params = newParams(engine, shape);
  engine.write(params.decoder, bytesOf(decoder));
  const found = {
    path: undefined,
    description: { ...described(shape), saetta: undefined },
    weights: "raw",
    step: undefined,
    refusals: [],
  } as const;
  sae = await saeOver(found, engine, params, async () => undefined);
  return sae;
}

it("finds the largest cosines of decoder rows of any size, in more than one block", async () => {
  const n = 2100;
  const rng = new Rng(1);
  const decoder = Float64Array.from({ length: n * D }, () => rng.normal());
  for (let j = 0; j < n; j++) for (let i = 0; i < D; i++) decoder[j * D + i] *= 1 + (j % 5);
  const done: number[] = [];
  const { count, latent, cosine } = await nearestLatents(await saeOf(decoder), 3, (rows) => done.push(rows));
  expect(done).toEqual([2048, 2100]);
  const row = (j: number) => decoder.subarray(j * D, (j + 1) * D);
  const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, each, i) => sum + each * b[i], 0);
  const cosineOf = (a: number, b: number) => dot(row(a), row(b)) / Math.sqrt(dot(row(a), row(a)) * dot(row(b), row(b)));
  for (const j of [0, 1, 777, 2047, 2048, 2099]) {
    const others = Array.from({ length: n }, (_, other) => other).filter((other) => other !== j);
    const expected = others.sort((a, b) => cosineOf(j, b) - cosineOf(j, a)).slice(0, count);
    expect([...latent.subarray(j * count, (j + 1) * count)]).toEqual(expected);
    for (const [i, other] of expected.entries()) expect(cosine[j * count + i]).toBeCloseTo(cosineOf(j, other), 6);
  }
});

it("leaves places unused where too few rows point the same way, and knows a row's double", async () => {
  const decoder = Float64Array.from([1, 0, 0, 3, 0, 0, -1, 0, 0, 0, 0, 0]);
  const { latent, cosine } = await nearestLatents(await saeOf(decoder), 3);
  expect([...latent.subarray(0, 1), ...latent.subarray(3, 4)]).toEqual([1, 0]);
  expect([...cosine]).toEqual([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
});
