/* Limits and memory of one host. */
#include "launch/preflight_host.h"

#include "io/dataset.h"
#include "io/host_memory.h"
#include "launch/preflight.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

/* What a process of ours has open beside its connections, generously. */
#define OWN_FILES 64

static double megabytes(double bytes) {
  return bytes / 1e6;
}

void preflight_shared_memory(struct findings *findings, const char *data, bool f64) {
  struct statvfs disk;
  int64_t bytes;
  if (dataset_shared_bytes(data, f64 ? F64 : F32, &bytes) != STATUS_OK) {
    findings_add(findings, CHECK_SHARED_MEMORY, VERDICT_SKIPPED, STATUS_OK,
                 "what is needed is not known before the data can be read");
    return;
  }
  if (statvfs("/dev/shm", &disk) != 0) {
    findings_add(findings, CHECK_SHARED_MEMORY, VERDICT_FAILED, ERR_FILE,
                 "there is no /dev/shm, by which ranks share data; mount one (a tmpfs)");
    return;
  }
  double room = (double)disk.f_bavail * (double)disk.f_frsize;
  if ((double)bytes <= room)
    findings_add(findings, CHECK_SHARED_MEMORY, VERDICT_OK, STATUS_OK,
                 "%.6g MB for the data that ranks of a host share, %.6g MB are left", megabytes((double)bytes),
                 megabytes(room));
  else
    findings_add(
        findings, CHECK_SHARED_MEMORY, VERDICT_FAILED, ERR_MEMORY,
        "/dev/shm has %.6g MB left, and the data that ranks of a host share take %.6g MB; make it larger (mount "
        "-o remount,size=..., docker run --shm-size)",
        megabytes(room), megabytes((double)bytes));
}

void preflight_open_files(struct findings *findings, int ranks, bool several_hosts) {
  struct rlimit limit;
  rlim_t wanted = OWN_FILES + (rlim_t)(several_hosts ? ranks : 0);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    findings_add(findings, CHECK_OPEN_FILES, VERDICT_OK, STATUS_OK, "no limit");
  else if (limit.rlim_cur >= wanted)
    findings_add(findings, CHECK_OPEN_FILES, VERDICT_OK, STATUS_OK, "%llu may be open, %llu are wanted at most",
                 (unsigned long long)limit.rlim_cur, (unsigned long long)wanted);
  else
    findings_add(findings, CHECK_OPEN_FILES, VERDICT_FAILED, ERR_FILE,
                 "a rank may have %llu files open, and may want %llu, one for each other rank; raise it by ulimit -n",
                 (unsigned long long)limit.rlim_cur, (unsigned long long)wanted);
}

/* Is there an adapter that the kernel calls InfiniBand, as it does RoCE and EFA? */
static bool has_rdma(void) {
  DIR *folder = opendir("/sys/class/infiniband");
  int entries = 0;
  if (folder == NULL)
    return false;
  while (readdir(folder) != NULL)
    entries++;
  closedir(folder);
  return entries > 2; /* . and .. */
}

void preflight_locked_memory(struct findings *findings) {
  struct rlimit limit;
  if (!has_rdma())
    findings_add(findings, CHECK_LOCKED_MEMORY, VERDICT_SKIPPED, STATUS_OK, "no network by RDMA wants it");
  else if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    findings_add(findings, CHECK_LOCKED_MEMORY, VERDICT_OK, STATUS_OK, "no limit");
  else if (limit.rlim_cur >= PREFLIGHT_LOCKED)
    findings_add(findings, CHECK_LOCKED_MEMORY, VERDICT_OK, STATUS_OK, "limit %.6g MB",
                 megabytes((double)limit.rlim_cur));
  else
    findings_add(findings, CHECK_LOCKED_MEMORY, VERDICT_WARNING, STATUS_OK,
                 "only %.6g MB may be locked, by which a network by RDMA may fail or be slow; raise it by ulimit -l "
                 "unlimited, or LimitMEMLOCK=infinity of slurmd",
                 megabytes((double)limit.rlim_cur));
}

void preflight_address_space(struct findings *findings, bool gpu) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    findings_add(findings, CHECK_ADDRESS_SPACE, VERDICT_OK, STATUS_OK, "no limit");
  else if (!gpu)
    findings_add(findings, CHECK_ADDRESS_SPACE, VERDICT_OK, STATUS_OK, "limit %.6g MB",
                 megabytes((double)limit.rlim_cur));
  else
    findings_add(findings, CHECK_ADDRESS_SPACE, VERDICT_WARNING, STATUS_OK,
                 "addresses are limited to %.6g MB, and CUDA reserves as many as all memory has; ulimit -v unlimited",
                 megabytes((double)limit.rlim_cur));
}

int64_t preflight_available(void) {
  int64_t kernel = host_memory_of_kernel(""), group = host_memory_of_group("");
  int64_t least = kernel < group ? kernel : group;
  return least == INT64_MAX ? 0 : least;
}
