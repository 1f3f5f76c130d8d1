// The race checker: a vector clock per warp, and for every two bytes of memory who wrote and read them last.
#pragma once
#include <cstdint>

namespace emu {
#ifdef EMU_RACE
constexpr bool RACE = true;      // the kernels are compiled with -fsanitize=thread, and race.cpp serves its hooks
#else
constexpr bool RACE = false;
#endif
constexpr uint32_t GRAIN = 2;    // bytes that a cell stands for; a bf16 is the smallest element of shared memory

// clock[w]: the last epoch of warp w that is ordered before now.
struct VectorClock {
  uint32_t clock[32];
  void join(const VectorClock &other) {
    for (int i = 0; i < 32; i++)
      if (other.clock[i] > clock[i]) clock[i] = other.clock[i];
  }
};
struct WarpClock {
  VectorClock seen;
  uint32_t sync;                 // counts the warp's __syncwarp
  // Publishes what the warp has done so far: later accesses belong to a new epoch.
  void advance(uint32_t warp) { seen.clock[warp]++; }
};

enum class State : uint16_t { None, Done, InFlight };   // InFlight: an asynchronous copy that is not waited for
struct Access {
  uint32_t epoch, sync;          // the warp's clock and __syncwarp count at that time
  uint16_t thread;
  State state;
  uint32_t proxy_fences;         // the writer's
};
struct Cell {
  Access write, read, read_too;  // two readers, since one may hide an unordered other
};

// The same for device memory. One reader is kept, and whether threads of other blocks have read too.
struct DeviceAccess {
  uint32_t launch;               // 0: never
  uint32_t block : 31, several : 1;
  uint32_t epoch;
  uint32_t sync : 22, thread : 10;
};
struct DeviceCell {
  DeviceAccess write, read;
};

struct Fiber;
// An access of a thread to shared memory: an error if it races, reads what nobody wrote, or lies outside every array.
void shared_access(uint32_t offset, uint32_t bytes, bool write, State state, const Fiber *f);
// The asynchronous engine has filled these bytes; whoever waits for its mbarrier may read them.
void async_write_done(uint32_t offset, uint32_t bytes);
// An access to device memory: an error if it races with another block of the launch, or with a thread of this one.
void device_access(const void *p, uint32_t bytes, bool write);
void forget_last_buffer();      // at the start of a launch: buffers may have been freed since
}  // namespace emu
