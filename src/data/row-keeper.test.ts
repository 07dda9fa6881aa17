import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AtomicFile, refuseWriting } from "../util/atomic-write.ts";
import { bytesOf, float32Of } from "../util/bytes.ts";
import { encodeFloat16 } from "../util/float16.ts";
import { rowsToFloat32 } from "./convert.ts";
import { openSource } from "./open.ts";
import { type KeepOptions, RowKeeper, type RowPart } from "./row-keeper.ts";

let folder: string;
let made: string;
beforeEach(async () => {
  made = await mkdtemp(join(tmpdir(), "saetta-keep-"));
  folder = join(made, "kept");
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(made, { recursive: true });
});

const WIDTH = 3;
const VALUES = Float32Array.from({ length: 24 * WIDTH }, (_, i) => (i % 7) - 3);
const part = (first: number, count: number): RowPart => ({
  rows: count,
  values: bytesOf(VALUES.subarray(first * WIDTH, (first + count) * WIDTH)),
  tokens: Int32Array.from({ length: count }, (_, i) => 100 + first + i),
  mask: Uint8Array.from({ length: count }, (_, i) => ((first + i) % 5 === 0 ? 0 : 1)),
});

async function kept(options: Partial<KeepOptions>, parts: readonly RowPart[], context?: number): Promise<void> {
  const keeper = await RowKeeper.open({ folder, ...options });
  await keeper.begin({ width: WIDTH, dtype: "f32", context, origin: { tensor: "x", startToken: 7 } });
  for (const each of parts) await keeper.add(each);
  await keeper.close();
}

async function readBack(): Promise<{ values: number[]; dtype: string; tokens: number[]; mask: number[] }> {
  const source = await openSource([folder], { repeats: "keep" });
  const { rows, dtype, dIn } = source;
  const bytes = new Uint8Array(rows * dIn * (dtype === "f32" ? 4 : 2));
  await source.read(0, rows, bytes);
  const tokens = [...(await source.tokens!(0, rows))];
  const mask = [...(await source.mask!(0, rows))];
  expect(source.origin).toMatchObject({ tensor: "x", startToken: 7 });
  await source.close();
  return { values: [...rowsToFloat32(bytes, dtype, rows * dIn)], dtype, tokens, mask };
}

describe("rows that are kept", () => {
  it.each([
    [undefined, "f32"],
    ["f32", "f32"],
    ["f16", "f16"],
    ["bf16", "bf16"],
  ] as const)("as %s are read back with tokens, mask and origin", async (dtype, read) => {
    await kept({ dtype }, [part(0, 5), part(5, 1), part(6, 18)]);
    const { tokens, mask } = part(0, 24);
    expect(await readBack()).toEqual({ values: [...VALUES], dtype: read, tokens: [...tokens!], mask: [...mask!] });
    expect(await readdir(folder)).toEqual(["rows-000000.safetensors"]);
  });

  it("as int8 are read as f32, within half a step of each row's largest number", async () => {
    await kept({ dtype: "int8" }, [part(0, 24)]);
    const { values, dtype, tokens } = await readBack();
    expect(dtype).toBe("f32");
    expect(tokens).toHaveLength(24);
    for (const [i, value] of values.entries()) expect(Math.abs(value - VALUES[i]!)).toBeLessThanOrEqual(1.5 / 127);
    // Rows from the middle, into memory that begins anywhere.
    const source = await openSource([folder]);
    const into = new Uint8Array(4 * WIDTH * 2 + 1);
    await source.read(7, 2, into.subarray(1));
    await source.close();
    expect([...float32Of(into.slice(1))]).toEqual(values.slice(7 * WIDTH, 9 * WIDTH));
  });

  it("are whole contexts in files of the size that was asked for", async () => {
    await kept({ fileBytes: 9 * 4 * WIDTH }, [part(0, 4), part(4, 16), part(20, 4)], 4);
    expect(await readdir(folder)).toEqual([0, 1, 2].map((n) => `rows-00000${n}.safetensors`));
    const source = await openSource([folder], { repeats: "keep" });
    expect({ rows: source.rows, sequence: source.sequence }).toEqual({ rows: 24, sequence: 4 });
    await source.close();
    expect((await readBack()).values).toEqual([...VALUES]);
  });

  it("are never written into a folder that holds something", async () => {
    await mkdir(folder);
    await writeFile(join(folder, "mine"), "");
    await expect(RowKeeper.open({ folder })).rejects.toThrow("kept: the folder is not empty; name another");
    await writeFile(join(made, "file"), "");
    await expect(RowKeeper.open({ folder: join(made, "file") })).rejects.toThrow(/file: cannot be written/);
  });

  it("leave nothing where none came", async () => {
    await kept({}, []);
    expect(existsSync(folder)).toBe(false);
  });

  it("that do not fit the dtype are an error, and the files before are whole", async () => {
    const large = { rows: 1, values: bytesOf(Float32Array.of(1, 70_000, 2)) };
    const failures: string[] = [];
    await kept({ dtype: "f16", fileBytes: 6, onFailure: ({ message }) => failures.push(message) }, [
      part(0, 1),
      large,
      part(1, 1),
    ]);
    expect(failures).toEqual([expect.stringContaining("70000 is too large for f16; keep the rows in another dtype")]);
    expect(await readdir(folder)).toEqual(["rows-000000.safetensors"]);
    await expect(kept({ dtype: "f16", folder: join(made, "other") }, [large])).rejects.toThrow("too large for f16");
  });

  it.each([
    1, 2, 5, 8, 10,
  ])("on a disk that is full at write %i: the files before are whole, nothing else is left", async (at) => {
    const { write } = AtomicFile.prototype;
    let writes = 0;
    vi.spyOn(AtomicFile.prototype, "write").mockImplementation(async function (this: AtomicFile, bytes, place) {
      if (++writes === at) refuseWriting(folder, Object.assign(new Error("ENOSPC"), { code: "ENOSPC" }));
      await write.call(this, bytes, place);
    });
    const failures: string[] = [];
    const options = { fileBytes: 8 * 4 * WIDTH, onFailure: ({ message }: Error) => failures.push(message) };
    // Five writes per file: room for the head, rows, tokens, mask, the head.
    await kept(options, [part(0, 8), part(8, 8), part(16, 8)]);
    expect(failures).toEqual([expect.stringContaining("free some space or write elsewhere")]);
    const names = at <= 5 ? [] : ["rows-000000.safetensors"];
    expect(existsSync(folder)).toBe(names.length > 0);
    if (names.length > 0) expect(await readdir(folder)).toEqual(names);
    if (names.length > 0) expect((await readBack()).values).toEqual([...VALUES.subarray(0, 8 * WIDTH)]);
  });

  it("of float16 are the same bytes", async () => {
    const bits = new Uint16Array(VALUES.length);
    encodeFloat16(VALUES, bits);
    const keeper = await RowKeeper.open({ folder });
    await keeper.begin({ width: WIDTH, dtype: "f16" });
    await keeper.add({ rows: 24, values: bytesOf(bits) });
    await keeper.close();
    const source = await openSource([folder]);
    const bytes = new Uint8Array(2 * VALUES.length);
    await source.read(0, 24, bytes);
    await source.close();
    expect(bytes).toEqual(bytesOf(bits));
  });
});
