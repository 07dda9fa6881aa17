// update: one pass over memory for each row of the encoder and the decoder: its gradient,
// projection, clipping, Adam, unit norm, EMA and the copies in half_t.
//
// Bytes at n = 32768, d = 768, 16 bits: Adam 24 a parameter and 2 of the copy, 1.31 GB; rows of x -
// b and err from L2, 1.6 GB at B = 16384, k = 32. Encoder rows come first, then decoder rows, so
// that only one of x - b and err (25 MB each) must stay in L2 at a time; weights and moments are
// streamed past it.

#include "adam.cuh"
#include "gradients.cuh"

/// Grid 1, block 1. Counts the step; a bad one changes nothing else. FULL: not even that. `ready`:
/// there are gradients.
extern "C" __global__ void update_begin(PARAMETERS(update_begin)) {
  Numbers o = {};
  if (*bad != 0 || ready == 0) {
    if (*bad != 0 && (*bad & FULL) == 0) counters[SKIPPED]++;
    *numbers = o;
    return;
  }
  const double t = ++counters[ADAM];
  const double clip = hyper[CLIP];
  o.factor = static_cast<float>(clip > 0 ? clip / fmax(sqrt(*sq), clip) : 1.0);
  o.beta1 = static_cast<float>(hyper[BETA1]);
  o.beta2 = static_cast<float>(hyper[BETA2]);
  o.rest1 = static_cast<float>(1 - hyper[BETA1]);
  o.rest2 = static_cast<float>(1 - hyper[BETA2]);
  o.rate = static_cast<float>(hyper[LR] / (1 - pow(hyper[BETA1], t)));
  o.root = static_cast<float>(1 / sqrt(1 - pow(hyper[BETA2], t)));
  o.eps = static_cast<float>(hyper[EPS]);
  o.emaRest = static_cast<float>(1 - hyper[EMA_DECAY]);
  o.go = 1;
  // t modulo 2^32 where it is drawn from.
  o.t = static_cast<u32>(static_cast<u64>(t));
  o.averages = hasEma != 0 && hyper[EMA_DECAY] > 0;
  o.firstLatent = firstLatent;
  o.rows = hyper[ROWS];
  o.unit = hyper[UNIT_ROWS] != 0;
  if (o.averages != 0) counters[EMA]++;
  *numbers = o;
}

__device__ __forceinline__ u32 fmix32(u32 h) {
  h ^= h >> 16;
  h *= 0x85ebca6bu;
  h ^= h >> 13;
  h *= 0xc2b2ae35u;
  return h ^ h >> 16;
}

/// randomElement of ../../../sae/math.ts: a number in [-1, 1) from integers alone.
__device__ __forceinline__ float randomElement(u32 latent, u32 t, u32 i) {
  return static_cast<float>(fmix32(fmix32(fmix32(latent ^ 0x9e3779b9u) + t) + i) / 2147483648.0 - 1);
}

struct Row {
  float *w, *m, *v, *ema;
  half_t* copy;
};

/// Writes columns [c, c + V) of a row's new weights, and what follows from them.
template <int V>
__device__ __forceinline__ void writeWeights(const Numbers& o, const Row& row, u32 c, const float (&w)[V]) {
  storeStreamed(row.w + c, w);
#if SAETTA_COMPUTE != 0
  storeHalf(row.copy + c, w);
#endif
  if (o.averages == 0) return;
  float ema[V];
  loadStreamed(row.ema + c, ema);
#pragma unroll
  for (int u = 0; u < V; u++) ema[u] += o.emaRest * (w[u] - ema[u]);
  storeStreamed(row.ema + c, ema);
}

template <int V>
__device__ __forceinline__ void gradientOf(const Gradients& g, u32 formed, const List& list, u32 c,
                                           float (&gradient)[V]) {
  if (formed != 0)
    loadStreamed((list.side == ENCODER ? g.formedEncoder : g.formedDecoder) +
                     static_cast<u64>(list.j) * widthOf(g, list.side) + c,
                 gradient);
  else formColumns(g, list, c, gradient);
}

/// Weights and moments of a thread's columns, as they come into shared memory ahead: [stage][w, m,
/// v][V / 4][thread].
template <int V>
struct Ahead {
  uint4* room;

