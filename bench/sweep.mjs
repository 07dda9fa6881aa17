// Autoencoders trained together from one read, next to the same ones one after the other: seconds
// of training, whole commands, bytes that were read from the file, and whether the weights and
// moments have the same bits. The file is written here and is in the system's cache.
// Usage: npm run build && node bench/sweep.mjs [--engine cpu|cuda] [--members 8] [--latents 4096]
//   [--width 768] [--batch 4096] [--steps 40] [--rows 65536] [--k 32] [--turns 2]
// Prints a table in Markdown and one line of JSON.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, openSync, readdirSync, readFileSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { machine } from "./machine.mjs";

const { values: asked } = parseArgs({
  options: {
    engine: { type: "string", default: "cpu" },
    members: { type: "string", default: "8" },
    latents: { type: "string", default: "4096" },
    width: { type: "string", default: "768" },
    batch: { type: "string", default: "4096" },
    steps: { type: "string", default: "40" },
    rows: { type: "string", default: "65536" },
    k: { type: "string", default: "32" },
    turns: { type: "string", default: "2" },
    folder: { type: "string", default: tmpdir() },
  },
});
const [members, width, batch, steps, rows, turns] = ["members", "width", "batch", "steps", "rows", "turns"].map(
  (name) => Number(asked[name]),
);
process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const folder = mkdtempSync(join(resolve(asked.folder), "saetta-sweep-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));

/** Rows in float16: sums of a few of 4 x width directions, as activations are. */
function writeRows(path) {
  const file = openSync(path, "w");
  const header = `{'descr': '<f2', 'fortran_order': False, 'shape': (${rows}, ${width}), }`.padEnd(117);
  writeSync(file, Buffer.from(`\x93NUMPY\x01\x00\x76\x00${header}\n`, "latin1"));
  let seed = 1;
  const random = () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return seed / 2 ** 32;
  };
  const directions = Float32Array.from({ length: 4 * width * width }, () => random() - 0.5);
  const part = new Uint16Array(1024 * width);
  const [float, bits] = [new Float32Array(1), new Uint32Array(1)];
  const half = (value) => {
    float[0] = value;
    bits.set(new Uint32Array(float.buffer));
    const exponent = ((bits[0] >>> 23) & 0xff) - 112;
    return ((bits[0] >>> 16) & 0x8000) | (exponent <= 0 ? 0 : (exponent << 10) | ((bits[0] >>> 13) & 0x3ff));
  };
  for (let row = 0; row < rows; row += 1024) {
    const count = Math.min(1024, rows - row);
    for (let i = 0; i < count; i++) {
      const chosen = Array.from({ length: 16 }, () => [Math.floor(random() ** 2 * 4 * width) * width, random()]);
      for (let j = 0; j < width; j++)
        part[i * width + j] = half(chosen.reduce((sum, [at, size]) => sum + size * directions[at + j], 0));
    }
    writeSync(file, new Uint8Array(part.buffer, 0, count * width * 2));
  }
}

/** Runs the command; `/proc` says what it read. */
async function saetta(...words) {
  const began = performance.now();
  const tell = `import { readFileSync } from "node:fs";
    process.on("exit", () => process.stderr.write("\\nread " + /^rchar: (\\d+)/m.exec(readFileSync("/proc/self/io"))[1]));`;
  const child = spawn(process.execPath, ["--import", `data:text/javascript,${tell}`, "dist/cli.js", ...words]);
  let [out, said] = ["", ""];
  child.stdout.on("data", (text) => {
    out += text;
  });
  child.stderr.on("data", (text) => {
    said += text;
  });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`saetta ${words.join(" ")}: ${said}`);
  const bytes = Number(/read (\d+)$/.exec(said.trim())?.[1] ?? Number.NaN);
  return { seconds: (performance.now() - began) / 1000, bytes, result: JSON.parse(out) };
}

function hashOf(run) {
  const checkpoints = join(run, "checkpoints");
  const last = join(checkpoints, readdirSync(checkpoints).toSorted().at(-1));
  const hash = createHash("sha256");
  for (const name of readdirSync(last).toSorted())
    if (name.endsWith(".safetensors")) hash.update(readFileSync(join(last, name)));
  return hash.digest("hex");
}

const data = join(folder, "rows.npy");
writeRows(data);
const rates = Array.from({ length: members }, (_, i) => Number((2e-4 * 1.3 ** i).toPrecision(3)));
const options = ["--engine", asked.engine, "--latents", asked.latents, "--k", asked.k, "--batch", asked.batch];
const length = ["--tokens", String(batch * steps), "--checkpoint-every", "0", "--keep", "1", "--json"];
const train = (...words) => saetta("train", data, ...options, ...length, ...words);
await train("--lr", "1e-4", "--tokens", String(batch), "--out", join(folder, "warm"));

const found = [];
for (let turn = 0; turn < turns; turn++) {
  const together = join(folder, `together-${turn}`);
  const all = await train("--lr", rates.join(","), "--out", together);
  const alone = [];
  for (const lr of rates) alone.push(await train("--lr", String(lr), "--out", join(folder, `alone-${turn}-${lr}`)));
  const sum = (values) => values.reduce((total, value) => total + value, 0);
  found.push({
    together: Math.max(...all.result.members.map(({ report }) => report.elapsed_s)),
    alone: sum(alone.map(({ result }) => result.report.elapsed_s)),
    togetherWhole: all.seconds,
    aloneWhole: sum(alone.map(({ seconds }) => seconds)),
    togetherBytes: all.bytes,
    aloneBytes: sum(alone.map(({ bytes }) => bytes)),
    same: rates.every((lr) => hashOf(join(together, `lr${lr}`)) === hashOf(join(folder, `alone-${turn}-${lr}`))),
  });
  for (const name of readdirSync(folder))
    if (/^(together|alone)/.test(name)) rmSync(join(folder, name), { recursive: true });
}

const { processor, features, cpus, saetta: version, date } = machine();
const median = (name) => found.map((turn) => turn[name]).toSorted((a, b) => a - b)[found.length >> 1];
const line = (name, together, alone, digits, unit) =>
  `| ${name} | ${together.toFixed(digits)} ${unit} | ${alone.toFixed(digits)} ${unit} | ${(alone / together).toFixed(2)} |`;
const rowsPerSecond = (seconds) => (members * batch * steps) / seconds / 1e3;
console.log(
  [
    `${members} autoencoders: ${asked.latents} latents, width ${width}, k ${asked.k}, batch ${batch}, ${steps} steps, ${asked.engine} engine.`,
    `${processor} x ${cpus} (${features.join(", ")}), Saetta ${version}, ${date}`,
    "",
    "| | together | one after the other | ratio |",
    "| --- | ---: | ---: | ---: |",
    line("training", median("together"), median("alone"), 2, "s"),
    line("whole commands", median("togetherWhole"), median("aloneWhole"), 2, "s"),
    `| rows of all autoencoders | ${rowsPerSecond(median("together")).toFixed(1)} k/s | ${rowsPerSecond(median("alone")).toFixed(1)} k/s | |`,
    line("read by the processes", median("togetherBytes") / 2 ** 20, median("aloneBytes") / 2 ** 20, 0, "MiB"),
    "",
    `weights and moments: ${found.every(({ same }) => same) ? "the same bits" : "OTHER BITS"}`,
  ].join("\n"),
);
console.log(JSON.stringify({ asked, found }));
process.exitCode = found.every(({ same }) => same) ? 0 : 1;
