/* What the pictures of a report have in common, and their order. */
#include "launch/report_pictures.h"

#include <csv.h>
#include <errno.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

/* ---- CSV ------------------------------------------------------------------------------------ */

enum status numbers_open(const struct report *report, const char *name, const char *columns, struct numbers *numbers) {
  char path[PATH_MAX];
  TRY(durable_begin(report_path(report, name, path), &numbers->durable));
  numbers->file = fopen(numbers->durable.temporary, "we");
  if (numbers->file == NULL) {
    durable_abandon(&numbers->durable);
    return durable_write_failed(path, errno);
  }
  fprintf(numbers->file, "%s\n", columns);
  return STATUS_OK;
}

enum status numbers_close(struct numbers *numbers) {
  bool failed = ferror(numbers->file) != 0;
  failed = fclose(numbers->file) != 0 || failed;
  enum status status = failed ? durable_write_failed(numbers->durable.path, errno) : durable_commit(&numbers->durable);
  if (status != STATUS_OK)
    durable_abandon(&numbers->durable);
  return status;
}

/* Fields of a row are followed by commas, the last by the end of the line. */
void numbers_text(const struct numbers *numbers, const char *text) {
  csv_fwrite(numbers->file, text, strlen(text));
  fputc(',', numbers->file);
}

/* 17 digits come back with the same bits; what is no number is empty. */
void numbers_row(const struct numbers *numbers, const double *values, int count) {
  for (int i = 0; i < count; i++) {
    if (isfinite(values[i]))
      fprintf(numbers->file, "%.17g", values[i]);
    fputc(i < count - 1 ? ',' : '\n', numbers->file);
  }
}

/* ---- common --------------------------------------------------------------------------------- */

enum status picture_finish(struct report *report, struct plot *plot, const char *stem, const char *title,
                           const char *caption) {
  char path[PATH_MAX];
  struct report_picture *picture = &report->picture[report->pictures];
  REQUIRE(report->pictures < REPORT_PICTURES, ERR_BUG, "more than %d pictures", REPORT_PICTURES);
  *picture = (struct report_picture){.stem = stem, .title = title};
  snprintf(picture->caption, sizeof picture->caption, "%s", caption);
  TRY(plot_draw(plot, &report->plotter, report_path(report, stem, path)));
  picture->drawn = report->plotter.path[0] != '\0';
  report->pictures++;
  return STATUS_OK;
}

struct plot_layout picture_layout(int panels) {
  static const struct plot_layout layouts[] = {{1, 560, 300}, {2, 400, 270}, {3, 300, 240}};
  return layouts[panels <= 1 ? 0 : panels == 2 || panels == 4 ? 1 : 2];
}

const struct report_run *report_first_shown(const struct report *report) {
  for (int r = 0; r < report->runs; r++)
    if (report->run[r].components > 0)
      return &report->run[r];
  return NULL;
}

const char *picture_title(const struct report_run *run, int component, bool named, char *text, size_t bytes) {
  if (run->components > 1)
    snprintf(text, bytes, "%s%s%s", named ? run->name : "", named ? ": " : "", run->target[component]);
  else
    snprintf(text, bytes, "%s", named ? run->name : "");
  return text;
}

const char *picture_axis(const char *before, const char *target, char *text, size_t bytes) {
  snprintf(text, bytes, "%s (%s)", before, target);
  return text;
}

const char *picture_key(const struct report *report, int r) {
  return report->runs > 1 ? report->run[r].name : NULL;
}

int picture_panels(const struct report *report) {
  int panels = 0;
  for (int r = 0; r < report->runs; r++)
    panels += report->run[r].components;
  return panels;
}

/* ---- all of them ---------------------------------------------------------------------------- */

static const char *const stems[] = {"labels", "errors", "predictions", "similarity", "similarity_distance",
                                    "curves", "time"};
static const char *const endings[] = {"gp", "svg", "png"};
static const char *const others[] = {"index.html",
                                     "report.json",
                                     "labels.csv",
                                     "predictions.csv",
                                     "predictions_cells.csv",
                                     "similarity.csv",
                                     "similarity_distance.csv",
                                     "curves.csv",
                                     "time.csv",
                                     "time_ranks.csv"};
#define STEMS (sizeof stems / sizeof *stems)
#define ENDINGS (sizeof endings / sizeof *endings)
#define OTHERS (sizeof others / sizeof *others)

const char *report_find_file(const struct report *report, char name[64]) {
  char path[PATH_MAX];
  for (size_t i = 0; i < OTHERS + STEMS * ENDINGS; i++) {
    size_t picture = i - OTHERS; /* of those behind the others */
    if (i < OTHERS)
      snprintf(name, 64, "%s", others[i]);
    else
      snprintf(name, 64, "%s.%s", stems[picture / ENDINGS], endings[picture % ENDINGS]);
    if (access(report_path(report, name, path), F_OK) == 0)
      return name;
  }
  return NULL;
}

/* What an earlier report has left of a picture that this one lacks would show something else. */
static enum status remove_picture(const struct report *report, const char *stem) {
  for (size_t i = 0; i < ENDINGS; i++) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "%s.%s", stem, endings[i]);
    if (unlink(report_path(report, name, path)) != 0 && errno != ENOENT)
      return fail(ERR_FILE, "cannot remove %s: %s", path, strerror(errno));
  }
  return STATUS_OK;
}

static enum status remove_others(const struct report *report) {
  for (size_t i = 0; i < STEMS; i++) {
    bool there = false;
    for (int p = 0; p < report->pictures; p++)
      there |= strcmp(report->picture[p].stem, stems[i]) == 0;
    if (!there)
      TRY(remove_picture(report, stems[i]));
  }
  return STATUS_OK;
}

enum status report_pictures(struct report *report) {
  TRY(pictures_of_labels(report));
  TRY(pictures_of_similarity(report));
  TRY(pictures_of_curves(report));
  return remove_others(report);
}
