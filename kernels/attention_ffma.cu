// attention_ffma.cu -- attention.cu's formulas without tensor cores: for f32, and for bf16 heads whose width is no multiple of 8.
//
// Arrays as there, of floats or bf16; d is at most D, the width of the instance (64, 128), and otherwise any. Grid
// (N ⌈T / 64⌉, heads), block 256. A block holds 64 rows (queries in `forward` and `vjp_q`, keys in `vjp_kv`) in shared memory
// and streams the other side past them, 32 tokens at a time. Thread (ty, tx) = (i / 16, i % 16) owns rows 4 ty .. 4 ty + 3;
// of scores the columns tx and tx + 16, of results four channels in every 64 from 4 tx on. Products read 16 bytes at a time from
// rows padded by 16 bytes. Sums run over tokens and channels in order, whatever the batch. FLOPs as there; forward reads
// k and v ⌈T / 64⌉ times, from L2. FFMA-bound: 4 T² C / 60 TFLOP/s per image on an H100.
// Shared memory, in KiB at D = 64 and 128: forward 43, 75; vjp_q 60, 108; vjp_kv 69, 117.
#include "attention.cuh"
#include "gpu_ptx.cuh"

namespace {

constexpr int ROWS = 64, COLS = 32, THREADS = 256, P_STRIDE = COLS + 4;
template <int D> constexpr int STRIDE = D + 4;

__device__ __forceinline__ int tx() { return threadIdx.x % 16; }
__device__ __forceinline__ int ty() { return threadIdx.x / 16; }

// N tokens of this head, from `first` on, to a tile of rows of D floats; what lies past T or d is zero.
template <int D, int N, class E>
__device__ __forceinline__ void load_tile(float *tile, const Head &here, int first, const E *x, Part part) {
  const bool wide = sizeof(E) == 4 && here.d % 4 == 0; // a group of four is 16 bytes of one head
  for (int i = threadIdx.x; i < N * D / 4; i += THREADS) {
    const int row = i / (D / 4), c = i % (D / 4) * 4, count = first + row < here.tokens ? min(4, here.d - c) : 0;
    float f[4] = {};
    const E *from = x + position(here, part, first + row, c);
    if constexpr (sizeof(E) == 4)
      if (wide && count > 0) load(f, from);
    if (!wide)
      for (int e = 0; e < 4; e++)
        if (e < count) f[e] = to_float(from[e]);
    store(tile + row * STRIDE<D> + c, f);
  }
}

// s = a bᵀ of the thread's rows and columns, over D channels.
template <int D> __device__ __forceinline__ void multiply_nt(float (&s)[4][2], const float *a, const float *b) {
  a += 4 * ty() * STRIDE<D>, b += tx() * STRIDE<D>;
#pragma unroll
  for (int i = 0; i < 4; i++) s[i][0] = s[i][1] = 0.f;
#pragma unroll 4
  for (int c = 0; c < D; c += 4) {
    float x[4][4], y[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++) load(x[i], a + i * STRIDE<D> + c);
#pragma unroll
    for (int j = 0; j < 2; j++) load(y[j], b + 16 * j * STRIDE<D> + c);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 2; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) s[i][j] = fmaf(x[i][e], y[j][e], s[i][j]);
  }
}

// acc += p b of the thread's rows and channels, over COLS tokens.
template <int D> __device__ __forceinline__ void multiply_nn(float (&acc)[4][D / 16], const float *p, const float *b) {
  p += 4 * ty() * P_STRIDE, b += 4 * tx();
#pragma unroll 2
  for (int k = 0; k < COLS; k += 4) {
    float x[4][4];
#pragma unroll
    for (int i = 0; i < 4; i++) load(x[i], p + i * P_STRIDE + k);
#pragma unroll
    for (int e = 0; e < 4; e++)
#pragma unroll
      for (int c = 0; c < D / 16; c += 4) {
        float y[4];
        load(y, b + (k + e) * STRIDE<D> + 16 * c);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
          for (int f = 0; f < 4; f++) acc[i][c + f] = fmaf(x[i][e], y[f], acc[i][c + f]);
      }
  }
}

// The thread's scores to shared memory, for `multiply_nn`.
__device__ __forceinline__ void share(float *p, const float (&s)[4][2]) {
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 2; j++) p[(4 * ty() + i) * P_STRIDE + tx() + 16 * j] = s[i][j];
}

