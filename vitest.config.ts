import { defineConfig } from "vitest/config";

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } }, // as scripts/pages.mjs builds it
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    css: true,
    pool: "forks", // native code is called; a crash must not take the runner with it
    maxWorkers: "100%",
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
