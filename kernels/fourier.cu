// Masked k-space (src/ops/fourier): a centred orthonormal 2-D Fourier transform of real images, mask on its columns.
//
//   fourier_rows             t = F_W x along rows, in the columns of the mask; others of t are not written
//   fourier_columns          y = F_H t / sqrt(H W) along columns; 0 where the mask is 0
//   fourier_columns_adjoint  t = F_H^H y along columns; 0 where the mask is 0, whatever y is there
//   fourier_rows_adjoint     x = Re(F_W^H t) / sqrt(H W) along rows
//
// Shapes: x (N, H, W); t, y (N, H, W, 2), a float2 each; mask (mask_rows, W), mask_rows = 1 or N; n = N H W < 2^31; H, W <= 4096.
// Launch: 256 threads, one for each element of the result; dynamic shared memory: a float2 for each element of a line.
// A sum is direct, in f32 from first to last: an order that depends on the line alone. Its roots of unity come from a table of
// correctly rounded ones, by an index modulo the length: angles do not grow. FLOP: 4 (rows) and 8 (columns) H or W per element.
// Beside a U-Net on 320 x 320 it is nothing: a fast transform would save what nobody sees.
#include "vec.cuh"

// roots[m] = (cos, sin)(2 pi m / n).
static __device__ __forceinline__ void fill_roots(float2 *roots, uint32_t n) {
  for (uint32_t m = threadIdx.x; m < n; m += blockDim.x) {
    double s, c;
    sincospi(2.0 * m / n, &s, &c);
    roots[m] = make_float2((float)c, (float)s);
  }
  __syncthreads();
}

// body(j, root of (k - c)(j - c)) for j = 0 .. n - 1, c = n / 2.
template <class F> static __device__ __forceinline__ void each_root(const float2 *roots, uint32_t k, uint32_t n, F body) {
  const uint32_t c = n / 2, step = (k + n - c) % n;
  uint32_t at = step * (n - c) % n;
  for (uint32_t j = 0; j < n; j++) {
    body(j, roots[at]);
    at += step;
    if (at >= n) at -= n;
  }
}

static __device__ __forceinline__ bool measured(const float *mask, uint32_t mask_rows, uint32_t sample, uint32_t column,
                                                uint32_t w) {
  return mask[(mask_rows == 1 ? 0 : (size_t)sample * w) + column] != 0.f;
}

extern "C" __global__ void fourier_rows_f32(float2 *t, const float *x, const float *mask, uint32_t mask_rows, uint32_t h,
                                            uint32_t w, uint32_t n) {
  DYN_SHARED(float2, roots);
  fill_roots(roots, w);
  GRID_STRIDE(i, n) {
    const uint32_t k = i % w;
    if (!measured(mask, mask_rows, i / (h * w), k, w)) continue;
    const float *row = x + (i - k);
    float re = 0, im = 0;
    each_root(roots, k, w, [&](uint32_t j, float2 root) {
      re = fmaf(row[j], root.x, re);
      im = fmaf(-row[j], root.y, im);
    });
    t[i] = make_float2(re, im);
  }
}
KERNEL_ENTRY(fourier_rows_f32)

// Element i of scale F_H t along columns, or of scale F_H^H t where SIGN is 1; 0 where the mask is 0.
template <int SIGN>
static __device__ __forceinline__ void columns(float2 *y, const float2 *t, const float *mask, uint32_t mask_rows,
                                               uint32_t h, uint32_t w, uint32_t n, float scale) {
  DYN_SHARED(float2, roots);
  fill_roots(roots, h);
  GRID_STRIDE(i, n) {
    const uint32_t sample = i / (h * w), k = i / w % h, column = i % w;
    float re = 0, im = 0;
    if (measured(mask, mask_rows, sample, column, w)) {
      const float2 *from = t + (size_t)sample * h * w + column;
      each_root(roots, k, h, [&](uint32_t j, float2 root) {
        const float2 v = from[(size_t)j * w];
        const float s = SIGN * root.y;
        re = fmaf(v.x, root.x, fmaf(-v.y, s, re));
        im = fmaf(v.x, s, fmaf(v.y, root.x, im));
      });
    }
    y[i] = make_float2(scale * re, scale * im);
  }
}

static __device__ __forceinline__ float orthonormal(uint32_t h, uint32_t w) { return (float)(1.0 / sqrt((double)(h * w))); }

extern "C" __global__ void fourier_columns_f32(float2 *y, const float2 *t, const float *mask, uint32_t mask_rows,
                                               uint32_t h, uint32_t w, uint32_t n) {
  columns<-1>(y, t, mask, mask_rows, h, w, n, orthonormal(h, w));
}
KERNEL_ENTRY(fourier_columns_f32)

extern "C" __global__ void fourier_columns_adjoint_f32(float2 *t, const float2 *y, const float *mask, uint32_t mask_rows,
                                                       uint32_t h, uint32_t w, uint32_t n) {
  columns<1>(t, y, mask, mask_rows, h, w, n, 1.f);
}
KERNEL_ENTRY(fourier_columns_adjoint_f32)

extern "C" __global__ void fourier_rows_adjoint_f32(float *x, const float2 *t, uint32_t h, uint32_t w, uint32_t n) {
  DYN_SHARED(float2, roots);
  fill_roots(roots, w);
  const float scale = orthonormal(h, w);
  GRID_STRIDE(i, n) {
    const uint32_t k = i % w;
    const float2 *row = t + (i - k);
    float re = 0;
    each_root(roots, k, w, [&](uint32_t j, float2 root) { re = fmaf(row[j].x, root.x, fmaf(-row[j].y, root.y, re)); });
    x[i] = scale * re;
  }
}
KERNEL_ENTRY(fourier_rows_adjoint_f32)
