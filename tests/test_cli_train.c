/* conr train as a user meets it: options that make no sense, data that cannot be used, numbers that overflow; each is
 * one sentence on rank 0 and a failure on every rank.  And what a run that works leaves behind. */
#include "io_files.h"
#include "io_table.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(cli_train, .init = cli_begin, .fini = cli_end, .timeout = 120);

#define RANKS 3

/* Refused on three ranks, and no run folder with a checkpoint comes of it. */
static void options_refused(const char *options, const char *sentence) {
  const char *run = io_file("run");
  cli_refused(RANKS, 2, sentence, cli_text("train %s -o %s %s", cli_data("t.h5", 20), run, options));
  cr_assert(not(io_exists(cli_last(run))));
}

/* A data file that is not what it should be. */
static void data_refused(int exit_status, const char *path, const char *sentence) {
  cli_refused(RANKS, exit_status, sentence, cli_text("train %s -o %s", path, io_file("run")));
  cr_assert(not(io_exists(cli_last(io_file("run")))));
}

/* A table in the layout, made by HDF5 itself, to be spoilt. */
static const char *plain_table(void) {
  struct io_table table = io_table_plain(30, 3);
  const char *path = io_file("plain.h5");
  io_table_write(&table, path);
  return path;
}

/* ---- options -------------------------------------------------------------------------------- */

Test(cli_train, unknown_option_offers_the_nearest) {
  options_refused("--bacth 8", "conr train has no option --bacth; did you mean --batch?");
}

Test(cli_train, value_out_of_range) {
  options_refused("--dropout 1.5", "--dropout 1.5 is out of range; give 0 to 0.99");
}

Test(cli_train, run_folder_is_required) {
  cli_refused(RANKS, 2, "conr train wants a run folder: give -o RUN", cli_text("train %s", cli_data("t.h5", 20)));
  cli_refused(RANKS, 2, "the run folder's name is empty; give -o RUN",
              cli_text("train %s -o ''", cli_data("t.h5", 20)));
}

Test(cli_train, data_file_is_required) {
  cli_refused(RANKS, 2, "conr train wants DATA.h5; see conr train --help", "train -o run");
}

Test(cli_train, global_batch_smaller_than_the_ranks) {
  options_refused("--batch 2", "--batch 2 is smaller than the 3 ranks; give at least one sample to each");
}

Test(cli_train, options_without_effect) {
  options_refused("--conr-beta 2", "--conr-beta has no effect without --conr; drop one or add the other");
  options_refused("--huber-beta 2", "--huber-beta has no effect without --loss huber; drop one or add the other");
  options_refused("--momentum 0.5", "--momentum has no effect without --optimiser sgd; drop one or add the other");
  options_refused("--optimiser sgd --beta1 0.5",
                  "--beta1 has no effect without --optimiser adam or adamw; drop one or add the other");
  options_refused("--milestones 3", "--milestones has no effect without --schedule step; drop one or add the other");
  options_refused("--lr-factor 0.5",
                  "--lr-factor has no effect without --schedule step or cosine; drop one or add the other");
}

Test(cli_train, options_that_contradict) {
  options_refused("--views 3", "--views 3 gives contrastive terms a pass of their own: add --conr, --rnc or --accon");
  options_refused("--conr --conr-constant 128",
                  "--conr-constant belongs to --conr-variant reference or depth (paper has no constant)");
  options_refused("--conr-memory 100", "--conr-memory has no effect without --conr; drop one or add the other");
  options_refused("--conr --conr-variant depth --conr-outer-weights",
                  "--conr-outer-weights belongs to --conr-variant paper (reference always has them, depth never)");
  options_refused("--conr --conr-variant reference --conr-aggregate log_of_mean",
                  "--conr-aggregate log_of_mean belongs to --conr-variant paper");
  options_refused("--conr --hidden ''", "--conr needs features to shape: give --hidden at least one layer");
}

Test(cli_train, hidden_widths_that_are_none) {
  options_refused("--hidden 8,0", "--hidden: 0 is out of range; give 1 to 1048576");
  options_refused("--hidden wide", "--hidden wants whole numbers separated by commas, not \"wide\"");
}

