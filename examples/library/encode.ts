/**
 * Encodes rows with a trained autoencoder, and says which latents are on and how much of the rows
 * they explain.
 *
 *     npx tsc && node encode.js runs/a acts.h5
 */

import { loadSae, NONE, openActivations, SaettaError } from "saetta";

const [path = "runs/a", file = "acts.h5"] = process.argv.slice(2);

await using sae = await loadSae(path); // a run, a checkpoint, or a folder of sparsify
await using acts = await openActivations(file);
const { dIn: d, n } = sae.dims;
if (acts.dIn !== d) throw new SaettaError(`the autoencoder takes rows of ${d} numbers`, { where: file });

const count = Math.min(1000, acts.rows);
const bytes = new Uint8Array(count * d * 8); // room for any dtype
await acts.read(0, count, bytes);
const size = { f64: 8, f32: 4, bf16: 2, f16: 2 }[acts.dtype];
const { codes, output } = await sae.reconstructRaw(bytes.subarray(0, count * d * size), acts.dtype, count);

const { k, latent, value } = codes; // [count * k] each, the strongest of a row first
const firings = new Uint32Array(n);
for (const j of latent) if (j !== NONE) firings[j]! += 1;
const [busiest] = [...firings.keys()].toSorted((a, b) => firings[b]! - firings[a]!);
console.log(
  `${sae.path}, step ${sae.found.step}: ${n} latents, ${firings.filter((times) => times > 0).length} of them on somewhere in ${count} rows`,
);
console.log(
  `the busiest, ${busiest}, is on in ${firings[busiest!]} rows; row 0 is led by ${latent[0]} with ${value[0]!.toFixed(2)}`,
);
console.log(`at most ${k} latents a row rebuild ${output.length / d} rows of ${d}`);
