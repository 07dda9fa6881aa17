/** The TypeScript of the pages compiles strictly and runs. */

import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { type UserFolder, userFolder } from "../support/user.ts";
import { blocksOf, textOfPage } from "./pages.ts";

const EXAMPLES = ["README.md", "docs/library.md"].flatMap((page) =>
  blocksOf(textOfPage(page)).flatMap(({ language, code }) => (language === "ts" ? [code] : [])),
);

/** What the reader has: some rows, and a way to get more of them. */
const PRELUDE = `
const rows = Float32Array.from({ length: 3 * 64 }, (_, i) => Math.sin(i * i));
let drawn = 0;
async function nextRows(): Promise<Float32Array> {
  return Float32Array.from({ length: 128 * 64 }, () => Math.sin(drawn++ ** 2 % 1e6));
}
void [rows, nextRows];
`;

let user: UserFolder;
beforeAll(async () => {
  user = await userFolder();
  await writeActivations(join(user.path, "acts.h5"), learnableRows(2000, 64, 40), [100, 20, 64]);
});
afterAll(() => user[Symbol.asyncDispose]());

it("the TypeScript of README.md and docs/library.md compiles strictly and runs", async () => {
  expect(EXAMPLES.length).toBe(3);
  await user.compile(Object.fromEntries(EXAMPLES.map((code, i) => [`example-${i}`, `${PRELUDE}${code}`])));
  const printed: string[] = [];
  for (const i of EXAMPLES.keys()) printed.push(await user.node(`example-${i}`));
  expect(printed[0]).toMatch(/^\{\n {2}k: 32,\n {2}latent: Uint32Array\(96\)/);
  expect(printed[1]).toMatch(/^(done|stopped) \{\n {2}k: 32,\n {2}latent: Uint32Array\(96\)/);
  expect(printed[2]).toMatch(/^10 \d/);
}, 180_000);
