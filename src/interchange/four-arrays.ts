/**
 * What nearly every file of an autoencoder or transcoder holds: an encoder, a decoder and their
 * biases, under names and in a layout of its format, and a rule that selects latents. A format says
 * here which names, layout and rule those are. From that this makes the arrays in our words (open),
 * and the file evaluated as it is worded (rules.ts), which share nothing but what the format says.
 */

import { basename } from "node:path";
import type { ArchitectureSpec } from "../sae/architectures/index.ts";
import type { Dims } from "../sae/dims.ts";
import { closedOnFailure } from "../util/closing.ts";
import { FormatError } from "../util/errors.ts";
import type { ArrayFile } from "./array-file.ts";
import { describeForeign, paramReader } from "./description.ts";
import type { Exchanged, Floats, Foreign, ReadFormatName, Rules } from "./format.ts";
import { type FileSelects, rulesOf } from "./rules.ts";
import { RELU_NOTE, THRESHOLDS, topkOf } from "./selection.ts";
import { checkShape, likeFirst, matrixShape, rowNorms, timesRows, transposed, unusedNote } from "./tensors.ts";

export interface Layout {
  /** Names of the arrays. No encoder's bias where the latents are gated; no decoder's: it is 0. */
  readonly names: {
    readonly encoder: string;
    readonly encoderBias?: string | undefined;
    readonly decoder: string;
    readonly decoderBias?: string | undefined;
  };
  /** Which of them are [dIn, n] and [dOut, n]; otherwise they are [n, dIn] and [n, dOut]. */
  readonly transposed: readonly ("encoder" | "decoder")[];
}

/** What selects the latents of a file, and by which of its arrays. */
export type Selects =
  /** The k highest; with `keepsNegative` those below 0 keep their value. */
  | { readonly kind: "topk"; readonly k: number; readonly keepsNegative?: boolean }
  | { readonly kind: "relu" }
  /** Above the array: [n], or with `one` a single number. `isLog`: it holds the logarithm. */
  | { readonly kind: "threshold"; readonly array: string; readonly one?: readonly number[]; readonly isLog?: boolean }
  /** Above the same number for all latents. */
  | { readonly kind: "above"; readonly value: number }
  /**
   * With s the encoder's product: the value is relu(s e^scale + magnitude) where s + gate is above
   * 0. All [n].
   */
  | { readonly kind: "gated"; readonly gate: string; readonly magnitude: string; readonly scale: string };

export interface FourArrays {
  readonly file: ArrayFile;
  readonly dims: Dims;
  readonly layout: Layout;
  readonly selects: Selects;
  /** The decoder's bias is taken from the input first. */
  readonly subtract: boolean;
  /** Rows are layer-normalised, and that is undone with the standard deviation. */
  readonly layerNorm?: boolean;
  /** Rows are times `input` first; outputs are divided by `output`. Default: 1. */
  readonly scale?: { readonly input: number; readonly output: number } | undefined;
  /**
   * What is compared is times the norms of the decoder's rows: "latents", the values are, too;
   * "selection", they are not. Default: neither.
   */
  readonly byNorm?: "latents" | "selection" | undefined;
  /**
   * A linear map from input to output next to the latents: an array [dOut, dIn], or [dIn, dOut]
   * where `transposed`.
   */
  readonly skip?: { readonly array: string; readonly transposed?: boolean } | undefined;
  /** What says the shapes, for errors. */
  readonly says: string;
}

function shapeIn(file: ArrayFile, name: string): readonly number[] {
  const shape = file.shapeOf(name);
  if (shape !== undefined) return shape;
  const what = file.names.has(name) ? `"${name}" is no tensor` : `has no tensor "${name}"`;
  throw new FormatError(what, { where: file.path });
}

/** [n, dIn] of the encoder. Throws FormatError where there is none. */
export function encoderShape(file: ArrayFile, { names, transposed: columns }: Layout): readonly [number, number] {
  const [rows, width] = matrixShape(names.encoder, shapeIn(file, names.encoder), file.path);
  return columns.includes("encoder") ? [width, rows] : [rows, width];
}

/** Number of outputs of the decoder. Throws FormatError where there is none. */
export function decoderWidth(file: ArrayFile, { names, transposed: columns }: Layout): number {
  const [rows, width] = matrixShape(names.decoder, shapeIn(file, names.decoder), file.path);
  return columns.includes("decoder") ? rows : width;
}

/** The shape of each array that is used. */
function shapesOf({ dims, layout, selects, skip }: FourArrays): ReadonlyMap<string, readonly number[]> {
  const { dIn, n, dOut } = dims;
  const { names, transposed: columns } = layout;
  const matrix = (name: "encoder" | "decoder", width: number) => (columns.includes(name) ? [width, n] : [n, width]);
  const perLatent = selects.kind === "gated" ? [selects.gate, selects.magnitude, selects.scale] : [names.encoderBias];
  const threshold = selects.kind === "threshold" ? ([[selects.array, selects.one ?? [n]]] as const) : [];
  const all: readonly (readonly [string | undefined, readonly number[]])[] = [
    [names.encoder, matrix("encoder", dIn)],
    [names.decoder, matrix("decoder", dOut)],
    [names.decoderBias, [dOut]],
    [skip?.array, skip?.transposed === true ? [dIn, dOut] : [dOut, dIn]],
    ...perLatent.map((name) => [name, [n]] as const),
    ...threshold,
  ];
  return new Map(all.filter((each): each is [string, readonly number[]] => each[0] !== undefined));
}

