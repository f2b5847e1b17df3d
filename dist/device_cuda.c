/* GPUs by the CUDA runtime: memory, streams, events and graphs. */
#include "dist/cuda.h"
#include "dist/memory.h"

#include <ctype.h>
#include <cublasLt.h>
#include <cudnn.h>
#include <nccl.h>
#include <nvtx3/nvToolsExt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CUDA_MAJOR (CUDART_VERSION / 1000)
#define CUDA_MINOR (CUDART_VERSION % 1000 / 10)

enum status cuda_check(cudaError_t code, const char *what) {
  if (code == cudaSuccess)
    return STATUS_OK;
  cudaGetLastError(); /* it was told here: the next launch is not to be blamed for it */
  return fail(ERR_DEVICE, "%s: %s (%s)", what, cudaGetErrorString(code), cudaGetErrorName(code));
}

/* --- finding -------------------------------------------------------------------------------------------------- */

static enum status no_gpu_visible(void) {
  const char *visible = getenv("CUDA_VISIBLE_DEVICES");
  if (visible != NULL)
    return fail(
        ERR_DEVICE,
        "no GPU is visible (CUDA_VISIBLE_DEVICES is \"%s\"): set it to the numbers of the GPUs to use, or unset it",
        visible);
  return fail(ERR_DEVICE, "no GPU is visible (CUDA_VISIBLE_DEVICES is not set): nvidia-smi -L shows what the driver "
                          "sees; ask the batch system for a GPU, or use the cpu");
}

/* CUDA has one code for both. */
static enum status no_driver(void) {
  int version = 0;
  cudaDriverGetVersion(&version);
  cudaGetLastError();
  if (version == 0)
    return fail(ERR_DEVICE,
                "there is no NVIDIA driver on this machine; install one for CUDA %d.%d or later, or use the cpu",
                CUDA_MAJOR, CUDA_MINOR);
  return fail(ERR_DEVICE, "the NVIDIA driver knows CUDA up to %d.%d, but CUDA %d.%d is needed; update the driver",
              version / 1000, version % 1000 / 10, CUDA_MAJOR, CUDA_MINOR);
}

/* Why the devices cannot be counted or one of them not be opened. */
static enum status explain(cudaError_t code, const char *what) {
  cudaGetLastError();
  switch (code) {
  case cudaErrorInsufficientDriver:
    return no_driver();
  case cudaErrorNoDevice:
    return no_gpu_visible();
  case cudaErrorSystemDriverMismatch:
    return fail(ERR_DEVICE, "the NVIDIA driver's kernel module and its library are of different versions; reboot this "
                            "node or load the module anew");
  case cudaErrorSystemNotReady:
    return fail(ERR_DEVICE, "the NVIDIA driver is not ready; on machines with NVSwitch start nvidia-fabricmanager");
  case cudaErrorDevicesUnavailable:
    return fail(ERR_DEVICE,
                "%s: another process holds the GPU for itself; nvidia-smi shows its compute mode, which "
                "must be \"Default\" for several processes",
                what);
  default:
    return cuda_check(code, what);
  }
}

static enum status count_devices(int *count) {
  setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID", 0); /* as nvidia-smi numbers them; read at CUDA's first call */
  *count = 0;
  cudaError_t code = cudaGetDeviceCount(count);
  if (code != cudaSuccess) {
    *count = 0;
    return explain(code, "counting the GPUs");
  }
  return *count > 0 ? STATUS_OK : no_gpu_visible();
}

/* --- what a device is ----------------------------------------------------------------------------------------- */

/* From "0000:1B:00.0", which the kernel writes in small letters. */
static int numa_node_of(char *bus) {
  char path[96];
  int node = -1;
  for (char *letter = bus; *letter != '\0'; letter++)
    *letter = (char)tolower((unsigned char)*letter);
  snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", bus);
  FILE *file = fopen(path, "r");
  if (file == NULL)
    return -1;
  if (fscanf(file, "%d", &node) != 1)
    node = -1;
  fclose(file);
  return node;
}

