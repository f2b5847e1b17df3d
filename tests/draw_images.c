/* Pictures for tests, encoded with libjpeg and libpng. */
#include "tests/draw_images.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

static void give_up(const char *what, const char *why) {
  fprintf(stderr, "draw_images: %s: %s\n", what, why);
  abort();
}

static void *room(size_t bytes) {
  void *block = calloc(bytes + 1, 1);
  if (block == NULL)
    give_up("room for a picture", "out of memory");
  return block;
}

/* ---------------------------------------------------------------- pixels */

uint8_t draw_disc_brightness(double label) {
  return (uint8_t)lround(40 + 2 * label);
}

static bool in_disc(const struct drawing *drawing, int y, int x) {
  int shorter = drawing->height < drawing->width ? drawing->height : drawing->width;
  double radius = (0.1 + 0.003 * drawing->label) * shorter + 0.5;
  return hypot(y + 0.5 - 0.5 * drawing->height, x + 0.5 - 0.5 * drawing->width) < radius;
}

static bool is_grey(const struct drawing *drawing) {
  return drawing->kind == DRAW_GREY || drawing->kind == DRAW_GREY_ALPHA;
}

/* What two samples that the file can tell apart differ by. */
static int sample_step(const struct drawing *drawing) {
  if (drawing->kind == DRAW_PALETTE)
    return 51;
  return drawing->bits == 1 ? 255 : drawing->bits == 2 ? 85 : drawing->bits == 4 ? 17 : 1;
}

static void draw_pixel(const struct drawing *drawing, int y, int x, uint8_t pixel[3]) {
  if (drawing->kind == DRAW_BLOCKS) {
    memset(pixel, (y / 8 * 97 + x / 8 * 61 + (int)drawing->label * 29) % 256, 3);
    return;
  }
  double down = (y + 0.5) / drawing->height, right = (x + 0.5) / drawing->width;
  bool disc = in_disc(drawing, y, x);
  pixel[0] = disc ? draw_disc_brightness(drawing->label) : (uint8_t)(38 * right);
  pixel[1] = disc ? 60 : (uint8_t)(20 + 200 * down);
  pixel[2] = disc ? 90 : (uint8_t)(240 - 200 * right * down);
  int step = sample_step(drawing);
  for (int channel = 0; channel < 3; channel++)
    pixel[channel] = (uint8_t)((pixel[is_grey(drawing) ? 0 : channel] + step / 2) / step * step);
}

void draw_pixels(const struct drawing *drawing, uint8_t *pixels) {
  for (int y = 0; y < drawing->height; y++)
    for (int x = 0; x < drawing->width; x++)
      draw_pixel(drawing, y, x, pixels + 3 * ((size_t)y * (size_t)drawing->width + (size_t)x));
}

uint8_t draw_alpha(const struct drawing *drawing, int y, int x) {
  return (x + 0.5) / drawing->width > (y + 0.5) / drawing->height ? 0
                                                                  : (uint8_t)(128 + 127 * (y + 1) / drawing->height);
}

/* ---------------------------------------------------------------- as stored */

/* The picture turned as its orientation wants it stored. */
struct stored {
  int height, width;
  uint8_t *pixels; /* [height, width, 4]: red, green, blue, alpha */
};

/* Where the pixel stored at (row, column) is shown.  EXIF says for each orientation what the first stored row and
 * column are: 5 to 8 have rows where columns are shown. */
static void shown_at(const struct drawing *drawing, int row, int column, int *y, int *x) {
  int orientation = drawing->orientation;
  int down = orientation >= 5 ? column : row, right = orientation >= 5 ? row : column;
  bool upside_down = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  bool mirrored = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  *y = upside_down ? drawing->height - 1 - down : down;
  *x = mirrored ? drawing->width - 1 - right : right;
}

static struct stored store(const struct drawing *drawing) {
  bool turned = drawing->orientation >= 5;
  struct stored stored = {.height = turned ? drawing->width : drawing->height,
                          .width = turned ? drawing->height : drawing->width};
  stored.pixels = room(4 * (size_t)stored.height * (size_t)stored.width);
  uint8_t *pixel = stored.pixels;
  for (int row = 0; row < stored.height; row++) {
    for (int column = 0; column < stored.width; column++, pixel += 4) {
      int y, x;
      shown_at(drawing, row, column, &y, &x);
      draw_pixel(drawing, y, x, pixel);
      pixel[3] = draw_alpha(drawing, y, x);
    }
  }
  return stored;
}

/* A TIFF of one entry, the orientation (tag 0x0112, one 16-bit number), after the six bytes that JPEG puts before
 * it. */
