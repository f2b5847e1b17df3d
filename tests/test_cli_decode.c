/* Training whose JPEGs the GPU decodes, as a user meets it, on the emulated backend and its nvJPEG (tests/emulate): the
 * same runs as with the host's decoder, to the bit; what is told of pictures it does not take; what is refused. */
#include "draw_images.h"
#include "io_files.h"
#include "io_images.h"
#include "support_cli.h"
#include "tests/emulated.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void begin(void) {
  cli_begin();
  if (!emulated_nvjpeg_use())
    cr_skip("there is no emulated CUDA library");
  setenv("EMULATED_NCCL_FOLDER", io_file(""), 1);
}

TestSuite(cli_decode, .init = begin, .fini = cli_end, .timeout = 600);

static const char *data_of(struct io_images images) {
  const char *data = io_file("images.h5");
  images.rows = 40;
  images.height = 30;
  images.width = 34;
  images.paths = true;
  io_images_write(&images, data);
  return data;
}

#define COMMON "--model cnn --size 16 --epochs 1 --batch 9 --device cuda --precision f32 --quiet"

/* Either decoder, on so many ranks. */
static void same_run(const char *data, int ranks, const char *options) {
  const char *host = io_file("host"), *device = io_file("device");
  cli_accepted(ranks, cli_text("train %s -o %s --force --full-decode " COMMON " %s", data, host, options));
  cli_accepted(ranks, cli_text("train %s -o %s --force --decode nvjpeg " COMMON " %s", data, device, options));
  cli_same_runs(host, device);
}

Test(cli_decode, either_decoder_trains_the_same_run_on_one_rank_and_on_two) {
  const char *data = data_of((struct io_images){.varied = true, .checksum = true});
  same_run(data, 1, "--conr --epochs 2");
  same_run(data, 1, "--augment none --batch 5");
  for (int ranks = 1; ranks <= 2; ranks++)
    same_run(data, ranks, "--conr --views 3 --augment strong --workers 3");
}

Test(cli_decode, micro_batches_and_graphs_go_with_it) {
  const char *data = data_of((struct io_images){.varied = true});
  same_run(data, 2, "--conr --micro-batch 2 --batch-norm rank");
  same_run(data, 1, "--views 2 --graphs on");
}

/* In the middle of an epoch, by its own checkpoints. */
Test(cli_decode, a_killed_run_goes_on_to_the_same_bits) {
  const char *data = data_of((struct io_images){.varied = true});
  const char *options = COMMON " --decode nvjpeg --conr --checkpoint-steps 1 --log-steps 1 --epochs 3";
  const char *whole = io_file("whole"), *stopped = io_file("stopped");
  cli_accepted(0, cli_text("train %s -o %s %s", data, whole, options));
  cli_killed_and_resumed(0, 3, data, stopped, options);
  cli_same_runs(whole, stopped);
}

/* The n-th of the rows is for training if n % 5 < 3, and a PNG if n % 4 == 3. */
Test(cli_decode, what_the_host_decodes_after_all_is_told_once) {
  const char *data = data_of((struct io_images){0}), *run = io_file("run");
  struct run_result result =
      cli_run(1, cli_text("train %s -o %s --decode nvjpeg --model cnn --size 16 --epochs 3 --batch 9 --device cuda",
                          data, run));
  cr_assert(eq(int, result.exit_status, 0), "%s", result.output);
  cr_expect(
      eq(int,
         cli_count(result.output,
                   "nvJPEG: 6 of the epoch's 24 samples were left to the host: PNG, or JPEGs that it does not take"),
         1),
      "%s", result.output);
  run_result_free(&result);
}

Test(cli_decode, stored_pixels_need_no_decoder) {
  const char *data = data_of((struct io_images){.pixels = true}), *run = io_file("run");
  setenv("CONR_NVJPEG_LIBRARY", io_file("none.so"), 1);
  struct run_result result =
      cli_run(1, cli_text("train %s -o %s --decode nvjpeg --model cnn --size 16 --epochs 1 --batch 7 --device cuda",
                          data, run));
  cr_expect(eq(int, result.exit_status, 0));
  cr_expect(eq(int, cli_count(result.output, "holds pixels: there is nothing for --decode nvjpeg to do"), 1), "%s",
            result.output);
  run_result_free(&result);
}

