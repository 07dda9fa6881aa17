import { beforeEach, describe, expect, it } from "vitest";
import type { Branch, Codes, Params, Step, Tensor } from "./engine.ts";
import { Fusion } from "./fuse.ts";

const tensor = (): Tensor => ({ dtype: "f32", shape: [1] });
const codes = (): Codes => ({ rows: 1, capacity: 1 });
const params = (): Params => ({ encoder: tensor(), latentBias: tensor(), decoder: tensor(), preBias: tensor() });
const step = (): Step => ({
  hyper: tensor(),
  sums: tensor(),
  fired: tensor(),
  bad: tensor(),
  sq: tensor(),
  cut: tensor(),
  active: tensor(),
});
const branch = (): Branch => ({ codes: codes(), err: tensor() });

describe("fusion of decode, residual and codeGrad", () => {
  let log: string[] = [];
  let fusion = new Fusion();
  const [p, t, live, dead, x] = [params(), step(), branch(), branch(), tensor()];
  const decode = (of = live, with_ = p) => fusion.decode(with_, of.codes, of.err, () => log.push("decode"));
  const residual = (of = live, before?: Branch, with_ = p) =>
    fusion.residual(with_, x, t, of, before, () => log.push("residual"));
  const codeGrad = (of = live, at = t, with_ = p) =>
    fusion.codeGrad(
      with_,
      of,
      at,
      () => log.push("codeGrad"),
      (it) => log.push(it.target === x ? `all${it.live === live ? " after live" : ""}` : "wrong x"),
    );

  beforeEach(() => {
    log = [];
    fusion = new Fusion();
  });

  it("three that belong together are one", () => {
    decode();
    residual();
    expect(log).toEqual([]);
    codeGrad();
    fusion.flush();
    expect(log).toEqual(["all"]);
  });

  it("both branches, the dead one after the live one", () => {
    decode();
    residual();
    codeGrad();
    decode(dead);
    residual(dead, live);
    codeGrad(dead);
    expect(log).toEqual(["all", "all after live"]);
  });

  it("what is held back goes first when anything else comes", () => {
    decode();
    fusion.flush();
    expect(log).toEqual(["decode"]);
    decode();
    residual();
    fusion.flush();
    fusion.flush();
    expect(log).toEqual(["decode", "decode", "residual"]);
  });

  it("two decodes in turn", () => {
    decode();
    decode(dead);
    residual(dead, live);
    codeGrad(dead);
    expect(log).toEqual(["decode", "all after live"]);
  });

  it.for<[string, () => void, string[]]>([
    ["of other codes", () => residual({ codes: codes(), err: live.err }), ["decode", "residual"]],
    ["of another err", () => residual({ codes: live.codes, err: tensor() }), ["decode", "residual"]],
    ["of other weights", () => residual(live, undefined, params()), ["decode", "residual"]],
    ["that reads the err it writes", () => residual(live, { codes: codes(), err: live.err }), ["decode", "residual"]],
  ])("a residual %s is not part of it", ([, call, expected]) => {
    decode();
    call();
    expect(log).toEqual(expected);
  });

  it.for<[string, () => void]>([
    ["of another step", () => codeGrad(live, step())],
    ["of the other branch", () => codeGrad(dead)],
    ["of another pre-bias", () => codeGrad(live, t, { ...p, preBias: tensor() })],
  ])("a codeGrad %s is not part of it", ([, call]) => {
    decode();
    residual();
    call();
    expect(log).toEqual(["decode", "residual", "codeGrad"]);
  });

  it("a codeGrad right after decode, and a second residual, stand alone", () => {
    decode();
    codeGrad();
    decode();
    residual();
    residual();
    codeGrad();
    expect(log).toEqual(["decode", "codeGrad", "decode", "residual", "residual", "codeGrad"]);
  });
});
