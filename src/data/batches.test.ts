import { describe, expect, it } from "vitest";
import { type MemoryOptions, memorySource, numberedRows } from "../../test/support/memory-source.ts";
import { BYTES } from "../util/bytes.ts";
import { nonFiniteRows } from "../util/float16.ts";
import { Rng } from "../util/rng.ts";
import { type Batch, batches, type NonFinite, type Position, type Ring, ringRows, START } from "./batches.ts";
import { rowsToFloat32 } from "./convert.ts";
import { RowSet } from "./mask.ts";
import { Order } from "./order.ts";
import type { Source } from "./source.ts";

interface Setting extends MemoryOptions {
  readonly rows: number;
  readonly batch: number;
  readonly shuffle?: boolean;
  readonly nonFinite?: NonFinite;
  readonly excluded?: (row: number) => boolean;
  /** Rows that hold NaN. */
  readonly bad?: (row: number) => boolean;
  readonly windowBytes?: number;
}

const D = 3;

function arrange(setting: Setting) {
  const {
    rows,
    batch,
    excluded = () => false,
    bad = () => false,
    shuffle = true,
    windowBytes = 64 * 12,
    ...options
  } = setting;
  const values = numberedRows(rows, D);
  const set = new RowSet(rows);
  for (let row = 0; row < rows; row++) {
    if (bad(row)) values[row * D + (row % D)] = row % 2 ? Number.NaN : Number.NEGATIVE_INFINITY;
    if (excluded(row)) set.add(row);
  }
  const source = memorySource(values, D, options);
  const order = new Order({ rows, rowBytes: 12, grain: 4 }, set, {
    seed: 7,
    shuffle,
    batch,
    blockBytes: 8 * 12,
    windowBytes,
  });
  return { source, order, nonFinite: setting.nonFinite ?? "stop" };
}

/**
 * The ring as an engine would hold it: what a batch names is read back from where it was uploaded.
 */
class Held implements Ring {
  readonly #bytes: Uint8Array;
  readonly #source: Source;
  readonly #rowBytes: number;

  constructor(source: Source, order: Order) {
    this.#source = source;
    this.#rowBytes = source.dIn * BYTES[source.dtype];
    this.#bytes = new Uint8Array(ringRows(order) * this.#rowBytes).fill(0x77);
  }

  memory(bytes: number): Uint8Array<ArrayBuffer> {
    return new Uint8Array(bytes);
  }

  /** The bytes are used until the promise resolves, some turns later. */
  async bring(at: number, bytes: Uint8Array): Promise<readonly number[]> {
    const { dtype, dIn } = this.#source;
    const found = nonFiniteRows(bytes, dtype, dIn, 0, bytes.length / this.#rowBytes);
    await new Promise((resolve) => setImmediate(resolve));
    this.#bytes.set(bytes, at * this.#rowBytes);
    return found;
  }

  /** The rows of the file that the batch is made of. */
  take({ rows }: Batch): number[] {
    const values = rowsToFloat32(this.#bytes, this.#source.dtype, this.#bytes.length / BYTES[this.#source.dtype]);
    return Array.from(rows, (row) => {
      const own = values.subarray(row * D, (row + 1) * D);
      expect(own.every((value) => value === own[0])).toBe(true);
      return own[0]!;
    });
  }
}

/** `sizes` batches from `start`: the rows of each, and where it left off. */
async function stream(
  { source, order, nonFinite }: ReturnType<typeof arrange>,
  sizes: readonly number[],
  start: Position = START,
) {
  const ring = new Held(source, order);
  const taken: { rows: number[]; next: Position }[] = [];
  let asked = 0;
  for await (const batch of batches({ source, order, ring, nonFinite }, start, () => sizes[asked++] ?? 0)) {
    taken.push({ rows: ring.take(batch), next: batch.next });
  }
  expect(taken.map(({ rows }) => rows.length)).toEqual(sizes.slice(0, taken.length));
  return taken;
}

const times = (count: number, size: number) => Array<number>(count).fill(size);

/** The order itself, epoch after epoch, without what is bad. */
function ordered(setting: Setting, count: number): number[] {
  const { order } = arrange(setting);
  const all: number[] = [];
  for (let epoch = 0; all.length < count; epoch++) {
    for (let position = 0; position < order.rowsPerEpoch; ) {
      const { blocks, lanes } = order.window(epoch, position);
      const rows = lanes.inOrder();
      const memory = blocks
        .flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i))
        .filter((row) => !order.isExcluded(row));
      for (const row of rows) if (!setting.bad?.(memory[row]!)) all.push(memory[row]!);
      position += rows.length;
    }
  }
  return all.slice(0, count);
}

const settings: Record<string, Setting> = {
  "one window": { rows: 100, batch: 16, windowBytes: 1e6 },
  "many windows": { rows: 1500, batch: 16 },
  "many windows in file order": { rows: 1500, batch: 16, shuffle: false },
  "a batch nearly as large as a window": { rows: 1500, batch: 100 },
  f16: { rows: 1000, batch: 32, dtype: "f16" },
  f64: { rows: 1000, batch: 32, dtype: "f64" },
  "excluded rows": { rows: 1500, batch: 16, excluded: (row) => row % 5 === 0 || (row > 300 && row < 400) },
  "fewer rows than a batch": { rows: 10, batch: 64 },
  "one row": { rows: 1, batch: 5 },
  "bad rows": { rows: 1500, batch: 16, nonFinite: "skip", bad: (row) => row % 3 === 0 },
  "mostly bad rows": { rows: 1500, batch: 16, nonFinite: "skip", bad: (row) => row % 10 > 2 },
  "a bad stretch in file order": {
    rows: 1500,
    batch: 16,
    shuffle: false,
    nonFinite: "skip",
    bad: (row) => row >= 200 && row < 880,
  },
  "bad and excluded rows in one window": {
    rows: 90,
    batch: 16,
    nonFinite: "skip",
    bad: (row) => row % 4 === 1,
    excluded: (row) => row % 3 === 0,
    windowBytes: 1e6,
  },
};

