/* conr train with RankSim, RnC, ACCon and SRL: what a run tells of them, how it is resumed, on a GPU as on the host,
 * what is refused; and every pair of methods of the recipe `any`, which trains or says why not. */
#include "io_files.h"
#include "support_cli.h"
#include "tests/emulated.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <ini.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(cli_regularisers, .init = cli_begin, .fini = cli_end, .timeout = 300);

static const char *train(const char *run, const char *options) {
  return cli_text("train %s -o %s --hidden 8 --batch 9 --log-steps 1 --quiet %s", cli_data("t.h5", 60), run, options);
}

Test(cli_regularisers, values_are_told_and_null_when_off) {
  const char *run = io_file("run");
  cli_accepted(2, train(run, "--ranksim --rnc --srl --epochs 2"));
  char *text = io_read(cli_metrics(run), NULL);
  cr_expect(eq(int, cli_count(text, "\"loss_ranksim\":null"), 0));
  cr_expect(eq(int, cli_count(text, "\"loss_rnc\":null"), 0));
  cr_expect(eq(int, cli_count(text, "\"loss_srl\":null"), 0));
  cr_expect(eq(int, cli_count(text, "\"loss_accon\":null"), cli_count(text, "\n")));
  free(text);
}

Test(cli_regularisers, their_time_is_a_part_of_that_of_the_losses) {
  const char *run = io_file("run"), *without = io_file("without");
  cli_accepted(2, train(run, "--conr --rnc --ranksim --epochs 2"));
  cli_accepted(2, train(without, "--conr --epochs 2"));
  double time = cli_last_metric(run, "time_regularisers"), loss = cli_last_metric(run, "time_loss");
  cr_expect(time > 0 && time < loss, "%g of %g s", time, loss);
  time = cli_last_metric(without, "time_regularisers");
  cr_expect(isnan(time), "%g s without regularisers", time);
}

Test(cli_regularisers, the_last_line_of_an_epoch_shows_them) {
  struct run_result result =
      cli_run(0, cli_text("train %s -o %s --hidden 8 --epochs 1 --ranksim", cli_data("t.h5", 60), io_file("run")));
  const char *shown = strstr(result.output, "(ranksim ");
  double value = 0;
  cr_assert(shown != NULL && sscanf(shown, "(ranksim %lf)", &value) == 1, "%s", result.output);
  cr_expect(value > 0, "%s", result.output);
  run_result_free(&result);
}

Test(cli_regularisers, a_run_goes_on_with_the_same_bits) {
  static const char *const options[] = {"--srl --ranksim --fds --fds-size 3 --fds-buckets -3,3",
                                        "--rnc --accon --conr --views 3 --dropout 0.2"};
  for (int i = 0; i < 2; i++) {
    const char *whole = io_file(cli_text("whole%d", i)), *parts = io_file(cli_text("parts%d", i));
    cli_accepted(2, train(whole, cli_text("--epochs 4 %s", options[i])));
    cli_accepted(2, train(parts, cli_text("--epochs 2 %s", options[i])));
    cli_accepted(2, train(parts, cli_text("--epochs 4 --resume %s", options[i])));
    cli_same_runs(whole, parts);
  }
}

/* There or by way of the host: float32 throughout, sums of products in another order. */
Test(cli_regularisers, a_gpu_gives_what_the_host_gives) {
  static const char *const options[] = {"--rnc --accon --conr --micro-batch 3",
                                        "--conr --rnc --srl --ranksim --ranksim-gamma 1",
                                        "--srl --ranksim-gamma 1 --ranksim --graphs on",
                                        "--ranksim --fds --fds-size 3 --fds-buckets -3,3 --micro-batch 4"};
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  setenv("EMULATED_NCCL_FOLDER", io_file(""), 1);
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    for (int ranks = 0; ranks <= 2; ranks += 2) {
      const char *host = io_file("host"), *device = io_file("device"),
                 *common = "--epochs 3 --force --optimiser sgd --lr 1e-4 --precision f32";
      const char *words = strstr(options[i], "--graphs on") ? "--srl --ranksim-gamma 1 --ranksim" : options[i];
      cli_accepted(0, train(host, cli_text("%s --device cpu %s", common, words)));
      cli_accepted(ranks, train(device, cli_text("%s --device cuda %s", common, options[i])));
      cli_same_arrays(cli_last(host), cli_last(device), 1e-5);
    }
}

static void refused(const char *options, const char *sentence) {
  cli_refused(2, 2, sentence, train(io_file("run"), options));
}

