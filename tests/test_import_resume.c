/* An import of images that was stopped anywhere ends with the same bytes. */
#define _GNU_SOURCE
#include "import_set.h"
#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

TestSuite(import_resume, .init = io_files_begin, .fini = io_files_end, .timeout = 120);

struct countdown {
  int left;     /* calls until it strikes */
  int kind;     /* 's' = stop, 'k' = kill, 'm' = mend nothing: overwrite an image */
  bool reached; /* it struck */
};

static bool count_down(void *context) {
  struct countdown *countdown = context;
  if (countdown->left-- != 0)
    return false;
  countdown->reached = true;
  if (countdown->kind == 'k')
    kill(getpid(), SIGKILL);
  if (countdown->kind == 'm') {
    struct drawing drawing = drawing_of(50);
    draw_jpeg(image_path(3), &drawing);
  }
  return countdown->kind == 's';
}

static void undisturbed(enum import_layout layout) {
  struct import_images_options options = options_for("whole.h5");
  options.layout = layout;
  options.force = true;
  import_quietly(&options);
}

/* Stop at every round in turn, of both passes; then go on. */
static void stop_everywhere(enum import_layout layout) {
  struct import_images_options options = options_for("t.h5");
  bool reached = true;
  int stops = 0;
  undisturbed(layout);
  options.layout = layout;
  options.stop_asked = count_down;
  for (int at = 0; reached; at++) {
    struct countdown countdown = {.left = at, .kind = 's'};
    options.stop_context = &countdown;
    struct import_images_report *report = import(&options);
    reached = countdown.reached;
    cr_assert(eq(int, report->stopped, reached));
    cr_assert(eq(int, beside(&options, ".journal"), reached));
    cr_assert(eq(int, beside(&options, ""), !reached));
    import_images_report_destroy(&report);
    stops += reached;
    if (reached) {
      countdown = (struct countdown){.left = -1};
      import_quietly(&options);
    }
    cr_assert(not(beside(&options, ".journal")));
    cr_assert(not(beside(&options, ".tmp")));
    expect_same_files("t.h5", "whole.h5");
    unlink(options.output_path);
  }
  cr_assert(stops >= 6, "only %d rounds could be stopped", stops);
}

FILE_TEST(import_resume, stopped_at_any_round_it_goes_on_encoded) {
  make_set(100);
  stop_everywhere(IMPORT_ENCODED);
}

FILE_TEST(import_resume, stopped_at_any_round_it_goes_on_pixels) {
  make_set(100);
  stop_everywhere(IMPORT_PIXELS);
}

/* Stop again and again, one round further each time. */
FILE_TEST(import_resume, stopped_many_times_it_still_arrives) {
  struct import_images_options options = options_for("t.h5");
  bool stopped = true;
  int starts = 0;
  make_set(100);
  undisturbed(IMPORT_ENCODED);
  options.stop_asked = count_down;
  for (; stopped && starts < 50; starts++) {
    struct countdown countdown = {.left = starts, .kind = 's'};
    options.stop_context = &countdown;
    struct import_images_report *report = import(&options);
    stopped = report->stopped;
    import_images_report_destroy(&report);
  }
  cr_assert(not(stopped));
  cr_assert(starts > 3);
  expect_same_files("t.h5", "whole.h5");
}

/* The same in a process that kills itself. */
static bool die_at(struct import_images_options *options, int round) {
  struct countdown countdown = {.left = round, .kind = 'k'};
  struct import_images_report *report;
  int ended;
  options->stop_asked = count_down;
  options->stop_context = &countdown;
  options->threads = 1; /* a child of a process with OpenMP threads had better not use its own */
  fflush(NULL);
  pid_t child = fork();
  if (child == 0)
    _exit(import_images(options, &report) == STATUS_OK ? 0 : 1);
  cr_assert(waitpid(child, &ended, 0) == child);
  return WIFSIGNALED(ended) && WTERMSIG(ended) == SIGKILL;
}

FILE_TEST(import_resume, killed_at_any_round_it_goes_on) {
  struct import_images_options options = options_for("t.h5"), again = options;
  int deaths = 0;
  make_set(100);
  for (int round = 0; die_at(&options, round); round++, deaths++) {
    cr_assert(beside(&options, ".journal"));
    cr_assert(not(beside(&options, "")));
    import_quietly(&again);
    if (round == 0)
      cr_assert(rename(io_file("t.h5"), io_file("first.h5")) == 0);
    else
      expect_same_files("t.h5", "first.h5");
    unlink(options.output_path);
    cr_assert(not(beside(&options, ".tmp")));
  }
  cr_assert(deaths >= 6, "only %d deaths", deaths);
  unlink(options.output_path);
  undisturbed(IMPORT_ENCODED);
  expect_same_files("first.h5", "whole.h5");
}

