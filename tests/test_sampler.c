/* Order of an epoch and its shards: complete, contiguous, and the same for any number of ranks. */
#include "dist/sampler.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t some_rows[] = {1, 2, 3, 5, 7, 10, 64, 100, 257, 1000};
static const int64_t some_batches[] = {1, 2, 3, 7, 8, 64, 100, 999, 1000, 5000};
enum { ROWS = sizeof some_rows / sizeof *some_rows, BATCHES = sizeof some_batches / sizeof *some_batches };
enum { MOST_ROWS = 1000, MOST_RANKS = 7 };

static struct sampler sampler_of(int64_t rows, int64_t batch, int rank, int size) {
  return (struct sampler){.rows = rows, .batch = batch, .seed = 7, .shuffle = true, .rank = rank, .size = size};
}

/* For messages: which case failed. */
static const char *name_of(const struct sampler *sampler) {
  static char text[100];
  snprintf(text, sizeof text, "%d rows, batch %d, %d ranks", (int)sampler->rows, (int)sampler->batch, sampler->size);
  return text;
}

/* All samples of an epoch, step by step and within a step rank by rank, each rank with a sampler of its own. */
static int64_t concatenate(struct sampler sampler, int64_t epoch, int64_t *out) {
  int64_t count = 0;
  for (int64_t step = 0; step < sampler_steps(&sampler); step++)
    for (sampler.rank = 0; sampler.rank < sampler.size; sampler.rank++) {
      struct shard own = sampler_shard(&sampler, step);
      for (int64_t i = 0; i < own.rows; i++)
        out[count++] = sampler_sample(&sampler, epoch, own.first + i);
    }
  return count;
}

/* Run `check` on every number of rows, batch and number of ranks. */
static void for_all(void (*check)(struct sampler sampler)) {
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < BATCHES; j++)
      for (int size = 1; size <= MOST_RANKS; size++)
        check(sampler_of(some_rows[i], some_batches[j], 0, size));
}

static void check_each_sample_once(struct sampler sampler) {
  int64_t samples[MOST_ROWS];
  int seen[MOST_ROWS] = {0};
  cr_assert(eq(i64, concatenate(sampler, 3, samples), sampler.rows), "%s", name_of(&sampler));
  for (int64_t i = 0; i < sampler.rows; i++) {
    cr_assert(samples[i] >= 0 && samples[i] < sampler.rows, "%s: sample %d", name_of(&sampler), (int)samples[i]);
    cr_assert(eq(int, seen[samples[i]]++, 0), "%s: sample %d twice", name_of(&sampler), (int)samples[i]);
  }
}

Test(sampler, each_sample_exactly_once_per_epoch) {
  for_all(check_each_sample_once);
}

static void check_shards(struct sampler sampler) {
  int64_t next = 0;
  for (int64_t step = 0; step < sampler_steps(&sampler); step++) {
    cr_assert(eq(i64, next, step * sampler.batch), "%s", name_of(&sampler));
    for (int rank = 0; rank < sampler.size; rank++) {
      struct shard shard = sampler_shard_of(&sampler, step, rank);
      cr_assert(eq(i64, shard.first, next), "%s: step %d rank %d", name_of(&sampler), (int)step, rank);
      cr_assert(ge(i64, shard.rows, 0), "%s: step %d rank %d", name_of(&sampler), (int)step, rank);
      next += shard.rows;
    }
    cr_assert(eq(i64, next - step * sampler.batch, sampler_batch_rows(&sampler, step)), "%s: step %d",
              name_of(&sampler), (int)step);
  }
  cr_assert(eq(i64, next, sampler.rows), "%s", name_of(&sampler));
}

Test(sampler, shards_are_contiguous_in_rank_order_and_cover_the_batch) {
  for_all(check_shards);
}

static void check_balance(struct sampler sampler) {
  int64_t most_of_all = 0;
  for (int64_t step = 0; step < sampler_steps(&sampler); step++) {
    int64_t least = INT64_MAX, most = 0;
    for (int rank = 0; rank < sampler.size; rank++) {
      int64_t rows = sampler_shard_of(&sampler, step, rank).rows;
      least = rows < least ? rows : least;
      most = rows > most ? rows : most;
    }
    cr_assert(le(i64, most - least, 1), "%s: step %d", name_of(&sampler), (int)step);
    most_of_all = most > most_of_all ? most : most_of_all;
  }
  cr_assert(eq(i64, sampler_most_rows(&sampler), most_of_all), "%s", name_of(&sampler));
}

Test(sampler, shards_differ_by_one_row_at_most_and_most_rows_is_reached) {
  for_all(check_balance);
}

