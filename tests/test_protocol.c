/* Stress protocols: the rule's quotas and sizes are exact, splits share no row, draws are functions of the seed. */
#include "io/protocol.h"

#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(protocol, .init = cli_begin, .fini = cli_end, .timeout = 120);

#define AGES 102
#define MOST_ROWS 60000

/* Ages 1 to 101, few at the ends, in an order that is none; returns how many rows. */
static int64_t draw_ages(int most, double *labels, int64_t count[AGES]) {
  int64_t rows = 0;
  memset(count, 0, AGES * sizeof *count);
  for (int k = 0; k < most; k++)
    for (int age = 1; age < AGES; age++)
      if (k < 2 + most * exp(-0.002 * (age - 40) * (age - 40))) {
        labels[rows++] = age;
        count[age]++;
      }
  return rows;
}

struct tally {
  int64_t drawn[AGES], split[AGES][SPLIT_COUNT], untouched[AGES];
};

static struct tally tally_of(int64_t rows, const double *labels, const uint16_t *copies) {
  struct tally tally = {0};
  for (int64_t i = 0; i < rows; i++) {
    int age = (int)labels[i];
    const uint16_t *of = copies + i * SPLIT_COUNT;
    int splits = (of[SPLIT_TRAIN] > 0) + (of[SPLIT_VAL] > 0) + (of[SPLIT_TEST] > 0);
    cr_assert(splits <= 1, "row %lld is in two splits", (long long)i);
    for (int split = 0; split < SPLIT_COUNT; split++)
      tally.split[age][split] += of[split];
    tally.untouched[age] += of[SPLIT_TRAIN] + of[SPLIT_VAL] == 0;
  }
  return tally;
}

static double weight(enum protocol kind, int a) {
  return kind == PROTOCOL_EXTRAPOLATION   ? exp(-0.01 * pow(a - 50, 2))
         : kind == PROTOCOL_INTERPOLATION ? exp(-0.01 * pow(a - 25, 2)) + exp(-0.01 * pow(a - 80, 2))
                                          : 1;
}

static void check(enum protocol kind, int least, int most, bool even, bool aligned, int blind_least, int blind_most) {
  static double labels[MOST_ROWS];
  static uint16_t copies[MOST_ROWS * SPLIT_COUNT];
  int64_t count[AGES], took_part = 0, drawn = 0, first = AGES, last = 0;
  double sum = 0;
  struct protocol_report report;
  struct protocol_options options = {.kind = kind, .bin_width = 1, .seed = 11};
  memset(copies, 0, sizeof copies);
  int64_t rows = draw_ages(400, labels, count);
  cr_assert(eq(int, protocol_draw(&options, rows, labels, copies, &report), STATUS_OK), "%s", status_message());
  struct tally tally = tally_of(rows, labels, copies);
  for (int age = least; age <= most; age++) {
    took_part += count[age];
    sum += weight(kind, age);
    if (tally.split[age][SPLIT_TEST] > 0) {
      first = age < first ? age : first;
      last = age;
    }
  }
  for (int age = 1; age < AGES; age++) {
    int64_t quota = (int64_t)fmin((double)count[age], floor(4.0 * (double)took_part * weight(kind, age) / sum));
    bool in = age >= least && age <= most && (!aligned || (age >= first && age <= last));
    bool blind = age >= blind_least && age <= blind_most;
    int64_t learned = tally.split[age][SPLIT_TRAIN] + tally.split[age][SPLIT_VAL],
            tested = tally.split[age][SPLIT_TEST];
    if (in)
      drawn += quota;
    /* Copies of a validation row leave training, so that less than the quota may be left. */
    cr_expect(learned <= (in && !blind ? quota : 0), "age %d: %lld learned, quota %lld", age, (long long)learned,
              (long long)quota);
    if (in && !blind && quota > 20)
      cr_expect(learned > 0.75 * (double)quota, "age %d: %lld learned, quota %lld", age, (long long)learned,
                (long long)quota);
    cr_expect(tested == 50 || (!even && tested <= tally.untouched[age] && tested < 50) || tested == 0, "age %d", age);
    if (tested > 0 && (age < least || age > most))
      cr_expect(zero(int, age), "age %d is tested", age);
  }
  cr_expect(eq(i64, report.drawn, drawn));
  if (blind_most < blind_least)
    cr_expect(eq(i64, report.rows[SPLIT_VAL], (int64_t)nearbyint(0.1 * (double)drawn)));
  cr_expect(report.sources[SPLIT_TRAIN] < report.rows[SPLIT_TRAIN], "draws are with replacement");
  cr_expect(report.tested_bins > 30);
}

