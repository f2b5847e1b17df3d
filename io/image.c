/* JPEG by TurboJPEG, PNG by libpng, orientation by libexif. */
#include "io/image.h"

#include "dist/memory.h"

#include <libexif/exif-data.h>
#include <png.h>
#include <setjmp.h>
#include <string.h>
#include <turbojpeg.h>

/* The most of JPEG; PNG could say 2^31. */
#define MOST_SIDE 65535

/* A block that grows and is kept for the next image. */
struct room {
  uint8_t *bytes;
  size_t size;
};

struct image_decoder {
  tjhandle jpeg, encoder; /* NULL until the first JPEG is decoded, or encoded */
  struct room stored;     /* as the file holds it, if that is not yet what is handed out: CMYK, alpha, turned */
  struct room shown;
  struct room encoded;
  struct room exif;
};

/* Where libpng reads, and what it said when it gave up. */
struct png_source {
  const uint8_t *bytes;
  size_t count, at;
  char why[200];
};

static enum status make_room(struct room *room, size_t size) {
  if (room->size >= size && room->bytes != NULL)
    return STATUS_OK;
  memory_free((void **)&room->bytes);
  room->size = 0;
  TRY(memory_alloc(size, (void **)&room->bytes));
  room->size = size;
  return STATUS_OK;
}

enum status image_decoder_create(struct image_decoder **out) {
  struct image_decoder *decoder;
  TRY(memory_alloc_zero(sizeof *decoder, (void **)&decoder));
  *out = decoder;
  return STATUS_OK;
}

void image_decoder_destroy(struct image_decoder **decoder) {
  struct image_decoder *old = *decoder;
  if (old == NULL)
    return;
  memory_free((void **)&old->exif.bytes);
  memory_free((void **)&old->encoded.bytes);
  memory_free((void **)&old->shown.bytes);
  memory_free((void **)&old->stored.bytes);
  if (old->encoder != NULL)
    tjDestroy(old->encoder);
  if (old->jpeg != NULL)
    tjDestroy(old->jpeg);
  memory_free((void **)decoder);
}

static enum status check_size(int64_t height, int64_t width) {
  REQUIRE(height > 0 && width > 0, ERR_FORMAT, "the image has %lld x %lld pixels: nothing to see", (long long)height,
          (long long)width);
  REQUIRE(height <= MOST_SIDE && width <= MOST_SIDE, ERR_FORMAT,
          "the image says it has %lld x %lld pixels, and no side may have more than %d", (long long)height,
          (long long)width, MOST_SIDE);
  REQUIRE(height * width <= IMAGE_MOST_PIXELS, ERR_FORMAT,
          "the image says it has %lld x %lld pixels, more than the %lld that are allowed", (long long)height,
          (long long)width, (long long)IMAGE_MOST_PIXELS);
  return STATUS_OK;
}