static enum status name_libraries(char *text, size_t room) {
  int runtime = 0, driver = 0, nccl = 0;
  TRY(cuda_check(cudaRuntimeGetVersion(&runtime), "asking CUDA for its version"));
  TRY(cuda_check(cudaDriverGetVersion(&driver), "asking the driver for its version"));
  REQUIRE(ncclGetVersion(&nccl) == ncclSuccess, ERR_DEVICE, "NCCL does not tell its version");
  size_t cublas = cublasLtGetVersion(), cudnn = cudnnGetVersion();
  snprintf(text, room, "CUDA %d.%d, driver %d.%d, cuBLASLt %zu.%zu, cuDNN %zu.%zu, NCCL %d.%d.%d", runtime / 1000,
           runtime % 1000 / 10, driver / 1000, driver % 1000 / 10, cublas / 10000, cublas % 10000 / 100, cudnn / 10000,
           cudnn % 10000 / 100, nccl / 10000, nccl % 10000 / 100, nccl % 100);
  return STATUS_OK;
}

static enum status fill_facts(struct device_facts *facts, int index) {
  struct cudaDeviceProp properties;
  TRY(cuda_check(cudaGetDeviceProperties(&properties, index), "asking a GPU for its properties"));
  TRY(cuda_check(cudaDeviceGetPCIBusId(facts->bus, sizeof facts->bus, index), "asking a GPU for its PCI address"));
  facts->index = index;
  snprintf(facts->name, sizeof facts->name, "%.127s", properties.name);
  for (size_t i = 0; i < sizeof properties.uuid.bytes; i++)
    snprintf(facts->uuid + 2 * i, 3, "%02x", (unsigned char)properties.uuid.bytes[i]);
  facts->numa_node = numa_node_of(facts->bus);
  facts->capability = 10 * properties.major + properties.minor;
  facts->memory_bytes = properties.totalGlobalMem;
  return name_libraries(facts->libraries, sizeof facts->libraries);
}

/* --- opening -------------------------------------------------------------------------------------------------- */

/* What is allocated: device->bytes is to fall by the size of a block that is freed. */
struct cuda_context {
  struct block {
    void *address;
    size_t bytes;
  } * blocks; /* [room], the first `count` used */
  size_t count, room;
};

/* CUDA keeps a device for each thread; whoever calls may be another thread than the one that opened. */
static enum status select_device(const struct device *device) {
  return cuda_check(cudaSetDevice(device->facts.index), "selecting the GPU");
}

static enum status stream_create_cuda(struct device *device, struct stream **out) {
  struct stream *stream;
  cudaStream_t handle;
  TRY(select_device(device));
  TRY(memory_alloc_zero(sizeof *stream, (void **)&stream));
  enum status status = cuda_check(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "creating a stream");
  if (status != STATUS_OK) {
    memory_free((void **)&stream);
    return status;
  }
  stream->device = device;
  stream->handle = handle;
  *out = stream;
  return STATUS_OK;
}

static void stream_destroy_cuda(struct stream *stream) {
  cudaStreamDestroy(cuda_stream(stream));
  memory_free((void **)&stream);
}

static enum status open_cuda(struct device *device, int index) {
  struct cuda_context *context;
  cudaError_t code = cudaSetDevice(index);
  if (code != cudaSuccess) {
    char what[32];
    snprintf(what, sizeof what, "opening GPU %d", index);
    return explain(code, what);
  }
  TRY(fill_facts(&device->facts, index));
  TRY(memory_alloc_zero(sizeof *context, (void **)&context));
  device->context = context;
  enum status status = stream_create_cuda(device, &device->main);
  if (status != STATUS_OK)
    memory_free(&device->context);
  return status;
}

static void close_cuda(struct device *device) {
  struct cuda_context *context = device->context;
  stream_destroy_cuda(device->main);
  memory_free((void **)&context->blocks);
  memory_free(&device->context);
}

/* --- memory --------------------------------------------------------------------------------------------------- */

/* Room for one more block. */
static enum status context_grow(struct cuda_context *context) {
  if (context->count < context->room)
    return STATUS_OK;
  size_t room = context->room == 0 ? 64 : 2 * context->room;
  struct block *blocks;
  TRY(memory_alloc(room * sizeof *blocks, (void **)&blocks));
  if (context->count > 0)
    memcpy(blocks, context->blocks, context->count * sizeof *blocks);
  memory_free((void **)&context->blocks);
  context->blocks = blocks;
  context->room = room;
  return STATUS_OK;
}

