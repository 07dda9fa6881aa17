// Made from src/engine/cuda/contract.ts by npm run build. Change it there: what each field means is written there too.

#pragma once

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
constexpr u32 MOST_THREADS = 256u;
constexpr u32 ROW_WIDTH = 4u;
constexpr u32 MOST_ROW_THREADS = 512u;
constexpr u32 CENTER_ROWS = 8u;
constexpr u32 DEAD_BLOCK = 4096u;
constexpr u32 FORECAST_STEPS = 5u;
constexpr u32 DENSE_PARTS = 32u;
constexpr u32 STAGED = 64u;
constexpr u32 STAGES = 3u;
constexpr u32 LIST_TILE = 2048u;
constexpr u32 BIAS_LATENTS = 32u;
constexpr u32 BIAS_SHARE = 8u;
constexpr u32 HELD = 32u;
constexpr u32 MOST_PREFIXES = 16u;
constexpr u32 SHARED_SLOTS = 1024u;
constexpr u32 COLUMN_PARTS = 64u;
constexpr u32 SKIP_BLOCKS = 256u;
constexpr u32 CUT_ROWS = 32u;
constexpr u32 MOST_HEAVY = 64u;
constexpr u32 THRESHOLD_ROWS = 4u;
constexpr u32 DEAD_PATH = 2147483648u;

enum Hyper : u32 { LR, BETA1, BETA2, EPS, CLIP, EMA_DECAY, MSE_SCALE, AUX_COEF, ROWS, DEAD_AFTER, FIRED_ABOVE, UNIT_ROWS, ROW_K, KEPT, CUT_DECAY, BANDWIDTH, PENALTY, SPARSITY, TANH_SCALE, TARGET_L0, DEAD_PENALTY, GAIN, WIDE_COEF, LOSS_SCALE, HYPERS };
enum Sum : u32 { ERR2, AUX_ERR2, X2, CENTRED2, ACTIVE, DEAD, TANH, SUMS };
enum Counter : u32 { ADAM, EMA, SKIPPED, COUNTERS };
enum Format : u32 { FORMAT_F32, FORMAT_F64, FORMAT_F16, FORMAT_BF16 };
enum Normalization : u32 { NORMALIZE_NONE, NORMALIZE_SCALE, NORMALIZE_UNIT, NORMALIZE_LAYER_NORM };
enum Penalty : u32 { PENALTY_NONE, PENALTY_STEP, PENALTY_TANH, PENALTY_QUADRATIC };
enum Keep : u32 { FORM_ONLY, FORM_AND_KEEP, FORMED };
enum Partial : u32 { P_ERR2, P_X2, P_CENTRED2, P_ACTIVE, P_COLUMNS };

struct Weights {
  float* encoder;
  float* latentBias;
  float* decoder;
  float* preBias;
  float* threshold;
  float* cut;
  float* sparsity;
  float* skip;
};
static_assert(sizeof(Weights) == 64, "");

struct Prefixes {
  u32 count;
  u32 ends[16];
  float weights[16];
};
static_assert(sizeof(Prefixes) == 132, "");

struct Selected {
  u32* latent;
  float* value;
  float* grad;
  u64 capacity;
};
static_assert(sizeof(Selected) == 32, "");

struct Share {
  u32 first;
  u32 end;
  u32 rest;
};
static_assert(sizeof(Share) == 12, "");

struct Totals {
  double grad;
  double grads;
  double values;
};
static_assert(sizeof(Totals) == 24, "");

struct Numbers {
  float factor;
  float beta1;
  float beta2;
  float rest1;
  float rest2;
  float rate;
  float root;
  float eps;
  float emaRest;
  u32 go;
  u32 t;
  u32 averages;
  u32 firstLatent;
  u32 unit;
  double rows;
};
static_assert(sizeof(Numbers) == 64, "");

