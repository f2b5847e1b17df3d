/* Device and pinned memory of the emulated runtime, and copies, which check that both ends lie within their blocks.
 *
 * Device memory is locked while no work is done (mostly: it is slow): a host that touches it ends the program, as it
 * would with a GPU.  What a kernel writes beyond the end of a block is found when the block is freed (AddressSanitizer
 * finds it at once), and what it reads there is NaN. */
#include "emulated_state.h"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

using emulated::guard;
using emulated::known;
using emulated::note;
using emulated::resolve;
using emulated::the;
using emulated::unsafe_now;
using emulated::wait_until;

namespace {

/* The block that holds an address, or NULL: memory that CUDA knows nothing of. */
const std::pair<const uintptr_t, emulated::memory_block> *block_at(const void *address) {
  auto after = the().memory.upper_bound(reinterpret_cast<uintptr_t>(address));
  if (after == the().memory.begin())
    return nullptr;
  const auto &block = *std::prev(after);
  return reinterpret_cast<uintptr_t>(address) < block.first + std::max<size_t>(block.second.bytes, 1) ? &block
                                                                                                      : nullptr;
}

enum class home { device, pinned, pageable, outside };

/* Where [address, address + bytes) lies; outside = it goes beyond its block. */
home home_of(const void *address, size_t bytes) {
  const auto *block = block_at(address);
  if (block == nullptr)
    return home::pageable;
  if (reinterpret_cast<uintptr_t>(address) + bytes > block->first + block->second.bytes)
    return home::outside;
  return block->second.pinned ? home::pinned : home::device;
}

} // namespace

size_t emulated::memory_total() {
  const char *text = getenv("EMULATED_CUDA_MEMORY");
  return text != nullptr ? strtoull(text, nullptr, 10) : static_cast<size_t>(8) << 30;
}

namespace {

constexpr size_t PAGE = 4096, LINE = 256;

size_t whole(size_t bytes, size_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

/* --- where device memory lies --------------------------------------------------------------------------------- */

/* One range of addresses, so that one call locks it all. */
struct addresses {
  char *start = nullptr;
  size_t bytes = 0, used = 0;     /* of addresses; up to where blocks ever lay */
  std::map<size_t, size_t> holes; /* place and bytes of what was freed below `used` */
  bool guarded = false;
  size_t unlocked = 0;  /* bytes from the start                  */
  double locked_at = 0; /* when it was locked last, in seconds  */
  double cost = 0;      /* of unlocking it then, in seconds     */
  /* What is done when memory is unlocked next: fill blocks with NaN, look whether freed ones were left.  [place,
   * bytes] */
  std::vector<std::pair<char *, size_t>> fresh, freed;
  struct sigaction before;
};
addresses &arena = *new addresses; /* never destroyed: work may still run when the program ends */

/* Says what happened; then the fault comes again, to whom it would have come. */
void explain(int number, siginfo_t *fault, void *) {
  const char *address = static_cast<const char *>(fault->si_addr);
  sigaction(number, &arena.before, nullptr);
  if (address < arena.start || address >= arena.start + arena.bytes)
    return;
  const auto *block = block_at(address);
  if (block == nullptr)
    fprintf(stderr, "emulated CUDA: device memory is touched where no block lies\n");
  else
    fprintf(stderr, "emulated CUDA: the host touches device memory (byte %td of a block of %zu)\n",
            address - reinterpret_cast<const char *>(block->first), block->second.bytes);
}

void protect(const char *from, size_t bytes, int how) {
  char *page = arena.start + static_cast<size_t>(from - arena.start) / PAGE * PAGE;
  if (arena.guarded && mprotect(page, whole(static_cast<size_t>(from - page) + bytes, PAGE), how) != 0)
    emulated::undefined("device memory cannot be locked");
}

/* Fragments of freed blocks do not count as used: there are more addresses than memory. */
bool arena_open() {
  if (arena.start != nullptr)
    return true;
  const char *open = getenv("EMULATED_CUDA_OPEN");
  arena.guarded = open == nullptr || strcmp(open, "1") != 0;
  arena.bytes = whole(4 * emulated::memory_total(), PAGE) + (static_cast<size_t>(1) << 30);
  void *start = mmap(nullptr, arena.bytes, arena.guarded ? PROT_NONE : PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED)
    return false;
  arena.start = static_cast<char *>(start);
  if (arena.guarded) {
    struct sigaction action = {};
    action.sa_sigaction = explain;
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &arena.before);
  }
  return true;
}

/* A place for that many bytes, the first that is free. */
char *arena_take(size_t room) {
  for (auto hole = arena.holes.begin(); hole != arena.holes.end(); ++hole) {
    auto [place, bytes] = *hole;
    if (bytes < room)
      continue;
    arena.holes.erase(hole);
    if (bytes > room)
      arena.holes[place + room] = bytes - room;
    return arena.start + place;
  }
  if (arena.bytes - arena.used < room)
    return nullptr;
  arena.used += room;
  return arena.start + arena.used - room;
}

void arena_give(size_t place, size_t room) {
  auto after = arena.holes.lower_bound(place);
  if (after != arena.holes.end() && after->first == place + room) {
    room += after->second;
    after = arena.holes.erase(after);
  }
  if (after != arena.holes.begin() && std::prev(after)->first + std::prev(after)->second == place)
    std::prev(after)->second += room;
  else
    arena.holes[place] = room;
}

/* With what lies after it, which nobody may write. */
size_t room_of(size_t bytes) {
  return whole(bytes, LINE) + LINE;
}

/* NaN in every floating type, and no likely integer. */
char *pinned_block(size_t bytes) {
  void *block;
  if (posix_memalign(&block, LINE, bytes) != 0)
    return nullptr;
  return static_cast<char *>(memset(block, 0xff, bytes));
}

char *device_block(size_t bytes) {
  size_t room = room_of(bytes);
  char *block = arena_open() ? arena_take(room) : nullptr;
  if (block != nullptr)
    arena.fresh.emplace_back(block, bytes);
  return block;
}

/* [from, from + bytes) becomes NaN.  Whole pages of much memory are mapped to ones that are so, and copied when they are
 * written: of 32 MiB of workspace for a product, a test touches little. */
void fill(char *from, size_t bytes) {
  static const size_t PIECE = static_cast<size_t>(2) << 20;
  static int pattern = -1;
  if (bytes >= 2 * PIECE && pattern < 0) {
    std::vector<char> nan(PIECE, static_cast<char>(0xff));
    pattern = memfd_create("emulated CUDA", MFD_CLOEXEC);
    if (pattern < 0 || write(pattern, nan.data(), PIECE) != static_cast<ssize_t>(PIECE))
      emulated::undefined("there is no memory for what device memory holds at first");
  }
  size_t before = (PAGE - reinterpret_cast<uintptr_t>(from) % PAGE) % PAGE;
  if (bytes >= 2 * PIECE) {
    memset(from, 0xff, before);
    for (from += before, bytes -= before; bytes >= PAGE;) {
      size_t piece = std::min(bytes / PAGE * PAGE, PIECE);
      if (mmap(from, piece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, pattern, 0) == MAP_FAILED)
        emulated::undefined("device memory cannot be mapped");
      from += piece, bytes -= piece;
    }
  }
  memset(from, 0xff, bytes);
}

void settle() {
  for (auto [block, bytes] : arena.fresh) {
    size_t room = room_of(bytes);
#ifdef __SANITIZE_ADDRESS__
    __asan_unpoison_memory_region(block, room);
#endif
    fill(block, room);
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(block + bytes, room - bytes);
#endif
  }
  arena.fresh.clear();
  for (auto [block, bytes] : arena.freed) {
    size_t room = room_of(bytes);
#ifdef __SANITIZE_ADDRESS__
    __asan_poison_memory_region(block, room);
#else
    for (size_t i = bytes; i < room; i++)
      if (static_cast<unsigned char>(block[i]) != 0xff) {
        fprintf(stderr, "emulated CUDA: byte %zu of a block of %zu was written\n", i, bytes);
        emulated::undefined("a kernel went beyond the end of its memory");
      }
#endif
    arena_give(static_cast<size_t>(block - arena.start), room);
  }
  arena.freed.clear();
}

} // namespace

