/* How kernels run without a GPU: a loop over their threads, or a stack for each thread of a block where they meet.
 *
 * Threads that meet run in the order of their numbers, each until it waits for the others.  A value that is read before
 * a __syncthreads() which is missing is therefore the old one. */
#include "emulated_state.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

emulated::place emulated::here;

namespace {

enum { WARP = 32, MOST_THREADS = 1024 };

#ifdef __SANITIZE_ADDRESS__
constexpr size_t STACK_BYTES = 256 << 10, GUARD_BYTES = 4096;
#else
constexpr size_t STACK_BYTES = 64 << 10, GUARD_BYTES = 4096;
#endif

enum class waits { for_nothing, for_block, for_warp, over };

/* What a switch touches comes first, in one line of the cache. */
struct alignas(64) fibre {
  void *at[5]; /* where it left, as __builtin_setjmp() keeps it */
  waits what = waits::over;
  uint3 index;
  bool started = false;
  unsigned exchanges = 0;
  unsigned char slot[2][8]; /* of the last exchange and the one before it: others may still read that */
  std::unique_ptr<ucontext_t> context = std::make_unique<ucontext_t>(); /* that starts it */
  char *stack = nullptr;
  size_t colour = 0;    /* bytes left out at the top               */
  void *fake = nullptr; /* of AddressSanitizer, as are the next two */
  const void *bottom = nullptr;
  size_t bytes = 0;
};

struct warp {
  int lanes, waiting, over;
};

/* The block that runs. */
struct running_block {
  std::vector<fibre> fibres; /* never shrinks: stacks are kept */
  std::vector<warp> warps;
  fibre outside;
  char *stacks = nullptr;
  int count = 0, current = 0, waiting = 0, over = 0;
  const std::function<void()> *thread = nullptr;
  bool meets = false;
};
running_block &block = *new running_block; /* never destroyed: a kernel may still run when the program ends */

/* --- from stack to stack -------------------------------------------------------------------------------------- */

#ifdef __SANITIZE_ADDRESS__

void jump(fibre *from, fibre *to) {
  bool for_good = from->what == waits::over && from != &block.outside;
  __sanitizer_start_switch_fiber(for_good ? nullptr : &from->fake, to->bottom, to->bytes);
  swapcontext(from->context.get(), to->context.get());
  __sanitizer_finish_switch_fiber(from->fake, nullptr, nullptr);
}

#else

[[noreturn, gnu::noinline]] void start(fibre *own) {
  own->started = true;
  setcontext(own->context.get());
  abort();
}

/* The compiler's own pair of jumps: the C library's would take a tenth of all the time of the tests.  No call stands
 * between them, so that calls and returns stay pairs for the processor when a thread goes on where the other stopped. */
[[gnu::noinline]] void jump(fibre *from, fibre *to) {
  if (__builtin_setjmp(from->at) == 0) {
    if (to->started)
      __builtin_longjmp(to->at, 1);
    start(to);
  }
}

#endif

/* The next thread that waits for nothing, in turn. */
void leave() {
  fibre *own = &block.fibres[static_cast<size_t>(block.current)];
  if (block.over == block.count) {
    jump(own, &block.outside);
    return;
  }
  int next = block.current;
  do {
    next = next + 1 == block.count ? 0 : next + 1;
    if (block.fibres[static_cast<size_t>(next)].what == waits::for_nothing) {
      block.current = next;
      emulated::here.thread = block.fibres[static_cast<size_t>(next)].index;
      if (&block.fibres[static_cast<size_t>(next)] != own)
        jump(own, &block.fibres[static_cast<size_t>(next)]);
      return;
    }
  } while (next != block.current);
  emulated::undefined("the threads of a block wait for one another for ever: a __syncthreads() or a shuffle is not "
                      "reached by all");
}

/* --- meeting -------------------------------------------------------------------------------------------------- */

void release_block() {
  if (block.waiting == 0 || block.waiting + block.over < block.count)
    return;
  for (int i = 0; i < block.count; i++)
    if (block.fibres[static_cast<size_t>(i)].what == waits::for_block)
      block.fibres[static_cast<size_t>(i)].what = waits::for_nothing;
  block.waiting = 0;
}

void release_warp(int index) {
  warp &own = block.warps[static_cast<size_t>(index)];
  if (own.waiting == 0 || own.waiting + own.over < own.lanes)
    return;
  for (int i = index * WARP; i < index * WARP + own.lanes; i++)
    if (block.fibres[static_cast<size_t>(i)].what == waits::for_warp)
      block.fibres[static_cast<size_t>(i)].what = waits::for_nothing;
  own.waiting = 0;
}

fibre &current() {
  if (!block.meets)
    emulated::undefined("a kernel whose threads meet is started by LAUNCH; it takes LAUNCH_BLOCKS");
  return block.fibres[static_cast<size_t>(block.current)];
}

void finish() {
  fibre &own = current();
  own.what = waits::over;
  block.over++;
  block.warps[static_cast<size_t>(block.current / WARP)].over++;
  release_warp(block.current / WARP);
  release_block();
  leave();
}

/* A thread of one block after the other. */
void fibre_main() {
#ifdef __SANITIZE_ADDRESS__
  if (block.current == 0)
    __sanitizer_finish_switch_fiber(nullptr, &block.outside.bottom, &block.outside.bytes);
  else
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
  for (;;) {
    (*block.thread)();
    finish();
  }
}

/* --- blocks --------------------------------------------------------------------------------------------------- */

/* An odd number of pages from one to the next, and tops at different places of a page: or all would share the same few
 * lines of the caches and entries of the page tables' cache, and a switch would wait for memory. */
void give_stack(fibre &own, int index) {
  constexpr size_t APART = STACK_BYTES + 4096;
  if (block.stacks == nullptr) {
    void *memory =
        mmap(nullptr, MOST_THREADS * APART, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    block.stacks = memory == MAP_FAILED ? nullptr : static_cast<char *>(memory);
  }
  own.stack = block.stacks + static_cast<size_t>(index) * APART;
  if (block.stacks == nullptr || mprotect(own.stack, GUARD_BYTES, PROT_NONE) != 0)
    emulated::undefined("there is no memory for the stacks of a block");
  own.colour = static_cast<size_t>(index) * 320 % 8192;
}

/* A thread that begins anew, unless it waits for its next block already. */
void make_ready(fibre &own) {
  own.what = waits::for_nothing;
  own.exchanges = 0;
#ifdef __SANITIZE_ADDRESS__
  own.started = false;
#endif
  if (own.started)
    return;
  own.bottom = own.stack + GUARD_BYTES;
  own.bytes = STACK_BYTES - GUARD_BYTES - own.colour;
  getcontext(own.context.get());
  own.context->uc_stack.ss_sp = own.stack + GUARD_BYTES;
  own.context->uc_stack.ss_size = own.bytes;
  own.context->uc_link = nullptr;
  makecontext(own.context.get(), fibre_main, 0);
}

void run_block(const std::function<void()> &thread, dim3 threads) {
  block.count = static_cast<int>(threads.x * threads.y * threads.z);
  /* Before the first runs: contexts must not move. */
  if (block.fibres.empty())
    block.fibres.resize(MOST_THREADS);
  block.warps.assign(static_cast<size_t>((block.count + WARP - 1) / WARP), warp{WARP, 0, 0});
  if (block.count % WARP != 0)
    block.warps.back().lanes = block.count % WARP;
  int i = 0;
  for (unsigned z = 0; z < threads.z; z++)
    for (unsigned y = 0; y < threads.y; y++)
      for (unsigned x = 0; x < threads.x; x++, i++) {
        fibre &own = block.fibres[static_cast<size_t>(i)];
        if (own.stack == nullptr)
          give_stack(own, i);
        own.index = uint3{x, y, z};
        make_ready(own);
      }
  block.thread = &thread;
  block.waiting = block.over = block.current = 0;
  emulated::here.thread = block.fibres[0].index;
  block.outside.started = block.meets = true;
  jump(&block.outside, &block.fibres[0]);
  block.meets = false;
}

void run_loop(const std::function<void()> &thread, dim3 threads) {
  for (unsigned z = 0; z < threads.z; z++)
    for (unsigned y = 0; y < threads.y; y++)
      for (unsigned x = 0; x < threads.x; x++) {
        emulated::here.thread = uint3{x, y, z};
        thread();
      }
}

void run_kernel(bool meet, dim3 blocks, dim3 threads, const std::function<void()> &thread) {
  if (emulated::launch_fails())
    return;
  emulated::here.blocks = blocks;
  emulated::here.threads = threads;
  for (unsigned z = 0; z < blocks.z; z++)
    for (unsigned y = 0; y < blocks.y; y++)
      for (unsigned x = 0; x < blocks.x; x++) {
        emulated::here.block = uint3{x, y, z};
        if (meet)
          run_block(thread, threads);
        else
          run_loop(thread, threads);
      }
}

bool launchable(dim3 blocks, dim3 threads) {
  uint64_t in_block = static_cast<uint64_t>(threads.x) * threads.y * threads.z;
  return in_block >= 1 && in_block <= MOST_THREADS && threads.z <= 64 && blocks.x >= 1 && blocks.x <= 0x7fffffff &&
         blocks.y >= 1 && blocks.y <= 65535 && blocks.z >= 1 && blocks.z <= 65535;
}

} // namespace

cudaError_t emulated::launch(bool meet, dim3 blocks, dim3 threads, cudaStream_t stream, std::function<void()> thread) {
  if (!launchable(blocks, threads))
    return note(cudaErrorInvalidConfiguration);
  return enqueue(stream, [=] { run_kernel(meet, blocks, threads, thread); });
}

void emulated::meet_block() {
  fibre &own = current();
  own.what = waits::for_block;
  block.waiting++;
  release_block();
  if (own.what != waits::for_nothing)
    leave();
}

void emulated::meet_warp() {
  fibre &own = current();
  int index = block.current / WARP;
  own.what = waits::for_warp;
  block.warps[static_cast<size_t>(index)].waiting++;
  release_warp(index);
  if (own.what != waits::for_nothing)
    leave();
}

bool emulated::exchange(const void *bytes_own, size_t bytes, int from, void *other) {
  fibre &own = current();
  int index = block.current / WARP;
  unsigned turn = own.exchanges++;
  memcpy(own.slot[turn % 2], bytes_own, bytes);
  meet_warp();
  bool there = from >= 0 && from < block.warps[static_cast<size_t>(index)].lanes;
  /* A lane that ended earlier has given nothing. */
  there = there && block.fibres[static_cast<size_t>(index * WARP + from)].exchanges > turn;
  if (there)
    memcpy(other, block.fibres[static_cast<size_t>(index * WARP + from)].slot[turn % 2], bytes);
  else
    memset(other, 0xff, bytes);
  return there;
}

unsigned emulated::ballot(bool own) {
  unsigned all = 0;
  for (int from = 0; from < WARP; from++) {
    /* Each lane is asked in turn; slow, and simple. */
    int value = own, other = 0;
    if (exchange(&value, sizeof value, from, &other) && other != 0)
      all |= 1u << from;
  }
  return all;
}

int emulated::lane() {
  unsigned index = here.thread.x + here.threads.x * (here.thread.y + here.threads.y * here.thread.z);
  return static_cast<int>(index % WARP);
}
