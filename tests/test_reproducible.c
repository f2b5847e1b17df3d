/* conr train --reproducible: the same bits on any number of ranks, and the mathematics of the fast mode. */
#include "abalone.h"
#include "draw_images.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

TestSuite(reproducible, .init = cli_begin, .fini = cli_end, .timeout = 200);

/* A run that lasts to its end; every step is written down. */
static const char *trained(int ranks, const char *name, const char *data, const char *options) {
  const char *run = io_file(name);
  cli_accepted(ranks, cli_text("train %s -o %s --reproducible --log-steps 1 --quiet %s", data, run, options));
  return run;
}

/* 102 steps; panels of ConR that hold a shard's rows and others that do not, widths of features that are no multiple of
 * a vector; 5 ranks have uneven shares of the 12 shards. */
Test(reproducible, a_table_with_conr_has_the_same_bits_on_1_2_3_4_and_5_ranks_and_when_resumed_on_others) {
  const char *data = abalone_table(io_file(""));
  const char *options =
      "--batch 150 --conr --weights sqrt-inverse --lds gaussian --dropout 0.2 --hidden 37,29 --clip 5 "
      "--checkpoint-steps 20";
  const char *alone = trained(1, "alone", data, cli_text("%s --epochs 6", options));
  cr_assert(eq(int, cli_lines(cli_metrics(alone)), 6 * (17 + 1)));
  for (int ranks = 2; ranks <= 4; ranks++)
    cli_same_runs(alone, trained(ranks, cli_text("on%d", ranks), data, cli_text("%s --epochs 6", options)));
  trained(5, "moved", data, cli_text("%s --epochs 2", options));
  cli_same_runs(alone, trained(3, "moved", data, cli_text("%s --epochs 6 --resume", options)));
}

/* Batches of 9 samples and of none in some of 12 shards; what reads all rows: FDS and all regularisers; three views,
 * where terms look at two passes.  The environment's threads change nothing. */
Test(reproducible, all_terms_on_three_views_in_shards_that_may_be_empty) {
  const char *data = cli_data("t.h5", 120);
  const char *options = "--batch 9 --epochs 13 --conr --views 3 --ranksim --ranksim-gamma 1 --rnc --accon --srl --fds "
                        "--fds-start-update 0 --fds-start-smooth 1 --dropout 0.2 --hidden 19,13 --lr 0.0003";
  const char *alone = trained(1, "alone", data, options);
  cli_same_runs(alone, trained(4, "on4", data, options));
  setenv("OMP_NUM_THREADS", "2", 1);
  cli_same_runs(alone, trained(3, "on3", data, options));
}

/* Bands and a memory of ConR, distributions, Balanced MSE and its noise scale, experts. */
Test(reproducible, other_losses_and_heads) {
  static const char *const options[] = {
      "--batch 40 --epochs 3 --loss bmc --conr --conr-path banded --conr-variant reference --conr-memory 70 "
      "--virtual-shards 7",
      "--batch 40 --epochs 3 --loss uvote --conr --rnc --virtual-shards 5",
      "--batch 72 --epochs 3 --loss evidential --probabilistic --precision f64 --conr --virtual-shards 3"};
  const char *data = cli_data("t.h5", 120);
  for (size_t i = 0; i < sizeof options / sizeof *options; i++)
    cli_same_runs(trained(1, cli_text("alone%zu", i), data, options[i]),
                  trained(3, cli_text("on%zu", i), data, options[i]));
}

/* Convolutions and batch norm: on as many ranks as shards nothing goes forward twice, and the bits are the same. */
Test(reproducible, images_with_batch_norm) {
  static const char *const splits[] = {"train", "train", "train", "val"};
  const char *csv = io_file("labels.csv"), *data = io_file("faces.h5");
  enum { IMAGES = 24 };
  FILE *file = fopen(csv, "w");
  fprintf(file, "path,split,age\n");
  for (int i = 0; i < IMAGES; i++) {
    draw_jpeg(io_file(cli_text("%d.jpg", i)), &(struct drawing){.height = 34, .width = 36, .label = 3 * i});
    fprintf(file, "%d.jpg,%s,%d\n", i, splits[i % 4], 3 * i);
  }
  fclose(file);
  cli_accepted(0, cli_text("import %s --images %s -o %s --quiet", csv, io_file(""), data));
  const char *options = "--model resnet18 --size 32 --batch 12 --epochs 2 --conr --virtual-shards 4 --dropout 0.1";
  const char *alone = trained(1, "alone", data, options);
  setenv("OMP_NUM_THREADS", "2", 1); /* on two threads libraries would add up otherwise */
  for (int ranks = 3; ranks <= 4; ranks++)
    cli_same_runs(alone, trained(ranks, cli_text("on%d", ranks), data, options));
}

/* In float64, where nothing is near an edge by rounding. */
Test(reproducible, the_fast_mode_agrees_with_it_to_rounding) {
  const char *data = cli_data("t.h5", 120), *fast = io_file("fast");
  const char *options = "--batch 30 --epochs 6 --conr --ranksim --ranksim-gamma 1 --dropout 0.2 --precision f64";
  cli_accepted(2, cli_text("train %s -o %s --quiet %s", data, fast, options));
  cli_same_arrays(cli_last(fast), cli_last(trained(3, "slow", data, options)), 1e-9);
}

Test(reproducible, what_it_cannot_do_is_refused) {
  const char *data = cli_data("t.h5", 120), *run = io_file("run");
  cli_refused(3, 2,
              "--virtual-shards 2 are too few for 3 ranks, each of which takes at least one; start at most 2 ranks, or "
              "begin a run with more shards, whose bits are others",
              cli_text("train %s -o %s --reproducible --virtual-shards 2", data, run));
  cli_refused(0, 2, "--virtual-shards has no effect without --reproducible; drop one or add the other",
              cli_text("train %s -o %s --virtual-shards 2", data, run));
  cli_refused(0, 2,
              "--threads 2 does not go with --reproducible, which computes on one thread a rank, so that libraries add "
              "up in one order; drop it, and start a rank for each core",
              cli_text("train %s -o %s --reproducible --threads 2", data, run));
  trained(2, "run", data, "--epochs 1");
  cli_refused(0, 2,
              "--resume with --virtual-shards 24, but the run was begun with 12; give the same, or start a new run",
              cli_text("train %s -o %s --reproducible --virtual-shards 24 --epochs 2 --resume", data, run));
}
