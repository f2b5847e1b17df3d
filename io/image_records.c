/* Records of images: opened with every place checked, read by pread. */
#include "io/image_records.h"

#include "dist/memory.h"
#include "io/image.h"
#include "io/read_at.h"

#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* Places are read in pieces of this many rows. */
#define BLOCK_ROWS 65536

static size_t record_bytes(const struct image_records *images) {
  return (size_t)images->height * (size_t)images->width * 3;
}

/* ---- opening ------------------------------------------------------------------------------- */

static enum status open_pixels(struct image_records *images, const struct dataset_layout *layout) {
  struct h5_dataset *stored = &images->stored;
  TRY(dataset_layout_require(layout, "images", stored));
  REQUIRE(stored->rank == 4 && stored->shape[3] == 3 && stored->nearest == ARRAY_U8, ERR_FORMAT,
          "\"images\" in %s must be [rows, height, width, 3] of unsigned bytes", images->path);
  int64_t height = stored->shape[1], width = stored->shape[2];
  REQUIRE(stored->shape[0] > 0, ERR_FORMAT, "\"images\" in %s has no rows", images->path);
  REQUIRE(height > 0 && width > 0 && height <= IMAGE_MOST_PIXELS / width, ERR_FORMAT,
          "\"images\" in %s are %lld x %lld pixels; an image has 1 to %lld", images->path, (long long)height,
          (long long)width, (long long)IMAGE_MOST_PIXELS);
  images->layout = IMAGE_LAYOUT_PIXELS;
  images->rows = stored->shape[0];
  images->height = (int)height;
  images->width = (int)width;
  images->first_byte = h5_dataset_offset(stored);
  if (images->first_byte < 0) /* in chunks */
    return STATUS_OK;
  return read_at_open(images->path, images->first_byte, images->rows * (int64_t)record_bytes(images), &images->file);
}

static enum status open_places(struct image_records *images, const struct dataset_layout *layout, const char *name,
                               struct h5_dataset *out) {
  TRY(dataset_layout_require(layout, name, out));
  REQUIRE(out->rank == 1 && out->content == H5_INTEGERS, ERR_FORMAT, "\"%s\" in %s must be [rows] of integers", name,
          images->path);
  REQUIRE(out->shape[0] == images->offset.shape[0], ERR_FORMAT,
          "\"%s\" has %lld rows but \"image_offset\" has %lld in %s; each sample needs one row in both", name,
          (long long)out->shape[0], (long long)images->offset.shape[0], images->path);
  return STATUS_OK;
}

static enum status open_encoded(struct image_records *images, const struct dataset_layout *layout) {
  struct h5_dataset *stored = &images->stored;
  TRY(dataset_layout_require(layout, "image_bytes", stored));
  REQUIRE(stored->rank == 1 && stored->nearest == ARRAY_U8, ERR_FORMAT,
          "\"image_bytes\" in %s must be [bytes] of unsigned bytes", images->path);
  images->first_byte = h5_dataset_offset(stored);
  REQUIRE(images->first_byte >= 0, ERR_FORMAT,
          "\"image_bytes\" in %s is empty, compressed or stored in chunks; store it contiguous", images->path);
  TRY(open_places(images, layout, "image_offset", &images->offset));
  TRY(open_places(images, layout, "image_length", &images->length));
  images->has_checksum = h5_exists(layout->file, "image_checksum");
  if (images->has_checksum)
    TRY(open_places(images, layout, "image_checksum", &images->checksum));
  images->rows = images->offset.shape[0];
  REQUIRE(images->rows > 0, ERR_FORMAT, "\"image_offset\" in %s has no rows", images->path);
  return read_at_open(images->path, images->first_byte, stored->shape[0], &images->file);
}

