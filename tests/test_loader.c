/* Batches ahead of the step: the right rows for any number of ranks, views, failures, and stopping. */
#include "io/loader.h"

#include "dist/memory.h"
#include "dist/random.h"
#include "tests/io_files.h"
#include "tests/io_table.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(loader, .init = io_files_begin, .fini = io_files_end, .timeout = 60);
TestSuite(augment, .timeout = 60);

#define FEATURES 3
#define ROWS 200 /* of which 120 are for training */

static struct dataset *open_sample(const struct io_table *table, enum dtype dtype) {
  struct dataset *dataset;
  io_table_write(table, io_file("table.h5"));
  cr_assert(eq(int, (int)dataset_open(io_file("table.h5"), NULL, dtype, &dataset), 0), "%s", status_message());
  return dataset;
}

static struct sampler sampler_of(const struct dataset *dataset, int64_t batch, int rank, int size) {
  return (struct sampler){.rows = dataset_split_rows(dataset, SPLIT_TRAIN),
                          .batch = batch,
                          .seed = 7,
                          .shuffle = true,
                          .rank = rank,
                          .size = size};
}

static struct loader *start(struct dataset *dataset, const struct sampler *sampler, int views,
                            const struct augment *augment, int64_t epoch, int64_t step) {
  struct loader *loader;
  struct loader_options options = {.views = views, .workers = 3}; /* a table has one all the same */
  if (augment != NULL)
    options.augment = *augment;
  cr_assert(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, sampler, &options, &loader), 0), "%s", status_message());
  cr_assert(eq(int, (int)loader_start(loader, epoch, step), 0));
  return loader;
}

static struct batch *next(struct loader *loader) {
  struct batch *batch;
  cr_assert(eq(int, (int)loader_next(loader, &batch, NULL), 0), "%s", status_message());
  return batch;
}

FILE_TEST(loader, an_epoch_gives_each_row_once_with_its_inputs_target_and_weight) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  table.weights = true;
  table.targets = 2;
  struct dataset *dataset = open_sample(&table, F32);
  struct sampler sampler = sampler_of(dataset, 50, 0, 1);
  struct loader *loader = start(dataset, &sampler, 1, NULL, 3, 0);
  struct batch *batch;
  int seen[ROWS] = {0}, steps = 0;
  while ((batch = next(loader)) != NULL) {
    cr_expect(eq(i64, batch->epoch, 3));
    cr_expect(eq(i64, batch->step, steps));
    cr_expect(eq(i64, batch->rows, steps < 2 ? 50 : 20));
    cr_expect(eq(i64, batch->rows_global, batch->rows));
    for (int64_t i = 0; i < batch->rows; i++) {
      int64_t row = batch->samples[i];
      int64_t position = sampler_sample(&sampler, 3, steps * 50 + i);
      cr_expect(eq(i64, row, dataset_split_ids(dataset, SPLIT_TRAIN)[position]));
      seen[row]++;
      for (int j = 0; j < FEATURES; j++)
        cr_expect(eq(flt, ((float *)batch->inputs)[i * FEATURES + j],
                     (float)((io_table_input(row, j) - io_table_mean(j)) / io_table_std(j))));
      cr_expect(eq(flt, ((float *)batch->targets)[2 * i], (float)row + 0.25f));
      cr_expect(eq(flt, ((float *)batch->targets)[2 * i + 1], (float)row + 10.25f));
      cr_expect(eq(flt, ((float *)batch->weights)[i], (float)(1 + row % 3)));
    }
    steps++;
  }
  cr_expect(eq(int, steps, 3));
  for (int row = 0; row < ROWS; row++)
    cr_expect(eq(int, seen[row], row % 5 < 3 ? 1 : 0), "row %d", row);
  cr_expect(next(loader) == NULL, "the end stays the end");
  loader_destroy(&loader);
  cr_expect(loader == NULL);
  dataset_close(&dataset);
}

FILE_TEST(loader, weights_that_are_given_come_instead_of_those_of_the_file) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  table.weights = true;
  struct dataset *dataset = open_sample(&table, F64);
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN), first = 0;
  double weights[2 * ROWS]; /* the second half is read where a row has two */
  for (int64_t i = 0; i < 2 * rows; i++)
    weights[i] = 0.5 + 3 * (double)i;
  for (int rank = 0; rank < 3; rank++) {
    struct sampler sampler = sampler_of(dataset, 50, rank, 3);
    struct batch *batch = NULL;
    for (int of_row = 1; of_row <= 2; of_row++) {
      struct loader_options options = {.views = 2, .weights = weights, .weights_of_row = of_row};
      struct loader *loader;
      cr_assert(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, &sampler, &options, &loader), 0));
      cr_assert(eq(int, (int)loader_start(loader, 1, 0), 0));
      batch = next(loader);
      for (int64_t i = 0; i < 2 * batch->rows * of_row; i++) {
        int64_t row = i / of_row % batch->rows;
        cr_expect(eq(dbl, ((double *)batch->weights)[i],
                     weights[of_row * sampler_sample(&sampler, 1, first + row) + i % of_row]));
      }
      if (of_row == 2)
        first += batch->rows;
      loader_destroy(&loader);
    }
  }
  cr_expect(eq(i64, first, 50));
  dataset_close(&dataset);
}

