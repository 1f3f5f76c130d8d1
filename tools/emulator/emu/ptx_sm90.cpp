// The host halves of gpu_ptx.cuh for sm_90a: mbarrier, TMA, wgmma.
#include <cmath>
#include "gpu_ptx.cuh"
#include "block.h"
using namespace emu;

// ---------------------------------------------------------------- mbarrier
// A 64-bit word of shared memory: phase (bit 63), expected arrivals (62..43), pending arrivals (42..23), and the bytes that
// copies still have to bring (22..0, biased by 2^22). Untouched memory is all ones, which no live barrier is.
struct MBarrier {
  uint32_t phase, expected, pending;
  int32_t bytes;
};
static MBarrier load_mbarrier(uint32_t address) {
  uint64_t v;
  memcpy(&v, shared_pointer(address, 8, 8, "mbarrier"), 8);
  if (v == ~0ull) fail("mbarrier at shared+%u: used before mbarrier.init", address);
  return {(uint32_t)(v >> 63), (uint32_t)(v >> 43) & 0xfffff, (uint32_t)(v >> 23) & 0xfffff, (int32_t)(v & 0x7fffff) - (1 << 22)};
}
static void store_mbarrier(uint32_t address, const MBarrier &m) {
  const uint64_t v = (uint64_t)m.phase << 63 | (uint64_t)m.expected << 43 | (uint64_t)m.pending << 23 | (uint64_t)(m.bytes + (1 << 22));
  memcpy(shared_pointer(address, 8, 8, "mbarrier"), &v, 8);
}
static VectorClock &clock_of(uint32_t address) {
  Block *b = block();
  for (BarrierClock &c : b->mbarrier_clocks)
    if (c.address == address) return c.clock;
  b->mbarrier_clocks.push_back({address, {}});
  return b->mbarrier_clocks.back().clock;
}
// Ends the phase if nothing is missing, and lets every waiter look again.
static void update_mbarrier(uint32_t address, MBarrier m) {
  const bool complete = m.pending == 0 && m.bytes == 0;
  if (complete) m.phase ^= 1, m.pending = m.expected;
  store_mbarrier(address, m);
  if (!complete) return;
  Block *b = block();
  for (uint32_t w = 0; w < b->warps; w++) {
    if (b->mbarrier_waiting[w]) make_ready(b, w, b->mbarrier_waiting[w]);
    b->mbarrier_waiting[w] = 0;
  }
}
void mbar_init(uint32_t address, uint32_t count) { store_mbarrier(address, {0, count, count, 0}); }
void mbar_arrive_tx(uint32_t address, uint32_t bytes) {
  MBarrier m = load_mbarrier(address);
  if (m.pending == 0) fail("mbarrier at shared+%u: more arrivals than its count, %u", address, m.expected);
  m.pending--;
  m.bytes += (int32_t)bytes;
  if (RACE) {
    clock_of(address).join(warp().clock.seen);
    warp().clock.advance(warp_index());
  }
  update_mbarrier(address, m);
}
void mbar_arrive(uint32_t address) { mbar_arrive_tx(address, 0); }
void mbar_wait(uint32_t address, uint32_t parity) {
  while (load_mbarrier(address).phase == (parity & 1)) {
    block()->mbarrier_waiting[warp_index()] |= 1u << lane_index();
    block_self();
  }
  if (RACE) warp().clock.seen.join(clock_of(address));
}

// ---------------------------------------------------------------- TMA
constexpr uint32_t MAP_MAGIC = 0x70616d74;
struct emu_tensor {      // as in src/library.rs
  uint64_t base, extent[4], stride[4];
  uint32_t box[4], step[4], element, rank, swizzle;
};
struct EmulatedMap {      // what a TensorMap holds on the host
  emu_tensor tensor;
  uint32_t magic;
};
static_assert(sizeof(EmulatedMap) <= sizeof(TensorMap), "the emulated tensor map fits the device's");

EMU_API void emu_tensor_map(void *map, const emu_tensor *tensor) {
  const EmulatedMap m{*tensor, MAP_MAGIC};
  memset(map, 0, sizeof(TensorMap));
  memcpy(map, &m, sizeof m);
}

// The 16-byte chunks of each row of `width` bytes are permuted by the row's number.
static uint32_t swizzled(uint32_t address, uint32_t width) { return width ? address ^ (address >> 3 & (width - 16)) : address; }