/* Only the rank that reads for its host keeps the texts; the others learn their size. */
static enum status open_names(struct image_records *images, const struct dataset_layout *layout) {
  TRY(h5_read_texts(layout->file, "paths", &images->names));
  size_t count = images->names.count;
  REQUIRE(count == 0 || count == (size_t)images->rows, ERR_FORMAT, "\"paths\" in %s has %zu texts, not %lld",
          images->path, count, (long long)images->rows);
  for (size_t i = 0; i < count; i++)
    images->names_bytes += (int64_t)strlen(images->names.text[i]) + 1;
  return STATUS_OK;
}

enum status image_records_open(const struct dataset_layout *layout, const char *path, const struct host_share *share,
                               struct image_records *out) {
  *out = (struct image_records){.path = path, .file = -1};
  TRY(h5_exists(layout->file, "images") ? open_pixels(out, layout) : open_encoded(out, layout));
  return host_share_reads(share) ? open_names(out, layout) : STATUS_OK;
}

/* All ranks learn how much there is; a host whose file says otherwise would fill less than that. */
static enum status agree_on_names(struct image_records *images, const struct host_share *share) {
  int64_t own = images->names_bytes;
  enum status status = STATUS_OK;
  if (share->comm == NULL)
    return STATUS_OK;
  TRY(comm_max_i64(share->comm, &images->names_bytes, 1));
  if (host_share_reads(share) && own != images->names_bytes)
    status =
        fail(ERR_FORMAT, "%s is not the same file on all hosts; copy it again or use a shared folder", images->path);
  return comm_agree(share->comm, status);
}

/* Of this rank alone, which may lack memory: agreed. */
static enum status allocate_verified(struct image_records *images, const struct host_share *share) {
  enum status status = STATUS_OK;
  if (images->has_checksum)
    status = memory_alloc_zero((size_t)images->rows, (void **)&images->verified);
  return share->comm == NULL ? status : comm_agree(share->comm, status);
}

static size_t name_bytes(const struct image_records *images) {
  size_t places = (size_t)images->rows * sizeof *images->name_place;
  return images->names_bytes > 0 ? places + (size_t)images->names_bytes : 0;
}

size_t image_records_shared_bytes(const struct image_records *images) {
  size_t rows = (size_t)images->rows, bytes = name_bytes(images);
  if (images->layout == IMAGE_LAYOUT_ENCODED)
    return bytes + rows * sizeof *images->places;
  return bytes + (images->file < 0 ? rows * record_bytes(images) : 0);
}

enum status image_records_allocate(struct image_records *images, const struct host_share *share) {
  size_t rows = (size_t)images->rows;
  TRY(agree_on_names(images, share));
  if (images->layout == IMAGE_LAYOUT_ENCODED)
    TRY(host_share_alloc(share, rows * sizeof *images->places, (void **)&images->places));
  else if (images->file < 0)
    TRY(host_share_alloc(share, rows * record_bytes(images), (void **)&images->pixels));
  if (images->names_bytes > 0)
    TRY(host_share_alloc(share, name_bytes(images), (void **)&images->name_place));
  return allocate_verified(images, share);
}

/* ---- reading what the host shares ---------------------------------------------------------- */

static enum status check_place(const struct image_records *images, int64_t row, const struct image_place *place) {
  int64_t bytes = images->stored.shape[0];
  REQUIRE(place->length > 0 && place->length <= IMAGE_MOST_BYTES, ERR_FORMAT,
          "\"image_length\" in %s is %lld at row %lld; an image has 1 to %lld bytes", images->path,
          (long long)place->length, (long long)row, (long long)IMAGE_MOST_BYTES);
  REQUIRE(place->offset >= 0 && place->length <= bytes && place->offset <= bytes - place->length, ERR_FORMAT,
          "\"image_offset\" in %s is %lld at row %lld, so that its %lld bytes do not lie inside the %lld of "
          "\"image_bytes\"",
          images->path, (long long)place->offset, (long long)row, (long long)place->length, (long long)bytes);
  REQUIRE(place->checksum >= 0 && place->checksum <= UINT32_MAX, ERR_FORMAT,
          "\"image_checksum\" in %s is %lld at row %lld; a CRC-32 is 0 to %lld", images->path,
          (long long)place->checksum, (long long)row, (long long)UINT32_MAX);
  return STATUS_OK;
}

