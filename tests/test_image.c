/* JPEG and PNG against pictures whose pixels are known, whole, turned, cut and broken. */
#include "io/image.h"

#include "dist/random.h"
#include "tests/draw_images.h"
#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

typedef void draw_function(const struct drawing *, uint8_t **, size_t *);

static struct image_decoder *new_decoder(void) {
  struct image_decoder *decoder = NULL;
  cr_assert(eq(int, image_decoder_create(&decoder), STATUS_OK), "%s", status_message());
  return decoder;
}

static const char *describe(const struct drawing *drawing) {
  static char text[200];
  snprintf(text, sizeof text, "%d x %d kind %d, progressive %d, arithmetic %d, subsampling %d, orientation %d, bits %d",
           drawing->height, drawing->width, (int)drawing->kind, drawing->progressive, drawing->arithmetic,
           drawing->subsampling, drawing->orientation, drawing->bits);
  return text;
}

/* What a reader must show; free() it. */
static uint8_t *wanted_pixels(const struct drawing *drawing) {
  uint8_t *pixels = malloc(3 * (size_t)drawing->height * (size_t)drawing->width + 1);
  draw_pixels(drawing, pixels);
  bool alpha = drawing->kind == DRAW_ALPHA || drawing->kind == DRAW_GREY_ALPHA;
  for (int y = 0; alpha && y < drawing->height; y++)
    for (int x = 0; x < drawing->width; x++)
      for (int channel = 0; channel < 3; channel++) {
        uint8_t *value = pixels + 3 * ((size_t)y * (size_t)drawing->width + (size_t)x) + channel;
        *value = (uint8_t)((*value * draw_alpha(drawing, y, x) + 127) / 255);
      }
  return pixels;
}

/* The mean difference between a decoded picture and the drawing, in levels. */
static double mean_difference(const struct image *image, const struct drawing *drawing) {
  cr_assert(eq(int, image->height, drawing->height), "%s", describe(drawing));
  cr_assert(eq(int, image->width, drawing->width), "%s", describe(drawing));
  size_t count = 3 * (size_t)image->height * (size_t)image->width;
  uint8_t *wanted = wanted_pixels(drawing);
  double sum = 0;
  for (size_t i = 0; i < count; i++)
    sum += abs(image->pixels[i] - wanted[i]);
  free(wanted);
  return sum / (double)count;
}

static double decoded_difference(struct image_decoder *decoder, draw_function *draw, const struct drawing *drawing) {
  uint8_t *bytes;
  size_t count;
  struct image image;
  draw(drawing, &bytes, &count);
  enum status status = image_decode(decoder, bytes, count, 0, 0, &image);
  free(bytes);
  cr_assert(eq(int, status, STATUS_OK), "%s: %s", describe(drawing), status_message());
  return mean_difference(&image, drawing);
}

FILE_TEST(image, png_pixels_of_all_kinds_come_back_exactly) {
  static const struct drawing kinds[] = {{.kind = DRAW_COLOUR},
                                         {.kind = DRAW_COLOUR, .bits = 16},
                                         {.kind = DRAW_GREY},
                                         {.kind = DRAW_GREY, .bits = 16},
                                         {.kind = DRAW_GREY, .bits = 1},
                                         {.kind = DRAW_GREY, .bits = 2},
                                         {.kind = DRAW_GREY, .bits = 4},
                                         {.kind = DRAW_PALETTE},
                                         {.kind = DRAW_ALPHA},
                                         {.kind = DRAW_ALPHA, .bits = 16},
                                         {.kind = DRAW_GREY_ALPHA}};
  static const int sizes[][2] = {{1, 1}, {7, 5}, {40, 61}};
  struct image_decoder *decoder = new_decoder();
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    for (int j = 0; j < 6; j++) {
      struct drawing drawing = kinds[i];
      drawing.height = sizes[j / 2][0], drawing.width = sizes[j / 2][1];
      drawing.label = 70, drawing.progressive = j % 2;
      double difference = decoded_difference(decoder, draw_png_bytes, &drawing);
      cr_expect(zero(dbl, difference), "%s", describe(&drawing));
    }
  image_decoder_destroy(&decoder);
}

