/* Experts and distributions, as a user asks for them: training, resuming, votes, predicted errors, and what is refused. */
#include "abalone.h"
#include "io/array_file.h"
#include "io_files.h"
#include "support_cli.h"
#include "tests/emulated.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(cli_heads, .init = cli_begin, .fini = cli_end, .timeout = 300);

#define EXPERTS "--loss uvote --weight-bins 0,1,30 --weight-clip 1,inf --head-std 0.01 --lr 0.01 --batch 64"

static const char *trained(int ranks, const char *name, const char *data, const char *options) {
  const char *run = io_file(name);
  cli_accepted(ranks, cli_text("train %s -o %s --quiet %s", data, run, options));
  return run;
}

static json_t *evaluated(int ranks, const char *run, const char *data, const char *options) {
  char *text = cli_output(ranks, cli_text("eval %s %s --json --few 5 --many 20 %s", run, data, options));
  json_t *table = json_loads(text, 0, NULL);
  cr_assert(table != NULL, "%s", text);
  free(text);
  return table;
}

static double number(const json_t *table, const char *first, const char *second, const char *third) {
  const json_t *at = json_object_get(json_object_get(table, first), second);
  at = third != NULL ? json_object_get(at, third) : at;
  cr_assert(at != NULL && json_is_number(at), "%s.%s.%s is no number", first, second, third != NULL ? third : "");
  return json_number_value(at);
}

/* ---- experts -------------------------------------------------------------------------------- */

Test(cli_heads, experts_vote_in_evaluation) {
  const char *data = abalone_table(io_file(""));
  const char *run = trained(2, "run", data, EXPERTS " --epochs 4 --experts 3");
  json_t *least = evaluated(2, run, data, ""), *mean = evaluated(1, run, data, "--vote avg");
  static const char *const votes[] = {"avg", "avgvar", "minvar", "oracle", "first"};
  cr_expect(number(least, "all", "mae", NULL) == number(least, "votes", "minvar", "all"), "minvar is the default");
  cr_expect(number(mean, "few", "mae", NULL) == number(mean, "votes", "avg", "few"));
  for (int i = 0; i < 5; i++) {
    double here = number(least, "votes", votes[i], "all"), there = number(mean, "votes", votes[i], "all");
    cr_expect(fabs(here - there) <= 1e-6 * there, "%s: %.9g on two ranks, %.9g on one", votes[i], here, there);
    cr_expect(here >= number(least, "votes", "oracle", "all"), "%s is better than the oracle", votes[i]);
  }
  cr_expect(number(least, "votes", "avg", "all") != number(least, "votes", "first", "all"), "the experts are the same");
  cr_expect(number(least, "all", "uce", NULL) > 0 && isfinite(number(least, "all", "gaussian_nll", NULL)));
  cr_expect(number(least, "all", "ause", NULL) > 0);
  json_decref(least);
  json_decref(mean);
}

/* The first expert, whose weights are all 1, as published. */
Test(cli_heads, validation_looks_at_the_first_expert_or_at_the_vote_asked_for) {
  const char *data = abalone_table(io_file(""));
  static const char *const votes[] = {"auto", "avgvar"}, *const meant[] = {"first", "avgvar"};
  for (int i = 0; i < 2; i++) {
    const char *run = trained(2, cli_text("run%d", i), data, cli_text(EXPERTS " --epochs 2 --vote %s", votes[i]));
    json_t *table = evaluated(2, run, data, "--part val --checkpoint last");
    double logged = cli_last_metric(run, "val_mae"), found = number(table, "votes", meant[i], "all");
    cr_expect(fabs(logged - found) <= 1e-6 * found, "%s: %.9g logged, %.9g found", votes[i], logged, found);
    json_decref(table);
  }
}

static struct array_file *checkpoint_of(const char *run) {
  struct array_file *file;
  cr_assert(eq(int, (int)array_file_read(cli_last(run), true, &file), 0));
  return file;
}

/* Of the head of a network 32,16 with three experts: rows of the weights. */
static bool same_rows(const struct array_file *a, const struct array_file *b, const char *name, int first, int end) {
  const struct array *one = array_file_find(a, name), *other = array_file_find(b, name);
  cr_assert(one != NULL && other != NULL && one->shape[0] == 6);
  size_t row = (size_t)(array_count(one) / 6) * sizeof(float);
  return memcmp((char *)one->data + (size_t)first * row, (char *)other->data + (size_t)first * row,
                (size_t)(end - first) * row) == 0;
}

