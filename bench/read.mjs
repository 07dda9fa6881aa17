// How fast rows are read as training reads them (shuffled blocks and windows, excluded rows
// squeezed out, every element checked as the cpu engine does), next to a plain sequential read of
// the same file into memory of the same size: all rows, with one row in 128 excluded, the share of
// one of 2 and of 4 replicas, and gzip'd HDF5 chunks. In turn, medians; the file is in the system's
// cache, so the disk plays no part. `--cold` drops it before each run (needs root). The default
// figures are kept in bench/results/read.md.
// Usage: npm run build && node bench/read.mjs [--cold] [--mib N]
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { mkdtemp, open, rm } from "node:fs/promises";
import { availableParallelism, cpus, release, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { tableMarkdown, tableText } from "../dist/bench/table.js";
import { batches, START } from "../dist/data/batches.js";
import { lanesFor } from "../dist/data/lanes.js";
import { RowSet } from "../dist/data/mask.js";
import { openSource } from "../dist/data/open.js";
import { Order } from "../dist/data/order.js";
import { nonFiniteRows } from "../dist/util/float16.js";
import { screenedMemory } from "../dist/util/screen.js";

const WIDTH = 768;
const { values: asked } = parseArgs({ options: { cold: { type: "boolean" }, mib: { type: "string" } } });
const { cold = false } = asked;
const BYTES = Number(asked.mib ?? 256) * 2 ** 20;
const WINDOW = 64 * 2 ** 20;
const BATCH = 4096;
const RUNS = 5;

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

/**
 * One epoch. `every`: one row in so many is excluded, as start tokens are. `replicas`: the rate of
 * all of them, from the time of one.
 */
async function shuffled(path, { every = 0, replicas = 1 } = {}) {
  const source = await openSource([path]);
  const excluded = new RowSet(source.rows);
  if (every > 0) for (let row = 0; row < source.rows; row += every) excluded.add(row);
  const rowBytes = WIDTH * KINDS[source.dtype].bytes;
  const order = new Order({ rows: source.rows, rowBytes, grain: source.grain }, excluded, {
    ...{ seed: Math.floor(Math.random() * 1e9), shuffle: true, batch: BATCH, lanes: lanesFor(BATCH) },
  });
  const ring = {
    memory: (bytes) => new Uint8Array(screenedMemory(bytes), 0, bytes),
    bring: async (_, bytes) => nonFiniteRows(bytes, source.dtype, WIDTH, 0, bytes.length / rowBytes),
  };
  const share = replicas === 1 ? undefined : { replica: 0, replicas, batch: BATCH, agree: async (rows) => rows };
  const began = performance.now();
  let left = Math.floor(order.rowsPerEpoch / BATCH);
  const size = () => (left-- > 0 ? BATCH : 0);
  for await (const batch of batches({ source, order, ring, nonFinite: "stop" }, START, size, { share }))
    if (batch.rows.length !== BATCH / replicas) throw new Error("a short batch");
  const seconds = (performance.now() - began) / 1000;
  await source.close();
  return (source.rows * rowBytes) / 1e9 / seconds;
}

const GZIP = `
import h5py, numpy, sys
rows = numpy.load(sys.argv[1], mmap_mode="r")
with h5py.File(sys.argv[2], "w") as file:
    file.create_dataset("hidden_states", data=rows, chunks=(128, rows.shape[1]), compression="gzip", compression_opts=1)
`;

const median = (runs, name) => runs.map((run) => run[name]).toSorted((a, b) => a - b)[runs.length >> 1];
const machine = `${cpus()[0].model}, ${availableParallelism()} processors, Linux ${release()}, Node ${process.versions.node}, ${cold ? "cold" : "cached"} files of ${(BYTES / 1e9).toFixed(1)} GB`;
console.log(machine);
const folder = await mkdtemp(join(tmpdir(), "saetta-read-"));
const lines = [];
try {
  for (const [dtype, kind] of Object.entries(KINDS)) {
    const path = join(folder, `${dtype}.npy`);
    await makeFile(path, kind);
    const zipped = join(folder, `${dtype}.h5`);
    const { status } = spawnSync("/usr/bin/python3", ["-c", GZIP, path, zipped], { stdio: "inherit" });
    const ways = {
      plain: () => plain(path),
      shuffled: () => shuffled(path),
      "one row in 128 excluded": () => shuffled(path, { every: 128 }),
      "share of one of 2 replicas": () => shuffled(path, { replicas: 2 }),
      "share of one of 4 replicas": () => shuffled(path, { replicas: 4 }),
      ...(status === 0 ? { "gzip'd HDF5 chunks": () => shuffled(zipped) } : {}),
    };
    const found = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
    for (let run = 0; run <= RUNS; run++) {
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
      lines.push([`${dtype}, ${name}`, rate.toFixed(2), `${share} %`, median(runs, "cpu").toFixed(2)]);
    }
    await rm(path);
    await rm(zipped, { force: true });
  }
} finally {
  await rm(folder, { recursive: true });
}
const table = {
  title: "Reading rows as training does",
  columns: ["", "GB/s of the file", "of plain", "CPU s per GB of the file"],
  rows: lines,
  notes: [
    "share of one of R replicas: the file over the time that one of them takes for its share",
    "on a machine that does other work, compare processor time rather than rates",
  ],
};
console.log(tableText(table));
if (asked.mib === undefined && !cold)
  writeFileSync(
    join(import.meta.dirname, "results", "read.md"),
    `# Reading rows, measured\n\n${machine} (bench/read.mjs).\n\n${tableMarkdown(table)}\n`,
  );
