// gated_residual: the end of a block (src/ops/gated_residual), with r = 1/sqrt(1 + c^2).
//
//   gates        (r, c r) from the modulation
//   forward      y = r x + c r branch
//   vjp          dx = r dy where there is an array for it; dbranch = c r dy
//   vjp_params   dc = sum over pixels of dy r^2 (r branch - c r x): partial sums of 64 pixels, for add_partial_sums_f32
//
// Shapes: x, branch, y, dy, dx, dbranch (N, H W, C) in T, below 2^31 elements; abc (rows, 3 C), gates (rows, 2 C), partial
//   (N, blocks per sample, C) in f32; rows = 1 or N.
// Launch: one-dimensional, 256 threads, one for 16 bytes (one for an element where C is no multiple of 16 bytes);
//   vjp_params: grid (blocks per sample, N).
// Bytes: s per element and array (s = size of T): forward 3, vjp 2 or 3, vjp_params 3. Floor at 3.0 TB/s (H100),
//   (256, 32, 32, 128) in bf16: 67 us for three arrays.
// Registers: 32, vjp_params 64.
#include "column_sums.cuh"
#include "rows.cuh"

extern "C" __global__ void __launch_bounds__(256)
gated_residual_gates_f32(float *__restrict__ gates, const float *__restrict__ abc, uint32_t rows, uint32_t c) {
  GRID_STRIDE(i, rows * c) {
    const uint32_t row = i / c, j = i % c;
    const float gate = abc[(size_t)row * 3 * c + 2 * c + j], r = rsqrtf(fmaf(gate, gate, 1.f));
    gates[(size_t)row * 2 * c + j] = r;
    gates[(size_t)row * 2 * c + c + j] = gate * r;
  }
}
KERNEL_ENTRY(gated_residual_gates_f32)

// r, and c r `c` further on, of the sample and the channel of element i; `row` is H W C.
static __device__ __forceinline__ const float *gates_of(const float *gates, uint32_t rows, uint32_t row, uint32_t c, uint32_t i) {
  return gates + (rows == 1 ? 0 : (size_t)(i / row) * 2 * c) + i % c;
}

template <class T>
static __device__ __forceinline__ void forward(T *y, const T *x, const T *branch, const float *gates, uint32_t rows, uint32_t row,
                                        uint32_t c, uint32_t n) {
  each_group<T>(c, n, [=](auto width, uint32_t i) {
    const float *gate = gates_of(gates, rows, row, c, i);
    float value[W], added[W], r[W], cr[W];
    load(value, x + i);
    load(added, branch + i);
    load_floats(r, gate);
    load_floats(cr, gate + c);
#pragma unroll
    for (int j = 0; j < W; j++) value[j] = fmaf(cr[j], added[j], r[j] * value[j]);
    store(y + i, value);
  });
}

template <class T, int V>
static __device__ __forceinline__ void store_scaled(T *p, const float *gate, const float (&x)[V]) {
  float scaled[V];
  load_floats(scaled, gate);
#pragma unroll
  for (int j = 0; j < V; j++) scaled[j] *= x[j];
  store(p, scaled);
}

template <class T>
static __device__ __forceinline__ void vjp(T *dx, T *dbranch, const T *dy, const float *gates, uint32_t rows, uint32_t row,
                                    uint32_t c, uint32_t n) {
  each_group<T>(c, n, [=](auto width, uint32_t i) {
    const float *gate = gates_of(gates, rows, row, c, i);
    float d[W];
    load(d, dy + i);
    if (dx) store_scaled(dx + i, gate, d);
    store_scaled(dbranch + i, gate + c, d);
  });
}

template <class T, int V>
static __device__ __forceinline__ void partial_dc(float *partial, const T *x, const T *branch, const float *gates, uint32_t rows,
                                           const T *dy, int pixels, int c) {
  const int first = blockIdx.x * kPixelsPerBlock, last = min(first + kPixelsPerBlock, pixels);
  const float *gate = gates + (rows == 1 ? 0 : (size_t)blockIdx.y * 2 * c);
  float *sums = partial + ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * c;
  column_sums<1, V>(sums, first, last, c, [&](float (&acc)[1][V], int pixel, int i) {
    const size_t at = ((size_t)blockIdx.y * pixels + pixel) * c + i;
    float x_i[V], branch_i[V], dy_i[V], r[V], cr[V];
    load(x_i, x + at);
    load(branch_i, branch + at);
    load(dy_i, dy + at);
    load_floats(r, gate + i);
    load_floats(cr, gate + c + i);
#pragma unroll
    for (int j = 0; j < V; j++) acc[0][j] = fmaf(dy_i[j], r[j] * r[j] * fmaf(r[j], branch_i[j], -cr[j] * x_i[j]), acc[0][j]);
  });
}

#define ENTRIES(T, dtype)                                                                                              \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  gated_residual_forward_##dtype(T *__restrict__ y, const T *__restrict__ x, const T *__restrict__ branch,             \
                                 const float *__restrict__ gates, uint32_t rows, uint32_t row, uint32_t c,             \
                                 uint32_t n) {                                                                         \
    forward(y, x, branch, gates, rows, row, c, n);                                                                     \
  }                                                                                                                    \
  KERNEL_ENTRY(gated_residual_forward_##dtype)                                                                         \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  gated_residual_vjp_##dtype(T *__restrict__ dx, T *__restrict__ dbranch, const T *__restrict__ dy,                    \
                             const float *__restrict__ gates, uint32_t rows, uint32_t row, uint32_t c, uint32_t n) {   \
    vjp(dx, dbranch, dy, gates, rows, row, c, n);                                                                      \
  }                                                                                                                    \
  KERNEL_ENTRY(gated_residual_vjp_##dtype)                                                                             \
  extern "C" __global__ void __launch_bounds__(kColumnThreads)                                                         \
  gated_residual_vjp_params_##dtype(float *__restrict__ partial, const T *__restrict__ x,                              \
                                    const T *__restrict__ branch, const float *__restrict__ gates, uint32_t rows,      \
                                    const T *__restrict__ dy, int pixels, int c) {                                     \
    if (c % kWide<T> == 0) partial_dc<T, kWide<T>>(partial, x, branch, gates, rows, dy, pixels, c);                    \
    else partial_dc<T, 1>(partial, x, branch, gates, rows, dy, pixels, c);                                             \
  }                                                                                                                    \
  KERNEL_ENTRY(gated_residual_vjp_params_##dtype)

ENTRIES(float, f32)
ENTRIES(bf16, bf16)
