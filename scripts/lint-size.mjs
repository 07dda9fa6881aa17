// What the linter does not look at: the size of files that it does not read (kernels 800 lines, all
// else 400; data, texts and lock files do not count), and the width of lines: comments 100 columns,
// code 120. A line that a string or a pattern makes wide may stay, and generated headers are not
// looked at; a table or a picture in a comment (indented, or with gaps) may be as wide as code.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

const listed = (...patterns) =>
  execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", ...patterns], { encoding: "utf8" })
    .split("\n")
    .filter((file) => file !== "");
const linesOf = (file) => readFileSync(file, "utf8").split("\n");
const problems = [];

for (const file of listed("*.cc", "*.h", "*.cu", "*.py", "*.mjs", "*.html", "*.css")) {
  const [lines, most] = [linesOf(file).length - 1, file.includes("/kernels/") ? 800 : 400];
  if (lines > most) problems.push(`${file}: ${lines} lines, at most ${most}: split it by meaning`);
}

const COMMENT = /^\s*(\/\/|\/\*|\*[ /])/;
const PREFORMATTED = /^\s*(\/\/\/?|\*)( {4}|.*\S {3,}\S)|biome-ignore/;
for (const file of listed("*.ts", "*.tsx", "*.cc", "*.h", "*.cu", "*.cuh", "*.mjs")) {
  if (/\/contract\.(h|cuh)$/.test(file)) continue;
  for (const [i, line] of linesOf(file).entries()) {
    const most = COMMENT.test(line) && !PREFORMATTED.test(line) ? 100 : 120;
    if (line.length <= most || (most === 120 && /["'`]|\/[^/ ].*\//.test(line))) continue;
    problems.push(`${file}:${i + 1}: ${line.length} columns, at most ${most}`);
  }
}

// Where it is committed as a link, a checkout deletes the folder of installed packages.
if (listed("node_modules").length > 0) problems.push("node_modules: is committed; git rm --cached node_modules");

for (const problem of problems) console.error(problem);
process.exitCode = problems.length > 0 ? 1 : 0;
