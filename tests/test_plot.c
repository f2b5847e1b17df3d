/* Pictures: scripts that say what was asked for and nothing else, gnuplot found, missing and failing, and texts that
 * try to be more than texts. */
#include "launch/plot.h"

#include "dist/memory.h"
#include "io_files.h"
#include "launch/html.h"
#include "launch/readable.h"
#include "tests/well_formed.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

TestSuite(plot, .init = io_files_begin, .fini = io_files_end, .timeout = 60);

/* ---- texts ---------------------------------------------------------------------------------- */

static void shown_as(const char *text, int most, const char *expected) {
  char buffer[64];
  cr_expect(eq(str, (char *)readable_text(text, most, buffer, sizeof buffer), (char *)expected));
}

FILE_TEST(plot, texts_are_cut_at_characters_and_what_cannot_be_shown_is_a_question_mark) {
  shown_as("häuser", 6, "häuser");
  shown_as("häuser", 4, "häu…");
  shown_as("häuser", -4, "…ser");
  shown_as("a\xff\xc3(b\n\x7f", 9, "a??\050b??");
  shown_as("\xed\xa0\x80\xc0\x80\xef\xbf\xbe", 9, "????????"); /* half a pair, a long form of 0, and no character */
  shown_as("0123456789012345678901234567890123456789012345678901234567890123456789", 99,
           "012345678901234567890123456789012345678901234567890123456789012");
}

static char *html_of(const char *text) {
  char *page = NULL;
  size_t bytes = 0;
  FILE *out = open_memstream(&page, &bytes);
  html_text(out, text);
  fclose(out);
  return page;
}

FILE_TEST(plot, a_page_shows_texts_and_no_tags) {
  char *text = html_of("a<b>&\"c' \xfe");
  cr_expect(eq(str, text, "a&lt;b&gt;&amp;&quot;c&#39; ?"));
  free(text);
}

/* The checks of pages find what they are for. */
FILE_TEST(plot, what_is_not_well_formed_is_noticed) {
  static const char *const broken[] = {
      "<a><b></a></b>", "<a>",  "<a b=c/>",   "<a b=\"1\" b=\"2\"/>",   "a & b",
      "<a b=\"<\"/>",   "</a>", "<a b=\"1/>", "<a id='x'/><b id='x'/>", "<a b='1'c='2'/>"};
  static const char *const loading[] = {"<img alt='x'/>", "<a href='b.html'>x</a>", "<p style='fill:url(x.svg)'/>",
                                        "<p>http://example.org/</p>"};
  char why[200];
  cr_expect(well_formed("<a b='1' c=\"&lt;\">x &amp; y<d/></a>", why, sizeof why), "%s", why);
  for (size_t i = 0; i < sizeof broken / sizeof *broken; i++)
    cr_expect(not(well_formed(broken[i], why, sizeof why)), "%s", broken[i]);
  cr_expect(
      self_contained("<svg xmlns='http://www.w3.org/2000/svg'><use href='#x' fill='url(#y)'/></svg>", why, sizeof why),
      "%s", why);
  for (size_t i = 0; i < sizeof loading / sizeof *loading; i++)
    cr_expect(not(self_contained(loading[i], why, sizeof why)), "%s", loading[i]);
}

/* ---- scripts -------------------------------------------------------------------------------- */

#define NASTY "it's `touch x` \"$(y)\" @z %d \\"

static struct plot *nasty_plot(void) {
  static const double x[] = {1, 2, 4}, y[] = {0.5, NAN, 0.1}, low[] = {0.4, NAN, 0}, high[] = {0.6, NAN, 1.5};
  struct plot *plot;
  cr_assert(eq(int, plot_create(&(struct plot_layout){.columns = 2}, &plot), STATUS_OK));
  struct plot_panel panel = {.title = NASTY, .x = {.title = NASTY, .log_base = 2}, .y = {.title = NASTY}};
  cr_assert(eq(int, plot_panel(plot, &panel), STATUS_OK));
  cr_assert(
      eq(int,
         plot_series(
             plot,
             &(struct plot_series){
                 .style = PLOT_LINES_POINTS, .title = NASTY, .count = 3, .x = x, .y = y, .low = low, .high = high}),
         STATUS_OK));
  cr_assert(eq(int, plot_shade(plot, 1, 2, 3, NASTY), STATUS_OK));
  cr_assert(eq(int, plot_note(plot, NASTY), STATUS_OK));
  return plot;
}

static char *script_of(const struct plot *plot) {
  char *script = NULL;
  size_t bytes = 0;
  FILE *out = open_memstream(&script, &bytes);
  cr_assert(eq(int, plot_script(plot, out), STATUS_OK));
  fclose(out);
  return script;
}

