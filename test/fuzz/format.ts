/**
 * What the fuzzer must know of a format. To add one: a file in formats/ that exports a FuzzFormat,
 * and its name in formats/index.ts. Nothing else: the ordinary tests (fuzz.test.ts) then run some
 * hundreds of mutations of it, and `npm run test:fuzz -- --format NAME` 20,000.
 *
 * `samples` are valid files, small (under 64 KiB, so that a mutation often hits something that
 * counts) and between them with every construct that the reader knows. `read` opens the file and
 * reads ALL that the product would read of it. Where a mutation is accepted, `read` returns;
 * otherwise it must throw a SaettaError. Anything else it throws, more than 2 s of processor time,
 * more than 256 MB or a dead process is a failure.
 */

export interface Sample {
  readonly name: string;
  /** The file that is mutated; its name decides what it is taken for. */
  readonly file: string;
  readonly bytes: Buffer;
  /** A file that is not damaged and yet refused. */
  readonly refused?: boolean;
  /** Files beside it that are left as they are, by name. */
  readonly beside?: Readonly<Record<string, Uint8Array | string>>;
}

/** The JSON inside a file, mutated token by token. */
export interface JsonPart {
  /** Bytes [from, to) of the sample that are JSON. */
  range(bytes: Buffer): readonly [from: number, to: number];
  /** The file with other JSON in that place; lengths that the file states of it fit again. */
  replaced(bytes: Buffer, text: Buffer): Buffer;
}

export interface FuzzFormat {
  readonly name: string;
  samples(): Promise<readonly Sample[]> | readonly Sample[];
  /**
   * Bytes where a structure or a field begins; each is cut at, and overwritten with extreme
   * numbers.
   */
  boundaries(bytes: Buffer): readonly number[];
  readonly json?: JsonPart;
  /**
   * Makes checksums right again after bytes were overwritten, so that mutations get past them.
   * Called with every other mutation that keeps the length.
   */
  resealed?(sample: Buffer, mutated: Buffer): void;
  /** Opens the file at `path` and reads everything. */
  read(path: string): Promise<void>;
}

/** A whole file that is JSON. */
export const WHOLE_FILE: JsonPart = {
  range: (bytes) => [0, bytes.length],
  replaced: (_, text) => text,
};

/** Where tokens of JSON begin. */
export function jsonBoundaries(bytes: Buffer, [from, to]: readonly [number, number] = [0, bytes.length]): number[] {
  const text = bytes.toString("latin1", from, to);
  return Array.from(text.matchAll(/[[\]{},:"]|-?\d+/g), ({ index }) => from + index);
}
