/**
 * Where NVIDIA's libraries are: the driver's where the loader finds it; NVRTC and cuBLASLt of a
 * CUDA toolkit or of the pip packages (PyTorch brings them), and the folder of headers that the
 * kernels include. Nothing is installed and no compiler of the host is needed.
 */

import { existsSync, readdirSync } from "node:fs";
import { homedir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { SaettaError } from "../../../util/errors.ts";

export const WHERE = "cuda engine";

/** A header that the kernels need, which stands for the whole folder. */
const HEADER = "cuda_bf16.h";

/** Folders beside which libraries and headers of one installation are found. */
const LIBRARY_FOLDERS = ["lib64", "lib", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "bin"];
const INCLUDE_FOLDERS = ["include", "targets/x86_64-linux/include", "targets/sbsa-linux/include"];

type LibraryName = "cuda" | "nvrtc" | "cublasLt";

const elsewhere = (packages: string) =>
  `install the CUDA toolkit 12 or 13, or pip install ${packages}, or name its folder in SAETTA_CUDA_LIBS`;

/** What a missing library is called, and how to come by it. */
const MISSING: Readonly<Record<LibraryName, { readonly what: string; readonly mend: string }>> = {
  cuda: { what: "an NVIDIA driver (libcuda.so.1)", mend: "install the driver, or use --engine cpu" },
  nvrtc: {
    what: "NVRTC, the compiler for its kernels (libnvrtc.so)",
    mend: elsewhere("nvidia-cuda-nvrtc nvidia-cuda-runtime"),
  },
  cublasLt: { what: "cuBLASLt (libcublasLt.so)", mend: elsewhere("nvidia-cublas") },
};

/**
 * Installations in the order of preference: $SAETTA_CUDA_LIBS (a list of folders), $CUDA_HOME,
 * $CUDA_PATH, /usr/local/cuda*, pip packages.
 */
function installations(): readonly string[] {
  const named = [...namedFolders(), process.env.CUDA_HOME, process.env.CUDA_PATH];
  const local = entriesOf("/usr/local").filter((name) => /^cuda(-\d.*)?$/.test(name));
  const toolkits = local.sort(
    (a, b) => Number(b === "cuda") - Number(a === "cuda") || b.localeCompare(a, "en", { numeric: true }),
  );
  return [
    ...named.filter((folder): folder is string => folder !== undefined && folder !== ""),
    ...toolkits.map((name) => join("/usr/local", name)),
    ...pipPackages(),
  ];
}

/** $SAETTA_CUDA_LIBS, before all others. */
function namedFolders(): readonly string[] {
  return (process.env.SAETTA_CUDA_LIBS ?? "").split(delimiter).filter((folder) => folder !== "");
}

/** The nvidia/* folders of the Python environments that can be found without running Python. */
function pipPackages(): readonly string[] {
  const roots = [process.env.VIRTUAL_ENV, process.env.CONDA_PREFIX, join(homedir(), ".local"), "/usr/local", "/usr"];
  // python3 of the search path, in an environment of its own.
  for (const folder of (process.env.PATH ?? "").split(delimiter))
    if (existsSync(join(folder, "python3"))) roots.push(join(folder, ".."));
  const found = new Set<string>();
  for (const root of roots) {
    if (root === undefined || root === "") continue;
    for (const python of entriesOf(join(root, "lib")).filter((name) => name.startsWith("python3"))) {
      for (const packages of ["site-packages", "dist-packages"]) {
        const nvidia = join(root, "lib", python, packages, "nvidia");
        for (const name of entriesOf(nvidia)) found.add(join(nvidia, name));
      }
    }
  }
  return [...found].sort((a, b) => b.localeCompare(a, "en", { numeric: true }));
}

/**
 * Whether there are signs of a card, which a look at the file system finds: its driver's devices
 * (also those of WSL), or a driver that is named. A CUDA_VISIBLE_DEVICES that is empty or begins
 * with -1 hides them all, as it does from the driver.
 */
export function cardIsThere(): boolean {
  if (/^(-1.*)?$/.test(process.env.CUDA_VISIBLE_DEVICES?.trim() ?? "all")) return false;
  return (
    ["/dev/nvidiactl", "/proc/driver/nvidia/version", "/dev/dxg"].some((path) => existsSync(path)) ||
    candidates("cuda").some(existsSync)
  );
}

/**
 * Names or paths under which the library may be loaded, the best first: found files, then what the
 * loader itself finds.
 */
export function candidates(
  name: LibraryName,
  folders: readonly string[] = name === "cuda" ? namedFolders() : installations(),
): readonly string[] {
  const pattern = new RegExp(`^lib${name}\\.so(\\.[0-9.]+)?$`);
  const found = folders.flatMap((folder) =>
    ["", ...LIBRARY_FOLDERS].flatMap((sub) => {
      const files = entriesOf(join(folder, sub)).filter((file) => pattern.test(file));
      return files.sort((a, b) => b.length - a.length).map((file) => join(folder, sub, file));
    }),
  );
  if (name === "cuda") return [...found, "libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"];
  return [...found, ...["13", "12"].map((version) => `lib${name}.so.${version}`)];
}

/** Tries the candidates with `load`. Throws SaettaError when none can be loaded. */
export function loadLibrary<T>(
  name: LibraryName,
  load: (path: string) => T,
): { readonly library: T; readonly path: string } {
  let last: unknown;
  for (const path of candidates(name)) {
    try {
      return { library: load(path), path };
    } catch (thrown) {
      last = thrown;
    }
  }
  const { what, mend } = MISSING[name];
  throw new SaettaError(`cannot find ${what}`, { where: WHERE, mend, cause: last });
}

/**
 * NVRTC opens libnvrtc-builtins by its name alone, which the loader only finds where it has been
 * loaded already: paths of the ones beside it.
 */
export function builtinsBeside(path: string): readonly string[] {
  if (!path.includes("/")) return [];
  const names = entriesOf(dirname(path)).filter((name) => /^libnvrtc-builtins\.so\.[0-9.]+$/.test(name));
  return names.map((name) => join(dirname(path), name));
}

/**
 * The folder with CUDA's headers. `near`: the NVRTC that will read them, whose own installation is
 * looked at first.
 */
export function includeFolder(near: string): string {
  const beside = near.includes("/") ? [join(near, "..", ".."), join(near, "..", "..", "..", "..")] : [];
  const roots = [...beside, ...installations(), "/usr"];
  for (const root of roots) {
    for (const sub of ["", ...INCLUDE_FOLDERS]) if (existsSync(join(root, sub, HEADER))) return join(root, sub);
    // nvidia/cuda_nvrtc and nvidia/cuda_runtime are packages of their own.
    const runtime = join(root, "..", "cuda_runtime", "include");
    if (existsSync(join(runtime, HEADER))) return runtime;
  }
  throw new SaettaError(`cannot find CUDA's headers (${HEADER})`, {
    where: WHERE,
    mend: "install the CUDA toolkit, or pip install nvidia-cuda-runtime, or name its folder in SAETTA_CUDA_LIBS",
  });
}

function entriesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
