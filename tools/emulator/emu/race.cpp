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
// Between blocks of one launch nothing is ordered; within a block what orders shared memory orders device memory.
static __thread Buffer last_buffer;

// What is wrong with touching a cell now that another access has touched, or nothing.
static const char *conflict(const Block *b, const DeviceAccess &other, const DeviceAccess &me, const Fiber *f) {
  if (other.launch != me.launch) return nullptr;
  if (other.block != me.block) return "in another block of the launch";
  const Access earlier{other.epoch, other.sync, (uint16_t)other.thread, State::Done, 0};
  return ordered(b, earlier, f) ? nullptr : "with no barrier between";
}

static void check_device(const Block *b, DeviceCell &cell, size_t at, const DeviceAccess &me, bool write, const Fiber *f) {
  const DeviceAccess &writer = cell.write, reader = cell.read;
  if (const char *why = conflict(b, writer, me, f))
    fail("race: %s byte %zu of a device buffer, written by thread %u of block %u %s", write ? "writes" : "reads", at, writer.thread,
         writer.block, why);
  const bool others = reader.launch == me.launch && (reader.several || reader.block != me.block);
  if (!write) {
    cell.read = me;
    cell.read.several = others;
    return;
  }
  const char *why = others ? "in another block of the launch" : conflict(b, reader, me, f);
  if (why) fail("race: writes byte %zu of a device buffer, read by thread %u of block %u %s", at, reader.thread, reader.block, why);
  cell.write = me;
}

void device_access(const void *p, uint32_t bytes, bool write) {
  const uintptr_t address = (uintptr_t)p;
  if (address < last_buffer.start || address >= last_buffer.end) {
    Buffer found;
    if (!find_buffer(address, found)) return;
    last_buffer = found;
  }
  const Fiber *f = current;
  const Block *b = f->block;
  const BlockView &v = b->view;
  const uint32_t w = f->thread >> 5;
  const uint64_t linear = v.index.x + v.grid.x * (v.index.y + (uint64_t)v.grid.y * v.index.z);
  const WarpClock &clock = b->warp_of[w].clock;
  const DeviceAccess me{(uint32_t)b->launch, (uint32_t)linear & 0x7fffffff, false, clock.seen.clock[w], clock.sync & 0x3fffff, f->thread & 1023};
  const uintptr_t first = (address - last_buffer.start) / GRAIN, last = (address + bytes - 1 - last_buffer.start) / GRAIN;
  for (uintptr_t i = first; i <= last; i++) check_device(b, last_buffer.shadow[i], i * GRAIN, me, write, f);
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
