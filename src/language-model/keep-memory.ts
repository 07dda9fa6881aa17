/**
 * Freed memory that stays with the process. ONNX Runtime's binding copies every output to new
 * memory. For blocks of many megabytes glibc maps new pages each time and the kernel clears them,
 * which takes longer than the copy: half of the time of a run with 262,144 words.
 */

import koffi from "koffi";

/** Names of mallopt(3), as glibc numbers them, and their defaults. */
const TRIM_THRESHOLD = { name: -1, byDefault: 128 * 1024 } as const;
const MMAP_MAX = { name: -4, byDefault: 65_536 } as const;

/**
 * From now on blocks of any size come from memory that was freed before. The result ends that and
 * gives the memory back. Does nothing where the C library is not glibc.
 */
export function keepFreedMemory(): () => void {
  try {
    const libc = koffi.load("libc.so.6");
    const mallopt = libc.func("int mallopt(int, int)") as (name: number, value: number) => number;
    const trim = libc.func("int malloc_trim(size_t)") as (pad: number) => number;
    mallopt(MMAP_MAX.name, 0);
    mallopt(TRIM_THRESHOLD.name, 2 ** 31 - 1);
    return () => {
      mallopt(MMAP_MAX.name, MMAP_MAX.byDefault);
      mallopt(TRIM_THRESHOLD.name, TRIM_THRESHOLD.byDefault);
      trim(0);
    };
  } catch {
    return () => undefined;
  }
}
