// y = (x - mean) rstd w + b per row of D (a multiple of 4) elements; x, w, b f32, y bf16. A warp owns a row.
#include "gpu.cuh"

static __device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

extern "C" __global__ void __launch_bounds__(128)
layer_norm_f32(const float *__restrict__ x, const float *__restrict__ w, const float *__restrict__ b, __nv_bfloat16 *__restrict__ y, int rows,
               int D, float eps) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;  // whole warps leave together
  const float4 *x4 = reinterpret_cast<const float4 *>(x + (size_t)row * D);
  const int n = D / 4;
  float sum = 0.f;
  for (int i = lane; i < n; i += 32) {
    const float4 v = __ldg(x4 + i);
    sum += (v.x + v.y) + (v.z + v.w);
  }
  const float mean = warp_sum(sum) / D;
  float squares = 0.f;
  for (int i = lane; i < n; i += 32) {
    const float4 v = __ldg(x4 + i);
    const float p = v.x - mean, q = v.y - mean, r = v.z - mean, s = v.w - mean;
    squares += (p * p + q * q) + (r * r + s * s);
  }
  const float rstd = rsqrtf(warp_sum(squares) / D + eps);
  for (int i = lane; i < n; i += 32) {
    const float4 v = __ldg(x4 + i), w4 = __ldg(reinterpret_cast<const float4 *>(w) + i), b4 = __ldg(reinterpret_cast<const float4 *>(b) + i);
    __nv_bfloat162 *out = reinterpret_cast<__nv_bfloat162 *>(y + (size_t)row * D) + 2 * i;
    out[0] = __floats2bfloat162_rn((v.x - mean) * rstd * w4.x + b4.x, (v.y - mean) * rstd * w4.y + b4.y);
    out[1] = __floats2bfloat162_rn((v.z - mean) * rstd * w4.z + b4.z, (v.w - mean) * rstd * w4.w + b4.w);
  }
}
KERNEL_ENTRY(layer_norm_f32)
