// attention.cu -- multi-head self-attention over the tokens of an image, on tensor cores (flash attention, Dao, 2023).
//
//   forward   s = q kᵀ / √d, p = softmax(s) over keys, o = p v; saves lse, the log-sum-exp of s, in base 2
//   VJP       p = exp(s - lse); dv = pᵀ do; dp = do vᵀ; ds = p (dp - delta), delta = Σ_c do o; dq = ds k / √d; dk = dsᵀ q / √d
//
// qkv, dqkv (N, T, 3 C), o, do (N, T, C), C = heads d: a head owns d channels of each; bf16, f32 inside. lse (N, heads, T
// rounded up to even), statistics the same of (lse, delta): f32. d is a multiple of 8, at most D, the instance's width.
//
// A block has 128 rows, 16 for a warp: queries in `forward` and `vjp_q`, keys in `vjp_kv`. It holds them in shared memory
// and streams the other side past them, COLS tokens at a time, by cp.async in two buffers. Products are mma.sync m16n8k16;
// p and ds go from accumulators to operands without leaving registers. What lies past T or d is zero in shared memory. Sums
// run over tokens in order, whatever the batch: no atomics; `vjp_q` writes the statistics that `vjp_kv` reads.
//
// Grid (N ⌈T / 128⌉, heads), block 256. Per image, FLOPs in T² C: forward 4, vjp_q 6, vjp_kv 8; bytes, each once from HBM (the
// other blocks of a head find the streamed side in L2), in T C: forward 8, vjp_q 14, vjp_kv 12. Arithmetic intensity T / 2
// and up: with ⌈T / 128⌉ > 1 above the 295 FLOP/B of an H100. An ldmatrix (512 B) feeds two mma (8,192 FLOP): shared
// memory allows half the matrix peak.
// Width: registers at most, KiB of shared memory (forward and VJP), blocks per SM:
//   16: 82, 12, 2     32: 115, 24, 2     64: 128, 48, 2     128: 244, 96, 1
#include "attention.cuh"
#include "gpu_ptx.cuh"

namespace {

constexpr int ROWS = 128, THREADS = 2 * ROWS; // of a block

// ---------------------------------------------------------------------------------------------------- tiles
// Tiles in shared memory have rows of D bf16 in chunks of 16 bytes, permuted so that 8 rows of one chunk, which is what
// ldmatrix reads, lie in different banks. A row of any eighth has the same permutation, an exclusive or with less than D / 8:
// so at(row + 8 n, chunk ^ k) = (at(row, chunk) ^ 16 k) + 16 n D, and a lane computes one address for a whole product.
// The byte offset of a chunk:
template <int D> __device__ __forceinline__ uint32_t at(int row, int chunk) {
  constexpr int C = D / 8;
  return (row * C + (C >= 8 ? chunk ^ (row & 7) : chunk ^ ((row / (8 / C)) & (C - 1)))) * 16;
}

// Starts the copies of N tokens of this head, from `first` on, to adjacent tiles.
template <int D, int N, int TILES>
__device__ __forceinline__ void load_tiles(uint32_t to, const Head &here, int first, const bf16 *const (&x)[TILES],
                                           const Part (&part)[TILES]) {
#pragma unroll 1 // unrolled, their addresses would take registers from the products
  for (int i = threadIdx.x; i < N * (D / 8); i += THREADS) {
    const int row = i / (D / 8), chunk = i % (D / 8);
    const bool inside = first + row < here.tokens && chunk * 8 < here.d;
#pragma unroll
    for (int t = 0; t < TILES; t++)
      cp_async_16(to + t * N * D * 2 + at<D>(row, chunk), inside ? x[t] + position(here, part[t], first + row, chunk * 8) : x[t],
                  inside ? 16 : 0);
  }
}

// The same for two floats per token.
template <int N> __device__ __forceinline__ void load_statistics(uint32_t to, const Head &here, int first, const float2 *x) {
  const int i = threadIdx.x * 2, left = max(0, min(2, here.tokens - first - i));
  if (i < N) cp_async_16(to + i * 8, left > 0 ? x + here.statistics() + first + i : x, left * 8);
}

// Waits until the tile at hand is there, and all threads are done with the one before it, whose buffer is then free.
__device__ __forceinline__ void next_tile() {
  cp_async_wait<0>();
  __syncthreads();
}

// acc = a bᵀ: 16 rows of the tile `a` from `row` on, against 8 N rows of the tile `b`. Lane (g, j) = (lane / 4, lane % 4)
// has rows g (acc[n][0], acc[n][1]) and g + 8 (acc[n][2], acc[n][3]), columns 8 n + 2 j and the next.
template <int D, int N> __device__ __forceinline__ void multiply_nt(float (&acc)[N][4], uint32_t a, int row, uint32_t b) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < N; n++) acc[n][0] = acc[n][1] = acc[n][2] = acc[n][3] = 0.f;
  const uint32_t pa = a + at<D>(row + lane % 16, lane / 16), pb = b + at<D>(lane % 8 + lane / 16 * 8, lane / 8 % 2);
