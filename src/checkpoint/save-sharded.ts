/**
 * A checkpoint that several ranks write: the same files as one rank's, in which each shard writes
 * its own latents' rows at their places; rank 0 lays the files out before and hashes them after,
 * writes the manifest last and gives the folder its name. A run can therefore go on on any other
 * grid.
 */

import { join } from "node:path";
import type { Collective, Grid } from "../collective/collective.ts";
import { layOut, type SafetensorsPart } from "../formats/safetensors.ts";
import { stepName } from "../run-files/names.ts";
import { beginFolder, finishFolder, writeFile } from "./commit.ts";
import { checkpointsFolder } from "./layout.ts";
import { entryOf, type ManifestEntry } from "./manifest.ts";
import { filesOf, folderOf, type Snapshot, sayingNeeds, type TensorFile } from "./save.ts";
import { disk, type Storage } from "./storage.ts";

/**
 * Saves as `saveCheckpoint` does; every rank calls it, with the same step. A rank that cannot write
 * throws, and is to end the run of all.
 */
export async function saveSharded(
  runDir: string,
  snapshot: Snapshot,
  collective: Collective,
  storage: Storage = disk,
): Promise<string> {
  const { grid } = collective;
  return sayingNeeds(runDir, snapshot.state, async () => {
    const files = await filesOf(runDir, { ...snapshot, grid });
    const tensors = files.filter((file): file is TensorFile => !("json" in file));
    const manifest: Record<string, ManifestEntry> = {};
    let aside = "";
    if (grid.rank === 0) {
      aside = await beginFolder(await folderOf(runDir, storage), stepName(snapshot.step), storage);
      for (const file of files) {
        if ("json" in file) manifest[file.name] = await writeFile(join(aside, file.name), file.content, storage);
        else await layDown(join(aside, file.name), file, grid, storage);
      }
    }
    [aside = ""] = await collective.exchange(aside);
    // Replicas have the same.
    if (grid.replica === 0) for (const file of tensors) await writeShard(join(aside, file.name), file, grid, storage);
    await collective.barrier();
    if (grid.rank === 0) {
      for (const { name } of tensors) manifest[name] = await entryOf(join(aside, name));
      const inOrder = Object.fromEntries(files.map(({ name }) => [name, manifest[name]!]));
      await finishFolder(checkpointsFolder(runDir), stepName(snapshot.step), inOrder, storage);
    }
    await collective.barrier();
    return join(checkpointsFolder(runDir), stepName(snapshot.step));
  });
}

/** The parts with the shapes that they have in the file. */
function whole({ parts }: TensorFile, { shards }: Grid): Omit<SafetensorsPart, "bytes">[] {
  return parts.map(({ name, dtype, shape, sharded }) => ({
    name,
    dtype,
    shape: sharded ? [shape[0]! * shards, ...shape.slice(1)] : shape,
  }));
}

/** The file with all its room, and what it begins with. */
async function layDown(path: string, file: TensorFile, grid: Grid, storage: Storage): Promise<void> {
  const { head, size } = layOut(whole(file, grid), file.metadata);
  const output = await storage.create(path);
  try {
    await output.write(head, 0);
    await output.truncate(size);
    await output.sync();
  } finally {
    await output.close();
  }
}

async function writeShard(path: string, file: TensorFile, grid: Grid, storage: Storage): Promise<void> {
  const { begins } = layOut(whole(file, grid), file.metadata);
  const output = await storage.open(path);
  try {
    for (const [i, part] of file.parts.entries()) {
      if (!part.sharded && grid.shard > 0) continue;
      const bytes = await part.bytes();
      await output.write(bytes, begins[i]! + (part.sharded ? grid.shard * bytes.byteLength : 0));
    }
    await output.sync();
  } finally {
    await output.close();
  }
}