Test(cli_train, a_model_larger_than_the_memory) {
  struct run_result run =
      cli_run(RANKS, cli_text("train %s -o %s --hidden 1048576,1048576", cli_data("t.h5", 20), io_file("run")));
  cr_assert(eq(int, run.exit_status, 1), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, "conr: "), 1), "%s", run.output);
  cr_assert(strstr(run.output, "conr: cannot allocate ") != NULL, "%s", run.output);
  cr_assert(strstr(run.output, "use more ranks, a smaller batch or a smaller model") != NULL, "%s", run.output);
  run_result_free(&run);
}

Test(cli_train, patience_needs_validation_rows) {
  const char *path = plain_table();
  for (int row = 0; row < 30; row++)
    io_table_put(path, "split", row, 0);
  cli_refused(RANKS, 2, cli_text("--patience needs validation samples, and %s has none", path),
              cli_text("train %s -o %s --patience 3", path, io_file("run")));
}

Test(cli_train, config_file_that_is_missing) {
  cli_refused(RANKS, 1, cli_text("cannot read config file %s: No such file or directory", io_file("none")),
              cli_text("train %s -o %s --config %s", cli_data("t.h5", 20), io_file("run"), io_file("none")));
}

Test(cli_train, config_file_with_a_fault_names_the_line) {
  io_write_text(io_file("c"), "lr = 1\nepocs = 3\n");
  cli_refused(RANKS, 2, cli_text("%s line 2: conr train has no option --epocs; did you mean --epochs?", io_file("c")),
              cli_text("train %s -o %s --config %s", cli_data("t.h5", 20), io_file("run"), io_file("c")));
}

/* Without a wrapper the launcher ends the other ranks when one has failed: the sentence must be out by then. */
Test(cli_train, the_sentence_is_not_lost_when_the_launcher_ends_the_job) {
  char conr[RUN_PATH_BYTES];
  const char *const arguments[] = {"train", "t.h5", "--bacth", NULL};
  for (int round = 0; round < 3; round++) {
    struct run_result run;
    int exit_status = run_ranks_within(30, 4, run_build_path("conr", conr), arguments, &run);
    cr_assert(eq(int, exit_status, 2), "%s", run.output);
    cr_assert(eq(int, cli_count(run.output, "conr: conr train has no option --bacth; did you mean --batch?\n"), 1),
              "%s", run.output);
    run_result_free(&run);
  }
}

Test(cli_train, help_is_printed_once) {
  struct run_result run = cli_run(RANKS, "train --help");
  cr_assert(eq(int, run.exit_status, 0));
  cr_assert(eq(int, cli_count(run.output, "--checkpoint-steps"), 1), "%s", run.output);
  run_result_free(&run);
}

Test(cli_train, help_that_cannot_be_written_is_a_failure) {
  cli_refused(0, 1, "cannot write standard output: No space left on device", "train --help >/dev/full");
}

/* ---- initial parameters --------------------------------------------------------------------- */

Test(cli_train, initial_parameters_that_are_missing_or_of_another_shape) {
  const char *data = cli_data("t.h5", 20), *run = io_file("run"), *start = io_file("start");
  cli_refused(RANKS, 1, cli_text("cannot open %s: No such file or directory; check the path", io_file("none.h5")),
              cli_text("train %s -o %s --init %s", data, run, io_file("none.h5")));
  cli_accepted(0, cli_text("train %s -o %s --epochs 1 --hidden 8", data, start));
  cli_refused(
      RANKS, 1,
      cli_text("\"layer0.weight\" is [8, 6] in %s but [4, 6] in the model; give the same --model and --hidden as then",
               cli_last(start)),
      cli_text("train %s -o %s --init %s --hidden 4", data, run, cli_last(start)));
}

