/* Cases of the conformance list of communicators (tests/ranks/rank_comm.c): sums and rows that are under way while
 * other work is done.  Each takes a communicator of all ranks, is collective, and records its faults. */
#ifndef CONR_TESTS_COMM_IN_FLIGHT_H
#define CONR_TESTS_COMM_IN_FLIGHT_H

#include "dist/comm.h"

enum { PATIENCE_SECONDS = 30 }; /* what has not arrived by then is taken for lost */

void sums_in_flight_end_by_waiting_in_any_order(struct comm *comm);
void sums_in_flight_end_by_progress_alone(struct comm *comm);
void sums_in_flight_end_by_some_progress_and_a_wait(struct comm *comm);
void other_collectives_run_while_sums_are_in_flight(struct comm *comm);
void progress_is_not_done_before_all_ranks_take_part(struct comm *comm);
void sum_in_flight_has_the_same_bits_on_all_ranks_and_every_time(struct comm *comm);
void rows_in_flight_end_by_waiting_in_any_order(struct comm *comm);
void rows_in_flight_end_by_progress_alone(struct comm *comm);
void rows_and_sums_are_in_flight_together(struct comm *comm);
void rows_in_pieces_cost_no_more(struct comm *comm);

#endif
