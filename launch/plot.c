/* gnuplot scripts of panels. */
#include "launch/plot.h"

#include "dist/decimal.h"
#include "dist/memory.h"
#include "io/durable.h"
#include "launch/readable.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Points around the axes of a panel. */
enum {
  LEFT = 70,
  RIGHT = 20,
  SCALE = 98,
  TOP = 36,
  BOTTOM = 56,
  KEY_LINE = 17,
  KEY_GAP = 10,
  CHARACTER = 7,
  MARK = 60
};
#define MOST_TEXT 1024
#define MOST_TICK 36 /* characters */
#define MOST_KEY 60

static const unsigned palette[] = {0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7, 0xe69f00, 0x56b4e9, 0x7a5195, 0x8c6d31};
static const int marks[] = {7, 5, 9, 13, 11, 6, 4, 8};
#define COLOURS ((int)(sizeof palette / sizeof *palette))

/* A text that is written bit by bit. */
struct writing {
  FILE *file;
  char *text; /* malloc's */
  size_t bytes;
};

struct panel {
  struct writing setup, elements;
  bool titled, has_scale, has_data;
  double extent[2];                  /* of x */
  struct plot_panel asked;           /* its texts are not valid any more */
  int left;                          /* room for what stands left of the axes */
  int notes, key_entries, key_width; /* characters of the longest entry */
  double *base;                      /* [bars]: where the next stacked bars stand */
  int64_t bars;
};

struct plot {
  struct plot_layout layout;
  struct writing data; /* blocks of all panels */
  int blocks;
  struct panel **panels; /* [count], realloc's; each of memory_alloc: streams know the place of their text */
  int count;
};

/* ---- texts ---------------------------------------------------------------------------------- */

static enum status writing_open(struct writing *writing) {
  writing->file = open_memstream(&writing->text, &writing->bytes);
  REQUIRE(writing->file != NULL, ERR_MEMORY, "out of memory for a picture");
  return STATUS_OK;
}

static void writing_close(struct writing *writing) {
  if (writing->file != NULL)
    fclose(writing->file);
  free(writing->text);
  *writing = (struct writing){0};
}

static enum status writing_flush(const struct writing *writing) {
  REQUIRE(fflush(writing->file) == 0 && !ferror(writing->file), ERR_MEMORY, "out of memory for a picture");
  return STATUS_OK;
}

/* 'text', in which gnuplot knows one special character, the quote. */
static void write_quoted(FILE *out, const char *text, int most) {
  char shown[MOST_TEXT];
  readable_text(text != NULL ? text : "", most, shown, sizeof shown);
  fputc('\'', out);
  for (const char *at = shown; *at != '\0'; at++)
    fprintf(out, *at == '\'' ? "''" : "%c", *at);
  fputc('\'', out);
}

static int characters(const char *text, int most) {
  char shown[MOST_TEXT];
  int count = 0;
  for (const char *at = readable_text(text, most, shown, sizeof shown); *at != '\0'; at++)
    count += ((unsigned char)*at & 0xc0) != 0x80;
  return count;
}

static void write_number(FILE *out, double value) {
  char text[DECIMAL_BYTES];
  fprintf(out, " %s", isfinite(value) ? decimal_text(value, text) : "NaN");
}

unsigned plot_colour(int colour) {
  return colour == PLOT_BLACK ? 0x222222 : colour < 0 ? 0x8a8a8a : palette[colour % COLOURS];
}

/* `share` of the colour on white. */
static unsigned pale(unsigned colour, double share) {
  unsigned result = 0;
  for (int shift = 0; shift <= 16; shift += 8)
    result |= (unsigned)lround(255 + share * ((double)(colour >> shift & 255) - 255)) << shift;
  return result;
}

static int mark_of(int colour) {
  return colour < 0 ? 7 : marks[colour % COLOURS];
}

/* ---- the picture ---------------------------------------------------------------------------- */

