// The convolution's products by wgmma, for bf16 on sm_90a: see conv2d.cuh.
//
// A tile is a box of 128 or 256 pixels (2^a images x 2^b rows x 2^c columns) x 128 channels. TMA brings that box of the input,
// shifted by a tap, 64 channels of it: it fills in zeros outside the image, past the last image and past the last channel, so
// that any extents will do, and it skips pixels for strides. Where the stride is 1 and the box is 8 x 8 pixels or larger, the
// taps of a column share one box with some more rows: those of one tap start a multiple of 8 rows of shared memory after those
// of another, as the swizzle wants it. So 3 taps bring 1.25 boxes at most from L2, not 3. Weights come in boxes of a step.
//
// The grid is persistent: at most one block per SM, each taking every gridDim.x-th tile. Warpgroup 2 gives up its registers,
// and one thread of it does all copies, through two rings of stages (pixels, weights) with a full and an empty mbarrier each.
// Warpgroups 0 and 1 own half of the pixels each, by m64n128k16 with both operands in shared memory; a stage is released one
// step later, when its products are known to be done. The rings go on across tiles: the next one is loaded while the epilogue
// of one runs, and what that reads is asked for before the products.
//
// Resources: 216 KiB of shared memory, 384 threads, 168 registers, one block per SM; docs/kernels.md. Order of a sum: blocks
// of channels, in each the taps by columns, in each the channels. It differs from that of mma.sync: which of the two serves a
// layer depends on the layer and the device, never on the batch; boxes are about speed alone. After NVIDIA's CUTLASS.
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
  int more[2];      // rows that the boxes of a window have beyond those of the tile, for taps to share; or 0
};

constexpr int BN = 128, ROW = 128, CONSUMERS = 256;

/// A ring of stages in shared memory, and the place in it of a thread that goes round.
template <int STAGE, int DEPTH> struct Ring {
  static constexpr int BYTES = STAGE * DEPTH;
  const uint32_t stages, barriers; // where they start
  int stage = 0;
  uint32_t parity = 0; // of the present round

  __device__ __forceinline__ Ring(uint32_t stages, uint32_t barriers) : stages(stages), barriers(barriers) {}
  __device__ __forceinline__ uint32_t data() const { return stages + stage * STAGE; }
  __device__ __forceinline__ uint32_t full(int stage) const { return barriers + 8 * stage; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return barriers + 8 * (DEPTH + stage); }
  __device__ __forceinline__ void init() const {
    for (int i = 0; i < DEPTH; i++) {
      mbar_init(full(i), 1);
      mbar_init(empty(i), CONSUMERS / 32); // a lane of each warp
    }
  }
  /// Waits until the stage is empty, and announces its next bytes; gives the barrier that their copy arrives at.
  __device__ __forceinline__ uint32_t fill(uint32_t bytes) const {
    mbar_wait(empty(stage), parity ^ 1); // at once in the first round
    mbar_arrive_tx(full(stage), bytes);
    return full(stage);
  }
  __device__ __forceinline__ void wait() const { mbar_wait(full(stage), parity); }
  __device__ __forceinline__ void release(int stage) const {
    if (threadIdx.x % 32 == 0) mbar_arrive(empty(stage));
  }
  __device__ __forceinline__ void next() {
    if (++stage == DEPTH) stage = 0, parity ^= 1;
  }
};