FILE_TEST(image, jpeg_of_all_kinds_looks_as_drawn) {
  static const enum drawing_kind kinds[] = {DRAW_COLOUR, DRAW_GREY, DRAW_CMYK, DRAW_YCCK, DRAW_CMYK_PLAIN};
  struct image_decoder *decoder = new_decoder();
  for (int i = 0; i < 5 * 2 * 2 * 5; i++) {
    struct drawing drawing = {.height = 75, .width = 110, .label = 60, .quality = 97, .kind = kinds[i % 5]};
    drawing.progressive = i / 5 % 2, drawing.arithmetic = i / 10 % 2, drawing.subsampling = i / 20;
    double difference = decoded_difference(decoder, draw_jpeg_bytes, &drawing);
    /* A missed inversion or a swapped channel is 50 and more; chroma of a quarter of the samples blurs the disc's edge,
     * and ink at 1/4 of the samples loses more. */
    double allowed = drawing.subsampling > 1 ? 4 : 1.5;
    cr_expect(le(dbl, difference, allowed), "%s", describe(&drawing));
  }
  image_decoder_destroy(&decoder);
}

FILE_TEST(image, all_orientations_show_the_same_picture) {
  struct image_decoder *decoder = new_decoder();
  for (int orientation = 0; orientation <= 8; orientation++) {
    struct drawing drawing = {.height = 33, .width = 58, .label = 20, .orientation = orientation, .quality = 97};
    double png = decoded_difference(decoder, draw_png_bytes, &drawing);
    double jpeg = decoded_difference(decoder, draw_jpeg_bytes, &drawing);
    cr_expect(zero(dbl, png), "orientation %d", orientation);
    cr_expect(le(dbl, jpeg, 1.5), "orientation %d", orientation);
    drawing.kind = DRAW_CMYK;
    jpeg = decoded_difference(decoder, draw_jpeg_bytes, &drawing);
    cr_expect(le(dbl, jpeg, 1.5), "CMYK, orientation %d", orientation);
  }
  image_decoder_destroy(&decoder);
}

FILE_TEST(image, inspect_tells_format_and_shown_size) {
  struct image_decoder *decoder = new_decoder();
  for (int i = 0; i < 18; i++) {
    struct drawing drawing = {.height = 33, .width = 58, .orientation = i / 2};
    struct image_info info;
    uint8_t *bytes;
    size_t count;
    (i % 2 ? draw_png_bytes : draw_jpeg_bytes)(&drawing, &bytes, &count);
    cr_assert(eq(int, image_inspect(decoder, bytes, count, &info), STATUS_OK), "%s", status_message());
    free(bytes);
    cr_expect(eq(int, (int)info.format, i % 2 ? IMAGE_PNG : IMAGE_JPEG));
    cr_expect(eq(int, info.height, 33), "orientation %d", i / 2);
    cr_expect(eq(int, info.width, 58), "orientation %d", i / 2);
  }
  image_decoder_destroy(&decoder);
}

FILE_TEST(image, scaled_jpeg_is_the_smallest_that_is_large_enough) {
  /* Drawn height and width, least height and width, orientation, decoded height and width. */
  static const int cases[][7] = {{512, 512, 224, 224, 0, 256, 256},
                                 {512, 512, 256, 256, 0, 256, 256},
                                 {512, 512, 257, 10, 0, 512, 512},
                                 {600, 400, 150, 100, 0, 150, 100},
                                 {600, 400, 150, 101, 0, 300, 200},
                                 {600, 400, 75, 50, 0, 75, 50},
                                 {600, 400, 1, 1, 0, 75, 50},
                                 {600, 400, 150, 100, 6, 150, 100},
                                 {600, 400, 100, 150, 6, 300, 200},
                                 {601, 401, 151, 101, 5, 151, 101},
                                 {100, 80, 224, 224, 0, 100, 80},
                                 {100, 80, 0, 0, 8, 100, 80},
                                 {1, 1, 1, 1, 0, 1, 1},
                                 {100, 80, 30, 0, 0, 50, 40}};
  struct image_decoder *decoder = new_decoder();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const int *c = cases[i];
    struct drawing drawing = {.height = c[0], .width = c[1], .label = 50, .quality = 97, .orientation = c[4]};
    struct image image;
    uint8_t *bytes;
    size_t count;
    draw_jpeg_bytes(&drawing, &bytes, &count);
    cr_assert(eq(int, image_decode(decoder, bytes, count, c[2], c[3], &image), STATUS_OK), "%s", status_message());
    free(bytes);
    cr_expect(eq(int, image.height, c[5]), "case %zu", i);
    cr_expect(eq(int, image.width, c[6]), "case %zu", i);
    /* The same drawing at the smaller size, but for the edge of the disc. */
    drawing.height = c[5], drawing.width = c[6];
    double difference = mean_difference(&image, &drawing);
    cr_expect(le(dbl, difference, 3), "case %zu", i);
  }
  image_decoder_destroy(&decoder);
}

