// The parameter gradients of a convolution or linear layer.
//
//   dw[o, c, r, s] += sum over n, i, j of dy[n, i, j, o] x[n, stride i + r - pad, stride j + s - pad, c],  pad = width / 2
//   db[o] += sum over n, i, j of dy[n, i, j, o]
//
// x (n, h, w, c_in): one array, or concat(upsample(x1), x2), whose parts are read where they are; dy (n, h', w', c_out).
// A matrix product of depth pixels: a block owns 128 output channels x 128 columns (tap, c), a warp 64 x 64, over one piece of
// the pixels (blockIdx.z), which it copies in steps of 64 bytes' worth (32 bf16, 16 f32) through 4 stages of cp.async. Sums
// of the pieces go to `partial` (pieces, c_out, taps, c_in), f32, and conv2d_vjp_params_add_f32 adds them in order: no atomics,
// and the order depends on the extents alone. The bias' sums are taken by the blocks of the first columns.
//
// bf16: mma.sync m16n8k16 with both operands transposed by ldmatrix. f32: FFMA. Gathered: channels that are no multiple of
// 16 bytes, element by element. Shared: 64 KiB. Floor: 2 pixels c_out taps c_in FLOP; bytes: x and dy once, partial twice.
#include "gpu_ptx.cuh"
#include "vec.cuh"

struct Part {
  const void *x; // (n, h >> shift, w >> shift, c)
  int c, shift;
};
struct VjpParamsArgs {
  Part in[2];
  const void *dy;    // (n, h_out, w_out, c_out)
  float *dw, *db;    // partial sums: (pieces, c_out, taps c_in), and (pieces, c_out) or null
  int n, h, w, c_in; // c_in: of both parts
  int h_out, w_out, c_out;
  int stride, width, steps; // steps of a piece
};

