import { readdir, readFile, rm, stat, symlink, truncate, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { scratch } from "../../test/support/scratch.ts";
import { failingAt, Killed, killedAt, through } from "../../test/support/seam.ts";
import { described, newParams, type TopkSizes } from "../../test/topk.ts";
import { COUNTERS, type Engine, type State, type Tensor } from "../engine/engine.ts";
import { createReferenceEngine } from "../engine/reference.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import { bytesOf, float64Of } from "../util/bytes.ts";
import { messageOf, SaettaError } from "../util/errors.ts";
import { removeLeftovers } from "./commit.ts";
import { newestCheckpoint, openCheckpoint, restoreState, setAside } from "./load.ts";
import { type ManifestEntry, manifestText } from "./manifest.ts";
import { pruneCheckpoints, type Snapshot, saveCheckpoint } from "./save.ts";
import { disk } from "./storage.ts";

const shape: TopkSizes = { d: 3, n: 5, k: 2, auxk: 1 };
const progress = { epoch: 1, position: 12, tokens: 4096, nested: { list: [1, "two", null] } };

let run: string;
let engine: Engine;
beforeEach(async () => {
  run = await scratch("checkpoint");
  engine = createReferenceEngine();
});
afterEach(async () => {
  await engine[Symbol.asyncDispose]();
  await rm(run, { recursive: true });
});

function newState(ema: boolean): State {
  const params = () => newParams(engine, shape);
  const rest = { age: engine.alloc("u32", [shape.n]), counters: engine.alloc("f64", [COUNTERS.length]) };
  return { params: params(), m: params(), v: params(), ...(ema ? { ema: params() } : {}), ...rest };
}

const tensorsOf = ({ params, m, v, ema, age, counters }: State): Tensor[] => [
  ...[params, m, v, ...(ema === undefined ? [] : [ema])].flatMap((p) => [
    p.encoder,
    p.latentBias,
    p.decoder,
    p.preBias,
  ]),
  age,
  counters,
];

/** Fills every tensor with other numbers, among them a denormal, -0 and what no f32 can hold. */
function filled(ema: boolean, seed = 1): State {
  const state = newState(ema);
  for (const [i, t] of tensorsOf(state).entries()) {
    const size = t.shape.reduce((a, b) => a * b, 1);
    if (t.dtype === "u32")
      engine.write(t, bytesOf(Uint32Array.from({ length: size }, (_, j) => 0xffff_ffff - j * seed)));
    else
      engine.write(
        t,
        bytesOf(
          Float64Array.from({ length: size }, (_, j) => [5e-324, -0, Math.PI * (i + seed) + j / 3][j % 3] as number),
        ),
      );
  }
  return state;
}

const contents = async (state: State) =>
  (await Promise.all(tensorsOf(state).map((t) => engine.read(t)))).map((b) => Buffer.from(b).toString("hex"));

function snapshot(step: number, state = filled(true, step)): Snapshot {
  const saetta = { version: "0.1.0", engine: engine.description, normalization: "none", emaDecay: 0.999 } as const;
  return { engine, state, step, description: { ...described(shape), saetta }, progress };
}

describe("a checkpoint", () => {
  it.each([true, false])("gives the state back bit for bit (average: %s)", async (ema) => {
    const state = filled(ema);
    const path = await saveCheckpoint(run, snapshot(7, state));
    expect(path).toBe(join(run, "checkpoints", "step-00000007"));
    const checkpoint = await openCheckpoint(path);
    expect(checkpoint).toMatchObject({ step: 7, progress, real: "f64", description: described(shape) });
    const restored = newState(ema);
    await restoreState(engine, checkpoint, restored);
    expect(await contents(restored)).toEqual(await contents(state));
    expect((await readdir(path)).includes("ema.safetensors")).toBe(ema);
  });

  it("is read as sparsify reads it, and says what its average is", async () => {
    const path = await saveCheckpoint(run, snapshot(7));
    expect(JSON.parse(await readFile(join(path, "cfg.json"), "utf8"))).toMatchObject({
      activation: "topk",
      num_latents: 5,
      k: 2,
      d_in: 3,
    });
    const weights = await openSafetensors(join(path, "sae.safetensors"));
    expect(Object.fromEntries([...weights.tensors].map(([name, { dtype, shape }]) => [name, [dtype, shape]]))).toEqual({
      "encoder.weight": ["F64", [5, 3]],
      "encoder.bias": ["F64", [5]],
      W_dec: ["F64", [5, 3]],
      b_dec: ["F64", [3]],
    });
    await weights.close();
    const average = await openSafetensors(join(path, "ema.safetensors"));
    const counters = float64Of(await engine.read(filled(true, 7).counters));
    expect(average.metadata.get("decay")).toBe("0.999");
    expect(average.metadata.get("updates")).toBe(String(counters[COUNTERS.indexOf("ema")]));
    await average.close();
  });

  it("is never overwritten", async () => {
    const path = await saveCheckpoint(run, snapshot(7));
    const before = await readFile(join(path, "manifest.json"), "utf8");
    await expect(saveCheckpoint(run, snapshot(7, filled(true, 99)))).rejects.toThrow(
      `${path}: exists already, and a checkpoint is never overwritten`,
    );
    expect(await readFile(join(path, "manifest.json"), "utf8")).toBe(before);
  });

  it.each([Number.NaN, Number.NEGATIVE_INFINITY])("is not made of %d, and the one before stays", async (value) => {
    const good = await saveCheckpoint(run, snapshot(7));
    const state = filled(true, 3);
    const reals = float64Of(await engine.read(state.v.decoder));
    reals[4] = value;
    engine.write(state.v.decoder, bytesOf(reals));
    await expect(saveCheckpoint(run, snapshot(8, state))).rejects.toThrow(
      `${run}: "v.W_dec" is not finite at element 4, so step 8 is not saved; the checkpoint before it is whole`,
    );
    expect((await newestCheckpoint(run)).checkpoint?.path).toBe(good);
    expect(await readdir(join(run, "checkpoints"))).toEqual(["step-00000007"]);
  });

  it("refuses a state of another shape, or without the average it needs", async () => {
    const checkpoint = await openCheckpoint(await saveCheckpoint(run, snapshot(7)));
    await expect(restoreState(engine, checkpoint, newState(false))).rejects.toThrow(
      "has a running average of the weights, but the run keeps none",
    );
    const state = { ...newState(true), age: engine.alloc("u32", [6]) };
    await expect(restoreState(engine, checkpoint, state)).rejects.toThrow(
      'optimizer.safetensors: tensor "age" is [5], but [6] is needed',
    );
  });
});

describe("a damaged checkpoint", () => {
  const names = [
    "cfg.json",
    "sae.safetensors",
    "ema.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
  ];

  it.each(names)("is refused, naming %s, and the one before is used", async (name) => {
    const good = await saveCheckpoint(run, snapshot(1));
    const bad = await saveCheckpoint(run, snapshot(2));
    const file = join(bad, name);
    const bytes = await readFile(file);
    bytes[bytes.length >> 1] = bytes[bytes.length >> 1] ^ 1;
    await writeFile(file, bytes);
    const { checkpoint, refusals } = await newestCheckpoint(run);
    expect(checkpoint?.path).toBe(good);
    expect(refusals.map(({ path }) => path)).toEqual([bad]);
    const which = name === "manifest.json" ? "its own SHA-256" : "SHA-256";
    const message = `${file}: damaged: its bytes are not those that were saved (${which} differs); use an earlier checkpoint`;
    expect(refusals[0]?.error.message).toBe(message);
  });

  it.each(names)("is refused when %s is cut short or missing", async (name) => {
    const path = await saveCheckpoint(run, snapshot(1));
    const file = join(path, name);
    const size = (await readFile(file)).byteLength;
    await truncate(file, size - 3);
    const cut =
      name === "manifest.json" ? "damaged: its bytes" : `damaged: has ${size - 3} bytes, but the manifest says ${size}`;
    await expect(openCheckpoint(path)).rejects.toThrow(`${file}: ${cut}`);
    await unlink(file);
    await expect(openCheckpoint(path)).rejects.toThrow(`${file}: the file is missing`);
    expect((await newestCheckpoint(run)).checkpoint).toBeUndefined();
  });

  it("is refused when the system cannot read a file of it", async () => {
    const path = await saveCheckpoint(run, snapshot(1));
    const file = join(path, "optimizer.safetensors");
    await unlink(file);
    await symlink(file, file);
    await expect(openCheckpoint(path)).rejects.toThrow(`${file}: cannot be read (too many soft links)`);
    expect((await newestCheckpoint(run)).refusals).toHaveLength(1);
  });

  it("is not one that the run removed for a newer one while it was read", async () => {
    for (const step of [1, 2]) await saveCheckpoint(run, snapshot(step));
    const real = { ...disk };
    let looks = 0;
    const list = async (folder: string) => {
      const names = await real.list(folder);
      if (looks++ === 0) {
        await saveCheckpoint(run, snapshot(3), real);
        await pruneCheckpoints(run, 1, real);
      }
      return names;
    };
    const { checkpoint, refusals } = await through({ ...real, list }, () => newestCheckpoint(run));
    expect([checkpoint?.step, refusals]).toEqual([3, []]);
  });

  it("may not point out of its folder", async () => {
    const path = await saveCheckpoint(run, snapshot(1));
    const file = join(path, "manifest.json");
    const { files } = JSON.parse(await readFile(file, "utf8")) as { files: Record<string, ManifestEntry> };
    await writeFile(file, manifestText({ "../../cfg.json": files["cfg.json"]!, ...files }));
    await expect(openCheckpoint(path)).rejects.toThrow(`${file}: lists "../../cfg.json", which is no plain file name`);
  });

  it("is set aside, so that its step can be saved again", async () => {
    for (let times = 0; times < 2; times++) {
      await truncate(join(await saveCheckpoint(run, snapshot(2)), "state.json"), 1);
      await setAside((await newestCheckpoint(run)).refusals);
    }
    await saveCheckpoint(run, snapshot(2));
    expect((await readdir(join(run, "checkpoints"))).sort()).toEqual([
      "step-00000002",
      "step-00000002.damaged",
      "step-00000002.damaged-2",
    ]);
    expect((await newestCheckpoint(run)).refusals).toEqual([]);
  });
});

describe("a save that is cut short", () => {
  describe.each([1, 3])("after %i that were not", (earlier) => {
    it.each([
      ["killed", killedAt],
      ["no room", (at: number) => failingAt(at, "ENOSPC")],
      ["an error of the disk", (at: number) => failingAt(at, "EIO")],
    ])("at any call leaves the one before it usable and the next save possible (%s)", async (name, storageAt) => {
      for (let step = 1; step <= earlier; step++) await saveCheckpoint(run, snapshot(step));
      const next = earlier + 1;
      let [at, finished] = [0, 0];
      for (let failed = true; failed; ) {
        at++;
        failed = await saveCheckpoint(run, snapshot(next), storageAt(at)).then(
          () => false,
          (thrown: unknown) => thrown instanceof Killed || thrown instanceof SaettaError,
        );
        const { checkpoint, refusals } = await newestCheckpoint(run);
        expect(refusals, `call ${at}`).toEqual([]);
        expect(checkpoint?.step, `call ${at}`).toBeOneOf(failed ? [earlier, next] : [next]);
        if (checkpoint?.step !== next) continue;
        if (failed) finished++;
        await rm(checkpoint.path, { recursive: true });
      }
      expect(at).toBeGreaterThan(30);
      // Only the sync of the name comes after the name; where the disk is full, the name is taken
      // back.
      expect(finished).toBe(name === "no room" ? 0 : 1);
      await saveCheckpoint(run, snapshot(next + 1));
      const steps = [...Array.from({ length: earlier }, (_, i) => i + 1), next + 1];
      expect((await readdir(join(run, "checkpoints"))).sort()).toEqual(steps.map((step) => `step-0000000${step}`));
    });
  });

  it("has its leftovers removed at the start of the next run", async () => {
    await saveCheckpoint(run, snapshot(1), killedAt(12)).catch(() => undefined);
    expect(await readdir(join(run, "checkpoints"))).toEqual([".aside-step-00000001"]);
    await removeLeftovers(join(run, "checkpoints"));
    expect(await readdir(join(run, "checkpoints"))).toEqual([]);
  });

  it("for want of room says how much it needs, where, and what to do then", async () => {
    const failed = await saveCheckpoint(run, snapshot(1), failingAt(12, "ENOSPC")).catch(messageOf);
    expect(failed).toMatch(
      /sae\.safetensors: no room on the disk: a checkpoint needs \d+ bytes \([\d.]+ KiB\), [\d.]+ \wiB are free; make room, then saetta resume /,
    );
    const needed = Number(/needs (\d+)/.exec(failed)![1]);
    const path = await saveCheckpoint(run, snapshot(1));
    const sizes = await Promise.all((await readdir(path)).map(async (name) => (await stat(join(path, name))).size));
    expect(needed).toBeGreaterThanOrEqual(sizes.reduce((a, b) => a + b, 0));
  });
});

describe("old checkpoints", () => {
  it("are removed, the newest kept", async () => {
    for (const step of [9, 10, 100_000_000, 11]) await saveCheckpoint(run, snapshot(step));
    expect(await pruneCheckpoints(run, 2)).toEqual([10, 9]);
    expect((await readdir(join(run, "checkpoints"))).sort()).toEqual(["step-00000011", "step-100000000"]);
    expect(await pruneCheckpoints(run, 0)).toEqual([11]);
    expect((await newestCheckpoint(run)).checkpoint?.step).toBe(100_000_000);
  });

  it("are whole or gone when their removal is cut short", async () => {
    for (const step of [1, 2]) await saveCheckpoint(run, snapshot(step));
    for (const limit of [1, 2, 3, 4]) {
      await pruneCheckpoints(run, 1, killedAt(limit)).catch(() => undefined);
      expect((await newestCheckpoint(run)).refusals).toEqual([]);
    }
    await saveCheckpoint(run, snapshot(3));
    expect((await readdir(join(run, "checkpoints"))).sort()).toEqual(["step-00000002", "step-00000003"]);
  });
});
