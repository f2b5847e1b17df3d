/* Folders of images into HDF5 files and from one layout into the other: what is written, and what is said of broken
 * images. */
#define _GNU_SOURCE
#include "import_set.h"
#include "io/h5.h"
#include "io/transform.h"
#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

TestSuite(import_images, .init = io_files_begin, .fini = io_files_end, .timeout = 120);

/* ---- what was written ------------------------------------------------------------------------ */

struct stored {
  struct h5_file *file;
  int64_t rows;
  double *targets;
  uint8_t *split;
};

static void *read_column(struct h5_file *file, const char *name, enum array_type type, int64_t *rows) {
  struct h5_dataset dataset;
  void *values;
  cr_assert(eq(int, (int)h5_dataset_open(file, name, &dataset), 0), "%s", status_message());
  int64_t count = dataset.shape[0] * h5_dataset_row_count(&dataset);
  values = malloc((size_t)count * array_type_bytes(type) + 1);
  cr_assert(eq(int, (int)h5_dataset_read(&dataset, 0, dataset.shape[0], type, values), 0), "%s", status_message());
  if (rows != NULL)
    *rows = dataset.shape[0];
  h5_dataset_close(&dataset);
  return values;
}

static struct stored open_stored(const char *name) {
  struct stored stored;
  cr_assert(eq(int, (int)h5_open(io_file(name), &stored.file), 0), "%s", status_message());
  stored.targets = read_column(stored.file, "targets", ARRAY_F64, &stored.rows);
  stored.split = read_column(stored.file, "split", ARRAY_U8, NULL);
  return stored;
}

static void close_stored(struct stored *stored) {
  free(stored->targets);
  free(stored->split);
  h5_close(&stored->file);
}

FILE_TEST(import_images, encoded_holds_the_files_own_bytes_and_their_labels) {
  enum { COUNT = 40 };
  static const uint8_t splits[] = {0, 0, 1, 2, 0};
  make_set(COUNT);
  struct import_images_options options = options_for("a.h5");
  struct import_images_report *report = import(&options);
  cr_expect(eq(i64, report->labels->rows, COUNT));
  cr_expect(eq(i64, report->jpegs, 32));
  cr_expect(eq(i64, report->pngs, 8));
  cr_expect(eq(i64, report->labels->split_rows[SPLIT_TRAIN], 24));
  cr_expect(eq(i64, report->labels->split_rows[SPLIT_VAL], 8));
  import_images_report_destroy(&report);

  struct stored stored = open_stored("a.h5");
  uint8_t *bytes = read_column(stored.file, "image_bytes", ARRAY_U8, NULL);
  int64_t *offset = read_column(stored.file, "image_offset", ARRAY_I64, NULL);
  int64_t *length = read_column(stored.file, "image_length", ARRAY_I64, NULL);
  int64_t *crc = read_column(stored.file, "image_checksum", ARRAY_I64, NULL);
  struct h5_texts paths;
  cr_assert(eq(int, (int)h5_read_texts(stored.file, "paths", &paths), 0));
  cr_assert(eq(sz, paths.count, COUNT));
  for (int i = 0; i < COUNT; i++) {
    size_t count;
    char *own = io_read(image_path(i), &count);
    cr_expect(eq(i64, length[i], (int64_t)count), "row %d", i);
    cr_expect(count == (size_t)length[i] && memcmp(bytes + offset[i], own, count) == 0, "row %d", i);
    cr_expect(eq(i64, crc[i], (int64_t)crc32(0, (unsigned char *)own, (uInt)count)), "row %d", i);
    cr_expect(eq(dbl, stored.targets[i], label_of(i)), "row %d", i);
    cr_expect(eq(u8, stored.split[i], splits[i % 5]), "row %d", i);
    cr_expect(strcmp(paths.text[i], strstr(image_path(i), "deep/")) == 0, "row %d is %s", i, paths.text[i]);
    free(own);
  }
  memory_free((void **)&paths.text);
  free(crc);
  free(length);
  free(offset);
  free(bytes);
  close_stored(&stored);
}

