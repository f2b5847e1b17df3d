/* Checksummed array files: what comes back, and what does not come back changed. */
#define _GNU_SOURCE
#include "io/array_file.h"

#include "dist/memory.h"
#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(array_file, .init = io_files_begin, .fini = io_files_end, .timeout = 120);

static float weights[6] = {1.5f, -2, 3e-30f, 4, 5, -0.0f};
static double step_size = 0.1;
static int64_t big = INT64_MIN;
static uint8_t bytes[3] = {0, 7, 255};
static int32_t counts[4] = {-5, 6, 7, 8};

#define ARRAYS 6

/* One array of each type and rank 0 to 4, one of them empty; in no order. */
static void make_arrays(struct array arrays[ARRAYS]) {
  cr_assert(eq(int, array_borrow("layer0.weight", ARRAY_F32, 2, (int64_t[]){2, 3}, weights, &arrays[0]), 0));
  cr_assert(eq(int, array_borrow("a/b/step", ARRAY_F64, 0, NULL, &step_size, &arrays[1]), 0));
  cr_assert(eq(int, array_borrow("big", ARRAY_I64, 1, (int64_t[]){1}, &big, &arrays[2]), 0));
  cr_assert(eq(int, array_borrow("a/bytes", ARRAY_U8, 3, (int64_t[]){1, 3, 1}, bytes, &arrays[3]), 0));
  cr_assert(eq(int, array_borrow("counts", ARRAY_I32, 4, (int64_t[]){2, 1, 2, 1}, counts, &arrays[4]), 0));
  cr_assert(eq(int, array_borrow("empty", ARRAY_F32, 2, (int64_t[]){0, 3}, NULL, &arrays[5]), 0));
}

#define ATTRIBUTES 4

static void make_attributes(struct attribute attributes[ATTRIBUTES]) {
  attributes[0] = attribute_text("method", "conr, \xC3\xA4 and \"quotes\"");
  attributes[1] = attribute_text("none", "");
  attributes[2] = attribute_integer("step", -1234567890123);
  attributes[3] = attribute_real("loss", 0.1);
}

static enum status write_sample(const char *path) {
  struct array arrays[ARRAYS];
  struct attribute attributes[ATTRIBUTES];
  make_arrays(arrays);
  make_attributes(attributes);
  return array_file_write(path, arrays, ARRAYS, attributes, ATTRIBUTES);
}

/* Is this what write_sample wrote? */
static bool is_sample(const struct array_file *file) {
  struct array arrays[ARRAYS];
  struct attribute attributes[ATTRIBUTES];
  make_arrays(arrays);
  make_attributes(attributes);
  bool same = file->array_count == ARRAYS && file->attribute_count == ATTRIBUTES;
  for (int i = 0; same && i < ARRAYS; i++) {
    const struct array *found = array_file_find(file, arrays[i].name);
    same = found != NULL && found->type == arrays[i].type && found->rank == arrays[i].rank &&
           memcmp(found->shape, arrays[i].shape, sizeof found->shape) == 0 &&
           (array_bytes(found) == 0 || memcmp(found->data, arrays[i].data, array_bytes(found)) == 0);
  }
  const char *method, *none;
  int64_t step;
  double loss;
  return same && array_file_text(file, "method", &method) == 0 && strcmp(method, attributes[0].text) == 0 &&
         array_file_text(file, "none", &none) == 0 && none[0] == '\0' && array_file_integer(file, "step", &step) == 0 &&
         step == -1234567890123 && array_file_real(file, "loss", &loss) == 0 && loss == 0.1;
}

static void expect(enum status got, enum status wanted, const char *sentence) {
  cr_expect(eq(int, (int)got, (int)wanted));
  cr_expect(eq(str, (char *)status_message(), (char *)sentence));
}

FILE_TEST(array_file, every_type_rank_and_attribute_comes_back) {
  struct array_file *file;
  const char *path = io_file("sample.h5");
  cr_assert(eq(int, write_sample(path), 0), "%s", status_message());
  cr_assert(eq(int, array_file_read(path, true, &file), 0), "%s", status_message());
  cr_expect(is_sample(file));
  cr_expect(array_file_find(file, "layer0") == NULL, "a name is found whole or not at all");
  array_file_destroy(&file);
  cr_expect(not(io_exists(io_file("sample.h5.tmp"))));
}

