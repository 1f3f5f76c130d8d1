// Launches: blocks are handed out to threads of the host, each of which runs one block at a time.
#include <csignal>
#include <sys/mman.h>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include "block.h"
#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace emu {
static const Kernel *kernels;
Kernel::Kernel(const char *name, void (*call)(void *const *), uint32_t count, const uint32_t *sizes)
    : name(name), call(call), count(count), sizes(sizes), next(kernels) {
  kernels = this;
}

// ---------------------------------------------------------------- faults become errors of the launch
#ifndef EMU_ASAN
static struct sigaction previous_action;
static void on_fault(int signal, siginfo_t *info, void *context) {
  if (const Fiber *f = current) {
    const char *address = (const char *)info->si_addr;
    if (address >= f->stack - PAGE && address < f->stack) fail("stack overflow: a thread's local variables have %zu KiB", STACK / 1024);
#ifdef SI_KERNEL
    if (info->si_code == SI_KERNEL) fail("misaligned 16-byte access, or a wild address");
#endif
    fail("access to invalid address %p, outside every device buffer", (const void *)address);
  }
  if (previous_action.sa_flags & SA_SIGINFO) previous_action.sa_sigaction(signal, info, context);
  else sigaction(signal, &previous_action, nullptr);      // the access is repeated, and met by the default
}
static void catch_faults() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;      // the handler does not return
    sigaction(SIGSEGV, &action, &previous_action);
  });
}
#else
static void catch_faults() {}
#endif

// The handler's stack: the faulting one may be full.
class SignalStack {
  stack_t previous_;

 public:
  static constexpr size_t SIZE = 64 * 1024;
  explicit SignalStack(char *memory) {
    stack_t stack{};
    stack.ss_sp = memory;
    stack.ss_size = SIZE;
    sigaltstack(&stack, &previous_);
  }
  ~SignalStack() { sigaltstack(&previous_, nullptr); }
};

// ---------------------------------------------------------------- what a thread of the host needs to run blocks
struct Worker {
  Block *block;
  char *signal_stack;
};
static std::mutex idle_lock;
static std::vector<Worker> idle;      // kept for the next launch

static char *map(size_t bytes) {
  void *p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) {
    perror("the emulator's stacks");
    abort();
  }
  return (char *)p;
}

static Worker take_worker() {
  {
    std::lock_guard<std::mutex> guard(idle_lock);
    if (!idle.empty()) {
      const Worker worker = idle.back();
      idle.pop_back();
      return worker;
    }
  }
  Block *b = new Block();
  b->stacks = map((STACK + PAGE) * MAX_THREADS);      // each above a guard page
  for (uint32_t t = 0; t < MAX_THREADS; t++) mprotect(b->stacks + t * (STACK + PAGE), PAGE, PROT_NONE);
  b->arena = map(ARENA + PAGE);
  mprotect(b->arena + ARENA, PAGE, PROT_NONE);
  if (RACE) b->shadow = (Cell *)map(sizeof(Cell) * (ARENA / GRAIN));
  return {b, map(SignalStack::SIZE)};
}
static void give_worker(Worker worker) {
  std::lock_guard<std::mutex> guard(idle_lock);
  idle.push_back(worker);
}

// ---------------------------------------------------------------- blocks
struct Launch {
  const Kernel *kernel;
  dim3 grid, block;
  uint32_t shared;
  void *const *args;
  const emu_config *config;
  uint64_t number;
};

static void prepare_thread(Block *b, uint32_t thread) {
  const dim3 size = b->view.size;
  Fiber &f = b->fibers[thread];
  f.index = {thread % size.x, thread / size.x % size.y, thread / size.x / size.y};
  f.thread = thread;
  f.proxy_fences = 0;
  f.block = b;
  f.stack = b->stacks + thread * (STACK + PAGE) + PAGE;
#ifdef EMU_ASAN
  __asan_unpoison_memory_region(f.stack, STACK);
#endif
  prepare_fiber(f);
  b->copies[thread].open.clear();
  b->copies[thread].groups.clear();
  b->warp_of[thread / 32].alive |= 1u << thread % 32;
  make_ready(b, thread / 32, 1u << thread % 32);
}

