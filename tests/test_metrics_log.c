/* JSON lines: what is written, and what a resumed run keeps. */
#include "io/metrics_log.h"

#include "tests/io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(metrics_log, .init = io_files_begin, .fini = io_files_end, .timeout = 60);

static void expect_content(const char *wanted) {
  char *text = io_read(io_file("metrics.jsonl"), NULL);
  cr_expect(eq(str, text, (char *)wanted));
  free(text);
}

FILE_TEST(metrics_log, one_object_a_line_in_the_order_given) {
  struct metrics_log *log;
  cr_assert(eq(int, (int)metrics_log_open(io_file("metrics.jsonl"), &log), 0));
  cr_expect(eq(int,
               (int)metrics_log_write(log, metric_text("event", "step"), metric_integer("step", -3),
                                      metric_boolean("best", true), metric_real("loss", 0.5)),
               0));
  cr_expect(
      eq(int, (int)metrics_log_write(log, metric_text("text", "a \"b\"\n\xC3\xA4"), metric_text("none", NULL)), 0));
  expect_content("{\"event\":\"step\",\"step\":-3,\"best\":true,\"loss\":0.5}\n"
                 "{\"text\":\"a \\\"b\\\"\\n\xC3\xA4\",\"none\":null}\n");
  metrics_log_close(&log);
  cr_expect(log == NULL);
}

FILE_TEST(metrics_log, a_later_open_appends) {
  for (int i = 1; i <= 2; i++) {
    struct metrics_log *log;
    cr_assert(eq(int, (int)metrics_log_open(io_file("metrics.jsonl"), &log), 0));
    cr_expect(eq(int, (int)metrics_log_write(log, metric_integer("step", i)), 0));
    metrics_log_close(&log);
  }
  expect_content("{\"step\":1}\n{\"step\":2}\n");
}

FILE_TEST(metrics_log, numbers_come_back_with_the_same_bits) {
  double values[] = {0.1, 1.0 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789012345680.0, 6.02e23, 2};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    struct metrics_log *log;
    unlink(io_file("metrics.jsonl"));
    cr_assert(eq(int, (int)metrics_log_open(io_file("metrics.jsonl"), &log), 0));
    cr_assert(eq(int, (int)metrics_log_write(log, metric_real("x", values[i])), 0));
    metrics_log_close(&log);
    json_t *object = json_load_file(io_file("metrics.jsonl"), 0, NULL);
    double back = json_real_value(json_object_get(object, "x"));
    cr_expect(memcmp(&back, &values[i], sizeof back) == 0, "%a came back as %a", values[i], back);
    json_decref(object);
  }
}

FILE_TEST(metrics_log, what_is_not_finite_is_null) {
  struct metrics_log *log;
  cr_assert(eq(int, (int)metrics_log_open(io_file("metrics.jsonl"), &log), 0));
  cr_expect(eq(int, (int)metrics_log_write(log, metric_real("a", NAN), metric_real("b", -INFINITY)), 0));
  metrics_log_close(&log);
  expect_content("{\"a\":null,\"b\":null}\n");
}

FILE_TEST(metrics_log, without_a_log_nothing_happens) {
  struct metrics_log *none = NULL;
  cr_expect(eq(int, (int)metrics_log_write(none, metric_integer("step", 1)), 0));
  metrics_log_close(&none);
}

FILE_TEST(metrics_log, failures_are_sentences) {
  struct metrics_log *log;
  char sentence[400];
  snprintf(sentence, sizeof sentence, "cannot open %s for writing: No such file or directory", io_file("no/m.jsonl"));
  cr_expect(eq(int, (int)metrics_log_open(io_file("no/m.jsonl"), &log), ERR_FILE));
  cr_expect(eq(str, (char *)status_message(), sentence));
  cr_assert(eq(int, (int)metrics_log_open(io_file("metrics.jsonl"), &log), 0));
  snprintf(sentence, sizeof sentence, "the value of \"host\" for %s is not UTF-8 text", io_file("metrics.jsonl"));
  cr_expect(eq(int, (int)metrics_log_write(log, metric_text("host", "\xFF")), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(), sentence));
  io_fill_disk(0);
  enum status status = metrics_log_write(log, metric_integer("step", 1));
  io_empty_disk();
  snprintf(sentence, sizeof sentence, "cannot write %s: File too large; free some space and resume the run",
           io_file("metrics.jsonl"));
  cr_expect(eq(int, (int)status, ERR_FILE));
  cr_expect(eq(str, (char *)status_message(), sentence));
  metrics_log_close(&log);
}

/* What is left of `before` when a run resumes at `step`. */
static void expect_kept(const char *before, int64_t step, const char *after) {
  io_write_text(io_file("metrics.jsonl"), before);
  cr_expect(eq(int, (int)metrics_log_resume(io_file("metrics.jsonl"), step), 0));
  expect_content(after);
}

#define HEAD "{\"event\":\"start\"}\n{\"hosts\":2}\n"

FILE_TEST(metrics_log, resuming_drops_what_came_after_the_checkpoint) {
  const char *lines = HEAD "{\"step\":1}\n{\"step\":2}\n{\"event\":\"note\"}\n{\"step\":2,\"val\":1}\n{\"step\":3}\n";
  expect_kept(lines, 2, HEAD "{\"step\":1}\n{\"step\":2}\n{\"event\":\"note\"}\n{\"step\":2,\"val\":1}\n");
  expect_kept(lines, 1, HEAD "{\"step\":1}\n");
  expect_kept(lines, 9, lines);
  expect_kept(lines, 0, HEAD);
  expect_kept("", 5, "");
}

FILE_TEST(metrics_log, a_torn_last_line_is_dropped) {
  expect_kept("{\"step\":1}\n{\"step\":2,\"lo", 5, "{\"step\":1}\n");
  expect_kept("{\"step\":1}\n{\"step\":2}", 5, "{\"step\":1}\n");
  expect_kept("{\"ste", 5, "");
  expect_kept("{\"step\":1}\n{\"st\n", 5, "{\"step\":1}\n");
}

FILE_TEST(metrics_log, a_missing_file_is_fine_to_resume) {
  cr_expect(eq(int, (int)metrics_log_resume(io_file("none.jsonl"), 5), 0));
  cr_expect(not(io_exists(io_file("none.jsonl"))));
}
