import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { LogFile } from "./log-file.ts";

const folder = mkdtempSync(join(tmpdir(), "saetta-log-file-"));
afterAll(() => rmSync(folder, { recursive: true }));
const bytes = (text: string): Uint8Array[] => [Buffer.from(text)];

/** A file whose writes end when, and as, the test says. */
function slowFile() {
  const written: string[] = [];
  const ends: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const file = {
    closed: false,
    appendFile: (data: unknown) => {
      written.push(String(data));
      return new Promise<void>((resolve, reject) => ends.push({ resolve, reject }));
    },
    close: async () => {
      file.closed = true;
    },
  };
  return { file, written, ends };
}
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("a log file", () => {
  it("gets what was appended in its order, and is whole when closed", async () => {
    const path = join(folder, "all");
    const notes: string[] = [];
    const log = await LogFile.create(path, { onNote: (note) => notes.push(note) });
    for (let i = 0; i < 1000; i++) log.append(bytes(`${i}\n`));
    await log.close();
    log.append(bytes("too late"));
    await log.close();
    expect(readFileSync(path, "utf8")).toBe(Array.from({ length: 1000 }, (_, i) => `${i}\n`).join(""));
    expect(notes).toEqual([]);
    await expect(LogFile.create(path, { onNote: () => undefined })).rejects.toThrow("EEXIST");
  });

  it("writes together what came while it wrote", async () => {
    const { file, written, ends } = slowFile();
    const log = new LogFile("slow", file, { onNote: () => undefined });
    for (const text of ["a", "b", "c"]) log.append(bytes(text));
    expect(written).toEqual(["a"]);
    ends[0]!.resolve();
    await turn();
    expect(written).toEqual(["a", "bc"]);
    const closing = log.close();
    await turn();
    expect(file.closed).toBe(false);
    ends[1]!.resolve();
    await closing;
    expect(file.closed).toBe(true);
  });

  it("tells once that it cannot be written, and writes no more", async () => {
    const { file, written, ends } = slowFile();
    const notes: string[] = [];
    const log = new LogFile("full.log", file, { onNote: (note) => notes.push(note) });
    log.append(bytes("a"));
    ends[0]!.reject(new Error("ENOSPC: no space left on device, write"));
    await turn();
    for (let i = 0; i < 5; i++) log.append(bytes("b"));
    await log.close();
    expect(notes).toEqual([
      "full.log: cannot be written (ENOSPC: no space left on device, write); the run goes on without it",
    ]);
    expect(written).toEqual(["a"]);
    expect(file.closed).toBe(true);
  });

  it("neither fills memory nor keeps anybody waiting when the disk stalls", async () => {
    const notes: string[] = [];
    const options = { onNote: (note: string) => notes.push(note), mostWaiting: 10, patience: 20 };
    const stalled = new LogFile("stalled.log", slowFile().file, options);
    for (let i = 0; i < 100; i++) stalled.append(bytes("0123"));
    expect(notes).toEqual(["stalled.log: cannot be written (the disk does not keep up); the run goes on without it"]);
    await stalled.close();
    const silent = new LogFile("silent.log", slowFile().file, options);
    silent.append(bytes("a"));
    await silent.close();
    expect(notes[1]).toBe("silent.log: cannot be written (the disk does not answer); the run goes on without it");
    expect(notes).toHaveLength(2);
  });
});
