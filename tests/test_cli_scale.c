/* conr scale: points of weak and strong scaling, what is told of them, shares, going on, predictions, and mistakes.  No
 * test is about speed. */
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <csv.h>
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(cli_scale, .init = cli_begin, .fini = cli_end, .timeout = 240);

static const char *line(const char *data, const char *folder, const char *more) {
  return cli_text("scale %s -o %s --conr --hidden 8 --steps 2 --repeat 2 --threads 1 --quiet %s", data, folder, more);
}

static double number(const json_t *object, const char *key) {
  json_t *value = json_object_get(object, key);
  int is_number = json_is_number(value);
  cr_assert(is_number != 0, "%s is no number", key);
  return json_number_value(value);
}

static json_t *load(const char *path) {
  json_error_t error;
  json_t *object = json_load_file(path, 0, &error);
  cr_assert(object != NULL, "%s: %s", path, error.text);
  return object;
}

static long long changed_at(const char *path) {
  struct stat entry;
  cr_assert(zero(int, stat(path, &entry)), "%s", path);
  return (long long)entry.st_mtim.tv_sec * 1000000000 + entry.st_mtim.tv_nsec;
}

static int points_of(const char *folder) {
  DIR *stream = opendir(cli_text("%s/points", folder));
  int count = 0;
  cr_assert(stream != NULL);
  for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
    count += strstr(entry->d_name, ".json") != NULL;
  closedir(stream);
  return count;
}

/* --- what is promised of a row -------------------------------------------------------------------------------- */

static const json_t *find_row(const json_t *rows, const char *mode, double ranks, double series) {
  size_t i;
  json_t *row;
  json_array_foreach(rows, i, row) if (strcmp(json_string_value(json_object_get(row, "mode")), mode) == 0 &&
                                       number(row, "ranks") == ranks &&
                                       number(row, "series_batch") == series) return row;
  cr_assert(false, "no %s row of %g ranks, batch %g", mode, ranks, series);
  return NULL;
}

static void check_row(const json_t *rows, const char *mode, double ranks, double series) {
  static const char *const phases[] = {"data",     "forward", "loss",   "gather", "panels",
                                       "backward", "reduce",  "update", "rest"};
  const json_t *row = find_row(rows, mode, ranks, series), *first = find_row(rows, mode, 1, series);
  bool weak = strcmp(mode, "weak") == 0;
  double batch = weak ? series * ranks : series, seconds = number(row, "seconds"), sum = 0;
  const char *what = cli_text("%s, %g ranks, %g", mode, ranks, series);
  cr_expect(eq(dbl, number(row, "batch"), batch), "%s", what);
  /* Two views of 8 features; records of features, label, prediction and weight, 8 bytes a row, and a rank's sums. */
  double rows_conr = 2 * batch, others = rows_conr * (ranks - 1) / ranks;
  cr_expect(eq(dbl, number(row, "rows"), rows_conr), "%s", what);
  cr_expect(eq(dbl, number(row, "width"), 8), "%s", what);
  cr_expect(eq(dbl, number(row, "gather_bytes"), others * (4 * 8 + 12 + 8) + 48 * (ranks - 1)), "%s", what);
  cr_expect(gt(dbl, number(row, "flops"), 0), "%s", what);
  cr_expect(ranks > 1 ? number(row, "sum_bytes") >= number(row, "gradient_bytes") : true, "%s", what);
  for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
    double phase = number(row, cli_text("seconds_%s", phases[i]));
    cr_expect(ge(dbl, phase, 0), "%s: %s", what, phases[i]);
    sum += phase;
  }
  cr_expect(epsilon_eq(dbl, sum / seconds, 1, 1e-9), "the phases of %s are not its step", what);
  cr_expect(le(dbl, number(row, "seconds_least"), seconds), "%s", what);
  cr_expect(ge(dbl, number(row, "seconds_most"), seconds), "%s", what);
  cr_expect(epsilon_eq(dbl, number(row, "samples_per_second") * seconds, batch, 1e-6), "%s", what);
  double efficiency = number(first, "seconds") / seconds / (weak ? 1 : ranks);
  cr_expect(epsilon_eq(dbl, number(row, "efficiency"), efficiency, 1e-12), "%s", what);
  double parts = number(row, "predicted_compute") + number(row, "predicted_panels") + number(row, "predicted_gather") +
                 number(row, "predicted_reduce");
  cr_expect(epsilon_eq(dbl, number(row, "predicted_seconds"), parts, 1e-12), "%s", what);
  cr_expect(eq(sz, json_array_size(json_object_get(row, "repeats")), 2), "%s", what);
  static const char *const texts[] = {"host_names", "device", "transport", "version", "commit",
                                      "mpi",        "hdf5",   "onednn",    "date",    "data"};
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
    cr_expect(gt(sz, json_string_length(json_object_get(row, texts[i])), 0), "%s: no %s", what, texts[i]);
  cr_expect(strstr(json_string_value(json_object_get(row, "options")), "hidden = 8\n") != NULL, "%s", what);
}

