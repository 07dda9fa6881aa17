// The tables of main.mjs, from what it measured.
import { decimals, figure, percent, times } from "../dist/bench/table.js";

/** G/s: work (FLOP or bytes) over milliseconds. */
const rate = (work, ms) => work / ms / 1e6;

/** G/s of a ceiling; NaN when it was not measured. */
function rateOf(ceilings, words) {
  const ceiling = ceilings.get(words);
  return ceiling?.why === undefined && ceiling?.work !== undefined ? rate(ceiling.work, ceiling.series.ms) : Number.NaN;
}

/** The instruction set whose multiply-adds a path's f32 arithmetic is made of. */
export const setOf = (path) => ({ portable: "sse2", avx2: "avx2" })[path] ?? "avx512";

/**
 * The peak for the products of an engine's dtype: bf16 runs on whatever unit the processor has for
 * it, the quickest one.
 */
function peakFor({ path, dtype }, ceilings) {
  if (dtype === "f32") return rateOf(ceilings, `fma ${setOf(path)}`);
  const both = ["bf16 avx512", "bf16 amx"].map((words) => rateOf(ceilings, words)).filter(Number.isFinite);
  return both.length === 0 ? Number.NaN : Math.max(...both);
}

/** The whole step: ours and PyTorch's. */
export function stepTable(engines, rivals, batch) {
  const row = (name, { series }, ratio, ofCpu, ofPlain) => [
    `  ${name}`,
    figure(series.ms),
    figure((1000 * batch) / series.ms),
    decimals(series.cpuPerWall),
    ratio,
    ofCpu,
    ofPlain,
  ];
  const rows = [];
  if ([...rivals.values()].some(({ series }) => series.samples.length > 0)) {
    rows.push(["PyTorch"], ...[...rivals].map(([name, rival]) => row(name, rival)));
  }
  for (const { path, dtype, steps } of engines) {
    rows.push([`${path} ${dtype}`]);
    const plain = [...steps.values()][0].series.ms;
    for (const [name, step] of steps) {
      const rival = rivals.get(name)?.series;
      const ratios = [times(rival?.ms / step.series.ms), times(rival?.cpuMs / step.series.cpuMs)];
      rows.push(row(name, step, ...ratios, decimals(step.series.ms / plain)));
    }
  }
  const columns = ["", "ms", "rows/s", "CPU/wall", "PyTorch/ours", "in CPU time", "of no AuxK"];
  const shares = engines
    .flatMap(({ steps }) => [...steps.values()].map(({ heavyShare }) => heavyShare))
    .filter((share) => share > 0.4);
  const skew =
    shares.length === 0
      ? []
      : [`Skewed: each of 20 latents was on in ${percent(Math.min(...shares))} of the rows or more.`];
  return { title: "The whole step", columns, rows, notes: skew };
}

/** The product alone: ours with its selection, the libraries' without. */
export function productTable(engines, ceilings, { libraries }) {
  const rows = [];
  for (const dtype of ["f32", "bf16"]) {
    const library = (words, name) => {
      const { series, work, why } = ceilings.get(words) ?? {};
      if (why !== undefined || work === undefined) return;
      const peak = Math.max(
        ...engines.filter((each) => each.dtype === dtype).map((each) => peakFor(each, ceilings)),
        peakFor({ path: best, dtype }, ceilings),
      );
      rows.push([
        `${name}, ${dtype}`,
        figure(series.ms),
        figure(rate(work, series.ms)),
        percent(rate(work, series.ms) / peak),
      ]);
    };
    const best = engines.at(-1)?.path;
    library(`onednn ${dtype}`, `oneDNN ${libraries?.onednn}`);
    if (dtype === "f32") library("openblas", libraries?.openblas.split(" ", 2).join(" "));
    for (const engine of engines.filter((each) => each.dtype === dtype)) {
      const { ms } = engine.operations.get("encode").series;
      const { work } = engine.work.operations.find(({ name }) => name === "encode");
      const against = (words) => times(ceilings.get(words)?.series.ms / ms);
      const ratios = [against(`onednn ${dtype}`), dtype === "f32" ? against("openblas") : undefined];
      rows.push([
        `encode, ${engine.path} ${dtype}`,
        figure(ms),
        figure(rate(work, ms)),
        percent(rate(work, ms) / peakFor(engine, ceilings)),
        ...ratios,
      ]);
    }
  }
  const peaks = [...ceilings.keys()].filter(
    (words) => /^(fma|bf16) /.test(words) && Number.isFinite(rateOf(ceilings, words)),
  );
  return {
    title: "The product alone (ours with top-k, the libraries' without)",
    columns: ["", "ms", "GFLOP/s", "of peak", "oneDNN/ours", "OpenBLAS/ours"],
    rows,
    notes: [
      `Peaks measured, GFLOP/s: ${peaks.map((words) => `${words} ${figure(rateOf(ceilings, words))}`).join(", ")}.`,
    ],
  };
}

/** Each operation of one engine beside its ceiling. */
export function operationTable(engine, ceilings, threads) {
  const rows = engine.work.operations.map(({ name, bound, work }) => {
    const { ms, cpuPerWall } = engine.operations.get(name).series;
    const product = bound === "product";
    const ceiling = product ? peakFor(engine, ceilings) : rateOf(ceilings, `${bound} ${threads}`);
    const unit = product ? "GFLOP/s" : `GB/s ${bound}`;
    const busy = decimals(cpuPerWall);
    if (bound === "neither") return [name, figure(ms), busy];
    return [name, figure(ms), busy, figure(rate(work, ms)), unit, figure(ceiling), percent(rate(work, ms) / ceiling)];
  });
  const memory = ["copy", "read", "update"].map((kind) => {
    const of = (count) => figure(rateOf(ceilings, `${kind} ${count}`));
    return `${kind} ${of(1)} with 1 thread${threads > 1 ? `, ${of(threads)} with ${threads}` : ""}`;
  });
  const counted =
    "GB/s counts parameters, moments, and rows of the decoder for each use; caches can make it more than a memory's.";
  return {
    title: `Operations, ${engine.path} ${engine.dtype} (25 % of the latents dead)`,
    columns: ["", "ms", "CPU/wall", "rate", "unit", "ceiling", "of it"],
    rows,
    notes: [`Memory, GB/s: ${memory.join("; ")}.`, counted],
  };
}
