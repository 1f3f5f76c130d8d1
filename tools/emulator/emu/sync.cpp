// Barriers of a block, and operations of a warp.
#include <atomic>
#include "block.h"

namespace emu {
void memory_fence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

// ---------------------------------------------------------------- barriers
void release_barrier(Block *b, Barrier &barrier) {
  for (uint32_t w = 0; w < b->warps; w++) {
    if (barrier.waiting[w]) make_ready(b, w, barrier.waiting[w]);
    if (RACE && barrier.warps >> w & 1) {
      WarpClock &clock = b->warp_of[w].clock;
      clock.seen.join(barrier.clock);
      clock.advance(w);
    }
  }
  barrier = Barrier{};
}

void barrier_sync(uint32_t id, uint32_t threads, const char *file, int line) {
  Block *b = block();
  const uint32_t w = warp_index();
  if (id >= BARRIERS) fail("barrier %u: there are %u", id, BARRIERS);
  Barrier &barrier = b->barriers[id];
  if (barrier.arrived && barrier.file && (barrier.line != line || barrier.file != file) && id == 0)
    fail("divergent __syncthreads: line %d here, line %d in another thread", line, barrier.line);
  barrier.file = file;
  barrier.line = line;
  barrier.arrived++;
  if (RACE) barrier.clock.join(b->warp_of[w].clock.seen);
  barrier.warps |= 1u << w;
  if (threads) barrier.expected = threads;
  if (barrier.arrived == (barrier.expected ? barrier.expected : b->alive)) {
    release_barrier(b, barrier);
    if (b->config->policy == RANDOM) yield();
  } else {
    barrier.waiting[w] |= 1u << lane_index();
    block_self();
  }
}

void barrier_arrive(uint32_t id, uint32_t threads) {
  Block *b = block();
  if (id >= BARRIERS) fail("barrier %u: there are %u", id, BARRIERS);
  Barrier &barrier = b->barriers[id];
  barrier.arrived++;
  barrier.expected = threads;
  if (RACE) {
    WarpClock &clock = warp().clock;
    barrier.clock.join(clock.seen);
    clock.advance(warp_index());
  }
  if (barrier.arrived == threads) release_barrier(b, barrier);
}

// ---------------------------------------------------------------- warps
void warp_collective(uint32_t mask, Collective f, void *args, const char *what) {
  Warp &w = warp();
  const uint32_t lane = lane_index();
  if (!(mask >> lane & 1)) fail("%s: lane %u is not in its own mask %08x", what, lane, mask);
  if (mask & ~w.alive) fail("%s: mask %08x names lanes that have exited or are not in the block", what, mask);
  w.args[lane] = args;
  w.collective[lane] = f;
  w.mask[lane] = mask;
  w.what[lane] = what;
  w.arrived |= 1u << lane;
  if ((w.arrived & mask) != mask) return block_self();
  EMU_LANES(i, mask) {
    if (w.collective[i] != f || w.mask[i] != mask)
      fail("warp divergence: lane %u in %s, mask %08x; lane %u in %s, mask %08x", lane, what, mask, i, w.what[i], w.mask[i]);
  }
  w.arrived &= ~mask;
  f(w.args, mask);
  make_ready(block(), warp_index(), mask);
  if (block()->config->policy == RANDOM) yield();
}

void sync_warp(uint32_t mask) {
  const Collective count = [](void *const *, uint32_t) { warp().clock.sync++; };
  warp_collective(mask, count, nullptr, "__syncwarp");
}

// shfl.sync of the PTX ISA; a source outside the segment gives a lane its own value.
struct ShuffleArgs {
  uint64_t value, result;
  int arg, width;
  Shuffle kind;
};
static void shuffle_lanes(void *const *args, uint32_t mask) {
  EMU_LANES(lane, mask) {
    ShuffleArgs &s = *(ShuffleArgs *)args[lane];
    const int own = (int)lane, first = own & ~(s.width - 1), last = first + s.width - 1;
    int source = own;
    bool inside = true;
    switch (s.kind) {
      case Shuffle::Index: source = first + (s.arg & (s.width - 1)); break;
      case Shuffle::Up: source = own - s.arg, inside = source >= first; break;
      case Shuffle::Down: source = own + s.arg, inside = source <= last; break;
      case Shuffle::Xor: source = own ^ s.arg, inside = source <= last; break;
    }
    if (!inside) source = own;
    if (!(mask >> source & 1)) fail("shuffle: lane %d reads lane %d, which is not in mask %08x", own, source, mask);
    s.result = ((ShuffleArgs *)args[source])->value;
  }
}
uint64_t shuffle(uint32_t mask, uint64_t value, int arg, int width, Shuffle kind) {
  ShuffleArgs args{value, 0, arg, width, kind};
  warp_collective(mask, shuffle_lanes, &args, "__shfl_sync");
  return args.result;
}

struct BallotArgs {
  bool predicate;
  uint32_t result;
};
static void ballot_lanes(void *const *args, uint32_t mask) {
  uint32_t votes = 0;
  EMU_LANES(lane, mask) votes |= (uint32_t)((BallotArgs *)args[lane])->predicate << lane;
  EMU_LANES(lane, mask) ((BallotArgs *)args[lane])->result = votes;
}
uint32_t ballot(uint32_t mask, bool predicate) {
  BallotArgs args{predicate, 0};
  warp_collective(mask, ballot_lanes, &args, "__ballot_sync");
  return args.result;
}
}  // namespace emu
