// Runs the built command and says what it took.
import { spawn } from "node:child_process";
import { once } from "node:events";

/** Runs `saetta` with these words: its time, and its CPU time over all threads. */
export async function saetta(words) {
  const tellCpu = `process.on("exit", () => process.stderr.write("\\n" + JSON.stringify(process.cpuUsage())))`;
  const began = performance.now();
  const child = spawn(process.execPath, ["--import", `data:text/javascript,${tellCpu}`, "dist/cli.js", ...words]);
  let said = "";
  child.stdout.resume();
  child.stderr.on("data", (text) => {
    said += text;
  });
  const [code] = await once(child, "close");
  if (code !== 0) throw new Error(`saetta ${words.join(" ")}: ${said}`);
  const { user, system } = JSON.parse(said.trim().split("\n").at(-1));
  return { ms: performance.now() - began, cpuMs: (user + system) / 1000 };
}
