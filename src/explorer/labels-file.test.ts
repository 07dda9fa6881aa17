import { execFile } from "node:child_process";
import { appendFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { appendLabels, checkChange, LabelsNow, parseLabels, readLabels, timeAfter } from "./labels-file.ts";
import { searchFor } from "./shared/search.ts";
import type { LatentRow } from "./shared/source.ts";

const at = (second: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, second)).toISOString();
const score = { accuracy: 0.75, precision: 1, recall: 0.5, f1: 2 / 3, passages: 8 };

let folder = "";
let path = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "saetta-labels-"));
  path = join(folder, "labels.jsonl");
});
afterEach(() => rmSync(folder, { recursive: true }));

describe("labels.jsonl", () => {
  const LINES = [
    { latent: 3, at: at(1), name: "days" },
    { latent: 3, at: at(4), note: "also months" },
    { latent: 3, at: at(3), name: "days of the week" },
    { latent: 9, at: at(2), name: "b" },
    { latent: 9, at: at(2), name: "a" },
    { latent: 5, at: at(2), name: "gone" },
    { latent: 5, at: at(3), name: "" },
    { latent: 3, at: at(3), name: "days of the week", scores: { detection: score } },
  ];

  it("says the same whatever the order of its lines, and however often they are there", () => {
    const expected = new Map([
      [3, { name: "days of the week", note: "also months", scores: { detection: score } }],
      [9, { name: "b", note: "" }],
    ]);
    const text = (lines: readonly object[]) => lines.map((line) => `${JSON.stringify(line)}\n`).join("");
    for (let shift = 0; shift < LINES.length; shift++) {
      const turned = [...LINES.slice(shift), ...LINES.slice(0, shift), ...LINES.slice(0, shift)];
      for (const each of [turned, turned.toReversed()]) expect(parseLabels(text(each)).of).toEqual(expected);
    }
  });

  it("has no scores of a name that was changed since", () => {
    const lines = [...LINES, { latent: 3, at: at(9), name: "weekdays" }];
    expect(parseLabels(lines.map((line) => JSON.stringify(line)).join("\n")).of.get(3)).toEqual({
      name: "weekdays",
      note: "also months",
    });
  });

  it("passes over what is no change, and loses nothing else", async () => {
    const odd = [
      "{",
      "[]",
      "null",
      "12",
      '{"latent":-1,"at":"2026-01-01T00:00:00.000Z","name":"x"}',
      '{"latent":1e99,"at":"2026-01-01T00:00:00.000Z","name":"x"}',
      '{"latent":NaN,"at":"2026-01-01T00:00:00.000Z","name":"x"}',
      '{"latent":1,"at":"yesterday","name":"x"}',
      '{"latent":1,"at":"2026-01-01T00:00:00.000Z","name":5}',
      '{"latent":"1","at":"2026-01-01T00:00:00.000Z","name":"x"}',
      "\u0000\ufffd",
    ];
    writeFileSync(path, `${odd.join("\n")}\n{"latent":1,"at":"${at(0)}","name":"kept"}\n{"latent":2,"at":"20`);
    await appendLabels(path, [{ latent: 4, at: at(1), name: "next" }]);
    const { of, unread } = await readLabels(path);
    expect([...of]).toEqual([
      [1, { name: "kept", note: "" }],
      [4, { name: "next", note: "" }],
    ]);
    expect(unread).toBe(odd.length + 1);
  });

  it("follows no link, waits for no pipe, and says so", async () => {
    writeFileSync(join(folder, "other"), "");
    symlinkSync(join(folder, "other"), path);
    const line = [{ latent: 1, at: at(0), name: "x" }];
    await expect(readLabels(path)).rejects.toThrow("labels.jsonl: is a link, which is not followed");
    await expect(appendLabels(path, line)).rejects.toThrow("labels.jsonl: is a link, which is not followed");
    expect(readFileSync(join(folder, "other"), "utf8")).toBe("");
    const pipe = join(folder, "pipe");
    await promisify(execFile)("mkfifo", [pipe]);
    await expect(readLabels(pipe)).rejects.toThrow("pipe: is not a file; move it away");
    mkdirSync(join(folder, "dir"));
    await expect(readLabels(join(folder, "dir"))).rejects.toThrow("dir: is not a file; move it away");
    expect((await readLabels(join(folder, "none"))).of.size).toBe(0);
  });

  it("takes changes of several writers at once, each whole", async () => {
    const code = `
      const { appendLabels } = await import(${JSON.stringify(new URL("../../dist/explorer/labels-file.js", import.meta.url).href)});
      const [, path, writer] = process.argv;
      for (let i = 0; i < 100; i++)
        await appendLabels(path, [{ latent: 100 * Number(writer) + i, at: "${at(0)}", name: writer, note: "n".repeat(3000) }]);
    `;
    const run = (writer: number) =>
      promisify(execFile)(process.execPath, ["--input-type=module", "-e", code, path, String(writer)]);
    await Promise.all([run(1), run(2), run(3)]);
    const { of, unread } = await readLabels(path);
    expect([of.size, unread]).toEqual([300, 0]);
  });
});

