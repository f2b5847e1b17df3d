/* Training steps of networks with batch norm on 1 to 4 ranks: the programs of tests/ranks/rank_image_net.c. */
#include "tests/run_ranks.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

static void run_case(const char *name) {
  const char *arguments[] = {name, NULL};
  struct run_result run;
  for (int ranks = 1; ranks <= 4; ranks++) {
    int status = run_ranks_within(100, ranks, "rank_image_net", arguments, &run);
    cr_assert(eq(int, status, 0), "%s on %d ranks:\n%s", name, ranks, run.output);
    run_result_free(&run);
  }
}

Test(image_net, ranks_that_share_statistics_equal_one_rank, .timeout = 200) {
  run_case("equal_f64");
}

Test(image_net, five_steps_of_resnet18_equal_those_of_one_rank, .timeout = 200) {
  run_case("resnet18");
}

Test(image_net, reconstructions_equal_those_of_one_rank, .timeout = 200) {
  run_case("reconstruction");
}

Test(image_net, micro_batches_equal_the_whole_batch_without_batch_norm, .timeout = 200) {
  run_case("micro_batch");
}

Test(image_net, rows_of_conr_travel_while_the_next_piece_goes_forward, .timeout = 200) {
  run_case("overlap");
}

Test(image_net, running_statistics_do_not_depend_on_pieces_or_ranks, .timeout = 200) {
  run_case("statistics");
}

Test(image_net, three_views_update_running_statistics_in_the_published_order, .timeout = 200) {
  run_case("order");
}

Test(image_net, the_same_steps_give_the_same_bits, .timeout = 200) {
  run_case("repeatable");
}