// Runs one block; b->failed and b->error tell how it went.
static void run_block(Block *b, const Launch &launch, uint64_t linear) {
  const dim3 grid = launch.grid, size = launch.block;
  b->view.index = {(unsigned)(linear % grid.x), (unsigned)(linear / grid.x % grid.y), (unsigned)(linear / grid.x / grid.y)};
  b->view.size = size;
  b->view.grid = grid;
  b->config = launch.config;
  b->kernel = launch.kernel;
  b->args = launch.args;
  b->launch = launch.number;
  b->threads = b->alive = size.x * size.y * size.z;
  b->warps = (b->threads + 31) / 32;
  b->warps_ready = 0;
  b->failed = false;
  b->random = (launch.config->seed + 1) * 0x9E3779B97F4A7C15ull + linear * 0xD1B54A32D192ED03ull;
  if (!b->random) b->random = 1;
  const uint32_t policy = launch.config->policy;
  b->warp = policy == REVERSE ? b->warps - 1 : policy == RANDOM ? b->next_random() % b->warps : 0;

  reset_shared(b, launch.shared);
  for (uint32_t w = 0; w < MAX_WARPS; w++) {
    b->warp_of[w] = Warp{};
    b->warp_of[w].clock.seen.clock[w] = 1;
    b->wgmmas[w] = WgmmaQueue{};
    b->mbarrier_waiting[w] = 0;
  }
  for (Barrier &barrier : b->barriers) barrier = Barrier{};
  b->mbarrier_clocks.clear();
  b->tasks.clear();
  for (uint32_t t = 0; t < b->threads; t++) prepare_thread(b, t);

  enter_fibers(pick(b));
  if (!b->failed) check_red_zones(b);
}

static int run(const Launch &launch, char *error, size_t error_size) {
  static std::atomic<uint64_t> launches;
  Launch numbered = launch;
  numbered.number = ++launches;
  catch_faults();
  const uint64_t blocks = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex error_lock;
  auto work = [&] {
    const Worker worker = take_worker();
    const SignalStack signal_stack(worker.signal_stack);
    forget_last_buffer();
    for (uint64_t i; !failed && (i = next++) < blocks;) {
      run_block(worker.block, numbered, launch.config->policy == REVERSE ? blocks - 1 - i : i);
      if (!worker.block->failed) continue;
      std::lock_guard<std::mutex> guard(error_lock);
      if (!failed) snprintf(error, error_size, "%s", worker.block->error);
      failed = true;
    }
    give_worker(worker);
  };
  // The race checker's cells are not guarded against other threads of the host.
  uint64_t workers = RACE ? 1 : launch.config->os_threads ? launch.config->os_threads : std::thread::hardware_concurrency();
  if (workers > blocks) workers = blocks;
  std::vector<std::thread> threads;
  for (uint64_t i = 1; i < workers; i++) threads.emplace_back(work);
  work();
  for (std::thread &t : threads) t.join();
  return failed;
}
}  // namespace emu
using namespace emu;

EMU_API void emu_kernels(void (*each)(void *context, const char *name), void *context) {
  for (const Kernel *k = kernels; k; k = k->next) each(context, k->name);
}

// Runs a kernel to its end: 0, or 1 with a message in `error`.
EMU_API int emu_launch(const char *name, const uint32_t grid[3], const uint32_t block[3], uint32_t shared, void *const *args,
                       const uint32_t *sizes, uint32_t count, const emu_config *config, char *error, size_t error_size) {
  const Kernel *k = kernels;
  while (k && strcmp(k->name, name)) k = k->next;
  auto refuse = [&](const char *format, auto... values) {
    snprintf(error, error_size, format, name, values...);
    return 1;
  };
  if (!k) return refuse("no kernel is named %s");
  if (count != k->count) return refuse("%s: %u arguments, the kernel takes %u", count, k->count);
  for (uint32_t i = 0; i < count; i++)
    if (sizes[i] != k->sizes[i]) return refuse("%s: argument %u has %u bytes, the kernel takes %u", i, sizes[i], k->sizes[i]);
  const uint64_t threads = (uint64_t)block[0] * block[1] * block[2], blocks = (uint64_t)grid[0] * grid[1] * grid[2];
  const bool fits = threads && threads <= MAX_THREADS && block[2] <= 64 && blocks && grid[0] < 1u << 31 && grid[1] < 1u << 16 &&
                    grid[2] < 1u << 16 && blocks < 0xffffffff && shared <= ARENA - 1024;
  if (!fits)
    return refuse("%s: a launch of grid (%u,%u,%u), block (%u,%u,%u) and %u bytes of shared memory is not possible", grid[0], grid[1], grid[2],
                  block[0], block[1], block[2], shared);
  return run({k, dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), shared, args, config, 0}, error, error_size);
}