// Copies a box whose first element is at `from`, with zeros outside the tensor; innermost dimension first, as the box lies.
static void copy_box(uint32_t target, const emu_tensor &t, const int (&from)[4]) {
  uint32_t i[4];
  for (i[3] = 0; i[3] < t.box[3]; i[3]++)
    for (i[2] = 0; i[2] < t.box[2]; i[2]++)
      for (i[1] = 0; i[1] < t.box[1]; i[1]++)
        for (i[0] = 0; i[0] < t.box[0]; i[0]++, target += t.element) {
          uint64_t address = t.base;
          bool inside = true;
          for (int d = 0; d < 4; d++) {
            const int64_t at = from[d] + (int64_t)i[d] * t.step[d];
            inside &= at >= 0 && (uint64_t)at < t.extent[d];
            address += (uint64_t)at * t.stride[d];
          }
          char value[8] = {0};
          if (inside) memcpy(value, (const char *)address, t.element);
          memcpy(block()->arena + swizzled(target, t.swizzle), value, t.element);
        }
}

static void tma_load(uint32_t target, const TensorMap *map, uint32_t mbarrier, uint32_t rank, const int (&from)[4]) {
  EmulatedMap m;
  memcpy(&m, map, sizeof m);
  const emu_tensor &t = m.tensor;
  if (m.magic != MAP_MAGIC) fail("TMA: not an emulated tensor map");
  if (t.rank != rank) fail("TMA: a tensor of %u dimensions in a load of %u", t.rank, rank);
  const uint32_t bytes = t.box[0] * t.box[1] * t.box[2] * t.box[3] * t.element;
  shared_pointer(target, bytes, t.swizzle == 128 ? 1024 : 128, "TMA");
  if (RACE) shared_access(target, bytes, true, State::InFlight, current);
  const int x = from[0], y = from[1], z = from[2], w = from[3];
  const auto copy = [=] {
    copy_box(target, m.tensor, {x, y, z, w});
    if (RACE) async_write_done(target, bytes);
    MBarrier barrier = load_mbarrier(mbarrier);
    barrier.bytes -= (int32_t)bytes;
    update_mbarrier(mbarrier, barrier);
  };
  if (block()->late()) block()->tasks.push_back(copy);
  else copy();
}
void tma_load_2d(uint32_t target, const TensorMap *map, uint32_t mbarrier, int x, int y) {
  tma_load(target, map, mbarrier, 2, {x, y, 0, 0});
}
void tma_load_4d(uint32_t target, const TensorMap *map, uint32_t mbarrier, int x, int y, int z, int w) {
  tma_load(target, map, mbarrier, 4, {x, y, z, w});
}

// ---------------------------------------------------------------- wgmma m64nNk16, both operands in shared memory
// Canonical layouts, of which the address is then swizzled over rows of W bytes. K-major: row r, element k at
// (r / 8) SBO + (r % 8) W + 2 k. MN-major, W / 2 elements wide: 2 (r % (W / 2)) + (r / (W / 2)) LBO + (k % 8) W + (k / 8) SBO.
static float operand(uint64_t descriptor, uint32_t r, uint32_t k, bool mn_major) {
  static constexpr uint32_t WIDTH[4] = {0, 128, 64, 32};
  const uint32_t start = (uint32_t)(descriptor & 0x3fff) << 4, lbo = (uint32_t)(descriptor >> 16 & 0x3fff) << 4;
  const uint32_t sbo = (uint32_t)(descriptor >> 32 & 0x3fff) << 4, width = WIDTH[descriptor >> 62];
  if (!width) fail("wgmma: operands without swizzle are not emulated");
  if (descriptor >> 49 & 7) fail("wgmma: a base offset is not emulated");
  const uint32_t offset = mn_major ? r % (width / 2) * 2 + r / (width / 2) * lbo + k % 8 * width + k / 8 * sbo
                                   : r / 8 * sbo + r % 8 * width + k * 2;
  const uint32_t address = swizzled(start + offset, width);
  const char *p = shared_pointer(address, 2, 2, "wgmma");
  if (RACE) {
    const Access &write = block()->shadow[address / GRAIN].write;
    if (write.state == State::Done && write.proxy_fences == block()->fibers[write.thread].proxy_fences)
      fail("wgmma reads shared+%u, stored by thread %u without fence.proxy.async", address, write.thread);
    shared_access(address, 2, false, State::Done, current);
  }
  uint16_t bits;
  memcpy(&bits, p, 2);
  return from_bf16(bits);
}

