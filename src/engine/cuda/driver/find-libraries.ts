import { loadCublas } from "./cublas.ts";
import { Nvrtc } from "./nvrtc.ts";

/** What libraries are found, and where. Throws SaettaError that says what is missing. */
export async function findLibraries(): Promise<readonly string[]> {
  const [nvrtc, cublas] = [await Nvrtc.load(), await loadCublas()];
  return [`NVRTC ${nvrtc.version} ${nvrtc.path}`, `headers ${nvrtc.include}`, `cuBLASLt ${cublas.path}`];
}