FILE_TEST(image, tiny_and_long_pictures_decode) {
  static const int sizes[][2] = {{1, 1}, {10, 10000}, {10000, 10}, {1, 65535}, {65535, 1}};
  struct image_decoder *decoder = new_decoder();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    struct drawing drawing = {.height = sizes[i][0], .width = sizes[i][1], .label = 90, .quality = 97};
    if (drawing.height < 65501 && drawing.width < 65501) { /* libjpeg writes no more than 65,500 */
      double jpeg = decoded_difference(decoder, draw_jpeg_bytes, &drawing);
      cr_expect(le(dbl, jpeg, 2.5), "%s", describe(&drawing));
    }
    double png = decoded_difference(decoder, draw_png_bytes, &drawing);
    cr_expect(zero(dbl, png), "%s", describe(&drawing));
  }
  image_decoder_destroy(&decoder);
}

FILE_TEST(image, encoded_pixels_come_back_and_belong_to_the_decoder) {
  struct image_decoder *decoder = new_decoder();
  struct drawing drawing = {.height = 61, .width = 83, .label = 40};
  struct image image, again;
  const uint8_t *jpeg;
  uint8_t *bytes;
  size_t count, jpeg_count, low_count;
  draw_png_bytes(&drawing, &bytes, &count);
  cr_assert(eq(int, image_decode(decoder, bytes, count, 0, 0, &image), STATUS_OK), "%s", status_message());
  free(bytes);
  cr_assert(eq(int, image_encode_jpeg(decoder, &image, 20, &jpeg, &low_count), STATUS_OK), "%s", status_message());
  cr_assert(eq(int, image_encode_jpeg(decoder, &image, 97, &jpeg, &jpeg_count), STATUS_OK), "%s", status_message());
  cr_expect(lt(sz, low_count, jpeg_count));
  cr_assert(eq(int, image_decode(decoder, jpeg, jpeg_count, 0, 0, &again), STATUS_OK), "%s", status_message());
  double difference = mean_difference(&again, &drawing);
  cr_expect(le(dbl, difference, 1.5));
  cr_expect(eq(int, image_encode_jpeg(decoder, &again, 0, &jpeg, &jpeg_count), ERR_ARGUMENT));
  cr_expect(eq(int, image_encode_jpeg(decoder, &again, 101, &jpeg, &jpeg_count), ERR_ARGUMENT));
  image_decoder_destroy(&decoder);
}

/* ---------------------------------------------------------------- damage */

static bool is_plain(struct image_decoder *decoder, draw_function *draw, struct drawing drawing, size_t cut, size_t pad,
                     struct image_jpeg *jpeg) {
  uint8_t *bytes;
  size_t count;
  drawing.height = 20;
  drawing.width = 30;
  draw(&drawing, &bytes, &count);
  bytes = realloc(bytes, count + pad);
  memset(bytes + count, 0, pad);
  bool plain = image_is_plain_jpeg(decoder, bytes, count + pad - cut, jpeg);
  free(bytes);
  return plain;
}

