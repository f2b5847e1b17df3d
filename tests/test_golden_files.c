/* No stored file goes untested: a new one must be put on this list, beside the test that reads it. */
#include "tests/golden.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

/* Files whose cases tests run; what of them is skipped, these tests print with its reason. */
static const char *const tested[] = {
    "accon.h5",       "balanced_mse.h5", "conr_multidim.h5", "conr_nyud2.h5", "conr_paper.h5", "conr_reference.h5",
    "denseweight.h5", "fds.h5",          "layers.h5",        "lds_agedb.h5",  "metrics.h5",    "pointwise_losses.h5",
    "ranksim.h5",     "resnet.h5",       "rnc.h5",           "srl.h5",        "trajectory.h5", "uvote.h5",
    "vir.h5"};

static bool is_tested(const char *name) {
  for (size_t i = 0; i < sizeof tested / sizeof *tested; i++)
    if (strcmp(name, tested[i]) == 0)
      return true;
  return false;
}

/* The folder that golden.h reads. */
static DIR *open_folder(void) {
  const char *folder = getenv("GOLDEN_DIR");
  return opendir(folder != NULL && folder[0] != '\0' ? folder : "tests/golden");
}

Test(golden_files, every_file_is_on_the_list) {
  DIR *folder = open_folder();
  cr_assert(folder != NULL, "no golden folder: set GOLDEN_DIR, or run in the root of the repository");
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    size_t length = strlen(entry->d_name);
    bool stored = length >= 4 && strcmp(entry->d_name + length - 3, ".h5") == 0;
    cr_assert(is_tested(entry->d_name) || !stored, "no test knows %s: add it to one", entry->d_name);
  }
  closedir(folder);
}
