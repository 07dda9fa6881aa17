// Compiles the lower half of SAETTA_FILE once for each instruction set, each in its own namespace,
// and defines SAETTA_RUN, which calls the one of a stream. Function targets, not compiler flags:
// nothing else in the library may use an instruction that the machine lacks.

#if defined(__clang__)
#define SAETTA_TARGET(features) \
  _Pragma(SAETTA_TEXT(clang attribute push(__attribute__((target(features))), apply_to = function)))
#define SAETTA_TARGET_END _Pragma("clang attribute pop")
#else
#define SAETTA_TARGET(features) _Pragma("GCC push_options") _Pragma(SAETTA_TEXT(GCC target(features)))
#define SAETTA_TARGET_END _Pragma("GCC pop_options")
#endif
#define SAETTA_TEXT(text) #text

#if defined(__x86_64__)

#define SAETTA_PATH avx512
#define SAETTA_WIDTH 16
SAETTA_TARGET("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi,bmi2")
namespace saetta {
namespace avx512 {
#include "simd.h"
#include SAETTA_FILE
}  // namespace avx512
}  // namespace saetta
SAETTA_TARGET_END
#undef SAETTA_PATH
#undef SAETTA_WIDTH

#define SAETTA_PATH avx2
#define SAETTA_WIDTH 8
SAETTA_TARGET("avx2,fma,f16c,bmi,bmi2")
namespace saetta {
namespace avx2 {
#include "simd.h"
#include SAETTA_FILE
}  // namespace avx2
}  // namespace saetta
SAETTA_TARGET_END
#undef SAETTA_PATH
#undef SAETTA_WIDTH

#define SAETTA_RUN(stream, operation, ...)                          \
  ((stream).path >= AVX512 ? avx512::operation(stream, __VA_ARGS__) \
   : (stream).path == AVX2 ? avx2::operation(stream, __VA_ARGS__)   \
                           : portable::operation(stream, __VA_ARGS__))
#else
#define SAETTA_RUN(stream, operation, ...) portable::operation(stream, __VA_ARGS__)
#endif

#define SAETTA_PATH portable
#define SAETTA_WIDTH 4
namespace saetta {
namespace portable {
#include "simd.h"
#include SAETTA_FILE
}  // namespace portable
}  // namespace saetta
#undef SAETTA_PATH
#undef SAETTA_WIDTH
