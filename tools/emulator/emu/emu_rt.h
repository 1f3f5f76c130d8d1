// emu_rt.h -- internals shared by emu_rt.cpp (fibers, barriers, shadow) and emu_ptx.cpp (PTX emulation).
#pragma once
#include "cuda_emu.h"
#include <deque>
#include <functional>
#include <vector>
#define EMU_API extern "C" __attribute__((visibility("default")))
struct emu_config { uint32_t policy; uint32_t os_threads; uint64_t seed; uint32_t async_late; };
namespace emu {
enum Policy : uint32_t { FORWARD = 0, REVERSE = 1, RANDOM = 2, LOCKSTEP = 3 };
#ifdef EMU_RACE
constexpr bool RACE = true;      // the kernels are compiled with -fsanitize=thread
#else
constexpr bool RACE = false;
#endif
constexpr uint32_t ARENA = 228 * 1024, GRAN = 2;
struct Acc { uint32_t clk, wep; uint16_t tid, st; uint32_t pf; };   // st: 0 none, 1 done, 2 in flight (async copy); pf: writer's proxy-fence count
struct Cell { Acc w, r0, r1; };
struct VC { uint32_t c[32]; };
struct Warp { uint32_t ready, alive, arrived, wep; uint32_t msk[32]; void *args[32]; CollFn fn[32]; const char *what[32]; VC vc; };
struct Bar { uint32_t arrived, expect; uint32_t wait[32], part; int line; VC vc; };
struct CpOp { uint32_t dst, bytes, sz; const void *src; };
struct CpQ { std::vector<CpOp> open; std::deque<std::vector<CpOp>> groups; };
struct WgOp { uint64_t a, b; int n, scale_d; bool chained, ta, tb; float *d[32]; std::vector<float> saved, A, B; };
struct WgQ { std::deque<WgOp> ops; uint64_t issued = 0, executed = 0; std::vector<uint64_t> commits; };
struct MBarShadow { uint32_t addr; VC vc; };
struct StaticVar { const void *tag; uint32_t off, size; };
struct Block {
  BlockView v;
  const emu_config *cfg;
  uint32_t n, nalive, nwarps, warps_ready, curwarp;
  uint32_t dyn, top;
  uint64_t rng;
  bool failed; char err[400];
  void *main_sp; void *main_fake; const void *main_stk; size_t main_stk_n;
  const Kernel *k; void *const *params;
  char *arena; Cell *shadow;
  Warp w[32]; Bar bar[16];
  std::vector<StaticVar> statics;
  std::vector<std::function<void()>> tasks;      // async engine (TMA)
  std::vector<MBarShadow> mbars;
  uint32_t mbw[32];                              // lanes waiting on some mbarrier
  CpQ cp[1024]; WgQ wg[32];
  Fiber f[1024];
  uint64_t switches, launch;
};
inline Block *blk() { return cur->blk; }
inline uint32_t rnd(Block *b) { b->rng ^= b->rng << 13; b->rng ^= b->rng >> 7; b->rng ^= b->rng << 17; return (uint32_t)(b->rng >> 32); }
void block_self();                // current fiber is not ready: run something else
void make_ready(Block *b, uint32_t w, uint32_t mask);
void sh_access(uint32_t off, uint32_t n, bool write, uint16_t st, const Fiber *f);
// Race build: who last wrote and read each 4-byte word of a device buffer, as launch << 32 | block + 1.
struct GBuf { uintptr_t a, e; uint64_t *w, *r; };
inline void vc_join(VC &a, const VC &b) { for (int i = 0; i < 32; i++) if (b.c[i] > a.c[i]) a.c[i] = b.c[i]; }
}  // namespace emu
