/* nvJPEG, and the arena in which its pictures become views.
 *
 * The arena is allocated once.  As many pictures as fit, with the weights of their resize, are decoded together, made
 * into views, and give way to the next ones: all of it queued on one stream, where each waits for the last. */
#include "io/device_images_ops.h"

#include "dist/memory.h"
#include "io/image_kernels.h"
#include "io/nvjpeg_api.h"

#define ALIGNMENT 256

/* Pictures that are decoded together. */
struct chunk {
  const unsigned char **bytes;     /* [samples]           */
  size_t *counts;                  /* [samples]           */
  struct nvjpeg_picture *pictures; /* [samples]           */
  int64_t *rows;                   /* [samples] of a batch */
  int count;
  size_t used; /* bytes of the arena */
};

struct jpeg_device {
  struct device *device; /* borrowed: must outlive this */
  struct device_images_options options;
  struct nvjpeg_api api;
  struct nvjpegHandle *handle;
  struct nvjpegJpegState *batched, *single;
  int batched_pictures;               /* what `batched` is ready for; 0 = nothing */
  uint8_t *arena;                     /* [ARENA_BYTES], device */
  struct image_job *jobs, *jobs_here; /* [views * samples] of a batch: device, and pinned */
  int64_t job_count;
  struct event *sent; /* behind the last copy of the jobs */
  struct chunk chunk;
};

/* --- life ----------------------------------------------------------------------------------------------------- */

/* A code that is nobody's picture's fault. */
static enum status nvjpeg_failed(int code, const char *what) {
  cudaGetLastError(); /* it is told here */
  if (code == NVJPEG_ALLOCATOR_FAILED)
    return fail(ERR_MEMORY,
                "nvJPEG has no memory for %s: use more ranks, a smaller batch, a smaller model, or --decode host",
                what);
  return fail(ERR_DEVICE, "nvJPEG fails at %s: %s; --decode host does without it", what, nvjpeg_words(code));
}

static enum status start_nvjpeg(struct jpeg_device *own) {
  TRY(nvjpeg_api_open(&own->api));
  int code = own->api.CreateEx(NVJPEG_GPU_HUFFMAN, NULL, NULL, 0, &own->handle);
  if (code != NVJPEG_OK && code != NVJPEG_ALLOCATOR_FAILED)
    code = own->api.CreateSimple(&own->handle); /* a GPU without that */
  if (code == NVJPEG_OK)
    code = own->api.JpegStateCreate(own->handle, &own->batched);
  if (code == NVJPEG_OK)
    code = own->api.JpegStateCreate(own->handle, &own->single);
  return code == NVJPEG_OK ? STATUS_OK : nvjpeg_failed(code, "its start");
}

static enum status allocate(struct jpeg_device *own) {
  size_t samples = (size_t)own->options.samples, jobs = samples * (size_t)own->options.views * sizeof *own->jobs;
  struct chunk *chunk = &own->chunk;
  TRY(memory_alloc(samples * sizeof *chunk->bytes, (void **)&chunk->bytes));
  TRY(memory_alloc(samples * sizeof *chunk->counts, (void **)&chunk->counts));
  TRY(memory_alloc(samples * sizeof *chunk->pictures, (void **)&chunk->pictures));
  TRY(memory_alloc(samples * sizeof *chunk->rows, (void **)&chunk->rows));
  TRY(device_alloc_pinned(own->device, jobs, (void **)&own->jobs_here));
  TRY(device_alloc(own->device, jobs, (void **)&own->jobs));
  TRY(event_create(own->device, &own->sent));
  return device_alloc(own->device, own->options.room, (void **)&own->arena);
}

static void destroy(struct jpeg_device **jpegs) {
  struct jpeg_device *own = *jpegs;
  if (own == NULL)
    return;
  if (own->single != NULL)
    own->api.JpegStateDestroy(own->single);
  if (own->batched != NULL)
    own->api.JpegStateDestroy(own->batched);
  if (own->handle != NULL)
    own->api.Destroy(own->handle);
  device_free(own->device, (void **)&own->arena);
  event_destroy(&own->sent);
  device_free(own->device, (void **)&own->jobs);
  device_free_pinned(own->device, (void **)&own->jobs_here);
  memory_free((void **)&own->chunk.rows);
  memory_free((void **)&own->chunk.pictures);
  memory_free((void **)&own->chunk.counts);
  memory_free((void **)&own->chunk.bytes);
  memory_free((void **)jpegs);
}

