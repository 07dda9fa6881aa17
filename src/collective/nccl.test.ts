/**
 * The calls to NCCL, over a stand-in for the library in which all ranks are in this process
 * (test/nccl/stand-in.cc).
 */

import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type Elements, gridOf, type WireType } from "./collective.ts";
import { Nccl } from "./nccl.ts";

const compiler = process.env.CXX || "c++";
const none = spawnSync(compiler, ["--version"]).status !== 0;

let folder = "";
let library = "";

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "saetta-nccl-"));
  library = join(folder, "libnccl.so.2");
  if (!none)
    execFileSync(compiler, [
      "-std=c++17",
      "-O1",
      "-shared",
      "-fPIC",
      "-Wall",
      "-Werror",
      "test/nccl/stand-in.cc",
      "-o",
      library,
    ]);
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** All ranks of a grid, which meet in this process. */
async function ranks(shards: number, replicas: number): Promise<Nccl[]> {
  const size = shards * replicas;
  const given: unknown[] = [];
  const waiting: (() => void)[] = [];
  const exchangeOf =
    (rank: number) =>
    async <T>(value: T): Promise<readonly T[]> => {
      given[rank] = JSON.parse(JSON.stringify(value));
      await new Promise<void>((resolve) => {
        waiting.push(resolve);
        if (waiting.length === size) for (const each of waiting) each();
      });
      return given as T[];
    };
  const all = Array.from({ length: size }, (_, rank) =>
    Nccl.load(gridOf(rank, shards, replicas), exchangeOf(rank), { SAETTA_NCCL: library }),
  );
  const joined = await Promise.all(all);
  await Promise.all(joined.map((nccl) => nccl.connect()));
  return joined;
}

const DTYPES = new Map<unknown, WireType>([
  [Float64Array, "f64"],
  [Float32Array, "f32"],
  [Uint32Array, "u32"],
  [Uint8Array, "u8"],
]);

/** As on a card: by address. */
function on(values: Float64Array | Float32Array | Uint32Array | Uint8Array): Elements {
  return { at: Number(koffi.address(values)), count: values.length, dtype: DTYPES.get(values.constructor)! };
}

describe.skipIf(none)("NCCL", () => {
  it("reduces over shards, replicas and all ranks, in place, on the stream that is given", async () => {
    const all = await ranks(2, 2);
    const stream = koffi.load(library).func("uint64_t standInStream()") as () => number;
    const values = all.map((_, rank) => Float32Array.of(rank + 1, 10 * rank));
    for (const [rank, nccl] of all.entries()) nccl.allReduce(on(values[rank]!), "sum", "shards", 70 + rank);
    // biome-ignore format: a rank each
    expect(values.map((each) => [...each])).toEqual([[3, 10], [3, 10], [7, 50], [7, 50]]);
    expect(Number(stream())).toBe(73);
    for (const [rank, nccl] of all.entries()) nccl.allReduce(on(values[rank]!), "max", "replicas");
    // biome-ignore format: a rank each
    expect(values.map((each) => [...each])).toEqual([[7, 50], [7, 50], [7, 50], [7, 50]]);
    const counts = all.map((_, rank) => Uint32Array.of(rank + 5));
    for (const [rank, nccl] of all.entries()) nccl.allReduce(on(counts[rank]!), "min", "all");
    expect(counts.map(([count]) => count)).toEqual([5, 5, 5, 5]);
    const doubles = all.map((_, rank) => Float64Array.of(rank / 4));
    for (const [rank, nccl] of all.entries()) nccl.allReduce(on(doubles[rank]!), "sum", "all");
    expect(doubles.map(([value]) => value)).toEqual([1.5, 1.5, 1.5, 1.5]);
    for (const nccl of all) await nccl.close();
  });

  it("gathers, scatters and broadcasts within the group", async () => {
    const all = await ranks(3, 2);
    const gathered = all.map(() => new Uint32Array(3));
    for (const [rank, nccl] of all.entries()) nccl.allGather(on(Uint32Array.of(rank)), on(gathered[rank]!), "shards");
    expect(gathered.map((each) => [...each])).toEqual([0, 0, 0, 3, 3, 3].map((first) => [first, first + 1, first + 2]));
    const parts = all.map((_, rank) => Float64Array.from({ length: 4 }, (__, i) => i + 100 * rank));
    const scattered = all.map(() => new Float64Array(2));
    for (const [rank, nccl] of all.entries())
      nccl.reduceScatter(on(parts[rank]!), on(scattered[rank]!), "sum", "replicas");
    expect(scattered.map((each) => [...each])).toEqual(
      all.map((_, rank) => [0, 1].map((i) => 2 * (i + (rank < 3 ? 0 : 2)) + 100 * (2 * (rank % 3) + 3))),
    );
    const told = all.map((_, rank) => Uint8Array.of(rank));
    for (const [rank, nccl] of all.entries()) nccl.broadcast(on(told[rank]!), 1, "replicas");
    expect(told.map(([value]) => value)).toEqual([3, 4, 5, 3, 4, 5]);
    for (const nccl of all) await nccl.close();
  });

  it("does nothing where a rank is its own group", async () => {
    const [one, two] = await ranks(2, 1);
    const value = Float32Array.of(3);
    one!.allReduce(on(value), "sum", "replicas");
    one!.broadcast(on(value), 0, "replicas");
    expect([...value]).toEqual([3]);
    expect(() => one!.allGather(on(value), on(new Float32Array(1)), "replicas")).toThrow(/no parts/);
    expect(() => one!.allReduce({ at: new Uint8Array(4), count: 1, dtype: "f32" }, "sum", "shards")).toThrow(
      /on a card/,
    );
    for (const nccl of [one!, two!]) await nccl.close();
  });

  it("says what NCCL says, and pins what decides the bits unless somebody has", async () => {
    const env: NodeJS.ProcessEnv = { SAETTA_NCCL: library, NCCL_PROTO: "LL" };
    const nccl = await Nccl.load(gridOf(0, 2, 1), async (value) => [value, value], env);
    expect(env).toMatchObject({ NCCL_ALGO: "Ring", NCCL_PROTO: "LL", NCCL_NVLS_ENABLE: "0" });
    expect(() => nccl.allReduce(on(Float32Array.of(1)), "sum", "all")).toThrow(/not been put into groups/);
    await nccl.connect();
    expect(() => nccl.allReduce({ at: 0, count: 1, dtype: "f32" }, "sum", "all")).toThrow(
      "NCCL: ncclAllReduce: invalid argument; NCCL_DEBUG=INFO tells more",
    );
    await nccl.close();
    await expect(
      Nccl.load(gridOf(0, 2, 1), async (value) => [value], { SAETTA_NCCL: join(folder, "none.so") }),
    ).rejects.toThrow(/none\.so: NCCL is needed to join several cards, and cannot be loaded; install it/);
  });

  it("aborts its groups when something went wrong in the background, and says so at the next operation", async () => {
    const [one] = await ranks(2, 1);
    const native = koffi.load(library);
    const [fail, aborted] = [native.func("void standInBreak(int)"), native.func("int standInAborted()")] as [
      (code: number) => void,
      () => number,
    ];
    fail(6);
    try {
      await expect.poll(aborted).toBeGreaterThan(0);
      expect(() => one!.allReduce(on(Float32Array.of(1)), "sum", "shards")).toThrow("NCCL: remote process exited");
    } finally {
      fail(0);
    }
  });
});