static enum status out_of_memory(const struct device *device, size_t bytes) {
  size_t available = 0, total = 0;
  cudaGetLastError();
  cudaMemGetInfo(&available, &total);
  return fail(ERR_MEMORY,
              "GPU %d (%s) has no room for %zu bytes more: %zu of its %zu are free; use more ranks, a smaller batch, "
              "--micro-batch or a smaller model",
              device->facts.index, device->facts.name, bytes, available, total);
}

static enum status alloc_cuda(struct device *device, size_t bytes, void **out) {
  struct cuda_context *context = device->context;
  *out = NULL;
  TRY(select_device(device));
  TRY(context_grow(context));
  cudaError_t code = cudaMalloc(out, bytes > 0 ? bytes : 1); /* CUDA's own empty block is NULL */
  if (code == cudaErrorMemoryAllocation)
    return out_of_memory(device, bytes);
  TRY(cuda_check(code, "allocating device memory"));
  context->blocks[context->count++] = (struct block){*out, bytes};
  device->bytes += bytes;
  return STATUS_OK;
}

static void free_cuda(struct device *device, void *block) {
  struct cuda_context *context = device->context;
  /* From the end: what came last mostly goes first. */
  for (size_t i = context->count; i-- > 0;) {
    if (context->blocks[i].address != block)
      continue;
    device->bytes -= context->blocks[i].bytes;
    context->blocks[i] = context->blocks[--context->count];
    break;
  }
  cudaFree(block); /* waits for the device */
}

static enum status alloc_pinned_cuda(struct device *device, size_t bytes, void **out) {
  *out = NULL;
  TRY(select_device(device));
  cudaError_t code = cudaHostAlloc(out, bytes > 0 ? bytes : 1, cudaHostAllocDefault);
  if (code == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    return fail(ERR_MEMORY,
                "%zu bytes of pinned host memory cannot be had; ask for more host memory for this job, or "
                "use a smaller batch",
                bytes);
  }
  return cuda_check(code, "allocating pinned host memory");
}

static void free_pinned_cuda(struct device *device, void *block) {
  (void)device;
  cudaFreeHost(block);
}

/* --- streams -------------------------------------------------------------------------------------------------- */

static enum status stream_copy_cuda(struct stream *stream, void *to, const void *from, size_t bytes) {
  return cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, cuda_stream(stream)), "copying");
}

static enum status stream_zero_cuda(struct stream *stream, void *to, size_t bytes) {
  return cuda_check(cudaMemsetAsync(to, 0, bytes, cuda_stream(stream)), "filling with zeros");
}

static enum status stream_wait_cuda(struct stream *stream) {
  return cuda_check(cudaStreamSynchronize(cuda_stream(stream)), "waiting for a stream");
}

/* --- events --------------------------------------------------------------------------------------------------- */

static enum status event_create_cuda(struct device *device, struct event **out) {
  struct event *event;
  cudaEvent_t handle;
  *out = NULL;
  TRY(select_device(device));
  TRY(memory_alloc_zero(sizeof *event, (void **)&event));
  enum status status = cuda_check(cudaEventCreateWithFlags(&handle, cudaEventDefault), "creating an event");
  if (status != STATUS_OK) {
    memory_free((void **)&event);
    return status;
  }
  event->device = device;
  event->handle = handle;
  *out = event;
  return STATUS_OK;
}

static void event_destroy_cuda(struct event *event) {
  cudaEventDestroy(cuda_event(event));
  memory_free((void **)&event);
}

static enum status event_record_cuda(struct event *event, struct stream *stream) {
  return cuda_check(cudaEventRecord(cuda_event(event), cuda_stream(stream)), "recording an event");
}

/* CUDA takes the flag within a graph alone. */
static enum status event_mark_cuda(struct event *event, struct stream *stream) {
  enum cudaStreamCaptureStatus capturing = cudaStreamCaptureStatusNone;
  TRY(cuda_check(cudaStreamIsCapturing(cuda_stream(stream), &capturing), "asking for a graph"));
  unsigned flags = capturing == cudaStreamCaptureStatusNone ? cudaEventRecordDefault : cudaEventRecordExternal;
  return cuda_check(cudaEventRecordWithFlags(cuda_event(event), cuda_stream(stream), flags), "recording an event");
}

static enum status stream_wait_event_cuda(struct stream *stream, struct event *event) {
  return cuda_check(cudaStreamWaitEvent(cuda_stream(stream), cuda_event(event), cudaEventWaitDefault),
                    "letting a stream wait for an event");
}