static enum status create(struct device *device, const struct device_images_options *options,
                          struct jpeg_device **out) {
  struct jpeg_device *own;
  enum status status;
  *out = NULL;
  TRY(memory_alloc_zero(sizeof *own, (void **)&own));
  own->device = device;
  own->options = *options;
  TRY_GOTO(start_nvjpeg(own), failed);
  TRY_GOTO(allocate(own), failed);
  *out = own;
  return STATUS_OK;
failed:
  destroy(&own);
  return status;
}

/* --- the arena ------------------------------------------------------------------------------------------------ */

/* The next bytes of it; beyond its end they are nobody's. */
static size_t take(struct chunk *chunk, size_t bytes) {
  size_t place = chunk->used;
  chunk->used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  return place;
}

static struct image_table take_table(struct chunk *chunk, int from, int to, int grid,
                                     const struct image_table *before) {
  struct image_table table = {.lengths = {from, to, grid}};
  if (before != NULL && before->lengths.from == from) {
    table = *before;
    table.made = true;
    return table;
  }
  table.room = triangle_pairs_bound(table.lengths);
  table.place = take(chunk, image_table_bytes(table.lengths, table.room));
  return table;
}

/* Puts a sample and its views into the chunk; false = there is no room left. */
static bool take_sample(struct jpeg_device *own, const struct batch *batch, int64_t row) {
  const struct image_record *record = &batch->records[row];
  const struct image_jpeg *jpeg = &record->jpeg;
  struct chunk *chunk = &own->chunk;
  struct image_job *jobs = own->jobs_here + own->job_count;
  size_t before = chunk->used, row_bytes = 3 * (size_t)jpeg->width;
  size_t place = take(chunk, row_bytes * (size_t)jpeg->height);
  for (int view = 0; view < batch->views; view++) {
    const struct transform_plan *plan = &batch->plans[view * batch->rows + row];
    struct image_job *job = &jobs[view];
    *job = (struct image_job){.down = jpeg->walk.down, .right = jpeg->walk.right, .plan = *plan};
    job->first = (ptrdiff_t)place + jpeg->walk.first + plan->top * job->down + plan->left * job->right;
    job->across = take_table(chunk, plan->width, own->options.width, 1, view > 0 ? &jobs[view - 1].across : NULL);
    job->along = take_table(chunk, plan->height, own->options.height, 2, view > 0 ? &jobs[view - 1].along : NULL);
    job->row = view * batch->rows + row;
  }
  if (chunk->used > own->options.room || (chunk->count + 1) * batch->views > IMAGE_MOST_JOBS) {
    chunk->used = before;
    return false;
  }
  chunk->bytes[chunk->count] = record->bytes;
  chunk->counts[chunk->count] = record->count;
  chunk->pictures[chunk->count] = (struct nvjpeg_picture){{own->arena + place}, {row_bytes}};
  chunk->rows[chunk->count++] = row;
  own->job_count += batch->views;
  return true;
}

/* Does nvJPEG see the same picture in the record?  It writes as much as it sees. */
static bool is_as_said(const struct jpeg_device *own, const struct image_record *record) {
  int components = 0, subsampling = 0, widths[NVJPEG_COMPONENTS] = {0}, heights[NVJPEG_COMPONENTS] = {0};
  int code =
      own->api.GetImageInfo(own->handle, record->bytes, record->count, &components, &subsampling, widths, heights);
  return code == NVJPEG_OK && (components == 1 || components == 3) && widths[0] == record->jpeg.width &&
         heights[0] == record->jpeg.height;
}

/* --- decoding ------------------------------------------------------------------------------------------------- */

/* A code that speaks of a picture: another decoder may know it, or will say what is wrong with it. */
static bool is_of_picture(int code) {
  return code == NVJPEG_BAD || code == NVJPEG_NOT_SUPPORTED || code == NVJPEG_INTERNAL ||
         code == NVJPEG_NOT_IMPLEMENTED || code == NVJPEG_INCOMPLETE;
}

/* *code: one of a picture, or NVJPEG_OK. */
static enum status decode_together(struct jpeg_device *own, struct stream *stream, int *code) {
  const struct chunk *chunk = &own->chunk;
  *code = NVJPEG_OK;
  if (own->batched_pictures != chunk->count)
    *code = own->api.DecodeBatchedInitialize(own->handle, own->batched, chunk->count, own->options.threads,
                                             NVJPEG_RGB_PIXELS);
  if (*code == NVJPEG_OK)
    *code = own->api.DecodeBatched(own->handle, own->batched, chunk->bytes, chunk->counts, chunk->pictures,
                                   cuda_stream(stream));
  own->batched_pictures = *code == NVJPEG_OK ? chunk->count : 0; /* after a failure it has to be made ready again */
  return *code == NVJPEG_OK || is_of_picture(*code) ? STATUS_OK : nvjpeg_failed(*code, "decoding a batch");
}

