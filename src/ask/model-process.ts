/**
 * The process that runs the language model and the autoencoder. It may be ended at any time: it
 * writes nothing.
 */

import { availableParallelism } from "node:os";
import { openLogSums } from "../engine/registry.ts";
import { selectEngine } from "../engine/select.ts";
import { PLAIN_SUMS } from "../metrics/loss-math.ts";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { type FromModel, type Question, START_ID, type ToModel } from "./messages.ts";
import { readText } from "./read-text.ts";
import { steer } from "./steer.ts";
import { type AskModelOptions, Subjects } from "./subject.ts";

const tell = (message: FromModel) => void process.send?.(message);
const refuse = (id: number, thrown: unknown) => {
  const refused = thrown instanceof SaettaError ? thrown.message : `the model's process failed (${messageOf(thrown)})`;
  tell({ id, refused, usage: thrown instanceof UsageError });
};

async function open(
  options: AskModelOptions,
): Promise<(id: number, path: string, asked: Question) => Promise<unknown>> {
  const { threads = availableParallelism() } = options;
  const engine = await selectEngine("auto", { threads, inference: true });
  const subjects = await Subjects.open(options, engine);
  const logSums = await openLogSums(threads).catch(() => PLAIN_SUMS);
  return async (id, path, asked) => {
    const subject = await subjects.get(path);
    tell({ id, opened: true });
    if (asked.kind === "about") return subject.about;
    return asked.kind === "text" ? readText(subject, asked.question, logSums) : steer(subject, asked.question, logSums);
  };
}

let opening: ReturnType<typeof open> | undefined;
/** One question at a time. */
let turn: Promise<unknown> = Promise.resolve();
process.on("message", (message: ToModel) => {
  if ("options" in message) {
    opening = open(message.options);
    opening.then(
      () => tell({ id: START_ID, opened: true }),
      (thrown: unknown) => refuse(START_ID, thrown),
    );
    return;
  }
  turn = turn.then(async () => {
    try {
      const answer = await (await opening!)(message.id, message.path, message.asked);
      tell({ id: message.id, answer, memory: process.memoryUsage.rss() });
    } catch (thrown) {
      refuse(message.id, thrown);
    }
  });
});
// Ctrl-C reaches the whole group of processes: the server decides when this one ends.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => undefined);
process.on("disconnect", () => process.exit(0));
