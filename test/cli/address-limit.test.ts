/** HDF5 files under a limit on addresses, as clusters set it. */

import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { CHILD_MS } from "../support/limits.ts";
import { CLI } from "./saetta.ts";

const FILE = fileURLToPath(new URL("../../src/formats/fixtures/hdf5-swmr.h5", import.meta.url));

/** `saetta inspect FILE` where a process may have 8 GB of addresses. */
function inspect(options: string): { readonly status: number | null; readonly out: string; readonly err: string } {
  const script = 'ulimit -v 8000000 && exec "$0" "$@"';
  const { status, stdout, stderr } = spawnSync("bash", ["-c", script, process.execPath, CLI, "inspect", FILE], {
    encoding: "utf8",
    env: { ...process.env, NODE_OPTIONS: options },
    timeout: CHILD_MS,
    killSignal: "SIGKILL",
  });
  return { status, out: stdout, err: stderr };
}

it.skipIf(process.platform !== "linux")(
  "are not blamed for the room that WebAssembly lacks; the flag that is named helps",
  () => {
    const { status, err } = inspect("");
    expect(status).toBe(1);
    expect(err).toMatch(/^saetta: HDF5 files need WebAssembly, which has no room for its guard memory \(.*\); raise/);
    expect(err).toContain("NODE_OPTIONS=--disable-wasm-trap-handler");
    expect(err).not.toContain("swmr.h5");
    const helped = inspect("--disable-wasm-trap-handler");
    expect(helped.out).toContain("hidden_states");
    expect(helped.status).toBe(0);
  },
);
