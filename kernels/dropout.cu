// dropout: x = x keep scale, in place, with a mask by Philox4x32-10 (src/ops/dropout): its own VJP.
//
// Shapes: x (N, D) in T, D = `row`, n = N D < 2^31; samples (N). Elements 4 b .. 4 b + 3 of sample k have the four words of
//   counter (b, k, step, purpose); a word below `threshold` drops its element.
// Launch: one-dimensional, 256 threads, one for four elements: accesses of 8 (bf16) or 16 bytes (f32), single ones where D is
//   no multiple of 4. Bytes: 2 s n (s = size of T). Integer operations: about 30 per element.
#include "philox.cuh"
#include "scalar.cuh"
#include "vec.cuh"

static __device__ __forceinline__ void load_four(float (&f)[4], const float *p) { load(f, p); }
static __device__ __forceinline__ void load_four(float (&f)[4], const bf16 *p) {
  const uint2 v = *reinterpret_cast<const uint2 *>(p);
  f[0] = bf16_low(v.x), f[1] = bf16_high(v.x), f[2] = bf16_low(v.y), f[3] = bf16_high(v.y);
}
static __device__ __forceinline__ void store_four(float *p, const float (&f)[4]) { store(p, f); }
static __device__ __forceinline__ void store_four(bf16 *p, const float (&f)[4]) {
  *reinterpret_cast<uint2 *>(p) = make_uint2(bf16_pair(f[0], f[1]), bf16_pair(f[2], f[3]));
}

template <class T>
static __device__ __forceinline__ void dropout(T *x, const uint32_t *samples, uint64_t seed, Word step, Word purpose,
                                               uint32_t threshold, float scale, uint32_t row, uint32_t n) {
  const uint32_t blocks = (row + 3) / 4; // of a sample
  GRID_STRIDE(i, n / row * blocks) {
    const uint32_t sample = i / blocks, block = i % blocks;
    const uint4 words = philox4x32(make_uint4(block, samples[sample], step.get(), purpose.get()), (uint32_t)seed, (uint32_t)(seed >> 32));
    const uint32_t word[4] = {words.x, words.y, words.z, words.w};
    T *at = x + (size_t)sample * row + 4 * block;
    if (row % 4 == 0) {
      float f[4];
      load_four(f, at);
#pragma unroll
      for (int j = 0; j < 4; j++) f[j] = word[j] >= threshold ? f[j] * scale : 0.f;
      store_four(at, f);
    } else {
      for (uint32_t j = 0; j < min(4u, row - 4 * block); j++)
        at[j] = from_float<T>(word[j] >= threshold ? to_float(at[j]) * scale : 0.f);
    }
  }
}

#define ENTRY(T, dtype)                                                                                                \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  dropout_##dtype(T *x, const uint32_t *__restrict__ samples, uint64_t seed, Word step, Word purpose,          \
                  uint32_t threshold, float scale, uint32_t row, uint32_t n) {                                         \
    dropout(x, samples, seed, step, purpose, threshold, scale, row, n);                                                \
  }                                                                                                                    \
  KERNEL_ENTRY(dropout_##dtype)
ENTRY(float, f32)
ENTRY(bf16, bf16)
