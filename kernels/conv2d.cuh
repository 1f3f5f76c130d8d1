// Convolution as an implicit matrix product on NHWC: y[pixel, o] = sum_k x[pixel, k] w[k, o], k over (window, tap, channel).
//
// Everything that is linear in pixels is a sum over windows, and one kernel serves all of it, on weights packed for it
// (conv2d_pack.cu): 3x3 of stride 1 and 2; the input's gradient (stride 1: flipped taps; stride 2: four phases of output
// pixels, of 1, 2, 2 and 4 taps); 1x1; the decoder's merge, conv(concat(upsample(x), skip)), whose four phases read x
// through 2x2 summed taps and skip through 3x3, so that nothing is copied and x costs 4 taps where it would be 9; and that
// merge's gradient for x, 4x4 taps of stride 2 where it would be 9 for each of 4 pixels.
//
// A block owns BM output pixels x BN channels, a warp 16 MI x 32. K runs in steps of 64 bytes per row (32 bf16, 16 f32)
// through STAGES buffers that cp.async fills, zeros where the window leaves the image; 16-byte chunks are XOR-swizzled so
// that neither the copies nor ldmatrix meet a bank conflict. bf16 multiplies by mma.sync m16n8k16, f32 by FFMA.
// Order of a sum: k ascending, in steps that do not depend on the tile, hence on the batch. Weights are packed so that the
// accumulators of a thread are 8 neighbouring channels (packed_channel): epilogues load and store 16 bytes at a time.
//
// bf16: ldmatrix moves (16 MI + 32) x 32 bytes per 16 MI x 32 x 16 products; 64 x 32 warps stay under the 128 B/clock of
// shared memory at the rate of mma.sync. Floor of a call: 2 pixels c_out K FLOP at the matrix peak, or
// 2 (pixels c_in + pixels c_out (1 + arrays of the epilogue) + K c_out) bytes at the memory's.
#pragma once
#include "epilogue.cuh"
#include "gpu_ptx.cuh"

/// Input pixel (n, stride p + i0 + r, stride q + j0 + s), r < kh, s < kw, of output pixel (n, p, q); zero outside.
struct Window {
  const void *x; // (N, h, w, c)
  int h, w, c;
  int stride, i0, j0, kh, kw;
};

/// The output pixels (n, step p + a, step q + b), p < h, q < w.
struct Phase {
  Window in[2];
  const void *weights; // (K / BK, c_out rounded up to 32, BK), as conv2d_pack writes them
  int h, w, a, b;
};

struct Conv2dArgs {
  Phase phase[4]; // blockIdx.z
  void *y;        // (n, h, w, c)
  int n, h, w, c;
  int step, blocks_n; // blocks_n: blocks along the channels
};

constexpr int STAGES = 4, ROW = 64; // bytes of a row in shared memory

/// Byte offset of 16-byte chunk `q` of row `r`: any 8 rows of one chunk, and any 2 whole rows, touch all banks once.
__device__ __forceinline__ uint32_t swizzled(int r, int q) { return r * ROW + ((q ^ (r >> 1 & 3)) << 4); }

/// The channel that row `r` of the packed weights holds: columns 2 t, 2 t + 1 of four mma tiles are 8 t .. 8 t + 7.
__host__ __device__ __forceinline__ int packed_channel(int r) {
  return (r & ~31) + 8 * (r >> 1 & 3) + 2 * (r >> 3 & 3) + (r & 1);
}

/// How the rows of A are read: channels in whole 16-byte chunks, from one window or two; or element by element.
enum Source { ALIGNED, MERGED, GATHERED };

