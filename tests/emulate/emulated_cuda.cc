/* The CUDA runtime without a GPU: device memory is memory, streams are queues, and nothing is done before somebody must
 * have it: the host that waits, or a stream that waits for an event of another.  So a missing event shows as a wrong
 * result, and device memory that nobody wrote as NaN.
 *
 *   EMULATED_CUDA_DEVICES  how many GPUs there are (1); 0 = none, "nodriver" = no driver, "olddriver" = one that is too old
 *   EMULATED_CUDA_MEMORY   bytes of each (8 GiB)
 *   EMULATED_CUDA_CAPABILITY  of each, ten times (90)
 *   EMULATED_CUDA_EAGER    1 = all is done when it is queued
 *   EMULATED_CUDA_OPEN     1 = the host may touch device memory, which otherwise ends the program
 *   EMULATED_CUDA_UNKEPT   the number of the piece of work that cannot be kept in a graph
 *   EMULATED_CUDA_FAULT    the number of the kernel launch that fails when it is done, and all after it */
#include "emulated_state.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <omp.h>

using emulated::capture;
using emulated::guard;
using emulated::known;
using emulated::note;
using emulated::own_capture;
using emulated::queue;
using emulated::reach;
using emulated::record;
using emulated::resolve;
using emulated::run_to;
using emulated::the;
using emulated::unsafe_now;
using emulated::wait_until;

thread_local std::shared_ptr<capture> emulated::own_capture;

/* Never destroyed: threads may outlive main(). */
emulated::state &emulated::the() {
  static state *own = [] {
    auto *made = new state;
    const char *eager = getenv("EMULATED_CUDA_EAGER"), *fault = getenv("EMULATED_CUDA_FAULT"),
               *unkept = getenv("EMULATED_CUDA_UNKEPT");
    made->eager = eager != nullptr && strcmp(eager, "1") == 0;
    made->fault = fault != nullptr ? atol(fault) : 0;
    made->unkept = unkept != nullptr ? atol(unkept) : 0;
    made->streams.insert(&made->legacy);
    return made;
  }();
  return *own;
}

double emulated::seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

cudaStream_t emulated::resolve(cudaStream_t stream) {
  return stream == nullptr ? &the().legacy : stream;
}

bool emulated::known(cudaStream_t stream) {
  return the().streams.count(stream) != 0;
}

/* --- doing the work ------------------------------------------------------------------------------------------- */

bool emulated::run_to(cudaStream_t stream, uint64_t position) {
  if (stream->busy)
    undefined("work of a stream waits for the stream itself");
  if (stream->done >= position)
    return true;
  access hold;
  while (stream->done < position) {
    stream->busy = true;
    bool over = stream->queue.front().attempt();
    stream->busy = false;
    if (!over)
      return false;
    stream->queue.pop_front();
    stream->done++;
  }
  return true;
}

bool emulated::reach(const std::shared_ptr<record> &place) {
  return place->done || run_to(place->stream, place->position);
}

bool emulated::run_all() {
  bool over = true, any = false;
  for (cudaStream_t stream : the().streams)
    any = any || stream->done < stream->queued;
  if (!any)
    return true;
  access hold;
  for (cudaStream_t stream : the().streams)
    over = run_to(stream, stream->queued) && over;
  return over;
}

namespace {

/* What waits for another process goes on by itself after a while: that process may wait for this one, whose host is
 * elsewhere.  As many threads for products as the others take: or the bits would depend on who does the work. */
void engine(int threads) {
  const double patience = 0.02;
  omp_set_num_threads(threads);
  for (;;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    guard hold(the().lock);
    for (cudaStream_t stream : the().streams) {
      uint64_t position = stream->done, wanted = stream->done;
      for (const emulated::piece &own : stream->queue) {
        position++;
        if (own.outside && emulated::seconds_now() - own.seconds > patience)
          wanted = position;
      }
      run_to(stream, wanted);
    }
  }
}

} // namespace

bool emulated::unsafe_now() {
  if (own_capture)
    own_capture->invalid = true;
  return own_capture != nullptr;
}

cudaError_t emulated::queue(cudaStream_t stream, attempt_function attempt, bool outside) {
  stream = resolve(stream);
  guard hold(the().lock);
  if (!known(stream))
    return note(cudaErrorInvalidResourceHandle);
  if (stream->captured) {
    if (stream->captured->invalid)
      return note(cudaErrorStreamCaptureInvalidated);
    if (++the().kept == the().unkept) {
      stream->captured->invalid = true;
      return note(cudaErrorStreamCaptureUnsupported);
    }
    stream->captured->work.push_back(std::move(attempt));
    stream->captured->outside = stream->captured->outside || outside;
    stream->captured_count++;
    stream->unjoined = true;
    return cudaSuccess;
  }
  if (the().failed != cudaSuccess)
    return note(the().failed);
  stream->queue.push_back(piece{std::move(attempt), outside, seconds_now()});
  stream->queued++;
  stream->queries = 0;
  if (outside && !the().engine) {
    the().engine = true;
    std::thread(engine, omp_get_max_threads()).detach();
  }
  if (the().eager)
    run_to(stream, stream->queued);
  return cudaSuccess;
}

