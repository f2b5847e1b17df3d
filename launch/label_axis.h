/* Bins along the labels in which pictures show them: those of the evaluation, or a whole number of them, or a whole
 * part.
 *
 *     struct label_axis axis;
 *     TRY(label_axis_cover(1, 100, rows, labels, targets, &axis));       labels[0], labels[targets], ...
 *     int b = label_axis_index(&axis, label);                            -1: beyond
 *     label_axis_ends(&axis, b, &low, &high);
 *
 * Bins are those of loss/metrics.h, trunc(label / width): bin 0 reaches from -width to width where there are negative
 * labels.  Where all labels are multiples of the width, as ages in years are, each bin has one label, and is shown
 * around it.  All functions are local and pure. */
#ifndef CONR_LAUNCH_LABEL_AXIS_H
#define CONR_LAUNCH_LABEL_AXIS_H

#include "dist/status.h"

#include <stdbool.h>
#include <stdint.h>

struct label_axis {
  double width;  /* label units                                              */
  double first;  /* the lowest bin's number, trunc(label / width)            */
  int count;     /* of bins                                                  */
  bool merged;   /* each is several of the evaluation's                      */
  bool negative; /* there are labels below 0                               */
  bool centred;  /* labels are multiples of the width */
};

/* The finest bins that hold all labels and are at most `most`: of bin_width times 1, 2, 5, 10, 20 ...; where labels
 * that are no multiples of it fall into fewer than 20, of bin_width divided by 2, 5, 10, ...
 * labels  [rows] at the given stride; rows may be 0 (then one bin)
 * ERR_NUMERIC: a label is not finite. */
enum status label_axis_cover(double bin_width, int most, int64_t rows, const double *labels, int stride,
                             struct label_axis *out);

/* The bin of a label, -1 when it has none. */
int label_axis_index(const struct label_axis *axis, double label);

/* Where bin b is shown to begin and end; 0 <= b < count. */
void label_axis_ends(const struct label_axis *axis, int b, double *low, double *high);

#endif