/* Stop in the given round and leave the journal. */
static void stop_at(struct import_images_options *options, int round) {
  struct countdown countdown = {.left = round, .kind = 's'};
  options->stop_asked = count_down;
  options->stop_context = &countdown;
  struct import_images_report *report = import(options);
  cr_assert(report->stopped);
  import_images_report_destroy(&report);
  options->stop_asked = NULL;
}

FILE_TEST(import_resume, a_torn_journal_is_cut_off) {
  struct import_images_options options = options_for("t.h5");
  make_set(100);
  stop_at(&options, 4);
  FILE *journal = fopen(io_file("t.h5.journal"), "a");
  fputs("{\"first\":0,\"records\":[[1,2,", journal);
  fclose(journal);
  import_quietly(&options);
  undisturbed(IMPORT_ENCODED);
  expect_same_files("t.h5", "whole.h5");
}

FILE_TEST(import_resume, a_journal_of_nonsense_does_no_harm) {
  static const char *const lines[] = {"nonsense\n",
                                      "{}\n",
                                      "{\"first\":-5,\"records\":[[1,2,3,4,5,6,7,0]]}\n",
                                      "{\"first\":99,\"records\":[null,null]}\n",
                                      "{\"first\":0,\"records\":[[-1,2,3,4,5,6,7,0]]}\n",
                                      "{\"plan\":7,\"bytes\":-1,\"data_offset\":-9}\n",
                                      "{\"written\":1000000}\n"};
  struct import_images_options options = options_for("t.h5");
  make_set(100);
  undisturbed(IMPORT_ENCODED);
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    stop_at(&options, 4);
    FILE *journal = fopen(io_file("t.h5.journal"), "a");
    fputs(lines[i], journal);
    fclose(journal);
    import_quietly(&options);
    expect_same_files("t.h5", "whole.h5");
    unlink(options.output_path);
  }
}

FILE_TEST(import_resume, another_table_or_option_starts_afresh) {
  struct import_images_options options = options_for("t.h5");
  make_set(100);
  stop_at(&options, 1);
  options.layout = IMPORT_PIXELS;
  stop_at(&options, 4);
  make_set(99);
  import_quietly(&options);
  undisturbed(IMPORT_PIXELS);
  expect_same_files("t.h5", "whole.h5");
}

FILE_TEST(import_resume, images_changed_between_two_attempts_are_looked_at_again) {
  struct import_images_options options = options_for("t.h5");
  make_set(100);
  stop_at(&options, 5); /* all checked, some written */
  struct drawing drawing = {.height = 50, .width = 50, .label = 1};
  draw_jpeg(image_path(1), &drawing);
  import_quietly(&options);
  undisturbed(IMPORT_ENCODED);
  expect_same_files("t.h5", "whole.h5");
}

FILE_TEST(import_resume, an_image_changed_during_the_import_is_noticed) {
  struct import_images_options options = options_for("t.h5");
  struct countdown countdown = {.left = 0, .kind = 'm'}; /* after the first round of looking */
  options.stop_asked = count_down;
  options.stop_context = &countdown;
  make_set(60);
  expect_refused(&options, ERR_FORMAT, "image deep/003.jpg changed while it was imported; import again");
}

FILE_TEST(import_resume, a_second_import_to_the_same_file_is_refused) {
  struct import_images_options options = options_for("t.h5");
  struct import_images_report *report;
  make_set(5);
  int lock = open(io_file("t.h5.journal"), O_RDWR | O_CREAT, 0666);
  cr_assert(lock >= 0 && flock(lock, LOCK_EX) == 0);
  cr_expect(eq(int, (int)import_images(&options, &report), ERR_FILE));
  cr_expect(strstr(status_message(), "another import is writing") != NULL, "%s", status_message());
  close(lock);
  import_quietly(&options);
}

FILE_TEST(import_resume, a_full_disk_keeps_what_was_done) {
  struct import_images_options options = options_for("t.h5");
  struct import_images_report *report;
  make_set(100);
  undisturbed(IMPORT_ENCODED);
  io_fill_disk(30000); /* room for the journal, not for the images */
  enum status status = import_images(&options, &report);
  io_empty_disk();
  cr_assert(eq(int, (int)status, ERR_FILE), "%s", status_message());
  cr_expect(strstr(status_message(), "cannot write ") != NULL, "%s", status_message());
  cr_expect(not(beside(&options, "")));
  cr_expect(beside(&options, ".journal"));
  import_quietly(&options);
  expect_same_files("t.h5", "whole.h5");
}
