/**
 * A features file, of which chunks are read when they are needed: the same in a page and on a
 * server.
 */

import type { FeatureSummary } from "../../run-files/feature-summary.ts";
import { FormatError, UsageError } from "../../util/errors.ts";
import {
  type DocumentPlace,
  documentChunk,
  inflate,
  inflateJson,
  type LatentWords,
  latentsChunk,
  PER_SHARD,
  PER_TEXT,
  type StoredDocument,
  type StoredLatent,
  type StoredPassage,
  textChunk,
} from "./format.ts";
import type { Label } from "./labels.ts";
import { searchFor } from "./search.ts";
import type {
  Document,
  ExplorerSource,
  Latent,
  LatentMap,
  LatentPage,
  LatentQuery,
  LatentRow,
  Other,
  Passage,
} from "./source.ts";

/** The bytes of a chunk, as stored. */
export type ReadChunk = (name: string) => Promise<Uint8Array<ArrayBuffer>>;

/** The labels of latents, as they are when it is called. */
export type ReadLabels = () => Promise<ReadonlyMap<number, Label>>;

/** Latents that are named with a document. */
const STRONGEST_IN_DOCUMENT = 24;

/** Chunks that are remembered. */
const REMEMBERED = 128;

export class FeatureReader implements ExplorerSource {
  readonly #summary: FeatureSummary;
  readonly #read: ReadChunk;
  readonly #where: string;
  readonly #labels: ReadLabels;
  readonly #parsed = new Map<string, Promise<unknown>>();
  #table: Promise<readonly LatentRow[]> | undefined;

  /** `labels` default: there are none. */
  constructor(
    summary: FeatureSummary,
    read: ReadChunk,
    where: string,
    labels: ReadLabels = () => Promise.resolve(new Map()),
  ) {
    this.#summary = summary;
    this.#read = read;
    this.#where = where;
    this.#labels = labels;
  }

