/* Feature distribution smoothing: buckets of labels, streaming statistics, what is refused. */
#include "loss/fds.h"

#include "dist/memory.h"
#include "tests/buffers.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#define OK(call) cr_assert(eq(int, (call), STATUS_OK), "%s", status_message())

static struct fds *make(enum fds_task task, int64_t first, int64_t last, int64_t features) {
  struct fds_options options;
  struct fds *fds;
  fds_options_default(task, &options);
  options.first = first;
  options.last = last;
  OK(fds_create(&options, features, 1, &fds));
  return fds;
}

static struct comm *one_rank(void) {
  struct comm *comm;
  MPI_Init(NULL, NULL);
  OK(comm_create(MPI_COMM_SELF, &comm));
  return comm;
}

static void leave(struct comm **comm) {
  comm_destroy(comm);
  MPI_Finalize();
}

/* --- labels ------------------------------------------------------------------------------------------------- */

static void expect_buckets(const struct fds *fds, const double *labels, const int *expected, int count,
                           struct fds_edges edges) {
  int32_t bucket[16];
  OK(fds_assign(fds, F64, count, labels, edges, bucket));
  for (int i = 0; i < count; i++)
    cr_assert(eq(int, bucket[i], expected[i]), "label %g", labels[i]);
}

Test(fds, ages_outside_belong_to_an_edge_only_where_it_occurs) {
  static const double labels[] = {1, 2, 3, 4, 8, 9, 10, 1e300};
  static const int inside[] = {-1, -1, 0, 1, 5, 6, -1, -1}, below[] = {0, 0, 0, 1, 5, 6, -1, -1};
  static const int above[] = {-1, -1, 0, 1, 5, 6, 6, 6};
  struct fds *fds = make(FDS_AGES, 3, 9, 1);
  expect_buckets(fds, labels, inside, 8, (struct fds_edges){false, false});
  expect_buckets(fds, labels, below, 8, (struct fds_edges){true, false});
  expect_buckets(fds, labels, above, 8, (struct fds_edges){false, true});
  struct fds_edges edges = {false, false};
  for (int i = 3; i < 5; i++)
    fds_look_for_edges(fds, labels[i], &edges);
  cr_assert(not(edges.first || edges.last));
  fds_look_for_edges(fds, 3, &edges);
  cr_assert(edges.first && !edges.last);
  fds_look_for_edges(fds, 9, &edges);
  cr_assert(edges.first && edges.last);
  fds_destroy(&fds);
}

Test(fds, depths_and_scores_outside_belong_to_the_edges_always) {
  static const double depths[] = {-1, 0.69, 0.7, 0.8, 1, 9.99, 12}, scores[] = {-0.5, 0, 0.1, 0.3, 0.7, 4.99, 5};
  static const int depth_buckets[] = {0, 0, 0, 1, 3, 92, 92}, score_buckets[] = {0, 0, 1, 3, 7, 49, 49};
  struct fds *depth = make(FDS_DEPTH, 7, 99, 1), *sts = make(FDS_STS, 0, 49, 1);
  expect_buckets(depth, depths, depth_buckets, 7, (struct fds_edges){false, false});
  expect_buckets(sts, scores, score_buckets, 7, (struct fds_edges){false, false});
  fds_destroy(&depth);
  fds_destroy(&sts);
}

/* Multiples of a width that is no binary fraction begin their bucket, whatever the quotient is rounded to. */
Test(fds, a_label_on_an_edge_belongs_to_the_bucket_above) {
  struct fds_options options;
  struct fds *fds;
  fds_options_default(FDS_AGES, &options);
  options.width = 0.05;
  options.first = -1000;
  options.last = 1000;
  OK(fds_create(&options, 1, 1, &fds));
  for (int64_t k = -1000; k <= 1000; k++) {
    cr_assert(eq(i64, fds_bucket_of(fds, (double)(float)((double)k * 0.05)), k));
    cr_assert(eq(i64, fds_bucket_of(fds, ((double)k + 0.5) * 0.05), k));
  }
  fds_destroy(&fds);
}

/* --- statistics --------------------------------------------------------------------------------------------- */

