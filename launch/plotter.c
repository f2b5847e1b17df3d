/* Finding and starting gnuplot. */
#define _GNU_SOURCE /* pipe2, memmem */
#include "launch/plotter.h"

#include "io/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define VARIABLE "CONR_GNUPLOT"
#define REMEDY "install gnuplot 5.2 or newer (Debian, Ubuntu: gnuplot-nox), or name it by " VARIABLE

/* ---- a process ------------------------------------------------------------------------------ */

/* What is started: its standard input and output are files, NULL for /dev/null; one of its streams is caught. */
struct start {
  char *const *argv;
  const char *input, *output;
  int caught; /* STDOUT_FILENO or STDERR_FILENO */
};

static int prepare_streams(const struct start *start, int writing, posix_spawn_file_actions_t *actions) {
  static const char nothing[] = "/dev/null";
  int other = start->caught == STDOUT_FILENO ? STDERR_FILENO : STDOUT_FILENO;
  int error =
      posix_spawn_file_actions_addopen(actions, STDIN_FILENO, start->input ? start->input : nothing, O_RDONLY, 0);
  if (error == 0)
    error = posix_spawn_file_actions_addopen(actions, other, start->output ? start->output : nothing, O_WRONLY, 0);
  return error != 0 ? error : posix_spawn_file_actions_adddup2(actions, writing, start->caught);
}

