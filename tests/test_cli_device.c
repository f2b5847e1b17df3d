/* Training on a GPU as a user meets it, on the emulated backend (tests/emulate): the same numbers as on the host, on
 * one rank and several, by both ways of communication; checkpoints go from one to the other; what is refused, and
 * how. */
#include "draw_images.h"
#include "io_files.h"
#include "io_table.h"
#include "support_cli.h"
#include "tests/emulated.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void begin(void) {
  cli_begin();
  if (!emulated_use())
    cr_skip("there is no emulated CUDA library");
  setenv("EMULATED_NCCL_FOLDER", io_file(""), 1);
}

TestSuite(cli_device, .init = begin, .fini = cli_end, .timeout = 300);

/* A few drawn images. */
static const char *image_data(int images) {
  const char *folder = io_file("pictures"), *csv = io_file("labels.csv"), *data = io_file("faces.h5");
  mkdir(folder, 0777);
  FILE *file = fopen(csv, "w");
  fprintf(file, "path,split,age\n");
  for (int i = 0; i < images; i++) {
    draw_png(cli_text("%s/%d.png", folder, i), &(struct drawing){.height = 20, .width = 22, .label = i * 7 % 60});
    fprintf(file, "%d.png,%s,%d\n", i, i % 4 == 3 ? "val" : "train", i * 7 % 60);
  }
  fclose(file);
  cli_accepted(0, cli_text("import %s --images %s -o %s --quiet", csv, folder, data));
  return data;
}

/* The run on the host and on a device end with the same parameters, optimiser states and statistics. */
static void expect_same(const char *data, const char *options, int ranks, double tolerance) {
  const char *host = io_file("host"), *device = io_file("device");
  cli_accepted(0, cli_text("train %s -o %s --force --device cpu --precision f32 --quiet %s", data, host, options));
  cli_accepted(ranks,
               cli_text("train %s -o %s --force --device cuda --precision f32 --quiet %s", data, device, options));
  cli_same_arrays(cli_last(host), cli_last(device), tolerance);
}

/* Float32 with sums in another order, a few steps: 1e-5 of an array's largest value. */
#define TOLERANCE 1e-5

Test(cli_device, a_table_trains_as_on_the_host) {
  const char *data = cli_data("t.h5", 60);
  expect_same(data, "--epochs 2 --batch 16 --hidden 12,8 --conr --clip 1 --optimiser sgd --momentum 0.5", 0, TOLERANCE);
  expect_same(data, "--epochs 2 --batch 16 --hidden 12 --activation gelu --dropout 0.3 --loss huber", 0, TOLERANCE);
}

Test(cli_device, balanced_mse_is_that_of_the_host) {
  const char *data = cli_data("t.h5", 60), *options = "--epochs 2 --batch 16 --hidden 8 --optimiser sgd --lr 1e-3";
  const char *bmc = cli_text("%s --loss bmc --noise-scale 0.5 --conr --micro-batch 5", options);
  expect_same(data, bmc, 0, TOLERANCE);
  expect_same(data, bmc, 3, TOLERANCE); /* MPI through host memory */
  expect_same(data, cli_text("%s --loss gai --gmm 3 --views 3 --conr", options), 2, TOLERANCE);
  expect_same(data, cli_text("%s --loss bni --weight-bins -10,0.25,80", options), 2, TOLERANCE);
  setenv("EMULATED_CUDA_DEVICES", "2", 1);
  expect_same(data, bmc, 2, TOLERANCE); /* NCCL */
}

Test(cli_device, micro_batches_and_three_views_are_those_of_the_host) {
  const char *data = cli_data("t.h5", 60);
  expect_same(data, "--epochs 1 --batch 16 --hidden 8 --conr --views 3 --micro-batch 5 --optimiser sgd", 0, TOLERANCE);
}

Test(cli_device, features_are_smoothed_as_on_the_host) {
  const char *smoothing = "--epochs 3 --batch 8 --lr 1e-3 --optimiser sgd --fds --fds-size 3 --fds-buckets";
  expect_same(cli_data("t.h5", 60), cli_text("%s -3,3 --hidden 12,8 --dropout 0.2", smoothing), 2, TOLERANCE);
  expect_same(image_data(16), cli_text("%s 1,4 --fds-bucket-width 10 --model cnn --size 16", smoothing), 0, 1e-4);
}