/* --- CSV ------------------------------------------------------------------------------------------------------ */

#define MOST_FIELDS 64

struct table {
  char *field[64][MOST_FIELDS];
  int rows, fields;
};

static void csv_field(void *text, size_t length, void *user) {
  struct table *table = user;
  cr_assert(table->rows < 64 && table->fields < MOST_FIELDS);
  table->field[table->rows][table->fields++] = strndup(text, length);
}

static void csv_end(int end, void *user) {
  struct table *table = user;
  (void)end;
  table->rows++;
  table->fields = 0;
}

/* Every column of the CSV is what the JSON says, row by row. */
static void expect_same(const char *csv, const json_t *rows) {
  static struct table table;
  struct csv_parser parser;
  size_t bytes;
  char *text = io_read(csv, &bytes);
  cr_assert(zero(int, csv_init(&parser, 0)));
  cr_assert(eq(sz, csv_parse(&parser, text, bytes, csv_field, csv_end, &table), bytes));
  csv_fini(&parser, csv_field, csv_end, &table);
  csv_free(&parser);
  free(text);
  cr_assert(eq(sz, (size_t)table.rows - 1, json_array_size(rows)));
  for (int i = 1; i < table.rows; i++)
    for (int k = 0; table.field[0][k] != NULL; k++) {
      json_t *value = json_object_get(json_array_get(rows, (size_t)i - 1), table.field[0][k]);
      if (json_is_string(value))
        cr_expect(eq(str, (char *)json_string_value(value), table.field[i][k]), "%s", table.field[0][k]);
      else
        cr_expect(eq(dbl, json_number_value(value), atof(table.field[i][k])), "row %d: %s", i, table.field[0][k]);
    }
}

/* --- studies -------------------------------------------------------------------------------------------------- */

Test(cli_scale, weak_and_strong_points_are_measured_once_and_told_in_full) {
  const char *data = cli_data("t.h5", 200), *folder = io_file("study");
  const char *words = line(data, folder, "--ranks 1,2,3 --batches 12,24");
  char *text = cli_output(3, words);
  cr_expect(strstr(text, "weak       12      3") != NULL && strstr(text, "strong     24      3") != NULL, "%s", text);
  cr_expect(strstr(text, "hop between hosts         not determined: it wants points on several hosts") != NULL, "%s",
            text);
  free(text);
  cr_expect(eq(int, points_of(folder), 9), "12 rows, 3 of which are others' too");
  json_t *object = load(cli_text("%s/scale.json", folder)), *rows = json_object_get(object, "rows");
  cr_assert(eq(sz, json_array_size(rows), 12));
  for (double ranks = 1; ranks <= 3; ranks++)
    for (double batch = 12; batch <= 24; batch += 12) {
      check_row(rows, "weak", ranks, batch);
      check_row(rows, "strong", ranks, batch);
    }
  cr_expect(eq(sz, json_array_size(json_object_get(object, "fit")), 8));
  expect_same(cli_text("%s/scale.csv", folder), rows);
  json_decref(object);

  /* The same again measures nothing, and a gnuplot that is not there takes no table away. */
  const char *point = cli_text("%s/points/p3-b36.json", folder);
  long long before = changed_at(point);
  unlink(cli_text("%s/scale.csv", folder));
  setenv("CONR_GNUPLOT", "/nowhere/gnuplot", 1);
  struct run_result run = cli_run(3, cli_text("scale %s -o %s --conr --hidden 8 --threads 1 --ranks 1,2,3 --batches "
                                              "12,24",
                                              data, folder));
  cr_expect(eq(int, run.exit_status, 0), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, "no pictures: "), 1), "%s", run.output);
  run_result_free(&run);
  cr_expect(eq(i64, changed_at(point), before), "a point that was there was measured again");
  cr_expect(io_exists(cli_text("%s/scale.csv", folder)) && io_exists(cli_text("%s/efficiency.gp", folder)) &&
            !(io_exists(cli_text("%s/efficiency.svg", folder))));
  unsetenv("CONR_GNUPLOT");
  cli_refused(0, 2,
              cli_text("%s was measured with hidden = 8, and this is to be with hidden = 4; give the same options, "
                       "--force, or another folder",
                       cli_text("%s/points/p1-b12.json", folder)),
              cli_text("scale %s -o %s --conr --hidden 4 --threads 1 --batches 12", data, folder));
}