/* gnuplot's rule: within single quotes only '' is special.  So what remains outside of quotes is ours. */
static void remove_quoted(char *script) {
  bool quoted = false;
  char *to = script;
  for (const char *at = script; *at != '\0'; at++) {
    quoted = *at == '\'' ? !quoted : quoted;
    cr_assert(false == (quoted && *at == '\n'), "a quoted text goes on in the next line");
    if (!quoted)
      *to++ = *at;
  }
  *to = '\0';
}

FILE_TEST(plot, names_stay_within_their_quotes) {
  struct plot *plot = nasty_plot();
  char *script = script_of(plot);
  char *command = strstr(script, "set encoding"); /* behind the comment, in which nobody's text is */
  cr_assert(strstr(command, "'it''s `touch x` \"$(y)\" @z %d \\'") != NULL, "%s", command);
  remove_quoted(command);
  cr_expect(strstr(command, "touch") == NULL && strchr(command, '`') == NULL && strstr(command, "@z") == NULL, "%s",
            command);
  free(script);
  plot_destroy(&plot);
}

FILE_TEST(plot, stacked_bars_stand_on_each_other) {
  static const double x[] = {0, 1}, first[] = {2, 3}, second[] = {0.5, 4};
  struct plot *plot;
  cr_assert(eq(int, plot_create(&(struct plot_layout){.columns = 1}, &plot), STATUS_OK));
  cr_assert(eq(int, plot_panel(plot, &(struct plot_panel){.stacked = true}), STATUS_OK));
  cr_assert(eq(
      int, plot_series(plot, &(struct plot_series){.style = PLOT_BARS, .count = 2, .x = x, .y = first, .width = 0.5}),
      STATUS_OK));
  cr_assert(eq(
      int, plot_series(plot, &(struct plot_series){.style = PLOT_BARS, .count = 2, .x = x, .y = second, .width = 0.5}),
      STATUS_OK));
  char *script = script_of(plot);
  cr_expect(strstr(script, "\n 0 2 -0.25 0.25 0 2 2 2\n 1 3 0.75 1.25 0 3 3 3\n") != NULL, "%s", script);
  cr_expect(strstr(script, "\n 0 2.5 -0.25 0.25 2 2.5 2.5 2.5\n 1 7 0.75 1.25 3 7 7 7\n") != NULL, "%s", script);
  free(script);
  plot_destroy(&plot);
}

FILE_TEST(plot, axes_without_meaning_are_refused) {
  struct plot *plot;
  cr_assert(eq(int, plot_create(&(struct plot_layout){.columns = 1}, &plot), STATUS_OK));
  cr_expect(eq(int, plot_panel(plot, &(struct plot_panel){.x = {.low = 2, .high = 1}}), ERR_ARGUMENT));
  cr_expect(eq(int, plot_panel(plot, &(struct plot_panel){.y = {.low = -1, .high = 1, .log_base = 10}}), ERR_ARGUMENT));
  plot_destroy(&plot);
}

/* ---- gnuplot -------------------------------------------------------------------------------- */

static struct plotter found_or_skip(void) {
  struct plotter plotter;
  if (!plotter_find(&plotter))
    cr_skip("%s", plotter.why);
  return plotter;
}

static void draw_into(const struct plot *plot, const struct plotter *plotter, const char *stem) {
  cr_assert(eq(int, plot_draw(plot, plotter, stem), STATUS_OK), "%s", status_message());
}

FILE_TEST(plot, pictures_are_drawn_whatever_they_are_called) {
  struct plotter plotter = found_or_skip();
  struct plot *plot = nasty_plot();
  char stem[4096], path[4200], why[300] = "";
  snprintf(stem, sizeof stem, "%s", io_file("'`touch x`' <|\"$y"));
  /* A panel without anything, and a map with an empty cell. */
  static const double edges[] = {0, 1, 2}, values[] = {1, NAN, 0.5, -1};
  cr_assert(eq(int, plot_panel(plot, &(struct plot_panel){.y = {.log_base = 10}}), STATUS_OK));
  cr_assert(eq(int, plot_panel(plot, &(struct plot_panel){.x = {.title = "i"}}), STATUS_OK));
  cr_assert(eq(int,
               plot_map(plot, &(struct plot_map){.columns = 2,
                                                 .rows = 2,
                                                 .x_edges = edges,
                                                 .y_edges = edges,
                                                 .values = values,
                                                 .palette = PLOT_DIVERGING}),
               STATUS_OK));
  draw_into(plot, &plotter, stem);
  snprintf(path, sizeof path, "%s.svg", stem);
  char *svg = io_read(path, NULL);
  cr_expect(well_formed(svg, why, sizeof why), "%s", why);
  cr_expect(self_contained(svg, why, sizeof why), "%s", why);
  cr_expect(strstr(svg, "it's `touch x` \"$(y)\" @z %d \\") != NULL);
  snprintf(path, sizeof path, "%s.png", stem);
  size_t bytes;
  char *png = io_read(path, &bytes);
  cr_expect(bytes > 1000 && memcmp(png, "\x89PNG\r\n\x1a\n", 8) == 0);
  cr_expect(false == (io_exists(io_file("x")) || io_exists("x")), "a name was a command");
  free(svg);
  free(png);
  plot_destroy(&plot);
}

