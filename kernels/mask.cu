// The pixel mask (src/ops/mask), its own adjoint: y = x where the mask is not 0, else 0, whatever x is there.
//
// Shapes: x, y (N, H W, C), `row` = H W C; mask (mask_rows, H W), mask_rows = 1 or N; n = N H W C, below 2^31.
// Launch: one-dimensional, 256 threads, one thread for 16 bytes. Bytes: x and y once, the mask once (from the cache).
#include "rows.cuh"

extern "C" __global__ void mask_apply_f32(float *y, const float *x, const float *mask, uint32_t mask_rows, uint32_t c,
                                          uint32_t row, uint32_t n) {
  each_group<float>(row, n, [=](auto width, uint32_t i) {
    const uint32_t at = mask_rows == 1 ? i % row : i;
    float value[W];
    load(value, x + i);
    for (int j = 0; j < W; j++) value[j] = mask[(at + j) / c] == 0.f ? 0.f : value[j];
    store(y + i, value);
  });
}
KERNEL_ENTRY(mask_apply_f32)
