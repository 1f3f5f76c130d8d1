// The convolution kernels in f32: see conv2d_mma.cuh.
#include "conv2d_mma.cuh"

CONV2D_KERNELS(f32, float)
