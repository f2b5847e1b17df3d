/* Sample weights as a user asks for them: what the run says of them, and requests that make no sense. */
#include "abalone.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(cli_weights, .init = cli_begin, .fini = cli_end, .timeout = 240);

/* 64 training samples: 32, 16 and 8 with labels 0, 1 and 2, one each of 3 to 8, two of 9.  `second` is another label, w
 * a weight. */
static const char *skewed(const char *import_options) {
  const char *csv = io_file("skewed.csv"), *path = io_file("skewed.h5");
  FILE *stream = fopen(csv, "w");
  fputs("a,y,second,w,split\n", stream);
  for (int i = 0; i < 64; i++) {
    int label = i < 32 ? 0 : i < 48 ? 1 : i < 56 ? 2 : i - 53;
    fprintf(stream, "%.6f,%d,%d,%g,train\n", sin(label + 0.1 * i), label > 9 ? 9 : label, i % 3, 1 + 0.5 * (i % 4));
  }
  fprintf(stream, "0.1,1,1,1,val\n0.2,2,1,1,test\n");
  cr_assert(fclose(stream) == 0);
  cli_accepted(0, cli_text("import %s --split-column split -o %s --force --quiet %s", csv, path, import_options));
  return path;
}

static void refused_on(int ranks, const char *data, const char *options, const char *sentence) {
  const char *run = io_file("run");
  cli_refused(ranks, 2, sentence, cli_text("train %s -o %s %s", data, run, options));
  cr_assert(not(io_exists(cli_last(run))));
}

static void refused(const char *data, const char *options, const char *sentence) {
  refused_on(0, data, options, sentence);
}

/* What a short run says; free() it. */
static char *output_of(const char *data, const char *options) {
  struct run_result run =
      cli_run(2, cli_text("train %s -o %s --force --epochs 1 --batch 16 %s", data, io_file("said"), options));
  cr_assert(eq(int, run.exit_status, 0), "%s:\n%s", options, run.output);
  return run.output;
}

static void expect_line(const char *data, const char *options, const char *line) {
  char *output = output_of(data, options);
  cr_expect(eq(int, cli_count(output, line), 1), "%s, %s:\n%s", options, line, output);
  free(output);
}

Test(cli_weights, are_told_once_when_a_run_begins) {
  const char *data = skewed("--target y --drop w,second");
  double scale = 64 / (sqrt(32) + sqrt(16) + sqrt(8) + 6 + sqrt(2));
  expect_line(data, "--weights sqrt-inverse",
              cli_text("sample weights: sqrt-inverse; %.4g to %.4g, median %.4g", scale / sqrt(32), scale,
                       (scale / sqrt(32) + scale / sqrt(16)) / 2));
  expect_line(data, "--weights inverse --weight-clip 0,inf", "sample weights: inverse; ");
  expect_line(data, "--weights sqrt-inverse --lds triang --lds-size 3 --conr",
              "sample weights: sqrt-inverse, triang LDS; ");
  expect_line(data, "--weights dense --dense-alpha 0.5", "sample weights: dense; ");
  char *output = output_of(data, "");
  cr_expect(eq(int, cli_count(output, "sample weights"), 0), "nobody asked for any:\n%s", output);
  free(output);
}

Test(cli_weights, of_the_file_are_those_of_auto) {
  const char *data = skewed("--target y --weight-column w --drop second");
  expect_line(data, "", "sample weights: of the file; 1 to 2.5, median 1.75");
  const char *by_default = io_file("auto"), *of_file = io_file("file");
  cli_accepted(2, cli_text("train %s -o %s --epochs 2 --quiet", data, by_default));
  cli_accepted(2, cli_text("train %s -o %s --epochs 2 --quiet --weights file", data, of_file));
  cli_same_runs(by_default, of_file);
  char *output = output_of(data, "--weights none");
  cr_expect(eq(int, cli_count(output, "sample weights"), 0), "%s", output);
  free(output);
}

Test(cli_weights, by_inverse_counts_replace_those_of_the_file) {
  const char *data = skewed("--target y --weight-column w --drop second");
  /* a label's samples add up to 1 before scaling, and there are 10 labels */
  const char *line =
      cli_text("sample weights: inverse; %.4g to %.4g, median %.4g", 6.4 / 32, 6.4, (6.4 / 32 + 6.4 / 16) / 2);
  expect_line(data, "--weights inverse --weight-clip 0,inf", line);
}

Test(cli_weights, bins_found_from_the_data_stand_in_config_used) {
  const char *data = skewed("--target y --drop w,second"), *run = io_file("bins");
  cli_accepted(2, cli_text("train %s -o %s --epochs 1 --weights inverse", data, run));
  char *used = io_read(cli_text("%s/config.used", run), NULL);
  cr_expect(ne(ptr, strstr(used, "weight-bins = 0,1,10\n"), NULL), "%s", used);
  free(used);
  const char *again = io_file("again");
  cli_accepted(2, cli_text("train %s -o %s --config %s/config.used --quiet", data, again, run));
  cli_same_runs(run, again);
}

Test(cli_weights, are_the_same_after_resuming_and_cannot_be_changed_then) {
  const char *data = skewed("--target y --drop w,second"), *whole = io_file("whole"), *parts = io_file("parts");
  const char *options = "--batch 16 --weights sqrt-inverse --lds gaussian --conr --quiet";
  cli_accepted(2, cli_text("train %s -o %s --epochs 4 %s", data, whole, options));
  cli_accepted(2, cli_text("train %s -o %s --epochs 2 %s", data, parts, options));
  cli_accepted(2, cli_text("train %s -o %s --epochs 4 --resume %s", data, parts, options));
  cli_same_runs(whole, parts);
  cli_refused(2, 2, "--resume with --lds-sigma 1, but the run was begun with 2; give the same, or start a new run",
              cli_text("train %s -o %s --resume %s --lds-sigma 1", data, parts, options));
}