Test(cli_heads, log_scales_learn_at_a_rate_of_their_own) {
  const char *data = abalone_table(io_file(""));
  const char *still = EXPERTS " --experts 3 --hidden 32,16 --expert-static --expert-lr 0";
  struct array_file *one = checkpoint_of(trained(1, "one", data, cli_text("%s --epochs 1", still)));
  struct array_file *two = checkpoint_of(trained(1, "two", data, cli_text("%s --epochs 2", still)));
  static const char *const names[] = {"layer2.weight", "layer2.bias"};
  for (int i = 0; i < 2; i++) {
    cr_expect(same_rows(one, two, names[i], 3, 6), "%s of log scales has learned", names[i]);
    cr_expect(same_rows(one, two, names[i], 0, 1) == false, "%s of locations has not", names[i]);
  }
  const float *bias = array_file_find(one, "layer2.bias")->data;
  cr_expect(bias[3] == 0 && bias[5] == 0, "--head-std lets biases start with 0");
  array_file_destroy(&one);
  array_file_destroy(&two);
}

/* In the first epoch the others have no gradient, unless they are static. */
Test(cli_heads, the_other_experts_wait_in_the_first_epoch) {
  const char *data = abalone_table(io_file(""));
  const char *options = EXPERTS " --experts 3 --hidden 32,16 --epochs 1 --expert-bounds";
  struct array_file *waiting = checkpoint_of(trained(1, "waiting", data, cli_text("%s -4,4", options)));
  struct array_file *other = checkpoint_of(trained(1, "other", data, cli_text("%s -4,4 --expert-lr 7", options)));
  struct array_file *working = checkpoint_of(trained(1, "working", data, cli_text("%s -4,4 --expert-static", options)));
  cr_expect(same_rows(waiting, other, "layer2.bias", 1, 3) && same_rows(waiting, other, "layer2.bias", 4, 6));
  cr_expect(same_rows(waiting, working, "layer2.bias", 1, 2) == false);
  cr_expect(same_rows(waiting, working, "layer2.bias", 4, 5) == false);
  array_file_destroy(&waiting);
  array_file_destroy(&other);
  array_file_destroy(&working);
}

Test(cli_heads, a_killed_run_with_experts_goes_on_with_the_same_bits) {
  const char *data = abalone_table(io_file(""));
  const char *options = EXPERTS " --epochs 3 --conr --log-steps 1 --checkpoint-steps 3";
  const char *whole = trained(2, "whole", data, options), *killed = io_file("killed");
  cli_killed_and_resumed(2, 50, data, killed, options);
  cli_same_runs(whole, killed);
  cli_refused(2, 2, "--resume with --epochs 9, but the run was begun with 3; give the same, or start a new run",
              cli_text("train %s -o %s --resume --quiet %s --epochs 9", data, killed, options));
}

Test(cli_heads, the_log_tells_the_weights_of_the_experts) {
  struct run_result run = cli_run(
      2, cli_text("train %s -o %s --epochs 1 " EXPERTS " --experts 3", abalone_table(io_file("")), io_file("run")));
  cr_expect(strstr(run.output, "3 experts: inverse density of labels to the powers 0, 0.5, 1; largest weights 1, ") !=
                NULL,
            "%s", run.output);
  run_result_free(&run);
}

Test(cli_heads, densities_by_kernels_and_powers_as_they_are_given) {
  struct run_result run =
      cli_run(2, cli_text("train %s -o %s --epochs 1 --loss uvote --experts 3 --expert-powers 0,1,0.5 "
                          "--expert-density kernel --expert-bandwidth 0.5",
                          abalone_table(io_file("")), io_file("run")));
  cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
  cr_expect(strstr(run.output, "powers 0, 1, 0.5; largest weights 1, ") != NULL, "%s", run.output);
  run_result_free(&run);
}

/* What each changes shows in the loss of two epochs. */
Test(cli_heads, every_option_of_experts_and_distributions_does_something) {
  static const struct {
    const char *common, *other;
  } cases[] = {{EXPERTS, "--expert-schedule imdb"},
               {EXPERTS, "--expert-schedule wind"},
               {EXPERTS, "--expert-bounds -5,0.1"},
               {EXPERTS, "--lds gaussian"},
               {"--loss uvote --expert-density kernel", "--expert-bandwidth 0.3"},
               {"--loss uvote", "--expert-density kernel"},
               {"--loss uvote --expert-static", "--expert-powers 0,2"},
               {"--loss uvote", "--head-std 0.3"},
               {"--loss evidential", "--evidential-lambda 0.5"}};
  const char *data = abalone_table(io_file(""));
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const char *one = trained(1, cli_text("one%zu", i), data, cli_text("%s --epochs 2", cases[i].common));
    const char *two =
        trained(1, cli_text("two%zu", i), data, cli_text("%s --epochs 2 %s", cases[i].common, cases[i].other));
    double as_it_is = cli_last_metric(one, "train_loss"), with = cli_last_metric(two, "train_loss");
    cr_expect(isfinite(with) && with != as_it_is, "%s changes nothing: %.17g", cases[i].other, with);
  }
}