/* An image file, decoded at full size and resized to 12 x 10. */
static void expect_pixels(const char *path, const uint8_t *pixels) {
  struct transform transform = {.height = 12, .width = 10, .set = TRANSFORM_PLAIN};
  struct transform_worker *worker;
  struct image_decoder *decoder;
  struct image image;
  uint8_t resized[12 * 10 * 3];
  size_t count;
  char *bytes = io_read(path, &count);
  cr_assert(eq(int, (int)image_decoder_create(&decoder), 0));
  cr_assert(eq(int, (int)image_decode(decoder, (uint8_t *)bytes, count, 0, 0, &image), 0), "%s", status_message());
  cr_assert(eq(int, (int)transform_create(&transform, &worker), 0));
  cr_assert(eq(int, (int)transform_resize(worker, &image, resized), 0));
  cr_expect(memcmp(resized, pixels, sizeof resized) == 0, "%s has other pixels", path);
  transform_destroy(&worker);
  image_decoder_destroy(&decoder);
  free(bytes);
}

FILE_TEST(import_images, pixels_are_the_decoded_images_resized) {
  make_set(20);
  struct import_images_options options = options_for("p.h5");
  options.layout = IMPORT_PIXELS;
  import_quietly(&options);
  struct stored stored = open_stored("p.h5");
  int64_t rows;
  uint8_t *pixels = read_column(stored.file, "images", ARRAY_U8, &rows);
  cr_assert(eq(i64, rows, 20));
  for (int i = 0; i < 20; i++)
    expect_pixels(image_path(i), pixels + i * 12 * 10 * 3);
  free(pixels);
  close_stored(&stored);
}

FILE_TEST(import_images, every_kind_of_image_and_a_wrong_ending) {
  static const struct drawing jpegs[] = {{.height = 40, .width = 30, .label = 10},
                                         {.height = 40, .width = 30, .label = 20, .kind = DRAW_GREY},
                                         {.height = 40, .width = 30, .label = 30, .kind = DRAW_CMYK},
                                         {.height = 40, .width = 30, .label = 40, .progressive = true},
                                         {.height = 40, .width = 30, .label = 50, .orientation = 6},
                                         {.height = 1, .width = 1, .label = 60},
                                         {.height = 10, .width = 10000, .label = 70}};
  static const struct drawing pngs[] = {{.height = 40, .width = 30, .label = 15, .bits = 16},
                                        {.height = 40, .width = 30, .label = 25, .kind = DRAW_PALETTE},
                                        {.height = 40, .width = 30, .label = 35, .kind = DRAW_ALPHA},
                                        {.height = 40, .width = 30, .label = 45, .kind = DRAW_GREY}};
  char name[64], table[2000] = "path,y,split\n";
  make_folders();
  for (size_t i = 0; i < 7; i++) { /* JPEGs whose names say PNG, and the other way round */
    snprintf(name, sizeof name, "pictures/j%zu.png", i);
    draw_jpeg(io_file(name), &jpegs[i]);
    sprintf(table + strlen(table), "j%zu.png,%g,train\n", i, jpegs[i].label);
  }
  for (size_t i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "pictures/p%zu.jpg", i);
    draw_png(io_file(name), &pngs[i]);
    sprintf(table + strlen(table), "p%zu.jpg,%g,train\n", i, pngs[i].label);
  }
  io_write_text(io_file("pictures.csv"), table);
  struct import_images_options options = options_for("k.h5");
  options.layout = IMPORT_PIXELS;
  struct import_images_report *report = import(&options);
  cr_expect(eq(i64, report->labels->rows, 11));
  cr_expect(eq(i64, report->jpegs, 7));
  cr_expect(eq(i64, report->pngs, 4));
  cr_expect(eq(int, report->least[0], 1));
  cr_expect(eq(int, report->least[1], 1));
  cr_expect(eq(int, report->most[0], 10));
  cr_expect(eq(int, report->most[1], 10000));
  import_images_report_destroy(&report);
  struct stored stored = open_stored("k.h5");
  uint8_t *pixels = read_column(stored.file, "images", ARRAY_U8, NULL);
  for (int i = 0; i < 5; i++) { /* the disc in the middle says which picture it is, and that it stands upright */
    int red = pixels[i * 360 + 6 * 30 + 15], wanted = draw_disc_brightness(jpegs[i].label);
    cr_expect(abs(red - wanted) <= 12, "JPEG %d: %d instead of %d", i, red, wanted);
  }
  free(pixels);
  close_stored(&stored);
}

