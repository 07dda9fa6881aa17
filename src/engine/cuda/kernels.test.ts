import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { KERNELS, type Kernel } from "./kernels.ts";
import { KERNELS as FOLDER } from "./nvrtc.ts";

/** Parameters of every kernel in the sources, in the letters of KERNELS. */
function declared(): Map<string, string> {
  const found = new Map<string, string>();
  for (const name of readdirSync(FOLDER).filter((each) => each.endsWith(".cu"))) {
    const source = readFileSync(join(FOLDER, name), "utf8");
    for (const [, kernel, list] of source.matchAll(
      /extern "C" __global__ void(?: __\w+__\([^)]*\))?\s+(\w+)\(([^)]*)\)/g,
    )) {
      const letters = list!.split(",").map((parameter) => {
        if (parameter.includes("*")) return "p";
        const type = /(\w+)\s+\w+\s*$/.exec(parameter.trim())?.[1] ?? "";
        return { u32: "u", double: "f", f64: "f", Gradients: "G", Weights: "W", Share: "S" }[type] ?? `(${type})`;
      });
      found.set(kernel!, `${name.slice(0, -3)} ${letters.join("")}`);
    }
  }
  return found;
}

describe("KERNELS", () => {
  const sources = declared();

  it.for(Object.keys(KERNELS) as Kernel[])("%s is launched with what it takes", (kernel) => {
    const [file, ...groups] = KERNELS[kernel].split(" ");
    expect(`${file} ${groups.join("")}`).toBe(sources.get(kernel));
  });

  it("knows every kernel", () => {
    expect([...sources.keys()].sort()).toEqual(Object.keys(KERNELS).sort());
  });

  it("gives the structures as many numbers as they have", () => {
    const source = readFileSync(join(FOLDER, "gradients.cuh"), "utf8");
    const body = /struct Gradients \{(.*?)\n\};/s.exec(source)![1]!.replace(/\/\/\/.*$/gm, "");
    expect(
      body
        .split(";")
        .slice(0, -1)
        .flatMap((line) => line.split(",")),
    ).toHaveLength(20);
  });
});