Test(cli_decode, a_damaged_picture_ends_the_run_with_its_name) {
  const char *data = data_of((struct io_images){0}), *run = io_file("run");
  int64_t offset, length;
  io_images_record(data, 1, &offset, &length);
  io_images_poke(data, offset + length * 3 / 4, "\xff\xd9\xff\xd9\xff\xd9\xff\xd9", 8);
  struct run_result result = cli_run(0, cli_text("train %s -o %s --decode nvjpeg " COMMON, data, run));
  const char *sentence = cli_text("conr: the image of row 1 (folder/1.jpg) in %s cannot be used: the JPEG data ", data);
  cr_expect(eq(int, result.exit_status, 1));
  cr_expect(eq(int, cli_count(result.output, sentence), 1), "%s", result.output);
  run_result_free(&result);
}

Test(cli_decode, what_cannot_be_is_refused_on_all_ranks_alike) {
  const char *data = data_of((struct io_images){0}), *table = cli_data("t.h5", 60), *run = io_file("run");
  cli_refused(2, 2, "--decode nvjpeg takes a GPU, and this is the host; drop it, or use a GPU by --device cuda",
              cli_text("train %s -o %s --decode nvjpeg --device cpu", data, run));
  cli_refused(2, 2,
              "--cache on keeps images that the host has decoded, and with --decode nvjpeg it decodes none; drop one",
              cli_text("train %s -o %s --cache on --decode nvjpeg " COMMON, data, run));
  cli_refused(2, 2, "--decode has no effect without images as data; drop one or add the other",
              cli_text("train %s -o %s --decode nvjpeg --device cuda", table, run));
  cli_refused(0, 2, "--decode \"gpu\" is not one of host|nvjpeg", cli_text("train %s -o %s --decode gpu", data, run));
  setenv("EMULATED_NVJPEG_ALLOC", "0", 1);
  cli_refused(2, 1,
              "nvJPEG has no memory for its start: use more ranks, a smaller batch, a smaller model, or --decode host",
              cli_text("train %s -o %s --decode nvjpeg " COMMON, data, run));
  unsetenv("EMULATED_NVJPEG_ALLOC");
  unsetenv("CONR_NVJPEG_LIBRARY");
  cli_refused(2, 1,
              "nvJPEG is not on this machine (libnvjpeg.so.13, .12 or libnvjpeg.so; CONR_NVJPEG_LIBRARY names another "
              "file); install it, or use --decode host",
              cli_text("train %s -o %s --decode nvjpeg " COMMON, data, run));
}

Test(cli_decode, a_run_is_resumed_with_the_decoder_it_was_begun_with) {
  const char *data = data_of((struct io_images){0}), *run = io_file("run");
  cli_accepted(1, cli_text("train %s -o %s --decode nvjpeg " COMMON, data, run));
  cli_refused(1, 2, "--resume with --decode host, but the run was begun with nvjpeg; give the same, or start a new run",
              cli_text("train %s -o %s --full-decode --resume " COMMON, data, run));
  cli_accepted(1, cli_text("train %s --config %s/config.used -o %s --quiet", data, run, io_file("again")));
  cli_same_runs(run, io_file("again"));
}

/* Whether or not the option is given again: the last epoch's figure is that of the last checkpoint. */
Test(cli_decode, a_run_that_decodes_at_full_size_is_evaluated_so) {
  static const char *const options[] = {"--decode nvjpeg", "--full-decode --device cpu"};
  const char *data = data_of((struct io_images){0}), *run = io_file("run");
  for (int i = 0; i < 2; i++) {
    cli_accepted(1, cli_text("train %s -o %s --force %s " COMMON, data, run, options[i]));
    char *text = cli_output(1, cli_text("eval %s %s --part val --checkpoint last --json", run, data));
    json_t *table = json_loads(text, 0, NULL);
    cr_assert(table != NULL, "%s", text);
    double mae = json_number_value(json_object_get(json_object_get(table, "all"), "mae"));
    double logged = cli_last_metric(run, "val_mae");
    cr_expect(fabs(mae - logged) <= 1e-6 * logged, "%.9g evaluated, %.9g in validation", mae, logged);
    json_decref(table);
    free(text);
  }
}

Test(cli_decode, it_can_be_measured) {
  const char *data = data_of((struct io_images){0});
  char *said = cli_output(2, cli_text("bench loader %s --size 16 --batch 9 --repeat 1 --json --decode nvjpeg "
                                      "--augment strong --device cuda",
                                      data));
  json_error_t error;
  json_t *figures = json_loads(said, JSON_DISABLE_EOF_CHECK, &error);
  cr_assert(figures != NULL, "%s in %s", error.text, said);
  cr_expect(eq(str, (char *)json_string_value(json_object_get(figures, "decode")), "nvjpeg"), "%s", said);
  cr_expect(gt(dbl, json_number_value(json_object_get(figures, "images_per_second")), 0), "%s", said);
  json_decref(figures);
  free(said);
}
