// emu_ptx.cpp -- host halves of gpu_ptx.cuh: exact PTX-ISA fragment layouts, asynchronous copies that really are late.
#include "emu_rt.h"
#include "gpu_ptx.cuh"
#include <algorithm>
#include <cstdio>
using namespace emu;

uint32_t smem_u32(const void *p) { return cvta(p); }

// ---------------------------------------------------------------- cp.async
static void cp_do(const CpOp &o) {
  char *d = (char *)smem_ptr(o.dst, o.sz, o.sz, "cp.async");
  memcpy(d, o.src, o.bytes); memset(d + o.bytes, 0, o.sz - o.bytes);
}
void cp_async_16(uint32_t dst, const void *src, uint32_t bytes) {
  Block *b = blk();
  if (bytes > 16) fail("cp.async: src size %u", bytes);
  if ((uintptr_t)src & 15) fail("cp.async: global address %p is not 16-byte aligned", src);
  smem_ptr(dst, 16, 16, "cp.async");
  CpOp o{dst, bytes, 16, src};
  bool late = b->cfg->async_late; if (b->cfg->policy == RANDOM) late = rnd(b) & 1;
  if (!late) cp_do(o);                     // both orders are legal; tests run both
  else o.sz |= 0x80000000u;
  if (RACE) sh_access(dst, 16, true, 2, cur);
  b->cp[cur->lin].open.push_back(o);
}
void cp_async_commit() { CpQ &q = blk()->cp[cur->lin]; q.groups.push_back(std::move(q.open)); q.open.clear(); }
void emu_cp_async_wait(int n) {
  Block *b = blk(); CpQ &q = b->cp[cur->lin];
  while ((int)q.groups.size() > n) {
    for (CpOp &o : q.groups.front()) {
      if (o.sz & 0x80000000u) { o.sz &= 0xff; cp_do(o); }
      if (RACE) sh_access(o.dst, 16, true, 1, cur);
    }
    q.groups.pop_front();
  }
}

// ---------------------------------------------------------------- ldmatrix
struct LdArgs { uint32_t addr; uint32_t *r; };
template <bool T> static void ld_fn(void *const *a, uint32_t mask) {
  if (mask != 0xffffffffu) fail("ldmatrix with mask %08x", mask);
  uint16_t t[4][8][8]; Fiber *f0 = cur - (cur->lin & 31);
  for (int i = 0; i < 32; i++) {
    uint32_t ad = ((LdArgs *)a[i])->addr;
    memcpy(t[i >> 3][i & 7], smem_ptr(ad, 16, 16, "ldmatrix"), 16);
    if (RACE) sh_access(ad, 16, false, 1, f0 + i);
  }
  for (int l = 0; l < 32; l++)
    for (int j = 0; j < 4; j++) {
      int r = l >> 2, c = (l & 3) * 2;
      uint32_t lo = T ? t[j][c][r] : t[j][r][c], hi = T ? t[j][c + 1][r] : t[j][r][c + 1];
      ((LdArgs *)a[l])->r[j] = lo | hi << 16;
    }
}
void ldmatrix_x4(uint32_t (&r)[4], uint32_t a) { LdArgs x{a, r}; warp_collective(0xffffffffu, ld_fn<false>, &x, "ldmatrix"); }
void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t a) { LdArgs x{a, r}; warp_collective(0xffffffffu, ld_fn<true>, &x, "ldmatrix.trans"); }

// ---------------------------------------------------------------- mma.sync m16n8k16 (bf16 in, f32 accumulate)
struct MmaArgs { float *d; const uint32_t *a; uint32_t b[2]; };
static inline float lo(uint32_t u) { return emu_bits<float>(u << 16); }
static inline float hi(uint32_t u) { return emu_bits<float>(u & 0xffff0000u); }
static void mma_fn(void *const *args, uint32_t mask) {
  if (mask != 0xffffffffu) fail("mma with mask %08x", mask);
  float A[16][16], B[16][8], C[16][8];
  for (int l = 0; l < 32; l++) {
    const MmaArgs &x = *(const MmaArgs *)args[l]; int g = l >> 2, t = (l & 3) * 2;
    for (int h = 0; h < 4; h++) { int r = g + (h & 1) * 8, c = t + (h >> 1) * 8; A[r][c] = lo(x.a[h]); A[r][c + 1] = hi(x.a[h]); }
    for (int h = 0; h < 2; h++) { B[t + h * 8][g] = lo(x.b[h]); B[t + h * 8 + 1][g] = hi(x.b[h]); }
    for (int h = 0; h < 2; h++) { C[g + h * 8][t] = x.d[h * 2]; C[g + h * 8][t + 1] = x.d[h * 2 + 1]; }
  }
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 8; n++) C[m][n] += A[m][k] * B[k][n];
  for (int l = 0; l < 32; l++) {
    float *d = ((MmaArgs *)args[l])->d; int g = l >> 2, t = (l & 3) * 2;
    for (int h = 0; h < 2; h++) { d[h * 2] = C[g + h * 8][t]; d[h * 2 + 1] = C[g + h * 8][t + 1]; }
  }
}
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaArgs x{d, a, {b0, b1}}; warp_collective(0xffffffffu, mma_fn, &x, "mma.sync");
}

