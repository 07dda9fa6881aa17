/** JSON messages, a line each, over a socket. */

import type { Socket } from "node:net";

/** A longer line is no message of ours. */
const LONGEST = 16 * 2 ** 20;

/**
 * Calls `onMessage` for each line that holds a JSON object; a connection that sends anything else
 * is closed.
 */
export function readLines(socket: Socket, onMessage: (message: Readonly<Record<string, unknown>>) => void): void {
  let parts: string[] = [];
  let length = 0;
  socket.setEncoding("utf8");
  socket.on("data", (chunk: string) => {
    for (let begin = 0; begin < chunk.length; ) {
      const end = chunk.indexOf("\n", begin);
      parts.push(end < 0 ? chunk.slice(begin) : chunk.slice(begin, end));
      length += parts.at(-1)!.length;
      if (length > LONGEST) return void socket.destroy();
      if (end < 0) return;
      const message = parse(parts.join(""));
      parts = [];
      length = 0;
      if (message === undefined) return void socket.destroy();
      onMessage(message);
      begin = end + 1;
    }
  });
}

export function writeLine(socket: Socket, message: object, done?: () => void): void {
  if (socket.destroyed || socket.writableEnded) done?.();
  else socket.write(`${JSON.stringify(message)}\n`, done);
}

function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}