#pragma unroll
  for (int k = 0; k < D / 16; k++) {
    uint32_t fa[4], fb[4];
    ldmatrix_x4(fa, pa ^ 32 * k);
#pragma unroll
    for (int n = 0; n < N; n += 2) {
      ldmatrix_x4(fb, (pb ^ 32 * k) + 16 * n * D);
      mma_m16n8k16_bf16(acc[n], fa, fb[0], fb[1]);
      mma_m16n8k16_bf16(acc[n + 1], fa, fb[2], fb[3]);
    }
  }
}

// What `multiply_nt` leaves, rounded to bf16, as the left side of `multiply_nn`.
template <int N> struct Operand {
  uint32_t pairs[N][2];
  __device__ __forceinline__ explicit Operand(const float (&x)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) pairs[n][0] = bf16_pair(x[n][0], x[n][1]), pairs[n][1] = bf16_pair(x[n][2], x[n][3]);
  }
  __device__ __forceinline__ float operator()(int n, int e) const {
    return e % 2 ? bf16_high(pairs[n][e / 2]) : bf16_low(pairs[n][e / 2]);
  }
};

// acc += p b: p against 8 N rows of the tile `b`; acc has D columns.
template <int D, int N>
__device__ __forceinline__ void multiply_nn(float (&acc)[D / 8][4], const Operand<N> &p, uint32_t b) {
  const int lane = threadIdx.x % 32;
  const uint32_t pb = b + at<D>(lane % 16, lane / 16);
#pragma unroll
  for (int k = 0; k < N; k += 2) {
    const uint32_t fa[4] = {p.pairs[k][0], p.pairs[k][1], p.pairs[k + 1][0], p.pairs[k + 1][1]};
#pragma unroll
    for (int c = 0; c < D / 8; c += 2) {
      uint32_t fb[4];
      ldmatrix_x4_trans(fb, (pb ^ 16 * c) + 16 * k * D);
      mma_m16n8k16_bf16(acc[c], fa, fb[0], fb[1]);
      mma_m16n8k16_bf16(acc[c + 1], fa, fb[2], fb[3]);
    }
  }
}

// Writes a warp's 16 rows, scaled by `scale` (rows g and g + 8), to its tokens: through rows of a tile that this warp alone
// uses, so that each store has 16 bytes.
template <int D>
__device__ __forceinline__ void store_rows(const Head &here, bf16 *x, Part part, const float (&acc)[D / 8][4],
                                           const float (&scale)[2], unsigned char *tile) {
  const int row = threadIdx.x / 32 * 16;
  const int lane = threadIdx.x % 32, g = lane / 4, j = lane % 4;
  __syncwarp();
#pragma unroll
  for (int c = 0; c < D / 8; c++)
#pragma unroll
    for (int h = 0; h < 2; h++)
      *reinterpret_cast<uint32_t *>(tile + at<D>(row + g + 8 * h, c) + 4 * j) =
          bf16_pair(acc[c][2 * h] * scale[h], acc[c][2 * h + 1] * scale[h]);
  __syncwarp();
#pragma unroll
  for (int i = lane; i < 2 * D; i += 32) { // 16 rows of D / 8 chunks
    const int r = row + i / (D / 8), chunk = i % (D / 8);
    if (here.first + r < here.tokens && chunk * 8 < here.d)
      *reinterpret_cast<uint4 *>(x + position(here, part, here.first + r, chunk * 8)) =
          *reinterpret_cast<const uint4 *>(tile + at<D>(r, chunk));
  }
}

