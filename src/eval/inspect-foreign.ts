/** What `saetta inspect` says of autoencoders of other programs, and of torch files. */

import { itemsOf, openTorch } from "../formats/torch-read.ts";
import { TorchTensor } from "../formats/torch-tensor.ts";
import { inWords } from "../interchange/description.ts";
import { findForeign, isAutoencoder, openForeign } from "../interchange/index.ts";
import { UsageError } from "../util/errors.ts";
import { snakeCase } from "../util/json.ts";
import type { Facts, Inspection } from "./inspection.ts";

type Found = Pick<Inspection, "kind" | "facts" | "advice">;

/** undefined where the folder, or the file, is no autoencoder of another program. `names`: those in the folder. */
export async function inspectForeign(path: string, names: ReadonlySet<string>): Promise<Found | undefined> {
  const found = await findForeign(path, names);
  if (found === undefined) return undefined;
  const kind = `autoencoder of ${found.format.name}`;
  try {
    const { description, files, notes, close } = await openForeign(found, {});
    await close();
    const { k } = description.spec;
    const { dIn: d, n } = description.dims;
    const { version: _, engine: __, importedFrom: ___, ...about } = description.saetta!;
    const facts = { activation: "topk", inputs: d, latents: n, k, ...(snakeCase(about) as Facts), files };
    return { kind, facts, ...(notes.length > 0 ? { advice: notes } : {}) };
  } catch (thrown) {
    // It does not say all that it takes to use it, and how to say that.
    if (!(thrown instanceof UsageError)) throw thrown;
    return { kind, facts: {}, advice: [thrown.message] };
  }
}

/** A torch file that is no autoencoder: its tensors, and what else its dict holds. */
export async function inspectTorch(path: string): Promise<Found & { readonly autoencoder: boolean }> {
  const file = await openTorch(path);
  await file.close();
  const items = file.root instanceof TorchTensor ? new Map([["(the tensor)", file.root]]) : itemsOf(file.root);
  const entries = [...(items ?? [])];
  const tensors = entries.flatMap(([name, it]) =>
    it instanceof TorchTensor ? [{ name, dtype: it.dtype, shape: [...it.shape], strides: [...it.strides] }] : [],
  );
  const others = entries.flatMap(([name, it]) => (it instanceof TorchTensor ? [] : [`${name}: ${shown(it)}`]));
  const facts = { tensors, ...(others.length > 0 ? { others: others.slice(0, 20) } : {}) };
  return { kind: "torch file", facts, autoencoder: items !== undefined && isAutoencoder(items) };
}

function shown(value: unknown): string {
  if (value instanceof Map) return `a dict of ${value.size}`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return inWords(value);
}
