// Arithmetic on batches of vectors: what samplers and solvers are made of (src/ops/vector). All of it is memory-bound.
//
//   fill, copy, cast                  y = value; y = x; y = x in the other type
//   linear_combination                y = sum_k a_k x_k, k = 0 .. count - 1, from left to right; y may be x_0
//   add_assign                        y += x, x of one row for all or of as many rows as y
//   row_axpy                          y_n += scale a_n x_n; a row with a_n = 0 keeps its bits
//   row_scale, multiply               y_n = a_n x_n; z = x y, y broadcast over rows, channels or both
//   row_normalize, row_quotient       y_n = x_n / sqrt(square_n), 0 where that is 0 or not finite; z = x / max(y, floor_n)
//   row_dot                           z_n = <x_n, y_n>, summed in f64
//   rows_finite, note_nonfinite       whether row n is finite; in which step it was first seen not to be
//   gather_rows                       y_n = x_{index[n]}
//   pick_rows                         y_k = row n of x_k, for up to 128 arrays x_k of any row
//
// Shapes: x, y, z (N, D), D = H W C, `row` in the arguments; `a` has a_rows = 1 or N values; n = N D, below 2^31.
// Launch: one-dimensional grids of 256 threads, one thread for 16 bytes, or one block for a row where a row is reduced;
// pick_rows: a column of blocks for each array, by the longest row.
// Bytes: each array once. Shared memory: one number per warp. No more than 40 registers.
// Order of sums: a thread adds what lies 256 accesses apart, then a fixed tree; it depends on D alone.
#include "rows.cuh"
#include "scalar.cuh"

// ------------------------------------------------------------------------------------------- fill, copy, cast
extern "C" __global__ void vector_fill_u32(uint32_t *y, uint32_t value, uint32_t words) {
  GRID_STRIDE(i, words) y[i] = value;
}
KERNEL_ENTRY(vector_fill_u32)

extern "C" __global__ void vector_copy_u32(uint32_t *y, const uint32_t *x, uint32_t words) {
  GRID_STRIDE(i, words / 4) reinterpret_cast<uint4 *>(y)[i] = reinterpret_cast<const uint4 *>(x)[i];
  GRID_STRIDE(i, words % 4) y[words / 4 * 4 + i] = x[words / 4 * 4 + i];
}
KERNEL_ENTRY(vector_copy_u32)

extern "C" __global__ void vector_cast_bf16(bf16 *y, const float *x, uint32_t n) {
  GRID_STRIDE(i, n) y[i] = from_float<bf16>(x[i]);
}
KERNEL_ENTRY(vector_cast_bf16)

extern "C" __global__ void vector_cast_f32(float *y, const bf16 *x, uint32_t n) {
  GRID_STRIDE(i, n) y[i] = to_float(x[i]);
}
KERNEL_ENTRY(vector_cast_f32)

// ------------------------------------------------------------------------------------------- elementwise
template <class T> struct Terms {
  const T *x[4]; // (N, D) each
  Scalar a[4];
};

template <class T>
static __device__ void linear_combination(T *y, const Terms<T> &terms, uint32_t count, uint32_t row, uint32_t n) {
  each_group<T>(row, n, [&](auto width, uint32_t i) {
    float sum[W] = {};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      if (k >= (int)count) break;
      float x[W];
      const float a = terms.a[k].get();
      load(x, terms.x[k] + i);
      for (int j = 0; j < W; j++) sum[j] = fmaf(a, x[j], sum[j]);
    }
    store(y + i, sum);
  });
}
#define LINEAR_COMBINATION(name, T)                                                                              \
  extern "C" __global__ void name(T *y, Terms<T> terms, uint32_t count, uint32_t row, uint32_t n) {              \
    linear_combination(y, terms, count, row, n);                                                                 \
  }                                                                                                              \
  KERNEL_ENTRY(name)
LINEAR_COMBINATION(vector_linear_combination_f32, float)
LINEAR_COMBINATION(vector_linear_combination_bf16, bf16)

