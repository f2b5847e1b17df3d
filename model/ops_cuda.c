/* The CUDA backend's tables: made when the first is opened, freed with their device. */
#include "model/ops_cuda.h"

#include "dist/memory.h"
#include "model/kernels.h"

#include <stdio.h>
#include <string.h>

ops_open_function conr_cuda_ops_open;

/* Of the process's one open device (ops_cuda.h says why); NULL = no table is open. */
static struct ops_cuda *open_context;

struct ops_cuda *ops_cuda_context(void) {
  return open_context;
}

enum status scratch_reserve(struct ops_cuda *context, size_t bytes, void **out) {
  struct scratch *scratch = &context->scratch;
  if (bytes > scratch->bytes) {
    size_t wanted = bytes > 2 * scratch->bytes ? bytes : 2 * scratch->bytes;
    REQUIRE(scratch->count < SCRATCH_BLOCKS, ERR_BUG, "scratch memory grew more than %d times", SCRATCH_BLOCKS);
    TRY(device_alloc(context->device, wanted, &scratch->blocks[scratch->count]));
    scratch->count++;
    scratch->bytes = wanted;
  }
  *out = scratch->count > 0 ? scratch->blocks[scratch->count - 1] : NULL;
  return STATUS_OK;
}

/* For device_attach(). */
static void destroy(void *object) {
  struct ops_cuda *context = object;
  conv_cuda_close(context);
  linear_cuda_close(context);
  for (int i = context->scratch.count - 1; i >= 0; i--)
    device_free(context->device, &context->scratch.blocks[i]);
  device_free(context->device, (void **)&context->partials);
  if (open_context == context)
    open_context = NULL;
  memory_free(&object);
}

static void fill_tables(struct ops_cuda *context) {
  context->tables[PRECISION_F32] = ops_cuda_f32;
  context->tables[PRECISION_TF32] = ops_cuda_tf32;
  context->tables[PRECISION_BF16] = ops_cuda_bf16;
  for (int i = 0; i <= PRECISION_BF16; i++)
    context->tables[i].device = context->device;
}

static enum status create(struct device *device, struct ops_cuda **out) {
  struct ops_cuda *context;
  enum status status;
  TRY(memory_alloc_zero(sizeof *context, (void **)&context));
  context->device = device;
  context->stream = device_main(device);
  fill_tables(context);
  TRY_GOTO(device_alloc(device, (size_t)PARTIALS * sizeof(double), (void **)&context->partials), out);
  TRY_GOTO(linear_cuda_open(context), out);
  TRY_GOTO(device_attach(device, context, destroy), out);
  *out = context;
  return STATUS_OK;
out:
  destroy(context);
  return status;
}

/* Has this library code that the device can run?  Compiled code runs where the first figure is the same and the second
 * not smaller; of the last one there is also what the driver compiles for later devices. */
static enum status check_code(const struct device_facts *facts) {
  char list[128] = "";
  int count, capability = facts->capability;
  const int *archs = cuda_archs(&count);
  for (int i = 0; i < count; i++) {
    int arch = archs[i] / 10;
    if (arch <= capability && (arch / 10 == capability / 10 || i == count - 1))
      return STATUS_OK;
    snprintf(list + strlen(list), sizeof list - strlen(list), "%s%d", i > 0 ? " " : "", arch);
  }
  return fail(ERR_DEVICE,
              "%s is of compute capability %d, and the CUDA backend was built for CUDA_ARCHS=\"%s\"; build it with "
              "CUDA_ARCHS=%d, or use --device cpu",
              facts->name, capability, list, capability);
}

enum status conr_cuda_ops_open(struct device *device, enum precision precision, const struct ops **out) {
  const struct device_facts *facts = &device->facts;
  *out = NULL;
  REQUIRE(precision >= PRECISION_F32 && precision <= PRECISION_BF16, ERR_ARGUMENT, "a GPU has no precision %d",
          (int)precision);
  TRY(check_code(facts));
  REQUIRE(precision == PRECISION_F32 || facts->capability >= 80, ERR_ARGUMENT,
          "%s is of compute capability %d, and tf32 and bf16 take 80; use --precision f32", facts->name,
          facts->capability);
  if (open_context == NULL)
    TRY(create(device, &open_context));
  REQUIRE(open_context->device == device, ERR_BUG, "tables of two devices at once are asked for; a process opens one");
  *out = &open_context->tables[precision];
  return STATUS_OK;
}