static enum status find_format(const uint8_t *bytes, size_t count, enum image_format *format) {
  static const uint8_t jpeg[] = {0xff, 0xd8, 0xff}, png[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
  REQUIRE(count > 0, ERR_FORMAT, "the image is empty (0 bytes)");
  if (count >= sizeof jpeg && memcmp(bytes, jpeg, sizeof jpeg) == 0)
    *format = IMAGE_JPEG;
  else if (count >= sizeof png && memcmp(bytes, png, sizeof png) == 0)
    *format = IMAGE_PNG;
  else
    return fail(ERR_FORMAT, "the %zu bytes are neither JPEG nor PNG (they begin with %02x %02x)", count, bytes[0],
                count > 1 ? bytes[1] : 0);
  return STATUS_OK;
}

/* ---------------------------------------------------------------- orientation */

/* EXIF's orientation of a block that begins with "Exif\0\0"; 1 when it names none, or nonsense: a picture is not worse
 * for that. */
static int exif_orientation(const uint8_t *block, size_t count) {
  int orientation = 1;
  ExifData *exif = exif_data_new();
  if (exif == NULL)
    return 1;
  /* Entries that the standard demands are not made up. */
  exif_data_unset_option(exif, EXIF_DATA_OPTION_FOLLOW_SPECIFICATION);
  exif_data_load_data(exif, block, (unsigned)count);
  ExifEntry *entry = exif_content_get_entry(exif->ifd[EXIF_IFD_0], EXIF_TAG_ORIENTATION);
  if (entry != NULL && entry->format == EXIF_FORMAT_SHORT && entry->components == 1 && entry->size >= 2)
    orientation = exif_get_short(entry->data, exif_data_get_byte_order(exif));
  exif_data_unref(exif);
  return orientation >= 1 && orientation <= 8 ? orientation : 1;
}

/* Orientations 5 to 8 swap rows and columns. */
static struct image_walk walk_of(int height, int width, int orientation) {
  bool swapped = orientation >= 5;
  bool upside_down = orientation == 3 || orientation == 4 || orientation == 7 || orientation == 8;
  bool mirrored = orientation == 2 || orientation == 3 || orientation == 6 || orientation == 7;
  ptrdiff_t row = 3 * (ptrdiff_t)width;
  struct image_walk walk = {swapped ? width : height, swapped ? height : width, 0, swapped ? 3 : row,
                            swapped ? row : 3};
  if (upside_down) {
    walk.first += walk.down * (walk.height - 1);
    walk.down = -walk.down;
  }
  if (mirrored) {
    walk.first += walk.right * (walk.width - 1);
    walk.right = -walk.right;
  }
  return walk;
}

/* Copies `stored` [height, width, 3] as it is shown. */
static void turn(const uint8_t *stored, int height, int width, int orientation, uint8_t *shown) {
  struct image_walk walk = walk_of(height, width, orientation);
  stored += walk.first;
  for (int y = 0; y < walk.height; y++, stored += walk.down) {
    const uint8_t *from = stored;
    for (int x = 0; x < walk.width; x++, from += walk.right, shown += 3) {
      shown[0] = from[0];
      shown[1] = from[1];
      shown[2] = from[2];
    }
  }
}

/* ---------------------------------------------------------------- JPEG */

/* What the header of a JPEG says; height and width as stored. */
struct jpeg_header {
  int height, width, colours, orientation;
  bool adobe;
  bool huffman; /* baseline, extended or progressive; not arithmetic, lossless or hierarchical */
};

/* Walks over the segments before the first scan: EXIF, Adobe's marker, and the frame's kind.  Stops at whatever it does
 * not understand: judging that is TurboJPEG's. */
static void read_segments(const uint8_t *bytes, size_t count, struct jpeg_header *header) {
  size_t at = 2;
  while (at + 4 <= count && bytes[at] == 0xff) {
    uint8_t marker = bytes[at + 1];
    if (marker == 0xff) { /* a fill byte */
      at++;
      continue;
    }
    if (marker == 0xda || marker == 0xd9 || (marker >= 0xd0 && marker <= 0xd7) || marker <= 0x01)
      return;
    const uint8_t *content = bytes + at + 4;
    size_t length = (size_t)bytes[at + 2] << 8 | bytes[at + 3];
    if (length < 2 || length > count - at - 2)
      return;
    if (marker == 0xe1 && length - 2 >= 6 && memcmp(content, "Exif\0", 6) == 0 && header->orientation == 0)
      header->orientation = exif_orientation(content, length - 2);
    if (marker == 0xee && length - 2 >= 12 && memcmp(content, "Adobe", 5) == 0)
      header->adobe = true;
    if (marker >= 0xc0 && marker <= 0xc2 && length > 2)
      header->huffman = content[0] == 8;
    at += 2 + length;
  }
}

/* A handle keeps what it had read of broken data, and would mistake the next image for the rest of them (seen in
 * TurboJPEG 2.1): it gets a fresh one. */
static void renew_handle(struct image_decoder *decoder) {
  tjhandle fresh = tjInitDecompress();
  if (fresh == NULL)
    return;
  tjDestroy(decoder->jpeg);
  decoder->jpeg = fresh;
}

/* TurboJPEG's last words as a sentence. */
static enum status jpeg_failed(struct image_decoder *decoder) {
  const char *why = tjGetErrorStr2(decoder->jpeg), *colon = strstr(why, "(): ");
  enum status status;
  if (strstr(why, "Premature end") != NULL || strstr(why, "Input file read error") != NULL)
    status = fail(ERR_FORMAT, "the JPEG data end early");
  else
    status = fail(ERR_FORMAT, "the JPEG data are damaged or of an unknown kind (%s)", colon == NULL ? why : colon + 4);
  renew_handle(decoder);
  return status;
}

/* A new handle for each picture, which costs a few microseconds: one that failed in a header goes on in the midst of
 * the next picture, and the tables of one picture would serve a damaged one that has lost its own. */
static enum status start_jpeg(struct image_decoder *decoder) {
  if (decoder->jpeg != NULL)
    tjDestroy(decoder->jpeg);
  decoder->jpeg = tjInitDecompress();
  REQUIRE(decoder->jpeg != NULL, ERR_MEMORY, "TurboJPEG cannot start: %s", tjGetErrorStr2(NULL));
  return STATUS_OK;
}

static enum status read_jpeg_header(struct image_decoder *decoder, const uint8_t *bytes, size_t count,
                                    struct jpeg_header *header) {
  int subsampling;
  *header = (struct jpeg_header){.height = -1, .width = -1, .colours = -1};
  TRY(start_jpeg(decoder));
  int result =
      tjDecompressHeader3(decoder->jpeg, bytes, count, &header->width, &header->height, &subsampling, &header->colours);
  REQUIRE(result != 0 || header->height > 0, ERR_FORMAT, "the JPEG data end early, before any picture");
  /* It also fails for a subsampling that it has no name for, when all else is known; the decoder takes those. */
  if (header->width < 0 || header->height < 0 || (result != 0 && (header->width == 0 || header->colours < 0)))
    return jpeg_failed(decoder);
  TRY(check_size(header->height, header->width));
  read_segments(bytes, count, header);
  if (header->orientation == 0)
    header->orientation = 1;
  return STATUS_OK;
}

/* Does the marker of the end stand at the end, up to a few bytes that writers pad with? */
static bool is_whole(const uint8_t *bytes, size_t count) {
  const size_t padding = 64;
  for (size_t at = count; at >= 2 && count - at <= padding; at--)
    if (bytes[at - 2] == 0xff && bytes[at - 1] == 0xd9)
      return true;
  return false;
}

bool image_is_plain_jpeg(struct image_decoder *decoder, const uint8_t *bytes, size_t count, struct image_jpeg *out) {
  enum image_format format = IMAGE_JPEG;
  struct jpeg_header header;
  if (find_format(bytes, count, &format) != STATUS_OK || format != IMAGE_JPEG ||
      read_jpeg_header(decoder, bytes, count, &header) != STATUS_OK)
    return false;
  *out = (struct image_jpeg){header.height, header.width, walk_of(header.height, header.width, header.orientation)};
  bool colours = header.colours == TJCS_YCbCr || header.colours == TJCS_GRAY;
  return colours && header.huffman && is_whole(bytes, count);
}

/* Changes *height and *width to the smallest scaled size that has at least the wanted ones.  Of TurboJPEG's scales only
 * those with vector code: 7/8, 6/8 and 5/8 take longer than the whole picture, 3/8 longer than 1/2. */
static void choose_scale(int least_height, int least_width, int *height, int *width) {
  int full_height = *height, full_width = *width;
  if (least_height <= 0 && least_width <= 0)
    return;
  for (int denominator = 2; denominator <= 8; denominator *= 2) {
    tjscalingfactor factor = {1, denominator};
    int scaled_height = TJSCALED(full_height, factor), scaled_width = TJSCALED(full_width, factor);
    if (scaled_height < least_height || scaled_width < least_width)
      return;
    *height = scaled_height;
    *width = scaled_width;
  }
}

/* Ink to light, in place of the first 3 of 4 bytes.  Adobe's programs write ink inverted: 255 = none. */
static void cmyk_to_rgb(const uint8_t *cmyk, size_t pixels, bool inverted, uint8_t *rgb) {
  uint8_t flip = inverted ? 0 : 255;
  for (size_t i = 0; i < pixels; i++) {
    int white = cmyk[4 * i + 3] ^ flip;
    for (int channel = 0; channel < 3; channel++)
      rgb[3 * i + (size_t)channel] = (uint8_t)(((cmyk[4 * i + (size_t)channel] ^ flip) * white + 127) / 255);
  }
}

static enum status decode_jpeg(struct image_decoder *decoder, const uint8_t *bytes, size_t count, int least_height,
                               int least_width, struct image *out) {
  struct jpeg_header header;
  TRY(read_jpeg_header(decoder, bytes, count, &header));
  bool swapped = header.orientation >= 5, turned = header.orientation != 1;
  bool ink = header.colours == TJCS_CMYK || header.colours == TJCS_YCCK;
  int height = header.height, width = header.width;
  choose_scale(swapped ? least_width : least_height, swapped ? least_height : least_width, &height, &width);
  size_t pixels = (size_t)height * (size_t)width;
  TRY(make_room(&decoder->shown, 3 * pixels));
  if (turned || ink)
    TRY(make_room(&decoder->stored, (ink ? 4 : 3) * pixels));
  /* A warning is about lost data, which the decoder would paint grey: that is no picture to learn from. */
  uint8_t *first = turned || ink ? decoder->stored.bytes : decoder->shown.bytes;
  if (tjDecompress2(decoder->jpeg, bytes, count, first, width, 0, height, ink ? TJPF_CMYK : TJPF_RGB,
                    TJFLAG_STOPONWARNING | TJFLAG_LIMITSCANS) != 0)
    return jpeg_failed(decoder);
  if (ink)
    cmyk_to_rgb(decoder->stored.bytes, pixels, header.adobe, turned ? decoder->stored.bytes : decoder->shown.bytes);
  if (turned)
    turn(decoder->stored.bytes, height, width, header.orientation, decoder->shown.bytes);
  *out = (struct image){swapped ? width : height, swapped ? height : width, decoder->shown.bytes};
  return STATUS_OK;
}

/* ---------------------------------------------------------------- PNG */

static void png_gave_up(png_structp png, png_const_charp why) {
  struct png_source *source = png_get_error_ptr(png);
  snprintf(source->why, sizeof source->why, "%s", why);
  longjmp(png_jmpbuf(png), 1);
}

static void png_warned(png_structp png, png_const_charp why) {
  (void)png, (void)why; /* about chunks that nobody here reads */
}

static void png_give(png_structp png, png_bytep data, size_t bytes) {
  struct png_source *source = png_get_io_ptr(png);
  if (bytes > source->count - source->at)
    png_error(png, "the PNG data end early");
  memcpy(data, source->bytes + source->at, bytes);
  source->at += bytes;
}

static enum status png_open(struct png_source *source, png_structp *png, png_infop *info) {
  *png = png_create_read_struct(PNG_LIBPNG_VER_STRING, source, png_gave_up, png_warned);
  *info = *png == NULL ? NULL : png_create_info_struct(*png);
  if (*info == NULL) {
    png_destroy_read_struct(png, NULL, NULL);
    return fail(ERR_MEMORY, "libpng cannot start: out of memory");
  }
  /* The size is checked in our own words; a text or profile must not unpack to more than this. */
  png_set_user_limits(*png, 0x7fffffff, 0x7fffffff);
  png_set_chunk_malloc_max(*png, 8 << 20);
  png_set_read_fn(*png, source, png_give);
  return STATUS_OK;
}

/* The header; false: source->why says why not. */
static bool png_read_header(png_structp png, png_infop info, int64_t *height, int64_t *width) {
  if (setjmp(png_jmpbuf(png)) != 0)
    return false;
  png_read_info(png, info);
  *height = png_get_image_height(png, info);
  *width = png_get_image_width(png, info);
  return true;
}

/* Ask for 8-bit RGB, or RGBA if there is transparency; gives the channels.  Color spaces and gamma are left alone. */
static int png_ask_channels(png_structp png, png_infop info) {
  bool transparent =
      (png_get_color_type(png, info) & PNG_COLOR_MASK_ALPHA) != 0 || png_get_valid(png, info, PNG_INFO_tRNS) != 0;
  png_set_expand(png); /* palettes, 1 to 4 bits, tRNS */
  png_set_strip_16(png);
  png_set_gray_to_rgb(png);
  return transparent ? 4 : 3;
}

/* The pixels into room that was made for them, [height, width, channels]; false: source->why says why not. */
static bool png_read_pixels(png_structp png, png_infop info, int height, size_t row_bytes, uint8_t *pixels) {
  if (setjmp(png_jmpbuf(png)) != 0)
    return false;
  int passes = png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != row_bytes)
    png_error(png, "rows have another length than the header says");
  for (int pass = 0; pass < passes; pass++)
    for (int y = 0; y < height; y++)
      png_read_row(png, pixels + (size_t)y * row_bytes, NULL);
  png_read_end(png, info); /* eXIf may come last, and a file cut after its pixels is a cut file */
  return true;
}