/* The noise is the host's up to the last bits of float64. */
Test(cli_device, features_that_are_distributions_are_those_of_the_host) {
  const char *smoothing = "--probabilistic --epochs 3 --batch 8 --lr 1e-3 --optimiser sgd --fds --fds-size 3";
  expect_same(cli_data("t.h5", 60),
              cli_text("%s --fds-buckets -3,3 --hidden 12,8 --dropout 0.2 --conr --srl --micro-batch 3", smoothing), 2,
              TOLERANCE);
  const char *images = image_data(16);
  expect_same(images, cli_text("%s --fds-buckets 1,4 --fds-bucket-width 10 --model cnn --size 16", smoothing), 0, 1e-4);
  const char *narrow = io_file("narrow"); /* values of 16 bits */
  cli_accepted(0, cli_text("train %s -o %s %s --fds-buckets 1,4 --fds-bucket-width 10 --fds-start-smooth 0 --conr "
                           "--model cnn --size 16 --device cuda --precision bf16 --quiet",
                           images, narrow, smoothing));
  free(cli_output(0, cli_text("eval %s %s --part val --device cuda --json", narrow, images)));
}

Test(cli_device, images_train_as_on_the_host) {
  const char *data = image_data(16);
  expect_same(data, "--epochs 1 --batch 6 --size 16 --model cnn --conr --optimiser sgd --lr 1e-4", 0, TOLERANCE);
}

Test(cli_device, ranks_that_share_a_gpu_and_ranks_with_their_own_equal_one_rank) {
  const char *data = cli_data("t.h5", 40);
  const char *options = "--epochs 1 --batch 7 --hidden 8 --conr --optimiser sgd";
  expect_same(data, options, 3, TOLERANCE); /* MPI through host memory */
  setenv("EMULATED_CUDA_DEVICES", "3", 1);
  expect_same(data, options, 3, TOLERANCE); /* NCCL */
  expect_same(data, cli_text("%s --comm mpi", options), 2, TOLERANCE);
}

Test(cli_device, batch_norm_is_shared_by_ranks) {
  const char *data = image_data(16);
  setenv("EMULATED_CUDA_DEVICES", "2", 1);
  expect_same(data, "--epochs 1 --batch 6 --size 16 --model cnn --optimiser sgd --lr 1e-4", 2, TOLERANCE);
}

Test(cli_device, a_run_goes_on_with_the_same_bits) {
  const char *data = cli_data("t.h5", 60), *whole = io_file("whole"), *parts = io_file("parts");
  const char *options = "--batch 16 --hidden 8 --conr --device cuda --precision f32 --quiet";
  cli_accepted(0, cli_text("train %s -o %s --epochs 3 %s", data, whole, options));
  cli_accepted(0, cli_text("train %s -o %s --epochs 1 %s", data, parts, options));
  cli_accepted(0, cli_text("train %s -o %s --epochs 3 %s --resume", data, parts, options));
  cli_same_runs(whole, parts);
}

Test(cli_device, sixteen_bit_training_is_evaluated_and_exported_on_the_host) {
  const char *data = image_data(16), *run = io_file("run");
  cli_accepted(
      0, cli_text("train %s -o %s --epochs 1 --batch 8 --size 16 --model cnn --conr --device cuda --quiet", data, run));
  char *text = cli_output(0, cli_text("eval %s %s --part val --device cpu --json", run, data));
  free(text);
  text = cli_output(0, cli_text("eval %s %s --part val --device cuda --json", run, data));
  free(text);
  cli_accepted(0, cli_text("export %s -o %s --quiet", run, io_file("model.safetensors")));
}

/* One step from the same parameters: terms on features of 16 bits are those of the same features in float32, to the
 * rounding of the network. */
Test(cli_device, sixteen_bit_features_have_the_regularisers_of_float32) {
  static const char *const terms[] = {"loss_conr", "loss_ranksim", "loss_rnc", "loss_accon", "loss_srl"};
  const char *data = image_data(16), *exact = io_file("exact"), *short_run = io_file("short");
  const char *options =
      "--epochs 1 --batch 12 --size 16 --model cnn --conr --ranksim --rnc --accon --srl --device cuda "
      "--log-steps 1 --quiet";
  cli_accepted(0, cli_text("train %s -o %s --precision f32 %s", data, exact, options));
  cli_accepted(0, cli_text("train %s -o %s --precision bf16 %s", data, short_run, options));
  for (size_t i = 0; i < sizeof terms / sizeof *terms; i++) {
    double wanted = cli_last_metric(exact, terms[i]), got = cli_last_metric(short_run, terms[i]);
    cr_expect(fabs(got - wanted) <= 0.02 * fabs(wanted) && wanted != 0, "%s is %g, in float32 %g", terms[i], got,
              wanted);
  }
}

