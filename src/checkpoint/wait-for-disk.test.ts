import { tmpdir } from "node:os";
import { describe, expect, it } from "vitest";
import { disk, failure } from "./storage.ts";
import { type OnDiskFull, retryWhenFull, waitForDisk } from "./wait-for-disk.ts";

const error = (code: string) => failure(Object.assign(new Error(`${code}: as the system says it`), { code }), "a/file");

/**
 * Tries that fail with `code` the first `times`; how often it was tried and waited, and what was
 * said.
 */
async function tried(
  onDiskFull: OnDiskFull,
  code: string,
  times: number,
  more: { needed?: number; abortAfter?: number } = {},
) {
  const stopping = new AbortController();
  const notes: string[] = [];
  let [tries, waits] = [0, 0];
  const later = async () => {
    if (++waits === more.abortAfter) stopping.abort();
  };
  const attempt = async () => {
    if (tries++ < times) throw error(code);
    return "done";
  };
  const waiting = {
    onDiskFull,
    runDir: tmpdir(),
    needed: more.needed ?? 0,
    signal: stopping.signal,
    onNote: (note: string) => notes.push(note),
  };
  const result = await retryWhenFull(attempt, waiting, { ...disk, later }).catch((thrown: Error) => thrown.message);
  return { result, tries, waits, notes };
}

const SAID = "a/file: could not be written (no space left on the disk); free some space on that disk";

describe("a disk without room", () => {
  it("is no matter as long as there is some", async () => {
    expect(await tried("wait", "ENOSPC", 0)).toEqual({ result: "done", tries: 1, waits: 0, notes: [] });
  });

  it("stops at once, unless it is to be waited for, which is said once", async () => {
    expect(await tried("stop", "ENOSPC", 2)).toEqual({ result: SAID, tries: 1, waits: 0, notes: [] });
    const notes = [
      `${SAID}; the run waits (--on-disk-full wait)`,
      "there is room on the disk again, and the run goes on",
    ];
    expect(await tried("wait", "ENOSPC", 3)).toEqual({ result: "done", tries: 4, waits: 3, notes });
    expect((await tried("wait", "EDQUOT", 1)).result).toBe("done");
  });

  it("is not what any other error is", async () => {
    for (const code of ["EIO", "EACCES"])
      expect(await tried("wait", code, 1)).toMatchObject({ tries: 1, waits: 0, notes: [] });
  });

  it("is not written to before there is as much room as is needed", async () => {
    const { result, tries, waits } = await tried("wait", "ENOSPC", 1, { needed: 2 ** 60, abortAfter: 5 });
    expect({ result, tries, waits }).toEqual({ result: "done", tries: 2, waits: 5 });
  });

  it("is waited for no longer when the run is to end", async () => {
    expect(await tried("wait", "ENOSPC", 10, { abortAfter: 2 })).toMatchObject({ result: SAID, tries: 3, waits: 2 });
  });
});

describe("room for the first checkpoint", () => {
  const waiting = { runDir: "run", needed: 1000, signal: new AbortController().signal };
  const sizes =
    (...all: (number | undefined)[]) =>
    () =>
      Promise.resolve(all.length > 1 ? all.shift() : all[0]);
  const later = { later: () => Promise.resolve() };

  it("is nothing to speak of where there is enough, or the system does not say", async () => {
    for (const free of [1000, 5000, undefined]) {
      const notes: string[] = [];
      const stop = { ...waiting, onDiskFull: "stop", onNote: (note: string) => notes.push(note) } as const;
      await waitForDisk(stop, later, sizes(free));
      expect(notes).toEqual([]);
    }
  });

  it("stops the run with both numbers where there is not", async () => {
    const stop = { ...waiting, onDiskFull: "stop", onNote: () => undefined } as const;
    await expect(waitForDisk(stop, later, sizes(10))).rejects.toThrow(
      /^run: no room on the disk: a checkpoint needs 1000 bytes \(.*\), 10 B are free; make room, choose another --out, or pass --on-disk-full wait$/,
    );
  });

  it("or is waited for", async () => {
    const notes: string[] = [];
    const wait = { ...waiting, onDiskFull: "wait", onNote: (note: string) => notes.push(note) } as const;
    await waitForDisk(wait, later, sizes(10, 20, 500, 2000));
    expect(notes.join("\n")).toMatch(
      /the run waits \(--on-disk-full wait\)\nthere is room on the disk now, and the run starts$/,
    );
    await waitForDisk({ ...wait, signal: AbortSignal.abort() }, later, sizes(10));
  });
});