/* ---- distributions -------------------------------------------------------------------------- */

Test(cli_heads, an_evidential_head_predicts_with_deviations) {
  const char *data = abalone_table(io_file("")), *csv = io_file("p.csv"), *h5 = io_file("p.h5");
  const char *run = trained(3, "run", data, "--loss evidential --epochs 3 --weights sqrt-inverse --weight-bins 0,1,30");
  json_t *table = evaluated(2, run, data, "");
  cr_expect(json_object_get(table, "votes") == NULL, "there are no experts to vote");
  cr_expect(number(table, "all", "ause", NULL) > 0 && isfinite(number(table, "few", "gaussian_nll", NULL)));
  json_decref(table);
  cli_accepted(2, cli_text("predict %s %s -o %s --quiet", run, data, csv));
  cli_accepted(1, cli_text("predict %s %s -o %s --quiet", run, data, h5));
  char *text = io_read(csv, NULL);
  double id, label, prediction, deviation;
  cr_assert(strncmp(text, "row,label_Rings,prediction_Rings,deviation_Rings\n", 49) == 0, "%.80s", text);
  cr_assert(eq(int, sscanf(text + 49, "%lf,%lf,%lf,%lf", &id, &label, &prediction, &deviation), 4));
  struct array_file *file;
  cr_assert(eq(int, (int)array_file_read(h5, false, &file), 0));
  const struct array *deviations = array_file_find(file, "deviations");
  cr_assert(deviations != NULL && deviations->rank == 2);
  double first = ((double *)deviations->data)[0];
  cr_expect(deviation > 0 && fabs(first - deviation) <= 1e-5 * deviation, "%.9g and %.9g", first, deviation);
  array_file_destroy(&file);
  free(text);
}

/* They act on the pseudo-count. */
Test(cli_heads, sample_weights_change_what_an_evidential_head_learns) {
  const char *data = abalone_table(io_file(""));
  const char *with = trained(1, "with", data, "--loss evidential --epochs 1 --weights inverse --weight-bins 0,1,30");
  const char *without = trained(1, "without", data, "--loss evidential --epochs 1");
  cr_expect(cli_last_metric(with, "train_loss") != cli_last_metric(without, "train_loss"));
}

Test(cli_heads, the_text_has_tables_of_errors_uncertainties_and_votes) {
  const char *data = abalone_table(io_file(""));
  char *experts = cli_output(1, cli_text("eval %s %s", trained(1, "e", data, EXPERTS " --epochs 1"), data));
  char *evidential = cli_output(1, cli_text("eval %s %s", trained(1, "d", data, "--loss evidential --epochs 1"), data));
  char *plain = cli_output(1, cli_text("eval %s %s", trained(1, "p", data, "--epochs 1"), data));
  cr_expect(strstr(experts, "\nMAE by vote         all       many     median        few\navg ") != NULL, "%s", experts);
  cr_expect(strstr(experts, "\ngroup               UCE        NLL       AUSE\nall ") != NULL, "%s", experts);
  cr_expect(strstr(evidential, "UCE") != NULL && strstr(evidential, "vote") == NULL, "%s", evidential);
  cr_expect(strstr(plain, "UCE") == NULL && strstr(plain, "vote") == NULL, "%s", plain);
  free(experts);
  free(evidential);
  free(plain);
}

/* ---- on a GPU ------------------------------------------------------------------------------- */

/* Float32 throughout, sums of products in another order. */
Test(cli_heads, a_gpu_gives_what_the_host_gives) {
  static const char *const options[] = {"--loss uvote --conr --micro-batch 4 --experts 3 --expert-static",
                                        "--loss evidential --weights sqrt-inverse --weight-bins -10,0.5,60"};
  const char *data = cli_data("t.h5", 60), *common = "--epochs 3 --hidden 8 --batch 9 --optimiser sgd --lr 1e-4";
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  for (int i = 0; i < 2; i++) {
    const char *host = trained(0, cli_text("host%d", i), data, cli_text("--device cpu %s %s", common, options[i]));
    const char *device = trained(0, cli_text("device%d", i), data,
                                 cli_text("--device cuda --precision f32 --graphs on %s %s", common, options[i]));
    cli_same_arrays(cli_last(host), cli_last(device), 1e-5);
    json_t *there = evaluated(0, device, data, "--device cuda"), *here = evaluated(0, device, data, "--device cpu");
    double uce[] = {number(there, "all", "uce", NULL), number(here, "all", "uce", NULL)};
    cr_expect(fabs(uce[0] - uce[1]) <= 1e-5 * uce[1], "%.9g on the GPU, %.9g on the host", uce[0], uce[1]);
    if (i == 0) {
      double oracle[] = {number(there, "votes", "oracle", "all"), number(here, "votes", "oracle", "all")};
      cr_expect(fabs(oracle[0] - oracle[1]) <= 1e-5 * oracle[1], "%.9g and %.9g", oracle[0], oracle[1]);
    }
    json_decref(there);
    json_decref(here);
  }
}

