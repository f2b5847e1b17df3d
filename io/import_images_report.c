/* What an image import says at its end. */
#include "io/import_images.h"

#include "dist/memory.h"
#include "io/import_report.h"

void import_images_report_destroy(struct import_images_report **report) {
  if (*report == NULL)
    return;
  for (int i = 0; i < (*report)->listed; i++) {
    memory_free((void **)&(*report)->broken[i].reason);
    memory_free((void **)&(*report)->broken[i].path);
  }
  for (int i = 0; i < (*report)->named; i++)
    memory_free((void **)&(*report)->unlabelled[i]);
  memory_free((void **)&(*report)->unused);
  import_report_destroy(&(*report)->labels);
  memory_free((void **)report);
}

static void print_images(const struct import_images_report *report, FILE *stream) {
  const struct import_report *labels = report->labels;
  fprintf(stream, "%s: %lld images, ", labels->output_path, (long long)labels->rows);
  if (report->layout == IMPORT_PIXELS)
    fprintf(stream, "pixels of %d x %d", report->height, report->width);
  else if (report->quality > 0)
    fprintf(stream, "encoded as JPEG of quality %d", report->quality);
  else
    fprintf(stream, "encoded (%lld JPEG, %lld PNG)", (long long)report->jpegs, (long long)report->pngs);
  fprintf(stream, ", %.1f MB; %d target%s\n", (double)report->bytes / 1e6, labels->target_count,
          labels->target_count == 1 ? "" : "s");
  fprintf(stream, "  training %lld, validation %lld, test %lld\n", (long long)labels->split_rows[SPLIT_TRAIN],
          (long long)labels->split_rows[SPLIT_VAL], (long long)labels->split_rows[SPLIT_TEST]);
  fprintf(stream, "  height x width from %d x %d to %d x %d\n", report->least[0], report->least[1], report->most[0],
          report->most[1]);
  if (report->quality > 0)
    fputs("  JPEG does not keep pixels exactly: this file's differ a little from those it was made of\n", stream);
}

static void print_left_out(const struct import_images_report *report, FILE *stream) {
  if (report->broken_count == 0)
    return;
  fprintf(stream, "  %lld image%s left out:\n", (long long)report->broken_count, report->broken_count == 1 ? "" : "s");
  for (int i = 0; i < report->listed; i++) {
    const struct import_broken *broken = &report->broken[i];
    fprintf(stream, "    %s %lld%s%s: %s\n", report->is_csv ? "line" : "row", (long long)broken->row,
            broken->path != NULL ? ", " : "", broken->path != NULL ? broken->path : "", broken->reason);
  }
  if (report->broken_count > report->listed)
    fprintf(stream, "    and %lld more\n", (long long)(report->broken_count - report->listed));
}

static void print_unlabelled(const struct import_images_report *report, FILE *stream) {
  if (report->unlabelled_count == 0)
    return;
  fprintf(stream, "  %lld image%s in the folder without a label:", (long long)report->unlabelled_count,
          report->unlabelled_count == 1 ? "" : "s");
  for (int i = 0; i < report->named; i++)
    fprintf(stream, "%s %s", i > 0 ? "," : "", report->unlabelled[i]);
  fputs(report->unlabelled_count > report->named ? ", ...\n" : "\n", stream);
}

void import_images_print(const struct import_images_report *report, FILE *stream) {
  print_images(report, stream);
  if (report->unused != NULL)
    fprintf(stream, "  columns not used: %s\n", report->unused);
  print_left_out(report, stream);
  print_unlabelled(report, stream);
  import_report_print_targets(report->labels, stream);
}