static void lay_over_black(const uint8_t *rgba, size_t pixels, uint8_t *rgb) {
  for (size_t i = 0; i < pixels; i++)
    for (size_t channel = 0; channel < 3; channel++)
      rgb[3 * i + channel] = (uint8_t)((rgba[4 * i + channel] * rgba[4 * i + 3] + 127) / 255);
}

/* The eXIf chunk is what JPEG has after "Exif\0\0". */
static enum status png_orientation(struct image_decoder *decoder, png_structp png, png_infop info, int *orientation) {
  png_uint_32 count = 0;
  png_bytep exif = NULL;
  *orientation = 1;
  if (png_get_eXIf_1(png, info, &count, &exif) == 0 || count == 0)
    return STATUS_OK;
  TRY(make_room(&decoder->exif, (size_t)count + 6));
  memcpy(decoder->exif.bytes, "Exif\0", 6);
  memcpy(decoder->exif.bytes + 6, exif, count);
  *orientation = exif_orientation(decoder->exif.bytes, (size_t)count + 6);
  return STATUS_OK;
}

static enum status png_failed(const struct png_source *source) {
  if (strstr(source->why, "end early") != NULL)
    return fail(ERR_FORMAT, "%s", source->why);
  return fail(ERR_FORMAT, "the PNG data are damaged or of an unknown kind (%s)", source->why);
}