Test(protocol, quotas_and_sizes_are_those_of_the_rule) {
  check(PROTOCOL_EXTRAPOLATION, 1, 101, true, false, 1, 0);
  check(PROTOCOL_INTERPOLATION, 1, 101, true, true, 1, 0);
  check(PROTOCOL_BLIND_SPOT, 20, 73, false, true, 47, 53);
}

Test(protocol, draws_depend_on_the_seed_alone_and_bins_on_the_width) {
  static double labels[MOST_ROWS], wide[MOST_ROWS];
  static uint16_t one[MOST_ROWS * SPLIT_COUNT], two[MOST_ROWS * SPLIT_COUNT], other[MOST_ROWS * SPLIT_COUNT];
  int64_t count[AGES], rows = draw_ages(300, labels, count);
  struct protocol_report report;
  struct protocol_options options = {.kind = PROTOCOL_INTERPOLATION, .bin_width = 1, .seed = 1};
  for (int64_t i = 0; i < rows; i++)
    wide[i] = labels[i] * 0.07;
  cr_assert(eq(int, protocol_draw(&options, rows, labels, one, &report), STATUS_OK));
  options.bin_width = 0.07;
  cr_assert(eq(int, protocol_draw(&options, rows, wide, two, &report), STATUS_OK));
  cr_expect(zero(int, memcmp(one, two, (size_t)rows * SPLIT_COUNT * sizeof *one)));
  options.seed = 2;
  cr_assert(eq(int, protocol_draw(&options, rows, wide, other, &report), STATUS_OK));
  cr_expect(ne(int, memcmp(one, other, (size_t)rows * SPLIT_COUNT * sizeof *one), 0));
}

Test(protocol, labels_that_leave_nothing_are_told) {
  double labels[300];
  uint16_t copies[300 * SPLIT_COUNT] = {0};
  struct protocol_report report;
  struct protocol_options options = {.kind = PROTOCOL_BLIND_SPOT, .bin_width = 1};
  for (int i = 0; i < 300; i++)
    labels[i] = i % 3;
  cr_expect(eq(int, protocol_draw(&options, 300, labels, copies, &report), ERR_ARGUMENT));
  cr_expect(strstr(status_message(), "--protocol blind-spot leaves no row for testing: 0 rows lie in 0 bins of 1; give "
                                     "another --protocol-bin") != NULL,
            "%s", status_message());
}

Test(protocol, labels_far_from_its_bins_are_told) {
  double labels[300];
  uint16_t copies[300 * SPLIT_COUNT] = {0};
  struct protocol_report report;
  struct protocol_options options = {.kind = PROTOCOL_EXTRAPOLATION, .bin_width = 1};
  for (int i = 0; i < 300; i++)
    labels[i] = 1922 + i % 90;
  cr_expect(eq(int, protocol_draw(&options, 300, labels, copies, &report), ERR_ARGUMENT));
  cr_expect(strstr(status_message(), "with bins of 1 none lies near them; give another --protocol-bin") != NULL, "%s",
            status_message());
  labels[7] = 1e300;
  cr_expect(eq(int, protocol_draw(&options, 300, labels, copies, &report), ERR_ARGUMENT));
}

/* --- the program ---------------------------------------------------------------------------------------------- */

