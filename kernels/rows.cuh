// Loops over the elements of a batch of rows, in groups of 16 bytes where a row is made of such groups.
//
// A body is called with the width of its group, `Width<W>`, and the index of the group's first element.
#pragma once
#include "vec.cuh"

constexpr int kRowThreads = 256; // of a kernel with one block per row

template <int N> struct Width {
  static constexpr int value = N;
};
// The width in a body `[=](auto width, uint32_t i) { float x[W]; .. }`.
#define W decltype(width)::value

// All n elements, shared among the threads of the grid.
template <class T, class F> static __device__ __forceinline__ void each_group(uint32_t row, uint32_t n, F body) {
  if (row % kWide<T> == 0) {
    GRID_STRIDE(group, n / kWide<T>) body(Width<kWide<T>>(), group * kWide<T>);
  } else {
    GRID_STRIDE(i, n) body(Width<1>(), i);
  }
}

// All n elements of an array without rows; the last go one by one.
template <class T, class F> static __device__ __forceinline__ void each_element(uint32_t n, F body) {
  const uint32_t whole = n / kWide<T> * kWide<T>;
  each_group<T>(kWide<T>, whole, body);
  GRID_STRIDE(i, n - whole) body(Width<1>(), whole + i);
}

// The elements of one row, shared among the threads of a block of kRowThreads; a thread gets the same in every loop.
template <class T, class F> static __device__ __forceinline__ void each_of_row(uint32_t row, F body) {
  if (row % kWide<T> == 0) {
    for (uint32_t i = threadIdx.x * kWide<T>; i < row; i += kRowThreads * kWide<T>) body(Width<kWide<T>>(), i);
  } else {
    for (uint32_t i = threadIdx.x; i < row; i += kRowThreads) body(Width<1>(), i);
  }
}

// <x, y> over one row in f64, the same for all threads; each sums its own elements, then a fixed tree follows.
static __device__ __forceinline__ double row_dot(const float *x, const float *y, uint32_t row, double *scratch) {
  double sum = 0;
  each_of_row<float>(row, [&](auto width, uint32_t i) {
    float a[W], b[W];
    load(a, x + i);
    load(b, y + i);
    for (int j = 0; j < W; j++) sum += (double)a[j] * (double)b[j];
  });
  return block_sum(sum, scratch);
}
