/* The subjects of conr bench.  Each prints figures with their ceiling beside them: a table for people, or one JSON
 * object a line with --json (keys: launch/README.md).  All are collective. */
#ifndef CONR_LAUNCH_BENCH_H
#define CONR_LAUNCH_BENCH_H

#include "launch/config.h"
#include "launch/session.h"
#include "model/ops.h"

enum status bench_loss(struct session *session, const struct config *config);   /* ConR and its gradient   */
enum status bench_step(struct session *session, const struct config *config);   /* a whole training step   */
enum status bench_loader(struct session *session, const struct config *config); /* reading and decoding    */
enum status bench_comm(struct session *session, const struct config *config);   /* sums and gathers        */

/* GFLOP/s of a plain product where the ops are: 2048^3 in float32 on this rank's threads; on a GPU a linear layer of
 * 8192^3 in the ops' precision.  The ceiling of what is measured beside it.  Local; the host waits. */
enum status bench_gemm(const struct ops *ops, double *gflops);

/* Float32 to bfloat16, in place. */
void bench_shorten(void *values, size_t count);

/* --precision, with auto's choice for what is measured: f32 on the host, bf16 on a GPU. */
enum status bench_ops(const struct session *session, const struct config *config, const struct ops **out);

#endif
