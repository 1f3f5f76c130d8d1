// The beginning of a recorded step (src/backend/cuda/record.rs): now = table[*index]; ++*index.
//
// Shapes: now (width), table (steps, width), index (1). Launch: one block of 256 threads. Bytes: one row read and written.
#include "gpu.cuh"

extern "C" __global__ void begin_step(uint32_t *now, const uint32_t *table, uint32_t *index, uint32_t width) {
  const uint32_t *row = table + (size_t)*index * width;
  for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) now[i] = row[i];
  __syncthreads();
  if (threadIdx.x == 0) ++*index;
}
KERNEL_ENTRY(begin_step)
