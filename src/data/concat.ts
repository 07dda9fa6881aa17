/** Several sources, one after the other, as one. */

import { SaettaError } from "../util/errors.ts";
import { checkRows } from "../util/rows.ts";
import type { Origin, Source } from "./source.ts";

/**
 * The rows of the first source, then those of the second, and so on. Width, dtype and the presence of tokens must agree (SaettaError naming two
 * files that do not); `sequence` and each field of `origin` are kept where all agree. Owns the sources: close() closes them.
 */
export function concatSources(sources: readonly Source[]): Source {
  const first = sources[0];
  if (first === undefined) throw new RangeError("no sources");
  if (sources.length === 1) return first;
  for (const source of sources) agree(first, source);

  let rows = 0;
  const starts = sources.map((source) => {
    rows += source.rows;
    return rows - source.rows;
  });
  const { dIn, dtype } = first;
  const rowBytes = dIn * { f64: 8, f32: 4, bf16: 2, f16: 2 }[dtype];
  const indexOf = (row: number): number => {
    let low = 0;
    let high = sources.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if ((starts[middle] as number) <= row) low = middle;
      else high = middle;
    }
    return low;
  };
  /** The parts of [from, from + count), each with its source, its first row there and its place in the request. */
  function* parts(
    from: number,
    count: number,
  ): Generator<{ source: Source; at: number; length: number; done: number }> {
    checkRows(from, count, rows);
    for (let done = 0; done < count; ) {
      const i = indexOf(from + done);
      const source = sources[i] as Source;
      const at = from + done - (starts[i] as number);
      const length = Math.min(count - done, source.rows - at);
      yield { source, at, length, done };
      done += length;
    }
  }
  const tokens: Source["tokens"] = async (from, count) => {
    const out = new Int32Array(count);
    for (const { source, at, length, done } of parts(from, count)) {
      if (source.tokens !== undefined) out.set(await source.tokens(at, length), done);
    }
    return out;
  };

  const mask: Source["mask"] = async (from, count) => {
    const out = new Uint8Array(count).fill(1);
    for (const { source, at, length, done } of parts(from, count)) {
      if (source.mask !== undefined) out.set(await source.mask(at, length), done);
    }
    return out;
  };

  return {
    description: `${sources.length} files, ${first.paths[0]} to ${sources.at(-1)?.paths.at(-1)}: ${rows.toLocaleString("en-US")} x ${dIn} ${dtype}`,
    paths: sources.flatMap(({ paths }) => paths),
    dIn,
    rows,
    dtype,
    sequence: sources.every(({ sequence }) => sequence === first.sequence) ? first.sequence : undefined,
    grain: Math.max(...sources.map(({ grain }) => grain)),
    origin: common(sources.map(({ origin }) => origin)),
    async read(from, count, into) {
      for (const { source, at, length, done } of parts(from, count)) {
        await source.read(at, length, into.subarray(done * rowBytes, (done + length) * rowBytes));
      }
    },
    tokens: first.tokens === undefined ? undefined : tokens,
    ...(sources.some((source) => source.mask !== undefined) ? { mask } : {}),
    locate(row) {
      const i = indexOf(row);
      return (sources[i] as Source).locate(row - (starts[i] as number));
    },
    async close() {
      for (const source of sources) await source.close();
    },
  };
}

function agree(a: Source, b: Source): void {
  const differ = (what: string, mend: string): SaettaError =>
    new SaettaError(`${a.paths[0]} and ${b.paths[0]} do not go together: ${what}`, { mend });
  if (a.dIn !== b.dIn)
    throw differ(`rows of ${a.dIn} and of ${b.dIn} numbers`, "give files of the same model and tensor");
  if (a.dtype !== b.dtype) throw differ(`${a.dtype} and ${b.dtype}`, "convert one of them");
  if ((a.tokens === undefined) !== (b.tokens === undefined)) {
    const [has, lacks] = a.tokens === undefined ? [b, a] : [a, b];
    throw differ(`${has.paths[0]} has tokens and ${lacks.paths[0]} has none`, "give all files their tokens, or none");
  }
}

function common(origins: readonly Origin[]): Origin {
  const kept = Object.entries(origins[0] ?? {}).filter(([key, value]) =>
    origins.every((origin) => origin[key as keyof Origin] === value),
  );
  return Object.fromEntries(kept);
}
