/* Training steps as graphs, on the emulated CUDA backend (tests/emulate): the bits of steps that are queued
 * (tests/ranks/rank_graphs.c), one graph a step where no message is sent, and what `--graphs auto` does. */
#include "draw_images.h"
#include "io_files.h"
#include "support_cli.h"
#include "tests/emulated.h"
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void begin(void) {
  cli_begin();
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  setenv("EMULATED_NCCL_FOLDER", io_file(""), 1);
}

TestSuite(step_graphs, .init = begin, .fini = cli_end, .timeout = 900);

/* launches: of a step, as rank_graphs takes it */
static void same_bits(int ranks, const char *data, const char *launches, const char *options) {
  char words[1024];
  const char *arguments[40] = {data, io_file(""), launches};
  struct run_result run;
  int count = 3;
  snprintf(words, sizeof words, "%s", options);
  for (char *word = strtok(words, " "); word != NULL; word = strtok(NULL, " "))
    arguments[count++] = word;
  int status = run_ranks_within(240, ranks, "rank_graphs", arguments, &run);
  cr_expect(eq(int, status, 0), "%s on %d ranks:\n%s", options, ranks, run.output);
  run_result_free(&run);
}

/* Two whole batches and a ragged one an epoch. */
#define TABLE "--epochs 4 --batch 16 --hidden 8 --precision f32"

Test(step_graphs, a_step_of_one_rank_is_one_graph) {
  const char *data = cli_data("t.h5", 60);
  same_bits(1, data, "1", TABLE);
  same_bits(1, data, "1", TABLE " --conr --dropout 0.3 --clip 0.5 --schedule cosine --warmup 3");
  same_bits(1, data, "1", TABLE " --conr --optimiser adamw --weight-decay 0.1 --loss huber");
  same_bits(1, data, "1", TABLE " --conr --views 3 --dropout 0.3 --optimiser sgd --schedule step --milestones 1,2");
  same_bits(1, data, "1", TABLE " --conr --micro-batch 5 --dropout 0.3 --clip 1");
  same_bits(1, data, "1", TABLE " --conr --probabilistic --dropout 0.3");
}

/* The host plans by what the device has sorted: a graph before, one after. */
Test(step_graphs, banded_conr_cuts_a_step_in_two) {
  const char *data = cli_data("t.h5", 60);
  same_bits(1, data, "2", TABLE " --conr --conr-path banded --clip 0.5");
  same_bits(2, data, "0", TABLE " --conr --conr-path banded --dropout 0.3");
}

Test(step_graphs, ranks_exchange_messages_between_graphs) {
  const char *data = cli_data("t.h5", 60);
  const char *options = TABLE " --conr --dropout 0.3 --clip 0.5 --schedule cosine --bucket-mb 0.0001";
  same_bits(2, data, "0", options); /* MPI through host memory */
  same_bits(2, data, "0", TABLE " --conr --micro-batch 3 --views 3");
  setenv("EMULATED_CUDA_DEVICES", "3", 1);
  same_bits(3, data, "0", options); /* NCCL */
  same_bits(3, data, "0", TABLE " --micro-batch 2 --conr");
}

/* What the host computes is called between graphs, on rows that a graph has gathered. */
Test(step_graphs, the_host_borrows_rows_between_graphs) {
  const char *data = cli_data("t.h5", 60);
  same_bits(1, data, "2", TABLE " --conr --rnc --ranksim --ranksim-gamma 1 --srl");
  same_bits(2, data, "0", TABLE " --conr --rnc --accon --micro-batch 3 --dropout 0.3");
}

/* Coefficients of experts change with the epoch. */
Test(step_graphs, experts_are_part_of_a_graph) {
  const char *data = cli_data("t.h5", 60);
  same_bits(1, data, "1", TABLE " --loss uvote --experts 3");
}

Test(step_graphs, rnc_and_accon_are_part_of_a_graph) {
  const char *data = cli_data("t.h5", 60);
  same_bits(1, data, "1", TABLE " --rnc --views 2 --clip 1");
  same_bits(1, data, "1", TABLE " --conr --rnc --accon --micro-batch 5");
  same_bits(1, data, "2", TABLE " --rnc --views 3 --ranksim --ranksim-gamma 1");
  same_bits(2, data, "0", TABLE " --rnc --views 2");
  same_bits(1, data, "1", TABLE " --accon --views 2 --clip 1");
  same_bits(1, data, "1", TABLE " --conr --accon --micro-batch 5");
  same_bits(1, data, "2", TABLE " --accon --views 3 --ranksim --ranksim-gamma 1");
  same_bits(2, data, "0", TABLE " --accon --views 2");
}

