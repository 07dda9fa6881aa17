/**
 * Colours and dashes of the runs: told apart by people of any colour vision, and by their dashes
 * without any colour. `palette.test.ts` measures it.
 */

/**
 * On a light and on a dark ground, each run about the same hue; searched for so that the two most
 * alike are as far apart as can be, whoever looks.
 */
export const PALETTE: Readonly<Record<"light" | "dark", readonly string[]>> = {
  light: ["#003fab", "#a82e09", "#00a598", "#6e2c59", "#aa8900", "#8f2efc"],
  dark: ["#4387ff", "#e79650", "#8efeef", "#fa129f", "#eef31a", "#b7b5ff"],
};

/** Strokes and gaps in CSS pixels; none: a whole line. */
const DASHES: readonly (readonly number[])[] = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

export interface RunStyle {
  readonly color: string;
  readonly dash: readonly number[];
}

/**
 * How the run in the given place is drawn: colours first, then the same colours in other dashes.
 */
export function styleOf(place: number, theme: "light" | "dark"): RunStyle {
  const colors = PALETTE[theme];
  return { color: colors[place % colors.length]!, dash: DASHES[Math.floor(place / colors.length) % DASHES.length]! };
}
