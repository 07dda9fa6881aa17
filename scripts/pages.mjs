// What runs in browsers -> dist/, by vite. An entry a page; browser code is in the folders src/*/page, which tsconfig.page.json checks.
import { build } from "vite";

/** What all pages have in common. Nothing is inlined: the pages' policies allow files of their own server only. */
const COMMON = {
  configFile: false,
  logLevel: "warn",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
};
const OUTPUT = {
  emptyOutDir: true,
  target: "es2022",
  assetsInlineLimit: 0,
  modulePreload: { polyfill: false },
  license: { fileName: "licenses.md" },
};

const PAGES = [{ ...COMMON, root: "src/dashboard/page", publicDir: false, build: { ...OUTPUT, outDir: "../../../dist/dashboard/page" } }];

export async function buildPages() {
  for (const page of PAGES) await build(page);
}