static enum status png_to_image(struct image_decoder *decoder, struct png_source *source, png_structp png,
                                png_infop info, struct image *out) {
  int64_t height, width;
  int orientation;
  if (!png_read_header(png, info, &height, &width))
    return png_failed(source);
  TRY(check_size(height, width));
  size_t pixels = (size_t)(height * width), channels = (size_t)png_ask_channels(png, info);
  TRY(make_room(&decoder->shown, 3 * pixels));
  TRY(make_room(&decoder->stored, channels * pixels));
  if (!png_read_pixels(png, info, (int)height, channels * (size_t)width, decoder->stored.bytes))
    return png_failed(source);
  TRY(png_orientation(decoder, png, info, &orientation));
  if (channels == 4)
    lay_over_black(decoder->stored.bytes, pixels, decoder->stored.bytes);
  turn(decoder->stored.bytes, (int)height, (int)width, orientation, decoder->shown.bytes);
  bool swapped = orientation >= 5;
  *out = (struct image){(int)(swapped ? width : height), (int)(swapped ? height : width), decoder->shown.bytes};
  return STATUS_OK;
}

static enum status decode_png(struct image_decoder *decoder, const uint8_t *bytes, size_t count, struct image *out) {
  struct png_source source = {.bytes = bytes, .count = count};
  png_structp png;
  png_infop info;
  TRY(png_open(&source, &png, &info));
  enum status status = png_to_image(decoder, &source, png, info, out);
  png_destroy_read_struct(&png, &info, NULL);
  return status;
}

