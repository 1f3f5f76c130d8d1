// The folded conjugate gradient iteration (src/ops/cg), one system per sample, one block per sample.
//
//   cg_start   p = r; s = 0; rr = rr_start = <r, r>; status = running, or converged where rr = 0
//   cg_update  of each running sample, with g and q = (Sigma_y + sigma^2 A J^T A^T) p given:
//              alpha = rr / <p, q>; s += alpha g; r -= alpha q; beta = <r, r>' / rr; p = r + beta p; rr = <r, r>'
//   cg_tally   tally[n][status_n] += 1
//
// A sample that does not run keeps all its bits; one whose <p, q> is not positive and finite stops as a breakdown.
// Shapes: r, p, q (N, M), s, g (N, D), rr, rr_start, status (N), tally (N, 3).
// Launch: N blocks of 256 threads. Scalars and dots are f64, summed in an order that depends on M alone.
// Bytes of cg_update: p, q, r, s, g read once from memory (p, q and r once more, from the cache), p, r, s written.
#include "rows.cuh"
#include "scalar.cuh"

enum Status { kRunning, kConverged, kBreakdown, kStatuses };

// y += a x over one row.
static __device__ __forceinline__ void axpy(float *y, double a, const float *x, uint32_t row) {
  each_of_row<float>(row, [=](auto width, uint32_t i) {
    float sum[W], term[W];
    load(sum, y + i);
    load(term, x + i);
    for (int j = 0; j < W; j++) sum[j] = (float)(sum[j] + a * term[j]);
    store(y + i, sum);
  });
}

extern "C" __global__ void __launch_bounds__(kRowThreads)
cg_start_f32(float *p, float *s, float *rr, float *rr_start, float *status, const float *r, uint32_t measured,
             uint32_t image) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const uint32_t n = blockIdx.x;
  r += (size_t)n * measured, p += (size_t)n * measured, s += (size_t)n * image;
  each_of_row<float>(measured, [=](auto width, uint32_t i) {
    float value[W];
    load(value, r + i);
    store(p + i, value);
  });
  each_of_row<float>(image, [=](auto width, uint32_t i) {
    const float zero[W] = {};
    store(s + i, zero);
  });
  const float sum = (float)row_dot(r, r, measured, scratch);
  if (threadIdx.x == 0) {
    rr[n] = rr_start[n] = sum;
    status[n] = sum == 0.f ? kConverged : kRunning;
  }
}
KERNEL_ENTRY(cg_start_f32)

extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
cg_update_f32(float *r, float *p, float *s, float *rr, const float *rr_start, float *status, const float *g,
              const float *q, float rtol2, uint32_t measured, uint32_t image) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const uint32_t n = blockIdx.x;
  if (status[n] != (float)kRunning) return;
  r += (size_t)n * measured, p += (size_t)n * measured, q += (size_t)n * measured;
  s += (size_t)n * image, g += (size_t)n * image;
  const double rr_n = rr[n];

  const double pq = row_dot(p, q, measured, scratch);
  const double alpha = rr_n / pq;
  if (!(pq > 0 && pq <= 1.7976931348623157e308 && fabs(alpha) <= 3.4028234663852886e38)) { // not finite in f32 either
    if (threadIdx.x == 0) status[n] = kBreakdown;
    return;
  }
  axpy(s, alpha, g, image);
  axpy(r, -alpha, q, measured);
  const double rr_next = row_dot(r, r, measured, scratch); // a thread reads what it has written itself
  const double beta = rr_next / rr_n;
  each_of_row<float>(measured, [=](auto width, uint32_t i) {
    float residual[W], direction[W];
    load(residual, r + i);
    load(direction, p + i);
    for (int j = 0; j < W; j++) direction[j] = (float)(residual[j] + beta * direction[j]);
    store(p + i, direction);
  });
  if (threadIdx.x == 0) {
    rr[n] = (float)rr_next;
    if (rr_next <= (double)rtol2 * (double)rr_start[n]) status[n] = kConverged;
  }
}
KERNEL_ENTRY(cg_update_f32)

extern "C" __global__ void cg_tally_f32(float *tally, const float *status, uint32_t n) {
  GRID_STRIDE(i, n) tally[i * kStatuses + (uint32_t)status[i]] += 1.f;
}
KERNEL_ENTRY(cg_tally_f32)