/* ---- what is refused ------------------------------------------------------------------------ */

static void refused(const char *options, const char *sentence) {
  cli_refused(2, 2, sentence, cli_text("train %s -o %s %s", cli_data("t.h5", 60), io_file("run"), options));
}

Test(cli_heads, options_that_nothing_reads) {
  refused("--experts 3", "--experts has no effect without --loss uvote; drop one or add the other");
  refused("--loss mse --vote avg", "--vote has no effect without --loss uvote; drop one or add the other");
  refused("--loss uvote --expert-bandwidth 3",
          "--expert-bandwidth has no effect without --expert-density kernel; drop one or add the other");
  refused("--evidential-lambda 1",
          "--evidential-lambda has no effect without --loss evidential; drop one or add the other");
  refused("--loss uvote --expert-density kernel --weight-bins 0,1,9",
          "--weight-bins has no effect without --expert-density counts; drop one or add the other");
}

Test(cli_heads, experts_with_other_weights_or_values_that_cannot_be) {
  refused("--loss uvote --weights inverse", "--loss uvote and --weights inverse do not go together: each expert weighs "
                                            "its samples by itself (--expert-powers); "
                                            "drop one");
  refused(
      "--loss uvote --conr --conr-outer-weights",
      "--loss uvote and --conr-outer-weights do not go together: the weights are the experts', each has its own; drop "
      "one");
  refused("--loss uvote --expert-powers 0,1,2", "--expert-powers wants 2 numbers separated by commas, not \"0,1,2\"");
  refused("--loss uvote --expert-powers 0,-1",
          "--expert-powers 0,-1: -1 would make common labels heavy; give 0 or more");
  refused("--loss uvote --expert-bounds 5,-5",
          "log scales cannot be held within 5 .. -5; give two numbers within -80 .. 80, the lower one first");
  refused("--loss uvote --experts 65", "--experts 65 is out of range; give 1 to 64");
  refused("--loss uvote --lds gaussian --lds-size 99 --weight-bins 0,1,9",
          "weights of experts: a kernel of 99 bins is wider than the 9 bins of the labels; use a smaller one, or "
          "narrower bins");
}

/* Weights of the file: --weights auto takes them, but those of experts are their own. */
Test(cli_heads, weights_of_the_file_that_are_none) {
  const char *csv = io_file("w.csv"), *data = io_file("w.h5");
  FILE *file = fopen(csv, "w");
  fprintf(file, "y,a,w,split\n");
  for (int i = 0; i < 40; i++)
    fprintf(file, "%d,%d,%d,%s\n", i, i * i % 17, i == 9 ? 0 : 1, i % 4 == 3 ? "val" : "train");
  fclose(file);
  cli_accepted(0, cli_text("import %s --target y --weight-column w --split-column split -o %s --quiet", csv, data));
  cli_refused(2, 2,
              cli_text("--loss evidential takes weights as pseudo-counts, and that of row 9 of %s is 0; leave the row "
                       "out, or give --weights none",
                       data),
              cli_text("train %s -o %s --loss evidential", data, io_file("run")));
  cli_accepted(2, cli_text("train %s -o %s --loss evidential --weights none --epochs 1 --quiet", data, io_file("run")));
  struct run_result run = cli_run(2, cli_text("train %s -o %s --loss uvote --epochs 1", data, io_file("experts")));
  cr_expect(eq(int, run.exit_status, 0), "%s", run.output);
  cr_expect(strstr(run.output, "UVOTE has weights of its own and takes no sample weights: those of ") != NULL, "%s",
            run.output);
  run_result_free(&run);
}

Test(cli_heads, a_vote_of_a_model_without_experts) {
  const char *data = cli_data("t.h5", 60), *run = trained(1, "run", data, "--epochs 1");
  cli_refused(2, 2, cli_text("--vote avg is for models of --loss uvote, and that of %s has no experts; drop it", run),
              cli_text("eval %s %s --vote avg", run, data));
}
