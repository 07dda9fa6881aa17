/**
 * Trains on rows that the program makes, without writing anything, and looks at what a latent
 * stands for.
 *
 *     npx tsc && node rows.js
 */

import { fromRows, train } from "saetta";

const WIDTH = 16;
const ROWS = 40_000;
const FEATURES = 32;

/**
 * A small generator of random numbers (mulberry32): the same rows whenever the function below is
 * called.
 */
function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 0x1_0000_0000;
  };
}

const random = randomFrom(1);
const directions = Array.from({ length: FEATURES }, () =>
  unit(Float32Array.from({ length: WIDTH }, () => random() - 0.5)),
);

/**
 * Each row is the sum of two of the directions. Chunks may be of any number of rows, and come from
 * a language model that answers in its own time.
 */
async function* rows(): AsyncGenerator<Float32Array> {
  const draw = randomFrom(2);
  for (let first = 0; first < ROWS; first += 1000) {
    const chunk = new Float32Array(1000 * WIDTH);
    for (let row = 0; row < 1000; row++) {
      for (let pick = 0; pick < 2; pick++) {
        const direction = directions[Math.floor(draw() * FEATURES)]!;
        const strength = 0.5 + draw();
        for (let i = 0; i < WIDTH; i++) chunk[row * WIDTH + i]! += strength * direction[i]!;
      }
    }
    yield chunk;
  }
}

// A function can be called again: there may be epochs, a shuffle and a hold-out. fromRows(rows(),
// ...) would be read once, in its order.
await using acts = fromRows(rows, { dIn: WIDTH, rows: ROWS });
await using run = await train(acts, {
  latents: 64,
  k: 2,
  auxk: 8,
  deadTokens: 5000,
  batch: 256,
  epochs: 8,
  lr: 2e-3,
  out: false,
});
const { sae, report } = await run.finished;
console.log(`FVU ${report?.fvu.toFixed(3)} on the last batch, ${report?.holdout_fvu?.toFixed(3)} on rows held out`);

// What a latent adds to a row: the reconstruction of a code of that latent alone, less that of
// none.
const none = await sae.decode({ k: 1, latent: Uint32Array.of(0), value: Float32Array.of(0) });
const { n } = sae.dims;
const alone = await sae.decode({
  k: 1,
  latent: Uint32Array.from({ length: n }, (_, j) => j),
  value: new Float32Array(n).fill(1),
});
const found = directions.filter((direction) => {
  const cosines = Array.from({ length: n }, (_, j) =>
    direction.reduce((sum, value, i) => sum + value * (alone[j * WIDTH + i]! - none[i]!), 0),
  );
  return Math.max(...cosines) > 0.9;
});
console.log(`${found.length} of ${FEATURES} directions were found`);

function unit(vector: Float32Array): Float32Array {
  const norm = Math.hypot(...vector);
  return vector.map((value) => value / norm);
}
