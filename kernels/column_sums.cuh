// column_sums.cuh -- sums over pixels, channel by channel: the parameter gradients of modulations.
//
// In two stages, whose order depends on the extents of one sample only: a block sums kPixelsPerBlock pixels of one sample
// into `partial`; add_partial_sums (column_sums.cu) adds the partial sums of a row in order, onto the accumulator.
#pragma once
#include "vec.cuh"

constexpr int kPixelsPerBlock = 64;
constexpr int kColumnThreads = 256;

// sums (S, C) of f(acc, pixel, i) over the pixels first .. last - 1, where f adds S times W channels from i on. For whole
// blocks of kColumnThreads threads: neighbours have neighbouring channels; `slots` threads share a channel's pixels, and the
// first of them adds what the others have, in order.
template <int S, int W, class F>
__device__ __forceinline__ void column_sums(float *sums, int first, int last, int c, F f) {
  SHARED(float, scratch, [kColumnThreads * W]);
  const int columns = min(c / W, kColumnThreads), slots = kColumnThreads / columns;
  const int slot = threadIdx.x / columns, column = threadIdx.x % columns;
  for (int start = 0; start < c; start += columns * W) {
    const int i = start + column * W;
    const bool active = slot < slots && i < c;
    float acc[S][W] = {};
    if (active)
      for (int pixel = first + slot; pixel < last; pixel += slots) f(acc, pixel, i);
#pragma unroll
    for (int s = 0; s < S; s++) {
      __syncthreads();
#pragma unroll
      for (int w = 0; w < W; w++) scratch[w * kColumnThreads + threadIdx.x] = acc[s][w];
      __syncthreads();
      if (slot != 0 || i >= c) continue;
#pragma unroll
      for (int w = 0; w < W; w++) {
        for (int other = 1; other < slots; other++) acc[s][w] += scratch[w * kColumnThreads + other * columns + column];
        sums[s * c + i + w] = acc[s][w];
      }
    }
  }
}
