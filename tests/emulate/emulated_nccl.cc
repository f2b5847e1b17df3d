/* NCCL without GPUs or a network: the ranks are processes of one machine and meet in a folder of /dev/shm, where each
 * puts what it has for a collective as a file.  (Not by MPI: work of streams is done by whichever thread waits, and MPI
 * may belong to the main thread alone.)
 *
 * As NCCL's non-blocking communicators do, a call only notes what is wanted, and says "in progress"; the work gets into
 * its stream when the caller asks for the state a third time.  Whoever records an event earlier gets a wrong result.
 * Ranks that make different calls, and calls before the last one is through, end the program with a word about it.
 *
 *   EMULATED_NCCL_HANG   the number of the collective of a communicator, from 1, that is never over on this rank
 *   EMULATED_NCCL_ERROR  the number from which ncclCommGetAsyncError() reports ncclRemoteError; it is never over either
 *   EMULATED_NCCL_FOLDER where the folders of the communicators are made (/dev/shm); ranks that were killed leave theirs
 *   EMULATED_NCCL_ABORT  "hangs": ncclCommAbort() does not return */
#include "emulated_cuda.h"

#include <nccl.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <unistd.h>
#include <vector>

namespace {

namespace files = std::filesystem;

/* What outlives the handle: work that is still in a stream has it. */
struct meeting {
  std::mutex lock;
  std::string folder;
  int rank, size;
  std::atomic<int64_t> issued{0}, done{0}; /* collectives       */
  int64_t hang, error;                     /* numbers, 0 = none */
  bool aborted = false;
};

struct wanted {
  std::shared_ptr<meeting> at;
  enum { SUM, BROADCAST, GATHER } kind;
  const void *from;
  void *to;
  size_t count; /* of each rank */
  ncclDataType_t type;
  int root;
  cudaStream_t stream;
};

/* In front of what a rank sends. */
struct label {
  int64_t kind, count, type, root;
  bool operator!=(const label &other) const {
    return memcmp(this, &other, sizeof other) != 0;
  }
};

} // namespace

struct ncclComm {
  std::shared_ptr<meeting> at;
  bool blocking, connected = false, leaving = false;
  std::string bus;
  ncclResult_t state = ncclInProgress;
  std::vector<wanted> pending; /* called, not yet in a stream */
  int asked = 0;               /* for the state, since        */
};

