// The convolution kernels in bf16: see conv2d.cuh.
#include "conv2d.cuh"

CONV2D_KERNELS(bf16, bf16)
