// Lets a host C++17 compiler take a CUDA kernel's source file. Included through gpu.cuh when the compiler is not nvcc.
#pragma once
#ifdef __CUDACC__
#error "this is the host half; include gpu.cuh"
#endif
#include <cstddef>
#include <type_traits>
#include <utility>
#include "cuda_math.h"
#include "cuda_types.h"

// ---------------------------------------------------------------- qualifiers
// `__shared__` is left undefined: SHARED and DYN_SHARED give memory that is poisoned, fenced and race-checked.
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
constexpr int warpSize = 32;

// ---------------------------------------------------------------- the runtime, as kernels see it
namespace emu {
struct Block;
struct BlockView {               // the first member of Block
  uint3 index;
  dim3 size, grid;
};
struct Fiber {                   // one CUDA thread
  uint3 index;                   // threadIdx
  uint32_t thread;               // its linear index
  uint32_t proxy_fences;         // fence.proxy.async executed so far
  Block *block;
  void *stack_pointer;           // where it is suspended
  char *stack;
  void *asan_fake_stack;
};
extern __thread Fiber *current __attribute__((tls_model("initial-exec")));
inline const BlockView &view() { return *reinterpret_cast<const BlockView *>(current->block); }

// Ends the launch with an error that starts with the kernel, block and thread.
[[noreturn]] void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

void barrier_sync(uint32_t id, uint32_t threads, const char *file, int line);   // threads 0: all that live
void barrier_arrive(uint32_t id, uint32_t threads);
void sync_warp(uint32_t mask);
enum class Shuffle { Index, Up, Down, Xor };
uint64_t shuffle(uint32_t mask, uint64_t value, int arg, int width, Shuffle kind);
uint32_t ballot(uint32_t mask, bool predicate);
void memory_fence();

void *static_shared(const void *tag, size_t bytes, size_t align);               // tag: the array's identity
void *dynamic_shared();

// A kernel and the sizes of its parameters. The constructor adds it to the list in which launches look names up.
struct Kernel {
  const char *name;
  void (*call)(void *const *args);
  uint32_t count;
  const uint32_t *sizes;
  const Kernel *next;
  Kernel(const char *name, void (*call)(void *const *), uint32_t count, const uint32_t *sizes);
};
template <auto F> struct Entry;
template <class... A, void (*F)(A...)> struct Entry<F> {
  static constexpr uint32_t count = sizeof...(A);
  static constexpr uint32_t sizes[count + 1] = {sizeof(A)..., 0};
  template <size_t... I> static void call(void *const *args, std::index_sequence<I...>) {
    F(*static_cast<std::remove_const_t<A> *>(args[I])...);
  }
  static void call(void *const *args) { call(args, std::make_index_sequence<count>{}); }
};
}  // namespace emu

#define threadIdx (::emu::current->index)
#define blockIdx (::emu::view().index)
#define blockDim (::emu::view().size)
#define gridDim (::emu::view().grid)

#define KERNEL_ENTRY(k) \
  static const ::emu::Kernel emu_kernel_##k(#k, &::emu::Entry<&k>::call, ::emu::Entry<&k>::count, ::emu::Entry<&k>::sizes);
#define SHARED(T, name, dims)                                                                       \
  typedef T name##_type dims;                                                                       \
  static char name##_tag;                                                                           \
  name##_type &name = *static_cast<name##_type *>(::emu::static_shared(&name##_tag, sizeof(name##_type), 128))
#define DYN_SHARED(T, name) T *const name = static_cast<T *>(::emu::dynamic_shared())

// ---------------------------------------------------------------- synchronisation and warp primitives
#define __syncthreads() ::emu::barrier_sync(0, 0, __FILE__, __LINE__)
inline void __syncwarp(unsigned mask = 0xffffffffu) { emu::sync_warp(mask); }
inline void __threadfence() { emu::memory_fence(); }
inline void __threadfence_block() { emu::memory_fence(); }
inline void __trap() { emu::fail("__trap()"); }

template <class T> inline T emu_shuffle(unsigned mask, T value, int arg, int width, emu::Shuffle kind) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = emu::shuffle(mask, bits, arg, width, kind);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}
template <class T> inline T __shfl_sync(unsigned mask, T v, int lane, int width = 32) {
  return emu_shuffle(mask, v, lane, width, emu::Shuffle::Index);
}
template <class T> inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  return emu_shuffle(mask, v, (int)delta, width, emu::Shuffle::Up);
}
template <class T> inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32) {
  return emu_shuffle(mask, v, (int)delta, width, emu::Shuffle::Down);
}
template <class T> inline T __shfl_xor_sync(unsigned mask, T v, int lanes, int width = 32) {
  return emu_shuffle(mask, v, lanes, width, emu::Shuffle::Xor);
}
inline unsigned __ballot_sync(unsigned mask, int p) { return emu::ballot(mask, p != 0); }
inline int __any_sync(unsigned mask, int p) { return emu::ballot(mask, p != 0) != 0; }
inline int __all_sync(unsigned mask, int p) { return emu::ballot(mask, p != 0) == mask; }

// ---------------------------------------------------------------- memory
// Out of line, so that the race checker never takes an atomic for an ordinary access.
int atomicAdd(int *p, int v);
unsigned atomicAdd(unsigned *p, unsigned v);
unsigned long long atomicAdd(unsigned long long *p, unsigned long long v);
float atomicAdd(float *p, float v);
double atomicAdd(double *p, double v);
int atomicMax(int *p, int v);
int atomicMin(int *p, int v);
unsigned atomicMax(unsigned *p, unsigned v);
unsigned atomicMin(unsigned *p, unsigned v);
int atomicCAS(int *p, int expected, int v);
unsigned atomicCAS(unsigned *p, unsigned expected, unsigned v);
int atomicExch(int *p, int v);
unsigned atomicExch(unsigned *p, unsigned v);

template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline T __ldca(const T *p) { return *p; }
template <class T> inline T __ldcg(const T *p) { return *p; }
template <class T> inline T __ldcs(const T *p) { return *p; }
template <class T> inline void __stcg(T *p, T v) { *p = v; }
template <class T> inline void __stcs(T *p, T v) { *p = v; }
