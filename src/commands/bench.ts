import type { Command } from "commander";
import { stepText, syntheticText } from "../bench/print.ts";
import { timeStep } from "../bench/step.ts";
import { benchSynthetic, DICTIONARY } from "../bench/synthetic.ts";
import type { TrainOptions } from "../config.ts";
import type { Report } from "../run-files/metrics.ts";
import { snakeCase } from "../util/json.ts";
import { createProgressLine } from "../util/progress.ts";
import { type BenchFlags, checkPlace, defineBench, STEP } from "./bench-flags.ts";
import { givenOptions } from "./flags.ts";
import { note } from "./note.ts";
import { catchSignals } from "./signals.ts";

export function benchCommand(program: Command): void {
  const command = defineBench(program);
  command.action(async (flags: BenchFlags) => {
    checkPlace(command, flags.synthetic === true);
    const asked = givenOptions(command);
    const found = await (flags.synthetic ? synthetic(flags, asked) : timing(flags, asked));
    process.stdout.write(`${flags.json ? JSON.stringify(snakeCase(found.result)) : found.text}\n`);
  });
}

async function timing(flags: BenchFlags, asked: TrainOptions) {
  const { latents: n, k, auxk, batch } = { ...STEP, ...asked };
  const sizes = { d: flags.width ?? STEP.width, n, k, auxk: Math.min(auxk, n) };
  const { engine, threads, dtype } = asked;
  const result = await timeStep({ sizes, batch, seconds: flags.seconds, engine, threads, dtype, onNote: note });
  return { result, text: `${result.engine}\n${stepText(result)}` };
}

async function synthetic(
  { width, directions, active, amplitude, noise, together, hierarchy, rows }: BenchFlags,
  asked: TrainOptions,
) {
  const { seed = DICTIONARY.seed, ...training } = asked;
  const sizes = { directions, width: width ?? DICTIONARY.width, children: hierarchy ?? 0 };
  const dictionary = { ...sizes, active, amplitude, noise, together, rows, seed };
  const ending = catchSignals("finishing the step; what was found so far follows");
  const progress = createProgressLine({ label: "train", total: rows, unit: "rows" });
  try {
    const onReport = ({ tokens, fvu, dead }: Report) =>
      progress.update(tokens, `FVU ${fvu.toPrecision(3)}, ${dead} dead`);
    const result = await benchSynthetic({ dictionary, training, signal: ending.signal, onNote: note, onReport });
    progress.done();
    process.exitCode = ending.exitCode();
    return { result, text: syntheticText(result) };
  } finally {
    ending.close();
  }
}