// The thread's results, row i times scale[i].
template <int D, class E>
__device__ __forceinline__ void store_rows(const Head &here, E *x, Part part, const float (&acc)[4][D / 16],
                                           const float (&scale)[4]) {
  const bool wide = sizeof(E) == 4 && here.d % 4 == 0;
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int c = 0; c < D / 16; c += 4) {
      const int token = here.first + 4 * ty() + i, channel = 4 * tx() + 16 * c;
      const int count = token < here.tokens ? min(4, here.d - channel) : 0;
      const float f[4] = {acc[i][c] * scale[i], acc[i][c + 1] * scale[i], acc[i][c + 2] * scale[i], acc[i][c + 3] * scale[i]};
      E *to = x + position(here, part, token, channel);
      if constexpr (sizeof(E) == 4)
        if (wide && count > 0) store(to, f);
      if (!wide)
        for (int e = 0; e < 4; e++)
          if (e < count) to[e] = from_float<E>(f[e]);
    }
}

// ---------------------------------------------------------------------------------------------------- forward
template <int D, class E>
__device__ __forceinline__ void forward(const E *qkv, E *o, float *lse, int tokens, int d, float scale) {
  DYN_SHARED(float, smem);
  float *sq = smem, *sk = sq + ROWS * STRIDE<D>, *sv = sk + COLS * STRIDE<D>, *sp = sv + COLS * STRIDE<D>;
  const Head here(tokens, d, ROWS);
  load_tile<D, ROWS>(sq, here, here.first, qkv, Q);

  const float scale2 = scale * LOG2E;
  float acc[4][D / 16] = {}, top[4] = {NEG_INF, NEG_INF, NEG_INF, NEG_INF}, sum[4] = {};
  for (int first = 0; first < tokens; first += COLS) {
    __syncthreads();
    load_tile<D, COLS>(sk, here, first, qkv, K);
    load_tile<D, COLS>(sv, here, first, qkv, V);
    __syncthreads();
    float s[4][2];
    multiply_nt<D>(s, sq, sk);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float new_top = top[i]; // a tile has a key that exists: finite, unless the scores are not
#pragma unroll
      for (int j = 0; j < 2; j++) {
        if (first + tx() + 16 * j >= tokens) s[i][j] = NEG_INF;
        new_top = fmaxf(new_top, s[i][j]);
      }
#pragma unroll
      for (int lanes = 8; lanes > 0; lanes /= 2) new_top = fmaxf(new_top, __shfl_xor_sync(0xffffffffu, new_top, lanes));
      const float shrink = exp2_approx((top[i] - new_top) * scale2);
      top[i] = new_top;
      sum[i] *= shrink;
#pragma unroll
      for (int c = 0; c < D / 16; c++) acc[i][c] *= shrink;
#pragma unroll
      for (int j = 0; j < 2; j++) {
        s[i][j] = exp2_approx((s[i][j] - new_top) * scale2);
        sum[i] += s[i][j];
      }
    }
    share(sp, s);
    __syncthreads();
    multiply_nn<D>(acc, sp, sv);
  }

  float inverse[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    sum[i] = warp_sum(sum[i], 16);
    inverse[i] = 1.f / sum[i];
    const int query = here.first + 4 * ty() + i;
    if (lse && tx() == 0 && query < tokens) lse[here.statistics() + query] = top[i] * scale2 + __log2f(sum[i]);
  }
  store_rows<D>(here, o, O, acc, inverse);
}

// ---------------------------------------------------------------------------------------------------- VJP: dq, delta
template <int D, class E>
__device__ __forceinline__ void vjp_q(const E *qkv, const E *o, const E *d_o, const float *lse, E *dqkv, float2 *statistics,
                                      int tokens, int d, float scale) {
  DYN_SHARED(float, smem);
  float *sq = smem, *sdo = sq + ROWS * STRIDE<D>, *sk = sdo + ROWS * STRIDE<D>, *sv = sk + COLS * STRIDE<D>,
        *sds = sv + COLS * STRIDE<D>;
  const Head here(tokens, d, ROWS);
  load_tile<D, ROWS>(sq, here, here.first, qkv, Q);
  load_tile<D, ROWS>(sdo, here, here.first, d_o, O);
  __syncthreads();

  float row_lse[4], delta[4];
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int row = 4 * ty() + i, query = here.first + row;
    row_lse[i] = delta[i] = 0.f;
    if (query < tokens) {
      row_lse[i] = lse[here.statistics() + query];
      for (int c = tx(); c < d; c += 16) delta[i] = fmaf(sdo[row * STRIDE<D> + c], to_float(o[position(here, O, query, c)]), delta[i]);
    }
    delta[i] = warp_sum(delta[i], 16);
    if (query < tokens && tx() == 0) statistics[here.statistics() + query] = make_float2(row_lse[i], delta[i]);
  }

  const float scale2 = scale * LOG2E;
  float dq[4][D / 16] = {};
  for (int first = 0; first < tokens; first += COLS) {
    __syncthreads();
    load_tile<D, COLS>(sk, here, first, qkv, K);
    load_tile<D, COLS>(sv, here, first, qkv, V);
    __syncthreads();
    float ds[4][2], dp[4][2];
    multiply_nt<D>(ds, sq, sk);
    multiply_nt<D>(dp, sdo, sv);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 2; j++) {
        const float p = first + tx() + 16 * j < tokens ? exp2_approx(ds[i][j] * scale2 - row_lse[i]) : 0.f;
        ds[i][j] = p * (dp[i][j] - delta[i]);
      }
    share(sds, ds);
    __syncthreads();
    multiply_nn<D>(dq, sds, sk);
  }
  const float scales[4] = {scale, scale, scale, scale};
  store_rows<D>(here, dqkv, Q, dq, scales);
}

