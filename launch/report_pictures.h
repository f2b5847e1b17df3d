/* What the pictures of a report have in common; each comes with its numbers as a CSV file.
 *
 *     struct numbers numbers;
 *     TRY(numbers_open(report, "time.csv", "run,phase,seconds", &numbers));
 *     numbers_text(&numbers, run->name);
 *     numbers_text(&numbers, "forward");
 *     NUMBERS(&numbers, 0.25);
 *     TRY(numbers_close(&numbers));
 *
 *     ... panels and series of `plot` ...
 *     TRY(picture_finish(report, plot, "time", "Where the time went", "Mean over epochs."));
 *
 * All functions are rank 0's. */
#ifndef CONR_LAUNCH_REPORT_PICTURES_H
#define CONR_LAUNCH_REPORT_PICTURES_H

#include "io/durable.h"
#include "launch/report.h"

/* A CSV file in the report's folder, which appears as a whole or not at all. */
struct numbers {
  struct durable durable;
  FILE *file;
};

/* columns  their names, separated by commas */
enum status numbers_open(const struct report *report, const char *name, const char *columns, struct numbers *numbers);
enum status numbers_close(struct numbers *numbers);

/* The next fields of a row: texts come first, numbers end it; what is not finite is empty. */
void numbers_text(const struct numbers *numbers, const char *text);
void numbers_row(const struct numbers *numbers, const double *values, int count);
#define NUMBERS(numbers, ...) \
  numbers_row((numbers), (const double[]){__VA_ARGS__}, (int)(sizeof((const double[]){__VA_ARGS__}) / sizeof(double)))

/* Draw it, and remember it for the page.  stem, title  literals */
enum status picture_finish(struct report *report, struct plot *plot, const char *stem, const char *title,
                           const char *caption);

/* Panels beside each other, as many as a page's width takes. */
struct plot_layout picture_layout(int panels);

/* How many panels there are when each run has one for each component. */
int picture_panels(const struct report *report);

/* The first run whose labels are shown; NULL: there is none. */
const struct report_run *report_first_shown(const struct report *report);

/* Title of a panel: the run's name, if wanted, and the component's, where there are several. */
const char *picture_title(const struct report_run *run, int component, bool named, char *text, size_t bytes);

/* Title of an axis, such as "mean absolute error (age)": targets are in units of their own. */
const char *picture_axis(const char *before, const char *target, char *text, size_t bytes);

/* A run in the key; NULL where there is but one. */
const char *picture_key(const struct report *report, int r);

enum status pictures_of_labels(struct report *report);
enum status pictures_of_similarity(struct report *report);
enum status pictures_of_curves(struct report *report);

#endif
