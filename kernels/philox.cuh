// philox.cuh -- Philox4x32-10: four random words for a counter and a key, as philox.rs of src/ops/noise.
//
// Source: Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011.
#pragma once
#include "gpu.cuh"

static __device__ __forceinline__ uint4 philox4x32(uint4 x, uint32_t k0, uint32_t k1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const uint64_t p0 = (uint64_t)0xd2511f53u * x.x, p1 = (uint64_t)0xcd9e8d57u * x.z;
    x = make_uint4((uint32_t)(p1 >> 32) ^ x.y ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ x.w ^ k1, (uint32_t)p0);
    k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
  }
  return x;
}
