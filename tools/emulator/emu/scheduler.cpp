// Which thread of a block runs next, and what a thread does from its first instruction to its exit.
#include <cstdarg>
#include <cstdio>
#include "block.h"

namespace emu {
void fail(const char *format, ...) {
  Block *b = block();
  if (!b->failed) {
    b->failed = true;
    const uint3 i = b->view.index;
    const int n = snprintf(b->error, sizeof b->error, "%s: block (%u,%u,%u) thread %u: ", b->kernel->name, i.x, i.y, i.z, current->thread);
    va_list args;
    va_start(args, format);
    vsnprintf(b->error + n, sizeof b->error - (size_t)n, format, args);
    va_end(args);
  }
  leave_fibers();      // the block's fibers are abandoned where they are
}

void make_ready(Block *b, uint32_t warp, uint32_t lanes) {
  b->warp_of[warp].ready |= lanes;
  if (b->warp_of[warp].ready) b->warps_ready |= 1u << warp;
}
static void make_unready(Block *b, uint32_t thread) {
  Warp &w = b->warp_of[thread >> 5];
  w.ready &= ~(1u << (thread & 31));
  if (!w.ready) b->warps_ready &= ~(1u << (thread >> 5));
}

static uint32_t lowest(uint32_t mask) { return (uint32_t)__builtin_ctz(mask); }
static uint32_t highest(uint32_t mask) { return 31 - (uint32_t)__builtin_clz(mask); }
static uint32_t above(uint32_t mask, uint32_t bit) { return bit == 31 ? 0 : mask & ~((2u << bit) - 1); }
static uint32_t below(uint32_t mask, uint32_t bit) { return mask & ((1u << bit) - 1); }
static uint32_t any_of(Block *b, uint32_t mask) {
  uint32_t skip = b->next_random() % (uint32_t)__builtin_popcount(mask);
  while (skip--) mask &= mask - 1;
  return lowest(mask);
}
static void run_task(Block *b, size_t i) {
  const auto task = std::move(b->tasks[i]);
  b->tasks.erase(b->tasks.begin() + (ptrdiff_t)i);
  task();
}
static Fiber *lane_of(Block *b, uint32_t warp, uint32_t lane) {
  b->warp = warp;
  return &b->fibers[warp * 32 + lane];
}

Fiber *pick(Block *b) {
  const bool random = b->config->policy == RANDOM;
  while (!b->warps_ready) {      // the asynchronous engine runs when nobody else can
    if (b->tasks.empty()) return nullptr;
    run_task(b, random ? b->next_random() % b->tasks.size() : 0);
  }
  if (random && !b->tasks.empty() && b->next_random() % 64 == 0) run_task(b, 0);      // or at any time
  const uint32_t ready = b->warps_ready, w = b->warp;
  const bool stay = ready >> w & 1;
  switch (b->config->policy) {
    case FORWARD: {
      const uint32_t up = above(ready, w), next = stay ? w : lowest(up ? up : ready);
      return lane_of(b, next, lowest(b->warp_of[next].ready));
    }
    case REVERSE: {
      const uint32_t down = below(ready, w), next = stay ? w : highest(down ? down : ready);
      return lane_of(b, next, highest(b->warp_of[next].ready));
    }
    case LOCKSTEP: {
      const uint32_t up = above(ready, w), next = lowest(up ? up : ready);
      return lane_of(b, next, lowest(b->warp_of[next].ready));
    }
    default: {
      const uint32_t next = stay && b->next_random() % 128 ? w : any_of(b, ready);
      return lane_of(b, next, any_of(b, b->warp_of[next].ready));
    }
  }
}

[[noreturn]] static void deadlock(Block *b) {
  char warps[200] = "";
  int n = 0;
  for (uint32_t w = 0; w < b->warps && n < 150; w++) {
    const Warp &warp = b->warp_of[w];
    if (!warp.alive) continue;
    n += snprintf(warps + n, sizeof warps - (size_t)n, " warp %u: alive %08x", w, warp.alive);
    if (warp.arrived)
      n += snprintf(warps + n, sizeof warps - (size_t)n, ", in %s %08x", warp.what[lowest(warp.arrived)], warp.arrived);
  }
  const Barrier &barrier = b->barriers[0];
  if (!barrier.arrived) fail("deadlock: no thread can run;%s", warps);
  fail("deadlock: no thread can run; %u of %u are in __syncthreads, line %d;%s", barrier.arrived, b->alive, barrier.line, warps);
}

void block_self() {
  Block *b = block();
  make_unready(b, current->thread);
  Fiber *next = pick(b);
  if (!next) deadlock(b);
  switch_to(next);
}

void yield() {
  Block *b = block();
  Fiber *me = current;
  make_unready(b, me->thread);
  Fiber *next = pick(b);
  make_ready(b, me->thread >> 5, 1u << (me->thread & 31));
  if (next) switch_to(next);
}

void fiber_main() {
  Block *b = block();
  b->kernel->call(b->args);
  for (const auto &group : b->copies[current->thread].groups)
    if (!group.empty()) fail("the thread exits with cp.async copies that it did not wait for");
  if (!b->copies[current->thread].open.empty()) fail("the thread exits with cp.async copies that it did not commit");

  warp().alive &= ~(1u << lane_index());
  b->alive--;
  make_unready(b, current->thread);
  Barrier &barrier = b->barriers[0];      // __syncthreads does not wait for threads that have exited
  if (barrier.arrived && !barrier.expected && barrier.arrived == b->alive) release_barrier(b, barrier);
  if (b->alive == 0) leave_fibers();
  Fiber *next = pick(b);
  if (!next) deadlock(b);
  exit_to(next);
}
}  // namespace emu
