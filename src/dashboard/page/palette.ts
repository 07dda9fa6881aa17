/** Colours and dashes of the runs: told apart by people of any colour vision, and by their dashes without any colour. `palette.test.ts` measures it. */

/** On a light and on a dark ground, each run the same hue. */
export const PALETTE: Readonly<Record<"light" | "dark", readonly string[]>> = {
  light: ["#0059b3", "#c2410c", "#00796b", "#a3195b", "#5d6b00", "#4b2e91"],
  dark: ["#5aaeff", "#ff9d45", "#2fd3b5", "#ff86bd", "#d8d84a", "#b9a2ff"],
};

/** Strokes and gaps in CSS pixels; none: a whole line. */
const DASHES: readonly (readonly number[])[] = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

export interface RunStyle {
  readonly color: string;
  readonly dash: readonly number[];
}

/** How the run in the given place is drawn: colours first, then the same colours in other dashes. */
export function styleOf(place: number, theme: "light" | "dark"): RunStyle {
  const colors = PALETTE[theme];
  return { color: colors[place % colors.length]!, dash: DASHES[Math.floor(place / colors.length) % DASHES.length]! };
}
