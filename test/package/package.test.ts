/** The tarball, as a user installs it: into an empty folder, without install scripts. */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { kernelLibrary } from "../../src/engine/cpu/compile.ts";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";

const folder = mkdtempSync(join(tmpdir(), "saetta-package-"));
const home = join(folder, "consumer");
const cache = join(folder, "cache");
const npm = (cwd: string, ...words: string[]) =>
  execFileSync("npm", words, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });

function saetta(...words: string[]): { readonly code: number | null; readonly out: string; readonly err: string } {
  const { status, stdout, stderr } = spawnSync("npx", ["--no-install", "saetta", ...words], {
    cwd: home,
    encoding: "utf8",
    env: { ...process.env, XDG_CACHE_HOME: cache },
  });
  return { code: status, out: stdout, err: stderr.replace(/^npm warn.*\n/gm, "") };
}

beforeAll(async () => {
  // Compiled a second time the kernels would take a minute, and be the same: the library is found
  // by the hash of their sources.
  const library = await kernelLibrary();
  mkdirSync(join(cache, "saetta"), { recursive: true });
  copyFileSync(library, join(cache, "saetta", basename(library)));
  mkdirSync(home);
  npm(process.cwd(), "pack", "--ignore-scripts", "--pack-destination", folder);
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"));
  writeFileSync(join(home, "package.json"), '{ "name": "consumer", "private": true, "type": "module" }\n');
  npm(
    home,
    "install",
    "--ignore-scripts",
    "--prefer-offline",
    "--no-audit",
    "--no-fund",
    join(folder, String(tarball)),
  );
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the installed package", () => {
  it("has a doctor that finds the engines and tests them", () => {
    const { code, out } = saetta("doctor");
    expect(out).toContain("engine reference");
    expect(out).toMatch(/self-test +cpu agrees with reference: \de-\d/);
    expect(out).toContain("harvest needs onnxruntime-node");
    expect(code).toBe(0);
    // What it would compile is what is compiled here, no file and no byte less.
    expect(existsSync(join(home, "node_modules", "saetta", "build"))).toBe(false);
  });

  it("holds the Python package, and says where", () => {
    const { out } = saetta("python-path");
    const found = readdirSync(out.trim(), { recursive: true }).map(String);
    expect(found).toContain("saetta/py.typed");
    expect(found.filter((name) => !/^saetta($|\/\w+\.py$|\/py\.typed$)/.test(name))).toEqual([]);
  });

  it("trains", async () => {
    await writeActivations(join(home, "acts.h5"), learnableRows(2000, 8, 16), [2000, 8]);
    const { code, out, err } = saetta("train", "acts.h5", "--latents", "32", "--k", "2", "--out", "run");
    expect(err).toBe("");
    expect(out).toMatch(/^run +run\n/);
    expect(code).toBe(0);
  });

  it("shows the run", async () => {
    const serving = spawn(
      process.execPath,
      [join(home, "node_modules/saetta/dist/cli.js"), "serve", "run", "--port", "0"],
      { cwd: home },
    );
    const [address] = (await once(serving.stdout, "data")) as [Buffer];
    const url = address.toString().trim();
    const page = await (await fetch(url)).text();
    expect(page).toContain('<div id="app">');
    for (const [, asset] of page.matchAll(/(?:src|href)="\/(assets\/[^"]+)"/g))
      expect((await fetch(`${url}${asset}`)).status).toBe(200);
    serving.kill("SIGTERM");
    await once(serving, "exit");
  });

  it("says what harvest needs", () => {
    writeFileSync(join(home, "text.txt"), "some text\n");
    const model = join(process.cwd(), "examples", "brown-gpt");
    const { code, err } = saetta(
      "harvest",
      "--model",
      model,
      "--text",
      "text.txt",
      "--tensor",
      "/transformer/h.3/Add_1_output_0",
      "--out",
      "a.h5",
    );
    expect(err).toBe(
      "saetta: harvest and eval --loss need onnxruntime-node: npm install --ignore-scripts onnxruntime-node@1.30.0\n",
    );
    expect(code).toBe(1);
  });

  it("is a library, with types", () => {
    const code =
      'import { train, loadSae, openActivations, SaettaError } from "saetta"; console.log([train, loadSae, openActivations, SaettaError].map((each) => typeof each).join());';
    writeFileSync(join(home, "use.js"), code);
    expect(execFileSync(process.execPath, ["use.js"], { cwd: home, encoding: "utf8" })).toBe(
      "function,function,function,function\n",
    );
    expect(readdirSync(join(home, "node_modules", "saetta", "dist"))).toContain("index.d.ts");
  });
});
