/**
 * Rows of which the truth is known: sparse sums of the directions of a random dictionary, with
 * noise. An autoencoder that works finds the directions again.
 *
 * The model: `directions` unit vectors, drawn evenly from the sphere. On each row exactly `active`
 * of them are on, each with an amplitude uniform in [low, high]; then Gaussian noise of standard
 * deviation `noise` is added to each element. Which are on: directions are drawn evenly without
 * replacement, and come in pairs (0 and 1, 2 and 3, ...): the partner of a direction just drawn
 * follows it with probability `together`, if it is off and there is room. All directions are on
 * equally often (for an even number of them), whatever `together` is; at 0 which are on is
 * independent of what they are.
 *
 * With `children` (a hierarchy) directions come in families: a parent, then its children. `active`
 * different families are on in a row, drawn with Zipf frequencies (family f as often as 1 / (f +
 * 1)): the parent always, and with probability CHILD_SHARE one of its children, drawn evenly. A
 * child is never on without its parent, which is what makes autoencoders absorb parents (Chanin et
 * al. 2024, arXiv 2409.14507).
 */

import type { Source } from "../data/source.ts";
import { bytesOf, float32Of } from "../util/bytes.ts";
import { UsageError } from "../util/errors.ts";
import { fmix32, PURPOSE, Rng } from "../util/rng.ts";
import { checkRows } from "../util/rows.ts";

export interface DictionaryOptions {
  readonly directions: number;
  /** Elements of a row. */
  readonly width: number;
  /** Directions that are on in a row; at most half of them all. */
  readonly active: number;
  /** [low, high] of the amplitudes, 0 <= low <= high. */
  readonly amplitude: readonly [low: number, high: number];
  /** Standard deviation of the noise on each element. */
  readonly noise: number;
  /** Probability that a direction brings its partner along. */
  readonly together: number;
  /** Children of each parent; default 0: no hierarchy. */
  readonly children?: number;
  readonly rows: number;
  readonly seed: number;
}

export interface Dictionary extends Source {
  /** [directions, width], rows of norm 1. */
  readonly truth: Float32Array;
  /** The directions that are on in a row, ascending. */
  readonly onIn: (row: number) => readonly number[];
}

/** How often one of the children is on where the parent is. */
const CHILD_SHARE = 0.7;

/**
 * Rows as a Source (f32): each is a pure function of (seed, its number), made when it is read.
 * Throws UsageError for options that make no sense.
 */
export function syntheticDictionary(options: DictionaryOptions): Dictionary {
  check(options);
  const { directions, width, active, rows, seed } = options;
  const truth = unitVectors(directions, width, seed);
  const choose = chooserOf(options);
  const draw = drawerOf(options, truth, choose);
  return {
    truth,
    onIn: (row) => {
      const on = new Set<number>();
      choose(new Rng(seed, PURPOSE.synthetic, 1, row), on);
      return [...on].sort((a, b) => a - b);
    },
    description: `synthetic: ${rows.toLocaleString("en-US")} rows of ${active} of ${directions} directions, ${width} f32`,
    paths: [],
    dIn: width,
    rows,
    dtype: "f32",
    sequence: undefined,
    grain: 1,
    origin: {},
    tokens: undefined,
    async read(first, count, into) {
      checkRows(first, count, rows);
      const bytes = into.subarray(0, count * width * 4);
      const aligned = bytes.byteOffset % 4 === 0;
      const values = aligned ? float32Of(bytes) : new Float32Array(count * width);
      for (let i = 0; i < count; i++) draw(first + i, values, i * width);
      if (!aligned) bytes.set(bytesOf(values));
      // Making rows is work of this thread: without a gap, what the engine has finished would wait
      // until a whole window is made.
      await new Promise((resolve) => setImmediate(resolve));
    },
    locate: (row) => `synthetic row ${row}`,
    close: async () => undefined,
  };
}

