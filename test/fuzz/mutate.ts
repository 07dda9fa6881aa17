/** Mutations of a file: each is a pure function of the format, its samples and a number. */

import { hash32, Rng } from "../../src/util/rng.ts";
import type { FuzzFormat, JsonPart, Sample } from "./format.ts";
import { jsonMutation } from "./mutate-json.ts";

export interface Mutation {
  readonly sample: Sample;
  readonly bytes: Buffer;
  /** What was done, for people. */
  readonly words: string;
}

type Step = (bytes: Buffer, boundaries: readonly number[], rng: Rng) => readonly [bytes: Buffer, words: string];

/**
 * One mutation in this many cuts at the next of all boundaries of all samples, so that each is cut
 * at sooner or later; the others are drawn.
 */
const ENUMERATED = 4;

export class Mutator {
  readonly #format: FuzzFormat;
  readonly #samples: readonly { readonly sample: Sample; readonly boundaries: readonly number[] }[];
  /** [sample, byte], in an order that is not that of the file. */
  readonly #cuts: readonly (readonly [number, number])[];

  private constructor(format: FuzzFormat, samples: readonly Sample[]) {
    this.#format = format;
    this.#samples = samples.map((sample) => ({ sample, boundaries: format.boundaries(sample.bytes) }));
    const cuts = this.#samples.flatMap(({ boundaries }, i) => boundaries.map((at) => [i, at] as const));
    this.#cuts = cuts.toSorted(([i, a], [j, b]) => hash32(i, a) - hash32(j, b));
  }

  static async of(format: FuzzFormat): Promise<Mutator> {
    return new Mutator(format, await format.samples());
  }

