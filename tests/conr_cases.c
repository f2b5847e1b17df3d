/* Stored and random batches of the ConR loss. */
#include "tests/conr_cases.h"

#include "dist/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const share_names[SHARES] = {"even", "one row, then the rest", "all on the last"};

int64_t conr_share(enum share share, int64_t rows, int rank, int size, int64_t *rows_of_rank) {
  int64_t first = 0;
  for (int r = 0; r < size; r++) {
    bool last = r == size - 1;
    if (share == SHARE_EVEN)
      rows_of_rank[r] = rows * (r + 1) / size - rows * r / size;
    else if (share == SHARE_UNEVEN) /* rank 0 one row, middle ranks none, the last the rest */
      rows_of_rank[r] = size == 1 ? rows : r == 0 ? (rows > 0) : last ? rows - (rows > 0) : 0;
    else
      rows_of_rank[r] = last ? rows : 0;
    first += r < rank ? rows_of_rank[r] : 0;
  }
  return first;
}

struct conr_case conr_case_load(const struct golden_file *file, const char *name) {
  struct conr_case stored = {0};
  char variant[32], aggregate[32];
  bool depth = golden_has(file, name, "mean_depth");
  conr_options_default(&stored.options);
  golden_text(file, name, "variant", "paper", variant, sizeof variant);
  golden_text(file, name, "aggregate", "mean_of_log", aggregate, sizeof aggregate);
  stored.options.variant = depth ? CONR_DEPTH : strcmp(variant, "paper") ? CONR_REFERENCE : CONR_PAPER;
  stored.options.aggregate = strcmp(aggregate, "log_of_mean") ? CONR_MEAN_OF_LOG : CONR_LOG_OF_MEAN;
  stored.options.w = golden_number(file, name, "w", NAN);
  stored.options.e = golden_number(file, name, "e", NAN);
  stored.options.t = golden_number(file, name, "t_effective", NAN);
  stored.options.outer_weights =
      stored.options.variant == CONR_PAPER && golden_number(file, name, "outer_weights", 0) != 0;
  stored.feature = golden_read(file, name, "features");
  stored.label = golden_read(file, name, depth ? "mean_depth" : "targets");
  stored.prediction = golden_read(file, name, depth ? "mean_output" : "preds");
  stored.weight = golden_read(file, name, depth ? "mean_weight" : "weights");
  stored.grad = golden_read(file, name, "grad_features");
  stored.loss = golden_scalar(file, name, "loss");
  stored.rows = stored.feature.shape[0];
  stored.features = (int)(stored.feature.count / stored.rows);
  stored.targets = (int)(stored.label.count / stored.rows);
  return stored;
}

static struct golden_array room(int64_t count) {
  struct golden_array array = {.count = count};
  array.data = malloc((size_t)count * sizeof(double) + 1);
  return array;
}

struct conr_case conr_case_random(int64_t rows, int features, int targets, double error, uint64_t seed) {
  struct random_key key = random_key(seed, RANDOM_TEST, 1);
  struct conr_case made = {.rows = rows, .features = features, .targets = targets};
  conr_options_default(&made.options);
  made.feature = room(rows * features);
  made.label = room(rows * targets);
  made.prediction = room(rows * targets);
  made.weight = room(rows);
  for (int64_t i = 0; i < rows; i++) {
    uint64_t row = (uint64_t)i;
    double first = 0; /* component of the label */
    for (int k = 0; k < targets; k++) {
      double age = floor(20 + 60 * random_uniform(key, row, 100000 + (uint64_t)k));
      double label = (float)(targets == 1 ? age : age / 8);
      made.label.data[i * targets + k] = label;
      first = k == 0 ? label : first;
      made.prediction.data[i * targets + k] = (float)(label + error * random_normal(key, row, 200000 + (uint64_t)k));
    }
    for (int k = 0; k < features; k++)
      made.feature.data[i * features + k] = (float)(random_normal(key, row, (uint64_t)k) + 0.02 * first * (k % 3));
    made.weight.data[i] = (float)(0.25 + 2 * random_uniform(key, row, 300000));
  }
  return made;
}

void conr_case_free(struct conr_case *own) {
  golden_free(&own->feature);
  golden_free(&own->label);
  golden_free(&own->prediction);
  golden_free(&own->weight);
  golden_free(&own->grad);
}