Test(cli_train, initial_parameters_may_be_of_the_run_that_is_replaced) {
  const char *data = cli_data("t.h5", 20), *run = io_file("run"), *other = io_file("other");
  cli_accepted(0, cli_text("train %s -o %s --epochs 2", data, run));
  cli_accepted(0, cli_text("train %s -o %s --epochs 2 --init %s", data, other, cli_last(run)));
  cli_accepted(0, cli_text("train %s -o %s --epochs 2 --init %s --force", data, run, cli_last(run)));
  cli_same_runs(run, other);
}

Test(cli_train, a_bad_start_removes_nothing) {
  const char *data = cli_data("t.h5", 20), *run = io_file("run");
  cli_accepted(0, cli_text("train %s -o %s --epochs 1", data, run));
  cli_refused(0, 1, cli_text("cannot open %s: No such file or directory; check the path", io_file("none.h5")),
              cli_text("train %s -o %s --epochs 1 --force --init %s", data, run, io_file("none.h5")));
  cr_assert(io_exists(cli_last(run)), "the run that was there is gone");
}

/* ---- data files ----------------------------------------------------------------------------- */

Test(cli_train, missing_data_file) {
  data_refused(1, io_file("none.h5"),
               cli_text("cannot open %s: No such file or directory; check the path", io_file("none.h5")));
}

Test(cli_train, directory_as_data_file) {
  data_refused(1, io_file(""), cli_text("cannot open %s: it is a directory; give an HDF5 file", io_file("")));
}

Test(cli_train, empty_data_file) {
  io_write_text(io_file("e.h5"), "");
  data_refused(1, io_file("e.h5"),
               cli_text("%s is empty (0 bytes); it was never written to the end, make it again", io_file("e.h5")));
}

Test(cli_train, csv_as_data_file) {
  cli_write_csv(io_file("t.csv"), 20);
  data_refused(1, io_file("t.csv"),
               cli_text("%s is not an HDF5 file, or it is damaged or cut short; make it again", io_file("t.csv")));
}

/* Whatever the cut leaves: one sentence, no crash, no hang. */
Test(cli_train, truncated_data_file) {
  size_t bytes;
  const char *data = cli_data("t.h5", 200), *cut = io_file("cut.h5");
  char *whole = io_read(data, &bytes);
  for (size_t part = 1; part < 6; part++) {
    io_write(cut, whole, bytes * part / 6);
    cli_refused(0, 1, cli_text("%s is not an HDF5 file, or it is damaged or cut short; make it again", cut),
                cli_text("train %s -o %s --epochs 1", cut, io_file("run")));
  }
  io_write(cut, whole, bytes / 2);
  data_refused(1, cut, cli_text("%s is not an HDF5 file, or it is damaged or cut short; make it again", cut));
  free(whole);
}

/* Random bytes behind a right signature, and in the middle of a right file. */
Test(cli_train, random_bytes_in_a_data_file) {
  size_t bytes;
  const char *data = cli_data("t.h5", 30), *bad = io_file("bad.h5");
  char *whole = io_read(data, &bytes);
  uint32_t state = 3;
  for (int round = 0; round < 8; round++) {
    char *copy = malloc(bytes);
    memcpy(copy, whole, bytes);
    size_t first = round == 0 ? 8 : bytes * (size_t)round / 8, count = round == 0 ? bytes - 8 : 64;
    for (size_t i = first; i < first + count && i < bytes; i++)
      copy[i] = (char)((state = state * 1664525u + 1013904223u) >> 24);
    io_write(bad, copy, bytes);
    struct run_result run = cli_run(0, cli_text("train %s -o %s --epochs 1 --force --quiet", bad, io_file("run")));
    /* What was hit may have been unused space or a plausible number; anything but an orderly end is a fault. */
    cr_assert(ge(int, run.exit_status, 0));
    cr_assert(le(int, run.exit_status, 2), "round %d: %s", round, run.output);
    cr_assert(eq(int, cli_count(run.output, "conr: "), run.exit_status != 0), "round %d: %s", round, run.output);
    cr_assert(round > 0 || run.exit_status == 1, "random bytes were read as a table");
    run_result_free(&run);
    free(copy);
  }
  free(whole);
}

