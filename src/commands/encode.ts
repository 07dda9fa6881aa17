import { resolve } from "node:path";
import type { Command } from "commander";
import { countRows } from "../data/holdout.ts";
import { checkOut, encode } from "../inference/encode.ts";
import { loadSae } from "../inference/sae.ts";
import type { WeightsKind } from "../inference/weights.ts";
import { counted, formatCount } from "../util/format.ts";
import { snakeCase } from "../util/json.ts";
import { parseCount } from "../util/numbers.ts";
import { createProgressLine, type ProgressLine } from "../util/progress.ts";
import { evalData } from "./eval-data.ts";
import { noteOddities } from "./eval-run.ts";
import { addFlags, DATA_FLAGS, givenOptions, selectedPath, selectFlag, weightsFlag } from "./flags.ts";
import { INFERENCE_DTYPE, inferenceEngine } from "./inference-engine.ts";
import { note } from "./note.ts";
import { catchSignals, endStopped } from "./signals.ts";

interface Flags {
  readonly out: string;
  readonly force?: boolean;
  readonly weights?: WeightsKind;
  readonly maxRows?: number;
  readonly json?: boolean;
  readonly select?: string;
}

const LAYOUT = `
The file holds the matrix [rows, latents] in compressed rows (CSR): data
(float32), indices (int32, ascending in a row), indptr (int64) and shape;
row_numbers (int64), the rows' numbers in the data; tokens and positions (int32)
where the data has them. scipy.sparse.load_npz reads the .npz; .h5 and
.safetensors have the same arrays.

Example:
  saetta encode runs/first acts.h5 --out codes.npz
`;

export function encodeCommand(program: Command): void {
  const command = program
    .command("encode")
    .description("write the sparse codes of rows: which latents are active, and how much")
    .argument("<sae>", "run folder, checkpoint folder, or a folder or file of another program")
    .argument("[data...]", "files or folders of activations (default: the hold-out of the run)")
    .requiredOption("--out <file>", "the file to write: .npz, .h5 or .safetensors")
    .option("--force", "replace the file if it exists")
    .addOption(weightsFlag())
    .addOption(selectFlag())
    .option("--max-rows <N>", "encode no more than N rows, evenly spread", (text) => parseCount(text, "--max-rows"))
    .option("--json", "print one JSON object")
    .addHelpText("after", LAYOUT);
  addFlags(command, DATA_FLAGS, { dtype: INFERENCE_DTYPE });
  command.action(async (named: string, data: readonly string[], flags: Flags) => {
    const { out, force, weights, maxRows, json } = flags;
    const path = selectedPath(named, flags.select);
    await checkOut({ out, force });
    const asked = givenOptions(command);
    const ending = catchSignals("stopping; nothing is written");
    let progress: ProgressLine | undefined;
    try {
      await using engine = await inferenceEngine(asked);
      await using sae = await loadSae(path, weights === undefined ? { engine } : { engine, weights });
      const mend = "name the activations: saetta encode SAE acts.h5 --out codes.npz";
      const { source, ranges, nonFinite } = await evalData(resolve(sae.path), data, asked, {
        mend,
        onNote: note,
        needsTarget: false,
      });
      try {
        const excluded = source.rows - countRows(ranges);
        if (data.length > 0 && excluded > 0)
          note(
            `${counted(excluded, "row")} of ${formatCount(source.rows)} are left out (--exclude-tokens, --exclude-positions, --max-norm, --zero-rows, padding); row_numbers says which are in the file`,
          );
        if (source.tokensProblem !== undefined) note(`no tokens are written: ${source.tokensProblem}`);
        noteOddities(sae, source, null);
        const onProgress = (done: number, total: number) => {
          progress ??= createProgressLine({ label: "encode", total, unit: "rows" });
          progress.update(done);
        };
        const options = { out, force, ranges, maxRows, nonFinite, signal: ending.signal, onProgress };
        const done = await encode(sae, source, options).finally(() => progress?.done());
        const notFinite = Math.min(maxRows ?? Number.POSITIVE_INFINITY, countRows(ranges)) - done.rows;
        if (nonFinite === "skip" && notFinite > 0) note(`${counted(notFinite, "row")} with NaN or Inf are left out`);
        const { rows, latents, codes, l0 } = done;
        process.stdout.write(
          json
            ? `${JSON.stringify(snakeCase(done), undefined, 2)}\n`
            : `encoded      ${out}: ${counted(rows, "row")} of ${counted(latents, "latent")}, ${counted(codes, "code")} (L0 ${l0.toPrecision(4)})\n`,
        );
      } finally {
        await source.close();
      }
    } catch (thrown) {
      endStopped(ending, thrown);
    } finally {
      ending.close();
    }
  });
}