  __device__ __forceinline__ uint4* at(u32 stage, u32 array, u32 quarter) const {
    return room + ((stage * 3 + array) * (V / 4) + quarter) * blockDim.x + threadIdx.x;
  }
  __device__ __forceinline__ void ask(const Row& row, u32 stage, u32 c, u64 policy) const {
    const float* arrays[3] = {row.w, row.m, row.v};
#pragma unroll
    for (u32 array = 0; array < 3; array++) {
#pragma unroll
      for (u32 quarter = 0; quarter < V / 4; quarter++)
        copyAheadOnce(at(stage, array, quarter), arrays[array] + c + quarter * 4, policy);
    }
  }
  __device__ __forceinline__ void take(u32 stage, u32 array, float (&to)[V]) const {
#pragma unroll
    for (u32 quarter = 0; quarter < V / 4; quarter++) {
      const uint4 part = *at(stage, array, quarter);
      to[quarter * 4] = __uint_as_float(part.x), to[quarter * 4 + 1] = __uint_as_float(part.y);
      to[quarter * 4 + 2] = __uint_as_float(part.z), to[quarter * 4 + 3] = __uint_as_float(part.w);
    }
  }
};

/// Columns [c, c + V) of w, m, v: from shared memory where they were asked for.
template <int V, bool AHEAD>
__device__ __forceinline__ void loadColumns(const Row& row, u32 c, const Ahead<V>& ahead, u32 stage, float (&w)[V],
                                            float (&m)[V], float (&v)[V]) {
  if constexpr (AHEAD) {
    ahead.take(stage, 0, w);
    ahead.take(stage, 1, m);
    ahead.take(stage, 2, v);
  } else {
    loadStreamed(row.w + c, w);
    loadStreamed(row.m + c, m);
    loadStreamed(row.v + c, v);
  }
}

/// Columns [c, c + V) of an encoder row.
template <int V, bool AHEAD>
__device__ __forceinline__ void encoderColumns(const Gradients& g, u32 formed, const List& list, const Numbers& o,
                                               const Row& row, u32 c, const Ahead<V>& ahead, u32 stage) {
  float w[V], m[V], v[V], gradient[V];
  gradientOf(g, formed, list, c, gradient);
  loadColumns<V, AHEAD>(row, c, ahead, stage, w, m, v);
#pragma unroll
  for (int u = 0; u < V; u++) adam(o, w[u], m[u], v[u], gradient[u]);
  storeStreamed(row.m + c, m);
  storeStreamed(row.v + c, v);
  writeWeights(o, row, c, w);
}

/// What a row is multiplied by whose squares add up to `squares`; 1 for 1.
__device__ __forceinline__ float scaleOf(double squares) {
  return 1 / sqrtf(static_cast<float>(fmax(squares, SHORTEST_ROW * SHORTEST_ROW)));
}

/// A decoder row of which each thread holds its columns [c, c + V); `on`: it has some.
template <int V, bool AHEAD>
__device__ __forceinline__ void decoderRow(const Gradients& g, u32 formed, const List& list, const Numbers& o,
                                           const Row& row, u32 c, bool on, const Ahead<V>& ahead, u32 stage,
                                           double* room) {
  float w[V] = {}, m[V] = {}, v[V] = {}, gradient[V] = {};
  double along = 0, squares = 0;
  if (on) {
    gradientOf(g, formed, list, c, gradient);
    loadColumns<V, AHEAD>(row, c, ahead, stage, w, m, v);
    along += dotOf(w, gradient);
  }
  along = blockSum(along, room);
  const float factor = o.unit != 0 ? static_cast<float>(along) : 0;
  if (on) {
#pragma unroll
    for (int u = 0; u < V; u++) adam(o, w[u], m[u], v[u], gradient[u] - factor * w[u]);
    squares += dotOf(w, w);
  }
  squares = o.unit != 0 ? blockSum(squares, room) : 1;
  if (squares < SHORTEST_ROW * SHORTEST_ROW) {
    squares = 0;
#pragma unroll
    for (int u = 0; u < V; u++) {
      w[u] = on ? randomElement(o.firstLatent + list.j, o.t, c + u) : 0;
      m[u] = v[u] = 0;
    }
    squares = blockSum(dotOf(w, w), room);
  }
  if (!on) return;
  const float scale = scaleOf(squares);
#pragma unroll
  for (int u = 0; u < V; u++) w[u] *= scale;
  storeStreamed(row.m + c, m);
  storeStreamed(row.v + c, v);
  writeWeights(o, row, c, w);
}

