// adam: one step of Adam with decoupled weight decay and clipping by the global norm (src/ops/adam).
//
//   step   g' = g min(1, max_norm/(norm + 1e-6)); m = beta1 m + (1 - beta1) g'; v = beta2 v + (1 - beta2) g'^2;
//          p = keep p - rate m/(root sqrt(v) + eps), where rate and root hold the bias corrections of the step
//
// Nothing changes where the norm is not finite.
//
// Shapes: p, m, v, g (n) in f32, n < 2^31; norm (1).
// Launch: one-dimensional, 256 threads, one for 16 bytes; the last n mod 4 go one by one.
// Bytes: 28 n (reads p, m, v, g; writes p, m, v). Floor at 3.0 TB/s (H100), 57.6 M parameters: 540 us. 40 registers.
#include "rows.cuh"

struct Rates {
  float beta1, rest1, beta2, rest2, keep, rate, root, eps, max_norm;
};

extern "C" __global__ void __launch_bounds__(256)
adam_step_f32(float *__restrict__ p, float *__restrict__ m, float *__restrict__ v, const float *__restrict__ g,
              const float *__restrict__ norm, Rates r, uint32_t n) {
  const float total = *norm;
  if (!(total <= 3.402823466e38f)) return;
  const float clip = fminf(r.max_norm / (total + 1e-6f), 1.f);
  each_element<float>(n, [=](auto width, uint32_t i) {
    float p_i[W], m_i[W], v_i[W], g_i[W];
    load(p_i, p + i);
    load(m_i, m + i);
    load(v_i, v + i);
    load(g_i, g + i);
#pragma unroll
    for (int j = 0; j < W; j++) {
      const float clipped = g_i[j] * clip;
      m_i[j] = fmaf(r.beta1, m_i[j], r.rest1 * clipped);
      v_i[j] = fmaf(r.beta2, v_i[j], r.rest2 * clipped * clipped);
      p_i[j] = fmaf(r.keep, p_i[j], -r.rate * m_i[j] / fmaf(r.root, sqrtf(v_i[j]), r.eps));
    }
    store(p + i, p_i);
    store(m + i, m_i);
    store(v + i, v_i);
  });
}
KERNEL_ENTRY(adam_step_f32)
