/* What travels in a training step whose terms look at gathered rows: every gather of this process is counted where MPI
 * is called.
 *
 *   rank_gathered DATA.h5 FOLDER [more options of conr train]
 *
 * The options choose device and precision.  Numbers are float32, rows two views of 12 samples, or one where said. */
#include "dist/device.h"
#include "launch/train.h"
#include "tests/rank_record.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- MPI, counted */

static int64_t gathered_bytes; /* by all gathers so far, the own rows among them */

static void count(const int *counts, MPI_Datatype type, MPI_Comm comm) {
  int size, bytes;
  MPI_Comm_size(comm, &size);
  MPI_Type_size(type, &bytes);
  for (int rank = 0; rank < size; rank++)
    gathered_bytes += (int64_t)counts[rank] * bytes;
}

int MPI_Allgatherv(const void *own, int rows, MPI_Datatype own_type, void *all, const int *counts, const int *places,
                   MPI_Datatype type, MPI_Comm comm) {
  count(counts, type, comm);
  return PMPI_Allgatherv(own, rows, own_type, all, counts, places, type, comm);
}

int MPI_Iallgatherv(const void *own, int rows, MPI_Datatype own_type, void *all, const int *counts, const int *places,
                    MPI_Datatype type, MPI_Comm comm, MPI_Request *request) {
  count(counts, type, comm);
  return PMPI_Iallgatherv(own, rows, own_type, all, counts, places, type, comm, request);
}

/* ---------------------------------------------------------------- runs */

enum { SAMPLES = 12, FEATURES = 8, COUNTED_STEP = 2 };

struct seen {
  int64_t before, bytes;   /* gathered before, and in, the step that is counted: memory is there by then */
  struct train_step first; /* before parameters differ                                                   */
};

static void observe(void *context, const struct trainer *trainer, const struct train_step *step) {
  struct seen *seen = context;
  (void)trainer;
  if (step->step == 0)
    seen->first = *step;
  if (step->step == COUNTED_STEP)
    seen->bytes = gathered_bytes - seen->before;
  seen->before = gathered_bytes;
}

static bool sends; /* a device's gather of one rank calls nobody */
static int program_words;
static char **program_word;

static struct seen train_with(const char *options) {
  struct seen seen = {0};
  struct config config;
  struct session session;
  struct train_result result;
  struct train_observer observer = {&seen, observe};
  char folder[PATH_MAX], text[256];
  snprintf(folder, sizeof folder, "%s/run", program_word[2]);
  snprintf(text, sizeof text, "%s", options);
  char *words[64] = {"conr",      "train", program_word[1], "--output", folder,     "--quiet", "--force",
                     "--threads", "1",     "--epochs",      "1",        "--hidden", "8",       "--batch",
                     "12"};
  int count = 15;
  for (int i = 3; i < program_words; i++)
    words[count++] = program_word[i];
  for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " "))
    words[count++] = word;
  MUST(config_parse(count, words, &config));
  MUST(session_open(MPI_COMM_WORLD, &config, &session));
  MUST(session_open_device(&session, &config));
  sends = session.device == NULL || record.size > 1;
  MUST(train(&session, &config, &observer, &result));
  session_close(&session);
  config_destroy(&config);
  return seen;
}

/* Of `rows` rows with `numbers` numbers each. */
static int64_t bytes_of(int64_t rows, int64_t numbers) {
  return rows * numbers * (int64_t)sizeof(float);
}

static void expect_more(const char *options, const char *than, int64_t bytes) {
  int64_t one = train_with(than).bytes, more = train_with(options).bytes;
  EXPECT(one + bytes == more, "a step with %s gathers %lld bytes, with %s %lld: that is %lld more, not %lld", than,
         (long long)one, options, (long long)more, (long long)(more - one), (long long)bytes);
}

/* ---------------------------------------------------------------- */

/* RnC, RankSim and SRL exchange sums beside the rows; ACCon gathers two doubles a row. */
static void terms_that_see_the_rows_of_conr_gather_none(void) {
  EXPECT(train_with("--conr").bytes > bytes_of(2 * SAMPLES, FEATURES + 3) || !sends, "ConR gathers no rows");
  expect_more("--conr --rnc --ranksim", "--conr", 0);
  expect_more("--conr --rnc --ranksim --srl --accon", "--conr", sends ? bytes_of(2 * SAMPLES, 4) : 0);
  expect_more("--conr --rnc --ranksim --micro-batch 3", "--conr --micro-batch 3", 0);
  expect_more("--conr --views 3 --rnc", "--conr --views 3", 0);
}

static void terms_that_see_other_rows_gather_them_once(void) {
  int64_t row = FEATURES + 1;
  expect_more("--rnc --ranksim", "--loss l1", sends ? bytes_of(2 * SAMPLES, row) : 0);
  expect_more("--accon", "--loss l1", sends ? bytes_of(2 * SAMPLES, row + 4) : 0);
  expect_more("--accon --rnc --ranksim", "--accon", 0);
  expect_more("--conr --views 3 --ranksim --srl", "--conr --views 3", bytes_of(SAMPLES, row));
  expect_more("--conr --fds --fds-buckets -4,4 --rnc --ranksim --srl", "--conr --fds --fds-buckets -4,4",
              bytes_of(2 * SAMPLES, row));
}

static void expect_same(const char *what, const char *options, double got, double wanted) {
  EXPECT(got == wanted && got != 0, "%s with all others and %s is %.17g, alone %.17g", what, options, got, wanted);
}

/* Whoever gathers them, the rows are the same: a value has the bits that it has alone. */
static void check_values(const char *more) {
  static const char *const alone[REGULARISERS] = {[REGULARISER_RANKSIM] = "--ranksim --views 2",
                                                  [REGULARISER_RNC] = "--rnc",
                                                  [REGULARISER_ACCON] = "--accon",
                                                  [REGULARISER_SRL] = "--srl --views 2"};
  char options[128];
  snprintf(options, sizeof options, "--conr --rnc --accon --ranksim --srl %s", more);
  struct train_step together = train_with(options).first;
  snprintf(options, sizeof options, "--conr %s", more);
  expect_same("ConR", more, together.loss_conr, train_with(options).first.loss_conr);
  for (int i = 0; i < REGULARISERS; i++) {
    snprintf(options, sizeof options, "%s %s", alone[i], more);
    expect_same(regulariser_name((enum regulariser)i), more, together.regularisers[i],
                train_with(options).first.regularisers[i]);
  }
}

int main(int argc, char **argv) {
  rank_record_begin(&argc, &argv);
  record.name = "gathered";
  program_words = argc;
  program_word = argv;
  terms_that_see_the_rows_of_conr_gather_none();
  terms_that_see_other_rows_gather_them_once();
  check_values("--batch 12");
  check_values("--micro-batch 2");
  return rank_record_end();
}
