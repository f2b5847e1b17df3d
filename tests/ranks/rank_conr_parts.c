/* ConR whose rows come block by block, on any number of ranks.
 *
 *   rank_conr_parts [case]   all cases, or one; ends non-zero and says what was wrong
 *
 * What travels when is seen by counting_comm.h. */
#include "dist/log.h"
#include "dist/memory.h"
#include "loss/conr_internal.h"
#include "tests/conr_cases.h"
#include "tests/counting_comm.h"
#include "tests/rank_record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- a batch in views and pieces */

/* The own rows of a batch whose samples are shared out: all first views, then all second ones, ... */
struct own_rows {
  const struct conr_case *given; /* rows of all ranks, one rank's behind the other's */
  enum conr_precision precision;
  int features, targets, views;
  int64_t samples, rows; /* of this rank */
  int64_t samples_of_rank[64], rows_of_rank[64];
  char *feature, *label, *prediction, *weight;
};

static char *as_real(enum conr_precision precision, const double *values, int64_t first, int64_t count) {
  char *out = malloc((size_t)count * sizeof(double) + 1);
  for (int64_t i = 0; i < count; i++)
    dtype_put(precision == CONR_F32 ? F32 : F64, out, i, values[first + i]);
  return out;
}

static struct own_rows make_share(const struct conr_case *given, enum conr_precision precision, enum share how,
                                  int views) {
  struct own_rows share = {
      .given = given, .precision = precision, .features = given->features, .targets = given->targets, .views = views};
  int64_t first = views * conr_share(how, given->rows / views, record.rank, record.size, share.samples_of_rank);
  for (int rank = 0; rank < record.size; rank++)
    share.rows_of_rank[rank] = views * share.samples_of_rank[rank];
  share.samples = share.samples_of_rank[record.rank];
  share.rows = share.rows_of_rank[record.rank];
  share.feature = as_real(precision, given->feature.data, first * share.features, share.rows * share.features);
  share.label = as_real(precision, given->label.data, first * share.targets, share.rows * share.targets);
  share.prediction = as_real(precision, given->prediction.data, first * share.targets, share.rows * share.targets);
  share.weight = as_real(precision, given->weight.data, first, share.rows);
  return share;
}

static void free_share(struct own_rows *share) {
  free(share->feature);
  free(share->label);
  free(share->prediction);
  free(share->weight);
}

static struct conr_batch rows_from(const struct own_rows *share, int64_t first) {
  size_t real = share->precision == CONR_F32 ? sizeof(float) : sizeof(double);
  return (struct conr_batch){.features = share->feature + (size_t)(first * share->features) * real,
                             .labels = share->label + (size_t)(first * share->targets) * real,
                             .predictions = share->prediction + (size_t)(first * share->targets) * real,
                             .weights = share->weight + (size_t)first * real};
}

static struct conr_batch all_rows(const struct own_rows *share) {
  struct conr_batch batch = rows_from(share, 0);
  batch.rows = share->rows;
  batch.rows_of_rank = share->rows_of_rank;
  return batch;
}

/* One view of one of the pieces.  block_of_rank, first_of_rank [ranks]: filled */
static struct conr_batch block_of(const struct own_rows *share, int view, int64_t piece, int64_t pieces,
                                  int64_t *block_of_rank, int64_t *first_of_rank) {
  for (int rank = 0; rank < record.size; rank++) {
    int64_t samples = share->samples_of_rank[rank], begin = samples * piece / pieces;
    first_of_rank[rank] = view * samples + begin;
    block_of_rank[rank] = samples * (piece + 1) / pieces - begin;
  }
  struct conr_batch block = rows_from(share, first_of_rank[record.rank]);
  block.rows = block_of_rank[record.rank];
  block.rows_of_rank = block_of_rank;
  return block;
}

static void add_piece(struct conr *conr, const struct own_rows *share, int64_t piece, int64_t pieces) {
  for (int view = 0; view < share->views; view++) {
    int64_t block_of_rank[64], first_of_rank[64];
    struct conr_batch block = block_of(share, view, piece, pieces, block_of_rank, first_of_rank);
    EXPECT_OK(conr_add(conr, &block, first_of_rank));
  }
}

static void *room_for_gradient(const struct own_rows *share) {
  return calloc((size_t)(share->rows * share->features) + 1, sizeof(double));
}

static size_t gradient_bytes(const struct own_rows *share) {
  return (size_t)(share->rows * share->features) * (share->precision == CONR_F32 ? sizeof(float) : sizeof(double));
}

static struct conr *create(const struct conr_case *given, enum conr_precision precision, enum conr_path path) {
  struct conr_options options = given->options;
  struct conr *conr;
  options.path = path;
  MUST_HOLD(conr_create(MPI_COMM_WORLD, given->features, given->targets, precision, &options, &conr) == 0);
  return conr;
}