/// The same for a row that the block does not cover at once; `kept` [d] in shared memory holds the
/// gradient, then the weights.
template <int V>
__device__ __forceinline__ void longDecoderRow(const Gradients& g, u32 formed, const List& list, const Numbers& o,
                                               const Row& row, float* kept, double* room) {
  const u32 d = g.dOut, first = threadIdx.x * V, step = blockDim.x * V;
  double along = 0, squares = 0;
  for (u32 c = first; c < d; c += step) {
    float w[V], gradient[V];
    loadFloats(row.w + c, w);
    gradientOf(g, formed, list, c, gradient);
    along += dotOf(w, gradient);
    storeFloats(kept + c, gradient);
  }
  along = blockSum(along, room);
  const float factor = o.unit != 0 ? static_cast<float>(along) : 0;
  for (u32 c = first; c < d; c += step) {
    float w[V], m[V], v[V], gradient[V];
    loadFloats(row.w + c, w);
    loadStreamed(row.m + c, m);
    loadStreamed(row.v + c, v);
    loadFloats(kept + c, gradient);
#pragma unroll
    for (int u = 0; u < V; u++) adam(o, w[u], m[u], v[u], gradient[u] - factor * w[u]);
    squares += dotOf(w, w);
    storeStreamed(row.m + c, m);
    storeStreamed(row.v + c, v);
    storeFloats(kept + c, w);
  }
  squares = o.unit != 0 ? blockSum(squares, room) : 1;
  if (squares < SHORTEST_ROW * SHORTEST_ROW) {
    squares = 0;
    for (u32 c = first; c < d; c += step) {
      float w[V], zero[V] = {};
#pragma unroll
      for (int u = 0; u < V; u++) w[u] = randomElement(o.firstLatent + list.j, o.t, c + u);
      squares += dotOf(w, w);
      storeFloats(kept + c, w);
      storeStreamed(row.m + c, zero);
      storeStreamed(row.v + c, zero);
    }
    squares = blockSum(squares, room);
  }
  const float scale = scaleOf(squares);
  for (u32 c = first; c < d; c += step) {
    float w[V];
    loadFloats(kept + c, w);
#pragma unroll
    for (int u = 0; u < V; u++) w[u] *= scale;
    writeWeights(o, row, c, w);
  }
}

struct Update {
  Weights p, m, v, ema;
  half_t *encoder16, *decoder16;
  u32 formed;
};

__device__ __forceinline__ Row rowOf(const Update& a, u32 side, u64 at) {
  if (side == ENCODER)
    return {a.p.encoder + at, a.m.encoder + at, a.v.encoder + at, a.ema.encoder + at, a.encoder16 + at};
  return {a.p.decoder + at, a.m.decoder + at, a.v.decoder + at, a.ema.decoder + at, a.decoder16 + at};
}

/// All rows; AHEAD: a thread has V columns of either side at most, and they come ahead.
template <int V, bool AHEAD>
__device__ __forceinline__ void updateAll(const Gradients& g, const Update& a, const Numbers& o, uint4* shared,
                                          double* room) {
  const u32 c = threadIdx.x * V;
  const Ahead<V> columns = {shared + STAGES * STAGED};
  float* kept = reinterpret_cast<float*>(shared + STAGES * STAGED);
  const u64 policy = readOnce();
  const auto ask = [&](const List& list, u32 stage) {
    if constexpr (AHEAD) {
      const u32 d = widthOf(g, list.side);
      if (c < d) columns.ask(rowOf(a, list.side, static_cast<u64>(list.j) * d), stage, c, policy);
    }
  };
  eachRow(g, a.formed == 0, shared, ask, [&](const List& list, u32 stage) {
    const u32 d = widthOf(g, list.side);
    const Row row = rowOf(a, list.side, static_cast<u64>(list.j) * d);
    if (list.side == ENCODER) {
      for (u32 i = c; i < d; i += blockDim.x * V)
        encoderColumns<V, AHEAD>(g, a.formed, list, o, row, i, columns, stage);
    } else if (d <= blockDim.x * V) {
      decoderRow<V, AHEAD>(g, a.formed, list, o, row, c, c < d, columns, stage, room);
    } else if constexpr (!AHEAD) {
      longDecoderRow<V>(g, a.formed, list, o, row, kept, room);
    }
  });
}

