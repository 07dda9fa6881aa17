import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { SocketBytes } from "./socket-bytes.ts";

let folder: string;
let path: string;
let server: Server;
let accepted: Promise<Socket>;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "saetta-bytes-"));
  path = join(folder, "rows.sock");
  accepted = new Promise((resolve) => {
    server = createServer(resolve);
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
});
afterEach(async () => {
  server.close();
  await rm(folder, { recursive: true });
});

const SENT = Uint8Array.from({ length: 700_001 }, (_, i) => (i * 31) ^ (i >> 8));

describe("bytes of a socket", () => {
  it.each([
    [1, 7, 100_000],
    [8, 65_536, 3],
    [300_000, 8],
  ])("are read in order, %i, %i, ... at a time", async (...sizes) => {
    const bytes = await SocketBytes.connect(path);
    const peer = await accepted;
    peer.end(SENT);
    const found: Uint8Array[] = [];
    for (let i = 0; ; i++) {
      const into = new Uint8Array(sizes[i % sizes.length]!);
      const count = await bytes.read(into);
      found.push(into.subarray(0, count));
      if (count < into.length) break;
    }
    expect(Buffer.concat(found).equals(SENT)).toBe(true);
    expect(await bytes.read(new Uint8Array(4))).toBe(0);
    await bytes.close();
  });

  it("are not taken before they are wanted", async () => {
    const bytes = await SocketBytes.connect(path);
    const peer = await accepted;
    let isSent = false;
    peer.write(new Uint8Array(2 ** 26), () => {
      isSent = true;
    });
    await bytes.read(new Uint8Array(8));
    await new Promise((resolve) => setImmediate(resolve));
    expect(isSent).toBe(false);
    await bytes.read(new Uint8Array(2 ** 26 - 8));
    await bytes.close();
    peer.destroy();
  });

  it("of nobody are an error", async () => {
    await expect(SocketBytes.connect(join(folder, "none"))).rejects.toMatchObject({ code: "ENOENT" });
  });
});
