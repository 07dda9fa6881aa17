/** What `saetta inspect` says of autoencoders of other programs, and of torch files. */

import { openNpz } from "../formats/npz.ts";
import { openTorch } from "../formats/torch-read.ts";
import { TorchTensor } from "../formats/torch-tensor.ts";
import { ALONE, arraysOf } from "../formats/torch-tree.ts";
import { torchNames } from "../interchange/array-file.ts";
import { inWords } from "../interchange/description.ts";
import { findForeign, isAutoencoder, openForeign } from "../interchange/index.ts";
import { kOf } from "../sae/architectures/index.ts";
import type { SaeDescription } from "../sae/description.ts";
import { UsageError } from "../util/errors.ts";
import { snakeCase } from "../util/json.ts";
import type { Facts, FileContents } from "./inspection.ts";

/**
 * undefined where the folder, or the file, is no autoencoder of another program. `names`: those in
 * the folder.
 */
export async function inspectForeign(path: string, names: ReadonlySet<string>): Promise<FileContents | undefined> {
  const found = await findForeign(path, names);
  if (found === undefined) return undefined;
  const kind = `autoencoder of ${found.format.name}`;
  try {
    const { description, files, notes, close } = await openForeign(found, {});
    await close();
    const k = kOf(description.spec);
    const { version: _, engine: __, importedFrom: ___, ...about } = description.saetta!;
    const facts = {
      activation: description.spec.architecture,
      ...sizesOf(description),
      k,
      ...(snakeCase(about) as Facts),
      files,
    };
    return { kind, facts, ...(notes.length > 0 ? { advice: notes } : {}) };
  } catch (thrown) {
    // It does not say all that it takes to use it, and how to say that.
    if (!(thrown instanceof UsageError)) throw thrown;
    return { kind, facts: {}, advice: [thrown.message] };
  }
}

/** The widths of an autoencoder, and of a transcoder what makes it one. */
export function sizesOf({ dims, skip = false }: SaeDescription): Facts {
  const { dIn, n, dOut, untied = false } = dims;
  return { inputs: dIn, ...(untied ? { outputs: dOut, transcoder: true, skip } : {}), latents: n };
}

/** A torch file that is no autoencoder: its tensors, and what else its dict holds. */
export async function inspectTorch(path: string): Promise<FileContents & { readonly autoencoder: boolean }> {
  const file = await openTorch(path);
  await file.close();
  const { root } = file;
  const entries = root instanceof Map ? [...root] : [];
  const arrays = [...arraysOf(root)].filter(([, { inList }]) => !inList);
  const tensors = arrays.map(([name, { dtype, shape, tensors: all }]) => ({
    name: name === ALONE ? (all.length > 1 ? "(the list)" : "(the tensor)") : name,
    dtype,
    shape: [...shape],
    ...(all.length > 1 ? { list: `a list of ${all.length} tensors` } : { strides: [...all[0]!.strides] }),
  }));
  const others = entries.flatMap(([name, it]) => (it instanceof TorchTensor ? [] : [`${String(name)}: ${shown(it)}`]));
  const facts = { tensors, ...(others.length > 0 ? { others: others.slice(0, 20) } : {}) };
  return { kind: "torch file", facts, autoencoder: isAutoencoder(torchNames(root)) };
}

/** An npz file that is no autoencoder. */
export async function inspectNpz(path: string): Promise<FileContents> {
  const file = await openNpz(path);
  await file.close();
  const arrays = [...file.arrays].map(([name, { shape, type }]) => ({ name, shape: [...shape], dtype: type }));
  return { kind: "npz file", facts: { arrays } };
}

function shown(value: unknown): string {
  if (value instanceof Map) return `a dict of ${value.size}`;
  if (Array.isArray(value)) return `a list of ${value.length}`;
  return inWords(value);
}