struct Gradients {
  u64 n;
  u64 dIn;
  u64 dOut;
  u64 chunk;
  u64 cap;
  u64 from;
  u64 to;
  u32* taken;
  u32* start;
  u32* pieceAt;
  uint4* entries;
  float* pieceRows;
  const half_t* xc16;
  const half_t* liveErr16;
  const half_t* deadErr16;
  const u32* deadSlot;
  const float* deadEncoder;
  const float* deadDecoder;
  const u32* age;
  const double* deadColumns;
  const double* scales;
  float* formedEncoder;
  float* formedDecoder;
};
static_assert(sizeof(Gradients) == 184, "");

#define PARAMETERS(kernel) PARAMETERS_##kernel

// center.cu
#define PARAMETERS_center const float* __restrict__ x, const float* __restrict__ preBias, half_t* __restrict__ xc, u32* bad, u32* largest, u32 B, u32 d
#define PARAMETERS_input_columns const float* x, const double* hyper, u32 B, u32 d, double* partial
#define PARAMETERS_input_total const double* partial, const double* hyper, u32 d, double* columns

// cut.cu
#define PARAMETERS_cut_count const float* value, u64 count, const double* hyper, u32 pass, u32* found
#define PARAMETERS_cut_rows const float* value, u32 B, u32 slots, const double* hyper, u32* found, u32* above, u32* ties
#define PARAMETERS_cut_total const u32* ties, u32 B, u32* total
#define PARAMETERS_cut_apply u32* latent, float* value, u32 B, u32 slots, u32 n, const double* hyper, const u32* found, const u32* above, const u32* ties, u32 shards, u32 shard, const u32* totals, u32 earlier, u32* fired, u32* bad, float* cut

// dead.cu
#define PARAMETERS_dead_count const u32* __restrict__ age, const double* __restrict__ hyper, u32* __restrict__ parts, u32 n
#define PARAMETERS_dead_list const u32* __restrict__ age, const double* __restrict__ hyper, const u32* __restrict__ parts, double* sums, u32* __restrict__ list, u32* __restrict__ slot, u32* counts, u32 n

// dense.cu
#define PARAMETERS_dense_rows const half_t* decoder, const u32* list, const u32* count, u32 cap, u32 d, half_t* to, u32* bad
#define PARAMETERS_dense_codes const u32* latent, const float* number, u32 auxk, const u32* slot, u32 cap, half_t* to
#define PARAMETERS_dense_pick const u32* latent, u32 C, u32 auxk, const u32* slot, u32 cap, const half_t* from, float* grad, u32* bad
#define PARAMETERS_dense_bias const half_t* gd, u32 C, u32 cap, u32 first, double* partial
#define PARAMETERS_dense_check const float* deadEncoder, const float* deadDecoder, const double* partial, u32 cap, u32 dIn, u32 dOut, const u32* count, const double* scales, double* deadBias, u32* bad

// load.cu
#define PARAMETERS_load_begin double* sums, u32 length, u32* fired, u32 n, u32* bad, double* sq, float* cut, double* active
#define PARAMETERS_screen_rows Format format, const void* raw, u32 first, u32 count, u32 d, u8* flags
#define PARAMETERS_load_rows Format format, const void* raw, u32 m, u32 width, u32 column, const u32* rows, float* x, u32 B, u32 d, u32* bad, Normalization normalization, double factor, u32* fault

// merge.cu
#define PARAMETERS_merge_codes const float* all, u32 shards, u32 shard, u32 B, u32 slots, u32 k, u32* latent, float* value, u32* fired, const double* hyper

