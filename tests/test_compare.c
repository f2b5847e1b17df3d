/* conr compare: the paired test, the runs and their table, going on, shares, and mistakes. */
#include "launch/compare_table.h"

#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(compare, .init = cli_begin, .fini = cli_end, .timeout = 240);

/* --- Student's test ------------------------------------------------------------------------------------------- */

/* P(|T| >= t) by Simpson's rule on the density. */
static double by_integration(double t, int freedom) {
  double scale = exp(lgamma((freedom + 1) / 2.0) - lgamma(freedom / 2.0)) / sqrt(freedom * acos(-1)), inside = 0;
  int pieces = 20000;
  for (int i = 0; i <= pieces; i++) {
    double x = t * i / pieces, density = scale * pow(1 + x * x / freedom, -(freedom + 1) / 2.0);
    inside += density * (i == 0 || i == pieces ? 1 : i % 2 ? 4 : 2) * t / pieces / 3;
  }
  return 1 - 2 * inside;
}

Test(compare, p_is_that_of_students_distribution) {
  for (int count = 2; count <= 12; count++) {
    double a[12], b[12], mean = 0, squares = 0;
    for (int i = 0; i < count; i++) {
      a[i] = 1 + sin(3 * i);
      b[i] = cos(5 * i);
      mean += (a[i] - b[i]) / count;
    }
    for (int i = 0; i < count; i++)
      squares += pow(a[i] - b[i] - mean, 2);
    double t = fabs(mean) / sqrt(squares / (count - 1) / count);
    struct paired paired = paired_test(a, b, count);
    cr_expect(ieee_ulp_eq(dbl, paired.mean, mean, 8));
    cr_expect(epsilon_eq(dbl, paired.p, by_integration(t, count - 1), 1e-9), "%d pairs, t %g", count, t);
  }
}

Test(compare, p_of_few_or_equal_pairs) {
  double a[] = {1, 2, 3}, b[] = {1, 2, 3}, c[] = {0, 1, 2};
  cr_expect(eq(dbl, paired_test(a, b, 3).p, 1));
  cr_expect(eq(dbl, paired_test(a, c, 3).p, 0));
  cr_expect(eq(dbl, paired_test(a, c, 3).mean, 1));
  cr_expect(isnan(paired_test(a, c, 1).p));
}

/* --- the program ---------------------------------------------------------------------------------------------- */

static const char *line(const char *data, const char *folder, const char *more) {
  return cli_text("compare %s -o %s --methods l1,huber --with conr --seeds 2 --epochs 2 --hidden 8 --quiet %s", data,
                  folder, more);
}

static json_t *object_of(int ranks, const char *text) {
  char *output = cli_output(ranks, text);
  json_t *object = json_loads(output, 0, NULL);
  cr_assert(object != NULL, "%s", output);
  free(output);
  return object;
}

static long long changed_at(const char *path) {
  struct stat entry;
  cr_assert(zero(int, stat(path, &entry)), "%s", path);
  return (long long)entry.st_mtim.tv_sec * 1000000000 + entry.st_mtim.tv_nsec;
}

Test(compare, every_method_and_seed_is_trained_once_and_told) {
  const char *data = cli_data("t.h5", 60), *folder = io_file("out");
  json_t *object = object_of(2, line(data, folder, "--json")), *method;
  static const char *const names[] = {"l1", "l1+conr", "huber", "huber+conr"};
  static const char *const against[] = {NULL, "l1", "l1", "huber"};
  size_t m;
  cr_assert(eq(sz, json_array_size(json_object_get(object, "methods")), 4));
  json_array_foreach(json_object_get(object, "methods"), m, method) {
    json_t *from = json_object_get(method, "against"), *runs = json_object_get(method, "runs");
    cr_expect(eq(str, (char *)json_string_value(json_object_get(method, "method")), (char *)names[m]));
    cr_expect(against[m] == NULL ? json_is_null(from) : strcmp(json_string_value(from), against[m]) == 0);
    cr_assert(eq(sz, json_array_size(runs), 2));
    double mean = 0;
    for (size_t i = 0; i < 2; i++)
      mean += json_real_value(json_object_get(json_object_get(json_array_get(runs, i), "all"), "mae")) / 2;
    double told = json_real_value(json_object_get(json_object_get(json_object_get(method, "mae"), "all"), "mean"));
    cr_expect(ieee_ulp_eq(dbl, told, mean, 4));
    cr_expect(told > 0);
  }
  json_decref(object);
  /* What conr eval says of a run is what the table says. */
  const char *run = cli_text("%s/l1+conr/seed1", folder);
  long long before = changed_at(cli_last(run));
  json_t *eval = object_of(0, cli_text("eval %s %s --json", run, data)),
         *again = object_of(2, line(data, folder, "--json"));
  json_t *told = json_array_get(json_object_get(json_array_get(json_object_get(again, "methods"), 1), "runs"), 1);
  cr_expect(epsilon_eq(dbl, json_real_value(json_object_get(json_object_get(eval, "all"), "mae")),
                       json_real_value(json_object_get(json_object_get(told, "all"), "mae")), 1e-6));
  cr_expect(eq(i64, changed_at(cli_last(run)), before), "a run that was done was trained again");
  json_decref(eval);
  json_decref(again);
}