cudaError_t emulated::enqueue(cudaStream_t stream, std::function<void()> work) {
  return queue(
      stream,
      [work = std::move(work)] {
        if (the().failed == cudaSuccess)
          work();
        return true;
      },
      false);
}

cudaError_t emulated::enqueue_attempts(cudaStream_t stream, std::function<bool()> attempt) {
  return queue(
      stream, [attempt = std::move(attempt)] { return the().failed != cudaSuccess || attempt(); }, true);
}

bool emulated::launch_fails() {
  if (++the().kernels != the().fault)
    return false;
  the().failed = cudaErrorLaunchFailure;
  return true;
}

void emulated::undefined(const char *what) {
  fprintf(stderr, "emulated CUDA: %s\n", what);
  abort();
}

extern "C" {

/* --- streams -------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned) {
  guard hold(the().lock);
  *out = new CUstream_st;
  the().streams.insert(*out);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t *out) {
  return cudaStreamCreateWithFlags(out, cudaStreamDefault);
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int) {
  return cudaStreamCreateWithFlags(out, flags);
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

/* Does what is queued; what must still wait for another process then never happens. */
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  guard hold(the().lock);
  if (stream == nullptr || !known(stream))
    return note(cudaErrorInvalidResourceHandle);
  emulated::access open; /* also the last look at memory that was freed */
  bool over = run_to(stream, stream->queued);
  the().streams.erase(stream);
  if (over)
    delete stream; /* else events may still ask for it */
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  stream = resolve(stream);
  uint64_t position;
  {
    guard hold(the().lock);
    if (!known(stream))
      return note(cudaErrorInvalidResourceHandle);
    if (stream->captured) {
      stream->captured->invalid = true;
      return note(cudaErrorStreamCaptureUnsupported);
    }
    position = stream->queued;
  }
  wait_until([=] { return run_to(stream, position); });
  return note(the().failed);
}

/* "Not ready" twice at least: what asks once must be able to wait. */
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  stream = resolve(stream);
  guard hold(the().lock);
  if (!known(stream))
    return note(cudaErrorInvalidResourceHandle);
  if (stream->captured) {
    stream->captured->invalid = true;
    return note(cudaErrorStreamCaptureUnsupported);
  }
  if (stream->done == stream->queued)
    return note(the().failed);
  if (++stream->queries <= 2 || !run_to(stream, stream->queued))
    return note(cudaErrorNotReady);
  return note(the().failed);
}

cudaError_t cudaDeviceSynchronize() {
  if (unsafe_now())
    return note(cudaErrorStreamCaptureUnsupported);
  wait_until(emulated::run_all);
  return note(the().failed);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void *argument) {
  return emulated::enqueue(stream, [=] { function(argument); });
}