Test(sampler, shard_is_shard_of_the_own_rank) {
  for (int rank = 0; rank < 5; rank++) {
    struct sampler sampler = sampler_of(103, 17, rank, 5);
    for (int64_t step = 0; step < sampler_steps(&sampler); step++) {
      struct shard own = sampler_shard(&sampler, step), same = sampler_shard_of(&sampler, step, rank);
      cr_assert(eq(i64, own.first, same.first));
      cr_assert(eq(i64, own.rows, same.rows));
    }
  }
}

/* Shards of a batch are the same for any number of ranks, and a rank owns what its shards hold. */
static void check_virtual_shards(struct sampler sampler) {
  sampler.shards = 9;
  for (int64_t step = 0; step < sampler_steps(&sampler); step++) {
    int64_t next = step * sampler.batch;
    cr_assert(eq(int, sampler_first_shard(&sampler, 0), 0));
    cr_assert(eq(int, sampler_first_shard(&sampler, sampler.size), 9));
    for (int rank = 0; rank < sampler.size; rank++) {
      struct shard of_rank = sampler_shard_of(&sampler, step, rank);
      int first = sampler_first_shard(&sampler, rank), end = sampler_first_shard(&sampler, rank + 1);
      cr_assert(eq(i64, of_rank.first, next), "%s: step %d rank %d", name_of(&sampler), (int)step, rank);
      cr_assert(end > first && end - first <= sampler_most_shards(&sampler), "%s", name_of(&sampler));
      for (int i = first; i < end; i++) {
        struct shard shard = sampler_virtual_shard(&sampler, step, i);
        int64_t rows = sampler_batch_rows(&sampler, step);
        cr_assert(eq(i64, shard.first, next), "%s: step %d shard %d", name_of(&sampler), (int)step, i);
        cr_assert(eq(i64, shard.rows, rows * (i + 1) / 9 - rows * i / 9));
        cr_assert(le(i64, shard.rows, sampler_most_shard_rows(&sampler)));
        next += shard.rows;
      }
      cr_assert(eq(i64, of_rank.first + of_rank.rows, next));
      cr_assert(le(i64, of_rank.rows, sampler_most_rows(&sampler)), "%s", name_of(&sampler));
    }
  }
}

Test(sampler, virtual_shards_do_not_depend_on_the_ranks_that_own_them) {
  for_all(check_virtual_shards);
}

Test(sampler, the_global_order_is_the_same_on_1_to_7_ranks) {
  int64_t alone[MOST_ROWS], together[MOST_ROWS];
  for (int i = 0; i < ROWS; i++)
    for (int j = 0; j < BATCHES; j++) {
      concatenate(sampler_of(some_rows[i], some_batches[j], 0, 1), 5, alone);
      for (int size = 2; size <= MOST_RANKS; size++) {
        struct sampler sampler = sampler_of(some_rows[i], some_batches[j], 0, size);
        concatenate(sampler, 5, together);
        cr_assert(eq(int, memcmp(alone, together, (size_t)some_rows[i] * sizeof *alone), 0), "%s", name_of(&sampler));
      }
    }
}

Test(sampler, the_order_of_an_epoch_does_not_depend_on_the_batch) {
  int64_t first[MOST_ROWS], second[MOST_ROWS];
  concatenate(sampler_of(257, 8, 0, 3), 1, first);
  concatenate(sampler_of(257, 100, 0, 2), 1, second);
  cr_assert(eq(int, memcmp(first, second, 257 * sizeof *first), 0));
}

Test(sampler, the_last_batch_is_short_and_none_is_empty) {
  struct sampler sampler = sampler_of(100, 30, 0, 1);
  cr_assert(eq(i64, sampler_steps(&sampler), 4));
  cr_assert(eq(i64, sampler_batch_rows(&sampler, 0), 30));
  cr_assert(eq(i64, sampler_batch_rows(&sampler, 2), 30));
  cr_assert(eq(i64, sampler_batch_rows(&sampler, 3), 10));
  sampler.batch = 25;
  cr_assert(eq(i64, sampler_steps(&sampler), 4));
  cr_assert(eq(i64, sampler_batch_rows(&sampler, 3), 25));
  sampler.batch = 1000;
  cr_assert(eq(i64, sampler_steps(&sampler), 1));
  cr_assert(eq(i64, sampler_batch_rows(&sampler, 0), 100));
}

Test(sampler, fewer_rows_than_ranks_leaves_some_without_and_loses_none) {
  struct sampler sampler = sampler_of(3, 8, 0, 7);
  int64_t rows = 0;
  int without = 0;
  for (int rank = 0; rank < 7; rank++) {
    struct shard shard = sampler_shard_of(&sampler, 0, rank);
    rows += shard.rows;
    without += shard.rows == 0;
    cr_assert(le(i64, shard.rows, 1));
    cr_assert(shard.first >= 0 && shard.first + shard.rows <= 3, "rank %d", rank);
  }
  cr_assert(eq(i64, rows, 3));
  cr_assert(eq(int, without, 4));
  cr_assert(eq(i64, sampler_most_rows(&sampler), 1));
}