Test(compare, shares_leave_runs_to_others_and_give_the_same_table) {
  const char *data = cli_data("t.h5", 60), *whole = io_file("whole"), *shared = io_file("shared");
  for (int share = 1; share <= 3; share++)
    cli_accepted(0, line(data, shared, cli_text("--share %d/3", share)));
  char *one = cli_output(0, line(data, whole, "")), *two = cli_output(0, line(data, shared, ""));
  cr_expect(eq(str, one, two));
  cr_expect(strstr(one, "huber+conr") != NULL && strstr(one, "within seed noise") != NULL, "%s", one);
  free(one);
  free(two);
}

Test(compare, a_method_that_cannot_be_trained_is_told_and_the_others_go_on) {
  const char *data = cli_data("t.h5", 60);
  char *text =
      cli_output(2, cli_text("compare %s -o %s --methods l1 --with conr --seeds 1 --epochs 1 --hidden '' --quiet", data,
                             io_file("out")));
  cr_expect(strstr(text, "not trained: --conr needs features to shape") != NULL, "%s", text);
  free(text);
}

/* Jobs count runs alike, whatever one of them alone has met. */
Test(compare, a_refusal_leaves_no_run_to_nobody) {
  const char *data = cli_data("t.h5", 60), *folder = io_file("out");
  const char *all = "--methods l1,huber,mse --with conr --seeds 2 --epochs 1 --hidden '' --quiet";
  for (int share = 1; share <= 2; share++)
    cli_accepted(0, cli_text("compare %s -o %s %s --share %d/2", data, folder, all, share));
  static const char *const runs[] = {"l1", "huber", "mse"};
  for (int i = 0; i < 3; i++)
    for (int seed = 0; seed < 2; seed++)
      cr_expect(io_exists(cli_last(cli_text("%s/%s/seed%d", folder, runs[i], seed))), "%s, seed %d", runs[i], seed);
}

Test(compare, other_options_do_not_tell_old_results) {
  const char *data = cli_data("t.h5", 60), *folder = io_file("out");
  const char *common = cli_text("compare %s -o %s --methods l1 --seeds 1 --epochs 1 --hidden 4 --quiet", data, folder);
  cli_accepted(0, common);
  cli_refused(2, 2, "l1: --resume with --lr 0.5, but the run was begun with 0.001; give the same, or start a new run",
              cli_text("%s --lr 0.5", common));
  cli_accepted(0, cli_text("%s --lr 0.5 --force", common));
  cli_refused(
      0, 2, "no method can be trained: --conr needs features to shape: give --hidden at least one layer",
      cli_text("compare %s -o %s --methods conr --seeds 1 --epochs 1 --hidden '' --quiet", data, io_file("none")));
}

Test(compare, a_config_file_is_of_the_comparison_too) {
  const char *data = cli_data("t.h5", 60), *folder = io_file("out"), *path = io_file("options");
  FILE *file = fopen(path, "w");
  fprintf(file, "seed = 5\nepochs = 1\nhidden = 4\nquiet = true\n");
  fclose(file);
  cli_accepted(0, cli_text("compare %s -o %s --methods l1 --seeds 1 --config %s", data, folder, path));
  cr_expect(io_exists(cli_last(cli_text("%s/l1/seed5", folder))));
}

Test(compare, one_that_was_stopped_goes_on) {
  const char *data = cli_data("t.h5", 60), *folder = io_file("out");
  const char *words =
      cli_text("compare %s -o %s --methods l1,mse --seeds 2 --epochs 150 --hidden 8 --quiet", data, folder);
  struct cli_job job;
  cli_start(&job, 0, words);
  cli_await_lines(cli_metrics(cli_text("%s/l1/seed0", folder)), 3);
  kill(cli_rank_pid(&job, 0), SIGTERM);
  cr_assert(eq(int, cli_wait(&job), 75), "%s", job.result.output);
  cr_expect(not(io_exists(cli_last(cli_text("%s/mse/seed1", folder)))));
  cli_job_free(&job);
  cli_accepted(0, cli_text("%s", words));
  cr_expect(io_exists(cli_last(cli_text("%s/mse/seed1", folder))));
}

Test(compare, mistakes_are_told_before_anything_is_trained) {
  const char *data = cli_data("t.h5", 60), *folder = io_file("out");
  cli_refused(2, 2, "--methods names l1 twice", cli_text("compare %s -o %s --methods l1,l1", data, folder));
  cli_refused(2, 2, "--methods: \"\" is not a name such as sqinv+lds",
              cli_text("compare %s -o %s --methods l1,", data, folder));
  cli_refused(2, 2, "--share wants K/N with K of 1 to N, such as 2/8, not \"9/8\"",
              cli_text("compare %s -o %s --share 9/8", data, folder));
  cli_refused(2, 2, "--few 50 is above --many 20; a label would be both",
              cli_text("compare %s -o %s --few 50 --many 20", data, folder));
  cli_refused(2, 2, "conr compare wants a folder for its runs: give -o FOLDER", cli_text("compare %s", data));
  cr_expect(ne(int, access(folder, F_OK), 0), "a folder was made");
}
