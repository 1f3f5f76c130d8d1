// The convolution's products by mma.sync m16n8k16 in bf16 (sm_80 and later), by FFMA in f32: see conv2d.cuh.
//
// A step of K is 64 bytes per row: 32 bf16, 16 f32. cp.async fills four buffers, with zeros where the window leaves the image.
// A warp owns 16 MI pixels x 32 NI channels. A block's input (BM pixels and their neighbours x 64 bytes) stays in L1 for all
// taps: without that, 128 x 128 tiles would ask 64 FLOP per byte of L2, 7 TB/s at 45% of an H100's matrix peak.
#pragma once
#include "conv2d.cuh"

constexpr int ROW = 64, STAGES = 4;

/// How the rows of A are read: channels in whole 16-byte chunks, from one window or two; or element by element.
enum Source { ALIGNED, MERGED, GATHERED };

/// The rows of A: a thread copies one of the QS chunks of ROWS pixels.
template <class T, int BM, int THREADS, Source SOURCE> struct Rows {
  static constexpr int CHUNK = 16 / sizeof(T), QS = ROW / 16, BK = QS * CHUNK;
  static constexpr int PASS = THREADS / QS, ROWS = BM / PASS, PARTS = SOURCE == MERGED ? 2 : 1;
  const Conv2dArgs &args;
  const Phase &phase;
  const int m;                // of the first pixel
  int part = 0, tap = 0, s = 0; // tap = kw r + s
  int at, c;                  // of the tap from the window's corner, in elements; the chunk's first channel
  int corner[ROWS], taps[ROWS]; // offset of the window's corner; which taps are inside the image, as bits

  __device__ __forceinline__ Rows(const Conv2dArgs &args, const Phase &phase, int m0)
      : args(args), phase(phase), m(m0 + threadIdx.x / QS) {
    start();
  }
  static __device__ __forceinline__ int steps(const Phase &phase) {
    int steps = 0;
    for (int i = 0; i < PARTS; i++) {
      const Window &in = phase.in[i];
      steps += SOURCE == GATHERED ? (in.kh * in.kw * in.c + BK - 1) / BK : (in.c + BK - 1) / BK * in.kh * in.kw;
    }
    return steps;
  }
  __device__ __forceinline__ const Window &window() const { return phase.in[PARTS == 1 ? 0 : part]; }
  /// To the first tap of the present window.
  __device__ __forceinline__ void start() {
    const Window &in = window();
    at = 0, c = threadIdx.x % QS * CHUNK;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const Pixel o(phase, m + i * PASS);
      const int y = o.p * in.stride + in.i0, x = o.q * in.stride + in.j0;
      corner[i] = ((o.n * in.h + y) * in.w + x) * in.c;
      int columns = 0;
      for (int s = 0; s < in.kw; s++) columns |= ((unsigned)(x + s) < (unsigned)in.w) << s;
      taps[i] = 0;
      for (int r = 0; r < in.kh; r++)
        if ((unsigned)(y + r) < (unsigned)in.h && o.n < args.n) taps[i] |= columns << r * in.kw;
    }
  }
  __device__ __forceinline__ void next_tap() {
    const Window &in = window();
    tap++, s++, at += in.c;
    if (s == in.kw) s = 0, at += (in.w - in.kw) * in.c;
  }
  /// Copies the chunks of a step, and goes on to the next: taps inside, blocks of channels outside.
  __device__ __forceinline__ void copy(unsigned char *stage) {
    const Window &in = window();
    const T *x = static_cast<const T *>(in.x);
    unsigned char *to = stage + swizzled<ROW>(threadIdx.x / QS, threadIdx.x % QS);
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      const bool inside = c < in.c && (taps[i] >> tap & 1);
      cp_async_16_cached(smem_u32(to + i * PASS * ROW), x + (inside ? corner[i] + at + c : 0), inside ? 16 : 0);
    }
    next_tap();
    if (tap < in.kh * in.kw) return;
    tap = at = 0, c += BK;
    if (PARTS == 2 && part == 0 && c / BK * BK >= in.c) part = 1, start();
  }
  /// The same, element by element; channels inside, taps outside, for there are few channels.
  __device__ __forceinline__ void gather(unsigned char *stage) {
    const Window &in = window();
    const T *x = static_cast<const T *>(in.x);
    const auto wrap = [&] {
      while (c >= in.c && tap < in.kh * in.kw) c -= in.c, next_tap();
    };
    T chunk[ROWS][CHUNK];
#pragma unroll
    for (int e = 0; e < CHUNK; e++, c++) {
      wrap();
#pragma unroll
      for (int i = 0; i < ROWS; i++) chunk[i][e] = taps[i] >> tap & 1 ? x[corner[i] + at + c] : from_float<T>(0.f);
    }
    c += (QS - 1) * CHUNK;
#pragma unroll
    for (int i = 0; i < ROWS; i++) {
      uint4 bits;
      memcpy(&bits, chunk[i], sizeof bits);
      const int row = threadIdx.x / QS + i * PASS;
      *reinterpret_cast<uint4 *>(stage + swizzled<ROW>(row, threadIdx.x % QS)) = bits;
    }
  }
};

