/**
 * A bound on open connections at which the page still works: the one that has been idle longest
 * makes room for the next.
 */

import type { Server } from "node:http";
import type { Socket } from "node:net";

const MOST = 256;

export function limitConnections(server: Server, most = MOST): void {
  /**
   * Open sockets, each with the number of its answers under way; the one that did something last
   * stands last.
   */
  const open = new Map<Socket, number>();
  const touch = (socket: Socket, change: number) => {
    const busy = (open.get(socket) ?? 0) + change;
    open.delete(socket);
    open.set(socket, busy);
  };
  server.on("connection", (socket) => {
    if (open.size >= most) {
      const idle = Array.from(open).find(([, busy]) => busy === 0)?.[0];
      if (idle === undefined) {
        socket.destroy();
        return;
      }
      open.delete(idle);
      idle.destroy();
    }
    touch(socket, 0);
    socket.on("close", () => open.delete(socket));
  });
  server.on("request", ({ socket }, response) => {
    if (!open.has(socket)) return;
    touch(socket, 1);
    response.on("close", () => {
      if (open.has(socket)) touch(socket, -1);
    });
  });
}
