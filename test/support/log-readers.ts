/**
 * Readers of TensorBoard's and W&B's files, written from their schemas and sharing nothing with
 * what writes them.
 */

import { crc32 } from "node:zlib";

/** The fields of a message: numbers for varints, doubles and floats, bytes for the rest. */
type Fields = Map<number, (number | Buffer)[]>;

function fieldsOf(bytes: Buffer): Fields {
  const fields: Fields = new Map();
  let at = 0;
  const varint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!;
      value |= BigInt(byte & 127) << shift;
      if (byte < 128) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const wire = tag & 7;
    let value: number | Buffer;
    if (wire === 0) value = varint();
    else {
      const length = wire === 1 ? 8 : wire === 5 ? 4 : varint();
      const body = bytes.subarray(at, at + length);
      if ((wire !== 1 && wire !== 2 && wire !== 5) || body.length !== length)
        throw new Error(`a bad field before byte ${at}`);
      value = wire === 1 ? body.readDoubleLE() : wire === 5 ? body.readFloatLE() : body;
      at += length;
    }
    fields.set(tag >> 3, [...(fields.get(tag >> 3) ?? []), value]);
  }
  return fields;
}

const part = (fields: Fields, number: number): Buffer => fields.get(number)![0] as Buffer;
const parts = (fields: Fields, number: number): Fields[] =>
  (fields.get(number) ?? []).map((it) => fieldsOf(it as Buffer));

/** CRC-32C bit by bit, rotated and shifted as TFRecord files have it. */
function masked(bytes: Buffer): number {
  let crc = 0xffff_ffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f6_3b78 : crc >>> 1;
  }
  crc = ~crc >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282_ead8) >>> 0;
}

export interface TensorboardEvent {
  readonly wallTime: number;
  readonly step: number;
  readonly version: string | undefined;
  /** SessionLog.status. */
  readonly session: number | undefined;
  readonly scalars: Readonly<Record<string, number>>;
}

/** Throws when a checksum is wrong or the file ends inside a record. */
export function readEvents(file: Buffer): TensorboardEvent[] {
  const events: TensorboardEvent[] = [];
  for (let at = 0; at < file.length; ) {
    const length = Number(file.readBigUInt64LE(at));
    if (file.readUInt32LE(at + 8) !== masked(file.subarray(at, at + 8)))
      throw new Error(`the length at byte ${at} has a wrong checksum`);
    const data = file.subarray(at + 12, at + 12 + length);
    if (file.readUInt32LE(at + 12 + length) !== masked(data))
      throw new Error(`the record at byte ${at} has a wrong checksum`);
    at += 16 + length;
    const fields = fieldsOf(data);
    const values = parts(fields, 5).flatMap((summary) => parts(summary, 1));
    events.push({
      wallTime: fields.get(1)![0] as number,
      step: (fields.get(2)?.[0] as number | undefined) ?? 0,
      version: fields.get(3) && part(fields, 3).toString(),
      session: parts(fields, 7)[0]?.get(1)?.[0] as number | undefined,
      scalars: Object.fromEntries(values.map((value) => [part(value, 1).toString(), value.get(2)![0] as number])),
    });
  }
  return events;
}

const KINDS: Readonly<Record<number, string>> = {
  2: "history",
  3: "summary",
  17: "run",
  18: "exit",
  20: "final",
  21: "header",
  22: "footer",
};

export interface WandbRecord {
  readonly num: number;
  readonly kind: string;
  /** Of history, summary and the run's config. */
  readonly items: Readonly<Record<string, unknown>>;
  readonly fields: Fields;
}

/** Throws when a checksum, a type or the file's beginning is wrong. */
export function readWandb(file: Buffer): WandbRecord[] {
  if (file.subarray(0, 7).toString("hex") !== "3a572642e1be00") throw new Error("not a .wandb file");
  const records: WandbRecord[] = [];
  let open: Buffer[] = [];
  for (let at = 7; at < file.length; ) {
    const room = 32_768 - (at % 32_768);
    if (room < 7) {
      at += room;
      continue;
    }
    const length = file.readUInt16LE(at + 4);
    const type = file[at + 6]!;
    if (length + 7 > room) throw new Error(`the piece at byte ${at} is longer than its block`);
    if (file.readUInt32LE(at) !== crc32(file.subarray(at + 6, at + 7 + length)))
      throw new Error(`byte ${at}: a wrong checksum`);
    if (open.length === 0 ? type !== 1 && type !== 2 : type !== 3 && type !== 4)
      throw new Error(`byte ${at}: a piece of type ${type}`);
    open.push(file.subarray(at + 7, at + 7 + length));
    at += 7 + length;
    if (type === 2 || type === 3) continue;
    records.push(recordOf(Buffer.concat(open)));
    open = [];
  }
  return records;
}

function recordOf(data: Buffer): WandbRecord {
  const fields = fieldsOf(data);
  const [number, ...more] = [...fields.keys()].filter((it) => it !== 1);
  if (number === undefined || more.length > 0) throw new Error("a record of no kind, or of two");
  const kind = KINDS[number] ?? String(number);
  const inner = fieldsOf(part(fields, number));
  const list = kind === "run" ? fieldsOf(part(inner, 4)) : inner;
  const items = ["history", "summary", "run"].includes(kind)
    ? parts(list, 1).map((item) => [part(item, 1).toString(), JSON.parse(part(item, 16).toString()) as unknown])
    : [];
  return { num: fields.get(1)![0] as number, kind, items: Object.fromEntries(items), fields: inner };
}