/* As stored, and EXIF's turn if its chunk comes before the pixels, where writers put it. */
static enum status inspect_png(struct image_decoder *decoder, const uint8_t *bytes, size_t count,
                               struct image_info *out) {
  struct png_source source = {.bytes = bytes, .count = count};
  png_structp png;
  png_infop info;
  int64_t height, width;
  int orientation;
  enum status status;
  TRY(png_open(&source, &png, &info));
  if (png_read_header(png, info, &height, &width)) {
    TRY_GOTO(check_size(height, width), close);
    TRY_GOTO(png_orientation(decoder, png, info, &orientation), close);
    *out = (struct image_info){IMAGE_PNG, (int)(orientation >= 5 ? width : height),
                               (int)(orientation >= 5 ? height : width)};
  } else {
    status = png_failed(&source);
  }
close:
  png_destroy_read_struct(&png, &info, NULL);
  return status;
}

/* ---------------------------------------------------------------- either */

enum status image_inspect(struct image_decoder *decoder, const uint8_t *bytes, size_t count, struct image_info *out) {
  enum image_format format = IMAGE_JPEG;
  struct jpeg_header header;
  TRY(find_format(bytes, count, &format));
  if (format == IMAGE_PNG)
    return inspect_png(decoder, bytes, count, out);
  TRY(read_jpeg_header(decoder, bytes, count, &header));
  bool swapped = header.orientation >= 5;
  *out =
      (struct image_info){IMAGE_JPEG, swapped ? header.width : header.height, swapped ? header.height : header.width};
  return STATUS_OK;
}

