/**
 * 32,768 latents: made in bounded memory, and shown without loading them all. Minutes long: npm run
 * test:large.
 */

import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createHdf5 } from "../../src/formats/hdf5-write.ts";
import { loadTokenizer } from "../../src/language-model/tokenizer.ts";
import { bytesOf } from "../../src/util/bytes.ts";
import { Rng } from "../../src/util/rng.ts";
import { start } from "../cli/saetta.ts";
import { startChromium, WHY_NO_CHROMIUM, watchedPage } from "../support/chromium.ts";
import { MODEL, writeTiedSae } from "../support/planted.ts";
import { documentsIn } from "../support/text.ts";

const LATENTS = 32_768;
const WIDTH = 64;
const ROWS = 30_000;
const GIB = 2 ** 30;

const why = process.env.SAETTA_LARGE === "1" ? WHY_NO_CHROMIUM : "SAETTA_LARGE=1 is not set (npm run test:large)";

let folder = "";
beforeAll(async () => {
  if (why !== undefined) return;
  folder = await mkdtemp(join(tmpdir(), "saetta-large-"));
  const rng = new Rng(1);
  const normal = (count: number) => Float32Array.from({ length: count }, () => rng.normal());
  await writeTiedSae(folder, WIDTH, 32, normal(LATENTS * WIDTH), new Float32Array(LATENTS));
  const tokenizer = await loadTokenizer(join(MODEL, "tokenizer.json"));
  const file = await createHdf5(join(folder, "acts.h5"), {
    datasets: [
      { name: "hidden_states", dtype: "f32", shape: [ROWS, WIDTH] },
      { name: "tokens", dtype: "i32", shape: [ROWS] },
    ],
    attributes: { start_token: tokenizer.startToken, tokenizer: tokenizer.path },
  });
  await file.write("hidden_states", 0, bytesOf(normal(ROWS * WIDTH)));
  await file.write(
    "tokens",
    0,
    bytesOf(tokenizer.encode(documentsIn("examples/brown.txt.gz", 200_000)).slice(0, ROWS)),
  );
  await file.close();
});
afterAll(async () => {
  if (folder !== "") await rm(folder, { recursive: true });
});

describe.skipIf(why !== undefined)("32,768 latents", () => {
  it("are written in less than 1 GiB", async () => {
    const { child, ended } = start(folder, "report", "sae", "--data", "acts.h5", "--out", "features.html");
    let most = 0;
    const look = setInterval(() => {
      readFile(`/proc/${child.pid}/status`, "utf8").then(
        (status) => {
          most = Math.max(most, 1024 * Number(/VmHWM:\s+(\d+) kB/.exec(status)?.[1] ?? 0));
        },
        () => undefined,
      );
    }, 200);
    const { code, err } = await ended;
    clearInterval(look);
    expect({ code, err: err.replace(/^(read|compare|write): .*\n/gm, "") }).toEqual({ code: 0, err: "" });
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThan(GIB);
  });

  it("are shown without inflating more than is looked at", async () => {
    const path = join(folder, "features.html");
    const browser = await startChromium();
    const { page, sins } = await watchedPage(browser, (each) => each.split("#")[0] === pathToFileURL(path).href);
    await page.addInitScript(
      "window.inflated = 0; window.DecompressionStream = class extends DecompressionStream { constructor(...args) { super(...args); window.inflated++; } }",
    );
    await page.goto(pathToFileURL(path).href);
    await page.locator("mark").first().waitFor();
    await page.getByText("32,768 latents", { exact: true }).waitFor();
    for (const latent of [0, 12_345, LATENTS - 1]) {
      await page.evaluate(`location.hash = "#latent=${latent}"`);
      await expect.poll(() => page.locator(".eyebrow").innerText()).toContain(`Latent ${latent} `);
    }
    await page.getByRole("searchbox").fill("government");
    await expect.poll(() => page.locator(".found").innerText()).not.toBe("32,768 latents");
    // The index, the table, the words, and for each of four latents its shard and the text of some
    // thirty passages.
    const chunks = await page.locator("script[type='text/plain']").count();
    expect(chunks).toBeGreaterThan(1000);
    const inflated = (await page.evaluate("window.inflated")) as number;
    expect(inflated).toBeGreaterThan(8);
    expect(inflated).toBeLessThan(100);
    expect(sins).toEqual([]);
    await browser.close();
  });
});