Test(cli_scale, shares_hold_their_points_and_all_of_them_make_the_table) {
  const char *data = cli_data("t.h5", 200), *folder = io_file("study");
  const char *all = "--ranks 1,2 --batches 12,24";
  cli_accepted(2, line(data, folder, cli_text("%s --share 1/2", all)));
  cr_expect(eq(int, points_of(folder), 3));
  cr_expect(not(io_exists(cli_text("%s/scale.csv", folder))));
  cr_expect(io_exists(cli_text("%s/points/p1-b12.json", folder)) &&
            !(io_exists(cli_text("%s/points/p2-b24.json", folder))));
  cli_accepted(2, line(data, folder, cli_text("%s --share 2/2", all)));
  cr_expect(eq(int, points_of(folder), 5), "(1, 12) (2, 24) (1, 24) (2, 48) (2, 12); (1, 12), (1, 24), (2, 24) again");
  long long before = changed_at(cli_text("%s/points/p2-b48.json", folder));
  cr_assert(zero(int, unlink(cli_text("%s/points/p2-b12.json", folder))));
  char *text = cli_output(2, line(data, folder, cli_text("%s --json", all)));
  json_t *object = json_loads(text, 0, NULL);
  cr_assert(object != NULL, "%s", text);
  cr_expect(eq(sz, json_array_size(json_object_get(object, "rows")), 8));
  check_row(json_object_get(object, "rows"), "strong", 2, 12);
  json_decref(object);
  free(text);
  cr_expect(eq(i64, changed_at(cli_text("%s/points/p2-b48.json", folder)), before));
  const char *plotted = cli_text("%s/time-split.svg", folder);
  if (system("command -v gnuplot >/dev/null") == 0)
    cr_expect(io_exists(plotted) && io_exists(cli_text("%s/efficiency.png", folder)));
}

Test(cli_scale, a_reproducible_step_can_be_measured) {
  const char *data = cli_data("t.h5", 200), *folder = io_file("study");
  cli_accepted(2, line(data, folder, "--reproducible --batches 24 --mode weak"));
  json_t *object = load(cli_text("%s/scale.json", folder)), *rows = json_object_get(object, "rows");
  for (double ranks = 1; ranks <= 2; ranks++)
    cr_expect(eq(dbl, number(find_row(rows, "weak", ranks, 24), "messages"), 1), "of %g ranks", ranks);
  json_decref(object);
}

/* Is the process asleep?  One that spins never is, however busy the machine. */
static bool is_asleep(pid_t pid) {
  char text[1024];
  FILE *file = fopen(cli_text("/proc/%d/stat", (int)pid), "r");
  cr_assert(file != NULL && fgets(text, sizeof text, file) != NULL);
  fclose(file);
  const char *at = strrchr(text, ')');
  cr_assert(at != NULL);
  return at[2] == 'S';
}