/* One field of the places of some rows; `column` holds as many numbers. */
static enum status read_column(const struct h5_dataset *dataset, int64_t first, int64_t rows, int64_t *column,
                               int64_t *out) {
  TRY(h5_dataset_read(dataset, first, rows, ARRAY_I64, column));
  for (int64_t i = 0; i < rows; i++)
    out[i * (int64_t)(sizeof(struct image_place) / sizeof *out)] = column[i];
  return STATUS_OK;
}

static enum status read_places(struct image_records *images, int64_t first, int64_t rows, int64_t *column) {
  struct image_place *places = images->places + first;
  memset(places, 0, (size_t)rows * sizeof *places);
  TRY(read_column(&images->offset, first, rows, column, &places->offset));
  TRY(read_column(&images->length, first, rows, column, &places->length));
  if (images->has_checksum)
    TRY(read_column(&images->checksum, first, rows, column, &places->checksum));
  for (int64_t i = 0; i < rows; i++)
    TRY(check_place(images, first + i, &places[i]));
  return STATUS_OK;
}

static enum status fill_places(struct image_records *images) {
  int64_t *column = NULL;
  enum status status = STATUS_OK;
  TRY(memory_alloc(BLOCK_ROWS * sizeof *column, (void **)&column));
  for (int64_t first = 0; status == STATUS_OK && first < images->rows; first += BLOCK_ROWS) {
    int64_t rows = images->rows - first < BLOCK_ROWS ? images->rows - first : BLOCK_ROWS;
    status = read_places(images, first, rows, column);
  }
  memory_free((void **)&column);
  return status;
}

static enum status fill_pixels(struct image_records *images) {
  int64_t block_rows = h5_dataset_block_rows(&images->stored, (size_t)1 << 24);
  for (int64_t first = 0; first < images->rows; first += block_rows) {
    int64_t rows = images->rows - first < block_rows ? images->rows - first : block_rows;
    uint8_t *out = images->pixels + (size_t)first * record_bytes(images);
    TRY(h5_dataset_read(&images->stored, first, rows, ARRAY_U8, out));
  }
  return STATUS_OK;
}

static void fill_names(struct image_records *images) {
  char *texts = (char *)(images->name_place + images->rows);
  int64_t place = 0;
  for (int64_t row = 0; row < images->rows; row++) {
    size_t bytes = strlen(images->names.text[row]) + 1;
    images->name_place[row] = place;
    memcpy(texts + place, images->names.text[row], bytes);
    place += (int64_t)bytes;
  }
  memory_free((void **)&images->names.text);
}

enum status image_records_fill(struct image_records *images) {
  if (images->names_bytes > 0)
    fill_names(images);
  if (images->places != NULL)
    return fill_places(images);
  return images->pixels != NULL ? fill_pixels(images) : STATUS_OK;
}

void image_records_release_file(struct image_records *images) {
  h5_dataset_close(&images->checksum);
  h5_dataset_close(&images->length);
  h5_dataset_close(&images->offset);
  h5_dataset_close(&images->stored);
}

void image_records_close(struct image_records *images, const struct host_share *share) {
  host_share_free(share, (void **)&images->name_place);
  host_share_free(share, (void **)&images->pixels);
  host_share_free(share, (void **)&images->places);
  memory_free((void **)&images->verified);
  memory_free((void **)&images->names.text);
  if (images->file >= 0)
    close(images->file);
  image_records_release_file(images);
}

/* ---- use ----------------------------------------------------------------------------------- */

uint32_t image_records_hash(const struct image_records *images, uint32_t hash) {
  int64_t shape[] = {images->layout, images->height, images->width, images->has_checksum, images->stored.shape[0]};
  uLong crc = crc32_z(hash, (const void *)shape, sizeof shape);
  if (images->places != NULL)
    crc = crc32_z(crc, (const void *)images->places, (size_t)images->rows * sizeof *images->places);
  return (uint32_t)crc;
}