namespace {

void unlock() {
  if (arena.unlocked < arena.used) {
    double began = emulated::seconds_now();
    protect(arena.start + arena.unlocked, arena.used - arena.unlocked, PROT_READ | PROT_WRITE);
    arena.cost += emulated::seconds_now() - began;
  }
  arena.unlocked = arena.used;
  settle();
}

/* At most twenty times a second, and for a twentieth of the time: it is slow, and a host that errs does so again. */
void lock() {
  double now = emulated::seconds_now(), open = now - arena.locked_at;
  if (arena.unlocked == 0 || open < 0.05 || open < 20 * arena.cost)
    return;
  protect(arena.start, arena.unlocked, PROT_NONE);
  arena.unlocked = 0;
  arena.locked_at = emulated::seconds_now();
  arena.cost = arena.locked_at - now;
}

} // namespace

emulated::access::access() {
  if (the().users++ == 0)
    unlock();
}

emulated::access::~access() {
  if (--the().users == 0)
    lock();
}

namespace {

/* --- blocks --------------------------------------------------------------------------------------------------- */

cudaError_t allocate(void **out, size_t bytes, bool pinned) {
  guard hold(the().lock);
  *out = nullptr;
  if (unsafe_now())
    return note(cudaErrorStreamCaptureUnsupported);
  if (the().failed != cudaSuccess)
    return note(the().failed);
  if (bytes == 0)
    return cudaSuccess;
  if (!pinned && (bytes > emulated::memory_total() || the().used > emulated::memory_total() - bytes))
    return note(cudaErrorMemoryAllocation);
  *out = pinned ? pinned_block(bytes) : device_block(bytes);
  if (*out == nullptr)
    return note(cudaErrorMemoryAllocation);
  the().memory[reinterpret_cast<uintptr_t>(*out)] = emulated::memory_block{bytes, pinned};
  the().used += pinned ? 0 : bytes;
  if (!pinned && the().users > 0) /* whoever holds it open wants it now */
    unlock();
  return cudaSuccess;
}

cudaError_t release(void *address, bool pinned) {
  if (address == nullptr)
    return cudaSuccess;
  if (unsafe_now())
    return note(cudaErrorStreamCaptureUnsupported);
  wait_until(emulated::run_all);
  guard hold(the().lock);
  auto found = the().memory.find(reinterpret_cast<uintptr_t>(address));
  if (found == the().memory.end() || found->second.pinned != pinned)
    return note(cudaErrorInvalidValue);
  the().used -= pinned ? 0 : found->second.bytes;
  size_t bytes = found->second.bytes;
  the().memory.erase(found);
  if (pinned)
    free(address);
  else
    arena.freed.emplace_back(static_cast<char *>(address), bytes);
  return cudaSuccess;
}

/* Do the places fit what the caller says they are? */
bool fits(home to, home from, cudaMemcpyKind kind) {
  if (to == home::outside || from == home::outside)
    return false;
  switch (kind) {
  case cudaMemcpyHostToHost:
    return to != home::device && from != home::device;
  case cudaMemcpyHostToDevice:
    return to == home::device && from != home::device;
  case cudaMemcpyDeviceToHost:
    return to != home::device && from == home::device;
  case cudaMemcpyDeviceToDevice:
    return to == home::device && from == home::device;
  default:
    return true;
  }
}

/* Rows of `width` bytes, packed. */
std::shared_ptr<std::vector<char>> packed(const void *from, size_t pitch, size_t width, size_t height) {
  auto copy = std::make_shared<std::vector<char>>(width * height);
  for (size_t row = 0; row < height; row++)
    memcpy(copy->data() + row * width, static_cast<const char *>(from) + row * pitch, width);
  return copy;
}

void copy_rows(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height) {
  for (size_t row = 0; row < height; row++)
    memcpy(static_cast<char *>(to) + row * to_pitch, static_cast<const char *>(from) + row * from_pitch, width);
}

cudaError_t copy(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width, size_t height,
                 cudaMemcpyKind kind, cudaStream_t stream) {
  if (width == 0 || height == 0)
    return cudaSuccess;
  if (to == nullptr || from == nullptr || (height > 1 && (to_pitch < width || from_pitch < width)))
    return note(cudaErrorInvalidValue);
  std::unique_lock<std::recursive_mutex> hold(the().lock);
  home to_home = home_of(to, (height - 1) * to_pitch + width),
       from_home = home_of(from, (height - 1) * from_pitch + width);
  if (!fits(to_home, from_home, kind))
    return note(cudaErrorInvalidValue);
  bool capturing = known(resolve(stream)) && resolve(stream)->captured;
  if (from_home == home::pageable && to_home == home::device && !capturing) {
    auto staged = packed(from, from_pitch, width, height);
    return emulated::enqueue(stream, [=] { copy_rows(to, to_pitch, staged->data(), width, width, height); });
  }
  cudaError_t code = emulated::enqueue(stream, [=] { copy_rows(to, to_pitch, from, from_pitch, width, height); });
  hold.unlock();
  /* Between two places of the host CUDA waits. */
  if (code == cudaSuccess && to_home != home::device && from_home != home::device && !capturing)
    return cudaStreamSynchronize(stream);
  return code;
}

} // namespace

