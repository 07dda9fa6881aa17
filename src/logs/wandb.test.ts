import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, it, vi } from "vitest";
import { readWandb } from "../../test/support/log-readers.ts";
import type { LogLine } from "./run-log.ts";
import { openWandb } from "./wandb.ts";

async function* none(): AsyncGenerator<LogLine> {}
const folder = mkdtempSync(join(tmpdir(), "saetta-wandb-"));
afterAll(() => rmSync(folder, { recursive: true }));

it("keeps the newest of every value in the summary, which a run that was killed has too", async () => {
  const log = await openWandb(folder, { project: "p", name: "n", config: {} }, none(), { onNote: expect.fail });
  for (let step = 1; step <= 60; step++) {
    const values = { loss: 1 / step };
    log.append({
      step,
      wallTime: Date.now() / 1000,
      values: step % 20 === 0 ? { ...values, holdout_fvu: step / 100 } : values,
    });
  }
  log.append({ step: 61, wallTime: Date.now() / 1000, values: { loss: 0.5 } });
  await log.close(0);
  const [run = ""] = readdirSync(join(folder, "wandb"));
  const records = readWandb(readFileSync(join(folder, "wandb", run, `run-${run.slice(-8)}.wandb`)));
  const summaries = records.filter(({ kind }) => kind === "summary").map(({ items }) => items);
  expect(summaries).toMatchObject([
    { _step: 50, loss: 1 / 50, holdout_fvu: 0.4 },
    { _step: 61, loss: 0.5, holdout_fvu: 0.6 },
  ]);
});

it("makes a folder for each part of a run, in one second too", async () => {
  const before = readdirSync(join(folder, "wandb")).length;
  for (let i = 0; i < 3; i++)
    await (await openWandb(folder, { project: "p", name: "n", config: {} }, none(), { onNote: expect.fail })).close(0);
  const folders = readdirSync(join(folder, "wandb"));
  expect(folders).toHaveLength(before + 3);
  expect(new Set(folders.map((name) => name.slice(-8))).size).toBe(1);
});

it("names each part's folder after the earlier ones and never counts time backwards, though the clock is set back", async () => {
  const root = mkdtempSync(join(folder, "clock-"));
  vi.spyOn(Date, "now").mockReturnValue(Date.UTC(2030, 0, 1, 12));
  const open = () => openWandb(root, { project: "p", name: "n", config: {} }, none(), { onNote: expect.fail });
  try {
    const first = await open();
    vi.mocked(Date.now).mockReturnValue(Date.UTC(2030, 0, 1, 11));
    await first.close(0);
    await (await open()).close(0);
  } finally {
    vi.restoreAllMocks();
  }
  const folders = readdirSync(join(root, "wandb"));
  expect(folders.map((name) => name.slice(12, 27))).toEqual(["20300101_120000", "20300101_120001"]);
  const id = folders[0]!.slice(-8);
  const records = readWandb(readFileSync(join(root, "wandb", folders[0]!, `run-${id}.wandb`)));
  const exit = records.find(({ kind }) => kind === "exit")!;
  expect(exit.fields.get(2)).toBeUndefined(); // it ran for 0 s, and proto3 leaves 0 out
});

it("takes over earlier lines, however many, and gives the file up when they cannot be read", async () => {
  async function* earlier(count: number): AsyncGenerator<LogLine> {
    for (let step = 1; step <= count; step++) yield { step, wallTime: step, values: { loss: 1 } };
    if (count === 3) throw new Error("not JSON");
  }
  const root = mkdtempSync(join(folder, "earlier-"));
  const open = (count: number) =>
    openWandb(root, { project: "p", name: "n", config: {} }, earlier(count), { onNote: expect.fail });
  await expect(open(3)).rejects.toThrow("not JSON");
  const openFiles = readdirSync("/proc/self/fd").map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ""; // that of the listing itself
    }
  });
  expect(openFiles.filter((path) => path.startsWith(root))).toEqual([]);
  await (await open(2500)).close(0);
  const run = readdirSync(join(root, "wandb")).toSorted().at(-1)!;
  const records = readWandb(readFileSync(join(root, "wandb", run, `run-${run.slice(-8)}.wandb`)));
  const steps = records.filter(({ kind }) => kind === "history").map(({ items }) => items._step);
  expect(steps).toEqual(Array.from({ length: 2500 }, (_, i) => i + 1));
});