// ---------------------------------------------------------------------------------------------------- forward
template <int D>
__device__ __forceinline__ void forward(const bf16 *qkv, bf16 *o, float *lse, int tokens, int d, float scale) {
  constexpr int COLS = 64, TILE = COLS * D * 2;
  DYN_SHARED(unsigned char, smem); // q, then two buffers of k and v
  const Head here(tokens, d, ROWS);
  const int row = threadIdx.x / 32 * 16; // the warp's first
  const int lane = threadIdx.x % 32, j = lane % 4;
  const uint32_t sq = smem_u32(smem), skv = sq + ROWS * D * 2;

  auto load_kv = [&](int tile) {
    const uint32_t to = skv + tile % 2 * 2 * TILE;
    load_tiles<D, COLS>(to, here, tile * COLS, {qkv, qkv}, {K, V});
    cp_async_commit();
  };
  const int tiles = (tokens + COLS - 1) / COLS;
  load_tiles<D, ROWS>(sq, here, here.first, {qkv}, {Q});
  load_kv(0);

  const float scale2 = scale * LOG2E;
  float acc[D / 8][4] = {}, top[2] = {NEG_INF, NEG_INF}, sum[2] = {};
  for (int tile = 0; tile < tiles; tile++) {
    next_tile();
    if (tile + 1 < tiles) load_kv(tile + 1);
    const uint32_t sk = skv + tile % 2 * 2 * TILE;
    float s[COLS / 8][4];
    multiply_nt<D>(s, sq, row, sk);

    const int left = tokens - tile * COLS; // keys from here on
    if (left < COLS) {
#pragma unroll
      for (int n = 0; n < COLS / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          if (8 * n + 2 * j + e % 2 >= left) s[n][e] = NEG_INF;
    }
    float new_top[2] = {top[0], top[1]}; // a tile has a key that exists: finite, unless the scores are not
#pragma unroll
    for (int n = 0; n < COLS / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) new_top[e / 2] = fmaxf(new_top[e / 2], s[n][e]);
#pragma unroll
    for (int h = 0; h < 2; h++) {
      new_top[h] = fmaxf(new_top[h], __shfl_xor_sync(0xffffffffu, new_top[h], 1));
      new_top[h] = fmaxf(new_top[h], __shfl_xor_sync(0xffffffffu, new_top[h], 2));
      const float shrink = exp2_approx((top[h] - new_top[h]) * scale2);
      top[h] = new_top[h];
      sum[h] *= shrink;
#pragma unroll
      for (int i = 0; i < D / 8; i++) acc[i][2 * h] *= shrink, acc[i][2 * h + 1] *= shrink;
    }
#pragma unroll
    for (int n = 0; n < COLS / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        s[n][e] = exp2_approx((s[n][e] - top[e / 2]) * scale2);
        sum[e / 2] += s[n][e];
      }
    multiply_nn<D>(acc, Operand(s), sk + TILE);
  }

  float inverse[2];
#pragma unroll
  for (int h = 0; h < 2; h++) {
    sum[h] = warp_sum(sum[h], 4);
    inverse[h] = 1.f / sum[h];
    const int query = here.first + row + lane / 4 + 8 * h;
    if (lse && j == 0 && query < tokens)
      lse[here.statistics() + query] = top[h] * scale2 + __log2f(sum[h]);
  }
  store_rows<D>(here, o, O, acc, inverse, smem);
}

// ---------------------------------------------------------------------------------------------------- VJP: dq, delta
template <int D>
__device__ __forceinline__ void vjp_q(const bf16 *qkv, const bf16 *o, const bf16 *d_o, const float *lse, bf16 *dqkv, float2 *statistics,
                                      int tokens, int d, float scale) {
  constexpr int COLS = 32, TILE = COLS * D * 2;
  DYN_SHARED(unsigned char, smem); // q, do, then two buffers of k and v
  const Head here(tokens, d, ROWS);
  const int row = threadIdx.x / 32 * 16; // the warp's first
  const int lane = threadIdx.x % 32, g = lane / 4, j = lane % 4;
  const uint32_t sq = smem_u32(smem), sdo = sq + ROWS * D * 2, skv = sdo + ROWS * D * 2;
  const uint32_t head_statistics = here.statistics();

  auto load_kv = [&](int tile) {
    const uint32_t to = skv + tile % 2 * 2 * TILE;
    load_tiles<D, COLS>(to, here, tile * COLS, {qkv, qkv}, {K, V});
    cp_async_commit();
  };
  const int tiles = (tokens + COLS - 1) / COLS;
  load_tiles<D, ROWS>(sq, here, here.first, {qkv, d_o}, {Q, O});
  load_kv(0);

  // delta = Σ_c do o of the warp's 16 rows: D / 8 lanes have a row
  float row_delta[2] = {}, row_lse[2];
  constexpr int LANES = D / 8;
#pragma unroll
  for (int i = 0; i < 16 * LANES; i += 32) {
    const int r = (i + lane) / LANES, chunk = lane % LANES, query = here.first + row + r;
    float x[8] = {}, y[8] = {}, sum = 0.f;
    if (query < tokens && chunk * 8 < d) {
      load(x, o + position(here, O, query, chunk * 8));
      load(y, d_o + position(here, O, query, chunk * 8));
    }
#pragma unroll
    for (int e = 0; e < 8; e++) sum += x[e] * y[e];
    sum = warp_sum(sum, LANES);
    if (chunk == 0 && query < tokens)
      statistics[head_statistics + query] = make_float2(lse[head_statistics + query], sum);
    // rows i / LANES .. + 32 / LANES are here: hand them to the lanes whose rows they are
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int row = g + 8 * h - i / LANES;
      const float other = __shfl_sync(0xffffffffu, sum, row * LANES & 31);
      if (row >= 0 && row < 32 / LANES) row_delta[h] = other;
    }
  }
#pragma unroll
  for (int h = 0; h < 2; h++) {
    const int query = here.first + row + g + 8 * h;
    row_lse[h] = query < tokens ? lse[head_statistics + query] : 0.f;
  }

  const float scale2 = scale * LOG2E;
  float dq[D / 8][4] = {};
  for (int tile = 0; tile < tiles; tile++) {
    next_tile();
    if (tile + 1 < tiles) load_kv(tile + 1);
    const uint32_t sk = skv + tile % 2 * 2 * TILE;
    float ds[COLS / 8][4], dp[COLS / 8][4];
    multiply_nt<D>(ds, sq, row, sk);
    multiply_nt<D>(dp, sdo, row, sk + TILE);
    const int left = tokens - tile * COLS;
#pragma unroll
    for (int n = 0; n < COLS / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const float p = 8 * n + 2 * j + e % 2 < left ? exp2_approx(ds[n][e] * scale2 - row_lse[e / 2]) : 0.f;
        ds[n][e] = p * (dp[n][e] - row_delta[e / 2]);
      }
    multiply_nn<D>(dq, Operand(ds), sk);
  }
  const float scales[2] = {scale, scale};
  store_rows<D>(here, dqkv, Q, dq, scales, smem);
}

