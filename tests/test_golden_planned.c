/* Stored cases of methods that are not there yet: counted and named, file by file, so that none is forgotten. */
#include "tests/golden.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Files whose cases other tests run. */
static const char *const tested[] = {
    "conr_reference.h5", "conr_paper.h5", "conr_multidim.h5", "conr_nyud2.h5", "trajectory.h5", "pointwise_losses.h5",
    "metrics.h5",        "layers.h5",     "resnet.h5",        "fds.h5",        "uvote.h5",      "vir.h5"};

static const char *const planned[][2] = {{"accon.h5", "ACCon is planned"},
                                         {"balanced_mse.h5", "Balanced MSE is planned"},
                                         {"denseweight.h5", "DenseWeight is planned"},
                                         {"lds_agedb.h5", "LDS is planned"},
                                         {"ranksim.h5", "RankSim is planned"},
                                         {"rnc.h5", "Rank-N-Contrast is planned"},
                                         {"srl.h5", "SRL is planned"}};

static bool is_tested(const char *name) {
  for (size_t i = 0; i < sizeof tested / sizeof *tested; i++)
    if (strcmp(name, tested[i]) == 0)
      return true;
  return false;
}

static const char *reason_for(const char *name) {
  for (size_t i = 0; i < sizeof planned / sizeof *planned; i++)
    if (strcmp(name, planned[i][0]) == 0)
      return planned[i][1];
  return NULL;
}

/* The folder that golden.h reads. */
static DIR *open_folder(void) {
  const char *folder = getenv("GOLDEN_DIR");
  return opendir(folder != NULL && folder[0] != '\0' ? folder : "tests/golden");
}

Test(golden_planned, every_other_file_is_named_with_its_method) {
  DIR *folder = open_folder();
  cr_assert(folder != NULL, "no golden folder: set GOLDEN_DIR, or run in the root of the repository");
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    size_t length = strlen(entry->d_name);
    if (length < 4 || strcmp(entry->d_name + length - 3, ".h5") != 0 || is_tested(entry->d_name))
      continue;
    const char *reason = reason_for(entry->d_name);
    cr_assert(reason != NULL, "no test knows %s: add it to one", entry->d_name);
    struct golden_file *file = golden_open(entry->d_name);
    for (int i = 0; i < golden_case_count(file); i++)
      golden_skip(file, reason);
    golden_report(file);
    golden_close(&file);
  }
  closedir(folder);
}
