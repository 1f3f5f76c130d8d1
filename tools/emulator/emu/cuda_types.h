// Vector types, dim3, and 16-bit floats. Conversions are bit-exact: tests/numerics.rs compares them with their definition.
#pragma once
#include <cstdint>
#include <cstring>

#define EMU_VECTOR(N, T, ALIGN4)                                                                    \
  struct N##1 { T x; };                                                                             \
  struct alignas(2 * sizeof(T)) N##2 { T x, y; };                                                   \
  struct N##3 { T x, y, z; };                                                                       \
  struct alignas(ALIGN4) N##4 { T x, y, z, w; };                                                    \
  inline N##1 make_##N##1(T x) { return {x}; }                                                      \
  inline N##2 make_##N##2(T x, T y) { return {x, y}; }                                              \
  inline N##3 make_##N##3(T x, T y, T z) { return {x, y, z}; }                                      \
  inline N##4 make_##N##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR(char, signed char, 4)
EMU_VECTOR(uchar, unsigned char, 4)
EMU_VECTOR(short, short, 8)
EMU_VECTOR(ushort, unsigned short, 8)
EMU_VECTOR(int, int, 16)
EMU_VECTOR(uint, unsigned, 16)
EMU_VECTOR(longlong, long long, 16)
EMU_VECTOR(ulonglong, unsigned long long, 16)
EMU_VECTOR(float, float, 16)
EMU_VECTOR(double, double, 16)
#undef EMU_VECTOR

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

// ---------------------------------------------------------------- bits
template <class To, class From> inline To emu_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline float __int_as_float(int x) { return emu_bits<float>(x); }
inline int __float_as_int(float x) { return emu_bits<int>(x); }
inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }
inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }

// ---------------------------------------------------------------- 16-bit floats: round to nearest even, NaN becomes 0x7fff
namespace emu {
inline uint16_t to_bf16(float f) {
  const uint32_t u = emu_bits<uint32_t>(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}
inline float from_bf16(uint16_t h) { return emu_bits<float>((uint32_t)h << 16); }

inline uint16_t to_f16(float f) {
  const uint32_t u = emu_bits<uint32_t>(f), sign = u >> 16 & 0x8000u;
  uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return 0x7fff;
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);   // rounds to infinity
  if (a < 0x38800000u) {                                      // subnormal: adding 0.5 lets the FPU round at 2^-24
    return (uint16_t)(sign | (emu_bits<uint32_t>(emu_bits<float>(a) + 0.5f) - 0x3f000000u));
  }
  a += 0xc8000fffu + (a >> 13 & 1);                           // exponent bias 127 -> 15, and rounding
  return (uint16_t)(sign | a >> 13);
}
inline float from_f16(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 1023;
  if (exponent == 31) return emu_bits<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent) return emu_bits<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float f = (float)mantissa * 5.9604644775390625e-8f;   // 2^-24
  return sign ? -f : f;
}

// A 16-bit float that converts from and to float implicitly, and a pair of them, as CUDA's types.
template <uint16_t (*TO)(float), float (*FROM)(uint16_t)> struct alignas(2) Float16 {
  uint16_t bits;
  Float16() = default;
  Float16(float f) : bits(TO(f)) {}
  operator float() const { return FROM(bits); }
};
template <class H> struct alignas(4) Pair16 { H x, y; };

#define EMU_FLOAT16 template <uint16_t (*TO)(float), float (*FROM)(uint16_t), class H = Float16<TO, FROM>>
#define EMU_OPERATOR(OP, NAME)                                                                      \
  EMU_FLOAT16 inline H operator OP(Float16<TO, FROM> a, Float16<TO, FROM> b) { return H((float)a OP (float)b); } \
  EMU_FLOAT16 inline H NAME(Float16<TO, FROM> a, Float16<TO, FROM> b) { return a OP b; }            \
  template <class H> inline Pair16<H> NAME##2(Pair16<H> a, Pair16<H> b) { return {a.x OP b.x, a.y OP b.y}; }
EMU_OPERATOR(+, __hadd)
EMU_OPERATOR(-, __hsub)
EMU_OPERATOR(*, __hmul)
EMU_OPERATOR(/, __hdiv)
#undef EMU_OPERATOR
EMU_FLOAT16 inline H __hmax(Float16<TO, FROM> a, Float16<TO, FROM> b) { return (float)a > (float)b || b != b ? a : b; }
EMU_FLOAT16 inline H __hmin(Float16<TO, FROM> a, Float16<TO, FROM> b) { return (float)a < (float)b || b != b ? a : b; }
#undef EMU_FLOAT16
template <class H> inline float __low2float(Pair16<H> v) { return v.x; }
template <class H> inline float __high2float(Pair16<H> v) { return v.y; }
}  // namespace emu

using __nv_bfloat16 = emu::Float16<emu::to_bf16, emu::from_bf16>;
using __nv_bfloat162 = emu::Pair16<__nv_bfloat16>;
using __half = emu::Float16<emu::to_f16, emu::from_f16>;
using __half2 = emu::Pair16<__half>;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;
using half = __half;
using half2 = __half2;

inline __nv_bfloat16 __float2bfloat16(float f) { return f; }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return f; }
inline float __bfloat162float(__nv_bfloat16 h) { return h; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) { return h.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return emu_bits<__nv_bfloat16>(bits); }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {x, y}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return {v.x, v.y}; }
inline __nv_bfloat162 __float2bfloat162_rn(float f) { return {f, f}; }
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 v) { return v.x; }
inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 v) { return v.y; }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {v.x, v.y}; }
inline __half __float2half(float f) { return f; }
inline __half __float2half_rn(float f) { return f; }
inline float __half2float(__half h) { return h; }
inline __half2 __floats2half2_rn(float x, float y) { return {x, y}; }
inline float2 __half22float2(__half2 v) { return {v.x, v.y}; }