FILE_TEST(import_images, threads_do_not_change_a_byte) {
  make_set(60);
  for (int threads = 1; threads <= 4; threads++) {
    for (int layout = 0; layout < 2; layout++) {
      char name[32];
      snprintf(name, sizeof name, "%d-%d.h5", layout, threads);
      struct import_images_options options = options_for(name);
      options.threads = threads;
      options.layout = (enum import_layout)layout;
      import_quietly(&options);
      expect_same_files(name, layout == 0 ? "0-1.h5" : "1-1.h5");
    }
  }
}

FILE_TEST(import_images, a_few_handles_suffice) {
  struct rlimit old, few = {24, 24};
  make_set(100);
  struct import_images_options options = options_for("a.h5");
  cr_assert(getrlimit(RLIMIT_NOFILE, &old) == 0);
  few.rlim_max = old.rlim_max;
  cr_assert(setrlimit(RLIMIT_NOFILE, &few) == 0);
  import_quietly(&options);
  setrlimit(RLIMIT_NOFILE, &old);
}

/* ---- columns --------------------------------------------------------------------------------- */

/* Three images a.jpg, b.jpg, c.jpg. */
static void make_three(void) {
  make_folders();
  for (int i = 0; i < 3; i++) {
    char name[] = "pictures/a.jpg";
    struct drawing drawing = drawing_of(i);
    name[9] = (char)('a' + i);
    draw_jpeg(io_file(name), &drawing);
  }
}

/* The table gives a.jpg 1, b.jpg 2, c.jpg 3 and train, train, test. */
static void expect_understood(const struct import_images_options *options, const char *table) {
  io_write_text(options->source_path, table);
  import_quietly(options);
  struct stored stored = open_stored("t.h5");
  cr_assert(eq(i64, stored.rows, 3));
  for (int i = 0; i < 3; i++) {
    cr_expect(eq(dbl, stored.targets[i], i + 1), "%s", table);
    cr_expect(eq(u8, stored.split[i], i == 2 ? 2 : 0), "%s", table);
  }
  close_stored(&stored);
}

FILE_TEST(import_images, columns_are_found_by_what_they_hold) {
  struct import_images_options options = options_for("t.h5");
  options.force = true;
  make_three();
  expect_understood(&options, "age,path,split\n1,a.jpg,train\n2,b.jpg,train\n3,c.jpg,test\n");
  expect_understood(&options, "split,Name of File,steering\n0,a.jpg,1\n0,b.jpg,2\n2,c.jpg,3\n");
  expect_understood(&options, "x,split,y\n\"a.jpg\",Train,1\n./b.jpg,train,2\n.//c.jpg,TEST,3e0\n");
}

FILE_TEST(import_images, columns_that_are_named) {
  static const char *const y[] = {"y"};
  struct import_images_options options = options_for("t.h5");
  options.force = true;
  options.targets = y;
  options.target_count = 1;
  options.path = "file";
  options.split = "part";
  options.weight = "w";
  make_three();
  const char *table = "id,file,who,w,y,part,split\n7,a.jpg,Ann,0.5,1,train,test\n8,b.jpg,Bob,0,2,train,test\n"
                      "9,c.jpg,Cy,2,3,test,test\n";
  expect_understood(&options, table);
  struct stored stored = open_stored("t.h5");
  double *weights = read_column(stored.file, "weights", ARRAY_F64, NULL);
  cr_expect(weights[0] == 0.5 && weights[1] == 0 && weights[2] == 2);
  free(weights);
  close_stored(&stored);
  struct import_images_report *report = import(&options);
  cr_expect(eq(str, report->unused, "id, who, split"));
  import_images_report_destroy(&report);
}

FILE_TEST(import_images, several_labels) {
  static const char *const names[] = {"v", "u"};
  struct import_images_options options = options_for("t.h5");
  make_three();
  options.targets = names;
  options.target_count = 2;
  io_write_text(options.source_path, "u,v,path,split\n1,10,a.jpg,train\n2,20,b.jpg,train\n3,30,c.jpg,test\n");
  import_quietly(&options);
  struct stored stored = open_stored("t.h5");
  cr_expect(stored.targets[0] == 10 && stored.targets[1] == 1 && stored.targets[4] == 30 && stored.targets[5] == 3);
  close_stored(&stored);
}