function check({
  directions,
  width,
  active,
  amplitude: [low, high],
  noise,
  together,
  children = 0,
}: DictionaryOptions): void {
  const refusals: readonly (readonly [boolean, string])[] = [
    [
      directions * width > 2 ** 28,
      `a dictionary of ${directions} directions x ${width} is larger than the 2^28 numbers it may have`,
    ],
    [
      children > 0 && directions % (children + 1) !== 0,
      `${directions} directions are no whole families of a parent and ${children} children`,
    ],
    [children > 0 && together > 0, "partners and a hierarchy exclude each other"],
    [2 * active * (children + 1) > directions, `${active} active directions a row are more than half of ${directions}`],
    [
      !(low >= 0 && high >= low && Number.isFinite(high)),
      `amplitudes from ${low} to ${high} are no range of numbers from 0 up`,
    ],
    [!(noise >= 0 && Number.isFinite(noise)), `noise of ${noise} is no standard deviation`],
    [!(together >= 0 && together <= 1), `${together} is no probability that partners are on together`],
  ];
  for (const [refused, why] of refusals) if (refused) throw new UsageError(why);
}

/** A direction of the sphere is a normal vector over its norm. */
function unitVectors(count: number, width: number, seed: number): Float32Array {
  const rng = new Rng(seed, PURPOSE.synthetic, 0);
  const vectors = new Float32Array(count * width);
  const vector = new Float64Array(width);
  for (let at = 0; at < vectors.length; at += width) {
    for (let i = 0; i < width; i++) vector[i] = rng.normal();
    const norm = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
    for (let i = 0; i < width; i++) vectors[at + i] = vector[i] / norm;
  }
  return vectors;
}

/** Adds the directions of a row to the set. */
type Choose = (rng: Rng, on: Set<number>) => void;

function chooserOf({ directions, active, together, children = 0 }: DictionaryOptions): Choose {
  if (children > 0) return familyChooser(directions / (children + 1), children, active);
  return (rng, on) => {
    while (on.size < active) {
      const drawn = rng.below(directions);
      if (on.has(drawn)) continue;
      on.add(drawn);
      const partner = drawn ^ 1;
      if (together > 0 && partner < directions && on.size < active && rng.uniform() < together) on.add(partner);
    }
  };
}

function familyChooser(families: number, children: number, active: number): Choose {
  let sum = 0;
  const upTo = Float64Array.from({ length: families }, (_, family) => {
    sum += 1 / (family + 1);
    return sum;
  });
  const familyAt = (share: number) => {
    let [low, high] = [0, families - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (upTo[middle]! > share * sum) high = middle;
      else low = middle + 1;
    }
    return low;
  };
  return (rng, on) => {
    for (let chosen = 0; chosen < active; ) {
      const parent = familyAt(rng.uniform()) * (children + 1);
      if (on.has(parent)) continue;
      chosen++;
      on.add(parent);
      if (rng.uniform() < CHILD_SHARE) on.add(parent + 1 + rng.below(children));
    }
  };
}

/** The function that writes row number `row` into `into`, from element `at` on. */
function drawerOf(
  { width, amplitude: [low, high], noise, seed }: DictionaryOptions,
  truth: Float32Array,
  choose: Choose,
): (row: number, into: Float32Array, at: number) => void {
  const on = new Set<number>();
  const pool = normalPool(noise, seed);
  return (row, into, at) => {
    const rng = new Rng(seed, PURPOSE.synthetic, 1, row);
    on.clear();
    choose(rng, on);
    fillNoise(rng.u32(), pool, into, at, width);
    for (const direction of on) {
      const strength = low + (high - low) * rng.uniform();
      addScaled(strength, truth, direction * width, into, at, width);
    }
  };
}

function addScaled(
  factor: number,
  from: Float32Array,
  start: number,
  into: Float32Array,
  at: number,
  count: number,
): void {
  for (let i = 0; i < count; i++) into[at + i] += factor * from[start + i];
}

/**
 * So many normal numbers are drawn once; the noise of rows is picked from them, two for each 32
 * random bits: logarithms and sines would take longer than training.
 */
const POOL = 65_536;

function normalPool(deviation: number, seed: number): Float32Array {
  const rng = new Rng(seed, PURPOSE.synthetic, 2);
  return Float32Array.from({ length: POOL }, () => deviation * rng.normal());
}

/** Bits of a splitmix: the finaliser over a Weyl sequence from `start`. */
function fillNoise(start: number, pool: Float32Array, into: Float32Array, at: number, count: number): void {
  let counter = start;
  for (let i = 0; i < count; i += 2) {
    counter = (counter + 0x9e3779b9) | 0;
    const picks = fmix32(counter);
    into[at + i] = pool[picks >>> 16];
    if (i + 1 < count) into[at + i + 1] = pool[picks & 0xffff];
  }
}
