import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

const long = (lines: number) => Array.from({ length: lines }, (_, i) => `export const a${i} = ${i};`).join("\n");

const REFUSED: readonly (readonly [file: string, code: string])[] = [
  ["src/util/a.ts", 'import { train } from "../train/train.ts";\ntrain();'],
  ["src/util/b.ts", 'import type { Config } from "../config.ts";\nexport type { Config };'],
  ["src/engine/a.ts", 'import { openSource } from "../data/open.ts";\nopenSource([]);'],
  ["src/engine/b.ts", 'import { createCpuEngine } from "./cpu/index.ts";\ncreateCpuEngine();'],
  ["src/engine/select.ts", 'export const cuda = await import("./cuda/index.ts");'],
  ["src/engine/cpu/a.ts", 'import { createReferenceEngine } from "../reference.ts";\ncreateReferenceEngine();'],
  ["src/engine/cpu/b.ts", 'export const other = await import("../cuda/index.ts");'],
  ["src/data/a.ts", 'export const up = await import("../train/loop.ts");'],
  ["src/train/a.ts", 'import { train } from "../index.ts";\ntrain();'],
  ["src/metrics/a.ts", 'import { timeStep } from "../bench/step.ts";\ntimeStep();'],
  ["src/metrics/b.ts", 'import { inspect } from "../inspect/inspect.ts";\ninspect("a");'],
  ["src/metrics/c.ts", 'import { nearestLatents } from "../features/nearest.ts";\nnearestLatents();'],
  ["src/inspect/a.ts", 'import { nearestLatents } from "../features/nearest.ts";\nnearestLatents();'],
  ["src/features/a.ts", 'import { train } from "../train/train.ts";\ntrain();'],
  ["src/train/d.ts", 'import { evaluate } from "../metrics/evaluate.ts";\nevaluate();'],
  ["src/train/e.ts", 'export const features = await import("../features/html-report.ts");'],
  ["src/run-files/a.ts", 'import { join } from "node:path";\njoin("a");'],
  ["src/run-files/b.ts", 'import { disk } from "../checkpoint/storage.ts";\ndisk.list("a");'],
  ["src/util/d.ts", 'import { DENSITY_UNIT } from "../run-files/density.ts";\nexport const unit = DENSITY_UNIT;'],
  ["src/bench/a.ts", 'import { harvest } from "../harvest/harvest.ts";\nharvest();'],
  ["src/logs/a.ts", 'import type { Report } from "../train/report.ts";\nexport type { Report };'],
  ["src/util/c.ts", 'import { crc32c } from "../logs/crc32c.ts";\ncrc32c();'],
  ["src/dashboard/a.ts", 'import { train } from "../train/train.ts";\ntrain();'],
  ["src/dashboard/b.ts", 'import type { Config } from "../config.ts";\nexport type { Config };'],
  ["src/dashboard/e.ts", 'import { AskServer } from "../ask/ask-server.ts";\nAskServer.start({ model: "a" });'],
  ["src/ask/a.ts", 'import { serveDashboard } from "../dashboard/server.ts";\nserveDashboard();'],
  ["src/harvest/a.ts", 'import { LIMITS } from "../ask/question.ts";\nexport const limits = LIMITS;'],
  ["src/dashboard/page/a.ts", 'import { serveDashboard } from "../server.ts";\nserveDashboard();'],
  ["src/explorer/a.ts", 'import { evaluate } from "../metrics/evaluate.ts";\nevaluate();'],
  ["src/explorer/shared/a.ts", 'import type { Source } from "../../data/source.ts";\nexport type { Source };'],
  ["src/formats/a.ts", 'import { openFeatures } from "../explorer/open.ts";\nopenFeatures("a");'],
  ["src/formats/b.ts", 'import { hubOf } from "../hub/hub.ts";\nhubOf();'],
  ["src/hub/a.ts", 'import { openSource } from "../data/open.ts";\nopenSource([]);'],
  ["src/checkpoint/a.ts", 'import { main } from "../cli.ts";\nmain();'],
];

