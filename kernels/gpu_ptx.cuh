// Every inline-PTX instruction that the kernels use, one wrapper each. The device half is assembly; the host half is
// declared here and emulated in tools/emulator/emu. Shared addresses are 32-bit, as smem_u32 gives them.
#pragma once
#include "gpu.cuh"

#ifdef __CUDACC__
#define PTX_FN static __device__ __forceinline__
#endif

// ---------------------------------------------------------------- shared memory, cp.async, ldmatrix, mma.sync (sm_80)
#ifdef __CUDACC__
PTX_FN uint32_t smem_u32(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

// Barrier `id` (1 to 15; 0 is __syncthreads) of `threads` threads, a multiple of 32: all of them wait, or some only arrive.
PTX_FN void bar_sync(uint32_t id, uint32_t threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
PTX_FN void bar_arrive(uint32_t id, uint32_t threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

// Copies src_bytes (0 to 16) and fills the rest of the 16 bytes with zeros. Both addresses are 16-byte aligned.
PTX_FN void cp_async_16(uint32_t dst, const void *src, uint32_t src_bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(src_bytes) : "memory");
}
// The same through L1, for what other copies of the block will read again.
PTX_FN void cp_async_16_cached(uint32_t dst, const void *src, uint32_t src_bytes) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(src_bytes) : "memory");
}
PTX_FN void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most N of this thread's committed groups are in flight.
template <int N> PTX_FN void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// Four 8x8 matrices of 16-bit elements; lane 8 i + j passes the address of row j of matrix i.
PTX_FN void ldmatrix_x4(uint32_t (&r)[4], uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a) : "memory");
}
PTX_FN void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t a) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(a) : "memory");
}

// d += a b for a 16x16 (row), b 16x8 (column), d 16x8 (f32).
PTX_FN void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 2^x to 2 ulp, denormals as zero: one instruction.
PTX_FN float exp2_approx(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
inline float exp2_approx(float x) { return exp2f(x); }
uint32_t smem_u32(const void *p);
void bar_sync(uint32_t id, uint32_t threads);
void bar_arrive(uint32_t id, uint32_t threads);
void cp_async_16(uint32_t dst, const void *src, uint32_t src_bytes);
inline void cp_async_16_cached(uint32_t dst, const void *src, uint32_t src_bytes) { cp_async_16(dst, src, src_bytes); }
void cp_async_commit();
void emu_cp_async_wait(int n);
template <int N> inline void cp_async_wait() { emu_cp_async_wait(N); }
void ldmatrix_x4(uint32_t (&r)[4], uint32_t a);
void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t a);
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
#endif

// ---------------------------------------------------------------- mbarrier, TMA, wgmma (sm_90a)
// A CUtensorMap on the device; emu_tensor_map() fills it on the host.
struct alignas(64) TensorMap { unsigned char opaque[128]; };

#ifdef __CUDACC__
PTX_FN void mbar_init(uint32_t b, uint32_t n) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(b), "r"(n) : "memory");
}
PTX_FN void mbar_fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
PTX_FN void mbar_arrive(uint32_t b) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(b) : "memory"); }

// Arrives and announces tx bytes of asynchronous copies that the phase waits for.
PTX_FN void mbar_arrive_tx(uint32_t b, uint32_t tx) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(b), "r"(tx) : "memory");
}

// Waits for the end of the phase of this parity.
PTX_FN void mbar_wait(uint32_t b, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred p;\nWAIT: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n@p bra DONE;\nbra WAIT;\nDONE:\n}"
      ::"r"(b), "r"(parity) : "memory");
}
PTX_FN void tma_load_2d(uint32_t dst, const TensorMap *m, uint32_t bar, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];"
               ::"r"(dst), "l"(m), "r"(x), "r"(y), "r"(bar) : "memory");
}

PTX_FN void tma_load_4d(uint32_t dst, const TensorMap *m, uint32_t bar, int x, int y, int z, int w) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], [%6];"
               ::"r"(dst), "l"(m), "r"(x), "r"(y), "r"(z), "r"(w), "r"(bar) : "memory");
}

// Gives up and takes registers: the warpgroup's threads have N from here on.
template <int N> PTX_FN void registers_dec() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> PTX_FN void registers_inc() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }

// Makes ordinary stores to shared memory visible to wgmma and TMA.
PTX_FN void fence_proxy_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
PTX_FN void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
PTX_FN void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> PTX_FN void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory"); }

// d = a b + scale_d d, 64x64x16 per warpgroup; TA, TB: the operand is MN-major.
template <int TA = 0, int TB = 0> PTX_FN void wgmma_m64n64k16_bf16(float (&d)[32], uint64_t a, uint64_t b, int scale_d) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
    "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 "
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, "
    "%32, %33, p, 1, 1, %35, %36;\n}"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
      "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]),
      "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
      "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
    : "l"(a), "l"(b), "r"(scale_d), "n"(TA), "n"(TB));
}
// d = a b + scale_d d, 64x128x16 per warpgroup, both operands K-major.
PTX_FN void wgmma_m64n128k16_bf16(float (&d)[64], uint64_t a, uint64_t b, int scale_d) {
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
    "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
    "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
    "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
    "%64, %65, p, 1, 1, 0, 0;\n}"
    : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]),
      "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]),
      "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]),
      "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]),
      "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]),
      "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]),
      "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]),
      "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
    : "l"(a), "l"(b), "r"(scale_d));
}
#else
void mbar_init(uint32_t b, uint32_t n);
inline void mbar_fence_init() {}
void mbar_arrive(uint32_t b);
void mbar_arrive_tx(uint32_t b, uint32_t tx);
void mbar_wait(uint32_t b, uint32_t parity);
void tma_load_2d(uint32_t dst, const TensorMap *m, uint32_t bar, int x, int y);
void tma_load_4d(uint32_t dst, const TensorMap *m, uint32_t bar, int x, int y, int z, int w);
template <int N> inline void registers_dec() {}
template <int N> inline void registers_inc() {}
void fence_proxy_async();
void wgmma_fence();
void wgmma_commit();
void emu_wgmma_wait(int n);
template <int N> inline void wgmma_wait() { emu_wgmma_wait(N); }
void emu_wgmma(float *d, int n, uint64_t a, uint64_t b, int scale_d, bool ta, bool tb);
template <int TA = 0, int TB = 0> inline void wgmma_m64n64k16_bf16(float (&d)[32], uint64_t a, uint64_t b, int scale_d) {
  emu_wgmma(d, 64, a, b, scale_d, TA, TB);
}
inline void wgmma_m64n128k16_bf16(float (&d)[64], uint64_t a, uint64_t b, int scale_d) {
  emu_wgmma(d, 128, a, b, scale_d, false, false);
}
#endif

// Descriptor of a K-major operand with 128-byte swizzle whose 8-row groups are 1,024 bytes apart (a row of the tile is 64 bf16).
__device__ __forceinline__ uint64_t wgmma_desc_k128(uint32_t addr) {
  return (uint64_t)((addr & 0x3ffff) >> 4) | ((uint64_t)1 << 16) | ((uint64_t)(1024 >> 4) << 32) | ((uint64_t)1 << 62);
}