Test(sampler, an_empty_split_has_no_steps) {
  struct sampler sampler = sampler_of(0, 8, 0, 3);
  cr_assert(eq(i64, sampler_steps(&sampler), 0));
  cr_assert(eq(i64, sampler_most_rows(&sampler), 0));
}

Test(sampler, without_shuffle_samples_come_in_stored_order) {
  struct sampler sampler = sampler_of(257, 16, 0, 3);
  sampler.shuffle = false;
  int64_t samples[MOST_ROWS];
  for (int64_t epoch = 0; epoch < 3; epoch++) {
    concatenate(sampler, epoch, samples);
    for (int64_t i = 0; i < 257; i++)
      cr_assert(eq(i64, samples[i], i));
  }
}

/* Unrelated orders agree at Poisson(1) places: more than 12 of 1000 has probability 6e-11. */
static int places_in_common(const struct sampler *one, int64_t one_epoch, const struct sampler *other,
                            int64_t other_epoch) {
  int common = 0;
  for (int64_t position = 0; position < one->rows; position++)
    common += sampler_sample(one, one_epoch, position) == sampler_sample(other, other_epoch, position);
  return common;
}

Test(sampler, epochs_and_seeds_have_orders_of_their_own) {
  struct sampler sampler = sampler_of(1000, 10, 0, 1), reseeded = sampler, stored = sampler;
  reseeded.seed++;
  stored.shuffle = false;
  for (int64_t epoch = 0; epoch < 10; epoch++) {
    cr_assert(le(int, places_in_common(&sampler, epoch, &sampler, epoch + 1), 12), "epoch %d", (int)epoch);
    cr_assert(le(int, places_in_common(&sampler, epoch, &reseeded, epoch), 12), "epoch %d", (int)epoch);
    cr_assert(le(int, places_in_common(&sampler, epoch, &stored, epoch), 12), "epoch %d", (int)epoch);
    cr_assert(eq(int, places_in_common(&sampler, epoch, &sampler, epoch), 1000));
  }
}

/* What a resumed run does: a new sampler, asked first for a step in the middle. */
Test(sampler, a_step_computed_alone_equals_the_step_reached_by_iteration) {
  enum { EPOCHS = 3, STEPS = 15, MOST = 7 };
  int64_t reached[EPOCHS][STEPS][MOST], rows[EPOCHS][STEPS];
  struct sampler sampler = sampler_of(100, 7, 1, 3);
  cr_assert(eq(i64, sampler_steps(&sampler), STEPS));
  for (int epoch = 0; epoch < EPOCHS; epoch++)
    for (int step = 0; step < STEPS; step++) {
      struct shard own = sampler_shard(&sampler, step);
      rows[epoch][step] = own.rows;
      for (int64_t i = 0; i < own.rows; i++)
        reached[epoch][step][i] = sampler_sample(&sampler, epoch, own.first + i);
    }
  for (int epoch = EPOCHS; epoch-- > 0;)
    for (int step = STEPS; step-- > 0;) {
      struct sampler resumed = sampler_of(100, 7, 1, 3);
      struct shard own = sampler_shard(&resumed, step);
      cr_assert(eq(i64, own.rows, rows[epoch][step]));
      for (int64_t i = 0; i < own.rows; i++)
        cr_assert(eq(i64, sampler_sample(&resumed, epoch, own.first + i), reached[epoch][step][i]),
                  "epoch %d step %d row %d", epoch, step, (int)i);
    }
}

/* 10^12 rows: positions beyond 32 bits, and no table of the epoch anywhere. */
Test(sampler, an_epoch_of_a_million_million_rows_is_addressed_to_its_end) {
  struct sampler sampler = sampler_of(1000000000000 + 1, 4096, 0, 5);
  int64_t steps = sampler_steps(&sampler);
  cr_assert(eq(i64, steps, 244140626));
  int64_t next = (steps - 1) * 4096;
  cr_assert(eq(i64, sampler_batch_rows(&sampler, steps - 1), sampler.rows - next));
  for (int rank = 0; rank < 5; rank++) {
    struct shard shard = sampler_shard_of(&sampler, steps - 1, rank);
    cr_assert(eq(i64, shard.first, next));
    next += shard.rows;
    for (int64_t i = 0; i < shard.rows; i++) {
      int64_t sample = sampler_sample(&sampler, 0, shard.first + i);
      cr_assert(sample >= 0 && sample < sampler.rows, "sample %.0f", (double)sample);
    }
  }
  cr_assert(eq(i64, next, sampler.rows));
}