// reconstruct.cu
#define PARAMETERS_decode const half_t* decoder, const u32* latent, const float* value, u32 k, float* err, u32 B, u32 d, Prefixes prefixes, u32 add
#define PARAMETERS_residual const float* preBias, const float* x, float* err, half_t* err16, const float* live, const float* value, u32 k, u32 B, u32 d, u32 R, double* partial, u32* bad
#define PARAMETERS_code_grad const half_t* decoder, const u32* latent, float* grad, u32 k, const float* err, u32 B, u32 d, Prefixes prefixes, u32* bad
#define PARAMETERS_reconstruct const half_t* decoder, const u32* latent, const float* value, float* grad, u32 k, const float* preBias, const float* x, float* err, half_t* err16, const float* live, u32 B, u32 d, u32 n, u32 R, double* partial, u32* bad
#define PARAMETERS_residual_sums const double* partial, u32 blocks, u32 width, u32 dead, double* sums, u32* bad
#define PARAMETERS_tanh_rows const float* value, u32 k, u32 B, const double* hyper, double* partial
#define PARAMETERS_tanh_total const double* partial, u32 blocks, const double* hyper, double* sums

// reconstruct_wide.cu
#define PARAMETERS_reconstruct_wide const half_t* decoder, const u32* latent, const float* value, float* grad, u32 k, const float* preBias, const float* x, float* err, half_t* err16, u32 B, u32 d, u32 R, Prefixes prefixes, u32 add, double* partial, u32* bad
#define PARAMETERS_reconstruct_planes const half_t* decoder, const u32* latent, const float* value, float* grad, u32 k, const float* preBias, const float* x, float* err, half_t* err16, u32 B, u32 d, u32 R, Prefixes prefixes, u32 add, double* partial, u32* bad
#define PARAMETERS_residual_planes const float* preBias, const float* x, float* err, half_t* err16, const float* value, u32 k, u32 B, u32 d, u32 R, Prefixes prefixes, double* partial, u32* bad

// screen.cu
#define PARAMETERS_screen_norms const float* __restrict__ encoder, u32 n, u32 d, float* norm, u32* common
#define PARAMETERS_screen_encoder const float* __restrict__ encoder, u32 n, u32 d, u16* __restrict__ encoder16, float* weight, u32* common
#define PARAMETERS_screen_common const float* weight, const float* latentBias, u32 n, u32* common
#define PARAMETERS_screen_columns const float* latentBias, const float* weight, const u32* common, const float* threshold, u32 thresholds, const double* hyper, u32 isLive, u32 isBand, u32 n, u32 width, float2* columns, float* usual, float* limit, u32* bad
#define PARAMETERS_screen_inputs const float* __restrict__ xc, u32 B, u32 d, const u32* common, u16* __restrict__ xc16, float2* ends, u32* bad
#define PARAMETERS_screen_highest const u16* __restrict__ z, u32 ldz, const float2* __restrict__ columns, const float* __restrict__ usual, const float2* __restrict__ ends, const u32* __restrict__ common, u32 n, const double* hyper, u32 k, u32 annealed, u32 capacity, u32* found, u32 room, u32* counts
#define PARAMETERS_score_highest const u16* z, u32 ldz, const float2* columns, const float2* ends, const u32* found, u32 room, const u32* counts, const float* xc, const float* encoder, const float* latentBias, u32 n, u32 d, const double* hyper, u32* fired, u32* latent, float* value, float* grad, u32 k, u32 annealed, u32 capacity
#define PARAMETERS_screen_threshold const u16* __restrict__ z, u32 ldz, const float2* __restrict__ columns, const float2* ends, const float* __restrict__ limit, u32 n, u32 C, u32* found, u32 room, u32* counts, u32* bad
#define PARAMETERS_score_threshold const u32* found, u32 room, const float* xc, const float* encoder, const float* latentBias, u32 d, const float* threshold, u32 thresholds, const double* hyper, u32* fired, Selected live, Selected band, u32* counts, u32* bad

// select.cu
#define PARAMETERS_select_live const half_t* __restrict__ z, const float* __restrict__ latentBias, const double* __restrict__ hyper, u32* fired, u32* bad, u32* latent, float* value, float* grad, u32 n, u32 ldz, u32 k, u32 annealed, u32 capacity
#define PARAMETERS_select_dead const half_t* __restrict__ z, const float* __restrict__ latentBias, const u32* __restrict__ list, const u32* __restrict__ counts, u32* bad, u32* latent, float* value, float* grad, u32 ldz, u32 auxk, u32 capacity

