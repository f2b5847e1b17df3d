/* conr report as a user meets it: its numbers are those of eval, predict and metrics.jsonl on any number of ranks; what
 * is missing is told; names do no harm; the page needs nothing but itself. */
#include "io_files.h"
#include "launch/plotter.h"
#include "support_cli.h"
#include "tests/emulated.h"
#include "tests/well_formed.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NASTY "a<b>&\"c"

/* Most tests are about numbers: those do not wait for gnuplot. */
static void begin(void) {
  cli_begin();
  setenv("CONR_GNUPLOT", io_file("no-gnuplot"), 1);
}

TestSuite(cli_report, .init = begin, .fini = cli_end, .timeout = 120);

static const char *trained(const char *name, const char *data, const char *options) {
  const char *run = io_file(name);
  cli_accepted(0, cli_text("train %s -o '%s' --epochs 2 --quiet --precision f64 %s", data, run, options));
  return run;
}

/* The file of a report's folder. */
static char *report_file(const char *report, const char *name) {
  return io_read(cli_text("%s/%s", report, name), NULL);
}

static json_t *report_json(const char *report) {
  char *text = report_file(report, "report.json");
  json_t *object = json_loads(text, 0, NULL);
  cr_assert(object != NULL, "%s", text);
  free(text);
  return object;
}

static const json_t *run_of(const json_t *report, size_t index) {
  return json_array_get(json_object_get(report, "runs"), index);
}

static const char *text_of(const json_t *object, const char *key) {
  const char *text = json_string_value(json_object_get(object, key));
  return text != NULL ? text : "(null)";
}

static double number_of(const json_t *object, const char *group, const char *key) {
  return json_number_value(json_object_get(json_object_get(object, group), key));
}