static enum status event_reached_cuda(struct event *event, bool *reached) {
  cudaError_t code = cudaEventQuery(cuda_event(event));
  *reached = code == cudaSuccess;
  if (code != cudaErrorNotReady)
    return cuda_check(code, "asking for an event");
  cudaGetLastError(); /* "not yet" counts as an error there */
  return STATUS_OK;
}

static enum status event_wait_cuda(struct event *event) {
  return cuda_check(cudaEventSynchronize(cuda_event(event)), "waiting for an event");
}

static enum status event_seconds_cuda(struct event *from, struct event *to, double *seconds) {
  float milliseconds = 0;
  *seconds = 0;
  TRY(cuda_check(cudaEventElapsedTime(&milliseconds, cuda_event(from), cuda_event(to)), "timing between two events"));
  *seconds = 1e-3 * (double)milliseconds;
  return STATUS_OK;
}

/* --- graphs --------------------------------------------------------------------------------------------------- */

/* Other threads may go on with what they do, such as allocating. */
static enum status graph_begin_cuda(struct stream *stream) {
  return cuda_check(cudaStreamBeginCapture(cuda_stream(stream), cudaStreamCaptureModeThreadLocal), "beginning a graph");
}

static enum status make_graph(struct device *device, cudaGraph_t captured, struct graph **out) {
  struct graph *graph;
  cudaGraphExec_t handle;
  TRY(memory_alloc_zero(sizeof *graph, (void **)&graph));
  enum status status = cuda_check(cudaGraphInstantiate(&handle, captured, 0), "making a graph ready to launch");
  if (status != STATUS_OK) {
    memory_free((void **)&graph);
    return status;
  }
  graph->device = device;
  graph->handle = handle;
  *out = graph;
  return STATUS_OK;
}

static enum status graph_end_cuda(struct stream *stream, struct graph **out) {
  cudaGraph_t captured = NULL;
  size_t pieces = 0;
  TRY(cuda_check(cudaStreamEndCapture(cuda_stream(stream), &captured), "ending a graph"));
  enum status status = cuda_check(cudaGraphGetNodes(captured, NULL, &pieces), "asking what a graph keeps");
  if (status == STATUS_OK && pieces > 0)
    status = make_graph(stream->device, captured, out);
  cudaGraphDestroy(captured);
  return status;
}

static enum status graph_launch_cuda(struct graph *graph, struct stream *stream) {
  return cuda_check(cudaGraphLaunch((cudaGraphExec_t)graph->handle, cuda_stream(stream)), "launching a graph");
}

static void graph_destroy_cuda(struct graph *graph) {
  cudaGraphExecDestroy((cudaGraphExec_t)graph->handle);
  memory_free((void **)&graph);
}

/* --- ranges --------------------------------------------------------------------------------------------------- */

static void range_begin_cuda(const char *name) {
  nvtxRangePushA(name);
}

static void range_end_cuda(void) {
  nvtxRangePop();
}

/* Found by name in this library: DEVICE_OPS_SYMBOL. */
extern const struct device_ops conr_cuda_device_ops;
const struct device_ops conr_cuda_device_ops = {
    .version = DEVICE_LIBRARY_VERSION,
    .name = "cuda",
    .count = count_devices,
    .open = open_cuda,
    .close = close_cuda,
    .alloc = alloc_cuda,
    .free = free_cuda,
    .alloc_pinned = alloc_pinned_cuda,
    .free_pinned = free_pinned_cuda,
    .stream_create = stream_create_cuda,
    .stream_destroy = stream_destroy_cuda,
    .stream_copy = stream_copy_cuda,
    .stream_zero = stream_zero_cuda,
    .stream_wait = stream_wait_cuda,
    .event_create = event_create_cuda,
    .event_destroy = event_destroy_cuda,
    .event_record = event_record_cuda,
    .event_mark = event_mark_cuda,
    .stream_wait_event = stream_wait_event_cuda,
    .event_reached = event_reached_cuda,
    .event_wait = event_wait_cuda,
    .event_seconds = event_seconds_cuda,
    .graph_begin = graph_begin_cuda,
    .graph_end = graph_end_cuda,
    .graph_launch = graph_launch_cuda,
    .graph_destroy = graph_destroy_cuda,
    .range_begin = range_begin_cuda,
    .range_end = range_end_cuda,
};
