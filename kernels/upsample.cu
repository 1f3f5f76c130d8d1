// upsample: nearest upsampling by 2 (src/ops/upsample), (N, H, W, C) to (N, 2 H, 2 W, C).
//
//   forward   y[n, i, j] = x[n, i/2, j/2]: a copy of units of 16, 8, 4 or 2 bytes, whatever they hold
//   vjp       dx = the sum of dy over the 2 x 2 pixels of each, (upper left + upper right) + (lower left + lower right)
//
// Shapes: below 2^31 units in y; `w` and `c` are extents of x, in pixels and units (forward) or elements (vjp).
// Launch: one-dimensional, 256 threads, one for a unit of x (forward), for 16 bytes of dx, or an element where C is no
//   multiple of 16 bytes (vjp).
// Bytes: 5 times those of x, both. No more than 32 registers, no shared memory.
#include "rows.cuh"

// The element of y, (2 H, 2 W, C), whose 2 x 2 pixels start at it, for element i of x, (H, W, C); rows over the batch.
static __device__ __forceinline__ size_t upper_left(uint32_t i, uint32_t w, uint32_t c) {
  const uint32_t row = i / (w * c), in_row = i % (w * c);
  return 4 * (size_t)row * w * c + 2 * (in_row / c) * c + in_row % c;
}

template <class Unit>
static __device__ __forceinline__ void forward(Unit *y, const Unit *x, uint32_t w, uint32_t c, uint32_t n) {
  GRID_STRIDE(i, n) {
    const Unit value = x[i];
    Unit *upper = y + upper_left(i, w, c), *lower = upper + 2 * (size_t)w * c;
    upper[0] = upper[c] = lower[0] = lower[c] = value;
  }
}

template <class T> static __device__ __forceinline__ void vjp(T *dx, const T *dy, uint32_t w, uint32_t c, uint32_t n) {
  each_group<T>(c, n, [=](auto width, uint32_t i) {
    const T *upper = dy + upper_left(i, w, c), *lower = upper + 2 * (size_t)w * c;
    float ul[W], ur[W], ll[W], lr[W];
    load(ul, upper);
    load(ur, upper + c);
    load(ll, lower);
    load(lr, lower + c);
#pragma unroll
    for (int j = 0; j < W; j++) ul[j] = (ul[j] + ur[j]) + (ll[j] + lr[j]);
    store(dx + i, ul);
  });
}

#define FORWARD(Unit, bits)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  upsample_forward_b##bits(Unit *__restrict__ y, const Unit *__restrict__ x, uint32_t w, uint32_t c, uint32_t n) {     \
    forward(y, x, w, c, n);                                                                                            \
  }                                                                                                                    \
  KERNEL_ENTRY(upsample_forward_b##bits)
FORWARD(uint4, 128)
FORWARD(uint2, 64)
FORWARD(uint32_t, 32)
FORWARD(uint16_t, 16)

#define VJP(T, dtype)                                                                                                  \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  upsample_vjp_##dtype(T *__restrict__ dx, const T *__restrict__ dy, uint32_t w, uint32_t c, uint32_t n) {             \
    vjp(dx, dy, w, c, n);                                                                                              \
  }                                                                                                                    \
  KERNEL_ENTRY(upsample_vjp_##dtype)
VJP(float, f32)
VJP(bf16, bf16)
