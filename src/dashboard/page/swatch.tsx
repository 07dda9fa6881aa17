/** How a run is drawn, small: its colour and its dashes. */

import type { RunStyle } from "./palette.ts";

interface SwatchProps {
  readonly style: RunStyle;
  readonly sparse?: boolean;
  /** Opacity. */
  readonly shade?: number | undefined;
}

export function Swatch({ style, sparse = false, shade = 1 }: SwatchProps) {
  return (
    <svg class="swatch" width="22" height="10" viewBox="0 0 22 10" opacity={shade} aria-hidden="true">
      <line
        x1="1"
        y1="5"
        x2="21"
        y2="5"
        stroke={style.color}
        stroke-width={sparse ? 1.5 : 3}
        stroke-dasharray={style.dash.join(" ")}
      />
      {sparse && <circle cx="11" cy="5" r="3.5" fill={style.color} />}
    </svg>
  );
}
