// The main job on the example model and text: harvest activations, train an autoencoder on them,
// look at what it learned.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));
let folder = "runs/demo";
for (let i = 2; existsSync(folder); i++) folder = `runs/demo-${i}`;

const began = performance.now();
saetta(
  `harvest --model examples/brown-gpt --text examples/brown.txt.gz --tensor /transformer/h.3/Add_1_output_0 --tokens 250k --out ${folder}/acts.h5`,
);
saetta(`train ${folder}/acts.h5 --latents 2048 --k 32 --batch 1024 --tokens 3M --out ${folder}/sae`);
saetta(`eval ${folder}/sae --features 5`);
saetta(`report ${folder}/sae --data ${folder}/acts.h5 --out ${folder}/features.html`);
console.log(
  `\nDone in ${Math.round((performance.now() - began) / 1000)} s. The autoencoder is in ${folder}/sae. To look at all it learned, open ${folder}/features.html in a browser.`,
);

/** Runs a command as a user would type it, and shows it. */
function saetta(words) {
  console.log(`\n$ saetta ${words}`);
  const { status } = spawnSync(process.execPath, ["dist/cli.js", ...words.split(" ")], { stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}
