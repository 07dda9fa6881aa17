/** A disk that is really full: a small one in memory. */

import { spawnSync } from "node:child_process";
import { mkdir, readdir, readFile, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { start } from "../cli/saetta.ts";
import { scratch } from "../support/scratch.ts";

import { digestOf, flagsOf, optionsOf, trainOrResume, writeData } from "./subject.ts";

const STEPS = 60;
const options = optionsOf(STEPS, 10, { keep: 2 });
const SMALL = "size=320k";
const LARGE = "size=16m";

let folder: string;
let data: string;
let whole: string;
let small: string;
beforeAll(async () => {
  folder = await scratch("room");
  data = await writeData(folder);
  small = join(folder, "small");
  await mkdir(small);
  await trainOrResume(data, join(folder, "whole"), options);
  whole = await digestOf(join(folder, "whole"), STEPS);
});
afterAll(() => rm(folder, { recursive: true }));

const mount = (...words: string[]) => spawnSync("mount", words, { encoding: "utf8" });
/** Why there cannot be a small disk here. */
let refused: string | undefined;
beforeEach(() => {
  const { status, stderr, error } = mount("-t", "tmpfs", "-o", SMALL, "saetta", small);
  refused = status === 0 ? undefined : `no tmpfs can be mounted here: ${error?.message ?? stderr.trim()}`;
});
afterEach(() => {
  if (refused === undefined) spawnSync("umount", [small]);
});

const command = (...args: string[]) => start(folder, ...args);
const training = (run: string, ...more: string[]) => command("train", data, "--out", run, ...flagsOf(options), ...more);

describe("a disk with room for some checkpoints and no more", () => {
  it("ends the run with exit code 1 and one line, and the run goes on to the same bits once there is room", async (context) => {
    if (refused !== undefined) context.skip(refused);
    const run = join(small, "run");
    await writeFile(join(small, "ballast"), new Uint8Array(await room(small, 150_000)));
    const { code, err } = await training(run).ended;
    expect(code).toBe(1);
    expect(err).toMatch(
      /^saetta: \S+\/small\/run\/\S+: no room on the disk: a checkpoint needs \d+ bytes \([\d.]+ KiB\), [\d.]+ \w+ are free; make room, then saetta resume \S+\/run\n$/,
    );
    const saved = await readdir(join(run, "checkpoints"));
    expect(saved.length).toBeGreaterThan(0);
    expect(saved.every((name) => /^step-\d{8}$/.test(name))).toBe(true);
    expect((await command("verify", run).ended).code).toBe(0);
    // It stays so as long as there is no room.
    expect((await command("resume", run).ended).code).toBe(1);
    await rm(join(small, "ballast"));
    expect(await command("resume", run).ended).toMatchObject({ code: 0, err: "" });
    expect(await digestOf(run, STEPS)).toBe(whole);
  });

  it("is waited for with --on-disk-full wait, and the run ends with the same bits", async (context) => {
    if (refused !== undefined) context.skip(refused);
    const run = join(small, "run");
    await writeFile(join(small, "ballast"), new Uint8Array(await room(small, 150_000)));
    const running = training(run, "--on-disk-full", "wait");
    await running.says("the run waits");
    expect(mount("-o", `remount,${LARGE}`, small).status).toBe(0);
    const { code, err } = await running.ended;
    expect(code).toBe(0);
    expect(err).toMatch(
      /^saetta: note: .*no room on the disk: .*; the run waits \(--on-disk-full wait\)\nsaetta: note: there is room on the disk again, and the run goes on\n$/,
    );
    expect(await digestOf(run, STEPS)).toBe(whole);
    expect(JSON.parse(await readFile(join(run, "config.json"), "utf8"))).toMatchObject({ on_disk_full: "wait" });
  });

  it("and a run that waits for it is ended by a signal, with its last checkpoint whole", async (context) => {
    if (refused !== undefined) context.skip(refused);
    const run = join(small, "run");
    await writeFile(join(small, "ballast"), new Uint8Array(await room(small, 150_000)));
    const running = training(run, "--on-disk-full", "wait");
    await running.says("the run waits");
    running.child.kill("SIGTERM");
    const { code, err } = await running.ended;
    expect(code).toBe(1);
    // Without any room at all it waits again.
    await writeFile(join(small, "more"), new Uint8Array(await room(small, 0))).catch(() => undefined);
    const again = command("resume", run);
    await again.says("the run waits");
    again.child.kill("SIGTERM");
    // It waited before its first step: all that it has is saved.
    expect((await again.ended).code).toBe(143);
    expect(err).toMatch(/\nsaetta: \S+: no room on the disk: .*; make room, then saetta resume \S+\n$/);
    expect(mount("-o", `remount,${LARGE}`, small).status).toBe(0);
    expect((await command("resume", run).ended).code).toBe(0);
    expect(await digestOf(run, STEPS)).toBe(whole);
  });

  it("that is full from the start is said so, and no folder is left", async (context) => {
    if (refused !== undefined) context.skip(refused);
    await writeFile(join(small, "ballast"), new Uint8Array(await room(small, 0)));
    const { code, err } = await training(join(small, "run")).ended;
    expect(code).toBe(1);
    expect(err).toMatch(
      /^saetta: \S+: could not be written \(no space left on the disk\); free some space on that disk\n$/,
    );
    expect(await readdir(small)).toEqual(["ballast"]);
  });
});

/** Bytes to be filled so that about `left` are free. */
async function room(path: string, left: number): Promise<number> {
  const { bavail, bsize } = await statfs(path);
  return Math.max(0, bavail * bsize - left);
}
