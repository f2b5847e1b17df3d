/* The check of include directions: a check that cannot fail is none. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* A tree with one file per folder in which all is well, then `line` added to `file`; the answer of tests/arrows. */
static int arrows_with(const char *file, const char *line, struct run_result *run) {
  static const char *const folders[] = {"dist", "io", "model", "loss", "launch"};
  char root[] = "/tmp/conr-arrows-XXXXXX", path[128];
  cr_assert(ne(ptr, mkdtemp(root), NULL));
  for (int i = 0; i < 5; i++) {
    snprintf(path, sizeof path, "%s/%s", root, folders[i]);
    cr_assert(eq(int, mkdir(path, 0700), 0));
    snprintf(path, sizeof path, "%s/%s/own.c", root, folders[i]);
    FILE *source = fopen(path, "w");
    cr_assert(ne(ptr, source, NULL));
    fprintf(source, "#include \"%s/own.h\"\n#include \"dist/status.h\"\n#include <stdio.h>\n", folders[i]);
    fclose(source);
  }
  snprintf(path, sizeof path, "%s/%s", root, file);
  FILE *source = fopen(path, "a");
  cr_assert(ne(ptr, source, NULL));
  fprintf(source, "%s\n", line);
  fclose(source);

  char *const check[] = {"tests/arrows", root, NULL}, *const clean[] = {"rm", "-rf", root, NULL};
  int result = run_command(check, 20, run);
  run_command(clean, 20, NULL);
  return result;
}

Test(arrows, accept_own_folder_and_folders_to_the_left) {
  static const char *const good[][2] = {{"io/own.c", "#include \"dist/comm.h\""},
                                        {"model/own.c", "#include \"io/array.h\""},
                                        {"loss/own.c", "#include \"model/net.h\""},
                                        {"launch/own.c", "#include \"loss/conr.h\""},
                                        {"launch/own.c", "#include \"version.h\""},
                                        {"dist/own.c", "#include <sys/stat.h>"},
                                        {"dist/own.c", "/* not #include \"loss/conr.h\" */"}};
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    struct run_result run;
    cr_expect(eq(int, arrows_with(good[i][0], good[i][1], &run), 0), "%s: %s", good[i][1], run.output);
    cr_expect(eq(str, run.output, "arrows: 5 files, dist <- io <- model <- loss <- launch\n"));
    run_result_free(&run);
  }
}

Test(arrows, refuse_what_points_right_and_name_file_and_line) {
  static const char *const wrong[][3] = {
      {"dist/own.c", "#include \"io/array.h\"", "dist/own.c:4: \"io/array.h\""},
      {"io/own.c", "#include <model/net.h>", "io/own.c:4: \"model/net.h\""},
      {"model/own.h", "  # include \"loss/conr.h\"", "model/own.h:1: \"loss/conr.h\""},
      {"loss/own.cu", "#include \"launch/train.h\"", "loss/own.cu:1: \"launch/train.h\""},
      {"launch/own.c", "#include \"tests/ref.h\"", "launch/own.c:4: \"tests/ref.h\""},
      {"io/own.c", "#include \"../model/net.h\"", "io/own.c:4: \"../model/net.h\""},
      {"io/own.c", "#include \"array.h\"", "io/own.c:4: \"array.h\""}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    struct run_result run;
    cr_expect(eq(int, arrows_with(wrong[i][0], wrong[i][1], &run), 1), "%s: %s", wrong[i][1], run.output);
    cr_expect(ne(ptr, strstr(run.output, wrong[i][2]), NULL), "%s: %s", wrong[i][1], run.output);
    run_result_free(&run);
  }
}

Test(arrows, refuse_a_tree_without_sources) {
  struct run_result run;
  char *const check[] = {"tests/arrows", "tests/ranks", NULL};
  cr_assert(eq(int, run_command(check, 20, &run), 2), "%s", run.output);
  run_result_free(&run);
}
