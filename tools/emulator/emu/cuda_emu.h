// cuda_emu.h -- lets a CUDA kernel source file be compiled by a host C++17 compiler and run on the CPU,
// one fiber per CUDA thread. Included (through gpu.cuh) only when the compiler is not nvcc.
#pragma once
#ifdef __CUDACC__
#error "cuda_emu.h is the host half; include gpu.cuh"
#endif
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

// ---------------------------------------------------------------- qualifiers
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __grid_constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __restrict__ __restrict
// Plain `__shared__ T x[N]` and `extern __shared__ T x[]` compile and run (per OS thread = per running block), but
// only SHARED()/DYN_SHARED() memory is poisoned, fenced and race-checked.
#define __shared__ thread_local

// ---------------------------------------------------------------- vector types
#define EMU_V1(N, T) struct N##1 { T x; };
#define EMU_V2(N, T, A) struct alignas(A) N##2 { T x, y; }; inline N##2 make_##N##2(T x, T y) { return {x, y}; }
#define EMU_V3(N, T) struct N##3 { T x, y, z; }; inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }
#define EMU_V4(N, T, A) struct alignas(A) N##4 { T x, y, z, w; }; inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define EMU_VEC(N, T) EMU_V1(N, T) EMU_V2(N, T, 2 * sizeof(T)) EMU_V3(N, T) EMU_V4(N, T, (sizeof(T) > 4 ? 16 : 4 * sizeof(T)))
EMU_VEC(char, signed char) EMU_VEC(uchar, unsigned char) EMU_VEC(short, short) EMU_VEC(ushort, unsigned short)
EMU_VEC(int, int) EMU_VEC(uint, unsigned) EMU_VEC(longlong, long long) EMU_VEC(ulonglong, unsigned long long)
EMU_VEC(float, float) EMU_VEC(double, double)
struct dim3 { unsigned x, y, z; constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {} };

// ---------------------------------------------------------------- runtime interface
namespace emu {
struct Block;
struct Fiber {
  uint3 tid;
  uint32_t lin;            // linear thread index
  uint32_t pf;             // fence.proxy.async executed so far
  Block *blk;
  void *sp;                // saved stack pointer
  void *fake;              // ASan fake stack
  char *stk; size_t stk_n; // stack bounds
};
struct BlockView { uint3 bid; dim3 bdim, gdim; };   // first member of Block
extern __thread Fiber *cur __attribute__((tls_model("initial-exec")));
inline BlockView &view() { return *reinterpret_cast<BlockView *>(cur->blk); }
inline uint32_t lane() { return cur->lin & 31; }

[[noreturn]] void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

// Warp-collective: the last lane of `mask` to arrive runs fn over every lane's args (pointers into fiber stacks).
using CollFn = void (*)(void *const *args, uint32_t mask);
void warp_collective(uint32_t mask, CollFn fn, void *args, const char *what);

void bar_sync(int id, uint32_t count, const char *file, int line);   // count 0: all live threads
void bar_arrive(int id, uint32_t count);
void syncwarp(uint32_t mask);
void yield();                                                        // let others run (polling loops)

void *static_shared(const void *tag, size_t bytes, size_t align);
void *dyn_shared();
uint32_t cvta(const void *p);                  // generic -> shared offset, checked
void *smem_ptr(uint32_t a, uint32_t bytes, uint32_t align, const char *what);

// shadow memory (no-ops unless the race checker is on)
void sh_read(const void *p, uint32_t n);
void sh_write(void *p, uint32_t n);
enum Shfl { IDX, UP, DOWN, XOR };
uint64_t shfl(uint32_t mask, uint64_t v, int arg, int width, Shfl k);
uint32_t ballot(uint32_t mask, bool p);

struct Kernel {          // one per KERNEL_ENTRY; the constructor puts it into the list that emu_launch looks names up in
  const char *name;
  void (*thunk)(void *const *params);
  uint32_t nparams;
  const uint32_t *sizes;
  const Kernel *next;
  Kernel(const char *name, void (*thunk)(void *const *), uint32_t nparams, const uint32_t *sizes);
};
template <auto F> struct Thunk;
template <class... A, void (*F)(A...)> struct Thunk<F> {
  static constexpr uint32_t sizes[sizeof...(A) + 1] = {sizeof(A)..., 0};
  template <size_t... I> static void go(void *const *p, std::integer_sequence<size_t, I...>) {
    F(*static_cast<std::remove_const_t<A> *>(p[I])...);
  }
  static void call(void *const *p) { go(p, std::make_integer_sequence<size_t, sizeof...(A)>{}); }
  static constexpr uint32_t n = sizeof...(A);
};
}  // namespace emu