/* The same texts, and numbers that differ by no more than this, relative to those above 1. */
static void same_table(const char *one, const char *other, const char *name, double tolerance) {
  char *a = report_file(one, name), *b = report_file(other, name), *at_a = a, *at_b = b;
  while (*at_a != '\0' && *at_b != '\0') {
    char *end_a, *end_b;
    double x = strtod(at_a, &end_a), y = strtod(at_b, &end_b);
    if (end_a > at_a && end_b > at_b) {
      cr_assert(fabs(x - y) <= tolerance * fmax(1, fabs(x)), "%s: %.40s is not %.40s", name, at_a, at_b);
      at_a = end_a;
      at_b = end_b;
    } else {
      cr_assert(eq(chr, *at_a++, *at_b++), "%s: %.40s is not %.40s", name, at_a - 1, at_b - 1);
    }
  }
  cr_assert(eq(chr, *at_a, *at_b), "%s: another length", name);
  cr_assert(cli_count(a, "\n") > 1, "%s is empty", name);
  free(a);
  free(b);
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* MAE, GM and counts of all groups, as conr eval gives them. */
static void has_errors_of_eval(const json_t *run, const char *folder, const char *data) {
  static const char *const groups[] = {"all", "many", "median", "few"};
  char *text = cli_output(0, cli_text("eval '%s' %s --json --many 3 --few 2", folder, data));
  json_t *table = json_loads(text, 0, NULL);
  const json_t *errors = json_object_get(run, "errors");
  cr_assert(table != NULL && errors != NULL, "%s", text);
  for (int g = 0; g < 4; g++) {
    cr_assert(eq(dbl, number_of(errors, groups[g], "count"), number_of(table, groups[g], "count")));
    cr_assert(eq(dbl, number_of(errors, groups[g], "mae"), number_of(table, groups[g], "mae")), "%s", groups[g]);
    cr_assert(eq(dbl, number_of(errors, groups[g], "gmean"), number_of(table, groups[g], "gmean")), "%s", groups[g]);
  }
  json_decref(table);
  free(text);
}

/* What conr predict writes is what the points are, in their order. */
static void has_points_of_predict(const char *report, const char *folder, const char *data) {
  cli_accepted(0, cli_text("predict '%s' %s -o %s --quiet", folder, data, io_file("p.csv")));
  char *points = report_file(report, "predictions.csv"), *predicted = io_read(io_file("p.csv"), NULL);
  char *point = strchr(points, '\n') + 1, *line = strchr(predicted, '\n') + 1;
  int rows = 0;
  for (; *line != '\0'; line = strchr(line, '\n') + 1, point = strchr(point, '\n') + 1, rows++) {
    double label, prediction, expected_label, expected;
    cr_assert(eq(int, sscanf(point, "\"run\",\"y\",%lf,%lf", &label, &prediction), 2), "%.60s", point);
    cr_assert(eq(int, sscanf(line, "%*d,%lf,%lf", &expected_label, &expected), 2), "%.60s", line);
    cr_assert(eq(dbl, label, expected_label));
    cr_assert(eq(dbl, prediction, expected));
  }
  cr_assert(eq(int, rows, 40));
  free(points);
  free(predicted);
}

Test(cli_report, its_numbers_are_those_of_eval_and_predict_on_any_number_of_ranks) {
  static const char *const tables[] = {"curves.csv", "labels.csv", "predictions.csv", "similarity.csv",
                                       "similarity_distance.csv"};
  const char *data = cli_data("t.h5", 200), *plain = trained("run", data, "--seed 3"),
             *nasty = trained(NASTY, data, "--conr --conr-beta 0.5"), *alone = io_file("alone"),
             *three = io_file("three");
  const char *line = cli_text("report %s '%s' --many 3 --few 2 --batch 16 --quiet", plain, nasty);
  cli_accepted(0, cli_text("%s -o %s", line, alone));
  cli_accepted(3, cli_text("%s -o %s", line, three));
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    same_table(alone, three, tables[i], 1e-12); /* sums over ranks round otherwise */
  json_t *report = report_json(three);
  cr_expect(eq(str, (char *)text_of(run_of(report, 1), "name"), NASTY));
  has_errors_of_eval(run_of(report, 0), plain, data);
  has_errors_of_eval(run_of(report, 1), nasty, data);
  has_points_of_predict(three, plain, data);
  char *differences = json_dumps(json_object_get(report, "options_that_differ"), JSON_COMPACT);
  cr_expect(strstr(differences, "\"conr\",\"conr-beta\"") != NULL && strstr(differences, "\"seed\"") != NULL, "%s",
            differences);
  cr_expect(strstr(differences, "output") == NULL && strstr(differences, "\"lr\"") == NULL, "%s", differences);
  char why[300], *page = report_file(three, "index.html");
  cr_expect(well_formed(page, why, sizeof why), "%s", why);
  cr_expect(self_contained(page, why, sizeof why), "%s", why);
  cr_expect(strstr(page, "a&lt;b&gt;&amp;&quot;c") != NULL);
  free(page);
  free(differences);
  json_decref(report);
}

static void says(const char *line, const char *sentence) {
  struct run_result said = cli_run(0, line);
  cr_assert(eq(int, said.exit_status, 0), "%s", said.output);
  cr_assert(eq(int, cli_count(said.output, sentence), 1), "no \"%s\" in %s", sentence, said.output);
  run_result_free(&said);
}

/* The emulation multiplies matrices in another order: float32, and sums of less than 100 products. */
Test(cli_report, a_gpu_shows_the_same) {
  static const char *const tables[] = {"labels.csv", "predictions.csv", "similarity.csv", "similarity_distance.csv"};
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  const char *data = cli_data("t.h5", 100), *run = trained("run", data, "--precision f32 --device cpu"),
             *host = io_file("host"), *gpu = io_file("gpu");
  cli_accepted(0, cli_text("report %s -o %s --device cpu --quiet", run, host));
  cli_accepted(0, cli_text("report %s -o %s --device cuda --quiet", run, gpu));
  for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
    same_table(host, gpu, tables[i], 100 * FLT_EPSILON);
}

/* Every row counts once, whatever its bin; and without gnuplot all but the pictures is there. */
Test(cli_report, bins_hold_all_samples_and_their_errors_make_the_mean) {
  const char *data = cli_data("t.h5", 200), *run = trained("run", data, ""), *folder = io_file("report");
  says(cli_text("report %s -o %s", run, folder), "no pictures are drawn: ");
  char *text = report_file(folder, "labels.csv"), *page = report_file(folder, "index.html");
  double train_sum = 0, sum = 0, errors = 0;
  for (char *line = strchr(text, '\n') + 1; *line != '\0'; line = strchr(line, '\n') + 1) {
    double low, high, train, rows, mae = 0;
    char group[16];
    int fields =
        sscanf(line, "\"run\",\"y\",\"%15[a-z]\",%lf,%lf,%lf,%lf,%lf", group, &low, &high, &train, &rows, &mae);
    cr_assert(fields >= 5 && (rows == 0) == (fields == 5), "%.80s", line);
    train_sum += train;
    sum += rows;
    errors += rows * mae;
  }
  json_t *report = report_json(folder);
  cr_expect(eq(dbl, train_sum, 120));
  cr_expect(eq(dbl, sum, 40));
  double mae = number_of(json_object_get(run_of(report, 0), "errors"), "all", "mae");
  cr_expect(fabs(errors / sum - mae) < 1e-12 * mae, "%g, not %g", errors / sum, mae);
  cr_expect(strstr(page, "install gnuplot 5.2 or newer") != NULL && strstr(page, "<svg") == NULL);
  cr_expect(io_exists(cli_text("%s/errors.gp", folder)));
  cr_expect(eq(int, io_exists(cli_text("%s/errors.svg", folder)), 0));
  json_decref(report);
  free(text);
  free(page);
}

Test(cli_report, a_resumed_run_has_each_epoch_once_and_damage_is_told) {
  const char *data = cli_data("t.h5", 60), *run = trained("run", data, ""), *folder = io_file("report");
  cli_accepted(0, cli_text("train %s -o %s --epochs 4 --quiet --precision f64 --resume", data, run));
  FILE *metrics = fopen(cli_metrics(run), "a");
  fputs("no line\n{\"event\":\"epoch\",\"epo", metrics);
  fclose(metrics);
  struct run_result said = cli_run(0, cli_text("report %s -o %s", run, folder));
  cr_assert(eq(int, said.exit_status, 0), "%s", said.output);
  cr_expect(strstr(said.output, "run: 1 line of metrics.jsonl cannot be read and is left out") != NULL, "%s",
            said.output);
  cr_expect(strstr(said.output, "the last line of metrics.jsonl was cut short and is left out") != NULL, "%s",
            said.output);
  char *curves = report_file(folder, "curves.csv"), *page = report_file(folder, "index.html");
  cr_expect(eq(int, cli_count(curves, "\n"), 5));
  for (int epoch = 1; epoch <= 4; epoch++)
    cr_expect(eq(int, cli_count(curves, cli_text("\"run\",%d,", epoch)), 1), "%s", curves);
  cr_expect(strstr(page, "cannot be read and is left out</li>") != NULL);
  free(curves);
  free(page);
  run_result_free(&said);
}

/* The epochs of a run's metrics.jsonl, in order. */
static json_t *epochs_of(const char *run) {
  json_t *epochs = json_array(), *line;
  FILE *file = fopen(cli_metrics(run), "r");
  while ((line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL)) != NULL)
    json_array_append_new(epochs, line);
  fclose(file);
  return epochs;
}