// ================================================================ Hopper
// ---------------------------------------------------------------- mbarrier: 64-bit word in shared memory
// bit 63 phase | 62..43 expected arrivals | 42..23 pending arrivals | 22..0 tx-count (biased by 2^22)
struct MB { uint32_t phase, expect, pend; int32_t tx; };
static MB mb_get(uint32_t a) {
  uint64_t v; memcpy(&v, smem_ptr(a, 8, 8, "mbarrier"), 8);
  MB m{(uint32_t)(v >> 63), (uint32_t)(v >> 43) & 0xfffff, (uint32_t)(v >> 23) & 0xfffff, (int32_t)(v & 0x7fffff) - (1 << 22)};
  if (v == ~0ull) fail("mbarrier at shared+%u used before mbarrier.init", a);
  return m;
}
static void mb_put(uint32_t a, const MB &m) {
  uint64_t v = (uint64_t)m.phase << 63 | (uint64_t)m.expect << 43 | (uint64_t)m.pend << 23 | (uint64_t)(m.tx + (1 << 22));
  memcpy(smem_ptr(a, 8, 8, "mbarrier"), &v, 8);
}
static VC &mb_vc(uint32_t a) { Block *b = blk(); for (auto &m : b->mbars) if (m.addr == a) return m.vc; b->mbars.push_back({a, {}}); return b->mbars.back().vc; }
static void mb_settle(uint32_t a, MB &m) {
  if (m.pend == 0 && m.tx == 0) {
    m.phase ^= 1; m.pend = m.expect; mb_put(a, m);
    Block *b = blk();
    for (uint32_t w = 0; w < b->nwarps; w++) if (b->mbw[w]) { make_ready(b, w, b->mbw[w]); b->mbw[w] = 0; }   // waiters re-check
  } else mb_put(a, m);
}
void mbar_init(uint32_t a, uint32_t n) { MB m{0, n, n, 0}; mb_put(a, m); }
static void mb_arrive(uint32_t a, int32_t tx) {
  Block *b = blk(); uint32_t w = cur->lin >> 5; MB m = mb_get(a);
  if (m.pend == 0) fail("mbarrier at shared+%u: more arrivals than its count %u", a, m.expect);
  m.pend--; m.tx += tx;
  if (RACE) { vc_join(mb_vc(a), b->w[w].vc); b->w[w].vc.c[w]++; }
  mb_settle(a, m);
}
void mbar_arrive(uint32_t a) { mb_arrive(a, 0); }
void mbar_arrive_tx(uint32_t a, uint32_t tx) { mb_arrive(a, (int32_t)tx); }
void mbar_wait(uint32_t a, uint32_t parity) {
  Block *b = blk(); uint32_t w = cur->lin >> 5;
  while (mb_get(a).phase == (parity & 1)) { b->mbw[w] |= 1u << (cur->lin & 31); block_self(); }
  if (RACE) vc_join(b->w[w].vc, mb_vc(a));
}

