// How well the order mixes contexts, with one lane (the order of earlier versions) and with as many
// as runs have: which share of the pairs of rows of one batch, and of pairs with a row in each of
// two neighbouring batches, comes from the same context; and the correlation of the numbers of rows
// that neighbouring batches have of each context. Nothing is read: an order is a function of sizes.
// Usage: npm run build && node bench/mixing.mjs. The result is kept in bench/results/mixing.md.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { decimals, tableMarkdown, tableText } from "../dist/bench/table.js";
import { lanesFor } from "../dist/data/lanes.js";
import { RowSet } from "../dist/data/mask.js";
import { Order } from "../dist/data/order.js";

const ROWS = 2 ** 21;
const ROW_BYTES = 768 * 2;
const SEEDS = 3;

/** Positions of the order one after the other: `use(rows)` for each batch, as numbers of rows. */
function eachBatch(order, batch, use) {
  let rows = [];
  for (let position = 0; position < order.rowsPerEpoch; ) {
    const { blocks, lanes } = order.window(0, position);
    const memory = Uint32Array.from(blocks.flatMap(({ first, count }) => order.visited(first, count)).flatMap(numbers));
    for (const at of lanes.inOrder()) {
      rows.push(memory[at]);
      if (rows.length < batch) continue;
      use(rows);
      rows = [];
    }
    position += lanes.size;
  }
}

const numbers = ({ first, count }) => Array.from({ length: count }, (_, i) => first + i);

function measure({ batch, context, lanes, seed }) {
  const set = new RowSet(ROWS);
  for (let row = 0; row < ROWS; row += context) set.add(row);
  const order = new Order({ rows: ROWS, rowBytes: ROW_BYTES, grain: 1 }, set, { seed, shuffle: true, batch, lanes });
  const contexts = ROWS / context;
  const found = { within: 0, across: 0, correlation: 0 };
  let [batches, before] = [0, undefined];
  eachBatch(order, batch, (rows) => {
    const counts = new Float64Array(contexts);
    for (const row of rows) counts[Math.floor(row / context)]++;
    let [same, both, square, squareBefore] = [0, 0, 0, 0];
    const mean = batch / contexts;
    for (let c = 0; c < contexts; c++) {
      same += counts[c] * (counts[c] - 1);
      if (before === undefined) continue;
      both += counts[c] * before[c];
      square += (counts[c] - mean) ** 2;
      squareBefore += (before[c] - mean) ** 2;
    }
    found.within += same / (batch * (batch - 1));
    if (before !== undefined) {
      found.across += both / batch ** 2;
      found.correlation += (both - contexts * mean ** 2) / Math.sqrt(square * squareBefore);
    }
    before = counts;
    batches++;
  });
  return {
    within: found.within / batches,
    across: found.across / (batches - 1),
    correlation: found.correlation / (batches - 1),
  };
}

const mean = (each, name) => each.reduce((sum, one) => sum + one[name], 0) / each.length;
const lines = [];
for (const batch of [1024, 16_384, 32_768]) {
  for (const context of [128, 1024]) {
    for (const lanes of [1, lanesFor(batch)]) {
      const each = Array.from({ length: SEEDS }, (_, seed) => measure({ batch, context, lanes, seed }));
      const [within, across, correlation] = ["within", "across", "correlation"].map((name) => mean(each, name));
      lines.push([
        ...[batch, context, lanes].map((count) => count.toLocaleString("en")),
        ...[within, across].map((share) => decimals(1e6 * share, 1)),
        decimals(correlation, 3),
      ]);
    }
  }
}
const table = {
  title: "Pairs of rows from the same context, per million",
  columns: ["rows per batch", "rows per context", "lanes", "in one batch", "in neighbouring batches", "correlation"],
  rows: lines,
  notes: ["correlation: of the numbers of rows that neighbouring batches have of each context"],
};
console.log(tableText(table));
const head = `# Mixing: one lane and many\n\n${ROWS.toLocaleString("en")} rows of 768 16-bit numbers, the first row of each context excluded; means of ${SEEDS} seeds (bench/mixing.mjs). Runs of earlier versions have 1 lane.`;
writeFileSync(join(import.meta.dirname, "results", "mixing.md"), `${head}\n\n${tableMarkdown(table)}\n`);
