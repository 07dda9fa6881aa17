// The tests with the kernels of the cpu engine under AddressSanitizer with
// UndefinedBehaviorSanitizer, then under ThreadSanitizer, on every instruction set that this
// machine has. Exits with 1 when a test fails, when anything is reported, or when the sanitizers
// are not there. Needs dist/.
//
//   node scripts/sanitize.mjs [address | thread] [test files ...]
//
// Node itself is not instrumented: the runtime is loaded before it. Reports are read from files,
// for it may be a process started by a test that is reported; those of UndefinedBehaviorSanitizer,
// which finds its file taken by the other, from what the tests print.
import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const FOLDER = "build/sanitize";
const REPORTS = resolve(FOLDER, "reports");
const COMPILER = (process.env.CXX || "c++").trim().split(/\s+/);
const STRESS = "src/engine/cpu";
const ALWAYS = ["-fno-omit-frame-pointer", "-g"];
/**
 * Tests whose engine is the default one, run again on each other instruction set; those of the
 * engine go through all by themselves.
 */
const BY_DEFAULT = ["test/gradients", "test/parity", "test/faults", "src/train", "src/inference", "src/bench"];
/** Tests that run kernels, without what starts shells or threads of other libraries. */
const KERNELS = [
  "src/engine",
  "src/train",
  "src/inference",
  "src/bench",
  "test/gradients",
  "test/parity",
  "test/faults",
  "test/sanitize",
];

const SANITIZERS = {
  address: {
    title: "AddressSanitizer and UndefinedBehaviorSanitizer",
    runtime: "libasan.so",
    // A conversion that does not fit is undefined, but not part of `undefined`.
    flags: [
      "-fsanitize=address,undefined,float-cast-overflow",
      "-fno-sanitize-recover=all",
      "-D_GLIBCXX_ASSERTIONS",
      ...ALWAYS,
    ],
    options: {
      // Leaks: node gives nothing back at its end. Null: a test asks for more memory than there is.
      ASAN_OPTIONS: "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=1:exitcode=99",
      UBSAN_OPTIONS: "print_stacktrace=1",
    },
    faults: {
      write_beyond: "heap-buffer-overflow",
      read_after_free: "heap-use-after-free",
      overflow: "signed integer overflow",
      misaligned: "misaligned address",
      cast_beyond: "outside the range of representable values",
    },
    files: [],
    // It compiles the kernels again, and a compiler takes minutes when its own memory is watched.
    exclude: ["test/package/**"],
  },
  thread: {
    title: "ThreadSanitizer",
    runtime: "libtsan.so",
    flags: ["-fsanitize=thread", ...ALWAYS],
    options: {
      TSAN_OPTIONS: `suppressions=${resolve("test/sanitize/thread.supp")}:history_size=4:second_deadlock_stack=1:exitcode=99`,
    },
    faults: { race: "data race", race_of_copies: "data race" },
    // The shell that it starts crashes under this runtime.
    files: KERNELS,
    exclude: ["src/engine/cpu/compile.test.ts"],
  },
};
const REPORT = /ERROR: AddressSanitizer|runtime error:|(WARNING|FATAL|ERROR): ThreadSanitizer|Sanitizer: CHECK failed/;

class Impossible extends Error {}

const words = process.argv.slice(2);
const names = Object.hasOwn(SANITIZERS, words[0] ?? "") ? [words.shift()] : Object.keys(SANITIZERS);
const failures = [];
try {
  rmSync(FOLDER, { recursive: true, force: true });
  mkdirSync(REPORTS, { recursive: true });
  const { cpuPaths } = await import("../dist/engine/cpu/index.js");
  const paths = await cpuPaths().catch(impossible);
  for (const name of names) await sanitize(SANITIZERS[name], paths);
  if (failures.length === 0)
    console.log(`\nNothing found by ${names.map((name) => SANITIZERS[name].title).join(" or ")}: ${paths.join(", ")}`);
} catch (error) {
  if (!(error instanceof Impossible)) throw error;
  failures.push(error.message);
}
for (const failure of failures) console.error(`test:sanitize: ${failure}`);
process.exitCode = failures.length === 0 ? 0 : 1;