/// The rows of A: a thread copies chunk t % 4 of ROWS pixels, and walks with it through windows, taps and channels.
template <class T, int BM, int THREADS, Source SOURCE> struct Pixels {
  static constexpr int CHUNK = 16 / sizeof(T), ROWS = BM * 4 / THREADS, PARTS = SOURCE == MERGED ? 2 : 1;
  int n[ROWS], p[ROWS], q[ROWS], at[ROWS]; // at: offset of the tap's pixel, -1 outside
  int part = 0, r = 0, s = 0, c;

  __device__ __forceinline__ Pixels(const Conv2dArgs &args, const Phase &phase, int m0) : c(threadIdx.x % 4 * CHUNK) {
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const int m = m0 + threadIdx.x / 4 + i * (THREADS / 4), pixel = m % (phase.h * phase.w);
      n[i] = m / (phase.h * phase.w);
      p[i] = n[i] < args.n ? pixel / phase.w : -(1 << 20); // far outside
      q[i] = pixel % phase.w;
    }
    wrap(phase);
    locate(phase);
  }
  static __device__ __forceinline__ const Window &window(const Phase &phase, int part) {
    return phase.in[PARTS == 1 ? 0 : part];
  }
  /// Carries channels beyond the window's last into the next tap; past the last tap of the last window r is kh.
  __device__ __forceinline__ bool wrap(const Phase &phase) {
    bool moved = false;
    while (c >= window(phase, part).c && r < window(phase, part).kh) {
      const Window &in = window(phase, part);
      c -= in.c;
      moved = true;
      if (++s == in.kw) s = 0, r++;
      if (part + 1 < PARTS && r == in.kh) r = 0, part++;
    }
    return moved;
  }
  /// Finds the pixels of the present tap.
  __device__ __forceinline__ void locate(const Phase &phase) {
    const Window &in = window(phase, part);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const int y = p[i] * in.stride + in.i0 + r, x = q[i] * in.stride + in.j0 + s;
      const bool inside = r < in.kh && (unsigned)y < (unsigned)in.h && (unsigned)x < (unsigned)in.w;
      at[i] = inside ? ((n[i] * in.h + y) * in.w + x) * in.c : -1;
    }
  }
  __device__ __forceinline__ void copy(const Phase &phase, unsigned char *stage) {
    const T *x = static_cast<const T *>(window(phase, part).x);
    unsigned char *to = stage + swizzled(threadIdx.x / 4, threadIdx.x % 4);
    if constexpr (SOURCE == GATHERED) {
      T chunk[ROWS][CHUNK];
#pragma unroll
      for (int e = 0; e < CHUNK; e++) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) chunk[i][e] = at[i] < 0 ? from_float<T>(0.f) : x[at[i] + c];
        c++;
        if (wrap(phase)) locate(phase);
      }
#pragma unroll
      for (int i = 0; i < ROWS; i++) {
        uint4 bits;
        memcpy(&bits, chunk[i], sizeof bits);
        *reinterpret_cast<uint4 *>(to + i * (THREADS / 4) * ROW) = bits;
      }
    } else {
#pragma unroll
      for (int i = 0; i < ROWS; i++)
        cp_async_16(smem_u32(to + i * (THREADS / 4) * ROW), x + (at[i] < 0 ? 0 : at[i] + c), at[i] < 0 ? 0 : 16);
    }
    c += (SOURCE == GATHERED ? 3 : 4) * CHUNK;
    if (wrap(phase)) locate(phase);
  }
};

