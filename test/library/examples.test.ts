import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { type UserFolder, userFolder } from "../support/user.ts";

const FOLDER = "examples/library";
const WIDTH = 16;
let user: UserFolder;
beforeAll(async () => {
  user = await userFolder();
  await writeActivations(join(user.path, "acts.h5"), learnableRows(4000, WIDTH, 24), [200, 20, WIDTH]);
});
afterAll(() => user[Symbol.asyncDispose]());

/** What each example prints. */
const PRINTS: Readonly<Record<string, readonly RegExp[]>> = {
  train: [
    /^acts\.h5: 4,000 x 16 f32\n\d+ steps of \d+ rows, learning rate .*, (cpu|reference): /,
    /^step 100: FVU 0\.\d{3}, \d+ dead latents$/m,
    /^(done|stopped) after \d+ steps, held-out FVU (0\.\d{3}|not measured): runs\/a\/checkpoints\/step-\d{8}\n$/m,
  ],
  encode: [
    /^runs\/a\/checkpoints\/step-\d{8}, step \d+: 256 latents, \d+ of them on somewhere in 1000 rows\n/,
    /rebuild 1000 rows of 16\n$/,
  ],
  rows: [
    /^FVU 0\.\d{3} on the last batch, 0\.\d{3} on rows held out\n/,
    /\n(2[5-9]|3\d) of 32 directions were found\n$/,
  ],
};

describe("the library's examples", () => {
  it("are all here", async () => {
    const names = (await readdir(FOLDER)).filter((name) => name.endsWith(".ts")).map((name) => name.slice(0, -3));
    expect(names.toSorted()).toEqual(Object.keys(PRINTS).toSorted());
  });

  it("compile strictly against the published types, and print what they should", async () => {
    const names = Object.keys(PRINTS);
    const texts = await Promise.all(names.map((name) => readFile(join(FOLDER, `${name}.ts`), "utf8")));
    await user.compile(Object.fromEntries(names.map((name, i) => [name, texts[i]!])));
    for (const [name, patterns] of Object.entries(PRINTS)) {
      const printed = await user.node(name);
      for (const pattern of patterns) expect(printed).toMatch(pattern);
      expect(printed).not.toMatch(/NaN|undefined/);
    }
  });
});
