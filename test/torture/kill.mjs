// Loaded before the command (node --import): counts the calls of the seam that write into
// checkpoints/, and at call $SAETTA_KILL_AT, half done, kills the process. At the end of the
// process the number of calls is written to $SAETTA_KILL_COUNT, if that is given.
import { writeFileSync } from "node:fs";
import { disk } from "../../dist/checkpoint/storage.js";

const at = Number(process.env.SAETTA_KILL_AT ?? 0);
const countFile = process.env.SAETTA_KILL_COUNT;
let calls = 0;

/** True once, at the call at which to kill. */
const counts = (path) => path.includes("checkpoints") && ++calls === at;
const kill = () => process.kill(process.pid, "SIGKILL");

const real = { ...disk };
for (const name of ["list", "makeFolder", "remove", "syncFolder"]) {
  disk[name] = async (path) => {
    if (counts(path)) kill();
    return real[name](path);
  };
}
disk.rename = async (from, to) => {
  if (counts(to)) kill();
  return real.rename(from, to);
};
disk.create = async (path) => {
  if (counts(path)) kill();
  const file = await real.create(path);
  return {
    ...file,
    async write(bytes, offset) {
      if (counts(path)) {
        await file.write(bytes.subarray(0, bytes.byteLength >> 1), offset);
        kill();
      }
      return file.write(bytes, offset);
    },
    async sync() {
      if (counts(path)) kill();
      return file.sync();
    },
  };
};
if (countFile !== undefined) process.on("exit", () => writeFileSync(countFile, String(calls)));