Test(cli_regularisers, what_makes_no_sense_is_refused) {
  refused("--ranksim-gamma 2", "--ranksim-gamma has no effect without --ranksim; drop one or add the other");
  refused("--rnc --views 1", "--rnc contrasts two views of each sample; give --views 2 or 3, not 1");
  refused("--accon --noise 0 --mask 0",
          "--accon contrasts two views of each sample, and without augmentation they are equal; "
          "give --noise or --mask a value above 0");
  refused("--ranksim --views 3", "--views 3 gives contrastive terms a pass of their own: add --conr, --rnc or --accon");
  refused("--srl --srl-bins 0,1", "--srl-bins wants 3 numbers separated by commas, not \"0,1\"");
  refused("--srl --srl-bins 0,0,5", "--srl-bins 0,0,5: give the first label, a width above 0 and 2 to 100000 bins");
  refused("--srl --srl-bins 100,1,5",
          "SRL: the label -0.780265 is outside its 5 bins, which lie around 100 .. 104; give bins for all labels");
  cli_refused(2, 2, "--ranksim needs features to shape: give --hidden at least one layer",
              cli_text("train %s -o %s --hidden '' --ranksim", cli_data("t.h5", 60), io_file("run")));
}

/* --- every pair ------------------------------------------------------------------------------------------------- */

#define MOST 64

struct methods {
  char name[MOST][32], options[MOST][1024];
  int count;
};

static int line(void *user, const char *section, const char *name, const char *value) {
  struct methods *methods = user;
  if (strcmp(section, "base") == 0 || strcmp(name, "about") == 0 || strcmp(name, "source") == 0)
    return 1;
  if (methods->count == 0 || strcmp(methods->name[methods->count - 1], section) != 0)
    snprintf(methods->name[methods->count++], 32, "%s", section);
  char *options = methods->options[methods->count - 1];
  snprintf(options + strlen(options), 1024 - strlen(options), "%s=%s\n", name, value);
  return 1;
}

/* Do the two choose one thing differently, as two losses do?  Then together they are the second alone. */
static bool exclude(const struct methods *methods, int a, int b) {
  static const char *const choices[] = {"loss=", "weights="};
  for (size_t i = 0; i < sizeof choices / sizeof *choices; i++)
    if (strstr(methods->options[a], choices[i]) != NULL && strstr(methods->options[b], choices[i]) != NULL)
      return true;
  return false;
}

static bool takes_no_weights(const char *name) {
  static const char *const names[] = {"bmc", "gai", "bni", "uvote"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0)
      return true;
  return false;
}

/* The only senseless pairs: Balanced MSE takes no sample weights, and UVOTE's experts have their own. */
static bool is_senseless(const struct methods *methods, int a, int b) {
  bool weights_a = strstr(methods->options[a], "weights=") != NULL,
       weights_b = strstr(methods->options[b], "weights=") != NULL;
  return (takes_no_weights(methods->name[a]) && weights_b) || (takes_no_weights(methods->name[b]) && weights_a);
}

Test(cli_regularisers, every_pair_of_methods_trains_or_is_refused_with_its_reason, .timeout = 600) {
  static struct methods methods;
  const char *data = cli_data("pairs.h5", 60), *run = io_file("run");
  int trained = 0, senseless = 0;
  setenv("CONR_RECIPES", "launch/recipes", 1);
  cr_assert(eq(int, ini_parse("launch/recipes/any.conf", line, &methods), 0));
  for (int a = 0; a < methods.count; a++)
    for (int b = a + 1; b < methods.count; b++) {
      const char *words =
          cli_text("train %s -o %s --force --quiet --recipe any/%s+%s --hidden 8 --batch 12 --epochs 1%s", data, run,
                   methods.name[a], methods.name[b],
                   strstr(methods.options[a], "fds") || strstr(methods.options[b], "fds") ? " --fds-buckets -4,4" : "");
      const char *more = strstr(methods.options[a], "inverse") || strstr(methods.options[b], "inverse") ||
                                 strcmp(methods.name[a], "bni") == 0 || strcmp(methods.name[b], "bni") == 0
                             ? " --weight-bins -10,0.5,60"
                             : "";
      if (exclude(&methods, a, b))
        continue;
      struct run_result result = cli_run(0, cli_text("%s%s", words, more));
      if (is_senseless(&methods, a, b)) {
        cr_expect(eq(int, result.exit_status, 2), "%s+%s", methods.name[a], methods.name[b]);
        cr_expect(strstr(result.output, " do not go together: ") != NULL, "%s", result.output);
        senseless++;
      } else {
        cr_expect(eq(int, result.exit_status, 0), "%s+%s: %s", methods.name[a], methods.name[b], result.output);
        trained++;
      }
      run_result_free(&result);
    }
  cr_expect(trained > 100 && senseless > 10, "%d pairs trained, %d are senseless", trained, senseless);
}
