/** The file that each harvested tensor is written to. */

import { access, constants, stat } from "node:fs/promises";
import { dirname, extname, join, resolve } from "node:path";
import { messageOf, SaettaError, UsageError } from "../util/errors.ts";
import { makeFolders } from "../util/folders.ts";
import { counted } from "../util/format.ts";

export interface Wanted {
  /**
   * Names of tensors [batch, sequence, width] inside the model. Several are computed in one pass,
   * and row r of each file is of the same token.
   */
  readonly tensor: string | readonly string[];
  /**
   * The HDF5 file of each tensor, which must not exist; or a folder, in which files are named after
   * their tensors.
   */
  readonly out: string | readonly string[];
}

export interface Place {
  readonly tensor: string;
  readonly out: string;
}

const listOf = (value: string | readonly string[]): readonly string[] => (typeof value === "string" ? [value] : value);

/** `out` in words, for errors. */
export const outOf = ({ out }: Wanted): string => listOf(out).join(", ");

/**
 * The file of each tensor: those of `out`, or one in the folder that `out` names. One name is of a
 * folder where there is such a folder, or where it has several tensors and is not called .h5.
 */
export async function placesOf({ tensor, out }: Wanted): Promise<readonly Place[]> {
  const [tensors, outs] = [listOf(tensor), listOf(out)];
  const twice = tensors.find((name, i) => tensors.indexOf(name) < i);
  if (twice !== undefined) throw new UsageError(`--tensor ${twice} is given twice`, { mend: "name each tensor once" });
  const [folder = ""] = outs;
  const called = [".h5", ".hdf5"].includes(extname(folder));
  const isFolder =
    outs.length === 1 &&
    ((await stat(folder).catch(() => undefined))?.isDirectory() ?? (tensors.length > 1 && !called));
  if (!isFolder && outs.length !== tensors.length) {
    const [many, few] = [counted(tensors.length, "tensor"), counted(outs.length, "file")];
    throw new UsageError(`${many} and ${few} were named with --tensor and --out`, {
      mend: "give an --out per --tensor, in the same order, or a folder as the only --out",
    });
  }
  const places = tensors.map((name, i) => ({ tensor: name, out: isFolder ? join(folder, fileName(name)) : outs[i]! }));
  for (const [i, { out: file }] of places.entries()) {
    const same = places.slice(0, i).find((before) => resolve(before.out) === resolve(file));
    if (same === undefined) continue;
    throw new UsageError(`the tensors ${same.tensor} and ${places[i]!.tensor} would be written to the same file`, {
      where: file,
      mend: "give an --out per --tensor",
    });
  }
  return places;
}

/** "/transformer/h.3/Add_output_0" -> "transformer-h.3-Add_output_0.h5". */
function fileName(tensor: string): string {
  return `${tensor.replaceAll(/[^\w.]+/g, "-").replace(/^[-.]+/, "") || "tensor"}.h5`;
}

/**
 * Makes sure, before any work, that the file can be written; makes its folder where there is none.
 */
export async function checkOut(out: string): Promise<void> {
  if ((await stat(out).catch(() => undefined)) !== undefined) {
    throw new SaettaError("exists already", { where: out, mend: "remove it or choose another --out" });
  }
  const folder = dirname(out);
  try {
    await makeFolders(folder);
    await access(folder, constants.W_OK);
  } catch (cause) {
    throw new SaettaError(`nothing can be written there (${messageOf(cause)})`, {
      where: folder,
      mend: "choose another --out",
      cause,
    });
  }
}
