// silu (src/ops/silu): y = x s, s = 1/(1 + e^-x).
//
//   forward   y, and dy/dx = s + y (1 - s) where there is an array for it
//   vjp       dx = derivative dy
//
// Shapes: all of n elements, T, n < 2^31.
// Launch: one-dimensional, 256 threads, one for 16 bytes; the last n mod (elements of 16 bytes) go one by one.
// Bytes: s n per array (s = size of T): forward 2 or 3 arrays, vjp 3. No more than 32 registers, no shared memory.
#include "rows.cuh"
#include "silu.cuh"

template <class T> static __device__ __forceinline__ void forward(T *y, T *derivative, const T *x, uint32_t n) {
  each_element<T>(n, [=](auto width, uint32_t i) {
    float value[W], slope[W];
    load(value, x + i);
#pragma unroll
    for (int j = 0; j < W; j++) value[j] = silu(value[j], slope[j]);
    store(y + i, value);
    if (derivative) store(derivative + i, slope);
  });
}

template <class T> static __device__ __forceinline__ void vjp(T *dx, const T *derivative, const T *dy, uint32_t n) {
  each_element<T>(n, [=](auto width, uint32_t i) {
    float d[W], slope[W];
    load(d, dy + i);
    load(slope, derivative + i);
#pragma unroll
    for (int j = 0; j < W; j++) d[j] *= slope[j];
    store(dx + i, d);
  });
}

#define ENTRIES(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  silu_forward_##dtype(T *__restrict__ y, T *__restrict__ derivative, const T *__restrict__ x, uint32_t n) {           \
    forward(y, derivative, x, n);                                                                                      \
  }                                                                                                                    \
  KERNEL_ENTRY(silu_forward_##dtype)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  silu_vjp_##dtype(T *__restrict__ dx, const T *__restrict__ derivative, const T *__restrict__ dy, uint32_t n) {       \
    vjp(dx, derivative, dy, n);                                                                                        \
  }                                                                                                                    \
  KERNEL_ENTRY(silu_vjp_##dtype)

ENTRIES(float, f32)
ENTRIES(bf16, bf16)
