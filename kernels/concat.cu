// concat: concatenation of channels (src/ops/concat), (N, H, W, C1), (N, H, W, C2) to (N, H, W, C1 + C2).
//
//   forward   y = (x1, x2): a copy of units of 16, 8, 4 or 2 bytes, whatever they hold
//   forward_bf16_f32   the same, x2 rounded from f32: the input of an MLP, whose second part is the noise embedding
//   vjp       (dx1, dx2): the inverse copy
//
// Shapes: below 2^31 units in y; c1 and c2 in units.
// Launch: one-dimensional, 256 threads, one for a unit of y. Bytes: 2 times those of y. No more than 32 registers.
#include "vec.cuh"

static __device__ __forceinline__ void copy(bf16 &to, float from) { to = from_float<bf16>(from); }
template <class Unit> static __device__ __forceinline__ void copy(Unit &to, const Unit &from) { to = from; }

template <class Unit1, class Unit2>
static __device__ __forceinline__ void forward(Unit1 *y, const Unit1 *x1, const Unit2 *x2, uint32_t c1, uint32_t c2, uint32_t n) {
  GRID_STRIDE(i, n) {
    const uint32_t pixel = i / (c1 + c2), c = i % (c1 + c2);
    if (c < c1) copy(y[i], x1[(size_t)pixel * c1 + c]);
    else copy(y[i], x2[(size_t)pixel * c2 + c - c1]);
  }
}

template <class Unit>
static __device__ __forceinline__ void vjp(Unit *dx1, Unit *dx2, const Unit *dy, uint32_t c1, uint32_t c2, uint32_t n) {
  GRID_STRIDE(i, n) {
    const uint32_t pixel = i / (c1 + c2), c = i % (c1 + c2);
    (c < c1 ? dx1[(size_t)pixel * c1 + c] : dx2[(size_t)pixel * c2 + c - c1]) = dy[i];
  }
}

#define FORWARD(Unit1, Unit2, units)                                                                                   \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  concat_forward_##units(Unit1 *__restrict__ y, const Unit1 *__restrict__ x1, const Unit2 *__restrict__ x2,            \
                         uint32_t c1, uint32_t c2, uint32_t n) {                                                       \
    forward(y, x1, x2, c1, c2, n);                                                                                     \
  }                                                                                                                    \
  KERNEL_ENTRY(concat_forward_##units)
#define ENTRIES(Unit, units)                                                                                           \
  FORWARD(Unit, Unit, units)                                                                                           \
  extern "C" __global__ void __launch_bounds__(256)                                                                    \
  concat_vjp_##units(Unit *__restrict__ dx1, Unit *__restrict__ dx2, const Unit *__restrict__ dy, uint32_t c1,         \
                     uint32_t c2, uint32_t n) {                                                                        \
    vjp(dx1, dx2, dy, c1, c2, n);                                                                                      \
  }                                                                                                                    \
  KERNEL_ENTRY(concat_vjp_##units)
ENTRIES(uint4, b128)
ENTRIES(uint2, b64)
ENTRIES(uint32_t, b32)
ENTRIES(uint16_t, b16)
FORWARD(bf16, float, bf16_f32)
