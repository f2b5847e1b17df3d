/* conr import with --images, and from one layout into the other, as a user meets it: alone and on several ranks,
 * stopped by signals and killed. */
#define _GNU_SOURCE
#include "draw_images.h"
#include "io_files.h"
#include "support_cli.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(cli_import_images, .init = cli_begin, .fini = cli_end, .timeout = 120);

/* ---- pictures -------------------------------------------------------------------------------- */

/* `count` images of many sizes in pictures/, and t.csv with the columns of a published table. */
static void make_set(int count) {
  mkdir(io_file("pictures"), 0777);
  FILE *table = fopen(io_file("t.csv"), "w");
  cr_assert(table != NULL);
  fputs("steering,path,split\n", table);
  for (int i = 0; i < count; i++) {
    struct drawing drawing = {.height = 10 + i % 9, .width = 12 + i % 5, .label = i % 101};
    const char *path = cli_text("%s/%d.jpg", io_file("pictures"), i);
    draw_jpeg(path, &drawing);
    fprintf(table, "%g,%d.jpg,%s\n", i / 10.0, i, i % 4 == 3 ? "test" : "train");
  }
  cr_assert(fclose(table) == 0);
}

/* `count` names of one large image: looking at each takes a while. */
static void make_slow_set(int count) {
  struct drawing drawing = {.height = 2400, .width = 3000, .label = 50};
  mkdir(io_file("pictures"), 0777);
  draw_jpeg(io_file("pictures/0.jpg"), &drawing);
  FILE *table = fopen(io_file("t.csv"), "w");
  cr_assert(table != NULL);
  fputs("age,path,split\n", table);
  for (int i = 0; i < count; i++) {
    if (i > 0)
      cr_assert(link(io_file("pictures/0.jpg"), cli_text("%s/%d.jpg", io_file("pictures"), i)) == 0);
    fprintf(table, "%d,%d.jpg,train\n", i % 50, i);
  }
  cr_assert(fclose(table) == 0);
}

static const char *command_for(const char *output) {
  return cli_text("import %s --images %s -o %s", io_file("t.csv"), io_file("pictures"), io_file(output));
}

static void refused(int exit_status, const char *sentence, const char *more) {
  const char *out = io_file("t.h5");
  cli_refused(0, exit_status, sentence, cli_text("%s %s", command_for("t.h5"), more));
  cr_assert(not(io_exists(out)), "a file was left behind");
  cr_assert(not(io_exists(cli_text("%s.tmp", out))), "a file aside was left behind");
  cr_assert(not(io_exists(cli_text("%s.journal", out))), "a journal was left behind");
}

static void same_files(const char *a, const char *b) {
  size_t bytes_a, bytes_b;
  char *left = io_read(a, &bytes_a), *right = io_read(b, &bytes_b);
  cr_assert(bytes_a == bytes_b && memcmp(left, right, bytes_a) == 0, "%s and %s differ", a, b);
  free(left);
  free(right);
}

/* ---- what is written ------------------------------------------------------------------------- */

Test(cli_import_images, a_published_table_needs_no_other_word) {
  make_set(40);
  char *report = cli_output(0, command_for("t.h5"));
  cr_expect(strstr(report, "t.h5: 40 images, encoded (40 JPEG, 0 PNG), ") != NULL, "%s", report);
  cr_expect(strstr(report, "\n  training 30, validation 0, test 10\n") != NULL, "%s", report);
  cr_expect(strstr(report, "\n  height x width from 10 x 12 to 17 x 16\n") != NULL, "%s", report);
  cr_expect(strstr(report, "target \"steering\": 30 training labels, 0 to 3.8, mean") != NULL, "%s", report);
  free(report);
}