// ---------------------------------------------------------------------------------------------------- VJP: dk, dv
template <int D>
__device__ __forceinline__ void vjp_kv(const bf16 *qkv, const bf16 *d_o, const float2 *statistics, bf16 *dqkv,
                                       int tokens, int d, float scale) {
  constexpr int COLS = 32, TILE = COLS * D * 2, BUFFER = 2 * TILE + COLS * 8;
  DYN_SHARED(unsigned char, smem); // k, v, then two buffers of q, do, lse and delta
  const Head here(tokens, d, ROWS);
  const int row = threadIdx.x / 32 * 16; // the warp's first
  const int lane = threadIdx.x % 32, j = lane % 4;
  const uint32_t sk = smem_u32(smem), sv = sk + ROWS * D * 2;

  auto load_q = [&](int tile) {
    const uint32_t to = sk + 2 * ROWS * D * 2 + tile % 2 * BUFFER;
    load_tiles<D, COLS>(to, here, tile * COLS, {qkv, d_o}, {Q, O});
    load_statistics<COLS>(to + 2 * TILE, here, tile * COLS, statistics);
    cp_async_commit();
  };
  const int tiles = (tokens + COLS - 1) / COLS;
  load_tiles<D, ROWS>(sk, here, here.first, {qkv, qkv}, {K, V});
  load_q(0);

  const float scale2 = scale * LOG2E;
  float dk[D / 8][4] = {}, dv[D / 8][4] = {};
  for (int tile = 0; tile < tiles; tile++) {
    next_tile();
    if (tile + 1 < tiles) load_q(tile + 1);
    const int buffer = 2 * ROWS * D * 2 + tile % 2 * BUFFER;
    const uint32_t sq = sk + buffer;
    // Lane j's columns 8 n + 2 j and the next: lse, delta, lse, delta.
    auto two = [&](int n) { return *reinterpret_cast<const float4 *>(smem + buffer + 2 * TILE + (8 * n + 2 * j) * 8); };
    // A query past T has q, do, lse and delta zero: p = 1, ds = 0, and it adds nothing.
    float s[COLS / 8][4];
    multiply_nt<D>(s, sk, row, sq);
#pragma unroll
    for (int n = 0; n < COLS / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) s[n][e] = exp2_approx(s[n][e] * scale2 - (e % 2 ? two(n).z : two(n).x));
    const Operand p(s);
    multiply_nn<D>(dv, p, sq + TILE);
    multiply_nt<D>(s, sv, row, sq + TILE);
#pragma unroll
    for (int n = 0; n < COLS / 8; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) s[n][e] = p(n, e) * (s[n][e] - (e % 2 ? two(n).w : two(n).y));
    multiply_nn<D>(dk, Operand(s), sq);
  }
  const float scales[2] = {scale, scale}, ones[2] = {1.f, 1.f};
  store_rows<D>(here, dqkv, K, dk, scales, smem);
  store_rows<D>(here, dqkv, V, dv, ones, smem);
}

} // namespace

