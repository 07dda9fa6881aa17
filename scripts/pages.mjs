// Pages for browsers: one entry in, one script and one style sheet out, of everything that they need.
import { readFileSync } from "node:fs";
import { build } from "vite";

/** Bundles `entry` to `name`.js and `name`.css in the folder `outDir`. */
export async function buildPage({ entry, name, outDir }) {
  const licence = readFileSync("node_modules/preact/LICENSE", "utf8").trim();
  await build({
    configFile: false,
    logLevel: "warn",
    publicDir: false,
    build: {
      outDir,
      emptyOutDir: false,
      target: "es2022",
      modulePreload: false,
      cssCodeSplit: false,
      rolldownOptions: {
        input: entry,
        output: {
          format: "iife",
          entryFileNames: `${name}.js`,
          assetFileNames: `${name}[extname]`,
          postBanner: `/*! Holds preact. ${licence} */`,
        },
      },
    },
  });
}