namespace {

thread_local int group_depth = 0;
thread_local std::vector<wanted> group;
thread_local ncclComm_t group_comm = nullptr;

int64_t number_in(const char *variable) {
  const char *text = getenv(variable);
  return text != nullptr ? atoll(text) : 0;
}

/* --- files ---------------------------------------------------------------------------------------------------- */

std::string path_of(const meeting &at, const std::string &what, int rank) {
  return at.folder + "/" + what + "-" + std::to_string(rank);
}

/* Written aside and renamed: what is found is complete. */
void put(const meeting &at, const std::string &what, const void *head, size_t head_bytes, const void *data,
         size_t bytes) {
  std::string path = path_of(at, what, at.rank), aside = path + ".new";
  FILE *file = fopen(aside.c_str(), "wb");
  if (file == nullptr)
    return; /* the folder is gone: a rank has given up */
  fwrite(head, 1, head_bytes, file);
  if (bytes > 0)
    fwrite(data, 1, bytes, file);
  fclose(file);
  rename(aside.c_str(), path.c_str());
}

bool all_have(const meeting &at, const std::string &what) {
  for (int rank = 0; rank < at.size; rank++)
    if (access(path_of(at, what, rank).c_str(), R_OK) != 0)
      return false;
  return true;
}

std::vector<char> get(const meeting &at, const std::string &what, int rank) {
  std::error_code ignored;
  std::string path = path_of(at, what, rank);
  auto bytes = files::file_size(path, ignored);
  std::vector<char> data(ignored ? 0 : bytes);
  FILE *file = fopen(path.c_str(), "rb");
  if (file != nullptr) {
    data.resize(fread(data.data(), 1, data.size(), file));
    fclose(file);
  }
  return data;
}

/* --- what collectives do -------------------------------------------------------------------------------------- */

size_t size_of(ncclDataType_t type) {
  switch (type) {
  case ncclUint8:
    return 1;
  case ncclBfloat16:
    return 2;
  case ncclFloat32:
    return 4;
  case ncclFloat64:
    return 8;
  default:
    emulated::undefined("this type of NCCL is not emulated");
  }
}

float widen(uint16_t brain) {
  uint32_t bits = static_cast<uint32_t>(brain) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

uint16_t narrow(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return value != value ? static_cast<uint16_t>(bits >> 16 | 0x40)
                        : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* to += from, in the order of the ranks. */
void add(ncclDataType_t type, void *to, const void *from, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (type == ncclFloat32)
      static_cast<float *>(to)[i] += static_cast<const float *>(from)[i];
    else if (type == ncclFloat64)
      static_cast<double *>(to)[i] += static_cast<const double *>(from)[i];
    else
      static_cast<uint16_t *>(to)[i] =
          narrow(widen(static_cast<uint16_t *>(to)[i]) + widen(static_cast<const uint16_t *>(from)[i]));
}

label label_of(const wanted &work) {
  return label{work.kind, static_cast<int64_t>(work.count), work.type, work.root};
}

void send(const wanted &work, const std::string &what) {
  bool has = work.kind != wanted::BROADCAST || work.root == work.at->rank;
  label head = label_of(work);
  put(*work.at, what, &head, sizeof head, work.from, has ? work.count * size_of(work.type) : 0);
}

/* False: some of it is gone, because a rank has given up. */
bool receive(const wanted &work, const std::string &what) {
  size_t bytes = work.count * size_of(work.type);
  label own = label_of(work);
  for (int rank = 0; rank < work.at->size; rank++) {
    std::vector<char> data = get(*work.at, what, rank);
    label other;
    bool has = work.kind != wanted::BROADCAST || work.root == rank;
    if (data.size() < sizeof other)
      return false;
    memcpy(&other, data.data(), sizeof other);
    if (other != own || data.size() != sizeof other + (has ? bytes : 0))
      emulated::undefined("ranks make different calls to NCCL, or in another order");
    const char *values = data.data() + sizeof other;
    if (work.kind == wanted::GATHER)
      memcpy(static_cast<char *>(work.to) + static_cast<size_t>(rank) * bytes, values, bytes);
    else if (has && (work.kind == wanted::BROADCAST || rank == 0))
      memcpy(work.to, values, bytes);
    else if (has)
      add(work.type, work.to, values, work.count);
  }
  return true;
}

/* One try at collective number `number`; `sent` is kept between the tries.  All ranks have come to this one, so all are
 * through with the last: its file goes. */
bool attempt(const wanted &work, int64_t number, bool *sent) {
  meeting &at = *work.at;
  std::lock_guard<std::mutex> hold(at.lock);
  std::string what = "collective-" + std::to_string(number);
  if (at.aborted)
    return true;
  if (number == at.hang || (at.error > 0 && number >= at.error))
    return false;
  if (!*sent)
    send(work, what);
  *sent = true;
  if (!all_have(at, what) || !receive(work, what))
    return false;
  unlink(path_of(at, "collective-" + std::to_string(number - 1), at.rank).c_str());
  at.done = number;
  return true;
}

ncclResult_t put_in_stream(const wanted &work) {
  int64_t number = ++work.at->issued;
  auto sent = std::make_shared<bool>(false);
  cudaError_t code =
      emulated::enqueue_attempts(work.stream, [work, number, sent] { return attempt(work, number, sent.get()); });
  return code == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

/* --- calls ---------------------------------------------------------------------------------------------------- */

ncclResult_t put_pending(ncclComm_t comm) {
  ncclResult_t code = ncclSuccess;
  for (const wanted &work : comm->pending)
    if (code == ncclSuccess)
      code = put_in_stream(work);
  comm->pending.clear();
  return code;
}

ncclResult_t call(ncclComm_t comm, const std::vector<wanted> &works) {
  if (!comm->connected || comm->state == ncclInProgress)
    emulated::undefined("NCCL is called while the last call is in progress");
  if (comm->leaving || comm->at->aborted)
    return ncclInvalidUsage;
  comm->pending = works;
  if (comm->blocking)
    return put_pending(comm);
  comm->state = ncclInProgress;
  comm->asked = 0;
  return ncclInProgress;
}

ncclResult_t want(ncclComm_t comm, const wanted &work) {
  if (work.root < 0 || work.root >= work.at->size)
    return ncclInvalidArgument;
  size_t bytes = work.count * size_of(work.type), all = work.kind == wanted::GATHER ? bytes * work.at->size : bytes;
  bool sends = work.kind != wanted::BROADCAST || work.root == work.at->rank;
  if (work.count == 0)
    return ncclSuccess;
  if (!emulated::on_device(work.to, all) || (sends && !emulated::on_device(work.from, bytes)))
    return ncclInvalidArgument;
  if (group_depth == 0)
    return call(comm, {work});
  if (group_comm != nullptr && group_comm != comm)
    emulated::undefined("groups of several communicators of NCCL are not emulated");
  group_comm = comm;
  group.push_back(work);
  return ncclSuccess;
}

/* Have all come, each with a GPU of its own? */
ncclResult_t meet(ncclComm_t comm) {
  meeting &at = *comm->at;
  if (!all_have(at, "hello"))
    return ncclInProgress;
  std::vector<std::string> seen;
  for (int rank = 0; rank < at.size; rank++) {
    std::vector<char> data = get(at, "hello", rank);
    std::string bus(data.begin(), data.end());
    for (const std::string &other : seen)
      if (other == bus)
        return ncclInvalidUsage;
    seen.push_back(bus);
  }
  comm->connected = true;
  return ncclSuccess;
}

/* Go on with what is in progress. */
ncclResult_t advance(ncclComm_t comm) {
  meeting &at = *comm->at;
  if (!comm->connected)
    return meet(comm);
  if (comm->leaving)
    return at.done == at.issued && all_have(at, "bye") ? ncclSuccess : ncclInProgress;
  return ++comm->asked < 3 ? ncclInProgress : put_pending(comm);
}

void forget(ncclComm_t comm) {
  std::error_code ignored;
  meeting &at = *comm->at;
  put(at, "gone", "", 0, nullptr, 0);
  if (at.aborted || all_have(at, "gone"))
    files::remove_all(at.folder, ignored);
  delete comm;
}

} // namespace

extern "C" {

ncclResult_t ncclGetVersion(int *version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t code) {
  static const char *const words[] = {"no error",
                                      "unhandled cuda error",
                                      "unhandled system error",
                                      "internal error",
                                      "invalid argument",
                                      "invalid usage",
                                      "remote process exited or there was a network error",
                                      "NCCL operation in progress"};
  return code >= 0 && code < ncclNumResults ? words[code] : "unknown result code";
}

const char *ncclGetLastError(ncclComm_t) {
  return "emulated: see above\nand below";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
  const char *folder = getenv("EMULATED_NCCL_FOLDER");
  memset(id, 0, sizeof *id);
  snprintf(id->internal, sizeof id->internal, "%s/emulated-nccl-XXXXXX", folder != nullptr ? folder : "/dev/shm");
  return mkdtemp(id->internal) != nullptr ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank, ncclConfig_t *config) {
  int device;
  char bus[32] = "";
  if (config->magic != 0xcafebeef || rank < 0 || rank >= size || access(id.internal, W_OK) != 0)
    return ncclInvalidArgument;
  cudaGetDevice(&device);
  cudaDeviceGetPCIBusId(bus, sizeof bus, device);
  *out = new ncclComm;
  (*out)->blocking = config->blocking != 0;
  (*out)->at = std::make_shared<meeting>();
  meeting &at = *(*out)->at;
  at.folder = id.internal;
  at.rank = rank;
  at.size = size;
  at.hang = number_in("EMULATED_NCCL_HANG");
  at.error = number_in("EMULATED_NCCL_ERROR");
  put(at, "hello", bus, strlen(bus), nullptr, 0);
  while ((*out)->blocking && ((*out)->state = meet(*out)) == ncclInProgress)
    usleep(1000);
  return (*out)->state;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state) {
  if (comm->state == ncclInProgress)
    comm->state = advance(comm);
  std::lock_guard<std::mutex> hold(comm->at->lock);
  if (comm->at->error > 0 && comm->at->issued >= comm->at->error)
    comm->state = ncclRemoteError;
  *state = comm->state;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  const char *how = getenv("EMULATED_NCCL_ABORT");
  while (how != nullptr && strcmp(how, "hangs") == 0)
    pause();
  {
    std::lock_guard<std::mutex> hold(comm->at->lock);
    comm->at->aborted = true;
  }
  forget(comm);
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  if (comm->state == ncclInProgress)
    emulated::undefined("NCCL is told to end while a call is in progress");
  comm->leaving = true;
  put(*comm->at, "bye", "", 0, nullptr, 0);
  comm->state = ncclInProgress;
  while (comm->blocking && (comm->state = advance(comm)) == ncclInProgress)
    usleep(1000);
  return comm->state;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm->leaving && comm->state != ncclSuccess)
    emulated::undefined("a communicator of NCCL is destroyed before its end");
  forget(comm);
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  group_depth++;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  if (group_depth == 0)
    return ncclInvalidUsage;
  if (--group_depth > 0 || group_comm == nullptr)
    return ncclSuccess;
  ncclComm_t comm = group_comm;
  std::vector<wanted> works;
  works.swap(group);
  group_comm = nullptr;
  return call(comm, works);
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t operation,
                           ncclComm_t comm, cudaStream_t stream) {
  if (operation != ncclSum)
    emulated::undefined("only sums of NCCL are emulated");
  return want(comm, {comm->at, wanted::SUM, from, to, count, type, 0, stream});
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
  return want(comm, {comm->at, wanted::BROADCAST, from, to, count, type, root, stream});
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t comm,
                           cudaStream_t stream) {
  return want(comm, {comm->at, wanted::GATHER, from, to, count, type, 0, stream});
}

} // extern "C"
