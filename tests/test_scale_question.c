/* conr scale --question global-batch: its lines, what distinguishes their runs, going on, and mistakes. */
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

TestSuite(scale_question, .init = cli_begin, .fini = cli_end, .timeout = 120);

/* Batches of 9 samples in 2 views: 18 rows. */
static const char *command(const char *data, const char *folder, const char *more) {
  return cli_text(
      "scale %s -o %s --question global-batch --batch 9 --epochs 2 --hidden 8 --seeds 2 --quiet --device cpu "
      "%s",
      data, folder, more);
}

static json_t *object_of(int ranks, const char *line) {
  char *output = cli_output(ranks, line);
  json_t *object = json_loads(output, 0, NULL);
  cr_assert(object != NULL, "%s", output);
  free(output);
  return object;
}

static const char *text_at(const json_t *object, const char *key) {
  return json_string_value(json_object_get(object, key));
}

/* What a line's runs were trained with, by their own words. */
static void run_has(const char *folder, const char *line, int seed, const char *variant, int memory, int constant) {
  char *used = io_read(cli_text("%s/%s/seed%d/config.used", folder, line, seed), NULL);
  const char *const wanted[] = {cli_text("\nconr-variant = %s\n", variant),
                                cli_text("\nconr-memory = %d\n", memory),
                                cli_text("\nconr-constant = %d\n", constant),
                                "\nconr = true\n",
                                "\nviews = 2\n",
                                "\nbatch = 9\n"};
  for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
    cr_expect(strstr(used, wanted[i]) != NULL, "%s lacks %s", line, wanted[i]);
  free(used);
}

Test(scale_question, lines_differ_in_rows_and_constant_alone) {
  static const struct {
    const char *name, *variant, *against;
    int rows, memory, constant;
  } lines[] = {{"paper-18", "paper", NULL, 18, 0, 0},
               {"paper-40", "paper", "paper-18", 40, 22, 0},
               {"reference-18", "reference", NULL, 18, 0, 0},
               {"reference-40", "reference", "reference-18", 40, 22, 0},
               {"held-40", "reference", "reference-18", 40, 22, 18}};
  const char *folder = io_file("study"), *data = cli_data("t.h5", 120);
  json_t *answer = object_of(2, command(data, folder, "--rows 18,40 --json")), *methods, *line;
  size_t i;
  cr_assert(eq(int, (int)json_integer_value(json_object_get(answer, "batch_rows")), 18));
  methods = json_object_get(answer, "methods");
  cr_assert(eq(sz, json_array_size(methods), sizeof lines / sizeof *lines));
  json_array_foreach(methods, i, line) {
    const char *against = text_at(line, "against");
    cr_expect(eq(str, (char *)text_at(line, "method"), (char *)lines[i].name));
    const char *told = against != NULL ? against : "none", *wanted = lines[i].against ? lines[i].against : "none";
    cr_expect(eq(str, (char *)told, (char *)wanted), "%s", lines[i].name);
    cr_expect(eq(int, (int)json_integer_value(json_object_get(line, "rows")), lines[i].rows));
    cr_expect(eq(sz, json_array_size(json_object_get(line, "runs")), 2));
    double share = json_number_value(json_object_get(line, "loss_share"));
    cr_expect(json_number_value(json_object_get(line, "seconds_per_step")) > 0 && share > 0 && share < 1);
    for (int seed = 0; seed < 2; seed++)
      run_has(folder, lines[i].name, seed, lines[i].variant, lines[i].memory, lines[i].constant);
  }
  json_decref(answer);
  const char *const files[] = {"question.csv", "question.json", "question-cost.csv", "question.gp"};
  for (size_t f = 0; f < sizeof files / sizeof *files; f++)
    cr_expect(io_exists(cli_text("%s/%s", folder, files[f])), "%s", files[f]);
  /* The same command trains nothing again, and tells the same. */
  const char *metrics = cli_text("%s/held-40/seed1/metrics.jsonl", folder);
  int lines_before = cli_lines(metrics);
  char *before = io_read(cli_text("%s/question.csv", folder), NULL);
  char *output = cli_output(0, command(data, folder, "--rows 18,40"));
  char *after = io_read(cli_text("%s/question.csv", folder), NULL);
  cr_expect(eq(str, before, after));
  cr_expect(eq(int, cli_lines(metrics), lines_before));
  cr_expect(eq(int, cli_count(output, "held-40"), 3), "%s", output);
  free(before);
  free(after);
  free(output);
}

/* Memory and held constant are seen: no two lines of a seed end alike. */
Test(scale_question, shares_are_put_together_and_every_line_is_its_own) {
  const char *folder = io_file("study"), *data = cli_data("t.h5", 120);
  const char *more = "--rows 18,40 --seeds 1 --conr-t 1";
  for (int share = 1; share <= 2; share++)
    cli_accepted(0, command(data, folder, cli_text("%s --share %d/2", more, share)));
  cr_assert(not(io_exists(cli_text("%s/question.json", folder))));
  cli_accepted(0, command(data, folder, more));
  json_t *answer = json_load_file(cli_text("%s/question.json", folder), 0, NULL), *line;
  double errors[5];
  size_t i;
  cr_assert(answer != NULL);
  json_array_foreach(json_object_get(answer, "methods"), i, line) {
    errors[i] = json_number_value(json_object_get(json_object_get(json_object_get(line, "mae"), "all"), "mean"));
    for (size_t k = 0; k < i; k++)
      cr_expect(errors[k] != errors[i], "lines %zu and %zu have the same error %.17g", k, i, errors[i]);
  }
  json_decref(answer);
}

Test(scale_question, mistakes_are_told_before_anything_is_trained) {
  static const struct {
    const char *options, *sentence;
  } cases[] = {
      {"--rows 17", "--rows 17: a batch of 9 samples in 2 views has 18 rows already; give that or more, or a smaller "
                    "--batch"},
      {"--rows 40,18", "--rows: 18 stands behind 40; give each once, the smaller first"},
      {"--rows 18 --conr-memory 5", "--conr-memory has no effect with --question global-batch; drop one"},
      {"--rows 18 --steps 5", "--steps has no effect with --question global-batch; drop one"},
      {"--rows 18 --device cuda", "--question global-batch remembers rows of earlier steps, which the host alone does; "
                                  "give --device cpu, or drop --device"},
      {"--rows 18 --recipe any/lds",
       "--recipe any/lds: --question wants the benchmark alone; the methods are its own"}};
  const char *folder = io_file("study"), *data = cli_data("t.h5", 120);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    cli_refused(i == 0 ? 2 : 0, 2, cases[i].sentence, command(data, folder, cases[i].options));
  cli_refused(0, 2, "--rows has no effect without --question; drop one or add the other",
              cli_text("scale %s -o %s --rows 18", data, folder));
  cr_assert(not(io_exists(folder)));
}
