// Shared memory: an arena per block, filled with NaN before it starts. Addresses are offsets into it, so swizzles and
// descriptors mean what they mean on the device. Dynamic memory starts at 0; static arrays follow, fenced by red zones.
#include <cstdio>
#include "block.h"
#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace emu {
constexpr char POISON = (char)0xff;      // NaN in f32, f16 and bf16

static uint32_t round_up(uint32_t n, uint32_t align) { return (n + align - 1) & ~(align - 1); }

void reset_shared(Block *b, uint32_t dynamic) {
  const uint32_t dynamic_end = dynamic ? round_up(dynamic, 1024) + RED_ZONE : 0;
  uint32_t dirty = b->top ? b->top : ARENA;      // what the previous block used
  if (dirty < dynamic_end) dirty = dynamic_end;
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(b->arena, ARENA);
  dirty = ARENA;
#endif
  memset(b->arena, POISON, dirty);
  if (RACE) memset((void *)b->shadow, 0, sizeof(Cell) * (dirty / GRAIN));
#ifdef EMU_ASAN
  __asan_poison_memory_region(b->arena + dynamic, ARENA - dynamic);
#endif
  b->dynamic = dynamic;
  b->top = dynamic_end;
  b->arrays.clear();
}

void check_red_zones(Block *b) {
#ifndef EMU_ASAN      // which reports the access itself
  auto check = [&](uint32_t from, uint32_t to) {
    for (uint32_t i = from; i < to && !b->failed; i++) {
      if (b->arena[i] == POISON) continue;
      b->failed = true;
      const uint3 block = b->view.index;
      snprintf(b->error, sizeof b->error, "%s: block (%u,%u,%u): write past the end of a shared array, at shared+%u", b->kernel->name,
               block.x, block.y, block.z, i);
    }
  };
  if (b->dynamic) check(b->dynamic, round_up(b->dynamic, 1024) + RED_ZONE);
  for (const StaticArray &a : b->arrays) check(a.offset + a.size, a.offset + a.size + RED_ZONE);
#else
  (void)b;
#endif
}

void *static_shared(const void *tag, size_t bytes, size_t align) {
  Block *b = block();
  for (const StaticArray &a : b->arrays)
    if (a.tag == tag) return b->arena + a.offset;
  const uint32_t offset = round_up(b->top, (uint32_t)align);
  if (offset + bytes + RED_ZONE > ARENA) fail("shared memory is exhausted: %zu bytes more than the %u in use", bytes, b->top);
  b->top = offset + (uint32_t)bytes + RED_ZONE;
  b->arrays.push_back({tag, offset, (uint32_t)bytes});
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(b->arena + offset, bytes);
#endif
  return b->arena + offset;
}

void *dynamic_shared() { return block()->arena; }

uint32_t shared_address(const void *p) {
  const uintptr_t offset = (uintptr_t)p - (uintptr_t)block()->arena;
  if (offset >= ARENA) fail("address %p is not in shared memory", p);
  return (uint32_t)offset;
}

char *shared_pointer(uint32_t address, uint32_t bytes, uint32_t align, const char *what) {
  if ((uint64_t)address + bytes > ARENA) fail("%s: shared address %u is out of range", what, address);
  if (address % align) fail("%s: shared address %u is not %u-byte aligned", what, address, align);
  char *p = block()->arena + address;
#ifdef EMU_ASAN
  if (void *bad = __asan_region_is_poisoned(p, bytes)) fail("%s: outside every shared array, at shared+%td", what, (char *)bad - block()->arena);
#endif
  return p;
}
}  // namespace emu