// Each warp reads its own 16 rows, as the hardware does: the four warps of a group are no memory barrier for one another.
static void load_operands(Wgmma &w) {
  const uint32_t first = warp_index() % 4 * 16, n = (uint32_t)w.n;
  w.a_tile.resize(16 * 16);
  w.b_tile.resize(n * 16);
  for (uint32_t r = 0; r < 16; r++)
    for (uint32_t k = 0; k < 16; k++) w.a_tile[r * 16 + k] = operand(w.a, first + r, k, w.a_mn_major);
  for (uint32_t r = 0; r < n; r++)
    for (uint32_t k = 0; k < 16; k++) w.b_tile[k * n + r] = operand(w.b, r, k, w.b_mn_major);
}

static void execute(Wgmma &w) {
  if (w.a_tile.empty()) load_operands(w);
  const size_t n = (size_t)w.n, registers = n / 2;
  std::vector<float> d(16 * n);
  auto at = [&](size_t lane, size_t i) -> float & { return d[(lane / 4 + i / 2 % 2 * 8) * n + i / 4 * 8 + lane % 4 * 2 + i % 2]; };
  for (size_t lane = 0; lane < 32; lane++)
    for (size_t i = 0; i < registers; i++)
      at(lane, i) = !w.scale_d ? 0.f : w.chained ? w.d[lane][i] : w.d_before[lane * registers + i];
  for (size_t row = 0; row < 16; row++)
    for (size_t k = 0; k < 16; k++)
      for (size_t column = 0; column < n; column++) d[row * n + column] += w.a_tile[row * 16 + k] * w.b_tile[k * n + column];
  for (size_t lane = 0; lane < 32; lane++)
    for (size_t i = 0; i < registers; i++) w.d[lane][i] = at(lane, i);
}

struct WgmmaArgs {
  float *d;
  int n;
  uint64_t a, b;
  int scale_d;
  bool a_mn_major, b_mn_major;
};
static void issue(void *const *args, uint32_t) {
  Block *b = block();
  WgmmaQueue &queue = b->wgmmas[warp_index()];
  const WgmmaArgs &x = *(const WgmmaArgs *)args[0];
  if (current->thread / 128 * 128 + 128 > b->threads) fail("wgmma outside a full warpgroup");
  Wgmma w{x.a, x.b, x.n, x.scale_d, x.a_mn_major, x.b_mn_major, false, {}, {}, {}, {}};
  for (int lane = 0; lane < 32; lane++) {
    const WgmmaArgs &y = *(const WgmmaArgs *)args[lane];
    if (y.a != x.a || y.b != x.b || y.scale_d != x.scale_d) fail("wgmma: descriptors differ between threads");
    w.d[lane] = y.d;
  }
  for (const Wgmma &other : queue.in_flight) w.chained |= other.d[0] == w.d[0];
  if (!w.chained) {      // the accumulator is undefined until wgmma.wait_group
    for (float *d : w.d) {
      w.d_before.insert(w.d_before.end(), d, d + w.n / 2);
      std::fill(d, d + w.n / 2, NAN);
    }
  }
  if (!b->late()) load_operands(w);
  queue.in_flight.push_back(std::move(w));
  queue.issued++;
}
void emu_wgmma(float *d, int n, uint64_t a, uint64_t b, int scale_d, bool a_mn_major, bool b_mn_major) {
  WgmmaArgs args{d, n, a, b, scale_d, a_mn_major, b_mn_major};
  warp_collective(0xffffffffu, issue, &args, "wgmma");
}

void fence_proxy_async() { current->proxy_fences++; }

void wgmma_fence() {
  const Collective nothing = [](void *const *, uint32_t) {};
  warp_collective(0xffffffffu, nothing, nullptr, "wgmma.fence");
}

void wgmma_commit() {
  const Collective commit = [](void *const *, uint32_t) {
    WgmmaQueue &queue = block()->wgmmas[warp_index()];
    queue.commits.push_back(queue.issued);
  };
  warp_collective(0xffffffffu, commit, nullptr, "wgmma.commit_group");
}

static void wait_group(void *const *args, uint32_t) {
  WgmmaQueue &queue = block()->wgmmas[warp_index()];
  const size_t keep = (size_t) * (int *)args[0];
  if (queue.commits.size() <= keep) return;
  for (const uint64_t end = queue.commits[queue.commits.size() - 1 - keep]; queue.executed < end; queue.executed++) {
    execute(queue.in_flight.front());
    queue.in_flight.pop_front();
  }
}
void emu_wgmma_wait(int n) { warp_collective(0xffffffffu, wait_group, &n, "wgmma.wait_group"); }