Test(cli_import_images, any_number_of_ranks_writes_the_same_bytes) {
  make_set(50);
  cli_accepted(0, cli_text("%s --quiet", command_for("e0.h5")));
  cli_accepted(0, cli_text("%s --quiet --layout pixels --size 9x11", command_for("p0.h5")));
  cli_accepted(0, cli_text("import %s --quiet --layout encoded -o %s", io_file("p0.h5"), io_file("c0.h5")));
  for (int ranks = 1; ranks <= 4; ranks++) {
    cli_accepted(ranks, cli_text("%s --quiet --force --threads %d", command_for("e.h5"), 1 + ranks % 2));
    same_files(io_file("e.h5"), io_file("e0.h5"));
    cli_accepted(ranks, cli_text("%s --quiet --force --layout pixels --size 9x11", command_for("p.h5")));
    same_files(io_file("p.h5"), io_file("p0.h5"));
    cli_accepted(ranks,
                 cli_text("import %s --quiet --force --layout encoded -o %s", io_file("p0.h5"), io_file("c.h5")));
    same_files(io_file("c.h5"), io_file("c0.h5"));
  }
}

Test(cli_import_images, conversion_says_when_it_loses) {
  make_set(10);
  cli_accepted(0, cli_text("%s --quiet --layout pixels --size 16", command_for("p.h5")));
  char *report =
      cli_output(0, cli_text("import %s --layout encoded --quality 80 -o %s", io_file("p.h5"), io_file("e.h5")));
  cr_expect(strstr(report, "encoded as JPEG of quality 80, ") != NULL, "%s", report);
  cr_expect(strstr(report, "JPEG does not keep pixels exactly") != NULL, "%s", report);
  free(report);
  report = cli_output(0, cli_text("import %s --layout pixels --size 8 -o %s", io_file("p.h5"), io_file("s.h5")));
  cr_expect(strstr(report, "s.h5: 10 images, pixels of 8 x 8, 0.0 MB") != NULL, "%s", report);
  free(report);
}

/* ---- what is refused ------------------------------------------------------------------------- */

Test(cli_import_images, options_of_the_other_kind_of_import) {
  make_set(5);
  const char *reason = "is for tables; with --images, columns without a purpose are left out and none may be empty";
  refused(2, cli_text("--drop %s", reason), "--drop a");
  refused(2, cli_text("--missing %s", reason), "--missing mean");
  refused(2, "--size is for --layout pixels; encoded images keep their own size", "--size 20");
  refused(2, "--quality is for --layout encoded", "--layout pixels --quality 50");
  refused(2, "--quality is for converting an HDF5 file of pixels; files keep their own bytes", "--quality 50");
  refused(2, "--layout \"raw\" is not one of encoded|pixels", "--layout raw");
  refused(2, "--size wants 224 or 160x320 (height x width), not \"ten\"", "--layout pixels --size ten");
  refused(2, "--split-column and --split contradict each other; give one", "--split-column split --split 0.5,0.2,0.3");
  static const char *const images_only[] = {"--layout pixels", "--size 5",        "--quality 9",
                                            "--on-error skip", "--path-column p", "--threads 2"};
  for (int i = 0; i < 6; i++) {
    const char *name = cli_text("%.*s", (int)strcspn(images_only[i], " "), images_only[i]);
    cli_refused(0, 2, cli_text("%s is for images; give --images DIR too, or leave it out", name),
                cli_text("import %s --target steering -o %s %s", io_file("t.csv"), io_file("x.h5"), images_only[i]));
  }
}

Test(cli_import_images, an_hdf5_file_is_converted_and_nothing_else) {
  make_set(5);
  cli_accepted(0, cli_text("%s --quiet", command_for("e.h5")));
  const char *from = io_file("e.h5"), *out = io_file("o.h5");
  cli_refused(0, 2,
              cli_text("%s is an HDF5 file: give --layout encoded or --layout pixels to convert its images", from),
              cli_text("import %s -o %s", from, out));
  cli_refused(0, 2, "--target is for CSV files; an HDF5 file keeps its labels and splits",
              cli_text("import %s --layout pixels --target steering -o %s", from, out));
  cli_refused(0, 2, cli_text("--images goes with a CSV file; %s is an HDF5 file", from),
              cli_text("import %s --images %s -o %s", from, io_file("pictures"), out));
  cli_refused(0, 2, cli_text("input and output are both %s; give another name for the output", from),
              cli_text("import %s --layout pixels --force -o %s", from, from));
  cli_refused(0, 1,
              cli_text("%s holds no images: neither \"image_bytes\" nor \"images\"; only files of images are converted",
                       cli_data("table.h5", 20)),
              cli_text("import %s --layout pixels -o %s", io_file("table.h5"), out));
  cr_assert(not(io_exists(out)));
}

