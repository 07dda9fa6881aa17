// The main job on the example model and text: harvest activations, train an autoencoder on them,
// look at what it learned.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { evaluate, harvest, report, train } from "./demo-commands.mjs";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
let folder = "runs/demo";
for (let i = 2; existsSync(folder); i++) folder = `runs/demo-${i}`;

const began = performance.now();
for (const command of [harvest, train, evaluate, report]) saetta(command(folder));
console.log(
  `\nDone in ${Math.round((performance.now() - began) / 1000)} s. The autoencoder is in ${folder}/sae. To look at all it learned, open ${folder}/features.html in a browser.`,
);

/** Runs a command as a user would type it, and shows it. */
function saetta(words) {
  console.log(`\n$ saetta ${words}`);
  const { status } = spawnSync(process.execPath, ["dist/cli.js", ...words.split(" ")], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}
