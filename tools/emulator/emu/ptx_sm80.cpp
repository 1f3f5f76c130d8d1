// The host halves of gpu_ptx.cuh for sm_80: cp.async, ldmatrix, mma.sync, with the fragment layouts of the PTX ISA.
#include "gpu_ptx.cuh"
#include "block.h"
using namespace emu;

uint32_t smem_u32(const void *p) { return shared_address(p); }

void bar_sync(uint32_t id, uint32_t threads) { barrier_sync(id, threads, nullptr, 0); }
void bar_arrive(uint32_t id, uint32_t threads) { barrier_arrive(id, threads); }

// ---------------------------------------------------------------- cp.async
static void perform(const AsyncCopy &copy) {
  char *target = shared_pointer(copy.target, copy.size, copy.size, "cp.async");
  memcpy(target, copy.source, copy.bytes);
  memset(target + copy.bytes, 0, copy.size - copy.bytes);
}

static void cp_async(uint32_t target, const void *source, uint32_t bytes, uint32_t size) {
  Block *b = block();
  if (bytes > size) fail("cp.async: %u bytes of %u", bytes, size);
  if ((uintptr_t)source % size) fail("cp.async: global address %p is not %u-byte aligned", source, size);
  shared_pointer(target, size, size, "cp.async");
  const AsyncCopy copy{target, bytes, size, source, b->late()};
  if (RACE) {
    if (bytes) device_access(source, bytes, false);
    shared_access(target, size, true, State::InFlight, current);
  }
  if (!copy.late) perform(copy);
  b->copies[current->thread].open.push_back(copy);
}
void cp_async_16(uint32_t target, const void *source, uint32_t bytes) { cp_async(target, source, bytes, 16); }

void cp_async_commit() {
  AsyncCopies &copies = block()->copies[current->thread];
  copies.groups.push_back(std::move(copies.open));
  copies.open.clear();
}

void emu_cp_async_wait(int n) {
  auto &groups = block()->copies[current->thread].groups;
  for (; (int)groups.size() > n; groups.pop_front()) {
    for (const AsyncCopy &copy : groups.front()) {
      if (copy.late) perform(copy);
      if (RACE) shared_access(copy.target, copy.size, true, State::Done, current);
    }
  }
}

// ---------------------------------------------------------------- ldmatrix
struct LdmatrixArgs {
  uint32_t address;
  uint32_t *r;
};
template <bool TRANSPOSED> static void ldmatrix(void *const *args, uint32_t) {
  uint16_t matrix[4][8][8];
  const Fiber *first = current - lane_index();
  for (int lane = 0; lane < 32; lane++) {
    const uint32_t address = ((LdmatrixArgs *)args[lane])->address;
    memcpy(matrix[lane / 8][lane % 8], shared_pointer(address, 16, 16, "ldmatrix"), 16);
    if (RACE) shared_access(address, 16, false, State::Done, first + lane);
  }
  for (int lane = 0; lane < 32; lane++)
    for (int j = 0; j < 4; j++) {
      const int row = lane / 4, column = lane % 4 * 2;
      const uint32_t low = TRANSPOSED ? matrix[j][column][row] : matrix[j][row][column];
      const uint32_t high = TRANSPOSED ? matrix[j][column + 1][row] : matrix[j][row][column + 1];
      ((LdmatrixArgs *)args[lane])->r[j] = low | high << 16;
    }
}
void ldmatrix_x4(uint32_t (&r)[4], uint32_t address) {
  LdmatrixArgs args{address, r};
  warp_collective(0xffffffffu, ldmatrix<false>, &args, "ldmatrix");
}
void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t address) {
  LdmatrixArgs args{address, r};
  warp_collective(0xffffffffu, ldmatrix<true>, &args, "ldmatrix.trans");
}

// ---------------------------------------------------------------- mma.sync m16n8k16: sums in f32, k in order
struct MmaArgs {
  float *d;
  const uint32_t *a;
  uint32_t b[2];
};
static float low(uint32_t pair) { return from_bf16((uint16_t)pair); }
static float high(uint32_t pair) { return from_bf16((uint16_t)(pair >> 16)); }
static void mma(void *const *args, uint32_t) {
  float a[16][16], b[16][8], d[16][8];
  for (int lane = 0; lane < 32; lane++) {
    const MmaArgs &x = *(const MmaArgs *)args[lane];
    const int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 4; i++) {
      const int row = group + i % 2 * 8, k = pair + i / 2 * 8;
      a[row][k] = low(x.a[i]), a[row][k + 1] = high(x.a[i]);
    }
    for (int i = 0; i < 2; i++) {
      b[pair + i * 8][group] = low(x.b[i]), b[pair + i * 8 + 1][group] = high(x.b[i]);
      d[group + i * 8][pair] = x.d[i * 2], d[group + i * 8][pair + 1] = x.d[i * 2 + 1];
    }
  }
  for (int m = 0; m < 16; m++)
    for (int k = 0; k < 16; k++)
      for (int n = 0; n < 8; n++) d[m][n] += a[m][k] * b[k][n];
  for (int lane = 0; lane < 32; lane++) {
    float *out = ((MmaArgs *)args[lane])->d;
    const int group = lane / 4, pair = lane % 4 * 2;
    for (int i = 0; i < 2; i++) out[i * 2] = d[group + i * 8][pair], out[i * 2 + 1] = d[group + i * 8][pair + 1];
  }
}
void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaArgs args{d, a, {b0, b1}};
  warp_collective(0xffffffffu, mma, &args, "mma.sync");
}
