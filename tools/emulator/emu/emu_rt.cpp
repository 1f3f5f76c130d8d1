#include "emu_rt.h"
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <csignal>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu {
static const Kernel *g_kernels;
Kernel::Kernel(const char *name, void (*thunk)(void *const *), uint32_t nparams, const uint32_t *sizes)
    : name(name), thunk(thunk), nparams(nparams), sizes(sizes), next(g_kernels) { g_kernels = this; }
__thread Fiber *cur __attribute__((tls_model("initial-exec")));
#ifdef EMU_ASAN
constexpr size_t STK = 256 * 1024;
#else
constexpr size_t STK = 64 * 1024;
#endif

// ---------------------------------------------------------------- context switch
#if defined(EMU_UCONTEXT)
#include <ucontext.h>
// portable fall-back: sp points at a ucontext_t
extern "C" void emu_switch(void **save, void *to) { ucontext_t me; *save = &me; swapcontext(&me, (ucontext_t *)to); }
#elif defined(__x86_64__)
extern "C" void emu_switch(void **save, void *to);
asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch,.-emu_switch
)");
#elif defined(__aarch64__)
extern "C" void emu_switch(void **save, void *to);
asm(R"(
.text
.globl emu_switch
emu_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");
#endif

static inline void finish_switch() {
#ifdef EMU_ASAN
  const void *ob; size_t on;
  __sanitizer_finish_switch_fiber(cur->fake, &ob, &on);
#endif
}
static inline void go(Fiber *to) {
  Fiber *from = cur;
  if (to == from) return;
  from->blk->switches++;
  cur = to;
#ifdef EMU_ASAN
  __sanitizer_start_switch_fiber(&from->fake, to->stk, to->stk_n);
#endif
  emu_switch(&from->sp, to->sp);
  finish_switch();
}
[[noreturn]] static void go_main(Block *b) {
  void *dummy;
#ifdef EMU_ASAN
  __sanitizer_start_switch_fiber(nullptr, b->main_stk, b->main_stk_n);
#endif
  emu_switch(&dummy, b->main_sp);
  __builtin_unreachable();
}
void fail(const char *fmt, ...) {
  Block *b = cur->blk;
  if (!b->failed) {
    b->failed = true;
    int n = snprintf(b->err, sizeof b->err, "%s: block (%u,%u,%u) thread %u: ", b->k->name, b->v.bid.x, b->v.bid.y, b->v.bid.z, cur->lin);
    va_list ap; va_start(ap, fmt); vsnprintf(b->err + n, sizeof b->err - n, fmt, ap); va_end(ap);
  }
  go_main(b);      // abandons every fiber of the block
}

// ---------------------------------------------------------------- scheduler
void make_ready(Block *b, uint32_t w, uint32_t mask) { b->w[w].ready |= mask; if (b->w[w].ready) b->warps_ready |= 1u << w; }
static inline void clear_ready(Block *b, uint32_t t) {
  Warp &w = b->w[t >> 5]; w.ready &= ~(1u << (t & 31)); if (!w.ready) b->warps_ready &= ~(1u << (t >> 5));
}
static inline uint32_t nth_bit(uint32_t m, uint32_t n) { while (n--) m &= m - 1; return (uint32_t)__builtin_ctz(m); }
static inline uint32_t rand_bit(Block *b, uint32_t m) { return nth_bit(m, rnd(b) % (uint32_t)__builtin_popcount(m)); }
static Fiber *pick(Block *b) {
  for (;;) {
    if (!b->warps_ready) {
      if (b->tasks.empty()) return nullptr;
      size_t i = b->cfg->policy == RANDOM ? rnd(b) % b->tasks.size() : 0;
      auto t = std::move(b->tasks[i]); b->tasks.erase(b->tasks.begin() + (long)i); t();
      continue;
    }
    uint32_t w = b->curwarp, m = b->warps_ready;
    switch (b->cfg->policy) {
      case FORWARD:    // run one warp as far as it goes, then the next one up
        if (!(m >> w & 1)) { uint32_t hi = m & ~((2u << w) - 1); if (w == 31) hi = 0; w = (uint32_t)__builtin_ctz(hi ? hi : m); }
        b->curwarp = w; return &b->f[w * 32 + (uint32_t)__builtin_ctz(b->w[w].ready)];
      case REVERSE:
        if (!(m >> w & 1)) { uint32_t lo = m & ((1u << w) - 1); w = 31 - (uint32_t)__builtin_clz(lo ? lo : m); }
        b->curwarp = w; return &b->f[w * 32 + 31 - (uint32_t)__builtin_clz(b->w[w].ready)];
      case LOCKSTEP: { // round-robin over warps
        uint32_t hi = w == 31 ? 0 : m & ~((2u << w) - 1); w = (uint32_t)__builtin_ctz(hi ? hi : m);
        b->curwarp = w; return &b->f[w * 32 + (uint32_t)__builtin_ctz(b->w[w].ready)]; }
      default:         // random warp kept for a random while, random lane
        if (!b->tasks.empty() && rnd(b) % 64 == 0) { auto t = std::move(b->tasks[0]); b->tasks.erase(b->tasks.begin()); t(); continue; }
        if (!(m >> w & 1) || rnd(b) % 128 == 0) w = rand_bit(b, m);
        b->curwarp = w; return &b->f[w * 32 + rand_bit(b, b->w[w].ready)];
    }
  }
}
void block_self() {
  Block *b = cur->blk;
  clear_ready(b, cur->lin);
  Fiber *n = pick(b);
  if (!n) {
    char s[200]; int k = 0; s[0] = 0;
    for (uint32_t w = 0; w < b->nwarps && k < 150; w++)
      if (b->w[w].alive) k += snprintf(s + k, sizeof s - (size_t)k, " w%u:alive %08x coll %08x%s%s", w, b->w[w].alive, b->w[w].arrived,
                                       b->w[w].arrived ? " in " : "", b->w[w].arrived ? b->w[w].what[__builtin_ctz(b->w[w].arrived)] : "");
    fail("deadlock: no thread can run (barrier 0: %u of %u arrived, line %d);%s", b->bar[0].arrived, b->nalive, b->bar[0].line, s);
  }
  go(n);
}
void yield() {
  Block *b = cur->blk; Fiber *me = cur;
  clear_ready(b, me->lin);
  Fiber *n = pick(b);
  make_ready(b, me->lin >> 5, 1u << (me->lin & 31));
  if (!n) return;
  go(n);
}
static void release_bar(Block *b, Bar &bar, uint32_t self_warp_mask_skip) {
  (void)self_warp_mask_skip;
  for (uint32_t w = 0; w < b->nwarps; w++) {
    if (bar.wait[w]) make_ready(b, w, bar.wait[w]);
    if (RACE && (bar.part >> w & 1)) { vc_join(b->w[w].vc, bar.vc); b->w[w].vc.c[w]++; }
    bar.wait[w] = 0;
  }
  bar.arrived = 0; bar.expect = 0; bar.part = 0; if (RACE) memset(&bar.vc, 0, sizeof bar.vc);
}
static void bar_note(Block *b, Bar &bar, uint32_t w, bool waits) {
  if (RACE && (!(bar.part >> w & 1) || !waits)) vc_join(bar.vc, b->w[w].vc);
  if (waits) bar.part |= 1u << w;
}
void bar_sync(int id, uint32_t count, const char *file, int line) {
  (void)file;
  Block *b = cur->blk; Bar &bar = b->bar[id]; uint32_t t = cur->lin, w = t >> 5;
  if (bar.arrived && bar.line && bar.line != line && id == 0)
    fail("divergent __syncthreads: line %d here, line %d in another thread", line, bar.line);
  bar.line = line; bar.arrived++; bar_note(b, bar, w, true);
  if (count) bar.expect = count;
  if (bar.arrived == (bar.expect ? bar.expect : b->nalive)) { release_bar(b, bar, 0); if (b->cfg->policy == RANDOM) yield(); return; }
  bar.wait[w] |= 1u << (t & 31);
  block_self();
}
void bar_arrive(int id, uint32_t count) {
  Block *b = cur->blk; Bar &bar = b->bar[id]; uint32_t w = cur->lin >> 5;
  bar.arrived++; bar.expect = count; bar_note(b, bar, w, false);
  if (RACE) b->w[w].vc.c[w]++;
  if (bar.arrived == count) release_bar(b, bar, 0);
}
void warp_collective(uint32_t mask, CollFn fn, void *args, const char *what) {
  Fiber *me = cur; Block *b = me->blk; Warp &w = b->w[me->lin >> 5]; uint32_t l = me->lin & 31;
  mask &= 0xffffffffu;
  if (!(mask >> l & 1)) fail("%s: calling lane %u is not in its own mask %08x", what, l, mask);
  w.args[l] = args; w.fn[l] = fn; w.msk[l] = mask; w.what[l] = what; w.arrived |= 1u << l;
  if ((w.arrived & mask) != mask) { block_self(); return; }
  for (uint32_t m = mask; m; m &= m - 1) {
    int j = __builtin_ctz(m);
    if (w.fn[j] != fn || w.msk[j] != mask)
      fail("warp divergence: lane %u in %s mask %08x, lane %d in %s mask %08x", l, what, mask, j, w.what[j], w.msk[j]);
  }
  w.arrived &= ~mask;
  fn(w.args, mask);
  make_ready(b, me->lin >> 5, mask);
  if (b->cfg->policy == RANDOM) yield();
}
static void sw_fn(void *const *, uint32_t) { blk()->w[cur->lin >> 5].wep++; }
void syncwarp(uint32_t mask) { warp_collective(mask & (cur->blk->w[cur->lin >> 5].alive | mask), sw_fn, nullptr, "__syncwarp"); }

struct ShflArgs { uint64_t v, out; int arg, width; Shfl k; };
static void shfl_fn(void *const *a, uint32_t mask) {
  for (uint32_t m = mask; m; m &= m - 1) {
    int l = __builtin_ctz(m); ShflArgs &s = *(ShflArgs *)a[l];
    int base = l & ~(s.width - 1), last = base + s.width - 1, j = l; bool p = true;
    switch (s.k) {
      case IDX: j = base + (s.arg & (s.width - 1)); break;
      case UP: j = l - s.arg; p = j >= base; break;
      case DOWN: j = l + s.arg; p = j <= last; break;
      case XOR: j = l ^ s.arg; p = j <= last; break;
    }
    if (!p) j = l;
    if (!(mask >> j & 1)) fail("shfl: lane %d reads lane %d, which is not in mask %08x", l, j, mask);
    s.out = ((ShflArgs *)a[j])->v;
  }
}
uint64_t shfl(uint32_t mask, uint64_t v, int arg, int width, Shfl k) {
  ShflArgs s{v, 0, arg, width, k}; warp_collective(mask, shfl_fn, &s, "__shfl_sync"); return s.out;
}
struct BalArgs { bool p; uint32_t out; };
static void bal_fn(void *const *a, uint32_t mask) {
  uint32_t r = 0;
  for (uint32_t m = mask; m; m &= m - 1) { int l = __builtin_ctz(m); if (((BalArgs *)a[l])->p) r |= 1u << l; }
  for (uint32_t m = mask; m; m &= m - 1) ((BalArgs *)a[__builtin_ctz(m)])->out = r;
}
uint32_t ballot(uint32_t mask, bool p) { BalArgs s{p, 0}; warp_collective(mask, bal_fn, &s, "__ballot_sync"); return s.out; }

// ---------------------------------------------------------------- shared memory
void *static_shared(const void *tag, size_t bytes, size_t align) {
  Block *b = blk();
  for (auto &s : b->statics) if (s.tag == tag) return b->arena + s.off;
  uint32_t off = (b->top + (uint32_t)align - 1) & ~((uint32_t)align - 1);
  if (off + bytes > ARENA - 1024) fail("shared memory exhausted: %zu more bytes over %u", bytes, b->top);
  b->top = off + (uint32_t)bytes + 128;      // red zone between arrays
  b->statics.push_back({tag, off, (uint32_t)bytes});
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(b->arena + off, bytes);
#endif
  return b->arena + off;
}
void *dyn_shared() { return blk()->arena; }
uint32_t cvta(const void *p) {
  uintptr_t o = (uintptr_t)p - (uintptr_t)blk()->arena;
  if (o >= ARENA) fail("address %p is not in shared memory", p);
  return (uint32_t)o;
}
void *smem_ptr(uint32_t a, uint32_t bytes, uint32_t align, const char *what) {
  if (a + bytes > ARENA) fail("%s: shared address %u out of range", what, a);
  if (a & (align - 1)) fail("%s: shared address %u is not %u-byte aligned", what, a, align);
#ifdef EMU_ASAN
  if (void *bad = __asan_region_is_poisoned(blk()->arena + a, bytes)) fail("%s: shared access outside any array at +%td", what, (char *)bad - blk()->arena);
#endif
  return blk()->arena + a;
}

// ---------------------------------------------------------------- happens-before shadow (vector clock per warp, epochs per access)
static inline bool ordered(const Block *b, const Acc &p, const Fiber *f) {
  uint32_t pw = p.tid >> 5, cw = f->lin >> 5; const Warp &W = b->w[cw];
  if (pw != cw) return W.vc.c[pw] >= p.clk;
  return p.tid == f->lin || p.clk < W.vc.c[cw] || p.wep < W.wep;
}
static const char *name_of(const Block *b, uint32_t off, char *buf, size_t n) {
  snprintf(buf, n, "shared+%u", off); (void)b; return buf;
}
void sh_access(uint32_t off, uint32_t n, bool write, uint16_t st, const Fiber *f) {
  Block *b = f->blk; uint32_t cw = f->lin >> 5; char nm[64];
  bool in = off + n <= b->dyn;
  for (auto &v : b->statics) in = in || (off >= v.off && off + n <= v.off + v.size);
  if (!in) fail("shared access at +%u (%u bytes) is outside every shared array", off, n);
  const Acc me{b->w[cw].vc.c[cw], b->w[cw].wep, (uint16_t)f->lin, st, f->pf};
  for (uint32_t c = off / GRAN; c <= (off + n - 1) / GRAN; c++) {
    Cell &x = b->shadow[c];
    if (!write) {
      if (!x.w.st) fail("read of unwritten %s", name_of(b, c * GRAN, nm, sizeof nm));
      if (x.w.st == 2) fail("read of %s while the async copy of thread %u is in flight", name_of(b, c * GRAN, nm, sizeof nm), x.w.tid);
      if (!ordered(b, x.w, f)) fail("race: reads %s written by thread %u with no barrier between", name_of(b, c * GRAN, nm, sizeof nm), x.w.tid);
      if (!x.r0.st || x.r0.tid == f->lin || ordered(b, x.r0, f)) x.r0 = me; else x.r1 = me;
    } else {
      if (x.w.st == 1 && !ordered(b, x.w, f)) fail("race: writes %s also written by thread %u with no barrier between", name_of(b, c * GRAN, nm, sizeof nm), x.w.tid);
      if (x.w.st == 2 && x.w.tid != f->lin) fail("race: writes %s while the async copy of thread %u is in flight", name_of(b, c * GRAN, nm, sizeof nm), x.w.tid);
      for (Acc *r : {&x.r0, &x.r1})
        if (r->st && !ordered(b, *r, f)) fail("race: overwrites %s read by thread %u with no barrier between", name_of(b, c * GRAN, nm, sizeof nm), r->tid);
      x.w = me; x.r0.st = x.r1.st = 0;
    }
  }
}
static std::map<uintptr_t, GBuf> g_bufs;      // device buffers by address
static std::mutex g_mu;
static bool find_buffer(uintptr_t p, GBuf &g) {
  std::lock_guard<std::mutex> l(g_mu);
  auto i = g_bufs.upper_bound(p);
  if (i == g_bufs.begin()) return false;
  g = (--i)->second;
  return p < g.e;
}
static __thread GBuf g_last;
constexpr uint64_t SEVERAL = 0xffffffff;      // a word that more than one block has read
static void ghook(uintptr_t p, uint32_t n, bool wr, Fiber *f) {
  if (!(p >= g_last.a && p < g_last.e)) { GBuf g; if (!find_buffer(p, g)) return; g_last = g; }
  const BlockView &v = f->blk->v;
  const uint64_t ep = f->blk->launch << 32, id = ep | (1 + v.bid.x + v.gdim.x * (v.bid.y + (uint64_t)v.gdim.y * v.bid.z));
  auto other = [&](uint64_t who) { return (who & ~SEVERAL) == ep && who != id; };
  for (uintptr_t i = (p - g_last.a) / 4; i <= (p + n - 1 - g_last.a) / 4; i++) {
    const uint64_t w = __atomic_load_n(&g_last.w[i], __ATOMIC_RELAXED), r = __atomic_load_n(&g_last.r[i], __ATOMIC_RELAXED);
    if (other(w)) fail("race: %s device word %zu that block %u writes in the same launch", wr ? "writes" : "reads", (size_t)i, (uint32_t)w - 1);
    if (wr && other(r)) fail("race: writes device word %zu that another block reads in the same launch", (size_t)i);
    if (wr) __atomic_store_n(&g_last.w[i], id, __ATOMIC_RELAXED);
    else __atomic_store_n(&g_last.r[i], other(r) ? ep | SEVERAL : id, __ATOMIC_RELAXED);
  }
}
static inline void hook(const void *p, uint32_t n, bool wr) {
  Fiber *f = cur; if (!f) return;
  if (!RACE) return;
  uintptr_t o = (uintptr_t)p - (uintptr_t)f->blk->arena;
  if (o >= ARENA) { if ((uintptr_t)p - (uintptr_t)f->stk >= f->stk_n) ghook((uintptr_t)p, n, wr, f); return; }
  sh_access((uint32_t)o, n, wr, 1, f);
}
void sh_read(const void *p, uint32_t n) { hook(p, n, false); }
void sh_write(void *p, uint32_t n) { hook(p, n, true); }

// ---------------------------------------------------------------- running blocks
static struct sigaction old_segv;
static void on_segv(int sig, siginfo_t *si, void *u) {
  if (cur) {
    char *a = (char *)si->si_addr, *k = cur->stk;
    if (a >= k - 4096 && a < k) fail("stack overflow (a fiber has %zu KiB)", STK / 1024);
    fail("access to invalid address %p (out of bounds of a device buffer?)", (void *)a);
  }
  if (old_segv.sa_flags & SA_SIGINFO) old_segv.sa_sigaction(sig, si, u);
  else { signal(SIGSEGV, SIG_DFL); }
}
static void arm_segv() {                                 // turns wild accesses into launch errors; once per process
#ifndef EMU_ASAN
  static std::once_flag once;
  std::call_once(once, [] { struct sigaction sa{}; sa.sa_sigaction = on_segv; sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER; sigaction(SIGSEGV, &sa, &old_segv); });
#endif
}
// A signal stack for an OS thread that has none, while it runs blocks.
struct SignalStack {
  stack_t old; std::unique_ptr<char[]> mem;
  SignalStack() {
    sigaltstack(nullptr, &old);
    if (!(old.ss_flags & SS_DISABLE)) return;
    mem.reset(new char[64 * 1024]);
    stack_t st{}; st.ss_size = 64 * 1024; st.ss_sp = mem.get(); sigaltstack(&st, nullptr);
  }
  ~SignalStack() { if (mem) sigaltstack(&old, nullptr); }
};
// What one OS thread needs to run blocks: 1,024 stacks, a shared-memory arena and its shadow. Kept for the next launch.
struct OsCtx { Block *b; char *stacks; size_t stride; };
[[noreturn]] static void fiber_main() {
  finish_switch();
  Fiber *me = cur; Block *b = me->blk;
  b->k->thunk(b->params);
  b = cur->blk; me = cur;
  Warp &w = b->w[me->lin >> 5];
  w.alive &= ~(1u << (me->lin & 31)); b->nalive--;
  if (!b->cp[me->lin].groups.empty() || !b->cp[me->lin].open.empty()) fail("thread exits with cp.async copies still in flight");
  clear_ready(b, me->lin);
  Bar &bar = b->bar[0];
  if (bar.arrived && !bar.expect && bar.arrived == b->nalive) release_bar(b, bar, 0);   // exited threads count as arrived
  if (b->nalive == 0 && b->warps_ready == 0) go_main(b);
  Fiber *n = pick(b);
  if (!n) fail("deadlock: thread exited while %u others wait (barrier 0: %u arrived)", b->nalive, b->bar[0].arrived);
  cur = n;
  void *dummy;
#ifdef EMU_ASAN
  __sanitizer_start_switch_fiber(nullptr, n->stk, n->stk_n);
#endif
  emu_switch(&dummy, n->sp);
  __builtin_unreachable();
}
static std::vector<OsCtx> g_idle; static std::mutex g_idle_mu;
static OsCtx take_ctx() {
  { std::lock_guard<std::mutex> l(g_idle_mu); if (!g_idle.empty()) { OsCtx c = g_idle.back(); g_idle.pop_back(); return c; } }
  OsCtx c; size_t pg = 4096;
  c.b = new Block(); c.stride = STK + pg;
  c.stacks = (char *)mmap(nullptr, c.stride * 1024, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (c.stacks == MAP_FAILED) { perror("mmap"); abort(); }
  for (size_t i = 0; i < 1024; i++) mprotect(c.stacks + i * c.stride, pg, PROT_NONE);   // guard page under each stack
  c.b->arena = (char *)mmap(nullptr, ARENA + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mprotect(c.b->arena + ARENA, 4096, PROT_NONE);
  if (RACE) c.b->shadow = (Cell *)mmap(nullptr, sizeof(Cell) * (ARENA / GRAN), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return c;
}
static void give_ctx(OsCtx c) { std::lock_guard<std::mutex> l(g_idle_mu); g_idle.push_back(c); }
static std::atomic<uint64_t> g_launch;
static bool run_block(OsCtx &c, const Kernel *k, uint3 bid, dim3 g, dim3 bd, uint32_t dyn, void *const *params, const emu_config *cfg, uint64_t bl) {
  Block *b = c.b;
  uint32_t used = b->top ? b->top : ARENA;
  b->v = {bid, bd, g}; b->switches = 0; b->cfg = cfg; b->k = k; b->params = params; b->failed = false;
  b->n = bd.x * bd.y * bd.z; b->nalive = b->n; b->nwarps = (b->n + 31) / 32; b->warps_ready = 0;
  b->rng = (cfg->seed + 1) * 0x9E3779B97F4A7C15ull + bl * 0xD1B54A32D192ED03ull; if (!b->rng) b->rng = 1;
  b->curwarp = cfg->policy == REVERSE ? b->nwarps - 1 : cfg->policy == RANDOM ? rnd(b) % b->nwarps : 0;
  memset(b->w, 0, sizeof b->w); memset(b->bar, 0, sizeof b->bar); memset(b->mbw, 0, sizeof b->mbw);
  b->statics.clear(); b->tasks.clear(); b->mbars.clear();
  uint32_t want = ((dyn + 1023) & ~1023u) + 1024; if (want > used) used = want; if (used > ARENA) used = ARENA;
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(b->arena, ARENA); used = ARENA;
#endif
  memset(b->arena, 0xff, used);                          // NaN in f32, f16 and bf16
  if (RACE) memset((void *)b->shadow, 0, sizeof(Cell) * (used / GRAN));
#ifdef EMU_ASAN
  __asan_poison_memory_region(b->arena + dyn, ARENA - dyn);
#endif
  b->dyn = dyn; b->top = dyn ? ((dyn + 1023) & ~1023u) + 128 : 0;
  for (auto &q : b->wg) { q.ops.clear(); q.issued = q.executed = 0; q.commits.clear(); }
  for (uint32_t t = 0; t < b->n; t++) {
    Fiber &f = b->f[t];
    f.tid = {t % bd.x, t / bd.x % bd.y, t / bd.x / bd.y}; f.lin = t; f.blk = b; f.fake = nullptr; f.pf = 0;
    b->cp[t].open.clear(); b->cp[t].groups.clear();
    f.stk = c.stacks + t * c.stride + 4096; f.stk_n = STK;
#ifdef EMU_ASAN
    __asan_unpoison_memory_region(f.stk, f.stk_n);
#endif
    // stagger stack tops, else all fibers' hot frames fall in the same cache sets
    uintptr_t top = ((uintptr_t)f.stk + STK - 64 - (t % 61) * 192) & ~15ull;
    void **s = (void **)top;
#if defined(__x86_64__)
    *--s = nullptr; *--s = (void *)fiber_main; for (int i = 0; i < 6; i++) *--s = nullptr;
#elif defined(__aarch64__)
    s -= 20; memset(s, 0, 160); s[11] = (void *)fiber_main;
#endif
    f.sp = s;
    Warp &w = b->w[t >> 5]; w.alive |= 1u << (t & 31); w.ready |= 1u << (t & 31); b->warps_ready |= 1u << (t >> 5);
  }
  for (uint32_t w = 0; w < 32; w++) b->w[w].vc.c[w] = 1;
  Fiber *first = pick(b);
  cur = first;
#ifdef EMU_ASAN
  void *fake; const void *ob; size_t on;
  { // our own stack bounds, for the way back
    static thread_local pthread_attr_t at; static thread_local bool init = false; void *a; size_t n;
    if (!init) { pthread_getattr_np(pthread_self(), &at); init = true; }
    pthread_attr_getstack(&at, &a, &n); b->main_stk = a; b->main_stk_n = n;
  }
  __sanitizer_start_switch_fiber(&fake, first->stk, first->stk_n);
#endif
  emu_switch(&b->main_sp, first->sp);
#ifdef EMU_ASAN
  __sanitizer_finish_switch_fiber(fake, &ob, &on);
#endif
  if (!b->failed) {                                      // red zones must still hold the poison
    auto zone = [&](uint32_t a, uint32_t e) {
      for (; a < e && !b->failed; a++) if (b->arena[a] != (char)0xff) { b->failed = true;
        snprintf(b->err, sizeof b->err, "%s: block (%u,%u,%u): write past the end of a shared array, at shared+%u", k->name, bid.x, bid.y, bid.z, a); } };
#ifndef EMU_ASAN
    if (dyn) zone(dyn, ((dyn + 1023) & ~1023u) + 128);
    for (auto &v : b->statics) zone(v.off + v.size, v.off + v.size + 128);
#endif
  }
  cur = nullptr;
  return !b->failed;
}
}  // namespace emu

using namespace emu;

// ---------------------------------------------------------------- the interface of the library
EMU_API void emu_kernels(void (*each)(void *context, const char *name), void *context) {
  for (const Kernel *k = g_kernels; k; k = k->next) each(context, k->name);
}
static const Kernel *find_kernel(const char *name) {
  for (const Kernel *k = g_kernels; k; k = k->next) if (!strcmp(k->name, name)) return k;
  return nullptr;
}
static int launch(const Kernel *k, const uint32_t grid[3], const uint32_t block[3], uint32_t dyn, void *const *params, const emu_config *cfg, char *err, size_t errn) {
  uint64_t nb = (uint64_t)grid[0] * grid[1] * grid[2]; uint64_t nt = (uint64_t)block[0] * block[1] * block[2];
  if (nt == 0 || nt > 1024 || nb == 0 || nb >= 0xffffffff || grid[1] > 65535 || grid[2] > 65535 || block[2] > 64 || dyn > ARENA - 1024) {
    snprintf(err, errn, "%s: bad launch shape: grid (%u,%u,%u), block (%u,%u,%u), %u bytes of shared memory", k->name, grid[0], grid[1], grid[2], block[0], block[1], block[2], dyn); return 1; }
  arm_segv();
  std::atomic<uint64_t> next{0}; std::atomic<bool> bad{false}; std::mutex mu;
  const uint64_t lid = ++g_launch & 0xffffffff;
  auto work = [&] {
    SignalStack signal_stack; OsCtx c = take_ctx(); c.b->launch = lid; g_last = {};
    for (uint64_t i; !bad && (i = next++) < nb;) {
      uint64_t j = cfg->policy == REVERSE ? nb - 1 - i : i;
      uint3 bid{(unsigned)(j % grid[0]), (unsigned)(j / grid[0] % grid[1]), (unsigned)(j / grid[0] / grid[1])};
      if (!run_block(c, k, bid, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), dyn, params, cfg, j)) {
        std::lock_guard<std::mutex> l(mu); if (!bad) snprintf(err, errn, "%s", c.b->err); bad = true;
      }
    }
    give_ctx(c);
  };
  uint64_t os = cfg->os_threads ? cfg->os_threads : std::thread::hardware_concurrency();
  if (os > nb) os = nb;
  std::vector<std::thread> th;
  for (uint64_t i = 1; i < os; i++) th.emplace_back(work);
  work();
  for (auto &t : th) t.join();
  return bad;
}
EMU_API int emu_launch(const char *name, const uint32_t grid[3], const uint32_t block[3], uint32_t shared, void *const *args, const uint32_t *sizes,
                       uint32_t nargs, const emu_config *cfg, char *err, size_t errn) {
  const Kernel *k = find_kernel(name);
  if (!k) { snprintf(err, errn, "no kernel is named %s", name); return 1; }
  if (nargs != k->nparams) { snprintf(err, errn, "%s: %u arguments, the kernel takes %u", name, nargs, k->nparams); return 1; }
  for (uint32_t i = 0; i < nargs; i++)
    if (sizes[i] != k->sizes[i]) { snprintf(err, errn, "%s: argument %u has %u bytes, the kernel takes %u", name, i, sizes[i], k->sizes[i]); return 1; }
  return launch(k, grid, block, shared, args, cfg, err, errn);
}

// Device memory: filled with NaN, ends at a guard page (to 16 bytes), so that an overrun faults in any build. 0: out of memory.
EMU_API uint64_t emu_alloc(size_t n) {
  const size_t pg = 4096, body = (n + 15) & ~(size_t)15, pages = ((body + pg - 1) & ~(pg - 1)) + 2 * pg;
  char *p = (char *)mmap(nullptr, pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return 0;
  mprotect(p, pg, PROT_NONE); mprotect(p + pages - pg, pg, PROT_NONE);
  char *r = p + pages - pg - body; memset(r, 0xff, body);
  auto words = [&] { return RACE ? (uint64_t *)calloc(body / 4 + 1, 8) : nullptr; };
  const GBuf g{(uintptr_t)r, (uintptr_t)r + body, words(), words()};
  std::lock_guard<std::mutex> l(g_mu); g_bufs[g.a] = g;
  return g.a;
}
EMU_API int emu_free(uint64_t a) {
  std::lock_guard<std::mutex> l(g_mu);
  auto i = g_bufs.find(a);
  if (i == g_bufs.end()) return 1;
  const GBuf g = i->second; g_bufs.erase(i);
  free(g.w); free(g.r);
  const size_t pg = 4096, pages = ((g.e - g.a + pg - 1) & ~(pg - 1)) + 2 * pg;
  return munmap((void *)(g.e + pg - pages), pages);
}
// 1 if the n bytes at a lie in one device buffer.
EMU_API int emu_owns(uint64_t a, size_t n) { GBuf g; return find_buffer(a, g) && n <= g.e - a; }

#define RMW(T) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); }
int atomicAdd(int *p, int v) RMW(int)
unsigned atomicAdd(unsigned *p, unsigned v) RMW(unsigned)
unsigned long long atomicAdd(unsigned long long *p, unsigned long long v) RMW(unsigned long long)
template <class F, class U> static F fadd(F *p, F v) {
  U *u = (U *)p, o = __atomic_load_n(u, __ATOMIC_RELAXED); F f, n;
  do { memcpy(&f, &o, sizeof f); n = f + v; U nu; memcpy(&nu, &n, sizeof n); if (__atomic_compare_exchange_n(u, &o, nu, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) break; } while (1);
  return f;
}
float atomicAdd(float *p, float v) { return fadd<float, uint32_t>(p, v); }
double atomicAdd(double *p, double v) { return fadd<double, uint64_t>(p, v); }
int atomicMax(int *p, int v) { int o = __atomic_load_n(p, 0); while (o < v && !__atomic_compare_exchange_n(p, &o, v, true, 0, 0)) {} return o; }
int atomicMin(int *p, int v) { int o = __atomic_load_n(p, 0); while (o > v && !__atomic_compare_exchange_n(p, &o, v, true, 0, 0)) {} return o; }
unsigned atomicCAS(unsigned *p, unsigned c, unsigned v) { __atomic_compare_exchange_n(p, &c, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST); return c; }
unsigned atomicExch(unsigned *p, unsigned v) { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }

// ---------------------------------------------------------------- -fsanitize=thread hooks: kernels are compiled with it, libtsan is NOT
// linked; these are the calls the instrumentation makes.
#ifdef EMU_RACE
extern "C" {
#define HK(n) void __tsan_read##n(void *p) { hook(p, n, false); } void __tsan_write##n(void *p) { hook(p, n, true); }
HK(1) HK(2) HK(4) HK(8) HK(16)
#define HU(n) void __tsan_unaligned_read##n(void *p) { hook(p, n, false); } void __tsan_unaligned_write##n(void *p) { hook(p, n, true); }
HU(2) HU(4) HU(8) HU(16)
void __tsan_read_range(void *p, size_t n) { hook(p, (uint32_t)n, false); }
void __tsan_write_range(void *p, size_t n) { hook(p, (uint32_t)n, true); }
void *__tsan_memcpy(void *d, const void *s, size_t n) { hook(s, (uint32_t)n, false); hook(d, (uint32_t)n, true); return memcpy(d, s, n); }
void *__tsan_memset(void *d, int c, size_t n) { hook(d, (uint32_t)n, true); return memset(d, c, n); }
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}
#endif
