/* N ranks equal one rank in training: tests/ranks/rank_train.c on the shipped table. */
#include "tests/abalone.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <criterion/parameterized.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct variant {
  const char *name;
  const char *words[28]; /* options of conr train */
};

static const struct variant variants[] = {
    {"float64, ConR, dropout, augmentation",
     {"--precision", "f64", "--conr", "--dropout", "0.2", "--noise", "0.1", "--mask", "0.1", "--batch", "200",
      "--optimiser", "sgd", "--lr", "0.002"}},
    /* Without edges: gelu, MSE, and a window that holds all differences of predictions (see rank_train.c). */
    {"float32, ConR, dropout, augmentation",
     {"--activation", "gelu", "--loss", "mse", "--conr", "--conr-w", "6", "--dropout", "0.2", "--noise", "0.1",
      "--mask", "0.1", "--batch", "200", "--optimiser", "sgd", "--lr", "0.002"}},
    {"float64, three views, reference variant of a fixed constant, a memory, clipping",
     {"--precision", "f64", "--conr", "--conr-variant", "reference", "--conr-constant", "300", "--conr-memory", "700",
      "--views", "3", "--clip", "1", "--batch", "150"}},
    {"float64, ConR and MSE, weights by smoothed counts",
     {"--precision", "f64", "--loss", "mse", "--conr", "--conr-variant", "reference", "--weights", "sqrt-inverse",
      "--lds", "gaussian", "--batch", "150"}},
    {"float64, MSE alone, batches of 7: empty and uneven shards",
     {"--precision", "f64", "--loss", "mse", "--batch", "7", "--bucket-mb", "0.0005"}},
    {"float64, BMC, batches of 7: empty and uneven shards",
     {"--precision", "f64", "--loss", "bmc", "--noise-scale", "2", "--batch", "7"}},
    {"float64, BMC with ConR that remembers part of a batch, two views in micro-batches",
     {"--precision", "f64", "--loss", "bmc", "--conr", "--conr-memory", "211", "--batch", "150", "--micro-batch",
      "20"}},
    {"float32, BMC, three views", /* no edges: as above */
     {"--activation", "gelu", "--loss", "bmc", "--conr", "--conr-w", "6", "--views", "3", "--batch", "200",
      "--optimiser", "sgd", "--lr", "0.002"}},
    {"float64, GAI, batches of 7: empty and uneven shards",
     {"--precision", "f64", "--loss", "gai", "--gmm", "4", "--batch", "7"}},
    {"float64, BNI in micro-batches",
     {"--precision", "f64", "--loss", "bni", "--noise-lr", "0.1", "--batch", "130", "--micro-batch", "11"}},
    {"float64, RankSim, batches of 7: empty and uneven shards", {"--precision", "f64", "--ranksim", "--batch", "7"}},
    {"float64, RnC and ACCon, two views in micro-batches",
     {"--precision", "f64", "--rnc", "--accon", "--batch", "150", "--micro-batch", "20"}},
    {"float64, ConR, RankSim and RnC, three views",
     {"--precision", "f64", "--conr", "--ranksim", "--ranksim-gamma", "1", "--rnc", "--views", "3", "--batch", "150"}},
    {"float64, ConR lends its rows to all others, two views in micro-batches",
     {"--precision", "f64", "--conr", "--ranksim", "--ranksim-gamma", "1", "--rnc", "--accon", "--srl", "--batch",
      "130", "--micro-batch", "11"}},
    {"float64, ConR lends its rows to RnC, but RankSim sees smoothed ones",
     {"--precision", "f64", "--conr", "--rnc", "--ranksim", "--ranksim-gamma", "1", "--fds", "--batch", "7"}},
    {"float64, SRL and RankSim on smoothed features, in micro-batches",
     {"--precision", "f64", "--srl", "--ranksim", "--ranksim-gamma", "1", "--fds", "--batch", "130", "--micro-batch",
      "11"}},
    {"float64, distributions with dropout, batches of 7: empty and uneven shards",
     {"--precision", "f64", "--probabilistic", "--dropout", "0.2", "--noise", "0.1", "--batch", "7"}},
    {"float64, distributions, whose means ConR and RnC see, two views in micro-batches",
     {"--precision", "f64", "--probabilistic", "--conr", "--rnc", "--batch", "150", "--micro-batch", "20"}},
    {"float64, distributions with ConR and RankSim, three views",
     {"--precision", "f64", "--probabilistic", "--conr", "--ranksim", "--ranksim-gamma", "1", "--views", "3", "--batch",
      "150"}},
    {"float64, experts and ConR, two views in micro-batches",
     {"--precision", "f64", "--loss", "uvote", "--experts", "3", "--conr", "--batch", "150", "--micro-batch", "20"}},
    {"float64, experts on smoothed features, batches of 7: empty and uneven shards",
     {"--precision", "f64", "--loss", "uvote", "--expert-static", "--fds", "--batch", "7"}},
    {"float64, evidential head, weights, ConR and RankSim, three views",
     {"--precision", "f64", "--loss", "evidential", "--weights", "inverse", "--conr", "--ranksim", "--ranksim-gamma",
      "1", "--views", "3", "--batch", "150"}},
    {"float64, evidential head, batches of 7: empty and uneven shards",
     {"--precision", "f64", "--loss", "evidential", "--batch", "7"}},
    {"float64, focal L1", {"--precision", "f64", "--loss", "focal_l1", "--focal-gamma", "1.5", "--batch", "130"}},
};

/* Tests run in processes of their own, so a parameter must not hold pointers: the number of the variant. */
ParameterizedTestParameters(train, n_ranks_equal_one_rank) {
  static int numbers[sizeof variants / sizeof *variants];
  for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
    numbers[i] = (int)i;
  return cr_make_param_array(int, numbers, sizeof numbers / sizeof *numbers);
}

ParameterizedTest(int *number, train, n_ranks_equal_one_rank, .timeout = 240) {
  const struct variant *variant = &variants[*number];
  char folder[] = "/tmp/conr-train-XXXXXX", command[256];
  cr_assert(ne(ptr, mkdtemp(folder), NULL));
  const char *data = abalone_table(folder);
  struct run_result run;
  const char *arguments[40] = {data, folder, "--epochs", "2", "--hidden", "32,16"};
  for (int i = 0; variant->words[i] != NULL; i++)
    arguments[6 + i] = variant->words[i];
  for (int ranks = 1; ranks <= 4; ranks++) {
    int status = run_ranks(ranks, "rank_train", arguments, &run);
    cr_assert(eq(int, status, 0), "%s on %d ranks:\n%s", variant->name, ranks, run.output);
    run_result_free(&run);
  }
  snprintf(command, sizeof command, "rm -rf '%s'", folder);
  cr_assert(eq(int, system(command), 0));
}
