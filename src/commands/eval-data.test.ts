import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { writeActivations } from "../../test/support/activations.ts";
import { learnableRows } from "../../test/support/memory-source.ts";
import { type Config, configFromJson } from "../config.ts";
import { countRows } from "../data/holdout.ts";
import { openSource } from "../data/open.ts";
import { resume } from "../train/resume.ts";
import { readRunConfig, writeConfig } from "../train/run-folder.ts";
import { train } from "../train/train.ts";
import { evalData, sharedData } from "./eval-data.ts";

const [D, OUT] = [8, 5];
let folder: string;
let run: string;
let sae: string;
const at = (name: string) => join(folder, name);

/** A run whose config names targets next to its data. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-targets-"));
  const data = await writeActivations(at("x.h5"), learnableRows(640, D, 12), [32, 20, D]);
  await writeActivations(at("y.h5"), learnableRows(640, OUT, 12), [32, 20, OUT]);
  await writeActivations(at("short.h5"), learnableRows(64, OUT, 12), [64, OUT]);
  run = at("run");
  const source = await openSource([data]);
  const options = { engine: "reference", latents: 24, k: 3, batch: 32, tokens: 320, out: run } as const;
  const result = await (await train(source, options)).finished;
  sae = result.checkpoint!;
  await result.sae.close();
  await source.close();
  const config = JSON.parse(await readFile(join(run, "config.json"), "utf8"));
  const targets = { ...config, target: [at("y.h5")], run: { ...config.run, target: ["../y.h5"] } };
  await writeFile(join(run, "config.json"), JSON.stringify(targets));
});
afterAll(() => rm(folder, { recursive: true }));

/** The options of a config.json, of which all are there. */
const configOf = (text: string) => ({ ...configFromJson(text, "config.json").options, data: [at("x.h5")] }) as Config;

it("the data of a run that kept no rows must be named", async () => {
  const path = join(run, "config.json");
  const text = await readFile(path, "utf8");
  const { target: _, ...config } = JSON.parse(text);
  await writeFile(path, JSON.stringify({ ...config, data: [], run: { ...config.run, data: [], target: [] } }));
  await expect(evalData(sae, [], {})).rejects.toThrow(
    `${sae}: the rows of its run came from a model and were not kept, so there is no hold-out; name the activations`,
  );
  await writeFile(path, text);
});

describe("the data of a run with targets", () => {
  it("is its hold-out in pairs", async () => {
    const { source, ranges } = await evalData(sae, [], {});
    expect(source).toMatchObject({ dIn: D, dOut: OUT, rows: 640, targetPaths: [at("y.h5")] });
    expect(countRows(ranges)).toBeGreaterThan(0);
    await source.close();
    const shared = await sharedData([sae, sae], [], {}, {});
    expect(shared.source.dOut).toBe(OUT);
    await shared.source.close();
  });

  it("is found where the targets were moved, or where --target says they are", async () => {
    const notes: string[] = [];
    await rename(at("y.h5"), join(run, "y.h5"));
    const moved = await evalData(sae, [], {}, { onNote: (note) => notes.push(note) });
    expect(moved.source.targetPaths).toEqual([join(run, "y.h5")]);
    await moved.source.close();
    expect(notes).toEqual([expect.stringMatching(/y\.h5 is not there any more; the run's data is read from .*y\.h5$/)]);
    await rename(join(run, "y.h5"), at("z.h5"));
    await expect(evalData(sae, [], {})).rejects.toThrow(
      /y\.h5: the data of the run is not there any more; name where they are now with --target$/,
    );
    await mkdir(at("sub"));
    await rename(at("z.h5"), at("sub/y.h5"));
    const { record } = await readRunConfig(run);
    const before = await readFile(join(run, "config.json"), "utf8");
    await writeConfig(run, { ...configOf(before), target: [at("sub/y.h5")] }, record);
    const written = await readFile(join(run, "config.json"), "utf8");
    expect(JSON.parse(written)).toMatchObject({ target: [at("sub/y.h5")], run: { target: ["../sub/y.h5"] } });
    await writeFile(join(run, "config.json"), written.replace(at("sub/y.h5"), "/gone/y.h5"));
    const near = await evalData(sae, [], {});
    expect(near.source.targetPaths).toEqual([at("sub/y.h5")]);
    await near.source.close();
    await writeFile(join(run, "config.json"), before);
    await rename(at("sub/y.h5"), at("z.h5"));
    const given = await evalData(sae, [], { target: [at("z.h5")] });
    expect(given.source.targetPaths).toEqual([at("z.h5")]);
    await given.source.close();
    await rename(at("z.h5"), at("y.h5"));
  });

  it("needs targets with other rows, too", async () => {
    await expect(evalData(sae, [at("x.h5")], {})).rejects.toThrow(
      /belongs to a run with targets, so the activations need theirs; name them with --target$/,
    );
    const { source, ranges } = await evalData(sae, [at("x.h5")], { target: at("y.h5") });
    expect([source.dOut, countRows(ranges)]).toEqual([OUT, 640]);
    await source.close();
    await expect(evalData(sae, [at("x.h5")], { target: at("short.h5") })).rejects.toThrow(
      /short\.h5: does not go with .*x\.h5: 64 rows for 640 inputs/,
    );
  });
});

describe("resume", () => {
  const options = { onNote: () => undefined };

  it("reads the targets of the run, and compares them with those that it was trained on", async () => {
    await expect(resume(run, options)).rejects.toThrow(
      /the data is not what the run was trained on: 5 numbers per target now, no numbers per target then/,
    );
    await expect(resume(run, { ...options, target: at("short.h5") })).rejects.toThrow(/short\.h5: does not go with/);
    await expect(resume(run, { ...options, skip: true })).rejects.toThrow(/--skip is false in this run/);
  });

  it("gives an autoencoder no targets", async () => {
    const path = join(run, "config.json");
    const before = await readFile(path, "utf8");
    const { target: _, ...config } = JSON.parse(before);
    await writeFile(path, JSON.stringify(config));
    await expect(resume(run, { ...options, target: at("y.h5") })).rejects.toThrow(
      /--target is not set in this run and cannot be changed/,
    );
    await writeFile(path, before);
  });
});