/* The inputs of one step, gathered over the ranks in order: [views * rows_global, FEATURES] as views of each rank. */
static void step_of_all(struct dataset *dataset, int size, int64_t step, const struct augment *augment,
                        double *inputs) {
  int64_t first = 0;
  for (int rank = 0; rank < size; rank++) {
    struct sampler sampler = sampler_of(dataset, 7, rank, size);
    struct loader *loader = start(dataset, &sampler, 2, augment, 1, step);
    struct batch *batch = next(loader);
    cr_expect(eq(i64, batch->rows_global, sampler_batch_rows(&sampler, step)));
    for (int view = 0; view < 2; view++)
      memcpy(inputs + (view * batch->rows_global + first) * FEATURES,
             (double *)batch->inputs + view * batch->rows * FEATURES,
             (size_t)(batch->rows * FEATURES) * sizeof *inputs);
    first += batch->rows;
    loader_destroy(&loader);
  }
}

FILE_TEST(loader, any_number_of_ranks_gives_the_same_augmented_batches) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset = open_sample(&table, F64);
  struct augment augment = {.noise_std = 0.3, .mask_probability = 0.2, .seed = 5};
  int64_t steps[] = {0, 9, 17}; /* the last one has a single row */
  for (int i = 0; i < 3; i++) {
    double one[14 * FEATURES] = {0}, many[14 * FEATURES] = {0};
    step_of_all(dataset, 1, steps[i], &augment, one);
    for (int size = 2; size <= 9; size++) { /* beyond 7 ranks some have no rows */
      step_of_all(dataset, size, steps[i], &augment, many);
      cr_expect(memcmp(one, many, sizeof one) == 0, "%d ranks, step %ld", size, (long)steps[i]);
    }
  }
  dataset_close(&dataset);
}

FILE_TEST(loader, a_rank_without_rows_gets_an_empty_batch_of_the_step) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset = open_sample(&table, F32);
  struct sampler sampler = sampler_of(dataset, 2, 0, 5);
  struct loader *loader = start(dataset, &sampler, 2, NULL, 0, 0);
  struct batch *batch = next(loader);
  cr_assert(batch != NULL);
  cr_expect(eq(i64, batch->rows, 0));
  cr_expect(eq(i64, batch->rows_global, 2));
  loader_destroy(&loader);
  dataset_close(&dataset);
}

FILE_TEST(loader, views_lie_one_after_the_other_and_differ_only_by_augmentation) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset = open_sample(&table, F64);
  struct sampler sampler = sampler_of(dataset, 20, 0, 1);
  struct augment noise = {.noise_std = 0.5, .seed = 1}, none = {.seed = 1};
  struct loader *loader = start(dataset, &sampler, 3, &noise, 0, 0);
  struct loader *plain = start(dataset, &sampler, 3, &none, 0, 0);
  struct batch *batch = next(loader), *same = next(plain);
  int differ = 0;
  for (int64_t i = 0; i < 20; i++) {
    for (int view = 1; view < 3; view++) {
      cr_expect(eq(i64, batch->samples[view * 20 + i], batch->samples[i]));
      cr_expect(eq(dbl, ((double *)batch->targets)[view * 20 + i], ((double *)batch->targets)[i]));
      cr_expect(eq(dbl, ((double *)batch->weights)[view * 20 + i], 1.0));
      for (int j = 0; j < FEATURES; j++) {
        double *a = (double *)batch->inputs, *b = (double *)same->inputs;
        differ += a[(view * 20 + i) * FEATURES + j] != a[((view - 1) * 20 + i) * FEATURES + j];
        cr_expect(eq(dbl, b[(view * 20 + i) * FEATURES + j], b[i * FEATURES + j]), "no noise, equal views");
      }
    }
  }
  cr_expect(eq(int, differ, 2 * 20 * FEATURES));
  loader_destroy(&plain);
  loader_destroy(&loader);
  dataset_close(&dataset);
}

