/* conr train, on one rank of which each step takes longer.
 *
 *   rank_slow RANK MILLISECONDS DATA.h5 [options of conr train] */
#include "launch/train.h"
#include "tests/rank_record.h"

#include <mpi.h>
#include <stdlib.h>
#include <unistd.h>

static void sleep_a_while(void *context, const struct trainer *trainer, const struct train_step *step) {
  (void)trainer;
  (void)step;
  usleep(*(const useconds_t *)context);
}

int main(int argc, char **argv) {
  struct config config;
  struct session session;
  struct train_result result;
  rank_record_begin(&argc, &argv);
  MUST_HOLD(argc > 3);
  bool slow = record.rank == atoi(argv[1]);
  useconds_t microseconds = slow ? 1000 * (useconds_t)atoi(argv[2]) : 0;
  struct train_observer observer = {&microseconds, sleep_a_while};
  argv[1] = "conr";
  argv[2] = "train";
  MUST(config_parse(argc - 1, argv + 1, &config));
  MUST(session_open(MPI_COMM_WORLD, &config, &session));
  MUST(session_open_device(&session, &config));
  MUST(train(&session, &config, &observer, &result));
  session_close(&session);
  config_destroy(&config);
  return rank_record_end();
}
