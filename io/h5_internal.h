/* What the sources behind h5.h share. */
#ifndef CONR_IO_H5_INTERNAL_H
#define CONR_IO_H5_INTERNAL_H

#include "io/h5.h"
#include "io/h5_sink.h"

struct h5_file {
  hid_t id;
  bool writing;
  struct h5_sink sink; /* file -1 when reading */
  char path[];         /* for sentences        */
};

/* ERR_FILE once a write has failed. */
enum status h5_writable(const struct h5_file *file);

enum h5_content h5_content_of(hid_t type);
hid_t h5_memory_type(enum array_type type);

#endif