// x_len: the elements of x, D or n.
template <class T> static __device__ void add_assign(T *y, const T *x, uint32_t x_len, uint32_t row, uint32_t n) {
  each_group<T>(row, n, [=](auto width, uint32_t i) {
    float sum[W], term[W];
    load(sum, y + i);
    load(term, x + i % x_len);
    for (int j = 0; j < W; j++) sum[j] += term[j];
    store(y + i, sum);
  });
}
#define ADD_ASSIGN(name, T)                                                                                      \
  extern "C" __global__ void name(T *y, const T *x, uint32_t x_len, uint32_t row, uint32_t n) {                  \
    add_assign(y, x, x_len, row, n);                                                                             \
  }                                                                                                              \
  KERNEL_ENTRY(name)
ADD_ASSIGN(vector_add_assign_f32, float)
ADD_ASSIGN(vector_add_assign_bf16, bf16)

extern "C" __global__ void vector_row_axpy_f32(float *y, Scalar scale, const float *a, uint32_t a_rows, const float *x,
                                               uint32_t row, uint32_t n) {
  const float s = scale.get();
  each_group<float>(row, n, [=](auto width, uint32_t i) {
    const float a_n = a[a_rows == 1 ? 0 : i / row];
    if (a_n == 0.f) return;
    float sum[W], term[W];
    load(sum, y + i);
    load(term, x + i);
    for (int j = 0; j < W; j++) sum[j] = fmaf(s * a_n, term[j], sum[j]);
    store(y + i, sum);
  });
}
KERNEL_ENTRY(vector_row_axpy_f32)

extern "C" __global__ void vector_row_scale_f32(float *y, const float *x, const float *a, uint32_t a_rows, uint32_t row,
                                                uint32_t n) {
  each_group<float>(row, n, [=](auto width, uint32_t i) {
    const float a_n = a[a_rows == 1 ? 0 : i / row];
    float value[W];
    load(value, x + i);
    for (int j = 0; j < W; j++) value[j] *= a_n;
    store(y + i, value);
  });
}
KERNEL_ENTRY(vector_row_scale_f32)

extern "C" __global__ void vector_row_normalize_f32(float *y, const float *x, const float *square, uint32_t row, uint32_t n) {
  each_group<float>(row, n, [=](auto width, uint32_t i) {
    const float s = square[i / row];
    const bool direction = s > 0.f && s <= 3.4028234663852886e38f;
    const double norm = sqrt((double)s);
    float value[W];
    load(value, x + i);
    for (int j = 0; j < W; j++) value[j] = direction ? (float)(value[j] / norm) : 0.f;
    store(y + i, value);
  });
}
KERNEL_ENTRY(vector_row_normalize_f32)

extern "C" __global__ void vector_row_quotient_f32(float *z, const float *x, const float *y, const float *floor,
                                                   uint32_t floor_rows, uint32_t row, uint32_t n) {
  each_group<float>(row, n, [=](auto width, uint32_t i) {
    const float least = floor[floor_rows == 1 ? 0 : i / row];
    float value[W], by[W];
    load(value, x + i);
    load(by, y + i);
    for (int j = 0; j < W; j++) value[j] /= fmaxf(by[j], least);
    store(z + i, value);
  });
}
KERNEL_ENTRY(vector_row_quotient_f32)

// x (N, H W, C), y (y_rows, H W, y_c), y_rows = 1 or N, y_c = 1 or C; z as x.
template <class T>
static __device__ void multiply(T *z, const T *x, const T *y, uint32_t y_rows, uint32_t y_c, uint32_t c, uint32_t row,
                                uint32_t n) {
  each_group<T>(c, n, [=](auto width, uint32_t i) {
    const uint32_t at = y_rows == 1 ? i % row : i;
    float value[W], factor[W];
    load(value, x + i);
    if (y_c == 1) {
      const float f = to_float(y[at / c]);
      for (int j = 0; j < W; j++) factor[j] = f;
    } else {
      load(factor, y + at);
    }
    for (int j = 0; j < W; j++) value[j] *= factor[j];
    store(z + i, value);
  });
}
#define MULTIPLY(name, T)                                                                                        \
  extern "C" __global__ void name(T *z, const T *x, const T *y, uint32_t y_rows, uint32_t y_c, uint32_t c,       \
                                  uint32_t row, uint32_t n) {                                                    \
    multiply(z, x, y, y_rows, y_c, c, row, n);                                                                   \
  }                                                                                                              \
  KERNEL_ENTRY(name)