/* ---------------------------------------------------------------- the same bits */

/* Those who borrow get the rows of all ranks as they were added; where nothing is lent they get nothing. */
static void check_lent(const struct conr *conr, const struct own_rows *share, bool lend, const char *what) {
  const struct conr_case *given = share->given;
  int64_t features = given->rows * given->features, labels = given->rows * given->targets;
  size_t real = share->precision == CONR_F32 ? sizeof(float) : sizeof(double);
  char *z = as_real(share->precision, given->feature.data, 0, features);
  char *label = as_real(share->precision, given->label.data, 0, labels);
  struct lent_rows lent = conr_lent(conr);
  EXPECT(lent.there == lend, "%s: rows are lent: %d", what, lent.there);
  EXPECT(!lend || (lent.stride == given->features && lent.label_stride == given->targets &&
                   memcmp(lent.z, z, (size_t)features * real) == 0 &&
                   memcmp(lent.labels, label, (size_t)labels * real) == 0),
         "%s: other rows are lent than were added", what);
  free(z);
  free(label);
}

/* Against conr_loss() of the undivided batch, by the same object: what a batch in pieces leaves is no part of the
 * next. */
static void check_cut(struct conr *conr, const struct own_rows *share, int64_t pieces, bool pushed, bool lend,
                      const char *what) {
  struct conr_batch batch = all_rows(share);
  struct conr_result whole, cut;
  void *wanted = room_for_gradient(share), *got = room_for_gradient(share);
  EXPECT_OK((enum status)conr_loss(conr, &batch, wanted, &whole));
  EXPECT_OK(conr_begin(conr, &batch, (int)pieces * share->views, lend));
  for (int64_t piece = 0; piece < pieces; piece++) {
    add_piece(conr, share, piece, pieces);
    for (int i = 0; pushed && i <= record.rank; i++) /* each rank at a pace of its own */
      EXPECT_OK(conr_progress(conr));
  }
  EXPECT_OK(conr_finish(conr, share->feature, got, &cut));
  EXPECT(cut.loss == whole.loss && memcmp(got, wanted, gradient_bytes(share)) == 0,
         "%s, %d views in %lld pieces: loss %.17g, undivided %.17g, or other gradients", what, share->views,
         (long long)pieces, cut.loss, whole.loss);
  EXPECT(cut.bytes_received == whole.bytes_received && cut.path == whole.path && cut.rows == whole.rows,
         "%s: %lld bytes, undivided %lld", what, (long long)cut.bytes_received, (long long)whole.bytes_received);
  EXPECT(cut.gather_seconds >= 0 && cut.gather_seconds < 60, "%g s in gathers", cut.gather_seconds);
  check_lent(conr, share, lend, what);
  free(wanted);
  free(got);
}

/* Every third batch is not lent: four numbers of pieces come in turn, so each of them comes with both. */
static void check_pieces(struct conr *conr, const struct own_rows *share, int64_t pieces, bool pushed,
                         const char *what) {
  static int batches;
  check_cut(conr, share, pieces, pushed, batches++ % 3 != 0, what);
}

static void pieces_have_the_bits_of_the_whole(void) {
  static const int64_t pieces[] = {1, 2, 3, 7};
  for (int targets = 1; targets <= 2; targets++) {
    struct conr_case given = conr_case_random(114, 13, targets, 5, 40 + (uint64_t)targets);
    given.options.w = 2;
    for (enum conr_precision precision = CONR_F32; precision <= CONR_F64; precision++)
      for (enum conr_path path = CONR_DENSE; path <= CONR_BANDED; path++) {
        struct conr *conr = create(&given, precision, path);
        for (enum share how = SHARE_EVEN; how < SHARES; how++)
          for (int views = 1; views <= 3; views++) {
            struct own_rows share = make_share(&given, precision, how, views);
            for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
              check_pieces(conr, &share, pieces[i], i % 2 == 0, share_names[how]);
            free_share(&share);
          }
        conr_destroy(&conr);
      }
    conr_case_free(&given);
  }
}

/* More pieces than samples, and no rows at all. */
static void pieces_may_be_empty_on_all_ranks(void) {
  for (int64_t rows = 0; rows <= 6; rows += 2) {
    struct conr_case given = conr_case_random(rows, 4, 1, 5, 3);
    struct conr *conr = create(&given, CONR_F64, CONR_AUTO);
    for (enum share how = SHARE_EVEN; how < SHARES; how++) {
      struct own_rows share = make_share(&given, CONR_F64, how, 2);
      check_pieces(conr, &share, 5, true, share_names[how]);
      free_share(&share);
    }
    conr_destroy(&conr);
    conr_case_free(&given);
  }
}

