/**
 * As much of Protocol Buffers' wire format as editing a message without its schema needs: walking
 * the fields of a message, keeping each one's bytes as they are (util/protobuf.ts writes). Source:
 * https://protobuf.dev/programming-guides/encoding.
 */

import { FormatError } from "../util/errors.ts";

/** A message: a view into the file, and where it starts in there. */
export interface Message {
  readonly file: string;
  readonly at: number;
  readonly bytes: Uint8Array;
}

/**
 * `value`: a varint (exact to 2^53), 0 for other types. `body`: the payload of a length-delimited
 * field, empty for other types. `raw`: the whole field, tag included.
 */
export interface Field {
  readonly number: number;
  readonly type: "varint" | "fixed64" | "bytes" | "fixed32";
  readonly value: number;
  readonly body: Message;
  readonly raw: Uint8Array;
}

/**
 * The fields of a message in the order of the file. Throws FormatError with the byte offset when
 * the bytes are not a message.
 */
export function* fieldsOf(message: Message): Generator<Field> {
  const { bytes, file } = message;
  let i = 0;
  const fail = (what: string, at: number): never => {
    throw new FormatError(`not an ONNX model: ${what} at byte ${message.at + at}`, { where: file });
  };
  const varint = (): number => {
    const start = i;
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[i++];
      if (byte === undefined) return fail("the data ends inside a number", start);
      if (i - start > 10) return fail("a number of more than 10 bytes", start);
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (i < bytes.length) {
    const start = i;
    const tag = varint();
    if (tag > 0xffff_ffff || tag < 8) fail("a field without a valid number", start);
    const wire = tag % 8;
    let value = 0;
    let body = bytes.length;
    let type: Field["type"] = "bytes";
    if (wire === 0) {
      type = "varint";
      value = varint();
    } else {
      let length = 0;
      if (wire === 1) [type, length] = ["fixed64", 8];
      else if (wire === 5) [type, length] = ["fixed32", 4];
      else if (wire === 2) length = varint();
      else fail(`a field of unknown type ${wire}`, start);
      body = i;
      if (length > bytes.length - i) fail(`a field of ${length} bytes where ${bytes.length - i} are left`, start);
      i += length;
    }
    yield {
      number: Math.floor(tag / 8),
      type,
      value,
      body: { file, at: message.at + body, bytes: type === "bytes" ? bytes.subarray(body, i) : bytes.subarray(0, 0) },
      raw: bytes.subarray(start, i),
    };
  }
}

const utf8 = new TextDecoder();

/** The payload of a field as text. */
export function textOf(field: Field): string {
  return utf8.decode(field.body.bytes);
}

/** The numbers of a repeated integer field, packed or not. */
export function integersOf(field: Field): number[] {
  if (field.type === "varint") return [field.value];
  const numbers: number[] = [];
  let value = 0;
  let scale = 1;
  for (const byte of field.body.bytes) {
    value += (byte & 0x7f) * scale;
    scale *= 128;
    if (byte < 0x80) {
      numbers.push(value);
      value = 0;
      scale = 1;
    }
  }
  return numbers;
}