// ---------------------------------------------------------------------------------------------------- VJP: dk, dv
template <int D, class E>
__device__ __forceinline__ void vjp_kv(const E *qkv, const E *d_o, const float2 *statistics, E *dqkv, int tokens, int d, float scale) {
  DYN_SHARED(float, smem);
  float *sk = smem, *sv = sk + ROWS * STRIDE<D>, *sq = sv + ROWS * STRIDE<D>, *sdo = sq + COLS * STRIDE<D>,
        *sp = sdo + COLS * STRIDE<D>, *sds = sp + ROWS * P_STRIDE;
  const Head here(tokens, d, ROWS);
  load_tile<D, ROWS>(sk, here, here.first, qkv, K);
  load_tile<D, ROWS>(sv, here, here.first, qkv, V);

  const float scale2 = scale * LOG2E;
  float dk[4][D / 16] = {}, dv[4][D / 16] = {};
  for (int first = 0; first < tokens; first += COLS) {
    __syncthreads();
    load_tile<D, COLS>(sq, here, first, qkv, Q);
    load_tile<D, COLS>(sdo, here, first, d_o, O);
    __syncthreads();
    float p[4][2], ds[4][2];
    multiply_nt<D>(p, sk, sq);
    multiply_nt<D>(ds, sv, sdo);
#pragma unroll
    for (int j = 0; j < 2; j++) {
      const int query = first + tx() + 16 * j;
      const float2 row = query < tokens ? statistics[here.statistics() + query] : make_float2(0.f, 0.f);
#pragma unroll
      for (int i = 0; i < 4; i++) { // a query past T has q and do zero: it adds nothing
        p[i][j] = exp2_approx(p[i][j] * scale2 - row.x);
        ds[i][j] = p[i][j] * (ds[i][j] - row.y);
      }
    }
    share(sp, p);
    share(sds, ds);
    __syncthreads();
    multiply_nn<D>(dv, sp, sdo);
    multiply_nn<D>(dk, sds, sq);
  }
  const float scales[4] = {scale, scale, scale, scale}, ones[4] = {1.f, 1.f, 1.f, 1.f};
  store_rows<D>(here, dqkv, K, dk, scales);
  store_rows<D>(here, dqkv, V, dv, ones);
}

} // namespace

#define ENTRIES(D, NAME, E)                                                                                                   \
  ATTENTION_ENTRY(attention_forward_ffma_##NAME##_d##D, THREADS, 1,                                                           \
                  (const E *qkv, E *o, float *lse, int tokens, int d, float scale),                                           \
                  (forward<D, E>(qkv, o, lse, tokens, d, scale)))                                                             \
  ATTENTION_ENTRY(attention_vjp_q_ffma_##NAME##_d##D, THREADS, 1,                                                             \
                  (const E *qkv, const E *o, const E *d_o, const float *lse, E *dqkv, float2 *statistics, int tokens, int d,  \
                   float scale),                                                                                              \
                  (vjp_q<D, E>(qkv, o, d_o, lse, dqkv, statistics, tokens, d, scale)))                                        \
  ATTENTION_ENTRY(attention_vjp_kv_ffma_##NAME##_d##D, THREADS, 1,                                                            \
                  (const E *qkv, const E *d_o, const float2 *statistics, E *dqkv, int tokens, int d, float scale),            \
                  (vjp_kv<D, E>(qkv, d_o, statistics, dqkv, tokens, d, scale)))
ENTRIES(64, f32, float)
ENTRIES(128, f32, float)
ENTRIES(64, bf16, bf16)
ENTRIES(128, bf16, bf16)
