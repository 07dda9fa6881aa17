// Files that the linter does not read have a largest size too: kernels 800 lines, all else 400. Data, texts and lock files do not count.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const files = execFileSync(
  "git",
  ["ls-files", "--cached", "--others", "--exclude-standard", "*.cc", "*.h", "*.cu", "*.py", "*.mjs", "*.html", "*.css"],
  { encoding: "utf8" },
);
const tooLong = files
  .split("\n")
  .filter((file) => file !== "")
  .map((file) => ({
    file,
    lines: readFileSync(file, "utf8").split("\n").length - 1,
    most: file.includes("/kernels/") ? 800 : 400,
  }))
  .filter(({ lines, most }) => lines > most);
for (const { file, lines, most } of tooLong)
  console.error(`${file}: ${lines} lines, at most ${most}: split it by meaning`);

// Where it is committed as a link, a checkout deletes the folder of installed packages.
const committed = execFileSync("git", ["ls-files", "node_modules"], { encoding: "utf8" }) !== "";
if (committed) console.error("node_modules: is committed; git rm --cached node_modules");
process.exitCode = tooLong.length > 0 || committed ? 1 : 0;
