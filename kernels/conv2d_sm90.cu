// The convolution's products by wgmma, for bf16 on sm_90a: see conv2d.cuh.
//
// A tile is a box of 128 or 256 pixels (2^a images x 2^b rows x 2^c columns) x 128 channels. For each tap, TMA brings that box
// of the input, shifted by the tap, 64 channels of it: it fills in zeros outside the image, past the last image and past the
// last channel, so that any extents will do, and it skips pixels for strides. The weights come as boxes of 128 rows of a step.
//
// The grid is persistent: at most one block per SM, each taking every gridDim.x-th tile. Warpgroup 2 gives up its registers,
// and one thread of it does all copies, through a ring of stages with a full and an empty mbarrier each. Warpgroups 0 and 1
// own half of the pixels each, by m64n128k16 with both operands in shared memory; a stage is released one step later, when its
// products are known to be done. The ring goes on across tiles: the next one is loaded while the epilogue of one runs.
//
// Resources: BM 256: 4 stages, BM 128: 6 stages, 192 KiB; 384 threads, 168 registers, one block per SM; docs/kernels.md. Sums
// are in the order of conv2d.cuh, but rounded otherwise than those of mma.sync: which of the two serves a layer depends on the
// layer and the device, never on the batch; boxes are about speed alone. NVIDIA's CUTLASS is built this way.
#include "conv2d.cuh"

/// The arrays of which TMA reads boxes.
struct Conv2dMaps {
  TensorMap x[2];       // of each window, (n, h, w, c): a tile's pixels x 64 channels
  TensorMap weights[4]; // of each phase, (steps, rows, 64): 128 rows
};

/// Tiles: of all phases, along n, h and w; channels come innermost, so that blocks at work share their pixels in L2.
struct Conv2dTiles {
  int count, n, h, w;
  int log_h, log_w; // extents of a box, whose pixels are BM in all
};

constexpr int BN = 128, ROW = 128, CONSUMERS = 256, RING = 192 << 10;

/// A ring of stages in shared memory, and the place in it of a thread that goes round.
template <int BM> struct Ring {
  static constexpr int STAGE = (BM + BN) * ROW, DEPTH = RING / STAGE;
  const uint32_t start;
  int stage = 0;
  uint32_t parity = 0; // of the present round

  __device__ __forceinline__ explicit Ring(uint32_t start) : start(start) {}
  __device__ __forceinline__ uint32_t pixels() const { return start + stage * STAGE; }
  __device__ __forceinline__ uint32_t weights() const { return pixels() + BM * ROW; }
  __device__ __forceinline__ uint32_t full(int stage) const { return start + RING + 8 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return full(DEPTH + stage); }
  __device__ __forceinline__ void next() {
    if (++stage == DEPTH) stage = 0, parity ^= 1;
  }
};

/// Tile number `t`: its phase, first pixel and first channel.
template <int BM> struct Tile {
  const Conv2dTiles &tiles;
  int phase, n, p, q, c;
  __device__ __forceinline__ Tile(const Conv2dArgs &args, const Conv2dTiles &tiles, int t) : tiles(tiles) {
    c = t % args.blocks_n * BN, t /= args.blocks_n;
    q = t % tiles.w << tiles.log_w, t /= tiles.w;
    p = t % tiles.h << tiles.log_h, t /= tiles.h;
    n = t % tiles.n * (BM >> (tiles.log_h + tiles.log_w)), phase = t / tiles.n;
  }
  __device__ __forceinline__ Pixel pixel(int row) const {
    const int columns = (1 << tiles.log_w) - 1, rows = (1 << tiles.log_h) - 1;
    return {n + (row >> (tiles.log_w + tiles.log_h)), p + (row >> tiles.log_w & rows), q + (row & columns)};
  }
};

/// All copies of a block's tiles, by one thread.
template <int BM, int WINDOWS>
__device__ __forceinline__ void produce(Ring<BM> ring, const Conv2dArgs &args, const Conv2dMaps &maps, const Conv2dTiles &tiles) {
#pragma unroll 1
  for (int t = blockIdx.x; t < tiles.count; t += gridDim.x) {
    const Tile<BM> tile(args, tiles, t);
    int k = 0;
#pragma unroll 1
    for (int i = 0; i < WINDOWS; i++) {
      const Window &in = args.phase[tile.phase].in[i];
      const int x = in.stride * tile.q + in.j0, y = in.stride * tile.p + in.i0;
#pragma unroll 1
      for (int c = 0; c < in.c; c += ROW / 2)
#pragma unroll 1
        for (int r = 0; r < in.kh; r++)
#pragma unroll 1
          for (int s = 0; s < in.kw; s++, k++, ring.next()) {
            const uint32_t full = ring.full(ring.stage);
            mbar_wait(ring.empty(ring.stage), ring.parity ^ 1); // at once in the first round
            mbar_arrive_tx(full, Ring<BM>::STAGE);
            tma_load_4d(ring.pixels(), &maps.x[i], full, c, x + s, y + r, tile.n);
            tma_load_4d(ring.weights(), &maps.weights[tile.phase], full, 0, tile.c, k, 0);
          }
    }
  }
}

