/* What the pictures show of one component of the labels: how many samples train on a label, how large errors are there,
 * and predictions against labels.
 *
 *     struct label_view *view;
 *     TRY(label_view_create(&parts, component, &view));
 *     ... view->train[b], view->mae[b], view->group[b] of bin b ...
 *     label_view_destroy(&view);
 *
 * All functions are local. */
#ifndef CONR_LAUNCH_LABEL_VIEW_H
#define CONR_LAUNCH_LABEL_VIEW_H

#include "launch/label_axis.h"
#include "loss/metrics.h"

/* Predictions are single points up to so many, else they are counted in cells. */
#define LABEL_VIEW_POINTS 2000
#define LABEL_VIEW_CELLS 50 /* along each axis */
#define LABEL_VIEW_BINS 100 /* at most         */

/* Of a data file and what a model predicts for a part of it.  All borrowed. */
struct label_view_parts {
  int64_t train_rows, rows;
  int targets;
  const double *train;           /* [train_rows, targets] labels        */
  const double *labels;          /* [rows, targets]                     */
  const double *predictions;     /* [rows, targets]                     */
  double bin_width;              /* of the evaluation                   */
  const struct metrics *metrics; /* of it, too: shot classes        */
};

struct label_view {
  struct label_axis axis;
  int64_t *train, *rows; /* [axis.count] samples of the training split, and of the part   */
  double *mae;           /* [axis.count] mean |prediction - label| of the part; NaN without rows */
  /* [axis.count] shot class; where bins are merged, that of most of their training samples.  NULL for labels of several
   * components, whose class is that of all of them together. */
  enum metrics_group *group;
  double low, high;           /* of labels and predictions of the part: both axes                 */
  int64_t points;             /* rows of the part, or 0 when they are in cells                    */
  double *label, *prediction; /* [points]                                                     */
  double *cells; /* [LABEL_VIEW_CELLS predictions, LABEL_VIEW_CELLS labels] rows, NULL when they are points */
};

/* ERR_NUMERIC: a label is not finite. */
enum status label_view_create(const struct label_view_parts *parts, int component, struct label_view **out);
void label_view_destroy(struct label_view **view); /* NULL is fine */

/* Edge e of the cells, 0 to LABEL_VIEW_CELLS. */
double label_view_edge(const struct label_view *view, int e);

#endif