Test(cli_train, a_checkpoint_is_no_table) {
  const char *data = cli_data("t.h5", 20), *run = io_file("start");
  cli_accepted(0, cli_text("train %s -o %s --epochs 1", data, run));
  data_refused(1, cli_last(run),
               cli_text("%s is a conr \"checkpoint\" file, not a dataset; make one with conr import", cli_last(run)));
}

Test(cli_train, parts_that_are_missing) {
  static const char *const names[] = {"inputs", "targets", "split"};
  for (int i = 0; i < 3; i++) {
    const char *path = plain_table();
    io_table_remove(path, names[i]);
    data_refused(
        1, path,
        cli_text("%s has no dataset \"%s\"; a table needs \"inputs\", \"targets\" and \"split\"", path, names[i]));
  }
}

Test(cli_train, label_and_feature_counts_that_differ) {
  const char *path = plain_table();
  io_table_replace(path, "targets", H5T_IEEE_F64LE, 1, (hsize_t[]){29});
  data_refused(
      1, path,
      cli_text("\"targets\" has 29 rows but \"inputs\" has 30 in %s; each sample needs one row in both", path));
}

Test(cli_train, labels_that_are_not_finite) {
  const char *path = plain_table();
  io_table_put(path, "targets", 7, NAN);
  data_refused(1, path, cli_text("\"targets\" in %s is nan at row 7; every target must be finite", path));
  io_table_put(path, "targets", 7, 1);
  io_table_put(path, "targets", 4, -INFINITY);
  data_refused(1, path, cli_text("\"targets\" in %s is -inf at row 4; every target must be finite", path));
}

Test(cli_train, constant_target) {
  const char *path = plain_table();
  for (int row = 0; row < 30; row++)
    io_table_put(path, "targets", row, 2.5);
  data_refused(1, path,
               cli_text("target \"target\" is 2.5 in all 18 training rows of %s; there is nothing to learn from a "
                        "constant target",
                        path));
}

Test(cli_train, no_training_rows) {
  const char *path = plain_table();
  for (int row = 0; row < 30; row++)
    io_table_put(path, "split", row, 1 + row % 2);
  data_refused(1, path, cli_text("%s has no training rows, needed for training; set \"split\" to 0 for some", path));
}

Test(cli_train, splits_that_are_none) {
  const char *path = plain_table();
  io_table_put(path, "split", 11, 3);
  data_refused(1, path,
               cli_text("\"split\" in %s is 3 at row 11; it must be 0 (train), 1 (validation) or 2 (test)", path));
}

/* A row is read when its batch comes up, by the rank that has it. */
Test(cli_train, an_input_that_is_not_finite_names_row_and_feature) {
  static const double values[] = {NAN, INFINITY};
  for (int i = 0; i < 2; i++) {
    const char *path = plain_table(), *shown = i == 0 ? "nan" : "inf";
    io_table_put(path, "inputs", 11 * 3 + 2, values[i]); /* the 7th training row */
    const char *sentence =
        cli_text("\"inputs\" in %s is %s at row 11, feature \"feature2\"; mend or remove the row", path, shown);
    cli_refused(0, 1, sentence, cli_text("train %s -o %s --epochs 1", path, io_file("run")));
    cli_aborted(3, 1, sentence,
                cli_text("train %s -o %s --epochs 1 --batch 18 --shuffle none --force", path, io_file("run")));
  }
}

/* ---- numbers that overflow ------------------------------------------------------------------ */

