// Convolution as an implicit matrix product on NHWC: y[pixel, o] = sum_k x[pixel, k] w[k, o], k over (window, tap, channel).
//
// Everything that is linear in pixels is a sum over windows, and one kernel serves all of it, on weights packed for it
// (conv2d_pack.cu): 3x3 of stride 1 and 2; the input's gradient (stride 1: flipped taps; stride 2: four phases of output
// pixels, of 1, 2, 2 and 4 taps); 1x1; the decoder's merge, conv(concat(upsample(x), skip)), whose four phases read x
// through 2x2 summed taps and skip through 3x3, so that nothing is copied and x costs 4 taps where it would be 9; and that
// merge's gradient for x, 4x4 taps of stride 2 where it would be 9 for each of 4 pixels.
//
// This file has the operands and the end, conv2d_mma.cuh the products by mma.sync and FFMA, conv2d_sm90.cu those by wgmma.
//
// A block owns BM output pixels x BN channels. K runs in steps of ROW bytes per row through STAGES buffers that cp.async
// fills, zeros where the window leaves the image; 16-byte chunks are XOR-swizzled so that nothing meets a bank conflict.
// Order of a sum: blocks of channels, in each the taps, in each the channels; the same for every tile, hence every batch.
// With the taps inside, a block's input (BM pixels and their neighbours x 64 bytes) stays in L1 for all of them: without
// that, 128 x 128 tiles would ask 64 FLOP per byte of L2, 7 TB/s at 45% of an H100's matrix peak, which it does not have.
// Weights are packed so that the accumulators of a thread are groups of 8 neighbouring channels (packed_channel): epilogues
// load and store 16 bytes at a time.
//
// Resources, and the floor of every layer of the paper's network: docs/kernels.md. A call takes 2 pixels c_out K FLOP and, with
// arrays of the epilogue, sizeof(T) (pixels c_in + pixels c_out (1 + arrays) + K c_out) bytes.
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

constexpr int STAGES = 4;

/// Byte offset of 16-byte chunk `q` of row `r` of ROW bytes: 8 rows of one chunk touch all banks once, as do whole rows.
template <int ROW> __device__ __forceinline__ uint32_t swizzled(int r, int q) {
  return r * ROW + ((q ^ (ROW == 64 ? r >> 1 & 3 : r & 7)) << 4);
}

/// The channel that row `r` of the packed weights holds: columns 2 t, 2 t + 1 of four mma tiles are 8 t .. 8 t + 7.
__host__ __device__ __forceinline__ int packed_channel(int r) {
  return (r & ~31) + 8 * (r >> 1 & 3) + 2 * (r >> 3 & 3) + (r & 1);
}

/// How the rows of A are read: channels in whole 16-byte chunks, from one window or two; or element by element.
enum Source { ALIGNED, MERGED, GATHERED };

/// Pixel (n, p, q) of a phase.
struct Pixel {
  int n, p, q;
  __device__ __forceinline__ Pixel(int n, int p, int q) : n(n), p(p), q(q) {}
  __device__ __forceinline__ Pixel(const Phase &phase, int m) // number m
      : n(m / (phase.h * phase.w)), p(m / phase.w % phase.h), q(m % phase.w) {}
};

/// The rows of A: a thread copies one of the QS chunks of ROWS pixels.
template <class T, int ROW, int BM, int THREADS, Source SOURCE> struct Rows {
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
template <class T, int ROW, int BN, int THREADS> struct Weights {
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

/// The pixel of the output that is pixel `o` of a phase; none is negative.
__device__ __forceinline__ int output_pixel(const Conv2dArgs &args, const Phase &phase, const Pixel &o) {
  if (o.n >= args.n || o.p >= phase.h || o.q >= phase.w) return -1;
  return (o.n * args.h + args.step * o.p + phase.a) * args.w + args.step * o.q + phase.b;
}
__device__ __forceinline__ int output_pixel(const Conv2dArgs &args, const Phase &phase, int m) {
  if (args.step > 1) return output_pixel(args, phase, Pixel(phase, m));
  return m < args.n * phase.h * phase.w ? m : -1;
}

/// Ends a pixel: `sum(group, i)` is the sum of channel c + 32 group + i, in 8 channels of each of the groups.
template <class T, int GROUPS, class Epilogue, class F>
__device__ __forceinline__ void finish(const Conv2dArgs &args, const EpilogueArgs &e, int pixel, int c, F sum) {
  if (pixel < 0) return;
#pragma unroll
  for (int group = 0; group < GROUPS; group++) {
    const Channels o{pixel, c + group * 32, args.c};
    if (o.c >= args.c) continue;
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = sum(group, i);
    Epilogue::apply(v, e, o);
    store_channels(static_cast<T *>(args.y) + o.at(), v, o);
  }
}