FILE_TEST(array_file, equal_content_gives_equal_bytes) {
  size_t bytes_a, bytes_b;
  cr_assert(eq(int, write_sample(io_file("a.h5")), 0));
  cr_assert(eq(int, write_sample(io_file("b.h5")), 0));
  char *a = io_read(io_file("a.h5"), &bytes_a), *b = io_read(io_file("b.h5"), &bytes_b);
  cr_expect(bytes_a == bytes_b && memcmp(a, b, bytes_a) == 0);
  free(a);
  free(b);
}

FILE_TEST(array_file, a_file_without_arrays_and_attributes_is_fine) {
  struct array_file *file;
  cr_assert(eq(int, array_file_write(io_file("none.h5"), NULL, 0, NULL, 0), 0), "%s", status_message());
  cr_assert(eq(int, array_file_read(io_file("none.h5"), true, &file), 0), "%s", status_message());
  cr_expect(file->array_count == 0 && file->attribute_count == 0);
  array_file_destroy(&file);
}

FILE_TEST(array_file, a_text_of_200_kilobytes_and_1000_arrays_come_back) {
  static struct array arrays[1000];
  static char text[200000];
  memset(text, 'x', sizeof text - 1);
  struct attribute attribute = attribute_text("config", text);
  for (int i = 0; i < 1000; i++) {
    char name[32];
    snprintf(name, sizeof name, "layer%d.bias", i);
    cr_assert(eq(int, array_borrow(name, ARRAY_F32, 1, (int64_t[]){6}, weights, &arrays[i]), 0));
  }
  struct array_file *file;
  const char *back;
  cr_assert(eq(int, array_file_write(io_file("many.h5"), arrays, 1000, &attribute, 1), 0), "%s", status_message());
  cr_assert(eq(int, array_file_read(io_file("many.h5"), true, &file), 0), "%s", status_message());
  cr_expect(eq(sz, file->array_count, (size_t)1000));
  cr_assert(eq(int, array_file_text(file, "config", &back), 0));
  cr_expect(strcmp(back, text) == 0);
  array_file_destroy(&file);
}

FILE_TEST(array_file, one_wrong_byte_is_found_wherever_it_matters) {
  size_t size;
  int damaged = 0, harmless = 0;
  const char *path = io_file("sample.h5"), *broken = io_file("broken.h5");
  cr_assert(eq(int, write_sample(path), 0));
  char *data = io_read(path, &size);
  for (size_t i = 0; i < size; i++) {
    struct array_file *file;
    data[i] = (char)(data[i] ^ (1 << (i % 8)));
    io_write(broken, data, size);
    data[i] = (char)(data[i] ^ (1 << (i % 8)));
    enum status status = array_file_read(broken, true, &file);
    cr_assert(status == STATUS_OK || status == ERR_FORMAT, "byte %zu: %s: %s", i, status_name(status),
              status_message());
    cr_assert(status != STATUS_OK || is_sample(file), "byte %zu changed the content and was not noticed", i);
    cr_assert(status == STATUS_OK || strstr(status_message(), broken) != NULL, "no file name: %s", status_message());
    damaged += status != STATUS_OK;
    harmless += status == STATUS_OK;
    array_file_destroy(&file);
  }
  free(data);
  cr_expect(damaged > harmless, "%d found, %d without effect", damaged, harmless);
}

FILE_TEST(array_file, a_wrong_value_is_named_a_damaged_file) {
  size_t size;
  const char *path = io_file("sample.h5");
  cr_assert(eq(int, write_sample(path), 0));
  char *data = io_read(path, &size);
  char *value = memmem(data, size, weights, sizeof weights);
  cr_assert(value != NULL);
  value[2] ^= 1;
  io_write(path, data, size);
  free(data);
  struct array_file *file;
  cr_assert(eq(int, array_file_read(path, false, &file), ERR_FORMAT), "also when none is required");
  char begin[300];
  snprintf(begin, sizeof begin, "%s is damaged: its content has checksum ", path);
  cr_expect(strncmp(status_message(), begin, strlen(begin)) == 0, "%s", status_message());
  cr_expect(strstr(status_message(), " as written; use an earlier copy") != NULL, "%s", status_message());
}