static void says_what_the_host_computes(const char *data, const char *options, const char *terms) {
  const char *run = io_file("run"), *sentence = "computed on the host, for which the GPU waits once a pass: ";
  struct run_result result =
      cli_run(2, cli_text("train %s -o %s --force --epochs 2 --batch 16 --hidden 8 %s", data, run, options));
  cr_expect(eq(int, result.exit_status, 0), "%s", result.output);
  cr_expect(eq(int, cli_count(result.output, sentence), terms != NULL), "%s", result.output);
  cr_expect(terms == NULL || cli_count(result.output, cli_text("%s%s\n", sentence, terms)) == 1, "%s", result.output);
  double time = cli_last_metric(run, "time_regularisers");
  bool regularised = strcmp(options, "--device cuda --conr") != 0;
  cr_expect(terms != NULL ? time > 0 : regularised ? time == 0 : isnan(time), "%g s", time);
  run_result_free(&result);
}

Test(cli_device, what_the_host_computes_is_said_once) {
  const char *data = cli_data("t.h5", 60), *two = io_file("two.h5");
  says_what_the_host_computes(data, "--device cuda --conr --rnc --ranksim", "ranksim");
  says_what_the_host_computes(data, "--device cuda --srl --accon", "srl");
  says_what_the_host_computes(data, "--device cuda --conr --rnc", NULL);
  cli_accepted(0, cli_text("import %s --target y,a --split-column split -o %s", io_file("cli_data.csv"), two));
  says_what_the_host_computes(two, "--device cuda --conr --rnc --ranksim", "ranksim, rnc");
}

/* ---- evaluation ---- */

/* The tables of two evaluations, figure by figure. */
static void expect_same_tables(const char *what, const char *text, const char *wanted_text) {
  json_t *table = json_loads(text, 0, NULL), *wanted = json_loads(wanted_text, 0, NULL), *row, *value;
  const char *group, *figure;
  int figures = 0;
  cr_assert(table != NULL && wanted != NULL, "%s: %s", what, text);
  json_object_foreach(wanted, group, row) {
    json_object_foreach(row, figure, value) {
      json_t *other = json_object_get(json_object_get(table, group), figure);
      double a = json_number_value(other), b = json_number_value(value);
      cr_expect(other != NULL && json_typeof(other) == json_typeof(value) && fabs(a - b) <= TOLERANCE * fabs(b),
                "%s: %s of %s is %.17g, wanted %.17g", what, figure, group, a, b);
      figures += !json_is_null(value);
    }
  }
  cr_assert(figures > 8, "%s: too few figures to be a test: %s", what, wanted_text);
  json_decref(table);
  json_decref(wanted);
}

/* Few rows of a bin of 1 are for training. */
#define TABLE "--part train --many 3 --few 2 --json"

/* One forward pass in float32 apart, the device's tables are the host's: on one rank and several, some without a
 * row in a pass. */
static void expect_same_evaluation(const char *data) {
  const char *run = io_file("run");
  cli_accepted(0, cli_text("train %s -o %s --epochs 2 --device cpu --precision f32 --force --quiet", data, run));
  const char *line = cli_text("eval %s %s " TABLE, run, data);
  char *host = cli_output(0, cli_text("%s --device cpu", line));
  for (int apart = 0; apart < 2; apart++) { /* GPUs that are shared, by MPI; then one each, by NCCL */
    setenv("EMULATED_CUDA_DEVICES", apart ? "3" : "1", 1);
    for (int ranks = 1; ranks <= 3; ranks++) {
      char *there = cli_output(ranks, cli_text("%s --device cuda --batch %d", line, ranks < 3 ? 64 : 2));
      expect_same_tables(cli_text("%d ranks", ranks), there, host);
      free(there);
    }
  }
  free(host);
}

Test(cli_device, evaluation_is_that_of_the_host) {
  struct io_table pairs = io_table_plain(100, 3);
  const char *path = io_file("pairs.h5");
  pairs.targets = 2;
  io_table_write(&pairs, path);
  expect_same_evaluation(cli_data("t.h5", 100));
  expect_same_evaluation(path);
}

