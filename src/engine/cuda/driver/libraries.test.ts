import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { builtinsBeside, candidates, cardIsThere, includeFolder, loadLibrary } from "./libraries.ts";

describe("libraries", () => {
  let root = "";
  const file = (...path: string[]) => {
    mkdirSync(join(root, ...path.slice(0, -1)), { recursive: true });
    writeFileSync(join(root, ...path), "");
    return join(root, ...path);
  };
  beforeAll(() => {
    root = mkdtempSync(join(tmpdir(), "saetta-libraries-"));
  });
  afterAll(() => rmSync(root, { recursive: true }));
  afterEach(() => vi.unstubAllEnvs());

  it("finds a toolkit and pip packages, a named folder first, then what the loader knows", () => {
    const toolkit = file("toolkit", "targets", "x86_64-linux", "lib", "libnvrtc.so.12.4.1");
    const pip = file("venv", "lib", "python3.12", "site-packages", "nvidia", "cuda_nvrtc", "lib", "libnvrtc.so.12");
    const named = file("named", "libnvrtc.so.13");
    file("named", "libnvrtc-builtins.so.13.0");
    file("named", "libnvrtc.alt.so.13");
    vi.stubEnv("SAETTA_CUDA_LIBS", join(root, "named"));
    vi.stubEnv("CUDA_HOME", join(root, "toolkit"));
    vi.stubEnv("VIRTUAL_ENV", join(root, "venv"));
    const found = candidates("nvrtc");
    expect(found.filter((path) => path.startsWith(root))).toEqual([named, toolkit, pip]);
    expect(found.slice(-2)).toEqual(["libnvrtc.so.13", "libnvrtc.so.12"]);
    expect(builtinsBeside(named)).toEqual([join(root, "named", "libnvrtc-builtins.so.13.0")]);
  });

  it("takes a driver that is named for the sign of a card, unless CUDA_VISIBLE_DEVICES hides all cards", () => {
    file("driver", "libcuda.so.1");
    vi.stubEnv("SAETTA_CUDA_LIBS", join(root, "driver"));
    for (const visible of [undefined, "0", "1,0", "all"]) {
      vi.stubEnv("CUDA_VISIBLE_DEVICES", visible);
      expect(cardIsThere(), visible).toBe(true);
    }
    for (const hidden of ["", " ", "-1", "-1,0"]) {
      vi.stubEnv("CUDA_VISIBLE_DEVICES", hidden);
      expect(cardIsThere(), hidden).toBe(false);
    }
  });

  it("finds the headers of the same installation first", () => {
    const lib = file("one", "lib64", "libnvrtc.so.12");
    file("one", "include", "cuda_bf16.h");
    file("two", "include", "cuda_bf16.h");
    vi.stubEnv("CUDA_HOME", join(root, "two"));
    expect(includeFolder(lib)).toBe(join(root, "one", "include"));
    expect(includeFolder("libnvrtc.so.12")).toBe(join(root, "two", "include"));
  });

  it("finds the headers of pip's packages, which are apart from the libraries", () => {
    const lib = file("pip", "nvidia", "cuda_nvrtc", "lib", "libnvrtc.so.12");
    file("pip", "nvidia", "cuda_runtime", "include", "cuda_bf16.h");
    expect(includeFolder(lib)).toBe(join(root, "pip", "nvidia", "cuda_runtime", "include"));
  });

  it("takes the first that can be loaded, and says how to come by one when none can", () => {
    const refuse = () => {
      throw new Error("no");
    };
    vi.stubEnv("SAETTA_CUDA_LIBS", join(root, "named"));
    expect(loadLibrary("nvrtc", (path) => (path === "libnvrtc.so.12" ? 1 : refuse()))).toEqual({
      library: 1,
      path: "libnvrtc.so.12",
    });
    expect(() => loadLibrary("cublasLt", refuse)).toThrow(
      /^cuda engine: cannot find cuBLASLt .*; install the CUDA toolkit 12 or 13, or pip install nvidia-cublas, or name its folder in SAETTA_CUDA_LIBS$/,
    );
    expect(() => loadLibrary("cuda", refuse)).toThrow(
      /cannot find an NVIDIA driver \(libcuda.so.1\); install the driver, or use --engine cpu/,
    );
  });
});
