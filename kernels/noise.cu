// Standard normal numbers by Philox4x32-10 and Box-Muller (src/ops/noise): the formulas of philox.rs and normal.rs, in
// f64 as there, so that the host's numbers come out, rounded once.
//
// Shapes: y (N, D), D = `row`; samples (N); n = N D. The block of elements 4 b .. 4 b + 3 of sample k has the counter
// (b, k, step, purpose).
// Launch: one-dimensional, 256 threads, one thread for a block of four. Bytes: y once, written. FLOPs: 100 in f64 for each
// element, which is less time than its four bytes take where f64 runs at half the rate of f32 (A100, H100).
#include "philox.cuh"
#include "scalar.cuh"
#include "vec.cuh"

// ln((word + 1) / 2^32).
static __device__ __forceinline__ double ln_fraction(uint32_t word) {
  const double u = (double)word + 1.0; // in [1, 2^32]: m 2^e with m in [1, 2), then in [1/sqrt 2, sqrt 2)
  const int leading = word == 0xffffffffu ? 32 : 31 - __clz((int)(word + 1u));
  double m = u / (double)(1ull << leading);
  int e = leading - 32;
  if (m > 1.4142135623730951) m *= 0.5, e++;
  const double s = (m - 1.0) / (m + 1.0), s2 = s * s;
  double series = 0.0; // ln m = 2 artanh s
#pragma unroll
  for (int k = 10; k >= 0; k--) series = series * s2 + 2.0 / (double)(2 * k + 1);
  return (double)e * 0.69314718055994530942 + s * series;
}

// (sin, cos) of 2 pi word / 2^32.
static __device__ __forceinline__ double2 sin_cos_turn(uint32_t word) {
  const uint32_t quadrant = ((word >> 29) + 1) / 2; // the nearest; what is left lies within an eighth turn
  const double x = (double)(int32_t)(word - (quadrant << 30)) * (6.28318530717958647692 / 4294967296.0), x2 = x * x;
  double sin = 1.0, cos = 1.0;
#pragma unroll
  for (int k = 7; k >= 1; k--) sin = 1.0 - sin * x2 / (double)(2 * k * (2 * k + 1));
#pragma unroll
  for (int k = 8; k >= 1; k--) cos = 1.0 - cos * x2 / (double)(2 * k * (2 * k - 1));
  sin *= x;
  switch (quadrant % 4) {
    case 0: return make_double2(sin, cos);
    case 1: return make_double2(cos, -sin);
    case 2: return make_double2(-sin, -cos);
    default: return make_double2(-cos, sin);
  }
}

static __device__ __forceinline__ void box_muller(float *z, uint32_t u, uint32_t v) {
  const double r = sqrt(-2.0 * ln_fraction(u));
  const double2 turn = sin_cos_turn(v);
  z[0] = (float)(r * turn.y), z[1] = (float)(r * turn.x);
}

extern "C" __global__ void noise_normal_f32(float *y, const uint32_t *samples, uint64_t seed, Word step,
                                            Word purpose, uint32_t row, uint32_t n) {
  const uint32_t blocks = (row + 3) / 4; // of a sample
  GRID_STRIDE(i, n / row * blocks) {
    const uint32_t sample = i / blocks, block = i % blocks;
    const uint4 counter = make_uint4(block, samples[sample], step.get(), purpose.get());
    const uint4 w = philox4x32(counter, (uint32_t)seed, (uint32_t)(seed >> 32));
    float z[4];
    box_muller(z, w.x, w.y);
    box_muller(z + 2, w.z, w.w);
    float *to = y + (size_t)sample * row + 4 * block;
    if (row % 4 == 0) {
      store(to, z);
    } else {
      for (uint32_t j = 0; j < min(4u, row - 4 * block); j++) to[j] = z[j];
    }
  }
}
KERNEL_ENTRY(noise_normal_f32)
