import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { BYTES } from "../util/bytes.ts";
import { lookup3 } from "./hdf5-checksum.ts";
import { openHdf5 } from "./hdf5-read.ts";

const python = ["python3", "/usr/bin/python3"].find(
  (command) => spawnSync(command, ["-c", "import h5py"]).status === 0,
);
/**
 * Where the layout message says that chunks over the edge are stored as they are, no filter is
 * undone for them.
 */
async function readsUnfilteredEdges(): Promise<void> {
  const content = readFileSync(join(folder, "edges.h5"));
  // Version 4, chunked, no flags, 3 dimensions in 1 byte each: 4, 3 and the 4 bytes of an element.
  const layout = content.indexOf(Buffer.of(4, 2, 0, 3, 1, 4, 3, 4));
  const header = content.lastIndexOf("OHDR", layout);
  let end = layout;
  while (content.readUInt32LE(end) !== lookup3(content.subarray(header, end))) end++;
  content[layout + 2] = 1;
  content.writeUInt32LE(lookup3(content.subarray(header, end)), end);
  writeFileSync(join(folder, "edges.h5"), content);
  const file = await openHdf5(join(folder, "edges.h5"));
  const into = Buffer.alloc(60);
  await file.rows("edges", 1).read(0, 5, into);
  expect(into).toEqual(readFileSync(join(folder, "edges.bin")));
  await file.close();
}

const folder = mkdtempSync(join(tmpdir(), "saetta-hdf5-chunks-"));
afterAll(() => rmSync(folder, { recursive: true }));

describe("chunks of every kind", () => {
  it.skipIf(python === undefined)(
    `hold what h5py reads${python === undefined ? " (skipped: no python3 with h5py here)" : ""}`,
    async () => {
      type Listed = readonly [path: string, dataset: string, dtype: string, shape: readonly number[], values: string];
      const out = execFileSync(python!, ["src/formats/hdf5-chunks.py", folder], {
        encoding: "utf8",
        maxBuffer: 1 << 24,
      });
      const listed = JSON.parse(out) as Listed[];
      expect(listed.length).toBeGreaterThan(250);
      const wrong: unknown[] = [];
      for (const path of new Set(listed.map(([of]) => of))) {
        const file = await openHdf5(path);
        for (const [, name, , shape, values] of listed.filter(([of]) => of === path)) {
          expect(file.datasets.find((each) => each.name === name)).toMatchObject({
            shape,
            problem: undefined,
            layout: "chunked",
          });
          const wanted = readFileSync(values);
          for (const axes of [1, 2] as const) {
            if (shape.length < axes || shape.length > axes + 1) continue;
            const { rows, width, dtype, read } = file.rows(name, axes);
            const rowBytes = width * BYTES[dtype];
            const some = [0, 1, Math.floor(rows / 3), rows - 1, rows];
            const long = [0, 500, 8990, 9200, 139_990, 140_110, 149_990, 150_100, rows - 20, rows].map((row) =>
              Math.min(row, rows),
            );
            for (const [i, first] of (rows < 10_000 ? some : long).entries()) {
              for (const end of rows < 10_000 ? some.slice(i) : long.slice(i + 1, i + 2 - (i % 2))) {
                const into = Buffer.alloc((end - first) * rowBytes, 0xee);
                await read(first, end - first, into);
                if (!into.equals(wanted.subarray(first * rowBytes, end * rowBytes)))
                  wrong.push([path, name, axes, first, end]);
              }
            }
          }
        }
        await file.close();
      }
      expect(wrong).toEqual([]);
      await readsUnfilteredEdges();
    },
  );
});