/// The products of a tile: a warpgroup's rows start at `row`.
template <int BM, int WINDOWS>
__device__ __forceinline__ void multiply(float (&acc)[BM / 128][64], Ring<BM> &ring, const Phase &phase, int row) {
  int steps = 0, before = 0;
  for (int i = 0; i < WINDOWS; i++) steps += (phase.in[i].c + ROW / 2 - 1) / (ROW / 2) * phase.in[i].kh * phase.in[i].kw;
  const auto release = [&](int stage) {
    if (threadIdx.x % 32 == 0) mbar_arrive(ring.empty(stage));
  };
#pragma unroll 1
  for (int k = 0; k < steps; k++, ring.next()) {
    mbar_wait(ring.full(ring.stage), ring.parity);
    const uint32_t a = ring.pixels() + row * ROW, b = ring.weights();
    wgmma_fence();
#pragma unroll
    for (int kk = 0; kk < 4; kk++)
#pragma unroll
      for (int i = 0; i < BM / 128; i++)
        wgmma_m64n128k16_bf16(acc[i], wgmma_desc_k128(a + i * 64 * ROW + kk * 32), wgmma_desc_k128(b + kk * 32), k + kk > 0);
    wgmma_commit();
    wgmma_wait<1>(); // all but this step are done
    if (k > 0) release(before);
    before = ring.stage;
  }
  wgmma_wait<0>();
  release(before);
}

template <int BM, int WINDOWS, class Epilogue>
__device__ __forceinline__ void conv2d_wgmma(const Conv2dArgs &args, const EpilogueArgs &e, const Conv2dMaps &maps,
                                             const Conv2dTiles &tiles) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  DYN_SHARED(unsigned char, smem);
  Ring<BM> ring(smem_u32(smem));
  if (threadIdx.x == 0) {
    for (int i = 0; i < Ring<BM>::DEPTH; i++) {
      mbar_init(ring.full(i), 1);
      mbar_init(ring.empty(i), CONSUMERS / 32); // a lane of each warp
    }
    mbar_fence_init();
  }
  __syncthreads();

  if (threadIdx.x >= CONSUMERS) {
    registers_dec<24>();
    if (threadIdx.x == CONSUMERS) produce<BM, WINDOWS>(ring, args, maps, tiles);
  } else {
    registers_inc<240>();
    const int first = threadIdx.x / 128 * (BM / 2);
    float acc[BM / 128][64];
#pragma unroll 1
    for (int t = blockIdx.x; t < tiles.count; t += gridDim.x) {
      const Tile<BM> tile(args, tiles, t);
      const Phase &phase = args.phase[tile.phase];
      // A thread has 8 channels in 4 groups of BM / 64 pixels. What the epilogue reads arrives while the products are made.
      const int row = first + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
      Outputs<bf16, 4, Epilogue, true> outputs[BM / 64];
#pragma unroll
      for (int i = 0; i < BM / 64; i++) {
        const Pixel pixel = tile.pixel(row + 64 * (i / 2) + 8 * (i % 2));
        outputs[i].start(args, e, output_pixel(args, phase, pixel), tile.c + threadIdx.x % 4 * 8);
      }
      multiply<BM, WINDOWS>(acc, ring, phase, first);
#pragma unroll
      for (int i = 0; i < BM / 64; i++)
        outputs[i].store(args, e, [&](int group, int j) {
          return acc[i / 2][16 * group + j / 2 * 4 + 2 * (i % 2) + j % 2];
        });
    }
  }
#else
  __trap(); // compiled for another architecture: never chosen there
#endif
}

#define CONV2D_WGMMA(NAME, BM, WINDOWS, EPILOGUE)                                                                      \
  extern "C" __global__ void __launch_bounds__(CONSUMERS + 128, 1)                                                     \
      NAME(const __grid_constant__ Conv2dArgs args, const __grid_constant__ EpilogueArgs e,                            \
           const __grid_constant__ Conv2dMaps maps, const __grid_constant__ Conv2dTiles tiles) {                       \
    conv2d_wgmma<BM, WINDOWS, EPILOGUE<bf16>>(args, e, maps, tiles);                                                   \
  }                                                                                                                    \
  KERNEL_ENTRY(NAME)
#define CONV2D_WGMMA_TILES(WHAT, WINDOWS, EPILOGUE)                                                                    \
  CONV2D_WGMMA(conv2d_##WHAT##_wgmma_256x128_bf16, 256, WINDOWS, EPILOGUE)                                             \
  CONV2D_WGMMA(conv2d_##WHAT##_wgmma_128x128_bf16, 128, WINDOWS, EPILOGUE)
CONV2D_WGMMA_TILES(bias, 1, Bias)
CONV2D_WGMMA_TILES(silu, 1, Silu)
CONV2D_WGMMA_TILES(times, 1, Times)
CONV2D_WGMMA_TILES(residual, 1, Residual)
CONV2D_WGMMA_TILES(merged_bias, 2, Bias)
