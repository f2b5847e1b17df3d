/* conr train with Balanced MSE and focal losses: what a run tells of its noise scale, how it is resumed, what is
 * refused. */
#include "io/array_file.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(cli_losses, .init = cli_begin, .fini = cli_end, .timeout = 150);

#define RANKS 3

static const char *train(const char *run, const char *options) {
  return cli_text("train %s -o %s --hidden 8 --batch 9 --log-steps 1 %s", cli_data("t.h5", 60), run, options);
}

static void refused(const char *options, const char *sentence) {
  cli_refused(RANKS, 2, sentence, train(io_file("run"), options));
  cr_assert(not(io_exists(cli_last(io_file("run")))));
}

static double final_scale(const char *run) {
  struct array_file *file;
  cr_assert(eq(int, array_file_read(cli_last(run), true, &file), STATUS_OK), "%s", status_message());
  const struct array *state = array_file_find(file, "state/loss/noise_scale");
  cr_assert(ne(ptr, (void *)state, NULL), "no noise scale in %s", cli_last(run));
  double sigma = ((const double *)state->data)[0];
  array_file_destroy(&file);
  return sigma;
}

Test(cli_losses, the_noise_scale_is_shown_and_kept) {
  static const char *const losses[] = {"--loss bmc", "--loss gai --gmm 3",
                                       "--loss bni --weight-bins -10,0.25,80 --lds gaussian"};
  for (int i = 0; i < 3; i++) {
    const char *run = io_file(cli_text("run%d", i));
    struct run_result result = cli_run(2, train(run, cli_text("%s --noise-scale 0.5 --epochs 2", losses[i])));
    cr_assert(eq(int, result.exit_status, 0), "%s", result.output);
    double sigma = final_scale(run);
    cr_expect(sigma != 0.5 && sigma > 0.3 && sigma < 0.7, "%s: %g", losses[i], sigma);
    cr_expect(eq(dbl, cli_last_metric(run, "noise_scale"), sigma), "%s", losses[i]);
    cr_expect(eq(int, cli_count(result.output, cli_text("; noise scale %.6g; run folder ", sigma)), 1), "%s",
              result.output);
    cr_expect(eq(int, cli_count(result.output, "mixture of 3 components fitted to the training labels"), i == 1));
    run_result_free(&result);
  }
}

Test(cli_losses, a_rate_of_0_keeps_the_scale) {
  const char *run = io_file("run");
  cli_accepted(2, train(run, "--loss bmc --noise-scale 0.5 --noise-lr 0 --epochs 2"));
  cr_expect(eq(dbl, final_scale(run), 0.5));
}

Test(cli_losses, other_losses_have_no_noise_scale) {
  static const char *const losses[] = {"l1", "focal_l1 --focal-beta 1 --focal-gamma 2 --focal-activation tanh",
                                       "focal_mse"};
  for (int i = 0; i < 3; i++) {
    const char *run = io_file(cli_text("run%d", i));
    struct run_result result = cli_run(1, train(run, cli_text("--loss %s --epochs 2", losses[i])));
    cr_assert(eq(int, result.exit_status, 0), "%s", result.output);
    cr_expect(eq(int, cli_count(result.output, "noise scale"), 0), "%s", result.output);
    cr_expect(isnan(cli_last_metric(run, "noise_scale")));
    run_result_free(&result);
  }
}

/* The checkpoint holds the scale and its moments; in the middle of an epoch: tests/ranks/rank_fds.c. */
Test(cli_losses, a_resumed_run_ends_with_the_same_bits) {
  static const char *const losses[] = {"--loss bmc --conr", "--loss gai --gmm 3 --optimiser sgd --lr 0.001",
                                       "--loss bni --weight-bins -10,0.25,80"};
  for (int i = 0; i < 3; i++) {
    const char *whole = io_file(cli_text("whole%d", i)), *cut = io_file(cli_text("cut%d", i));
    cli_accepted(2, train(whole, cli_text("%s --epochs 4", losses[i])));
    cli_accepted(2, train(cut, cli_text("%s --epochs 2", losses[i])));
    cli_accepted(2, train(cut, cli_text("%s --epochs 4 --resume", losses[i])));
    cli_same_runs(whole, cut);
  }
}

Test(cli_losses, options_without_effect) {
  refused("--noise-scale 2", "--noise-scale has no effect without --loss bmc, gai or bni; drop one or add the other");
  refused("--loss mse --noise-lr 2",
          "--noise-lr has no effect without --loss bmc, gai or bni; drop one or add the other");
  refused("--loss bmc --gmm 4", "--gmm has no effect without --loss gai; drop one or add the other");
  refused("--loss bmc --weight-bins 0,1,9", "--weight-bins has no effect without --weights inverse or sqrt-inverse, or "
                                            "--loss bni or uvote; drop one or add the other");
  refused("--loss bmc --lds triang",
          "--lds triang smooths counts of labels: add --weights inverse or sqrt-inverse, or --loss bni or uvote");
  refused("--focal-beta 4",
          "--focal-beta has no effect without --loss focal_l1 or focal_mse; drop one or add the other");
  refused("--loss bmc --focal-gamma 4",
          "--focal-gamma has no effect without --loss focal_l1 or focal_mse; drop one or add the other");
  refused("--loss bmc --conr --conr-outer-weights", "--loss bmc and --conr-outer-weights do not go together: Balanced "
                                                    "MSE takes no sample weights, its softmax over the "
                                                    "labels is the balance; drop one");
  refused("--loss bmc --optimiser sgd --noise-lr 0 --beta1 0.5",
          "--beta1 has no effect without --optimiser adam or adamw; drop one or add the other");
}

