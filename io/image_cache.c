/* One state byte a row, then the pixels. */
#include "io/image_cache.h"

#include "dist/memory.h"
#include "io/host_memory.h"
#include "io/host_share.h"

#include <string.h>

enum { EMPTY, FILLING, READY };

struct image_cache {
  const struct dataset *dataset; /* borrowed: must outlive this */
  struct host_share share;
  int height, width;
  bool no_decode_scaling;
  int64_t rows;
  size_t image_bytes;
  uint8_t *state;  /* [rows], the host's; atomic */
  uint8_t *pixels; /* [rows, height, width, 3], in the same block */
};

/* Could it be of use?  The answer is the same on all ranks. */
static enum status is_wanted(const struct dataset *dataset, const struct transform *transform,
                             enum image_cache_mode mode, bool *wanted) {
  bool encoded = dataset_image_layout(dataset) == IMAGE_LAYOUT_ENCODED;
  bool stored = !encoded && dataset_image_height(dataset) == transform->height &&
                dataset_image_width(dataset) == transform->width;
  *wanted = false;
  REQUIRE(dataset_kind(dataset) == DATASET_IMAGES, ERR_BUG, "%s holds no images to keep", dataset_path(dataset));
  if (mode == IMAGE_CACHE_OFF)
    return STATUS_OK;
  REQUIRE(mode != IMAGE_CACHE_ON || transform->set != TRANSFORM_STRONG, ERR_ARGUMENT,
          "the cache keeps resized images, but the strong augmentation cuts windows out of whole ones; "
          "use --cache auto or off");
  *wanted = transform->set != TRANSFORM_STRONG && !stored && (mode == IMAGE_CACHE_ON || encoded);
  return STATUS_OK;
}

/* What the host with the least of it has left.  Collective. */
static enum status least_available(const struct host_share *share, int64_t *out) {
  int64_t negative = host_share_reads(share) ? -host_memory_available() : -INT64_MAX;
  if (share->comm != NULL)
    TRY(comm_max_i64(share->comm, &negative, 1));
  *out = -negative;
  return STATUS_OK;
}

/* Collective. */
static enum status has_room(const struct image_cache *cache, enum image_cache_mode mode, bool *out) {
  double bytes = (double)cache->rows * (double)(cache->image_bytes + 1);
  int64_t available;
  TRY(least_available(&cache->share, &available));
  *out = bytes <= (double)available * (mode == IMAGE_CACHE_ON ? 1.0 : 0.5);
  REQUIRE(*out || mode != IMAGE_CACHE_ON, ERR_ARGUMENT,
          "the cache of %s needs %.1f GB a host, but %.1f GB are left; use --cache auto or off, or a smaller --size",
          dataset_path(cache->dataset), bytes / 1e9, (double)available / 1e9);
  return STATUS_OK;
}

/* Collective. */
static enum status allocate(struct image_cache *cache, enum image_cache_mode mode, bool *made) {
  size_t rows = (size_t)cache->rows;
  TRY(has_room(cache, mode, made));
  if (!*made)
    return STATUS_OK;
  enum status status = host_share_alloc(&cache->share, rows * (cache->image_bytes + 1), (void **)&cache->pixels);
  *made = status == STATUS_OK;
  if (status != STATUS_OK) /* the memory went to others meanwhile */
    return mode == IMAGE_CACHE_ON ? status : STATUS_OK;
  cache->state = cache->pixels + rows * cache->image_bytes;
  if (host_share_reads(&cache->share))
    memset(cache->state, EMPTY, rows);
  return host_share_finish(&cache->share, STATUS_OK);
}

enum status image_cache_create(const struct dataset *dataset, struct comm *comm, const struct transform *transform,
                               bool no_decode_scaling, enum image_cache_mode mode, struct image_cache **out) {
  bool made;
  struct image_cache *cache = NULL;
  struct host_share share = {comm, dataset_path(dataset)};
  *out = NULL;
  TRY(is_wanted(dataset, transform, mode, &made));
  if (!made)
    return STATUS_OK;
  enum status status = host_share_agree(&share, memory_alloc(sizeof *cache, (void **)&cache));
  if (status != STATUS_OK) {
    memory_free((void **)&cache);
    return status;
  }
  *cache = (struct image_cache){.dataset = dataset,
                                .share = share,
                                .height = transform->height,
                                .width = transform->width,
                                .no_decode_scaling = no_decode_scaling,
                                .rows = dataset_rows(dataset),
                                .image_bytes = (size_t)transform->height * (size_t)transform->width * 3};
  status = allocate(cache, mode, &made);
  if (status != STATUS_OK || !made)
    image_cache_destroy(&cache);
  *out = cache;
  return status;
}

void image_cache_destroy(struct image_cache **cache) {
  if (*cache == NULL)
    return;
  host_share_free(&(*cache)->share, (void **)&(*cache)->pixels);
  memory_free((void **)cache);
}

int64_t image_cache_bytes(const struct image_cache *cache) {
  return cache->rows * (int64_t)cache->image_bytes;
}

int64_t image_cache_ready(const struct image_cache *cache) {
  int64_t count = 0;
  for (int64_t row = 0; row < cache->rows; row++)
    count += __atomic_load_n(&cache->state[row], __ATOMIC_RELAXED) == READY;
  return count;
}

bool image_cache_fits(const struct image_cache *cache, const struct dataset *dataset, const struct transform *transform,
                      bool no_decode_scaling) {
  return cache->dataset == dataset && cache->height == transform->height && cache->width == transform->width &&
         cache->no_decode_scaling == no_decode_scaling && transform->set != TRANSFORM_STRONG;
}

const uint8_t *image_cache_find(const struct image_cache *cache, int64_t row) {
  bool ready = __atomic_load_n(&cache->state[row], __ATOMIC_ACQUIRE) == READY;
  return ready ? cache->pixels + (size_t)row * cache->image_bytes : NULL;
}

uint8_t *image_cache_claim(struct image_cache *cache, int64_t row) {
  uint8_t expected = EMPTY;
  bool mine =
      __atomic_compare_exchange_n(&cache->state[row], &expected, FILLING, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
  return mine ? cache->pixels + (size_t)row * cache->image_bytes : NULL;
}

void image_cache_publish(struct image_cache *cache, int64_t row) {
  __atomic_store_n(&cache->state[row], READY, __ATOMIC_RELEASE);
}

void image_cache_abandon(struct image_cache *cache, int64_t row) {
  __atomic_store_n(&cache->state[row], EMPTY, __ATOMIC_RELEASE);
}
