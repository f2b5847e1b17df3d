/* conr slurm: launch/slurm/job with the directives and settings that the options ask for. */
#include "dist/memory.h"
#include "dist/program.h"
#include "launch/commands.h"
#include "launch/options.h"
#include "launch/shared_folder.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FOLDER_VARIABLE "CONR_SLURM"
#define DIRECTIVE "#SBATCH "
#define SETTINGS "# conr slurm writes its settings here."

/* ---- what is asked for ---------------------------------------------------------------------- */

/* A directive is a line of words: what stands in a value must not begin another one. */
static enum status check_word(const char *option, const char *value) {
  if (value == NULL)
    return STATUS_OK;
  bool plain = value[0] != '\0';
  for (const char *at = value; *at != '\0'; at++)
    plain = plain && isgraph((unsigned char)*at) && strchr("'\"\\#", *at) == NULL;
  REQUIRE(plain, ERR_ARGUMENT, "--%s wants a name without blanks and quotes, not \"%s\"", option, value);
  return STATUS_OK;
}

/* M, M:S, H:M:S, D-H, D-H:M or D-H:M:S, more than nothing. */
static enum status check_time(const char *text) {
  static const char *const forms[] = {"N", "N:N", "N:N:N", "N-N", "N-N:N", "N-N:N:N"};
  char form[16];
  size_t length = 0;
  bool known = false;
  if (text == NULL)
    return STATUS_OK;
  for (const char *at = text; *at != '\0' && length < sizeof form - 1;) {
    size_t digits = strspn(at, "0123456789");
    form[length++] = digits > 0 ? 'N' : *at;
    at += digits > 0 ? digits : 1;
  }
  form[length] = '\0';
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    known = known || strcmp(form, forms[i]) == 0;
  REQUIRE(known && strpbrk(text, "123456789") != NULL, ERR_ARGUMENT,
          "--time wants a limit such as 90 (minutes), 8:00:00 or 2-12:00:00, not \"%s\"", text);
  return STATUS_OK;
}

/* The command that the job is to run, as that command itself reads it: mistakes that need no data are told now, not in
 * the queue. */
static enum status parse_command(const struct config *config, struct config *command) {
  char sentence[1024], **words; /* copies, as parsing changes their order; the first is the program's name */
  TRY(memory_alloc_zero(((size_t)config->words + 2) * sizeof *words, (void **)&words));
  memcpy(words + 1, config->rest, (size_t)config->words * sizeof *words);
  enum status status = config_parse(config->words + 1, words, command);
  memory_free((void **)&words);
  if (status == STATUS_OK && command->help)
    return fail(ERR_ARGUMENT, "conr slurm wants what the job is to do, not a question for help; see conr %s --help",
                config->word[0]);
  if (status == STATUS_OK)
    return STATUS_OK;
  snprintf(sentence, sizeof sentence, "%s", status_message());
  return fail(status, "%s (in what the job is to do: options of conr slurm stand before \"%s\")", sentence,
              config->word[0]);
}

static enum status check_command(const struct config *config, const struct config *command) {
  const char *name = config->word[0];
  REQUIRE(command->command != COMMAND_SLURM, ERR_ARGUMENT, "a job of conr slurm cannot be conr slurm itself");
  REQUIRE(!command->force, ERR_ARGUMENT,
          "--force would make each start of the job begin again; remove what is there before you submit");
  REQUIRE(command->command != COMMAND_TRAIN || command->output != NULL, ERR_ARGUMENT,
          "conr train wants a run folder: give -o RUN");
  REQUIRE(command->command != COMMAND_SCALE || (command->output != NULL && !command->predict), ERR_ARGUMENT,
          "conr scale %s",
          command->predict ? "--predict takes no job: it computes a table at once"
                           : "wants a folder for the study: give -o FOLDER");
  if (command->command == COMMAND_TRAIN)
    TRY(options_check(command));
  bool shares = command->command == COMMAND_COMPARE || command->command == COMMAND_SCALE;
  REQUIRE(
      config->jobs == 1 || shares, ERR_ARGUMENT,
      "--jobs %lld is for conr compare and conr scale, whose runs and points an array can share; conr %s is one job",
      (long long)config->jobs, name);
  REQUIRE(config->jobs == 1 || command->share == NULL, ERR_ARGUMENT,
          "--share %s beside --jobs %lld: each job of the array gives its own; leave --share out", command->share,
          (long long)config->jobs);
  return STATUS_OK;
}