FILE_TEST(loader, an_epoch_resumed_in_its_middle_goes_on_with_the_same_batches) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset = open_sample(&table, F32);
  struct sampler sampler = sampler_of(dataset, 30, 0, 1);
  struct augment augment = {.noise_std = 0.1, .seed = 3};
  struct loader *whole = start(dataset, &sampler, 2, &augment, 4, 0);
  struct loader *resumed = start(dataset, &sampler, 2, &augment, 4, 2);
  next(whole);
  next(whole);
  for (int step = 2; step < 4; step++) {
    struct batch *a = next(whole), *b = next(resumed);
    cr_expect(eq(i64, b->step, step));
    cr_expect(memcmp(a->inputs, b->inputs, 2 * 30 * FEATURES * sizeof(float)) == 0);
    cr_expect(memcmp(a->samples, b->samples, 2 * 30 * sizeof(int64_t)) == 0);
  }
  cr_expect(next(resumed) == NULL);
  loader_destroy(&resumed);
  loader_destroy(&whole);
  dataset_close(&dataset);
}

FILE_TEST(loader, a_batch_stays_untouched_while_it_is_used) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset = open_sample(&table, F32);
  struct sampler sampler = sampler_of(dataset, 10, 0, 1);
  struct loader *loader = start(dataset, &sampler, 1, NULL, 0, 0);
  for (int step = 0; step < 12; step++) {
    struct batch *batch = next(loader);
    int64_t samples[10];
    memcpy(samples, batch->samples, sizeof samples);
    usleep(3000); /* time for a worker that runs too far ahead */
    cr_expect(memcmp(samples, batch->samples, sizeof samples) == 0, "step %d was overwritten", step);
    cr_expect(eq(i64, batch->step, step));
  }
  loader_destroy(&loader);
  dataset_close(&dataset);
}

FILE_TEST(loader, it_stops_at_any_time_and_starts_again) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset = open_sample(&table, F32);
  struct sampler sampler = sampler_of(dataset, 8, 0, 1);
  struct loader_options options = {.views = 2};
  struct loader *loader;
  cr_assert(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, &sampler, &options, &loader), 0));
  loader_stop(loader);
  for (int round = 0; round < 200; round++) {
    cr_assert(eq(int, (int)loader_start(loader, round, 0), 0));
    for (int step = 0; step < round % 4; step++)
      cr_assert(eq(i64, next(loader)->epoch, round));
    if (round % 2 == 0)
      loader_stop(loader);
  }
  struct batch *batch;
  loader_stop(loader);
  cr_expect(eq(int, (int)loader_next(loader, &batch, NULL), ERR_BUG));
  cr_assert(eq(int, (int)loader_start(loader, 0, 15), 0), "at the end: nothing is left");
  cr_expect(next(loader) == NULL);
  cr_expect(eq(int, (int)loader_start(loader, 0, 16), ERR_BUG));
  loader_destroy(&loader);
  dataset_close(&dataset);
}

FILE_TEST(loader, a_failure_of_the_worker_is_the_callers_sentence) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  table.weights = true;
  io_table_write(&table, io_file("table.h5"));
  io_table_put(io_file("table.h5"), "inputs", 5 * FEATURES + 1, NAN); /* row 5 is the 4th for training */
  struct dataset *dataset;
  cr_assert(eq(int, (int)dataset_open(io_file("table.h5"), NULL, F32, &dataset), 0));
  struct sampler sampler = sampler_of(dataset, 2, 0, 1);
  sampler.shuffle = false;
  struct loader *loader = start(dataset, &sampler, 1, NULL, 0, 0);
  struct batch *batch;
  char sentence[400];
  snprintf(sentence, sizeof sentence, "\"inputs\" in %s is nan at row 5, feature \"feature1\"; mend or remove the row",
           io_file("table.h5"));
  cr_expect(eq(i64, next(loader)->step, 0), "the batch before it is whole");
  for (int again = 0; again < 2; again++) {
    cr_expect(eq(int, (int)loader_next(loader, &batch, NULL), ERR_FORMAT));
    cr_expect(eq(str, (char *)status_message(), sentence));
    cr_expect(batch == NULL);
  }
  cr_assert(eq(int, (int)loader_start(loader, 1, 10), 0), "another epoch may be begun");
  cr_expect(eq(i64, next(loader)->step, 10));
  loader_destroy(&loader);
  dataset_close(&dataset);
}

FILE_TEST(loader, waiting_is_measured) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset = open_sample(&table, F32);
  struct sampler sampler = sampler_of(dataset, 10, 0, 1);
  struct loader *loader = start(dataset, &sampler, 1, NULL, 0, 0);
  struct batch *batch;
  double waited = -1;
  cr_assert(eq(int, (int)loader_next(loader, &batch, &waited), 0));
  cr_expect(waited >= 0 && waited < 30);
  loader_destroy(&loader);
  dataset_close(&dataset);
}

