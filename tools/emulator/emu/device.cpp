// Device memory, and atomics on it.
#include <sys/mman.h>
#include <cstdlib>
#include <map>
#include <mutex>
#include "block.h"

namespace emu {
static std::mutex buffers_lock;
static std::map<uintptr_t, Buffer> buffers;      // by start

bool find_buffer(uintptr_t address, Buffer &found) {
  std::lock_guard<std::mutex> guard(buffers_lock);
  auto i = buffers.upper_bound(address);
  if (i == buffers.begin()) return false;
  found = (--i)->second;
  return address < found.end;
}

// A buffer of `bytes` lies at the end of its pages, between two guard pages.
static size_t mapped(size_t bytes) { return ((bytes + PAGE - 1) & ~(size_t)(PAGE - 1)) + 2 * PAGE; }
}  // namespace emu
using namespace emu;

// Filled with NaN. An access past the end, to 16 bytes, faults in any build. 0: out of memory.
EMU_API uint64_t emu_alloc(size_t bytes) {
  const size_t body = bytes ? (bytes + 15) & ~(size_t)15 : 16, size = mapped(body);
  if (body < bytes) return 0;
  char *map = (char *)mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return 0;
  mprotect(map, PAGE, PROT_NONE);
  mprotect(map + size - PAGE, PAGE, PROT_NONE);
  char *start = map + size - PAGE - body;
  memset(start, 0xff, body);
  // The shadow is never touched where the kernels do not touch the buffer, so it costs addresses only.
  DeviceCell *shadow = RACE ? (DeviceCell *)calloc(body / GRAIN, sizeof(DeviceCell)) : nullptr;
  const Buffer buffer{(uintptr_t)start, (uintptr_t)start + body, shadow};
  std::lock_guard<std::mutex> guard(buffers_lock);
  buffers[buffer.start] = buffer;
  return buffer.start;
}

// 0, or 1 if this is not the start of a buffer.
EMU_API int emu_free(uint64_t address) {
  std::lock_guard<std::mutex> guard(buffers_lock);
  auto i = buffers.find(address);
  if (i == buffers.end()) return 1;
  const Buffer buffer = i->second;
  buffers.erase(i);
  free(buffer.shadow);
  const size_t size = mapped(buffer.end - buffer.start);
  return munmap((void *)(buffer.end + PAGE - size), size) != 0;
}

// 1 if these bytes lie in one buffer.
EMU_API int emu_owns(uint64_t address, size_t bytes) {
  Buffer buffer;
  return find_buffer(address, buffer) && bytes <= buffer.end - address;
}

// ---------------------------------------------------------------- atomics
template <class T, class F> static T update(T *p, F next) {
  T old, value;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do value = next(old);
  while (!__atomic_compare_exchange(p, &old, &value, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
  return old;
}
#define ATOMIC(NAME, T, NEXT) \
  T NAME(T *p, T v) { return update(p, [v](T old) -> T { return NEXT; }); }
ATOMIC(atomicAdd, int, old + v)
ATOMIC(atomicAdd, unsigned, old + v)
ATOMIC(atomicAdd, unsigned long long, old + v)
ATOMIC(atomicAdd, float, old + v)
ATOMIC(atomicAdd, double, old + v)
ATOMIC(atomicMax, int, old > v ? old : v)
ATOMIC(atomicMin, int, old < v ? old : v)
ATOMIC(atomicMax, unsigned, old > v ? old : v)
ATOMIC(atomicMin, unsigned, old < v ? old : v)
ATOMIC(atomicExch, int, (void(old), v))
ATOMIC(atomicExch, unsigned, (void(old), v))
int atomicCAS(int *p, int expected, int v) {
  return update(p, [=](int old) { return old == expected ? v : old; });
}
unsigned atomicCAS(unsigned *p, unsigned expected, unsigned v) {
  return update(p, [=](unsigned old) { return old == expected ? v : old; });
}
