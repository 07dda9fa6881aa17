// Made from src/engine/cpu/contract.ts by npm run build. Change it there: what each field means is written there too.

#pragma once

#include <cstddef>
#include <cstdint>

namespace saetta {

using u8 = uint8_t;
using u32 = uint32_t;
using u64 = uint64_t;

class Stream;
struct Gradients;

constexpr u32 NONE = 4294967295u;
constexpr u32 FULL = 1073741824u;
constexpr u32 OVERFLOW = 2u;
constexpr double CONTROLLER_SMOOTHING = 0.9;
constexpr double CONTROLLER_STEP = 0.05;
constexpr u32 CONTROLLER_DAMPING = 20u;
constexpr u32 CONTROLLER_MOST = 10000u;
constexpr double CONSTANT_ROW = 1e-12;
constexpr double LAYER_NORM_EPS = 0.00001;
constexpr double SHORTEST_ROW = 1e-12;
constexpr double LEAST_VARIATION = 1e-12;
constexpr double LARGEST_GRADIENT = 1000000000000000000.0;

enum Hyper : u32 { LR, BETA1, BETA2, EPS, CLIP, EMA_DECAY, MSE_SCALE, AUX_COEF, ROWS, DEAD_AFTER, FIRED_ABOVE, UNIT_ROWS, ROW_K, KEPT, CUT_DECAY, BANDWIDTH, PENALTY, SPARSITY, TANH_SCALE, TARGET_L0, DEAD_PENALTY, GAIN, WIDE_COEF, LOSS_SCALE, HYPERS };
enum Sum : u32 { ERR2, AUX_ERR2, X2, CENTRED2, ACTIVE, DEAD, TANH, SUMS };
enum Counter : u32 { ADAM, EMA, SKIPPED, COUNTERS };
enum Format : u32 { FORMAT_F32, FORMAT_F64, FORMAT_F16, FORMAT_BF16 };
enum Normalization : u32 { NORMALIZE_NONE, NORMALIZE_SCALE, NORMALIZE_UNIT, NORMALIZE_LAYER_NORM };
enum Penalty : u32 { PENALTY_NONE, PENALTY_STEP, PENALTY_TANH, PENALTY_QUADRATIC };
enum InstructionSet : u32 { PORTABLE, AVX2, AVX512, AVX512_BF16, AMX };
enum Rule : u32 { RULE_TOPK, RULE_BATCHTOPK, RULE_THRESHOLD };
enum Over : u32 { SHARDS, REPLICAS, ALL };
enum WireType : u32 { WIRE_F64, WIRE_F32, WIRE_U32, WIRE_U8 };
enum ReduceOp : u32 { REDUCE_SUM, REDUCE_MAX, REDUCE_MIN };
enum Narrow : u32 { NARROW_BF16, NARROW_FP16 };

struct Params {
  float* encoder;
  float* latentBias;
  float* decoder;
  float* preBias;
  float* threshold;
  float* cut;
  float* sparsity;
  float* skip;
};
static_assert(sizeof(Params) == 64, "");

struct Codes {
  u32* latent;
  float* value;
  float* grad;
  size_t k;
};
static_assert(sizeof(Codes) == 32, "");

struct Step {
  const double* hyper;
  double* sums;
  u32* fired;
  u32* bad;
  double* sq;
  float* cut;
  double* active;
};
static_assert(sizeof(Step) == 56, "");

struct Prefixes {
  size_t count;
  const u32* ends;
  const double* weights;
};
static_assert(sizeof(Prefixes) == 24, "");

struct Branch {
  const float* decoder;
  Codes z;
  float* err;
  size_t B;
  size_t d;
  size_t n;
  Prefixes prefixes;
};
static_assert(sizeof(Branch) == 96, "");

struct Peers {
  void* iallreduce;
  void* iallgather;
  void* ialltoall;
  void* test;
  void* comms[3];
  void* types[4];
  void* ops[3];
  size_t shards;
  size_t shard;
  size_t replicas;
  size_t replica;
  double deadline;
};
static_assert(sizeof(Peers) == 152, "");

struct Load {
  Format format;
  const char* raw;
  size_t m;
  size_t width;
  size_t column;
  const u32* rows;
  float* x;
  size_t B;
  size_t d;
  size_t n;
  size_t sums;
  Step t;
  Normalization normalization;
  double factor;
};
static_assert(sizeof(Load) == 160, "");

struct Encode {
  Params p;
  const float* x;
  size_t B;
  size_t d;
  size_t n;
  Step t;
  Codes live;
  Codes dead;
  const u32* age;
  Rule rule;
  const float* thresholds;
  size_t thresholdStep;
  Codes band;
  u32 wide;
};
static_assert(sizeof(Encode) == 288, "");

struct Merge {
  const Peers* peers;
  Codes z;
  size_t B;
  size_t k;
  size_t n;
  Step t;
  u32 isLive;
};
static_assert(sizeof(Merge) == 128, "");

struct Cut {
  const Peers* peers;
  Codes z;
  size_t B;
  size_t n;
  Step t;
};
static_assert(sizeof(Cut) == 112, "");

struct AllReduce {
  const Peers* peers;
  Over over;
  WireType type;
  ReduceOp op;
  void* at;
  size_t count;
};
static_assert(sizeof(AllReduce) == 40, "");

struct NarrowSum {
  const Peers* peers;
  Over over;
  Narrow as;
  float* at;
  size_t count;
  Step t;
  u32 scaled;
};
static_assert(sizeof(NarrowSum) == 96, "");

struct Decode {
  Branch branch;
  const float* skip;
  const float* x;
  size_t dIn;
};
static_assert(sizeof(Decode) == 120, "");

struct Residual {
  Branch branch;
  const float* preBias;
  const float* target;
  const float* live;
  Step t;
};
static_assert(sizeof(Residual) == 176, "");

struct CodeGrad {
  Branch branch;
  Step t;
};
static_assert(sizeof(CodeGrad) == 152, "");

struct Reconstruct {
  Decode decode;
  Residual residual;
};
static_assert(sizeof(Reconstruct) == 296, "");

struct NewGradients {
  size_t n;
  size_t dIn;
  size_t dOut;
  size_t capacity;
  Params g;
};
static_assert(sizeof(NewGradients) == 96, "");

struct ParamGrad {
  Params p;
  const float* x;
  Step t;
  Branch live;
  Branch dead;
  const double* wideSums;
  Codes band;
  const u32* age;
  Gradients* g;
  u32 untied;
  u32 countsErr;
  u32 countsRows;
};
static_assert(sizeof(ParamGrad) == 392, "");

struct Norm {
  const float* decoder;
  const Gradients* g;
  Step t;
  u32 countsShared;
};
static_assert(sizeof(Norm) == 80, "");

struct Update {
  Params p;
  Params m;
  Params v;
  Params ema;
  u32* age;
  double* counters;
  const Gradients* g;
  Step t;
  u32 firstLatent;
};
static_assert(sizeof(Update) == 344, "");

struct LogSums {
  const float* logits;
  const float* from;
  const double* fromSums;
  const u32* rows;
  size_t B;
  size_t v;
  double* sums;
  double* divergence;
};
static_assert(sizeof(LogSums) == 64, "");

}  // namespace saetta

