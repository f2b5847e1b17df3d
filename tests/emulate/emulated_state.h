/* What the files of the emulated runtime share: its state, and how work is done. */
#ifndef CONR_TESTS_EMULATED_STATE_H
#define CONR_TESTS_EMULATED_STATE_H

#include "emulated_cuda.h"

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace emulated {

/* A piece of work: is it over? */
using attempt_function = std::function<bool()>;

struct record;

/* An event that a graph records for those outside, and its records of launches that are not done yet. */
struct launched_event {
  cudaEvent_t event;
  std::shared_ptr<std::deque<std::shared_ptr<record>>> coming;
};

/* Between cudaStreamBeginCapture() and cudaStreamEndCapture(), and what became of it. */
struct capture {
  cudaStream_t origin;
  std::set<cudaStream_t> streams;
  std::vector<attempt_function> work;        /* in the order in which it was queued */
  std::vector<struct launched_event> events; /* that each launch records */
  bool outside = false;                      /* some of it may wait for another process */
  bool invalid = false;
};

/* Where an event stands: work number `position` of a stream, or of a stream's part in a capture. */
struct record {
  cudaStream_t stream = nullptr;
  uint64_t position = 0;
  std::shared_ptr<capture> captured;
  bool done = false;
  double seconds = 0;
  int queries = 0;
};

struct piece {
  attempt_function attempt;
  bool outside;   /* may wait for another process */
  double seconds; /* when it was queued           */
};

struct memory_block {
  size_t bytes;
  bool pinned;
};

} // namespace emulated

struct CUstream_st {
  std::deque<emulated::piece> queue;
  uint64_t queued = 0, done = 0;
  int queries = 0;
  bool busy = false;
  std::shared_ptr<emulated::capture> captured;
  uint64_t captured_count = 0;
  bool unjoined = false; /* has work in the capture for which no other stream of it waits */
};

struct CUevent_st {
  std::shared_ptr<emulated::record> last;
  bool timing;
};

struct CUgraph_st {
  std::shared_ptr<emulated::capture> own;
};

struct CUgraphExec_st {
  std::shared_ptr<emulated::capture> own;
};

namespace emulated {

struct state {
  std::recursive_mutex lock;
  std::map<uintptr_t, memory_block> memory;
  size_t used = 0; /* bytes of device memory         */
  int users = 0;   /* of device memory at this moment */
  std::set<cudaStream_t> streams;
  CUstream_st legacy;               /* the stream NULL                     */
  cudaError_t failed = cudaSuccess; /* then all that follows fails so      */
  long kernels = 0, fault = 0;      /* launches so far; which of them fails */
  long kept = 0, unkept = 0;        /* pieces kept in graphs so far; which of them cannot be */
  bool eager = false, engine = false;
};

state &the();

using guard = std::lock_guard<std::recursive_mutex>;

double seconds_now();

/* NULL is a stream too. */
cudaStream_t resolve(cudaStream_t stream);
bool known(cudaStream_t stream);

cudaError_t queue(cudaStream_t stream, attempt_function attempt, bool outside);

/* Do the work of a stream up to `position`, or of all.  False: it must wait for another process.  Under the lock. */
bool run_to(cudaStream_t stream, uint64_t position);
bool run_all();
bool reach(const std::shared_ptr<record> &place);

/* Until `over` says true; others may use the emulation between two attempts. */
template <class Over> void wait_until(Over over) {
  for (;;) {
    {
      guard hold(the().lock);
      if (over())
        return;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

/* Device memory can be touched while one of these lives, and at no other time: the host may not.  Under the lock. */
struct access {
  access();
  ~access();
};

/* What this thread captures. */
extern thread_local std::shared_ptr<capture> own_capture;

/* For calls that a thread may not make while it captures: true, and the capture is spoilt. */
bool unsafe_now();

/* Bytes of device memory in all. */
size_t memory_total();

/* Counts kernels; true: this one is to fail. */
bool launch_fails();

} // namespace emulated

#endif
