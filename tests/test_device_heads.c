/* Experts and distributions on a GPU: losses, gradients and answers are those of the host.  Without a GPU over the
 * emulation. */
#include "dist/memory.h"
#include "dist/random.h"
#include "loss/head.h"
#include "tests/device_support.h"
#include "tests/emulated.h"

#include <math.h>
#include <stdlib.h>

static struct device *device;
static const struct loss_ops *losses;

static void begin(void) {
  device_losses_begin(&device, &losses);
}

static void end(void) {
  device_losses_end(&device);
}

TestSuite(device_heads, .init = begin, .fini = end, .timeout = 120);

enum { ROWS = 700, TARGETS = 2, EXPERTS = 3, MOST = ROWS * TARGETS * 2 * EXPERTS };

struct rows {
  struct head head;
  float outputs[MOST], labels[ROWS * TARGETS], weights[ROWS * EXPERTS];
};

/* Wide enough that log scales leave their bounds and softplus becomes straight; some locations hit exactly. */
static struct rows *draw(enum head_kind kind) {
  struct rows *rows = malloc(sizeof *rows);
  rows->head = (struct head){
      .kind = kind, .targets = TARGETS, .uvote = uvote_default(EXPERTS), .evidential = evidential_default()};
  struct random_key key = random_key(3, RANDOM_TEST, (uint64_t)kind);
  int of_row = head_outputs(&rows->head);
  for (int i = 0; i < ROWS * TARGETS; i++)
    rows->labels[i] = (float)(40 * random_uniform(key, (uint64_t)i, 0));
  for (int i = 0; i < ROWS * EXPERTS; i++)
    rows->weights[i] = (float)(0.1 + 3 * random_uniform(key, (uint64_t)i, 1));
  for (int i = 0; i < ROWS * of_row; i++) {
    double u = random_uniform(key, (uint64_t)i, 2);
    bool location = i % of_row < (kind == HEAD_EXPERTS ? EXPERTS : 1) * TARGETS;
    rows->outputs[i] = (float)(location ? 50 * u - 5 : kind == HEAD_EXPERTS ? 14 * u - 7 : 600 * u - 300);
    if (location && i % 11 == 0)
      rows->outputs[i] = rows->labels[i / of_row * TARGETS + i % of_row % TARGETS];
  }
  return rows;
}

static void *there(const void *from, size_t bytes) {
  void *block;
  MUST(device_alloc(device, bytes, &block));
  MUST(device_copy(device, block, from, bytes));
  return block;
}

static void expect_near(const char *what, int count, const float *got, const float *wanted) {
  for (int i = 0; i < count;
       i++) /* the same arithmetic in double, whose functions differ by some units, then rounded */
    cr_assert(fabsf(got[i] - wanted[i]) <= 0x1p-23f * fabsf(wanted[i]), "%s %d: %.9g, wanted %.9g", what, i,
              (double)got[i], (double)wanted[i]);
}

static double loss_of_host(const struct rows *rows, const float *weights, const double *coefficient, float *grad) {
  double value;
  if (rows->head.kind == HEAD_EXPERTS)
    uvote_loss(&rows->head.uvote, F32, ROWS, TARGETS, rows->outputs, rows->labels, weights, coefficient, 2 * ROWS, grad,
               &value);
  else
    evidential_loss(&rows->head.evidential, F32, ROWS, TARGETS, rows->outputs, rows->labels, weights, 2 * ROWS, grad,
                    &value);
  return value;
}

static void check_loss(const struct rows *rows, bool weighted) {
  static const double coefficient[EXPERTS] = {1, 0, 0.3};
  int count = ROWS * head_outputs(&rows->head);
  float *wanted = malloc(MOST * sizeof *wanted), *got = malloc(MOST * sizeof *got);
  double value = loss_of_host(rows, weighted ? rows->weights : NULL, coefficient, wanted), sum = 5;
  void *outputs = there(rows->outputs, sizeof rows->outputs), *labels = there(rows->labels, sizeof rows->labels),
       *weights = there(rows->weights, sizeof rows->weights), *factors = there(coefficient, sizeof coefficient),
       *total = there(&sum, sizeof sum), *grad = there(got, MOST * sizeof *got);
  if (rows->head.kind == HEAD_EXPERTS)
    MUST(losses->uvote(&rows->head.uvote, ROWS, TARGETS, outputs, labels, weighted ? weights : NULL, factors, 2 * ROWS,
                       grad, total));
  else
    MUST(losses->evidential(&rows->head.evidential, ROWS, TARGETS, outputs, labels, weighted ? weights : NULL, 2 * ROWS,
                            grad, total));
  MUST(device_copy(device, got, grad, (size_t)count * sizeof *got));
  MUST(device_copy(device, &sum, total, sizeof sum));
  MUST(device_wait(device));
  cr_expect(fabs(sum - 5 - value) <= 1e-12 * (5 + fabs(value)), "%.17g, wanted %.17g", sum - 5, value);
  expect_near("slope", count, got, wanted);
  void **blocks[] = {&outputs, &labels, &weights, &factors, &total, &grad};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(device, blocks[i]);
  free(wanted);
  free(got);
}

static void check_answers(const struct rows *rows, enum uvote_vote vote) {
  size_t bytes = sizeof rows->labels;
  float wanted[2][ROWS * TARGETS], got[2][ROWS * TARGETS];
  void *outputs = there(rows->outputs, sizeof rows->outputs), *labels = there(rows->labels, bytes),
       *answers = there(got[0], bytes), *spread = there(got[1], bytes);
  MUST(head_answer(&rows->head, NULL, vote, F32, ROWS, rows->outputs, rows->labels, wanted[0], wanted[1]));
  MUST(head_answer(&rows->head, losses, vote, F32, ROWS, outputs, labels, answers, spread));
  MUST(device_copy(device, got[0], answers, bytes));
  MUST(device_copy(device, got[1], spread, bytes));
  MUST(device_wait(device));
  expect_near("answer", ROWS * TARGETS, got[0], wanted[0]);
  expect_near("spread", ROWS * TARGETS, got[1], wanted[1]);
  MUST(head_answer(&rows->head, losses, vote, F32, ROWS, outputs, labels, answers, NULL)); /* spread is not wanted */
  MUST(head_answer(&rows->head, losses, vote, F32, 0, NULL, NULL, NULL, NULL));
  void **blocks[] = {&outputs, &labels, &answers, &spread};
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    device_free(device, blocks[i]);
}

Test(device_heads, the_loss_of_experts_is_that_of_the_host) {
  struct rows *rows = draw(HEAD_EXPERTS);
  check_loss(rows, true);
  check_loss(rows, false);
  free(rows);
}

Test(device_heads, the_evidential_loss_is_that_of_the_host) {
  struct rows *rows = draw(HEAD_EVIDENTIAL);
  check_loss(rows, true);
  check_loss(rows, false);
  free(rows);
}

Test(device_heads, experts_vote_as_on_the_host) {
  struct rows *rows = draw(HEAD_EXPERTS);
  for (int vote = UVOTE_AVG; vote <= UVOTE_FIRST; vote++)
    check_answers(rows, (enum uvote_vote)vote);
  free(rows);
}

Test(device_heads, distributions_answer_as_on_the_host) {
  struct rows *rows = draw(HEAD_EVIDENTIAL);
  check_answers(rows, UVOTE_AVG);
  free(rows);
}
