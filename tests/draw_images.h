/* Pictures for tests: JPEG and PNG files of every kind, drawn and encoded here with libjpeg and libpng.
 *
 *     struct drawing drawing = {.height = 60, .width = 80, .label = 37};
 *     draw_jpeg(io_file("a.jpg"), &drawing);
 *     drawing.kind = DRAW_CMYK, drawing.orientation = 6;
 *     draw_jpeg_bytes(&drawing, &bytes, &count);                                       free(bytes)
 *
 * A smooth gradient and in its middle a disc: radius and brightness grow with the label, so that a small network can
 * learn the label from the picture, and a test can see which picture it got (draw_disc_brightness).  A drawing looks
 * the same for all kinds and orientations: with an orientation the pixels are stored turned, and EXIF says how to turn
 * them back.  A function that fails prints why and aborts: no Criterion here, so that programs of ranks may draw,
 * too. */
#ifndef CONR_TESTS_DRAW_IMAGES_H
#define CONR_TESTS_DRAW_IMAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum drawing_kind {
  DRAW_COLOUR,
  DRAW_GREY,
  DRAW_CMYK,       /* JPEG: with Adobe's marker, and inverted as Adobe does     */
  DRAW_YCCK,       /* JPEG: the same, stored as YCCK                            */
  DRAW_CMYK_PLAIN, /* JPEG: neither marker nor inversion                        */
  DRAW_PALETTE,    /* PNG: 216 colours, each the nearest                        */
  DRAW_ALPHA,      /* PNG: colour and alpha; transparent above the diagonal     */
  DRAW_GREY_ALPHA, /* PNG: grey and alpha                                       */
  DRAW_BLOCKS /* JPEG: each block of 8 x 8 of one grey, in colour: with sides that are multiples of 8 and quality 100
                      all decoders give the very pixels */
};

struct drawing {
  int height, width; /* as shown                                                               */
  double label;      /* 0 to 100                                                               */
  enum drawing_kind kind;
  bool progressive; /* JPEG: progressive; PNG: interlaced                                      */
  bool arithmetic;  /* JPEG: arithmetic instead of Huffman codes                               */
  int subsampling;  /* JPEG: pixels per chroma sample in a row, 1 to 4; 0 = 1; 2 also in a column */
  int quality;      /* JPEG: 0 = 90                                                            */
  int orientation;  /* EXIF: 0 = says nothing, 1 to 8                                          */
  int bits;         /* PNG: 0 = 8, 16 (not DRAW_PALETTE); DRAW_GREY also 1, 2, 4               */
};

/* What a reader should see before any loss: pixels [height, width, 3].  Alpha is not yet laid over anything. */
void draw_pixels(const struct drawing *drawing, uint8_t *pixels);

/* The alpha of DRAW_ALPHA and DRAW_GREY_ALPHA at one place. */
uint8_t draw_alpha(const struct drawing *drawing, int y, int x);

/* The red value in the disc, the same for all sizes: 40 + 2 * label, and the smooth background stays below 40
 * (rounded to what the file can hold for DRAW_PALETTE and few bits). */
uint8_t draw_disc_brightness(double label);

/* Encoded bytes; free(*bytes). */
void draw_jpeg_bytes(const struct drawing *drawing, uint8_t **bytes, size_t *count);
void draw_png_bytes(const struct drawing *drawing, uint8_t **bytes, size_t *count);

/* The same as files. */
void draw_jpeg(const char *path, const struct drawing *drawing);
void draw_png(const char *path, const struct drawing *drawing);

#endif
