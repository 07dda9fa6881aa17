// One rank of a test, started by mpirun (or alone): node worker.mjs
// cases|steps|variants:JSON|architectures|operations|loop:JSON
// ENGINES SHARDS REPLICAS OUT; writes what it finds into OUT/rank-N.json.

import { writeFileSync } from "node:fs";
import { join as joinPath } from "node:path";
import { join } from "../../dist/collective/join.js";
import { launchEnvOf } from "../../dist/collective/launch-env.js";
import { solo } from "../../dist/collective/solo.js";
import { architectures } from "./architectures.mjs";
import { loop } from "./loop.mjs";
import { operations } from "./operations.mjs";
import { steps } from "./steps.mjs";

const [what, engines, shards, replicas, out] = process.argv.slice(2);
const [test, asked] = what.split(/:(.*)/s);

async function engineOf(name, collective) {
  if (name === "cuda" || name === "cuda-bf16") {
    const dtype = name === "cuda" ? "f32" : "bf16";
    return (await import("../../dist/engine/cuda/index.js")).createCudaEngine({ dtype, collective, folders: [out] });
  }
  if (name === "reference") return (await import("../../dist/engine/reference.js")).createReferenceEngine(collective);
  return (await import("../../dist/engine/cpu/index.js")).createCpuEngine({ threads: 2, collective });
}

async function cases(engine, collective) {
  const { GRID_CASES } = await import("../../dist/engine/conformance-grid.js");
  const found = {};
  // Every rank goes on after a failure, as the others wait for it.
  for (const { name, run } of GRID_CASES)
    found[name] = await run(engine, collective).then(
      () => "ok",
      (error) => String(error),
    );
  return found;
}

const loopAsked = (engine, collective) => loop(engine, collective, JSON.parse(asked));

/** Steps for each of the variants that are asked for. */
async function variants(engine, collective) {
  const found = [];
  for (const each of JSON.parse(asked)) found.push(await steps(engine, collective, each));
  return found;
}

const launched = launchEnvOf(process.env);
const collective =
  launched === undefined
    ? solo()
    : await join(launched, { shards: Number(shards), replicas: Number(replicas), kind: "mpi" });
const found = {};
for (const name of engines.split(",")) {
  const engine = await engineOf(name, collective);
  found[name] = await { cases, steps, variants, architectures, operations, loop: loopAsked }[test](engine, collective);
  await engine.close();
}
writeFileSync(joinPath(out, `rank-${collective.grid.rank}.json`), JSON.stringify(found));
await collective.close();