static const double *state(struct fds *fds, const char *name) {
  struct state_array states[FDS_STATES];
  size_t count = fds_states(fds, states);
  for (size_t i = 0; i < count; i++)
    if (strcmp(states[i].name, name) == 0)
      return states[i].values;
  cr_fatal("there is no state \"%s\"", name);
  return NULL;
}

/* Row by row as it comes, against two passes; far from 0, where a sum of squares would lose everything. */
Test(fds, streaming_statistics_are_those_of_two_passes_also_far_from_zero) {
  enum { ROWS = 500, FEATURES = 131 };
  struct comm *comm = one_rank();
  struct fds *fds = make(FDS_AGES, 0, 9, FEATURES);
  double *x = malloc(sizeof(double) * ROWS * FEATURES), labels[ROWS];
  for (int64_t i = 0; i < ROWS * FEATURES; i++)
    x[i] = 1e6 + buffer_number(1, i);
  for (int i = 0; i < ROWS; i++)
    labels[i] = (double)(i * i % 10);
  for (int first = 0; first < ROWS; first += 37)
    OK(fds_collect(fds, F64, ROWS - first < 37 ? ROWS - first : 37, x + (size_t)first * FEATURES, F64, labels + first));
  OK(fds_update(fds, comm, 0));
  const double *mean = state(fds, "fds/running_mean"), *variance = state(fds, "fds/running_var");
  for (int bucket = 0; bucket < 10; bucket++)
    for (int f = 0; f < FEATURES; f++) {
      double sum = 0, square = 0, count = 0;
      for (int i = 0; i < ROWS; i++) {
        sum += labels[i] == bucket ? x[i * FEATURES + f] - 1e6 : 0;
        count += labels[i] == bucket;
      }
      for (int i = 0; i < ROWS; i++)
        square += labels[i] == bucket ? pow(x[i * FEATURES + f] - 1e6 - sum / count, 2) : 0;
      double wanted_mean = count > 0 ? 1e6 + sum / count : 0, wanted = count > 0 ? square / (count - 1) : 1;
      /* A mean of 1e6 is rounded at each of a few hundred rows: 1e-10 each; a deviation of 1 feels that once squared. */
      cr_assert(fabs(mean[bucket * FEATURES + f] - wanted_mean) <= 1e-8);
      cr_assert(fabs(variance[bucket * FEATURES + f] - wanted) <= 1e-8, "%g is not %g", variance[bucket * FEATURES + f],
                wanted);
    }
  fds_destroy(&fds);
  free(x);
  leave(&comm);
}

Test(fds, statistics_do_not_depend_on_the_number_of_threads) {
  enum { ROWS = 64, FEATURES = 1000 };
  struct comm *comm = one_rank();
  float *x = buffer_create(F32, ROWS * FEATURES, 3), labels[ROWS];
  for (int i = 0; i < ROWS; i++)
    labels[i] = (float)(i % 7);
  struct fds *fds[2];
  for (int k = 0; k < 2; k++) {
    omp_set_num_threads(1 + 3 * k);
    fds[k] = make(FDS_AGES, 0, 9, FEATURES);
    OK(fds_collect(fds[k], F32, ROWS, x, F32, labels));
    OK(fds_update(fds[k], comm, 0));
  }
  size_t bytes = sizeof(double) * 10 * FEATURES;
  cr_assert(zero(int, memcmp(state(fds[0], "fds/running_mean"), state(fds[1], "fds/running_mean"), bytes)));
  cr_assert(zero(int, memcmp(state(fds[0], "fds/running_var"), state(fds[1], "fds/running_var"), bytes)));
  fds_destroy(&fds[0]);
  fds_destroy(&fds[1]);
  free(x);
  leave(&comm);
}

/* --- distributions ------------------------------------------------------------------------------------------ */

static struct fds *make_distributions(int64_t last, int64_t features) {
  struct fds_options options;
  struct fds *fds;
  fds_options_default(FDS_AGES, &options);
  options.last = last;
  options.distributions = true;
  OK(fds_create(&options, features, 1, &fds));
  return fds;
}