FILE_TEST(array_file, a_file_cut_at_any_length_is_refused) {
  size_t size;
  const char *path = io_file("sample.h5"), *broken = io_file("broken.h5");
  cr_assert(eq(int, write_sample(path), 0));
  char *data = io_read(path, &size);
  for (size_t length = 1; length < size; length += length < 200 ? 1 : 97) {
    struct array_file *file;
    io_write(broken, data, length);
    cr_assert(eq(int, (int)array_file_read(broken, true, &file), ERR_FORMAT), "%zu of %zu bytes", length, size);
  }
  free(data);
}

FILE_TEST(array_file, unreadable_files_are_told_apart) {
  struct array_file *file;
  char sentence[400];
  snprintf(sentence, sizeof sentence, "cannot open %s: No such file or directory; check the path", io_file("no.h5"));
  expect(array_file_read(io_file("no.h5"), true, &file), ERR_FILE, sentence);
  snprintf(sentence, sizeof sentence, "cannot open %s: it is a directory; give an HDF5 file", io_file(""));
  expect(array_file_read(io_file(""), true, &file), ERR_FILE, sentence);
  io_write(io_file("empty.h5"), "", 0);
  snprintf(sentence, sizeof sentence, "%s is empty (0 bytes); it was never written to the end, make it again",
           io_file("empty.h5"));
  expect(array_file_read(io_file("empty.h5"), true, &file), ERR_FORMAT, sentence);
  io_write_text(io_file("text.h5"), "this is no HDF5 file at all, and it has quite a few bytes");
  snprintf(sentence, sizeof sentence, "%s is not an HDF5 file, or it is damaged or cut short; make it again",
           io_file("text.h5"));
  expect(array_file_read(io_file("text.h5"), true, &file), ERR_FORMAT, sentence);
  cr_expect(file == NULL);
}

