// What the solvers of one system per sample share: how a sample stands (src/ops/cg).
#pragma once
#include "rows.cuh"

enum Status { kRunning, kConverged, kBreakdown, kStatuses };

// Whether a scalar is one to go on with: not 0, and finite in f32.
static __device__ __forceinline__ bool usable(double a) { return a != 0 && fabs(a) <= 3.4028234663852886e38; }

// y += a x over one row, by the threads of a block.
static __device__ __forceinline__ void add_row(float *y, double a, const float *x, uint32_t row) {
  each_of_row<float>(row, [=](auto width, uint32_t i) {
    float u[W], v[W];
    load(u, y + i);
    load(v, x + i);
    for (int j = 0; j < W; j++) u[j] = (float)(u[j] + a * v[j]);
    store(y + i, u);
  });
}
