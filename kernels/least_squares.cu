// The least squares problems of GMRES (src/ops/least_squares): min |beta e_1 - H y|, one per sample, column by column.
//
//   least_squares_start     beta = sqrt(square); status = running, converged where beta = 0, breakdown where it is not finite
//   least_squares_push      of each running sample: the rotations so far, applied to column j of H, give column j of R; one
//                           more takes its last element, sqrt(square), to 0
//   least_squares_solution  R y = the rotated right-hand side, by back substitution; 0 for columns that a sample has not
//
// Shapes: numbers (N, k^2 + 3 k + 3): R, column by column, then `Numbers`; status, square, each element of a column, y_i (N).
// Launch: a thread for each sample; sums in f64. A few hundred bytes for each: of no weight beside a product of the system.
#include "solver.cuh"

struct Columns {
  float *x[64]; // (N) each
};

// One sample's numbers.
struct Numbers {
  float *r, *cos, *sin, *rhs, *beta, *count; // (k, k), (k), (k), (k + 1), 1, 1
};

static __device__ __forceinline__ Numbers numbers_of(float *numbers, uint32_t k, uint32_t n) {
  float *r = numbers + (size_t)n * (k * k + 3 * k + 3), *cos = r + k * k, *rhs = cos + 2 * k;
  return {r, cos, cos + k, rhs, rhs + k + 1, rhs + k + 2};
}

static __device__ __forceinline__ bool is_finite(double x) { return fabs(x) <= 1.7976931348623157e308; }

extern "C" __global__ void least_squares_start_f32(float *numbers, float *status, uint32_t k, const float *square, uint32_t n) {
  GRID_STRIDE(i, n) {
    const Numbers at = numbers_of(numbers, k, i);
    const float beta = sqrtf(square[i]);
    *at.rhs = *at.beta = beta;
    *at.count = 0.f;
    status[i] = beta == 0.f ? kConverged : is_finite(beta) ? kRunning : kBreakdown;
  }
}
KERNEL_ENTRY(least_squares_start_f32)

extern "C" __global__ void least_squares_push_f32(float *numbers, float *status, uint32_t k, Columns column, uint32_t j,
                                                  const float *square, float rtol, uint32_t n) {
  GRID_STRIDE(i, n) {
    if (status[i] != (float)kRunning) continue;
    const Numbers at = numbers_of(numbers, k, i);
    double above = column.x[0][i];
    bool all = is_finite(above);
    for (uint32_t row = 0; row < j; row++) {
      const double cos = at.cos[row], sin = at.sin[row], below = column.x[row + 1][i];
      at.r[j * k + row] = (float)(cos * above + sin * below);
      above = cos * below - sin * above;
      all = all && is_finite(below);
    }
    const double last = sqrt((double)square[i]), pivot = sqrt(above * above + last * last);
    if (!(all && pivot > 0 && is_finite(pivot))) {
      status[i] = kBreakdown;
      continue;
    }
    const double cos = above / pivot, sin = last / pivot, rhs = at.rhs[j];
    at.r[j * k + j] = (float)pivot;
    at.cos[j] = (float)cos, at.sin[j] = (float)sin;
    at.rhs[j] = (float)(cos * rhs), at.rhs[j + 1] = (float)(-sin * rhs);
    *at.count = (float)(j + 1);
    if (fabs(sin * rhs) <= (double)rtol * (double)*at.beta) status[i] = kConverged;
  }
}
KERNEL_ENTRY(least_squares_push_f32)

extern "C" __global__ void least_squares_solution_f32(Columns y, const float *numbers, uint32_t k, uint32_t n) {
  GRID_STRIDE(i, n) {
    const Numbers at = numbers_of(const_cast<float *>(numbers), k, i);
    const uint32_t count = (uint32_t)*at.count;
    for (uint32_t row = count; row < k; row++) y.x[row][i] = 0.f;
    for (uint32_t row = count; row-- > 0;) {
      double known = 0;
      for (uint32_t j = row + 1; j < count; j++) known += (double)at.r[j * k + row] * (double)y.x[j][i];
      y.x[row][i] = (float)(((double)at.rhs[row] - known) / (double)at.r[row * k + row]);
    }
  }
}
KERNEL_ENTRY(least_squares_solution_f32)
