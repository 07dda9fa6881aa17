/** The bar of choices that hold for all charts. */

import type { Model } from "./model.ts";
import { AXES, type Settings, THEMES } from "./settings.ts";
import type { Connection } from "./stream.ts";

const AXIS_NAMES: Readonly<Record<Settings["axis"], string>> = { step: "steps", tokens: "rows", elapsed_s: "time" };
const CONNECTIONS: Readonly<Record<Connection, string>> = {
  connecting: "connecting",
  live: "live",
  lost: "connection lost, trying again",
};

export function Brand() {
  return (
    <h1>
      <svg width="26" height="26" viewBox="0 0 32 32" aria-hidden="true">
        <rect width="32" height="32" rx="7" fill="#16324f" />
        <path d="M18.6 3.5 7.5 18.2h6.7L12.4 28.5 24.5 12.6h-7.2z" fill="#ffc533" />
      </svg>
      Saetta
    </h1>
  );
}

export function Top({ model }: { model: Model }) {
  const { theme } = model.settings;
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length]!;
  return (
    <header class="top">
      <Brand />
      <p class={`connection ${model.connection}`} role="status">
        {CONNECTIONS[model.connection]}
      </p>
      <button
        type="button"
        class="theme"
        onClick={() => model.set({ theme: next })}
        aria-label={`colours: ${theme}; change to ${next}`}
      >
        {theme === "auto" ? "◐" : theme === "light" ? "☀" : "☾"} <span>{theme}</span>
      </button>
    </header>
  );
}

export function Controls({ model }: { model: Model }) {
  const { axis, logX, smoothing } = model.settings;
  return (
    <fieldset class="controls">
      <legend class="visually-hidden">all charts</legend>
      <fieldset class="choice">
        <legend>over</legend>
        {AXES.map((each) => (
          <label key={each}>
            <input type="radio" name="axis" checked={axis === each} onChange={() => model.set({ axis: each })} />
            <span>{AXIS_NAMES[each]}</span>
          </label>
        ))}
      </fieldset>
      <label class="check">
        <input type="checkbox" checked={logX} onChange={(event) => model.set({ logX: event.currentTarget.checked })} />{" "}
        logarithmic
      </label>
      <label class="smoothing">
        smoothing
        <input
          type="range"
          min={0}
          max={100}
          step={5}
          value={smoothing}
          onInput={(event) => model.set({ smoothing: event.currentTarget.valueAsNumber })}
        />
        <output>{smoothing === 0 ? "off" : smoothing}</output>
      </label>
      {model.zoom !== undefined && (
        <button type="button" onClick={() => model.zoomTo(undefined)}>
          show everything
        </button>
      )}
    </fieldset>
  );
}
