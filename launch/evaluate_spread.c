/* Predicted errors against those that were made. */
#include "launch/evaluate_spread.h"

#include "dist/memory.h"
#include "launch/json_output.h"
#include "loss/uncertainty.h"

#include <math.h>

/* Elements of one group, side by side: [count] each. */
struct elements {
  int64_t count;
  double *predictions, *labels, *deviations, *variances;
};

static void collect_group(const struct inference *inference, const struct metrics *metrics, enum metrics_group group,
                          struct elements *elements) {
  int targets = inference->targets;
  elements->count = 0;
  for (int64_t row = 0; row < inference->rows; row++) {
    const double *label = inference->labels + row * targets;
    if (group != METRICS_ALL && metrics_shot(metrics, F64, label) != group)
      continue;
    for (int k = 0; k < targets; k++, elements->count++) {
      double deviation = head_deviation(&inference->head, inference->spread[row * targets + k]);
      elements->predictions[elements->count] = inference->predictions[row * targets + k];
      elements->labels[elements->count] = label[k];
      elements->deviations[elements->count] = deviation;
      elements->variances[elements->count] = deviation * deviation;
    }
  }
}

static enum status fill_group(const struct elements *of, struct spread_table *table, enum metrics_group group) {
  table->row[group].uce = uncertainty_calibration(F64, of->count, of->predictions, of->labels, F64, of->deviations);
  table->row[group].nll = uncertainty_gaussian_nll(F64, of->count, of->predictions, of->labels, F64, of->variances);
  return uncertainty_sparsification(F64, of->count, of->predictions, of->labels, F64, of->variances, NULL, NULL,
                                    &table->row[group].ause);
}

/* Local: every rank has all rows. */
static enum status fill_groups(struct inference *inference, const struct metrics *metrics, struct spread_table *table) {
  size_t count = (size_t)(inference->rows * inference->targets);
  double *block = NULL;
  enum status status;
  TRY(inference_fetch(inference));
  TRY(memory_alloc(4 * count * sizeof *block + 1, (void **)&block));
  struct elements elements = {0, block, block + count, block + 2 * count, block + 3 * count};
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++) {
    collect_group(inference, metrics, (enum metrics_group)group, &elements);
    TRY_GOTO(fill_group(&elements, table, (enum metrics_group)group), out);
  }
out:
  memory_free((void **)&block);
  return status;
}

static enum status fill_votes(struct inference *inference, struct spread_table *table) {
  enum uvote_vote before = inference->vote;
  for (int vote = UVOTE_AVG; vote <= UVOTE_FIRST; vote++) {
    struct metrics_table figures;
    TRY(comm_agree(inference->comm, inference_vote(inference, (enum uvote_vote)vote)));
    TRY(inference_table(inference, &figures));
    for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
      table->mae[vote][group] = figures.row[group].mae;
  }
  return comm_agree(inference->comm, inference_vote(inference, before));
}

enum status spread_table_fill(struct inference *inference, const struct metrics *metrics, struct spread_table *table) {
  *table = (struct spread_table){.votes = inference->head.kind == HEAD_EXPERTS};
  TRY(comm_agree(inference->comm, fill_groups(inference, metrics, table)));
  return table->votes ? fill_votes(inference, table) : STATUS_OK;
}

/* --- output --------------------------------------------------------------------------------------------------- */

static void print_value(double value, FILE *out) {
  if (isfinite(value))
    fprintf(out, "%#11.5g", value);
  else
    fprintf(out, "%11s", "-");
}

void spread_table_print(const struct spread_table *table, FILE *out) {
  fprintf(out, "\n%-12s%11s%11s%11s\n", "group", "UCE", "NLL", "AUSE");
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++) {
    fprintf(out, "%-12s", metrics_group_name((enum metrics_group)group));
    print_value(table->row[group].uce, out);
    print_value(table->row[group].nll, out);
    print_value(table->row[group].ause, out);
    fprintf(out, "\n");
  }
  if (!table->votes)
    return;
  fprintf(out, "\n%-12s", "MAE by vote");
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
    fprintf(out, "%11s", metrics_group_name((enum metrics_group)group));
  for (int vote = UVOTE_AVG; vote <= UVOTE_FIRST; vote++) {
    fprintf(out, "\n%-12s", uvote_vote_name((enum uvote_vote)vote));
    for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
      print_value(table->mae[vote][group], out);
  }
  fprintf(out, "\n");
}

/* jansson's setters accept a NULL value and then fail. */
static int set_number(json_t *object, const char *key, double value) {
  return json_object_set_new(object, key, json_output_number(value));
}

static int set_votes(const struct spread_table *table, json_t *object) {
  json_t *votes = json_object();
  int failed = json_object_set_new(object, "votes", votes);
  for (int vote = UVOTE_AVG; vote <= UVOTE_FIRST; vote++) {
    json_t *one = json_object();
    failed |= json_object_set_new(votes, uvote_vote_name((enum uvote_vote)vote), one);
    for (int group = METRICS_ALL; group < METRICS_GROUPS; group++)
      failed |= set_number(one, metrics_group_name((enum metrics_group)group), table->mae[vote][group]);
  }
  return failed;
}

enum status spread_table_json(const struct spread_table *table, json_t *object) {
  int failed = 0;
  for (int group = METRICS_ALL; group < METRICS_GROUPS; group++) {
    json_t *row = json_object_get(object, metrics_group_name((enum metrics_group)group));
    failed |= set_number(row, "uce", table->row[group].uce);
    failed |= set_number(row, "gaussian_nll", table->row[group].nll);
    failed |= set_number(row, "ause", table->row[group].ause);
  }
  if (table->votes)
    failed |= set_votes(table, object);
  REQUIRE(!failed, ERR_MEMORY,
          "out of memory while writing the evaluation table as JSON; free some and evaluate again");
  return STATUS_OK;
}
