// A periodic convolution with one kernel for all channels, kept at every stride-th pixel (src/ops/filter), and its adjoint.
//
//   forward  y[n, i, j, c] = sum_ab k[a, b] x[n, (s i + r - a) mod H, (s j + q - b) mod W, c]
//   adjoint  x[n, p, q', c] = sum_ab k[a, b] y[n, (p + a - r) / s, (q' + b - q) / s, c], modulo H and W, where s divides both
//
// Shapes: x (N, H, W, C), y (N, H / s, W / s, C), k (A, B); (r, q) = (row, column) is the anchor, below (H, W); n elements of the
//   result, below 2^31. Launch: 256 threads, one for each element of the result.
// A sum runs over the taps from first to last, in f32: an order that depends on the kernel alone. Taps are the same for all
// threads, neighbouring threads read neighbouring elements: the caches serve both.
#include "vec.cuh"

// (a - b) modulo len, for a + len < 2^32.
static __device__ __forceinline__ uint32_t minus(uint32_t a, uint32_t b, uint32_t len) { return (a + len - b % len) % len; }

extern "C" __global__ void filter_forward_f32(float *y, const float *x, const float *k, uint32_t rows, uint32_t columns,
                                              uint32_t row, uint32_t column, uint32_t s, uint32_t h, uint32_t w, uint32_t c,
                                              uint32_t n) {
  const uint32_t out_h = h / s, out_w = w / s;
  GRID_STRIDE(at, n) {
    const uint32_t channel = at % c, j = at / c % out_w, i = at / c / out_w % out_h;
    const float *image = x + (size_t)(at / c / out_w / out_h) * h * w * c + channel;
    float sum = 0;
    for (uint32_t a = 0; a < rows; a++) {
      const float *line = image + (size_t)minus(s * i + row, a, h) * w * c;
      for (uint32_t b = 0; b < columns; b++) sum = fmaf(k[a * columns + b], line[minus(s * j + column, b, w) * c], sum);
    }
    y[at] = sum;
  }
}
KERNEL_ENTRY(filter_forward_f32)

extern "C" __global__ void filter_adjoint_f32(float *x, const float *y, const float *k, uint32_t rows, uint32_t columns,
                                              uint32_t row, uint32_t column, uint32_t s, uint32_t h, uint32_t w, uint32_t c,
                                              uint32_t n) {
  const uint32_t out_h = h / s, out_w = w / s;
  GRID_STRIDE(at, n) {
    const uint32_t channel = at % c, q = at / c % w, p = at / c / w % h;
    const float *image = y + (size_t)(at / c / w / h) * out_h * out_w * c + channel;
    float sum = 0;
    for (uint32_t a = 0; a < rows; a++) {
      const uint32_t i = minus(p + a, row, h);
      if (i % s != 0) continue;
      const float *line = image + (size_t)(i / s) * out_w * c;
      for (uint32_t b = 0; b < columns; b++) {
        const uint32_t j = minus(q + b, column, w);
        if (j % s == 0) sum = fmaf(k[a * columns + b], line[j / s * c], sum);
      }
    }
    x[at] = sum;
  }
}
KERNEL_ENTRY(filter_adjoint_f32)
