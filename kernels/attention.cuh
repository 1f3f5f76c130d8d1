// attention.cuh -- what the kernels of attention share: where a head's numbers lie.
#pragma once
#include "vec.cuh"

constexpr float LOG2E = 1.4426950408889634f, NEG_INF = -__builtin_huge_valf();

// What a block works on: one head of an image, and its tokens from `first` on.
struct Head {
  int n, head, first;
  int tokens, d; // of an image; channels of a head
  // Blocks of `rows` tokens, x counting those of an image, then images; y the heads.
  __device__ __forceinline__ Head(int tokens, int d, int rows) : tokens(tokens), d(d) {
    const int blocks = (tokens + rows - 1) / rows;
    n = blockIdx.x / blocks;
    head = blockIdx.y;
    first = blockIdx.x % blocks * rows;
  }
  // Position of the head's first token in lse and statistics, (N, heads, T rounded up to even): below 2^32.
  __device__ __forceinline__ uint32_t statistics() const { return (n * gridDim.y + head) * ((tokens + 1) / 2 * 2); }
};

// The `index`th of `parts` that a token has C channels of: queries, keys and values in qkv; in o there is one.
struct Part {
  int index, parts;
};
constexpr Part Q{0, 3}, K{1, 3}, V{2, 3}, O{0, 1};

// Position of a token's `channel` in this head.
__device__ __forceinline__ size_t position(const Head &here, Part part, int token, int channel) {
  const uint32_t c = gridDim.y * here.d, row = here.n * here.tokens + token;
  return (size_t)row * (part.parts * c) + (part.index * c + here.head * here.d + channel);
}

// A kernel by name, which calls a template.
#define ATTENTION_ENTRY(NAME, THREADS, BLOCKS, PARAMETERS, CALL)                                   \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) NAME PARAMETERS { CALL; }           \
  KERNEL_ENTRY(NAME)
