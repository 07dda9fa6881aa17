// A stand-in for the CUDA driver, NVRTC and cuBLASLt on machines without a card: memory is the
// host's, a kernel is a plain loop (kernels.cc), a product three loops.
//
// It is strict where a card is not: addresses must lie inside what was allocated, launches and
// shared memory within a card's limits, new memory holds garbage, and nothing may be allocated or
// waited for while a stream is captured. What fails says why on stderr.

#include "stand_in.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace standin {

static std::map<char*, size_t> allocations;
static bool capturing = false, failed = false;
static Graph* captured = nullptr;

void complain(const char* format, ...) {
  va_list args;
  va_start(args, format);
  std::fprintf(stderr, "stand-in for CUDA: ");
  std::vfprintf(stderr, format, args);
  std::fprintf(stderr, "\n");
  va_end(args);
  failed = true;
}

bool owned(const void* address, size_t bytes) {
  if (bytes == 0) return true;
  char* p = static_cast<char*>(const_cast<void*>(address));
  auto after = allocations.upper_bound(p);
  if (after == allocations.begin()) return false;
  --after;
  return p + bytes <= after->first + after->second;
}

/// Does it now, or when the graph that is being captured is launched.
static int run(std::function<void()> work) {
  if (failed) return 700;
  const std::function<void()> stopped = [work = std::move(work)] {
    try {
      work();
    } catch (const Stop&) {
    }
  };
  if (capturing) captured->work.push_back(stopped);
  else stopped();
  return failed ? 700 : 0;
}

static void* allocate(size_t bytes) {
  char* p = static_cast<char*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  std::memset(p, 0xcd, std::min<size_t>(bytes, 1 << 20));
  allocations[p] = bytes;
  return p;
}

static int release(void* address) {
  if (allocations.erase(static_cast<char*>(address)) == 0) {
    complain("memory is freed that is not allocated");
    return 1;
  }
  std::free(address);
  return 0;
}

}  // namespace standin

using namespace standin;
typedef unsigned long long Address;

static void* pointer(Address a) { return reinterpret_cast<void*>(a); }

static int notWhileCapturing(const char* what) {
  if (!capturing) return 0;
  complain("%s while a stream is captured", what);
  return 900;
}

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDriverGetVersion(int* to) { return *to = 13000, 0; }
int cuGetErrorName(int code, const char** to) {
  return *to = code == 2     ? "CUDA_ERROR_OUT_OF_MEMORY"
               : code == 700 ? "CUDA_ERROR_ILLEGAL_ADDRESS"
                             : "CUDA_ERROR_STAND_IN",
         0;
}
int cuDeviceGetCount(int* to) { return *to = 1, 0; }
int cuDeviceGet(int* to, int index) { return *to = index, 0; }
int cuDeviceGetName(char* to, int, int) { return std::strcpy(to, "Stand-in"), 0; }
int cuDeviceGetAttribute(int* to, int which, int) {
  *to = which == 16 ? 7 : which == 75 ? 9 : which == 97 ? static_cast<int>(MOST_SHARED) : which == 115 ? 1 : 0;
  return 0;
}
int cuDeviceTotalMem_v2(size_t* to, int) { return *to = size_t{1} << 30, 0; }
int cuDevicePrimaryCtxRetain(void** to, int) { return *to = pointer(1), 0; }
int cuDevicePrimaryCtxRelease_v2(int) { return 0; }
int cuCtxSetCurrent(Address) { return 0; }
int cuDeviceGetDefaultMemPool(Address* to, int) { return *to = 1, 0; }
int cuMemPoolSetAttribute(Address, int, void*) { return 0; }
int cuMemPoolTrimTo(Address, size_t) { return 0; }

