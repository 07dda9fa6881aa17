/** Light or dark: as the system has it, or as the reader chose. */

import { useEffect, useState } from "preact/hooks";
import type { Settings } from "./settings.ts";

const dark = window.matchMedia("(prefers-color-scheme: dark)");

export function useTheme(chosen: Settings["theme"]): "light" | "dark" {
  const [system, setSystem] = useState(dark.matches);
  useEffect(() => {
    const listener = () => setSystem(dark.matches);
    dark.addEventListener("change", listener);
    return () => dark.removeEventListener("change", listener);
  }, []);
  const theme = chosen === "auto" ? (system ? "dark" : "light") : chosen;
  document.documentElement.dataset.theme = theme;
  return theme;
}