enum status plot_create(const struct plot_layout *layout, struct plot **out) {
  struct plot *plot;
  *out = NULL;
  REQUIRE(layout->columns >= 1 && layout->width >= 0 && layout->height >= 0, ERR_BUG, "a picture of %d columns",
          layout->columns);
  TRY(memory_alloc_zero(sizeof *plot, (void **)&plot));
  plot->layout = *layout;
  plot->layout.width = layout->width > 0 ? layout->width : 420;
  plot->layout.height = layout->height > 0 ? layout->height : 280;
  enum status status = writing_open(&plot->data);
  if (status == STATUS_OK)
    *out = plot;
  else
    plot_destroy(&plot);
  return status;
}

void plot_destroy(struct plot **plot) {
  if (*plot == NULL)
    return;
  for (int p = 0; p < (*plot)->count; p++) {
    struct panel *panel = (*plot)->panels[p];
    writing_close(&panel->setup);
    writing_close(&panel->elements);
    memory_free((void **)&panel->base);
    memory_free((void **)&panel);
  }
  free((*plot)->panels);
  writing_close(&(*plot)->data);
  memory_free((void **)plot);
}

/* ---- panels --------------------------------------------------------------------------------- */

static enum status check_axis(const struct plot_axis *axis) {
  bool automatic = (axis->low == 0 && axis->high == 0) || isnan(axis->low) || isnan(axis->high);
  REQUIRE(automatic || axis->low < axis->high, ERR_ARGUMENT, "an axis from %g to %g has no length", axis->low,
          axis->high);
  REQUIRE(axis->log_base == 0 || axis->log_base > 1, ERR_ARGUMENT, "an axis with logarithms to base %g",
          axis->log_base);
  REQUIRE(axis->log_base == 0 || automatic || axis->low > 0, ERR_ARGUMENT, "a logarithmic axis cannot begin at %g",
          axis->low);
  return STATUS_OK;
}

static bool is_open(const struct plot_axis *axis, double end) {
  return (axis->low == 0 && axis->high == 0) || isnan(end);
}

static void write_range(FILE *out, const char *name, const struct plot_axis *axis) {
  fprintf(out, "set %srange [", name);
  if (is_open(axis, axis->low))
    fputc('*', out);
  else
    write_number(out, axis->low);
  fputs(" :", out);
  if (is_open(axis, axis->high))
    fputs(" *", out);
  else
    write_number(out, axis->high);
  fputs("]\n", out);
}

static void write_ticks(FILE *out, const char *name, const struct plot_axis *axis) {
  if (axis->ticks == 0)
    return;
  fprintf(out, "set %stics (", name);
  for (int i = 0; i < axis->ticks; i++) {
    fputs(i > 0 ? ", " : "", out);
    if (axis->tick_text != NULL)
      write_quoted(out, axis->tick_text[i], MOST_TICK);
    write_number(out, axis->tick[i]);
  }
  fputs(")\n", out);
}

static void write_axis(FILE *out, const char *name, const struct plot_axis *axis, int room) {
  fprintf(out, "set %slabel ", name);
  write_quoted(out, axis->title, room / CHARACTER);
  fputc('\n', out);
  if (axis->log_base > 0)
    fprintf(out, "set logscale %s %g\n", name, axis->log_base);
  write_ticks(out, name, axis);
}

static void write_panel(FILE *out, const struct plot_panel *panel, const struct plot_layout *layout) {
  const struct plot_axis *across = panel->sideways ? &panel->y : &panel->x;
  const struct plot_axis *up = panel->sideways ? &panel->x : &panel->y;
  fputs("set title ", out);
  write_quoted(out, panel->title, (layout->width + LEFT) / CHARACTER);
  fputc('\n', out);
  write_axis(out, "x", across, layout->width);
  write_axis(out, "y", up, layout->height);
}

/* The texts of the vertical axis may be longer than numbers are. */
static int room_at_left(const struct plot_panel *panel) {
  const struct plot_axis *up = panel->sideways ? &panel->x : &panel->y;
  int longest = 0;
  for (int i = 0; i < up->ticks && up->tick_text != NULL; i++) {
    int count = characters(up->tick_text[i], MOST_TICK);
    longest = count > longest ? count : longest;
  }
  int room = longest * (CHARACTER + 2) + 16 + (up->title != NULL ? 20 : 0);
  return room > LEFT ? room : LEFT;
}

