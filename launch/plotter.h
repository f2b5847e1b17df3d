/* gnuplot as a process that draws scripts (plot.h makes them).
 *
 *     struct plotter plotter;
 *     if (!plotter_find(&plotter))
 *       log_warning(log, "%s", plotter.why);
 *     ...
 *     TRY(plotter_run(&plotter, PLOTTER_SVG, 640, 480, "picture.gp", "picture.svg"));
 *
 * gnuplot reads the script from its standard input, and its standard output is the picture: no file's name is in a
 * command, and no shell is started.  It reads no start-up file.  All functions are local. */
#ifndef CONR_LAUNCH_PLOTTER_H
#define CONR_LAUNCH_PLOTTER_H

#include "dist/status.h"

#include <limits.h>
#include <stdbool.h>

/* gnuplot >= 5.2 with its terminals svg and pngcairo (or png). */
struct plotter {
  char path[PATH_MAX];      /* of the program; "" when there is none that can be used */
  char why[PATH_MAX + 512]; /* then: one sentence with what to do                     */
  bool cairo;               /* has it pngcairo?                                       */
};

/* Look for it: the environment's CONR_GNUPLOT where it is set, else "gnuplot" in PATH.  Starts it once, to ask what it
 * can.  false: there is none; that is no failure. */
bool plotter_find(struct plotter *out);

enum plotter_format { PLOTTER_SVG, PLOTTER_PNG };

/* Draw `script` (a file) as the file `picture`, which appears as a whole or not at all.
 * width, height  in points; a PNG has two pixels a point, an SVG is as large as the place it is put in
 * ERR_FILE: one sentence with gnuplot's own, or why a file cannot be had. */
enum status plotter_run(const struct plotter *plotter, enum plotter_format format, int width, int height,
                        const char *script, const char *picture);

#endif