static enum status check(const struct config *config) {
  struct config command = {0};
  enum status status;
  TRY(check_time(config->time));
  TRY(check_word("account", config->account));
  TRY(check_word("partition", config->partition));
  TRY(check_word("job-name", config->job_name));
  TRY_GOTO(parse_command(config, &command), out);
  status = check_command(config, &command);
out:
  config_destroy(&command);
  return status;
}

/* ---- what is printed ------------------------------------------------------------------------ */

static void print_text(FILE *out, const char *name, const char *value) {
  if (value != NULL)
    fprintf(out, DIRECTIVE "--%s=%s\n", name, value);
}

static void print_number(FILE *out, const char *name, int64_t value) {
  if (value > 0)
    fprintf(out, DIRECTIVE "--%s=%lld\n", name, (long long)value);
}

static void print_directives(const struct config *config, FILE *out) {
  int64_t ranks = config->ranks_per_node > 0 ? config->ranks_per_node : config->gpus_per_node;
  print_text(out, "job-name", config->job_name);
  print_text(out, "account", config->account);
  print_text(out, "partition", config->partition);
  print_number(out, "nodes", config->nodes);
  print_number(out, "ntasks-per-node", ranks > 0 ? ranks : 1);
  print_number(out, "cpus-per-task", config->cores_per_rank);
  print_number(out, "gpus-per-node", config->gpus_per_node);
  print_text(out, "time", config->time);
  if (config->jobs > 1)
    fprintf(out, DIRECTIVE "--array=1-%lld\n", (long long)config->jobs);
  fprintf(out, DIRECTIVE "--signal=B:USR1@%lld\n", (long long)config->ahead);
  fputs(DIRECTIVE "--requeue\n" DIRECTIVE "--open-mode=append\n", out);
}

/* A word of a shell. */
static void print_quoted(FILE *out, const char *word) {
  static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%+,-./:=@_";
  if (word[0] != '\0' && word[strspn(word, plain)] == '\0') {
    fputs(word, out);
    return;
  }
  fputc('\'', out);
  for (; *word != '\0'; word++)
    fputs(*word == '\'' ? "'\\''" : (char[]){*word, '\0'}, out);
  fputc('\'', out);
}

/* The script's variables, where the environment does not give them, and its arguments. */
static void print_settings(const struct config *config, FILE *out) {
  char program[PATH_MAX];
  fputs("# By conr slurm:\n[ -n \"${CONR-}\" ] || CONR=", out);
  print_quoted(out, program_path(program));
  fprintf(out, "\n[ -n \"${CONR_LAUNCHER-}\" ] || CONR_LAUNCHER=%s\n", config->launcher);
  if (config->jobs > 1)
    fprintf(out, "CONR_JOBS=%lld\n", (long long)config->jobs);
  fputs("set --", out);
  for (int i = 0; i < config->words; i++) {
    fputc(' ', out);
    print_quoted(out, config->rest[i]);
  }
  fputc('\n', out);
}

/* The script, with our directives instead of its own and our settings where it says so. */
static enum status print_script(const struct config *config, FILE *script, FILE *out) {
  char line[1024];
  bool directives = false, settings = false;
  while (fgets(line, sizeof line, script) != NULL) {
    if (strncmp(line, DIRECTIVE, strlen(DIRECTIVE)) == 0) {
      if (!directives)
        print_directives(config, out);
      directives = true;
    } else if (strcmp(line, SETTINGS "\n") == 0) {
      print_settings(config, out);
      settings = true;
    } else {
      fputs(line, out);
    }
  }
  REQUIRE(directives && settings, ERR_FORMAT,
          "the job script has no lines \"" DIRECTIVE "...\" or \"" SETTINGS "\", where options go");
  return STATUS_OK;
}

enum status command_slurm(const struct config *config) {
  char folder[PATH_MAX], path[PATH_MAX + 8];
  TRY(check(config));
  TRY(shared_folder("slurm", FOLDER_VARIABLE, folder));
  snprintf(path, sizeof path, "%s/job", folder);
  FILE *script = fopen(path, "re");
  REQUIRE(script != NULL, ERR_FILE, "cannot read the job script %s: %s", path, strerror(errno));
  enum status status = print_script(config, script, stdout);
  fclose(script);
  return status;
}
