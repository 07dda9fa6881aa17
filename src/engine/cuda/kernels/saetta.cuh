// What every kernel file sees: the element that matrices are computed in, the numbers of a step by
// name, 16-byte loads and sums over a warp or a block.
//
// Compiled by NVRTC, so no header of the host may be included. -DSAETTA_COMPUTE: 0 f32, 1 bf16, 2
// f16. B rows, d inputs, n latents; matrices are row-major. Sums are added in a fixed order and no
// float is added atomically: the same bits on every run.

#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#ifndef SAETTA_COMPUTE
#define SAETTA_COMPUTE 1
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

#if SAETTA_COMPUTE == 0
typedef float half_t;
#elif SAETTA_COMPUTE == 1
typedef __nv_bfloat16 half_t;
#else
typedef __half half_t;
#endif

#include "contract.cuh"

/// Elements of half_t in 16 bytes. Rows of d elements begin on 16-byte borders where d is a
/// multiple of it.
constexpr int WIDE = 16 / sizeof(half_t);

/// Where a block works on a row, a thread takes WIDE columns at a time where d is a multiple of it,
/// else 1, and there are T(d) threads (MOST_THREADS).

__device__ __forceinline__ float toFloat(float x) { return x; }
__device__ __forceinline__ float toFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float toFloat(__half x) { return __half2float(x); }

/// Rounded to nearest, ties to even; beyond f16 it becomes an infinity.
__device__ __forceinline__ half_t toHalf(float x) {
#if SAETTA_COMPUTE == 0
  return x;
#elif SAETTA_COMPUTE == 1
  return __float2bfloat16(x);
#else
  return __float2half(x);
#endif
}

/// x rounded to half_t is no number.
__device__ __forceinline__ bool isBad(float x) {
#if SAETTA_COMPUTE == 2
  return !(fabsf(x) < 65520.0f);
#elif SAETTA_COMPUTE == 1
  return !(fabsf(x) <= 3.3953138e38f);
#else
  return !(fabsf(x) <= 3.4028234e38f);
#endif
}

/// Bit of `bad`: something is not finite.
constexpr u32 NOT_FINITE = 1;

__device__ __forceinline__ void markBad(u32* bad) { atomicOr(bad, NOT_FINITE); }

/// The first prefix that holds the latent.
__device__ __forceinline__ u32 planeOf(const Prefixes& prefixes, u32 j) {
  u32 g = 0;
#pragma unroll 1
  while (g + 1 < prefixes.count && j >= prefixes.ends[g]) g++;
  return g;
}

/// V elements of half_t as they come from memory: a load of 16, 8 or (V = 1) of one element.
template <int V>
struct Raw {
  u32 words[V * sizeof(half_t) / 4];
};
template <>
struct Raw<1> {
  half_t one;
};

template <int V>
__device__ __forceinline__ Raw<V> fetch(const half_t* p) {
  Raw<V> raw;
  if constexpr (V == 1) {
    raw.one = *p;
  } else if constexpr (sizeof(raw) == 16) {
    const uint4 bits = *reinterpret_cast<const uint4*>(p);
    raw.words[0] = bits.x, raw.words[1] = bits.y, raw.words[2] = bits.z, raw.words[3] = bits.w;
  } else {
    static_assert(sizeof(raw) == 8, "");
    const uint2 bits = *reinterpret_cast<const uint2*>(p);
    raw.words[0] = bits.x, raw.words[1] = bits.y;
  }
  return raw;
}

/// The same, 16 bytes or one element, of memory that the kernel does not write: zeros where `on` is
/// false. Loads stay in their order, which keeps few addresses alive.
template <int V>
__device__ __forceinline__ Raw<V> fetchIf(bool on, const half_t* p) {
  Raw<V> raw;
  if constexpr (V == 1) {
    raw.one = on ? *p : toHalf(0);
  } else {
    static_assert(sizeof(raw) == 16, "");
    asm volatile(
        "{\n .reg .pred on;\n setp.ne.u32 on, %5, 0;\n mov.u32 %0, 0;\n mov.u32 %1, 0;\n mov.u32 %2, 0;\n mov.u32 %3, "
        "0;\n"
        " @on ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];\n}"
        : "=&r"(raw.words[0]), "=&r"(raw.words[1]), "=&r"(raw.words[2]), "=&r"(raw.words[3])
        : "l"(p), "r"(static_cast<u32>(on)));
  }
  return raw;
}

template <int V>
__device__ __forceinline__ void unpack(const Raw<V>& from, float (&to)[V]) {
  if constexpr (V == 1) {
    to[0] = toFloat(from.one);
  } else {
#pragma unroll
    for (u32 i = 0; i < sizeof(from) / 4; i++) {
#if SAETTA_COMPUTE == 0
      to[i] = __uint_as_float(from.words[i]);
#elif SAETTA_COMPUTE == 1
      to[2 * i] = __uint_as_float(from.words[i] << 16);
      to[2 * i + 1] = __uint_as_float(from.words[i] & 0xffff0000u);
#else
      const float2 both = __half22float2(*reinterpret_cast<const __half2*>(&from.words[i]));
      to[2 * i] = both.x;
      to[2 * i + 1] = both.y;
#endif
    }
  }
}

