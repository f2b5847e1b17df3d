/* Safetensors files: what comes back, what PyTorch makes of ours and we of its, and what is refused. */
#define _GNU_SOURCE
#include "io/safetensors.h"

#include "dist/memory.h"
#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(safetensors, .init = io_files_begin, .fini = io_files_end, .timeout = 240);

static float weights[6] = {1.5f, -2, 3e-30f, 4, 5, -0.0f};
static double step_size = 0.1;
static int64_t big = INT64_MIN;
static uint8_t bytes[3] = {0, 7, 255};
static int32_t counts[4] = {-5, 6, 7, 8};
static const struct safetensors_text pt[] = {{"format", "pt"}, {"note", "\xC3\xA4 \"quoted\"\n"}};

#define ARRAYS 6

/* One array of each type and rank 0 to 4, one of them empty; in no order. */
static void make_arrays(struct array arrays[ARRAYS]) {
  cr_assert(eq(int, array_borrow("a.bytes", ARRAY_U8, 3, (int64_t[]){1, 3, 1}, bytes, &arrays[0]), 0));
  cr_assert(eq(int, array_borrow("layer0.weight", ARRAY_F32, 2, (int64_t[]){2, 3}, weights, &arrays[1]), 0));
  cr_assert(eq(int, array_borrow("step", ARRAY_F64, 0, NULL, &step_size, &arrays[2]), 0));
  cr_assert(eq(int, array_borrow("big", ARRAY_I64, 1, (int64_t[]){1}, &big, &arrays[3]), 0));
  cr_assert(eq(int, array_borrow("counts", ARRAY_I32, 4, (int64_t[]){2, 1, 2, 1}, counts, &arrays[4]), 0));
  cr_assert(eq(int, array_borrow("empty", ARRAY_F32, 2, (int64_t[]){0, 3}, NULL, &arrays[5]), 0));
}

static const char *write_sample(void) {
  struct array arrays[ARRAYS];
  make_arrays(arrays);
  cr_assert(safetensors_write(io_file("sample.safetensors"), arrays, ARRAYS, pt, 2) == STATUS_OK, "%s",
            status_message());
  return io_file("sample.safetensors");
}

static struct safetensors *opened(const char *path) {
  struct safetensors *file;
  cr_assert(safetensors_open(path, &file) == STATUS_OK, "%s", status_message());
  return file;
}

static struct array read_array(const struct safetensors *file, const char *name) {
  struct array array;
  const struct safetensors_tensor *tensor = safetensors_find(file, name);
  cr_assert(tensor != NULL, "%s is not there", name);
  cr_assert(safetensors_read(file, tensor, &array) == STATUS_OK, "%s", status_message());
  return array;
}

/* A file of this header, as it is, and so many bytes of values. */
static const char *write_raw(const char *name, const char *header, const void *values, size_t value_bytes) {
  uint64_t length = strlen(header);
  char *data = malloc(8 + length + value_bytes);
  memcpy(data, &length, 8);
  memcpy(data + 8, header, length);
  if (value_bytes > 0)
    memcpy(data + 8 + length, values, value_bytes);
  io_write(io_file(name), data, 8 + length + value_bytes);
  free(data);
  return io_file(name);
}

/* ---- what comes back ------------------------------------------------------------------------ */

FILE_TEST(safetensors, every_type_and_rank_comes_back) {
  struct array arrays[ARRAYS];
  make_arrays(arrays);
  struct safetensors *file = opened(write_sample());
  cr_assert(eq(sz, file->count, ARRAYS));
  for (int i = 0; i < ARRAYS; i++) {
    struct array found = read_array(file, arrays[i].name);
    cr_expect(found.type == arrays[i].type && found.rank == arrays[i].rank, "%s", arrays[i].name);
    cr_expect(memcmp(found.shape, arrays[i].shape, sizeof found.shape) == 0, "%s", arrays[i].name);
    cr_expect(array_bytes(&found) == 0 || memcmp(found.data, arrays[i].data, array_bytes(&found)) == 0, "%s",
              arrays[i].name);
    array_destroy(&found);
  }
  cr_expect(safetensors_find(file, "layer0") == NULL, "a name is found whole or not at all");
  safetensors_close(&file);
  cr_expect(not(io_exists(io_file("sample.safetensors.tmp"))));
}

