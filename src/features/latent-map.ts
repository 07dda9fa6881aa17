/**
 * A map of latents: a place in the plane for each, near those of its nearest latents. It starts
 * from the two principal components of the decoder rows. Then each latent is drawn to its nearest
 * ones and pushed from random others, as UMAP does (McInnes et al. 2018, with a = b = 1).
 */

import { PURPOSE, Rng } from "../util/rng.ts";
import type { Nearest } from "./nearest.ts";

const ROUNDS = 120;
/** Random others that push, per one that draws. */
const PUSHES = 4;
const MOST_STEP = 4;
const POWER_STEPS = 8;
/** Share of the places that the edge of the map may cut off at each side. */
const CUT = 0.002;
const MOST = 65_535;

/** Places [n] from 0 to 65,535. */
export interface LatentPlaces {
  readonly x: Uint16Array;
  readonly y: Uint16Array;
}

/** `directions` [n,d]: decoder rows of norm 1. The same for the same input. */
export function latentMap(directions: Float32Array, d: number, nearest: Nearest, rounds = ROUNDS): LatentPlaces {
  const n = directions.length / d;
  const places = principalPlaces(directions, d);
  const rng = new Rng(PURPOSE.sample, n);
  for (let round = 0; round < rounds; round++) {
    const rate = 1 - round / rounds;
    for (let i = 0; i < n; i++) {
      for (let slot = i * nearest.count; slot < (i + 1) * nearest.count; slot++) {
        // Nearer ones draw more often.
        if (!(rng.uniform() < nearest.cosine[slot])) continue;
        draw(places, i, nearest.latent[slot], rate);
        for (let push = 0; push < PUSHES; push++) repel(places, i, Math.floor(rng.uniform() * n), rate);
      }
    }
  }
  return { x: onEdge(places, 0), y: onEdge(places, 1) };
}

function draw(places: Float32Array, i: number, j: number, rate: number): void {
  const [dx, dy] = [places[2 * i] - places[2 * j], places[2 * i + 1] - places[2 * j + 1]];
  const size = (-2 * rate) / (1 + dx * dx + dy * dy);
  const [sx, sy] = [clipped(size * dx), clipped(size * dy)];
  places[2 * i] += sx;
  places[2 * i + 1] += sy;
  places[2 * j] -= sx;
  places[2 * j + 1] -= sy;
}

function repel(places: Float32Array, i: number, j: number, rate: number): void {
  if (i === j) return;
  const [dx, dy] = [places[2 * i] - places[2 * j], places[2 * i + 1] - places[2 * j + 1]];
  const distance = dx * dx + dy * dy;
  const size = (2 * rate) / ((0.01 + distance) * (1 + distance));
  places[2 * i] += clipped(size * dx);
  places[2 * i + 1] += clipped(size * dy);
}

const clipped = (step: number) => Math.max(-MOST_STEP, Math.min(MOST_STEP, step));

/** The first two principal components, brought to a deviation of 10 each [n,2]. */
export function principalPlaces(directions: Float32Array, d: number): Float32Array {
  const n = directions.length / d;
  const mean = new Float64Array(d);
  for (let i = 0; i < directions.length; i++) mean[i % d] += directions[i] / n;
  const rng = new Rng(PURPOSE.sample, d);
  const places = new Float32Array(2 * n);
  const found: Float64Array[] = [];
  for (const axis of [0, 1]) {
    let vector = Float64Array.from({ length: d }, () => rng.normal());
    let along = new Float64Array(n);
    for (let step = 0; step < POWER_STEPS; step++) {
      for (const other of found) subtract(vector, other, dot(vector, other));
      const size = Math.sqrt(dot(vector, vector)) || 1;
      vector = vector.map((each) => each / size);
      along = new Float64Array(n);
      const next = new Float64Array(d);
      const shift = dot(vector, mean);
      for (let row = 0; row < n; row++) {
        let sum = -shift;
        for (let i = 0; i < d; i++) sum += directions[row * d + i] * vector[i];
        along[row] = sum;
        for (let i = 0; i < d; i++) next[i] += sum * (directions[row * d + i] - mean[i]);
      }
      if (step + 1 < POWER_STEPS) vector = next;
    }
    found.push(vector);
    const deviation = Math.sqrt(dot(along, along) / n) || 1;
    for (let row = 0; row < n; row++) places[2 * row + axis] = (10 * along[row]) / deviation;
  }
  return places;
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function subtract(from: Float64Array, other: Float64Array, times: number): void {
  for (let i = 0; i < from.length; i++) from[i] -= times * other[i];
}

/** One coordinate of the places, from 0 to MOST; a few far ones are put at the edge. */
function onEdge(places: Float32Array, axis: number): Uint16Array {
  const values = Float32Array.from({ length: places.length / 2 }, (_, i) => places[2 * i + axis]);
  const sorted = values.toSorted();
  const cut = Math.floor(CUT * sorted.length);
  const [least, most] = [sorted[cut], sorted[sorted.length - 1 - cut]];
  const span = most - least || 1;
  return Uint16Array.from(values, (value) => Math.round(MOST * Math.max(0, Math.min(1, (value - least) / span))));
}
