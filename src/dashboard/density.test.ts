import { expect, it } from "vitest";
import { densityLine } from "../../test/support/run-folder.ts";
import type { Density } from "./api.ts";
import { withDensity } from "./density.ts";

it("entries come in the order of steps; a step that comes again replaces what came after it", () => {
  let entries: readonly Density[] = [];
  for (const step of [10, 20, 30, 20]) entries = withDensity(entries, densityLine(step));
  expect(entries.map(({ step }) => step)).toEqual([10, 20]);
  expect(entries[1]).toMatchObject({ rows: 320, latents: 64, bins: densityLine(20).density });
});

it("what is no such line is left out", () => {
  const good = densityLine(10);
  for (const line of [
    undefined,
    {},
    { ...good, step: -1 },
    { ...good, latents: "64" },
    { ...good, density: {} },
    { ...good, rows: 1.5 },
  ]) {
    expect(withDensity([], line)).toEqual([]);
  }
  const bins = [
    { from: -1, to: 0, latents: 3, more: "text" },
    { from: 0, to: -1, latents: 3 },
    "text",
    { from: -2, to: -1, latents: -1 },
    { from: -1e9, to: 0, latents: 1 },
    { from: -1, to: 1e9, latents: 1 },
  ];
  expect(withDensity([], { ...good, density: bins })[0]!.bins).toEqual([{ from: -1, to: 0, latents: 3 }]);
});

it("only so many are kept", () => {
  let entries: readonly Density[] = [];
  for (let step = 0; step < 300; step++) entries = withDensity(entries, densityLine(step));
  expect([entries.length, entries[0]!.step]).toEqual([200, 100]);
});
