// out += <a, b>; f32, n elements. A block's warps meet in dynamic shared memory (a float per warp), and blocks in an atomic.
#include "gpu.cuh"

static __device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

extern "C" __global__ void dot_f32(const float *__restrict__ a, const float *__restrict__ b, float *out, int n) {
  DYN_SHARED(float, part);
  float sum = 0.f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += a[i] * b[i];
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = warp_sum(threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.f);
    if (threadIdx.x == 0) atomicAdd(out, sum);
  }
}
KERNEL_ENTRY(dot_f32)
