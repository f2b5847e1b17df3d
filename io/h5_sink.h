/* The file driver HDF5 writes through: it keeps the first failed write to itself and tells HDF5 that all
 * went well.  HDF5 1.10 cannot close a file on a full disk: H5Fclose fails, the file stays open, and the
 * library crashes at exit.  Here it closes cleanly, and then the error is asked for:
 *
 *     struct h5_sink sink = {.file = descriptor};
 *     hid_t access = H5Pcreate(H5P_FILE_ACCESS);
 *     TRY(h5_sink_select(access, &sink));
 *     hid_t id = H5Fcreate("anything", H5F_ACC_TRUNC, H5P_DEFAULT, access);
 *     ...
 *     H5Fclose(id);
 *     if (sink.error != 0)  ...  an errno; the file is worthless
 *
 * For new files, read back only within the same H5Fcreate..H5Fclose.  Local. */
#ifndef CONR_IO_H5_SINK_H
#define CONR_IO_H5_SINK_H

#include "dist/status.h"

#include <hdf5.h>

struct h5_sink {
  int file;  /* borrowed: open for reading and writing until after H5Fclose */
  int error; /* errno of the first write that failed, 0 = none              */
};

/* Make `access` (a file access property list) use the driver on `sink`, which must outlive the file. */
enum status h5_sink_select(hid_t access, struct h5_sink *sink);

#endif