FILE_TEST(import_images, splits_are_drawn_with_exact_counts) {
  make_set(50);
  struct import_images_options options = options_for("a.h5");
  options.draw_split = true;
  struct import_images_report *report = import(&options);
  cr_expect(eq(i64, report->labels->split_rows[SPLIT_TRAIN], 30));
  cr_expect(eq(i64, report->labels->split_rows[SPLIT_VAL], 10));
  cr_expect(eq(i64, report->labels->split_rows[SPLIT_TEST], 10));
  import_images_report_destroy(&report);
  options.output_path = io_file("b.h5");
  import_quietly(&options);
  expect_same_files("a.h5", "b.h5");
  options.output_path = io_file("c.h5");
  options.seed = 1;
  import_quietly(&options);
  struct stored a = open_stored("a.h5"), c = open_stored("c.h5");
  cr_expect(memcmp(a.split, c.split, 50) != 0, "the seed does nothing");
  close_stored(&a);
  close_stored(&c);
}

FILE_TEST(import_images, a_table_that_leaves_doubt_is_refused) {
  make_three();
  expect_table_refused("path,split\na.jpg,train\n", ERR_FORMAT, "has no column of numbers left to be the label");
  expect_table_refused("x,y\n1,2\n", ERR_FORMAT, "has no column of paths: all its columns are numbers");
  expect_table_refused(
      "path,who,y\na.jpg,Ann,1\n", ERR_FORMAT,
      "has 2 columns that are not all numbers: \"path\" (\"a.jpg\" in line 2), \"who\" (\"Ann\" in line "
      "2); name the one of the paths with --path-column");
  expect_table_refused("path,u,v\na.jpg,1,2\n", ERR_FORMAT,
                       "has 2 columns of numbers: \"u\", \"v\"; name the label with --target");
  expect_table_refused("path,y\na.jpg,1\nb.jpg,\n", ERR_FORMAT, "label \"y\" has no value in line 3");
  expect_table_refused("path,y\na.jpg,1\nb.jpg,inf\n", ERR_FORMAT, "label \"y\" is \"inf\" in line 3");
  expect_table_refused("path,y\na.jpg,1\n,2\n", ERR_FORMAT, "path \"path\" has no value in line 3");
  expect_table_refused("path,y,split\na.jpg,1,train\nb.jpg,2,later\n", ERR_FORMAT,
                       "split \"split\" is \"later\" in line 3");
  expect_table_refused("path,y\na.jpg,1\nb.jpg\n", ERR_FORMAT, "line 3 of");
  expect_table_refused("path,y\n", ERR_FORMAT, "has a header line and no rows");
  expect_table_refused("path;y\na.jpg;1\n", ERR_FORMAT, "seems to separate its columns by semicolons");
  expect_table_refused("path,y,split\na.jpg,1,train\nb.jpg,1,train\nc.jpg,2,test\n", ERR_FORMAT,
                       "target \"y\" is 1 in all 2 training rows");
  expect_table_refused("path,y,split\na.jpg,1,val\nb.jpg,2,test\n", ERR_FORMAT, "none of the 2 rows of");
}

FILE_TEST(import_images, a_named_column_must_be_there) {
  struct import_images_options options = options_for("t.h5");
  make_three();
  io_write_text(options.source_path, "path,age\na.jpg,1\nb.jpg,2\n");
  options.targets = (const char *const[]){"agee"};
  options.target_count = 1;
  expect_refused(&options, ERR_ARGUMENT, "has no column \"agee\"; did you mean \"age\"?");
  options.targets = (const char *const[]){"age"};
  options.weight = "age";
  expect_refused(&options, ERR_ARGUMENT, "named twice, as label and as weight");
  options.weight = NULL;
  options.targets = (const char *const[]){"path"};
  options.path = "age";
  expect_refused(&options, ERR_FORMAT, "label \"path\" is \"a.jpg\" in line 2");
}

FILE_TEST(import_images, a_path_stands_in_one_row) {
  make_three();
  expect_table_refused("path,y\na.jpg,1\nb.jpg,2\na.jpg,3\n", ERR_FORMAT, "lines 2 and 4 of");
  expect_table_refused("path,y\nb.jpg,1\n././/a.jpg,2\na.jpg,3\nb.jpg,4\n", ERR_FORMAT,
                       "both name a.jpg; an image can have one label");
}

