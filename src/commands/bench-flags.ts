/** The flags of `saetta bench`, and which of its two ways each belongs to. */

import { type Command, Option } from "commander";
import { DICTIONARY, TRAINING } from "../bench/synthetic.ts";
import { UsageError } from "../util/errors.ts";
import { type Bounds, mustBe } from "../util/must.ts";
import { numberOf, parseCount, parseNumber } from "../util/numbers.ts";
import { addFlags } from "./flags.ts";

export interface BenchFlags {
  readonly synthetic?: boolean;
  readonly json?: boolean;
  readonly width?: number;
  readonly seconds: number;
  readonly directions: number;
  readonly active: number;
  readonly amplitude: readonly [number, number];
  readonly noise: number;
  readonly together: number;
  readonly hierarchy?: number;
  readonly rows: number;
}

/** What the timing takes where nothing is said. */
export const STEP = { latents: 2048, width: 256, k: 32, auxk: 256, batch: 1024 } as const;
const TRAINED = [
  "architecture",
  "targetL0",
  "prefixes",
  "latents",
  "k",
  "auxk",
  "auxkCoef",
  "batch",
  "lr",
  "warmup",
  "decay",
  "deadTokens",
  "seed",
  "engine",
  "dtype",
  "threads",
] as const;
const ONLY_SYNTHETIC =
  "directions active amplitude noise together hierarchy rows auxkCoef lr warmup decay deadTokens seed".split(" ");

/** Defines the command. */
export function defineBench(program: Command): Command {
  const counted = (flag: string) => (text: string) => parseCount(text, flag);
  const numbered = (flag: string, bounds: Bounds) => (text: string) => parseNumber(text, flag, bounds);
  const { directions, width, active, amplitude, noise, together, rows } = DICTIONARY;
  const amplitudes = new Option("--amplitude <LOW..HIGH>", "range of their amplitudes, evenly drawn");
  amplitudes.argParser(parseRange).default(amplitude, amplitude.join(".."));
  const command = program
    .command("bench")
    .description(
      "time the training step on this machine; with --synthetic: train on a random dictionary and say how much of it was found",
    )
    .option("--synthetic", "train on rows of which the truth is known")
    .option("--width <N>", `elements of a row (default: ${STEP.width}; ${width} with --synthetic)`, counted("--width"))
    .option(
      "--seconds <X>",
      "how long to time",
      numbered("--seconds", { least: 0, leastExclusive: true, most: 86_400 }),
      6,
    )
    .option("--directions <N>", "true directions", counted("--directions"), directions)
    .option("--active <N>", "directions that are on in each row", counted("--active"), active)
    .addOption(amplitudes)
    .option("--noise <X>", "standard deviation of the noise on each element", numbered("--noise", { least: 0 }), noise)
    .option(
      "--together <X>",
      "directions come in pairs; probability that one brings its partner along",
      numbered("--together", { least: 0, most: 1 }),
      together,
    )
    .option(
      "--hierarchy <N>",
      "directions come in families of a parent and N children, with Zipf frequencies; a child is on only with its parent",
      counted("--hierarchy"),
    )
    .option("--rows <N>", "rows to train on, in one pass", counted("--rows"), rows)
    .option("--json", "print one JSON object")
    .addHelpText(
      "after",
      "\nExamples:\n  saetta bench --latents 32768 --width 768 --auxk 0\n  saetta bench --synthetic --auxk 4 --dead-tokens 20k\n",
    );
  const both = (["latents", "k", "auxk", "batch"] as const).map((name) => [
    name,
    `${STEP[name]}; ${TRAINING[name]} with --synthetic`,
  ]);
  return addFlags(command, TRAINED, { ...Object.fromEntries(both), lr: TRAINING.lr });
}

/** Throws UsageError for a flag that means nothing the way the command is used. */
export function checkPlace(command: Command, synthetic: boolean): void {
  const misplaced = (synthetic ? ["seconds"] : ONLY_SYNTHETIC).find(
    (name) => command.getOptionValueSource(name) === "cli",
  );
  if (misplaced === undefined) return;
  const flag = command.options.find((option) => option.attributeName() === misplaced)?.long;
  throw new UsageError(`${flag} means nothing ${synthetic ? "with" : "without"} --synthetic`);
}

function parseRange(text: string): readonly [number, number] {
  const numbers = text.split("..").map(numberOf);
  const [low, high = low] = numbers;
  const isRange = numbers.length <= 2 && !numbers.includes(undefined);
  if (!isRange || low === undefined || high === undefined || low < 0 || high < low)
    throw new UsageError(mustBe("--amplitude", "a range of numbers from 0 up, such as 0.5..1.5", text));
  return [low, high];
}
