/* Every sample has the same weight whichever rank it falls to.
 *
 *   rank_weights DATA.h5 FOLDER [more options of conr train]
 *
 * The trainer's weights must have the same bits on all ranks; what the loaders of all ranks hand out in an epoch must be
 * each training sample's own weight, as often as there are views; and weights by inverse counts must be those of plain
 * loops over the whole split. */
#include "launch/trainer.h"
#include "tests/rank_record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void open_trainer(int argc, char **argv, struct config *config, struct session *session,
                         struct trainer **trainer) {
  char *words[64] = {"conr", "train", argv[1], "--output", argv[2], "--quiet", "--threads", "1"};
  int count = 8;
  for (int i = 3; i < argc; i++)
    words[count++] = argv[i];
  MUST(config_parse(count, words, config));
  MUST(session_open(MPI_COMM_WORLD, config, session));
  MUST(session_open_device(session, config));
  MUST(trainer_create(session, config, trainer));
}

static void expect_same_bits(const struct trainer *trainer) {
  size_t bytes = (size_t)trainer->sampler.rows * sizeof(double);
  double *root = malloc(bytes);
  memcpy(root, trainer->weights, bytes);
  MPI_Bcast(root, (int)bytes, MPI_BYTE, 0, MPI_COMM_WORLD);
  EXPECT(memcmp(root, trainer->weights, bytes) == 0, "weights differ from rank 0's");
  free(root);
}

static int64_t age_of(const struct dataset *dataset, int64_t id) {
  return (int64_t)dataset_target(dataset)[id];
}

/* Counts of whole labels, clipped to 5 .. 1000, inverted and scaled to mean 1. */
static void expect_inverse_counts(const struct trainer *trainer) {
  enum { AGES = 200 };
  const struct dataset *dataset = trainer->dataset;
  const int64_t *ids = dataset_split_ids(dataset, SPLIT_TRAIN);
  int64_t rows = trainer->sampler.rows, counts[AGES] = {0};
  double sum = 0;
  for (int64_t i = 0; i < rows; i++) {
    MUST_HOLD(age_of(dataset, ids[i]) < AGES);
    counts[age_of(dataset, ids[i])]++;
  }
  for (int64_t i = 0; i < rows; i++)
    sum += 1 / fmin(fmax((double)counts[age_of(dataset, ids[i])], 5), 1000);
  for (int64_t i = 0; i < rows; i++) {
    double expected = (double)rows / sum / fmin(fmax((double)counts[age_of(dataset, ids[i])], 5), 1000);
    EXPECT(fabs(trainer->weights[i] / expected - 1) < 2e-7, "weight %lld is %.9g, not %.9g", (long long)i,
           trainer->weights[i], expected); /* inverses are rounded to float32 */
  }
}

/* Of one epoch: the sum over ranks of each row's weights and of how often it came. */
static void expect_each_its_own(const struct trainer *trainer) {
  int64_t rows = dataset_rows(trainer->dataset), training = trainer->sampler.rows;
  const int64_t *ids = dataset_split_ids(trainer->dataset, SPLIT_TRAIN);
  double *served = calloc((size_t)rows * 2, sizeof *served), *times = served + rows;
  struct batch *batch;
  MUST(loader_start(trainer->loader, 0, 0));
  for (MUST(loader_next(trainer->loader, &batch, NULL)); batch != NULL;
       MUST(loader_next(trainer->loader, &batch, NULL)))
    for (int64_t i = 0; i < batch->views * batch->rows; i++) {
      served[batch->samples[i]] += (double)((float *)batch->weights)[i];
      times[batch->samples[i]]++;
    }
  MPI_Allreduce(MPI_IN_PLACE, served, (int)(2 * rows), MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  for (int64_t i = 0; i < training; i++) {
    double views = (double)trainer->config.views, expected = views * (double)(float)trainer->weights[i];
    EXPECT(times[ids[i]] == views, "row %lld came %g times", (long long)ids[i], times[ids[i]]);
    EXPECT(fabs(served[ids[i]] - expected) <= 1e-12 * expected, "row %lld came with %.9g instead of %.9g",
           (long long)ids[i], served[ids[i]], expected);
  }
  free(served);
}

int main(int argc, char **argv) {
  rank_record_begin(&argc, &argv);
  MUST_HOLD(argc >= 3 && argc < 50);
  struct config config;
  struct session session;
  struct trainer *trainer;
  open_trainer(argc, argv, &config, &session, &trainer);
  MUST_HOLD(trainer->weights != NULL);
  expect_same_bits(trainer);
  expect_each_its_own(trainer);
  if (strcmp(config.weights, "inverse") == 0 && strcmp(config.lds, "none") == 0)
    expect_inverse_counts(trainer);
  trainer_destroy(&trainer);
  session_close(&session);
  config_destroy(&config);
  return rank_record_end();
}