#define EXIF_BYTES 32
static void write_exif(int orientation, uint8_t exif[EXIF_BYTES]) {
  static const uint8_t before[] = {'E', 'x', 'i', 'f', 0,    0, 'I', 'I', 42, 0, 8, 0,
                                   0,   0,   1,   0,   0x12, 1, 3,   0,   1,  0, 0, 0};
  memset(exif, 0, EXIF_BYTES);
  memcpy(exif, before, sizeof before);
  exif[sizeof before] = (uint8_t)orientation;
}

/* ---------------------------------------------------------------- JPEG */

static void jpeg_failed(j_common_ptr common) {
  char why[JMSG_LENGTH_MAX];
  common->err->format_message(common, why);
  give_up("JPEG", why);
}

static void set_colours(struct jpeg_compress_struct *jpeg, const struct drawing *drawing) {
  enum drawing_kind kind = drawing->kind;
  bool cmyk = kind == DRAW_CMYK || kind == DRAW_YCCK || kind == DRAW_CMYK_PLAIN;
  jpeg->input_components = is_grey(drawing) ? 1 : cmyk ? 4 : 3;
  jpeg->in_color_space = is_grey(drawing) ? JCS_GRAYSCALE : cmyk ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(jpeg);
  if (cmyk)
    jpeg_set_colorspace(jpeg, kind == DRAW_YCCK ? JCS_YCCK : JCS_CMYK);
  jpeg->write_Adobe_marker = kind == DRAW_CMYK || kind == DRAW_YCCK;
  for (int i = 0; i < jpeg->num_components; i++) {
    bool fine = !is_grey(drawing) && i % 3 == 0; /* luma, and black ink */
    jpeg->comp_info[i].h_samp_factor = fine && drawing->subsampling != 0 ? drawing->subsampling : 1;
    jpeg->comp_info[i].v_samp_factor = fine && drawing->subsampling == 2 ? 2 : 1;
  }
}

/* One stored row in the samples of the file; ink that Adobe writes is 255 for none. */
static void jpeg_row(const struct drawing *drawing, const uint8_t *pixels, int width, uint8_t *row) {
  for (int x = 0; x < width; x++, pixels += 4) {
    int most = pixels[0] > pixels[1] ? pixels[0] : pixels[1];
    most = pixels[2] > most ? pixels[2] : most;
    switch (drawing->kind) {
    case DRAW_GREY:
    case DRAW_GREY_ALPHA:
      *row++ = pixels[0];
      break;
    case DRAW_CMYK:
    case DRAW_YCCK:
    case DRAW_CMYK_PLAIN:
      for (int channel = 0; channel < 4; channel++) {
        int white = channel == 3 ? most : most == 0 ? 255 : (255 * pixels[channel] + most / 2) / most;
        *row++ = (uint8_t)(drawing->kind == DRAW_CMYK_PLAIN ? 255 - white : white);
      }
      break;
    default:
      memcpy(row, pixels, 3);
      row += 3;
    }
  }
}

