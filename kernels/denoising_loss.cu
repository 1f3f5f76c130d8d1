// denoising_loss: the weighted squared error of a denoiser, and its gradient (src/ops/denoising_loss).
//
//   loss_n = w_n/D sum_i (d_ni - x_ni)^2; dd = scale w_n (d - x), scale = 2/(N D)
//
// Shapes: d, x, dd (N, D), D = `row`; loss (N); `weights` one number for all samples or one for each.
// Launch: one block of 256 threads for a sample. Bytes: 12 N D. Shared memory: one number per warp.
// Order of sums: in f64, it depends on D alone.
#include "rows.cuh"
#include "scalar.cuh"

extern "C" __global__ void __launch_bounds__(kRowThreads)
denoising_loss_f32(float *__restrict__ loss, float *__restrict__ dd, const float *__restrict__ d,
                   const float *__restrict__ x, Scalar weights, float scale, uint32_t row) {
  SHARED(double, scratch, [kRowThreads / 32]);
  const size_t start = (size_t)blockIdx.x * row;
  const float weight = weights.row(blockIdx.x);
  double squares = 0;
  each_of_row<float>(row, [&](auto width, uint32_t i) {
    float error[W], x_i[W];
    load(error, d + start + i);
    load(x_i, x + start + i);
#pragma unroll
    for (int j = 0; j < W; j++) {
      error[j] -= x_i[j];
      squares += (double)error[j] * (double)error[j];
      error[j] *= scale * weight;
    }
    store(dd + start + i, error);
  });
  squares = block_sum(squares, scratch);
  if (threadIdx.x == 0) loss[blockIdx.x] = (float)((double)weight * squares / (double)row);
}
KERNEL_ENTRY(denoising_loss_f32)
