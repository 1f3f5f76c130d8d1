// noise_embedding: e(ln sigma) = (sin(f_k ln sigma), cos(f_k ln sigma)), f_k = 10^4^(-k/(F/2 - 1)) (src/ops/noise_embedding).
//
//   forward   first all sines, then all cosines
//
// Shapes: e (R, F) in f32, F even; `log_sigma` one number for all rows or one for each.
// Launch: one-dimensional, 256 threads, one for a frequency of a row. Bytes: 4 R F. In f64, as on the host: a few thousand
//   numbers per step. No shared memory.
#include "scalar.cuh"
#include "vec.cuh"

extern "C" __global__ void __launch_bounds__(256)
noise_embedding_forward_f32(float *__restrict__ e, Scalar log_sigma, uint32_t rows, uint32_t half) {
  GRID_STRIDE(i, rows * half) {
    const uint32_t row = i / half, k = i % half;
    const double x = log_sigma.row(row);
    const double log2_f = -13.287712379549449 * k / (max(half, 2u) - 1); // log2(10^4)
    double sine, cosine;
    sincospi(exp2(log2_f) * x / 3.141592653589793, &sine, &cosine); // of multiples of pi: their reduction is exact, and short
    e[(size_t)row * 2 * half + k] = (float)sine;
    e[(size_t)row * 2 * half + half + k] = (float)cosine;
  }
}
KERNEL_ENTRY(noise_embedding_forward_f32)
