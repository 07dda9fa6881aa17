// The training step at the shapes that releases are compared at, as `saetta bench` times one. Usage: npm run bench [-- --threads N]
import { cpus, release } from "node:os";
import { stepText } from "../dist/bench/print.js";
import { timeStep } from "../dist/bench/step.js";

const threads = process.argv.includes("--threads") ? Number(process.argv[process.argv.indexOf("--threads") + 1]) : undefined;
console.log(`${cpus()[0].model} x ${cpus().length}, Linux ${release()}, Node ${process.versions.node}`);
for (const auxk of [0, 256]) {
  console.log(stepText(await timeStep({ shape: { d: 256, n: 2048, k: 32, auxk }, batch: 1024, engine: "cpu", threads })));
  console.log(stepText(await timeStep({ shape: { d: 768, n: 32768, k: 32, auxk }, batch: 1024, engine: "cpu", threads })));
}