/* The noise scale is learned: each launch reads that of its step.  A message of labels cuts a step of several ranks. */
Test(step_graphs, balanced_mse_is_part_of_a_graph) {
  const char *data = cli_data("t.h5", 60);
  const char *bmc = TABLE " --loss bmc --noise-scale 0.5 --noise-lr 0.1 --views 2";
  same_bits(1, data, "1", bmc);
  same_bits(1, data, "1", TABLE " --loss gai --gmm 3 --noise-lr 0.1 --conr --views 3");
  same_bits(1, data, "1", TABLE " --loss bni --weight-bins -10,0.25,80 --noise-lr 0.1 --micro-batch 5");
  same_bits(2, data, "0", bmc);
  setenv("EMULATED_CUDA_DEVICES", "3", 1);
  same_bits(3, data, "0", bmc);
}

/* Without ConR two ranks have one bucket of gradients: a graph before its sum is started, one before it is waited for
 * (the mark of a clock), and one after that. */
Test(step_graphs, ranks_cut_a_step_only_where_they_must) {
  const char *data = cli_data("t.h5", 60);
  setenv("EMULATED_CUDA_DEVICES", "2", 1);
  same_bits(2, data, "3", TABLE);
}

Test(step_graphs, a_run_goes_on_with_the_same_bits) {
  const char *data = cli_data("t.h5", 60), *whole = io_file("whole"), *parts = io_file("parts");
  const char *options = "--batch 16 --hidden 8 --conr --dropout 0.2 --device cuda --precision f32 --quiet";
  cli_accepted(0, cli_text("train %s -o %s --epochs 6 --graphs off %s", data, whole, options));
  cli_accepted(0, cli_text("train %s -o %s --epochs 3 --graphs on %s", data, parts, options));
  cli_accepted(0, cli_text("train %s -o %s --epochs 6 --graphs on --resume %s", data, parts, options));
  cli_same_runs(whole, parts);
}

/* --- auto ------------------------------------------------------------------------------------------------------ */

/* Trains with these options of auto as well as without graphs, to the same bits; returns what auto said. */
static struct run_result said_by_auto(int ranks, const char *data) {
  const char *plain = io_file("plain"), *chosen = io_file("chosen");
  const char *options =
      "--epochs 12 --batch 16 --hidden 8 --conr --dropout 0.2 --bucket-mb 0.0001 --device cuda --force";
  cli_accepted(ranks, cli_text("train %s -o %s %s --graphs off --quiet", data, plain, options));
  struct run_result run = cli_run(ranks, cli_text("train %s -o %s %s", data, chosen, options));
  cr_expect(eq(int, run.exit_status, 0), "%s", run.output);
  cli_same_runs(plain, chosen);
  return run;
}

Test(step_graphs, auto_measures_and_says_what_it_takes) {
  const char *data = cli_data("t.h5", 60);
  for (int ranks = 1; ranks <= 2; ranks++) {
    struct run_result run = said_by_auto(ranks, data);
    cr_expect(eq(int, cli_count(run.output, "a step takes "), 1), "%s", run.output);
    cr_expect(eq(int, cli_count(run.output, " without: graphs are "), 1), "%s", run.output);
    cr_expect(eq(int, cli_count(run.output, "steps are not launched"), 0), "%s", run.output);
    run_result_free(&run);
  }
}

/* Work number `piece` of those that are kept: auto says why, and does without. */
static void does_without(const char *piece, const char *what, int ranks, const char *data) {
  setenv("EMULATED_CUDA_UNKEPT", piece, 1);
  struct run_result run = said_by_auto(ranks, data);
  const char *sentence = cli_text("steps are not launched as graphs: %s: operation not permitted", what);
  cr_expect(eq(int, cli_count(run.output, sentence), ranks), "%s", run.output);
  cr_expect(eq(int, cli_count(run.output, "a step takes "), 0), "%s", run.output);
  run_result_free(&run);
}

/* At the begin of a step; while ConR's rows would have been on their way; and when the sums of the head's gradients
 * would have been started. */
Test(step_graphs, auto_does_without_what_cannot_be_kept) {
  const char *data = cli_data("t.h5", 60);
  does_without("1", "filling with zeros", 1, data);
  does_without("16", "a regression loss", 2, data);
  does_without("46", "column sums", 2, data);
}

Test(step_graphs, what_cannot_be_kept_ends_a_run_that_asks_for_graphs) {
  setenv("EMULATED_CUDA_UNKEPT", "46", 1);
  cli_refused(0, 1, "column sums: operation not permitted when stream is capturing (cudaErrorStreamCaptureUnsupported)",
              cli_text("train %s -o %s --epochs 4 --batch 16 --hidden 8 --conr --dropout 0.2 --device cuda --graphs on",
                       cli_data("t.h5", 60), io_file("run")));
}
