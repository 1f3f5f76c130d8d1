// EDM preconditioning (src/ops/precondition), where arrays change their type: those of the sampler are f32, those of the
// network are T.
//
//   precondition_scale    y = c x, x f32, y T: the network's input c_in x, and what its VJP is applied to, c_out dd
//   precondition_combine  y = a x + b f, x and y f32, f T: the estimate c_skip x + c_out f, and its VJP c_skip dd + c_in dg
//
// Shapes: x, f, y (N, D), D = `row`; a, b, c one number, or one per sample; n = N D, below 2^31.
// Launch: one-dimensional, 256 threads, one thread for 16 bytes of the narrower type. Bytes: each array once.
#include "rows.cuh"
#include "scalar.cuh"

template <class T> static __device__ void scale(T *y, const float *x, const Scalar &c, uint32_t row, uint32_t n) {
  each_group<T>(row, n, [&](auto width, uint32_t i) {
    const float c_n = c.row(i / row);
    float value[W];
    load_floats(value, x + i);
    for (int j = 0; j < W; j++) value[j] *= c_n;
    store(y + i, value);
  });
}

static __device__ __forceinline__ void store_floats(float *y, const float (&f)[1]) { *y = f[0]; }
static __device__ __forceinline__ void store_floats(float *y, const float (&f)[4]) { store(y, f); }
static __device__ __forceinline__ void store_floats(float *y, const float (&f)[8]) {
  const float low[4] = {f[0], f[1], f[2], f[3]}, high[4] = {f[4], f[5], f[6], f[7]};
  store(y, low), store(y + 4, high);
}

template <class T>
static __device__ void combine(float *y, const float *x, const T *f, const Scalar &a, const Scalar &b, uint32_t row,
                               uint32_t n) {
  each_group<T>(row, n, [&](auto width, uint32_t i) {
    const float a_n = a.row(i / row), b_n = b.row(i / row);
    float value[W], network[W];
    load_floats(value, x + i);
    load(network, f + i);
    for (int j = 0; j < W; j++) value[j] = fmaf(b_n, network[j], a_n * value[j]);
    store_floats(y + i, value);
  });
}

#define PRECONDITION(T, suffix)                                                                                  \
  extern "C" __global__ void precondition_scale_##suffix(T *y, const float *x, Scalar c, uint32_t row,           \
                                                         uint32_t n) {                                           \
    scale(y, x, c, row, n);                                                                                      \
  }                                                                                                              \
  KERNEL_ENTRY(precondition_scale_##suffix)                                                                      \
  extern "C" __global__ void precondition_combine_##suffix(float *y, const float *x, const T *f, Scalar a,       \
                                                           Scalar b, uint32_t row, uint32_t n) {                 \
    combine(y, x, f, a, b, row, n);                                                                              \
  }                                                                                                              \
  KERNEL_ENTRY(precondition_combine_##suffix)
PRECONDITION(float, f32)
PRECONDITION(bf16, bf16)
