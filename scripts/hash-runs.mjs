// Prints a SHA-256 of weights and of moments for each of a fixed list of runs, so that two versions
// of the program can be compared bit by bit: a change that should change no bits prints the same
// lines before and after.
//
//   node scripts/hash-runs.mjs [--cli dist/cli.js] [--engines cpu,reference,cuda] [--grids]
//                              [--only REGEX]

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";

const { values: flags } = parseArgs({
  options: {
    cli: { type: "string", default: "dist/cli.js" },
    engines: { type: "string", default: "cpu,reference" },
    grids: { type: "boolean", default: false },
    only: { type: "string", default: "" },
  },
});
const cli = resolve(flags.cli);
const folder = mkdtempSync(join(tmpdir(), "saetta-hash-"));
const run = promisify(execFile);

/**
 * Rows of a small hidden dictionary, so that some latents die and some do not; from integers alone.
 */
function writeRows(path, rows, d) {
  let state = 1;
  const draw = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  const directions = Array.from({ length: 40 * d }, draw);
  const values = new Float32Array(rows * d);
  for (let row = 0; row < rows; row++) {
    for (let on = 0; on < 5; on++) {
      const direction = Math.floor((draw() + 0.5) ** 2 * 40);
      const strength = 1 + draw();
      for (let i = 0; i < d; i++) values[row * d + i] += strength * directions[direction * d + i];
    }
    for (let i = 0; i < d; i++) values[row * d + i] += 0.05 * draw() + 0.3;
  }
  const header = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${d}), }`;
  const padded = `${header.padEnd(Math.ceil((header.length + 11) / 64) * 64 - 11)}\n`;
  const head = Buffer.from(`\x93NUMPY\x01\x00\0\0${padded}`, "latin1");
  head.writeUInt16LE(padded.length, 8);
  writeFileSync(path, Buffer.concat([head, Buffer.from(values.buffer)]));
}

const SIZES = {
  small: { d: 24, rows: 6000, flags: "--latents 96 --k 5 --auxk 12 --batch 64 --dead-tokens 500" },
  odd: { d: 37, rows: 4000, flags: "--latents 131 --k 7 --auxk 20 --batch 50 --dead-tokens 300" },
  wide: { d: 64, rows: 4000, flags: "--latents 512 --k 16 --auxk 32 --batch 100 --dead-tokens 400" },
};
const COMMON =
  "--seed 3 --lr 3e-3 --warmup 5 --decay 0.2 --log-every 10 --eval-every 20 --checkpoint-every 20 --keep 9";
const VARIANTS = {
  plain: "--normalize none",
  "no auxk": "--normalize none --auxk 0",
  ema: "--normalize none --ema 0.99",
  clip: "--normalize none --clip 0.02",
  "scale, ema, clip": "--normalize scale --ema 0.9 --clip 0.02",
  unit: "--normalize unit",
  layer_norm: "--normalize layer_norm --clip 0.02",
  rescale: "--normalize none --encoder-rescale --no-shuffle",
};

/**
 * Every run: name, flags, environment. `cut`: the last checkpoints are removed and the run is
 * resumed.
 */
function* runs() {
  const wanted = flags.engines.split(",");
  for (const engine of wanted) {
    const paths =
      engine === "cpu" ? ["portable", "avx2", "avx512", "amx"] : engine === "cuda" ? ["f32", "bf16", "fp16"] : [""];
    for (const path of paths) {
      const env = engine === "cpu" ? { SAETTA_CPU: path } : {};
      const dtype = engine === "cuda" ? `--dtype ${path}` : "";
      for (const [variant, options] of Object.entries(VARIANTS)) {
        const size = engine === "reference" ? "small" : variant === "plain" || variant === "clip" ? "wide" : "odd";
        yield { name: `${engine} ${path} ${variant}`, size, options: `--engine ${engine} ${dtype} ${options}`, env };
      }
      const options = `--engine ${engine} ${dtype} --normalize scale --ema 0.95`;
      yield { name: `${engine} ${path} resumed`, size: "small", options, env, cut: true };
    }
    if (!flags.grids || engine === "cuda") continue;
    for (const [shards, replicas] of [
      [2, 1],
      [1, 2],
      [2, 2],
    ]) {
      const options = `--engine ${engine} --normalize none --clip 0.02 --shards ${shards} --replicas ${replicas}`;
      const env = { OMPI_ALLOW_RUN_AS_ROOT: "1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: "1" };
      yield { name: `${engine} ${shards}x${replicas}`, size: "small", options, env };
    }
  }
  if (flags.grids && wanted.includes("cuda")) {
    for (const [shards, replicas] of [
      [2, 1],
      [1, 2],
    ]) {
      const options = `--engine cuda --dtype bf16 --normalize none --clip 0.02 --shards ${shards} --replicas ${replicas}`;
      yield { name: `cuda ${shards}x${replicas}`, size: "wide", options, env: {} };
    }
  }
}

function hashes(out) {
  const checkpoints = join(out, "checkpoints");
  const last = readdirSync(checkpoints).sort().at(-1);
  const all = ["sae.safetensors", "saetta.safetensors", "ema.safetensors", "optimizer.safetensors"];
  const there = all.filter((name) => readdirSync(join(checkpoints, last)).includes(name));
  return there
    .map(
      (name) =>
        `${name} ${createHash("sha256")
          .update(readFileSync(join(checkpoints, last, name)))
          .digest("hex")
          .slice(0, 16)}`,
    )
    .join("  ");
}

try {
  for (const [name, { d, rows }] of Object.entries(SIZES)) writeRows(join(folder, `${name}.npy`), rows, d);
  for (const { name, size, options, env, cut } of runs()) {
    if (!new RegExp(flags.only).test(name)) continue;
    const out = join(folder, name.replaceAll(/\W+/g, "-"));
    const call = (...words) =>
      run(process.execPath, [cli, ...words], { env: { ...process.env, ...env }, maxBuffer: 2 ** 26 });
    const words = `${SIZES[size].flags} ${COMMON} ${options}`.split(/\s+/).filter((word) => word !== "");
    try {
      await call("train", join(folder, `${size}.npy`), "--out", out, ...words);
      if (cut) {
        for (const step of readdirSync(join(out, "checkpoints")).sort().slice(-2)) {
          rmSync(join(out, "checkpoints", step), { recursive: true });
        }
        await call("resume", out);
      }
      console.log(`${name}: ${hashes(out)}`);
    } catch (thrown) {
      console.log(
        `${name}: failed: ${String(thrown.stderr ?? thrown)
          .trim()
          .split("\n")
          .at(-1)}`,
      );
    }
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