enum status plot_panel(struct plot *plot, const struct plot_panel *asked) {
  TRY(check_axis(&asked->x));
  TRY(check_axis(&asked->y));
  struct panel **panels = realloc(plot->panels, ((size_t)plot->count + 1) * sizeof *panels), *panel;
  REQUIRE(panels != NULL, ERR_MEMORY, "out of memory for a picture");
  plot->panels = panels;
  TRY(memory_alloc_zero(sizeof *panel, (void **)&panel));
  panel->asked = *asked;
  panel->left = room_at_left(asked);
  panel->titled = asked->title != NULL && asked->title[0] != '\0';
  panel->asked.title = panel->asked.x.title = panel->asked.y.title = NULL; /* borrowed for this call alone */
  panels[plot->count++] = panel;                                           /* plot_destroy() knows it from here on */
  TRY(writing_open(&panel->setup));
  TRY(writing_open(&panel->elements));
  write_panel(panel->setup.file, asked, &plot->layout);
  return STATUS_OK;
}

static enum status last_panel(struct plot *plot, struct panel **out) {
  REQUIRE(plot->count > 0, ERR_BUG, "something was drawn before plot_panel()");
  *out = plot->panels[plot->count - 1];
  return STATUS_OK;
}

/* ---- what is in them ------------------------------------------------------------------------ */

static bool is_on_axis(const struct plot_axis *axis, double value) {
  return isfinite(value) && (axis->log_base == 0 || value > 0) && (is_open(axis, axis->low) || value >= axis->low) &&
         (is_open(axis, axis->high) || value <= axis->high);
}

/* gnuplot finds no range where it sees no point. */
static void note_point(struct panel *panel, double x, double y) {
  if (!is_on_axis(&panel->asked.x, x) || !is_on_axis(&panel->asked.y, y))
    return;
  panel->extent[0] = panel->has_data ? fmin(panel->extent[0], x) : x;
  panel->extent[1] = panel->has_data ? fmax(panel->extent[1], x) : x;
  panel->has_data = true;
}

static void begin_element(struct panel *panel) {
  fputs(ftell(panel->elements.file) > 0 ? ", \\\n     " : "plot ", panel->elements.file);
}

static void end_element(struct panel *panel, const char *title) {
  if (title == NULL || panel->asked.key == PLOT_KEY_NONE) {
    fputs(" notitle", panel->elements.file);
    return;
  }
  fputs(" title ", panel->elements.file);
  write_quoted(panel->elements.file, title, MOST_KEY);
  int width = characters(title, MOST_KEY);
  panel->key_width = width > panel->key_width ? width : panel->key_width;
  panel->key_entries++;
}

static int begin_block(struct plot *plot) {
  fprintf(plot->data.file, "$data%d << EOD\n", plot->blocks);
  return plot->blocks++;
}

static void write_row(FILE *out, const double *values, int count) {
  for (int i = 0; i < count; i++)
    write_number(out, values[i]);
  fputc('\n', out);
}

static int write_points(struct plot *plot, struct panel *panel, const struct plot_series *series) {
  int block = begin_block(plot);
  for (int64_t i = 0; i < series->count; i++) {
    double row[] = {series->x[i], series->y[i], series->low ? series->low[i] : 0, series->low ? series->high[i] : 0};
    write_row(plot->data.file, row, series->low != NULL ? 4 : 2);
    note_point(panel, series->x[i], series->y[i]);
  }
  fputs("EOD\n", plot->data.file);
  return block;
}

/* Where the bars of this series stand; adds its heights for the next. */
static enum status stack_bars(struct panel *panel, const struct plot_series *series) {
  if (panel->base == NULL) {
    TRY(memory_alloc_zero((size_t)series->count * sizeof *panel->base, (void **)&panel->base));
    panel->bars = series->count;
  }
  REQUIRE(panel->bars == series->count, ERR_BUG, "%lld bars on %lld", (long long)series->count, (long long)panel->bars);
  return STATUS_OK;
}