int cuMemAllocAsync(Address* to, size_t bytes, Address) {
  if (const int code = notWhileCapturing("memory is allocated")) return code;
  size_t held = bytes;
  for (const auto& each : allocations) held += each.second;
  if (held > size_t{1} << 30) return 2;
  *to = reinterpret_cast<Address>(allocate(bytes));
  return 0;
}
int cuMemFreeAsync(Address address, Address) {
  return notWhileCapturing("memory is freed") != 0 ? 900 : release(pointer(address));
}
int cuMemHostAlloc(Address* to, size_t bytes, unsigned) { return *to = reinterpret_cast<Address>(allocate(bytes)), 0; }
int cuMemFreeHost(Address address) { return release(pointer(address)); }

static int copy(Address to, Address from, size_t bytes) {
  return run([=] {
    if (!owned(pointer(to), bytes) || !owned(pointer(from), bytes))
      complain("a copy of %zu bytes to or from memory that is not there", bytes);
    else
      std::memcpy(pointer(to), pointer(from), bytes);
  });
}
int cuMemcpyHtoDAsync_v2(Address to, Address from, size_t bytes, Address) { return copy(to, from, bytes); }
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Address) { return copy(to, from, bytes); }
int cuMemcpyDtoHAsync_v2(Address to, Address from, size_t bytes, Address) { return copy(to, from, bytes); }
int cuMemsetD8Async(Address to, unsigned char byte, size_t bytes, Address) {
  return run([=] {
    if (!owned(pointer(to), bytes)) complain("%zu bytes are filled that are not there", bytes);
    else std::memset(pointer(to), byte, bytes);
  });
}

int cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0, *greatest = -1;
  return 0;
}
int cuStreamCreate(Address* to, unsigned);
int cuStreamCreateWithPriority(Address* to, unsigned flags, int) { return cuStreamCreate(to, flags); }
int cuStreamCreate(Address* to, unsigned) {
  static Address last = 100;
  return *to = ++last, 0;
}
int cuStreamDestroy_v2(Address) { return 0; }
int cuStreamSynchronize(Address) { return notWhileCapturing("a stream is waited for") != 0 ? 900 : failed ? 700 : 0; }
int cuStreamWaitEvent(Address, Address, unsigned) { return notWhileCapturing("an event of outside is waited for"); }
int cuEventCreate(Address* to, unsigned) { return *to = reinterpret_cast<Address>(new char), 0; }
int cuEventDestroy_v2(Address event) {
  delete static_cast<char*>(pointer(event));
  return 0;
}
int cuEventRecord(Address, Address) { return notWhileCapturing("an event of outside is recorded"); }
int cuEventSynchronize(Address) { return capturing ? 900 : failed ? 700 : 0; }
int cuEventQuery(Address) { return failed ? 700 : 0; }

/// An image is what the compiler below makes: the compute type as a digit.
int cuModuleLoadData(Address* to, const char* image) { return *to = static_cast<Address>(image[0] - '0') + 1000, 0; }
int cuModuleUnload(Address) { return 0; }
int cuModuleGetFunction(Address* to, Address module, const char* name) {
  const Work work = workOf(name);
  if (work == nullptr) return 500;
  *to = reinterpret_cast<Address>(new Function{name, work, static_cast<int>(module - 1000), UNASKED});
  return 0;
}
int cuFuncSetAttribute(Address function, int which, int value) {
  if (which != 8 || value > static_cast<int>(MOST_SHARED)) return 1;
  static_cast<Function*>(pointer(function))->shared = value;
  return 0;
}
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* to, Address, int, size_t) { return *to = 3, 0; }

