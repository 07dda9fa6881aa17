import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { POLL_MS, TEST_MS } from "./test/support/limits.ts";

/**
 * Folders whose tests share a process, as starting one takes longer than they do: they call nothing
 * native but readers of files, and leave nothing behind that another would see. dashboard/watch
 * puts functions in the place of others; hdf5-chunks reads so often that all it would be collecting
 * garbage of them all.
 */
const TOGETHER = "util|sae|explorer|formats|logs|data|dashboard|bench|commands";
const ALONE = ["src/dashboard/watch.test.ts", "src/formats/hdf5-chunks.test.ts"];
/**
 * What takes minutes together: `npm run test:full`. The other tests are those that every change
 * needs, `npm test`. conformance.test.ts is in both, with other instruction sets.
 */
const FULL = [
  "src/engine/cuda/driver/nvrtc.test.ts",
  "src/engine/conformance-faults.test.ts",
  "src/engine/contract/contract.test.ts",
  "src/engine/cpu/stream.test.ts",
  "src/engine/numbers.test.ts",
  "src/formats/hdf5-chunks.test.ts",
  "test/architectures/resume.test.ts",
  "test/browser/**/*.test.ts",
  "test/cli/moved.test.ts",
  "test/cli/origin-notes.test.ts",
  "test/cuda/**/*.test.ts",
  "test/docs/readme-commands.test.ts",
  "test/docs/walkthrough.test.ts",
  "test/fuzz/**/*.test.ts",
  "test/grid/**/*.test.ts",
  "test/package/**/*.test.ts",
  "test/torture/**/*.test.ts",
];
const BOTH = "src/engine/conformance.test.ts";
/** Not by `exclude`, which would take the place of the command line's. */
const APART = [
  `src/!(${TOGETHER})/**/*.test.ts`,
  "src/*.test.ts",
  ...ALONE,
  "test/**/*.test.ts",
  ...FULL.map((name) => `!${name}`),
];

/**
 * What takes longest: begun late, one of these would go on alone while the other processors have
 * nothing to do.
 */
const LONG = [
  "test/cuda/host",
  "src/engine/cuda/driver/nvrtc",
  "test/grid/command",
  "test/grid/cuda",
  "src/engine/conformance",
  "test/browser/report",
  "test/fuzz/fuzz",
  "test/grid/grid",
  "test/torture/kills",
  "test/torture/lock",
  "test/package/package",
].map((name) => `${name}.test.ts`);

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId, project }: TestSpecification) => {
      if (project.name === "together") return LONG.length + 1;
      const at = LONG.findIndex((name) => moduleId.endsWith(`/${name}`));
      return at === -1 ? LONG.length : at;
    };
    return (await super.sort(files)).toSorted((a, b) => place(a) - place(b));
  }
}

export default defineConfig({
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } }, // as scripts/pages.mjs builds it
  test: {
    css: true,
    pool: "forks", // native code is called; a crash must not take the runner with it
    maxWorkers: "100%",
    testTimeout: TEST_MS,
    hookTimeout: TEST_MS,
    expect: { poll: { timeout: POLL_MS } },
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: "together",
          include: [`src/@(${TOGETHER})/**/*.test.ts`, ...ALONE.map((name) => `!${name}`)],
          isolate: false,
        },
      },
      { extends: true, test: { name: "apart", include: APART } },
      { extends: true, test: { name: "full", include: [...FULL, BOTH], env: { SAETTA_TESTS: "full" } } },
    ],
  },
});
