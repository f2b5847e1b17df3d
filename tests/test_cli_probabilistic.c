/* Training with features that are distributions, as a user asks for it: what terms on features see of them, that a run
 * goes on, is evaluated, exported, begun from and built upon, and what is refused. */
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

TestSuite(cli_probabilistic, .init = cli_begin, .fini = cli_end, .timeout = 240);

#define SMALL "--hidden 12,8 --batch 16 --quiet"

static const char *train(const char *run, const char *options) {
  return cli_text("train %s -o %s " SMALL " %s", cli_data("t.h5", 60), run, options);
}

/* ---- what terms on features see ------------------------------------------------------------- */

/* How far arrays of such names moved between two checkpoints: the largest change of a number. */
static double moved(const char *before, const char *after, const char *prefix) {
  struct array_file *a, *b;
  double most = 0;
  int compared = 0;
  cr_assert(array_file_read(before, true, &a) == STATUS_OK && array_file_read(after, true, &b) == STATUS_OK);
  for (size_t i = 0; i < a->array_count; i++) {
    if (strncmp(a->arrays[i].name, prefix, strlen(prefix)) != 0)
      continue;
    const struct array *other = array_file_find(b, a->arrays[i].name);
    cr_assert(other != NULL && other->type == ARRAY_F64, "%s", a->arrays[i].name);
    for (int64_t k = 0; k < array_count(other); k++)
      most = fmax(most, fabs(((double *)other->data)[k] - ((double *)a->arrays[i].data)[k]));
    compared++;
  }
  cr_assert(compared > 0, "no array is called %s*", prefix);
  array_file_destroy(&b);
  array_file_destroy(&a);
  return most;
}

/* The means are the features of the same network without variances: what depends on these alone has the same value, and
 * the same gradient where nothing else counts beside it. */
static void expect_terms_on_means(const char *loss, const char *options) {
  const char *line = "--epochs 1 --batch 60 --precision f64 --optimiser sgd --clip 1 --log-steps 1 --force";
  const char *plain = io_file("plain"), *wide = io_file("wide"), *still = io_file("still");
  cli_accepted(2, train(plain, cli_text("%s --lr 0.1 %s", line, options)));
  cli_accepted(2, train(wide, cli_text("%s --lr 0.1 --probabilistic %s", line, options)));
  cli_accepted(2, train(still, cli_text("%s --lr 0 --probabilistic %s", line, options)));
  double expected = cli_last_metric(plain, loss), value = cli_last_metric(wide, loss);
  cr_expect(isfinite(expected) && expected != 0 && fabs(value / expected - 1) < 1e-12, "%s is %.17g, not %.17g", loss,
            value, expected);
  cr_expect(moved(cli_last(still), cli_last(wide), "layer0.") > 1e-3, "%s moved nothing", loss);
  cr_expect(moved(cli_last(plain), cli_last(wide), "layer0.") < 1e-7, "%s", loss);
  cr_expect(moved(cli_last(plain), cli_last(wide), "layer1.") < 1e-7, "%s", loss);
  cr_expect(moved(cli_last(still), cli_last(wide), "variance.") < 1e-7, "%s moved the variances", loss);
}

Test(cli_probabilistic, terms_on_features_see_the_means) {
  const char *curve = "--srl --srl-contrastive 1e8 --srl-enveloping 1e8 --srl-homogeneity 1e8";
  expect_terms_on_means("loss_rnc", "--rnc --rnc-weight 1e9");
  expect_terms_on_means("loss_rnc", "--rnc --rnc-weight 1e9 --micro-batch 4");
  expect_terms_on_means("loss_srl", curve);
  /* Smoothing by the first statistics leaves means as they are: these are what the head reads then. */
  expect_terms_on_means("loss_srl", cli_text("%s --fds --fds-start-smooth 0 --fds-size 3 --fds-buckets -3,3", curve));
}

/* ---- reconstruction ------------------------------------------------------------------------- */