static void batches_after_the_first_take_no_memory(void) {
  struct conr_case given = conr_case_random(60, 8, 1, 5, 11);
  struct conr *conr = create(&given, CONR_F32, CONR_AUTO);
  struct own_rows share = make_share(&given, CONR_F32, SHARE_UNEVEN, 2);
  check_cut(conr, &share, 4, false, true, "first"); /* all in flight together, and lent */
  size_t in_use = memory_in_use();
  for (int i = 0; i < 3; i++)
    check_pieces(conr, &share, 4, true, "later");
  EXPECT(memory_in_use() == in_use, "%zu bytes more in use", memory_in_use() - in_use);
  free_share(&share);
  conr_destroy(&conr);
  conr_case_free(&given);
}

/* ---------------------------------------------------------------- overlap: counted, not timed */

enum { PIECES = 5, PATIENCE_SECONDS = 30 };

/* A piece is added, then pushed until it is there: before the rows of the next exist. */
static void each_piece_arrives_before_the_next_is_added(void) {
  struct conr_case given = conr_case_random(90, 8, 1, 5, 12);
  struct conr *conr = create(&given, CONR_F64, CONR_AUTO);
  struct own_rows share = make_share(&given, CONR_F64, SHARE_EVEN, 1);
  struct conr_batch batch = all_rows(&share);
  struct conr_result result;
  void *grad = room_for_gradient(&share);
  start_counting(conr->comm);
  double begin = log_seconds();
  EXPECT_OK(conr_begin(conr, &batch, PIECES, false));
  for (int piece = 0; piece < PIECES; piece++) {
    EXPECT(counted.ended_by_progress == piece, "%d of %d pieces have arrived", counted.ended_by_progress, piece);
    add_piece(conr, &share, piece, PIECES);
    EXPECT(counted.gathers == piece + 1, "%d gathers for %d pieces", counted.gathers, piece + 1);
    while (counted.ended_by_progress <= piece && log_seconds() < begin + PATIENCE_SECONDS)
      EXPECT_OK(conr_progress(conr));
  }
  EXPECT_OK(conr_finish(conr, share.feature, grad, &result));
  EXPECT(counted.waits == 0, "%d gathers were still in flight at the end", counted.waits);
  stop_counting(conr->comm);
  free(grad);
  free_share(&share);
  conr_destroy(&conr);
  conr_case_free(&given);
}

/* The other side of the count: while the last rank has not begun, nothing can arrive on rank 0, which then has to wait
 * for every piece.  Rank 0 lets the last rank go only after it has seen that. */
