/**
 * What `npm ci` of a checkout leaves: the command, and no download from anywhere but the registry.
 */

import { execFileSync, spawnSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { expect, it } from "vitest";

it("the command is node_modules/.bin/saetta, without npx", () => {
  const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { readonly version: string };
  expect(execFileSync("node_modules/.bin/saetta", ["--version"], { encoding: "utf8" })).toBe(`${version}\n`);
});

it("the install script of onnxruntime-node ends before it fetches anything, and npm has nothing to warn of", () => {
  const folder = mkdtempSync(join(tmpdir(), "saetta-install-"));
  try {
    const script = join(folder, "node_modules/onnxruntime-node/script");
    cpSync("node_modules/onnxruntime-node/script", script, { recursive: true });
    cpSync("scripts/no-download", join(folder, "node_modules/global-agent"), { recursive: true });
    symlinkSync(resolve("node_modules/adm-zip"), join(folder, "node_modules/adm-zip"));
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_|onnxruntime/i.test(name)));
    const end = spawnSync(
      process.execPath,
      ["-e", 'process.on("exit", () => console.log("ended")); require("./install")'],
      {
        cwd: script,
        encoding: "utf8",
        // It would fetch these files if it came so far.
        env: { ...env, ONNXRUNTIME_NODE_INSTALL: "cuda12", npm_config_registry: "http://127.0.0.1:1" },
      },
    );
    expect({ code: end.status, out: end.stdout, err: end.stderr }).toEqual({ code: 0, out: "ended\n", err: "" });
  } finally {
    rmSync(folder, { recursive: true });
  }
  const { packages } = JSON.parse(readFileSync("package-lock.json", "utf8")) as { packages: Record<string, unknown> };
  expect(packages["node_modules/global-agent"]).toEqual({ resolved: "scripts/no-download", link: true });
  expect(existsSync(".npmrc")).toBe(false);
});