#ifndef UPDATE_REGISTERS
#define UPDATE_REGISTERS 80
#endif

/// d: the longer of dIn and dOut. Persistent: grid the blocks that fit at once, block R(d), shared
/// STAGE_BYTES and 24 ROW_WIDTH R(d) where both are multiples of ROW_WIDTH and d <= R(d) ROW_WIDTH,
/// else 4 d.
extern "C" __global__ void __maxnreg__(UPDATE_REGISTERS) update_rows(PARAMETERS(update_rows)) {
  extern __shared__ uint4 shared[];
  __shared__ double room[33];
  const Numbers o = *numbers;
  if (o.go == 0) return;
  const Update a = {p, m, v, ema, encoder16, decoder16, formed};
  if (!inQuads(g)) updateAll<1, false>(g, a, o, shared, room);
  else if (widestOf(g) <= blockDim.x * ROW_WIDTH) updateAll<ROW_WIDTH, true>(g, a, o, shared, room);
  else updateAll<ROW_WIDTH, false>(g, a, o, shared, room);
}

/// control of ../../../sae/math.ts: sparsity [2], the multiplier and the smoothed L0.
__device__ __forceinline__ void control(const double* hyper, double active, float* sparsity) {
  if (!(hyper[GAIN] > 0)) return;
  const double l0 = active / hyper[ROWS], before = sparsity[1];
  const double smoothed = before == 0 ? l0 : before + (1 - CONTROLLER_SMOOTHING) * (l0 - before);
  const double target = hyper[TARGET_L0], error = smoothed / target - 1, most = CONTROLLER_MOST;
  const double step = fmax(-CONTROLLER_STEP, fmin(CONTROLLER_STEP, hyper[GAIN] * error));
  const double damped = before == 0 ? 0 : CONTROLLER_DAMPING * (before / target - 1);
  const double moved = sinh(asinh(sparsity[0] - damped) + step) + CONTROLLER_DAMPING * error;
  sparsity[0] = static_cast<float>(fmax(-most, fmin(most, moved)));
  sparsity[1] = static_cast<float>(smoothed);
}

/// Biases, thresholds and ages; `cut` and `sparsity`, whose averages are copies. What there is not
/// is null. d: dOut. Grid ceil((n + d + 1) / 256), block 256.
extern "C" __global__ void update_small(PARAMETERS(update_small)) {
  const Numbers o = *numbers;
  u32 i = blockIdx.x * blockDim.x + threadIdx.x;
  if (o.go == 0 || i > n + d) return;
  if (i < n) {
    updateBias(o, p.latentBias + i, m.latentBias + i, v.latentBias + i, ema.latentBias + i, latentBias[i]);
    if (p.threshold != nullptr)
      updateBias(o, p.threshold + i, m.threshold + i, v.threshold + i, ema.threshold + i, threshold[i]);
    age[i] = fired[i] != 0 ? 0 : static_cast<u32>(fmin(age[i] + o.rows, 4294967295.0));
    return;
  }
  i -= n;
  if (i < d) {
    updateBias(o, p.preBias + i, m.preBias + i, v.preBias + i, ema.preBias + i, preBias[i]);
    return;
  }
  if (p.cut != nullptr) {
    // moveCut of ../../../sae/math.ts.
    if (*cut > 0) *p.cut = static_cast<float>(*p.cut + (1 - hyper[CUT_DECAY]) * (static_cast<double>(*cut) - *p.cut));
    if (o.averages != 0) *ema.cut = *p.cut;
  }
  if (p.sparsity == nullptr) return;
  control(hyper, *active, p.sparsity);
  if (o.averages == 0) return;
  ema.sparsity[0] = p.sparsity[0];
  ema.sparsity[1] = p.sparsity[1];
}