static void what_the_other_ranks_have_not_sent_is_waited_for(void) {
  int last = record.size - 1, go = 1;
  if (last == 0)
    return;
  struct conr_case given = conr_case_random(90, 8, 1, 5, 13);
  struct conr *conr = create(&given, CONR_F64, CONR_AUTO);
  struct own_rows share = make_share(&given, CONR_F64, SHARE_EVEN, 1);
  struct conr_batch batch = all_rows(&share);
  struct conr_result result;
  void *grad = room_for_gradient(&share);
  check_pieces(conr, &share, PIECES, false, "the first"); /* makes room: the next begins without messages */
  start_counting(conr->comm);
  if (record.rank == last)
    MPI_Recv(&go, 1, MPI_INT, 0, 6, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
  EXPECT_OK(conr_begin(conr, &batch, PIECES, false));
  for (int piece = 0; piece < PIECES; piece++)
    add_piece(conr, &share, piece, PIECES);
  for (int i = 0; i < 100; i++)
    EXPECT_OK(conr_progress(conr));
  if (record.rank == 0) {
    EXPECT(counted.ended_by_progress == 0, "%d pieces arrived without rank %d", counted.ended_by_progress, last);
    MPI_Send(&go, 1, MPI_INT, last, 6, MPI_COMM_WORLD);
  }
  EXPECT_OK(conr_finish(conr, share.feature, grad, &result));
  EXPECT(counted.waits == PIECES - counted.ended_by_progress, "%d waits, %d pieces ended by progress", counted.waits,
         counted.ended_by_progress);
  EXPECT(record.rank != 0 || result.gather_seconds > 0, "the wait took %g s", result.gather_seconds);
  stop_counting(conr->comm);
  free(grad);
  free_share(&share);
  conr_destroy(&conr);
  conr_case_free(&given);
}

/* ---------------------------------------------------------------- faults */

static void expect_status(enum status status, enum status wanted, const char *words, int line) {
  EXPECT(status == wanted && strstr(status_message(), words) != NULL, "line %d: %s, \"%s\" instead of \"%s\"", line,
         status_name(status), status_message(), words);
}

/* What befalls the last rank in its second piece is a sentence on all ranks at the end; the next batch is sound. */
static void a_fault_in_one_piece_is_a_sentence_on_all(void) {
  struct conr_case given = conr_case_random(80, 6, 1, 5, 14);
  struct conr *conr = create(&given, CONR_F64, CONR_AUTO);
  struct own_rows share = make_share(&given, CONR_F64, SHARE_EVEN, 1);
  struct conr_batch batch = all_rows(&share);
  struct conr_result result;
  void *grad = room_for_gradient(&share);
  int last = record.size - 1;
  int64_t second = share.samples_of_rank[last] / 2;
  char words[100];
  for (int fault = 0; fault < 4; fault++) {
    int64_t block_of_rank[64], first_of_rank[64];
    EXPECT_OK(conr_begin(conr, &batch, 2, false));
    add_piece(conr, &share, 0, 2);
    double kept = record.rank == last ? dtype_get(F64, share.feature, second * 6) : 0;
    if (fault == 0 && record.rank == last)
      dtype_put(F64, share.feature, second * 6, NAN);
    struct conr_batch block = block_of(&share, 0, 1, 2, block_of_rank, first_of_rank);
    if (fault == 1 && record.rank == last)
      block.features = NULL;
    if (fault == 2 && record.rank == last)
      block.rows--;
    if (fault < 3)
      EXPECT_OK(conr_add(conr, &block, first_of_rank));
    enum status status = conr_finish(conr, share.feature, grad, &result);
    if (record.rank == last)
      dtype_put(F64, share.feature, second * 6, kept);
    if (fault == 0)
      snprintf(words, sizeof words, "row %lld on rank %d is not finite", (long long)second, last);
    else if (fault < 3)
      snprintf(words, sizeof words, "rank %d brought NULL arrays, or other rows", last);
    else
      snprintf(words, sizeof words, "of its 80 rows");
    expect_status(status, fault == 0 ? ERR_NUMERIC : fault < 3 ? ERR_ARGUMENT : ERR_BUG, words, __LINE__);
    EXPECT(fault == 3 || status_agreed(), "fault %d: the ranks have not agreed", fault);
    check_pieces(conr, &share, 3, true, "after a fault");
  }
  free(grad);
  free_share(&share);
  conr_destroy(&conr);
  conr_case_free(&given);
}

static void calls_in_another_order_are_refused(void) {
  struct conr_case given = conr_case_random(40, 6, 1, 5, 15);
  struct conr *conr = create(&given, CONR_F64, CONR_AUTO);
  struct own_rows share = make_share(&given, CONR_F64, SHARE_EVEN, 1);
  struct conr_batch batch = all_rows(&share);
  struct conr_result result;
  int64_t block_of_rank[64], first_of_rank[64];
  expect_status(conr_finish(conr, share.feature, NULL, &result), ERR_BUG, "ConR was given -1", __LINE__);
  EXPECT_OK(conr_begin(conr, &batch, 2, false));
  add_piece(conr, &share, 0, 2);
  expect_status(conr_begin(conr, &batch, 2, false), ERR_BUG, "in flight", __LINE__);
  struct conr_batch block = block_of(&share, 0, 1, 2, block_of_rank, first_of_rank);
  for (int rank = 0; rank < record.size; rank++)
    first_of_rank[rank]++;
  expect_status(conr_add(conr, &block, first_of_rank), ERR_BUG, "rank 0 adds rows", __LINE__);
  expect_status(conr_finish(conr, share.feature, NULL, &result), ERR_BUG, "ConR was given", __LINE__);
  check_pieces(conr, &share, 2, true, "afterwards");
  free_share(&share);
  conr_destroy(&conr);
  conr_case_free(&given);
}

/* ---------------------------------------------------------------- */

#define CASE(function) \
  { #function, function }
static const struct {
  const char *name;
  void (*run)(void);
} cases[] = {
    CASE(pieces_have_the_bits_of_the_whole),
    CASE(pieces_may_be_empty_on_all_ranks),
    CASE(batches_after_the_first_take_no_memory),
    CASE(each_piece_arrives_before_the_next_is_added),
    CASE(what_the_other_ranks_have_not_sent_is_waited_for),
    CASE(a_fault_in_one_piece_is_a_sentence_on_all),
    CASE(calls_in_another_order_are_refused),
};

int main(int argc, char **argv) {
  bool ran = false;
  rank_record_begin(&argc, &argv);
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    if (argc > 1 && strcmp(argv[1], cases[i].name) != 0)
      continue;
    record.name = cases[i].name;
    cases[i].run();
    EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
    ran = true;
  }
  EXPECT(ran, "there is no case %s", argc > 1 ? argv[1] : "");
  return rank_record_end();
}
