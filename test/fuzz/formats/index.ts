/** The formats that are fuzzed. */

import type { FuzzFormat } from "../format.ts";
import { arrow } from "./arrow.ts";
import { hdf5 } from "./hdf5.ts";
import { json } from "./json.ts";
import { metrics } from "./metrics.ts";
import { npy } from "./npy.ts";
import { npz } from "./npz.ts";
import { onnx } from "./onnx.ts";
import { onnxRuntime } from "./onnx-runtime.ts";
import { sae } from "./sae.ts";
import { safetensors } from "./safetensors.ts";
import { selfTest } from "./self-test.ts";
import { text } from "./text.ts";
import { tokenizer } from "./tokenizer.ts";
import { torch } from "./torch.ts";

export const FORMATS: readonly FuzzFormat[] = [
  safetensors,
  npy,
  npz,
  hdf5,
  arrow,
  onnx,
  onnxRuntime,
  tokenizer,
  torch,
  text,
  metrics,
  ...json,
  ...sae,
];

export function formatNamed(name: string): FuzzFormat {
  const found = [...FORMATS, selfTest].find((format) => format.name === name);
  if (found === undefined)
    throw new Error(`no format ${name}; there are ${FORMATS.map((format) => format.name).join(", ")}`);
  return found;
}