/* Twelve drawn images to train on, of as few pixels as ResNet-50 can mirror. */
static const char *image_data(void) {
  const char *folder = io_file("pictures"), *csv = io_file("labels.csv"), *data = io_file("faces.h5");
  mkdir(folder, 0777);
  FILE *file = fopen(csv, "w");
  fprintf(file, "path,split,age\n");
  for (int i = 0; i < 16; i++) {
    draw_png(cli_text("%s/%d.png", folder, i), &(struct drawing){.height = 32, .width = 32, .label = i * 7 % 60});
    fprintf(file, "%d.png,%s,%d\n", i, i % 4 == 3 ? "val" : "train", i * 7 % 60);
  }
  fclose(file);
  cli_accepted(0, cli_text("import %s --images %s -o %s --quiet", csv, folder, data));
  return data;
}

#define DECODED \
  "--probabilistic --reconstruct 0.7 --model resnet50 --size 32 --batch 6 --precision f32 --optimiser sgd --lr 1e-6"

/* The error of the pixels is reported, a run goes on with the same bits, and what is evaluated has no decoder. */
Test(cli_probabilistic, images_are_reconstructed) {
  const char *data = image_data(), *whole = io_file("whole"), *parts = io_file("parts"), *host = "--device cpu --quiet";
  cli_accepted(0, cli_text("train %s -o %s --epochs 2 --log-steps 1 " DECODED " %s", data, whole, host));
  cli_accepted(0, cli_text("train %s -o %s --epochs 1 --log-steps 1 " DECODED " %s", data, parts, host));
  cli_accepted(0, cli_text("train %s -o %s --epochs 2 --log-steps 1 --resume " DECODED " %s", data, parts, host));
  cli_same_runs(whole, parts);
  char *text = io_read(cli_metrics(whole), NULL);
  cr_expect(eq(int, cli_count(text, "\"loss_reconstruction\":null"), 0));
  cr_expect(eq(int, cli_count(text, "\"loss_reconstruction\":"), cli_count(text, "\n")), "%s", text);
  cr_expect(cli_last_metric(whole, "loss_reconstruction") > 0);
  free(text);
  free(cli_output(0, cli_text("eval %s %s --part val --json", whole, data)));
  cli_accepted(0, cli_text("train %s -o %s --epochs 1 --probabilistic --model resnet50 --size 32 --batch 6 --init "
                           "%s/checkpoint-last.h5 %s",
                           data, io_file("later"), whole, host));
}

Test(cli_probabilistic, the_log_says_what_a_decoder_takes) {
  struct run_result run =
      cli_run(0, cli_text("train %s -o %s --epochs 1 --device cpu " DECODED, image_data(), io_file("run")));
  cr_expect(strstr(run.output, "the decoder has 23219328 of ") != NULL, "%s", run.output);
  cr_expect(strstr(run.output, "(reconstruction ") != NULL, "%s", run.output);
  run_result_free(&run);
}

Test(cli_probabilistic, reconstructions_that_cannot_be) {
  const char *data = image_data(), *run = io_file("run");
  cli_refused(2, 2,
              "--reconstruct has a decoder for --model resnet50 alone, and this is resnet18; give it or drop "
              "--reconstruct",
              cli_text("train %s -o %s --probabilistic --reconstruct 0.7", data, run));
  cli_refused(2, 2, "--reconstruct decodes what is drawn from features that are distributions; add --probabilistic",
              cli_text("train %s -o %s --reconstruct 0.7 --model resnet50", data, run));
  cli_refused(2, 2,
              "--reconstruct 0.7 and --freeze encoder do not go together: it shapes features, which a frozen encoder "
              "leaves as they are: train with it before, and give that run to --stage2; drop one",
              cli_text("train %s -o %s " DECODED " --reconstruct 0.7 --freeze encoder --init x", data, run));
  cli_refused(0, 2,
              "an image of 40 x 40 cannot be reconstructed: the mirror of this network makes 64 x 64; use images as "
              "wide as high, of a multiple of 32",
              cli_text("train %s -o %s " DECODED " --device cpu --size 40", data, run));
  cli_refused(0, 2,
              "--reconstruct has a decoder for --model resnet50 alone, and this is mlp; give it or drop --reconstruct",
              train(run, "--probabilistic --reconstruct 0.7"));
}

