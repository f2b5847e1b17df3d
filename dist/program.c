/* The path of the running program, and the marks its linker left. */
#define _GNU_SOURCE /* dl_iterate_phdr */
#include "dist/program.h"

#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *program_path(char path[PATH_MAX]) {
  ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
  path[length > 0 ? length : 0] = '\0';
  return length > 0 ? path : strcpy(path, "conr");
}

/* ---- build ids ------------------------------------------------------------------------------ */

#define LEAST_ID_BYTES 8 /* what is shown of an id */

/* The build id among the notes of one loaded object; NULL = it has none. */
static const unsigned char *find_build_id(const struct dl_phdr_info *object) {
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &object->dlpi_phdr[i];
    const char *note = (const char *)(object->dlpi_addr + segment->p_vaddr), *end = note + segment->p_memsz;
    if (segment->p_type != PT_NOTE)
      continue;
    while (note + sizeof(ElfW(Nhdr)) <= end) {
      const ElfW(Nhdr) *head = (const void *)note;
      const char *name = note + sizeof *head, *content = name + ((head->n_namesz + 3) & ~3u);
      if (head->n_type == NT_GNU_BUILD_ID && head->n_descsz >= LEAST_ID_BYTES && head->n_namesz == sizeof "GNU" &&
          memcmp(name, "GNU", sizeof "GNU") == 0)
        return (const unsigned char *)content;
      note = content + ((head->n_descsz + 3) & ~3u);
    }
  }
  return NULL;
}

struct listing {
  char *text;
  size_t bytes, used;
  int objects;
};

static void add(struct listing *list, const char *name, const unsigned char *id, const char *path) {
  char words[NAME_MAX + 64];
  struct stat entry;
  int length = snprintf(words, sizeof words, "%s%.200s ", list->used > 0 ? ", " : "", name);
  if (id != NULL)
    for (int i = 0; i < LEAST_ID_BYTES; i++)
      length += sprintf(words + length, "%02x", id[i]);
  else
    sprintf(words + length, "of %lld bytes", stat(path, &entry) == 0 ? (long long)entry.st_size : -1);
  list->used += (size_t)snprintf(list->text + list->used, list->bytes - list->used, "%s", words);
  list->used = list->used < list->bytes ? list->used : list->bytes - 1;
}

/* The first object is the executable, which has no name here. */
static int look_at(struct dl_phdr_info *object, size_t bytes, void *context) {
  struct listing *list = context;
  char path[PATH_MAX];
  const char *file = list->objects++ == 0 ? program_path(path) : object->dlpi_name;
  const char *slash = strrchr(file, '/'), *name = slash != NULL ? slash + 1 : file;
  (void)bytes;
  if (list->objects == 1 || strncmp(name, "libconr", strlen("libconr")) == 0)
    add(list, name, find_build_id(object), file);
  return 0;
}

const char *program_builds(char *text, size_t bytes) {
  struct listing list = {.text = text, .bytes = bytes};
  text[0] = '\0';
  dl_iterate_phdr(look_at, &list);
  return text;
}
