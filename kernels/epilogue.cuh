// What a convolution or linear layer does with its sums before they are stored: one functor each, on 8 channels of a pixel.
// What it reads of arrays as large as the output is asked for by `load`, before the sums are there, and used by `apply`.
#pragma once
#include "silu.cuh"
#include "vec.cuh"

/// The arrays of an epilogue, those that it does not use null. T is the type of the layer's output.
struct EpilogueArgs {
  const float *bias;  // (c), or null: 0
  const void *x;      // T, as the output: the factor of Times, the x of Residual
  const float *gates; // (rows, 2 c): r, then c r
  void *extra;        // T, as the output, or null: the derivative of Silu, the branch of Residual
  int rows, pixels;   // 1 or n; pixels of a sample
};

/// Where 8 channels of a pixel are: the pixel of the batch, the first channel; `channels` a pixel has.
struct Channels {
  int pixel, c, channels;
  bool whole; // rows start on 16 bytes: the channels are a multiple of 8; else elements go one by one
  __device__ __forceinline__ size_t at() const { return (size_t)pixel * channels + c; }
};

/// 8 channels of an array, as they lie in memory.
template <class T> struct Eight {
  static constexpr int W = kWide<T>;
  Packed<T, W> part[8 / W];

  __device__ __forceinline__ void load(const T *p, const Channels &o) {
    if (o.whole) {
#pragma unroll
      for (int i = 0; i < 8 / W; i++) part[i] = ::load<W>(p + i * W);
      return;
    }
    T v[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = o.c + i < o.channels ? p[i] : from_float<T>(0.f);
    memcpy(part, v, sizeof part);
  }
  __device__ __forceinline__ void get(float (&v)[8]) const {
#pragma unroll
    for (int i = 0; i < 8 / W; i++) {
      float some[W];
      unpack(some, part[i]);
#pragma unroll
      for (int j = 0; j < W; j++) v[i * W + j] = some[j];
    }
  }
};

__device__ __forceinline__ void store8(float *p, const float (&v)[8]) {
  const float low[4] = {v[0], v[1], v[2], v[3]}, high[4] = {v[4], v[5], v[6], v[7]};
  store(p, low);
  store(p + 4, high);
}
__device__ __forceinline__ void store8(bf16 *p, const float (&v)[8]) { store(p, v); }

template <class T> __device__ __forceinline__ void load_channels(float (&v)[8], const T *p, const Channels &o) {
  Eight<T> x;
  x.load(p, o);
  x.get(v);
}
template <class T> __device__ __forceinline__ void store_channels(T *p, const float (&v)[8], const Channels &o) {
  if (o.whole) return store8(p, v);
#pragma unroll
  for (int i = 0; i < 8; i++)
    if (o.c + i < o.channels) p[i] = from_float<T>(v[i]);
}

__device__ __forceinline__ void add_bias(float (&v)[8], const EpilogueArgs &e, const Channels &o) {
  if (!e.bias) return;
  float b[8];
  load_channels(b, e.bias + o.c, o);
#pragma unroll
  for (int i = 0; i < 8; i++) v[i] += b[i];
}

/// v + b
template <class T> struct Bias {
  __device__ __forceinline__ void load(const EpilogueArgs &, const Channels &) {}
  __device__ __forceinline__ void apply(float (&v)[8], const EpilogueArgs &e, const Channels &o) const {
    add_bias(v, e, o);
  }
};

/// silu(v + b); writes its derivative where wanted.
template <class T> struct Silu {
  __device__ __forceinline__ void load(const EpilogueArgs &, const Channels &) {}
  __device__ __forceinline__ void apply(float (&v)[8], const EpilogueArgs &e, const Channels &o) const {
    add_bias(v, e, o);
    float derivative[8];
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = silu(v[i], derivative[i]);
    if (e.extra) store_channels(static_cast<T *>(e.extra) + o.at(), derivative, o);
  }
};

/// v x
template <class T> struct Times {
  Eight<T> x;
  __device__ __forceinline__ void load(const EpilogueArgs &e, const Channels &o) {
    x.load(static_cast<const T *>(e.x) + o.at(), o);
  }
  __device__ __forceinline__ void apply(float (&v)[8], const EpilogueArgs &, const Channels &) const {
    float factor[8];
    x.get(factor);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] *= factor[i];
  }
};

/// r x + c r (v + b), the gated residual; writes the branch v + b where wanted.
template <class T> struct Residual {
  Eight<T> x;
  __device__ __forceinline__ void load(const EpilogueArgs &e, const Channels &o) {
    x.load(static_cast<const T *>(e.x) + o.at(), o);
  }
  __device__ __forceinline__ void apply(float (&v)[8], const EpilogueArgs &e, const Channels &o) const {
    add_bias(v, e, o);
    if (e.extra) store_channels(static_cast<T *>(e.extra) + o.at(), v, o);
    const float *gates = e.gates + (e.rows == 1 ? 0 : (size_t)(o.pixel / e.pixels) * 2 * o.channels) + o.c;
    float x[8], r[8], cr[8];
    this->x.get(x);
    load_channels(r, gates, o);
    load_channels(cr, gates + o.channels, o);
#pragma unroll
    for (int i = 0; i < 8; i++) v[i] = fmaf(cr[i], v[i], r[i] * x[i]);
  }
};
