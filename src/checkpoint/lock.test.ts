import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { lockRun } from "./lock.ts";

/** What happens between the opening of a lock file and its locking. */
let between: (path: string) => void = () => undefined;
vi.mock("node:fs", async (original) => {
  const fs = await original<typeof import("node:fs")>();
  const openSync = (path: string, flags: string): number => {
    const fd = fs.openSync(path, flags);
    between(path);
    return fd;
  };
  return { ...fs, openSync };
});

let run: string;
let child: ChildProcess | undefined;
beforeEach(async () => {
  run = await mkdtemp(join(tmpdir(), "saetta-lock-"));
});
afterEach(async () => {
  child?.kill("SIGKILL");
  await rm(run, { recursive: true });
});

describe("the lock of a run", () => {
  it("is held by one at a time, even within a process", () => {
    const lock = lockRun(run);
    expect(lock.warning).toBeUndefined();
    expect(() => lockRun(run)).toThrow(`${run}: another process is writing to this run (process ${process.pid} on `);
    lock.release();
    lock.release();
    lockRun(run).release();
  });

  it("is held by one at a time, too, when a run that did not begin takes its lock file away", () => {
    let times = 0;
    between = (path) => {
      if (times++ < 2) rmSync(path);
    };
    const lock = lockRun(run);
    between = () => undefined;
    expect(times).toBe(3);
    expect(() => lockRun(run)).toThrow("another process is writing to this run");
    lock.release();
  });

  it("is freed when its holder is killed", async () => {
    // The same system call from another process, which cannot run TypeScript.
    const script = `import koffi from "koffi"; import fs from "node:fs";
      const fd = fs.openSync(process.argv[1], "a"); koffi.load(null).func("int flock(int, int)")(fd, 6); console.log("held"); setInterval(() => {}, 1000);`;
    child = spawn(process.execPath, ["--input-type=module", "-e", script, join(run, "lock")], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    if (child.stdout === null) throw new Error("no output");
    await once(child.stdout, "data");
    expect(() => lockRun(run)).toThrow("another process is writing to this run; wait for it to end, or stop it");
    child.kill("SIGKILL");
    await once(child, "exit");
    lockRun(run).release();
  });
});