/** Names of the arrays that are used. */
export function usedNames(of: FourArrays): readonly string[] {
  return [...shapesOf(of).keys()];
}

/** Reads arrays as the file has them. */
function readerOf(of: FourArrays): (name: string) => Promise<Floats> {
  const shapes = shapesOf(of);
  return (name) => of.file.floats(name, shapes.get(name)!, of.says);
}

/** The decoder's bias as the file has it. */
async function decoderBias(of: FourArrays): Promise<Floats> {
  const { decoderBias: name } = of.layout.names;
  return name === undefined ? new Float32Array(of.dims.dOut) : readerOf(of)(name);
}

/** What a format knows besides. */
export interface About {
  readonly format: ReadFormatName;
  readonly files: readonly string[];
  /** Default: what follows from the selection; how it was trained is not known. */
  readonly spec?: ArchitectureSpec;
  readonly notes?: readonly string[];
  /** Names in the file that are understood, next to those of the arrays. */
  readonly understood?: readonly string[];
  readonly model?: string | undefined;
  readonly tensor?: string | undefined;
  readonly targetTensor?: string | undefined;
}

/** An open file in our words. Closes it when it throws. */
export function openFourArrays(of: FourArrays, about: About): Promise<Foreign> {
  const { file, dims, selects, layerNorm = false, skip } = of;
  const { format, files, spec, notes = [], understood = [], ...origin } = about;
  return closedOnFailure(file, () => {
    const shapes = shapesOf(of);
    for (const [name, shape] of shapes) checkShape(name, shapeIn(file, name), shape, of.says, file.path);
    const facts = { dims, skip: skip !== undefined, layerNorm, ...origin };
    const used = [...shapes.keys(), ...understood];
    const bySelection = selects.kind === "topk" ? topkOf(selects.k) : THRESHOLDS;
    return {
      ...{ format, files },
      description: describeForeign(format, { ...facts, spec: spec ?? bySelection }, file.path),
      notes: [...notesOf(of), ...notes, ...unusedNote(file.names, used, basename(file.path))],
      read: inOurWords(of),
      close: () => file.close(),
    };
  });
}

/** What is done to the arrays so that they say the same here. */
function notesOf(of: FourArrays): string[] {
  const { selects, scale, byNorm, subtract, dims } = of;
  return [
    ...(scale === undefined
      ? []
      : [`rows are times ${Number(scale.input.toPrecision(6))} in the file; that factor is in the weights`]),
    ...(!subtract && dims.untied !== true
      ? ["b_dec is not taken from the input: the encoder's product with it is in the latents' bias"]
      : []),
    ...(isScaledByNorm(of)
      ? ["latents are times the norms of their decoder rows, which are in the encoder; the rows have norm 1"]
      : []),
    ...(byNorm === "selection" && selects.kind !== "topk" ? ["norms of decoder rows are in the thresholds"] : []),
    ...(selects.kind === "relu" ? [RELU_NOTE] : []),
    ...(selects.kind === "gated" ? [GATED_NOTE] : []),
  ];
}

const GATED_NOTE =
  "gate and magnitude share the encoder, so the gate is a threshold on the magnitude: e^r_mag is in the encoder, b_mag - b_gate e^r_mag is the threshold";

/** Whether latents are to be times the norms of their decoder rows. */
function isScaledByNorm({ byNorm, selects }: FourArrays): boolean {
  return byNorm === "latents" || (byNorm === "selection" && selects.kind === "topk");
}

/**
 * The parameters of sae/params.ts. With row factors f (norms, e^scale) and the scales s of the
 * file: encoder f s_in W, decoder W_dec / (norms s_out), preBias b_dec / s_out. Of the encoder's
 * product with b_dec as much is added to the latents' bias as the two ways of subtracting it
 * differ by.
 */