FILE_TEST(loader, requests_without_sense_are_refused) {
  struct io_table table = io_table_plain(ROWS, FEATURES);
  struct dataset *dataset = open_sample(&table, F32);
  struct sampler sampler = sampler_of(dataset, 10, 0, 1);
  struct loader_options plain = {.views = 1}, none = {.views = 0}, noise = plain, crowd = plain;
  struct loader *loader;
  noise.augment.noise_std = -1;
  crowd.workers = LOADER_MOST_WORKERS + 1;
  cr_expect(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, &sampler, &none, &loader), ERR_ARGUMENT));
  cr_expect(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, &sampler, &noise, &loader), ERR_ARGUMENT));
  cr_expect(eq(int, (int)loader_create(dataset, SPLIT_TRAIN, &sampler, &crowd, &loader), ERR_ARGUMENT));
  cr_expect(eq(int, (int)loader_create(dataset, SPLIT_VAL, &sampler, &plain, &loader), ERR_BUG));
  cr_expect(loader == NULL);
  dataset_close(&dataset);
}

Test(augment, values_out_of_range_are_named) {
  struct augment augment = {.noise_std = NAN};
  cr_expect(eq(int, (int)augment_check(&augment), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), "the augmentation noise nan must be a finite number, 0 or more"));
  augment = (struct augment){.mask_probability = 1};
  cr_expect(eq(int, (int)augment_check(&augment), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), "the mask probability 1 must be at least 0 and below 1"));
  augment = (struct augment){.noise_std = 2, .mask_probability = 0.99};
  cr_expect(eq(int, (int)augment_check(&augment), 0));
}

Test(augment, noise_and_masks_have_the_size_asked_for) {
  enum { SAMPLES = 4000, WIDTH = 10, COUNT = SAMPLES * WIDTH };
  static double values[COUNT];
  static int64_t samples[SAMPLES];
  struct augment augment = {.noise_std = 0.5, .mask_probability = 0.25, .seed = 11};
  for (int i = 0; i < COUNT; i++)
    values[i] = 3;
  for (int i = 0; i < SAMPLES; i++)
    samples[i] = i;
  augment_rows(&augment, 2, 1, samples, SAMPLES, WIDTH, F64, values);
  double masked = 0, sum = 0, square = 0;
  for (int i = 0; i < COUNT; i++) {
    masked += values[i] == 0;
    sum += values[i] == 0 ? 0 : values[i] - 3;
    square += values[i] == 0 ? 0 : (values[i] - 3) * (values[i] - 3);
  }
  double kept = COUNT - masked;
  /* Five standard errors: sqrt(p q / n), s / sqrt(n), s / sqrt(2 n). */
  cr_expect(fabs(masked / COUNT - 0.25) < 5 * sqrt(0.25 * 0.75 / COUNT));
  cr_expect(fabs(sum / kept) < 5 * 0.5 / sqrt(kept));
  cr_expect(fabs(sqrt(square / kept) - 0.5) < 5 * 0.5 / sqrt(2 * kept));
}

Test(augment, a_draw_depends_on_seed_epoch_view_sample_and_feature_alone) {
  struct augment augment = {.noise_std = 1, .seed = 1};
  int64_t samples[] = {4, 9}, turned[] = {9, 4};
  double a[4] = {0}, b[4] = {0}, c[4] = {0};
  augment_rows(&augment, 0, 0, samples, 2, 2, F64, a);
  augment_rows(&augment, 0, 0, turned, 2, 2, F64, b);
  cr_expect(a[0] == b[2] && a[1] == b[3] && a[2] == b[0] && a[3] == b[1], "the place in the batch must not matter");
  cr_expect(a[0] != a[1] && a[0] != a[2]);
  augment_rows(&augment, 0, 1, samples, 2, 2, F64, c);
  cr_expect(c[0] != a[0], "views");
  memset(c, 0, sizeof c);
  augment_rows(&augment, 1, 0, samples, 2, 2, F64, c);
  cr_expect(c[0] != a[0], "epochs");
  memset(c, 0, sizeof c);
  augment.seed = 2;
  augment_rows(&augment, 0, 0, samples, 2, 2, F64, c);
  cr_expect(c[0] != a[0], "seeds");
}

Test(augment, masking_does_not_change_the_noise_of_what_is_kept) {
  enum { COUNT = 100 };
  struct augment noise = {.noise_std = 1, .seed = 1}, both = {.noise_std = 1, .mask_probability = 0.5, .seed = 1};
  int64_t samples[COUNT];
  float a[COUNT] = {0}, b[COUNT] = {0};
  for (int i = 0; i < COUNT; i++)
    samples[i] = i;
  augment_rows(&noise, 0, 0, samples, COUNT, 1, F32, a);
  augment_rows(&both, 0, 0, samples, COUNT, 1, F32, b);
  int kept = 0;
  for (int i = 0; i < COUNT; i++) {
    cr_expect(b[i] == 0 || b[i] == a[i]);
    kept += b[i] != 0;
  }
  cr_expect(kept > 20 && kept < 80);
}
