/**
 * Memory of a typed array that goes back at once, and not when garbage is collected: arrays of
 * many megabytes, one after the other, otherwise have the whole heap marked for each of them.
 */

import { MessageChannel } from "node:worker_threads";

/**
 * Gives the memory of `array` back; it is empty from then on, and so is every view of its buffer.
 * Memory that threads share stays.
 */
export function freeArray({ buffer }: ArrayBufferView): void {
  if (!(buffer instanceof ArrayBuffer)) return;
  const { port1, port2 } = new MessageChannel();
  port1.postMessage(undefined, [buffer]);
  // What was sent and cannot be received any more is freed.
  port1.close();
  port2.close();
}
