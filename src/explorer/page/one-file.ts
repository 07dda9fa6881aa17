/** A page that is one file: its chunks are elements with their names as ids, in base64. */

import "./static.css";

/** What a chunk is called in errors. */
export const WHERE = "this page";

export async function chunk(name: string): Promise<Uint8Array<ArrayBuffer>> {
  const element = document.getElementById(name);
  if (element === null) throw new Error(`The page has no "${name}"; it was cut off, or is still loading.`);
  return Uint8Array.from(atob(element.textContent), (char) => char.charCodeAt(0));
}

/** Fills the page with what `show` makes, or says what is wrong. */
export async function startPage(show: (root: Element) => Promise<void>): Promise<void> {
  const root = document.getElementById("explorer");
  if (root === null) return;
  try {
    await show(root);
  } catch (thrown) {
    root.textContent = `This page cannot be shown: ${thrown instanceof Error ? thrown.message : String(thrown)}`;
  }
}
