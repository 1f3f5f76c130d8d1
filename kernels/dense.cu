// A matrix per sample (src/ops/dense), and a diagonal plus low rank one (src/ops/dplr).
//
//   dense_forward  y_n = A_n x_n
//   dense_adjoint  x_n = A_n^T y_n
//   dplr_combine   z_n = d_n x_n + W_n^T t_n, after t_n = W_n x_n by dense_forward
//
// Shapes: A (a_rows, M, D), a_rows = 1 or N, W likewise (K in place of M); x, z (N, D), d (a_rows, D); y (N, M), t (N, K).
// Launch: 256 threads; dense_forward: a warp for each element of y; the others: a thread for each element of x.
// Sums are f64, over lanes 32 apart and a butterfly, or from first to last: an order that depends on D or M alone.
// Bytes: A once for each sample (from the cache where it is shared), x and y once.
#include "vec.cuh"

extern "C" __global__ void dense_forward_f32(float *y, const float *a, const float *x, uint32_t a_rows, uint32_t m,
                                             uint32_t d, uint32_t n) {
  const uint32_t lane = threadIdx.x % 32, out = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  if (out >= n * m) return; // a whole warp
  const uint32_t sample = out / m;
  a += (a_rows == 1 ? (size_t)(out % m) : (size_t)out) * d;
  x += (size_t)sample * d;
  double sum = 0;
  for (uint32_t i = lane; i < d; i += 32) sum += (double)a[i] * (double)x[i];
  sum = warp_sum(sum);
  if (lane == 0) y[out] = (float)sum;
}
KERNEL_ENTRY(dense_forward_f32)

// Element i of A^T y, A being M rows of D.
static __device__ __forceinline__ double adjoint(const float *a, const float *y, uint32_t m, uint32_t d, uint32_t i) {
  double sum = 0;
  for (uint32_t k = 0; k < m; k++) sum += (double)a[(size_t)k * d + i] * (double)y[k];
  return sum;
}

extern "C" __global__ void dense_adjoint_f32(float *x, const float *a, const float *y, uint32_t a_rows, uint32_t m,
                                             uint32_t d, uint32_t n) {
  GRID_STRIDE(at, n * d) {
    const uint32_t sample = at / d;
    const float *matrix = a + (a_rows == 1 ? 0 : (size_t)sample * m * d);
    x[at] = (float)adjoint(matrix, y + (size_t)sample * m, m, d, at % d);
  }
}
KERNEL_ENTRY(dense_adjoint_f32)

extern "C" __global__ void dplr_combine_f32(float *z, const float *diagonal, const float *w, const float *t,
                                            const float *x, uint32_t w_rows, uint32_t k, uint32_t d, uint32_t n) {
  GRID_STRIDE(at, n * d) {
    const uint32_t sample = at / d, i = at % d, shared = w_rows == 1 ? 0 : sample;
    const double low_rank = adjoint(w + (size_t)shared * k * d, t + (size_t)sample * k, k, d, i);
    z[at] = (float)((double)diagonal[(size_t)shared * d + i] * (double)x[at] + low_rank);
  }
}
KERNEL_ENTRY(dplr_combine_f32)
