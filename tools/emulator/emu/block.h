// The state of one running block, and what the runtime's files offer one another.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>
#include "cuda_emu.h"
#include "race.h"

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif

#define EMU_API extern "C" __attribute__((visibility("default")))

// As in src/library.rs.
struct emu_config {
  uint32_t policy, os_threads;
  uint64_t seed;
  uint32_t async_late;
};

namespace emu {
enum Policy : uint32_t { FORWARD, REVERSE, RANDOM, LOCKSTEP };

constexpr uint32_t MAX_THREADS = 1024, MAX_WARPS = 32, BARRIERS = 16;
constexpr uint32_t ARENA = 228 * 1024;      // shared memory of an SM
constexpr uint32_t RED_ZONE = 128;          // between shared arrays, checked when the block ends
constexpr uint32_t PAGE = 4096;

// A warp-collective operation: the last lane of `mask` to arrive runs it on every lane's arguments, which lie on the fibers' stacks.
using Collective = void (*)(void *const *args, uint32_t mask);

struct Warp {
  uint32_t ready, alive;                    // lanes that can run; that have not exited
  uint32_t arrived;                         // lanes that wait in a collective, with what each passed:
  uint32_t mask[32];
  void *args[32];
  Collective collective[32];
  const char *what[32];
  WarpClock clock;
};

struct Barrier {
  uint32_t arrived, expected;               // expected 0: all living threads
  uint32_t waiting[MAX_WARPS];              // lanes
  uint32_t warps;                           // that wait
  const char *file;
  int line;
  VectorClock clock;
};

struct AsyncCopy {                          // one cp.async
  uint32_t target, bytes, size;             // `bytes` are copied and the rest of `size` filled with zeros
  const void *source;
  bool late;                                // done when waited for, not when issued
};
struct AsyncCopies {
  std::vector<AsyncCopy> open;
  std::deque<std::vector<AsyncCopy>> groups;
};

struct Wgmma {                              // one warp's share of a wgmma: 16 rows
  uint64_t a, b;                            // descriptors
  int n, scale_d;
  bool a_mn_major, b_mn_major;
  bool chained;                             // an earlier one in flight has the same accumulator
  float *d[32];                             // each lane's accumulator
  std::vector<float> d_before, a_tile, b_tile;
};
struct WgmmaQueue {
  std::deque<Wgmma> in_flight;
  uint64_t issued = 0, executed = 0;
  std::vector<uint64_t> commits;            // value of `issued` at each commit
};

struct StaticArray {
  const void *tag;
  uint32_t offset, size;
};
struct BarrierClock {                       // what an mbarrier's arrivals have published
  uint32_t address;
  VectorClock clock;
};

struct Block {
  BlockView view;
  const emu_config *config;
  const Kernel *kernel;
  void *const *args;
  uint64_t launch;                          // its number
  uint32_t threads, warps, alive;
  uint32_t warps_ready, warp;               // warps that can run; the one that does
  uint64_t random;

  void *host_stack_pointer;                 // of the host's thread, while fibers run
  const void *host_stack;
  size_t host_stack_size;
  bool failed;
  char error[500];

  char *arena;                              // shared memory: dynamic first, then the static arrays as they are met
  uint32_t dynamic, top;
  std::vector<StaticArray> arrays;
  Cell *shadow;

  Warp warp_of[MAX_WARPS];
  Barrier barriers[BARRIERS];
  uint32_t mbarrier_waiting[MAX_WARPS];     // lanes that wait for some mbarrier
  std::vector<BarrierClock> mbarrier_clocks;
  std::vector<std::function<void()>> tasks; // copies of the asynchronous engine (TMA)
  AsyncCopies copies[MAX_THREADS];
  WgmmaQueue wgmmas[MAX_WARPS];
  Fiber fibers[MAX_THREADS];
  char *stacks;

  // xorshift64: the schedule's own random numbers
  uint32_t next_random() {
    random ^= random << 13, random ^= random >> 7, random ^= random << 17;
    return (uint32_t)(random >> 32);
  }
  bool late() { return config->policy == RANDOM ? next_random() & 1 : config->async_late; }
};

// the calling thread
inline Block *block() { return current->block; }
inline uint32_t warp_index() { return current->thread >> 5; }
inline uint32_t lane_index() { return current->thread & 31; }
inline Warp &warp() { return block()->warp_of[warp_index()]; }

// for (lane in mask)
#define EMU_LANES(lane, mask) \
  for (uint32_t lanes_ = (mask), lane; lanes_ && (lane = (uint32_t)__builtin_ctz(lanes_), true); lanes_ &= lanes_ - 1)

// fiber.cpp
void prepare_fiber(Fiber &f);               // at the start of fiber_main, on an empty stack
void enter_fibers(Fiber *first);            // returns when leave_fibers is called
[[noreturn]] void leave_fibers();
void switch_to(Fiber *f);
[[noreturn]] void exit_to(Fiber *f);        // the calling fiber never runs again
extern const size_t STACK;

// scheduler.cpp
void fiber_main();
Fiber *pick(Block *b);                      // who runs next; null: nobody can
void make_ready(Block *b, uint32_t warp, uint32_t lanes);
void block_self();                          // until somebody makes this thread ready
void yield();

// sync.cpp
void warp_collective(uint32_t mask, Collective f, void *args, const char *what);
void release_barrier(Block *b, Barrier &barrier);

// shared.cpp
void reset_shared(Block *b, uint32_t dynamic);
void check_red_zones(Block *b);
uint32_t shared_address(const void *p);
// The bytes at a shared address, checked for range and alignment on behalf of `what`.
char *shared_pointer(uint32_t address, uint32_t bytes, uint32_t align, const char *what);

// device.cpp
struct Buffer {
  uintptr_t start, end;
  DeviceCell *shadow;                       // of the race build
};
bool find_buffer(uintptr_t address, Buffer &found);
}  // namespace emu
