/* Training with smoothed features, as a user asks for it: what must be equal, and what is refused. */
#include "abalone.h"
#include "draw_images.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(cli_fds, .init = cli_begin, .fini = cli_end, .timeout = 600);

/* ---- N ranks, resuming, micro-batches ------------------------------------------------------- */

static void agrees(const char *data, const char *const *words) {
  for (int ranks = 1; ranks <= 4; ranks++) {
    const char *folder = io_file(cli_text("on%d", ranks));
    const char *arguments[32] = {data, folder};
    struct run_result run;
    mkdir(folder, 0777);
    for (int i = 0; words[i] != NULL; i++)
      arguments[2 + i] = words[i];
    int status = run_ranks_within(200, ranks, "rank_fds", arguments, &run);
    cr_assert(eq(int, status, 0), "%d ranks:\n%s", ranks, run.output);
    run_result_free(&run);
  }
}

/* In batches of 40 the edge buckets 5 and 15 of rings now and then do not occur. */
Test(cli_fds, tables_with_labels_outside_the_buckets) {
  static const char *const words[] = {"--batch", "40",  "--hidden",      "12,8", "--dropout", "0.2",
                                      "--noise", "0.1", "--fds-size",    "3",    "--lr",      "0.01",
                                      "--clip",  "5",   "--fds-buckets", "5,15", NULL};
  agrees(abalone_table(io_file("")), words);
}

/* ConR sees other features than the head, in the same pass. */
Test(cli_fds, two_views_with_conr_and_snapshots) {
  static const char *const words[] = {
      "--batch", "300",        "--conr", "--hidden",           "12,8", "--fds-storage", "snapshot", "--fds-momentum",
      "none",    "--fds-task", "sts",    "--fds-bucket-width", "1",    "--fds-buckets", "0,20",     NULL};
  agrees(abalone_table(io_file("")), words);
}

/* Also what else a run keeps in the middle of an epoch: SRL's sums, and the noise scale. */
Test(cli_fds, three_views_with_conr) {
  static const char *const words[] = {"--batch",  "300",   "--conr",        "--views", "3",
                                      "--hidden", "12,8",  "--fds-buckets", "5,15",    "--fds-collect",
                                      "eval",     "--srl", "--loss",        "bmc",     NULL};
  agrees(abalone_table(io_file("")), words);
}

/* Statistics of means and of variances.  ConR sees means, SRL and RankSim smoothed ones. */
Test(cli_fds, tables_whose_features_are_distributions) {
  static const char *const words[] = {"--probabilistic",
                                      "--batch",
                                      "130",
                                      "--hidden",
                                      "12,8",
                                      "--dropout",
                                      "0.2",
                                      "--conr",
                                      "--srl",
                                      "--ranksim",
                                      "--fds-buckets",
                                      "5,15",
                                      "--noise",
                                      "0.1",
                                      "--lr",
                                      "0.01",
                                      "--fds-collect",
                                      "train",
                                      "--ranksim-gamma",
                                      "1",
                                      NULL};
  agrees(abalone_table(io_file("")), words);
}

static const char *image_data(void) {
  static const char *const splits[] = {"train", "train", "train", "val"};
  const char *csv = io_file("labels.csv"), *data = io_file("images.h5");
  FILE *file = fopen(csv, "w");
  fprintf(file, "path,split,age\n");
  for (int i = 0; i < 26; i++) {
    struct drawing drawing = {.height = 20, .width = 20, .label = 90.0 * (i * 37 % 26) / 26};
    draw_jpeg(io_file(cli_text("%d.jpg", i)), &drawing);
    fprintf(file, "%d.jpg,%s,%g\n", i, splits[i % 4], drawing.label);
  }
  fclose(file);
  cli_accepted(0, cli_text("import %s --images %s -o %s --quiet", csv, io_file(""), data));
  return data;
}

#define IMAGES \
  "--batch", "6", "--model", "cnn", "--size", "16", "--lr", "0.01", "--fds-bucket-width", "10", "--fds-size", "3"

/* Batch norm, whose running statistics the collection changes too; more ranks than samples in the last batch. */
Test(cli_fds, images_with_batch_norm) {
  static const char *const words[] = {IMAGES, NULL};
  agrees(image_data(), words);
}

Test(cli_fds, images_whose_features_are_distributions) {
  static const char *const words[] = {IMAGES, "--probabilistic", NULL};
  agrees(image_data(), words);
}

