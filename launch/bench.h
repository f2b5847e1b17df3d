/* The subjects of conr bench.  Each prints figures with their ceiling beside them: a table for people, or one JSON object a
 * line with --json (keys: launch/README.md).  All are collective. */
#ifndef CONR_LAUNCH_BENCH_H
#define CONR_LAUNCH_BENCH_H

#include "launch/config.h"
#include "launch/session.h"

enum status bench_loss(struct session *session, const struct config *config);   /* ConR and its gradient   */
enum status bench_step(struct session *session, const struct config *config);   /* a whole training step   */
enum status bench_loader(struct session *session, const struct config *config); /* reading and decoding    */

#define BENCH_GEMM_SIZE 2048

/* GFLOP/s of a plain 2048^3 float32 product on this rank's threads: the ceiling.  Local. */
enum status bench_gemm(double *gflops);

#endif
