// Held-out FVU on the example activations: ours beside the mended `simple` recipe in plain PyTorch
// (fvu_torch.py), which gets the same start, the same rows in the same batches and the same
// held-out rows. FVU of both is computed by the PyTorch side. Needs /usr/bin/python3 with torch and
// h5py; takes some ten minutes where PyTorch has a quick BLAS (Debian: libopenblas0), hours where
// it has not.
// Usage: npm run build && node bench/fvu.mjs [ROWS [SEEDS]]        (default: 500,000 rows, 3 seeds)
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { solo } from "../dist/collective/solo.js";
import { openActivations, train } from "../dist/index.js";
import { planRun } from "../dist/train/plan.js";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const [budget = 500_000, seeds = 3] = process.argv.slice(2).map(Number);
const RECIPE = {
  preset: "simple",
  latents: 2048,
  k: 32,
  auxk: 256,
  batch: 1024,
  lr: 5e-4,
  deadTokens: 50_000,
  excludeTokens: "start",
};
const THREADS = 2;

/** The first `count` rows that training visits, by their number in the file. */
function visited(order, count) {
  const rows = new Uint32Array(count);
  for (let done = 0; done < count; ) {
    const position = done % order.rowsPerEpoch;
    const window = order.window(Math.floor(done / order.rowsPerEpoch), position);
    const inMemory = window.blocks.flatMap((block) => numbers(block).filter((row) => !order.isExcluded(row)));
    for (const row of window.lanes.inOrder().subarray(position - window.position))
      if (done < count) rows[done++] = inMemory[row];
  }
  return rows;
}

const numbers = ({ first, count }) => Array.from({ length: count }, (_, i) => first + i);

function run(command, words) {
  const { status, stdout, error } = spawnSync(command, words, {
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
  });
  if (error !== undefined || status !== 0)
    throw error ?? new Error(`${command} ${words.join(" ")} ended with ${status}`);
  return stdout;
}

const folder = mkdtempSync(join(tmpdir(), "saetta-fvu-"));
try {
  const acts = join(folder, "acts.h5");
  const text =
    "--model examples/brown-gpt --text examples/brown.txt.gz --tensor /transformer/h.3/Add_1_output_0 --tokens 250k";
  run(process.execPath, ["dist/cli.js", "harvest", ...text.split(" "), "--out", acts]);
  const source = await openActivations(acts);
  console.log(`${cpus()[0].model} x ${cpus().length}; ${source.description}`);
  console.log(`${JSON.stringify(RECIPE)}, ${budget} rows`);
  const found = [];
  for (let seed = 0; seed < seeds; seed++) {
    const options = { ...RECIPE, tokens: budget, seed, threads: THREADS };
    // A run that is stopped before its first step saves the start.
    const start = await (
      await train(source, { ...options, out: join(folder, `start-${seed}`), signal: AbortSignal.abort() })
    ).finished;
    const began = performance.now();
    const ours = await (await train(source, { ...options, init: start.checkpoint, out: join(folder, `ours-${seed}`) }))
      .finished;
    const seconds = (performance.now() - began) / 1000;
    for (const { sae } of [start, ours]) await sae.close();
    const { order, choice, engine } = await planRun(source, options, solo(), { onNote: () => undefined });
    await engine[Symbol.asyncDispose]();
    const files = { rows: join(folder, "rows.u32"), held: join(folder, "held.u32") };
    writeFileSync(files.rows, visited(order, ours.tokens));
    writeFileSync(files.held, Uint32Array.from(choice.holdout.flatMap(numbers)));
    const spec = { acts, ...files, start: start.checkpoint, ours: ours.checkpoint, threads: THREADS, ...RECIPE };
    const theirs = JSON.parse(run("/usr/bin/python3", ["bench/fvu_torch.py", JSON.stringify(spec)]));
    found.push({ ours: theirs.ours, theirs: theirs.theirs });
    const [a, b] = [theirs.ours.toFixed(5), theirs.theirs.toFixed(5)];
    const dead = `dead at the end ${ours.report.dead} and ${theirs.dead}`;
    console.log(
      `seed ${seed}: held-out FVU ours ${a} (own evaluation ${ours.report.holdout_fvu.toFixed(5)}, ${seconds.toFixed(0)} s), PyTorch ${b} (${theirs.seconds.toFixed(0)} s), start ${theirs.start.toFixed(3)}; ${dead}`,
    );
  }
  await source.close();
  const mean = (name) => found.reduce((sum, each) => sum + each[name], 0) / found.length;
  console.log(
    `mean of ${seeds} seeds: ours ${mean("ours").toFixed(5)}, PyTorch ${mean("theirs").toFixed(5)}: ${(mean("ours") / mean("theirs")).toFixed(4)} times`,
  );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
