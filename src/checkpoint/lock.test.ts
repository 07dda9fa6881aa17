import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { lockRun } from "./lock.ts";

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

  it("is freed when its holder is killed", async () => {
    // The same system call from another process, which cannot run TypeScript.
    const script = `import koffi from "koffi"; import fs from "node:fs";
      const fd = fs.openSync(process.argv[1], "a"); koffi.load(null).func("int flock(int, int)")(fd, 6); console.log("held"); setInterval(() => {}, 1000);`;
    child = spawn(process.execPath, ["--input-type=module", "-e", script, join(run, "lock")], { stdio: ["ignore", "pipe", "inherit"] });
    if (child.stdout === null) throw new Error("no output");
    await once(child.stdout, "data");
    expect(() => lockRun(run)).toThrow("another process is writing to this run; wait for it to end, or stop it");
    child.kill("SIGKILL");
    await once(child, "exit");
    lockRun(run).release();
  });
});
