// The folded BiCGSTAB iteration (src/ops/bicgstab), one system per sample, one block per sample.
//
//   bicgstab_start  rho = rr_start = <r, r>; status = running, or converged where that is 0
//   bicgstab_bi     alpha = rho / <shadow, v>; s += alpha g; r -= alpha v
//   bicgstab_stab   omega = <t, r> / <t, t>; s += omega g; r -= omega t; beta = <shadow, r> / rho alpha / omega;
//                   p = r + beta (p - omega v); rho = <shadow, r>
//
// A sample has converged when <r, r> <= rtol^2 rr_start; one that does not run keeps all its bits; one whose alpha, omega or
// beta is 0 or not finite in f32 stops as a breakdown.
// Shapes: r, p, shadow, v, t (N, M), s, g (N, D), numbers (N, 3) = rho, alpha, rr_start, status (N).
// Launch: N blocks of 256 threads. Scalars and dots are f64, summed in an order that depends on M alone.
// Bytes: of `bi` shadow, v, r, s, g read once from memory (v again from the cache), r, s written; of `stab` t, r, shadow, p, v,
// s, g (t and r again), r, p, s written.
#include "solver.cuh"

extern "C" __global__ void __launch_bounds__(kRowThreads)
bicgstab_start_f32(float *numbers, float *status, const float *r, uint32_t measured) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const uint32_t n = blockIdx.x;
  r += (size_t)n * measured;
  const float rr = (float)row_dot(r, r, measured, scratch);
  if (threadIdx.x == 0) {
    numbers[3 * n] = numbers[3 * n + 2] = rr;
    numbers[3 * n + 1] = 0.f;
    status[n] = rr == 0.f ? kConverged : kRunning;
  }
}
KERNEL_ENTRY(bicgstab_start_f32)

extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
bicgstab_bi_f32(float *r, float *s, float *numbers, float *status, const float *shadow, float rtol2, uint32_t measured,
                uint32_t image, const float *g, const float *v) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const size_t n = blockIdx.x, y = n * measured, x = n * image;
  if (status[n] != (float)kRunning) return;
  numbers += 3 * n, r += y, v += y;
  const double alpha = (double)numbers[0] / row_dot(shadow + y, v, measured, scratch);
  if (!usable(alpha)) {
    if (threadIdx.x == 0) status[n] = kBreakdown;
    return;
  }
  add_row(s + x, alpha, g + x, image);
  double rr = 0;
  each_of_row<float>(measured, [&](auto width, uint32_t i) {
    float residual[W], product[W];
    load(residual, r + i);
    load(product, v + i);
    for (int j = 0; j < W; j++) {
      residual[j] = (float)(residual[j] - alpha * product[j]);
      rr += (double)residual[j] * (double)residual[j];
    }
    store(r + i, residual);
  });
  rr = block_sum(rr, scratch);
  if (threadIdx.x == 0) {
    numbers[1] = (float)alpha;
    if (rr <= (double)rtol2 * (double)numbers[2]) status[n] = kConverged;
  }
}
KERNEL_ENTRY(bicgstab_bi_f32)

extern "C" __global__ void __launch_bounds__(kRowThreads, 4)
bicgstab_stab_f32(float *r, float *s, float *numbers, float *status, const float *shadow, float rtol2, uint32_t measured,
                  uint32_t image, float *p, const float *v, const float *g, const float *t) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const size_t n = blockIdx.x, y = n * measured, x = n * image;
  if (status[n] != (float)kRunning) return;
  numbers += 3 * n, r += y, p += y, v += y, t += y, shadow += y;
  const double rho = numbers[0], alpha = numbers[1];
  const double omega = row_dot(t, r, measured, scratch) / row_dot(t, t, measured, scratch);
  if (!usable(omega)) {
    if (threadIdx.x == 0) status[n] = kBreakdown;
    return;
  }
  add_row(s + x, omega, g + x, image);
  double rr = 0, rho_next = 0;
  each_of_row<float>(measured, [&](auto width, uint32_t i) {
    float residual[W], product[W], first[W];
    load(residual, r + i);
    load(product, t + i);
    load(first, shadow + i);
    for (int j = 0; j < W; j++) {
      residual[j] = (float)(residual[j] - omega * product[j]);
      rr += (double)residual[j] * (double)residual[j];
      rho_next += (double)first[j] * (double)residual[j];
    }
    store(r + i, residual);
  });
  rr = block_sum(rr, scratch);
  rho_next = block_sum(rho_next, scratch);
  const double beta = rho_next / rho * alpha / omega;
  const bool converged = rr <= (double)rtol2 * (double)numbers[2];
  if (converged || !usable(beta)) {
    if (threadIdx.x == 0) status[n] = converged ? kConverged : kBreakdown;
    return;
  }
  each_of_row<float>(measured, [&](auto width, uint32_t i) { // a thread reads the r that it has written itself
    float residual[W], direction[W], product[W];
    load(residual, r + i);
    load(direction, p + i);
    load(product, v + i);
    for (int j = 0; j < W; j++) direction[j] = (float)(residual[j] + beta * (direction[j] - omega * product[j]));
    store(p + i, direction);
  });
  if (threadIdx.x == 0) numbers[0] = (float)rho_next;
}
KERNEL_ENTRY(bicgstab_stab_f32)
