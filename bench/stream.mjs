// Rows per second from standard input into the mixing buffer and out of it, with nothing that
// trains: `cat rows | node` that only reads, in turn with the reader of `saetta train -`.
// Usage: npm run build && node bench/stream.mjs [--rows 2M] [--rounds 5]. Takes a minute and a file
// of 3 GB; a run with the default options is kept in bench/results/.
import { execFileSync } from "node:child_process";
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { decimals, figure, tableMarkdown, tableText } from "../dist/bench/table.js";
import { openRowStream } from "../dist/data/stream-source.js";
import { countOf } from "../dist/util/numbers.js";
import { SocketBytes } from "../dist/util/socket-bytes.js";
import { machine } from "./machine.mjs";

const WIDTH = 768;
const FRAME = 4096;
const BATCH = 8192;
const { values: asked } = parseArgs({
  options: { rows: { type: "string" }, rounds: { type: "string" }, sink: { type: "string" } },
});

if (asked.sink !== undefined) {
  const began = performance.now();
  let rows = 0;
  let bytes = 0;
  if (asked.sink === "bytes") {
    for await (const chunk of process.stdin) bytes += chunk.length;
  } else {
    const source = await openRowStream(SocketBytes.of(0), "standard input", {
      ...{ holdout: 0, excludeTokens: "none", seed: 0, shuffle: asked.sink === "mixed" },
      ...(asked.sink === "mixed" ? { buffer: 200_000 } : { buffer: BATCH }),
    });
    const into = new Uint8Array(BATCH * WIDTH * 2);
    for (; rows < source.rows; rows += BATCH) await source.read(rows, Math.min(BATCH, source.rows - rows), into);
    rows = source.rows;
    bytes = rows * WIDTH * 2;
  }
  const { user, system } = process.cpuUsage();
  console.log(JSON.stringify({ ms: performance.now() - began, cpuMs: (user + system) / 1000, rows, bytes }));
} else {
  const rows = FRAME * Math.ceil(countOf(asked.rows ?? "2M") / FRAME);
  const rounds = Number(asked.rounds ?? 5);
  const folder = mkdtempSync(join(tmpdir(), "saetta-stream-"));
  try {
    const path = join(folder, "rows");
    const file = openSync(path, "w");
    const header = Buffer.from(JSON.stringify({ width: WIDTH, dtype: "f16", rows }));
    const number = (value) => Buffer.from(Uint32Array.of(value).buffer);
    writeSync(file, Buffer.concat([Buffer.from("SAETTA\x01\n", "latin1"), number(header.length), header]));
    const values = new Uint16Array(FRAME * WIDTH).map((_, i) => 0x3000 + (i % 997));
    const frame = Buffer.concat([number(FRAME), number(values.byteLength), Buffer.from(values.buffer)]);
    for (let at = 0; at < rows; at += FRAME) writeSync(file, frame);
    writeSync(file, Buffer.alloc(8));
    closeSync(file);
    const self = fileURLToPath(import.meta.url);
    const sinks = ["bytes", "ordered", "mixed"];
    const found = Object.fromEntries(sinks.map((sink) => [sink, []]));
    for (let round = 0; round < rounds; round++) {
      for (const sink of sinks) {
        const said = execFileSync("sh", ["-c", `cat ${path} | ${process.execPath} ${self} --sink ${sink}`]);
        found[sink].push(JSON.parse(said));
      }
    }
    const median = (sink, name) => found[sink].map((one) => one[name]).toSorted((a, b) => a - b)[rounds >> 1];
    const NAMES = {
      bytes: "cat rows | node, bytes only read",
      ordered: "saetta's reader, rows in their order",
      mixed: "saetta's reader, mixed among 200,000 rows",
    };
    const line = (sink) => {
      const [ms, bytes] = [median(sink, "ms"), median(sink, "bytes")];
      const rate = (1000 * bytes) / (WIDTH * 2) / ms;
      const share = (bytes / ms) * (median("bytes", "ms") / median("bytes", "bytes"));
      return [NAMES[sink], figure(rate), decimals(bytes / ms / 1e6), `${decimals(100 * share)} %`];
    };
    const { processor, features, saetta, date } = machine();
    const report = {
      title: `rows of width ${WIDTH} in float16 on standard input`,
      columns: ["", "rows/s", "GB/s", "of cat | node"],
      rows: sinks.map(line),
      notes: [`${rows} rows; ${rounds} rounds in turn, medians; the file is in the page cache`],
    };
    console.log(tableText(report));
    if (asked.rows === undefined && asked.rounds === undefined) {
      mkdirSync("bench/results", { recursive: true });
      const head = `- ${processor} (${features.join(", ")}); saetta ${saetta}\n- ${date} UTC: node bench/stream.mjs`;
      writeFileSync(
        "bench/results/stream.md",
        `# Rows from a stream, measured\n\n${head}\n\n${tableMarkdown(report)}\n`,
      );
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
