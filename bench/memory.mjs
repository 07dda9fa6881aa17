// The most memory that runs take (VmHWM of a process of its own) beside what was said before they
// began. The first run is on an 8 GB file, sparse on disk, of which some windows are read. Usage:
// npm run build && node bench/memory.mjs
import { execFileSync } from "node:child_process";
import { mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const SHAPES = [
  { bytes: 8e9, d: 768, descr: "<f2", latents: 1024, k: 32, batch: 4096, steps: 100, auxk: 64 },
  { bytes: 8e9, d: 768, descr: "<f4", latents: 1024, k: 32, batch: 4096, steps: 60, auxk: 64 },
  { bytes: 4e8, d: 768, descr: "<f2", latents: 16384, k: 32, batch: 1024, steps: 8, auxk: 256 },
  { bytes: 4e8, d: 256, descr: "<f2", latents: 2048, k: 32, batch: 1024, steps: 60, auxk: 256 },
  { bytes: 1e8, d: 256, descr: "<f4", latents: 8192, k: 32, batch: 16384, steps: 3, auxk: 256 },
];

const CHILD = `
  import { readFileSync } from "node:fs";
  import { openSource } from ${JSON.stringify(fileURLToPath(new URL("../dist/data/open.js", import.meta.url)))};
  import { train } from ${JSON.stringify(fileURLToPath(new URL("../dist/train/train.js", import.meta.url)))};
  const [path, out, options] = process.argv.slice(1);
  const source = await openSource([path]);
  const began = performance.now();
  const run = await train(source, { ...JSON.parse(options), out, mseScale: 1, checkpointEvery: 0 });
  const started = performance.now();
  const { sae, tokens } = await run.finished;
  const seconds = (performance.now() - started) / 1000;
  await sae.close();
  await source.close();
  const peak = Number(/VmHWM:\\s+(\\d+)/.exec(readFileSync("/proc/self/status", "utf8"))[1]) * 1024;
  const { memory, seconds: said } = run.forecast;
  console.log(JSON.stringify({ peak, tokens, seconds, said, memory, start: (started - began) / 1000 }));
`;

const MIB = 2 ** 20;
const folder = await mkdtemp(join(tmpdir(), "saetta-memory-"));
try {
  for (const [i, { bytes, d, descr, steps, ...options }] of SHAPES.entries()) {
    const path = join(folder, `${i}.npy`);
    const rows = Math.floor(bytes / (d * Number(descr.at(-1))));
    const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${rows}, ${d}), }`.padEnd(117);
    const file = await open(path, "w");
    await file.write(Buffer.from(`\x93NUMPY\x01\x00\x76\x00${header}\n`, "latin1"));
    await file.truncate(128 + rows * d * Number(descr.at(-1)));
    // Something to learn from, in every hundredth row or so; the rest is holes.
    const some = Buffer.from(
      Uint8Array.from({ length: d * Number(descr.at(-1)) }, (_, at) =>
        at % 2 === 0 ? Math.floor(Math.random() * 256) : 0x38,
      ),
    );
    for (let row = 0; row < rows; row += 97 + (row % 11))
      await file.write(some, 0, some.length, 128 + row * some.length);
    await file.close();
    const wanted = JSON.stringify({ ...options, tokens: steps * options.batch });
    const found = JSON.parse(
      execFileSync(process.execPath, ["--input-type=module", "-e", CHILD, path, join(folder, `run-${i}`), wanted], {
        encoding: "utf8",
      }),
    );
    const model = 3 * 4 * (2 * d * options.latents + options.latents + d);
    console.log(
      `${(bytes / 1e9).toFixed(1)} GB of ${descr} x ${d}, n ${options.latents}, batch ${options.batch}: peak ${(found.peak / MIB).toFixed(0)} MiB, said ${(found.memory.needed / MIB).toFixed(0)} ` +
        `(${(found.memory.needed / found.peak).toFixed(2)} x); beyond the model ${((found.peak - model) / MIB).toFixed(0)} MiB; ${found.seconds.toFixed(1)} s, said ${found.said.toFixed(1)}, start ${found.start.toFixed(1)}`,
    );
    await rm(path);
  }
} finally {
  await rm(folder, { recursive: true });
}