const char *image_records_name(const struct image_records *images, int64_t row) {
  return images->name_place == NULL ? "" : (const char *)(images->name_place + images->rows) + images->name_place[row];
}

enum status image_records_fail(const struct image_records *images, int64_t row, enum status status) {
  const char *name = image_records_name(images, row);
  return fail(status, "the image of row %lld%s%.300s%s in %s cannot be used: %s", (long long)row, name[0] ? " (" : "",
              name, name[0] ? ")" : "", images->path, status_message());
}

static enum status buffer_grow(struct image_buffer *buffer, size_t bytes) {
  if (bytes <= buffer->capacity)
    return STATUS_OK;
  size_t capacity = bytes + bytes / 4; /* records differ in length: do not grow for each */
  buffer->capacity = 0;
  memory_free((void **)&buffer->bytes);
  TRY(memory_alloc(capacity, (void **)&buffer->bytes));
  buffer->capacity = capacity;
  return STATUS_OK;
}

static enum status check_row(const struct image_records *images, int64_t row) {
  REQUIRE(row >= 0 && row < images->rows, ERR_BUG, "row %lld of %s was asked for; it has %lld", (long long)row,
          images->path, (long long)images->rows);
  return STATUS_OK;
}

enum status image_records_read(const struct image_records *images, int64_t row, struct image_buffer *buffer,
                               const uint8_t **bytes, size_t *count) {
  TRY(check_row(images, row));
  bool encoded = images->places != NULL;
  *count = encoded ? (size_t)images->places[row].length : record_bytes(images);
  if (images->pixels != NULL) {
    *bytes = images->pixels + (size_t)row * *count;
    return STATUS_OK;
  }
  int64_t place = encoded ? images->places[row].offset : row * (int64_t)*count;
  TRY(buffer_grow(buffer, *count));
  *bytes = buffer->bytes;
  return read_at(images->file, images->path, images->first_byte + place, *count, buffer->bytes);
}

enum status image_records_copy(const struct image_records *images, int64_t row, int64_t first, int64_t end,
                               uint8_t *out) {
  int64_t bytes = (int64_t)record_bytes(images);
  TRY(check_row(images, row));
  REQUIRE(first >= 0 && end <= bytes, ERR_BUG, "bytes %lld to %lld of an image of %lld were asked for",
          (long long)first, (long long)end, (long long)bytes);
  if (first >= end)
    return STATUS_OK;
  if (images->pixels == NULL)
    return read_at(images->file, images->path, images->first_byte + row * bytes + first, (size_t)(end - first), out);
  memcpy(out, images->pixels + row * bytes + first, (size_t)(end - first));
  return STATUS_OK;
}

enum status image_records_verify(const struct image_records *images, int64_t row, const uint8_t *bytes, size_t count) {
  if (!images->has_checksum || __atomic_load_n(&images->verified[row], __ATOMIC_RELAXED))
    return STATUS_OK;
  int64_t found = (int64_t)crc32_z(0, bytes, count);
  REQUIRE(found == images->places[row].checksum, ERR_FORMAT,
          "its checksum is %08llx, not %08llx as when it was imported; copy %s again, or import it anew",
          (unsigned long long)found, (unsigned long long)images->places[row].checksum, images->path);
  __atomic_store_n(&images->verified[row], 1, __ATOMIC_RELAXED); /* by any of the loader's threads */
  return STATUS_OK;
}

enum status image_records_fetch(const struct image_records *images, int64_t row, uint8_t *out) {
  TRY(check_row(images, row));
  const struct image_place *place = &images->places[row];
  TRY(read_at(images->file, images->path, images->first_byte + place->offset, (size_t)place->length, out));
  return image_records_verify(images, row, out, (size_t)place->length);
}
