/* conr info: what was built, what was found on this machine. */
#include "launch/info.h"

#include "dist/device.h"
#include "launch/commands.h"
#include "version.h"

#include <hdf5.h>
#include <jansson.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <string.h>
#include <unistd.h>

static const char *vector_level(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
    return "x86-64-v4 (AVX-512)";
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return "x86-64-v3 (AVX2)";
#endif
  return "baseline";
}

/* The GPUs that can be used and what they are used with, or why there are none. */
static void describe_cuda(char *text, size_t bytes, bool *found) {
  struct device *device;
  int count;
  *found = false;
  if (device_count(&count) != STATUS_OK || device_open(0, &device) != STATUS_OK) {
    snprintf(text, bytes, "none: %s", status_message());
    return;
  }
  const struct device_facts *facts = device_facts(device);
  snprintf(text, bytes, "%d GPU%s, the first %s, %.0f GB, at %s; %s", count, count > 1 ? "s" : "", facts->name,
           (double)facts->memory_bytes / 1e9, facts->bus, facts->libraries);
  device_close(&device);
  *found = true;
}

void info_versions(struct info_versions *out) {
  char mpi[MPI_MAX_LIBRARY_VERSION_STRING];
  unsigned major, minor, release;
  int length;
  const dnnl_version_t *dnnl = dnnl_version();
  MPI_Get_library_version(mpi, &length); /* allowed before MPI_Init */
  mpi[strcspn(mpi, ",\n")] = '\0';
  H5get_libversion(&major, &minor, &release);
  snprintf(out->mpi, sizeof out->mpi, "%.255s", mpi);
  snprintf(out->hdf5, sizeof out->hdf5, "%u.%u.%u", major, minor, release);
  snprintf(out->onednn, sizeof out->onednn, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
}

enum status command_info(const struct config *config) {
  char host[256] = "?", cuda[1200];
  struct info_versions versions = {0};
  info_versions(&versions);
  gethostname(host, sizeof host - 1);
  bool found;
  describe_cuda(cuda, sizeof cuda, &found);
  const char *const rows[][2] = {{"conr", CONR_VERSION},
                                 {"commit", CONR_COMMIT},
                                 {"compiler", __VERSION__},
                                 {"mpi", versions.mpi},
                                 {"hdf5", versions.hdf5},
                                 {"onednn", versions.onednn},
                                 {"backends", found ? "cpu, cuda" : "cpu"},
                                 {"cuda", cuda},
                                 {"host", host},
                                 {"pair_kernels", vector_level()}};
  size_t count = sizeof rows / sizeof *rows;
  if (!config->json) {
    for (size_t i = 0; i < count; i++)
      printf("%-14s %s\n", rows[i][0], rows[i][1]);
    printf("%-14s %d usable, %ld online\n", "cores", omp_get_num_procs(), sysconf(_SC_NPROCESSORS_ONLN));
    return STATUS_OK;
  }
  json_t *object = json_object();
  REQUIRE(object != NULL, ERR_MEMORY, "out of memory for the report");
  for (size_t i = 0; i < count; i++)
    json_object_set_new(object, rows[i][0], json_string(rows[i][1]));
  json_object_set_new(object, "cores_usable", json_integer(omp_get_num_procs()));
  json_object_set_new(object, "cores_online", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
  json_dumpf(object, stdout, JSON_COMPACT);
  putchar('\n');
  json_decref(object);
  return STATUS_OK;
}
