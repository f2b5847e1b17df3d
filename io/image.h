/* JPEG and PNG bytes into 8-bit RGB pixels, and back.
 *
 *     struct image_decoder *decoder;
 *     TRY(image_decoder_create(&decoder));                              one per thread
 *     TRY(image_decode(decoder, bytes, count, 224, 224, &image));       image.pixels [height, width, 3]
 *     ... image.pixels stay valid until the decoder's next call ...
 *     image_decoder_destroy(&decoder);
 *
 * Always three channels: grey becomes R = G = B, CMYK and YCCK (Adobe's inverted form too) become RGB, alpha is laid
 * over black, 16-bit PNG samples keep their upper 8 bits.  The orientation that EXIF asks for is applied.  Progressive
 * and arithmetic-coded JPEG work.  The format is known by the first bytes, never by the name of a file.
 *
 * Bytes may be anything: a damaged, truncated or absurdly large image is ERR_FORMAT with a sentence that says what is
 * wrong ("the JPEG data end early"), without the name of the image: the caller adds it.
 *
 * All functions are local; a decoder serves one thread at a time. */
#ifndef CONR_IO_IMAGE_H
#define CONR_IO_IMAGE_H

#include "dist/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Images with more pixels than this are refused: a forged header must not ask for all the memory. */
#define IMAGE_MOST_PIXELS ((int64_t)1 << 28)

enum image_format { IMAGE_JPEG, IMAGE_PNG };

/* What the header says. */
struct image_info {
  enum image_format format;
  int height, width; /* as shown: EXIF orientation applied */
};

struct image {
  int height, width;
  uint8_t *pixels; /* [height, width, 3] */
};

/* How to walk over the pixels of a picture as it is shown when they lie as they were stored: the one at row y and column
 * x begins at byte first + y * down + x * right of [stored height, stored width, 3]. */
struct image_walk {
  int height, width; /* as shown */
  ptrdiff_t first, down, right;
};

/* A JPEG that any decoder takes: Huffman-coded, of 8 bits a sample, in YCbCr or grey, and not cut off. */
struct image_jpeg {
  int height, width; /* as stored: EXIF orientation not applied */
  struct image_walk walk;
};

struct image_decoder;

enum status image_decoder_create(struct image_decoder **out);
void image_decoder_destroy(struct image_decoder **decoder); /* NULL is fine */

/* Read the header only.  ERR_FORMAT: neither JPEG nor PNG, damaged, empty, too large. */
enum status image_inspect(struct image_decoder *decoder, const uint8_t *bytes, size_t count, struct image_info *out);

/* Is it such a JPEG?  If not, image_decode may still know what it is.  By the header alone: the rest may be damaged. */
bool image_is_plain_jpeg(struct image_decoder *decoder, const uint8_t *bytes, size_t count, struct image_jpeg *out);

/* Decode.  A JPEG much larger than needed is decoded at a reduced scale (1/2, 1/4 or 1/8, which are the quick
 * ones): the smallest that is still at least least_height x least_width; 0, 0 = full size.  The result may thus be
 * larger than asked for, and smaller only when the image itself is.
 * out->pixels is borrowed from the decoder until its next call.  The memory is kept for the next image. */
enum status image_decode(struct image_decoder *decoder, const uint8_t *bytes, size_t count, int least_height,
                         int least_width, struct image *out);

/* Encode as baseline JPEG, quality 1 to 100, chroma not subsampled.  *bytes is borrowed from the decoder until its
 * next call. */
enum status image_encode_jpeg(struct image_decoder *decoder, const struct image *image, int quality,
                              const uint8_t **bytes, size_t *count);

#endif