/// The rows of B: output channels from n0 on, in the order of the packed weights.
template <class T, int BN, int THREADS> struct Weights {
  static constexpr int CHUNK = 16 / sizeof(T), QS = ROW / 16, BK = QS * CHUNK, PASS = THREADS / QS;
  const T *from;
  const int rows; // from n0 on

  __device__ __forceinline__ Weights(const Conv2dArgs &args, const Phase &phase, int n0)
      : from(static_cast<const T *>(phase.weights) + (size_t)n0 * BK + threadIdx.x * CHUNK),
        rows((args.c + 31) / 32 * 32 - n0) {}
  __device__ __forceinline__ void copy(unsigned char *stage, int packed_rows) {
#pragma unroll
    for (int i = 0; i < BN / PASS; i++) {
      const int row = threadIdx.x / QS + i * PASS;
      const bool inside = row < rows;
      cp_async_16(smem_u32(stage + swizzled<ROW>(row, threadIdx.x % QS)), from + (inside ? i * PASS * BK : 0),
                  inside ? 16 : 0);
    }
    from += packed_rows * BK;
  }
};

/// acc += A B over one stage. Lane (g, t) = (lane / 4, lane % 4) holds rows 16 i + 8 h + g and columns 8 j + 2 t + e of its
/// warp's tile in acc[i][j][2 h + e], whichever type multiplies.
template <int MI, int NI>
__device__ __forceinline__ void multiply(float (&acc)[MI][4 * NI][4], const bf16 *a, const bf16 *b) {
  const int lane = threadIdx.x % 32;
  const uint32_t a0 = smem_u32(a), b0 = smem_u32(b);
#pragma unroll
  for (int k = 0; k < 2; k++) {
    uint32_t fa[MI][4], fb[2 * NI][4];
#pragma unroll
    for (int i = 0; i < MI; i++) ldmatrix_x4(fa[i], a0 + swizzled<64>(i * 16 + lane % 16, 2 * k + lane / 16));
#pragma unroll
    for (int j = 0; j < 2 * NI; j++)
      ldmatrix_x4(fb[j], b0 + swizzled<64>(j * 16 + lane / 16 * 8 + lane % 8, 2 * k + (lane / 8 & 1)));
#pragma unroll
    for (int i = 0; i < MI; i++)
#pragma unroll
      for (int j = 0; j < 4 * NI; j++)
        mma_m16n8k16_bf16(acc[i][j], fa[i], fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]);
  }
}
template <int MI, int NI>
__device__ __forceinline__ void multiply(float (&acc)[MI][4 * NI][4], const float *a, const float *b) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const auto row = [](const float *tile, int r, int q) {
    return *reinterpret_cast<const float4 *>(reinterpret_cast<const char *>(tile) + swizzled<64>(r, q));
  };