/* A file as any HDF5 program would make it: no checksum, other types, an attribute of another kind. */
static void write_foreign(const char *path, bool with_text) {
  int16_t shorts[3] = {-1, 2, 3};
  double wide[2] = {0.5, 0.25};
  hsize_t three = 3, two = 2;
  hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  hid_t space = H5Screate_simple(1, &three, NULL), group = H5Gcreate2(file, "g", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  hid_t set = H5Dcreate2(group, "shorts", H5T_STD_I16BE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(set, H5T_NATIVE_INT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, shorts);
  H5Dclose(set);
  hid_t pair = H5Screate_simple(1, &two, NULL);
  hid_t attribute = H5Acreate2(file, "pair", H5T_NATIVE_DOUBLE, pair, H5P_DEFAULT, H5P_DEFAULT);
  H5Awrite(attribute, H5T_NATIVE_DOUBLE, wide);
  H5Aclose(attribute);
  set = H5Dcreate2(file, "wide", H5T_IEEE_F64BE, pair, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
  H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, wide);
  H5Dclose(set);
  if (with_text) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, 4);
    set = H5Dcreate2(file, "words", type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    H5Dclose(set);
    H5Tclose(type);
  }
  H5Sclose(pair);
  H5Gclose(group);
  H5Sclose(space);
  H5Fclose(file);
}

FILE_TEST(array_file, a_file_of_another_program_needs_no_checksum_unless_asked) {
  struct array_file *file;
  const char *path = io_file("foreign.h5");
  write_foreign(path, false);
  cr_assert(eq(int, array_file_read(path, false, &file), 0), "%s", status_message());
  const struct array *shorts = array_file_find(file, "g/shorts"), *wide = array_file_find(file, "wide");
  cr_assert(shorts != NULL && wide != NULL);
  cr_expect(shorts->type == ARRAY_I32 && ((int32_t *)shorts->data)[0] == -1 && ((int32_t *)shorts->data)[2] == 3);
  cr_expect(wide->type == ARRAY_F64 && ((double *)wide->data)[1] == 0.25);
  cr_expect(eq(sz, file->attribute_count, (size_t)0), "an attribute of two numbers is left out");
  array_file_destroy(&file);
  char sentence[400];
  snprintf(sentence, sizeof sentence,
           "%s has no checksum, so it was not written by conr, or it is damaged; use another file", path);
  expect(array_file_read(path, true, &file), ERR_FORMAT, sentence);
}

FILE_TEST(array_file, text_where_numbers_belong_is_refused) {
  struct array_file *file;
  char sentence[400];
  write_foreign(io_file("words.h5"), true);
  snprintf(sentence, sizeof sentence, "\"words\" in %s holds text; it must hold numbers", io_file("words.h5"));
  expect(array_file_read(io_file("words.h5"), false, &file), ERR_FORMAT, sentence);
}

FILE_TEST(array_file, a_missing_attribute_is_named) {
  struct array_file *file;
  int64_t value;
  char sentence[400];
  cr_assert(eq(int, write_sample(io_file("sample.h5")), 0));
  cr_assert(eq(int, array_file_read(io_file("sample.h5"), true, &file), 0));
  snprintf(sentence, sizeof sentence,
           "%s has no integer attribute \"epoch\"; it was made for something else, or by another version",
           io_file("sample.h5"));
  expect(array_file_integer(file, "epoch", &value), ERR_FORMAT, sentence);
  cr_expect(eq(int, array_file_integer(file, "loss", &value), ERR_FORMAT), "0.1 is no integer");
  array_file_destroy(&file);
}

FILE_TEST(array_file, names_that_cannot_be_are_refused) {
  struct array arrays[2];
  cr_expect(eq(int, array_borrow("", ARRAY_F32, 0, NULL, weights, &arrays[0]), ERR_ARGUMENT));
  cr_expect(eq(int, array_borrow("/a", ARRAY_F32, 0, NULL, weights, &arrays[0]), ERR_ARGUMENT));
  cr_expect(eq(int, array_borrow("a//b", ARRAY_F32, 0, NULL, weights, &arrays[0]), ERR_ARGUMENT));
  cr_expect(eq(int, array_borrow("a", ARRAY_F32, 1, (int64_t[]){-1}, weights, &arrays[0]), ERR_ARGUMENT));
  cr_expect(eq(int, array_borrow("a", ARRAY_F32, 5, (int64_t[]){1, 1, 1, 1, 1}, weights, &arrays[0]), ERR_ARGUMENT));
  cr_expect(
      eq(int, array_borrow("a", ARRAY_F32, 2, (int64_t[]){1ll << 40, 1ll << 40}, weights, &arrays[0]), ERR_ARGUMENT));
  cr_assert(eq(int, array_borrow("a", ARRAY_F32, 0, NULL, weights, &arrays[0]), 0));
  arrays[1] = arrays[0];
  char sentence[400];
  snprintf(sentence, sizeof sentence, "two arrays for %s are named \"a\"", io_file("x.h5"));
  expect(array_file_write(io_file("x.h5"), arrays, 2, NULL, 0), ERR_ARGUMENT, sentence);
  cr_assert(eq(int, array_borrow("a/b", ARRAY_F32, 0, NULL, weights, &arrays[1]), 0));
  snprintf(sentence, sizeof sentence, "cannot create \"a/b\" in %s: the name is taken or is also a group",
           io_file("x.h5"));
  expect(array_file_write(io_file("x.h5"), arrays, 2, NULL, 0), ERR_ARGUMENT, sentence);
  cr_expect(not(io_exists(io_file("x.h5"))));
  cr_expect(not(io_exists(io_file("x.h5.tmp"))));
}

FILE_TEST(array_file, a_path_that_cannot_be_written_is_explained) {
  char sentence[600];
  snprintf(sentence, sizeof sentence, "cannot write %s: its folder %s does not exist; create it first",
           io_file("no/x.h5"), io_file("no"));
  expect(write_sample(io_file("no/x.h5")), ERR_FILE, sentence);
  snprintf(sentence, sizeof sentence, "cannot write %s: it is a directory; give the name of a file", io_file(""));
  expect(write_sample(io_file("")), ERR_FILE, sentence);
  io_write_text(io_file("file"), "x");
  snprintf(sentence, sizeof sentence, "cannot write %s: Not a directory; choose a folder you may write to",
           io_file("file/x.h5"));
  expect(write_sample(io_file("file/x.h5")), ERR_FILE, sentence);
  expect(write_sample("/dev/null"), ERR_FILE, "cannot write /dev/null: it is not a regular file");
}

/* Every size at which the disk may be full: in the superblock, the data, the metadata written when HDF5 closes. */
FILE_TEST(array_file, a_full_disk_is_one_sentence_and_the_old_file_stays) {
  size_t size, old_size;
  const char *path = io_file("last.h5");
  char sentence[400];
  struct array array;
  static float large[50000];
  cr_assert(eq(int, write_sample(path), 0));
  char *old = io_read(path, &old_size);
  cr_assert(eq(int, array_borrow("large", ARRAY_F32, 1, (int64_t[]){50000}, large, &array), 0));
  cr_assert(eq(int, array_file_write(io_file("probe.h5"), &array, 1, NULL, 0), 0));
  free(io_read(io_file("probe.h5"), &size));
  snprintf(sentence, sizeof sentence,
           "cannot write %s: File too large; free some space or choose another folder (no file was changed)", path);
  const size_t limits[] = {0,    1,     47,    48,       96,          500,        1000,
                           2048, 10000, 65536, size / 2, size - 2000, size - 100, size - 1};
  for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
    io_fill_disk(limits[i]);
    enum status status = array_file_write(path, &array, 1, NULL, 0);
    io_empty_disk();
    cr_assert(eq(int, (int)status, ERR_FILE), "%zu of %zu bytes", limits[i], size);
    cr_assert(eq(str, (char *)status_message(), sentence));
    cr_assert(not(io_exists(io_file("last.h5.tmp"))));
    size_t now_size;
    char *now = io_read(path, &now_size);
    cr_assert(now_size == old_size && memcmp(now, old, old_size) == 0, "the old file changed");
    free(now);
  }
  io_fill_disk(size);
  cr_expect(eq(int, array_file_write(path, &array, 1, NULL, 0), 0), "just enough is enough: %s", status_message());
  io_empty_disk();
  free(old);
}