  summary(): Promise<FeatureSummary> {
    return Promise.resolve(this.#summary);
  }

  /** The tokens that each latent fires on, by number. */
  async names(): Promise<readonly (readonly string[])[]> {
    return (await this.#rows()).map(({ on }) => on);
  }

  async latents({ search, named = false, sort, descending, offset, count }: LatentQuery): Promise<LatentPage> {
    const { number, rank } = searchFor(search);
    const labels = await this.#labels();
    const found = (await this.#rows()).flatMap((bare) => {
      const label = labels.get(bare.latent);
      if (named && label === undefined) return [];
      const row = label === undefined ? bare : { ...bare, label };
      const match = rank(row);
      return match === undefined ? [] : [{ row, match }];
    });
    const isSearched = (row: LatentRow) => (row.latent === number ? 1 : 0);
    const sign = descending ? 1 : -1;
    const order = ({ row, match }: (typeof found)[number]) => (sort === "match" ? match : row[sort]);
    found.sort(
      (a, b) =>
        isSearched(b.row) - isSearched(a.row) ||
        sign * (order(b) - order(a) || (sort === "match" ? b.row.score - a.row.score : 0)) ||
        a.row.latent - b.row.latent,
    );
    return { total: found.length, rows: found.slice(offset, offset + count).map(({ row }) => row) };
  }

  /** The rows of those of the latents that there are. */
  async some(latents: readonly number[]): Promise<LatentRow[]> {
    const [rows, labels] = [await this.#rows(), await this.#labels()];
    return latents.flatMap((latent) => {
      const [row, label] = [rows[latent], labels.get(latent)];
      return row === undefined ? [] : [{ ...row, ...(label && { label }) }];
    });
  }

  async latent(latent: number): Promise<Latent> {
    const { latents } = this.#summary;
    if (!Number.isInteger(latent) || latent < 0 || latent >= latents) {
      throw new UsageError(`there is no latent ${latent}; they are numbered from 0 to ${latents - 1}`);
    }
    const rows = await this.#rows();
    const labels = await this.#labels();
    const label = labels.get(latent);
    const other = (number: number) => otherOf(number, rows, labels);
    const stored = ((await this.#json(latentsChunk(latent))) as readonly StoredLatent[])[latent % PER_SHARD];
    if (stored === undefined) throw new FormatError(`holds nothing of latent ${latent}`, { where: this.#where });
    const documents = stored.documents === undefined ? [] : await this.#documents();
    const passages = (all: readonly StoredPassage[]) =>
      Promise.all(all.map(async (each) => ({ ...(await this.#passage(each)), ...placed(documents, each.row) })));
    return {
      ...stored,
      ...rows[latent]!,
      ...(label && { label }),
      strongest: await passages(stored.strongest),
      ranges: await Promise.all(
        stored.ranges.map(async (range) => ({ ...range, passages: await passages(range.passages) })),
      ),
      nearest: stored.nearest.map((near) => ({ ...near, ...other(near.latent) })),
      together: stored.together?.map((each) => ({ ...each, ...other(each.latent) })),
    };
  }

  async document(document: number): Promise<Document> {
    const { length } = await this.#documents();
    if (!Number.isInteger(document) || document < 0 || document >= length)
      throw new UsageError(`there is no document ${document}; there are ${length}`);
    const found = (await this.#json(documentChunk(document))) as StoredDocument;
    const sums = new Map<number, number>();
    for (const [i, latent] of found.latents.entries()) sums.set(latent, (sums.get(latent) ?? 0) + found.values[i]!);
    const strongest = [...sums].sort((a, b) => b[1] - a[1]).slice(0, STRONGEST_IN_DOCUMENT);
    const [rows, labels] = [await this.#rows(), await this.#labels()];
    return { ...found, strongest: strongest.map(([latent]) => otherOf(latent, rows, labels)) };
  }

  async map(): Promise<LatentMap | undefined> {
    const { latents } = this.#summary;
    const bytes = await this.#read("map").catch(() => undefined);
    if (bytes === undefined) return undefined;
    const { buffer, byteLength } = await inflate(bytes, this.#where);
    if (byteLength !== 4 * latents)
      throw new FormatError(`the map is not one of ${latents} latents`, { where: this.#where });
    const [x, y] = [0, 1].map((axis) => [...new Uint16Array(buffer, 2 * latents * axis, latents)]);
    const named = Array.from(await this.#labels()).flatMap(([latent, { name }]) => (name === "" ? [] : [latent]));
    return { x: x!, y: y!, named };
  }

  /** Files of before have none. */
  async #documents(): Promise<readonly DocumentPlace[]> {
    return (await this.#json("documents").catch(() => [])) as readonly DocumentPlace[];
  }

  #rows(): Promise<readonly LatentRow[]> {
    this.#table ??= this.#readTable();
    return this.#table;
  }

  async #readTable(): Promise<readonly LatentRow[]> {
    const { latents, rows } = this.#summary;
    const { buffer, byteLength } = await inflate(await this.#read("table"), this.#where);
    const words = (await this.#json("words")) as readonly LatentWords[];
    if (byteLength !== latents * 16 || words.length !== latents) {
      throw new FormatError(`the table is not one of ${latents} latents`, {
        where: this.#where,
        mend: "make the report again",
      });
    }
    const firings = new Uint32Array(buffer, 0, latents);
    const [max, importance, score] = [1, 2, 3].map((column) => new Float32Array(buffer, column * latents * 4, latents));
    return words.map((word, latent) => ({
      ...word,
      latent,
      firings: firings[latent]!,
      density: firings[latent]! / rows,
      max: max![latent]!,
      importance: importance![latent]!,
      score: score![latent]!,
    }));
  }

  async #passage({ value, row, text, length, at, active }: StoredPassage): Promise<Passage> {
    const tokens: string[] = [];
    for (let token = text; text >= 0 && token < text + length; ) {
      const chunk = (await this.#json(textChunk(token))) as readonly string[];
      const begin = token % PER_TEXT;
      const part = chunk.slice(begin, begin + text + length - token);
      if (part.length === 0) throw new FormatError(`the text ends before token ${token}`, { where: this.#where });
      tokens.push(...part);
      token += part.length;
    }
    const values = tokens.map(() => 0);
    for (let i = 0; i + 1 < active.length; i += 2) values[active[i]!] = active[i + 1]!;
    return { value, row, tokens, values, at };
  }

  #json(name: string): Promise<unknown> {
    const held = this.#parsed.get(name);
    // What was used last stands last.
    this.#parsed.delete(name);
    const parsed = held ?? this.#read(name).then((bytes) => inflateJson(bytes, this.#where));
    this.#parsed.set(name, parsed);
    if (this.#parsed.size > REMEMBERED) this.#parsed.delete(this.#parsed.keys().next().value!);
    return parsed;
  }
}

function otherOf(latent: number, rows: readonly LatentRow[], labels: ReadonlyMap<number, Label>): Other {
  const name = labels.get(latent)?.name ?? "";
  return { latent, on: rows[latent]?.on ?? [], ...(name === "" ? {} : { name }) };
}

/** The document that a row is in. */
function placed(documents: readonly DocumentPlace[], row: number): Pick<Passage, "document"> {
  const document = documents.findIndex((place) => row >= place.row && row < place.row + place.length);
  return document < 0 ? {} : { document };
}