  mutation(number: number): Mutation {
    const cut = number % ENUMERATED === 0 ? this.#cuts[number / ENUMERATED] : undefined;
    if (cut !== undefined) {
      const { sample } = this.#samples[cut[0]]!;
      return {
        sample,
        bytes: Buffer.from(sample.bytes.subarray(0, cut[1])),
        words: `${sample.name} cut at byte ${cut[1]}`,
      };
    }
    const rng = new Rng(hash32(...Buffer.from(this.#format.name)), number);
    const { sample, boundaries } = this.#samples[rng.below(this.#samples.length)]!;
    const { json, resealed } = this.#format;
    if (json !== undefined && rng.below(3) > 0) {
      const [bytes, words] = inJson(sample.bytes, json, rng);
      return { sample, bytes, words: `${sample.name}: ${words}` };
    }
    let bytes: Buffer = Buffer.from(sample.bytes);
    const all: string[] = [];
    for (let left = 1 + rng.below(3); left > 0; left--) {
      const [next, words] = STEPS[rng.below(STEPS.length)]!(bytes, boundaries, rng);
      bytes = next;
      all.push(words);
    }
    if (resealed !== undefined && bytes.length === sample.bytes.length && rng.below(2) === 0) {
      resealed(sample.bytes, bytes);
      all.push("checksums made right");
    }
    return { sample, bytes, words: `${sample.name}: ${all.join(", ")}` };
  }
}

function inJson(bytes: Buffer, json: JsonPart, rng: Rng): readonly [Buffer, string] {
  const [from, to] = json.range(bytes);
  let text = bytes.toString("utf8", from, to);
  const all: string[] = [];
  for (let left = 1 + rng.below(2); left > 0; left--) {
    const [next, words] = jsonMutation(text, rng);
    text = next;
    all.push(words);
  }
  return [json.replaced(bytes, Buffer.from(text)), all.join(", ")];
}

/** Numbers at which readers go wrong, as 64 bits. */
function extreme(size: number, rng: Rng): bigint {
  const values = [
    0n,
    1n,
    2n,
    127n,
    128n,
    255n,
    256n,
    0x7fffn,
    0xffffn,
    0x7fffffffn,
    0x80000000n,
    0xffffffffn,
    0x100000000n,
    2n ** 53n,
  ];
  const more = [2n ** 53n - 1n, 2n ** 62n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n - 2n];
  const near = [
    BigInt(size),
    BigInt(Math.max(0, size - 1)),
    BigInt(size + 1),
    BigInt(rng.below(size + 1)),
    BigInt(rng.below(64)),
  ];
  const all = [...values, ...more, ...near];
  return all[rng.below(all.length)]!;
}

/** A byte of the file, more often at a boundary or shortly after one. */
function place(bytes: Buffer, boundaries: readonly number[], rng: Rng): number {
  if (bytes.length === 0) return 0;
  const near = boundaries.length > 0 && rng.below(4) > 0;
  const at = near ? boundaries[rng.below(boundaries.length)]! + rng.below(24) * rng.below(2) : rng.below(bytes.length);
  return Math.min(at, bytes.length - 1);
}

const STEPS: readonly Step[] = [
  function flip(bytes, boundaries, rng) {
    if (bytes.length === 0) return [bytes, "nothing"];
    const at = place(bytes, boundaries, rng);
    bytes[at] = bytes[at]! ^ (1 << rng.below(8));
    return [bytes, `a bit of byte ${at} flipped`];
  },
  function overwrite(bytes, boundaries, rng) {
    if (bytes.length === 0) return [bytes, "nothing"];
    const at = place(bytes, boundaries, rng);
    const value = [0, 0xff, 0x7f, 0x80, 0x20, rng.below(256)][rng.below(6)]!;
    bytes[at] = value;
    return [bytes, `byte ${at} = ${value}`];
  },
  function number(bytes, boundaries, rng) {
    const width = [1, 2, 4, 8, 8][rng.below(5)]!;
    const at = Math.max(0, Math.min(place(bytes, boundaries, rng), bytes.length - width));
    const value = extreme(bytes.length, rng);
    for (let i = 0; i < width && at + i < bytes.length; i++) bytes[at + i] = Number((value >> BigInt(8 * i)) & 255n);
    return [bytes, `the ${width} bytes from ${at} = ${value}`];
  },
  // What is an address, a length or a count in one place, in another: cycles, overlaps and lengths
  // that do not fit.
  function copyNumber(bytes, boundaries, rng) {
    const width = [4, 8, 8, 8][rng.below(4)]!;
    if (bytes.length < width) return [bytes, "nothing"];
    const words = addresses(bytes);
    const last = bytes.length - width;
    const from = words.length > 0 && rng.below(4) > 0 ? words[rng.below(words.length)]! : place(bytes, boundaries, rng);
    const to = words.length > 0 && rng.below(2) > 0 ? words[rng.below(words.length)]! : place(bytes, boundaries, rng);
    bytes.copy(bytes, Math.min(to, last), Math.min(from, last), Math.min(from, last) + width);
    return [bytes, `the ${width} bytes at ${from} copied to ${to}`];
  },
  function pointAtBoundary(bytes, boundaries, rng) {
    const words = addresses(bytes);
    if (words.length === 0 || boundaries.length === 0) return [bytes, "nothing"];
    const at = words[rng.below(words.length)]!;
    const target = boundaries[rng.below(boundaries.length)]!;
    bytes.writeBigUInt64LE(BigInt(target), at);
    return [bytes, `the address at ${at} = ${target}`];
  },
  function move(bytes, boundaries, rng) {
    const length = Math.min(1 + rng.below(128), bytes.length);
    const from = Math.min(place(bytes, boundaries, rng), bytes.length - length);
    const to = Math.min(place(bytes, boundaries, rng), bytes.length - length);
    bytes.copy(bytes, to, from, from + length);
    return [bytes, `${length} bytes at ${from} copied to ${to}`];
  },
  function insert(bytes, boundaries, rng) {
    const at = place(bytes, boundaries, rng);
    const from = place(bytes, boundaries, rng);
    const piece = Buffer.from(bytes.subarray(from, from + 1 + rng.below(64)));
    return [
      Buffer.concat([bytes.subarray(0, at), piece, bytes.subarray(at)]),
      `${piece.length} bytes of ${from} inserted at ${at}`,
    ];
  },
  function remove(bytes, boundaries, rng) {
    const at = place(bytes, boundaries, rng);
    const length = 1 + rng.below(64);
    return [Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)]), `${length} bytes at ${at} removed`];
  },
  function cut(bytes, boundaries, rng) {
    const at = Math.min(bytes.length, place(bytes, boundaries, rng) + rng.below(3));
    return [Buffer.from(bytes.subarray(0, at)), `cut at ${at}`];
  },
  function append(bytes, _, rng) {
    return [Buffer.concat([bytes, Buffer.alloc(1 + rng.below(4096), rng.below(256))]), "bytes appended"];
  },
];

/** Where 8 bytes, at a multiple of 4, hold a number that is a byte of the file. */
function addresses(bytes: Buffer): number[] {
  const found: number[] = [];
  for (let at = 0; at + 8 <= bytes.length; at += 4) {
    if (bytes.readUInt32LE(at + 4) !== 0) continue;
    const value = bytes.readUInt32LE(at);
    if (value >= 48 && value < bytes.length) found.push(at);
  }
  return found;
}
