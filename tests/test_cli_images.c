/* Images from a folder to a table of results, as a user goes: import, train on several ranks with and without ConR,
 * evaluate by label bins, predict; what must be equal, and what is refused. */
#include "draw_images.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(cli_images, .init = cli_begin, .fini = cli_end, .timeout = 300);

/* Many small labels, few large ones. */
static int label_of(int image, int images) {
  double share = (image * 37 % images + 0.5) / images;
  return (int)(90 * share * share * share);
}

/* A folder of drawn images and its table, imported as the HDF5 file `name`; returns its path. */
static const char *image_data(const char *name, int images, const char *options) {
  static const char *const splits[] = {"train", "train", "train", "val", "test"};
  const char *folder = io_file("pictures"), *csv = io_file("labels.csv"), *data = io_file(name);
  mkdir(folder, 0777);
  FILE *file = fopen(csv, "w");
  fprintf(file, "path,split,age\n");
  for (int i = 0; i < images; i++) {
    struct drawing drawing = {.height = 40 + i % 9, .width = 48 - i % 5, .label = label_of(i, images)};
    drawing.progressive = i % 3 == 0;
    drawing.kind = i % 7 == 0 ? DRAW_GREY : DRAW_COLOUR;
    if (i % 4 == 3)
      draw_png(cli_text("%s/%d.png", folder, i), &drawing);
    else
      draw_jpeg(cli_text("%s/%d.jpg", folder, i), &drawing);
    fprintf(file, "%d.%s,%s,%d\n", i, i % 4 == 3 ? "png" : "jpg", splits[i % 5], label_of(i, images));
  }
  fclose(file);
  cli_accepted(0, cli_text("import %s --images %s -o %s --force --quiet %s", csv, folder, data, options));
  return data;
}

static double figure(const char *json, const char *group, const char *name) {
  json_error_t error;
  json_t *table = json_loads(json, 0, &error);
  cr_assert(table != NULL, "%s in %s", error.text, json);
  double value = json_number_value(json_object_get(json_object_get(table, group), name));
  json_decref(table);
  return value;
}

/* Mean absolute error on the training split, whose labels' own spread is about 20. */
static double trained_error(const char *run, const char *data) {
  char *table = cli_output(2, cli_text("eval %s %s --part train --bin-width 10 --many 20 --few 5 --json", run, data));
  double all = figure(table, "all", "mae"), few = figure(table, "few", "mae");
  cr_assert(isfinite(few) && few > 0, "%s", table);
  free(table);
  return all;
}

/* The label is drawn into the picture: a network that works finds it within a few passes. */
Test(cli_images, import_train_on_two_ranks_and_evaluate_with_and_without_conr) {
  const char *data = image_data("faces.h5", 120, "");
  const char *common = "--size 32 --batch 24 --flip 0.5 --seed 1 --quiet --lr 0.003";
  for (int conr = 0; conr < 2; conr++) {
    const char *run = io_file(conr ? "conr" : "plain");
    cli_accepted(2, cli_text("train %s -o %s %s --model cnn --epochs 30 %s", data, run, common, conr ? "--conr" : ""));
    double error = trained_error(run, data);
    cr_assert(lt(dbl, error, 8), "conr %d: mean absolute error %g", conr, error);
    const char *csv = io_file("predictions.csv");
    cli_accepted(3, cli_text("predict %s %s -o %s --force --quiet", run, data, csv));
    cr_assert(eq(int, cli_lines(csv), 1 + 120 / 5));
  }
}

Test(cli_images, resnet18_trains_with_and_without_conr_on_two_ranks) {
  const char *data = image_data("faces.h5", 60, "");
  for (int conr = 0; conr < 2; conr++) {
    const char *run = io_file(conr ? "conr" : "plain");
    cli_accepted(2, cli_text("train %s -o %s --model resnet18 --size 32 --batch 12 --epochs 2 --quiet %s", data, run,
                             conr ? "--conr" : ""));
    trained_error(run, data);
  }
}

Test(cli_images, both_layouts_and_any_cache_give_the_same_run) {
  const char *encoded = image_data("encoded.h5", 40, ""), *small = io_file("pixels.h5");
  const char *options = "--model cnn --size 32 --batch 8 --epochs 2 --quiet --conr --full-decode";
  const char *a = io_file("a"), *b = io_file("b"), *c = io_file("c");
  cli_accepted(2, cli_text("import %s --layout pixels --size 32 -o %s --quiet", encoded, small));
  cli_accepted(2, cli_text("train %s -o %s %s --cache on --workers 3", encoded, a, options));
  cli_accepted(2, cli_text("train %s -o %s %s --cache off", encoded, b, options));
  cli_accepted(2, cli_text("train %s -o %s %s", small, c, options));
  cli_same_runs(a, b);
  cli_same_arrays(cli_last(a), cli_last(c), 0);
}

