/* /proc/meminfo, control groups of both versions, and the free space of /dev/shm. */
#include "io/host_memory.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

/* The number behind `key` in a file of lines "key number", or alone in it when key is ""; -1 when it is not there. */
static int64_t read_number(const char *path, const char *key) {
  char line[512];
  int64_t found = -1;
  size_t length = strlen(key);
  FILE *file = fopen(path, "re");
  if (file == NULL)
    return -1;
  while (found < 0 && fgets(line, sizeof line, file) != NULL)
    if (strncmp(line, key, length) == 0) {
      char *end;
      long long value = strtoll(line + length, &end, 10);
      found = end > line + length && value >= 0 ? value : -1;
    }
  fclose(file);
  return found;
}

int64_t host_memory_of_kernel(const char *root) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/proc/meminfo", root);
  int64_t kilobytes = read_number(path, "MemAvailable:");
  return kilobytes < 0 || kilobytes > INT64_MAX / 1024 ? INT64_MAX : kilobytes * 1024;
}

/* What one group may still take.  File pages that nobody used lately make room when it is needed. */
static int64_t left_in_group(const char *folder, const char *limit_name, const char *usage_name,
                             const char *idle_name) {
  char path[PATH_MAX];
  snprintf(path, sizeof path, "%s/%s", folder, limit_name);
  int64_t limit = read_number(path, "");
  snprintf(path, sizeof path, "%s/%s", folder, usage_name);
  int64_t used = read_number(path, "");
  snprintf(path, sizeof path, "%s/memory.stat", folder);
  int64_t idle = read_number(path, idle_name);
  if (limit < 0 || used < 0)
    return INT64_MAX;
  used -= idle > 0 && idle < used ? idle : 0;
  return limit > used ? limit - used : 0;
}

/* The group and all above it: each has a limit of its own. */
static int64_t least_of_groups(const char *mount, char *group, bool second) {
  int64_t least = INT64_MAX;
  for (;;) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s%s", mount, group);
    int64_t left =
        second ? left_in_group(folder, "memory.max", "memory.current", "inactive_file ")
               : left_in_group(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ");
    least = left < least ? left : least;
    char *slash = strrchr(group, '/');
    if (slash == NULL)
      return least;
    *slash = '\0';
  }
}

int64_t host_memory_of_group(const char *root) {
  char path[PATH_MAX], line[PATH_MAX], mount[PATH_MAX];
  int64_t least = INT64_MAX;
  snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
  FILE *file = fopen(path, "re");
  while (file != NULL && fgets(line, sizeof line, file) != NULL) { /* number:controllers:/group */
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':'), *group = controllers == NULL ? NULL : strchr(controllers + 1, ':');
    if (group == NULL)
      continue;
    *group++ = '\0';
    bool second = controllers[1] == '\0';
    if (!second && strstr(controllers + 1, "memory") == NULL)
      continue;
    snprintf(mount, sizeof mount, "%s/sys/fs/cgroup%s", root, second ? "" : "/memory");
    int64_t left = least_of_groups(mount, group, second);
    least = left < least ? left : least;
  }
  if (file != NULL)
    fclose(file);
  return least;
}

int64_t host_memory_available(void) {
  struct statvfs shared;
  int64_t kernel = host_memory_of_kernel(""), group = host_memory_of_group(""), least = kernel < group ? kernel : group;
  if (statvfs("/dev/shm", &shared) != 0)
    return 0;
  int64_t room = (int64_t)((double)shared.f_bavail * (double)shared.f_frsize);
  least = room < least ? room : least;
  return least == INT64_MAX ? 0 : least;
}
