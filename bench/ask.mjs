// How long the page of `saetta serve --model` waits for an answer, over HTTP, with the example
// model and 2,048 random latents: a sentence (bound: 300 ms), and 20 tokens of continuation with
// and without an edit (bound: 2 s).
// Usage: npm run build && node bench/ask.mjs [--rounds N]. Takes a minute; a run is kept in
// bench/results/.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { AskServer } from "../dist/ask/ask-server.js";
import { serveDashboard } from "../dist/dashboard/server.js";
import { fromRows, train } from "../dist/index.js";
import { machine } from "./machine.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
const { values: asked } = parseArgs({ options: { rounds: { type: "string" } } });
const rounds = Number(asked.rounds ?? 30);
const THREADS = 2;
const WIDTH = 256;
const ROWS = 8192;
const TEXT = "The old man looked out of the window and said that it would rain before the night was over.";
const continuation = { tokens: 20, seed: 1, temperature: 0.7 };
const edits = [{ latent: 5, kind: "set", value: 4, positions: "all" }];
const QUESTIONS = [
  ["a sentence", 300, "text", { text: TEXT }],
  ["500 words", undefined, "text", { text: "old ".repeat(500) }],
  ["20 tokens, with and without", 2000, "steer", { text: TEXT, edits, continuation }],
];

const folder = mkdtempSync(join(tmpdir(), "saetta-bench-ask-"));
try {
  const rows = Float32Array.from({ length: ROWS * WIDTH }, (_, i) => Math.sin(i * i));
  const source = fromRows(() => [rows], { dIn: WIDTH, rows: ROWS });
  const out = join(folder, "runs", "bench");
  const run = await train(source, { latents: 2048, k: 32, batch: 1024, tokens: ROWS, out });
  await run.finished;
  const model = await AskServer.start({
    model: "examples/brown-gpt",
    tensor: "/transformer/h.3/Add_1_output_0",
    threads: THREADS,
  });
  const page = await serveDashboard({ folders: [join(folder, "runs")], port: 0, ask: model });
  const get = async (path) => (await fetch(new URL(path, page.url))).json();
  const { token } = await get("/api/token");
  await get("/api/ask/bench");
  const headers = { "content-type": "application/json", "x-saetta-token": token, origin: page.url.slice(0, -1) };
  const lines = [];
  for (const [name, bound, kind, question] of QUESTIONS) {
    const times = [];
    for (let round = -2; round < rounds; round++) {
      const began = performance.now();
      const answer = await fetch(new URL(`/api/ask/bench/${kind}`, page.url), {
        method: "POST",
        headers,
        body: JSON.stringify(question),
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error(text);
      if (round >= 0) times.push(performance.now() - began);
    }
    times.sort((a, b) => a - b);
    const at = (share) => Math.round(times[Math.floor((times.length - 1) * share)]);
    lines.push(`| ${name} | ${at(0)} | ${at(0.5)} | ${at(0.9)} | ${at(1)} | ${bound ?? ""} |`);
  }
  await page.close();
  await model[Symbol.asyncDispose]();
  const { processor, cpus, memory, system, saetta, node, date } = machine();
  const report = `# Answers of serve --model, measured

- ${processor}, ${THREADS} threads of ${cpus} CPUs, ${memory}, ${system}
- saetta ${saetta}, Node ${node}
- ${date} UTC: node bench/ask.mjs

| question | least, ms | median | 9 of 10 | most | bound |
| --- | ---: | ---: | ---: | ---: | ---: |
${lines.join("\n")}

- examples/brown-gpt, 2,048 latents, k 32, over HTTP on loopback
- ${rounds} rounds each after two that do not count; load of the machine at the end: ${loadavg()[0].toFixed(1)}
- The sentence has 21 tokens. Each answer has all latents and the likeliest next tokens of every token.
`;
  mkdirSync("bench/results", { recursive: true });
  writeFileSync("bench/results/ask.md", report);
  process.stdout.write(report);
} finally {
  rmSync(folder, { recursive: true });
}
