// What `saetta encode` and `saetta eval` of a threshold autoencoder (JumpReLU) do in a second on
// the CPU: whole commands, over float16 rows in a file, in turn with plain PyTorch
// (encode_torch.py) on some of the same rows.
// Usage: npm run build && node bench/encode.mjs [--rounds N] [--rows N]. Takes some five minutes
// and 2 GB; a run with the default options is kept in bench/results/.
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { availableParallelism, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Series } from "../dist/bench/statistics.js";
import { decimals, figure, tableMarkdown, tableText, times } from "../dist/bench/table.js";
import { writeSafetensors } from "../dist/formats/safetensors.js";
import { encodeFloat16 } from "../dist/util/float16.js";
import { Child } from "./child.mjs";
import { saetta } from "./command.mjs";
import { machine } from "./machine.mjs";
import { PYTHON } from "./rivals.mjs";

const [D, N] = [2304, 16_384];
/** Pre-activations have a standard deviation of 1; about 70 of N are above this. */
const THRESHOLD = 2.63;
/** Rows that PyTorch takes: its own product is as fast with any number. */
const [TORCH_ROWS, ONEDNN_ROWS] = [32, 1024];

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const { values: asked } = parseArgs({ options: { rounds: { type: "string" }, rows: { type: "string" } } });
const [rounds, rows] = [asked.rounds ?? 3, asked.rows ?? 4096].map(Number);
if (!(Number.isInteger(rounds) && rounds >= 1 && Number.isInteger(rows) && rows >= ONEDNN_ROWS)) {
  console.error(`bench: --rounds is a whole number from 1, --rows one from ${ONEDNN_ROWS}`);
  process.exit(2);
}
const threads = availableParallelism();

let state = 1;
/** Numbers of mean 0 and standard deviation `deviation`, the same on every run. */
function drawn(count, deviation) {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state / 2 ** 31 - 1) * Math.sqrt(3) * deviation;
  }
  return values;
}

const bytesOf = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

async function writeFile(path, parts) {
  const file = openSync(path, "w");
  await writeSafetensors(
    async (bytes) => {
      for (let done = 0; done < bytes.length; ) done += writeSync(file, bytes, done);
    },
    parts.map(([name, dtype, shape, values]) => ({ name, dtype, shape, bytes: async () => bytesOf(values) })),
  );
  closeSync(file);
}

