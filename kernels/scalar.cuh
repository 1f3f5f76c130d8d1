// Numbers of the host that change from step to step of a sampler: `Scalar` and `Word` of src/backend/cuda/scalar.rs.
//
// A recorded step reads them from its row of scalars on the device, any other launch has them as values. A Scalar may
// also stand for one number per row of a batch.
#pragma once
#include "gpu.cuh"

struct Scalar {
  const float *at;
  float value;
  uint32_t stride; // 0 or 1
  __device__ __forceinline__ float get() const { return at ? *at : value; }
  __device__ __forceinline__ float row(uint32_t n) const { return at ? at[n * stride] : value; }
};

struct Word {
  const uint32_t *at;
  uint32_t value;
  __device__ __forceinline__ uint32_t get() const { return at ? *at : value; }
};