FILE_TEST(import_images, the_table_is_read_from_where_it_is_said) {
  struct import_images_options options = options_for("t.h5");
  make_three();
  options.images_folder = io_file("nowhere");
  io_write_text(options.source_path, "path,y\na.jpg,1\n");
  expect_refused(&options, ERR_FILE, "nowhere: No such file or directory; give --images the folder");
  options.images_folder = io_file("pictures.csv");
  expect_refused(&options, ERR_FILE, "is not a folder");
  options = options_for("none/t.h5");
  expect_refused(&options, ERR_FILE, "does not exist; create it first");
  options = options_for("t.h5");
  options.images_folder = io_file("pictures/deep");
  char table[6000];
  snprintf(table, sizeof table, "path,y\n%s,1\n../b.jpg,2\n../c.jpg,3\n", io_file("pictures/a.jpg"));
  io_write_text(options.source_path, table);
  import_quietly(&options); /* absolute, and above the folder */
}

/* ---- broken images --------------------------------------------------------------------------- */

/* Of 12 images: 2 cut short, 4 empty, 5 no image, 7 missing, 8 a folder, 10 a header alone. */
static void make_broken_set(void) {
  size_t count;
  make_set(12);
  char *bytes = io_read(image_path(2), &count);
  io_write(image_path(2), bytes, count / 2);
  free(bytes);
  io_write(image_path(4), "", 0);
  io_write_text(image_path(5), "this is no image at all");
  unlink(image_path(7));
  unlink(image_path(8));
  mkdir(image_path(8), 0777);
  io_write(image_path(10), "\xFF\xD8\xFF", 3);
}

FILE_TEST(import_images, broken_images_stop_the_import) {
  struct import_images_options options = options_for("t.h5");
  make_broken_set();
  expect_refused(&options, ERR_FORMAT, "6 of the 12 images of");
  cr_expect(strstr(status_message(), "the first, line 4, deep/002.jpg: ") != NULL, "%s", status_message());
}

FILE_TEST(import_images, broken_images_are_left_out_and_listed) {
  static const int sound[] = {0, 1, 3, 6, 9, 11}, broken[] = {2, 4, 5, 7, 8, 10};
  struct import_images_options options = options_for("t.h5");
  options.on_error = IMPORT_SKIP;
  make_broken_set();
  struct import_images_report *report = import(&options);
  cr_expect(eq(i64, report->labels->rows, 6));
  cr_expect(eq(i64, report->broken_count, 6));
  for (int i = 0; i < report->listed; i++)
    cr_expect(i < 6 && report->broken[i].row == broken[i] + 2, "line %lld: %s", (long long)report->broken[i].row,
              report->broken[i].reason);
  cr_expect(eq(str, report->broken[1].reason, "the file is empty (0 bytes)"));
  cr_expect(eq(str, report->broken[3].reason, "there is no such file"));
  cr_expect(eq(str, report->broken[4].reason, "it is a folder"));
  char *text = NULL;
  size_t bytes;
  FILE *stream = open_memstream(&text, &bytes);
  import_images_print(report, stream);
  fclose(stream);
  cr_expect(strstr(text, "6 images left out:\n    line 4, deep/002.jpg: ") != NULL, "%s", text);
  cr_expect(strstr(text, "    line 9, deep/007.jpg: there is no such file\n") != NULL, "%s", text);
  free(text);
  import_images_report_destroy(&report);
  struct stored stored = open_stored("t.h5");
  cr_assert(eq(i64, stored.rows, 6));
  for (int i = 0; i < 6; i++)
    cr_expect(eq(dbl, stored.targets[i], label_of(sound[i])));
  close_stored(&stored);
}

FILE_TEST(import_images, a_long_list_is_cut) {
  struct import_images_options options = options_for("t.h5");
  options.on_error = IMPORT_SKIP;
  make_set(60);
  for (int i = 10; i < 60; i++)
    unlink(image_path(i));
  struct import_images_report *report = import(&options);
  cr_expect(eq(i64, report->broken_count, 50));
  cr_expect(eq(int, report->listed, IMPORT_MOST_SHOWN));
  cr_expect(eq(i64, report->broken[19].row, 31));
  import_images_report_destroy(&report);
}