static double mean_over(const json_t *epochs, const char *key) {
  double sum = 0;
  size_t e;
  json_t *epoch;
  json_array_foreach(epochs, e, epoch) sum += json_number_value(json_object_get(epoch, key));
  return sum / (double)json_array_size(epochs);
}

/* Each field of curves.csv stands in metrics.jsonl under its column's name. */
static void has_curves_of(const char *folder, const json_t *epochs) {
  char *curves = report_file(folder, "curves.csv"), *lines = curves, *columns = strsep(&lines, "\n");
  size_t e;
  json_t *epoch;
  json_array_foreach(epochs, e, epoch) {
    char *names = strdup(columns), *rest_of_names = names, *fields = strsep(&lines, "\n");
    cr_assert(eq(str, strsep(&rest_of_names, ","), "run"));
    cr_assert(eq(str, strsep(&fields, ","), "\"run\""));
    int numbers = 0;
    for (char *name, *field; (name = strsep(&rest_of_names, ",")) != NULL; numbers++) {
      const json_t *value = json_object_get(epoch, name);
      field = strsep(&fields, ",");
      cr_assert(value != NULL && field != NULL, "%s", name);
      double expected = json_number_value(value) + (strcmp(name, "epoch") == 0); /* shown from 1 on */
      bool same = json_is_null(value) ? field[0] == '\0' : strtod(field, NULL) == expected;
      cr_assert(same, "%s is %s, not %.17g", name, field, expected);
    }
    cr_assert(numbers > 30 && fields == NULL, "%d columns", numbers);
    free(names);
  }
  cr_assert(eq(str, lines, ""));
  free(curves);
}

