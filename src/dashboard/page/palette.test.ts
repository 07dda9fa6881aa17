/**
 * Colours are told apart by people who see two of the three primaries only, on both grounds;
 * measured, not judged by eye.
 */

import { describe, expect, it } from "vitest";
import css from "./base.css?raw";
import { PALETTE, styleOf } from "./palette.ts";

type Rgb = readonly [number, number, number];

/** "#rrggbb" -> linear light in [0, 1]. */
function linear(hex: string): Rgb {
  const parts = [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16) / 255);
  return parts.map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)) as unknown as Rgb;
}

/** WCAG 2.2, relative luminance and contrast. */
const luminance = ([r, g, b]: Rgb) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
function contrast(a: string, b: string): number {
  const [light, dark] = [luminance(linear(a)), luminance(linear(b))].toSorted((x, y) => y - x) as [number, number];
  return (light + 0.05) / (dark + 0.05);
}

/**
 * Machado, Oliveira and Fernandes 2009: full protanopia, deuteranopia and tritanopia, on linear
 * light.
 */
const VISIONS: Readonly<Record<string, readonly (readonly number[])[]>> = {
  normal: [
    [1, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ],
  protanopia: [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
  ],
  deuteranopia: [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.01182, 0.04294, 0.968881],
  ],
  tritanopia: [
    [1.255528, -0.076749, -0.178779],
    [-0.078411, 0.930809, 0.147602],
    [0.004733, 0.691367, 0.3039],
  ],
};

function seen(color: Rgb, vision: readonly (readonly number[])[]): Rgb {
  return vision.map((row) =>
    Math.max(
      0,
      Math.min(
        1,
        row.reduce((sum, weight, i) => sum + weight * color[i]!, 0),
      ),
    ),
  ) as unknown as Rgb;
}

/** Oklab (Ottosson 2020), in which equal distances look equal; 0.02 is just seen side by side. */
function oklab([r, g, b]: Rgb): Rgb {
  const l = Math.cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const m = Math.cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const s = Math.cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
}

const distance = (a: Rgb, b: Rgb) => Math.hypot(...oklab(a).map((value, i) => value - oklab(b)[i]!));

/** The grounds that curves are drawn on, from the style sheet itself. */
const grounds = Array.from(css.matchAll(/--card: (#[0-9a-f]{6});/g), ([, color]) => color!);

describe.each(["light", "dark"] as const)("the %s palette", (theme) => {
  const ground = grounds[theme === "light" ? 0 : 1]!;

  it("stands out from its ground (WCAG: 3 to 1 for what is drawn)", () => {
    for (const color of PALETTE[theme]) expect([color, contrast(color, ground) >= 3]).toEqual([color, true]);
  });

  it.each(Object.keys(VISIONS))("has no two colours that look alike with %s", (name) => {
    const colors = PALETTE[theme].map((color) => seen(linear(color), VISIONS[name]!));
    const close = colors.flatMap((a, i) =>
      colors.slice(0, i).map((b, j) => ({ pair: [PALETTE[theme][j], PALETTE[theme][i]], apart: distance(a, b) })),
    );
    expect(close.filter(({ apart }) => apart < 0.1)).toEqual([]);
  });
});

it("text stands out, too (WCAG: 4.5 to 1)", () => {
  for (const block of css.split("}").slice(0, 2)) {
    const colors = new Map(
      Array.from(block.matchAll(/--([a-z-]+): (#[0-9a-f]{6});/g), ([, name, color]) => [name!, color!]),
    );
    for (const text of ["text", "muted", "accent", "good", "warn"]) {
      for (const under of ["card", "ground"])
        expect([text, under, contrast(colors.get(text)!, colors.get(under)!) >= 4.5]).toEqual([text, under, true]);
    }
    expect(contrast(colors.get("on-accent")!, colors.get("accent")!)).toBeGreaterThanOrEqual(4.5);
  }
});

it("as many runs as are shown have styles of their own", () => {
  const styles = Array.from({ length: 16 }, (_, place) => JSON.stringify(styleOf(place, "light")));
  expect(new Set(styles).size).toBe(16);
});
