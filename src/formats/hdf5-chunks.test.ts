import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { HDF5_BYTES } from "./hdf5-datatype.ts";
import { openHdf5 } from "./hdf5-read.ts";

const python = ["python3", "/usr/bin/python3"].find((command) => spawnSync(command, ["-c", "import h5py"]).status === 0);
const folder = mkdtempSync(join(tmpdir(), "saetta-hdf5-chunks-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("chunks of every kind", () => {
  it.skipIf(python === undefined)(
    `hold what h5py reads${python === undefined ? " (skipped: no python3 with h5py here)" : ""}`,
    { timeout: 120_000 },
    async () => {
      type Listed = readonly [path: string, dataset: string, dtype: string, shape: readonly number[], values: string];
      const out = execFileSync(python!, ["src/formats/hdf5-chunks.py", folder], { encoding: "utf8", maxBuffer: 1 << 24 });
      const listed = JSON.parse(out) as Listed[];
      expect(listed.length).toBeGreaterThan(300);
      for (const path of new Set(listed.map(([of]) => of))) {
        const file = await openHdf5(path);
        for (const [, name, , shape, values] of listed.filter(([of]) => of === path)) {
          expect(file.datasets.find((each) => each.name === name)).toMatchObject({ shape, problem: undefined, layout: "chunked" });
          const wanted = readFileSync(values);
          for (const axes of [1, 2] as const) {
            if (shape.length < axes || shape.length > axes + 1) continue;
            const { rows, width, dtype, read } = file.rows(name, axes);
            const rowBytes = width * HDF5_BYTES[dtype];
            const some = [0, 1, Math.floor(rows / 3), rows - 1, rows];
            for (const first of some) {
              for (const end of some.filter((row) => row >= first)) {
                const into = Buffer.alloc((end - first) * rowBytes, 0xee);
                await read(first, end - first, into);
                const same = into.equals(wanted.subarray(first * rowBytes, end * rowBytes));
                expect([path, name, axes, first, end, same]).toEqual([path, name, axes, first, end, true]);
              }
            }
          }
        }
        await file.close();
      }
    },
  );
});