static double seconds_of(const char *table, const char *phase, double *least, double *most) {
  double seconds = NAN;
  const char *line = strstr(table, cli_text("\"run\",\"%s\",", phase));
  cr_assert(line != NULL, "no %s in %s", phase, table);
  line += strlen("\"run\",\"\",") + strlen(phase);
  if (least == NULL)
    sscanf(line, "%lf", &seconds);
  else
    sscanf(line, "%lf,%lf,%lf", least, &seconds, most);
  return seconds;
}

/* Phases are a whole: what is spent in parts of the loss is not counted twice, and what has no column is "other". */
Test(cli_report, curves_and_times_are_those_of_metrics) {
  static const char *const phases[][2] = {{"waiting for data", "data_wait"}, {"forward", "time_forward"},
                                          {"ConR gather", "time_gather"},    {"regularisers", "time_regularisers"},
                                          {"backward", "time_backward"},     {"sums over ranks", "time_reduce"},
                                          {"update", "time_update"}};
  static const char *const of_ranks[][2] = {
      {"waiting for data", "data"}, {"computing", "compute"}, {"waiting for ranks", "wait"}};
  const char *data = cli_data("t.h5", 100), *run = io_file("run"), *folder = io_file("report");
  cli_accepted(2, cli_text("train %s -o %s --epochs 2 --quiet --conr --ranksim", data, run));
  cli_accepted(0, cli_text("report %s -o %s --quiet", run, folder));
  json_t *epochs = epochs_of(run);
  has_curves_of(folder, epochs);
  char *times = report_file(folder, "time.csv"), *ranks = report_file(folder, "time_ranks.csv");
  double all = seconds_of(times, "loss", NULL, NULL) + seconds_of(times, "other", NULL, NULL);
  for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
    double seconds = seconds_of(times, phases[i][0], NULL, NULL), expected = mean_over(epochs, phases[i][1]);
    cr_assert(fabs(seconds - expected) <= 1e-12 * expected, "%s: %g, not %g", phases[i][0], seconds, expected);
    all += seconds;
  }
  cr_assert(seconds_of(times, "regularisers", NULL, NULL) > 0);
  double whole = mean_over(epochs, "seconds");
  cr_assert(fabs(all - whole) <= 1e-9 * whole, "%g, not %g", all, whole);
  for (size_t i = 0; i < sizeof of_ranks / sizeof *of_ranks; i++) {
    double least, most, median = seconds_of(ranks, of_ranks[i][0], &least, &most);
    const double got[] = {least, median, most};
    const char *const ends[] = {"min", "median", "max"};
    for (int k = 0; k < 3; k++) {
      double expected = mean_over(epochs, cli_text("rank_%s_%s", of_ranks[i][1], ends[k]));
      cr_assert(fabs(got[k] - expected) <= 1e-12 * expected, "%s %s", of_ranks[i][0], ends[k]);
    }
  }
  char *script = report_file(folder, "time.gp");
  cr_expect(eq(int, cli_count(script, "\nplot "), 2), "%s", script);
  free(script);
  free(times);
  free(ranks);
  json_decref(epochs);
}

/* ---- what is missing ------------------------------------------------------------------------ */

