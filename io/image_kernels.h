/* Kernels that make decoded pictures into views, and what they are told. */
#ifndef CONR_IO_IMAGE_KERNELS_H
#define CONR_IO_IMAGE_KERNELS_H

#include "dist/cuda.h"
#include "io/transform.h"
#include "io/triangle.h"
#include "io/triangle_weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The weights of one direction, in the arena: shares [to, 2 * room], weights [to, room], first [to], pairs [to], bits. */
struct image_table {
  size_t place; /* byte in the arena, a multiple of 8 */
  struct triangle_lengths lengths;
  int room;  /* pairs of a result                              */
  bool made; /* by another job, of an image of the same size   */
};

/* One view of one decoded picture. */
struct image_job {
  ptrdiff_t first, down, right; /* the arena's byte of the part's first pixel, and bytes to the next ones as shown */
  struct image_table across, along; /* widths and heights */
  struct transform_plan plan;
  int64_t row; /* of the result */
};

/* Bytes of a table. */
IO_INLINE size_t image_table_bytes(struct triangle_lengths lengths, int room) {
  size_t pair_bytes = 2 * sizeof(double) + sizeof(struct triangle_pair);
  size_t bytes = (size_t)lengths.to * ((size_t)room * pair_bytes + 2 * sizeof(int)) + sizeof(int);
  return (bytes + 7) / 8 * 8;
}

/* jobs [count], arena: device.  out [rows, height, width, 3], device.
 * weigh   makes the tables of the jobs
 * resize  with them, the views, cut and mirrored
 * colour  then changes their colours, in place */
enum status image_weigh_launch(struct stream *stream, int count, const struct image_job *jobs, uint8_t *arena);
enum status image_resize_launch(struct stream *stream, int count, const struct image_job *jobs, const uint8_t *arena,
                                int height, int width, uint8_t *out);
enum status image_colour_launch(struct stream *stream, int count, const struct image_job *jobs, int height, int width,
                                uint8_t *out);

/* Jobs of a launch. */
#define IMAGE_MOST_JOBS 65535

#ifdef __cplusplus
}
#endif

#endif