#define ENTRIES(D, BLOCKS)                                                                                                    \
  ATTENTION_ENTRY(attention_forward_bf16_d##D, THREADS, BLOCKS,                                                               \
                  (const bf16 *qkv, bf16 *o, float *lse, int tokens, int d, float scale),                                     \
                  forward<D>(qkv, o, lse, tokens, d, scale))                                                                  \
  ATTENTION_ENTRY(attention_vjp_q_bf16_d##D, THREADS, BLOCKS,                                                                 \
                  (const bf16 *qkv, const bf16 *o, const bf16 *d_o, const float *lse, bf16 *dqkv, float2 *statistics,         \
                   int tokens, int d, float scale),                                                                           \
                  vjp_q<D>(qkv, o, d_o, lse, dqkv, statistics, tokens, d, scale))                                             \
  ATTENTION_ENTRY(attention_vjp_kv_bf16_d##D, THREADS, BLOCKS,                                                                \
                  (const bf16 *qkv, const bf16 *d_o, const float2 *statistics, bf16 *dqkv, int tokens, int d, float scale),   \
                  vjp_kv<D>(qkv, d_o, statistics, dqkv, tokens, d, scale))
ENTRIES(16, 2)
ENTRIES(32, 2)
ENTRIES(64, 2)
ENTRIES(128, 1)
