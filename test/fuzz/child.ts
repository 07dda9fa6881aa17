/**
 * Runs mutations one after the other: child.js FORMAT FIRST COUNT SECONDS. Writes a line before
 * each, with the seconds of processor time used so far ("s 17 0.25"), and a line for each that was
 * accepted ("a 17") or failed ("f 17 {...}"). The lines are written synchronously, so that the
 * parent knows which mutation killed this process or holds it.
 */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { SaettaError } from "../../src/util/errors.ts";
import { formatNamed } from "./formats/index.ts";
import { type Mutation, Mutator } from "./mutate.ts";

/** What one mutation may take at most, with all that the process has already. */
const MAX_BYTES = 256 * 2 ** 20;
/** Garbage of earlier mutations is not the next one's fault. */
const TIDY_BYTES = 160 * 2 ** 20;

const [name = "", first = "0", count = "1", allowed = "2"] = process.argv.slice(2);
const format = formatNamed(name);
const mutator = await Mutator.of(format);
const folder = mkdtempSync(join(tmpdir(), `saetta-fuzz-${name}-`));
let current = Number(first);

const say = (line: string): void => void writeSync(1, `${line}\n`);
const fail = (number: number, what: string, words: string): void =>
  say(`f ${number} ${JSON.stringify({ what, words, doubtful: what.startsWith("took ") })}`);
process.on("unhandledRejection", (thrown) => fail(current, `rejected and nobody waited: ${shown(thrown)}`, ""));
process.on("uncaughtException", (thrown) => fail(current, `thrown outside of every call: ${shown(thrown)}`, ""));

for (; current < Number(first) + Number(count); current++) {
  say(`s ${current} ${processorSeconds()}`);
  const mutation = mutator.mutation(current);
  const problem = await tried(mutation);
  if (problem !== undefined) fail(current, problem, mutation.words);
}
rmSync(folder, { recursive: true });

async function tried({ sample, bytes }: Mutation): Promise<string | undefined> {
  const place = join(folder, String(current));
  const path = join(place, sample.file);
  mkdirSync(join(path, ".."), { recursive: true });
  for (const [beside, content] of Object.entries(sample.beside ?? {})) writeFileSync(join(place, beside), content);
  writeFileSync(path, bytes);
  if (residentBytes("VmRSS") > TIDY_BYTES) (globalThis as { gc?: () => void }).gc?.();
  forgetPeak();
  const before = processorSeconds();
  let problem: string | undefined;
  let accepted = false;
  try {
    await format.read(path);
    accepted = true;
  } catch (thrown) {
    problem = judged(thrown, place);
  }
  const seconds = processorSeconds() - before;
  const peak = residentBytes("VmHWM");
  rmSync(place, { recursive: true });
  if (problem !== undefined) return problem;
  // Both, because filling memory takes time.
  const excess = [
    ...(seconds > Number(allowed) ? [`${seconds.toFixed(1)} s`] : []),
    ...(peak > MAX_BYTES ? [`${Math.round(peak / 2 ** 20)} MiB of memory`] : []),
  ];
  if (excess.length > 0) return `took ${excess.join(" and ")}`;
  if (accepted) say(`a ${current}`);
  return undefined;
}

/** Seconds of processor time of this process so far: user and system mode, all threads. */
function processorSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** What is wrong with what was thrown. */
function judged(thrown: unknown, place: string): string | undefined {
  if (!(thrown instanceof SaettaError)) return `threw ${shown(thrown)}`;
  const { message } = thrown;
  if (!message.includes(place)) return `an error that does not name the file: ${message.slice(0, 300)}`;
  if (message.length > 1500) return `an error of ${message.length} characters: ${message.slice(0, 300)}`;
  // A file's names end up in messages; they must not be able to steer a terminal.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
  const control = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.exec(message);
  return control === null ? undefined : `an error that is not for a terminal: ${JSON.stringify(message.slice(0, 300))}`;
}

function shown(thrown: unknown): string {
  return thrown instanceof Error ? (thrown.stack ?? thrown.message).slice(0, 1200) : String(thrown).slice(0, 200);
}

/** VmRSS: now; VmHWM: the most since `forgetPeak`. Where there is no /proc: now. */
function residentBytes(field: "VmRSS" | "VmHWM"): number {
  try {
    return Number(new RegExp(`${field}:\\s*(\\d+) kB`).exec(readFileSync("/proc/self/status", "utf8"))?.[1]) * 1024;
  } catch {
    return process.memoryUsage.rss();
  }
}

function forgetPeak(): void {
  try {
    writeFileSync("/proc/self/clear_refs", "5");
  } catch {
    // Then the peak is that of the whole process, which is no smaller.
  }
}