FILE_TEST(import_images, no_usable_image_at_all) {
  struct import_images_options options = options_for("t.h5");
  options.on_error = IMPORT_SKIP;
  make_set(3);
  options.images_folder = io_file("pictures/deep");
  expect_refused(&options, ERR_FORMAT, "none of the 3 images of");
  cr_expect(strstr(status_message(), "give --images the folder that the paths start from, not ") != NULL, "%s",
            status_message());
}

FILE_TEST(import_images, what_is_left_must_still_train) {
  struct import_images_options options = options_for("t.h5");
  options.on_error = IMPORT_SKIP;
  make_set(5);
  for (int i = 0; i < 5; i += i == 1 ? 3 : 1) /* the training rows */
    unlink(image_path(i));
  expect_refused(&options, ERR_FORMAT, "none of the 2 rows of");
}

FILE_TEST(import_images, images_without_a_label_are_counted) {
  struct import_images_options options = options_for("t.h5");
  static const char *const more[] = {"pictures/z.jpg", "pictures/deep/y.PNG", "pictures/b.jpeg", "pictures/a.JPG"};
  make_set(6);
  for (int i = 0; i < 4; i++)
    io_write_text(io_file(more[i]), "x");
  io_write_text(io_file("pictures/notes.txt"), "x");
  struct import_images_report *report = import(&options);
  cr_expect(eq(i64, report->unlabelled_count, 4));
  cr_assert(eq(int, report->named, 3));
  cr_expect(eq(str, report->unlabelled[0], "a.JPG"));
  cr_expect(eq(str, report->unlabelled[1], "b.jpeg"));
  cr_expect(eq(str, report->unlabelled[2], "deep/y.PNG"));
  import_images_report_destroy(&report);
}

FILE_TEST(import_images, an_existing_file_is_kept_without_force) {
  struct import_images_options options = options_for("t.h5");
  struct import_images_report *report;
  make_set(5);
  io_write_text(options.output_path, "mine");
  cr_expect(eq(int, (int)import_images(&options, &report), ERR_ARGUMENT));
  cr_expect(strstr(status_message(), "exists already; use --force to replace it") != NULL, "%s", status_message());
  char *kept = io_read(options.output_path, NULL);
  cr_expect(eq(str, kept, "mine"));
  free(kept);
  options.force = true;
  import_quietly(&options);
}

/* ---- from one layout into the other ---------------------------------------------------------- */

FILE_TEST(import_images, encoded_to_pixels_equals_pixels_from_the_folder) {
  make_set(30);
  struct import_images_options options = options_for("e.h5");
  import_quietly(&options);
  options = options_for("p.h5");
  options.layout = IMPORT_PIXELS;
  import_quietly(&options);
  options = converting("e.h5", "c.h5", IMPORT_PIXELS);
  import_quietly(&options);
  expect_same_files("c.h5", "p.h5");
  options = converting("e.h5", "f.h5", IMPORT_ENCODED);
  import_quietly(&options);
  expect_same_files("e.h5", "f.h5");
}

FILE_TEST(import_images, pixels_to_encoded_are_jpegs_that_look_the_same) {
  make_set(30);
  struct import_images_options options = options_for("p.h5");
  options.layout = IMPORT_PIXELS;
  options.height = 32;
  options.width = 40;
  import_quietly(&options);
  options = converting("p.h5", "e.h5", IMPORT_ENCODED);
  struct import_images_report *report = import(&options);
  cr_expect(eq(int, report->quality, 95));
  import_images_report_destroy(&report);
  options = converting("e.h5", "q.h5", IMPORT_PIXELS);
  options.height = 32;
  options.width = 40;
  import_quietly(&options);
  struct stored p = open_stored("p.h5"), q = open_stored("q.h5");
  uint8_t *before = read_column(p.file, "images", ARRAY_U8, NULL),
          *after = read_column(q.file, "images", ARRAY_U8, NULL);
  double sum = 0;
  for (int i = 0; i < 30 * 32 * 40 * 3; i++)
    sum += abs(before[i] - after[i]);
  cr_expect(sum / (30 * 32 * 40 * 3) < 3, "mean difference %g", sum / (30 * 32 * 40 * 3));
  cr_expect(memcmp(p.targets, q.targets, 30 * sizeof(double)) == 0 && memcmp(p.split, q.split, 30) == 0);
  free(before);
  free(after);
  close_stored(&p);
  close_stored(&q);
}