/* --- events --------------------------------------------------------------------------------------------------- */

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags) {
  *out = new CUevent_st{nullptr, (flags & cudaEventDisableTiming) == 0};
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out) {
  return cudaEventCreateWithFlags(out, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  stream = resolve(stream);
  guard hold(the().lock);
  if (!known(stream))
    return note(cudaErrorInvalidResourceHandle);
  auto place = std::make_shared<record>();
  place->stream = stream;
  event->last = place;
  if (stream->captured) {
    place->captured = stream->captured;
    place->position = stream->captured_count;
    return cudaSuccess;
  }
  place->position = stream->queued + 1;
  return queue(
      stream,
      [place] {
        place->done = true;
        place->seconds = emulated::seconds_now();
        return true;
      },
      false);
}

/* Within a capture, with cudaEventRecordExternal: each launch records the event anew. */
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
  stream = resolve(stream);
  guard hold(the().lock);
  if (flags == cudaEventRecordDefault)
    return cudaEventRecord(event, stream);
  if (!known(stream) || flags != cudaEventRecordExternal || !stream->captured)
    return note(cudaErrorInvalidValue);
  auto coming = std::make_shared<std::deque<std::shared_ptr<record>>>();
  stream->captured->events.push_back({event, coming});
  return queue(
      stream,
      [coming] {
        coming->front()->done = true;
        coming->front()->seconds = emulated::seconds_now();
        coming->pop_front();
        return true;
      },
      false);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  stream = resolve(stream);
  guard hold(the().lock);
  if (!known(stream))
    return note(cudaErrorInvalidResourceHandle);
  std::shared_ptr<record> place = event->last;
  if (!place)
    return cudaSuccess;
  if (!place->captured) {
    if (stream->captured) {
      stream->captured->invalid = true;
      return note(cudaErrorStreamCaptureIsolation);
    }
    if (place->stream == stream)
      return cudaSuccess; /* its own past */
    return queue(
        stream, [place] { return reach(place); }, false);
  }
  /* The event of a capture: the stream takes part in it from now on. */
  if (!stream->captured) {
    stream->captured = place->captured;
    stream->captured_count = 0;
    place->captured->streams.insert(stream);
  } else if (stream->captured != place->captured) {
    stream->captured->invalid = true;
    return note(cudaErrorStreamCaptureMerge);
  }
  if (place->stream != stream) {
    stream->unjoined = true;
    if (place->position == place->stream->captured_count)
      place->stream->unjoined = false;
  }
  return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  guard hold(the().lock);
  std::shared_ptr<record> place = event->last;
  if (unsafe_now())
    return note(cudaErrorStreamCaptureUnsupported);
  if (!place)
    return cudaSuccess;
  if (place->captured)
    return note(cudaErrorCapturedEvent);
  if (!place->done && (++place->queries <= 2 || !reach(place)))
    return note(cudaErrorNotReady);
  return note(the().failed);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  std::shared_ptr<record> place;
  {
    guard hold(the().lock);
    place = event->last;
    if (unsafe_now())
      return note(cudaErrorStreamCaptureUnsupported);
  }
  if (!place)
    return cudaSuccess;
  if (place->captured)
    return note(cudaErrorCapturedEvent);
  wait_until([&] { return reach(place); });
  return note(the().failed);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
  guard hold(the().lock);
  if (!start->timing || !end->timing || !start->last || !end->last)
    return note(cudaErrorInvalidResourceHandle);
  if (start->last->captured || end->last->captured)
    return note(cudaErrorCapturedEvent);
  if (!start->last->done || !end->last->done)
    return note(cudaErrorNotReady);
  *milliseconds = static_cast<float>(1e3 * (end->last->seconds - start->last->seconds));
  return cudaSuccess;
}

/* --- graphs --------------------------------------------------------------------------------------------------- */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  guard hold(the().lock);
  if (stream == nullptr)
    return note(cudaErrorStreamCaptureUnsupported);
  if (!known(stream) || stream->captured)
    return note(cudaErrorIllegalState);
  if (mode != cudaStreamCaptureModeThreadLocal)
    emulated::undefined("captures are of one thread: cudaStreamCaptureModeThreadLocal");
  stream->captured = std::make_shared<capture>();
  stream->captured->origin = stream;
  stream->captured->streams.insert(stream);
  stream->captured_count = 0;
  stream->unjoined = false;
  own_capture = stream->captured;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out) {
  guard hold(the().lock);
  *out = nullptr;
  if (stream == nullptr || !known(stream) || !stream->captured)
    return note(cudaErrorIllegalState);
  std::shared_ptr<capture> own = stream->captured;
  if (own->origin != stream)
    return note(cudaErrorStreamCaptureUnmatched);
  if (own_capture != own)
    return note(cudaErrorStreamCaptureWrongThread);
  own_capture = nullptr;
  bool joined = true;
  for (cudaStream_t taken : own->streams) {
    joined = joined && (taken == stream || !taken->unjoined);
    taken->captured = nullptr;
    taken->unjoined = false;
  }
  if (own->invalid)
    return note(cudaErrorStreamCaptureInvalidated);
  if (!joined)
    return note(cudaErrorStreamCaptureUnjoined);
  *out = new CUgraph_st{own};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
  stream = resolve(stream);
  guard hold(the().lock);
  if (!known(stream))
    return note(cudaErrorInvalidResourceHandle);
  *status = !stream->captured           ? cudaStreamCaptureStatusNone
            : stream->captured->invalid ? cudaStreamCaptureStatusInvalidated
                                        : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
  if (nodes != nullptr)
    emulated::undefined("the nodes of a graph cannot be had, only how many there are");
  *count = graph->own->work.size();
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long) {
  *out = new CUgraphExec_st{graph->own};
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  auto next = std::make_shared<size_t>(0);
  auto own = graph->own;
  stream = resolve(stream);
  guard hold(the().lock);
  for (const emulated::launched_event &launched : own->events) {
    auto place = std::make_shared<record>();
    place->stream = stream;
    place->position = stream->queued + 1;
    launched.event->last = place;
    launched.coming->push_back(place);
  }
  return queue(
      stream,
      [next, own] {
        for (; *next < own->work.size(); ++*next)
          if (!own->work[*next]())
            return false;
        *next = 0;
        return true;
      },
      own->outside);
}

} // extern "C"
