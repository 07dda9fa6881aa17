import { expect, it } from "vitest";
import { endedEarly, sweepOf } from "./sweep.ts";

const standing = (name: string) => ({ name, holdout_fvu: 0.5, l0: null });

it("says which members ended early, and after which step", () => {
  const file = sweepOf({
    members: ["a", "b", "c"],
    cohorts: [{ members: ["a", "b"], steps: [5] }],
    rungs: [{ step: 5, found: [standing("a"), standing("b")], ended: ["b"] }],
    failed: [{ name: "c", step: 3, message: "step 4 is not finite" }],
  })!;
  expect(["a", "b", "c"].map((name) => endedEarly(file, name))).toEqual([
    undefined,
    { reason: "halved", step: 5 },
    { reason: "failed", step: 3 },
  ]);
  expect(sweepOf({ members: ["a"] })).toEqual({ members: ["a"], cohorts: [], rungs: [], failed: [] });
});

it.each([
  [undefined],
  [[]],
  [{}],
  [{ members: [] }],
  [{ members: "a" }],
  [{ members: ["../a"] }],
  [{ members: ["a/b"] }],
  [{ members: [".."] }],
  [{ members: [""] }],
  [{ members: ["a"], rungs: [{ step: -1, found: [], ended: [] }] }],
  [{ members: ["a"], rungs: [{ step: 1, found: [{ name: "a" }], ended: [] }] }],
  [{ members: ["a"], cohorts: [{ members: ["a"] }] }],
  [{ members: ["a"], failed: [{ name: "a" }] }],
])("reads no sweep from %j", (value) => {
  expect(sweepOf(value)).toBe(undefined);
});
