/* A small folder of images with its table, and what importing it must leave. */
#include "import_set.h"

#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const char *image_path(int i) {
  static char name[64];
  snprintf(name, sizeof name, "pictures/deep/%03d.%s", i, i % 5 == 4 ? "png" : "jpg");
  return io_file(name);
}

double label_of(int i) {
  return (double)(i * 37 % 101);
}

struct drawing drawing_of(int i) {
  return (struct drawing){.height = 16 + i % 7, .width = 20 + i % 11, .label = label_of(i)};
}

void make_folders(void) {
  mkdir(io_file("pictures"), 0777);
  mkdir(io_file("pictures/deep"), 0777);
}

/* `count` small images in pictures/deep and pictures.csv that names them, 3 of 5 for training. */
void make_set(int count) {
  static const char *const splits[] = {"train", "train", "val", "test", "train"};
  make_folders();
  FILE *table = fopen(io_file("pictures.csv"), "w");
  cr_assert(table != NULL);
  fputs("age,path,split\n", table);
  for (int i = 0; i < count; i++) {
    struct drawing drawing = drawing_of(i);
    const char *path = image_path(i);
    if (i % 5 == 4)
      draw_png(path, &drawing);
    else
      draw_jpeg(path, &drawing);
    fprintf(table, "%g,deep/%s,%s\n", label_of(i), strrchr(path, '/') + 1, splits[i % 5]);
  }
  cr_assert(fclose(table) == 0);
}

struct import_images_options options_for(const char *output) {
  return (struct import_images_options){.source_path = io_file("pictures.csv"),
                                        .images_folder = io_file("pictures"),
                                        .output_path = io_file(output),
                                        .fractions = {0.6, 0.2, 0.2},
                                        .height = 12,
                                        .width = 10,
                                        .threads = 2};
}

struct import_images_options converting(const char *from, const char *output, enum import_layout layout) {
  struct import_images_options options = options_for(output);
  options.source_path = io_file(from);
  options.images_folder = NULL;
  options.layout = layout;
  return options;
}

struct import_images_report *import(const struct import_images_options *options) {
  struct import_images_report *report = NULL;
  cr_assert(eq(int, (int)import_images(options, &report), 0), "%s", status_message());
  cr_assert(report != NULL);
  return report;
}

void import_quietly(const struct import_images_options *options) {
  struct import_images_report *report = import(options);
  cr_assert(not(report->stopped));
  import_images_report_destroy(&report);
}

bool beside(const struct import_images_options *options, const char *ending) {
  char path[4096];
  snprintf(path, sizeof path, "%s%s", options->output_path, ending);
  return io_exists(path);
}

/* It fails with a sentence that holds `part`, and leaves nothing behind. */
void expect_refused(const struct import_images_options *options, enum status wanted, const char *part) {
  struct import_images_report *report = NULL;
  enum status status = import_images(options, &report);
  cr_expect(eq(int, (int)status, (int)wanted), "%s", status_message());
  cr_expect(strstr(status_message(), part) != NULL, "\"%s\" is not in \"%s\"", part, status_message());
  cr_expect(report == NULL);
  cr_expect(not(beside(options, "")), "a file was left behind");
  cr_expect(not(beside(options, ".tmp")), "a file aside was left behind");
  cr_expect(not(beside(options, ".journal")), "a journal was left behind");
}

void expect_table_refused(const char *table, enum status wanted, const char *part) {
  struct import_images_options options = options_for("t.h5");
  io_write_text(options.source_path, table);
  expect_refused(&options, wanted, part);
}

void expect_same_files(const char *a, const char *b) {
  size_t bytes_a, bytes_b;
  char *left = io_read(io_file(a), &bytes_a), *right = io_read(io_file(b), &bytes_b);
  cr_expect(eq(sz, bytes_a, bytes_b), "%s and %s differ in size", a, b);
  cr_expect(bytes_a == bytes_b && memcmp(left, right, bytes_a) == 0, "%s and %s differ", a, b);
  free(left);
  free(right);
}
