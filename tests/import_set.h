/* A small folder of images with its table, and what importing it must leave.
 *
 *     make_set(20);                                       pictures/deep/000.jpg ..., pictures.csv
 *     struct import_images_options options = options_for("t.h5");
 *     import_quietly(&options);
 *     expect_same_files("t.h5", "whole.h5");
 *
 * All in the test's folder (io_files.h); every function asserts. */
#ifndef CONR_TESTS_IMPORT_SET_H
#define CONR_TESTS_IMPORT_SET_H

#include "draw_images.h"
#include "io/import_images.h"

/* Image i of the set: its path (valid until the next call), label and drawing. */
const char *image_path(int i);
double label_of(int i);
struct drawing drawing_of(int i);

void make_folders(void);

/* `count` small images in pictures/deep and pictures.csv that names them, 3 of 5 for training. */
void make_set(int count);

/* Options that import the set to `output`, and that convert one file to another. */
struct import_images_options options_for(const char *output);
struct import_images_options converting(const char *from, const char *output, enum import_layout layout);

/* Import; the second wants it not to be stopped. */
struct import_images_report *import(const struct import_images_options *options);
void import_quietly(const struct import_images_options *options);

/* Is there a file of the output's name with this ending? */
bool beside(const struct import_images_options *options, const char *ending);

/* It fails with a sentence that holds `part`, and leaves nothing behind. */
void expect_refused(const struct import_images_options *options, enum status wanted, const char *part);
void expect_table_refused(const char *table, enum status wanted, const char *part);

void expect_same_files(const char *a, const char *b);

#endif