Test(cli_report, data_that_are_gone_or_others_leave_what_the_run_says_itself) {
  const char *data = cli_data("t.h5", 60), *other = cli_data("other.h5", 61), *run = trained("run", data, ""),
             *folder = io_file("report"), *moved = io_file("moved.h5");
  cli_refused(
      2, 2,
      cli_text("--data %s is of no use: run: %s is not the data it was trained on; name that file by --data FILE",
               other, other),
      cli_text("report %s -o %s --data %s --quiet", run, folder, other));
  cli_accepted(0, cli_text("report %s -o %s --quiet", run, folder));
  cr_assert(eq(int, io_exists(cli_text("%s/errors.gp", folder)), 1));
  cr_assert(eq(int, rename(data, moved), 0));
  says(cli_text("report %s -o %s", run, folder), "run: no errors, predictions and features: its data file");
  json_t *report = report_json(folder);
  cr_expect(strstr(text_of(run_of(report, 0), "left_out"), "name it by --data FILE") != NULL);
  cr_expect(eq(dbl, json_number_value(json_object_get(run_of(report, 0), "epochs")), 2));
  cr_expect(json_object_get(run_of(report, 0), "errors") == NULL);
  cr_expect(eq(sz, json_array_size(json_object_get(report, "pictures")), 2)); /* curves and time */
  cr_expect(eq(int, io_exists(cli_text("%s/errors.gp", folder)), 0), "an earlier report's picture is there");
  json_decref(report);
  cli_accepted(0, cli_text("report %s -o %s --data %s --quiet", run, folder, moved));
  report = report_json(folder);
  cr_expect(json_object_get(run_of(report, 0), "errors") != NULL);
  json_decref(report);
  /* A run that was killed before its first checkpoint has curves at most. */
  cr_assert(eq(int, rename(moved, data), 0));
  unlink(cli_text("%s/checkpoint-last.h5", run));
  unlink(cli_text("%s/checkpoint-best.h5", run));
  unlink(cli_text("%s/checkpoint-previous.h5", run));
  says(cli_text("report %s -o %s", run, folder),
       cli_text("run: no errors, predictions and features: %s holds no checkpoint", run));
}

/* A linear model's features are its inputs, which are all 0 where a column never changes. */
Test(cli_report, features_without_a_direction_are_told) {
  FILE *file = fopen(io_file("z.csv"), "w");
  fputs("x,y\n", file);
  for (int r = 0; r < 60; r++)
    fprintf(file, "5,%d\n", r);
  fclose(file);
  cli_accepted(0, cli_text("import %s --target y -o %s --quiet", io_file("z.csv"), io_file("z.h5")));
  const char *run = trained("zero", io_file("z.h5"), "--hidden ''");
  says(cli_text("report %s -o %s", run, io_file("report")),
       "zero: the features of 9 of 9 samples are all 0, or not finite: they are in no pair");
}

Test(cli_report, labels_of_components_have_a_picture_each_and_of_many_none) {
  const char *folder = io_file("report");
  FILE *file = fopen(io_file("k.csv"), "w");
  fputs("x,a,b,c,d,e,f,g,h,i,split\n", file);
  for (int r = 0; r < 60; r++)
    fprintf(file, "%d,%d,%g,%d,%d,%d,%d,%d,%d,%d,%s\n", r % 7, r % 5, 0.1 * (r % 11), r, 2 * r, 3 * r, 4 * r, 5 * r,
            6 * r, 7 * r, r % 3 == 0 ? "test" : "train");
  fclose(file);
  cli_accepted(0, cli_text("import %s --target a,b --drop c,d,e,f,g,h,i --split-column split -o %s --quiet",
                           io_file("k.csv"), io_file("two.h5")));
  cli_accepted(0, cli_text("import %s --target a,b,c,d,e,f,g,h,i --split-column split -o %s --quiet", io_file("k.csv"),
                           io_file("nine.h5")));
  const char *two = trained("two", io_file("two.h5"), "");
  cli_accepted(0, cli_text("report %s -o %s --quiet", two, folder));
  char *labels = report_file(folder, "labels.csv"), *script = report_file(folder, "errors.gp");
  cr_expect(cli_count(labels, "\"two\",\"a\",\"\",") > 1 && cli_count(labels, "\"two\",\"b\",\"\",") > 1, "%s", labels);
  cr_expect(eq(int, cli_count(script, "\nplot "), 2));
  const char *nine = trained("nine", io_file("nine.h5"), "");
  says(cli_text("report %s -o %s", nine, folder),
       "nine: its labels have 9 components; pictures of labels and features are drawn for up to 8");
  free(labels);
  free(script);
}

