/* Images decoded and resized, as they are before padding, cropping and mirroring: kept in memory that the ranks of a
 * host share, so that each is decoded once a host and not once an epoch.
 *
 *     struct image_cache *cache;
 *     TRY(image_cache_create(dataset, comm, &transform, no_decode_scaling, IMAGE_CACHE_AUTO, &cache));
 *     options.cache = cache;                                           loaders fill and use it; same bits as without
 *     ...
 *     loader_destroy(&loader);
 *     image_cache_destroy(&cache);
 *
 * Filled as images are first used.  A row is empty, being filled, or ready; who finds it being filled decodes for
 * itself and waits for nobody, so that a rank that dies in the middle stops no other. */
#ifndef CONR_IO_IMAGE_CACHE_H
#define CONR_IO_IMAGE_CACHE_H

#include "io/dataset.h"
#include "io/transform.h"

struct image_cache;

/* auto: when the images are encoded, the transform can use it, and all rows fit in half of the memory that every host
 * has left; on: as auto, but without asking for the half, and an error where it cannot be had; off: never. */
enum image_cache_mode { IMAGE_CACHE_AUTO, IMAGE_CACHE_ON, IMAGE_CACHE_OFF };

/* *out is NULL when there is to be none: mode off; auto and not enough memory; or pixels that are stored at the size
 * wanted, which the file itself is a cache of.
 * Collective when comm is given (borrowed: must outlive the cache; the memory is freed with it); same values on all
 * ranks, one verdict for all.
 * ERR_ARGUMENT: on, and the transform is strong, which needs the whole images, or they do not fit at all. */
enum status image_cache_create(const struct dataset *dataset, struct comm *comm, const struct transform *transform,
                               bool no_decode_scaling, enum image_cache_mode mode, struct image_cache **out);

/* Local; NULL is fine.  No loader may use it any more. */
void image_cache_destroy(struct image_cache **cache);

/* Bytes of pixels, and rows that are ready now.  Local. */
int64_t image_cache_bytes(const struct image_cache *cache);
int64_t image_cache_ready(const struct image_cache *cache);

/* Was it made for images of this size, decoded this way?  Local. */
bool image_cache_fits(const struct image_cache *cache, const struct dataset *dataset, const struct transform *transform,
                      bool no_decode_scaling);

/* For those who fill and use it; local, any number of threads.
 * find     the pixels [height, width, 3] of a row that is ready, else NULL
 * claim    where to put those of an empty row, which is being filled then; else NULL
 * publish  a claimed row is ready;   abandon  it could not be filled and is empty again */
const uint8_t *image_cache_find(const struct image_cache *cache, int64_t row);
uint8_t *image_cache_claim(struct image_cache *cache, int64_t row);
void image_cache_publish(struct image_cache *cache, int64_t row);
void image_cache_abandon(struct image_cache *cache, int64_t row);

#endif
