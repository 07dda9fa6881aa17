import type { Command } from "commander";
import { harvest } from "../harvest/harvest.ts";
import { loadModel } from "../language-model/load.ts";
import { listTensors } from "../language-model/tensors.ts";
import { UsageError } from "../util/errors.ts";
import { parseCount } from "../util/numbers.ts";
import { createProgressLine, formatCount, formatDuration, type ProgressLine } from "../util/progress.ts";
import { choice } from "./flags.ts";
import { note } from "./note.ts";
import { catchSignals, endStopped } from "./signals.ts";

interface Flags {
  readonly model: string;
  readonly text?: string;
  readonly tensor?: readonly string[];
  readonly out?: readonly string[];
  readonly tokens?: number;
  readonly context?: number;
  readonly dtype: "f16" | "f32";
  readonly listTensors?: boolean;
  readonly json?: boolean;
}

export function harvestCommand(program: Command): void {
  program
    .command("harvest")
    .description("text and an ONNX language model in, a file of activations out")
    .requiredOption(
      "--model <path>",
      "a .onnx file with tokenizer.json beside it, or a folder with model.onnx and tokenizer.json",
    )
    .option(
      "--text <file>",
      'UTF-8 text, documents separated by blank lines; or .jsonl with a "text" a line; either may be .gz',
    )
    .option(
      "--tensor <name>",
      "the tensor [batch, sequence, width] inside the model to harvest; several: --tensor A --tensor B",
      appended,
    )
    .option(
      "--out <path>",
      "the HDF5 file to write, one per tensor in the same order; or a folder, with files named after the tensors",
      appended,
    )
    .option("--tokens <n>", "how many tokens, rounded up to whole contexts (default: all)", (text) =>
      parseCount(text, "--tokens"),
    )
    .option("--context <n>", "tokens a context (default: the model's maximum, at most 1024)", (text) =>
      parseCount(text, "--context", 2),
    )
    .addOption(choice("--dtype <dtype>", "how values are stored", ["f16", "f32"]).default("f16"))
    .option("--list-tensors", "print the tensors of the model that can be harvested, and stop")
    .option("--json", "print the result as JSON")
    .addHelpText(
      "after",
      "\nExamples:\n  saetta harvest --model gpt2 --text my.txt --tensor NAME --out acts.h5\n" +
        "  saetta harvest --model gpt2 --text my.txt --tensor A --tensor B --out a.h5 --out b.h5\n",
    )
    .action((flags: Flags) => (flags.listTensors ? list(flags) : run(flags)));
}

function appended(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

async function list({ model, json }: Flags): Promise<void> {
  const tensors = await listTensors((await loadModel(model)).graph);
  const lines = tensors.map(
    (it) => `[${it.shape.join(", ")}]`.padEnd(26) + (it.residual ? "residual  " : "").padEnd(10) + it.name,
  );
  process.stdout.write(json ? `${JSON.stringify(tensors)}\n` : `${lines.join("\n")}\n`);
}

async function run({ text, tensor, out, json, ...flags }: Flags): Promise<void> {
  if (text === undefined || tensor === undefined || out === undefined) {
    const missing = Object.entries({ text, tensor, out }).filter(([, value]) => value === undefined);
    throw new UsageError(`harvest also needs ${missing.map(([name]) => `--${name}`).join(", ")}`, {
      mend: "see saetta harvest --help",
    });
  }
  const ending = catchSignals("stopping; nothing is kept");
  let shown: { readonly stage: string; readonly line: ProgressLine } | undefined;
  try {
    const result = await harvest({
      ...flags,
      text,
      tensor,
      out,
      signal: ending.signal,
      onNote: note,
      onProgress: ({ stage, done, total }) => {
        if (shown?.stage !== stage) {
          shown?.line.done();
          shown = { stage, line: createProgressLine({ label: stage, total, unit: "tokens" }) };
        }
        shown.line.update(done);
      },
    }).finally(() => shown?.line.done());
    const { rows, files, seconds, sequences, context } = result;
    const speed = `${formatDuration(seconds)} (${formatCount(rows / seconds)} tokens/s)`;
    const widths = files.map(({ width }) => width).join(" and ");
    const names = files.map((file) => file.out).join(", ");
    const line = `harvested    ${formatCount(rows)} rows of width ${widths}, ${sequences} contexts of ${context}, in ${speed}: ${names}`;
    process.stdout.write(`${json ? JSON.stringify(result) : line}\n`);
  } catch (thrown) {
    endStopped(ending, thrown);
  } finally {
    ending.close();
  }
}
