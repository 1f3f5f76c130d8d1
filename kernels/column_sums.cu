// The second stage of sums over pixels (column_sums.cuh): target[r, offset + j] += sum_k partial[r, k, j].
//
// Shapes: partial (rows, count, columns), target (rows, stride), columns <= stride - offset.
// Launch: one-dimensional, a thread per (row, column), which adds its `count` numbers in order; neighbours read neighbours.
// Bytes: 4 rows columns (count + 2). Below 32 registers, no shared memory.
#include "vec.cuh"

extern "C" __global__ void add_partial_sums_f32(float *target, const float *__restrict__ partial, uint32_t rows,
                                                uint32_t count, uint32_t columns, uint32_t stride, uint32_t offset) {
  GRID_STRIDE(i, rows * columns) {
    const uint32_t row = i / columns, j = i % columns;
    const float *p = partial + (size_t)row * count * columns + j;
    float sum = 0.f;
    for (uint32_t k = 0; k < count; k++) sum += p[(size_t)k * columns];
    target[(size_t)row * stride + offset + j] += sum;
  }
}
KERNEL_ENTRY(add_partial_sums_f32)