/* The bytes of a small file, by the format's own description. */
FILE_TEST(safetensors, the_header_is_sorted_and_padded_to_eight_bytes) {
  struct array arrays[2];
  size_t size;
  cr_assert(eq(int, array_borrow("b", ARRAY_F32, 1, (int64_t[]){2}, weights, &arrays[0]), 0));
  cr_assert(eq(int, array_borrow("a", ARRAY_F32, 2, (int64_t[]){1, 1}, weights + 2, &arrays[1]), 0));
  cr_assert(eq(int, safetensors_write(io_file("x"), arrays, 2, pt, 1), 0), "%s", status_message());
  char *data = io_read(io_file("x"), &size);
  const char *header = "{\"__metadata__\":{\"format\":\"pt\"},"
                       "\"a\":{\"dtype\":\"F32\",\"shape\":[1,1],\"data_offsets\":[0,4]},"
                       "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}";
  uint64_t length;
  memcpy(&length, data, 8);
  cr_expect(eq(u64, length, (strlen(header) + 7) / 8 * 8));
  cr_assert(eq(sz, size, 8 + length + 12));
  cr_expect(strncmp(data + 8, header, strlen(header)) == 0, "%.200s", data + 8);
  for (size_t i = strlen(header); i < length; i++)
    cr_expect(eq(chr, data[8 + i], ' '));
  cr_expect(memcmp(data + 8 + length, weights + 2, 4) == 0 && memcmp(data + 12 + length, weights, 8) == 0);
  free(data);
}

FILE_TEST(safetensors, every_tensor_is_aligned) {
  struct safetensors *file = opened(write_sample());
  for (size_t i = 0; i < file->count; i++) {
    struct array array = read_array(file, file->tensors[i].name);
    uint64_t place = file->values + file->tensors[i].begin;
    cr_expect(eq(u64, place % array_type_bytes(array.type), 0), "%s", array.name);
    array_destroy(&array);
  }
  safetensors_close(&file);
}

FILE_TEST(safetensors, a_file_without_tensors_is_fine) {
  cr_assert(eq(int, safetensors_write(io_file("x"), NULL, 0, NULL, 0), 0), "%s", status_message());
  struct safetensors *file = opened(io_file("x"));
  cr_expect(eq(sz, file->count, 0));
  cr_expect(safetensors_find(file, "a") == NULL);
  safetensors_close(&file);
}

FILE_TEST(safetensors, narrow_integers_are_widened) {
  const unsigned char values[] = {0xff, 0x7f, 0x80, 0x00, 0x80, 0xff, 0x7f, 0xff, 0xff,
                                  0x01, 0x00, 0xff, 0xff, 0xff, 0xff, 0x00, 0x01};
  const char *path = write_raw("x",
                               "  {\"i8\": {\"dtype\":\"I8\",\"shape\":[3],\"data_offsets\":[0,3]},\n"
                               "\"i16\":{\"data_offsets\":[3,7],\"shape\":[2],\"dtype\":\"I16\"},"
                               "\"u16\":{\"dtype\":\"U16\",\"shape\":[2],\"data_offsets\":[7,11]},"
                               "\"u32\":{\"dtype\":\"U32\",\"shape\":[1],\"data_offsets\":[11,15]},"
                               "\"bool\":{\"dtype\":\"BOOL\",\"shape\":[2],\"data_offsets\":[15,17]}}   ",
                               values, sizeof values);
  struct safetensors *file = opened(path);
  struct array i8 = read_array(file, "i8"), i16 = read_array(file, "i16"), u16 = read_array(file, "u16"),
               u32 = read_array(file, "u32"), boolean = read_array(file, "bool");
  const int32_t *a = i8.data, *b = i16.data, *c = u16.data;
  cr_expect(i8.type == ARRAY_I32 && a[0] == -1 && a[1] == 127 && a[2] == -128);
  cr_expect(i16.type == ARRAY_I32 && b[0] == -32768 && b[1] == 32767);
  cr_expect(u16.type == ARRAY_I32 && c[0] == 65535 && c[1] == 1);
  cr_expect(u32.type == ARRAY_I64 && *(int64_t *)u32.data == 4294967295);
  cr_expect(boolean.type == ARRAY_U8 && ((uint8_t *)boolean.data)[0] == 0 && ((uint8_t *)boolean.data)[1] == 1);
  struct array *const all[] = {&i8, &i16, &u16, &u32, &boolean};
  for (int i = 0; i < 5; i++)
    array_destroy(all[i]);
  safetensors_close(&file);
}

