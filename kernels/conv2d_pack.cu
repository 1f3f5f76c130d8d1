// Weights of a convolution or linear layer, packed for one window of conv2d.cuh.
//
//   packed[k / BK][row][k % BK] = sum over r in rows[i], s in cols[j] of w[first + o stride_o + c stride_c + 3 r + s]
//
// for k = (i kw + j) channels + c, o = packed_channel(row), and 0 where there is no such k or o; BK is 64 bytes. A tap of the
// window is a sum of taps of the layer, since one pixel of an upsampled image is read through several of them.
//
// Launch: one thread per packed element of the window. Runs once per layer when weights are set.
#include "conv2d.cuh"

struct PackArgs {
  const float *w;
  void *packed; // the window's first step
  int first, stride_o, stride_c, width; // width: taps in a row of the layer
  int outputs, channels, kh, kw;
  unsigned char rows[4], cols[4]; // sets of the layer's rows and columns, as bits
};

template <class T> __device__ __forceinline__ void pack(const PackArgs &a) {
  constexpr int BK = ROW / sizeof(T);
  const int rows = (a.outputs + 31) / 32 * 32, depth = (a.kh * a.kw * a.channels + BK - 1) / BK * BK;
  GRID_STRIDE(index, rows * depth) {
    const int k = index / (rows * BK) * BK + index % BK, o = packed_channel(index / BK % rows);
    const int tap = k / a.channels, c = k % a.channels;
    float sum = 0.f;
    if (o < a.outputs && tap < a.kh * a.kw) {
      const float *w = a.w + a.first + o * a.stride_o + c * a.stride_c;
      for (int r = 0; r < 3; r++)
        for (int s = 0; s < 3; s++)
          if ((a.rows[tap / a.kw] >> r & 1) && (a.cols[tap % a.kw] >> s & 1)) sum += w[r * a.width + s];
    }
    static_cast<T *>(a.packed)[index] = from_float<T>(sum);
  }
}

extern "C" __global__ void __launch_bounds__(256) conv2d_pack_bf16(const __grid_constant__ PackArgs args) {
  pack<bf16>(args);
}
KERNEL_ENTRY(conv2d_pack_bf16)
extern "C" __global__ void __launch_bounds__(256) conv2d_pack_f32(const __grid_constant__ PackArgs args) {
  pack<float>(args);
}
KERNEL_ENTRY(conv2d_pack_f32)

/// scaled = packed, of one window, with input channel c times factor[c]: a convolution of an image whose channels are
/// multiplied by the same numbers everywhere costs a pass over the weights, not over the image. One thread per element.
template <class T>
__device__ __forceinline__ void scale(T *__restrict__ scaled, const T *__restrict__ packed, const float *factor,
                                      int len, int rows, int channels) {
  constexpr int BK = ROW / sizeof(T);
  GRID_STRIDE(index, len) {
    const int k = index / (rows * BK) * BK + index % BK;
    scaled[index] = from_float<T>(to_float(packed[index]) * factor[k % channels]);
  }
}

extern "C" __global__ void __launch_bounds__(256)
conv2d_scale_bf16(bf16 *scaled, const bf16 *packed, const float *factor, int len, int rows, int channels) {
  scale(scaled, packed, factor, len, rows, channels);
}
KERNEL_ENTRY(conv2d_scale_bf16)
extern "C" __global__ void __launch_bounds__(256)
conv2d_scale_f32(float *scaled, const float *packed, const float *factor, int len, int rows, int channels) {
  scale(scaled, packed, factor, len, rows, channels);
}
KERNEL_ENTRY(conv2d_scale_f32)
