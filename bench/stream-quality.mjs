// What mixing on the way and int8 cost: held-out FVU of one pass over the example activations, from
// a shuffled file, from a stream with a buffer of 5 % of the rows, and from a file of int8, judged
// on the same contexts; and how well a buffer of 20 batches mixes contexts.
// Usage: npm run build && node bench/stream-quality.mjs [--tokens 250k] [--seeds 3]
// [--latents 2048]. A run with the default options is kept in bench/results/.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { decimals, tableMarkdown, tableText } from "../dist/bench/table.js";
import { MixingBuffer } from "../dist/data/mixing.js";
import { openSource } from "../dist/data/open.js";
import { RowKeeper } from "../dist/data/row-keeper.js";
import { Rng } from "../dist/util/rng.js";
import { machine } from "./machine.mjs";

const { values: asked } = parseArgs({
  options: { tokens: { type: "string" }, seeds: { type: "string" }, latents: { type: "string" } },
});
const { tokens = "250k", latents = "2048" } = asked;
const seeds = Number(asked.seeds ?? 3);
const CLI = join(import.meta.dirname, "..", "dist", "cli.js");
const EXAMPLE = [
  ...["--model", "examples/brown-gpt", "--text", "examples/brown.txt.gz"],
  ...["--tensor", "/transformer/h.3/Add_1_output_0"],
];
/** One context of so many is held out. */
const EVERY = 20;
const SHARE = 0.05;

const saetta = (...words) => execFileSync(process.execPath, [CLI, ...words], { stdio: ["ignore", "pipe", "ignore"] });

/** The contexts of `source` for which `isIn`, written by `put(rows, values, tokens)`. */
async function contextsOf(source, isIn, put) {
  const { sequence: context, dIn, rows } = source;
  const values = new Uint8Array(context * dIn * 4);
  for (let first = 0; first < rows; first += context) {
    if (!isIn(first / context)) continue;
    await source.read(first, context, values);
    await put(context, values, await source.tokens(first, context));
  }
}

async function keep(source, folder, dtype, isIn) {
  const { dIn: width, sequence: context, origin } = source;
  const keeper = await RowKeeper.open({ folder, dtype });
  await keeper.begin({ width, dtype: "f32", context, origin });
  await contextsOf(source, isIn, (rows, values, ids) => keeper.add({ rows, values, tokens: ids }));
  await keeper.close();
  return keeper.rows;
}

/** Runs `saetta train -` and writes the contexts into it, in the order of the text. */
async function trainStream(source, isIn, words) {
  const child = spawn(process.execPath, [CLI, "train", "-", ...words], { stdio: ["pipe", "ignore", "ignore"] });
  const closed = once(child, "close");
  const number = (value) => Buffer.from(Uint32Array.of(value).buffer);
  const { dIn: width, sequence: context, origin } = source;
  const about = { width, dtype: "f32", tokens: true, context, start_token: origin.startToken };
  const header = Buffer.from(JSON.stringify(about));
  let isOpen = true; // it closes its end when it has enough
  child.stdin.on("error", () => {
    isOpen = false;
  });
  const send = async (bytes) => {
    if (isOpen && !child.stdin.write(bytes)) await once(child.stdin, "drain").catch(() => undefined);
  };
  await send(Buffer.concat([Buffer.from("SAETTA\x01\n", "latin1"), number(header.length), header]));
  await contextsOf(source, isIn, (rows, values, ids) =>
    send(Buffer.concat([number(rows), number(4 * rows + values.length), Buffer.from(ids.buffer), values])),
  );
  if (isOpen) child.stdin.end(Buffer.alloc(8));
  const [code] = await closed;
  if (code !== 0) throw new Error(`saetta train - ended with ${code}`);
}

async function quality(folder) {
  const file = join(folder, "acts.h5");
  saetta("harvest", ...EXAMPLE, "--tokens", tokens, "--dtype", "f32", "--out", file);
  const source = await openSource([file]);
  const isHeld = (context) => context % EVERY === 0;
  const isTrained = (context) => !isHeld(context);
  const held = join(folder, "held");
  await keep(source, held, undefined, isHeld);
  const rows = await keep(source, join(folder, "f32"), undefined, isTrained);
  await keep(source, join(folder, "int8"), "int8", isTrained);
  // Start tokens are left out; all runs train on the same number of rows.
  const budget = Math.floor((rows * (source.sequence - 1)) / source.sequence / 512 / 1.02) * 512;
  const options = ["--latents", latents, "--k", "32", "--batch", "512", "--tokens", String(budget)];
  const buffer = Math.round(SHARE * rows);
  const ways = {
    "f32 file, shuffled": (words) => saetta("train", join(folder, "f32"), ...words),
    [`stream in the order of the text, --buffer ${buffer}`]: (words) =>
      trainStream(source, isTrained, [...words, "--buffer", String(buffer)]),
    "int8 file, shuffled": (words) => saetta("train", join(folder, "int8"), ...words),
  };
  const found = Object.fromEntries(Object.keys(ways).map((way) => [way, []]));
  for (let seed = 0; seed < seeds; seed++) {
    for (const [i, [way, train]] of Object.entries(ways).entries()) {
      const run = join(folder, `run-${seed}-${i}`);
      await train([...options, "--seed", String(seed), "--holdout", "0", "--out", run]);
      found[way].push(JSON.parse(saetta("eval", run, held, "--json").toString()).metrics.fvu);
      console.error(way, seed, found[way].at(-1));
    }
  }
  await source.close();
  const mean = (values) => values.reduce((sum, each) => sum + each, 0) / values.length;
  const [first] = Object.values(found).map(mean);
  return {
    title: `held-out FVU after one pass, ${latents} latents, k 32`,
    columns: ["", ...Array.from({ length: seeds }, (_, seed) => `seed ${seed}`), "mean", "to the first"],
    rows: Object.entries(found).map(([way, values]) => [
      way,
      ...values.map((value) => value.toFixed(5)),
      mean(values).toFixed(5),
      `${(100 * (mean(values) / first - 1)).toFixed(2)} %`,
    ]),
    notes: [`${rows} rows of ${source.dIn} numbers, contexts of ${source.sequence}; 1 context of ${EVERY} is held out`],
  };
}