async function sanitize(sanitizer, paths) {
  const { title, flags, options, faults, files, exclude } = sanitizer;
  const began = performance.now();
  console.log(`\n== ${title}`);
  const env = { ...process.env, SAETTA_CXXFLAGS: flags.join(" ") };
  for (const [name, value] of Object.entries(options)) env[name] = `${value}:log_path=${join(REPORTS, "report")}`;
  const node = await launcher(sanitizer, env);

  const planted = join(FOLDER, "faults.so");
  compile([...flags, "-O1", "-shared", "-fPIC", "test/sanitize/faults.cc", "-o", planted]);
  for (const [fault, expected] of Object.entries(faults)) {
    const commit = `import k from "koffi"; k.load("${planted}").func("${fault}", "int", [])();`;
    const { status, reports } = await node(["--input-type=module", "-e", commit], {}, false);
    if (status === 0 || !reports.includes(expected)) {
      throw new Impossible(`${title} did not see ${fault} of test/sanitize/faults.cc (exit code ${status})`);
    }
  }
  console.log(`sees ${Object.keys(faults).join(", ")}`);

  // Compiled before the tests: no compiler is to run under the sanitizer.
  const { kernelLibrary } = await import("../dist/engine/cpu/compile.js");
  const library = await kernelLibrary({ flags }).catch(impossible);
  for (const name of readdirSync(STRESS).filter((each) => each.endsWith(".stress.cc"))) {
    const program = join(FOLDER, "stress");
    compile([
      ...flags,
      "-O2",
      "-std=c++17",
      "-pthread",
      join(STRESS, name),
      library,
      `-Wl,-rpath,${dirname(library)}`,
      "-o",
      program,
    ]);
    console.log(`\n-- ${title}: ${name}`);
    judge(`${name} under ${title}`, await run([program], env, true));
  }

  const vitest = [
    "node_modules/vitest/vitest.mjs",
    "run",
    "--no-file-parallelism",
    "--testTimeout=600000",
    "--hookTimeout=600000",
  ];
  vitest.push(...exclude.flatMap((pattern) => ["--exclude", pattern]));
  const test = async (what, chosen, more) => {
    console.log(`\n-- ${title}: ${what}`);
    judge(`${what} under ${title}`, await node([...vitest, ...chosen], more, true));
  };
  if (words.length > 0) {
    for (const path of paths) await test(`${words.join(" ")} on ${path}`, words, { SAETTA_CPU: path });
  } else {
    await test(files.length > 0 ? "tests of kernels" : "all tests", files, {});
    for (const path of paths.slice(0, -1)) await test(`tests on ${path}`, BY_DEFAULT, { SAETTA_CPU: path });
  }
  console.log(`\n${title}: ${Math.round((performance.now() - began) / 1000)} s`);
}

/**
 * What runs node with the runtime loaded before it; where that cannot live with random addresses,
 * without those.
 */
async function launcher({ title, runtime }, env) {
  if (process.platform !== "linux") throw new Impossible(`${title} can be loaded into node on Linux only`);
  if (/clang/i.test(compile(["--version"])))
    throw new Impossible(`${title}: ${COMPILER.join(" ")} is clang, and g++ is needed; set CXX=g++`);
  const library = compile([`-print-file-name=${runtime}`]).trim();
  if (!isAbsolute(library)) {
    const install = "Debian, Ubuntu: apt install g++; Fedora: dnf install libasan libubsan libtsan";
    throw new Impossible(`${title}: ${COMPILER.join(" ")} has no ${runtime}; install it (${install})`);
  }
  for (const command of [[process.execPath], ["setarch", "-R", process.execPath]]) {
    const node = (args, more, show) => run([...command, ...args], { ...env, ...more, LD_PRELOAD: library }, show);
    const { status, reports } = await node(["-e", "0"], {}, false);
    if (status === 0 && reports === "") return node;
  }
  throw new Impossible(`${title}: node does not start with ${library} loaded before it`);
}

function impossible({ message }) {
  throw new Impossible(message);
}

/** Output of the compiler. */
function compile(args) {
  const { status, stdout, stderr, error } = spawnSync(COMPILER[0], [...COMPILER.slice(1), ...args], {
    encoding: "utf8",
  });
  if (status === 0) return stdout;
  const why = error === undefined ? `failed: ${stderr.trim().split("\n")[0]}` : "cannot be run; install g++ or set CXX";
  throw new Impossible(`${COMPILER.join(" ")} ${why}`);
}

/** Exit code (null: killed) of a command, and what was reported while it ran. */
async function run([command, ...args], env, show) {
  const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] });
  let printed = "";
  for (const [from, to] of [
    [child.stdout, process.stdout],
    [child.stderr, process.stderr],
  ]) {
    from.setEncoding("utf8").on("data", (text) => {
      printed += text;
      if (show) to.write(text);
    });
  }
  const status = await new Promise((resolve) => {
    child.on("error", () => resolve(127)).on("close", resolve);
  });
  const files = readdirSync(REPORTS).map((name) => join(REPORTS, name));
  const filed = files.map((file) => readFileSync(file, "utf8")).filter((text) => REPORT.test(text));
  for (const file of files) rmSync(file);
  if (show && filed.length > 0) console.error(filed.join("\n"));
  return { status, reports: [...filed, ...printed.split("\n").filter((line) => REPORT.test(line))].join("\n") };
}

function judge(what, { status, reports }) {
  const count = reports.split("\n").filter((line) => REPORT.test(line)).length;
  if (count > 0) failures.push(`${what}: ${count} reports, above`);
  else if (status !== 0) failures.push(`${what}: failed (${status === null ? "killed" : `exit code ${status}`})`);
}