Test(cli_import_images, a_missing_folder_is_one_sentence_on_all_ranks) {
  make_set(5);
  for (int ranks = 0; ranks <= 3; ranks += 3)
    cli_refused(
        ranks, 1,
        cli_text("cannot open the folder %s: No such file or directory; give --images the folder that the paths "
                 "start from",
                 io_file("none")),
        cli_text("import %s --images %s -o %s", io_file("t.csv"), io_file("none"), io_file("t.h5")));
}

Test(cli_import_images, broken_images_are_listed_and_the_policy_is_followed) {
  make_set(30);
  io_write_text(io_file("pictures/3.jpg"), "no image");
  unlink(io_file("pictures/20.jpg"));
  for (int ranks = 0; ranks <= 3; ranks += 3) {
    struct run_result run = cli_run(ranks, command_for("t.h5"));
    cr_expect(eq(int, run.exit_status, 1), "%s", run.output);
    cr_expect(eq(int, cli_count(run.output, "  line 5, 3.jpg: "), 1), "%s", run.output);
    cr_expect(eq(int, cli_count(run.output, "  line 22, 20.jpg: there is no such file\n"), 1), "%s", run.output);
    cr_expect(eq(int, cli_count(run.output, "conr: 2 of the 30 images of "), 1), "%s", run.output);
    cr_expect(strstr(run.output, "or leave them out with --on-error skip") != NULL, "%s", run.output);
    run_result_free(&run);
    cr_expect(not(io_exists(io_file("t.h5"))));
    cr_expect(not(io_exists(io_file("t.h5.journal"))));
    char *report = cli_output(ranks, cli_text("%s --on-error skip --force", command_for("s.h5")));
    cr_expect(strstr(report, ": 28 images, ") != NULL, "%s", report);
    cr_expect(strstr(report, "  2 images left out:\n    line 5, 3.jpg: ") != NULL, "%s", report);
    free(report);
  }
}

/* ---- stopping and going on ------------------------------------------------------------------- */

/* Begin a long import, disturb it, and see it go on to the same bytes. */
static void disturbed(int ranks, int signal_number) {
  enum { IMAGES = 160 };
  struct cli_job job;
  make_slow_set(IMAGES);
  const char *command = command_for("t.h5"), *journal = io_file("t.h5.journal");
  cli_start(&job, ranks, command);
  cli_await_lines(journal, 2); /* the first round is noted, the others are not yet done */
  if (signal_number == SIGKILL)
    cli_kill_all(&job);
  else
    kill(cli_rank_pid(&job, ranks > 0 ? ranks - 1 : 0), signal_number);
  int exit_status = cli_wait(&job);
  if (signal_number != SIGKILL) {
    cr_assert(eq(int, exit_status, 75), "%s", job.result.output);
    cr_assert(eq(int, cli_count(job.result.output, " images checked; the same command goes on from there\n"), 1), "%s",
              job.result.output);
  }
  cli_job_free(&job);
  cr_assert(not(io_exists(io_file("t.h5"))));
  cr_assert(io_exists(journal));
  struct run_result run = cli_run(ranks, command);
  cr_assert(eq(int, run.exit_status, 0), "%s", run.output);
  const char *found = strstr(run.output, "going on with an interrupted import: ");
  cr_assert(found != NULL, "%s", run.output);
  cr_expect(atoi(found + strlen("going on with an interrupted import: ")) >= 16, "%s", run.output);
  run_result_free(&run);
  cr_assert(not(io_exists(journal)));
  cli_accepted(0, cli_text("%s --quiet --threads 2", command_for("whole.h5")));
  same_files(io_file("t.h5"), io_file("whole.h5"));
}

Test(cli_import_images, sigterm_stops_with_75_and_the_same_command_goes_on) {
  disturbed(0, SIGTERM);
}

Test(cli_import_images, sigint_to_one_rank_stops_all) {
  disturbed(2, SIGINT);
}

Test(cli_import_images, killed_it_goes_on) {
  disturbed(2, SIGKILL);
}