#pragma unroll 1 // unrolled, it takes more registers than there are
  for (int q = 0; q < 4; q++) {
    float4 fa[MI][2];
#pragma unroll
    for (int i = 0; i < MI; i++) fa[i][0] = row(a, i * 16 + g, q), fa[i][1] = row(a, i * 16 + 8 + g, q);
#pragma unroll
    for (int j = 0; j < 4 * NI; j++)
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

template <class T, int BM, int BN, int MI, int NI, Source SOURCE, class Epilogue>
__device__ __forceinline__ void conv2d(const Conv2dArgs &args, const EpilogueArgs &e) {
  constexpr int THREADS = BM / (16 * MI) * BN / NI, STAGE = (BM + BN) * ROW;
  const Phase &phase = args.phase[blockIdx.z];
  const int m0 = blockIdx.x / args.blocks_n * BM, n0 = blockIdx.x % args.blocks_n * BN;
  if (m0 >= args.n * phase.h * phase.w) return;

  // Copies of step k into its buffer.
  DYN_SHARED(unsigned char, smem);
  Rows<T, BM, THREADS, SOURCE> rows(args, phase, m0);
  Weights<T, BN, THREADS> weights(args, phase, n0);
  const int steps = rows.steps(phase), packed_rows = (args.c + 31) / 32 * 32;
  const auto copy = [&](int k) {
    if (k < steps) {
      unsigned char *stage = smem + k % STAGES * STAGE;
      if constexpr (SOURCE == GATHERED) rows.gather(stage);
      else rows.copy(stage);
      weights.copy(stage + BM * ROW, packed_rows);
    }
    cp_async_commit();
  };

  // The products; a buffer is refilled once all have read it.
  const int warp = threadIdx.x / 32, wm = warp / (BN / (32 * NI)) * 16 * MI, wn = warp % (BN / (32 * NI)) * 32 * NI;
  float acc[MI][4 * NI][4] = {};
#pragma unroll 1
  for (int k = 0; k < STAGES - 1; k++) copy(k);
#pragma unroll 1
  for (int k = 0; k < steps; k++) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();
    copy(k + STAGES - 1);
    const unsigned char *stage = smem + k % STAGES * STAGE;
    multiply<MI, NI>(acc, reinterpret_cast<const T *>(stage + wm * ROW),
                     reinterpret_cast<const T *>(stage + (BM + wn) * ROW));
  }
  cp_async_wait<0>();

  // A thread has 8 channels in NI groups of 2 MI pixels.
  const int m = m0 + wm + threadIdx.x % 32 / 4, c = n0 + wn + threadIdx.x % 4 * 8;
#pragma unroll
  for (int i = 0; i < MI; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      Outputs<T, NI, Epilogue> outputs;
      outputs.start(args, e, output_pixel(args, phase, m + 16 * i + 8 * h), c);
      outputs.store(args, e, [&](int group, int j) { return acc[i][4 * group + j / 2][2 * h + j % 2]; });
    }
}

/// A kernel per tile and source; BLOCKS per SM are what its registers should allow.
#define CONV2D(NAME, T, BM, BN, MI, NI, BLOCKS, SOURCE, EPILOGUE)                                                      \
  extern "C" __global__ void __launch_bounds__(BM / (16 * MI) * BN / NI, BLOCKS)                                       \
      NAME(const __grid_constant__ Conv2dArgs args, const __grid_constant__ EpilogueArgs e) {                          \
    conv2d<T, BM, BN, MI, NI, SOURCE, EPILOGUE<T>>(args, e);                                                           \
  }                                                                                                                    \
  KERNEL_ENTRY(NAME)
#define CONV2D_TILES(WHAT, TYPE, T, SOURCE, EPILOGUE)                                                                  \
  CONV2D(conv2d_##WHAT##_128x128_##TYPE, T, 128, 128, 4, 2, 2, SOURCE, EPILOGUE)                                       \
  CONV2D(conv2d_##WHAT##_128x64_##TYPE, T, 128, 64, 4, 1, 8 / sizeof(T), SOURCE, EPILOGUE)                             \
  CONV2D(conv2d_##WHAT##_64x32_##TYPE, T, 64, 32, 1, 1, 4, SOURCE, EPILOGUE)
#define CONV2D_KERNELS(TYPE, T)                                                                                        \
  CONV2D_TILES(bias, TYPE, T, ALIGNED, Bias)                                                                           \
  CONV2D_TILES(silu, TYPE, T, ALIGNED, Silu)                                                                           \
  CONV2D_TILES(times, TYPE, T, ALIGNED, Times)                                                                         \
  CONV2D_TILES(residual, TYPE, T, ALIGNED, Residual)                                                                   \
  CONV2D_TILES(merged_bias, TYPE, T, MERGED, Bias)                                                                     \
  CONV2D(conv2d_gathered_bias_64x32_##TYPE, T, 64, 32, 1, 1, 4, GATHERED, Bias)                                        \
  CONV2D(conv2d_gathered_silu_64x32_##TYPE, T, 64, 32, 1, 1, 4, GATHERED, Silu)                                        \
  CONV2D(conv2d_gathered_times_64x32_##TYPE, T, 64, 32, 1, 1, 4, GATHERED, Times)                                      \
  CONV2D(conv2d_gathered_residual_64x32_##TYPE, T, 64, 32, 1, 1, 4, GATHERED, Residual)