/* The definition, with two passes; means far from 0, where a difference of squares would lose everything. */
Test(fds, distributions_have_the_variance_of_their_mean_and_of_their_mixture) {
  enum { ROWS = 30, MEANS = 2, FEATURES = 2 * MEANS };
  struct comm *comm = one_rank();
  struct fds *fds = make_distributions(6, FEATURES);
  double x[ROWS * FEATURES], labels[ROWS];
  for (int i = 0; i < ROWS * FEATURES; i++)
    x[i] = i % FEATURES < MEANS ? 1e5 + buffer_number(1, i) : 0.1 + fabs(buffer_number(1, i));
  for (int i = 0; i < ROWS; i++)
    labels[i] = i == 0 ? 6 : i % 5; /* one row in bucket 6, none in bucket 5 */
  OK(fds_collect(fds, F64, ROWS, x, F64, labels));
  OK(fds_update(fds, comm, 0));
  const double *mean = state(fds, "fds/running_mean"), *variance = state(fds, "fds/running_var");
  for (int at = 0; at < 7 * MEANS; at++) {
    int bucket = at / MEANS, f = at % MEANS, place = bucket * FEATURES + f;
    double n = 0, sum = 0, variances = 0, squares = 0;
    for (int i = 0; i < ROWS; i++)
      if (labels[i] == bucket) {
        n++;
        sum += x[i * FEATURES + f];
        variances += x[i * FEATURES + MEANS + f];
      }
    for (int i = 0; i < ROWS; i++)
      squares += labels[i] == bucket ? pow(x[i * FEATURES + f] - sum / n, 2) : 0;
    double spread = n > 0 ? squares / n + variances / n - variances / (n * n) : 1;
    cr_expect(le(dbl, fabs(mean[place] - (n > 0 ? sum / n : 0)), 1e-9), "bucket %d", bucket);
    cr_expect(le(dbl, fabs(mean[place + MEANS] - (n > 0 ? variances / (n * n) : 1)), 1e-14), "bucket %d", bucket);
    cr_expect(le(dbl, fabs(variance[place] - spread), 1e-9), "bucket %d", bucket);
    double spread_of_spread = n == 0 ? 1 : n == 1 ? 0 : 2 * spread * spread / (n - 1);
    cr_expect(le(dbl, fabs(variance[place + MEANS] - spread_of_spread), 1e-9), "bucket %d", bucket);
    cr_expect(n != 1 || variance[place] == 0, "bucket %d: one row has no spread, but %g", bucket, variance[place]);
  }
  fds_destroy(&fds);
  leave(&comm);
}

Test(fds, distributions_without_statistics_grow_by_the_two_variances_they_begin_with) {
  enum { MEANS = 3, FEATURES = 2 * MEANS, BUCKETS = 7 };
  struct fds *fds = make_distributions(BUCKETS - 1, FEATURES);
  double scale[BUCKETS * FEATURES], shift[BUCKETS * FEATURES];
  fds_tables(fds, F64, scale, shift);
  for (int i = 0; i < BUCKETS * FEATURES; i++) {
    cr_expect(eq(dbl, scale[i], 1), "number %d", i);
    cr_expect(eq(dbl, shift[i], i % FEATURES < MEANS ? 0 : 2), "number %d", i);
  }
  fds_destroy(&fds);
}

/* Buckets of the same statistics stay as they are along the window; their variances of means do not. */
Test(fds, variances_of_means_are_smoothed_with_the_squares_of_the_window) {
  enum { ROWS = 28, FEATURES = 2 };
  struct comm *comm = one_rank();
  struct fds *fds = make_distributions(6, FEATURES);
  struct label_window window;
  double x[ROWS * FEATURES], labels[ROWS], squares = 0;
  OK(label_window_make(LABEL_GAUSSIAN, 5, 2, WINDOW_BY_SUM, &window));
  for (int i = 0; i < 5; i++)
    squares += window.value[i] * window.value[i];
  for (int i = 0; i < ROWS; i++) {
    labels[i] = i % 7;
    x[2 * i] = (double)(i / 7); /* of each bucket 0, 1, 2, 3 */
    x[2 * i + 1] = 0.5;
  }
  for (int epoch = 0; epoch < 2; epoch++) {
    OK(fds_collect(fds, F64, ROWS, x, F64, labels));
    OK(fds_update(fds, comm, epoch));
  }
  const double *mean = state(fds, "fds/smoothed_mean"), *variance = state(fds, "fds/smoothed_var");
  const double spread = 1.25 + 0.75 * 0.5;
  for (int bucket = 0; bucket < 7; bucket++) {
    cr_expect(epsilon_eq(dbl, mean[2 * bucket], 1.5, 1e-6), "bucket %d", bucket);
    cr_expect(epsilon_eq(dbl, mean[2 * bucket + 1], squares * 0.125, 1e-6), "bucket %d", bucket);
    cr_expect(epsilon_eq(dbl, variance[2 * bucket], spread, 1e-6), "bucket %d", bucket);
    cr_expect(epsilon_eq(dbl, variance[2 * bucket + 1], squares * 2 * spread * spread / 3, 1e-6), "bucket %d", bucket);
  }
  fds_destroy(&fds);
  leave(&comm);
}

