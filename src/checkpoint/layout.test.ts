import { expect, it } from "vitest";
import { holderOf, lockText, stepName, stepOf } from "../run-files/names.ts";
import { runFolderOf } from "./layout.ts";

it("finds the run of a checkpoint, and of nothing else", () => {
  expect(runFolderOf("/a/runs/x/checkpoints/step-00000001")).toBe("/a/runs/x");
  expect(runFolderOf("/a/sae")).toBeUndefined();
  expect(runFolderOf("/a/checkpoints")).toBeUndefined();
});

it("reads the steps of checkpoint folders back from their names", () => {
  for (const step of [0, 12, 99_999_999, 100_000_000]) expect(stepOf(stepName(step))).toBe(step);
  for (const name of ["step-12", "step-0000000012345", ".aside-step-00000012", "step-00000012.old"])
    expect(stepOf(name)).toBeUndefined();
});

it("reads the holder of a lock back from its text", () => {
  expect(holderOf(lockText(123, "host.name"))).toEqual({ pid: 123, host: "host.name" });
  for (const text of [undefined, "", "process x on host", "process 12345678901 on host"])
    expect(holderOf(text)).toBeUndefined();
});
