// Fibers: a stack per CUDA thread and a switch that saves what the calling convention asks a callee to save.
#include "block.h"
#ifdef EMU_ASAN
#include <pthread.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the stack pointer at *save and goes on at `to`.
extern "C" void emu_switch(void **save, void *to);

#if defined(__x86_64__)
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch,@function
emu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emu_switch,.-emu_switch
)");
constexpr int SAVED = 8, RETURN_ADDRESS = 6;      // words: six registers, the return address, and one that aligns the stack
#elif defined(__aarch64__)
asm(R"(
.text
.globl emu_switch
.hidden emu_switch
.type emu_switch,@function
emu_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
.size emu_switch,.-emu_switch
)");
constexpr int SAVED = 20, RETURN_ADDRESS = 11;    // x19 to x30, of which x30 is the return address, and d8 to d15
#else
#error "the emulator's fibers know x86-64 and aarch64"
#endif

namespace emu {
__thread Fiber *current __attribute__((tls_model("initial-exec")));
#ifdef EMU_ASAN
const size_t STACK = 256 * 1024;
#else
const size_t STACK = 64 * 1024;
#endif

// AddressSanitizer has to be told of every change of stack; these do nothing in the other builds.
static void before_switch(void **fake_stack, const void *stack, size_t size) {
#ifdef EMU_ASAN
  __sanitizer_start_switch_fiber(fake_stack, stack, size);
#else
  (void)fake_stack, (void)stack, (void)size;
#endif
}
static void after_switch(void *fake_stack) {
#ifdef EMU_ASAN
  const void *from;
  size_t size;
  __sanitizer_finish_switch_fiber(fake_stack, &from, &size);
#else
  (void)fake_stack;
#endif
}

[[noreturn]] static void start() {
  after_switch(current->asan_fake_stack);
  fiber_main();
  __builtin_unreachable();
}

void prepare_fiber(Fiber &f) {
  f.asan_fake_stack = nullptr;
  // Staggered, else the hot frames of all fibers fall into the same sets of the cache.
  const uintptr_t top = ((uintptr_t)f.stack + STACK - 64 - f.thread % 61 * 192) & ~(uintptr_t)15;
  void **frame = (void **)top - SAVED;
  for (int i = 0; i < SAVED; i++) frame[i] = nullptr;
  frame[RETURN_ADDRESS] = (void *)start;
  f.stack_pointer = frame;
}

void enter_fibers(Fiber *first) {
  Block *b = first->block;
  current = first;
#ifdef EMU_ASAN
  pthread_attr_t attributes;                      // the way back needs the bounds of this stack
  void *stack;
  pthread_getattr_np(pthread_self(), &attributes);
  pthread_attr_getstack(&attributes, &stack, &b->host_stack_size);
  pthread_attr_destroy(&attributes);
  b->host_stack = stack;
#endif
  void *fake_stack = nullptr;
  before_switch(&fake_stack, first->stack, STACK);
  emu_switch(&b->host_stack_pointer, first->stack_pointer);
  after_switch(fake_stack);
  current = nullptr;
}

[[noreturn]] void leave_fibers() {
  Block *b = current->block;
  void *never;
  before_switch(nullptr, b->host_stack, b->host_stack_size);
  emu_switch(&never, b->host_stack_pointer);
  __builtin_unreachable();
}

void switch_to(Fiber *to) {
  Fiber *from = current;
  if (to == from) return;
  current = to;
  before_switch(&from->asan_fake_stack, to->stack, STACK);
  emu_switch(&from->stack_pointer, to->stack_pointer);
  after_switch(current->asan_fake_stack);
}

[[noreturn]] void exit_to(Fiber *to) {
  void *never;
  current = to;
  before_switch(nullptr, to->stack, STACK);
  emu_switch(&never, to->stack_pointer);
  __builtin_unreachable();
}
}  // namespace emu
