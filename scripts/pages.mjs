// What runs in browsers -> dist/, by vite. An entry a page; browser code is in the folders
// src/*/page, which tsconfig.page.json checks.
import { readFileSync } from "node:fs";
import { build } from "vite";

/**
 * What all pages have in common. Nothing is inlined: the pages' policies allow files of their own
 * server only.
 */
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

/**
 * The one script and the one style sheet that stand in a page that is one file; who passes such
 * a page on passes preact on.
 */
const oneFile = (input, name) => ({
  input,
  output: {
    format: "iife",
    entryFileNames: `${name}.js`,
    assetFileNames: `${name}[extname]`,
    postBanner: `/*! Holds preact. ${readFileSync(new URL("../node_modules/preact/LICENSE", import.meta.url), "utf8").trim()} */`,
  },
});

const PAGES = [
  {
    ...COMMON,
    root: "src/dashboard/page",
    publicDir: false,
    build: { ...OUTPUT, outDir: "../../../dist/dashboard/page" },
  },
  {
    ...COMMON,
    publicDir: false,
    build: {
      ...OUTPUT,
      outDir: "dist/explorer/page",
      cssCodeSplit: false,
      rolldownOptions: oneFile("src/explorer/page/static.ts", "static"),
    },
  },
  {
    ...COMMON,
    publicDir: false,
    build: {
      ...OUTPUT,
      outDir: "dist/explorer/compare",
      cssCodeSplit: false,
      rolldownOptions: oneFile("src/explorer/page/compare.tsx", "compare"),
    },
  },
];

export async function buildPages() {
  for (const page of PAGES) await build(page);
}
