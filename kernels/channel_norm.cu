// channel_norm: layer norm over the channels of a pixel, after the modulation by the noise level (src/ops/channel_norm).
//
//   forward      z = (a + 1) x + b (z = x without modulation); y = (z - mean) rstd, rstd = 1/sqrt(var + 1e-5)
//   vjp          dz = rstd (dy - mean(dy) - y mean(dy y)); dx = (a + 1) dz [+ r dout, the residual path of a block]
//   vjp_params   da = sum over pixels of x dz, db = of dz: partial sums of 64 pixels, for add_partial_sums_f32
//
// Shapes: x, y, dy, dout, dx (N, H W, C) in T; rstd (N, H W), abc (rows, 3 C), gates (rows, 2 C) in f32; rows = 1 or N.
// Launch: one-dimensional, 256 threads. `lanes` neighbouring lanes (a power of two) share a pixel; each holds its part of
//   the row in registers, in 1, 2 or 4 accesses of 16 bytes (_held1, _held2, _held4: C to 1,024 in bf16, 512 in f32). _reread
//   takes any C, one that is no multiple of 16 bytes too, and reads a row again, from cache, for each pass.
// Bytes: forward 2 s + 4/C per element (s = size of T), vjp 3 s, with residual 4 s, vjp_params 3 s; abc and gates stay in
//   cache. Floor at 3.0 TB/s (H100), (256, 32, 32, 128) in bf16: 45, 67, 89 and 67 us. Registers and occupancy: docs/kernels.md.
// Sums: two passes over values held in registers, as the reference; butterflies. The order depends on C alone.
#include "column_sums.cuh"

constexpr float kEps = 1e-5f;

// The lanes of a group, and which of them this thread is.
struct Group {
  int lanes, lane;
  __device__ float sum(float v) const { return warp_sum(v, lanes); }
};

// f(k, i) for the W channels from i on that this lane has: its K accesses, or, K = 0, as many as there are.
template <int W, int K, class F> static __device__ __forceinline__ void channels(Group g, int c, F f) {
  if constexpr (K > 0) {
#pragma unroll
    for (int k = 0; k < K; k++) {
      const int i = (k * g.lanes + g.lane) * W;
      if (i < c) f(k, i);
    }
  } else {
    for (int i = g.lane * W; i < c; i += g.lanes * W) f(0, i);
  }
}

// A row of T as it lies in memory: K accesses per lane in registers, or, K = 0, none.
template <class T, int W, int K> struct Row {
  const T *start;
  Packed<T, W> held[K > 0 ? K : 1];
  __device__ __forceinline__ Row(const T *p, Group g, int c) : start(p) {
    if constexpr (K > 0) channels<W, K>(g, c, [&](int k, int i) { held[k] = load<W>(p + i); });
  }
  __device__ __forceinline__ void get(float (&f)[W], int k, int i) const {
    if constexpr (K > 0) unpack(f, held[k]);
    else load(f, start + i);
  }
};

// f(Group, pixel, channels) for every pixel of a group, as long as any lane of the warp has one: no channels for the others.
template <class F> static __device__ __forceinline__ void each_pixel(int count, int lanes, int c, F f) {
  const int groups = blockDim.x / lanes, first_of_warp = threadIdx.x / 32 * (32 / lanes);
  for (int start = blockIdx.x * groups; start + first_of_warp < count; start += gridDim.x * groups) {
    const int pixel = start + threadIdx.x / lanes;
    f(Group{lanes, (int)threadIdx.x % lanes}, pixel, pixel < count ? c : 0);
  }
}

// ------------------------------------------------------------------------------------------------------------- forward
// z = (a + 1) x + b of the W channels from i on; ab null: z = x.
template <class T, int W, int K>
static __device__ __forceinline__ void modulate(float (&z)[W], const Row<T, W, K> &x, const float *ab, int c, int k, int i) {
  x.get(z, k, i);
  if (!ab) return;
  float a[W], b[W];
  load_floats(a, ab + i);
  load_floats(b, ab + c + i);
#pragma unroll
  for (int j = 0; j < W; j++) z[j] = fmaf(a[j], z[j], z[j]) + b[j];
}

