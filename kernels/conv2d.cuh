// Convolution as an implicit matrix product on NHWC: y[pixel, o] = sum_k x[pixel, k] w[k, o], k over (window, tap, channel).
//
// Everything that is linear in pixels is a sum over windows, and one kernel serves all of it, on weights packed for it
// (conv2d_pack.cu): 3x3 of stride 1 and 2; the input's gradient (stride 1: flipped taps; stride 2: four phases of output
// pixels, of 1, 2, 2 and 4 taps); 1x1; the decoder's merge, conv(concat(upsample(x), skip)), whose four phases read x
// through 2x2 summed taps and skip through 3x3, so that nothing is copied and x costs 4 taps where it would be 9; and that
// merge's gradient for x, 4x4 taps of stride 2 where it would be 9 for each of 4 pixels.
//
// This file has what is common and the end, conv2d_mma.cuh the products by mma.sync and FFMA, conv2d_sm90.cu those by wgmma.
//
// A block owns BM output pixels x BN channels. K runs in steps of 64 or 128 bytes per row through a ring of buffers, whose
// 16-byte chunks are XOR-swizzled so that nothing meets a bank conflict; what a window reads outside the image is 0.
// Order of a sum: blocks of channels, in each the taps, in each the channels; the same for every tile, hence every batch.
// With the taps inside, a block reads the same pixels again at once: from L1 or from L2.
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
  Phase phase[4]; // blockIdx.z, or that of a tile
  void *y;        // (n, h, w, c)
  int n, h, w, c;
  int step, blocks_n; // blocks_n: blocks along the channels
};

/// Byte offset of 16-byte chunk `q` of row `r` of ROW bytes: 8 rows of one chunk touch all banks once, as do whole rows.
template <int ROW> __device__ __forceinline__ uint32_t swizzled(int r, int q) {
  return r * ROW + ((q ^ (ROW == 64 ? r >> 1 & 3 : r & 7)) << 4);
}

/// The channel that row `r` of the packed weights holds: columns 2 t, 2 t + 1 of four mma tiles are 8 t .. 8 t + 7.
__host__ __device__ __forceinline__ int packed_channel(int r) {
  return (r & ~31) + 8 * (r >> 1 & 3) + 2 * (r >> 3 & 3) + (r & 1);
}

/// Pixel (n, p, q) of a phase.
struct Pixel {
  int n, p, q;
  __device__ __forceinline__ Pixel(int n, int p, int q) : n(n), p(p), q(q) {}
  __device__ __forceinline__ Pixel(const Phase &phase, int m) // number m
      : n(m / (phase.h * phase.w)), p(m / phase.w % phase.h), q(m % phase.w) {}
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

/// The end of a pixel: channels c + 32 group + i, 8 of each of the groups.
template <class T, int GROUPS, class Epilogue, bool WHOLE = false> struct Outputs {
  int pixel, c; // pixel: of the output, negative for none
  Epilogue epilogue[GROUPS];

  __device__ __forceinline__ Channels channels(const Conv2dArgs &args, int group) const {
    return {pixel, c + group * 32, args.c, WHOLE || args.c % 8 == 0};
  }
  __device__ __forceinline__ bool exists(const Channels &o) const { return pixel >= 0 && o.c < o.channels; }
  /// Asks for what the epilogue reads.
  __device__ __forceinline__ void start(const Conv2dArgs &args, const EpilogueArgs &e, int pixel, int c) {
    this->pixel = pixel, this->c = c;
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
      const Channels o = channels(args, group);
      if (exists(o)) epilogue[group].load(e, o);
    }
  }
  /// `sum(group, i)`: the sum of such a channel.
  template <class F> __device__ __forceinline__ void store(const Conv2dArgs &args, const EpilogueArgs &e, F sum) const {
#pragma unroll
    for (int group = 0; group < GROUPS; group++) {
      const Channels o = channels(args, group);
      if (!exists(o)) continue;
      float v[8];
#pragma unroll
      for (int i = 0; i < 8; i++) v[i] = sum(group, i);
      epilogue[group].apply(v, e, o);
      store_channels(static_cast<T *>(args.y) + o.at(), v, o);
    }
  }
};