/* Rectangles: x, y, then their corners; and the ends of error bars. */
static enum status write_bars(struct plot *plot, struct panel *panel, const struct plot_series *series, int *block) {
  bool stacked = panel->asked.stacked, sideways = panel->asked.sideways;
  if (stacked)
    TRY(stack_bars(panel, series));
  *block = begin_block(plot);
  for (int64_t i = 0; i < series->count; i++) {
    double half = series->width / 2, x = series->x[i], base = stacked ? panel->base[i] : 0;
    double top = base + series->y[i];
    double low = series->low ? base + series->low[i] : top, high = series->low ? base + series->high[i] : top;
    double upright[] = {x, top, x - half, x + half, base, top, low, high};
    double lying[] = {top, x, base, top, x - half, x + half, low, high};
    write_row(plot->data.file, sideways ? lying : upright, 8);
    note_point(panel, x, top);
    if (stacked && isfinite(series->y[i]))
      panel->base[i] = top;
  }
  fputs("EOD\n", plot->data.file);
  return STATUS_OK;
}

static enum status add_bars(struct plot *plot, struct panel *panel, const struct plot_series *series) {
  FILE *out = panel->elements.file;
  int block;
  TRY(write_bars(plot, panel, series, &block));
  begin_element(panel);
  fprintf(out, "$data%d using 1:2:3:4:5:6 with boxxyerror fs solid 1 border lc rgb '#ffffff' lw 0.5 fc rgb '#%06x'",
          block, plot_colour(series->colour));
  end_element(panel, series->title);
  if (series->low == NULL)
    return STATUS_OK;
  begin_element(panel);
  fprintf(out, "$data%d using 1:2:7:8 with %serrorbars pt 0 lc rgb '#222222'", block,
          panel->asked.sideways ? "x" : "y");
  end_element(panel, NULL);
  return STATUS_OK;
}

static void add_band(struct panel *panel, const struct plot_series *series, int block) {
  if (series->low == NULL)
    return;
  begin_element(panel);
  fprintf(panel->elements.file,
          "$data%d using 1:3:4 with filledcurves fs transparent solid 0.18 noborder lc rgb '#%06x'", block,
          plot_colour(series->colour));
  end_element(panel, NULL);
}

static void add_points(struct plot *plot, struct panel *panel, const struct plot_series *series) {
  FILE *out = panel->elements.file;
  unsigned colour = plot_colour(series->colour);
  int block = write_points(plot, panel, series), mark = mark_of(series->colour);
  const char *dash = series->dashed ? " dt (8,5)" : "";
  bool bars = series->low != NULL;
  if (series->style == PLOT_LINES)
    add_band(panel, series, block);
  begin_element(panel);
  fprintf(out, "$data%d using %s ", block, bars && series->style != PLOT_LINES ? "1:2:3:4" : "1:2");
  if (series->style == PLOT_LINES)
    fprintf(out, "with lines lw 1.6%s lc rgb '#%06x'", dash, colour);
  else if (series->style == PLOT_DOTS)
    fprintf(out, "with points pt 7 ps 0.4 lc rgb '#90%06x'", colour);
  else if (series->style == PLOT_POINTS)
    fprintf(out, "with %s pt %d ps 0.8 lc rgb '#%06x'", bars ? "yerrorbars" : "points", mark, colour);
  else
    fprintf(out, "with %s lw 1.6%s pt %d ps 0.8 lc rgb '#%06x'", bars ? "yerrorlines" : "linespoints", dash, mark,
            colour);
  end_element(panel, series->title);
}

enum status plot_series(struct plot *plot, const struct plot_series *series) {
  struct panel *panel = NULL;
  TRY(last_panel(plot, &panel));
  REQUIRE((series->low == NULL) == (series->high == NULL) && (!panel->asked.sideways || series->style == PLOT_BARS),
          ERR_BUG, "a series with one end of its bars, or lying ones without bars");
  if (series->style == PLOT_BARS)
    TRY(add_bars(plot, panel, series));
  else
    add_points(plot, panel, series);
  return writing_flush(&plot->data);
}

static void write_palette(FILE *out, enum plot_palette kind) {
  fputs(kind == PLOT_DIVERGING
            ? "set palette defined (-1 '#08519c', -0.5 '#6baed6', 0 '#f7f7f7', 0.5 '#fdae6b', 1 '#a63603')\n"
            : "set palette defined (0 '#440154', 1 '#472c7a', 2 '#3b518b', 3 '#2c718e', 4 '#21908d', 5 '#27ad81', "
              "6 '#5cc863', 7 '#aadc32', 8 '#fde725')\n",
        out);
}

