/* A second stage of training on a frozen encoder, as a user goes: what stays, what moves, where it begins, that it goes
 * on and spreads over ranks as any run does, and what is refused. */
#include "draw_images.h"
#include "io/array_file.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(stage2, .init = cli_begin, .fini = cli_end, .timeout = 240);

/* A table of 36 training samples, and a first stage on it: its head is layer2. */
static const char *table_and_first_stage(const char **run) {
  const char *data = cli_data("t.h5", 60);
  *run = io_file("first");
  cli_accepted(0, cli_text("train %s -o %s --epochs 3 --hidden 12,8 --batch 16 --seed 1 --quiet", data, *run));
  return data;
}

/* The same with drawn images; the head is fc. */
static const char *images_and_first_stage(const char **run) {
  const char *folder = io_file("pictures"), *csv = io_file("labels.csv"), *data = io_file("faces.h5");
  mkdir(folder, 0777);
  FILE *file = fopen(csv, "w");
  fprintf(file, "path,split,age\n");
  for (int i = 0; i < 16; i++) {
    draw_png(cli_text("%s/%d.png", folder, i), &(struct drawing){.height = 20, .width = 22, .label = i * 7 % 60});
    fprintf(file, "%d.png,%s,%d\n", i, i % 4 == 3 ? "val" : "train", i * 7 % 60);
  }
  fclose(file);
  cli_accepted(0, cli_text("import %s --images %s -o %s --quiet", csv, folder, data));
  *run = io_file("first");
  cli_accepted(
      0, cli_text("train %s -o %s --epochs 1 --batch 6 --size 16 --model cnn --precision f64 --quiet", data, *run));
  return data;
}

static const char *best(const char *run) {
  return cli_text("%s/checkpoint-best.h5", run);
}

/* ---- arrays of checkpoints ---- */

static struct array_file *opened(const char *path) {
  struct array_file *file;
  cr_assert(array_file_read(path, true, &file) == STATUS_OK, "%s", status_message());
  return file;
}

