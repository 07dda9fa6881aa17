import { spawnSync } from "node:child_process";
import { mkdir, readdir, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { openSafetensors } from "../../src/formats/safetensors.ts";
import { writeActivations } from "../support/activations.ts";
import { learnableRows } from "../support/memory-source.ts";
import { scratch } from "../support/scratch.ts";
import { saetta, start } from "./saetta.ts";

let folder = "";
beforeAll(async () => {
  folder = await scratch("encode");
  const tokens = Int32Array.from({ length: 3000 }, (_, row) => (row % 50 === 0 ? 0 : 1 + (row % 7)));
  await writeActivations(join(folder, "acts.h5"), learnableRows(3000, 8, 16), [60, 50, 8], { tokens });
  const { code } = await saetta(folder, "train", "acts.h5", "--latents", "32", "--k", "2", "--out", "run");
  expect(code).toBe(0);
});
afterAll(() => rm(folder, { recursive: true }));

const LEFT_OUT =
  "saetta: note: 60 rows of 3,000 are left out (--exclude-tokens, --exclude-positions, --max-norm, --zero-rows, padding); row_numbers says which are in the file\n";

it("writes the codes of files, and says which rows it left out", async () => {
  const { code, out, err } = await saetta(folder, "encode", "run", "acts.h5", "--out", "codes/a.safetensors");
  expect(err).toBe(LEFT_OUT);
  expect(out).toMatch(/^encoded {6}codes\/a\.safetensors: 2,940 rows of 32 latents, [\d,]+ codes \(L0 [\d.]+\)\n$/);
  expect(code).toBe(0);
  const file = await openSafetensors(join(folder, "codes", "a.safetensors"));
  const numbers = new BigInt64Array((await file.read("row_numbers")).buffer);
  const tokens = new Int32Array((await file.read("tokens")).buffer);
  await file.close();
  expect([...numbers.subarray(48, 50)]).toEqual([49n, 51n]); // row 50 starts a document
  expect(tokens[49]).toBe(1 + (51 % 7));
  expect(tokens.includes(0)).toBe(false);
  expect(await readdir(join(folder, "codes"))).toEqual(["a.safetensors"]);
});

it("writes the hold-out of a run where no file is named, and answers in JSON", async () => {
  const { code, out, err } = await saetta(folder, "encode", "run", "--out", "held.npz", "--json");
  expect({ code, err }).toEqual({ code: 0, err: "" });
  const done = JSON.parse(out) as Record<string, number>;
  expect(done).toMatchObject({ out: "held.npz", latents: 32, tokens: true, positions: true });
  expect(done.rows! + done.left_out!).toBe(3000);
  expect(done.rows).toBeLessThan(1000);
});

it("takes every row where none is to be left out", async () => {
  const words = ["encode", "run", "acts.h5", "--exclude-tokens", "none", "--engine", "reference"];
  const { out, err } = await saetta(folder, ...words, "--out", "all.h5", "--max-rows", "1k");
  expect(err).toBe("");
  expect(out).toMatch(/^encoded {6}all\.h5: (1,000|[89]\d\d) rows /);
});

it("says in one line what cannot be, before any work", async () => {
  const fails = async (...words: string[]) => {
    const { code, out, err } = await saetta(folder, "encode", "run", "acts.h5", ...words);
    expect(out).toBe("");
    return `${code} ${err}`;
  };
  expect(await fails("--out", "codes.csv")).toBe(
    "2 saetta: codes.csv: the name does not say the format; end it with .npz, .h5, .hdf5 or .safetensors\n",
  );
  await writeFile(join(folder, "there.npz"), "of another program");
  expect(await fails("--out", "there.npz")).toBe(
    "1 saetta: there.npz: exists already; choose another name, or replace it with --force\n",
  );
  expect(await fails()).toMatch(/^2 saetta: required option '--out <file>' not specified/);
  expect(await fails("--out", "acts.h5/a.npz")).toMatch(/^1 saetta: (note.*\nsaetta: )?[^\n]*acts\.h5[^\n]*\n$/);
});

it("leaves nothing on a disk that is full, and says so", async (context) => {
  const small = join(folder, "small");
  await mkdir(small);
  const { status, stderr } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=256k", "saetta", small], {
    encoding: "utf8",
  });
  if (status !== 0) context.skip(`no tmpfs can be mounted here: ${stderr}`);
  try {
    // Once for the arrays, once for the file that they are put together in.
    for (const ballast of [200, 130]) {
      await writeFile(join(small, "ballast"), new Uint8Array(ballast * 1024));
      const { bavail } = await statfs(small);
      const { code, err } = await saetta(folder, "encode", "run", "acts.h5", "--out", "small/codes.npz");
      expect(err).toBe(
        `${LEFT_OUT}saetta: small/codes.npz: cannot be written (no space left on the disk); free some space or write elsewhere\n`,
      );
      expect(code).toBe(1);
      expect(await readdir(small)).toEqual(["ballast"]);
      expect((await statfs(small)).bavail).toBe(bavail);
    }
  } finally {
    spawnSync("umount", [small]);
  }
});

it.each([
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const)("leaves nothing after %s", async (signal, code) => {
  const before = await readdir(folder);
  const words = ["encode", "run", "acts.h5", "--out", "stopped.npz"];
  const running = start(folder, ...words);
  await running.says("are left out");
  running.child.kill(signal);
  const ended = await running.ended;
  // It may have been done by then.
  if (ended.code !== 0) {
    expect(ended.err).toContain("saetta: stopped.npz: stopped before the end; nothing was written\n");
    expect(ended.code).toBe(code);
    expect(await readdir(folder)).toEqual(before);
  }
  await rm(join(folder, "stopped.npz"), { force: true });
});
