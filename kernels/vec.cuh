// vec.cuh -- what memory-bound kernels share: 16-byte accesses, bf16 <-> float, sums in a fixed order, grid-stride loops.
//
// T is float or bf16, W the elements of one access: kWide<T> (16 bytes) where pointers and extents are multiples of it,
// else 1. A value is loaded as it lies in memory (`Packed<T, W>`, four registers at most) and unpacked to floats where it is
// used, so that a row held in registers costs its bytes, not twice them.
//
// Sums over a warp or a block have an order that depends on the launch shape alone: butterflies, whose partners add the
// same two numbers, and a loop over the warps of a block. All threads get the same bits.
#pragma once
#include "gpu.cuh"

using bf16 = __nv_bfloat16;

template <class T> constexpr int kWide = 16 / (int)sizeof(T);

// ---------------------------------------------------------------------------------------------------- bf16 <-> float
__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

// Two bf16 in one register, the first in the low half.
__device__ __forceinline__ float bf16_low(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float bf16_high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof bits);
  return bits;
}

// ---------------------------------------------------------------------------------------------------- accesses
template <class T, int W> struct PackedOf;
template <class T> struct PackedOf<T, 1> { using type = T; };
template <> struct PackedOf<float, 4> { using type = float4; };
template <> struct PackedOf<bf16, 8> { using type = uint4; };
template <class T, int W> using Packed = typename PackedOf<T, W>::type;

template <int W, class T> __device__ __forceinline__ Packed<T, W> load(const T *p) {
  return *reinterpret_cast<const Packed<T, W> *>(p);
}

__device__ __forceinline__ void unpack(float (&f)[1], float v) { f[0] = v; }
__device__ __forceinline__ void unpack(float (&f)[1], bf16 v) { f[0] = to_float(v); }
__device__ __forceinline__ void unpack(float (&f)[4], float4 v) { f[0] = v.x, f[1] = v.y, f[2] = v.z, f[3] = v.w; }
__device__ __forceinline__ void unpack(float (&f)[8], uint4 v) {
  f[0] = bf16_low(v.x), f[1] = bf16_high(v.x), f[2] = bf16_low(v.y), f[3] = bf16_high(v.y);
  f[4] = bf16_low(v.z), f[5] = bf16_high(v.z), f[6] = bf16_low(v.w), f[7] = bf16_high(v.w);
}

// f = W elements from p.
template <int W, class T> __device__ __forceinline__ void load(float (&f)[W], const T *p) { unpack(f, load<W>(p)); }
// f = W floats from p, in accesses of at most 16 bytes: the parameters beside W elements of T.
template <int W> __device__ __forceinline__ void load_floats(float (&f)[W], const float *p) {
  if constexpr (W == 1) {
    f[0] = *p;
  } else {
#pragma unroll
    for (int i = 0; i < W; i += 4) {
      const float4 v = load<4>(p + i);
      f[i] = v.x, f[i + 1] = v.y, f[i + 2] = v.z, f[i + 3] = v.w;
    }
  }
}

// W elements at p = f, rounded to nearest even.
template <class T> __device__ __forceinline__ void store(T *p, const float (&f)[1]) { *p = from_float<T>(f[0]); }
__device__ __forceinline__ void store(float *p, const float (&f)[4]) {
  *reinterpret_cast<float4 *>(p) = make_float4(f[0], f[1], f[2], f[3]);
}
__device__ __forceinline__ void store(bf16 *p, const float (&f)[8]) {
  *reinterpret_cast<uint4 *>(p) =
      make_uint4(bf16_pair(f[0], f[1]), bf16_pair(f[2], f[3]), bf16_pair(f[4], f[5]), bf16_pair(f[6], f[7]));
}

// ---------------------------------------------------------------------------------------------------- sums
// Over the `lanes` neighbouring lanes of a warp that the caller is in (a power of two); F is float or double.
template <class F> __device__ __forceinline__ F warp_sum(F v, int lanes = 32) {
  for (int o = lanes / 2; o > 0; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}
// Over a block of whole warps; `scratch` holds a value per warp, and may be used again at once.
template <class F> __device__ __forceinline__ F block_sum(F v, F *scratch) {
  v = warp_sum(v);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  v = scratch[0];
  for (int i = 1; i < (int)blockDim.x / 32; i++) v += scratch[i];
  return v;
}

// ---------------------------------------------------------------------------------------------------- loops
// for (i in 0 .. n - 1, shared among all threads of a one-dimensional grid); n < 2^31, which launchers check.
#define GRID_STRIDE(i, n) \
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < (uint32_t)(n); i += gridDim.x * blockDim.x)