// ---------------------------------------------------------------- TMA
struct EmuMap { uint64_t base; uint64_t dim[5]; uint64_t stride[4]; uint32_t box[5]; uint8_t rank, esize, swz, magic; };
static_assert(sizeof(EmuMap) <= 128, "tensor map");
EMU_API void emu_tensor_map(TensorMap *o, void *base, uint32_t rank, uint32_t esize, const uint64_t *dim, const uint64_t *stride, const uint32_t *box, uint32_t swz_bytes) {
  EmuMap m{}; m.base = (uint64_t)base; m.rank = (uint8_t)rank; m.esize = (uint8_t)esize; m.swz = (uint8_t)swz_bytes; m.magic = 0xA5;
  for (uint32_t i = 0; i < rank; i++) { m.dim[i] = dim[i]; m.box[i] = box[i]; if (i) m.stride[i - 1] = stride[i - 1]; }
  memset(o, 0, sizeof *o); memcpy(o, &m, sizeof m);
}
static inline uint32_t swizzle(uint32_t a, uint32_t bytes) { return bytes == 128 ? a ^ ((a >> 3) & 0x70) : bytes == 64 ? a ^ ((a >> 3) & 0x30) : bytes == 32 ? a ^ ((a >> 3) & 0x10) : a; }
void tma_load_2d(uint32_t dst, const TensorMap *tm, uint32_t bar, int x, int y) {
  EmuMap m; memcpy(&m, tm, sizeof m);
  if (m.magic != 0xA5 || m.rank != 2) fail("tma_load_2d: not an emulated 2-D tensor map");
  if (dst & (m.swz == 128 ? 1023u : 127u)) fail("tma_load_2d: destination shared+%u is misaligned", dst);
  uint32_t bytes = m.box[0] * m.box[1] * m.esize; Fiber *f = cur; Block *b = blk();
  smem_ptr(dst, bytes, 128, "tma_load_2d");
  if (RACE) sh_access(dst, bytes, true, 2, f);
  auto task = [=] {
    for (uint32_t r = 0; r < m.box[1]; r++)
      for (uint32_t c = 0; c < m.box[0]; c++) {
        int64_t gx = (int64_t)x + c, gy = (int64_t)y + r; char e[8] = {0};
        if (gx >= 0 && gy >= 0 && (uint64_t)gx < m.dim[0] && (uint64_t)gy < m.dim[1]) memcpy(e, (char *)m.base + (uint64_t)gy * m.stride[0] + (uint64_t)gx * m.esize, m.esize);
        memcpy(b->arena + swizzle(dst + (r * m.box[0] + c) * m.esize, m.swz), e, m.esize);
      }
    if (RACE) for (uint32_t i = dst / GRAN; i < (dst + bytes) / GRAN; i++) {   // visible through the mbarrier: writer = a virtual thread whose
      b->shadow[i].w = {0, 0, f->lin == 0 ? (uint16_t)32 : (uint16_t)0, 1, ~0u}; }           // clock 0 is ordered before everything
    MB mb = mb_get(bar); mb.tx -= (int32_t)bytes; mb_settle(bar, mb);
  };
  b->tasks.push_back(task);
}