/* ---- refused -------------------------------------------------------------------------------- */

Test(cli_report, what_cannot_be_meant_is_refused) {
  const char *data = cli_data("t.h5", 60), *run = trained("run", data, ""), *folder = io_file("page");
  cli_refused(0, 2, "conr report wants RUN ...; see conr report --help", "report");
  cli_refused(0, 2, "cannot open run folder nowhere: No such file or directory", "report nowhere");
  cli_refused(2, 2, cli_text("%s is no run folder; give the folder that conr train -o wrote", data),
              cli_text("report %s", data));
  cli_refused(0, 2, cli_text("%s is named twice", run), cli_text("report %s %s", run, run));
  cli_refused(0, 2, "conr report does not know what to do with \"9\"; see conr report --help",
              "report 1 2 3 4 5 6 7 8 9");
  cli_refused(0, 2, "--few 200 is above --many 100; a label would be both", cli_text("report %s --few 200", run));
  cr_assert(eq(int, mkdir(folder, 0755), 0));
  const char *const own[] = {"index.html", "labels.csv", "time.png", "report.json"};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
    const char *path = cli_text("%s/%s", folder, own[i]);
    io_write_text(path, "{\"command\": \"somebody's own\"}");
    cli_refused(i == 0 ? 2 : 0, 2,
                cli_text("%s holds a file %s that is none of conr report; give another folder by -o, or --force",
                         folder, own[i]),
                cli_text("report %s -o %s", run, folder));
    unlink(path);
  }
  io_write_text(cli_text("%s/index.html", folder), "somebody's own");
  cli_accepted(0, cli_text("report %s -o %s --force --quiet", run, folder));
  cli_accepted(0, cli_text("report %s -o %s --quiet", run, folder)); /* its own it replaces */
}

/* ---- pictures ------------------------------------------------------------------------------- */

Test(cli_report, every_picture_is_drawn_and_stands_in_the_page) {
  static const char *const stems[] = {"labels", "errors", "predictions", "similarity", "similarity_distance",
                                      "curves", "time"};
  struct plotter plotter;
  unsetenv("CONR_GNUPLOT");
  if (!plotter_find(&plotter))
    cr_skip("%s", plotter.why);
  char why[300];
  const char *data = cli_data("t.h5", 100), *one = trained("one", data, ""),
             *two = trained(NASTY " `touch x`", data, ""), *folder = io_file("r < e");
  cli_accepted(2, cli_text("report %s '%s' -o '%s' --many 3 --few 2 --quiet", one, two, folder));
  char *page = report_file(folder, "index.html");
  cr_expect(well_formed(page, why, sizeof why), "%s", why);
  cr_expect(self_contained(page, why, sizeof why), "%s", why);
  cr_expect(eq(int, cli_count(page, "<svg "), 7));
  cr_expect(strstr(page, "a&lt;b&gt;&amp;&quot;c `touch x`") != NULL);
  cr_expect(eq(int, io_exists("x") || io_exists(io_file("x")), 0), "a name was a command");
  for (size_t i = 0; i < sizeof stems / sizeof *stems; i++) {
    char *svg = report_file(folder, cli_text("%s.svg", stems[i])),
         *png = report_file(folder, cli_text("%s.png", stems[i]));
    cr_expect(well_formed(svg, why, sizeof why), "%s: %s", stems[i], why);
    cr_expect(eq(int, memcmp(png, "\x89PNG", 4), 0), "%s", stems[i]);
    free(svg);
    free(png);
  }
  free(page);
}