static int spawn(const struct start *start, int writing, pid_t *pid) {
  posix_spawn_file_actions_t actions;
  int error = posix_spawn_file_actions_init(&actions);
  if (error != 0)
    return error;
  error = prepare_streams(start, writing, &actions);
  if (error == 0)
    error = posix_spawn(pid, start->argv[0], &actions, NULL, start->argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  return error;
}

/* All of a pipe, of which the first bytes are kept. */
static void read_all(int reading, char *text, size_t bytes) {
  char rest[512];
  size_t used = 0;
  for (;;) {
    bool kept = used + 1 < bytes;
    ssize_t count = kept ? read(reading, text + used, bytes - 1 - used) : read(reading, rest, sizeof rest);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      break;
    used += kept ? (size_t)count : 0;
  }
  text[used] = '\0';
}

/* Start, read what it says on the caught stream, wait.  Returns an errno; *code is its exit status, 128 + the signal
 * that ended it. */
static int run(const struct start *start, char *said, size_t bytes, int *code) {
  int ends[2], state = 0;
  pid_t pid;
  said[0] = '\0';
  if (pipe2(ends, O_CLOEXEC) != 0)
    return errno;
  int error = spawn(start, ends[1], &pid);
  close(ends[1]);
  if (error == 0) {
    read_all(ends[0], said, bytes);
    while (waitpid(pid, &state, 0) < 0 && errno == EINTR)
      continue;
    *code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
  }
  close(ends[0]);
  return error;
}

/* ---- finding it ----------------------------------------------------------------------------- */

static bool is_program(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

/* "gnuplot" in PATH's folders; an empty one is the current folder. */
static bool search_path(char path[PATH_MAX]) {
  const char *next = getenv("PATH");
  while (next != NULL) {
    int length = (int)strcspn(next, ":");
    int written = snprintf(path, PATH_MAX, "%.*s/gnuplot", length > 0 ? length : 1, length > 0 ? next : ".");
    if (written < PATH_MAX && is_program(path))
      return true;
    next = next[length] == ':' ? next + length + 1 : NULL;
  }
  return false;
}

/* Is `word` one of the words? */
static bool has_word(const char *words, const char *word) {
  size_t length = strlen(word);
  for (const char *at = words; (at = strstr(at, word)) != NULL; at += length)
    if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\n' || at[length] == '\0'))
      return true;
  return false;
}

/* Version and terminals, from its own mouth. */
static bool ask(struct plotter *plotter) {
  char *argv[] = {plotter->path, "-d", "-e", "set print '-'; print GPVAL_VERSION, ' ', GPVAL_TERMINALS", NULL};
  struct start start = {.argv = argv, .caught = STDOUT_FILENO};
  char said[4096];
  int code = 0, major = 0, minor = 0;
  int error = run(&start, said, sizeof said, &code);
  if (error != 0 || code != 0 || sscanf(said, "%d.%d", &major, &minor) != 2) {
    snprintf(plotter->why, sizeof plotter->why, "%s does not answer as gnuplot does (%s); " REMEDY, plotter->path,
             error != 0 ? strerror(error) : "it may be broken, or another program");
    return false;
  }
  if (major < 5 || (major == 5 && minor < 2)) {
    snprintf(plotter->why, sizeof plotter->why, "%s is gnuplot %d.%d, which is too old; " REMEDY, plotter->path, major,
             minor);
    return false;
  }
  plotter->cairo = has_word(said, "pngcairo");
  if (has_word(said, "svg") && (plotter->cairo || has_word(said, "png")))
    return true;
  snprintf(plotter->why, sizeof plotter->why, "%s was built without its terminals svg and pngcairo; " REMEDY,
           plotter->path);
  return false;
}

bool plotter_find(struct plotter *out) {
  const char *named = getenv(VARIABLE);
  *out = (struct plotter){.path = ""};
  bool found = named != NULL ? is_program(named) && strlen(named) < sizeof out->path : search_path(out->path);
  if (named != NULL && found)
    strcpy(out->path, named);
  if (!found && named != NULL)
    snprintf(out->why, sizeof out->why, "%.*s, which " VARIABLE " names, is no program that can be run; " REMEDY,
             PATH_MAX, named);
  else if (!found)
    snprintf(out->why, sizeof out->why, "there is no gnuplot in PATH; " REMEDY);
  found = found && ask(out);
  if (!found)
    out->path[0] = '\0';
  return found;
}

/* ---- drawing -------------------------------------------------------------------------------- */

/* The last line that says something, without the blanks around it. */
static char *last_line(char *said) {
  size_t end = strlen(said);
  while (end > 0 && strchr(" \t\r\n", said[end - 1]) != NULL)
    end--;
  said[end] = '\0';
  char *line = strrchr(said, '\n');
  line = line != NULL ? line + 1 : said;
  return line + strspn(line, " \t\r");
}

/* Does the file end as pictures of its format do?  On a full disk gnuplot may end well. */
static bool is_whole(const char *path, enum plotter_format format) {
  static const char svg_end[] = "</svg>", png_end[] = "IEND\xae\x42\x60\x82";
  const char *end = format == PLOTTER_SVG ? svg_end : png_end;
  char tail[16] = {0};
  FILE *file = fopen(path, "rbe");
  size_t count = 0;
  if (file == NULL)
    return false;
  if (fseek(file, -(long)sizeof tail, SEEK_END) == 0)
    count = fread(tail, 1, sizeof tail, file);
  fclose(file);
  return memmem(tail, count, end, strlen(end)) != NULL;
}

/* Fonts by the family that browsers and fontconfig both know. */
static void write_terminal(const struct plotter *plotter, enum plotter_format format, int width, int height, char *text,
                           size_t bytes) {
  if (format == PLOTTER_SVG)
    snprintf(text, bytes, "set terminal svg size %d,%d dynamic noenhanced font 'sans-serif,12' background '#ffffff'",
             width, height);
  else if (plotter->cairo)
    snprintf(text, bytes,
             "set terminal pngcairo size %d,%d noenhanced font 'sans-serif,12' fontscale 1.6 linewidth 2 "
             "pointscale 2 background '#ffffff'",
             2 * width, 2 * height);
  else
    snprintf(text, bytes,
             "set terminal png size %d,%d truecolor noenhanced font 'sans-serif,18' linewidth 2 pointscale 2 "
             "background '#ffffff'",
             2 * width, 2 * height);
}

static enum status draw(const struct plotter *plotter, const char *terminal, enum plotter_format format,
                        const char *script, const struct durable *durable) {
  char *argv[] = {(char *)plotter->path, "-d", "-e", (char *)terminal, "-", NULL};
  struct start start = {.argv = argv, .input = script, .output = durable->temporary, .caught = STDERR_FILENO};
  char said[8192];
  int code = 0;
  int error = run(&start, said, sizeof said, &code);
  REQUIRE(error == 0, ERR_FILE, "cannot start %s: %s", plotter->path, strerror(error));
  REQUIRE(code == 0, ERR_FILE, "%s failed to draw %s: %s", plotter->path, durable->path,
          said[0] != '\0' ? last_line(said) : "it does not say why");
  REQUIRE(is_whole(durable->temporary, format), ERR_FILE, "%s did not draw all of %s; the disk may be full",
          plotter->path, durable->path);
  return STATUS_OK;
}

enum status plotter_run(const struct plotter *plotter, enum plotter_format format, int width, int height,
                        const char *script, const char *picture) {
  struct durable durable;
  char terminal[256];
  REQUIRE(plotter->path[0] != '\0', ERR_BUG, "a picture was to be drawn without gnuplot");
  write_terminal(plotter, format, width, height, terminal, sizeof terminal);
  TRY(durable_begin(picture, &durable));
  enum status status = draw(plotter, terminal, format, script, &durable);
  if (status == STATUS_OK)
    status = durable_commit(&durable);
  if (status != STATUS_OK)
    durable_abandon(&durable);
  return status;
}
