/* index.html: the tables and pictures of a report in one file that needs no other. */
#include "launch/report.h"

#include "io/durable.h"
#include "launch/html.h"
#include "version.h"

#include <math.h>
#include <string.h>
#include <time.h>

static const char style[] =
    "body{font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;color:#222;"
    "background:#fff;margin:0 auto;max-width:1080px;padding:24px 20px 60px}"
    "h1{font-size:25px;line-height:1.25;margin:0 0 4px}h2{font-size:18px;margin:40px 0 8px}"
    "p{margin:8px 0}.quiet{color:#666;font-size:13px}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;margin:10px 0;font-size:14px}"
    "th,td{padding:4px 12px;text-align:right;border-bottom:1px solid #e4e4e4;white-space:nowrap;"
    "font-variant-numeric:tabular-nums}th{font-weight:600;border-bottom:1px solid #888}"
    "th.text,td.text{text-align:left}td.path{white-space:normal;overflow-wrap:anywhere}"
    "td.best{font-weight:700}.chip{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:7px}"
    "figure{margin:10px 0}figure svg{display:block;width:100%;height:auto;border:1px solid #eee}"
    "figcaption{color:#555;font-size:13.5px;margin-top:6px;max-width:880px}"
    "code{font:12.5px/1.5 ui-monospace,Menlo,Consolas,monospace;overflow-wrap:anywhere}"
    "pre{background:#f6f6f6;padding:10px 12px;overflow-x:auto;margin:8px 0}ul{margin:8px 0;padding-left:22px}"
    "@media print{body{max-width:none}figure{break-inside:avoid}}";

/* ---- pieces --------------------------------------------------------------------------------- */

static void heading(FILE *out, const char *text) {
  fputs("<h2>", out);
  html_text(out, text);
  fputs("</h2>\n", out);
}

static void cell(FILE *out, const char *tag, const char *class, const char *text) {
  fprintf(out, "<%s%s%s%s>", tag, class != NULL ? " class=\"" : "", class != NULL ? class : "",
          class != NULL ? "\"" : "");
  html_text(out, text);
  fprintf(out, "</%s>", tag);
}

static void number_cell(FILE *out, const char *class, double value) {
  char text[64] = "–";
  if (isfinite(value))
    snprintf(text, sizeof text, "%#.5g", value);
  cell(out, "td", class, text);
}

/* A run's name behind its colour in the pictures. */
static void name_cell(FILE *out, const struct report *report, int r) {
  fprintf(out, "<td class=\"text\"><span class=\"chip\" style=\"background:#%06x\"></span>", plot_colour(r));
  html_text(out, report->run[r].name);
  fputs("</td>", out);
}

/* ---- tables --------------------------------------------------------------------------------- */

static void write_runs(FILE *out, const struct report *report) {
  heading(out, report->runs > 1 ? "Runs" : "Run");
  fputs("<div class=\"wide\"><table><tr>", out);
  static const char *const titles[] = {"epochs",  "best epoch", "its validation MAE", "seconds", "data",
                                       "made by", "ranks"};
  cell(out, "th", "text", "run");
  for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
    cell(out, "th", i < 4 ? NULL : "text", titles[i]);
  fputs("</tr>\n", out);
  for (int r = 0; r < report->runs; r++) {
    const struct report_run *run = &report->run[r];
    const struct run_record *record = run->record;
    double epoch, mae, seconds = 0;
    char text[64];
    bool some = report_best_epoch(record, &epoch, &mae);
    for (int64_t e = 0; e < record->epochs; e++)
      seconds += isfinite(record->epoch[e][CURVE_SECONDS]) ? record->epoch[e][CURVE_SECONDS] : 0;
    fputs("<tr>", out);
    name_cell(out, report, r);
    snprintf(text, sizeof text, "%lld", (long long)record->epochs);
    cell(out, "td", NULL, text);
    snprintf(text, sizeof text, some ? "%.0f" : "–", epoch);
    cell(out, "td", NULL, text);
    number_cell(out, NULL, mae);
    snprintf(text, sizeof text, "%.1f", seconds);
    cell(out, "td", NULL, text);
    cell(out, "td", "text path", run->data[0] != '\0' ? run->data : record->data);
    cell(out, "td", "text", record->made_by);
    cell(out, "td", "text", record->ranks);
    fputs("</tr>\n", out);
  }
  fputs("</table></div>\n", out);
}

