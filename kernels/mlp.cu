// mlp.cu -- a whole multilayer perceptron in one kernel per pass, f32 (src/ops/mlp).
//
//   forward   h_0 = (x, embedding); h_(l+1) = norm(silu(w_l h_l + b_l)); the last layer is linear
//   VJP       d = wᵀ dy, back through norm and silu, with the y, rstd and silu' that the forward wrote; dx: the first D of h_0's
//
// x, dx (N, D), embedding (1 or N, E), of layer l: w packed as by conv2d_pack_f32, b (outputs), y and derivative (N, outputs),
// rstd (N). Every width is at most WIDTH = 256.
//
// A block owns 64 samples, a warp 8 of them with all their channels: a lane has every 32nd output of each, so that the norm's
// sums stay in the warp and so do the activations, (64, 256) floats of shared memory that a layer reads and replaces.
// Weights stream past in steps of 16 inputs by cp.async, two buffers, 16-byte chunks swizzled; products are FFMA, 256 for
// every 16 loads of 16 bytes, half of them broadcast. Sums: inputs in order, the norm's by butterflies, whatever the batch.
//
// Grid ⌈N / 64⌉, block 256, 128 registers, 96 KiB of shared memory, 2 blocks per SM. Per sample and pass: FLOPs 2 Σ_l inputs
// outputs; bytes 4 (2 D + Σ_hidden (2 outputs + 1)). For 5, 256, 256, 256, 5 with E = 64: 300 kFLOP and 6.2 kB, 4.5 ns at the
// 67 TFLOP/s of an H100: bound by FFMA, 1.9 ns by memory.
//
// allow-stack: mlp_forward_f32 for sm_80 keeps the index of the layer there, which it reads twice per layer
#include "conv2d.cuh"

