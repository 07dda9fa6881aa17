import { expect, it } from "vitest";
import { addressOf, parseAddress } from "./address.ts";

const USUAL = { axis: "step", logX: false, smoothing: 0 } as const;

it.each([
  ["/", [], USUAL, undefined],
  ["/?run=a&run=b.1", ["a", "b.1"], USUAL, undefined],
  ["/?run=a&axis=tokens&log=x&smoothing=35", ["a"], { axis: "tokens", logX: true, smoothing: 35 }, undefined],
  ["/?run=a&axis=elapsed_s&zoom=0.125_1e%2B21", ["a"], { ...USUAL, axis: "elapsed_s" }, [0.125, 1e21]],
  ["/?run=a&axis=step&zoom=-5_250", ["a"], USUAL, [-5, 250]],
] as const)("%s is an address and back", (address, runs, view, zoom) => {
  expect(addressOf(runs, view, zoom)).toBe(address);
  const parsed = parseAddress(address.slice(1));
  expect(parsed.runs).toEqual(runs);
  expect(parsed.view ?? USUAL).toEqual(view);
  expect(parsed.zoom).toEqual(zoom);
});

it("says nothing of the view where it names none, and takes no nonsense", () => {
  expect(parseAddress("?run=a").view).toBeUndefined();
  for (const search of ["?axis=evil", "?zoom=5_1", "?zoom=1_2_3", "?zoom=a_b", "?zoom=", "?smoothing=x"])
    expect([search, parseAddress(search)]).toEqual([search, { runs: [], view: undefined, zoom: undefined }]);
  expect(parseAddress("?smoothing=1000&axis=tokens").view).toEqual({ ...USUAL, axis: "tokens" });
});