const ALLOWED: typeof REFUSED = [
  ["src/data/b.ts", 'import { hubOf } from "../hub/hub.ts";\nhubOf();'],
  ["src/bench/b.ts", 'import { train } from "../train/train.ts";\ntrain();'],
  ["src/train/b.ts", 'import { openSource } from "../data/open.ts";\nopenSource([]);'],
  ["src/train/c.ts", 'import { openRunLogs } from "../logs/run-logs.ts";\nopenRunLogs();'],
  ["src/ask/b.ts", 'import { loadSae } from "../inference/sae.ts";\nloadSae("a");'],
  ["src/features/b.ts", 'import { openFeatures } from "../explorer/open.ts";\nopenFeatures("a");'],
  ["src/features/c.ts", 'import { evaluate } from "../metrics/evaluate.ts";\nevaluate();'],
  ["src/train/f.ts", 'import { DENSITY_UNIT } from "../run-files/density.ts";\nexport const unit = DENSITY_UNIT;'],
  ["src/dashboard/d.ts", 'import { DENSITY_UNIT } from "../run-files/density.ts";\nexport const unit = DENSITY_UNIT;'],
  [
    "src/dashboard/page/d.ts",
    'import { DENSITY_UNIT } from "../../run-files/density.ts";\nexport const unit = DENSITY_UNIT;',
  ],
  ["src/engine/registry.ts", 'export const cpu = await import("./cpu/index.ts");'],
  ["src/config.ts", 'import { ENGINE_NAMES } from "./engine/registry.ts";\nexport const names = ENGINE_NAMES;'],
  ["src/dashboard/c.ts", 'import { SaettaError } from "../util/errors.ts";\nthrow new SaettaError("a");'],
  ["src/dashboard/page/b.ts", 'import type { Events } from "../api.ts";\nexport type { Events };'],
  ["src/dashboard/page/c.ts", 'import { formatCount } from "../../util/format.ts";\nformatCount(1);'],
  ["src/cli.ts", 'export const command = await import("./commands/train.ts");'],
];

/** Two circles, closed by types alone. */
const CIRCLES: typeof REFUSED = [
  ["src/util/circle-a.ts", 'import type { B } from "./circle-b.ts";\nexport type A = B | 1;'],
  ["src/util/circle-b.ts", 'import type { A } from "./circle-a.ts";\nexport type B = A[];'],
  ["src/util/circle-c.ts", 'export type { D } from "./circle-d.ts";\nexport type C = 1;'],
  ["src/util/circle-d.ts", 'import type { C } from "./circle-c.ts";\nexport type D = C | 2;'],
];

const SIZES: typeof REFUSED = [
  ["src/util/long.ts", long(461)],
  ["src/util/short.ts", long(460)],
];

let folder = "";
/** "file: rule" of all that biome found, with the project's own configuration. */
let found = new Set<string>();

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "saetta-layers-"));
  for (const [file, code] of [...REFUSED, ...ALLOWED, ...CIRCLES, ...SIZES]) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), `${code}\n`);
  }
  const config: unknown = JSON.parse(readFileSync("biome.json", "utf8"));
  writeFileSync(join(folder, "biome.json"), JSON.stringify({ ...(config as object), vcs: { enabled: false } }));
  const biome = resolve("node_modules/@biomejs/biome/bin/biome");
  const { stdout } = spawnSync(process.execPath, [biome, "lint", "--reporter=github", "--max-diagnostics=none"], {
    cwd: folder,
    encoding: "utf8",
  });
  found = new Set(
    Array.from(stdout.matchAll(/title=lint\/\w+\/(\w+),file=([^,]+)/g), ([, rule, file]) => `${file}: ${rule}`),
  );
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe("the import rule", () => {
  it.each(REFUSED)("refuses in %s: %s", (file) => {
    expect(found).toContain(`${file}: noRestrictedImports`);
  });

  it.each(ALLOWED)("allows in %s: %s", (file) => {
    expect(found).not.toContain(`${file}: noRestrictedImports`);
  });
});

describe("the rule against circles", () => {
  it.each(CIRCLES)("refuses in %s: %s", (file) => {
    expect(found).toContain(`${file}: noImportCycles`);
  });

  it("finds none where imports point down", () => {
    for (const [file] of ALLOWED) expect(found).not.toContain(`${file}: noImportCycles`);
  });
});

describe("the size rule", () => {
  it("refuses a file of more than 460 lines", () => {
    expect(found).toContain("src/util/long.ts: noExcessiveLinesPerFile");
    expect(found).not.toContain("src/util/short.ts: noExcessiveLinesPerFile");
  });
});