#define threadIdx (::emu::cur->tid)
#define blockIdx (::emu::view().bid)
#define blockDim (::emu::view().bdim)
#define gridDim (::emu::view().gdim)
constexpr int warpSize = 32;

#define KERNEL_ENTRY(k) \
  static const ::emu::Kernel emu_kernel_##k(#k, &::emu::Thunk<&k>::call, ::emu::Thunk<&k>::n, ::emu::Thunk<&k>::sizes);
#define SHARED(T, name, dims)                                                                                  \
  typedef T name##_shty dims;                                                                                  \
  static char name##_shtag;                                                                          \
  name##_shty &name = *static_cast<name##_shty *>(::emu::static_shared(&name##_shtag, sizeof(name##_shty), 128))
#define DYN_SHARED(T, name) T *const name = static_cast<T *>(::emu::dyn_shared())

// ---------------------------------------------------------------- synchronisation and warp primitives
#define __syncthreads() ::emu::bar_sync(0, 0, __FILE__, __LINE__)
inline void __syncwarp(unsigned m = 0xffffffffu) { emu::syncwarp(m); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
template <class T> inline T emu_shfl(unsigned m, T v, int a, int w, emu::Shfl k) {
  static_assert(sizeof(T) <= 8 && std::is_trivially_copyable<T>::value, "shfl type");
  uint64_t u = 0; std::memcpy(&u, &v, sizeof(T)); u = emu::shfl(m, u, a, w, k); std::memcpy(&v, &u, sizeof(T)); return v;
}
template <class T> inline T __shfl_sync(unsigned m, T v, int s, int w = 32) { return emu_shfl(m, v, s, w, emu::IDX); }
template <class T> inline T __shfl_up_sync(unsigned m, T v, unsigned d, int w = 32) { return emu_shfl(m, v, (int)d, w, emu::UP); }
template <class T> inline T __shfl_down_sync(unsigned m, T v, unsigned d, int w = 32) { return emu_shfl(m, v, (int)d, w, emu::DOWN); }
template <class T> inline T __shfl_xor_sync(unsigned m, T v, int x, int w = 32) { return emu_shfl(m, v, x, w, emu::XOR); }
inline unsigned __ballot_sync(unsigned m, int p) { return emu::ballot(m, p != 0); }
inline int __any_sync(unsigned m, int p) { return emu::ballot(m, p != 0) != 0; }
inline int __all_sync(unsigned m, int p) { return emu::ballot(m, p != 0) == m; }

// ---------------------------------------------------------------- atomics (out of line: never seen by the sanitizer)
int atomicAdd(int *p, int v);
unsigned atomicAdd(unsigned *p, unsigned v);
unsigned long long atomicAdd(unsigned long long *p, unsigned long long v);
float atomicAdd(float *p, float v);
double atomicAdd(double *p, double v);
int atomicMax(int *p, int v);
int atomicMin(int *p, int v);
unsigned atomicCAS(unsigned *p, unsigned c, unsigned v);
unsigned atomicExch(unsigned *p, unsigned v);
template <class T> inline T __ldg(const T *p) { return *p; }
template <class T> inline T __ldcg(const T *p) { return *p; }
template <class T> inline T __ldcs(const T *p) { return *p; }
template <class T> inline void __stcs(T *p, T v) { *p = v; }

// ---------------------------------------------------------------- bits and maths
template <class D, class S> inline D emu_bits(S s) { static_assert(sizeof(D) == sizeof(S), ""); D d; std::memcpy(&d, &s, sizeof d); return d; }
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
inline unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline float rsqrtf(float x) { return (float)(1.0 / std::sqrt((double)x)); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { volatile float r = a * b; return r; }
inline float __fadd_rn(float a, float b) { volatile float r = a + b; return r; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float emu_expf(float x) { return expf(x); }
inline float emu_exp10f(float x) { return powf(10.f, x); }
#define __expf(x) emu_expf(x)     // macros: glibc's <math.h> already declares __expf and friends
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __exp10f(x) emu_exp10f(x)
inline float __saturatef(float x) { return x > 0.f ? (x < 1.f ? x : 1.f) : 0.f; }  // NaN -> 0, as on the device

// ---------------------------------------------------------------- 16-bit floats
namespace emu {
inline uint16_t f2bf(float f) {
  uint32_t u = emu_bits<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
inline float bf2f(uint16_t h) { return emu_bits<float>((uint32_t)h << 16); }
inline uint16_t f2h(float f) {
  uint32_t u = emu_bits<uint32_t>(f), s = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return 0x7fff;
  if (a >= 0x477ff000u) return (uint16_t)(s | 0x7c00u);                  // rounds to infinity
  if (a < 0x38800000u) {                                                  // subnormal: let the FPU round
    float r = emu_bits<float>(a) + 0.5f;
    return (uint16_t)(s | (emu_bits<uint32_t>(r) - 0x3f000000u));
  }
  a += 0xc8000fffu + ((a >> 13) & 1);
  return (uint16_t)(s | (a >> 13));
}
inline float h2f(uint16_t h) {
  uint32_t s = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023;
  if (e == 31) return emu_bits<float>(s | 0x7f800000u | (m << 13));
  if (e) return emu_bits<float>(s | ((e + 112) << 23) | (m << 13));
  float f = (float)m * 5.9604644775390625e-8f;
  return s ? -f : f;
}
}  // namespace emu
#define EMU_F16(H, H2, TO, FROM)                                                                               \
  struct alignas(2) H { uint16_t b; H() = default; H(float f) : b(TO(f)) {} operator float() const { return FROM(b); } }; \
  struct alignas(4) H2 { H x, y; };                                                                            \
  inline H operator+(H a, H b) { return H((float)a + (float)b); }                                              \
  inline H operator-(H a, H b) { return H((float)a - (float)b); }                                              \
  inline H operator*(H a, H b) { return H((float)a * (float)b); }                                              \
  inline H operator/(H a, H b) { return H((float)a / (float)b); }                                              \
  inline H __hadd(H a, H b) { return a + b; }                                                                  \
  inline H __hsub(H a, H b) { return a - b; }                                                                  \
  inline H __hmul(H a, H b) { return a * b; }                                                                  \
  inline H __hmax(H a, H b) { return H(fmaxf((float)a, (float)b)); }                                           \
  inline H __hfma(H a, H b, H c) { return H((float)((double)(float)a * (double)(float)b + (double)(float)c)); } \
  inline H2 __hadd2(H2 a, H2 b) { return {a.x + b.x, a.y + b.y}; }                                             \
  inline H2 __hmul2(H2 a, H2 b) { return {a.x * b.x, a.y * b.y}; }                                             \
  inline H2 __hfma2(H2 a, H2 b, H2 c) { return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)}; }
EMU_F16(__nv_bfloat16, __nv_bfloat162, emu::f2bf, emu::bf2f)
EMU_F16(__half, __half2, emu::f2h, emu::h2f)
typedef __nv_bfloat16 nv_bfloat16; typedef __nv_bfloat162 nv_bfloat162; typedef __half half; typedef __half2 half2;
inline __nv_bfloat16 __float2bfloat16(float f) { return {f}; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return {f}; }
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) { return {a, b}; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
inline __half __float2half(float f) { return {f}; }
inline __half __float2half_rn(float f) { return {f}; }
inline float __half2float(__half h) { return h; }
inline __half2 __floats2half2_rn(float a, float b) { return {a, b}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
inline float __low2float(__nv_bfloat162 v) { return v.x; }
inline float __high2float(__nv_bfloat162 v) { return v.y; }
inline float __low2float(__half2 v) { return v.x; }
inline float __high2float(__half2 v) { return v.y; }
