// The folded conjugate gradient iteration (src/ops/cg), one system per sample, one block per sample.
//
//   cg_start          p = r; s = 0; rr = rr_start = <r, r>; status = running, or converged where rr = 0
//   cg_update         of each running sample, with g = J^T A^T p and q = (Sigma_y + sigma^2 A J^T A^T) p given:
//                     alpha = rr / <p, q>; s += alpha g; r -= alpha q; beta = <r, r>' / rr; p = r + beta p; rr = <r, r>'
//   cg_update_masked  the same for A = mask: q = cov_y p + variance mask g is made where it is needed, never stored
//   cg_tally          tally[n][status_n] += 1
//
// A sample that does not run keeps all its bits; one whose <p, q> is not positive and finite, or whose <r, q> is not
// positive, stops as a breakdown.
// Shapes: r, p, q (N, M), s, g (N, D), rr, rr_start, status (N), tally (N, 3); mask (1 or N, H W), M = D = H W C; cov_y and
// variance (1) or (N).
// Launch: N blocks of 256 threads. Scalars and dots are f64, summed in an order that depends on M alone.
// Bytes of cg_update: p, q, r, s, g read once from memory (p, q and r again, from the cache), p, r, s written; of
// cg_update_masked: all but q.
#include "solver.cuh"

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

// What one sample's iteration works on.
struct Solve {
  float *r, *p, *s;       // (M), (M), (D)
  float *rr, *status;     // one number each
  const float *rr_start;
  const float *g;         // (D)
  double rtol2;
  uint32_t measured, image; // M, D
};

// The arguments of one sample, out of those of the batch.
static __device__ __forceinline__ Solve sample(float *r, float *p, float *s, float *rr, const float *rr_start,
                                               float *status, const float *g, float rtol2, uint32_t measured,
                                               uint32_t image) {
  const size_t n = blockIdx.x, y = n * measured, x = n * image;
  return {r + y, p + y, s + x, rr + n, status + n, rr_start + n, g + x, rtol2, measured, image};
}

// One iteration; q(i, p) gives the elements of q from i on, with p those of p.
template <class Q> static __device__ __forceinline__ void update(const Solve &at, Q q, double *scratch) {
  if (*at.status != (float)kRunning) return;
  const double rr = *at.rr;
  double pq = 0, rq = 0;
  each_of_row<float>(at.measured, [&](auto width, uint32_t i) {
    float p[W], r[W], product[W];
    load(p, at.p + i);
    load(r, at.r + i);
    q(product, i, p);
    for (int j = 0; j < W; j++) {
      pq += (double)p[j] * (double)product[j];
      rq += (double)r[j] * (double)product[j];
    }
  });
  pq = block_sum(pq, scratch);
  rq = block_sum(rq, scratch);
  const double alpha = rr / pq;
  if (!(pq > 0 && rq > 0 && pq <= 1.7976931348623157e308 && fabs(alpha) <= 3.4028234663852886e38)) { // not finite in f32 either
    if (threadIdx.x == 0) *at.status = kBreakdown;
    return;
  }
  add_row(at.s, alpha, at.g, at.image);
  double rr_next = 0;
  each_of_row<float>(at.measured, [&](auto width, uint32_t i) {
    float r[W], p[W], product[W];
    load(r, at.r + i);
    load(p, at.p + i);
    q(product, i, p);
    for (int j = 0; j < W; j++) {
      r[j] = (float)(r[j] - alpha * product[j]);
      rr_next += (double)r[j] * (double)r[j];
    }
    store(at.r + i, r);
  });
  rr_next = block_sum(rr_next, scratch);
  const double beta = rr_next / rr;
  each_of_row<float>(at.measured, [&](auto width, uint32_t i) { // a thread reads the r that it has written itself
    float r[W], p[W];
    load(r, at.r + i);
    load(p, at.p + i);
    for (int j = 0; j < W; j++) p[j] = (float)(r[j] + beta * p[j]);
    store(at.p + i, p);
  });
  if (threadIdx.x == 0) {
    *at.rr = (float)rr_next;
    if (rr_next <= at.rtol2 * (double)*at.rr_start) *at.status = kConverged;
  }
}

extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
cg_update_f32(float *r, float *p, float *s, float *rr, const float *rr_start, float *status, const float *g,
              float rtol2, uint32_t measured, uint32_t image, const float *q) {
  SHARED(double, scratch, [kRowThreads / 32]);
  q += (size_t)blockIdx.x * measured;
  update(sample(r, p, s, rr, rr_start, status, g, rtol2, measured, image),
         [q](auto &product, uint32_t i, const auto &) { load(product, q + i); }, scratch);
}
KERNEL_ENTRY(cg_update_f32)

extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
cg_update_masked_f32(float *r, float *p, float *s, float *rr, const float *rr_start, float *status, const float *g,
                     float rtol2, uint32_t measured, uint32_t image, const float *mask, uint32_t mask_rows, uint32_t c,
                     const float *cov_y, uint32_t cov_y_rows, const float *variance, uint32_t variance_rows) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const uint32_t n = blockIdx.x;
  const float cov_y_n = cov_y[cov_y_rows == 1 ? 0 : n], variance_n = variance[variance_rows == 1 ? 0 : n];
  mask += mask_rows == 1 ? 0 : (size_t)n * (measured / c);
  const Solve at = sample(r, p, s, rr, rr_start, status, g, rtol2, measured, image);
  update(at, [=](auto &product, uint32_t i, const auto &direction) {
    constexpr int width = sizeof(product) / sizeof(float);
    load(product, at.g + i);
    for (int j = 0; j < width; j++) {
      const float seen = mask[(i + j) / c] == 0.f ? 0.f : variance_n * product[j];
      product[j] = fmaf(cov_y_n, direction[j], seen);
    }
  }, scratch);
}
KERNEL_ENTRY(cg_update_masked_f32)

extern "C" __global__ void cg_tally_f32(float *tally, const float *status, uint32_t n) {
  GRID_STRIDE(i, n) tally[i * kStatuses + (uint32_t)status[i]] += 1.f;
}
KERNEL_ENTRY(cg_tally_f32)