/// acc += A B over one stage. Lane (g, t) = (lane / 4, lane % 4) holds rows 16 i + 8 h + g and columns 8 j + 2 t + e of its
/// warp's tile in acc[i][j][2 h + e], whichever type multiplies.
template <int MI> __device__ __forceinline__ void multiply(float (&acc)[MI][4][4], const bf16 *a, const bf16 *b) {
  const int lane = threadIdx.x % 32;
  const uint32_t a0 = smem_u32(a), b0 = smem_u32(b);
#pragma unroll
  for (int k = 0; k < 2; k++) {
    uint32_t fa[MI][4], fb[2][4];
#pragma unroll
    for (int i = 0; i < MI; i++) ldmatrix_x4(fa[i], a0 + swizzled(i * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
    for (int j = 0; j < 2; j++)
      ldmatrix_x4(fb[j], b0 + swizzled(j * 16 + lane / 16 * 8 + lane % 8, 2 * k + (lane / 8 & 1)));
#pragma unroll
    for (int i = 0; i < MI; i++)
#pragma unroll
      for (int j = 0; j < 4; j++) mma_m16n8k16_bf16(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
  }
}
template <int MI> __device__ __forceinline__ void multiply(float (&acc)[MI][4][4], const float *a, const float *b) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const auto row = [](const float *tile, int r, int q) {
    return *reinterpret_cast<const float4 *>(reinterpret_cast<const unsigned char *>(tile) + swizzled(r, q));
  };
#pragma unroll
  for (int q = 0; q < 4; q++) {
    float4 fa[MI][2];
#pragma unroll
    for (int i = 0; i < MI; i++) fa[i][0] = row(a, i * 16 + g, q), fa[i][1] = row(a, i * 16 + 8 + g, q);
#pragma unroll
    for (int j = 0; j < 4; j++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const float4 fb = row(b, j * 8 + 2 * t + e, q);
#pragma unroll
        for (int i = 0; i < MI; i++)
#pragma unroll
          for (int h = 0; h < 2; h++) {
            float &sum = acc[i][j][2 * h + e];
            sum = fmaf(fa[i][h].x, fb.x, sum), sum = fmaf(fa[i][h].y, fb.y, sum);
            sum = fmaf(fa[i][h].z, fb.z, sum), sum = fmaf(fa[i][h].w, fb.w, sum);
          }
      }
  }
}

/// The pixel of the output that is number `m` of a phase.
__device__ __forceinline__ int output_pixel(const Conv2dArgs &args, const Phase &phase, int m) {
  const int n = m / (phase.h * phase.w), p = m / phase.w % phase.h, q = m % phase.w;
  return (n * args.h + args.step * p + phase.a) * args.w + args.step * q + phase.b;
}

template <class T, int BM, int BN, int MI, Source SOURCE, class Epilogue>
__device__ __forceinline__ void conv2d(const Conv2dArgs &args, const EpilogueArgs &e) {
  constexpr int THREADS = BM / (16 * MI) * BN, BK = ROW / sizeof(T), STAGE = (BM + BN) * ROW;
  const Phase &phase = args.phase[blockIdx.z];
  const int m0 = blockIdx.x / args.blocks_n * BM, n0 = blockIdx.x % args.blocks_n * BN;
  if (m0 >= args.n * phase.h * phase.w) return;
  const int rows = (args.c + 31) / 32 * 32; // of the packed weights
  int steps = 0;
#pragma unroll
  for (int i = 0; i < (SOURCE == MERGED ? 2 : 1); i++)
    steps += (phase.in[i].kh * phase.in[i].kw * phase.in[i].c + BK - 1) / BK;

  // Copies of step k into its buffer.
  DYN_SHARED(unsigned char, smem);
  Pixels<T, BM, THREADS, SOURCE> pixels(args, phase, m0);
  const T *weights = static_cast<const T *>(phase.weights) + (size_t)n0 * BK + threadIdx.x * (16 / sizeof(T));
  const auto copy = [&](int k) {
    if (k < steps) {
      unsigned char *stage = smem + k % STAGES * STAGE;
      pixels.copy(phase, stage);
#pragma unroll
      for (int i = 0; i < BN * 4 / THREADS; i++) {
        const int row = threadIdx.x / 4 + i * (THREADS / 4);
        const bool inside = n0 + row < rows;
        cp_async_16(smem_u32(stage + BM * ROW + swizzled(row, threadIdx.x % 4)),
                    weights + (inside ? i * (THREADS / 4) * BK : 0), inside ? 16 : 0);
      }
      weights += rows * BK;
    }
    cp_async_commit();
  };

  // The products; a buffer is refilled once all have read it.
  const int warp = threadIdx.x / 32, wm = warp / (BN / 32) * 16 * MI, wn = warp % (BN / 32) * 32;
  float acc[MI][4][4] = {};
#pragma unroll 1
  for (int k = 0; k < STAGES - 1; k++) copy(k);
#pragma unroll 1
  for (int k = 0; k < steps; k++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    copy(k + STAGES - 1);
    const unsigned char *stage = smem + k % STAGES * STAGE;
    multiply<MI>(acc, reinterpret_cast<const T *>(stage + wm * ROW),
                 reinterpret_cast<const T *>(stage + (BM + wn) * ROW));
  }
  cp_async_wait<0>();

  // A thread's 8 channels of 2 MI pixels.
  const int g = threadIdx.x % 32 / 4, c = n0 + wn + threadIdx.x % 4 * 8;
  if (c >= args.c) return;
#pragma unroll
  for (int i = 0; i < MI; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      const int m = m0 + wm + i * 16 + h * 8 + g;
      if (m >= args.n * phase.h * phase.w) continue;
      const Channels o{args.step == 1 ? m : output_pixel(args, phase, m), c, args.c};
      float v[8];
#pragma unroll
      for (int j = 0; j < 4; j++) v[2 * j] = acc[i][j][2 * h], v[2 * j + 1] = acc[i][j][2 * h + 1];
      Epilogue::apply(v, e, o);
      store_channels(static_cast<T *>(args.y) + o.at(), v, o);
    }
}

/// A kernel per tile and source; blocks per SM are what 128 registers allow in bf16, 255 in f32.
#define CONV2D(NAME, T, BM, BN, MI, SOURCE, EPILOGUE)                                                                  \
  extern "C" __global__ void __launch_bounds__(BM / (16 * MI) * BN, 1024 / sizeof(T) / (BM / (16 * MI) * BN))               \
      NAME(const __grid_constant__ Conv2dArgs args, const __grid_constant__ EpilogueArgs e) {                          \
    conv2d<T, BM, BN, MI, SOURCE, EPILOGUE<T>>(args, e);                                                               \
  }                                                                                                                    \
  KERNEL_ENTRY(NAME)
#define CONV2D_TILES(WHAT, TYPE, T, SOURCE, EPILOGUE)                                                                  \
  CONV2D(conv2d_##WHAT##_128x128_##TYPE, T, 128, 128, 4, SOURCE, EPILOGUE)                                             \
  CONV2D(conv2d_##WHAT##_128x64_##TYPE, T, 128, 64, 4, SOURCE, EPILOGUE)                                               \
  CONV2D(conv2d_##WHAT##_64x32_##TYPE, T, 64, 32, 1, SOURCE, EPILOGUE)
#define CONV2D_KERNELS(TYPE, T)                                                                                        \
  CONV2D_TILES(bias, TYPE, T, ALIGNED, Bias)                                                                           \
  CONV2D_TILES(silu, TYPE, T, ALIGNED, Silu)                                                                           \
  CONV2D_TILES(times, TYPE, T, ALIGNED, Times)                                                                         \
  CONV2D_TILES(residual, TYPE, T, ALIGNED, Residual)                                                                   \
  CONV2D_TILES(merged_bias, TYPE, T, MERGED, Bias)                                                                     \
  CONV2D(conv2d_gathered_bias_64x32_##TYPE, T, 64, 32, 1, GATHERED, Bias)                                              \
  CONV2D(conv2d_gathered_silu_64x32_##TYPE, T, 64, 32, 1, GATHERED, Silu)                                              \
  CONV2D(conv2d_gathered_times_64x32_##TYPE, T, 64, 32, 1, GATHERED, Times)                                            \
  CONV2D(conv2d_gathered_residual_64x32_##TYPE, T, 64, 32, 1, GATHERED, Residual)
