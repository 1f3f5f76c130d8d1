// The convolution kernels in f32: see conv2d.cuh.
#include "conv2d.cuh"

CONV2D_KERNELS(f32, float)
