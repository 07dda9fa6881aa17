// What `saetta eval --loss` does in a second with a vocabulary of 262,144 words: the whole command,
// in turn with a plain PyTorch computation of the same losses (loss_torch.py). The language model
// is a table of embeddings that is its head, too, so that the time is that of the losses.
// Usage: npm run build && node bench/loss.mjs [--rounds N] [--rows N]. Takes some five minutes and
// 3 GB; a run with the default options is kept in bench/results/.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { runnerImport } from "vite";
import { Series } from "../dist/bench/statistics.js";
import { decimals, figure, tableMarkdown, tableText, times } from "../dist/bench/table.js";
import { openActivations, train } from "../dist/index.js";
import { Child } from "./child.mjs";
import { saetta } from "./command.mjs";
import { machine } from "./machine.mjs";
import { PYTHON } from "./rivals.mjs";

const VOCABULARY = 262_144;
const WIDTH = 64;
const CONTEXT = 64;
/** Logits have this standard deviation. */
const SPREAD = 2;

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const { values: asked } = parseArgs({ options: { rounds: { type: "string" }, rows: { type: "string" } } });
const rounds = Number(asked.rounds ?? 3);
const rows = CONTEXT * Math.ceil(Number(asked.rows ?? 4096) / CONTEXT);
if (!(Number.isInteger(rounds) && rounds >= 1 && Number.isInteger(rows) && rows >= CONTEXT)) {
  console.error("bench: --rounds and --rows are whole numbers from 1");
  process.exit(2);
}
const threads = availableParallelism();

/** Numbers of mean 0 and standard deviation `deviation`, the same on every run. */
function drawn(count, deviation) {
  const values = new Float32Array(count);
  let state = 1;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state / 2 ** 31 - 1) * Math.sqrt(3) * deviation;
  }
  return values;
}

/**
 * "hidden" [.., WIDTH] is twice the embedding of a token, "logits" its products with all
 * embeddings.
 */
async function writeModel(path, table) {
  const { module: onnx } = await runnerImport("./test/support/onnx.ts");
  const { node, tensor, valueInfo, FLOAT, INT64 } = onnx;
  const bytes = onnx.model({
    nodes: [
      node("Gather", ["table", "input_ids"], ["embedded"]),
      node("Add", ["embedded", "embedded"], ["hidden"]),
      node("Transpose", ["table"], ["head"]),
      node("MatMul", ["hidden", "head"], ["logits"]),
    ],
    initializers: [tensor("table", [VOCABULARY, WIDTH], table)],
    inputs: [valueInfo("input_ids", INT64, ["b", "s"])],
    outputs: [valueInfo("logits", FLOAT, ["b", "s", VOCABULARY])],
  });
  writeFileSync(path, bytes);
}

/** Activations and tokens [contexts, CONTEXT], as .safetensors. */
function writeActivations(path, ids, hidden) {
  const contexts = ids.length / CONTEXT;
  const header = Buffer.from(
    JSON.stringify({
      hidden_states: { dtype: "F32", shape: [contexts, CONTEXT, WIDTH], data_offsets: [0, hidden.byteLength] },
      tokens: {
        dtype: "I32",
        shape: [contexts, CONTEXT],
        data_offsets: [hidden.byteLength, hidden.byteLength + ids.byteLength],
      },
    }),
  );
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(path, Buffer.concat([length, header, Buffer.from(hidden.buffer), Buffer.from(ids.buffer)]));
}