/* ---- as any run ----------------------------------------------------------------------------- */

Test(cli_probabilistic, a_run_goes_on_with_the_same_bits) {
  const char *options = "--probabilistic --dropout 0.2 --views 2 --conr --fds --fds-size 3 --fds-buckets -3,3";
  const char *whole = io_file("whole"), *parts = io_file("parts");
  cli_accepted(2, train(whole, cli_text("--epochs 4 %s", options)));
  cli_accepted(2, train(parts, cli_text("--epochs 2 %s", options)));
  cli_accepted(2, train(parts, cli_text("--epochs 4 --resume %s", options)));
  cli_same_runs(whole, parts);
}

/* A checkpoint says what its network is. */
Test(cli_probabilistic, predictions_are_those_of_the_means) {
  const char *data = cli_data("t.h5", 60), *run = io_file("run"), *first = io_file("first.csv"),
             *again = io_file("again.csv");
  cli_accepted(2, train(run, "--probabilistic --epochs 2"));
  cli_accepted(2, cli_text("predict %s %s -o %s", run, data, first));
  cli_accepted(3, cli_text("predict %s %s -o %s", run, data, again));
  char *a = io_read(first, NULL), *b = io_read(again, NULL);
  cr_expect(eq(str, a, b));
  free(a);
  free(b);
  free(cli_output(2, cli_text("eval %s %s --json", run, data)));
}

Test(cli_probabilistic, exported_parameters_begin_another_run) {
  const char *run = io_file("run"), *file = io_file("model.safetensors"), *from_file = io_file("from_file"),
             *from_run = io_file("from_run"), *options = "--probabilistic --epochs 1 --seed 3";
  cli_accepted(0, train(run, "--probabilistic --epochs 2"));
  cli_accepted(0, cli_text("export %s -o %s --quiet", run, file));
  cli_accepted(0, train(from_file, cli_text("%s --init %s", options, file)));
  cli_accepted(0, train(from_run, cli_text("%s --init %s/checkpoint-best.h5", options, run)));
  cli_same_runs(from_file, from_run);
  cli_refused(0, 1,
              cli_text("%s has \"variance.bias\" and 1 more that the model does not have; give the same --model, "
                       "--hidden and --probabilistic as then",
                       file),
              train(io_file("other"), cli_text("--epochs 1 --init %s", file)));
}

Test(cli_probabilistic, second_stages_keep_the_distributions) {
  const char *first = io_file("first"), *encoder = io_file("encoder"), *probe = io_file("probe");
  cli_accepted(2, train(first, "--probabilistic --epochs 2 --precision f64"));
  const char *best = cli_text("%s/checkpoint-best.h5", first);
  const char *options = cli_text("--probabilistic --epochs 1 --precision f64 --stage2 %s", first);
  cli_accepted(2, train(encoder, options));
  cli_accepted(2, train(probe, cli_text("%s --freeze probe", options)));
  cr_expect(eq(dbl, moved(best, cli_last(encoder), "variance."), 0));
  cr_expect(eq(dbl, moved(best, cli_last(probe), "variance."), 0));
  cr_expect(eq(dbl, moved(best, cli_last(probe), "layer1."), 0));
  cr_expect(moved(cli_last(encoder), cli_last(probe), "layer2.") > 0, "a frozen encoder is drawn from, a probe is not");
  cli_refused(0, 2, cli_text("--stage2: the features of the encoder in %s have variances; add --probabilistic", best),
              train(io_file("plain"), cli_text("--epochs 1 --stage2 %s", first)));
}

Test(cli_probabilistic, options_that_make_no_sense_together) {
  cli_refused(2, 2, "--probabilistic gives features variances: give --hidden at least one layer",
              cli_text("train %s -o %s --hidden '' --probabilistic", cli_data("t.h5", 60), io_file("run")));
}
