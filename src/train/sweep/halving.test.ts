import { describe, expect, it } from "vitest";
import type { Rung, Standing } from "../../run-files/sweep.ts";
import { decide, Halving, rungSteps } from "./halving.ts";

const standing = (name: string, holdout_fvu: number | null, l0: number | null = 4): Standing => ({
  name,
  holdout_fvu,
  l0,
});

describe("the steps after which members are compared", () => {
  it("are the later ones where there are few members, and never the last step", () => {
    expect(rungSteps(8, 1000)).toEqual([125, 250, 500]);
    expect(rungSteps(100, 1000)).toEqual([125, 250, 500]);
    expect(rungSteps(4, 1000)).toEqual([250, 500]);
    expect(rungSteps(3, 1000)).toEqual([250, 500]);
    expect(rungSteps(2, 1000)).toEqual([500]);
    expect(rungSteps(8, 2)).toEqual([1]);
    expect(rungSteps(8, 1)).toEqual([]);
  });
});

describe("a decision", () => {
  it("keeps the better half, rounded up; what is not finite is the worst", () => {
    const found = [standing("a", 0.3), standing("b", null), standing("c", 0.1), standing("d", 0.2), standing("e", 0.4)];
    const { found: order, ended } = decide(7, found);
    expect(order.map(({ name }) => name)).toEqual(["c", "d", "a", "e", "b"]);
    expect(ended).toEqual(["e", "b"]);
    expect(decide(7, [standing("a", 0.2), standing("b", 0.2)]).ended).toEqual(["b"]);
  });

  it("ends none for a better one that uses more latents per row", () => {
    expect(decide(7, [standing("dense", 0.1, 50), standing("sparse", 0.2, 10)]).ended).toEqual([]);
    expect(decide(7, [standing("dense", 0.1, 10.9), standing("sparse", 0.2, 10)]).ended).toEqual(["sparse"]);
    expect(decide(7, [standing("sparse", 0.1, 10), standing("dense", 0.2, 50)]).ended).toEqual(["dense"]);
  });
});

describe("halving", () => {
  const cohorts = [{ members: ["a", "b", "c"], steps: [2, 4] }];
  const start = (rungs: readonly Rung[] = [], members = ["a", "b", "c"], from = 0) => {
    const recorded: Rung[] = [];
    const halving = new Halving({ cohorts, rungs }, async (rung) => {
      recorded.push(rung);
    });
    for (const name of members) halving.enter(name, from);
    return { halving, recorded };
  };

  it("waits for all, records, and then answers", async () => {
    const { halving, recorded } = start();
    const answers: string[] = [];
    const inOrder = (from = 0) => answers.slice(from).toSorted((a, b) => a.localeCompare(b));
    const ask = async (name: string, step: number, fvu: number) => {
      const stays = await halving.stays(step, standing(name, fvu));
      answers.push(`${name} ${stays} ${recorded.length}`);
    };
    const first = [ask("a", 2, 0.3), ask("b", 2, 0.1)];
    await Promise.resolve();
    expect(answers).toEqual([]);
    await Promise.all([...first, ask("c", 2, 0.2)]);
    expect(inOrder()).toEqual(["a false 1", "b true 1", "c true 1"]);
    await Promise.all([ask("b", 4, 0.1), ask("c", 4, 0.05)]);
    expect(inOrder(3)).toEqual(["b false 2", "c true 2"]);
    expect(recorded.map(({ ended }) => ended)).toEqual([["a"], ["b"]]);
    expect([halving.isDue("a", 2), halving.isDue("a", 3), halving.isDue("x", 2)]).toEqual([true, false, false]);
  });

  it("does not wait for those that are over, and leaves one alone", async () => {
    const { halving, recorded } = start();
    const asked = [halving.stays(2, standing("a", 0.3)), halving.stays(2, standing("b", 0.1))];
    await halving.leave("c");
    expect(await Promise.all(asked)).toEqual([false, true]);
    expect(await halving.stays(4, standing("b", 0.1))).toBe(true);
    expect(recorded.map(({ step }) => step)).toEqual([2]);
  });

  it("answers again what was decided before, and waits only for those that come to the step", async () => {
    const rungs = [{ step: 2, found: [standing("b", 0.1), standing("a", 0.3)], ended: ["a"] }];
    const { halving, recorded } = start(rungs, ["a", "b", "c"], 1);
    expect(await halving.stays(2, standing("a", 0.3))).toBe(false);
    expect(await halving.stays(2, standing("b", 0.1))).toBe(true);
    const { halving: ahead } = start(rungs, ["b"], 1);
    ahead.enter("c", 4);
    expect(await ahead.stays(4, standing("b", 0.1))).toBe(true);
    expect(recorded).toEqual([]);
  });

  it("decides nothing where the sweep fails", async () => {
    const { halving, recorded } = start();
    const asked = halving.stays(2, standing("a", 0.3));
    halving.fail(new Error("no room"));
    await expect(asked).rejects.toThrow("no room");
    await expect(halving.stays(2, standing("b", 0.3))).rejects.toThrow("no room");
    expect(recorded).toEqual([]);
  });
});
