// The convolution kernels in bf16: see conv2d_mma.cuh.
#include "conv2d_mma.cuh"

CONV2D_KERNELS(bf16, bf16)
