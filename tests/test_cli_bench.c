/* conr bench as a script meets it: the documented keys, believable values, and what is refused. */
#include "draw_images.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(cli_bench, .init = cli_begin, .fini = cli_end, .timeout = 120);

/* The first line of output as an object with these keys and no others; numbers are above 0 (a share may be 0). */
static void has_keys(int ranks, const char *line, const char *const *keys, size_t count) {
  char *text = cli_output(ranks, line);
  json_error_t error;
  text[strcspn(text, "\n")] = '\0';
  json_t *object = json_loads(text, 0, &error);
  cr_assert(object != NULL, "%s in %s", error.text, text);
  cr_assert(eq(sz, json_object_size(object), count), "%s", text);
  for (size_t i = 0; i < count; i++) {
    json_t *value = json_object_get(object, keys[i]);
    cr_assert(value != NULL, "no key \"%s\" in %s", keys[i], text);
    bool share = strstr(keys[i], "share") != NULL;
    bool believable = json_is_string(value) || json_number_value(value) > 0 || (share && json_number_value(value) == 0);
    cr_assert(believable, "\"%s\" in %s", keys[i], text);
  }
  json_decref(object);
  free(text);
}

Test(cli_bench, a_step_has_the_documented_keys) {
  static const char *const keys[] = {"model",       "size",      "batch",   "threads",           "ranks",
                                     "device",      "precision", "seconds", "images_per_second", "gflops",
                                     "gemm_gflops", "peak_bytes"};
  for (int ranks = 0; ranks <= 2; ranks += 2)
    has_keys(ranks, "bench step --model cnn --size 16x24 --batch 5 --repeat 1 --json", keys,
             sizeof keys / sizeof *keys);
}

/* Lines of ConR come first, which are tested elsewhere; then one for each of the others. */
Test(cli_bench, regularisers_are_measured_beside_conr) {
  static const char *const methods[] = {"ranksim", "rnc", "accon", "srl", "l1"};
  char *text = cli_output(2, "bench loss --rows 64 --dim 16 --repeat 1 --regularisers --json"), *at = text;
  for (size_t i = 0; i < 5; i++) {
    at = strstr(at, cli_text("\"method\":\"%s\"", methods[i]));
    cr_assert(at != NULL, "%s in %s", methods[i], text);
    cr_expect(strstr(at, "\"of_dense_conr\":") != NULL, "%s", text);
  }
  cr_expect(eq(int, cli_count(text, "\n"), 7));
  free(text);
}

Test(cli_bench, a_loader_has_the_documented_keys_in_both_layouts) {
  static const char *const keys[] = {
      "layout", "decode", "threads", "ranks", "images_per_second", "bare_images_per_second", "wait_share"};
  static const char *const layouts[] = {"encoded", "pixels --size 32"};
  const char *folder = io_file("pictures"), *csv = io_file("labels.csv");
  mkdir(folder, 0777);
  FILE *file = fopen(csv, "w");
  fprintf(file, "age,path,split\n");
  for (int i = 0; i < 12; i++) {
    draw_jpeg(cli_text("%s/%d.jpg", folder, i), &(struct drawing){.height = 40, .width = 50, .label = i});
    fprintf(file, "%d,%d.jpg,train\n", i, i);
  }
  fclose(file);
  for (size_t i = 0; i < 2; i++) {
    const char *data = io_file(cli_text("data%zu.h5", i));
    cli_accepted(0, cli_text("import %s --images %s -o %s --quiet --layout %s", csv, folder, data, layouts[i]));
    has_keys(0, cli_text("bench loader %s --size 32 --batch 4 --repeat 1 --json", data), keys,
             sizeof keys / sizeof *keys);
  }
}

Test(cli_bench, collectives_have_the_documented_keys) {
  static const char *const keys[] = {"operation", "bytes",   "transport",      "device",
                                     "ranks",     "seconds", "algorithm_gbps", "bus_gbps"};
  has_keys(2, "bench comm --repeat 1 --json", keys, sizeof keys / sizeof *keys);
}

Test(cli_bench, a_loss_has_the_documented_keys) {
  static const char *const keys[] = {"rows",        "dim",          "variant",        "path",       "device",
                                     "precision",   "threads",      "ranks",          "seconds",    "gflops",
                                     "gemm_gflops", "active_share", "computed_share", "extra_bytes"};
  for (int ranks = 0; ranks <= 2; ranks += 2)
    has_keys(ranks, "bench loss --rows 64 --dim 8 --repeat 1 --json", keys, sizeof keys / sizeof *keys);
}

Test(cli_bench, what_cannot_be_measured_is_refused) {
  const char *table = cli_data("t.h5", 60);
  cli_refused(0, 2, "conr bench knows loss, step, loader and comm, not \"setp\"; did you mean step?", "bench setp");
  cli_refused(0, 2, "conr bench loader wants a data file", "bench loader");
  cli_refused(0, 2, "conr bench step wants no file", cli_text("bench step %s", table));
  cli_refused(2, 2, cli_text("%s holds a table, which needs no decoding; conr bench loader wants images", table),
              cli_text("bench loader %s", table));
  cli_refused(0, 2, "--augment has no effect on conr bench step; it is for conr bench loader",
              "bench step --augment strong");
  cli_refused(0, 2, "--size has no effect on conr bench loss; it is for conr bench step or loader",
              "bench loss --size 32");
  cli_refused(0, 2, "precision bf16 takes a GPU; on the host there are f32 and f64",
              "bench loss --precision bf16 --device cpu");
  cli_refused(0, 2, "--rows has no effect on conr bench step; it is for conr bench loss", "bench step --rows 8");
  cli_refused(0, 2, "--device has no effect on conr bench loader without --decode nvjpeg; drop one or add the other",
              cli_text("bench loader %s --device cpu", table));
  cli_refused(2, 2, "--decode nvjpeg takes a GPU, and this is the host; drop it, or use a GPU by --device cuda",
              cli_text("bench loader %s --decode nvjpeg --device cpu", table));
  cli_refused(2, 2, "conr bench step measures networks for images: give --model cnn, resnet18 or resnet50",
              "bench step --model mlp");
}