FILE_TEST(array_file, h5py_reads_what_is_written_and_is_read_itself) {
  struct array_file *file;
  cr_assert(eq(int, write_sample(io_file("sample.h5")), 0));
  io_python("import h5py, numpy as np, sys\n"
            "with h5py.File(sys.argv[1] + '/sample.h5') as f:\n"
            "  assert f['layer0.weight'].dtype == 'f4' and f['layer0.weight'].shape == (2, 3)\n"
            "  assert f['layer0.weight'][0, 0] == 1.5 and f['a/b/step'][()] == 0.1 and f['empty'].shape == (0, 3)\n"
            "  assert f.attrs['step'] == -1234567890123 and f.attrs['loss'] == 0.1\n"
            "for libver in ('earliest', 'v110'):\n"
            "  with h5py.File(sys.argv[1] + '/' + libver + '.h5', 'w', libver=(libver, 'v110')) as f:\n"
            "    f['layer0.weight'] = np.arange(6, dtype='f4').reshape(2, 3)\n"
            "    f.create_dataset('head/bias', data=np.ones(4, 'f2'), chunks=(2,), compression='gzip')\n"
            "    f['flags'] = np.array([True, False])\n"
            "    f.attrs['note'] = 'von h5py'\n"
            "    f.attrs['epoch'] = 3\n",
            io_file(""));
  for (int i = 0; i < 2; i++) {
    const char *path = io_file(i == 0 ? "earliest.h5" : "v110.h5"), *note;
    int64_t epoch = 0;
    cr_assert(eq(int, array_file_read(path, false, &file), 0), "%s", status_message());
    const struct array *weight = array_file_find(file, "layer0.weight"), *bias = array_file_find(file, "head/bias");
    cr_assert(weight != NULL && bias != NULL);
    cr_expect(weight->type == ARRAY_F32 && ((float *)weight->data)[5] == 5);
    cr_expect(bias->type == ARRAY_F32 && bias->shape[0] == 4 && ((float *)bias->data)[3] == 1);
    const struct array *flags = array_file_find(file, "flags");
    cr_assert(flags != NULL);
    cr_expect(flags->type == ARRAY_I32 && ((int32_t *)flags->data)[0] == 1 && ((int32_t *)flags->data)[1] == 0);
    cr_assert(eq(int, array_file_text(file, "note", &note), 0), "%s", status_message());
    cr_expect(eq(str, (char *)note, "von h5py"));
    cr_expect(eq(int, array_file_integer(file, "epoch", &epoch), 0));
    cr_expect(eq(i64, epoch, 3));
    array_file_destroy(&file);
  }
}
