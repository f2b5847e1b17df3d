/* A split through a network: predictions gathered, and measured where they are.
 *
 *   rank_inference FILE.h5 cpu|cuda      a table (io_table.h); ends non-zero and says what was wrong
 *
 * Every rank also runs the split alone (MPI_COMM_SELF) in one pass, and compares.  Without GPUs CONR_CUDA_LIBRARY names
 * the emulation; ranks work on GPU number rank, modulo their number. */
#include "dist/comm_device.h"
#include "dist/host_copy.h"
#include "dist/memory.h"
#include "launch/inference.h"
#include "launch/model.h"
#include "tests/rank_record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One way to run a split: on all ranks, or alone. */
struct side {
  struct comm *comm, *data;
  struct dataset *dataset;
  struct net *net;
  struct inference *inference;
};

static struct device *device;
static struct head head; /* of the net's outputs */

static void open_side(struct side *side, MPI_Comm mpi, const char *path, int64_t batch, const struct metrics *metrics) {
  const struct ops *ops;
  MUST(comm_create(mpi, &side->comm));
  MUST(comm_create_device(side->comm, device, DEVICE_COMM_AUTO, &side->data));
  MUST(dataset_open(path, side->comm, F32, &side->dataset));
  struct model_description description = {.name = "mlp",
                                          .inputs = dataset_features(side->dataset),
                                          .outputs = head_outputs(&head),
                                          .hidden = "16,8",
                                          .activation = "gelu",
                                          .precision = "f32"};
  MUST(model_build(device, &description, 0, batch, &ops, &side->net));
  MUST(net_initialise(side->net, 5));
  struct inference_parts parts = {.comm = side->comm,
                                  .data = side->data,
                                  .dataset = side->dataset,
                                  .split = SPLIT_TRAIN,
                                  .net = side->net,
                                  .head = head,
                                  .vote = UVOTE_MINVAR,
                                  .batch = batch,
                                  .options = {.views = 1, .device = device}};
  MUST(inference_create(&parts, &side->inference));
  MUST(inference_measure(side->inference, metrics));
}

static void close_side(struct side *side) {
  inference_destroy(&side->inference);
  net_destroy(&side->net);
  dataset_close(&side->dataset);
  comm_destroy(&side->data);
  comm_destroy(&side->comm);
}

/* Bins of 7 labels hold 4 or 5 rows, joint ones of two components 1 to 4: few and many. */
static struct metrics *measure(const char *path, int *of_label) {
  struct metrics_options options = metrics_options_default();
  struct comm *self;
  struct dataset *dataset;
  struct metrics *metrics;
  double labels[1024];
  options.bin_width = 7;
  MUST(comm_create(MPI_COMM_SELF, &self));
  MUST(dataset_open(path, self, F32, &dataset));
  int64_t rows = dataset_split_rows(dataset, SPLIT_TRAIN), targets = *of_label = dataset_targets(dataset);
  MUST_HOLD(rows * targets <= 1024);
  options.many_over = targets == 1 ? 4 : 1;
  options.few_under = options.many_over + 1;
  for (int64_t i = 0; i < rows * targets; i++)
    labels[i] = dataset_target(dataset)[dataset_split_ids(dataset, SPLIT_TRAIN)[i / targets] * targets + i % targets];
  MUST(metrics_create(&options, F64, rows, (int)targets, labels, &metrics));
  dataset_close(&dataset);
  comm_destroy(&self);
  return metrics;
}

/* Sums of doubles in another order, and correlations, whose largest value is 1. */
static void expect_same_tables(const struct metrics_table *got, const struct metrics_table *wanted) {
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++) {
    const double *a = &got->row[group].mae, *b = &wanted->row[group].mae;
    EXPECT(got->row[group].count == wanted->row[group].count, "%lld rows in group %d", (long long)got->row[group].count,
           group);
    for (int i = 0; i < 9; i++)
      EXPECT(isnan(b[i]) ? isnan(a[i]) : fabs(a[i] - b[i]) <= 1e-12 * fmax(fabs(b[i]), i < 7 ? 0 : 1),
             "group %d, figure %d: %.17g, wanted %.17g", group, i, a[i], b[i]);
  }
}