FILE_TEST(image, a_plain_jpeg_is_what_any_decoder_takes) {
  static const struct drawing plain[] = {{.kind = DRAW_COLOUR}, {.kind = DRAW_GREY}, {.progressive = true},
                                         {.subsampling = 2},    {.subsampling = 4},  {.orientation = 6}};
  static const struct drawing others[] = {
      {.kind = DRAW_CMYK}, {.kind = DRAW_YCCK}, {.kind = DRAW_CMYK_PLAIN}, {.arithmetic = true}};
  struct image_decoder *decoder = new_decoder();
  struct image_jpeg jpeg;
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
    cr_expect(is_plain(decoder, draw_jpeg_bytes, plain[i], 0, 0, &jpeg), "%s", describe(&plain[i]));
    bool turned = plain[i].orientation == 6;
    cr_expect(jpeg.height == (turned ? 30 : 20) && jpeg.walk.height == 20 && jpeg.walk.width == 30);
    cr_expect(is_plain(decoder, draw_jpeg_bytes, plain[i], 0, 50, &jpeg), "padded: %s", describe(&plain[i]));
    cr_expect(not(is_plain(decoder, draw_jpeg_bytes, plain[i], 1, 0, &jpeg)), "cut: %s", describe(&plain[i]));
  }
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    cr_expect(not(is_plain(decoder, draw_jpeg_bytes, others[i], 0, 0, &jpeg)), "%s", describe(&others[i]));
  cr_expect(not(is_plain(decoder, draw_png_bytes, plain[0], 0, 0, &jpeg)));
  cr_expect(not(image_is_plain_jpeg(decoder, (const uint8_t *)"", 0, &jpeg)));
  image_decoder_destroy(&decoder);
}

static void refuse(struct image_decoder *decoder, const void *bytes, size_t count, const char *words) {
  struct image image;
  cr_expect(eq(int, image_decode(decoder, bytes, count, 0, 0, &image), ERR_FORMAT), "%zu bytes, %s", count, words);
  cr_expect(ne(ptr, (void *)strstr(status_message(), words), NULL), "\"%s\" lacks \"%s\"", status_message(), words);
}

FILE_TEST(image, what_is_no_image_is_refused_with_a_sentence) {
  struct image_decoder *decoder = new_decoder();
  struct image_info info;
  refuse(decoder, "", 0, "empty");
  refuse(decoder, "x", 1, "neither JPEG nor PNG");
  refuse(decoder, "label,path\n1,a.jpg\n", 19, "neither JPEG nor PNG");
  refuse(decoder, "GIF89a\1\0\1\0", 10, "neither JPEG nor PNG");
  refuse(decoder, "\xff\xd8\xff", 3, "JPEG");
  refuse(decoder, "\xff\xd8\xff\xd9", 4, "JPEG");
  refuse(decoder, "\x89PNG\r\n\x1a\n", 8, "the PNG data end early");
  cr_expect(eq(int, image_inspect(decoder, (const uint8_t *)"", 0, &info), ERR_FORMAT));
  cr_expect(eq(int, image_inspect(decoder, (const uint8_t *)"\xff\xd8\xff\xe0", 4, &info), ERR_FORMAT));
  image_decoder_destroy(&decoder);
}

FILE_TEST(image, an_image_cut_anywhere_is_refused) {
  static const struct drawing kinds[] = {
      {.subsampling = 2}, {.progressive = true}, {.kind = DRAW_CMYK}, {.arithmetic = true}};
  struct image_decoder *decoder = new_decoder();
  for (int i = 0; i < 6; i++) {
    struct drawing drawing = kinds[i % 4];
    struct image image;
    uint8_t *bytes;
    size_t count;
    drawing.height = 40, drawing.width = 50, drawing.label = 80, drawing.orientation = 3;
    if (i >= 4)
      drawing.progressive = i == 5, drawing.kind = DRAW_ALPHA;
    (i >= 4 ? draw_png_bytes : draw_jpeg_bytes)(&drawing, &bytes, &count);
    for (size_t left = 0; left < count; left++) {
      uint8_t *cut = malloc(left + 1); /* of its own, so that a read behind it is seen */
      memcpy(cut, bytes, left);
      cut = realloc(cut, left > 0 ? left : 1);
      enum status status = image_decode(decoder, cut, left, 0, 0, &image);
      free(cut);
      cr_assert(eq(int, status, ERR_FORMAT), "kind %d cut to %zu of %zu bytes", i, left, count);
      cr_assert(gt(sz, strlen(status_message()), 10));
    }
    cr_expect(eq(int, image_decode(decoder, bytes, count, 0, 0, &image), STATUS_OK), "%s", status_message());
    refuse(decoder, bytes, count - 20, "data end early");
    free(bytes);
  }
  image_decoder_destroy(&decoder);
}