Test(cli_losses, values_that_make_no_sense) {
  refused("--loss bmc --noise-scale 0", "--noise-scale 0 is out of range; give 1e-12 to 1000000000000");
  refused("--loss bmc --noise-lr -1", "--noise-lr -1 is out of range; give 0 to 1000000");
  refused("--loss gai --gmm 50",
          "a mixture of 50 components needs as many distinct labels, and there are 36; ask for fewer components");
  refused("--loss bni --weight-bins -1000,10000,2", "bins of width 10000 put all labels into one; give narrower ones");
  refused("--loss bni --lds gaussian --lds-size 4",
          "a kernel of 4 bins cannot be had: its size must be odd, so that it has a middle, and at most 1023");
  refused(
      "--loss bmc --weights inverse",
      "--loss bmc and --weights inverse do not go together: Balanced MSE takes no sample weights, its softmax over the "
      "labels is the balance; drop one");
}

/* A NaN of one rank's row makes the loss NaN on all. */
Test(cli_losses, numbers_that_overflow) {
  static const char *const losses[] = {"bmc", "gai --gmm 2", "bni"};
  for (int i = 0; i < 3; i++) {
    const char *line =
        train(io_file("run"), cli_text("--loss %s --lr 1e6 --weight-decay 1e6 --optimiser sgd --force", losses[i]));
    struct run_result result = cli_run(RANKS, line);
    cr_expect(eq(int, result.exit_status, 1), "%s", result.output);
    cr_expect(eq(int, cli_count(result.output, "is not finite; lower --lr, or give --clip a value"), 1), "%s",
              result.output);
    run_result_free(&result);
  }
}

/* Labels of several components: BMC and GAI take them, BNI does not. */
Test(cli_losses, labels_of_several_components) {
  char *csv = (char *)io_file("two.csv");
  cli_write_csv(csv, 60);
  const char *data = io_file("two.h5");
  cli_accepted(0, cli_text("import %s -o %s --target y,a --split-column split", csv, data));
  for (int i = 0; i < 2; i++)
    cli_accepted(RANKS, cli_text("train %s -o %s --batch 9 --epochs 2 --loss %s", data, io_file(cli_text("run%d", i)),
                                 i == 0 ? "bmc" : "gai --gmm 2"));
  cli_refused(RANKS, 2, cli_text("--loss bni takes labels of one component, and %s has 2; use --loss bmc or gai", data),
              cli_text("train %s -o %s --loss bni", data, io_file("run")));
}

/* A table with the weights 1, 2, 3, and the same without them. */
static void write_weighted(const char *path, bool weights) {
  FILE *file = fopen(path, "w");
  fprintf(file, "a,%sy,split\n", weights ? "w," : "");
  for (int i = 0; i < 60; i++) {
    char weight[16] = "";
    snprintf(weight, sizeof weight, "%d,", 1 + i % 3);
    fprintf(file, "%d,%s%g,%s\n", i * 37 % 60, weights ? weight : "", 0.1 * (i * 37 % 60) + i % 4,
            i % 5 < 3    ? "train"
            : i % 5 == 3 ? "val"
                         : "test");
  }
  fclose(file);
}

/* Balanced MSE takes none: the file's are left aside, with a word. */
Test(cli_losses, sample_weights_of_the_file_are_not_used) {
  const char *with = io_file("with.h5"), *without = io_file("without.h5");
  write_weighted(io_file("with.csv"), true);
  write_weighted(io_file("without.csv"), false);
  cli_accepted(
      0, cli_text("import %s -o %s --target y --weight-column w --split-column split", io_file("with.csv"), with));
  cli_accepted(0, cli_text("import %s -o %s --target y --split-column split", io_file("without.csv"), without));
  struct run_result result = cli_run(2, cli_text("train %s -o %s --epochs 2 --loss bmc", with, io_file("run1")));
  cr_assert(eq(int, result.exit_status, 0), "%s", result.output);
  cr_expect(eq(int, cli_count(result.output, "Balanced MSE takes no sample weights: those of"), 1), "%s",
            result.output);
  run_result_free(&result);
  cli_accepted(2, cli_text("train %s -o %s --epochs 2 --loss bmc", without, io_file("run2")));
  cli_same_arrays(cli_last(io_file("run1")), cli_last(io_file("run2")), 0);
}
