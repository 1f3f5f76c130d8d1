// The convolution's products by wgmma, for bf16 on sm_90a: see conv2d.cuh.
//
// Two warpgroups own BM / 2 pixels x 128 channels each, by m64n128k16 with both operands in shared memory, which they read half
// as often as 64 x 64 warps do by ldmatrix. A step of K is 64 channels: rows of 128 bytes, whose XOR swizzle is the one of
// wgmma's descriptors. All threads copy as well: products of step k run while step k + 2 is asked for, into the buffer of step
// k - 2, which all are done with at the barrier of step k (each then had but step k - 1 in flight).
//
// Resources: BM 256: 192 KiB, BM 128: 128 KiB of shared memory, 256 threads, one block per SM. Sums are in another order than
// those of mma.sync: which of the two serves a layer depends on the layer and the device, never on the batch.
#include "conv2d.cuh"

template <int BM, Source SOURCE, class Epilogue>
__device__ __forceinline__ void conv2d_wgmma(const Conv2dArgs &args, const EpilogueArgs &e) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int BN = 128, THREADS = 256, ROW = 128, MW = BM / 128, STAGE = (BM + BN) * ROW;
  const Phase &phase = args.phase[blockIdx.z];
  const int m0 = blockIdx.x / args.blocks_n * BM, n0 = blockIdx.x % args.blocks_n * BN;
  if (m0 >= args.n * phase.h * phase.w) return;

  DYN_SHARED(unsigned char, smem);
  Rows<bf16, ROW, BM, THREADS, SOURCE> rows(args, phase, m0);
  Weights<bf16, ROW, BN, THREADS> weights(args, phase, n0);
  const int steps = rows.steps(phase), packed_rows = (args.c + 31) / 32 * 32;
  const auto copy = [&](int k) {
    if (k < steps) {
      unsigned char *stage = smem + k % STAGES * STAGE;
      rows.copy(stage);
      weights.copy(stage + BM * ROW, packed_rows);
    }
    cp_async_commit();
  };

  const int group = threadIdx.x / 128;
  float acc[MW][64];
  copy(0);
  copy(1);
#pragma unroll 1
  for (int k = 0; k < steps; k++) {
    cp_async_wait<1>();
    fence_proxy_async(); // the copies are ordinary writes to wgmma
    __syncthreads();
    const uint32_t a = smem_u32(smem + k % STAGES * STAGE) + group * MW * 64 * ROW;
    const uint32_t b = smem_u32(smem + k % STAGES * STAGE) + BM * ROW;
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < 4; kk++)
#pragma unroll
      for (int i = 0; i < MW; i++)
        wgmma_m64n128k16_bf16(acc[i], wgmma_desc_k128(a + i * 64 * ROW + kk * 32), wgmma_desc_k128(b + kk * 32), k + kk > 0);
    wgmma_commit();
    copy(k + 2);
    wgmma_wait<1>();
  }
  wgmma_wait<0>();
  cp_async_wait<0>();

  // A thread has 8 channels in 4 groups of 2 MW pixels.
  const int m = m0 + group * MW * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4, c = n0 + threadIdx.x % 4 * 8;
#pragma unroll
  for (int i = 0; i < MW; i++)
#pragma unroll
    for (int h = 0; h < 2; h++)
      finish<bf16, 4, Epilogue>(args, e, phase, m + 64 * i + 8 * h, c,
                                [&](int group, int j) { return acc[i][16 * group + j / 2 * 4 + 2 * h + j % 2]; });
#else
  __trap(); // compiled for another architecture: never chosen there
#endif
}

#define CONV2D_WGMMA(NAME, BM, SOURCE, EPILOGUE)                                                                       \
  extern "C" __global__ void __launch_bounds__(256, 1)                                                                 \
      NAME(const __grid_constant__ Conv2dArgs args, const __grid_constant__ EpilogueArgs e) {                          \
    conv2d_wgmma<BM, SOURCE, EPILOGUE<bf16>>(args, e);                                                                 \
  }                                                                                                                    \
  KERNEL_ENTRY(NAME)
#define CONV2D_WGMMA_TILES(WHAT, SOURCE, EPILOGUE)                                                                     \
  CONV2D_WGMMA(conv2d_##WHAT##_wgmma_256x128_bf16, 256, SOURCE, EPILOGUE)                                              \
  CONV2D_WGMMA(conv2d_##WHAT##_wgmma_128x128_bf16, 128, SOURCE, EPILOGUE)
CONV2D_WGMMA_TILES(bias, ALIGNED, Bias)
CONV2D_WGMMA_TILES(silu, ALIGNED, Silu)
CONV2D_WGMMA_TILES(times, ALIGNED, Times)
CONV2D_WGMMA_TILES(residual, ALIGNED, Residual)
CONV2D_WGMMA_TILES(merged_bias, MERGED, Bias)
