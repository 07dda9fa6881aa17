import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts"],
    pool: "forks", // native code is called; a crash must not take the runner with it
    testTimeout: 60_000,
  },
});