// threshold.cu
#define PARAMETERS_select_threshold const half_t* __restrict__ z, const float* __restrict__ latentBias, const float* __restrict__ threshold, u32 thresholds, const double* __restrict__ hyper, u32* fired, u32* bad, u32 n, u32 ldz, u32 C, Selected live, Selected band, u32* counts
#define PARAMETERS_select_total const u32* counts, u32 B, double* active

// lists.cu
#define PARAMETERS_list_count const u32* live, u32 k, const u32* dead, u32 auxk, u32 B, u32 rowsPerPart, u32 P, u32 n, u32 width, Share listed, u32* counts
#define PARAMETERS_list_prefix u32* counts, u32 parts, u32 n, u32* totals
#define PARAMETERS_list_scan const u32* totals, u32 n, u32 d, u32 chunk, const double* hyper, const double* sums, const double* wideSums, u32* start, u32* pieceAt, u32* pieceOf, u32* pieceCount, double* scales
#define PARAMETERS_list_fill const u32* live, const float* liveValue, const float* liveGrad, u32 k, const u32* dead, const float* deadValue, const float* deadGrad, u32 auxk, u32 B, u32 rowsPerPart, u32 P, u32 n, u32 width, Share listed, const u32* counts, const u32* start, const double* scales, Prefixes prefixes, u32 rowsEach, const double* hyper, const float* sparsity, const u32* age, u32 band, uint4* entries
#define PARAMETERS_list_long Gradients g, const u32* pieceOf, const u32* pieceCount, Totals* pieceTotals
#define PARAMETERS_list_bias Gradients g, const half_t* encoder, const double* sums, const double* wideSums, const Totals* pieceTotals, const double* deadBias, float* latentBias, double* biasPartial, u32* bad, Share counted, const float* largest, Prefixes prefixes, u32 deadRows, const double* hyper
#define PARAMETERS_list_prebias const double* biasPartial, u32 blocks, u32 d, const double* sums, const double* wideColumns, const double* scales, float* preBias, u32* bad, u32 counts
#define PARAMETERS_gradient_rows Gradients g
#define PARAMETERS_threshold_gradient Gradients g, const u32* start, const uint4* entries, const float* threshold, const float* sparsity, const double* hyper, const double* active, Share counted, u32 deadRows, float* gradient, u32* bad

// norm.cu
#define PARAMETERS_norm_rows Gradients g, const float* decoder, Keep keep, const double* hyper, double* squares, const u32* bad
#define PARAMETERS_norm_sum const double* squares, const float* latentBias, const float* preBias, const float* threshold, const double* skip, u32 n, u32 d, double* sq, u32* bad, Share counted, u32 counts

// skip.cu
#define PARAMETERS_skip_scale float* skip, u32 count, const double* scales, u32* bad
#define PARAMETERS_skip_squares const float* skip, u32 count, double* partial
#define PARAMETERS_update_skip const float* skip, u32 count, Weights p, Weights m, Weights v, Weights ema, half_t* skip16, const Numbers* numbers

// update.cu
#define PARAMETERS_update_begin const double* hyper, const double* sq, const u32* bad, double* counters, u32 hasEma, u32 ready, u32 firstLatent, Numbers* numbers
#define PARAMETERS_update_rows Gradients g, u32 formed, Weights p, Weights m, Weights v, Weights ema, half_t* encoder16, half_t* decoder16, const Numbers* numbers
#define PARAMETERS_update_small u32 n, u32 d, Weights p, Weights m, Weights v, Weights ema, const float* latentBias, const float* preBias, const float* threshold, u32* age, const u32* fired, const double* hyper, const float* cut, const double* active, const Numbers* numbers