// ---------------------------------------------------------------- wgmma m64nNk16, bf16, both operands K-major in shared memory
// canonical layouts (swizzle applied to the address): K-major row r at (r/8)*SBO + (r%8)*W + k*2; MN-major (W/2 elements wide) at
// (r % (W/2))*2 + (r / (W/2))*LBO + (k%8)*W + (k/8)*SBO
static float wg_elem(uint64_t desc, uint32_t r, uint32_t k, bool mn) {
  uint32_t start = (uint32_t)(desc & 0x3fff) << 4, lbo = (uint32_t)(desc >> 16 & 0x3fff) << 4, sbo = (uint32_t)(desc >> 32 & 0x3fff) << 4, mode = (uint32_t)(desc >> 62);
  static const uint32_t sw[4] = {0, 128, 64, 32};
  if (mode == 0) fail("wgmma: unswizzled operands are not emulated");
  if (desc >> 49 & 7) fail("wgmma: base offset is not emulated");
  const uint32_t W = sw[mode];
  uint32_t a = swizzle(start + (mn ? r % (W / 2) * 2 + r / (W / 2) * lbo + (k & 7) * W + (k >> 3) * sbo : (r >> 3) * sbo + (r & 7) * W + k * 2), W);
  Block *b = blk();
  if (RACE) {
    const Cell &c = b->shadow[a / GRAN];
    if (c.w.st == 1 && c.w.pf == b->f[c.w.tid].pf) fail("wgmma reads shared+%u, stored by thread %u without fence.proxy.async", a, c.w.tid);
    sh_access(a, 2, false, 1, cur);
  }
  return bf2f(*(uint16_t *)smem_ptr(a, 2, 2, "wgmma"));
}
// Each warp runs its own 16-row slice, as the hardware does: the four warps of a warpgroup are not a memory barrier for one another.
static void wg_load(WgOp &o) {
  uint32_t r0 = (cur->lin >> 5 & 3) * 16;
  o.A.resize(256); o.B.resize((size_t)o.n * 16);
  for (uint32_t r = 0; r < 16; r++) for (uint32_t k = 0; k < 16; k++) o.A[r * 16 + k] = wg_elem(o.a, r0 + r, k, o.ta);
  for (uint32_t r = 0; r < (uint32_t)o.n; r++) for (uint32_t k = 0; k < 16; k++) o.B[k * (uint32_t)o.n + r] = wg_elem(o.b, r, k, o.tb);
}
static void wg_exec(WgOp &o) {
  if (o.A.empty()) wg_load(o);
  const int N = o.n, nr = N / 2; std::vector<float> C(16 * (size_t)N);
  auto at = [&](int l, int i) -> float & { return C[(size_t)((l / 4 + ((i >> 1) & 1) * 8) * N + (i >> 2) * 8 + (l & 3) * 2 + (i & 1))]; };
  for (int l = 0; l < 32; l++) for (int i = 0; i < nr; i++) at(l, i) = !o.scale_d ? 0.f : o.chained ? o.d[l][i] : o.saved[(size_t)(l * nr + i)];
  for (int r = 0; r < 16; r++) for (int k = 0; k < 16; k++) { const float a = o.A[(size_t)(r * 16 + k)], *B = &o.B[(size_t)(k * N)]; float *c = &C[(size_t)(r * N)]; for (int n = 0; n < N; n++) c[n] += a * B[n]; }
  for (int l = 0; l < 32; l++) for (int i = 0; i < nr; i++) o.d[l][i] = at(l, i);
}
struct WgArgs { float *d; int n; uint64_t a, b; int s; bool ta, tb; };
static void wg_issue(void *const *args, uint32_t mask) {
  if (mask != ~0u) fail("wgmma with mask %08x", mask);
  Block *b = blk(); WgQ &q = b->wg[cur->lin >> 5]; WgArgs &x0 = *(WgArgs *)args[0];
  if ((cur->lin >> 7) * 128 + 128 > b->n) fail("wgmma outside a full warpgroup");
  WgOp o{x0.a, x0.b, x0.n, x0.s, false, x0.ta, x0.tb, {}, {}, {}, {}}; int nr = o.n / 2;
  for (int l = 0; l < 32; l++) { WgArgs &x = *(WgArgs *)args[l]; if (x.a != o.a || x.b != o.b || x.s != o.scale_d) fail("wgmma: descriptors differ between threads"); o.d[l] = x.d; }
  for (auto &p : q.ops) if (p.d[0] == o.d[0]) o.chained = true;
  if (!o.chained) { o.saved.resize((size_t)(32 * nr)); for (int l = 0; l < 32; l++) for (int i = 0; i < nr; i++) { o.saved[(size_t)(l * nr + i)] = o.d[l][i]; o.d[l][i] = NAN; } }   // undefined until wgmma.wait_group
  bool late = b->cfg->policy == RANDOM ? rnd(b) & 1 : b->cfg->async_late;
  if (!late) wg_load(o);
  q.ops.push_back(std::move(o)); q.issued++;
}
void emu_wgmma(float *d, int n, uint64_t a, uint64_t b, int s, bool ta, bool tb) { WgArgs x{d, n, a, b, s, ta, tb}; warp_collective(0xffffffffu, wg_issue, &x, "wgmma"); }
void fence_proxy_async() { cur->pf++; }
static void wg_nop(void *const *, uint32_t) {}
void wgmma_fence() { warp_collective(0xffffffffu, wg_nop, nullptr, "wgmma.fence"); }
static void wg_commit(void *const *, uint32_t) { WgQ &q = blk()->wg[cur->lin >> 5]; q.commits.push_back(q.issued); }
void wgmma_commit() { warp_collective(0xffffffffu, wg_commit, nullptr, "wgmma.commit_group"); }
static void wg_wait(void *const *args, uint32_t) {
  WgQ &q = blk()->wg[cur->lin >> 5]; auto &c = q.commits; size_t n = (size_t)*(int *)args[0];
  if (c.size() <= n) return;
  uint64_t upto = c[c.size() - 1 - n];
  while (q.executed < upto) { wg_exec(q.ops.front()); q.ops.pop_front(); q.executed++; }
}
void emu_wgmma_wait(int n) { warp_collective(0xffffffffu, wg_wait, &n, "wgmma.wait_group"); }