const [BATCH, CONTEXT, BATCHES] = [1024, 128, 2000];

/** Context ids in batches, in an order that `next` gives. */
function mixed(next) {
  const correlations = [];
  let pairs = 0;
  for (let batch = 0; batch < BATCHES; batch++) {
    const ids = Float64Array.from({ length: BATCH }, next);
    const mean = ids.reduce((sum, id) => sum + id, 0) / BATCH;
    let [top, bottom] = [0, 0];
    for (let i = 0; i < BATCH; i++) {
      bottom += (ids[i] - mean) ** 2;
      if (i > 0) top += (ids[i] - mean) * (ids[i - 1] - mean);
    }
    correlations.push(Math.abs(top / bottom));
    const counts = new Map();
    for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
    for (const count of counts.values()) pairs += count * (count - 1);
  }
  return {
    correlation: correlations.reduce((sum, each) => sum + each, 0) / BATCHES,
    partners: pairs / BATCH / BATCHES,
  };
}

function mixing() {
  const total = BATCH * BATCHES;
  const context = (row) => Math.floor(row / CONTEXT);
  const capacity = 20 * BATCH;
  const shuffled = () => {
    const rng = new Rng(1, 1, 0);
    const rows = Float64Array.from({ length: total }, (_, row) => row);
    for (let i = total - 1; i > 0; i--) {
      const j = rng.below(i + 1);
      [rows[i], rows[j]] = [rows[j], rows[i]];
    }
    let at = 0;
    return () => context(rows[at++]);
  };
  const ours = () => {
    const buffer = new MixingBuffer(capacity, 8, 1);
    const one = new Float64Array(1);
    const bytes = new Uint8Array(one.buffer);
    let row = 0;
    const put = () => {
      one[0] = row++;
      return bytes;
    };
    while (buffer.size < capacity) buffer.add(put(), 0);
    const out = new Float64Array(1);
    return () => {
      buffer.exchange(new Uint8Array(out.buffer), 0, put(), 0);
      return context(out[0]);
    };
  };
  // As the published trainers do: half of the buffer is used, then filled and shuffled again.
  const halves = () => {
    const rng = new Rng(1, 2, 0);
    const buffer = Array.from({ length: capacity }, (_, row) => row);
    let [row, used] = [capacity, 0];
    const shuffle = () => {
      for (let i = capacity - 1; i > 0; i--) {
        const j = rng.below(i + 1);
        [buffer[i], buffer[j]] = [buffer[j], buffer[i]];
      }
    };
    shuffle();
    return () => {
      if (used === capacity / 2) {
        for (let i = 0; i < capacity / 2; i++) buffer[i] = row++;
        shuffle();
        used = 0;
      }
      return context(buffer[used++]);
    };
  };
  const all = { "full shuffle": shuffled, "our buffer": ours, "half of the buffer filled again": halves };
  const found = Object.entries(all).map(([name, begin]) => [name, mixed(begin())]);
  const [, first] = found[0];
  return {
    title: `contexts of ${CONTEXT} rows in batches of ${BATCH}, buffers of 20 batches`,
    columns: ["", "correlation of neighbours", "to the first", "others of its context in the batch"],
    rows: found.map(([name, { correlation, partners }]) => [
      name,
      correlation.toFixed(5),
      `${decimals(correlation / first.correlation)} x`,
      partners.toFixed(2),
    ]),
    notes: [
      `${BATCHES} batches; the mean size of the correlation of the context ids of rows that follow one another in a batch`,
    ],
  };
}

const folder = mkdtempSync(join(tmpdir(), "saetta-quality-"));
try {
  const reports = [mixing(), await quality(folder)];
  for (const report of reports) console.log(tableText(report));
  if (Object.keys(asked).length === 0) {
    const { processor, features, saetta: version, date } = machine();
    const head = `- ${processor} (${features.join(", ")}); saetta ${version}\n- ${date} UTC: node bench/stream-quality.mjs`;
    mkdirSync("bench/results", { recursive: true });
    writeFileSync(
      "bench/results/stream-quality.md",
      `# Streams: mixing and int8, measured\n\n${head}\n\n${reports.map(tableMarkdown).join("\n\n")}\n`,
    );
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