// A row of c channels, of which this group sees `live`: all or none.
template <class T, int W, int K>
static __device__ __forceinline__ void forward_row(T *y, float *rstd, const T *x, const float *ab, Group g, int live, int c) {
  const Row<T, W, K> row(x, g, live);
  const float scale = 1.f / c;
  float z[K > 0 ? K : 1][W], sum = 0.f, squares = 0.f;
  channels<W, K>(g, live, [&](int k, int i) {
    modulate(z[k], row, ab, c, k, i);
#pragma unroll
    for (int j = 0; j < W; j++) sum += z[k][j];
  });
  const float mean = g.sum(sum) * scale;
  channels<W, K>(g, live, [&](int k, int i) {
    if constexpr (K == 0) modulate(z[k], row, ab, c, k, i);
#pragma unroll
    for (int j = 0; j < W; j++) squares = fmaf(z[k][j] - mean, z[k][j] - mean, squares);
  });
  const float inverse = rsqrtf(fmaf(g.sum(squares), scale, kEps));
  channels<W, K>(g, live, [&](int k, int i) {
    if constexpr (K == 0) modulate(z[k], row, ab, c, k, i);
    float value[W];
#pragma unroll
    for (int j = 0; j < W; j++) value[j] = (z[k][j] - mean) * inverse;
    store(y + i, value);
  });
  if (g.lane == 0 && live > 0) *rstd = inverse;
}

// count = N `pixels`, the pixels of one sample; abc null: no modulation.
template <class T, int W, int K>
static __device__ __forceinline__ void forward(T *y, float *rstd, const T *x, const float *abc, int rows, int count, int pixels,
                                        int c, int lanes) {
  each_pixel(count, lanes, c, [&](Group g, int pixel, int live) {
    const float *ab = abc && live ? abc + (rows == 1 ? 0 : (size_t)(pixel / pixels) * 3 * c) : nullptr;
    const size_t at = (size_t)pixel * c;
    forward_row<T, W, K>(y + at, rstd + pixel, x + at, ab, g, live, c);
  });
}

// ----------------------------------------------------------------------------------------------------------------- VJP
// (mean(dy), mean(dy y)) of a row, and dz from them.
struct Means {
  float dy, dy_y;
  __device__ __forceinline__ float dz(float y_j, float dy_j, float rstd) const {
    return rstd * fmaf(-dy_y, y_j, dy_j - dy);
  }
};

template <class T, int W, int K>
static __device__ __forceinline__ Means means(const Row<T, W, K> &y, const Row<T, W, K> &dy, Group g, int live, int c) {
  float sum_dy = 0.f, sum_dy_y = 0.f;
  channels<W, K>(g, live, [&](int k, int i) {
    float y_i[W], dy_i[W];
    y.get(y_i, k, i);
    dy.get(dy_i, k, i);
#pragma unroll
    for (int j = 0; j < W; j++) {
      sum_dy += dy_i[j];
      sum_dy_y = fmaf(dy_i[j], y_i[j], sum_dy_y);
    }
  });
  const float scale = 1.f / c;
  return {g.sum(sum_dy) * scale, g.sum(sum_dy_y) * scale};
}

// abc, gates and dout null: without that factor or term.
template <class T, int W, int K>
static __device__ __forceinline__ void vjp(T *dx, const T *y, const float *rstd, const float *abc, const T *dy, const float *gates,
                                    const T *dout, int rows, int count, int pixels, int c, int lanes) {
  each_pixel(count, lanes, c, [&](Group g, int pixel, int live) {
    const size_t at = (size_t)pixel * c, sample = rows == 1 || !live ? 0 : pixel / pixels;
    const Row<T, W, K> y_row(y + at, g, live), dy_row(dy + at, g, live), dout_row(dout + at, g, dout ? live : 0);
    const float rstd_p = live ? rstd[pixel] : 0.f;
    const Means m = means(y_row, dy_row, g, live, c);
    channels<W, K>(g, live, [&](int k, int i) {
      float d[W], y_i[W], factor[W];
      y_row.get(y_i, k, i);
      dy_row.get(d, k, i);
#pragma unroll
      for (int j = 0; j < W; j++) d[j] = m.dz(y_i[j], d[j], rstd_p);
      if (abc) {
        load_floats(factor, abc + sample * 3 * c + i);
#pragma unroll
        for (int j = 0; j < W; j++) d[j] = fmaf(factor[j], d[j], d[j]);
      }
      if (dout) {
        float dout_i[W];
        dout_row.get(dout_i, k, i);
        load_floats(factor, gates + sample * 2 * c + i);
#pragma unroll
        for (int j = 0; j < W; j++) d[j] = fmaf(factor[j], dout_i[j], d[j]);
      }
      store(dx + at + i, d);
    });
  });
}

