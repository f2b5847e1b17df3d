/* Versions of the libraries that the program runs with. */
#ifndef CONR_LAUNCH_INFO_H
#define CONR_LAUNCH_INFO_H

struct info_versions {
  char mpi[256], hdf5[32], onednn[32];
};

/* Local; also before MPI has begun. */
void info_versions(struct info_versions *out);

#endif
