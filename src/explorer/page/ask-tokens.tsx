/** The tokens of a text, shaded; one of them is chosen by pointing or by the arrow keys. */

import { useRef } from "preact/hooks";
import { level, visible } from "./words.ts";

interface Shown {
  readonly label: string;
  readonly texts: readonly string[];
  /** Shade of each token, and what it says; 0: none. */
  readonly values: readonly number[];
  readonly titles: readonly string[];
  /** The value of the deepest shade. */
  readonly max: number;
  readonly chosen: number;
  readonly choose: (token: number) => void;
  /** Tokens that training leaves out. */
  readonly isOut: (token: number) => boolean;
}

/** Keys, and how far each moves. */
const MOVES: Readonly<Record<string, number>> = {
  ArrowLeft: -1,
  ArrowUp: -1,
  ArrowRight: 1,
  ArrowDown: 1,
  Home: Number.NEGATIVE_INFINITY,
  End: Number.POSITIVE_INFINITY,
};

export function AskTokens({ label, texts, values, titles, max, chosen, choose, isOut }: Shown) {
  const holder = useRef<HTMLDivElement>(null);
  const move = (event: KeyboardEvent) => {
    const by = MOVES[event.key];
    if (by === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const next = Math.min(texts.length - 1, Math.max(0, chosen + by));
    choose(next);
    holder.current?.children[next]?.scrollIntoView({ block: "nearest" });
  };
  return (
    <div
      ref={holder}
      class="asked"
      role="listbox"
      aria-label={label}
      tabIndex={0}
      aria-activedescendant={`token-${chosen}`}
      onKeyDown={move}
    >
      {texts.map((text, i) => {
        const value = values[i] ?? 0;
        return (
          <span
            key={i}
            id={`token-${i}`}
            role="option"
            tabIndex={-1}
            aria-selected={i === chosen}
            class={`h${level(value, max)}${isOut(i) ? " out" : ""}`}
            title={titles[i]}
            onClick={() => choose(i)}
            onKeyDown={undefined}
          >
            {visible(text) || "·"}
            {text.includes("\n") && <br />}
          </span>
        );
      })}
    </div>
  );
}
