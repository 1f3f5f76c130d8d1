// The race checker. Kernels of the race build are compiled with -fsanitize=thread; this file serves the hooks that the
// compiler plants at every access (libtsan is never linked) and keeps happens-before relations between warps, and within a
// warp by __syncwarp.
#include "race.h"
#include "block.h"

namespace emu {
// ---------------------------------------------------------------- shared memory
// Whether an earlier access is ordered before what f does now.
static bool ordered(const Block *b, const Access &earlier, const Fiber *f) {
  const uint32_t then = earlier.thread >> 5, now = f->thread >> 5;
  const WarpClock &clock = b->warp_of[now].clock;
  if (then != now) return clock.seen.clock[then] >= earlier.epoch;
  return earlier.thread == f->thread || earlier.epoch < clock.seen.clock[now] || earlier.sync < clock.sync;
}

static void check_read(const Block *b, Cell &cell, uint32_t at, const Access &me, const Fiber *f) {
  if (cell.write.state == State::None) fail("read of shared+%u, which nobody wrote", at);
  if (cell.write.state == State::InFlight) fail("read of shared+%u while the async copy of thread %u is in flight", at, cell.write.thread);
  if (!ordered(b, cell.write, f)) fail("race: reads shared+%u, written by thread %u with no barrier between", at, cell.write.thread);
  const bool replace = cell.read.state == State::None || cell.read.thread == f->thread || ordered(b, cell.read, f);
  (replace ? cell.read : cell.read_too) = me;
}

static void check_write(const Block *b, Cell &cell, uint32_t at, const Access &me, const Fiber *f) {
  const Access &write = cell.write;
  if (write.state == State::Done && !ordered(b, write, f))
    fail("race: writes shared+%u, also written by thread %u with no barrier between", at, write.thread);
  if (write.state == State::InFlight && write.thread != f->thread)
    fail("race: writes shared+%u while the async copy of thread %u is in flight", at, write.thread);
  for (const Access *read : {&cell.read, &cell.read_too})
    if (read->state != State::None && !ordered(b, *read, f))
      fail("race: overwrites shared+%u, read by thread %u with no barrier between", at, read->thread);
  cell.write = me;
  cell.read.state = cell.read_too.state = State::None;
}

void shared_access(uint32_t offset, uint32_t bytes, bool write, State state, const Fiber *f) {
  const Block *b = f->block;
  bool inside = offset + bytes <= b->dynamic;
  for (const StaticArray &a : b->arrays) inside |= offset >= a.offset && offset + bytes <= a.offset + a.size;
  if (!inside) fail("access to %u bytes at shared+%u, outside every shared array", bytes, offset);
  const uint32_t w = f->thread >> 5;
  const WarpClock &clock = b->warp_of[w].clock;
  const Access me{clock.seen.clock[w], clock.sync, (uint16_t)f->thread, state, f->proxy_fences};
  for (uint32_t i = offset / GRAIN; i <= (offset + bytes - 1) / GRAIN; i++)
    (write ? check_write : check_read)(b, b->shadow[i], i * GRAIN, me, f);
}

void async_write_done(uint32_t offset, uint32_t bytes) {
  Cell *shadow = block()->shadow;
  for (uint32_t i = offset / GRAIN; i < (offset + bytes) / GRAIN; i++)
    shadow[i].write = {0, 0, 0, State::Done, ~0u};      // epoch 0 is ordered before everything, whoever wrote
}

// ---------------------------------------------------------------- device memory
// Per two bytes of a buffer, who wrote and who read last: launch << 32 | linear block index + 1, or SEVERAL blocks.
// Between blocks of one launch nothing is ordered.
constexpr uint64_t SEVERAL = 0xffffffff;
static __thread Buffer last_buffer;

void device_access(const void *p, uint32_t bytes, bool write) {
  const uintptr_t address = (uintptr_t)p;
  if (address < last_buffer.start || address >= last_buffer.end) {
    Buffer found;
    if (!find_buffer(address, found)) return;
    last_buffer = found;
  }
  const Block *b = block();
  const BlockView &v = b->view;
  const uint64_t launch = b->launch << 32;
  const uint64_t me = launch | (1 + v.index.x + v.grid.x * (v.index.y + (uint64_t)v.grid.y * v.index.z));
  auto another = [&](uint64_t who) { return (who & ~SEVERAL) == launch && who != me; };
  const uintptr_t first = (address - last_buffer.start) / GRAIN, last = (address + bytes - 1 - last_buffer.start) / GRAIN;
  for (uintptr_t i = first; i <= last; i++) {
    uint64_t *writer = &last_buffer.writer[i], *reader = &last_buffer.reader[i];
    const uint64_t wrote = __atomic_load_n(writer, __ATOMIC_RELAXED), read = __atomic_load_n(reader, __ATOMIC_RELAXED);
    const size_t at = i * GRAIN;
    if (another(wrote))
      fail("race: %s byte %zu of a device buffer, which block %u writes in the same launch", write ? "writes" : "reads", at, (uint32_t)wrote - 1);
    if (write && another(read)) fail("race: writes byte %zu of a device buffer, which another block reads in the same launch", at);
    if (write) __atomic_store_n(writer, me, __ATOMIC_RELAXED);
    else __atomic_store_n(reader, another(read) ? launch | SEVERAL : me, __ATOMIC_RELAXED);
  }
}
void forget_last_buffer() { last_buffer = {}; }
}  // namespace emu

// ---------------------------------------------------------------- the hooks
#ifdef EMU_RACE
using namespace emu;
static void access(const void *p, size_t bytes, bool write, uint32_t align) {
  const Fiber *f = current;
  if (!f || !bytes) return;
  const uintptr_t address = (uintptr_t)p, shared = address - (uintptr_t)f->block->arena;
  if (address - (uintptr_t)f->stack < STACK) return;
  if (address % align) fail("misaligned access to %zu bytes at %p", bytes, p);
  if (shared < ARENA) shared_access((uint32_t)shared, (uint32_t)bytes, write, State::Done, f);
  else device_access(p, (uint32_t)bytes, write);
}
extern "C" {
#define HOOKS(n, align)                                            \
  void __tsan_read##n(void *p) { access(p, n, false, align); }     \
  void __tsan_write##n(void *p) { access(p, n, true, align); }
HOOKS(1, 1)
HOOKS(2, 2)
HOOKS(4, 4)
HOOKS(8, 8)
HOOKS(16, 8)      // the compiler calls it for what is aligned to 8 bytes
#define UNALIGNED_HOOKS(n)                                                \
  void __tsan_unaligned_read##n(void *p) { access(p, n, false, 1); }      \
  void __tsan_unaligned_write##n(void *p) { access(p, n, true, 1); }
UNALIGNED_HOOKS(2)
UNALIGNED_HOOKS(4)
UNALIGNED_HOOKS(8)
UNALIGNED_HOOKS(16)
void __tsan_read_range(void *p, size_t n) { access(p, n, false, 1); }
void __tsan_write_range(void *p, size_t n) { access(p, n, true, 1); }
void *__tsan_memcpy(void *to, const void *from, size_t n) {
  access(from, n, false, 1);
  access(to, n, true, 1);
  return memcpy(to, from, n);
}
void *__tsan_memset(void *to, int value, size_t n) {
  access(to, n, true, 1);
  return memset(to, value, n);
}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}
#endif