function inOurWords(of: FourArrays): Exchanged["read"] {
  const { dims, layout, selects, subtract, scale = { input: 1, output: 1 } } = of;
  const { dIn, n, dOut, untied = false } = dims;
  const { names, transposed: columns } = layout;
  const get = readerOf(of);
  const rows = async (name: "encoder" | "decoder", width: number): Promise<Floats> => {
    const values = await get(names[name]);
    return columns.includes(name) ? transposed(values, width, n) : values;
  };
  const norms = async (): Promise<Float64Array> => rowNorms(await rows("decoder", dOut), dOut);
  const byNorm = isScaledByNorm(of) ? norms : undefined;
  const exponentials = async (): Promise<Float64Array | undefined> =>
    selects.kind === "gated" ? Float64Array.from(await get(selects.scale), Math.exp) : undefined;
  const biasName = selects.kind === "gated" ? selects.magnitude : names.encoderBias;
  const times = async (values: Floats, factors: readonly (Float64Array | undefined)[], width: number, by = 1) => {
    const there = factors.filter((each) => each !== undefined);
    if (there.length === 0 && by === 1) return values;
    const product = new Float64Array(n).fill(by);
    for (const factor of there) for (let j = 0; j < n; j++) product[j]! *= factor[j]!;
    return timesRows(values, product, width);
  };
  /** Share of W b_dec, in the units of the file, that the bias lacks. */
  const lacking = (untied ? 0 : scale.input / scale.output) - (subtract ? 1 : 0);

  const read = {
    encoder: async () => times(await rows("encoder", dIn), [await exponentials(), await byNorm?.()], dIn, scale.input),
    async latentBias() {
      const bias = biasName === undefined ? new Float32Array(n) : await get(biasName);
      if (lacking === 0) return times(bias, [await byNorm?.()], 1);
      const sums = Float64Array.from(bias);
      const [w, b, exp] = [await rows("encoder", dIn), await decoderBias(of), await exponentials()];
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let i = 0; i < dIn; i++) sum += w[j * dIn + i]! * b[i]!;
        sums[j]! += lacking * sum * (exp?.[j] ?? 1);
      }
      return likeFirst(bias, await times(sums, [await byNorm?.()], 1));
    },
    async decoder() {
      const inverse = (await byNorm?.())?.map((norm) => (norm > 0 ? 1 / norm : 0));
      return times(await rows("decoder", dOut), [inverse], dOut, 1 / scale.output);
    },
    preBias: async () => {
      const bias = await decoderBias(of);
      return scale.output === 1
        ? bias
        : likeFirst(
            bias,
            Float64Array.from(bias, (value) => value / scale.output),
          );
    },
  };
  const value = async (): Promise<Floats> => {
    if (selects.kind === "above") return new Float32Array(1).fill(selects.value);
    if (selects.kind !== "threshold") return new Float32Array(1);
    const values = await get(selects.array);
    return selects.isLog === true ? likeFirst(values, Float64Array.from(values, Math.exp)) : values;
  };
  const threshold = async (): Promise<Floats> => {
    if (selects.kind === "gated") {
      const [gate, magnitude, exp] = [await get(selects.gate), await get(selects.magnitude), await exponentials()];
      return likeFirst(
        magnitude,
        Float64Array.from(magnitude, (each, j) => each - gate[j]! * exp![j]!),
      );
    }
    const values = await value();
    const all = values.length === n ? values : new Float32Array(n).fill(values[0]!);
    if (of.byNorm !== "selection") return all;
    return timesRows(
      all,
      (await norms()).map((norm) => (norm > 0 ? 1 / norm : 0)),
      1,
    );
  };
  const skip = async () => {
    const { array, transposed: isTransposed = false } = of.skip!;
    const values = await get(array);
    return isTransposed ? transposed(values, dIn, dOut) : values;
  };
  return paramReader((name) => read[name](), { threshold, cut: value, skip });
}

/** The file evaluated as it is worded, and closed. */
export async function rulesOfFourArrays(of: FourArrays): Promise<Rules> {
  const { file, dims, layout, subtract, layerNorm = false, scale, byNorm } = of;
  const { dIn, n, dOut } = dims;
  const get = readerOf(of);
  try {
    const { names, transposed: columns } = layout;
    const [encoder, decoder, bias] = [await get(names.encoder), await get(names.decoder), await decoderBias(of)];
    const skip = of.skip === undefined ? undefined : await get(of.skip.array);
    const isTransposed = of.skip?.transposed === true;
    const at = (matrix: Floats, name: "encoder" | "decoder", width: number) =>
      columns.includes(name)
        ? (i: number, j: number) => matrix[i * n + j]!
        : (i: number, j: number) => matrix[j * width + i]!;
    return rulesOf({
      ...{ d: dIn, n, dOut, subtract, layerNorm, scale, byNorm },
      selects: await fileSelects(of, get),
      encoder: at(encoder, "encoder", dIn),
      decoder: at(decoder, "decoder", dOut),
      encoderBias: names.encoderBias === undefined ? new Float32Array(n) : await get(names.encoderBias),
      decoderBias: bias,
      skip: skip && ((i, o) => (isTransposed ? skip[i * dOut + o]! : skip[o * dIn + i]!)),
    });
  } finally {
    await file.close();
  }
}

async function fileSelects({ selects }: FourArrays, get: (name: string) => Promise<Floats>): Promise<FileSelects> {
  switch (selects.kind) {
    case "topk":
      return selects;
    case "relu":
      return { kind: "threshold", thresholds: 0 };
    case "above":
      return { kind: "threshold", thresholds: selects.value };
    case "threshold": {
      const values = await get(selects.array);
      const thresholds = selects.isLog === true ? Float64Array.from(values, Math.exp) : values;
      return { kind: "threshold", thresholds: selects.one === undefined ? thresholds : thresholds[0]! };
    }
    case "gated":
      return {
        kind: "gated",
        gate: await get(selects.gate),
        magnitude: await get(selects.magnitude),
        scale: await get(selects.scale),
      };
  }
}