/* Does a decoder that has seen nothing else say the same? */
static void expect_alone(const uint8_t *bytes, size_t count, enum status status, const struct image *image) {
  struct image_decoder *fresh = new_decoder();
  struct image alone;
  cr_assert(eq(int, image_decode(fresh, bytes, count, 0, 0, &alone), status), "%s", status_message());
  if (status == STATUS_OK) {
    cr_assert(eq(int, alone.height, image->height));
    cr_assert(eq(int, alone.width, image->width));
    cr_expect(zero(int, memcmp(alone.pixels, image->pixels, 3 * (size_t)alone.height * (size_t)alone.width)));
  }
  image_decoder_destroy(&fresh);
}

FILE_TEST(image, a_jpeg_without_its_tables_borrows_none_from_the_one_before) {
  static const uint8_t tables[] = {0xdb, 0xc4}; /* quantisation, Huffman */
  for (int i = 0; i < 2; i++) {
    struct image_decoder *decoder = new_decoder();
    struct drawing drawing = {.height = 40, .width = 50, .label = 80, .progressive = true, .quality = 70};
    struct image image;
    uint8_t *bytes;
    size_t count;
    draw_jpeg_bytes(&drawing, &bytes, &count);
    cr_assert(eq(int, image_decode(decoder, bytes, count, 0, 0, &image), STATUS_OK), "%s", status_message());
    for (size_t at = 2; at + 1 < count; at++)
      if (bytes[at] == 0xff && bytes[at + 1] == tables[i])
        bytes[at + 1] = 0xfe; /* now a comment */
    enum status status = image_decode(decoder, bytes, count, 0, 0, &image);
    expect_alone(bytes, count, status, &image);
    free(bytes);
    image_decoder_destroy(&decoder);
  }
}

/* Change up to 20 bytes: anywhere, or near the front, where the structure is. */
static void damage(uint8_t *bytes, size_t count, uint64_t variant) {
  struct random_key key = random_key(1, RANDOM_TEST, variant);
  uint32_t bits[4];
  random_bits(key, 0, 0, bits);
  size_t reach = bits[1] % 2 && count > 700 ? 700 : count;
  for (uint64_t change = 0; change <= bits[0] % 20; change++) {
    uint32_t more[4];
    random_bits(key, 1, change, more);
    bytes[more[0] % reach] = more[1] % 4 == 0 ? 0xff : (uint8_t)more[2];
  }
}

FILE_TEST(image, damaged_bytes_never_do_harm) {
  struct image_decoder *decoder = new_decoder();
  int refused = 0, variants = 0;
  for (int i = 0; i < 8; i++) {
    struct drawing drawing = {.height = 45, .width = 52, .label = 80, .orientation = i, .subsampling = i % 3};
    drawing.kind = i == 1 ? DRAW_YCCK : i == 2 ? DRAW_GREY : i == 6 ? DRAW_PALETTE : i == 7 ? DRAW_ALPHA : DRAW_COLOUR;
    drawing.progressive = i == 3 || i == 7, drawing.arithmetic = i == 4;
    uint8_t *bytes, *changed;
    size_t count;
    (i >= 5 ? draw_png_bytes : draw_jpeg_bytes)(&drawing, &bytes, &count);
    changed = malloc(count);
    for (uint64_t variant = 0; variant < 100; variant++, variants++) {
      struct image image;
      uint64_t sum = 0;
      memcpy(changed, bytes, count);
      damage(changed, count, 1000 * (uint64_t)i + variant);
      int least = variant % 2 ? 20 : 0;
      enum status status = image_decode(decoder, changed, count, least, least, &image);
      cr_assert(status == STATUS_OK || status == ERR_FORMAT, "kind %d, variant %d: %s", i, (int)variant,
                status_message());
      refused += status != STATUS_OK;
      for (size_t j = 0; status == STATUS_OK && j < 3 * (size_t)image.height * (size_t)image.width; j++)
        sum += image.pixels[j];
      cr_assert(le(u64, sum, (uint64_t)255 * 3 * IMAGE_MOST_PIXELS));
      if (least == 0)
        expect_alone(changed, count, status, &image);
    }
    free(changed);
    free(bytes);
  }
  cr_expect(gt(int, refused, variants / 3), "%d of %d", refused, variants);
  image_decoder_destroy(&decoder);
}

