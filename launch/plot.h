/* Pictures of panels, each with curves, bars, maps and shaded regions, drawn by gnuplot as NAME.svg and NAME.png.
 *
 *     struct plotter plotter;
 *     if (!plotter_find(&plotter))
 *       log_warning(log, "%s", plotter.why);            there is none: scripts are written, pictures are not
 *
 *     struct plot *plot;
 *     TRY(plot_create(&(struct plot_layout){.columns = 2}, &plot));
 *     TRY(plot_panel(plot, &(struct plot_panel){.title = "strong scaling",
 *                                               .x = {.title = "ranks", .log_base = 2},
 *                                               .y = {.title = "efficiency", .low = 0, .high = 1.1}}));
 *     TRY(plot_series(plot, &(struct plot_series){.style = PLOT_LINES_POINTS, .title = "measured", .count = 4,
 *                                                 .x = ranks, .y = mean, .low = lowest, .high = highest}));
 *     TRY(plot_series(plot, &(struct plot_series){.style = PLOT_LINES, .title = "predicted", .colour = 1,
 *                                                 .dashed = true, .count = 4, .x = ranks, .y = model}));
 *     TRY(plot_draw(plot, &plotter, "study/efficiency"));
 *     plot_destroy(&plot);
 *
 * plot_draw() leaves the script as study/efficiency.gp, its data within: people change it and draw it again,
 *     gnuplot -e 'set terminal pdfcairo size 6in,4in noenhanced' efficiency.gp >efficiency.pdf
 * and where there is no gnuplot they draw it elsewhere.
 *
 * Texts are UTF-8 and shown as they are: no markup, no markers of gnuplot.  What is not UTF-8, and what cannot be
 * shown, becomes "?".  They reach gnuplot as single-quoted strings, in which it expands nothing.  What is longer than
 * its place is cut.
 *
 * Colours are those of Okabe and Ito, which people tell apart whatever their colour vision; marks differ, too.
 * Values that are not finite are gaps.  Each value becomes an element of the SVG: bin what has more than a few
 * thousand.
 *
 * All functions are local; pointers are borrowed for the call alone. */
#ifndef CONR_LAUNCH_PLOT_H
#define CONR_LAUNCH_PLOT_H

#include "launch/plotter.h"

#include <stdint.h>
#include <stdio.h>

struct plot;

struct plot_layout {
  int columns;       /* of the grid of panels, at least 1; rows follow from their number   */
  int width, height; /* of the inside of a panel's axes, in points; 0: 420 and 280 */
};

struct plot_axis {
  const char *title;            /* with its unit; NULL = none                                     */
  double low, high;             /* range; both 0, or one of them NaN: from the data               */
  double log_base;              /* 0: linear; else logarithmic, and the range above 0             */
  int ticks;                    /* how many the caller names; 0: gnuplot's own                    */
  const double *tick;           /* [ticks]                                                        */
  const char *const *tick_text; /* [ticks]; NULL: the numbers                               */
};

enum plot_key {
  PLOT_KEY_BELOW,
  PLOT_KEY_NONE,
  PLOT_KEY_LEFT_TOP,
  PLOT_KEY_RIGHT_TOP,
  PLOT_KEY_LEFT_BOTTOM,
  PLOT_KEY_RIGHT_BOTTOM
};

struct plot_panel {
  const char *title; /* NULL = none */
  struct plot_axis x, y;
  enum plot_key key; /* where the titles of series stand */
  bool stacked;      /* bars stand on those of the series before, which have the same x */
  bool sideways;     /* bars lie: their x is along the vertical axis; such a panel has bars alone */
};

enum plot_style {
  PLOT_LINES,        /* with low and high: a band around them, in a pale colour  */
  PLOT_POINTS,       /* with low and high: error bars                            */
  PLOT_LINES_POINTS, /* likewise                                                 */
  PLOT_DOTS,         /* small, half transparent: for clouds of them              */
  PLOT_BARS
};

enum plot_colour { PLOT_GREY = -1, PLOT_BLACK = -2 }; /* beside 0, 1, 2 ... of the palette, which repeats after 8 */

/* What such a number is, as 0xRRGGBB. */
unsigned plot_colour(int colour);

struct plot_series {
  enum plot_style style;
  const char *title; /* in the key; NULL = not there */
  int colour;
  bool dashed;
  int64_t count;
  const double *x, *y;      /* [count]                                     */
  const double *low, *high; /* [count], ends of bars or bands; or both NULL */
  double width;             /* of PLOT_BARS, in units of x                  */
};

enum plot_palette { PLOT_SEQUENTIAL, PLOT_DIVERGING /* white in the middle */ };

/* A grid of cells with a colour scale at the right of the panel. */
struct plot_map {
  int columns, rows;
  const double *x_edges, *y_edges; /* [columns + 1], [rows + 1], rising       */
  const double *values;            /* [rows, columns]; NaN: the cell is empty */
  const char *title;               /* of the scale                            */
  double low, high;                /* of the scale; both 0: from the values   */
  bool logarithmic;
  enum plot_palette palette;
};

enum status plot_create(const struct plot_layout *layout, struct plot **out);
void plot_destroy(struct plot **plot);

/* Begin the next panel, to the right of the last, or in the next row; what follows is in it.
 * ERR_ARGUMENT: a range that has no length, or that a logarithm does not have. */
enum status plot_panel(struct plot *plot, const struct plot_panel *panel);

enum status plot_series(struct plot *plot, const struct plot_series *series);
enum status plot_map(struct plot *plot, const struct plot_map *map);

/* A strip over the panel's height, behind everything.  title: in the key, once for each title; NULL = not there */
enum status plot_shade(struct plot *plot, double low, double high, int colour, const char *title);

/* A line of text in the panel's upper left corner, below those before. */
enum status plot_note(struct plot *plot, const char *text);

/* The script, as plot_draw() leaves it. */
enum status plot_script(const struct plot *plot, FILE *out);

/* Write STEM.gp and, where the plotter has a gnuplot, STEM.svg and STEM.png, each as a whole or not at all; without
 * one, pictures that an earlier call left are removed, since they would show something else.
 * ERR_FILE: one sentence with gnuplot's own last line, or why a file cannot be written. */
enum status plot_draw(const struct plot *plot, const struct plotter *plotter, const char *stem);

/* Size of the picture in points. */
void plot_size(const struct plot *plot, int *width, int *height);

#endif
