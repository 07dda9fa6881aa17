import type { TrainOptions } from "../config.ts";
import type { Engine } from "../engine/engine.ts";
import { selectEngine } from "../engine/select.ts";
import { note } from "./note.ts";

/** What is said of --dtype by commands that train nothing. */
export const INFERENCE_DTYPE = "f32, or what gives the same codes";

/** The engine of a command that encodes rows and trains nothing. */
export function inferenceEngine({ engine = "auto", dtype, threads }: TrainOptions): Promise<Engine> {
  return selectEngine(engine, { dtype, threads, inference: true, onNote: note });
}