namespace {

constexpr int ROW = 64, SAMPLES = 64, THREADS = 256, WIDTH = 256, STEP = ROW / 4, PER_WARP = 8, LAYERS = 8;
constexpr float LOG2E = 1.4426950408889634f, EPS = 1e-5f;

struct Layer {
  const float *w; // packed: [inputs / 16][rows][16]
  const float *b; // (outputs); the VJP has none
  // Of the hidden layer that ends (forward), or begins (VJP) here; forward: null where nothing is kept.
  float *y, *derivative, *rstd;
  int inputs, outputs, rows; // rows: outputs in the packing, of which the first `outputs` are wanted
};

struct MlpArgs {
  Layer layers[LAYERS]; // in the order in which the pass meets them
  const float *x;       // (N, features); the VJP's dy
  const float *extra;   // (extra_rows, extra_features): the embedding, or none
  float *out;           // (N, outputs of the last layer)
  int count, n, features, extra_features, extra_rows;
};

__device__ __forceinline__ int lane() { return threadIdx.x % 32; }
// The output that a lane's j-th sum is for.
__device__ __forceinline__ int output(int j) { return packed_channel(lane()) + 32 * j; }

// A warp's 8 samples.
struct Samples {
  int first, count; // in the batch; how many exist
  float *h;         // [8][WIDTH], this warp's own
};

// h = (x, extra), then zeros to a whole step.
__device__ __forceinline__ void load_input(const Samples &s, const MlpArgs &args) {
  const int width = args.features + args.extra_features;
#pragma unroll 1
  for (int i = 0; i < PER_WARP; i++)
    for (int c = lane(); c < (width + STEP - 1) / STEP * STEP; c += 32) {
      float v = 0.f;
      if (i < s.count && c < args.features) v = args.x[(size_t)(s.first + i) * args.features + c];
      if (i < s.count && c >= args.features && c < width)
        v = args.extra[(size_t)(args.extra_rows == 1 ? 0 : s.first + i) * args.extra_features + c - args.features];
      s.h[i * WIDTH + c] = v;
    }
}

// acc[i][j] = Σ_k h[i][k] w[k][output(j)].
template <int G>
__device__ __forceinline__ void multiply(float (&acc)[PER_WARP][G], const Samples &s, unsigned char *sw, const Layer &layer) {
  const int steps = (layer.inputs + STEP - 1) / STEP;
  const uint32_t to = smem_u32(sw);
  auto load_step = [&](int step) {
    for (int i = threadIdx.x; i < 32 * G * 4; i += THREADS) {
      const int row = i / 4, chunk = i % 4;
      const bool inside = row < layer.rows;
      cp_async_16(to + step % 2 * WIDTH * ROW + swizzled<ROW>(row, chunk),
                  inside ? layer.w + ((size_t)step * layer.rows + row) * STEP + chunk * 4 : layer.w, inside ? 16 : 0);
    }
    cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < PER_WARP; i++)
#pragma unroll
    for (int j = 0; j < G; j++) acc[i][j] = 0.f;

  __syncthreads(); // all are done with the buffers of the layer before
  load_step(0);
  for (int step = 0; step < steps; step++) {
    cp_async_wait<0>();
    __syncthreads();
    if (step + 1 < steps) load_step(step + 1);
#pragma unroll 1 // 16 loads and 256 products a turn; more turns in flight would not fit the registers
    for (int chunk = 0; chunk < 4; chunk++) {
      float w[G][4];
#pragma unroll
      for (int j = 0; j < G; j++)
        load(w[j], reinterpret_cast<const float *>(sw + step % 2 * WIDTH * ROW + swizzled<ROW>(lane() + 32 * j, chunk)));
#pragma unroll
      for (int i = 0; i < PER_WARP; i++) {
        float h[4];
        load(h, s.h + i * WIDTH + step * STEP + 4 * chunk);
#pragma unroll
        for (int j = 0; j < G; j++)
#pragma unroll
          for (int e = 0; e < 4; e++) acc[i][j] = fmaf(h[e], w[j][e], acc[i][j]);
      }
    }
  }
  __syncwarp(); // all lanes have read the warp's samples, which the caller replaces
}

template <int G> __device__ __forceinline__ void add_bias(float (&acc)[PER_WARP][G], const Layer &layer) {
#pragma unroll
  for (int j = 0; j < G; j++) {
    const float b = layer.b && output(j) < layer.outputs ? layer.b[output(j)] : 0.f;
#pragma unroll
    for (int i = 0; i < PER_WARP; i++) acc[i][j] += b;
  }
}

// Ends the pass.
template <int G>
__device__ __forceinline__ void store_output(float (&acc)[PER_WARP][G], const Samples &s, const Layer &layer, float *out) {
  add_bias(acc, layer);
#pragma unroll
  for (int i = 0; i < PER_WARP; i++)
#pragma unroll
    for (int j = 0; j < G; j++)
      if (i < s.count && output(j) < layer.outputs) out[(size_t)(s.first + i) * layer.outputs + output(j)] = acc[i][j];
}

// h = norm(silu(acc + b)), and zeros to a whole group.
template <int G>
__device__ __forceinline__ void finish_hidden(float (&acc)[PER_WARP][G], const Samples &s, const Layer &layer) {
  add_bias(acc, layer);
#pragma unroll
  for (int i = 0; i < PER_WARP; i++) {
    const uint32_t row = (s.first + i) * layer.outputs; // the host sees that it fits
    const bool keep = layer.y && i < s.count;
    float sum = 0.f, squares = 0.f;
#pragma unroll
    for (int j = 0; j < G; j++) {
      const int o = output(j);
      const float x = acc[i][j], t = __fdividef(1.f, 1.f + exp2_approx(-LOG2E * x)), z = x * t;
      if (keep && o < layer.outputs) layer.derivative[row + o] = fmaf(z, 1.f - t, t);
      acc[i][j] = o < layer.outputs ? z : 0.f;
      sum += acc[i][j];
    }
    const float mean = warp_sum(sum) / layer.outputs;
#pragma unroll
    for (int j = 0; j < G; j++) {
      acc[i][j] = output(j) < layer.outputs ? acc[i][j] - mean : 0.f;
      squares = fmaf(acc[i][j], acc[i][j], squares);
    }
    const float rstd = rsqrtf(warp_sum(squares) / layer.outputs + EPS);
    if (keep && lane() == 0) layer.rstd[s.first + i] = rstd;
#pragma unroll
    for (int j = 0; j < G; j++) {
      const int o = output(j);
      const float y = acc[i][j] * rstd;
      s.h[i * WIDTH + o] = y;
      if (keep && o < layer.outputs) layer.y[row + o] = y;
    }
  }
  __syncwarp();
}

// acc is the gradient of a hidden layer's y: h = that of its silu's argument, and zeros to a whole group.
template <int G>
__device__ __forceinline__ void begin_hidden(float (&acc)[PER_WARP][G], const Samples &s, const Layer &layer) {
#pragma unroll
  for (int i = 0; i < PER_WARP; i++) {
    const uint32_t row = (s.first + i) * layer.outputs; // the host sees that it fits
    float y[G], derivative[G], sum = 0.f, product = 0.f;
#pragma unroll
    for (int j = 0; j < G; j++) {
      const int o = output(j);
      const bool inside = i < s.count && o < layer.outputs;
      y[j] = inside ? layer.y[row + o] : 0.f;
      derivative[j] = inside ? layer.derivative[row + o] : 0.f;
      sum += o < layer.outputs ? acc[i][j] : 0.f;
      product = fmaf(acc[i][j], y[j], product);
    }
    const float rstd = i < s.count ? layer.rstd[s.first + i] : 0.f;
    const float mean = warp_sum(sum) / layer.outputs, mean_y = warp_sum(product) / layer.outputs;
#pragma unroll
    for (int j = 0; j < G; j++) s.h[i * WIDTH + output(j)] = derivative[j] * (rstd * (acc[i][j] - mean - y[j] * mean_y));
  }
  __syncwarp();
}

template <int N> struct Groups {
  static constexpr int value = N;
};
// f(the groups of 32 that hold n outputs, as a compile-time power of two)
template <class F> __device__ __forceinline__ void with_groups(int n, F f) {
  if (n <= 32) f(Groups<1>());
  else if (n <= 64) f(Groups<2>());
  else if (n <= 128) f(Groups<4>());
  else f(Groups<8>());
}

// Takes the samples of a block through all layers; `between` follows each but the last.
template <class F> __device__ __forceinline__ void run(const MlpArgs &args, F between) {
  DYN_SHARED(unsigned char, smem); // the samples, then two buffers of weights
  const int warp = threadIdx.x / 32, first = blockIdx.x * SAMPLES + warp * PER_WARP;
  const Samples s{first, max(0, min(PER_WARP, args.n - first)), reinterpret_cast<float *>(smem) + warp * PER_WARP * WIDTH};
  load_input(s, args);
  for (int l = 0; l < args.count; l++) {
    const Layer &layer = args.layers[l];
    with_groups(layer.outputs, [&](auto groups) {
      float acc[PER_WARP][decltype(groups)::value];
      multiply(acc, s, smem + SAMPLES * WIDTH * 4, layer);
      if (l + 1 < args.count) between(acc, s, layer);
      else store_output(acc, s, layer, args.out);
    });
  }
}

} // namespace

extern "C" __global__ void __launch_bounds__(THREADS, 2) mlp_forward_f32(const __grid_constant__ MlpArgs args) {
  run(args, [](auto &acc, const Samples &s, const Layer &layer) { finish_hidden(acc, s, layer); });
}
KERNEL_ENTRY(mlp_forward_f32)

extern "C" __global__ void __launch_bounds__(THREADS, 2) mlp_vjp_f32(const __grid_constant__ MlpArgs args) {
  run(args, [](auto &acc, const Samples &s, const Layer &layer) { begin_hidden(acc, s, layer); });
}
KERNEL_ENTRY(mlp_vjp_f32)