describe("a change", () => {
  it("is made clean, and refused where it is too long or of no latent", () => {
    expect(checkChange(3, { name: "  a\n b\ud800 ", note: " x\r\ny \n" }, 4)).toEqual({
      latent: 3,
      name: "a b\ufffd",
      note: "x\ny",
    });
    for (const latent of [4, -1, 1.5, Number.NaN, "3", null, undefined])
      expect(() => checkChange(latent, {}, 4)).toThrow("latent must be a whole number from 0 to 3");
    expect(() => checkChange(0, { name: "a".repeat(201) }, 4)).toThrow("a name has at most 200 characters");
    expect(() => checkChange(0, { note: "a".repeat(10_001) }, 4)).toThrow("a note has at most 10000 characters");
  });

  it("comes after what is known, though the clock of another writer was ahead", async () => {
    const ahead = parseLabels(`{"latent":1,"at":"2030-01-01T00:00:00.000Z","name":"a"}`);
    expect(timeAfter(ahead, [1], Date.UTC(2026, 0))).toBe("2030-01-01T00:00:00.001Z");
    expect(timeAfter(ahead, [2], Date.UTC(2026, 0))).toBe("2026-01-01T00:00:00.000Z");
    const labels = new LabelsNow(path);
    expect(await labels.change({ latent: 1, name: "first" }, Date.UTC(2030, 0))).toEqual({ name: "first", note: "" });
    expect(await labels.change({ latent: 1, note: "second" }, Date.UTC(2026, 0))).toEqual({
      name: "first",
      note: "second",
    });
    expect(await labels.change({ latent: 1, name: "third" }, Date.UTC(2026, 0))).toEqual({
      name: "third",
      note: "second",
    });
    appendFileSync(path, `{"latent":1,"at":"2031-01-01T00:00:00.000Z","name":"elsewhere"}\n`);
    expect((await labels.read()).of.get(1)?.name).toBe("elsewhere");
  });
});

it("a search finds words of names first, and notes", () => {
  const row = (on: string, label?: LatentRow["label"]) =>
    ({ latent: 0, on: [on], shares: [0.9], up: [], ...(label && { label }) }) as unknown as LatentRow;
  const { rank } = searchFor("days");
  const fits = [
    rank(row("x", { name: "Days of the week", note: "" })),
    rank(row(" days")),
    rank(row("x", { name: "weekdays", note: "" })),
    rank(row("x", { name: "", note: "some days" })),
    rank(row("x", { name: "months", note: "" })),
  ];
  expect(fits.map((fit) => fit !== undefined)).toEqual([true, true, true, true, false]);
  expect(fits.slice(0, 4)).toEqual(fits.slice(0, 4).toSorted((a, b) => b! - a!));
});
