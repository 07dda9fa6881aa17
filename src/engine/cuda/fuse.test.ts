import { describe, expect, it } from "vitest";
import type { Params, Path, Step, Tensor } from "../engine.ts";
import { Fuse } from "./fuse.ts";

const tensor = (): Tensor => ({ dtype: "f32", shape: [1] });
const p: Params = { encoder: tensor(), latentBias: tensor(), decoder: tensor(), preBias: tensor() };
const t: Step = { hyper: tensor(), sums: tensor(), fired: tensor(), bad: tensor(), sq: tensor() };
const path = (): Path => ({ codes: { rows: 1, k: 1 }, err: tensor() });
const [x, live, dead] = [tensor(), path(), path()];

/** Calls are written down; `able`: whether the three can be one. */
function fuse(able = true): { readonly calls: string[]; readonly of: Fuse } {
  const calls: string[] = [];
  const name = (it: Path | undefined) => (it === live ? "live" : it === dead ? "dead" : "none");
  const of = new Fuse({
    decode: (_, codes) => calls.push(`decode ${codes === live.codes ? "live" : "dead"}`),
    residual: (_p, _x, _t, it, with_) => calls.push(`residual ${name(it)} with ${name(with_)}`),
    codeGrad: (_, it) => calls.push(`codeGrad ${name(it)}`),
    canReconstruct: () => able,
    reconstruct: (_p, _x, _t, it, with_) => calls.push(`reconstruct ${name(it)} with ${name(with_)}`),
  });
  return { calls, of };
}

describe("Fuse", () => {
  it("makes one of three that belong together", () => {
    const { calls, of } = fuse();
    for (const [it, with_] of [
      [live, undefined],
      [dead, live],
    ] as const) {
      of.decode(p, it.codes, it.err);
      of.residual(p, x, t, it, with_);
      of.codeGrad(p, it, t);
    }
    of.flush();
    expect(calls).toEqual(["reconstruct live with none", "reconstruct dead with live"]);
  });

  it("holds nothing back when asked", () => {
    const { calls, of } = fuse();
    of.decode(p, live.codes, live.err);
    expect(calls).toEqual([]);
    of.flush();
    of.residual(p, x, t, live, undefined);
    of.flush();
    of.codeGrad(p, live, t);
    expect(calls).toEqual(["decode live", "residual live with none", "codeGrad live"]);
  });

  it("keeps the order of what does not belong together", () => {
    const { calls, of } = fuse();
    of.decode(p, live.codes, live.err);
    of.residual(p, x, t, live, undefined);
    of.decode(p, dead.codes, dead.err);
    of.codeGrad(p, live, t);
    expect(calls).toEqual(["decode live", "residual live with none", "decode dead", "codeGrad live"]);
  });

  it.each([
    ["other parameters", { ...p, decoder: tensor() }, t],
    ["another step", p, { ...t, bad: tensor() }],
  ] as const)("does not take %s for the same", (_, params, step) => {
    const { calls, of } = fuse();
    of.decode(p, live.codes, live.err);
    of.residual(p, x, t, live, undefined);
    of.codeGrad(params, live, step);
    expect(calls).toEqual(["decode live", "residual live with none", "codeGrad live"]);
  });

  it("takes them apart where they cannot be one", () => {
    const { calls, of } = fuse(false);
    of.decode(p, live.codes, live.err);
    of.residual(p, x, t, live, undefined);
    of.codeGrad(p, live, t);
    expect(calls).toEqual(["decode live", "residual live with none", "codeGrad live"]);
  });
});