MULTIPLY(vector_multiply_f32, float)
MULTIPLY(vector_multiply_bf16, bf16)

// y (count, D), index (count): D is `row`, n = count D.
template <class T>
static __device__ void gather_rows(T *y, const T *x, const uint32_t *index, uint32_t row, uint32_t n) {
  each_group<T>(row, n, [=](auto width, uint32_t i) {
    const size_t from = (size_t)index[i / row] * row + i % row;
    float value[W];
    load(value, x + from);
    store(y + i, value);
  });
}
#define GATHER_ROWS(name, T)                                                                                     \
  extern "C" __global__ void name(T *y, const T *x, const uint32_t *index, uint32_t row, uint32_t n) {           \
    gather_rows(y, x, index, row, n);                                                                            \
  }                                                                                                              \
  KERNEL_ENTRY(name)
GATHER_ROWS(vector_gather_rows_f32, float)
GATHER_ROWS(vector_gather_rows_bf16, bf16)

struct Picked {
  const float *x[128]; // (N, row) each
  float *y[128];       // (1, row) each
  uint32_t row[128];
};

extern "C" __global__ void vector_pick_rows_f32(Picked arrays, Word n) {
  const uint32_t row = arrays.row[blockIdx.y];
  const float *x = arrays.x[blockIdx.y] + (size_t)n.get() * row;
  float *y = arrays.y[blockIdx.y];
  each_group<float>(row, row, [=](auto width, uint32_t i) {
    float value[W];
    load(value, x + i);
    store(y + i, value);
  });
}
KERNEL_ENTRY(vector_pick_rows_f32)

// ------------------------------------------------------------------------------------------- one block per row
extern "C" __global__ void __launch_bounds__(kRowThreads)
vector_row_dot_f32(float *z, const float *x, const float *y, uint32_t row) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const size_t start = (size_t)blockIdx.x * row;
  const double sum = row_dot(x + start, y + start, row, scratch);
  if (threadIdx.x == 0) z[blockIdx.x] = (float)sum;
}
KERNEL_ENTRY(vector_row_dot_f32)

// How many elements of the row from x on are infinite or NaN; the same for all threads.
template <class T> static __device__ __forceinline__ int count_nonfinite(const T *x, uint32_t row, int *scratch) {
  int count = 0;
  each_of_row<T>(row, [&](auto width, uint32_t i) {
    float value[W];
    load(value, x + i);
    for (int j = 0; j < W; j++) count += !(fabsf(value[j]) <= 3.402823466e38f);
  });
  return block_sum(count, scratch);
}

// finite (N): 1 or 0.
#define ROWS_FINITE(name, T)                                                                                     \
  extern "C" __global__ void __launch_bounds__(kRowThreads) name(float *finite, const T *x, uint32_t row) {      \
    SHARED(int, scratch, [kRowThreads / 32]);                                                                    \
    const int count = count_nonfinite(x + (size_t)blockIdx.x * row, row, scratch);                               \
    if (threadIdx.x == 0) finite[blockIdx.x] = count == 0 ? 1.f : 0.f;                                           \
  }                                                                                                              \
  KERNEL_ENTRY(name)
ROWS_FINITE(vector_rows_finite_f32, float)
ROWS_FINITE(vector_rows_finite_bf16, bf16)

// first (N): the step of the first call in which row n was not finite, -1 before.
extern "C" __global__ void __launch_bounds__(kRowThreads)
vector_note_nonfinite_f32(float *first, Scalar step, const float *x, uint32_t row) {
  SHARED(int, scratch, [kRowThreads / 32]);
  const int count = count_nonfinite(x + (size_t)blockIdx.x * row, row, scratch);
  if (threadIdx.x == 0 && count > 0 && first[blockIdx.x] < 0.f) first[blockIdx.x] = step.get();
}
KERNEL_ENTRY(vector_note_nonfinite_f32)