static bool begins_with(const char *name, const char *prefix) {
  return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* How many arrays of such names two checkpoints share bit for bit, of how many. */
struct count {
  int same, all;
};

static struct count shared(const char *path_a, const char *path_b, const char *prefix) {
  struct array_file *a = opened(path_a), *b = opened(path_b);
  struct count count = {0, 0};
  for (size_t i = 0; i < a->array_count; i++) {
    const struct array *one = &a->arrays[i], *other = array_file_find(b, one->name);
    if (!begins_with(one->name, prefix))
      continue;
    cr_assert(ne(ptr, (void *)other, NULL), "%s is not in %s", one->name, path_b);
    count.all++;
    count.same += memcmp(one->data, other->data, array_bytes(one)) == 0;
  }
  array_file_destroy(&b);
  array_file_destroy(&a);
  return count;
}

static void expect_same(const char *path_a, const char *path_b, const char *prefix, int arrays) {
  struct count count = shared(path_a, path_b, prefix);
  cr_expect(count.same == arrays && count.all == arrays, "%s*: %d of %d arrays are the same in %s and %s", prefix,
            count.same, count.all, path_a, path_b);
}

static void expect_others(const char *path_a, const char *path_b, const char *prefix, int arrays) {
  struct count count = shared(path_a, path_b, prefix);
  cr_expect(count.same == 0 && count.all == arrays, "%s*: %d of %d arrays are the same in %s and %s", prefix,
            count.same, count.all, path_a, path_b);
}

/* The square of the distance of an array in two checkpoints of float64. */
static double squared_distance(const char *path_a, const char *path_b, const char *name) {
  struct array_file *a = opened(path_a), *b = opened(path_b);
  const struct array *one = array_file_find(a, name), *other = array_file_find(b, name);
  double sum = 0;
  for (size_t i = 0; i < array_bytes(one) / sizeof(double); i++)
    sum += pow(((const double *)one->data)[i] - ((const double *)other->data)[i], 2);
  array_file_destroy(&b);
  array_file_destroy(&a);
  return sum;
}

/* ---- what stays and what moves ---- */

Test(stage2, only_the_head_learns_and_decays_and_has_a_state) {
  const char *first, *data = table_and_first_stage(&first), *run = io_file("run");
  cli_accepted(2, cli_text("train %s -o %s --stage2 %s --epochs 2 --hidden 12,8 --batch 16 --weights sqrt-inverse "
                           "--weight-bins -100,1,200 --optimiser adamw --weight-decay 0.1 --quiet",
                           data, run, first));
  expect_same(best(first), cli_last(run), "layer0.", 2);
  expect_same(best(first), cli_last(run), "layer1.", 2);
  expect_others(best(first), cli_last(run), "layer2.", 2);
  struct array_file *file = opened(cli_last(run));
  int states = 0;
  for (size_t i = 0; i < file->array_count; i++) {
    bool state = begins_with(file->arrays[i].name, "optimiser/");
    cr_expect(not(state && strstr(file->arrays[i].name, "layer2.") == NULL), "%s", file->arrays[i].name);
    states += state;
  }
  cr_expect(eq(int, states, 4));
  array_file_destroy(&file);
}

/* Published RRT, and RnC's linear probe. */
Test(stage2, running_statistics_move_with_a_frozen_encoder_and_stay_for_a_probe) {
  const char *first, *data = images_and_first_stage(&first), *encoder = io_file("encoder"), *probe = io_file("probe");
  const char *options = "--epochs 1 --batch 6 --size 16 --model cnn --precision f64 --quiet";
  cli_accepted(2, cli_text("train %s -o %s --stage2 %s %s", data, encoder, first, options));
  cli_accepted(2, cli_text("train %s -o %s --stage2 %s %s --freeze probe", data, probe, first, options));
  expect_same(best(first), cli_last(probe), "buffers/", 8);
  expect_others(best(first), cli_last(encoder), "buffers/", 8);
  for (int i = 0; i < 2; i++) {
    const char *run = i ? probe : encoder;
    expect_same(best(first), cli_last(run), "conv", 4);
    expect_same(best(first), cli_last(run), "bn", 8);
    expect_others(best(first), cli_last(run), "fc.", 2);
  }
  expect_others(cli_last(encoder), cli_last(probe), "fc.weight", 1);
}

Test(stage2, an_encoder_from_a_file_of_parameters_may_be_frozen_too) {
  const char *first, *data = table_and_first_stage(&first), *run = io_file("run");
  cli_accepted(
      0, cli_text("train %s -o %s --init %s --freeze probe --epochs 1 --hidden 12,8 --quiet", data, run, best(first)));
  expect_same(best(first), cli_last(run), "layer0.", 2);
  expect_same(best(first), cli_last(run), "layer1.", 2);
  expect_others(best(first), cli_last(run), "layer2.", 2);
}

/* ---- where it begins ---- */

Test(stage2, the_encoder_is_the_best_ones_and_the_head_that_of_the_seed) {
  const char *first, *data = table_and_first_stage(&first), *run = io_file("run"), *drawn = io_file("drawn");
  const char *options = "--epochs 1 --hidden 12,8 --lr 0 --seed 5 --quiet";
  cli_accepted(0, cli_text("train %s -o %s --stage2 %s --freeze none %s", data, run, first, options));
  cli_accepted(0, cli_text("train %s -o %s %s", data, drawn, options));
  expect_same(best(first), cli_last(run), "layer0.", 2);
  expect_same(best(first), cli_last(run), "layer1.", 2);
  expect_same(cli_last(drawn), cli_last(run), "layer2.", 2);
  expect_others(best(first), cli_last(run), "layer2.", 2);
  const char *again = io_file("again");
  cli_accepted(0, cli_text("train %s -o %s --stage2 %s --freeze none %s", data, again, best(first), options));
  cli_same_runs(run, again);
}

/* One step, all samples in it. */
#define ONE_STEP "--epochs 1 --batch 64 --hidden 12,8 --optimiser sgd --momentum 0 --precision f64 --quiet"

static void expect_same_first_step(const char *options) {
  const char *first, *data = table_and_first_stage(&first), *free_run = io_file("free"), *frozen = io_file("frozen");
  cli_accepted(2, cli_text("train %s -o %s --stage2 %s --freeze none " ONE_STEP " %s", data, free_run, first, options));
  cli_accepted(2, cli_text("train %s -o %s --stage2 %s " ONE_STEP " %s", data, frozen, first, options));
  expect_same(cli_last(free_run), cli_last(frozen), "layer2.", 2);
  expect_others(cli_last(free_run), cli_last(frozen), "layer0.", 2);
}

Test(stage2, the_heads_gradient_is_that_of_an_encoder_that_learns) {
  expect_same_first_step("--lr 0.01 --dropout 0.2 --views 2");
}

Test(stage2, the_heads_gradient_is_that_of_micro_batches_of_an_encoder_that_learns) {
  expect_same_first_step("--lr 0.01 --views 2 --micro-batch 5 --bucket-mb 0.0001");
}

/* How far one step at this rate moves the head. */
static double distance_moved(const char *data, const char *first, const char *options) {
  const char *start = io_file("start"), *run = io_file("run");
  cli_accepted(0, cli_text("train %s -o %s --force --stage2 %s " ONE_STEP " --lr 0", data, start, first));
  cli_accepted(0, cli_text("train %s -o %s --force --stage2 %s " ONE_STEP " --lr 1 %s", data, run, first, options));
  return sqrt(squared_distance(cli_last(start), cli_last(run), "layer2.weight") +
              squared_distance(cli_last(start), cli_last(run), "layer2.bias"));
}

/* As PyTorch does it: by clip / (norm + 1e-6).  Differences of numbers around 1 are known to 1e-16, those of 1e-4 to
 * 1e-12 of them. */
Test(stage2, clipping_is_by_the_norm_of_the_heads_gradient) {
  const char *first, *data = table_and_first_stage(&first);
  double norm = distance_moved(data, first, ""), clipped = distance_moved(data, first, "--clip 0.001");
  cr_assert(norm > 0.01, "%g", norm);
  cr_expect(fabs(clipped / (0.001 * norm / (norm + 1e-6)) - 1) < 1e-10, "the head moved by %.17g", clipped);
}

/* ---- as any run ---- */

Test(stage2, goes_on_to_the_same_bits_when_the_first_stage_is_gone) {
  const char *first, *data = table_and_first_stage(&first), *whole = io_file("whole"), *parts = io_file("parts");
  const char *options = cli_text("--stage2 %s --hidden 12,8 --batch 16 --dropout 0.2 --views 2 --quiet", first);
  cli_accepted(2, cli_text("train %s -o %s --epochs 4 %s", data, whole, options));
  cli_accepted(2, cli_text("train %s -o %s --epochs 2 %s", data, parts, options));
  cr_assert(eq(int, rename(first, io_file("elsewhere")), 0));
  cli_accepted(2, cli_text("train %s -o %s --config %s/config.used --epochs 4 --resume", data, parts, parts));
  cli_same_runs(whole, parts);
  cli_refused(0, 2,
              "--resume with --freeze none, but the run was begun with encoder; give the same, or start a new run",
              cli_text("train %s -o %s --hidden 12,8 --batch 16 --dropout 0.2 --views 2 --resume", data, parts));
}

Test(stage2, is_evaluated_and_exported) {
  const char *first, *data = table_and_first_stage(&first), *run = io_file("run");
  cli_accepted(0, cli_text("train %s -o %s --stage2 %s --epochs 1 --hidden 12,8 --quiet", data, run, first));
  free(cli_output(2, cli_text("eval %s %s --json", run, data)));
  cli_accepted(0, cli_text("export %s -o %s --quiet", run, io_file("model.safetensors")));
}

static void same_on_any_number_of_ranks(const char *data, const char *first, const char *options) {
  const char *alone = io_file("alone");
  cli_accepted(1, cli_text("train %s -o %s --stage2 %s %s", data, alone, first, options));
  for (int ranks = 2; ranks <= 3; ranks++) {
    const char *run = io_file(cli_text("ranks%d", ranks));
    cli_accepted(ranks, cli_text("train %s -o %s --stage2 %s %s", data, run, first, options));
    cli_same_arrays(cli_last(alone), cli_last(run), 1e-9);
  }
}

/* Batches of 7: shards of 2 and 3, and a last one of a single row, which leaves ranks without any. */
Test(stage2, of_a_table_is_the_same_on_any_number_of_ranks) {
  const char *first, *data = table_and_first_stage(&first);
  same_on_any_number_of_ranks(data, first,
                              "--epochs 2 --hidden 12,8 --batch 7 --dropout 0.2 --views 2 --optimiser sgd --lr 0.01 "
                              "--clip 0.1 --precision f64 --quiet --weights sqrt-inverse --weight-bins -100,1,200");
}

Test(stage2, of_images_is_the_same_on_any_number_of_ranks) {
  const char *first, *data = images_and_first_stage(&first);
  same_on_any_number_of_ranks(data, first,
                              "--epochs 1 --batch 5 --size 16 --model cnn --precision f64 --optimiser sgd --lr 1e-4 "
                              "--quiet");
}

/* ---- what is refused ---- */

Test(stage2, the_recipe_is_for_a_run_that_names_its_first_stage) {
  const char *first, *data = images_and_first_stage(&first), *run = io_file("run");
  const char *options = "--recipe agedb-dir/rrt --model cnn --size 16 --pad 2 --epochs 1 --quiet";
  setenv("CONR_RECIPES", "launch/recipes", 1);
  cli_refused(
      0, 2, "--freeze encoder would keep an encoder as it was drawn; give a trained one by --stage2 RUN or --init FILE",
      cli_text("train %s -o %s %s", data, run, options));
  cli_accepted(2, cli_text("train %s -o %s %s --stage2 %s", data, run, options, first));
}

static void refused(int exit_status, const char *sentence, const char *line) {
  cli_refused(0, exit_status, sentence, line);
  cr_assert(not(io_exists(cli_last(io_file("run")))));
}

Test(stage2, a_first_stage_that_is_missing_or_of_another_model) {
  const char *first, *data = table_and_first_stage(&first), *run = io_file("run"), *none = io_file("none");
  cli_refused(3, 1, cli_text("cannot open %s: No such file or directory", none),
              cli_text("train %s -o %s --stage2 %s", data, run, none));
  mkdir(none, 0777);
  refused(1, cli_text("%s holds no checkpoint; give the folder that conr train -o wrote", none),
          cli_text("train %s -o %s --stage2 %s", data, run, none));
  refused(2,
          cli_text("--stage2: the encoder in %s was trained with --hidden 12,8, this model has 12,9; give the same",
                   best(first)),
          cli_text("train %s -o %s --stage2 %s --hidden 12,9", data, run, first));
  refused(2,
          cli_text("--stage2: the encoder in %s was trained with --activation relu, this model has tanh; give the same",
                   best(first)),
          cli_text("train %s -o %s --stage2 %s --hidden 12,8 --activation tanh", data, run, first));
}

Test(stage2, a_table_that_the_encoder_was_not_trained_on) {
  const char *first, *run = io_file("run"), *other;
  table_and_first_stage(&first);
  other = cli_data("other.h5", 80);
  refused(2,
          cli_text("--stage2: the training rows of %s have other means or deviations than those that the encoder in %s "
                   "was trained on; use the same data, or --init to begin anew on others",
                   other, best(first)),
          cli_text("train %s -o %s --stage2 %s --hidden 12,8", other, run, first));
  cli_write_csv(io_file("less.csv"), 60);
  other = io_file("less.h5");
  cli_accepted(
      0, cli_text("import %s --target y --split-column split --drop b -o %s --quiet", io_file("less.csv"), other));
  refused(2,
          cli_text("--stage2: %s has other feature columns, or in another order, than the encoder in %s was trained "
                   "on; import it with the same columns",
                   other, best(first)),
          cli_text("train %s -o %s --stage2 %s --hidden 12,8", other, run, first));
}

Test(stage2, options_that_make_no_sense_together) {
  const char *data = cli_data("t.h5", 20), *run = io_file("run");
  refused(2, "--stage2 a and --init b both say what to begin with; give one of them",
          cli_text("train %s -o %s --stage2 a --init b", data, run));
  refused(2,
          "--freeze encoder would keep an encoder as it was drawn; give a trained one by --stage2 RUN or --init FILE",
          cli_text("train %s -o %s --freeze encoder", data, run));
  refused(2, "--freeze probe would keep an encoder as it was drawn; give a trained one by --stage2 RUN or --init FILE",
          cli_text("train %s -o %s --freeze probe --resume", data, run));
  refused(
      2,
      "--conr and --freeze encoder do not go together: it shapes features, which a frozen encoder leaves as they are: "
      "train with it before, and give that run to --stage2; drop one",
      cli_text("train %s -o %s --stage2 a --conr", data, run));
  refused(2, "--stage2 is for networks with an encoder: give --hidden at least one layer",
          cli_text("train %s -o %s --stage2 a --hidden ''", data, run));
  refused(2, "--freeze is for networks with an encoder: give --hidden at least one layer",
          cli_text("train %s -o %s --init a --freeze encoder --hidden ''", data, run));
  refused(2, "--dropout has no effect without --freeze none or encoder; drop one or add the other",
          cli_text("train %s -o %s --stage2 a --freeze probe --dropout 0.1", data, run));
}
