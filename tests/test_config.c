/* The option table: what is understood, what is refused and how, and that all its faces show the same options. */
#include "launch/config.h"

#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(config, .init = io_files_begin, .fini = io_files_end, .timeout = 30);

#define MOST_WORDS 256

/* A copy that lasts until the test's process ends, as the words of a command line do. */
static char *keep(const char *text) {
  static char *kept[4096];
  static int count;
  cr_assert(lt(int, count, 4096));
  return kept[count++] = strdup(text);
}

/* Parse "conr LINE", words separated by single blanks; '' stands for an empty word. */
static enum status parse(const char *line, struct config *config) {
  static char *argv[MOST_WORDS + 2];
  int argc = 0;
  char *rest = NULL;
  argv[argc++] = keep("conr");
  for (char *word = strtok_r(keep(line), " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
    argv[argc++] = strcmp(word, "''") == 0 ? keep("") : word;
  argv[argc] = NULL;
  return config_parse(argc, argv, config);
}

static void parsed(const char *line, struct config *config) {
  cr_assert(parse(line, config) == STATUS_OK, "conr %s: %s", line, status_message());
}

static void refused(const char *line, const char *sentence) {
  struct config config;
  cr_assert(eq(int, parse(line, &config), ERR_ARGUMENT), "conr %s", line);
  cr_assert(eq(str, (char *)status_message(), (char *)sentence));
  config_destroy(&config);
}

static char *help_of(enum command command) {
  char *text = NULL;
  size_t bytes;
  FILE *stream = open_memstream(&text, &bytes);
  config_help(command, stream);
  fclose(stream);
  return text;
}

static char *written(const struct config *config) {
  char *text = NULL;
  size_t bytes;
  FILE *stream = open_memstream(&text, &bytes);
  config_write(config, stream);
  fclose(stream);
  return text;
}

static const struct {
  enum command command;
  const char *name, *words;
} commands[] = {
    {COMMAND_IMPORT, "import", "t.csv"},      {COMMAND_TRAIN, "train", "t.h5"},  {COMMAND_EVAL, "eval", "run t.h5"},
    {COMMAND_PREDICT, "predict", "run t.h5"}, {COMMAND_EXPORT, "export", "run"}, {COMMAND_INFO, "info", ""},
    {COMMAND_COMPARE, "compare", "t.h5"},     {COMMAND_RECIPES, "recipes", ""},  {COMMAND_BENCH, "bench", "loss"},
    {COMMAND_SLURM, "slurm", "train t.h5"},   {COMMAND_SCALE, "scale", "t.h5"},  {COMMAND_CHECK, "check", "t.h5"},
    {COMMAND_REPORT, "report", "run"}};
#define COMMANDS (sizeof commands / sizeof *commands)

/* ---- one table, many faces ------------------------------------------------------------------ */

/* config_write walks the table; --help and the parser must know what it writes, and it what they know. */
Test(config, every_option_stands_in_the_help_of_its_command_and_is_understood) {
  for (size_t c = 0; c < COMMANDS; c++) {
    struct config config;
    parsed(commands[c].command == COMMAND_INFO ? "info" : "bench loss", &config); /* any; the command is set below */
    config.command = commands[c].command;
    config.output = config.init = config.stage2 = config.target = config.weight_column = config.split_column =
        config.drop = "x";
    config.images = config.path_column = config.with = config.share = config.fds_buckets = config.fds_clip = "x";
    config.rows = config.dim = "2";
    config.time = config.account = config.partition = config.ranks = config.machine = config.study = config.stage = "x";
    config.data = "x";
    char *help = help_of(commands[c].command), *text = written(&config), *rest = NULL;
    int options = 0;
    for (char *line = strtok_r(text, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest), options++) {
      char name[64], with_value[80], flag[80];
      cr_assert(eq(int, sscanf(line, "%63[a-z0-9-] =", name), 1), "%s", line);
      snprintf(with_value, sizeof with_value, "\n  --%s ", name);
      snprintf(flag, sizeof flag, "\n  --%s\n", name);
      cr_assert(strstr(help, with_value) != NULL || strstr(help, flag) != NULL, "--%s is not in the help of conr %s",
                name, commands[c].name);
    }
    /* Orders for one invocation are not written: --help, --config, --recipe, --force, --resume,
     * --preflight. */
    int in_help = 0, orders = 0;
    for (const char *at = help; (at = strstr(at, "\n  --")) != NULL; at++) {
      in_help++;
      orders += strncmp(at + 5, "help ", 5) == 0 || strncmp(at + 5, "config ", 7) == 0 ||
                strncmp(at + 5, "recipe ", 7) == 0 || strncmp(at + 5, "force ", 6) == 0 ||
                strncmp(at + 5, "resume ", 7) == 0 || strncmp(at + 5, "preflight ", 10) == 0;
    }
    cr_assert(eq(int, in_help, options + orders), "conr %s", commands[c].name);
    cr_assert(ge(int, orders, 1), "conr %s", commands[c].name);
    free(text);
    free(help);
    config_destroy(&config);
  }
}

Test(config, general_help_lists_the_commands_and_the_exit_statuses) {
  char *help = help_of(COMMAND_NONE);
  for (size_t c = 0; c < COMMANDS; c++)
    cr_assert(strstr(help, commands[c].name) != NULL, "conr %s is not in:\n%s", commands[c].name, help);
  cr_assert(strstr(help, "75 stopped by a signal with a checkpoint, --resume goes on") != NULL, "%s", help);
  free(help);
}

Test(config, help_fits_eighty_columns) {
  for (size_t c = 0; c < COMMANDS; c++) {
    char *help = help_of(commands[c].command), *rest = NULL;
    for (char *line = strtok_r(help, "\n", &rest); line != NULL; line = strtok_r(NULL, "\n", &rest))
      cr_assert(le(sz, strlen(line), 80), "conr %s --help: %s", commands[c].name, line);
    free(help);
  }
}

/* A value other than the default for every option of train. */
static const char every_option[] =
    "train t.h5 --output run --force --hidden 8,4,2 --activation gelu --dropout 0.25 --probabilistic --reconstruct 0.5 "
    "--init start.h5 "
    "--stage2 first "
    "--freeze probe --precision f64 "
    "--loss huber --huber-beta 0.1 --focal-beta 0.3 --focal-gamma 2 --focal-activation tanh --noise-scale 3 "
    "--noise-lr 0.02 --gmm 5 --experts 4 --expert-powers 0,1,1,2 --expert-density kernel --expert-bandwidth 3 "
    "--expert-schedule imdb --expert-static --expert-bounds -4,6 --expert-lr 0.2 --evidential-lambda 0.1 --head-std "
    "0.01 "
    "--vote minvar --weights none --weight-bins 0,2,50 --weight-clip 1,inf --lds laplace "
    "--lds-size 7 "
    "--lds-sigma 1.5 --lds-padding reflect --lds-truncate --dense-alpha 0.5 --conr --conr-beta 0.3 --conr-w 0.7 "
    "--conr-t 0.2 --conr-e 0.05 "
    "--conr-variant reference --conr-distance manhattan --conr-aggregate log_of_mean --conr-outer-weights "
    "--conr-memory 512 --conr-constant 128 "
    "--conr-path dense --views 3 --noise 0.3 --mask 0.1 --shuffle none --batch 17 --epochs 19 --optimiser sgd "
    "--lr 0.0123456789012345678 --momentum 0.8 --beta1 0.7 --beta2 0.6 --epsilon 1e-7 --weight-decay 0.001 "
    "--clip 2.5 --schedule step --milestones 3,5 --lr-factor 0.3 --warmup 11 --resume --select mse --patience 4 "
    "--log-steps 2 --checkpoint-steps 3 --reproducible --virtual-shards 5 --bucket-mb 0.01 --seed 9007199254740991 "
    "--threads 2 --graphs off --quiet "
    "--model "
    "cnn "
    "--size 32x48 --normalise imagenet --batch-norm rank --augment strong --pad 5 --flip 0.25 --full-decode "
    "--cache off --decode nvjpeg --workers 3 --micro-batch 6 --device cuda --comm mpi "
    "--fds --fds-task sts --fds-buckets 2,30 --fds-bucket-width 0.5 --fds-kernel laplace --fds-size 7 --fds-sigma 1.5 "
    "--fds-start-update 1 --fds-start-smooth 4 "
    "--ranksim --ranksim-gamma 5 --ranksim-lambda 1.5 --rnc --rnc-weight 2 --rnc-t 3 --accon --accon-weight 0.5 "
    "--accon-t 0.1 --accon-range 60 --accon-shift consistent --srl --srl-contrastive 10 --srl-enveloping 100 "
    "--srl-homogeneity 0.01 --srl-form paper --srl-t 0.3 --srl-bins 0,2,50 --srl-points 200 --srl-momentum 0.8 "
    "--fds-momentum none --fds-storage snapshot --fds-clip 0.3,3 --fds-zero-variance bucket --fds-collect eval "
    "--stage /local --stage-clean";

Test(config, what_is_written_can_be_read_again) {
  struct config config, again;
  const char *path = io_file("config.used");
  parsed(every_option, &config);
  char *text = written(&config);
  io_write_text(path, text);
  char line[512];
  snprintf(line, sizeof line, "train t.h5 --config %s", path);
  parsed(line, &again);
  char *text_again = written(&again);
  cr_assert(eq(str, text, text_again));
  cr_assert(memcmp(&config.lr, &again.lr, sizeof config.lr) == 0, "the number has other bits");
  /* None of it is the default, so that a value that was not read would show. */
  struct config fresh;
  parsed("train t.h5", &fresh);
  char *defaults = written(&fresh), *rest = NULL;
  for (char *one = strtok_r(text, "\n", &rest); one != NULL; one = strtok_r(NULL, "\n", &rest)) {
    char whole[1024];
    snprintf(whole, sizeof whole, "\n%s\n", one);
    cr_assert(strstr(defaults, whole) == NULL, "%s is the default", one);
  }
  free(defaults);
  free(text_again);
  free(text);
  config_destroy(&again);
  config_destroy(&config);
}

Test(config, an_empty_text_is_written_and_read_as_one) {
  struct config config, again;
  char line[512];
  parsed("train t.h5 --hidden ''", &config);
  char *text = written(&config);
  cr_assert(strstr(text, "hidden = \n") != NULL, "%s", text);
  io_write_text(io_file("c"), "hidden = \n");
  snprintf(line, sizeof line, "train t.h5 --config %s", io_file("c"));
  parsed(line, &again);
  cr_assert(eq(str, (char *)again.hidden, ""));
  free(text);
  config_destroy(&again);
  config_destroy(&config);
}

/* ---- command line --------------------------------------------------------------------------- */

Test(config, defaults_hold_without_options) {
  struct config config;
  parsed("train t.h5", &config);
  cr_assert(eq(i64, config.batch, 64));
  cr_assert(eq(dbl, config.lr, 0.001));
  cr_assert(eq(str, (char *)config.hidden, "64,64"));
  cr_assert(eq(dbl, config.conr_beta, 4));
  cr_assert(config.conr == false);
  cr_assert(config.output == NULL);
  cr_assert(eq(str, (char *)config.word[0], "t.h5"));
  cr_assert(config_given(&config, "lr") == false);
}

Test(config, options_stand_before_and_after_the_file) {
  struct config config;
  parsed("train --lr 0.5 t.h5 --batch=8 -o run", &config);
  cr_assert(eq(dbl, config.lr, 0.5));
  cr_assert(eq(i64, config.batch, 8));
  cr_assert(eq(str, (char *)config.output, "run"));
  cr_assert(eq(int, config.words, 1));
  cr_assert(config_given(&config, "lr") == true);
}

Test(config, the_last_of_two_counts) {
  struct config config;
  parsed("train t.h5 --lr 0.5 --lr 0.25", &config);
  cr_assert(eq(dbl, config.lr, 0.25));
}

Test(config, help_is_asked_for_in_three_ways) {
  static const char *const lines[] = {"--help", "-h", "help", "train --help", "train -h", "train --lr 1 --help"};
  for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
    struct config config;
    parsed(lines[i], &config);
    cr_assert(config.help == true, "conr %s", lines[i]);
  }
}

Test(config, unknown_command_offers_the_nearest) {
  refused("trian t.h5", "conr has no command \"trian\"; did you mean \"train\"?");
  refused("zzzzzz", "conr has no command \"zzzzzz\"; see conr --help");
}

Test(config, unknown_option_offers_the_nearest) {
  refused("train t.h5 --bacth 8", "conr train has no option --bacth; did you mean --batch?");
  refused("train t.h5 --hlep", "conr train has no option --hlep; did you mean --help?");
  refused("train t.h5 --epochz=3", "conr train has no option --epochz; did you mean --epochs?");
  refused("train t.h5 --qwertyuiop 8", "conr train has no option --qwertyuiop; see conr train --help");
  refused("train t.h5 --conr -x", "conr train has no option -x; see conr train --help");
}

Test(config, options_of_other_commands_are_unknown) {
  refused("eval run t.h5 --lr 3", "conr eval has no option --lr; see conr eval --help");
  refused("eval run t.h5 -o x", "conr eval has no option -o");
  refused("import t.csv --json", "conr import has no option --json; see conr import --help");
}

Test(config, values_that_lack_or_are_too_many) {
  refused("train t.h5 --lr", "--lr wants a value");
  refused("train t.h5 -o", "-o wants a value");
  refused("train t.h5 --conr=yes", "--conr takes no value");
  refused("train t.h5 --help=yes", "--help takes no value");
}

Test(config, numbers_that_are_none) {
  refused("train t.h5 --lr fast", "--lr wants a number, not \"fast\"");
  refused("train t.h5 --lr 1e-3x", "--lr wants a number, not \"1e-3x\"");
  refused("train t.h5 --lr ''", "--lr wants a number, not \"\"");
  refused("train t.h5 --lr nan", "--lr wants a number, not \"nan\"");
  refused("train t.h5 --lr 1e999", "--lr wants a number, not \"1e999\"");
  refused("train t.h5 --batch 2.5", "--batch wants a whole number, not \"2.5\"");
}

Test(config, numbers_out_of_range) {
  refused("train t.h5 --batch 0", "--batch 0 is out of range; give 1 to 1073741824");
  refused("train t.h5 --batch -4", "--batch -4 is out of range; give 1 to 1073741824");
  refused("train t.h5 --dropout 1", "--dropout 1 is out of range; give 0 to 0.99");
  refused("train t.h5 --lr 1e30", "--lr 1e30 is out of range; give 0 to 1000000");
  refused("train t.h5 --views 4", "--views 4 is out of range; give 1 to 3");
  refused("train t.h5 --seed 9007199254740993", "--seed 9007199254740993 is out of range; give 0 to 9007199254740991");
  refused("train t.h5 --seed -1", "--seed -1 is out of range; give 0 to 9007199254740991");
  refused("train t.h5 --noise-scale 0", "--noise-scale 0 is out of range; give 1e-12 to 1000000000000");
  refused("train t.h5 --noise-scale -2", "--noise-scale -2 is out of range; give 1e-12 to 1000000000000");
  refused("train t.h5 --noise-lr -0.1", "--noise-lr -0.1 is out of range; give 0 to 1000000");
  refused("train t.h5 --gmm 65", "--gmm 65 is out of range; give 1 to 64");
}

#define LOSSES "l1|mse|huber|focal_l1|focal_mse|bmc|gai|bni|uvote|evidential"

Test(config, choices_are_listed) {
  refused("train t.h5 --loss l2", "--loss \"l2\" is not one of " LOSSES);
  refused("train t.h5 --loss l1|mse", "--loss \"l1|mse\" is not one of " LOSSES);
  refused("train t.h5 --loss ''", "--loss \"\" is not one of " LOSSES);
}

Test(config, files_that_lack_or_are_too_many) {
  refused("train", "conr train wants DATA.h5; see conr train --help");
  refused("eval run", "conr eval wants RUN DATA.h5; see conr eval --help");
  refused("train a.h5 b.h5", "conr train does not know what to do with \"b.h5\"; see conr train --help");
}

/* ---- config file ---------------------------------------------------------------------------- */

static const char *line_with(const char *text, const char *more) {
  static char line[1024];
  io_write_text(io_file("c"), text);
  snprintf(line, sizeof line, "train t.h5 --config %s %s", io_file("c"), more);
  return line;
}

static void file_refused(const char *text, enum status code, int line, const char *sentence) {
  struct config config;
  char expected[1024];
  cr_assert(eq(int, parse(line_with(text, ""), &config), code), "%s", text);
  snprintf(expected, sizeof expected, line > 0 ? "%s line %d%s" : "%s", io_file("c"), line, sentence);
  cr_assert(eq(str, (char *)status_message(), expected));
  config_destroy(&config);
}

Test(config, a_file_sets_what_the_command_line_leaves_open) {
  struct config config;
  parsed(line_with("# a recipe\nlr = 0.5\n\n  batch = 8\nconr = true\n", "--lr 0.25"), &config);
  cr_assert(eq(dbl, config.lr, 0.25));
  cr_assert(eq(i64, config.batch, 8));
  cr_assert(config.conr == true);
  config_destroy(&config);
}

Test(config, the_command_line_wins_in_either_order) {
  struct config config;
  char line[512];
  io_write_text(io_file("c"), "lr = 0.5\n");
  snprintf(line, sizeof line, "train --lr 0.25 --config %s t.h5", io_file("c"));
  parsed(line, &config);
  cr_assert(eq(dbl, config.lr, 0.25));
  config_destroy(&config);
}

Test(config, the_last_line_of_a_file_counts) {
  struct config config;
  parsed(line_with("lr = 0.5\nlr = 0.25\n", ""), &config);
  cr_assert(eq(dbl, config.lr, 0.25));
  config_destroy(&config);
}

Test(config, a_file_that_repeats_a_default_asks_for_nothing) {
  struct config config;
  parsed(line_with("huber-beta = 1\nmomentum = 0.90000000000000002\nconr = false\nlr = 0.5\n", ""), &config);
  cr_assert(config_given(&config, "huber-beta") == false);
  cr_assert(config_given(&config, "momentum") == false);
  cr_assert(config_given(&config, "conr") == false);
  cr_assert(config_given(&config, "lr") == true);
  config_destroy(&config);
}

Test(config, faults_of_a_file_are_named_with_their_line) {
  file_refused("lr = 0.5\nbacth = 8\n", ERR_ARGUMENT, 2, ": conr train has no option --bacth; did you mean --batch?");
  file_refused("lr = fast\n", ERR_ARGUMENT, 1, ": --lr wants a number, not \"fast\"");
  file_refused("\n\nbatch = 0\n", ERR_ARGUMENT, 3, ": --batch 0 is out of range; give 1 to 1073741824");
  file_refused("conr = yes\n", ERR_ARGUMENT, 1, ": --conr is true or false, not \"yes\"");
  file_refused("lr = 1\nnonsense\n", ERR_FORMAT, 2, " is not \"name = value\"");
  file_refused("[train]\nlr = 1\n", ERR_ARGUMENT, 2, ": section [train]: a config file has none");
  file_refused("config = other\n", ERR_ARGUMENT, 1, ": a config file cannot name another");
  file_refused("many = 3\n", ERR_ARGUMENT, 1, ": conr train has no option --many; see conr train --help");
}

Test(config, a_line_too_long_is_not_cut) {
  char text[1024] = "lr = 0.5\noutput = ";
  memset(text + strlen(text), 'x', 600);
  file_refused(text, ERR_FORMAT, 2,
               ": a line of more than 198 characters; shorten it, or give that option on the command line");
}

Test(config, a_file_that_cannot_be_read) {
  struct config config;
  char line[512], sentence[512];
  snprintf(line, sizeof line, "train t.h5 --config %s", io_file("none"));
  snprintf(sentence, sizeof sentence, "cannot read config file %s: No such file or directory", io_file("none"));
  cr_assert(eq(int, parse(line, &config), ERR_FILE));
  cr_assert(eq(str, (char *)status_message(), sentence));
  snprintf(line, sizeof line, "train t.h5 --config %s", io_file(""));
  snprintf(sentence, sizeof sentence, "cannot read config file %s: it is a directory", io_file(""));
  cr_assert(eq(int, parse(line, &config), ERR_FILE));
  cr_assert(eq(str, (char *)status_message(), sentence));
}

Test(config, random_bytes_are_refused) {
  uint32_t state = 1;
  for (int round = 0; round < 200; round++) {
    unsigned char bytes[300];
    struct config config;
    char line[512];
    for (size_t i = 0; i < sizeof bytes; i++)
      bytes[i] = (unsigned char)((state = state * 1664525u + 1013904223u) >> 24);
    bytes[0] = 'z'; /* no comment */
    io_write(io_file("c"), bytes, sizeof bytes);
    snprintf(line, sizeof line, "train t.h5 --config %s", io_file("c"));
    cr_assert(ne(int, parse(line, &config), STATUS_OK));
    config_destroy(&config);
  }
}

/* ---- lists ---------------------------------------------------------------------------------- */

Test(config, lists_of_whole_numbers) {
  int64_t values[3];
  int count;
  cr_assert(config_integers("hidden", "64,32", 1, 100, 3, values, &count) == STATUS_OK);
  cr_assert(eq(int, count, 2));
  cr_assert(eq(i64, values[0], 64));
  cr_assert(eq(i64, values[1], 32));
  cr_assert(config_integers("hidden", "", 1, 100, 3, values, &count) == STATUS_OK);
  cr_assert(eq(int, count, 0));
}

Test(config, lists_that_are_none) {
  static const struct {
    const char *text, *sentence;
  } cases[] = {{"64,", "--hidden wants whole numbers separated by commas, not \"64,\""},
               {",64", "--hidden wants whole numbers separated by commas, not \",64\""},
               {"64,,3", "--hidden wants whole numbers separated by commas, not \"64,,3\""},
               {"64x", "--hidden wants whole numbers separated by commas, not \"64x\""},
               {"6.5", "--hidden wants whole numbers separated by commas, not \"6.5\""},
               {"0", "--hidden: 0 is out of range; give 1 to 100"},
               {"3,101", "--hidden: 101 is out of range; give 1 to 100"},
               {"99999999999999999999", "--hidden: 99999999999999999999 is out of range; give 1 to 100"},
               {"1,2,3,4", "--hidden takes at most 3 numbers"}};
  int64_t values[3];
  int count;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    cr_assert(eq(int, config_integers("hidden", cases[i].text, 1, 100, 3, values, &count), ERR_ARGUMENT), "%s",
              cases[i].text);
    cr_assert(eq(str, (char *)status_message(), (char *)cases[i].sentence));
  }
}