static void write_scale(struct panel *panel, const struct plot_map *map, int height) {
  FILE *out = panel->setup.file;
  struct plot_axis axis = {.low = map->low, .high = map->high};
  write_palette(out, map->palette);
  fputs("set cblabel ", out);
  write_quoted(out, map->title, height / CHARACTER);
  fputs(" offset character 1, 0\n", out);
  if (map->logarithmic)
    fputs("set logscale cb 10\n", out);
  write_range(out, "cb", &axis);
}

enum status plot_map(struct plot *plot, const struct plot_map *map) {
  struct panel *panel = NULL;
  TRY(last_panel(plot, &panel));
  REQUIRE(!panel->has_scale, ERR_BUG, "two maps in one panel");
  panel->has_scale = true;
  write_scale(panel, map, plot->layout.height);
  int block = begin_block(plot);
  bool filled = false;
  for (int r = 0; r < map->rows; r++)
    for (int c = 0; c < map->columns; c++) {
      const double *x = &map->x_edges[c], *y = &map->y_edges[r], value = map->values[(size_t)r * map->columns + c];
      double row[] = {(x[0] + x[1]) / 2, (y[0] + y[1]) / 2, x[0], x[1], y[0], y[1], value};
      if (!isfinite(value) || (map->logarithmic && value <= 0))
        continue;
      write_row(plot->data.file, row, 7);
      note_point(panel, row[0], row[1]);
      filled = true;
    }
  fputs("EOD\n", plot->data.file);
  if (filled) {
    begin_element(panel);
    fprintf(panel->elements.file, "$data%d using 1:2:3:4:5:6:7 with boxxyerror @cells lc palette", block);
    end_element(panel, NULL);
  }
  return writing_flush(&plot->data);
}

enum status plot_shade(struct plot *plot, double low, double high, int colour, const char *title) {
  struct panel *panel = NULL;
  TRY(last_panel(plot, &panel));
  unsigned shade = pale(plot_colour(colour), 0.16);
  FILE *out = panel->setup.file;
  fputs("set object rectangle from first", out);
  write_number(out, low);
  fputs(", graph 0 to first", out);
  write_number(out, high);
  fprintf(out, ", graph 1 behind fc rgb '#%06x' fs solid 1 noborder\n", shade);
  if (title == NULL)
    return writing_flush(&panel->setup);
  begin_element(panel);
  fprintf(panel->elements.file, "NaN with boxes fs solid 1 noborder fc rgb '#%06x'", shade);
  end_element(panel, title);
  return writing_flush(&panel->setup);
}

enum status plot_note(struct plot *plot, const char *text) {
  struct panel *panel = NULL;
  TRY(last_panel(plot, &panel));
  fputs("set label ", panel->setup.file);
  write_quoted(panel->setup.file, text, plot->layout.width / CHARACTER);
  fprintf(panel->setup.file, " at graph 0.02, graph 0.99 offset character 0, character %g front\n",
          -0.7 - 1.25 * panel->notes++);
  return writing_flush(&panel->setup);
}

/* ---- the script ----------------------------------------------------------------------------- */

/* Where a panel is in the picture, in points from its upper left corner. */
struct place {
  int width, height;       /* of the whole picture                                     */
  int left, top;           /* of the inside of its axes                                */
  int cell_left, cell_top; /* of what is around them, too ...                          */
  int cell_width, cell_height;
  int before, right; /* beside the axes */
};

static int key_columns(const struct panel *panel, int width) {
  int columns = (width + LEFT) / (panel->key_width * (CHARACTER + 1) + MARK);
  return columns < 1 ? 1 : columns;
}

static int columns_of(const struct plot *plot) {
  int columns = plot->count < plot->layout.columns ? plot->count : plot->layout.columns;
  return columns < 1 ? 1 : columns;
}

/* Without titles there is only the last tick's text above the axes. */
static int top_of(const struct plot *plot) {
  for (int p = 0; p < plot->count; p++)
    if (plot->panels[p]->titled)
      return TOP;
  return TOP / 2;
}