const folder = mkdtempSync(join(tmpdir(), "saetta-encode-"));
try {
  const at = (name) => join(folder, name);
  const weights = {
    encoder: drawn(D * N, 1 / Math.sqrt(D)),
    decoder: drawn(N * D, 1 / Math.sqrt(D)),
    threshold: new Float32Array(N).fill(THRESHOLD),
    bias: drawn(D, 0.1),
  };
  const halves = new Uint16Array(rows * D);
  const values = drawn(rows * D, 1);
  for (let i = 0; i < values.length; i++) values[i] += weights.bias[i % D];
  encodeFloat16(values, halves);
  mkdirSync(at("sae"));
  const cfg = { architecture: "jumprelu", d_in: D, d_sae: N, dtype: "float32", apply_b_dec_to_input: true };
  writeFileSync(at("sae/cfg.json"), JSON.stringify({ ...cfg, normalize_activations: "none" }));
  await writeFile(at("sae/sae_weights.safetensors"), [
    ["W_enc", "F32", [D, N], weights.encoder],
    ["W_dec", "F32", [N, D], weights.decoder],
    ["threshold", "F32", [N], weights.threshold],
    ["b_enc", "F32", [N], new Float32Array(N)],
    ["b_dec", "F32", [D], weights.bias],
  ]);
  await writeFile(at("acts.safetensors"), [["hidden_states", "F16", [rows, D], halves]]);
  for (const [name, array] of Object.entries(weights)) writeFileSync(at(`${name}.f32`), bytesOf(array));
  writeFileSync(at("rows.f16"), bytesOf(halves.subarray(0, ONEDNN_ROWS * D)));

  const torchWords = ["bench/encode_torch.py", folder, ONEDNN_ROWS, D, N, threads];
  const torch = await Child.start(PYTHON, torchWords.map(String), threads);
  const ours = (command, ...more) =>
    saetta([command, at("sae"), at("acts.safetensors"), "--engine", "cpu", "--threads", String(threads), ...more]);
  const encode = (...more) => ours("encode", "--out", at("codes.npz"), "--force", ...more);
  /** Each measures once: its time, and its CPU time over all threads. */
  const measured = {
    "saetta encode, the whole command": () => encode(),
    "of it the start: 1 row": () => encode("--max-rows", "1"),
    "saetta eval, the whole command": () => ours("eval"),
  };
  let l0 = 0;
  for (const [name, words, count] of [
    ["encode", `encode ${TORCH_ROWS}`, TORCH_ROWS],
    ["encode oneDNN", `encode ${ONEDNN_ROWS} oneDNN`, ONEDNN_ROWS],
    ["reconstruct", `reconstruct ${TORCH_ROWS}`, TORCH_ROWS],
    ["reconstruct oneDNN", `reconstruct ${ONEDNN_ROWS} oneDNN`, ONEDNN_ROWS],
  ]) {
    measured[name] = async () => {
      const { ms, cpu_ms: cpuMs, l0: found } = await torch.ask(words);
      l0 = found;
      return { ms: (ms * rows) / count, cpuMs: (cpuMs * rows) / count };
    };
  }
  // Samples count however busy the machine is: what is compared is measured in turn.
  const series = Object.fromEntries(Object.keys(measured).map((name) => [name, new Series(0)]));
  await encode();
  const load = [];
  for (let round = 0; round < rounds; round++) {
    load.push(loadavg()[0]);
    for (const [name, measure] of Object.entries(measured)) await series[name].take(measure);
  }
  torch.close();

  const line = (label, name, own) => {
    const { ms, cpuMs, cpuPerWall } = series[name];
    const than = own === undefined ? [] : [times(ms / series[own].ms), times(cpuMs / series[own].cpuMs)];
    const [perSecond, perCpuSecond] = [figure((1000 * rows) / ms), figure((1000 * rows) / cpuMs)];
    return [label, figure(ms / 1000), perSecond, perCpuSecond, decimals(cpuPerWall), than[0] ?? "", than[1] ?? ""];
  };
  const [encoding, start, evaluating] = Object.keys(measured);
  const found = { ...machine(), threads, rows, torch: torch.hello };
  const report = {
    title: `Codes of ${N.toLocaleString("en-US")} latents of width ${D}`,
    columns: ["", "s", "rows/s", "rows per CPU second", "CPU/wall", "time/ours", "CPU time/ours"],
    rows: [
      line(encoding, encoding),
      [...line(start, start).slice(0, 2), "", "", "", "", ""],
      line("PyTorch, product, comparison, nonzero", "encode", encoding),
      line("the same with the product of oneDNN", "encode oneDNN", encoding),
      line(evaluating, evaluating),
      line("PyTorch, encode and decode", "reconstruct", evaluating),
      line("the same with the products of oneDNN", "reconstruct oneDNN", evaluating),
    ],
    notes: [
      `${rows} float16 rows; PyTorch takes ${TORCH_ROWS} of them, with oneDNN ${ONEDNN_ROWS}, and its times are scaled; L0 ${l0.toFixed(1)}`,
      `${rounds} rounds in turn; medians; load of the machine before each: ${load.map((one) => one.toFixed(1)).join(", ")}`,
      "PyTorch's rows and weights are in memory before it is timed; saetta starts, reads a file of SAELens and rows, and writes codes.npz",
    ],
  };
  const heading = [
    `${found.processor} (${found.features.join(", ")}), ${threads} threads of ${found.cpus} CPUs, ${found.memory}, ${found.system}`,
    `saetta ${found.saetta}, Node ${found.node}, ${found.compiler}; ${found.torch.name} with ${found.torch.blas}, ${found.torch.threads} threads`,
    `${found.date} UTC: node bench/encode.mjs${process.argv.length > 2 ? ` ${process.argv.slice(2).join(" ")}` : ""}`,
  ];
  console.log(`${heading.join("\n")}\n\n${tableText(report)}`);
  if (Object.keys(asked).length === 0) {
    mkdirSync("bench/results", { recursive: true });
    const lines = heading.map((each) => `- ${each}`).join("\n");
    writeFileSync("bench/results/encode.md", `# encode, measured\n\n${lines}\n\n${tableMarkdown(report)}\n`);
    const samples = Object.entries(series).map(([name, each]) => ({
      name,
      samples: each.samples.map(({ ms, cpuMs }) => ({ ms, cpuMs })),
    }));
    writeFileSync("bench/results/encode.json", `${JSON.stringify({ ...found, load, series: samples })}\n`);
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
