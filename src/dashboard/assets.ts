/**
 * The built page: read once into memory and found by name, so that no address ever becomes a path.
 */

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { hasCode, SaettaError } from "../util/errors.ts";

export interface Asset {
  readonly type: string;
  readonly bytes: Uint8Array;
}

/** By address: "/index.html", "/assets/index-abc.js". */
export type Assets = ReadonlyMap<string, Asset>;

const TYPES: Readonly<Record<string, string>> = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  svg: "image/svg+xml",
};

/** The page's only document, at several addresses. */
export const INDEX = "/index.html";

/** Where the build puts the page: beside this file as compiled. */
const BUILT = fileURLToPath(new URL("../../dist/dashboard/page/", import.meta.url));

export async function loadAssets(folder = BUILT): Promise<Assets> {
  const names = await readdir(folder, { recursive: true }).catch((cause: unknown) => {
    if (!hasCode(cause, "ENOENT")) throw cause;
    throw new SaettaError("the page is not built", { where: folder, mend: "npm run build", cause });
  });
  const found = new Map<string, Asset>();
  for (const name of names) {
    const type = TYPES[name.slice(name.lastIndexOf(".") + 1)];
    if (type !== undefined)
      found.set(`/${name.replaceAll("\\", "/")}`, { type, bytes: await readFile(join(folder, name)) });
  }
  return found;
}