/* Height of a row of panels: that of the one with the longest key. */
static int row_height(const struct plot *plot, int row) {
  int columns = columns_of(plot), most = 0;
  for (int p = row * columns; p < (row + 1) * columns && p < plot->count; p++) {
    const struct panel *panel = plot->panels[p];
    int across = key_columns(panel, plot->layout.width);
    int lines = panel->asked.key == PLOT_KEY_BELOW ? (panel->key_entries + across - 1) / across : 0;
    most = lines > most ? lines : most;
  }
  return top_of(plot) + plot->layout.height + BOTTOM + (most > 0 ? most * KEY_LINE + KEY_GAP : 0);
}

static struct place place_of(const struct plot *plot, int number) {
  int columns = columns_of(plot), rows = (plot->count + columns - 1) / columns;
  struct place place = {.before = LEFT, .right = RIGHT};
  for (int p = 0; p < plot->count; p++) {
    place.right = plot->panels[p]->has_scale ? SCALE : place.right;
    place.before = plot->panels[p]->left > place.before ? plot->panels[p]->left : place.before;
  }
  place.cell_width = place.before + plot->layout.width + place.right;
  place.width = columns * place.cell_width;
  for (int row = 0; row < rows; row++) {
    place.cell_top += row < number / columns ? row_height(plot, row) : 0;
    place.height += row_height(plot, row);
  }
  place.cell_height = row_height(plot, number / columns);
  place.cell_left = number % columns * place.cell_width;
  place.left = place.cell_left + place.before;
  place.top = place.cell_top + top_of(plot);
  return place;
}

void plot_size(const struct plot *plot, int *width, int *height) {
  struct place place = place_of(plot, 0);
  *width = place.width;
  *height = place.height;
}

static void write_key(const struct plot *plot, const struct panel *panel, const struct place *place, FILE *out) {
  static const char *const inside[] = {"", "", "left top", "right top", "left bottom", "right bottom"};
  int width = plot->layout.width, height = plot->layout.height;
  if (panel->asked.key == PLOT_KEY_NONE || panel->key_entries == 0)
    fputs("unset key\n", out);
  else if (panel->asked.key == PLOT_KEY_BELOW)
    fprintf(out, "set key at screen %.6f, %.6f center top horizontal Left reverse samplen 2.5 maxcols %d width 1\n",
            (place->left + width / 2.0) / place->width, 1 - (double)(place->top + height + BOTTOM) / place->height,
            key_columns(panel, width));
  else
    fprintf(out, "set key inside %s Left reverse samplen 2.5 opaque\n", inside[panel->asked.key]);
}

static void write_place(const struct plot *plot, const struct place *place, FILE *out) {
  double width = place->width, height = place->height, right = place->left + plot->layout.width;
  double bottom = place->top + plot->layout.height;
  fprintf(out, "set origin %.6f, %.6f\nset size %.6f, %.6f\n", place->cell_left / width,
          1 - (place->cell_top + place->cell_height) / height, place->cell_width / width, place->cell_height / height);
  fprintf(out, "set lmargin at screen %.6f\nset rmargin at screen %.6f\n", place->left / width, right / width);
  fprintf(out, "set tmargin at screen %.6f\nset bmargin at screen %.6f\n", 1 - place->top / height,
          1 - bottom / height);
  fprintf(out, "set colorbox user origin screen %.6f, screen %.6f size screen %.6f, screen %.6f noborder\n",
          (right + 10) / width, 1 - bottom / height, 12 / width, plot->layout.height / height);
}

/* Marks at the ends of a logarithmic axis are not to be cut in half: gnuplot's own ranges begin and end with them. */
static struct plot_axis widen(const struct plot_axis *axis, const double extent[2]) {
  struct plot_axis wide = *axis;
  double room = axis->log_base > 0 && extent[0] < extent[1] ? pow(extent[1] / extent[0], 0.04) : 1;
  if (axis->log_base == 0 || !(extent[0] > 0))
    return wide;
  wide.low = is_open(axis, axis->low) ? extent[0] / room : axis->low;
  wide.high = is_open(axis, axis->high) ? extent[1] * room : axis->high;
  return wide;
}

/* Where no point gives a range, it is that of the unit square, and a white dot in its corner is the point that gnuplot
 * wants. */
