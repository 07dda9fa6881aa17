import { CHUNKS, type ChunkMemory } from "../data/chunks.ts";
import type { Engine } from "../engine/engine.ts";

/**
 * Memory of the engine for rows that are read in chunks. It is kept for the next reader; a reader
 * that comes while another is at it gets its own.
 */
export function rowMemory(engine: Engine): (bytes: number) => ChunkMemory {
  let held: readonly Uint8Array<ArrayBuffer>[] = [];
  return (bytes) => {
    const isLarge = (held[0]?.length ?? -1) >= bytes;
    const buffers = isLarge ? held : Array.from({ length: CHUNKS }, () => engine.hostMemory(bytes));
    held = [];
    return {
      buffers,
      release: () => {
        held = buffers;
      },
    };
  };
}
