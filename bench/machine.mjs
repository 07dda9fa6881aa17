// Where and on what a bench ran.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { availableParallelism, cpus, release, totalmem, type } from "node:os";

const said = (command, words) => {
  try {
    return execFileSync(command, words, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })
      .split("\n")[0]
      .trim();
  } catch {
    return undefined;
  }
};

/** What the processor can do that a step's time depends on. */
function features() {
  try {
    const flags = new Set(/^flags\s*:(.*)$/m.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1].split(" "));
    return ["avx2", "avx512f", "avx512_bf16", "amx_bf16"].filter((flag) => flags.has(flag));
  } catch {
    return [];
  }
}

export function machine() {
  const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  const revision = said("git", ["rev-parse", "--short", "HEAD"]);
  const changed = revision !== undefined && said("git", ["status", "--porcelain", "--untracked-files=no"]) !== "";
  return {
    date: new Date().toISOString().slice(0, 16).replace("T", " "),
    processor: cpus()[0]?.model.trim() || process.arch,
    features: features(),
    cpus: availableParallelism(),
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    system: `${type()} ${release()}`,
    node: process.versions.node,
    compiler: said((process.env.CXX || "c++").trim().split(/\s+/)[0], ["--version"]) ?? "none",
    saetta: `${version}${revision === undefined ? "" : ` (${revision}${changed ? ", changed" : ""})`}`,
  };
}
