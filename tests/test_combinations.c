/* Which methods go together: every pair, as the table of loss/README.md has it. */
#include "launch/combinations.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const methods[] = {
    "--loss=mse",        "--loss=bmc",       "--loss=gai",     "--loss=bni", "--loss=uvote", "--loss=evidential",
    "--weights=inverse", "--weights=dense",  "--lds=gaussian", "--fds",      "--conr",       "--conr-outer-weights",
    "--freeze=encoder",  "--freeze=probe",   "--ranksim",      "--rnc",      "--accon",      "--srl",
    "--probabilistic",   "--reconstruct=0.7"};
#define METHODS (sizeof methods / sizeof *methods)

static bool is_one_of(const char *method, const char *list) {
  char whole[64];
  snprintf(whole, sizeof whole, " %s ", method);
  return strstr(list, whole) != NULL;
}

static bool is_pair(const char *a, const char *b, const char *first, const char *second) {
  return (is_one_of(a, first) && is_one_of(b, second)) || (is_one_of(b, first) && is_one_of(a, second));
}

static bool is_senseless(const char *a, const char *b) {
  return is_pair(a, b, " --loss=bmc --loss=gai --loss=bni --loss=uvote ",
                 " --weights=inverse --weights=dense --conr-outer-weights ") ||
         is_pair(a, b, " --freeze=encoder --freeze=probe ",
                 " --conr --ranksim --rnc --accon --srl --reconstruct=0.7 ") ||
         is_pair(a, b, " --freeze=probe ", " --fds ");
}

Test(combinations, senseless_pairs_are_refused_and_all_others_are_not) {
  int refused = 0;
  for (size_t a = 0; a < METHODS; a++)
    for (size_t b = a + 1; b < METHODS; b++) {
      char *words[] = {"conr", "train", "t.h5", "--freeze=none", (char *)methods[a], (char *)methods[b], NULL};
      struct config config;
      if (strncmp(methods[a], methods[b], strcspn(methods[a], "=")) == 0 && strchr(methods[a], '=') != NULL)
        continue; /* the second stands instead of the first */
      cr_assert(eq(int, config_parse(6, words, &config), STATUS_OK), "%s", status_message());
      enum status status = combinations_check(&config);
      bool senseless = is_senseless(methods[a], methods[b]);
      cr_expect(eq(int, status, senseless ? ERR_ARGUMENT : STATUS_OK), "%s %s", methods[a], methods[b]);
      refused += status != STATUS_OK;
      config_destroy(&config);
    }
  cr_expect(eq(int, refused, 4 * 3 + 2 * 6 + 1));
}

Test(combinations, the_sentence_names_both_options_and_the_reason) {
  char *words[] = {"conr", "train", "t.h5", "--freeze=probe", "--fds", NULL};
  struct config config;
  cr_assert(eq(int, config_parse(5, words, &config), STATUS_OK));
  cr_assert(eq(int, combinations_check(&config), ERR_ARGUMENT));
  cr_expect(eq(str, (char *)status_message(),
               "--fds and --freeze probe do not go together: it smooths the features of training passes, and the "
               "encoder of a probe makes none; drop one"));
  config_destroy(&config);
}
