/**
 * Trains on a file of activations and stops early.
 *
 *     npx tsc && node train.js acts.h5 runs/a
 */

import { openActivations, train, UsageError } from "saetta";

const [path = "acts.h5", out = "runs/a"] = process.argv.slice(2);

// Ctrl-C finishes the step and saves a checkpoint; resume("runs/a") goes on from it.
const stopping = new AbortController();
process.once("SIGINT", () => stopping.abort());

try {
  await using acts = await openActivations(path);
  console.log(acts.description);
  await using run = await train(acts, {
    latents: 16 * acts.dIn,
    k: 16,
    tokens: 100_000, // rows; past the end of the data a new epoch starts
    out,
    signal: stopping.signal,
    onNote: (note) => console.error(note),
  });
  console.log(
    `${run.steps} steps of ${run.config.batch} rows, learning rate ${run.config.lr.toPrecision(2)}, ${run.engine}`,
  );

  // The run does not wait for its reader: a slow one gets the newest report.
  for await (const report of run) {
    if (report.step % 100 === 0)
      console.log(`step ${report.step}: FVU ${report.fvu.toFixed(3)}, ${report.dead} dead latents`);
    if (report.fvu < 0.02) break; // leaving the loop stops the run
  }

  const { reason, steps, checkpoint, report } = await run.finished;
  console.log(
    `${reason} after ${steps} steps, held-out FVU ${report?.holdout_fvu?.toFixed(3) ?? "not measured"}: ${checkpoint}`,
  );
} catch (error) {
  // A UsageError is our own mistake; SaettaError says what is wrong with files or memory.
  if (!(error instanceof UsageError)) throw error;
  console.error(`That makes no sense: ${error.message}`);
  process.exitCode = error.exitCode;
}