/* A point of one of two ranks; the other one waits, and both are told to stop in the second point. */
Test(cli_scale, one_that_was_stopped_goes_on_and_ranks_without_a_part_use_no_core) {
  const char *data = cli_data("t.h5", 200), *folder = io_file("study"),
             *first = cli_text("%s/points/p1-b12.json", folder);
  const char *words = cli_text("scale %s -o %s --hidden 8 --ranks 1 --batches 12,24,48 --mode weak --steps 3000 "
                               "--repeat 1 --threads 1 --quiet",
                               data, folder);
  struct cli_job job;
  cli_start_within(&job, 120, 2, words);
  cli_await_lines(first, 1);
  pid_t works = cli_rank_pid(&job, 0), waits = cli_rank_pid(&job, 1);
  int asleep = 0;
  for (int i = 0; i < 100; i++, usleep(3000))
    asleep += is_asleep(waits);
  cr_expect(gt(int, asleep, 10), "a rank that has no part spins");
  kill(works, SIGTERM);
  kill(waits, SIGTERM);
  cr_assert(eq(int, cli_wait(&job), 75), "%s", job.result.output);
  cli_job_free(&job);
  cr_expect(not(io_exists(cli_text("%s/points/p1-b48.json", folder))));
  long long kept = changed_at(first);
  cli_accepted(0, cli_text("scale %s -o %s --hidden 8 --ranks 1 --batches 12,24,48 --mode weak --steps 2 --repeat 1 "
                           "--threads 1 --quiet",
                           data, folder));
  cr_expect(eq(i64, changed_at(first), kept));
  cr_expect(eq(int, points_of(folder), 3));
}

/* A point of two of three ranks, one of whom dies: the job's one watch tells so, on the port that was named for it. */
Test(cli_scale, one_that_dies_in_a_point_is_told_of_once) {
  const char *data = cli_data("t.h5", 200);
  struct cli_job job;
  setenv("CONR_WATCH_PORT", cli_text("%d", cli_free_port()), 1);
  cli_start(&job, 3, line(data, io_file("study"), "--ranks 2 --batches 12 --steps 1000000"));
  pid_t dies = cli_rank_pid(&job, 1);
  usleep(1500000);
  kill(dies, SIGKILL);
  cr_expect(ne(int, cli_wait(&job), 0));
  cr_expect(strstr(job.result.output, "/3 ") != NULL, "%s", job.result.output);
  cr_expect(strstr(job.result.output, "] rank 1 (") != NULL, "%s", job.result.output);
  cr_expect(eq(int, cli_count(job.result.output, "conr: "), 1), "%s", job.result.output);
  cli_job_free(&job);
}

/* A point as if its step had taken 1 ms and 10 us a sample, to the last digit. */
static void make_exact(const char *path) {
  json_t *point = load(path);
  double seconds = 1e-3 + 1e-5 * number(point, "batch");
  json_object_set_new(point, "seconds", json_real(seconds));
  json_object_set_new(point, "seconds_least", json_real(0.99 * seconds));
  json_object_set_new(point, "seconds_most", json_real(1.01 * seconds));
  json_object_set_new(point, "seconds_reduce", json_real(0));
  cr_assert(zero(int, json_dump_file(point, path, 0)), "%s", path);
  json_decref(point);
}

/* --- predictions ---------------------------------------------------------------------------------------------- */