/* All 65536 values, against their definition. */
FILE_TEST(safetensors, every_half_and_brain_float_is_widened_exactly) {
  uint16_t *values = malloc(2 * 65536 * sizeof *values);
  for (int i = 0; i < 65536; i++)
    values[i] = values[65536 + i] = (uint16_t)i;
  const char *path = write_raw("x",
                               "{\"half\":{\"dtype\":\"F16\",\"shape\":[256,256],\"data_offsets\":[0,131072]},"
                               "\"brain\":{\"dtype\":\"BF16\",\"shape\":[65536],\"data_offsets\":[131072,262144]}}",
                               values, 2 * 65536 * sizeof *values);
  free(values);
  struct safetensors *file = opened(path);
  struct array half = read_array(file, "half"), brain = read_array(file, "brain");
  cr_assert(half.type == ARRAY_F32 && brain.type == ARRAY_F32);
  for (int kind = 0; kind < 2; kind++) {
    int fraction_bits = kind == 0 ? 10 : 7, exponents = kind == 0 ? 31 : 255, bias = kind == 0 ? 15 : 127;
    const float *got = kind == 0 ? half.data : brain.data;
    for (int i = 0; i < 65536; i++) {
      int exponent = i >> fraction_bits & exponents, fraction = i & ((1 << fraction_bits) - 1);
      double wanted = ldexp(exponent > 0 ? fraction + (1 << fraction_bits) : fraction,
                            (exponent > 0 ? exponent : 1) - bias - fraction_bits);
      if (exponent == exponents)
        wanted = fraction > 0 ? NAN : INFINITY;
      if (i >> 15)
        wanted = -wanted;
      bool same = isnan(wanted) ? isnan(got[i]) : (double)got[i] == wanted && !signbit(got[i]) == !signbit(wanted);
      cr_assert(same, "%s %04x is %a, not %a", kind == 0 ? "F16" : "BF16", i, (double)got[i], wanted);
    }
  }
  array_destroy(&half);
  array_destroy(&brain);
  safetensors_close(&file);
}

/* Only what is asked for is read: of a file of 100 GB (a sparse one), four bytes. */
FILE_TEST(safetensors, a_file_larger_than_memory_is_read_tensor_by_tensor) {
  const long long huge = 100000000000;
  char header[256];
  float last = 2.5f;
  snprintf(header, sizeof header,
           "{\"huge\":{\"dtype\":\"U8\",\"shape\":[%lld],\"data_offsets\":[0,%lld]},"
           "\"last\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[%lld,%lld]}}",
           huge, huge, huge, huge + 4);
  const char *path = write_raw("x", header, NULL, 0);
  off_t end = (off_t)(8 + strlen(header)) + huge;
  FILE *stream = fopen(path, "r+b");
  if (fseeko(stream, end, SEEK_SET) != 0 || fwrite(&last, 4, 1, stream) != 1 || fclose(stream) != 0) {
    io_files_end();
    cr_skip("no file of 100 GB with a hole can be made here");
  }
  memory_peak_reset();
  size_t before = memory_in_use();
  struct safetensors *file = opened(path);
  struct array array = read_array(file, "last");
  cr_expect(last == *(float *)array.data);
  cr_expect(lt(sz, memory_peak() - before, 10000));
  array_destroy(&array);
  safetensors_close(&file);
}