/* A feature without spread stays as it is, with its variance; the others of its bucket move. */
Test(fds, distributions_without_spread_stay_feature_by_feature) {
  enum { MEANS = 2, FEATURES = 2 * MEANS, BUCKETS = 7 };
  struct fds *fds = make_distributions(BUCKETS - 1, FEATURES);
  struct state_array states[FDS_STATES];
  size_t count = fds_states(fds, states);
  double scale[BUCKETS * FEATURES], shift[BUCKETS * FEATURES];
  for (size_t i = 0; i < count; i++) {
    if (strcmp(states[i].name, "fds/epochs") == 0)
      states[i].values[0] = 1;
    if (strcmp(states[i].name, "fds/running_var") == 0)
      states[i].values[0] = 0;
    if (strcmp(states[i].name, "fds/smoothed_var") == 0)
      states[i].values[1] = 4;
  }
  fds_tables(fds, F64, scale, shift);
  const double expected_scale[] = {1, 2, 1, 2}, expected_shift[] = {0, 0, 0, 3}; /* 1 * 2 + 1 */
  for (int f = 0; f < FEATURES; f++) {
    cr_expect(eq(dbl, scale[f], expected_scale[f]), "feature %d", f);
    cr_expect(eq(dbl, shift[f], expected_shift[f]), "feature %d", f);
  }
  fds_destroy(&fds);
}

/* --- values of 16 bits, and states -------------------------------------------------------------------------- */

/* Values of 16 bits are read as the numbers they are. */
Test(fds, bfloat16_features_are_collected) {
  struct comm *comm = one_rank();
  struct fds *fds = make(FDS_AGES, 0, 9, 2);
  const uint16_t x[] = {bf16_round(1.5f), bf16_round(-2), bf16_round(2.5f), bf16_round(4)};
  const float labels[] = {3, 3};
  OK(fds_collect(fds, BF16, 2, x, F32, labels));
  OK(fds_update(fds, comm, 0));
  const double *mean = state(fds, "fds/running_mean"), *variance = state(fds, "fds/running_var");
  cr_assert(eq(dbl, mean[6], 2));
  cr_assert(eq(dbl, mean[7], 1));
  cr_assert(eq(dbl, variance[6], 0.5));
  cr_assert(eq(dbl, variance[7], 18));
  fds_destroy(&fds);
  leave(&comm);
}

/* With the states of another object copied in, the next epochs have the same bits. */
static void check_states(bool snapshot) {
  enum { ROWS = 40, FEATURES = 3, EPOCHS = 4 };
  struct comm *comm = one_rank();
  struct fds_options options;
  struct fds *whole, *cut;
  fds_options_default(FDS_AGES, &options);
  options.last = 7;
  options.snapshot = snapshot;
  OK(fds_create(&options, FEATURES, 1, &whole));
  OK(fds_create(&options, FEATURES, 1, &cut));
  double labels[ROWS], tables[4][8 * FEATURES];
  for (int i = 0; i < ROWS; i++)
    labels[i] = i % 8;
  for (int epoch = 0; epoch < EPOCHS; epoch++) {
    double *x = buffer_create(F64, ROWS * FEATURES, (uint64_t)epoch);
    if (epoch >= 2) { /* from its third epoch on, the second one goes on with the first one's states */
      struct state_array from[FDS_STATES], to[FDS_STATES];
      size_t count = fds_states(whole, from);
      cr_assert(eq(sz, fds_states(cut, to), count));
      for (size_t i = 0; epoch == 2 && i < count; i++)
        memcpy(to[i].values, from[i].values, count > 0 ? from[i].count * sizeof(double) : 0);
      fds_tables(whole, F64, tables[0], tables[1]);
      fds_tables(cut, F64, tables[2], tables[3]);
      cr_assert(zero(int, memcmp(tables[0], tables[2], 2 * sizeof *tables)), "epoch %d", epoch);
      OK(fds_collect(cut, F64, ROWS, x, F64, labels));
      OK(fds_update(cut, comm, epoch));
    }
    OK(fds_collect(whole, F64, ROWS, x, F64, labels));
    OK(fds_update(whole, comm, epoch));
    free(x);
  }
  fds_destroy(&whole);
  fds_destroy(&cut);
  leave(&comm);
}