Test(cli_scale, a_prediction_takes_no_data_and_a_study_in_place_of_assumptions) {
  const char *folder = io_file("predicted"), *machine = "launch/machines/h200-ndr400.ini";
  char *text = cli_output(0, cli_text("scale --predict --machine %s -o %s", machine, folder));
  cr_expect(strstr(text, "no measurement") != NULL && strstr(text, "  4096   2097152") != NULL, "%s", text);
  free(text);
  json_t *object = load(cli_text("%s/predicted.json", folder)), *rows = json_object_get(object, "rows");
  cr_expect(eq(sz, json_array_size(rows), 20), "8 to 4,096 GPUs, weak and strong");
  cr_expect(epsilon_eq(dbl, number(json_array_get(rows, 9), "share_conr"), 0.20, 0.005));
  expect_same(cli_text("%s/predicted.csv", folder), rows);
  json_decref(object);
  cr_expect(io_exists(cli_text("%s/predicted.gp", folder)));

  const char *study = io_file("study"), *data = cli_data("t.h5", 200);
  cli_accepted(0, cli_text("scale %s -o %s --hidden 8 --batches 4,50,100 --steps 2 --repeat 1 --threads 1 --quiet",
                           data, study));
  for (int i = 0; i < 3; i++)
    make_exact(cli_text("%s/points/p1-b%d.json", study, (const int[]){4, 50, 100}[i]));
  text = cli_output(
      0, cli_text("scale --predict --machine %s --study %s --ranks 16,64 --mode weak --json", machine, study));
  object = json_loads(text, 0, NULL);
  cr_assert(object != NULL, "%s", text);
  rows = json_object_get(object, "rows");
  cr_expect(eq(sz, json_array_size(rows), 2));
  cr_expect(epsilon_eq(dbl, number(json_array_get(rows, 0), "seconds_compute"), 1e-3 + 512 * 1e-5, 1e-9), "%s", text);
  cr_expect(strstr(json_string_value(json_object_get(object, "study")), cli_text("%s: 1 ms and 10 us a row", study)) !=
                NULL,
            "%s", text);
  json_decref(object);
  free(text);
}

/* --- mistakes ------------------------------------------------------------------------------------------------- */

Test(cli_scale, mistakes_are_told_before_anything_is_measured) {
  const char *data = cli_data("t.h5", 200), *folder = io_file("study");
  const struct {
    int ranks;
    const char *options, *sentence;
  } cases[] = {
      {2, "--ranks 1,4", "--ranks 4 are more than the 2 there are; start more: mpirun -n 4 conr scale"},
      {2, "--batches 1 --mode strong",
       "--batches 1 is smaller than 2 ranks; give at least one sample to each, or --mode weak"},
      {0, "--batches 4096",
       cli_text(
           "a batch of 4096 samples is more than the 120 of the training split of %s; give smaller --batches (weak: "
           "those of one rank), or fewer --ranks",
           data)},
      {0, "--batches 24,12", "--batches: 12 stands behind 24; give each once, the smaller first"},
      {0, "--batches ''", "--batches names none"},
      {0, "--batches 12,x", "--batches wants whole numbers separated by commas, not \"12,x\""},
      {0, "--share 3/2", "--share wants K/N with K of 1 to N, such as 2/8, not \"3/2\""},
      {0, "--batch 12", "--batch has no effect on conr scale; drop it, or give --batches"},
      {0, "--init x", "--init has no effect on conr scale; drop it"},
      {0, "--stage2 x", "--stage2 has no effect on conr scale; drop it"},
      {0, "--machine x", "--machine has no effect without --predict; drop one or add the other"},
      {0, "--conr-w 2", "--conr-w has no effect without --conr; drop one or add the other"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    cli_refused(cases[i].ranks, 2, cases[i].sentence, cli_text("scale %s -o %s %s", data, folder, cases[i].options));
  cli_refused(0, 2, "conr scale wants a data file; or give --predict --machine FILE", cli_text("scale -o %s", folder));
  cli_refused(0, 2, "--predict wants to know the machine: give --machine FILE (launch/machines has one)",
              "scale --predict");
  cli_refused(0, 2, cli_text("--predict takes no data, and \"%s\" was given; drop it", data),
              cli_text("scale %s --predict --machine m.ini", data));
  cli_refused(0, 2, "--batches has no effect with --predict, which knows what the machine file says; drop it",
              "scale --predict --machine m.ini --batches 4");
  cli_refused(0, 2, "--hidden has no effect with --predict, which knows what the machine file says; drop it",
              "scale --predict --machine m.ini --hidden 4");
  cr_expect(not(io_exists(cli_text("%s/points/p1-b12.json", folder))));
}

Test(cli_scale, a_damaged_point_is_told_with_its_file) {
  const char *data = cli_data("t.h5", 60), *folder = io_file("study"), *words = line(data, folder, "--batches 12");
  cli_accepted(0, words);
  const char *path = cli_text("%s/points/p1-b12.json", folder);
  io_write_text(path, "{\"ranks\": 1}");
  cli_refused(0, 1, cli_text("%s has no batch as conr scale writes it; remove the file", path), words);
}
