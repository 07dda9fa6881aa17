/** What the reader chose, kept by the browser. */

export const AXES = ["step", "tokens", "elapsed_s"] as const;
export const THEMES = ["auto", "light", "dark"] as const;

export interface Settings {
  readonly axis: (typeof AXES)[number];
  readonly logX: boolean;
  /** 0 to 100. */
  readonly smoothing: number;
  /** By chart: whether its y axis is logarithmic, where that is not as it begins. */
  readonly logY: Readonly<Record<string, boolean>>;
  readonly theme: (typeof THEMES)[number];
}

const KEY = "saetta.settings";
export const DEFAULTS: Settings = { axis: "step", logX: false, smoothing: 0, logY: {}, theme: "auto" };

export function loadSettings(): Settings {
  try {
    return settingsFrom(localStorage.getItem(KEY));
  } catch {
    return DEFAULTS; // the browser keeps nothing for us
  }
}

export function saveSettings(settings: Settings): void {
  try {
    localStorage.setItem(KEY, JSON.stringify(settings));
  } catch {
    // they hold for this page, then
  }
}

/** Settings as they were written, by whatever version: what is not understood is as it begins. */
export function settingsFrom(text: string | null): Settings {
  let value: unknown;
  try {
    value = JSON.parse(text ?? "{}");
  } catch {
    return DEFAULTS;
  }
  if (typeof value !== "object" || value === null) return DEFAULTS;
  const { axis, logX, smoothing, logY, theme } = value as Readonly<Record<string, unknown>>;
  return {
    axis: AXES.find((each) => each === axis) ?? DEFAULTS.axis,
    logX: typeof logX === "boolean" ? logX : DEFAULTS.logX,
    smoothing: typeof smoothing === "number" && smoothing >= 0 && smoothing <= 100 ? smoothing : DEFAULTS.smoothing,
    logY: typeof logY === "object" && logY !== null ? booleans(logY) : DEFAULTS.logY,
    theme: THEMES.find((each) => each === theme) ?? DEFAULTS.theme,
  };
}

function booleans(object: object): Record<string, boolean> {
  return Object.fromEntries(
    Object.entries(object).filter((entry): entry is [string, boolean] => typeof entry[1] === "boolean"),
  );
}