__device__ __forceinline__ void unpack(const uint4& from, float (&to)[WIDE]) {
  unpack(Raw<WIDE>{{from.x, from.y, from.z, from.w}}, to);
}

/// V floats, rounded, to V elements of half_t.
template <int V>
__device__ __forceinline__ void storeHalf(half_t* p, const float (&from)[V]) {
  if constexpr (V == 1) {
    *p = toHalf(from[0]);
  } else {
    u32 words[V * sizeof(half_t) / 4];
#pragma unroll
    for (u32 i = 0; i < sizeof(words) / 4; i++) {
#if SAETTA_COMPUTE == 0
      words[i] = __float_as_uint(from[i]);
#elif SAETTA_COMPUTE == 1
      const __nv_bfloat162 pair = __floats2bfloat162_rn(from[2 * i], from[2 * i + 1]);
      words[i] = *reinterpret_cast<const u32*>(&pair);
#else
      const __half2 pair = __floats2half2_rn(from[2 * i], from[2 * i + 1]);
      words[i] = *reinterpret_cast<const u32*>(&pair);
#endif
    }
    if constexpr (sizeof(words) == 16)
      *reinterpret_cast<uint4*>(p) = make_uint4(words[0], words[1], words[2], words[3]);
    else *reinterpret_cast<uint2*>(p) = make_uint2(words[0], words[1]);
  }
}

/// V floats, 16 bytes at a time where V is not 1.
template <int V>
__device__ __forceinline__ void loadFloats(const float* p, float (&to)[V]) {
  if constexpr (V == 1) {
    to[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      const float4 part = *reinterpret_cast<const float4*>(p + i);
      to[i] = part.x, to[i + 1] = part.y, to[i + 2] = part.z, to[i + 3] = part.w;
    }
  }
}

template <int V>
__device__ __forceinline__ void storeFloats(float* p, const float (&from)[V]) {
  if constexpr (V == 1) {
    *p = from[0];
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4)
      *reinterpret_cast<float4*>(p + i) = make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]);
  }
}

/// The same for what is read or written once a step: it leaves the L2 cache first.
template <int V>
__device__ __forceinline__ void loadStreamed(const float* p, float (&to)[V]) {
  if constexpr (V == 1) {
    to[0] = __ldcs(p);
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      const float4 part = __ldcs(reinterpret_cast<const float4*>(p + i));
      to[i] = part.x, to[i + 1] = part.y, to[i + 2] = part.z, to[i + 3] = part.w;
    }
  }
}

template <int V>
__device__ __forceinline__ void storeStreamed(float* p, const float (&from)[V]) {
  if constexpr (V == 1) {
    __stcs(p, from[0]);
  } else {
#pragma unroll
    for (int i = 0; i < V; i += 4)
      __stcs(reinterpret_cast<float4*>(p + i), make_float4(from[i], from[i + 1], from[i + 2], from[i + 3]));
  }
}

/// The sum over the lanes, the same in every lane.
template <class T>
__device__ __forceinline__ T warpSum(T x) {
#pragma unroll
  for (int step = 16; step > 0; step >>= 1) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

/// The sum over a block of whole warps, the same in every thread: lanes first, then warps in order.
/// `room`: 33 elements of shared memory. All threads call it.
template <class T>
__device__ __forceinline__ T blockSum(T x, T* room) {
  x = warpSum(x);
  if (blockDim.x == 32) return x;
  __syncthreads();
  if ((threadIdx.x & 31) == 0) room[threadIdx.x >> 5] = x;
  __syncthreads();
  T sum = 0;
  for (u32 warp = 0; warp < blockDim.x >> 5; warp++) sum += room[warp];
  return sum;
}

/// A thread's part of a sum of products that goes on in float64: V products in f32. Conversions to
/// float64 are slow.
template <int V>
__device__ __forceinline__ double dotOf(const float (&a)[V], const float (&b)[V]) {
  float sum = 0;
#pragma unroll
  for (int u = 0; u < V; u++) sum = fmaf(a[u], b[u], sum);
  return sum;
}

/// 16 bytes to shared memory without waiting.
__device__ __forceinline__ void copyAhead(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<u32>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}

/// The same, or zeros where `on` is false.
__device__ __forceinline__ void copyAheadIf(bool on, void* to, const void* from) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(on ? 16 : 0) : "memory");
}

/// The same by a policy of `readOnce`: they leave the L2 cache first.
__device__ __forceinline__ void copyAheadOnce(void* to, const void* from, u64 policy) {
  const u32 at = static_cast<u32>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "l"(policy)
               : "memory");
}

__device__ __forceinline__ u64 readOnce() {
  u64 policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

__device__ __forceinline__ void endOfCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// All copies but those of the last `pending` ends are there, for the thread that asked for them.
template <int pending>
__device__ __forceinline__ void waitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}