static void write_plot(const struct panel *panel, int number, FILE *out) {
  struct plot_axis axes[] = {widen(&panel->asked.x, panel->extent), panel->asked.y};
  for (int i = 0; i < 2 && !panel->has_data; i++)
    if (is_open(&axes[i], axes[i].low) || is_open(&axes[i], axes[i].high)) {
      axes[i].low = axes[i].log_base > 0 ? 1 : 0;
      axes[i].high = axes[i].log_base > 0 ? axes[i].log_base : 1;
    }
  write_range(out, panel->asked.sideways ? "y" : "x", &axes[0]);
  write_range(out, panel->asked.sideways ? "x" : "y", &axes[1]);
  if (!panel->has_data) {
    double corner[] = {axes[panel->asked.sideways].low, axes[!panel->asked.sideways].low};
    fprintf(out, "$corner%d << EOD\n", number);
    write_row(out, corner, 2);
    fputs("EOD\n", out);
  }
  fwrite(panel->elements.text, 1, panel->elements.bytes, out);
  if (!panel->has_data)
    fprintf(out, "%s$corner%d using 1:2 with dots lc rgb '#ffffff' notitle", panel->elements.bytes > 0 ? ", " : "plot ",
            number);
  fputc('\n', out);
}

static enum status write_panel_script(const struct plot *plot, int number, FILE *out) {
  struct place place = place_of(plot, number);
  const struct panel *panel = plot->panels[number];
  TRY(writing_flush(&panel->setup));
  TRY(writing_flush(&panel->elements));
  fputs("\nreset\nset border 3 lc rgb '#555555'\nset tics nomirror out scale 0.6 textcolor rgb '#222222'\n"
        "set grid lt 1 lw 0.6 lc rgb '#e3e3e3'\nset format '%h'\nunset mxtics\nunset mytics\n",
        out);
  write_place(plot, &place, out);
  fwrite(panel->setup.text, 1, panel->setup.bytes, out);
  write_key(plot, panel, &place, out);
  write_plot(panel, number, out);
  return STATUS_OK;
}

enum status plot_script(const struct plot *plot, FILE *out) {
  REQUIRE(plot->count > 0, ERR_BUG, "a picture without a panel");
  struct place place = place_of(plot, 0);
  TRY(writing_flush(&plot->data));
  fprintf(out,
          "# Drawn by conr; again: gnuplot -e 'set terminal svg size %d,%d dynamic noenhanced' THIS_FILE >PICTURE.svg\n"
          "set encoding utf8\n"
          "cells = \"fs solid 1 noborder\" # in pixels their edges would shine through\n"
          "if (GPVAL_TERM ne \"svg\") cells = \"fs solid 1 border lw 0.3\"\n",
          place.width, place.height);
  fwrite(plot->data.text, 1, plot->data.bytes, out);
  fputs("set multiplot\n", out);
  for (int p = 0; p < plot->count; p++)
    TRY(write_panel_script(plot, p, out));
  fputs("unset multiplot\n", out);
  return STATUS_OK;
}

static enum status print_script(void *context, FILE *out) {
  return plot_script(context, out);
}

enum status plot_draw(const struct plot *plot, const struct plotter *plotter, const char *stem) {
  static const char *const endings[] = {"svg", "png"};
  char script[PATH_MAX], picture[PATH_MAX];
  int width, height;
  REQUIRE(strlen(stem) + 8 < PATH_MAX, ERR_ARGUMENT, "the path of %zu characters is too long", strlen(stem));
  snprintf(script, sizeof script, "%s.gp", stem);
  plot_size(plot, &width, &height);
  TRY(durable_print(script, print_script, (void *)plot));
  for (int format = PLOTTER_SVG; format <= PLOTTER_PNG; format++) {
    snprintf(picture, sizeof picture, "%s.%s", stem, endings[format]);
    if (plotter->path[0] != '\0')
      TRY(plotter_run(plotter, (enum plotter_format)format, width, height, script, picture));
    else if (unlink(picture) != 0 && errno != ENOENT)
      return fail(ERR_FILE, "cannot remove %s: %s", picture, strerror(errno));
  }
  return STATUS_OK;
}