/* The options that were left open are written as they were resolved, and mean the same when they are read. */
Test(cli_fds, config_used_names_buckets_and_clips_and_reproduces_the_run) {
  const char *data = cli_data("t.h5", 60), *run = io_file("run"), *again = io_file("again");
  cli_accepted(2, cli_text("train %s -o %s --fds --fds-size 3 --fds-bucket-width 0.5 --epochs 3 --quiet", data, run));
  char *used = io_read(cli_text("%s/config.used", run), NULL);
  cr_assert(strstr(used, "\nfds-storage = alias\n") != NULL, "%s", used);
  cr_assert(strstr(used, "\nfds-clip = 0.1,10\n") != NULL, "%s", used);
  cr_assert(strstr(used, "\nfds-buckets = ") != NULL, "%s", used);
  free(used);
  cli_accepted(2, cli_text("train %s -o %s --config %s/config.used --quiet", data, again, run));
  cli_same_runs(run, again);
  cli_accepted(2, cli_text("eval %s %s", run, data));
}

Test(cli_fds, the_log_says_when_features_are_collected) {
  struct run_result run = cli_run(0, cli_text("train %s -o %s --fds --fds-size 3 --fds-bucket-width 0.5 --epochs 2",
                                              cli_data("t.h5", 60), io_file("run")));
  cr_assert(strstr(run.output, "features are smoothed from epoch 2 on") != NULL, "%s", run.output);
  run_result_free(&run);
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void refused(const char *options, const char *sentence) {
  cli_refused(3, 2, sentence, cli_text("train %s -o %s %s", cli_data("t.h5", 60), io_file("run"), options));
}

Test(cli_fds, options_without_effect) {
  refused("--fds-size 3", "--fds-size has no effect without --fds; drop one or add the other");
  refused("--fds-task depth", "--fds-task has no effect without --fds; drop one or add the other");
  refused("--fds --fds-kernel triang --fds-sigma 1",
          "--fds-sigma has no effect without --fds-kernel gaussian or laplace; drop one or add the other");
}

Test(cli_fds, options_that_cannot_be) {
  refused("--fds --probabilistic --fds-task sts",
          "--fds-task sts has no rules for features that are distributions, as those of --probabilistic are; give "
          "--fds-task ages or drop --probabilistic");
  refused("--fds --hidden ''", "--fds needs features to smooth: give --hidden at least one layer");
  refused("--fds --fds-start-update 3",
          "--fds-start-smooth 1 lies before --fds-start-update 3, when there is nothing to smooth by; give the same "
          "epoch or a later one");
  refused("--fds --fds-buckets 3", "--fds-buckets wants the first and the last one, such as 3,99, not \"3\"");
  refused("--fds --fds-buckets 9,3", "--fds-buckets wants the first and the last one, such as 3,99, not \"9,3\"");
  refused("--fds --fds-buckets 0,3", "a kernel of 5 bins is wider than the 4 bins of the labels; use a smaller one, or "
                                     "narrower bins");
  refused("--fds --fds-clip 2", "--fds-clip wants two numbers such as 0.1,10, not \"2\"");
  refused("--fds --fds-clip 3,2",
          "ratios of variances cannot be clipped to 3 .. 2; give two numbers above 0, the lower first");
  refused("--fds --fds-momentum 1", "--fds-momentum wants a number from 0 to below 1, or none, not \"1\"");
  refused("--fds --fds-size 4",
          "a kernel of 4 bins cannot be had: its size must be odd, so that it has a middle, and at "
          "most 1023");
}

Test(cli_fds, labels_of_too_wide_a_range_or_of_several_components) {
  const char *csv = io_file("wide.csv"), *wide = io_file("wide.h5"), *two = io_file("two.h5");
  FILE *file = fopen(csv, "w");
  fprintf(file, "x,y,z\n");
  for (int i = 0; i < 40; i++)
    fprintf(file, "%d,%d,%d\n", i % 7, 1000 * i, i % 5);
  fclose(file);
  cli_accepted(0, cli_text("import %s --target y -o %s --split 1,0,0", csv, wide));
  cli_refused(2, 2,
              "--fds would make 39001 buckets of labels, which go from 0 to 39000; give a larger --fds-bucket-width "
              "than 1",
              cli_text("train %s -o %s --fds", wide, io_file("run")));
  cli_accepted(0, cli_text("import %s --target y,z -o %s --split 1,0,0", csv, two));
  cli_refused(
      2, 2, cli_text("--fds puts labels into buckets along one axis, but those of %s have 2 components; drop it", two),
      cli_text("train %s -o %s --fds", two, io_file("run")));
}

Test(cli_fds, resuming_with_another_smoothing) {
  const char *data = cli_data("t.h5", 60), *run = io_file("run");
  const char *line = cli_text("train %s -o %s --fds-bucket-width 0.5 --fds-size 3 --quiet --epochs", data, run);
  cli_accepted(2, cli_text("%s 1 --fds", line));
  cli_refused(2, 2,
              "--resume with --fds-storage snapshot, but the run was begun with alias; give the same, or start a "
              "new run",
              cli_text("%s 2 --fds --fds-storage snapshot --resume", line));
}
