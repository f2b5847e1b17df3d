/* What the parts of the emulation share: how work gets into a stream, and how kernels run.
 *
 *     extern "C" ncclResult_t ncclAllReduce(..., cudaStream_t stream) {
 *       return emulated::enqueue(stream, [=] { ... }) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
 *     }
 *
 * Work is kept as a closure and done when somebody must have it (emulated_cuda.cc); it may not rely on memory of the
 * caller that goes away.  All work of the process is done one piece after another, under one lock. */
#ifndef CONR_TESTS_EMULATED_CUDA_H
#define CONR_TESTS_EMULATED_CUDA_H

#include <cuda_runtime.h>

#include <functional>

namespace emulated {

/* Queue `work` on a stream, or record it where the stream is being captured.  The error is that of the stream. */
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

/* The same for what may have to wait for another process: `attempt` says whether it is over now, and is called again
 * until it is.  Whoever waits for it on the host gives others a chance between two attempts; a query says "not ready";
 * and a thread of the emulation goes on with the stream though nobody on this side waits, as a GPU would.
 * In a graph it is called anew for each launch: it must start from the beginning after it said true. */
cudaError_t enqueue_attempts(cudaStream_t stream, std::function<bool()> attempt);

/* Note an error as the runtime does, for cudaGetLastError(), and return it. */
cudaError_t note(cudaError_t code);

/* Does all of [address, address + bytes) lie in device memory (or in pinned memory, which devices see too)?  For checks
 * of arguments: loud is better than late. */
bool on_device(const void *address, size_t bytes);

/* --- for emulated_launch.h ---------------------------------------------------------------------------------- */

/* Where a thread of a kernel stands. */
struct place {
  uint3 thread, block;
  dim3 threads, blocks;
};

/* Of the thread that runs now: no two run at once. */
extern place here __attribute__((visibility("hidden")));

/* Queue a kernel; `meet`: its threads know of one another. */
cudaError_t launch(bool meet, dim3 blocks, dim3 threads, cudaStream_t stream, std::function<void()> thread);

/* Within such a kernel. */
void meet_block();
void meet_warp();
/* `own` (at most 8 bytes) of all lanes of this warp are exchanged; *other is that of lane `from`, all bits set if there
 * is none.  Returns whether there is one. */
bool exchange(const void *own, size_t bytes, int from, void *other);
unsigned ballot(bool own);
int lane();

/* Ends the program: what a GPU leaves undefined. */
[[noreturn]] void undefined(const char *what);

} // namespace emulated

#endif
