import type { Command } from "commander";
import { pageOf } from "../features/print.ts";
import { UsageError } from "../util/errors.ts";
import { snakeCase } from "../util/json.ts";
import { mustBe } from "../util/must.ts";
import { parseCount } from "../util/numbers.ts";
import { LOSS_TOKENS } from "./eval-loss.ts";
import { type EvalFlags, judgeAll } from "./eval-run.ts";
import { judgedCsv, markdown, resultText } from "./eval-text.ts";
import { addFlags, DATA_FLAGS, givenOptions, selectedPath, selectFlag, weightsFlag } from "./flags.ts";
import { INFERENCE_DTYPE, inferenceEngine } from "./inference-engine.ts";

interface Flags extends EvalFlags {
  readonly json?: boolean;
  readonly markdown?: boolean;
  readonly csv?: boolean;
  readonly select?: string;
}

export function evalCommand(program: Command): void {
  const command = program
    .command("eval")
    .description("measure autoencoders on held-out rows, show latents in their text, and what the language model loses")
    .argument("<sae>", "run folder, checkpoint folder, a sweep's folder, or a folder or file of another program")
    .argument(
      "[more...]",
      "more autoencoders, to compare; files or folders of activations (default: the hold-out of the runs)",
    )
    .option("--features <N>", "show N latents in their text (default: 0)", (text) => parseCount(text, "--features", 0))
    .option(
      "--tokenizer <path>",
      "tokenizer.json to show them and to read --text with (default: the activations' own; for --text the model's)",
    )
    .addOption(weightsFlag())
    .addOption(selectFlag())
    .option("--max-rows <N>", "look at no more than N rows, evenly spread", (text) => parseCount(text, "--max-rows"))
    .option("--data <files...>", "where the data of the runs is now, if it was moved; its hold-out is used")
    .option(
      "--loss",
      "also what the language model loses with the reconstruction in its tensor's place; the next three and latents in --ablate imply it",
    )
    .option("--model <path>", "the ONNX model (default: the one that the activations were made with)")
    .option("--tensor <name>", "the tensor in it (default: the one that the activations are of)")
    .option("--text <file>", "held-out text to run it on (default: the contexts of the held-out rows)")
    .option("--loss-tokens <N>", `run it on about N tokens at most (default: ${LOSS_TOKENS})`, (text) =>
      parseCount(text, "--loss-tokens"),
    )
    .option(
      "--ablate <rows>",
      "rows that zeros and the mean replace: all, or only spliced ones (default: all); or latents, such as 12,99: the loss without each of them",
      ablateOf,
    )
    .option("--markdown", "print a table in Markdown")
    .option("--csv", "print every number as comma-separated values")
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExamples:\n  saetta eval runs/first --features 5\n  saetta eval runs/a runs/b --loss --markdown\n  saetta eval runs/first --ablate 12,99 --text held-out.txt\n",
    );
  addFlags(command, DATA_FLAGS, { dtype: INFERENCE_DTYPE });
  command.action(async (path: string, more: readonly string[], flags: Flags) => {
    const asked = givenOptions(command);
    await using engine = await inferenceEngine(asked);
    const judged = await judgeAll(selectedPath(path, flags.select), more, asked, flags, engine);
    const json = () =>
      JSON.stringify(snakeCase(judged.length === 1 ? judged[0] : { autoencoders: judged }), undefined, 2);
    const text = () => (flags.markdown ? markdown(judged) : resultText(judged, pageOf(process.stdout)));
    process.stdout.write(`${flags.json ? json() : flags.csv ? judgedCsv(judged) : text()}\n`);
  });
}

/** Latents that are removed at most: the model runs once more for each. */
const MOST_LATENTS = 1000;

/** "all" and "spliced" are rows; anything else is a list of latents. */
function ablateOf(text: string): NonNullable<EvalFlags["ablate"]> {
  if (text === "all" || text === "spliced") return text;
  const words = text.split(",").map((word) => word.trim());
  if (!words.every((word) => /^\d{1,10}$/.test(word)))
    throw new UsageError(
      mustBe("--ablate", "all, spliced, or numbers of latents such as 12,99", text, ["all", "spliced"]),
    );
  const latents = [...new Set(words.map(Number))];
  if (latents.length <= MOST_LATENTS) return latents;
  throw new UsageError(`--ablate names ${latents.length} latents, but at most ${MOST_LATENTS} are removed`, {
    mend: "name fewer",
  });
}
