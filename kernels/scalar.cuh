// Numbers of the host that change from step to step of a sampler: `Scalar` and `Word` of src/backend/cuda/scalar.rs.
//
// A recorded step reads them from its row of scalars on the device, any other launch has them as values.
#pragma once
#include "gpu.cuh"

template <class T> struct HostNumber {
  const T *at;
  T value;
  __device__ __forceinline__ T get() const { return at ? *at : value; }
};
using Scalar = HostNumber<float>;
using Word = HostNumber<uint32_t>;