FILE_TEST(safetensors, a_file_is_recognised_by_its_content) {
  const char *sample = write_sample(), *other = io_file("other.h5");
  size_t size;
  char *data = io_read(sample, &size);
  io_write(other, data, size);
  free(data);
  cr_expect(safetensors_is(sample));
  cr_expect(safetensors_is(other), "the name does not matter");
  io_write(io_file("x.safetensors"), "\x89HDF\r\n\x1a\n........", 16);
  cr_expect(not(safetensors_is(io_file("x.safetensors"))), "nor here");
  io_write_text(io_file("cut.safetensors"), "");
  cr_expect(safetensors_is(io_file("cut.safetensors")), "it is damaged, but meant to be one");
  io_write_text(io_file("table.csv"), "a,b\n1,2\n3,4\n");
  cr_expect(not(safetensors_is(io_file("table.csv"))));
  cr_expect(not(safetensors_is(io_file("none.safetensors"))));
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void refused(const char *path, enum status wanted, const char *sentence) {
  struct safetensors *file;
  char text[1024];
  cr_expect(eq(int, safetensors_open(path, &file), (int)wanted), "%s", path);
  cr_expect(file == NULL);
  snprintf(text, sizeof text, sentence, path);
  cr_expect(eq(str, (char *)status_message(), text));
}

FILE_TEST(safetensors, a_header_that_makes_no_sense_is_refused) {
  static const struct {
    const char *header, *sentence; /* over 8 bytes of values */
  } cases[] = {
      {"[1,2]", "%s is not a safetensors file: its header is no JSON object"},
      {"{\"a\":1}", "%s: tensor \"a\" has no dtype"},
      {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", "%s: tensor \"a\" has no dtype"},
      {"{\"a\":{\"dtype\":\"F99\",\"shape\":[2],\"data_offsets\":[0,8]}}",
       "%s: tensor \"a\" has the unknown dtype \"F99\""},
      {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "%s: tensor \"a\" has no list of numbers as shape"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}",
       "%s: dimension 0 of tensor \"a\" is no whole number"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-1,-2],\"data_offsets\":[0,8]}}",
       "%s: dimension 0 of tensor \"a\" is no whole number"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}",
       "%s: tensor \"a\" has 9 dimensions; the most this program reads is 8"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", "%s: tensor \"a\" has no two whole numbers as data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}",
       "%s: tensor \"a\" has no two whole numbers as data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}",
       "%s: tensor \"a\" has no two whole numbers as data_offsets"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}",
       "%s is damaged or cut short: tensor \"a\" is said to lie at bytes 8 to 0 of 8"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}",
       "%s is damaged or cut short: tensor \"a\" is said to lie at bytes 0 to 12 of 8"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
       "%s is damaged: tensor \"a\" has 8 bytes, which its shape of 3 elements of F32 does not fill"},
      {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}",
       "%s is damaged: tensor \"a\" has 1 bytes, which its shape of 3 elements of F4 does not fill"},
      /* 2^31 * 2^31 * 4 elements: 0 modulo 2^64. */
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483648,2147483648,4],\"data_offsets\":[0,0]}}",
       "%s: the shape of tensor \"a\" is impossible"},
      /* 2^59 elements, 2^64 bits. */
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[576460752303423488],\"data_offsets\":[0,0]}}",
       "%s is damaged: tensor \"a\" has 0 bytes, which its shape of 576460752303423488 elements of F32 does not fill"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
       "%s is damaged: tensor \"a\" begins at byte 4, not 0"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
       "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
       "%s is damaged: tensor \"b\" begins at byte 4, not 8"},
      {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
       "%s is damaged: its tensors fill 4 of 8 bytes"},
      {"{}", "%s is damaged: its tensors fill 0 of 8 bytes"},
      {"{\"__metadata__\":[],\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
       "%s: __metadata__ is no JSON object"},
      {"{\"__metadata__\":{\"x\":1},\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
       "%s: \"x\" in __metadata__ is no text"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    refused(write_raw("x", cases[i].header, weights, 8), ERR_FORMAT, cases[i].sentence);
}

