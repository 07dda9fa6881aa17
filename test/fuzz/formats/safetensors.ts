/**
 * safetensors: the header's bytes and its JSON; what is opened as activations, and every tensor.
 */

import { openSource } from "../../../src/data/open.ts";
import { openSafetensors, type SafetensorsPart, writeSafetensors } from "../../../src/formats/safetensors.ts";
import { type FuzzFormat, type JsonPart, jsonBoundaries, type Sample } from "../format.ts";
import { all, readSource } from "./read.ts";

export async function written(
  parts: readonly Omit<SafetensorsPart, "bytes">[],
  metadata: Record<string, string>,
): Promise<Buffer> {
  const pieces: Uint8Array[] = [];
  const sizes: Readonly<Record<string, number>> = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, U8: 1, BOOL: 1 };
  const bytes = (dtype: string, shape: readonly number[]) =>
    new Uint8Array(shape.reduce((product, size) => product * size, sizes[dtype] ?? 0)).map((_, i) =>
      i % (sizes[dtype] ?? 1) === 0 ? i % 2 : 0,
    );
  await writeSafetensors(
    async (piece) => void pieces.push(piece),
    parts.map((part) => ({ ...part, bytes: async () => bytes(part.dtype, part.shape) })),
    metadata,
  );
  return Buffer.concat(pieces);
}

async function samples(): Promise<Sample[]> {
  const origin = { model: "m", model_sha256: "00", tensor: "t", tokenizer: "k", start_token: "7" };
  const named = async (name: string, ...[parts, metadata]: Parameters<typeof written>): Promise<Sample> => ({
    name,
    file: `${name}.safetensors`,
    bytes: await written(parts, metadata),
  });
  return [
    await named(
      "activations",
      [
        { name: "hidden_states", dtype: "F16", shape: [3, 4, 5] },
        { name: "tokens", dtype: "I64", shape: [3, 4] },
      ],
      origin,
    ),
    await named(
      "several",
      [
        { name: "a", dtype: "F64", shape: [2, 2] },
        { name: "b", dtype: "F32", shape: [] },
        { name: "c", dtype: "BF16", shape: [0] },
        { name: "d", dtype: "U8", shape: [3] },
        { name: "e", dtype: "BOOL", shape: [2] },
      ],
      {},
    ),
    { ...(await named("empty", [], {})), refused: true },
  ];
}

const header = (bytes: Buffer): [number, number] => [8, Math.min(bytes.length, 8 + bytes.readUInt32LE(0))];

const json: JsonPart = {
  range: header,
  replaced(bytes, text) {
    const prefix = Buffer.alloc(8);
    prefix.writeBigUInt64LE(BigInt(text.length));
    return Buffer.concat([prefix, text, bytes.subarray(header(bytes)[1])]);
  },
};

export const safetensors: FuzzFormat = {
  name: "safetensors",
  samples,
  boundaries: (bytes) => [0, ...jsonBoundaries(bytes, header(bytes)), header(bytes)[1], bytes.length - 1, bytes.length],
  json,
  read: (path) =>
    all(
      async () => {
        const file = await openSafetensors(path);
        try {
          for (const name of file.tensors.keys()) await file.read(name);
        } finally {
          await file.close();
        }
      },
      async () => readSource(await openSource([path])),
    ),
};