enum status image_decode(struct image_decoder *decoder, const uint8_t *bytes, size_t count, int least_height,
                         int least_width, struct image *out) {
  enum image_format format = IMAGE_JPEG;
  TRY(find_format(bytes, count, &format));
  return format == IMAGE_PNG ? decode_png(decoder, bytes, count, out)
                             : decode_jpeg(decoder, bytes, count, least_height, least_width, out);
}

enum status image_encode_jpeg(struct image_decoder *decoder, const struct image *image, int quality,
                              const uint8_t **bytes, size_t *count) {
  REQUIRE(quality >= 1 && quality <= 100, ERR_ARGUMENT, "the JPEG quality %d is not between 1 and 100", quality);
  REQUIRE(image->height >= 1 && image->height <= MOST_SIDE && image->width >= 1 && image->width <= MOST_SIDE,
          ERR_ARGUMENT, "an image of %d x %d pixels cannot be a JPEG: each side has 1 to %d", image->height,
          image->width, MOST_SIDE);
  if (decoder->encoder == NULL)
    decoder->encoder = tjInitCompress();
  REQUIRE(decoder->encoder != NULL, ERR_MEMORY, "TurboJPEG cannot start: %s", tjGetErrorStr2(NULL));
  unsigned long length = tjBufSize(image->width, image->height, TJSAMP_444);
  TRY(make_room(&decoder->encoded, length));
  uint8_t *encoded = decoder->encoded.bytes;
  REQUIRE(tjCompress2(decoder->encoder, image->pixels, image->width, 0, image->height, TJPF_RGB, &encoded, &length,
                      TJSAMP_444, quality, TJFLAG_NOREALLOC) == 0,
          ERR_MEMORY, "cannot encode %d x %d pixels as JPEG: %s", image->height, image->width,
          tjGetErrorStr2(decoder->encoder));
  *bytes = encoded;
  *count = length;
  return STATUS_OK;
}