/// 120 KiB of pixels, a quarter more than a tile's in each stage, and 96 KiB of weights.
template <int BM> struct Rings {
  Ring<BM * 5 / 4 * ROW, 768 / BM> x;
  Ring<BN * ROW, 6> w;
  __device__ __forceinline__ explicit Rings(uint32_t start)
      : x(start, start + x.BYTES + w.BYTES), w(start + x.BYTES, start + x.BYTES + w.BYTES + 16 * (768 / BM)) {}
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

/// How many taps of a column share a box.
__device__ __forceinline__ int taps_per_box(const Window &in, int more) { return more > 0 ? in.kh : 1; }

/// All copies of a block's tiles, by one thread.
template <int BM, int WINDOWS>
__device__ __forceinline__ void produce(Rings<BM> rings, const Conv2dArgs &args, const Conv2dMaps &maps, const Conv2dTiles &tiles) {
#pragma unroll 1
  for (int t = blockIdx.x; t < tiles.count; t += gridDim.x) {
    const Tile<BM> tile(args, tiles, t);
    int k = 0; // of the first tap of a block of channels
#pragma unroll 1
    for (int i = 0; i < WINDOWS; i++) {
      const Window &in = args.phase[tile.phase].in[i];
      const int x = in.stride * tile.q + in.j0, y = in.stride * tile.p + in.i0, taps = taps_per_box(in, tiles.more[i]);
      const int pixels = BM + tiles.more[i] * (BM >> tiles.log_h);
#pragma unroll 1
      for (int c = 0; c < in.c; c += ROW / 2, k += in.kh * in.kw)
#pragma unroll 1
        for (int s = 0; s < in.kw; s++)
#pragma unroll 1
          for (int r = 0; r < in.kh; r++) {
            if (r % taps == 0) {
              tma_load_4d(rings.x.data(), &maps.x[i], rings.x.fill(pixels * ROW), c, x + s, y + r, tile.n);
              rings.x.next();
            }
            tma_load_4d(rings.w.data(), &maps.weights[tile.phase], rings.w.fill(BN * ROW), 0, tile.c, k + r * in.kw + s, 0);
            rings.w.next();
          }
    }
  }
}

/// The products of a tile, of the pixels of warpgroup `group`.
template <int BM, int WINDOWS>
__device__ __forceinline__ void multiply(float (&acc)[BM / 128][64], Rings<BM> &rings, const Phase &phase,
                                         const Conv2dTiles &tiles, int group) {
  int box = -1, step = -1; // the stages of the step before
#pragma unroll 1
  for (int i = 0; i < WINDOWS; i++) {
    const Window &in = phase.in[i];
    const int taps = taps_per_box(in, tiles.more[i]), boxes = (in.c + ROW / 2 - 1) / (ROW / 2) * in.kw * in.kh / taps;
#pragma unroll 1
    for (int b = 0; b < boxes; b++) {
      rings.x.wait();
#pragma unroll 1
      for (int r = 0; r < taps; r++) {
        rings.w.wait();
        wgmma_fence();
#pragma unroll
        for (int kk = 0; kk < 4; kk++)
#pragma unroll
          for (int j = 0; j < BM / 128; j++) {
            const int first = group * (BM / 2) + 64 * j, image = first >> (tiles.log_h + tiles.log_w);
            const int row = first + ((image * tiles.more[i] + r) << tiles.log_w); // 64 rows from here on are of one image
            wgmma_m64n128k16_bf16(acc[j], wgmma_desc_k128(rings.x.data() + row * ROW + kk * 32),
                                  wgmma_desc_k128(rings.w.data() + kk * 32), step >= 0 || kk > 0);
          }
        wgmma_commit();
        wgmma_wait<1>(); // all but this step are done
        if (step >= 0) rings.w.release(step);
        if (box >= 0 && r == 0) rings.x.release(box);
        step = rings.w.stage;
        rings.w.next();
      }
      box = rings.x.stage;
      rings.x.next();
    }
  }
  wgmma_wait<0>();
  rings.w.release(step);
  rings.x.release(box);
}

template <int BM, int WINDOWS, class Epilogue>
__device__ __forceinline__ void conv2d_wgmma(const Conv2dArgs &args, const EpilogueArgs &e, const Conv2dMaps &maps,
                                             const Conv2dTiles &tiles) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  DYN_SHARED(unsigned char, smem);
  Rings<BM> rings(smem_u32(smem));
  if (threadIdx.x == 0) {
    rings.x.init();
    rings.w.init();
    mbar_fence_init();
  }
  __syncthreads();

  if (threadIdx.x >= CONSUMERS) {
    registers_dec<24>();
    if (threadIdx.x == CONSUMERS) produce<BM, WINDOWS>(rings, args, maps, tiles);
  } else {
    registers_inc<240>();
    float acc[BM / 128][64];
#pragma unroll 1
    for (int t = blockIdx.x; t < tiles.count; t += gridDim.x) {
      const Tile<BM> tile(args, tiles, t);
      const Phase &phase = args.phase[tile.phase];
      // A thread has 8 channels in 4 groups of BM / 64 pixels. What the epilogue reads arrives while the products are made.
      const int row = threadIdx.x / 128 * (BM / 2) + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
      Outputs<bf16, 4, Epilogue, true> outputs[BM / 64];
#pragma unroll
      for (int i = 0; i < BM / 64; i++) {
        const Pixel pixel = tile.pixel(row + 64 * (i / 2) + 8 * (i % 2));
        outputs[i].start(args, e, output_pixel(args, phase, pixel), tile.c + threadIdx.x % 4 * 8);
      }
      multiply<BM, WINDOWS>(acc, rings, phase, tiles, threadIdx.x / 128);
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
