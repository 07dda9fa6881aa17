/** Scripts outside src/ are not type-checked. Tests that the build exports what they import. */

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("..", import.meta.url));
const scripts = execFileSync("git", ["ls-files", "bench/*.mjs", "scripts/*.mjs", "test/*.mjs"], { cwd: root })
  .toString()
  .split("\n")
  .filter((name) => name !== "");

const IMPORTS = [
  /import \{([^}]*)\} from "([^"]*\/dist\/[^"]*)"/g,
  /const \{([^}]*)\} = await import\("([^"]*\/dist\/[^"]*)"\)/g,
];
const ONE = /\(await import\("([^"]*\/dist\/[^"]*)"\)\)\.(\w+)/g;

/** What a script imports from the build: the source file behind it, and a name. */
function importsOf(script: string): [file: string, name: string][] {
  const text = readFileSync(join(root, script), "utf8");
  const all = IMPORTS.flatMap((pattern) =>
    [...text.matchAll(pattern)].flatMap(([, names, from]) =>
      names!
        .split(",")
        .map((name) => name.trim().split(/:| as /)[0]!)
        .filter((name) => name !== "")
        .map((name): [string, string] => [from!, name]),
    ),
  );
  const ones = [...text.matchAll(ONE)].map(([, from, name]): [string, string] => [from!, name!]);
  return [...all, ...ones].map(([from, name]) => {
    const built = resolve(root, dirname(script), from);
    return [built.replace(join(root, "dist"), join(root, "src")).replace(/\.js$/, ".ts"), name];
  });
}

const using = scripts.filter((script) => importsOf(script).length > 0);

describe("scripts import from the build what it has", () => {
  it("some do", () => {
    expect(using).toContain("test/grid/worker.mjs");
    expect(using).toContain("bench/main.mjs");
  });

  it.each(using)("%s", async (script) => {
    for (const [file, name] of importsOf(script)) {
      const exported = (await import(file)) as Record<string, unknown>;
      expect(Object.keys(exported), file).toContain(name);
    }
  });
});
