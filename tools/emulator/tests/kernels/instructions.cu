// One kernel per instruction, so that the test sees what each lane got.
#include "gpu_ptx.cuh"

// Fragments of one mma.sync m16n8k16 straight from memory: a[lane][4], b[lane][2], d[lane][4].
extern "C" __global__ void mma_fragments(const uint32_t *a, const uint32_t *b, float *d) {
  const int lane = threadIdx.x;
  uint32_t af[4];
  float df[4];
  for (int i = 0; i < 4; i++) af[i] = a[lane * 4 + i], df[i] = d[lane * 4 + i];
  mma_m16n8k16_bf16(df, af, b[lane * 2], b[lane * 2 + 1]);
  for (int i = 0; i < 4; i++) d[lane * 4 + i] = df[i];
}
KERNEL_ENTRY(mma_fragments)

// The four 8x8 matrices x[4][8][8] as ldmatrix hands them out: plain[lane][4], then transposed[lane][4].
extern "C" __global__ void ldmatrix_fragments(const uint16_t *x, uint32_t *out) {
  SHARED(uint16_t, tile, [32][8]);
  const int lane = threadIdx.x;
  for (int i = 0; i < 8; i++) tile[lane][i] = x[lane * 8 + i];
  __syncthreads();
  uint32_t r[4];
  ldmatrix_x4(r, smem_u32(tile[lane]));
  for (int i = 0; i < 4; i++) out[lane * 4 + i] = r[i];
  ldmatrix_x4_trans(r, smem_u32(tile[lane]));
  for (int i = 0; i < 4; i++) out[128 + lane * 4 + i] = r[i];
}
KERNEL_ENTRY(ldmatrix_fragments)

// Every shuffle of 3 lane: out[width 1, 2, .. 32][argument 0 .. 31][index, up, down, xor][lane].
extern "C" __global__ void shuffles(int *out) {
  const int lane = threadIdx.x, v = lane * 3;
  for (int width = 1; width <= 32; width *= 2)
    for (int arg = 0; arg < 32; arg++, out += 128) {
      out[lane] = __shfl_sync(0xffffffffu, v, arg, width);
      out[32 + lane] = __shfl_up_sync(0xffffffffu, v, arg, width);
      out[64 + lane] = __shfl_down_sync(0xffffffffu, v, arg, width);
      out[96 + lane] = __shfl_xor_sync(0xffffffffu, v, arg, width);
    }
}
KERNEL_ENTRY(shuffles)

// Partial masks, named barriers of half a block, a vote: 1,024 threads.
extern "C" __global__ void barriers(int *out) {
  SHARED(int, s, [1024]);
  const int t = threadIdx.x, lane = t & 31, half = t / 512, first = half * 512;
  s[t] = t;
  __syncthreads();
  int sum = 0;
  if (lane < 12) sum = __shfl_xor_sync(0x00000fffu, t, 1);
  else
    for (int i = 0; i < 3; i++) sum += __shfl_sync(0xfffff000u, t, 12 + i);
  s[t] += half + 1;
  bar_sync(1 + half, 512);
  sum += s[first + 511 - (t - first)];
  const unsigned votes = __ballot_sync(0xffffffffu, lane % 3 == 0);
  __syncwarp();
  out[t] = sum + (int)(votes & 0xff);
}
KERNEL_ENTRY(barriers)

// cp.async of 16, 5 and 0 bytes per thread: out[t] = the 16 bytes that arrived.
extern "C" __global__ void async_copies(const uint4 *x, uint4 *out) {
  SHARED(uint4, s, [3][32]);
  const int t = threadIdx.x;
  const uint32_t bytes[3] = {16, 5, 0};
  for (int i = 0; i < 3; i++) {
    cp_async_16(smem_u32(&s[i][t]), x + i * 32 + t, bytes[i]);
    cp_async_commit();
  }
  cp_async_wait<2>();
  out[t] = s[0][t];
  cp_async_wait<0>();
  out[32 + t] = s[1][t];
  out[64 + t] = s[2][t];
}
KERNEL_ENTRY(async_copies)

// bf16 and f16 of each float, and the floats of each 16-bit pattern.
extern "C" __global__ void convert(const float *x, uint16_t *bf16_bits, uint16_t *f16_bits, int n, float *from_bf16, float *from_f16) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) {
    const __nv_bfloat16 b = __float2bfloat16_rn(x[i]);
    const __half h = __float2half_rn(x[i]);
    memcpy(bf16_bits + i, &b, 2);
    memcpy(f16_bits + i, &h, 2);
  }
  for (int i = threadIdx.x; i < 65536; i += blockDim.x) {
    const uint16_t bits = (uint16_t)i;
    __nv_bfloat16 b;
    __half h;
    memcpy(&b, &bits, 2);
    memcpy(&h, &bits, 2);
    from_bf16[i] = __bfloat162float(b);
    from_f16[i] = __half2float(h);
  }
}
KERNEL_ENTRY(convert)

// A thread of block 0 and one of block 1 write adjacent bf16, which is no race; where `clash` they write the same one.
extern "C" __global__ void neighbours(__nv_bfloat16 *out, int clash) { out[clash ? 0 : blockIdx.x] = __float2bfloat16_rn(1.f); }
KERNEL_ENTRY(neighbours)

// Thread t hands x[t] to its neighbour through device memory; the barrier is there unless `race`.
extern "C" __global__ void hands_over(float *x, float *y, int race) {
  const int t = threadIdx.x;
  x[t] = (float)t;
  if (!race) __syncthreads();
  y[t] = x[(t + 1) % blockDim.x];
}
KERNEL_ENTRY(hands_over)

// The first half of the block never reaches the barrier that the second half waits at.
extern "C" __global__ void waits_for_ever() {
  if (threadIdx.x >= 32) bar_sync(1, 64);
}
KERNEL_ENTRY(waits_for_ever)

extern "C" __global__ void overflows_its_stack(float *out) {
  volatile float big[100000];
  for (int i = 0; i < 100000; i += 100) big[i] = (float)i;
  out[0] = big[500];
}
KERNEL_ENTRY(overflows_its_stack)

// A box of 4 x 3 x 2 x 2 elements of a four-dimensional tensor, from (x, y, z, w) on, in the order in which it lies.
extern "C" __global__ void tma_box(const __grid_constant__ TensorMap map, int x, int y, int z, int w, uint32_t *out) {
  DYN_SHARED(uint32_t, box);
  SHARED(uint64_t, full, [1]);
  const uint32_t bar = smem_u32(full);
  if (threadIdx.x == 0) {
    mbar_init(bar, 1);
    mbar_fence_init();
    mbar_arrive_tx(bar, 192);
    tma_load_4d(smem_u32(box), &map, bar, x, y, z, w);
  }
  __syncthreads();
  mbar_wait(bar, 0);
  for (int i = threadIdx.x; i < 48; i += 32) out[i] = box[i];
}
KERNEL_ENTRY(tma_box)