/* Each row of the file is one of the table, whole: column b and the label belong to a, the number of the source row. */
static void expect_rows_of(const char *csv, const char *data) {
  static double age[MOST_ROWS];
  struct comm *comm;
  struct dataset *dataset;
  int64_t number, rows = 0, seen = 0;
  double b;
  FILE *file = fopen(csv, "r");
  cr_assert(eq(int, fscanf(file, "%*[^\n]"), 0));
  while (fscanf(file, "%*d,%lf,%lf,%*s", &b, &age[rows]) == 2)
    rows++;
  fclose(file);
  MPI_Init(NULL, NULL);
  cr_assert(eq(int, comm_create(MPI_COMM_SELF, &comm), STATUS_OK));
  struct standardisation plain = {.features = 2, .mean = (double[]){0, 0}, .std = (double[]){1, 1}};
  cr_assert(eq(int, dataset_open_as(data, comm, F64, &plain, &dataset), STATUS_OK), "%s", status_message());
  for (int split = 0; split < SPLIT_COUNT; split++)
    for (int64_t i = 0; i < dataset_split_rows(dataset, (enum split)split); i++, seen++) {
      const int64_t *id = dataset_split_ids(dataset, (enum split)split) + i;
      double inputs[2];
      cr_assert(eq(int, dataset_read(dataset, id, 1, inputs), STATUS_OK), "%s", status_message());
      number = (int64_t)inputs[0];
      cr_assert(number >= 0 && number < rows, "row %lld has number %g", (long long)*id, inputs[0]);
      cr_assert(fabs(inputs[1] - sin((double)number)) < 1e-5 && dataset_target(dataset)[*id] == age[number],
                "row %lld is not row %lld of the table", (long long)*id, (long long)number);
    }
  cr_expect(seen > 0);
  dataset_close(&dataset);
  comm_destroy(&comm);
  MPI_Finalize();
}

static const char *ages_csv(void) {
  static double labels[MOST_ROWS];
  int64_t count[AGES], rows = draw_ages(200, labels, count);
  const char *path = io_file("ages.csv");
  FILE *file = fopen(path, "w");
  fprintf(file, "a,b,age,split\n");
  for (int64_t i = 0; i < rows; i++)
    fprintf(file, "%lld,%g,%g,%s\n", (long long)i, sin((double)i), labels[i], i % 2 ? "train" : "test");
  fclose(file);
  return path;
}

Test(protocol, a_table_is_imported_by_one_and_trains) {
  const char *csv = ages_csv(), *data = io_file("x.h5");
  char *text = cli_output(
      0, cli_text("import %s --target age --split-column split --protocol extrapolation --seed 3 -o %s", csv, data));
  long long rows, train, val, test, sources, of_val, of_test, bins;
  cr_assert(eq(int, sscanf(strstr(text, ": "), ": %lld rows", &rows), 1), "%s", text);
  cr_assert(eq(
      int, sscanf(strstr(text, "  training"), "  training %lld, validation %lld, test %lld", &train, &val, &test), 3));
  cr_assert(eq(int,
               sscanf(strstr(text, "  drawn from "), "  drawn from %lld, %lld and %lld different rows; %lld", &sources,
                      &of_val, &of_test, &bins),
               4));
  cr_expect(eq(i64, rows, train + val + test));
  cr_expect(sources < train && of_val <= val && of_test < test);
  cr_expect(eq(i64, test, 50 * bins));
  free(text);
  expect_rows_of(csv, data);
  cli_accepted(2, cli_text("train %s -o %s --epochs 1 --quiet", data, io_file("run")));
}

Test(protocol, mistakes_are_sentences) {
  const char *csv = ages_csv(), *data = io_file("x.h5");
  cli_refused(0, 2, "--split and --protocol contradict each other; give one",
              cli_text("import %s --target age --split 0.8,0.1,0.1 --protocol extrapolation -o %s", csv, data));
  cli_refused(0, 2, "--protocol-bin has no effect without --protocol; drop one or add the other",
              cli_text("import %s --target age --protocol-bin 2 -o %s", csv, data));
  cli_refused(0, 2, "--protocol \"middle\" is not one of none|extrapolation|interpolation|blind-spot",
              cli_text("import %s --target age --protocol middle -o %s", csv, data));
}