/* Write a number over four bytes, the upper ones first, and a PNG header's checksum anew. */
static void forge_png_size(uint8_t *png, uint32_t height, uint32_t width) {
  for (int i = 0; i < 4; i++) {
    png[16 + i] = (uint8_t)(width >> (24 - 8 * i));
    png[20 + i] = (uint8_t)(height >> (24 - 8 * i));
  }
  uint32_t sum = (uint32_t)crc32(0, png + 12, 17);
  for (int i = 0; i < 4; i++)
    png[29 + i] = (uint8_t)(sum >> (24 - 8 * i));
}

FILE_TEST(image, a_forged_size_asks_for_no_memory) {
  static const uint32_t sizes[][2] = {{60000, 60000}, {65536, 1}, {1, 70000}, {0x7fffffff, 0x7fffffff}};
  struct drawing drawing = {.height = 10, .width = 10};
  struct image_decoder *decoder = new_decoder();
  struct image_info info;
  uint8_t *bytes;
  size_t count;
  draw_png_bytes(&drawing, &bytes, &count);
  memory_peak_reset();
  size_t before = memory_in_use();
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    forge_png_size(bytes, sizes[i][0], sizes[i][1]);
    refuse(decoder, bytes, count, "pixels");
    cr_expect(eq(int, image_inspect(decoder, bytes, count, &info), ERR_FORMAT));
  }
  free(bytes);
  draw_jpeg_bytes(&drawing, &bytes, &count);
  for (size_t at = 2; at + 9 < count; at++)
    if (bytes[at] == 0xff && bytes[at + 1] == 0xc0) { /* the frame: length, precision, height, width */
      memset(bytes + at + 5, 0xff, 4);
      break;
    }
  refuse(decoder, bytes, count, "65500 pixels"); /* libjpeg itself allows no more */
  cr_expect(eq(int, image_inspect(decoder, bytes, count, &info), ERR_FORMAT));
  free(bytes);
  cr_expect(le(sz, memory_peak(), before));
  image_decoder_destroy(&decoder);
}

FILE_TEST(image, nonsense_in_exif_leaves_the_picture_as_stored) {
  struct image_decoder *decoder = new_decoder();
  struct drawing drawing = {.height = 30, .width = 40, .label = 50, .orientation = 1, .quality = 97};
  uint8_t *bytes;
  size_t count, exif = 0;
  draw_jpeg_bytes(&drawing, &bytes, &count);
  while (memcmp(bytes + exif, "Exif", 4) != 0)
    exif++;
  for (uint64_t variant = 0; variant < 100; variant++) {
    struct image image;
    uint32_t bits[4];
    random_bits(random_key(2, RANDOM_TEST, 0), variant, 0, bits);
    bytes[exif + 6 + bits[0] % 20] = (uint8_t)bits[1];
    bytes[exif + 24] = variant % 2 ? 9 : 0; /* no orientation has these numbers */
    cr_assert(eq(int, image_decode(decoder, bytes, count, 0, 0, &image), STATUS_OK), "%s", status_message());
    cr_assert(eq(int, image.height, 30), "variant %d", (int)variant);
  }
  free(bytes);
  image_decoder_destroy(&decoder);
}