/* "step 2: a feature of sample 20 on rank 0 is not finite; lower --lr, or give --clip a value" */
Test(cli_train, an_overflow_names_step_sample_and_rank) {
  int step, sample, rank, length = 0;
  char what[32];
  struct run_result run =
      cli_run(RANKS, cli_text("train %s -o %s --loss mse --optimiser sgd --lr 1e6 --batch 6 --shuffle none",
                              cli_data("t.h5", 60), io_file("run")));
  cr_assert(eq(int, run.exit_status, 1), "%s", run.output);
  const char *found = strstr(run.output, "conr: step ");
  cr_assert(found != NULL, "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, "conr: "), 1), "%s", run.output);
  sscanf(found, "conr: step %d: a %31[a-z] of sample %d on rank %d is not finite; lower --lr, or give --clip a value%n",
         &step, what, &sample, &rank, &length);
  cr_assert(ne(int, length, 0), "%s", found);
  cr_assert(strcmp(what, "feature") == 0 || strcmp(what, "prediction") == 0, "%s", found);
  /* In file order, 3 of 5 rows are for training: row r is at position 3 (r / 5) + r % 5 of the split. */
  int position = sample / 5 * 3 + sample % 5;
  cr_assert(lt(int, sample % 5, 3), "row %d is not for training", sample);
  cr_assert(eq(int, position / 6, step), "row %d does not belong to step %d", sample, step);
  cr_assert(eq(int, position % 6 / 2, rank), "row %d does not belong to rank %d", sample, rank);
  run_result_free(&run);
}

/* A finite input so large that only the network's own numbers overflow. */
Test(cli_train, an_overflow_in_validation_names_the_epoch) {
  const char *path = plain_table();
  io_table_put(path, "inputs", 3 * 3, 1e38); /* row 3 is for validation */
  cli_refused(RANKS, 1, "epoch 1: a validation prediction is not finite; lower --lr, or give --clip a value",
              cli_text("train %s -o %s --loss mse --optimiser sgd --lr 1e3 --batch 64", path, io_file("run")));
}

/* ---- a run that works ----------------------------------------------------------------------- */

Test(cli_train, a_run_folder_in_use_is_not_touched) {
  const char *data = cli_data("t.h5", 20), *run = io_file("run");
  const char *line = cli_text("train %s -o %s --epochs 1", data, run);
  cli_accepted(0, line);
  cli_refused(RANKS, 2,
              cli_text("%s already holds a run; give --resume to go on with it, or --force to replace it", run), line);
  cli_accepted(RANKS, cli_text("%s --force --epochs 2", line));
  cr_assert(eq(int, cli_lines(cli_metrics(run)), 2));
}

Test(cli_train, progress_is_plain_lines_when_nobody_watches) {
  struct run_result run = cli_run(2, cli_text("train %s -o %s --epochs 30", cli_data("t.h5", 40), io_file("run")));
  cr_assert(eq(int, run.exit_status, 0));
  cr_assert(eq(int, cli_count(run.output, "\r"), 0), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, "\033"), 0), "%s", run.output);
  cr_assert(eq(int, cli_count(run.output, "\nepoch 30/30 "), 1), "%s", run.output);
  run_result_free(&run);
  run = cli_run(2, cli_text("train %s -o %s --epochs 3 --quiet", cli_data("t.h5", 40), io_file("quiet")));
  cr_assert(eq(str, run.output, "[exit 0]\n[exit 0]\n"));
  run_result_free(&run);
}

static void same_lines_of(const char *key, const char *a, const char *b) {
  const char *of_a = strstr(a, key), *of_b = strstr(b, key);
  cr_assert(of_a != NULL && of_b != NULL, "%s is not there", key);
  cr_assert(eq(int, strncmp(of_a, of_b, strcspn(of_a, "\n") + 1), 0), "%s differs", key);
}

/* Every kind of option: default, given, resolved from others, contrary to a default that depends on others. */
Test(cli_train, config_used_reproduces_the_run) {
  static const char *const options[] = {"", "--conr --noise 0 --dropout 0.2 --seed 5 --batch 16 --loss huber",
                                        "--hidden '' --schedule cosine --lr-factor 0.5 --optimiser sgd --lr 0.01"};
  const char *data = cli_data("t.h5", 60);
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    const char *first = io_file(cli_text("first%zu", i)), *second = io_file(cli_text("second%zu", i));
    const char *used = cli_text("%s/config.used", first);
    cli_accepted(2, cli_text("train %s -o %s --epochs 2 --log-steps 1 %s", data, first, options[i]));
    cli_accepted(2, cli_text("train %s --config %s -o %s", data, used, second));
    cli_same_runs(first, second);
    char *of_first = io_read(used, NULL), *of_second = io_read(cli_text("%s/config.used", second), NULL);
    same_lines_of("# data ", of_first, of_second);
    same_lines_of("# device ", of_first, of_second);
    cr_assert(strstr(of_first, "# device cpu, gradients and features by mpi\n") != NULL, "%s", of_first);
    same_lines_of("\nnoise = ", of_first, of_second);
    same_lines_of("\nhidden = ", of_first, of_second);
    free(of_second);
    free(of_first);
  }
}