const folder = mkdtempSync(join(tmpdir(), "saetta-loss-"));
try {
  const table = drawn(VOCABULARY * WIDTH, Math.sqrt(SPREAD / 2 / Math.sqrt(WIDTH)));
  const ids = Int32Array.from(drawn(rows, VOCABULARY / 4), (x) => Math.abs(Math.round(x)) % VOCABULARY);
  const hidden = Float32Array.from({ length: rows * WIDTH }, (_, i) => {
    return 2 * table[ids[Math.floor(i / WIDTH)] * WIDTH + (i % WIDTH)];
  });
  const at = (name) => join(folder, name);
  await writeModel(at("model.onnx"), table);
  writeActivations(at("acts.safetensors"), ids, hidden);
  const source = await openActivations(at("acts.safetensors"));
  const run = await train(source, { latents: 128, k: 8, auxk: 0, batch: 64, holdout: 0, threads, out: at("run") });
  await (await run.finished).sae.close();
  await source.close();
  writeFileSync(at("table.f32"), Buffer.from(table.buffer));
  writeFileSync(at("ids.i32"), Buffer.from(ids.buffer));

  const torchWords = ["bench/loss_torch.py", at("table.f32"), at("ids.i32"), VOCABULARY, WIDTH, CONTEXT, threads];
  const torch = await Child.start(PYTHON, torchWords.map(String), threads);
  // Samples count however busy the machine is: what is compared is measured in turn.
  const series = { ours: new Series(0), "torch f32": new Series(0), "torch f64": new Series(0) };
  const evalWords = ["eval", at("run"), at("acts.safetensors"), "--model", at("model.onnx"), "--tensor", "hidden"];
  const losses = ["--loss", "--loss-tokens", String(rows), "--threads", String(threads), "--engine", "cpu"];
  await saetta([...evalWords, ...losses]);
  const load = [];
  for (let round = 0; round < rounds; round++) {
    load.push(loadavg()[0]);
    await series.ours.take(() => saetta([...evalWords, ...losses]));
    for (const dtype of ["f32", "f64"]) {
      await series[`torch ${dtype}`].take(async () => {
        const { ms, cpu_ms: cpuMs } = await torch.ask(dtype);
        const scale = rows / torch.hello.rows;
        return { ms: ms * scale, cpuMs: cpuMs * scale };
      });
    }
  }
  torch.close();

  const line = (name, { ms, cpuMs, cpuPerWall }) => [
    name,
    figure(ms / 1000),
    figure((1000 * rows) / ms),
    figure((1000 * rows) / cpuMs),
    decimals(cpuPerWall),
    name.startsWith("saetta") ? "" : times(ms / series.ours.ms),
    name.startsWith("saetta") ? "" : times(cpuMs / series.ours.cpuMs),
  ];
  const found = { ...machine(), threads, rows, torch: torch.hello };
  const report = {
    title: `eval --loss, ${VOCABULARY.toLocaleString("en-US")} words`,
    columns: ["", "s", "rows/s", "rows per CPU second", "CPU/wall", "time/ours", "CPU time/ours"],
    rows: [
      line("saetta eval --loss, the whole command, sums in float64", series.ours),
      line("PyTorch, float32", series["torch f32"]),
      line("PyTorch, sums in float64", series["torch f64"]),
    ],
    notes: [
      `${rows} rows of width ${WIDTH} in contexts of ${CONTEXT}; for each: cross-entropy of the model, of the reconstruction, of zeros and of the mean, and three divergences`,
      `${rounds} rounds in turn; medians; load of the machine before each: ${load.map((one) => one.toFixed(1)).join(", ")}`,
      "PyTorch computes the losses alone, from logits in memory: no start, no model, no autoencoder",
    ],
  };
  const heading = [
    `${found.processor} (${found.features.join(", ")}), ${threads} threads of ${found.cpus} CPUs, ${found.memory}, ${found.system}`,
    `saetta ${found.saetta}, Node ${found.node}, ${found.compiler}; ${found.torch.name}, ${found.torch.threads} threads`,
    `${found.date} UTC: node bench/loss.mjs${process.argv.length > 2 ? ` ${process.argv.slice(2).join(" ")}` : ""}`,
  ];
  console.log(`${heading.join("\n")}\n\n${tableText(report)}`);
  if (asked.rounds === undefined && asked.rows === undefined) {
    mkdirSync("bench/results", { recursive: true });
    const lines = heading.map((each) => `- ${each}`).join("\n");
    writeFileSync("bench/results/loss.md", `# eval --loss, measured\n\n${lines}\n\n${tableMarkdown(report)}\n`);
    const samples = Object.entries(series).map(([name, each]) => ({
      name,
      samples: each.samples.map(({ ms, cpuMs }) => ({ ms, cpuMs })),
    }));
    writeFileSync("bench/results/loss.json", `${JSON.stringify({ ...found, load, series: samples })}\n`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