// ---------------------------------------------------------------------------------------------- VJP for the parameters
// Grid (blocks per sample, N): the means of the block's pixels, one warp for each in turn, then its columns.
template <class T, int W>
static __device__ __forceinline__ void partial_da_db(float *partial, const T *x, const T *y, const float *rstd, const T *dy,
                                              int pixels, int c) {
  SHARED(float4, of_pixel, [kPixelsPerBlock]); // mean(dy), mean(dy y), rstd
  const size_t sample = (size_t)blockIdx.y * pixels;
  const int first = blockIdx.x * kPixelsPerBlock, last = min(first + kPixelsPerBlock, pixels);
  const Group g{32, (int)threadIdx.x % 32};
  for (int pixel = first + threadIdx.x / 32; pixel < last; pixel += kColumnThreads / 32) {
    const size_t at = (sample + pixel) * c;
    const Means m = means(Row<T, W, 0>(y + at, g, c), Row<T, W, 0>(dy + at, g, c), g, c, c);
    if (g.lane == 0) of_pixel[pixel - first] = make_float4(m.dy, m.dy_y, rstd[sample + pixel], 0.f);
  }
  __syncthreads();
  float *sums = partial + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * 2 * c;
  column_sums<2, W>(sums, first, last, c, [&](float (&acc)[2][W], int pixel, int i) {
    const size_t at = (sample + pixel) * c + i;
    const float4 p = of_pixel[pixel - first];
    float x_i[W], y_i[W], dy_i[W];
    load(x_i, x + at);
    load(y_i, y + at);
    load(dy_i, dy + at);
#pragma unroll
    for (int j = 0; j < W; j++) {
      const float dz = Means{p.x, p.y}.dz(y_i[j], dy_i[j], p.z);
      acc[0][j] = fmaf(x_i[j], dz, acc[0][j]);
      acc[1][j] += dz;
    }
  });
}

// run<T, W, K>(..) for rows held in K accesses, or read again, then W = 1 where C is no multiple of 16 bytes.
#define RUN(run, T, K, ...)                                                                                            \
  if (K > 0 || c % kWide<T> == 0) run<T, kWide<T>, K>(__VA_ARGS__);                                                    \
  else run<T, 1, 0>(__VA_ARGS__)

#define ENTRIES(T, K, variant)                                                                                         \
  extern "C" __global__ void __launch_bounds__(256, K == 1 ? 5 : K == 2 ? 4 : 2)                                       \
  channel_norm_forward_##variant(T *__restrict__ y, float *__restrict__ rstd, const T *__restrict__ x,                 \
                                 const float *__restrict__ abc, int rows, int count, int pixels, int c, int lanes) {   \
    RUN(forward, T, K, y, rstd, x, abc, rows, count, pixels, c, lanes);                                                \
  }                                                                                                                    \
  KERNEL_ENTRY(channel_norm_forward_##variant)                                                                         \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  channel_norm_vjp_##variant(T *__restrict__ dx, const T *__restrict__ y, const float *__restrict__ rstd,              \
                             const float *__restrict__ abc, const T *__restrict__ dy, const float *__restrict__ gates, \
                             const T *__restrict__ dout, int rows, int count, int pixels, int c, int lanes) {          \
    RUN(vjp, T, K, dx, y, rstd, abc, dy, gates, dout, rows, count, pixels, c, lanes);                                  \
  }                                                                                                                    \
  KERNEL_ENTRY(channel_norm_vjp_##variant)

#define ENTRIES_OF(T, dtype)                                                                                           \
  ENTRIES(T, 1, held1_##dtype)                                                                                         \
  ENTRIES(T, 2, held2_##dtype)                                                                                         \
  ENTRIES(T, 4, held4_##dtype)                                                                                         \
  ENTRIES(T, 0, reread_##dtype)                                                                                        \
  extern "C" __global__ void __launch_bounds__(kColumnThreads)                                                         \
  channel_norm_vjp_params_##dtype(float *__restrict__ partial, const T *__restrict__ x, const T *__restrict__ y,       \
                                  const float *__restrict__ rstd, const T *__restrict__ dy, int pixels, int c) {       \
    if (c % kWide<T> == 0) partial_da_db<T, kWide<T>>(partial, x, y, rstd, dy, pixels, c);                             \
    else partial_da_db<T, 1>(partial, x, y, rstd, dy, pixels, c);                                                      \
  }                                                                                                                    \
  KERNEL_ENTRY(channel_norm_vjp_params_##dtype)

ENTRIES_OF(float, f32)
ENTRIES_OF(bf16, bf16)