namespace {

constexpr int BM = 128, BN = 128, MI = 4, NJ = 8, THREADS = 128, STAGES = 4;

/// A tile in shared memory: a row per pixel, 128 channels; chunks of 16 bytes are XOR-swizzled for ldmatrix.
template <class T> struct Tile {
  static constexpr int PIXELS = 64 / sizeof(T), CHUNK = 16 / sizeof(T), CHUNKS = 128 / CHUNK, BYTES = 8192;
  static __device__ __forceinline__ uint32_t at(int pixel, int chunk) {
    return (pixel * CHUNKS + (chunk ^ (pixel & 7))) * 16;
  }
};


/// What a thread copies: one chunk of columns of PASSES pixels.
template <class T, bool GATHERED> struct Columns {
  using Tile = ::Tile<T>;
  static constexpr int ROWS = THREADS / Tile::CHUNKS, PASSES = Tile::PIXELS / ROWS;
  const VjpParamsArgs &args;
  int m0, o, column;
  int n[PASSES], i[PASSES], j[PASSES];

  __device__ __forceinline__ Columns(const VjpParamsArgs &args, int m0, int o0, int column0)
      : args(args), m0(m0), o(o0 + threadIdx.x % Tile::CHUNKS * Tile::CHUNK),
        column(column0 + threadIdx.x % Tile::CHUNKS * Tile::CHUNK) {
    for (int pass = 0; pass < PASSES; pass++) {
      const int m = m0 + threadIdx.x / Tile::CHUNKS + pass * ROWS;
      n[pass] = m / (args.h_out * args.w_out), i[pass] = m / args.w_out % args.h_out, j[pass] = m % args.w_out;
    }
  }
  /// x at column `k` of a pass's pixel; null outside.
  __device__ __forceinline__ const T *x(int pass, int k) const {
    const int tap = k / args.c_in, pad = args.width / 2;
    const int y = i[pass] * args.stride + tap / args.width - pad, x = j[pass] * args.stride + tap % args.width - pad;
    if (n[pass] >= args.n || tap >= args.width * args.width) return nullptr;
    if ((unsigned)y >= (unsigned)args.h || (unsigned)x >= (unsigned)args.w) return nullptr;
    int c = k % args.c_in;
    const bool second = c >= args.in[0].c;
    if (second) c -= args.in[0].c;
    const Part &in = args.in[second];
    const size_t pixel = ((size_t)n[pass] * (args.h >> in.shift) + (y >> in.shift)) * (args.w >> in.shift) + (x >> in.shift);
    return static_cast<const T *>(in.x) + pixel * in.c + c;
  }
  /// dy at channel `k` of a pass's pixel; null outside.
  __device__ __forceinline__ const T *dy(int pass, int k) const {
    if (n[pass] >= args.n || k >= args.c_out) return nullptr;
    const size_t pixel = ((size_t)n[pass] * args.h_out + i[pass]) * args.w_out + j[pass];
    return static_cast<const T *>(args.dy) + pixel * args.c_out + k;
  }
  __device__ __forceinline__ void copy(unsigned char *stage) {
#pragma unroll
    for (int pass = 0; pass < PASSES; pass++) {
      const uint32_t to = Tile::at(threadIdx.x / Tile::CHUNKS + pass * ROWS, threadIdx.x % Tile::CHUNKS);
      chunk(stage + to, o, [&](int k) { return dy(pass, k); });
      chunk(stage + Tile::BYTES + to, column, [&](int k) { return x(pass, k); });
      advance(pass);
    }
  }
  template <class F> __device__ __forceinline__ void chunk(unsigned char *to, int first, F element) const {
    if constexpr (GATHERED) {
      T values[Tile::CHUNK];
#pragma unroll
      for (int e = 0; e < Tile::CHUNK; e++) {
        const T *from = element(first + e);
        values[e] = from ? *from : from_float<T>(0.f);
      }
      uint4 bits;
      memcpy(&bits, values, sizeof bits);
      *reinterpret_cast<uint4 *>(to) = bits;
    } else {
      const T *from = element(first);
      cp_async_16(smem_u32(to), from ? from : static_cast<const T *>(args.dy), from ? 16 : 0);
    }
  }
  /// To the pixel PIXELS further on.
  __device__ __forceinline__ void advance(int pass) {
    j[pass] += Tile::PIXELS % args.w_out;
    i[pass] += Tile::PIXELS / args.w_out % args.h_out;
    n[pass] += Tile::PIXELS / (args.w_out * args.h_out);
    if (j[pass] >= args.w_out) j[pass] -= args.w_out, i[pass]++;
    if (i[pass] >= args.h_out) i[pass] -= args.h_out, n[pass]++;
  }
};

/// acc += dy^T x over one stage. `row` and `column` say which of its warp's 64 x 64 sums a lane holds in acc[i][j][2 h + e].
template <class T> struct Product;
template <> struct Product<bf16> {
  static __device__ __forceinline__ int row(int i, int h) { return 16 * i + 8 * h + threadIdx.x % 32 / 4; }
  static __device__ __forceinline__ int column(int j, int e) { return 8 * j + 2 * (threadIdx.x % 4) + e; }
  static __device__ __forceinline__ void add(float (&acc)[MI][NJ][4], const unsigned char *stage, int wm, int wn) {
    const int lane = threadIdx.x % 32;
    const uint32_t a = smem_u32(stage), b = a + Tile<bf16>::BYTES;
#pragma unroll
    for (int k = 0; k < 2; k++) {
      uint32_t fa[MI][4], fb[NJ / 2][4];
#pragma unroll
      for (int i = 0; i < MI; i++)
        ldmatrix_x4_trans(fa[i], a + Tile<bf16>::at(16 * k + lane / 16 * 8 + lane % 8, wm / 8 + 2 * i + (lane / 8 & 1)));
#pragma unroll
      for (int j = 0; j < NJ / 2; j++)
        ldmatrix_x4_trans(fb[j], b + Tile<bf16>::at(16 * k + lane % 16, wn / 8 + 2 * j + lane / 16));
#pragma unroll
      for (int i = 0; i < MI; i++)
#pragma unroll
        for (int j = 0; j < NJ; j++) mma_m16n8k16_bf16(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
    }
  }
};
template <> struct Product<float> {
  static __device__ __forceinline__ int row(int i, int h) { return 8 * (threadIdx.x % 32 / 4) + 2 * i + h; }
  static __device__ __forceinline__ int column(int j, int e) { return j / 4 * 32 + 8 * (threadIdx.x % 4) + j % 4 * 2 + e; }
  static __device__ __forceinline__ void add(float (&acc)[MI][NJ][4], const unsigned char *stage, int wm, int wn) {
    const auto eight = [](float (&v)[8], const unsigned char *tile, int pixel, int c) {
      const float4 low = *reinterpret_cast<const float4 *>(tile + Tile<float>::at(pixel, c / 4));
      const float4 high = *reinterpret_cast<const float4 *>(tile + Tile<float>::at(pixel, c / 4 + 1));
      v[0] = low.x, v[1] = low.y, v[2] = low.z, v[3] = low.w, v[4] = high.x, v[5] = high.y, v[6] = high.z, v[7] = high.w;
    };
#pragma unroll
    for (int k = 0; k < Tile<float>::PIXELS; k++) {
      float dy[8], x[NJ / 4][8];
      eight(dy, stage, k, wm + row(0, 0));
#pragma unroll
      for (int group = 0; group < NJ / 4; group++)
        eight(x[group], stage + Tile<float>::BYTES, k, wn + column(4 * group, 0));
#pragma unroll
      for (int i = 0; i < MI; i++)
#pragma unroll
        for (int j = 0; j < NJ; j++)
#pragma unroll
          for (int h = 0; h < 4; h++)
            acc[i][j][h] = fmaf(dy[2 * i + h / 2], x[j / 4][j % 4 * 2 + h % 2], acc[i][j][h]);
    }
  }
};

template <class T, bool GATHERED> __device__ __forceinline__ void vjp_params(const VjpParamsArgs &args) {
  using Tile = ::Tile<T>;
  DYN_SHARED(unsigned char, smem);
  const int columns = args.width * args.width * args.c_in, o0 = blockIdx.y * BM, column0 = blockIdx.x * BN;
  const int pixels = args.n * args.h_out * args.w_out, m0 = blockIdx.z * args.steps * Tile::PIXELS;
  const int steps = min(args.steps, (pixels - m0 + Tile::PIXELS - 1) / Tile::PIXELS);
  Columns<T, GATHERED> source(args, m0, o0, column0);
  const auto copy = [&](int k) {
    if (k < steps) source.copy(smem + k % STAGES * 2 * Tile::BYTES);
    cp_async_commit();
  };

  const int warp = threadIdx.x / 32, wm = warp / 2 * 64, wn = warp % 2 * 64;
  const bool bias = args.db && blockIdx.x == 0; // a channel per thread
  float acc[MI][NJ][4] = {}, db = 0.f;
#pragma unroll 1
  for (int k = 0; k < STAGES - 1; k++) copy(k);
#pragma unroll 1
  for (int k = 0; k < steps; k++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    copy(k + STAGES - 1);
    const unsigned char *stage = smem + k % STAGES * 2 * Tile::BYTES;
    Product<T>::add(acc, stage, wm, wn);
    if (bias) {
      const int chunk = threadIdx.x / Tile::CHUNK, e = threadIdx.x % Tile::CHUNK;
      for (int pixel = 0; pixel < Tile::PIXELS; pixel++)
        db += to_float(reinterpret_cast<const T *>(stage + Tile::at(pixel, chunk))[e]);
    }
  }
  cp_async_wait<0>();

  if (bias && o0 + (int)threadIdx.x < args.c_out) args.db[(size_t)blockIdx.z * args.c_out + o0 + threadIdx.x] = db;
#pragma unroll
  for (int i = 0; i < MI; i++)
#pragma unroll
    for (int j = 0; j < NJ; j++)
#pragma unroll
      for (int h = 0; h < 4; h++) {
        const int o = o0 + wm + Product<T>::row(i, h / 2), column = column0 + wn + Product<T>::column(j, h % 2);
        if (o < args.c_out && column < columns)
          args.dw[((size_t)blockIdx.z * args.c_out + o) * columns + column] = acc[i][j][h];
      }
}

} // namespace

#define VJP_PARAMS(NAME, T, GATHERED)                                                                                  \
  extern "C" __global__ void __launch_bounds__(THREADS, 2)                                                              \
      NAME(const __grid_constant__ VjpParamsArgs args) {                                                               \
    vjp_params<T, GATHERED>(args);                                                                                     \
  }                                                                                                                    \
  KERNEL_ENTRY(NAME)
VJP_PARAMS(conv2d_vjp_params_bf16, bf16, false)
VJP_PARAMS(conv2d_vjp_params_f32, float, false)
VJP_PARAMS(conv2d_vjp_params_gathered_bf16, bf16, true)
VJP_PARAMS(conv2d_vjp_params_gathered_f32, float, true)

/// dw[o, c, tap] += the sum over the pieces of partial (pieces, len = o tap c), in order. One thread per element.
extern "C" __global__ void __launch_bounds__(256)
conv2d_vjp_params_add_f32(float *__restrict__ dw, const float *__restrict__ partial, int pieces, int len, int c, int taps) {
  GRID_STRIDE(i, len) {
    float sum = 0.f;
    for (int piece = 0; piece < pieces; piece++) sum += partial[(size_t)piece * len + i];
    dw[(i / (taps * c) * c + i % c) * taps + i / c % taps] += sum;
  }
}
KERNEL_ENTRY(conv2d_vjp_params_add_f32)