int cuLaunchKernel(Address handle, unsigned x, unsigned y, unsigned z, unsigned width, unsigned height, unsigned depth,
                   unsigned shared, Address, Address, void** extra) {
  const Function* f = static_cast<Function*>(pointer(handle));
  if (x == 0 || y == 0 || z != 1 || y > 65535 || width == 0 || width * height * depth > 1024 ||
      static_cast<int>(shared) > f->shared) {
    complain("%s: a launch of [%u,%u,%u] blocks of [%u,%u,%u] threads with %u bytes", f->name, x, y, z, width, height,
             depth, shared);
    return 1;
  }
  const size_t bytes = *static_cast<size_t*>(extra[3]);
  Launch launch = {f->name, f->compute,
                   x,       y,
                   width,   height,
                   shared,  std::vector<char>(static_cast<char*>(extra[1]), static_cast<char*>(extra[1]) + bytes)};
  const Work work = f->work;
  return run([work, launch] {
    Launch own = launch;
    work(own);
    if (own.at != own.arguments.size())
      complain("%s: %zu bytes of arguments, %zu are read", own.name, own.arguments.size(), own.at);
  });
}

int cuStreamBeginCapture_v2(Address, int) {
  if (capturing) return 900;
  capturing = true;
  captured = new Graph;
  return 0;
}
int cuStreamEndCapture(Address, Address* to) {
  capturing = false;
  *to = reinterpret_cast<Address>(captured);
  return 0;
}
int cuGraphInstantiateWithFlags(Address* to, Address graph, unsigned long long) {
  *to = reinterpret_cast<Address>(new Graph(*static_cast<Graph*>(pointer(graph))));
  return 0;
}
int cuGraphDestroy(Address graph) {
  delete static_cast<Graph*>(pointer(graph));
  return 0;
}
int cuGraphExecDestroy(Address graph) { return cuGraphDestroy(graph); }
int cuGraphLaunch(Address graph, Address) {
  for (const auto& work : static_cast<Graph*>(pointer(graph))->work) work();
  standin::replays++;
  return failed ? 700 : 0;
}

/// For tests: graphs launched, and pieces of memory that are not given back.
unsigned standin_replays() { return replays; }
unsigned standin_allocations() { return static_cast<unsigned>(allocations.size()); }

// ---- NVRTC: nothing is compiled ----

int nvrtcVersion(int* major, int* minor) { return *major = 0, *minor = 1, 0; }
int nvrtcGetNumSupportedArchs(int* to) { return *to = 2, 0; }
int nvrtcGetSupportedArchs(int* to) { return to[0] = 80, to[1] = 90, 0; }
int nvrtcCreateProgram(Address* to, const char*, const char*, int, void*, void*) {
  return *to = reinterpret_cast<Address>(new char('0')), 0;
}
int nvrtcDestroyProgram(Address* program) { return delete static_cast<char*>(pointer(*program)), 0; }
int nvrtcCompileProgram(Address program, int count, const char** options) {
  for (int i = 0; i < count; i++) {
    if (std::strncmp(options[i], "-DSAETTA_COMPUTE=", 17) == 0) *static_cast<char*>(pointer(program)) = options[i][17];
  }
  return 0;
}
int nvrtcGetProgramLogSize(Address, size_t* to) { return *to = 1, 0; }
int nvrtcGetProgramLog(Address, char* to) { return *to = 0, 0; }
int nvrtcGetCUBINSize(Address, size_t* to) { return *to = 1, 0; }
int nvrtcGetCUBIN(Address program, char* to) { return *to = *static_cast<char*>(pointer(program)), 0; }
const char* nvrtcGetErrorString(int) { return "NVRTC_ERROR_STAND_IN"; }

// ---- cuBLASLt ----

struct Description {
  int transposes[2];
};
struct Layout {
  int type;
  size_t rows, columns, stride;
};