/* The figures of the comparison. */
static const struct figure {
  const char *title;
  size_t offset; /* in struct metrics_row */
} figures[] = {{"MAE", offsetof(struct metrics_row, mae)},
               {"GM", offsetof(struct metrics_row, gmean)},
               {"RMSE", offsetof(struct metrics_row, rmse)},
               {"Pearson", offsetof(struct metrics_row, pearson)}};
#define FIGURES 4

static double figure_of(const struct report_run *run, int figure, int group) {
  double value;
  memcpy(&value, (const char *)&run->table.row[group] + figures[figure].offset, sizeof value);
  return run->measured ? value : NAN;
}

/* Is it the best of several runs on the same data?  Of a correlation that is the largest. */
static bool is_best(const struct report *report, int r, int figure, int group) {
  double sign = figure == 3 ? -1 : 1, own = figure_of(&report->run[r], figure, group);
  int others = 0;
  for (int other = 0; other < report->runs; other++) {
    double value = figure_of(&report->run[other], figure, group);
    if (report->run[other].hash != report->run[r].hash)
      continue;
    others += other != r && !isnan(value);
    if (sign * value < sign * own)
      return false;
  }
  return others > 0 && !isnan(own);
}

/* Figures of groups that nobody measured are left out. */
static int shown_groups(int figure) {
  return figure < 2 ? METRICS_GROUPS : METRICS_ALL + 1;
}

static void write_errors(FILE *out, const struct report *report) {
  const struct config *config = report->config;
  char text[512];
  heading(out, "Errors");
  snprintf(
      text, sizeof text,
      "On the %s split, by the %s checkpoint. A label is many-shot with more than %lld training samples in its bin "
      "of width %g, few-shot with fewer than %lld. MAE, GM (geometric mean of errors) and RMSE are in label units; "
      "the best of a column is bold, among runs on the same data.",
      config->part, config->checkpoint, (long long)config->many, config->bin_width, (long long)config->few);
  fputs("<p class=\"quiet\">", out);
  html_text(out, text);
  fputs("</p>\n<div class=\"wide\"><table><tr>", out);
  cell(out, "th", "text", "run");
  cell(out, "th", NULL, "samples (many / median / few)");
  for (int figure = 0; figure < FIGURES; figure++)
    for (int group = METRICS_ALL; group < shown_groups(figure); group++) {
      snprintf(text, sizeof text, "%s%s%s", figures[figure].title, group == METRICS_ALL ? "" : " ",
               group == METRICS_ALL ? "" : metrics_group_name((enum metrics_group)group));
      cell(out, "th", NULL, text);
    }
  fputs("</tr>\n", out);
  for (int r = 0; r < report->runs; r++) {
    const struct report_run *run = &report->run[r];
    const struct metrics_row *row = run->table.row;
    fputs("<tr>", out);
    name_cell(out, report, r);
    snprintf(text, sizeof text, "%lld (%lld / %lld / %lld)", (long long)row[METRICS_ALL].count,
             (long long)row[METRICS_MANY].count, (long long)row[METRICS_MEDIAN].count,
             (long long)row[METRICS_FEW].count);
    cell(out, "td", NULL, run->measured ? text : "–");
    for (int figure = 0; figure < FIGURES; figure++)
      for (int group = METRICS_ALL; group < shown_groups(figure); group++)
        number_cell(out, is_best(report, r, figure, group) ? "best" : NULL, figure_of(run, figure, group));
    fputs("</tr>\n", out);
  }
  fputs("</table></div>\n", out);
}

