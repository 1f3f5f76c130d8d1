// global_norm: sqrt(sum of squares) over many arrays (src/ops/global_norm), in f64 and in two stages: one launch for each
// array, a block for every kElementsPerBlock elements, then one block that adds what the blocks have.
//
// Shapes: x (n) in f32, n < 2^31; partial (blocks of all arrays), `first` the place of this array's; norm (1).
// Bytes: 4 n. Floor at 3.0 TB/s (H100), 57.6 M parameters: 77 us. 32 registers. Shared memory: one number per warp.
// Order of sums: it depends on the lengths alone.
#include "rows.cuh"

constexpr int kElementsPerBlock = 1 << 14;

extern "C" __global__ void __launch_bounds__(kRowThreads)
global_norm_partial_f32(double *__restrict__ partial, const float *__restrict__ x, uint32_t first, uint32_t n) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const uint32_t start = blockIdx.x * kElementsPerBlock, count = min(n - start, (uint32_t)kElementsPerBlock);
  const double sum = row_dot(x + start, x + start, count, scratch);
  if (threadIdx.x == 0) partial[first + blockIdx.x] = sum;
}
KERNEL_ENTRY(global_norm_partial_f32)

extern "C" __global__ void __launch_bounds__(kRowThreads)
global_norm_f32(float *__restrict__ norm, const double *__restrict__ partial, uint32_t count) {
  SHARED(double, scratch, [kRowThreads / 32]);
  double sum = 0;
  for (uint32_t i = threadIdx.x; i < count; i += kRowThreads) sum += partial[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *norm = (float)sqrt(sum);
}
KERNEL_ENTRY(global_norm_f32)
