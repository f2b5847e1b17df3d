/* An HDF5 file driver that remembers a failed write instead of reporting it. */
#include "io/h5_sink.h"

#include "dist/memory.h"
#include "io/storage.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#if H5_VERSION_GE(1, 14, 0)
#include <H5FDdevelop.h>
#endif

#define MOST_ADDRESS ((haddr_t)1 << 62)

/* What HDF5 holds while the file is open; `base` must come first. */
struct sink_file {
  H5FD_t base;
  struct h5_sink *sink; /* borrowed */
  haddr_t allocated;    /* HDF5's end of allocation */
  haddr_t end;          /* bytes written so far     */
};

/* The driver's property: what H5Pset_driver copies. */
struct sink_property {
  struct h5_sink *sink;
};

static H5FD_t *sink_open(const char *name, unsigned flags, hid_t access, haddr_t most_address) {
  (void)name, (void)flags, (void)most_address;
  const struct sink_property *property = H5Pget_driver_info(access);
  struct sink_file *file = NULL;
  if (property == NULL || memory_alloc_zero(sizeof *file, (void **)&file) != STATUS_OK)
    return NULL;
  file->sink = property->sink;
  return &file->base;
}

static herr_t sink_close(H5FD_t *base) {
  void *file = base;
  memory_free(&file);
  return 0;
}

static herr_t sink_query(const H5FD_t *base, unsigned long *flags) {
  (void)base;
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_DATA_SIEVE |
           H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

static haddr_t sink_get_allocated(const H5FD_t *base, H5FD_mem_t type) {
  (void)type;
  return ((const struct sink_file *)base)->allocated;
}

static herr_t sink_set_allocated(H5FD_t *base, H5FD_mem_t type, haddr_t address) {
  (void)type;
  ((struct sink_file *)base)->allocated = address;
  return 0;
}

static haddr_t sink_get_end(const H5FD_t *base, H5FD_mem_t type) {
  (void)type;
  return ((const struct sink_file *)base)->end;
}

/* What was never written, or could not be, reads as zeros. */
static herr_t sink_read(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size, void *buffer) {
  (void)type, (void)transfer;
  const struct sink_file *file = (const struct sink_file *)base;
  ssize_t got = storage_read(file->sink->file, buffer, size, (int64_t)address);
  size_t there = got > 0 ? (size_t)got : 0;
  memset((char *)buffer + there, 0, size - there);
  return 0;
}

static herr_t sink_write(H5FD_t *base, H5FD_mem_t type, hid_t transfer, haddr_t address, size_t size,
                         const void *buffer) {
  (void)type, (void)transfer;
  struct sink_file *file = (struct sink_file *)base;
  if (address + size > file->end)
    file->end = address + size;
  if (file->sink->error == 0)
    file->sink->error = storage_write(file->sink->file, buffer, size, (int64_t)address);
  return 0;
}

static herr_t sink_truncate(H5FD_t *base, hid_t transfer, hbool_t closing) {
  (void)transfer, (void)closing;
  struct sink_file *file = (struct sink_file *)base;
  file->end = file->allocated;
  if (file->sink->error == 0)
    file->sink->error = storage_truncate(file->sink->file, (int64_t)file->allocated);
  return 0;
}

static const H5FD_class_t sink_class = {
#ifdef H5FD_CLASS_VERSION
    .version = H5FD_CLASS_VERSION,
    .value = (H5FD_class_value_t)611, /* any value outside the library's own */
#endif
    .name = "conr_sink",
    .maxaddr = MOST_ADDRESS,
    .fc_degree = H5F_CLOSE_STRONG,
    .fapl_size = sizeof(struct sink_property),
    .open = sink_open,
    .close = sink_close,
    .query = sink_query,
    .get_eoa = sink_get_allocated,
    .set_eoa = sink_set_allocated,
    .get_eof = sink_get_end,
    .read = sink_read,
    .write = sink_write,
    .truncate = sink_truncate,
    .fl_map = H5FD_FLMAP_DICHOTOMY,
};

enum status h5_sink_select(hid_t access, struct h5_sink *sink) {
  struct sink_property property = {sink};
  hid_t driver = H5FDregister(&sink_class);
  REQUIRE(driver >= 0, ERR_BUG, "HDF5 refused the file driver");
  /* The property list takes its own reference to the driver. */
  herr_t set = H5Pset_driver(access, driver, &property);
  H5FDunregister(driver);
  REQUIRE(set >= 0, ERR_BUG, "HDF5 refused the file driver");
  return STATUS_OK;
}