describe.each(Object.entries(settings))("batches of %s", (_, setting) => {
  const total = Math.ceil((setting.rows * 2.6) / setting.batch) + 2;

  it("are the order of rows, over the ends of windows and epochs", async () => {
    const taken = await stream(arrange(setting), times(total, setting.batch));
    expect(taken.flatMap(({ rows }) => rows)).toEqual(ordered(setting, total * setting.batch));
  });

  it("go on from where any of them left off, with the same rows and the same places", async () => {
    const whole = await stream(arrange(setting), times(total, setting.batch));
    for (let done = 1; done < total; done += Math.max(1, Math.floor(total / 25))) {
      const rest = await stream(
        arrange(setting),
        times(Math.min(8, total - done), setting.batch),
        whole[done - 1]!.next,
      );
      expect(rest).toEqual(whole.slice(done, done + 8));
    }
  });
});

it("batches that end with the epoch are gone on from", async () => {
  for (const setting of [
    { rows: 64, batch: 16, windowBytes: 1e6 },
    { rows: 1600, batch: 16 },
  ]) {
    const whole = await stream(arrange(setting), times(setting.rows / 16 + 3, 16));
    const end = whole[setting.rows / 16 - 1]!.next;
    expect(end).toEqual({ epoch: 0, row: setting.rows, skipped: 0 });
    expect(await stream(arrange(setting), times(3, 16), end)).toEqual(whole.slice(-3));
  }
});

it("batches of changing sizes are the same rows", async () => {
  const setting: Setting = { rows: 700, batch: 40 };
  const rng = new Rng(3);
  const sizes = Array.from({ length: 60 }, () => 1 + rng.below(40));
  const taken = await stream(arrange(setting), sizes);
  const total = sizes.reduce((sum, size) => sum + size, 0);
  expect(taken.flatMap(({ rows }) => rows)).toEqual(ordered(setting, total));
});

it("what fits into one window is read once", async () => {
  const arranged = arrange({ rows: 100, batch: 16, windowBytes: 1e6 });
  await stream(arranged, times(100, 16));
  const { reads } = arranged.source;
  expect(reads.reduce((sum, [, count]) => sum + count, 0)).toBe(100);
  const many = arrange({ rows: 1500, batch: 16 });
  await stream(many, times(30, 16));
  expect(many.source.reads.length).toBeGreaterThan(0);
  expect(many.source.reads.length).toBeLessThan(190);
});

describe("a row that is not finite", () => {
  it("stops with its file and row", async () => {
    for (const excluded of [() => false, (row: number) => row % 2 === 0]) {
      const arranged = arrange({ rows: 1500, batch: 16, bad: (row) => row === 77, excluded });
      await expect(stream(arranged, times(100, 16))).rejects.toThrow(
        "memory.h5, row 77: holds NaN or Inf; mend the file, or pass --non-finite skip to leave such rows out and count them",
      );
    }
  });

  it("stops nobody where it is excluded", async () => {
    const taken = await stream(
      arrange({ rows: 200, batch: 16, bad: (row) => row === 77, excluded: (row) => row === 77 }),
      times(50, 16),
    );
    expect(taken.at(-1)!.next.skipped).toBe(0);
  });

  it("is passed over and counted, every time it comes up", async () => {
    const bad = (row: number) => row === 5 || row === 6;
    const taken = await stream(arrange({ rows: 10, batch: 8, nonFinite: "skip", bad, windowBytes: 1e6 }), times(3, 8));
    expect(taken.at(-1)!.next).toEqual({ epoch: 2, row: expect.any(Number), skipped: expect.any(Number) });
    // Three epochs of 8 finite rows; the bad ones of the last may stand at its end.
    expect(taken[1]!.next.skipped).toBeGreaterThanOrEqual(2);
    expect(taken[2]!.next.skipped).toBeGreaterThanOrEqual(4);
    expect(taken[2]!.next.skipped).toBeLessThanOrEqual(6);
  });

  it.each([
    ["one window", 100, 1e6],
    ["many windows", 1500, 768],
  ])("ends with an error when all are so (%s)", async (_, rows, windowBytes) => {
    const arranged = arrange({ rows, windowBytes, batch: 16, nonFinite: "skip", bad: () => true });
    await expect(stream(arranged, times(5, 16))).rejects.toThrow(
      /^memory.h5: too few finite rows to fill a batch \([\d,]+ rows were passed over\)/,
    );
  });

  it("ends with an error when three windows would be needed for one batch", async () => {
    const arranged = arrange({ rows: 1500, batch: 40, nonFinite: "skip", shuffle: false, bad: (row) => row % 100 > 2 });
    await expect(stream(arranged, times(5, 40))).rejects.toThrow("too few finite rows");
  });
});

it("a failing read is reported when its window is needed", async () => {
  const arranged = arrange({ rows: 1500, batch: 16, shuffle: false, broken: 1000 });
  const taken: number[] = [];
  const reading = (async () => {
    const ring = new Held(arranged.source, arranged.order);
    for await (const batch of batches({ ...arranged, ring, nonFinite: "stop" }, START, () => 16))
      taken.push(...ring.take(batch));
  })();
  await expect(reading).rejects.toThrow("the disk is gone");
  expect(taken.length).toBeGreaterThan(800);
  expect(taken).toEqual(ordered({ rows: 1500, batch: 16, shuffle: false }, taken.length));
});
