/**
 * ONNX models as ONNX Runtime takes them after the graph was cut: what it makes of a file that our
 * own parser accepts.
 */

import { readFile } from "node:fs/promises";
import { checkExternalData } from "../../../src/language-model/external-data.ts";
import { cutAt, parseOnnx, tensorNames } from "../../../src/language-model/onnx-graph.ts";
import { openSession } from "../../../src/language-model/session.ts";
import type { FuzzFormat } from "../format.ts";
import { onnx } from "./onnx.ts";

export const onnxRuntime: FuzzFormat = {
  ...onnx,
  name: "onnx-runtime",
  // "branches" takes no token ids: ONNX Runtime accepts it, and then we do not.
  samples: async () =>
    (await onnx.samples()).map((sample) => ({
      ...sample,
      refused: !["layers", "weights elsewhere"].includes(sample.name),
    })),
  async read(path) {
    const parsed = parseOnnx(await readFile(path), path);
    await checkExternalData(parsed.initializers.values(), path);
    const session = await openSession(cutAt(parsed, tensorNames(parsed)), path, 1);
    try {
      const floats = session.outputs
        .filter(({ type }) => type === "float32" || type === "float16")
        .map(({ name }) => name);
      await session.run(new Int32Array(6), 2, floats);
    } finally {
      await session.close();
    }
  },
};