Test(cli_device, validation_is_that_of_the_host) {
  static const char *const figures[] = {"val_mae", "val_mse"};
  const char *data = cli_data("t.h5", 100), *host = io_file("host"), *there = io_file("there");
  const char *options = "--epochs 2 --batch 16 --hidden 8 --optimiser sgd --precision f32 --force --quiet";
  cli_accepted(0, cli_text("train %s -o %s %s --device cpu", data, host, options));
  setenv("EMULATED_CUDA_DEVICES", "2", 1);
  for (int ranks = 1; ranks <= 3; ranks++) { /* three share two GPUs */
    cli_accepted(ranks, cli_text("train %s -o %s %s --device cuda", data, there, options));
    for (int i = 0; i < 2; i++) {
      double wanted = cli_last_metric(host, figures[i]), got = cli_last_metric(there, figures[i]);
      cr_assert(fabs(got - wanted) <= TOLERANCE * wanted, "%s on %d ranks: %.9g, wanted %.9g", figures[i], ranks, got,
                wanted);
    }
  }
}

/* A finite input so large that only the network's own numbers overflow: validation names the epoch, evaluation the
 * row of the split. */
Test(cli_device, an_overflow_is_one_sentence) {
  struct io_table table = io_table_plain(30, 3);
  const char *data = io_file("plain.h5"), *run = io_file("run"), *other = io_file("other");
  const char *options = "--epochs 1 --loss mse --optimiser sgd --lr 1e3 --batch 64 --device cuda --quiet";
  io_table_write(&table, data);
  cli_accepted(0, cli_text("train %s -o %s %s", data, run, options));
  io_table_put(data, "inputs", 13 * 3, 1e38); /* row 13 is the third for validation */
  for (int ranks = 1; ranks <= 3; ranks += 2) {
    cli_refused(ranks, 1, "the prediction of row 2 is nan (component 0); training diverged: lower the learning rate",
                cli_text("eval %s %s --part val --device cuda --quiet", run, data));
    cli_refused(ranks, 1, "epoch 1: a validation prediction is not finite; lower --lr, or give --clip a value",
                cli_text("train %s -o %s %s", data, other, options));
  }
}

Test(cli_device, predictions_are_those_of_the_host) {
  const char *data = cli_data("t.h5", 100), *run = io_file("run");
  const char *const files[] = {io_file("host.csv"), io_file("device.csv")};
  cli_accepted(0, cli_text("train %s -o %s --epochs 2 --device cpu --precision f32 --quiet", data, run));
  cli_accepted(0, cli_text("predict %s %s -o %s --device cpu --quiet", run, data, files[0]));
  cli_accepted(3, cli_text("predict %s %s -o %s --device cuda --quiet", run, data, files[1]));
  FILE *host = fopen(files[0], "r"), *there = fopen(files[1], "r");
  char header[2][256];
  int rows = 0;
  long long row[2];
  double label[2], value[2];
  cr_assert(fgets(header[0], 256, host) != NULL && fgets(header[1], 256, there) != NULL);
  cr_assert(eq(str, header[0], header[1]));
  while (fscanf(host, "%lld,%lf,%lf", &row[0], &label[0], &value[0]) == 3) {
    cr_assert(eq(int, fscanf(there, "%lld,%lf,%lf", &row[1], &label[1], &value[1]), 3));
    cr_assert(row[0] == row[1] && label[0] == label[1] && fabs(value[0] - value[1]) <= TOLERANCE * fabs(value[0]),
              "row %lld: %g, wanted %g", row[0], value[1], value[0]);
    rows++;
  }
  cr_assert(eq(int, rows, 20));
  cr_assert(eq(int, cli_lines(files[1]), 21), "lines beyond those of the host");
  fclose(host);
  fclose(there);
}

/* The same run with passes launched as graphs. */
static void same_with_graphs(const char *data, const char *options, int ranks) {
  static int pair;
  const char *plain = io_file(cli_text("plain%d", pair)), *graphs = io_file(cli_text("graphs%d", pair++));
  const char *common = cli_text("%s --epochs 3 --device cuda --quiet", options);
  cli_accepted(ranks, cli_text("train %s -o %s %s --graphs off", data, plain, common));
  cli_accepted(ranks, cli_text("train %s -o %s %s --graphs on", data, graphs, common));
  cli_same_runs(plain, graphs);
}

Test(cli_device, a_frozen_encoder_is_that_of_the_host) {
  const char *data = image_data(16), *first = io_file("first");
  const char *options = "--epochs 1 --batch 6 --size 16 --model cnn --optimiser sgd --lr 1e-4";
  cli_accepted(0, cli_text("train %s -o %s --device cpu --quiet %s", data, first, options));
  setenv("EMULATED_CUDA_DEVICES", "2", 1);
  expect_same(data, cli_text("%s --stage2 %s --clip 1", options, first), 2, TOLERANCE);
  expect_same(data, cli_text("%s --stage2 %s --freeze probe", options, first), 2, TOLERANCE);
  same_with_graphs(data, cli_text("%s --stage2 %s", options, first), 2);
}