FILE_TEST(import_images, a_damaged_record_is_found_by_its_checksum) {
  make_set(20);
  struct import_images_options options = options_for("e.h5");
  import_quietly(&options);
  struct stored stored = open_stored("e.h5");
  struct h5_dataset images;
  cr_assert(eq(int, (int)h5_dataset_open(stored.file, "image_bytes", &images), 0));
  int64_t place = h5_dataset_offset(&images), *offset = read_column(stored.file, "image_offset", ARRAY_I64, NULL);
  h5_dataset_close(&images);
  cr_assert(place > 0);
  int file = open(io_file("e.h5"), O_RDWR);
  uint8_t byte;
  cr_assert(pread(file, &byte, 1, place + offset[7] + 100) == 1);
  byte ^= 0x10;
  cr_assert(pwrite(file, &byte, 1, place + offset[7] + 100) == 1);
  close(file);
  free(offset);
  close_stored(&stored);
  options = converting("e.h5", "p.h5", IMPORT_PIXELS);
  expect_refused(&options, ERR_FORMAT, "the first, row 7, deep/007.jpg: its bytes do not agree with their checksum");
  options.on_error = IMPORT_SKIP;
  struct import_images_report *report = import(&options);
  cr_expect(eq(i64, report->labels->rows, 19));
  import_images_report_destroy(&report);
  stored = open_stored("p.h5");
  cr_expect(eq(dbl, stored.targets[7], label_of(8)));
  close_stored(&stored);
}

/* An HDF5 file of images with one thing wrong. */
static void write_forged(int64_t second_offset, int64_t second_length, int64_t labels, double label) {
  struct durable durable;
  struct h5_file *file;
  struct h5_dataset dataset;
  int64_t rows = 2, bytes = 1000, offsets[] = {0, second_offset}, lengths[] = {500, second_length};
  double targets[] = {1, label, 3};
  uint8_t content[1000] = {0}, split[] = {0, 0, 0};
  cr_assert(eq(int, (int)durable_begin(io_file("forged.h5"), &durable), 0));
  cr_assert(eq(int, (int)h5_create(&durable, &file), 0));
#define COLUMN(name, type, count, values)                                             \
  cr_assert(h5_dataset_create(file, name, type, 1, &(count), &dataset) == STATUS_OK); \
  cr_assert(h5_dataset_write(&dataset, 0, count, type, values) == STATUS_OK);         \
  h5_dataset_close(&dataset)
  COLUMN("image_bytes", ARRAY_U8, bytes, content);
  COLUMN("image_offset", ARRAY_I64, rows, offsets);
  COLUMN("image_length", ARRAY_I64, rows, lengths);
  COLUMN("targets", ARRAY_F64, labels, targets);
  COLUMN("split", ARRAY_U8, labels, split);
  cr_assert(h5_close(&file) == STATUS_OK);
  cr_assert(durable_commit(&durable) == STATUS_OK);
}

FILE_TEST(import_images, forged_files_are_refused) {
  struct import_images_options options = converting("forged.h5", "t.h5", IMPORT_PIXELS);
  write_forged(500, 501, 2, 2);
  expect_refused(&options, ERR_FORMAT, "row 1 of ");
  write_forged(INT64_MAX - 10, 100, 2, 2);
  expect_refused(&options, ERR_FORMAT, "row 1 of ");
  write_forged(-1, 100, 2, 2);
  expect_refused(&options, ERR_FORMAT, "claims 100 bytes at -1 of \"image_bytes\", which has 1000");
  write_forged(500, 0, 2, 2);
  expect_refused(&options, ERR_FORMAT, "row 1 of ");
  write_forged(500, 500, 3, 2);
  expect_refused(&options, ERR_FORMAT, "has 2 images and 3 labels");
  write_forged(500, 500, 2, NAN);
  expect_refused(&options, ERR_FORMAT, "every target must be finite");
  write_forged(500, 500, 2, 2);
  expect_refused(&options, ERR_FORMAT, "none of the 2 images of");
  io_write_text(io_file("forged.h5"), "not HDF5 at all");
  expect_refused(&options, ERR_FORMAT, "is not an HDF5 file");
}
