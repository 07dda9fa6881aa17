// The operations of a collective that the engines do not use yet, on memory of JavaScript; and what
// goes over the rendezvous.

import { groupOf } from "../../dist/collective/collective.js";

const bytes = (values) => new Uint8Array(values.buffer);

export async function operations(_engine, collective) {
  const { grid } = collective;
  const found = {};
  for (const over of ["shards", "replicas", "all"]) {
    const { rank, size } = groupOf(grid, over);
    const at = (values, dtype) => ({ at: bytes(values), count: values.length, dtype });

    const part = Float64Array.of(rank, 10 * rank);
    const gathered = new Float64Array(2 * size);
    collective.allGather(at(part, "f64"), at(gathered, "f64"), over);

    const parts = Float32Array.from({ length: 3 * size }, (_, i) => i + rank);
    const scattered = new Float32Array(3);
    collective.reduceScatter(at(parts, "f32"), at(scattered, "f32"), "sum", over);

    const told = Uint32Array.of(grid.rank, 7);
    collective.broadcast(at(told, "u32"), size - 1, over);

    found[over] = { rank, size, gathered: [...gathered], scattered: [...scattered], told: [...told] };
  }
  const exchanged = await collective.exchange({ rank: grid.rank, text: 'à\n"', nothing: null });
  await collective.barrier();
  return { ...found, grid, exchanged };
}