void draw_jpeg_bytes(const struct drawing *drawing, uint8_t **bytes, size_t *count) {
  struct jpeg_compress_struct jpeg;
  struct jpeg_error_mgr errors;
  struct stored stored = store(drawing);
  uint8_t *row = room(4 * (size_t)stored.width);
  unsigned long length = 0;
  jpeg.err = jpeg_std_error(&errors);
  errors.error_exit = jpeg_failed;
  jpeg_create_compress(&jpeg);
  *bytes = NULL;
  jpeg_mem_dest(&jpeg, bytes, &length);
  jpeg.image_height = (unsigned)stored.height;
  jpeg.image_width = (unsigned)stored.width;
  set_colours(&jpeg, drawing);
  jpeg_set_quality(&jpeg, drawing->quality == 0 ? 90 : drawing->quality, TRUE);
  if (drawing->progressive)
    jpeg_simple_progression(&jpeg);
  jpeg.arith_code = drawing->arithmetic;
  jpeg_start_compress(&jpeg, TRUE);
  if (drawing->orientation != 0) {
    uint8_t exif[EXIF_BYTES];
    write_exif(drawing->orientation, exif);
    jpeg_write_marker(&jpeg, JPEG_APP0 + 1, exif, EXIF_BYTES);
  }
  for (int y = 0; y < stored.height; y++) {
    jpeg_row(drawing, stored.pixels + 4 * (size_t)y * (size_t)stored.width, stored.width, row);
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  free(row);
  free(stored.pixels);
  *count = length;
}

/* ---------------------------------------------------------------- PNG */

struct growing {
  uint8_t *bytes;
  size_t count, room;
};

static void png_append(png_structp png, png_bytep data, size_t bytes) {
  struct growing *out = png_get_io_ptr(png);
  while (out->count + bytes > out->room) {
    out->room = 2 * out->room + 4096;
    out->bytes = realloc(out->bytes, out->room);
    if (out->bytes == NULL)
      give_up("PNG", "out of memory");
  }
  memcpy(out->bytes + out->count, data, bytes);
  out->count += bytes;
}

static void png_flush_nothing(png_structp png) {
  (void)png;
}

static void png_failed(png_structp png, png_const_charp why) {
  (void)png;
  give_up("PNG", why);
}

static int png_kind(const struct drawing *drawing) {
  switch (drawing->kind) {
  case DRAW_GREY:
    return PNG_COLOR_TYPE_GRAY;
  case DRAW_GREY_ALPHA:
    return PNG_COLOR_TYPE_GRAY_ALPHA;
  case DRAW_ALPHA:
    return PNG_COLOR_TYPE_RGB_ALPHA;
  case DRAW_PALETTE:
    return PNG_COLOR_TYPE_PALETTE;
  default:
    return PNG_COLOR_TYPE_RGB;
  }
}

static void write_header(png_structp png, png_infop info, const struct drawing *drawing, const struct stored *stored) {
  uint8_t exif[EXIF_BYTES];
  png_color palette[216];
  png_set_IHDR(png, info, (unsigned)stored->width, (unsigned)stored->height, drawing->bits == 0 ? 8 : drawing->bits,
               png_kind(drawing), drawing->progressive ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE,
               PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  for (int i = 0; i < 216; i++)
    palette[i] = (png_color){(png_byte)(i / 36 * 51), (png_byte)(i / 6 % 6 * 51), (png_byte)(i % 6 * 51)};
  if (drawing->kind == DRAW_PALETTE)
    png_set_PLTE(png, info, palette, 216);
  if (drawing->orientation != 0) {
    write_exif(drawing->orientation, exif);
    png_set_eXIf_1(png, info, EXIF_BYTES - 6, exif + 6);
  }
  png_write_info(png, info);
}

/* One stored row, samples of 8 bits; a 16-bit sample's lower byte is noise that a reader must drop. */
static void png_row(const struct drawing *drawing, const uint8_t *pixels, int width, uint8_t *row) {
  int kind = png_kind(drawing), colours = is_grey(drawing) ? 1 : 3;
  for (int x = 0; x < width; x++, pixels += 4) {
    if (kind == PNG_COLOR_TYPE_PALETTE) {
      *row++ = (uint8_t)(pixels[0] / 51 * 36 + pixels[1] / 51 * 6 + pixels[2] / 51);
      continue;
    }
    for (int sample = 0; sample < colours + (kind & PNG_COLOR_MASK_ALPHA ? 1 : 0); sample++) {
      uint8_t value = pixels[sample == colours ? 3 : sample];
      if (drawing->bits != 0 && drawing->bits < 8)
        value = (uint8_t)(value >> (8 - drawing->bits));
      *row++ = value;
      if (drawing->bits == 16)
        *row++ = (uint8_t)(x * 37 + sample * 101);
    }
  }
}

static void write_rows(png_structp png, const struct drawing *drawing, const struct stored *stored) {
  size_t row_bytes = 8 * (size_t)stored->width;
  uint8_t *row = room(row_bytes);
  int passes = drawing->progressive ? png_set_interlace_handling(png) : 1;
  png_set_packing(png);
  for (int pass = 0; pass < passes; pass++) {
    for (int y = 0; y < stored->height; y++) {
      png_row(drawing, stored->pixels + 4 * (size_t)y * (size_t)stored->width, stored->width, row);
      png_write_row(png, row);
    }
  }
  free(row);
}

void draw_png_bytes(const struct drawing *drawing, uint8_t **bytes, size_t *count) {
  struct growing out = {0};
  struct stored stored = store(drawing);
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, png_failed, NULL);
  png_infop info = png_create_info_struct(png);
  if (png == NULL || info == NULL)
    give_up("PNG", "out of memory");
  png_set_user_limits(png, 1000000, 1000000);
  png_set_write_fn(png, &out, png_append, png_flush_nothing);
  write_header(png, info, drawing, &stored);
  write_rows(png, drawing, &stored);
  png_write_end(png, info);
  png_destroy_write_struct(&png, &info);
  free(stored.pixels);
  *bytes = out.bytes;
  *count = out.count;
}

/* ---------------------------------------------------------------- files */

static void write_file(const char *path, uint8_t *bytes, size_t count) {
  FILE *file = fopen(path, "wb");
  if (file == NULL || fwrite(bytes, 1, count, file) != count || fclose(file) != 0)
    give_up(path, strerror(errno));
  free(bytes);
}

void draw_jpeg(const char *path, const struct drawing *drawing) {
  uint8_t *bytes;
  size_t count;
  draw_jpeg_bytes(drawing, &bytes, &count);
  write_file(path, bytes, count);
}

void draw_png(const char *path, const struct drawing *drawing) {
  uint8_t *bytes;
  size_t count;
  draw_png_bytes(drawing, &bytes, &count);
  write_file(path, bytes, count);
}