Test(cli_device, graphs_give_the_same_bits) {
  const char *images = image_data(16), *table = cli_data("t.h5", 60);
  const char *options = "--batch 6 --size 16 --model cnn --conr --optimiser sgd --lr 1e-4 --precision f32";
  same_with_graphs(table, "--batch 16 --hidden 8 --conr", 1);
  /* The head reads other features from the second epoch on, and others by value from the third. */
  same_with_graphs(table, "--batch 16 --hidden 8 --fds --fds-size 3 --fds-bucket-width 0.5", 1);
  same_with_graphs(images, options, 1);
  same_with_graphs(images, cli_text("%s --views 3 --micro-batch 2 --batch-norm rank", options), 1);
  same_with_graphs(images, options, 2); /* MPI through host memory */
  setenv("EMULATED_CUDA_DEVICES", "2", 1);
  same_with_graphs(images, cli_text("%s --bucket-mb 0.1", options), 2); /* NCCL */
}

Test(cli_device, what_is_missing_is_a_sentence) {
  const char *data = cli_data("t.h5", 40), *run = io_file("run");
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  unsetenv("CUDA_VISIBLE_DEVICES");
  const char *line = cli_text("train %s -o %s --device cuda --epochs 1 --hidden 8", data, run);
  setenv("EMULATED_CUDA_DEVICES", "0", 1);
  cli_refused(2, 1,
              "no GPU is visible (CUDA_VISIBLE_DEVICES is not set): nvidia-smi -L shows what the driver sees; ask the "
              "batch system for a GPU, or use the cpu",
              line);
  setenv("EMULATED_CUDA_DEVICES", "1", 1);
  cli_refused(2, 2,
              cli_text("NCCL is asked for, but ranks 0 and 1 share the GPU ffff:01:00.0 of %s; start one rank for each "
                       "GPU, or use the transport mpi",
                       host),
              cli_text("%s --comm nccl", line));
  cli_refused(0, 2, "precision f64 is the host's alone: use --device cpu, or one of f32, tf32, bf16",
              cli_text("%s --precision f64", line));
  cli_refused(2, 2, "--conr-memory 30 is computed on the host alone; give --device cpu, or drop it",
              cli_text("%s --comm mpi --conr --conr-memory 30", line));
  cli_refused(2, 2,
              "--reproducible computes on the host: on a GPU gradients and ConR's sums are added up in orders that "
              "depend on the number of ranks; give --device cpu, or drop --reproducible",
              cli_text("%s --comm mpi --reproducible", line));
  cli_refused(2, 2, "--graphs on has no effect on the host; drop it, or use a GPU by --device cuda",
              cli_text("train %s -o %s --device cpu --epochs 1 --hidden 8 --graphs on", data, run));
  cli_refused(0, 2, "--precision bf16 is for networks of images; give --precision f32 or tf32 for a table",
              cli_text("%s --precision bf16", line));
  setenv("EMULATED_CUDA_MEMORY", "1000000", 1);
  cli_refused(0, 1,
              "GPU 0 (Emulated GPU) has no room for 16777216 bytes more: 1000000 of its 1000000 are free; use more "
              "ranks, a smaller batch, --micro-batch or a smaller model",
              line);
  setenv("CONR_CUDA_LIBRARY", "/nowhere/libconr-cuda.so", 1);
  cli_refused(0, 1,
              "the CUDA backend that CONR_CUDA_LIBRARY names cannot be opened: /nowhere/libconr-cuda.so: cannot open "
              "shared object file: No such file or directory",
              line);
}

/* Who asks for the library by name is taken to have a driver; what is missing then is said once. */
Test(cli_device, auto_is_the_host_where_there_is_no_gpu) {
  const char *data = cli_data("t.h5", 40), *host = io_file("host"), *chosen = io_file("auto");
  setenv("EMULATED_CUDA_DEVICES", "0", 1);
  setenv("CUDA_VISIBLE_DEVICES", "", 1);
  cli_accepted(2, cli_text("train %s -o %s --epochs 1 --hidden 8 --device cpu --quiet", data, host));
  struct run_result run = cli_run(2, cli_text("train %s -o %s --epochs 1 --hidden 8", data, chosen));
  cr_expect(eq(int, cli_count(run.output, "no GPU is used: no GPU is visible (CUDA_VISIBLE_DEVICES is \"\")"), 1), "%s",
            run.output);
  run_result_free(&run);
  cli_same_runs(host, chosen);
}
