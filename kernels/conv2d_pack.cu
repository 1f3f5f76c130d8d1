// Weights of a convolution or linear layer, packed for one window of conv2d.cuh.
//
//   packed[k / BK][row][k % BK] = sum over r in rows[i], s in cols[j] of w[first + o stride_o + c stride_c + width r + s]
//
// for the k of channel c and tap i kw + j: blocks of `block` channels outside, taps in them, channels inside; o is
// packed_channel(row), and elements of no channel or output are 0. BK is a step of the product, 64 or 128 bytes, and `block`
// too, or, where channels are gathered one by one, all of them. A tap of the window is a sum of taps of the layer, since one pixel of an upsampled image
// is read through several of them.
//
// Launch: one thread per packed element of the window. Runs once per layer when weights are set.
#include "conv2d.cuh"

struct PackArgs {
  const float *w;
  void *packed; // the window's first step
  int first, stride_o, stride_c, width; // width: taps in a row of the layer
  int outputs, channels, kh, kw, block, bk;
  unsigned char rows[4], cols[4]; // sets of the layer's rows and columns, as bits
};

/// Where element `index` of the packed weights of a window of `taps` taps comes from.
struct Place {
  int row, tap, c;
  __device__ __forceinline__ Place(int index, int rows, int taps, int block, int bk) {
    const int k = index / (rows * bk) * bk + index % bk;
    row = index / bk % rows, tap = k / block % taps, c = k / (taps * block) * block + k % block;
  }
};

template <class T> __device__ __forceinline__ void pack(const PackArgs &a, int len) {
  GRID_STRIDE(index, len) {
    const Place at(index, (a.outputs + 31) / 32 * 32, a.kh * a.kw, a.block, a.bk);
    const int o = packed_channel(at.row);
    float sum = 0.f;
    if (o < a.outputs && at.c < a.channels) {
      const float *w = a.w + a.first + o * a.stride_o + at.c * a.stride_c;
      for (int r = 0; r < 3; r++)
        for (int s = 0; s < 3; s++)
          if ((a.rows[at.tap / a.kw] >> r & 1) && (a.cols[at.tap % a.kw] >> s & 1)) sum += w[r * a.width + s];
    }
    static_cast<T *>(a.packed)[index] = from_float<T>(sum);
  }
}

extern "C" __global__ void __launch_bounds__(256)
conv2d_pack_bf16(const __grid_constant__ PackArgs args, int len) {
  pack<bf16>(args, len);
}
KERNEL_ENTRY(conv2d_pack_bf16)
extern "C" __global__ void __launch_bounds__(256)
conv2d_pack_f32(const __grid_constant__ PackArgs args, int len) {
  pack<float>(args, len);
}
KERNEL_ENTRY(conv2d_pack_f32)

/// scaled = packed, of one window, with input channel c times factor[c]: a convolution of an image whose channels are
/// multiplied by the same numbers everywhere costs a pass over the weights, not over the image. One thread per element.
template <class T>
__device__ __forceinline__ void scale(T *__restrict__ scaled, const T *__restrict__ packed,
                                      const float *__restrict__ factor, int len, int rows, int channels, int taps, int block,
                                      int bk) {
  GRID_STRIDE(index, len) {
    const int c = Place(index, rows, taps, block, bk).c;
    scaled[index] = from_float<T>(c < channels ? to_float(packed[index]) * factor[c] : 0.f);
  }
}

#define CONV2D_SCALE(NAME, T)                                                                                          \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
      NAME(T *scaled, const T *packed, const float *factor, int len, int rows, int channels, int taps, int block, int bk) { \
    scale(scaled, packed, factor, len, rows, channels, taps, block, bk);                                               \
  }                                                                                                                    \
  KERNEL_ENTRY(NAME)
CONV2D_SCALE(conv2d_scale_bf16, bf16)
CONV2D_SCALE(conv2d_scale_f32, float)