bool emulated::on_device(const void *address, size_t bytes) {
  guard hold(the().lock);
  home where = home_of(address, bytes);
  return where == home::device || where == home::pinned;
}

extern "C" {

cudaError_t cudaMalloc(void **out, size_t bytes) {
  return allocate(out, bytes, false);
}

cudaError_t cudaFree(void *address) {
  return release(address, false);
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned) {
  return allocate(out, bytes, true);
}

cudaError_t cudaMallocHost(void **out, size_t bytes) {
  return allocate(out, bytes, true);
}

cudaError_t cudaFreeHost(void *address) {
  return release(address, true);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *total) {
  guard hold(the().lock);
  *total = emulated::memory_total();
  *available = *total > the().used ? *total - the().used : 0;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *attributes, const void *address) {
  guard hold(the().lock);
  home where = home_of(address, 0);
  memset(attributes, 0, sizeof *attributes);
  attributes->type = where == home::device   ? cudaMemoryTypeDevice
                     : where == home::pinned ? cudaMemoryTypeHost
                                             : cudaMemoryTypeUnregistered;
  attributes->device = where == home::pageable ? -2 : 0;
  attributes->devicePointer = where == home::pageable ? nullptr : const_cast<void *>(address);
  attributes->hostPointer = where == home::device ? nullptr : const_cast<void *>(address);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy(to, bytes, from, bytes, bytes, 1, kind, stream);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy(to, to_pitch, from, from_pitch, width, height, kind, stream);
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0)
    return cudaSuccess;
  if (!emulated::on_device(to, bytes))
    return note(cudaErrorInvalidValue);
  return emulated::enqueue(stream, [=] { memset(to, value, bytes); });
}

} // extern "C"
