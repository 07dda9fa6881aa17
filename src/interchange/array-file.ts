/**
 * A file of named arrays, in whichever container: safetensors, a torch file with a dict of tensors,
 * or npz. Formats of autoencoders differ in the names and the layout of arrays, not in this.
 */

import { openNpz } from "../formats/npz.ts";
import { firstBytes, formatOf } from "../formats/open-file.ts";
import { openSafetensors } from "../formats/safetensors.ts";
import type { TorchValue } from "../formats/torch-pickle.ts";
import { itemsOf, openTorch, type TorchFile } from "../formats/torch-read.ts";
import { TorchTensor } from "../formats/torch-tensor.ts";
import { FormatError } from "../util/errors.ts";
import type { Floats } from "./format.ts";
import { checkShape, finiteFloats, torchTensor, transposed } from "./tensors.ts";

export interface ArrayFile {
  readonly path: string;
  /** Of arrays, and of whatever else the file holds under a name. */
  readonly names: ReadonlySet<string>;
  /** undefined where there is no array of that name. */
  shapeOf(name: string): readonly number[] | undefined;
  /**
   * A float array, row-major. Throws FormatError when it is missing, not finite, of another type,
   * or of another shape; `says`: what says the shape.
   */
  floats(name: string, shape: readonly number[], says: string): Promise<Floats>;
  close(): Promise<void>;
}

/** A torch file, with what only its pickle says. */
export interface TorchArrayFile extends ArrayFile {
  readonly torch: TorchFile;
  readonly items: ReadonlyMap<string, TorchValue>;
}

/** Opens a safetensors or npz file, which its first bytes tell apart. Close it. */
export async function openArrays(path: string): Promise<ArrayFile> {
  return formatOf(await firstBytes(path)) === "zip" ? npzArrays(path) : safetensorsArrays(path);
}

async function safetensorsArrays(path: string): Promise<ArrayFile> {
  const file = await openSafetensors(path);
  return {
    path,
    names: new Set(file.tensors.keys()),
    shapeOf: (name) => file.tensors.get(name)?.shape,
    async floats(name, shape, says) {
      const entry = file.entry(name);
      checkShape(name, entry.shape, shape, says, path);
      return finiteFloats(name, await file.read(name), entry.dtype.toLowerCase(), path);
    },
    close: () => file.close(),
  };
}

async function npzArrays(path: string): Promise<ArrayFile> {
  const file = await openNpz(path);
  return {
    path,
    names: new Set(file.arrays.keys()),
    shapeOf: (name) => file.arrays.get(name)?.shape,
    async floats(name, shape, says) {
      const header = file.arrays.get(name);
      if (header === undefined) throw new FormatError(`has no array "${name}"`, { where: path });
      checkShape(name, header.shape, shape, says, path);
      if (header.problem !== undefined)
        throw new FormatError(`array "${name}": ${header.problem.what}`, { where: path, mend: header.problem.mend });
      const values = finiteFloats(name, await file.read(name), header.dtype, path);
      if (!header.columnMajor) return values;
      const [rows, columns, ...more] = header.shape as [number, number, ...number[]];
      if (more.length === 0) return transposed(values, columns, rows);
      throw new FormatError(`array "${name}" has ${header.shape.length} axes, and its first changes fastest`, {
        where: path,
        mend: "save np.ascontiguousarray(array)",
      });
    },
    close: () => file.close(),
  };
}

/** The arrays of a torch file's dict, or of the dict `inside` it. Close it. */
export async function openTorchArrays(path: string, inside?: string): Promise<TorchArrayFile> {
  const torch = await openTorch(path);
  const top = itemsOf(torch.root);
  const items = inside === undefined ? top : itemsOf(top?.get(inside));
  if (items === undefined) {
    await torch.close();
    throw new FormatError(`holds no dict of names${inside === undefined ? "" : ` "${inside}"`}`, { where: path });
  }
  return {
    ...{ path, torch, items, names: new Set(items.keys()) },
    shapeOf(name) {
      const value = items.get(name);
      return value instanceof TorchTensor ? value.shape : undefined;
    },
    async floats(name, shape, says) {
      const tensor = torchTensor(name, items.get(name), path);
      checkShape(name, tensor.shape, shape, says, path);
      return finiteFloats(name, await torch.read(tensor), tensor.dtype, path);
    },
    close: () => torch.close(),
  };
}

/** The names in the dict of a torch file; none where it holds no such dict. */
export function torchNames(root: TorchValue): ReadonlySet<string> {
  return new Set(itemsOf(root)?.keys());
}
