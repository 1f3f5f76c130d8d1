// The one header that every kernel includes: CUDA itself under nvcc, the emulator (tools/emulator) elsewhere.
//
//   KERNEL_ENTRY(name)            makes an `extern "C" __global__` function known to the emulator; one line after each.
//   SHARED(T, name, [A][B])       a static shared array. Fenced, filled with NaN and race-checked on the host.
//   DYN_SHARED(T, name)           the dynamic shared memory of the launch, 1,024-byte aligned, as a T *.
#pragma once
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>
#define KERNEL_ENTRY(k)
#define SHARED(T, name, dims) __shared__ __align__(128) T name dims
extern __shared__ __align__(1024) unsigned char dyn_smem_[];
#define DYN_SHARED(T, name) T *const name = reinterpret_cast<T *>(dyn_smem_)
#else
#include "cuda_emu.h"
#endif
