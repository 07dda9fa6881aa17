/** What of the options of a run names a language model to train on. */

import { resolve } from "node:path";
import { UsageError } from "./util/errors.ts";

/** A model, the text that it reads, and the tensor whose rows are trained on. */
export interface ModelRows {
  readonly model: string;
  readonly text: string;
  readonly tensor: string;
  readonly context: number | undefined;
}

export interface ModelFlags {
  readonly model?: string | undefined;
  readonly text?: string | undefined;
  readonly tensor?: string | undefined;
  readonly context?: number | undefined;
}

/** The paths as they are recorded: the run may be resumed from another folder. */
export function absolute<T extends ModelFlags>(flags: T): T {
  const { model, text } = flags;
  return { ...flags, ...(model && { model: resolve(model) }), ...(text && { text: resolve(text) }) };
}

/** What of `flags` names a model to train on, whole; undefined where nothing does. */
export function modelOf({ model, text, tensor, context }: ModelFlags): ModelRows | undefined {
  if (model === undefined && text === undefined && tensor === undefined) return undefined;
  if (model === undefined || text === undefined || tensor === undefined) {
    const missing = Object.entries({ model, text, tensor }).filter(([, value]) => value === undefined);
    throw new UsageError(`training on a model also needs ${missing.map(([name]) => `--${name}`).join(", ")}`, {
      mend: "saetta harvest --model MODEL --list-tensors shows the tensors",
    });
  }
  return { model, text, tensor, context };
}
