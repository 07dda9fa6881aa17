// How fast rows are read as training reads them (shuffled blocks and windows, excluded rows
// squeezed out, every element checked), beside a plain sequential read of the same file into memory
// of the same size. In turn, medians; the file is in the system's cache, so the disk plays no part.
// `--cold` drops it before each run (needs root). Usage: npm run build && node bench/read.mjs
// [--cold]
import { writeFileSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { cpus, release, tmpdir } from "node:os";
import { join } from "node:path";
import { batches, START } from "../dist/data/batches.js";
import { RowSet } from "../dist/data/mask.js";
import { openSource } from "../dist/data/open.js";
import { Order } from "../dist/data/order.js";

const WIDTH = 768;
const BYTES = 1.5 * 2 ** 30;
const WINDOW = 64 * 2 ** 20;
const BATCH = 4096;
const RUNS = 7;
const cold = process.argv.includes("--cold");

const KINDS = {
  f16: { descr: "<f2", bytes: 2, element: () => 0x3000 + Math.floor(Math.random() * 0x1000), array: Uint16Array },
  f32: { descr: "<f4", bytes: 4, element: () => Math.random() - 0.5, array: Float32Array },
};

async function makeFile(path, { descr, bytes, element, array }) {
  const rows = Math.floor(BYTES / (WIDTH * bytes));
  const header = `{'descr': '${descr}', 'fortran_order': False, 'shape': (${rows}, ${WIDTH}), }`.padEnd(117);
  const file = await open(path, "w");
  await file.write(Buffer.concat([Buffer.from(`\x93NUMPY\x01\x00\x76\x00${header}\n`, "latin1")]));
  const part = Buffer.from(array.from({ length: 4096 * WIDTH }, element).buffer);
  const rowBytes = WIDTH * bytes;
  for (let row = 0; row < rows; row += 4096) await file.write(part.subarray(0, Math.min(4096, rows - row) * rowBytes));
  await file.close();
}

/** Pieces of a window into the same memory, over and over. */
async function plain(path) {
  const file = await open(path);
  const { size } = await file.stat();
  const memory = new Uint8Array(WINDOW).fill(1);
  const began = performance.now();
  for (let at = 0; at < size; ) at += (await file.read(memory, 0, memory.length, at)).bytesRead;
  const seconds = (performance.now() - began) / 1000;
  await file.close();
  return size / 1e9 / seconds;
}

/** One epoch; `every`: one row in so many is excluded, as start tokens are. */
async function shuffled(path, every) {
  const source = await openSource([path]);
  const excluded = new RowSet(source.rows);
  if (every > 0) for (let row = 0; row < source.rows; row += every) excluded.add(row);
  const rowBytes = WIDTH * KINDS[source.dtype].bytes;
  const order = new Order({ rows: source.rows, rowBytes, grain: source.grain }, excluded, {
    seed: Math.floor(Math.random() * 1e9),
    shuffle: true,
    batch: BATCH,
  });
  const began = performance.now();
  let left = Math.floor(order.rowsPerEpoch / BATCH);
  for await (const batch of batches(source, order, "stop", START, () => (left-- > 0 ? BATCH : 0)))
    if (batch.rows.length !== BATCH) throw new Error("a short batch");
  const seconds = (performance.now() - began) / 1000;
  await source.close();
  return (source.rows * rowBytes) / 1e9 / seconds;
}

const median = (runs, name) => runs.map((run) => run[name]).toSorted((a, b) => a - b)[runs.length >> 1];
console.log(
  `${cpus()[0].model} x ${cpus().length}, Linux ${release()}, Node ${process.versions.node}, ${cold ? "cold" : "cached"} files of ${(BYTES / 1e9).toFixed(1)} GB`,
);
const folder = await mkdtemp(join(tmpdir(), "saetta-read-"));
try {
  for (const [dtype, kind] of Object.entries(KINDS)) {
    const path = join(folder, `${dtype}.npy`);
    await makeFile(path, kind);
    const found = { plain: [], shuffled: [], "shuffled, one row in 128 excluded": [] };
    for (let run = 0; run <= RUNS; run++) {
      const ways = {
        plain: () => plain(path),
        shuffled: () => shuffled(path, 0),
        "shuffled, one row in 128 excluded": () => shuffled(path, 128),
      };
      for (const [name, way] of Object.entries(ways)) {
        if (cold) writeFileSync("/proc/sys/vm/drop_caches", "1");
        const before = process.cpuUsage();
        const rate = await way();
        const { user, system } = process.cpuUsage(before);
        if (run > 0) found[name].push({ rate, cpu: (user + system) / 1e6 / (BYTES / 1e9) });
      }
    }
    for (const [name, runs] of Object.entries(found)) {
      const rate = median(runs, "rate");
      const share = Math.round((100 * rate) / median(found.plain, "rate"));
      console.log(
        `${dtype}, ${name}: ${rate.toFixed(2)} GB/s (${share} %), ${median(runs, "cpu").toFixed(2)} s of CPU a GB`,
      );
    }
    await rm(path);
  }
} finally {
  await rm(folder, { recursive: true });
}
