// silu.cuh -- y = x s, s = 1/(1 + e^-x), and dy/dx = s + y (1 - s).
#pragma once
#include "gpu.cuh"

// Below -87, where e^-x or its quotient overflows, s = 0 and so are y and the derivative: right to 1e-36.
__device__ __forceinline__ float silu(float x, float &derivative) {
  const float s = __fdividef(1.f, 1.f + __expf(-x)), y = x * s;
  derivative = fmaf(y, 1.f - s, s);
  return y;
}
