import { Option } from "commander";
import { MAX_RANKS } from "../collective/launch-env.ts";
import { parseCount } from "../util/numbers.ts";

/** How many ranks to start on this host: no choice of the run, so it is not in its config. */
export function nprocOption(): Option {
  return new Option(
    "--nproc <N>",
    "ranks to start on this host (default: shards x replicas; alone: as many replicas)",
  ).argParser((text: string) => parseCount(text, "--nproc", 1, MAX_RANKS));
}
