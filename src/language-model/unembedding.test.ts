import { describe, expect, it } from "vitest";
import { decodeFloat16 } from "../util/float16.ts";
import { Rng } from "../util/rng.ts";
import { loadModel } from "./load.ts";
import type { Initializer } from "./onnx-graph.ts";
import { fieldsOf } from "./protobuf.ts";
import { endOfResidual, openUnembedding } from "./unembedding.ts";

const WIDTH = 256;
const TOKENS = 8192;

/**
 * The values of a weight as stored: float16 where its name says so (TensorProto.raw_data is field
 * 9).
 */
function valuesOf({ name, raw }: Initializer): Float32Array {
  for (const outer of fieldsOf({ file: "test", at: 0, bytes: raw })) {
    for (const { number, body } of fieldsOf(outer.body)) {
      if (number !== 9) continue;
      const { buffer } = Uint8Array.from(body.bytes);
      return name.endsWith("_f16") ? decodeFloat16(new Uint16Array(buffer)) : new Float32Array(buffer);
    }
  }
  throw new Error(`no data in ${name}`);
}

describe("the end of the example model", () => {
  it("starts where the last block ends", async () => {
    const { graph } = await loadModel("examples/brown-gpt");
    expect(endOfResidual(graph)).toBe("/transformer/h.5/Add_1_output_0");
  });

  it("gives the effects of directions that its weights give", async () => {
    const model = await loadModel("examples/brown-gpt");
    const gain = valuesOf(model.graph.initializers.get("transformer.ln_f.weight")!);
    const unembedding = valuesOf(model.graph.initializers.get("transformer.wte.weight_f16")!); // tied, [tokens, width]
    const rng = new Rng(4);
    const directions = Float32Array.from({ length: 3 * WIDTH }, () => rng.normal());
    for (let i = 0; i < WIDTH; i++) directions[2 * WIDTH + i] = 1000 * directions[i];

    await using end = await openUnembedding(model, 1);
    expect([end.width, end.tokens]).toEqual([WIDTH, TOKENS]);
    const effects = await end.effects(directions);
    for (let row = 0; row < 2; row++) {
      const v = directions.subarray(row * WIDTH, (row + 1) * WIDTH);
      const mean = v.reduce((sum, each) => sum + each, 0) / WIDTH;
      const size = Math.sqrt(v.reduce((sum, each) => sum + (each - mean) ** 2, 0) / WIDTH + 1e-5);
      for (const token of [0, 1, 257, 4000, TOKENS - 1]) {
        let expected = 0;
        for (let i = 0; i < WIDTH; i++) {
          expected += ((v[i] - mean) / size) * gain[i] * unembedding[token * WIDTH + i];
        }
        expect(Math.abs(effects[row * TOKENS + token] - expected)).toBeLessThan(2e-4 * Math.max(1, Math.abs(expected)));
      }
    }
    // The size of a direction does not matter.
    for (let token = 0; token < TOKENS; token += 101)
      expect(effects[2 * TOKENS + token]).toBeCloseTo(effects[token], 3);
  });
});