/* tests/ranks/rank_weights.c on the shipped table. */
static void same_on_any_number_of_ranks(const char *const words[5]) {
  const char *arguments[8] = {abalone_table(io_file("")), io_file("run")};
  for (int i = 0; i < 5; i++)
    arguments[2 + i] = words[i];
  for (int ranks = 1; ranks <= 4; ranks++) {
    struct run_result run;
    int status = run_ranks(ranks, "rank_weights", arguments, &run);
    cr_expect(eq(int, status, 0), "%s on %d ranks:\n%s", words[1], ranks, run.output);
    run_result_free(&run);
  }
}

Test(cli_weights, by_counts_are_the_same_on_any_number_of_ranks) {
  same_on_any_number_of_ranks((const char *const[5]){"--weights", "inverse", "--batch", "7"});
}

Test(cli_weights, by_smoothed_counts_are_the_same_on_any_number_of_ranks) {
  same_on_any_number_of_ranks((const char *const[5]){"--weights", "sqrt-inverse", "--lds", "gaussian", "--conr"});
}

Test(cli_weights, by_density_are_the_same_on_any_number_of_ranks) {
  same_on_any_number_of_ranks((const char *const[5]){"--weights", "dense", "--batch", "5"});
}

Test(cli_weights, options_without_effect) {
  const char *data = skewed("--target y --drop w,second");
  refused(data, "--lds gaussian",
          "--lds gaussian smooths counts of labels: add --weights inverse or sqrt-inverse, or --loss bni or uvote");
  refused(data, "--weights dense --lds gaussian",
          "--lds gaussian smooths counts of labels: add --weights inverse or sqrt-inverse, or --loss bni or uvote");
  refused(data, "--weights inverse --lds-size 7", "--lds-size has no effect without --lds; drop one or add the other");
  refused(data, "--weights inverse --lds triang --lds-sigma 1",
          "--lds-sigma has no effect without --lds gaussian or laplace; drop one or add the other");
  refused(data, "--weights sqrt-inverse --lds triang --lds-truncate",
          "--lds-truncate has no effect without --weights inverse or --loss bni; drop one or add the other");
  refused(data, "--weights sqrt-inverse --weight-clip 1,2",
          "--weight-clip has no effect without --weights inverse or --loss uvote; drop one or add the other");
  refused(data, "--weight-bins 0,1,5",
          "--weight-bins has no effect without --weights inverse or sqrt-inverse, or --loss bni or uvote; drop one or "
          "add the "
          "other");
  refused(data, "--dense-alpha 2", "--dense-alpha has no effect without --weights dense; drop one or add the other");
}

Test(cli_weights, requests_that_make_no_sense) {
  const char *data = skewed("--target y --drop w,second");
  refused_on(
      3, data, "--weights file",
      cli_text("--weights file, but %s holds none; import it with --weight-column, or choose other weights", data));
  refused(data, "--weights inverse --lds gaussian --lds-size 4",
          "--weights inverse: a kernel of 4 bins cannot be had: its size must be odd, so that it has a middle, and at "
          "most 1023");
  refused(
      data, "--weights inverse --lds gaussian --lds-size 11",
      "--weights inverse: a kernel of 11 bins is wider than the 10 bins of the labels; use a smaller one, or narrower "
      "bins");
  refused(
      data, "--weights sqrt-inverse --weight-bins 1,1,10",
      "--weights sqrt-inverse: label 0 of a training sample lies outside the bins, which begin at 1; let them begin "
      "lower");
  refused(
      data, "--weights sqrt-inverse --weight-bins 0,20,3",
      "--weights sqrt-inverse: all 64 training samples lie in one bin of width 20 from 0 on, so their weights do not "
      "differ; give narrower bins");
  refused(data, "--weights inverse --weight-bins 0,1",
          "--weights inverse: --weight-bins wants 3 numbers separated by commas, not \"0,1\"");
  refused(data, "--weights inverse --weight-bins 0,1,2.5",
          "--weights inverse: --weight-bins 0,1,2.5: 2.5 is no count of bins; give LOW,WIDTH,COUNT");
  refused(data, "--weights inverse --weight-bins 0,1,0", "--weights inverse: 0 bins cannot be had; use 1 to 10000000");
  refused(
      data, "--weights inverse --weight-clip 9,2",
      "--weights inverse: counts cannot be clipped to 9 .. 2; give 0 or more, then as much or more, and at least 1");
  refused(data, "--weights dense --dense-alpha -1", "--dense-alpha -1 is out of range; give 0 to 1000000");
}

Test(cli_weights, of_several_labels_are_by_joint_counts_or_not_at_all) {
  const char *data = skewed("--target y,second --drop w");
  expect_line(data, "--weights inverse --weight-clip 0,inf", "sample weights: inverse; ");
  refused(data, "--weights inverse --lds gaussian",
          "--weights inverse: label distribution smoothing is defined along one label, these have 2 components; "
          "reweight without it");
  refused(
      data, "--weights dense",
      cli_text("--weights dense: DenseWeight is defined for one label, and those of %s have 2 components; use inverse "
               "or sqrt-inverse",
               data));
}