/* All phases of an epoch, and together not more than it. */
Test(cli_train, the_log_tells_where_the_time_went) {
  static const char *const phases[] = {"forward", "loss", "backward", "reduce", "update"};
  const char *data = cli_data("t.h5", 60), *run = io_file("run");
  cli_accepted(2, cli_text("train %s -o %s --epochs 2 --conr", data, run));
  char *text = io_read(cli_metrics(run), NULL);
  int epochs = 0;
  for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    json_t *event = json_loads(line, 0, NULL);
    double sum = 0;
    cr_assert(event != NULL, "%s", line);
    for (size_t i = 0; i < sizeof phases / sizeof *phases; i++) {
      json_t *seconds = json_object_get(event, cli_text("time_%s", phases[i]));
      bool known = json_is_real(seconds) && json_real_value(seconds) >= 0;
      cr_expect(known, "time_%s of %s", phases[i], line);
      sum += json_real_value(seconds);
    }
    double gather = json_real_value(json_object_get(event, "time_gather"));
    bool within = gather > 0 && gather <= json_real_value(json_object_get(event, "time_loss"));
    cr_expect(within, "time_gather %g of %s", gather, line);
    bool fits = sum > 0 && sum <= json_real_value(json_object_get(event, "seconds"));
    cr_expect(fits, "%g of %s", sum, line);
    json_decref(event);
    epochs++;
  }
  free(text);
  cr_expect(eq(int, epochs, 2));
}

Test(cli_train, options_win_over_the_config_file) {
  const char *data = cli_data("t.h5", 20), *run = io_file("run");
  io_write_text(io_file("c"), "epochs = 5\nlr = 0.5\n");
  cli_accepted(0, cli_text("train %s -o %s --config %s --epochs 2", data, run, io_file("c")));
  cr_assert(eq(int, cli_lines(cli_metrics(run)), 2));
  char *used = io_read(cli_text("%s/config.used", run), NULL);
  cr_assert(strstr(used, "\nepochs = 2\n") != NULL, "%s", used);
  cr_assert(strstr(used, "\nlr = 0.5\n") != NULL, "%s", used);
  free(used);
}

/* The same rows in other layouts, as h5py writes them. */
static const char layouts[] = "import sys, h5py\n"
                              "folder = sys.argv[1]\n"
                              "with h5py.File(folder + '/t.h5') as f:\n"
                              "    data = {k: f[k][()] for k in ('inputs', 'targets', 'split')}\n"
                              "    mean, std = f['standardise/mean'][()], f['standardise/std'][()]\n"
                              "kinds = {'contiguous': {}, 'chunked': {'chunks': (7, 2)},\n"
                              "         'gzip': {'chunks': True, 'compression': 'gzip', 'shuffle': True}}\n"
                              "for name, options in kinds.items():\n"
                              "    with h5py.File(folder + '/' + name + '.h5', 'w') as f:\n"
                              "        f.create_dataset('inputs', data=data['inputs'], **options)\n"
                              "        f['targets'], f['split'] = data['targets'], data['split']\n"
                              "        f['standardise/mean'], f['standardise/std'] = mean, std\n";

Test(cli_train, files_of_h5py_train_to_the_same_bits) {
  static const char *const names[] = {"contiguous", "chunked", "gzip"};
  const char *data = cli_data("t.h5", 60), *options = "--epochs 2 --conr --log-steps 1";
  io_python(layouts, io_file(""));
  cli_accepted(2, cli_text("train %s -o %s %s", data, io_file("imported"), options));
  for (int i = 0; i < 3; i++) {
    const char *run = io_file(names[i]);
    cli_accepted(2, cli_text("train %s.h5 -o %s %s", run, run, options));
    cli_same_runs(io_file("imported"), run);
  }
}
