import { cp, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { learnableRows, memorySource } from "../../test/support/memory-source.ts";
import { evalData } from "../commands/eval-data.ts";
import { openSource } from "../data/open.ts";
import { findSae } from "../inference/weights.ts";
import { FormatError, SaettaError } from "../util/errors.ts";
import { resume } from "./resume.ts";
import { readRunConfig } from "./run-folder.ts";
import { NO_RECORD, recordFromJson, recordToJson } from "./run-record.ts";
import { train } from "./train.ts";

const D = 8;
let root: string;
let made = 0;

/** A folder with data/acts.h5 and runs/one, trained on it. */
let project: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "saetta-moves-"));
  project = join(root, "project");
  await mkdir(join(project, "data"), { recursive: true });
  const data = await writeActivations(join(project, "data", "acts.h5"), learnableRows(640, D, 12), [32, 20, D]);
  const source = await openSource([data]);
  const run = await train(source, {
    engine: "reference",
    latents: 24,
    k: 3,
    batch: 32,
    tokens: 320,
    out: join(project, "runs", "one"),
  });
  await (await run.finished).sae.close();
  await source.close();
});
afterAll(async () => {
  await rm(root, { recursive: true });
});

/** Moves things about in a copy of the project, out of which the original is not seen. */
async function moved(change: (at: string) => Promise<unknown>): Promise<string> {
  const at = join(root, `moved-${made++}`);
  await rename(project, at);
  const config = join(at, "runs", "one", "config.json");
  try {
    // As if it had been made here, and then moved.
    await writeFile(config, (await readFile(config, "utf8")).replaceAll(project, `${at}-gone`));
    await cp(at, project, { recursive: true });
    const back = join(project, "runs", "one", "config.json");
    await writeFile(back, (await readFile(back, "utf8")).replaceAll(`${at}-gone`, project));
  } finally {
    await change(at);
  }
  return at;
}

const there = async (run: string): Promise<{ paths: readonly string[]; notes: string[] }> => {
  const notes: string[] = [];
  const going = await resume(run, { onNote: (note) => notes.push(note) });
  await (await going.finished).sae.close();
  const { source } = await evalData(resolve((await findSae(run)).path), [], {});
  await source.close();
  return { paths: source.paths, notes };
};

describe("a run finds its data", () => {
  it("where both were moved together", async () => {
    const at = await moved(() => Promise.resolve());
    const { paths, notes } = await there(join(at, "runs", "one"));
    expect(paths).toEqual([join(at, "data", "acts.h5")]);
    expect(notes[0]).toBe(
      `${at}-gone/data/acts.h5 is not there any more; the run's data is read from ${join(at, "data", "acts.h5")}`,
    );
    // It is written down where it is now.
    expect((await readRunConfig(join(at, "runs", "one"))).data).toEqual([join(at, "data", "acts.h5")]);
  });

  it("where the run alone was moved", async () => {
    const elsewhere = join(root, "elsewhere");
    await cp(join(project, "runs", "one"), elsewhere, { recursive: true });
    expect((await there(elsewhere)).paths).toEqual([join(project, "data", "acts.h5")]);
  });

  it("where the data was put next to the run, or into it", async () => {
    for (const place of ["runs/acts.h5", "runs/one/acts.h5"]) {
      const at = await moved((folder) => rename(join(folder, "data", "acts.h5"), join(folder, place)));
      expect((await there(join(at, "runs", "one"))).paths).toEqual([join(at, place)]);
    }
  });

  it("through a symbolic link to the run folder", async () => {
    const at = await moved(() => Promise.resolve());
    const link = join(root, "link");
    await symlink(join(at, "runs", "one"), link);
    expect((await there(link)).paths).toEqual([join(at, "data", "acts.h5")]);
  });

  it("or says what to name", async () => {
    const at = await moved((folder) => rm(join(folder, "data"), { recursive: true }));
    const run = join(at, "runs", "one");
    const gone = `${at}-gone/data/acts.h5: the data of the run is not there any more; `;
    await expect(resume(run)).rejects.toThrow(`${gone}name it with --data`);
    const sae = resolve((await findSae(run)).path);
    await expect(evalData(sae, [], {})).rejects.toThrow(`${gone}name the activations: saetta eval SAE acts.h5`);
    await expect(evalData(sae, [], {}, { mend: "name the activations with --data" })).rejects.toThrow(
      `${gone}name the activations with --data`,
    );
    const { source, ranges } = await evalData(sae, [], {}, { moved: [join(project, "data", "acts.h5")] });
    await source.close();
    expect(ranges.reduce((sum, { count }) => sum + count, 0)).toBeLessThan(640);
  });
});

describe("the order of a run", () => {
  const lanesOf = async (dir: string) => (await readRunConfig(dir)).record.lanes;

  it("has lanes, and stays without them in a run of an earlier version", async () => {
    const source = memorySource(learnableRows(640, 8, 12), 8);
    const options = { engine: "reference", latents: 24, k: 3, batch: 32, tokens: 640, logEvery: 1 } as const;
    const first = join(root, "lanes");
    await (await train(source, { ...options, out: first })).finished;
    expect(await lanesOf(first)).toBe(32);

    // An earlier version has written no lanes.
    const earlier = join(root, "earlier");
    await cp(first, earlier, { recursive: true });
    const path = join(earlier, "config.json");
    const config = JSON.parse(await readFile(path, "utf8"));
    delete config.run.lanes;
    await writeFile(path, JSON.stringify(config));
    const losses = async (dir: string) => {
      const run = await resume(dir, { data: source, tokens: 960 });
      const found: number[] = [];
      for await (const { loss } of run) found.push(loss as number);
      await run.finished;
      return found;
    };
    const [now, then] = [await losses(first), await losses(earlier)];
    expect([await lanesOf(first), await lanesOf(earlier)]).toEqual([32, 1]);
    expect(now.length).toBeGreaterThan(0);
    expect(now.at(-1)).not.toBe(then.at(-1));
  });
});

describe("the record", () => {
  it("comes back as it was written", () => {
    const record = {
      derived: ["warmup", "logEvery"] as const,
      steps: 20,
      legs: [{ from: 10, before: 10, rise: 2 }],
      appended: [{ rows: 640, grain: 32, epoch: 2 }],
      lanes: 64,
      data: ["../a.h5"],
      target: ["../b.h5", "../c.h5"],
    };
    expect(recordFromJson(recordToJson(record), "config.json")).toEqual(record);
    expect(recordFromJson(recordToJson(NO_RECORD), "config.json")).toEqual(NO_RECORD);
    expect(recordFromJson(undefined, "config.json")).toEqual(NO_RECORD);
  });

  it.each([
    [{ legs: [{ from: 0, before: 1, rise: 1 }] }, 'config.json: "from" must be a whole number of at least 1'],
    [{ data: [1] }, '"data" must be a list of strings'],
    [{ appended: 3 }, '"appended" must be a list'],
    [[], '"run" is not a JSON object'],
  ])("%j is refused", (json, message) => {
    const refused = () => recordFromJson(json as never, "config.json");
    expect(refused).toThrow(FormatError);
    expect(refused).toThrow(message);
    expect(refused).toThrow(SaettaError);
  });
});