Test(fds, states_are_all_that_is_needed_to_go_on) {
  check_states(false);
}

Test(fds, states_of_snapshots_are_all_that_is_needed_to_go_on) {
  check_states(true);
}

/* --- what cannot be ----------------------------------------------------------------------------------------- */

static void expect_refusal(const struct fds_options *options, const char *words) {
  struct fds *fds;
  cr_assert(eq(int, fds_create(options, 4, 1, &fds), ERR_ARGUMENT), "%s", words);
  cr_assert(strstr(status_message(), words) != NULL, "\"%s\" is not in \"%s\"", words, status_message());
  cr_assert(eq(ptr, fds, NULL));
}

Test(fds, options_that_cannot_be_are_refused_with_the_value) {
  struct fds_options good, options;
  size_t before = memory_in_use();
  fds_options_default(FDS_AGES, &good);
  options = good;
  options.last = 3;
  expect_refusal(&options, "a kernel of 5 bins is wider than the 4 bins");
  options = good;
  options.first = 200;
  expect_refusal(&options, "buckets 200 to 99");
  options = good;
  options.last = INT64_MAX;
  expect_refusal(&options, "buckets 0 to 9223372036854775807");
  options = good;
  options.width = 0;
  expect_refusal(&options, "cannot be 0 wide");
  options = good;
  options.width = NAN;
  expect_refusal(&options, "cannot be nan wide");
  options = good;
  options.momentum = 1;
  expect_refusal(&options, "a momentum of 1");
  options = good;
  options.clip_low = 11;
  expect_refusal(&options, "clipped to 11 .. 10");
  options.clip_low = 0;
  expect_refusal(&options, "clipped to 0 .. 10");
  options = good;
  options.start_update = 2;
  expect_refusal(&options, "from epoch 1 on when their statistics begin in epoch 2");
  options = good;
  options.kernel_size = 4;
  expect_refusal(&options, "a kernel of 4 bins");
  options = good;
  options.task = FDS_STS;
  options.distributions = true;
  expect_refusal(&options, "by the rules of ages alone");
  struct fds *fds;
  options.task = FDS_AGES;
  cr_assert(eq(int, fds_create(&options, 3, 1, &fds), ERR_ARGUMENT));
  cr_assert(strstr(status_message(), "3 features are no means") != NULL, "%s", status_message());
  cr_assert(eq(sz, memory_in_use(), before));
}

Test(fds, labels_and_features_that_are_not_finite_are_refused) {
  struct comm *comm = one_rank();
  struct fds *fds = make(FDS_AGES, 0, 9, 2);
  const double x[] = {1, INFINITY}, bad = NAN, good = 4;
  int32_t bucket;
  cr_assert(eq(int, fds_assign(fds, F64, 1, &bad, (struct fds_edges){false, false}, &bucket), ERR_NUMERIC));
  cr_assert(eq(int, fds_collect(fds, F64, 1, x, F64, &bad), ERR_NUMERIC));
  cr_assert(strstr(status_message(), "a label of nan") != NULL, "%s", status_message());
  OK(fds_collect(fds, F64, 1, x, F64, &good));
  cr_assert(eq(int, fds_update(fds, comm, 0), ERR_NUMERIC));
  cr_assert(strstr(status_message(), "bucket 4 is not finite") != NULL, "%s", status_message());
  fds_destroy(&fds);
  leave(&comm);
}