/* The same picture twice in a page: identifiers must differ. */
FILE_TEST(plot, pictures_share_a_page) {
  struct plotter plotter = found_or_skip();
  struct plot *plot = nasty_plot();
  char *page = NULL, why[300] = "", path[4200];
  size_t bytes = 0;
  draw_into(plot, &plotter, io_file("picture"));
  snprintf(path, sizeof path, "%s", io_file("picture.svg"));
  FILE *out = open_memstream(&page, &bytes);
  fputs("<body>", out);
  cr_assert(eq(int, html_picture(out, path, "one", "a \"picture\""), STATUS_OK));
  cr_assert(eq(int, html_picture(out, path, "two", "a picture"), STATUS_OK));
  fputs("</body>", out);
  fclose(out);
  cr_expect(well_formed(page, why, sizeof why), "%s", why);
  cr_expect(strstr(page, "href='#one-gpPt") != NULL && strstr(page, "id='two-gpPt5'") != NULL);
  cr_expect(strstr(page, "Gnuplot") == NULL && strstr(page, "<title") == NULL);
  io_write_text(path, "no picture");
  out = fopen("/dev/null", "w");
  cr_expect(eq(int, html_picture(out, path, "x", "y"), ERR_FORMAT));
  fclose(out);
  free(page);
  plot_destroy(&plot);
}

static void write_program(const char *path, const char *text) {
  io_write_text(path, text);
  cr_assert(eq(int, chmod(path, 0755), 0));
}

static void not_found(const char *sentence) {
  struct plotter plotter;
  cr_assert(not(plotter_find(&plotter)));
  cr_expect(eq(str, plotter.path, ""));
  cr_expect(strstr(plotter.why, sentence) != NULL, "%s", plotter.why);
  cr_expect(strstr(plotter.why, "install gnuplot 5.2 or newer") != NULL, "%s", plotter.why);
}

FILE_TEST(plot, a_missing_gnuplot_is_told_and_the_script_is_written_all_the_same) {
  struct plotter plotter;
  struct plot *plot = nasty_plot();
  char program[4096];
  snprintf(program, sizeof program, "%s", io_file("other"));
  unsetenv("CONR_GNUPLOT");
  setenv("PATH", io_file(""), 1);
  not_found("there is no gnuplot in PATH");
  setenv("CONR_GNUPLOT", program, 1);
  not_found("other, which CONR_GNUPLOT names, is no program that can be run");
  write_program(program, "#!/bin/sh\necho 4.6 svg pngcairo\n");
  not_found("is gnuplot 4.6, which is too old");
  write_program(program, "#!/bin/sh\necho 6.0 x11 pngcairo svgx\n");
  not_found("was built without its terminals svg and pngcairo");
  write_program(program, "#!/bin/sh\nexit 3\n");
  not_found("does not answer as gnuplot does");
  plotter_find(&plotter);
  io_write_text(io_file("old.svg"), "of another run");
  draw_into(plot, &plotter, io_file("old"));
  cr_expect(io_exists(io_file("old.gp")));
  cr_expect(false == (io_exists(io_file("old.svg")) || io_exists(io_file("old.png"))));
  plot_destroy(&plot);
}

FILE_TEST(plot, what_gnuplot_says_of_a_failure_is_one_sentence_and_leaves_no_picture) {
  struct plotter plotter;
  struct plot *plot = nasty_plot();
  char program[4096];
  snprintf(program, sizeof program, "%s", io_file("gnuplot"));
  setenv("CONR_GNUPLOT", program, 1);
  write_program(program, "#!/bin/sh\ncase \"$3\" in *terminal*svg*) echo half; echo 'a line' >&2; echo '  line 3: no "
                         "font  ' >&2; echo >&2; exit 1;; esac\n"
                         "echo 5.4 svg pngcairo\n");
  cr_assert(plotter_find(&plotter), "%s", plotter.why);
  cr_assert(eq(int, plot_draw(plot, &plotter, io_file("picture")), ERR_FILE));
  cr_expect(strstr(status_message(), "picture.svg: line 3: no font") != NULL, "%s", status_message());
  cr_expect(strchr(status_message(), '\n') == NULL);
  cr_expect(false == (io_exists(io_file("picture.svg")) || io_exists(io_file("picture.svg.tmp"))));
  write_program(program, "#!/bin/sh\ncase \"$3\" in *terminal*) echo '<svg>half';; *) echo 5.4 svg pngcairo;; esac\n");
  cr_assert(plotter_find(&plotter), "%s", plotter.why);
  cr_assert(eq(int, plot_draw(plot, &plotter, io_file("picture")), ERR_FILE));
  cr_expect(strstr(status_message(), "did not draw all of") != NULL, "%s", status_message());
  cr_expect(not(io_exists(io_file("picture.svg"))));
  plot_destroy(&plot);
}
