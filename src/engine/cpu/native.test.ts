import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { SIGNATURES } from "./native.ts";

describe("native", () => {
  it("gives every C function as many arguments as it takes", () => {
    const folder = new URL("kernels/", import.meta.url);
    const source = readdirSync(folder)
      .map((name) => readFileSync(new URL(name, folder), "utf8"))
      .join("");
    for (const signature of Object.values(SIGNATURES)) {
      const [symbol, ...words] = signature.trim().split(" ");
      const list = new RegExp(`\\b${symbol}\\(([^)]*)\\) \\{`).exec(source)?.[1];
      const expected = list === undefined ? undefined : list.trim() === "" ? 0 : list.split(",").length;
      expect(words.filter((word) => !word.startsWith(">")).length, symbol).toBe(expected);
    }
  });
});
