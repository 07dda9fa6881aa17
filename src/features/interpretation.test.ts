import { expect, it } from "vitest";
import { type Item, returnedOf, scoreOf } from "../explorer/shared/interpretation.ts";
import type { Latent, Passage } from "../explorer/shared/source.ts";
import type { Json } from "../util/json.ts";
import { interpretedOf } from "./interpretation.ts";

const passage = (row: number): Passage => ({
  value: 4,
  row,
  tokens: [" a", ` t${row}`, " b", " c"],
  values: [1.1, 4, 0.5, 2],
  at: 1,
});
const latentOf = (strongest: number, drawn: number) =>
  ({
    latent: 7,
    label: { name: "n", note: "" },
    strongest: Array.from({ length: strongest }, (_, i) => passage(i)),
    ranges: [{ from: 0, to: 4, firings: 9, passages: Array.from({ length: drawn }, (_, i) => passage(100 + i)) }],
    promoted: [{ text: " up", effect: 1 }],
    suppressed: null,
  }) as unknown as Latent;
const random = Array.from({ length: 40 }, (_, i) => ({
  tokens: [" r", ` s${i}`, " u", " v"],
  firing: new Set(i < 10 ? [7] : [8]),
}));
const textOf = ({ tokens }: { readonly tokens: readonly string[] }) => tokens.join("");

it("tests with passages that do not explain, as many in which the latent never fires", () => {
  const { explain, detection, fuzzing, promoted, suppressed, name } = interpretedOf(latentOf(12, 10), random);
  expect([explain.length, detection.length, fuzzing.length, name]).toEqual([12, 20, 20, "n"]);
  expect([promoted, suppressed]).toEqual([[" up"], []]);
  const explained = new Set(explain.map(textOf));
  for (const items of [detection, fuzzing]) {
    const [fires, not] = [true, false].map((activating) => items.filter((item) => item.activating === activating));
    expect([fires!.length, not!.length]).toEqual([10, 10]);
    expect(fires!.filter((item) => explained.has(textOf(item)))).toEqual([]);
    // The latent fires in the first ten random passages.
    for (const item of not!) expect(Number(/s(\d+)/.exec(textOf(item))?.[1])).toBeGreaterThanOrEqual(10);
    expect(items.map(({ activating }) => activating)).not.toEqual([...fires!, ...not!].map((item) => item.activating));
  }
  expect(detection.every(({ marked }) => marked.length === 0)).toBe(true);
  // Above 0.3 times the maximum of 4; as many random tokens where it does not fire.
  for (const { activating, marked } of fuzzing)
    expect(activating ? marked : marked.length).toEqual(activating ? [1, 3] : 2);
});

it("shares the strongest passages out where there are no others", () => {
  const { explain, detection } = interpretedOf(latentOf(12, 0), random);
  expect([explain.length, detection.filter(({ activating }) => activating).length]).toEqual([6, 6]);
});

const item = (activating: boolean, answer: boolean | null): Item => ({ tokens: [], marked: [], activating, answer });
const ITEMS = [
  ...[item(true, true), item(true, true), item(true, false), item(true, null)],
  ...[item(false, false), item(false, true), item(false, false), item(false, false)],
];

it("scores by balanced accuracy, of what was answered", () => {
  expect(scoreOf(ITEMS)).toEqual({
    accuracy: (2 / 3 + 3 / 4) / 2,
    precision: 2 / 3,
    recall: 2 / 3,
    f1: 2 / 3,
    passages: 7,
  });
  expect(scoreOf([item(true, false), item(false, false)])).toMatchObject({ accuracy: 0.5, precision: 0, f1: 0 });
  expect(scoreOf([item(true, true)])).toBeUndefined();
});

it("reads what came back, and refuses what is something else in one line", () => {
  const file = (latent: object) =>
    ({ format: "saetta-interpretation", version: 1, autoencoder: "runs/a", latents: [latent] }) as unknown as Json;
  const detection = ITEMS.map(({ activating, answer }) => ({ activating, answer }));
  expect(returnedOf(file({ latent: 7, name: "x", detection, fuzzing: [] }), "f.json")).toEqual({
    autoencoder: "runs/a",
    latents: [{ latent: 7, name: "x", note: "", scores: { detection: scoreOf(ITEMS) } }],
  });
  for (const [value, message] of [
    [{}, 'f.json: is no file of saetta label export (format "saetta-interpretation", version 1)'],
    [file({ latent: -1 }), 'f.json: "latent" must be a whole number of at least 0, but is -1'],
    [file({ latent: 1, name: 3 }), 'f.json: "name" must be a string, but is 3'],
    [file({ latent: 1, detection: 3 }), 'f.json: "detection" must be a list'],
    [file({ latent: 1, detection: [{ activating: 1 }] }), 'f.json: "activating" must be true or false, but is 1'],
    [file({ latent: 1, fuzzing: [{ activating: true, answer: "yes" }] }), '"answer" must be true or false'],
  ] as const)
    expect(() => returnedOf(value as Json, "f.json")).toThrow(message);
});