/* Some picture spoils the batch: those that can be decoded alone stay in the chunk, with their jobs. */
static enum status decode_one_by_one(struct jpeg_device *own, struct stream *stream, int views, bool *refused) {
  struct chunk *chunk = &own->chunk;
  struct image_job *jobs = own->jobs_here + own->job_count - (ptrdiff_t)chunk->count * views;
  int kept = 0;
  cudaGetLastError();
  for (int i = 0; i < chunk->count; i++) {
    int code = own->api.Decode(own->handle, own->single, chunk->bytes[i], chunk->counts[i], NVJPEG_RGB_PIXELS,
                               &chunk->pictures[i], cuda_stream(stream));
    if (code != NVJPEG_OK && !is_of_picture(code))
      return nvjpeg_failed(code, "decoding a picture");
    for (int view = 0; code == NVJPEG_OK && view < views; view++)
      jobs[(ptrdiff_t)kept * views + view] = jobs[(ptrdiff_t)i * views + view];
    if (code == NVJPEG_OK)
      kept++;
    else
      refused[chunk->rows[i]] = true;
  }
  cudaGetLastError(); /* of pictures */
  own->job_count -= (int64_t)(chunk->count - kept) * views;
  chunk->count = kept;
  return STATUS_OK;
}

static enum status make_views(struct jpeg_device *own, struct stream *stream, int views, void *inputs) {
  int count = own->chunk.count * views, height = own->options.height, width = own->options.width;
  int64_t first = own->job_count - count;
  const struct image_job *jobs = own->jobs + first;
  bool colours = false;
  for (int64_t i = first; i < own->job_count; i++)
    colours = colours || own->jobs_here[i].plan.changes > 0 || own->jobs_here[i].plan.grey;
  if (count == 0)
    return STATUS_OK;
  TRY(stream_copy(stream, own->jobs + first, own->jobs_here + first, (size_t)count * sizeof *jobs));
  TRY(event_record(own->sent, stream));
  TRY(image_weigh_launch(stream, count, jobs, own->arena));
  TRY(image_resize_launch(stream, count, jobs, own->arena, height, width, inputs));
  return colours ? image_colour_launch(stream, count, jobs, height, width, inputs) : STATUS_OK;
}

static enum status make_chunk(struct jpeg_device *own, struct stream *stream, int views, void *inputs, bool *refused) {
  int code;
  TRY(decode_together(own, stream, &code));
  if (code != NVJPEG_OK)
    TRY(decode_one_by_one(own, stream, views, refused));
  return make_views(own, stream, views, inputs);
}

/* From *row on, as many samples as fit. */
static void fill_chunk(struct jpeg_device *own, const struct batch *batch, int64_t *row, bool *refused) {
  struct chunk *chunk = &own->chunk;
  chunk->count = 0;
  chunk->used = 0;
  for (; *row < batch->rows; (*row)++) {
    if (batch->records[*row].decoded)
      continue;
    bool known = is_as_said(own, &batch->records[*row]);
    if (known && take_sample(own, batch, *row))
      continue;
    if (known && chunk->count > 0)
      return; /* it begins the next one */
    refused[*row] = true;
  }
}

static enum status make(struct jpeg_device *own, struct stream *stream, const struct batch *batch, void *inputs,
                        bool *refused) {
  REQUIRE(batch->rows <= own->options.samples && batch->views == own->options.views, ERR_BUG,
          "a batch of %lld samples in %d views was not expected", (long long)batch->rows, batch->views);
  TRY(cuda_check(cudaSetDevice(own->device->facts.index), "selecting the GPU"));
  TRY(event_wait(own->sent)); /* the jobs of the last batch: long gone */
  own->job_count = 0;
  for (int64_t row = 0; row < batch->rows;) {
    fill_chunk(own, batch, &row, refused);
    if (own->chunk.count > 0)
      TRY(make_chunk(own, stream, batch->views, inputs, refused));
  }
  return STATUS_OK;
}

/* DEVICE_IMAGES_OPS_SYMBOL */
extern const struct device_images_ops conr_cuda_device_images_ops;
const struct device_images_ops conr_cuda_device_images_ops = {.create = create, .destroy = destroy, .make = make};