/* jansson's own words end these sentences. */
FILE_TEST(safetensors, a_header_that_is_no_json_is_refused) {
  static const char *const headers[] = {
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} x",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,8]}}",
      "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
      "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
      "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "          "};
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
    struct safetensors *file;
    const char *path = write_raw("x", headers[i], weights, 8);
    char beginning[512];
    snprintf(beginning, sizeof beginning, "%s is not a safetensors file, or damaged: byte ", path);
    cr_expect(eq(int, safetensors_open(path, &file), ERR_FORMAT), "%s", headers[i]);
    cr_expect(strncmp(status_message(), beginning, strlen(beginning)) == 0, "%s", status_message());
  }
}

FILE_TEST(safetensors, what_is_no_such_file_is_refused) {
  char *deep = malloc(1000001);
  memset(deep, '[', 1000000);
  deep[1000000] = '\0';
  struct safetensors *file;
  cr_expect(eq(int, safetensors_open(write_raw("deep", deep, NULL, 0), &file), ERR_FORMAT));
  free(deep);
  refused(io_file("none"), ERR_FILE, "cannot open %s: No such file or directory");
  refused(io_file(""), ERR_FILE, "cannot open %s: it is not a regular file");
  cr_assert(mkfifo(io_file("pipe"), 0600) == 0);
  refused(io_file("pipe"), ERR_FILE, "cannot open %s: it is not a regular file");
  io_write_text(io_file("short"), "123456789");
  refused(io_file("short"), ERR_FORMAT, "%s has 9 bytes, which is too short for a safetensors file");
  io_write(io_file("wild"), "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
  refused(io_file("wild"), ERR_FORMAT,
          "%s is not a safetensors file, or is cut short: its header would have 18446744073709551615 bytes, the file "
          "has 2 more");
}

/* 100 million bytes of header would be parsed into gigabytes. */
FILE_TEST(safetensors, a_header_of_absurdly_many_values_is_refused_before_it_is_parsed) {
  const size_t length = 8000000;
  char *header = malloc(length + 1);
  memset(header, ',', length);
  header[length] = '\0';
  const char *path = write_raw("x", header, NULL, 0);
  free(header);
  refused(path, ERR_FORMAT, "the header of %s lists about 8000000 values; the most this program reads is 3670016");
}

FILE_TEST(safetensors, what_no_array_can_hold_is_refused_when_it_is_read) {
  static const char long_name[] =
      "a23456789.123456789.123456789.123456789.123456789.123456789.123456789.123456789.123456789.123456789.123456789."
      "123456789.123456789";
  char header[1024], sentence[1024];
  snprintf(header, sizeof header,
           "{\"u64\":{\"dtype\":\"U64\",\"shape\":[1],\"data_offsets\":[0,8]},"
           "\"five\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,8],\"data_offsets\":[8,16]},"
           "\"%s\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[16,24]}}",
           long_name);
  const char *path = write_raw("x", header, weights, 24);
  const char *const names[] = {"u64", "five", long_name};
  const char *const sentences[] = {"%s: tensor \"u64\" is U64; store it as F32, F16 or BF16",
                                   "%s: array \"five\" has 5 dimensions; the most is 4",
                                   "%s: the array name \"a23456789.123456789.123456789.123456789.\" has 129 "
                                   "characters; it must have 1 to 127"};
  struct safetensors *file = opened(path);
  for (int i = 0; i < 3; i++) {
    struct array array;
    cr_expect(eq(int, safetensors_read(file, safetensors_find(file, names[i]), &array), ERR_FORMAT));
    snprintf(sentence, sizeof sentence, sentences[i], path);
    cr_expect(eq(str, (char *)status_message(), sentence));
  }
  safetensors_close(&file);
}

FILE_TEST(safetensors, a_file_that_shrinks_while_it_is_open_is_noticed) {
  const char *path = write_sample();
  struct safetensors *file = opened(path);
  struct array array;
  cr_assert(truncate(path, (off_t)file->values + 4) == 0);
  cr_expect(eq(int, safetensors_read(file, safetensors_find(file, "layer0.weight"), &array), ERR_FILE));
  safetensors_close(&file);
}

/* Open and read everything; only the two verdicts of a damaged file are allowed. */
static bool survives(const char *path) {
  struct safetensors *file;
  enum status status = safetensors_open(path, &file);
  for (size_t i = 0; status == STATUS_OK && i < file->count; i++) {
    struct array array;
    status = safetensors_read(file, &file->tensors[i], &array);
    array_destroy(&array);
  }
  safetensors_close(&file);
  return status == STATUS_OK || status == ERR_FORMAT;
}

FILE_TEST(safetensors, random_damage_is_refused_or_read_and_never_more) {
  enum { ROUNDS = 4000, SEED = 20240 };
  size_t size, before = memory_in_use();
  unsigned seed = SEED;
  char *whole = io_read(write_sample(), &size), *data = malloc(size);
  const char *path = io_file("broken");
  memory_peak_reset();
  for (int round = 0; round < ROUNDS; round++) {
    size_t length = round % 4 == 0 ? (size_t)rand_r(&seed) % size : size;
    memcpy(data, whole, size);
    for (int flips = rand_r(&seed) % 4; flips > 0; flips--) {
      size_t place = (size_t)rand_r(&seed) % size;
      /* Half of them stay among the characters of JSON. */
      data[place] = rand_r(&seed) % 2 ? "0123456789[]{},:\"-eF"[rand_r(&seed) % 20] : (char)rand_r(&seed);
    }
    io_write(path, data, length);
    cr_assert(survives(path), "seed %d, round %d: %s", SEED, round, status_message());
  }
  cr_expect(lt(sz, memory_peak() - before, 100 * size), "damage asked for memory");
  free(whole);
  free(data);
}

/* ---- writing that fails --------------------------------------------------------------------- */

FILE_TEST(safetensors, a_full_disk_leaves_the_old_file) {
  size_t size_before, size_after;
  const char *path = write_sample();
  char *old = io_read(path, &size_before);
  struct array large;
  cr_assert(eq(int, array_create("large", ARRAY_F32, 1, (int64_t[]){100000}, &large), 0));
  io_fill_disk(20000);
  cr_expect(eq(int, safetensors_write(path, &large, 1, pt, 1), ERR_FILE));
  io_empty_disk();
  char *now = io_read(path, &size_after);
  cr_expect(size_before == size_after && memcmp(old, now, size_before) == 0);
  cr_expect(not(io_exists(io_file("sample.safetensors.tmp"))));
  array_destroy(&large);
  free(old);
  free(now);
}

FILE_TEST(safetensors, names_that_a_file_cannot_hold_are_refused) {
  struct array arrays[2];
  char sentence[512];
  const char *path = io_file("x");
  cr_assert(eq(int, array_borrow("a", ARRAY_F32, 1, (int64_t[]){2}, weights, &arrays[0]), 0));
  cr_assert(eq(int, array_borrow("a", ARRAY_F64, 0, NULL, &step_size, &arrays[1]), 0));
  cr_expect(eq(int, safetensors_write(path, arrays, 2, NULL, 0), ERR_ARGUMENT));
  snprintf(sentence, sizeof sentence, "two arrays for %s are named \"a\"", path);
  cr_expect(eq(str, (char *)status_message(), sentence));
  cr_assert(eq(int, array_borrow("\xff", ARRAY_F32, 1, (int64_t[]){2}, weights, &arrays[0]), 0));
  cr_expect(eq(int, safetensors_write(path, arrays, 1, NULL, 0), ERR_ARGUMENT));
  cr_assert(eq(int, array_borrow("__metadata__", ARRAY_F32, 1, (int64_t[]){2}, weights, &arrays[0]), 0));
  cr_expect(eq(int, safetensors_write(path, arrays, 1, NULL, 0), ERR_ARGUMENT));
  cr_expect(not(io_exists(path)));
}

/* ---- PyTorch -------------------------------------------------------------------------------- */

FILE_TEST(safetensors, pytorch_reads_what_we_write) {
  io_python_with(
      "torch, safetensors", 200,
      "from safetensors import safe_open\n"
      "from safetensors.torch import load_file\n"
      "t = load_file(sys.argv[1])\n"
      "assert sorted(t) == ['a.bytes', 'big', 'counts', 'empty', 'layer0.weight', 'step'], t\n"
      "w = torch.tensor([[1.5, -2, 3e-30], [4, 5, -0.0]])\n"
      "assert t['layer0.weight'].dtype == torch.float32 and torch.equal(t['layer0.weight'], w), t\n"
      "assert t['step'].dtype == torch.float64 and t['step'].shape == () and t['step'] == 0.1, t\n"
      "assert t['big'].dtype == torch.int64 and t['big'].tolist() == [-2**63], t\n"
      "assert t['a.bytes'].dtype == torch.uint8 and t['a.bytes'].tolist() == [[[0], [7], [255]]], t\n"
      "assert t['counts'].dtype == torch.int32 and t['counts'].tolist() == [[[[-5], [6]]], [[[7], [8]]]], t\n"
      "assert t['empty'].shape == (0, 3), t\n"
      "with safe_open(sys.argv[1], 'pt') as f:\n"
      "  assert f.metadata() == {'format': 'pt', 'note': '\\u00e4 \"quoted\"\\n'}, f.metadata()\n",
      write_sample());
}

FILE_TEST(safetensors, we_read_what_pytorch_writes) {
  const char *path = io_file("torch.safetensors");
  io_python_with("torch, safetensors", 200,
                 "from safetensors.torch import save_file\n"
                 "half = torch.arange(65536).to(torch.uint16).view(torch.float16)\n"
                 "brain = torch.arange(65536).to(torch.uint16).view(torch.bfloat16)\n"
                 "clean = lambda x: torch.nan_to_num(x, nan=0.)\n"
                 "save_file({'half': clean(half), 'brain': clean(brain), 'half32': clean(half).float(),\n"
                 "  'brain32': clean(brain).float(), 'double': torch.tensor([[0.1], [-1e300]], dtype=torch.float64),\n"
                 "  'count': torch.tensor(-7), 'bytes': torch.tensor([3, 255], dtype=torch.uint8),\n"
                 "  'yes': torch.tensor([True, False]), 'none': torch.zeros(2, 0)}, sys.argv[1],\n"
                 "  metadata={'format': 'pt', 'x': '\\u00e4'})\n",
                 path);
  struct safetensors *file = opened(path);
  cr_assert(eq(sz, file->count, 9));
  const char *const pairs[][2] = {{"half", "half32"}, {"brain", "brain32"}};
  for (int i = 0; i < 2; i++) {
    struct array narrow = read_array(file, pairs[i][0]), wide = read_array(file, pairs[i][1]);
    cr_assert(narrow.type == ARRAY_F32 && array_count(&narrow) == 65536 && array_count(&wide) == 65536);
    cr_expect(memcmp(narrow.data, wide.data, array_bytes(&wide)) == 0, "%s", pairs[i][0]);
    array_destroy(&narrow);
    array_destroy(&wide);
  }
  struct array values = read_array(file, "double"), count = read_array(file, "count"), byte = read_array(file, "bytes"),
               yes = read_array(file, "yes"), none = read_array(file, "none");
  cr_expect(values.type == ARRAY_F64 && values.rank == 2 && values.shape[0] == 2 && values.shape[1] == 1);
  cr_expect(memcmp(values.data, (double[]){0.1, -1e300}, 16) == 0);
  cr_expect(count.type == ARRAY_I64 && count.rank == 0 && *(int64_t *)count.data == -7);
  cr_expect(byte.type == ARRAY_U8 && ((uint8_t *)byte.data)[1] == 255);
  cr_expect(yes.type == ARRAY_U8 && ((uint8_t *)yes.data)[0] == 1 && ((uint8_t *)yes.data)[1] == 0);
  cr_expect(none.rank == 2 && none.shape[1] == 0);
  struct array *const all[] = {&values, &count, &byte, &yes, &none};
  for (int i = 0; i < 5; i++)
    array_destroy(all[i]);
  safetensors_close(&file);
}