static void write_differences(FILE *out, const struct report *report) {
  if (report->runs < 2)
    return;
  heading(out, "Options that differ");
  if (report_difference(report, 0) == NULL) {
    fputs("<p>None, but for the run folder.</p>\n", out);
    return;
  }
  fputs("<div class=\"wide\"><table><tr>", out);
  cell(out, "th", "text", "option");
  for (int r = 0; r < report->runs; r++)
    cell(out, "th", "text", report->run[r].name);
  fputs("</tr>\n", out);
  const char *name;
  for (int i = 0; (name = report_difference(report, i)) != NULL; i++) {
    fputs("<tr>", out);
    cell(out, "td", "text", name);
    for (int r = 0; r < report->runs; r++) {
      const char *value = run_record_option(report->run[r].record, name);
      cell(out, "td", "text path", value == NULL ? "–" : value[0] == '\0' ? "(empty)" : value);
    }
    fputs("</tr>\n", out);
  }
  fputs("</table></div>\n", out);
}

static void write_notes(FILE *out, const struct report *report) {
  if (report->notes == 0)
    return;
  heading(out, "Left out");
  fputs("<ul>\n", out);
  for (int i = 0; i < report->notes; i++) {
    fputs("<li>", out);
    html_text(out, report->note[i]);
    fputs("</li>\n", out);
  }
  fputs("</ul>\n", out);
}

/* ---- pictures ------------------------------------------------------------------------------- */

static enum status write_picture(FILE *out, const struct report *report, const struct report_picture *picture) {
  char path[PATH_MAX], name[64];
  snprintf(name, sizeof name, "%s.svg", picture->stem);
  heading(out, picture->title);
  fputs("<figure>\n", out);
  TRY(html_picture(out, report_path(report, name, path), picture->stem, picture->title));
  fputs("<figcaption>", out);
  html_text(out, picture->caption);
  fputs("</figcaption>\n</figure>\n", out);
  return STATUS_OK;
}

static enum status write_pictures(FILE *out, const struct report *report) {
  for (int i = 0; i < report->pictures; i++)
    if (report->picture[i].drawn)
      TRY(write_picture(out, report, &report->picture[i]));
  return STATUS_OK;
}

/* ---- the page ------------------------------------------------------------------------------- */

static void write_origin(FILE *out, const struct report *report) {
  heading(out, "How this was made");
  fputs("<p>By conr " CONR_VERSION " (" CONR_COMMIT "):</p>\n<pre><code>", out);
  html_text(out, report->command);
  fputs("</code></pre>\n<p>The numbers are beside this page: <code>report.json</code>, and one CSV file for each "
        "picture. "
        "Each picture is there as SVG, as PNG, and as the gnuplot script (<code>.gp</code>) that draws it.</p>\n",
        out);
}

static enum status print_page(void *context, FILE *out) {
  const struct report *report = context;
  char date[64];
  time_t now = time(NULL);
  struct tm utc;
  strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", gmtime_r(&now, &utc));
  /* No script, nothing from elsewhere: the browser is told to hold the page to it. */
  fprintf(
      out,
      "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\">\n<head>\n<meta charset=\"utf-8\"/>\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta http-equiv="
      "\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n"
      "<title>conr report: ");
  for (int r = 0; r < report->runs; r++) {
    fputs(r > 0 ? ", " : "", out);
    html_text(out, report->run[r].name);
  }
  fprintf(out, "</title>\n<style>%s</style>\n</head>\n<body>\n<h1>", style);
  for (int r = 0; r < report->runs; r++) {
    fputs(r > 0 ? ", " : "", out);
    html_text(out, report->run[r].name);
  }
  fprintf(out, "</h1>\n<p class=\"quiet\">conr report, %s</p>\n", date);
  write_errors(out, report);
  write_runs(out, report);
  write_differences(out, report);
  write_notes(out, report);
  TRY(write_pictures(out, report));
  write_origin(out, report);
  fputs("</body>\n</html>\n", out);
  return STATUS_OK;
}

enum status report_page(const struct report *report) {
  char path[PATH_MAX];
  return durable_print(report_path(report, "index.html", path), print_page, (void *)report);
}