int cublasLtCreate(Address* to) { return *to = 1, 0; }
int cublasLtDestroy(Address) { return 0; }
const char* cublasLtGetStatusString(int) { return "CUBLAS_STATUS_STAND_IN"; }
int cublasLtMatmulDescCreate(Address* to, int compute, int scale) {
  *to = reinterpret_cast<Address>(new Description{});
  return compute == 68 && scale == 0 ? 0 : 7;
}
int cublasLtMatmulDescDestroy(Address it) { return delete static_cast<Description*>(pointer(it)), 0; }
int cublasLtMatmulDescSetAttribute(Address it, int which, const void* value, size_t bytes) {
  if ((which != 3 && which != 4) || bytes != 4) return 7;
  std::memcpy(&static_cast<Description*>(pointer(it))->transposes[which - 3], value, 4);
  return 0;
}
int cublasLtMatrixLayoutCreate(Address* to, int type, size_t rows, size_t columns, long long stride) {
  if (static_cast<size_t>(stride) < rows) return 7;
  *to = reinterpret_cast<Address>(new Layout{type, rows, columns, static_cast<size_t>(stride)});
  return 0;
}
int cublasLtMatrixLayoutDestroy(Address it) { return delete static_cast<Layout*>(pointer(it)), 0; }
int cublasLtMatmulPreferenceCreate(Address* to) { return *to = 1, 0; }
int cublasLtMatmulPreferenceDestroy(Address) { return 0; }
int cublasLtMatmulPreferenceSetAttribute(Address, int, const void*, size_t) { return 0; }
int cublasLtMatmulAlgoGetHeuristic(Address, Address, Address, Address, Address, Address, Address, int, char* results,
                                   int* count) {
  if (const int code = notWhileCapturing("a product is looked for")) return code;
  std::memset(results, 0, 96);
  return *count = 1, 0;
}

static int computeOf(int type) { return type == 0 ? 0 : type == 14 ? 1 : 2; }

int cublasLtMatmul(Address, Address description, const float* alpha, Address a, Address layoutA, Address b,
                   Address layoutB, const float* beta, Address c, Address layoutC, Address d, Address, const void*,
                   Address workspace, size_t workspaceBytes, Address) {
  const Description* how = static_cast<Description*>(pointer(description));
  const Layout A = *static_cast<Layout*>(pointer(layoutA)), B = *static_cast<Layout*>(pointer(layoutB)),
               C = *static_cast<Layout*>(pointer(layoutC));
  const bool ta = how->transposes[0] == 1, tb = how->transposes[1] == 1;
  const size_t m = ta ? A.columns : A.rows, k = ta ? A.rows : A.columns, n = tb ? B.rows : B.columns;
  if (C.rows != m || C.columns != n || (tb ? B.columns : B.rows) != k || A.type != B.type || *alpha != 1 || c != d ||
      !owned(pointer(workspace), workspaceBytes)) {
    complain("a product whose matrices do not fit");
    return 7;
  }
  const bool adds = *beta == 1;
  return run([=] {
    const Elements x = {computeOf(A.type), pointer(a)}, y = {computeOf(B.type), pointer(b)},
                   z = {computeOf(C.type), pointer(c)};
    x.check("product", (A.columns - 1) * A.stride + A.rows);
    y.check("product", (B.columns - 1) * B.stride + B.rows);
    z.check("product", (C.columns - 1) * C.stride + C.rows);
    // [k,m], so that the innermost loop runs over memory that lies together.
    std::vector<float> left(k * m), sums(4 * m);
    for (size_t i = 0; i < m; i++) {
      for (size_t l = 0; l < k; l++) left[l * m + i] = x.get(ta ? i * A.stride + l : l * A.stride + i);
    }
    // As on a card, the order of summation depends on the size.
    const size_t parts = 1 + k / 8 % 4;
    for (size_t j = 0; j < n; j++) {
      std::fill(sums.begin(), sums.end(), 0.0f);
      for (size_t l = 0; l < k; l++) {
        const float right = y.get(tb ? l * B.stride + j : j * B.stride + l);
        const float* from = left.data() + l * m;
        float* to = sums.data() + l % parts * m;
        for (size_t i = 0; i < m; i++) to[i] += from[i] * right;
      }
      for (size_t i = 0; i < m; i++) {
        const float sum = sums[i] + sums[m + i] + sums[2 * m + i] + sums[3 * m + i];
        z.set(j * C.stride + i, adds ? z.get(j * C.stride + i) + sum : sum);
      }
    }
  });
}

}  // extern "C"