extern "C" {
saetta::u32 saetta_paths();
saetta::Stream* saetta_open(saetta::u32 path, saetta::u32 threads);
void saetta_close(saetta::Stream* stream);
saetta::u64 saetta_held();
saetta::u64 saetta_peak();
void saetta_reset_peak();
void* saetta_allocate(saetta::u64 bytes);
void saetta_release(saetta::Stream* stream, void* address);
void saetta_write(saetta::Stream* stream, void* to, const saetta::u8* from, saetta::u64 bytes);
saetta::u64 saetta_read(saetta::Stream* stream, const void* from, void* to, saetta::u64 bytes);
saetta::u64 saetta_done(saetta::Stream* stream);
void saetta_wait(saetta::Stream* stream, saetta::u64 ticket);
const char* saetta_error(saetta::Stream* stream);
saetta::u64 saetta_sent_bytes();
saetta::Peers* saetta_peers(const saetta::Peers* peers);
saetta::Gradients* saetta_gradients(const saetta::NewGradients* a);
void saetta_gradients_release(saetta::Stream* stream, saetta::Gradients* g);
void saetta_load(saetta::Stream* stream, const saetta::Load* a);
void saetta_encode(saetta::Stream* stream, const saetta::Encode* a);
void saetta_merge(saetta::Stream* stream, const saetta::Merge* a);
void saetta_cut(saetta::Stream* stream, const saetta::Cut* a);
void saetta_all_reduce(saetta::Stream* stream, const saetta::AllReduce* a);
void saetta_narrow_sum(saetta::Stream* stream, const saetta::NarrowSum* a);
void saetta_decode(saetta::Stream* stream, const saetta::Decode* a);
void saetta_residual(saetta::Stream* stream, const saetta::Residual* a);
void saetta_code_grad(saetta::Stream* stream, const saetta::CodeGrad* a);
void saetta_reconstruct(saetta::Stream* stream, const saetta::Reconstruct* a);
void saetta_param_grad(saetta::Stream* stream, const saetta::ParamGrad* a);
void saetta_norm(saetta::Stream* stream, const saetta::Norm* a);
void saetta_update(saetta::Stream* stream, const saetta::Update* a);
void saetta_log_sums(saetta::Stream* stream, const saetta::LogSums* a);
}  // extern "C"
