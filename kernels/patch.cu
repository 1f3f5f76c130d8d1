// patch: p x p pixels become channels (src/ops/patch), and back: a permutation.
//
//   fold     y[n, i, j, (r p + s) C + c] = x[n, p i + r, p j + s, c]: (N, H, W, C) to (N, H/p, W/p, p^2 C)
//   unfold   the inverse
//
// Runs of p C elements lie together in both. They are copied in units of 16, 8, 4 or 2 bytes, whatever these hold.
// Shapes: below 2^31 units; `run` units per run, `per_row` = W/p runs per row of x.
// Launch: one-dimensional, 256 threads, one for a unit of x. Bytes: 2 times those of x. No more than 32 registers.
#include "vec.cuh"

// The unit of y, the folded array, that unit i of x becomes; rows over the batch.
static __device__ __forceinline__ size_t folded(uint32_t i, uint32_t p, uint32_t run, uint32_t per_row) {
  const uint32_t run_of_x = i / run, row = run_of_x / per_row, j = run_of_x % per_row;
  return (((size_t)(row / p) * per_row + j) * p + row % p) * run + i % run;
}

#define ENTRIES(Unit, bits)                                                                                            \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  patch_fold_b##bits(Unit *__restrict__ y, const Unit *__restrict__ x, uint32_t p, uint32_t run, uint32_t per_row,     \
                     uint32_t n) {                                                                                     \
    GRID_STRIDE(i, n) y[folded(i, p, run, per_row)] = x[i];                                                            \
  }                                                                                                                    \
  KERNEL_ENTRY(patch_fold_b##bits)                                                                                     \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  patch_unfold_b##bits(Unit *__restrict__ x, const Unit *__restrict__ y, uint32_t p, uint32_t run, uint32_t per_row,   \
                       uint32_t n) {                                                                                   \
    GRID_STRIDE(i, n) x[i] = y[folded(i, p, run, per_row)];                                                            \
  }                                                                                                                    \
  KERNEL_ENTRY(patch_unfold_b##bits)
ENTRIES(uint4, 128)
ENTRIES(uint2, 64)
ENTRIES(uint32_t, 32)
ENTRIES(uint16_t, 16)
