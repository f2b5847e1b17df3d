/* conr report: one or several runs in pictures, tables and numbers.
 *
 *     report.c           what is asked for, what each run says of itself, and the order of things
 *     report_measure.c   predictions and features of each run's checkpoint: on all ranks
 *     report_pictures.c  the pictures (plot.h), and the numbers in them as CSV
 *     report_json.c      report.json
 *     report_page.c      index.html, all pictures within
 *
 * Rank 0 holds what is shown and writes it. */
#ifndef CONR_LAUNCH_REPORT_H
#define CONR_LAUNCH_REPORT_H

#include "launch/config.h"
#include "launch/label_view.h"
#include "launch/plot.h"
#include "launch/run_record.h"
#include "launch/session.h"
#include "launch/similarity.h"

#define REPORT_RUNS CONFIG_MOST_RUNS
#define REPORT_COMPONENTS 8 /* of labels, at most, for pictures of them */
#define REPORT_PICTURES 8
#define REPORT_NAME 128

struct report_run {
  char name[REPORT_NAME];    /* the end of its path by which it differs from the others */
  struct run_record *record; /* owned; rank 0's                                         */
  char data[PATH_MAX];       /* the file that is opened for it, "" = none               */
  char left_out[1024];       /* why there are no predictions of it; ""                  */
  bool measured;
  uint64_t hash; /* of the data */
  struct metrics_table table;
  int64_t rows, train_rows, width; /* of the part, the training split; features of a sample             */
  int targets;
  int components;                                   /* of them that are shown: all, or 0              */
  char target[REPORT_COMPONENTS][REPORT_NAME];      /* their names                                    */
  struct label_view *view[REPORT_COMPONENTS];       /* owned; rank 0's                                */
  struct similarity *similarity[REPORT_COMPONENTS]; /* owned                                          */
};

struct report_picture {
  const char *stem, *title; /* file name without ending; literals */
  char caption[1536];
  bool drawn; /* as SVG and PNG */
};

struct report {
  struct session *session;     /* borrowed */
  const struct config *config; /* borrowed */
  const char *folder;          /* where to write */
  int runs;
  struct report_run run[REPORT_RUNS];
  struct plotter plotter;
  int pictures;
  struct report_picture picture[REPORT_PICTURES];
  int notes; /* sentences of what is missing and why */
  char (*note)[1280];
  char *command; /* that makes this report again; malloc's */
};

/* Note, and warn of, what is left out.  Rank 0. */
enum status report_note(struct report *report, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Predictions, errors and features of one run; what cannot be had is left out, with the reason in run->left_out.
 * Collective. */
enum status report_measure(struct report *report, struct report_run *run);

/* Draw, and write the numbers.  Rank 0. */
enum status report_pictures(struct report *report);

/* The first file in the report's folder that would be replaced; NULL: there is none. */
const char *report_find_file(const struct report *report, char name[64]);

/* Rank 0. */
enum status report_json(const struct report *report);
enum status report_page(const struct report *report);

/* "FOLDER/name"; `path` is returned.  */
const char *report_path(const struct report *report, const char *name, char path[PATH_MAX]);

/* The n-th option of config.used in which the runs differ, in the order of the first run that has it; NULL after the
 * last. */
const char *report_difference(const struct report *report, int n);

/* The epoch (from 1 on) and the value of the lowest validation MAE; false: it has none. */
bool report_best_epoch(const struct run_record *record, double *epoch, double *mae);

#endif