/* Figures come before the predictions do, which nobody asks for until then the first time. */
static void check_run(struct side *all, const struct side *alone, const struct metrics *metrics, bool first) {
  struct inference *inference = all->inference;
  int64_t count = inference->rows * inference->targets;
  struct metrics_table table, wanted;
  double mae, mse, largest = 0;
  memset(&table, 0, sizeof table);
  MUST(inference_run(inference));
  MUST(inference_table(inference, &table));
  MUST(inference_errors(inference, &mae, &mse));
  EXPECT((inference->predictions == NULL) == (device != NULL && first),
         "predictions of a device came to the host unasked");
  EXPECT_OK(comm_same(all->comm, "a table", &table, sizeof table));
  MUST(inference_fetch(inference));
  MUST(metrics_compute(metrics, F64, inference->rows, inference->labels, inference->predictions, &wanted));
  expect_same_tables(&table, &wanted);
  EXPECT(wanted.row[METRICS_FEW].count > 0 && wanted.row[METRICS_MANY].count > 0, "a group is empty");
  EXPECT(fabs(mae - wanted.row[METRICS_ALL].mae) <= 1e-12 * mae, "mae %.17g", mae);
  EXPECT(fabs(mse - wanted.row[METRICS_ALL].mse) <= 1e-12 * mse, "mse %.17g", mse);
  for (int64_t i = 0; i < count; i++)
    largest = fmax(largest, fabs(alone->inference->predictions[i]));
  /* Float32 sums of 16 terms or fewer, in an order that depends on the size of a pass. */
  for (int64_t i = 0; i < count; i++)
    EXPECT(fabs(inference->predictions[i] - alone->inference->predictions[i]) <= 1e-6 * largest,
           "prediction %lld is %.9g, alone %.9g", (long long)i, inference->predictions[i],
           alone->inference->predictions[i]);
}

/* All rows' outputs, on the host. */
static double *outputs_of(const struct inference *inference) {
  int64_t count = inference->rows * head_outputs(&head);
  double *outputs = malloc((size_t)count * sizeof *outputs);
  if (device == NULL) {
    memcpy(outputs, inference->outputs, (size_t)count * sizeof *outputs);
    return outputs;
  }
  struct host_copy copy;
  MUST(host_copy_create(device, inference->outputs_there, (size_t)count * sizeof(float), &copy));
  MUST(host_copy_fetch(&copy));
  for (int64_t i = 0; i < count; i++)
    outputs[i] = ((float *)copy.data)[i];
  host_copy_destroy(&copy);
  return outputs;
}

/* What is answered, and how far it may be off, follows from the outputs: on a GPU rounded to float32. */
static void check_answers(struct side *all, const struct metrics *metrics) {
  struct inference *inference = all->inference;
  int64_t count = inference->rows * inference->targets;
  double *outputs = outputs_of(inference), *answers = malloc((size_t)count * sizeof *answers),
         *spread = malloc((size_t)count * sizeof *spread);
  int last = head.kind == HEAD_EXPERTS ? UVOTE_FIRST : UVOTE_AVG;
  for (int vote = UVOTE_AVG; vote <= last; vote++) {
    struct metrics_table table, wanted;
    MUST(inference_vote(inference, (enum uvote_vote)vote));
    memset(&table, 0, sizeof table);
    MUST(inference_table(inference, &table));
    MUST(inference_fetch(inference));
    MUST(head_answer(&head, NULL, (enum uvote_vote)vote, F64, inference->rows, outputs, inference->labels, answers,
                     spread));
    for (int64_t i = 0; i < count; i++) {
      double rounding = device == NULL ? 0 : 0x1p-24;
      EXPECT(fabs(inference->predictions[i] - answers[i]) <= rounding * fabs(answers[i]), "vote %d, answer %lld: %.9g",
             vote, (long long)i, inference->predictions[i]);
      EXPECT(fabs(inference->spread[i] - spread[i]) <= rounding * fabs(spread[i]), "vote %d, spread %lld: %.9g", vote,
             (long long)i, inference->spread[i]);
    }
    MUST(metrics_compute(metrics, F64, inference->rows, inference->labels, inference->predictions, &wanted));
    expect_same_tables(&table, &wanted);
  }
  MUST(inference_vote(inference, UVOTE_MINVAR));
  free(outputs);
  free(answers);
  free(spread);
}

static void check_batch(const char *path, int64_t batch, const struct metrics *metrics) {
  struct side all, alone;
  open_side(&alone, MPI_COMM_SELF, path, 1000, metrics);
  open_side(&all, MPI_COMM_WORLD, path, batch, metrics);
  MUST(inference_run(alone.inference));
  MUST(inference_fetch(alone.inference));
  for (int again = 0; again < 2; again++)
    check_run(&all, &alone, metrics, again == 0);
  if (head_spreads(&head))
    check_answers(&all, metrics);
  close_side(&all);
  close_side(&alone);
}

int main(int argc, char **argv) {
  static const int64_t batches[] = {1, 7, 1000}; /* 1: most ranks have no row in a pass */
  int count, targets;
  rank_record_begin(&argc, &argv);
  MUST_HOLD(argc == 3);
  record.name = argv[2];
  if (strcmp(argv[2], "cuda") == 0) {
    MUST(device_count(&count));
    MUST(device_open(record.rank % count, &device));
  }
  struct metrics *metrics = measure(argv[1], &targets);
  head = (struct head){.targets = targets, .uvote = uvote_default(3), .evidential = evidential_default()};
  for (head.kind = HEAD_VALUES; head.kind <= HEAD_EVIDENTIAL; head.kind++)
    for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
      check_batch(argv[1], batches[i], metrics);
  metrics_destroy(&metrics);
  device_close(&device);
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
  return rank_record_end();
}