Test(cli_images, ranks_that_share_batch_norm_train_the_same_model) {
  const char *data = image_data("faces.h5", 35, "");
  const char *options =
      "--model cnn --size 24 --batch 10 --epochs 2 --conr --precision f64 --quiet --optimiser sgd --lr 1e-4";
  const char *alone = io_file("alone");
  cli_accepted(1, cli_text("train %s -o %s %s", data, alone, options));
  for (int ranks = 2; ranks <= 4; ranks++) {
    const char *run = io_file(cli_text("ranks%d", ranks));
    cli_accepted(ranks, cli_text("train %s -o %s %s", data, run, options));
    cli_same_arrays(cli_last(run), cli_last(alone), 1e-9);
  }
}

Test(cli_images, a_stopped_run_goes_on_to_the_same_bits) {
  const char *data = image_data("faces.h5", 40, "");
  const char *options =
      "--model cnn --size 32 --batch 8 --epochs 6 --conr --views 3 --micro-batch 2 --log-steps 1 --quiet";
  const char *whole = io_file("whole"), *stopped = io_file("stopped");
  cli_accepted(2, cli_text("train %s -o %s %s", data, whole, options));
  cli_killed_and_resumed(2, 7, data, stopped, options);
  cli_same_runs(whole, stopped);
}

Test(cli_images, every_way_of_seeing_a_sample_trains) {
  static const char *const ways[] = {
      "--views 3 --conr",           "--micro-batch 3 --conr",   "--micro-batch 1",      "--augment strong --conr",
      "--augment none --views 2",   "--batch-norm rank --conr", "--normalise imagenet", "--pad 3 --flip 0",
      "--size 20x36 --full-decode", "--dropout 0.3 --conr"};
  const char *data = image_data("faces.h5", 30, "");
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    const char *size = strstr(ways[i], "--size") == NULL ? "--size 24" : "";
    const char *run = io_file(cli_text("run%zu", i));
    cli_accepted(3,
                 cli_text("train %s -o %s --model cnn --batch 7 --epochs 1 --quiet %s %s", data, run, size, ways[i]));
    free(cli_output(2, cli_text("eval %s %s", run, data)));
  }
}

Test(cli_images, config_used_reproduces_the_run) {
  static const char *const ways[] = {"--conr", "--augment strong", "--augment none"};
  const char *data = image_data("faces.h5", 30, "");
  for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
    const char *first = io_file(cli_text("first%zu", i)), *second = io_file(cli_text("second%zu", i));
    cli_accepted(
        2, cli_text("train %s -o %s --model cnn --size 24 --batch 7 --epochs 1 --quiet %s", data, first, ways[i]));
    cli_accepted(2, cli_text("train %s --config %s/config.used -o %s --quiet", data, first, second));
    cli_same_runs(first, second);
  }
}

Test(cli_images, options_of_tables_are_refused_and_the_reverse) {
  const char *images = image_data("faces.h5", 20, ""), *table = cli_data("t.h5", 60), *run = io_file("run");
  cli_refused(2, 2, "--hidden has no effect without a table as data; drop one or add the other",
              cli_text("train %s -o %s --hidden 8", images, run));
  cli_refused(2, 2, "--noise has no effect without a table as data; drop one or add the other",
              cli_text("train %s -o %s --noise 0.1", images, run));
  cli_refused(0, 2, "--flip has no effect without images as data; drop one or add the other",
              cli_text("train %s -o %s --flip 0.1", table, run));
  cli_refused(0, 2, "--size wants 224 or 160x320 (height x width), not \"big\"",
              cli_text("train %s -o %s --size big", images, run));
  cli_refused(0, 2, "--size 0 is out of range; give 1 to 65536", cli_text("train %s -o %s --size 0", images, run));
  cli_refused(3, 2,
              "the cache keeps resized images, but the strong augmentation cuts windows out of whole ones; use "
              "--cache auto or off",
              cli_text("train %s -o %s --augment strong --cache on", images, run));
  cli_refused(0, 2, "--flip has no effect without images as data; drop one or add the other",
              cli_text("train %s -o %s --flip 0", table, run));
  cli_refused(0, 2, "--momentum has no effect without --optimiser sgd; drop one or add the other",
              cli_text("train %s -o %s --momentum 0", table, run));
  cli_refused(0, 2, "--pad has no effect without --augment crop; drop one or add the other",
              cli_text("train %s -o %s --augment strong --pad 3", images, run));
  cli_refused(3, 2,
              cli_text("--model mlp cannot learn from %s, which holds images; use cnn, resnet18 or resnet50", images),
              cli_text("train %s -o %s --model mlp", images, run));
  cli_refused(3, 2, cli_text("--model cnn cannot learn from %s, which holds a table; use mlp", table),
              cli_text("train %s -o %s --model cnn", table, run));
}

Test(cli_images, models_and_data_of_different_kinds_do_not_meet) {
  const char *images = image_data("faces.h5", 20, ""), *table = cli_data("t.h5", 60), *run = io_file("run");
  cli_accepted(0, cli_text("train %s -o %s --model cnn --size 16 --epochs 1 --quiet", images, run));
  cli_refused(2, 2, cli_text("the model was trained on images, but %s holds a table", table),
              cli_text("eval %s %s", run, table));
}
