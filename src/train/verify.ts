/** Whether a run folder is whole, and where a resume would begin. */

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { isLeftover } from "../checkpoint/commit.ts";
import { checkpointsFolder, savedSteps } from "../checkpoint/layout.ts";
import { disk } from "../checkpoint/storage.ts";
import { type CheckpointVerdict, verifyCheckpoint } from "../checkpoint/verify.ts";
import { CHECKPOINTS, CONFIG, MANIFEST, METRICS, stepName } from "../run-files/names.ts";
import { formatBytes } from "../util/bytes.ts";
import { hasCode, messageOf, SaettaError } from "../util/errors.ts";
import { readRunConfig } from "./run-folder.ts";

export interface Verification {
  readonly path: string;
  /** Nothing is damaged. */
  readonly sound: boolean;
  /** The newest first. */
  readonly checkpoints: readonly (Omit<CheckpointVerdict, "checkpoint"> & { readonly step: number | undefined })[];
  /** What is wrong with config.json or metrics.jsonl, in one line each. */
  readonly problems: readonly string[];
  /** The step that a resume would go on from; 0: it would begin anew; undefined: it could not. */
  readonly resumesFrom: number | undefined;
  /** Names of what writers that were cut short left, and of what was set aside. */
  readonly leftovers: readonly string[];
}

/**
 * Looks at every byte of a run folder, or of one checkpoint folder. Rejects with SaettaError when
 * the path is neither.
 */
export async function verifyRun(path: string): Promise<Verification> {
  const names = await disk.list(path).catch((thrown: unknown) => {
    throw thrown instanceof SaettaError && hasCode(thrown.cause, "ENOTDIR") ? notARun(path) : thrown;
  });
  if (names.includes(MANIFEST)) {
    const { checkpoint, ...verdict } = await verifyCheckpoint(path);
    const checkpoints = [{ ...verdict, step: checkpoint?.step }];
    return {
      path,
      sound: verdict.problem === undefined,
      checkpoints,
      problems: [],
      resumesFrom: undefined,
      leftovers: [],
    };
  }
  if (!names.includes(CONFIG) && !names.includes(CHECKPOINTS)) throw notARun(path);
  const problems: string[] = [];
  await readRunConfig(path).catch((thrown: unknown) => problems.push(messageOf(thrown)));
  const folder = checkpointsFolder(path);
  const checkpoints: CheckpointVerdict[] = [];
  for (const step of await savedSteps(path)) checkpoints.push(await verifyCheckpoint(join(folder, stepName(step))));
  const usable = checkpoints.find(({ problem }) => problem === undefined)?.checkpoint;
  const wrong = await metricsProblem(join(path, METRICS), Number(usable?.progress.metrics_bytes ?? 0), usable?.path);
  if (wrong !== undefined) problems.push(wrong);
  const canResume = problems.length === 0 && (usable !== undefined || checkpoints.length === 0);
  return {
    path,
    sound: problems.length === 0 && checkpoints.every(({ problem }) => problem === undefined),
    checkpoints: checkpoints.map(({ checkpoint, ...verdict }) => ({
      ...verdict,
      step: Number(/\d+$/.exec(basename(verdict.path))),
    })),
    problems,
    resumesFrom: canResume ? (usable?.step ?? 0) : undefined,
    leftovers: (await disk.list(folder)).filter((name) => isLeftover(name) || name.includes(".damaged")).toSorted(),
  };
}

function notARun(path: string): SaettaError {
  return new SaettaError(`is neither a run folder nor a checkpoint: it has no ${CONFIG} and no ${MANIFEST}`, {
    where: path,
    mend: "name the folder that saetta train wrote",
  });
}

/**
 * What was logged up to the checkpoint must be lines of JSON whose steps rise; what comes after it
 * is cut away by a resume.
 */
async function metricsProblem(
  path: string,
  bytes: number,
  checkpoint: string | undefined,
): Promise<string | undefined> {
  if (bytes === 0) return undefined;
  const found = await readFile(path).catch((thrown: unknown) => messageOf(thrown));
  if (typeof found === "string") return `${path}: cannot be read (${found})`;
  if (found.byteLength < bytes)
    return `${path}: has ${found.byteLength} bytes, but ${checkpoint} was saved when it had ${bytes}`;
  const text = found.subarray(0, bytes).toString("utf8");
  if (!text.endsWith("\n")) return `${path}: byte ${bytes}, where ${checkpoint} was saved, is within a line`;
  let before = 0;
  for (const [i, line] of text.trimEnd().split("\n").entries()) {
    const step = stepOf(line);
    if (step === undefined) return `${path}: line ${i + 1} is no report of a step`;
    if (step <= before) return `${path}: line ${i + 1} is of step ${step}, and the one before of step ${before}`;
    before = step;
  }
  return undefined;
}

function stepOf(line: string): number | undefined {
  try {
    const { step } = JSON.parse(line) as { step?: unknown };
    return Number.isSafeInteger(step) ? (step as number) : undefined;
  } catch {
    return undefined;
  }
}

/** For people. */
export function verificationText({ checkpoints, problems, resumesFrom, leftovers, sound }: Verification): string {
  const lines = checkpoints.map(({ path, files, bytes, problem }) =>
    problem === undefined ? `ok       ${path}  ${files} files, ${formatBytes(bytes)}` : `damaged  ${problem}`,
  );
  if (checkpoints.length === 0) lines.push("no checkpoint yet");
  lines.push(...problems.map((problem) => `damaged  ${problem}`));
  if (leftovers.length > 0) lines.push(`left     ${leftovers.join(", ")}`);
  if (resumesFrom !== undefined)
    lines.push(`resume   ${resumesFrom === 0 ? "begins anew" : `goes on from step ${resumesFrom}`}`);
  lines.push(sound ? "whole" : "not whole");
  return lines.join("\n");
}
