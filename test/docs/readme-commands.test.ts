/**
 * README's own-data commands as a reader types them, on small data: the blocks of shell run one
 * after the other in one folder, then the blocks of Python in one program.
 */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { CHILD_MS } from "../support/limits.ts";
import { learnableRows } from "../support/memory-source.ts";
import { PYTHON, python } from "../support/python.ts";
import { documentsIn } from "../support/text.ts";
import { blocksOf, textOfPage } from "./pages.ts";

const TENSOR = "/transformer/h.3/Add_1_output_0";
// Fewer latents, so that the commands end soon.
const BLOCKS = blocksOf(textOfPage("README.md").replaceAll("16384", "1024"));
const SHELL = BLOCKS.filter(({ language, code }) => language === "sh" && code.startsWith("saetta ")).map(
  // The run of the files is there already; the model's tensor has a name.
  ({ code }, i) => code.replaceAll("runs/first", i === 0 ? "runs/first" : "runs/second").replace("NAME", TENSOR),
);
const noTorch = await python("torch");

let folder: string;
let env: NodeJS.ProcessEnv;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-readme-"));
  await mkdir(join(folder, "bin"));
  await mkdir(join(folder, "acts"));
  const command = join(folder, "bin", "saetta");
  await writeFile(command, `#!/bin/sh\nexec "${process.execPath}" "${resolve("dist/cli.js")}" "$@"\n`);
  await chmod(command, 0o755);
  for (const shard of [1, 2])
    await writeActivations(join(folder, "acts", `acts-${shard}.h5`), learnableRows(2000, 32, 40, shard), [100, 20, 32]);
  await symlink(resolve("examples/brown-gpt"), join(folder, "model"));
  await writeFile(join(folder, "my.txt"), documentsIn("examples/brown.txt.gz", 60_000));
  env = {
    ...process.env,
    PATH: `${join(folder, "bin")}${delimiter}${process.env.PATH}`,
    PYTHONPATH: resolve("python"),
    PYTHONDONTWRITEBYTECODE: "1",
    OMP_NUM_THREADS: "1",
  };
});
afterAll(() => rm(folder, { recursive: true }));

const run = (command: string, ...words: string[]) =>
  promisify(execFile)(command, words, { cwd: folder, env, timeout: CHILD_MS });

it("the commands for files, and for text and a model, run as they are written", async () => {
  expect(SHELL).toHaveLength(2);
  for (const commands of SHELL) await run("/bin/sh", "-e", "-c", commands);
  expect(["runs/first", "runs/second", "features.html"].filter((name) => !existsSync(join(folder, name)))).toEqual([]);
});

it.skipIf(noTorch !== undefined)("the Python of README.md runs, and loads the run of the commands", async () => {
  const blocks = BLOCKS.filter(({ language }) => language === "python").map(({ code }) => code);
  const tensors = "import torch\ntensors = [torch.randn(1000, 32) for _ in range(4)]\nx = torch.randn(5, 32)\n";
  await rm(join(folder, "features.html"), { force: true });
  const { stdout } = await run(
    PYTHON,
    "-c",
    `${tensors}${blocks.join("\n")}\nprint(tuple(latents.shape), tuple(x_hat.shape))`,
  );
  expect(stdout).toContain("(5, 1024) (5, 32)");
  expect(existsSync(join(folder, "features.html"))).toBe(true);
});
