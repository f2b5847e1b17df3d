/* Statistics of a comparison, as text, CSV and JSON. */
#include "launch/compare_table.h"

#include "launch/evaluate_table.h"
#include "launch/json_output.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define NOISE 0.05
#define MOST_SEEDS 1000

/* P(|T| >= |t|) of Student's distribution with a whole number of degrees of freedom: finite sums, Abramowitz and
 * Stegun 26.7.3 and 26.7.4. */
static double two_sided(double t, int freedom) {
  double theta = atan(fabs(t) / sqrt(freedom)), c = cos(theta), s = sin(theta);
  double term = freedom % 2 ? c : 1, sum = freedom > 1 ? term : 0;
  for (int k = freedom % 2 ? 3 : 2; k <= freedom - 1; k += 2) {
    term *= c * c * (k - 1) / k;
    sum += term;
  }
  double inside = freedom % 2 ? 2 / acos(-1) * (theta + s * sum) : s * sum;
  return inside < 1 ? 1 - inside : 0;
}

struct paired paired_test(const double *a, const double *b, int count) {
  struct paired result = {.pairs = count, .p = NAN};
  double squares = 0;
  for (int i = 0; i < count; i++)
    result.mean += (a[i] - b[i]) / count;
  for (int i = 0; i < count; i++)
    squares += pow(a[i] - b[i] - result.mean, 2);
  if (count < 2)
    return result;
  double error = sqrt(squares / (count - 1) / count);
  result.p = error > 0 ? two_sided(result.mean / error, count - 1) : result.mean == 0;
  return result;
}

/* --- series --------------------------------------------------------------------------------------------------- */

/* The errors of a method in a group where the other (NULL = any) is done too and both are numbers; returns how many. */
static int series(const struct compare_result *result, const struct compare_method *method,
                  const struct compare_method *other, int group, double *own, double *others) {
  int count = 0;
  for (int i = 0; i < result->seeds && i < MOST_SEEDS; i++) {
    if (!method->done[i] || (other != NULL && !other->done[i]))
      continue;
    own[count] = method->tables[i].row[group].mae;
    if (other != NULL)
      others[count] = other->tables[i].row[group].mae;
    count += isfinite(own[count]) && (other == NULL || isfinite(others[count]));
  }
  return count;
}

static void mean_and_spread(const double *x, int count, double *mean, double *spread) {
  double squares = 0;
  *mean = count > 0 ? 0 : NAN;
  for (int i = 0; i < count; i++)
    *mean += x[i] / count;
  for (int i = 0; i < count; i++)
    squares += pow(x[i] - *mean, 2);
  *spread = count > 1 ? sqrt(squares / (count - 1)) : NAN;
}

int compare_table_mean(const struct compare_result *result, const struct compare_method *method, int group,
                       double *mean, double *spread) {
  double own[MOST_SEEDS];
  int count = series(result, method, NULL, group, own, NULL);
  mean_and_spread(own, count, mean, spread);
  return count;
}

static struct paired difference(const struct compare_result *result, const struct compare_method *method, int group) {
  double own[MOST_SEEDS] = {0}, others[MOST_SEEDS] = {0};
  int count = series(result, method, &result->method[method->against], group, own, others);
  return paired_test(own, others, count);
}

/* --- text ----------------------------------------------------------------------------------------------------- */

static int name_width(const struct compare_result *result) {
  int width = 8;
  for (int m = 0; m < result->methods; m++)
    width = (int)strlen(result->method[m].name) > width ? (int)strlen(result->method[m].name) : width;
  return width;
}

static void print_errors(const struct compare_result *result, const struct compare_method *method, int width,
                         FILE *out) {
  fprintf(out, "%-*s", width, method->name);
  for (int group = 0; group < METRICS_GROUPS && method->runs > 0; group++) {
    double mean, spread;
    int count = compare_table_mean(result, method, group, &mean, &spread);
    char text[64] = "-";
    if (count > 1)
      snprintf(text, sizeof text, "%.4g +- %.2g", mean, spread);
    else if (count == 1)
      snprintf(text, sizeof text, "%.4g", mean);
    fprintf(out, "  %20s", text);
  }
  if (method->runs == 0)
    fprintf(out, "  %s%s", method->refused[0] ? "not trained: " : "no run is done yet", method->refused);
  else if (method->runs < result->seeds)
    fprintf(out, "  (%d of %d seeds)%s%s", method->runs, result->seeds, method->refused[0] ? ": " : "",
            method->refused);
  fputc('\n', out);
}

static void print_differences(const struct compare_result *result, const struct compare_method *method, int width,
                              FILE *out) {
  const struct compare_method *other = &result->method[method->against];
  if (method->runs == 0 || other->runs == 0)
    return;
  fprintf(out, "%-*s", width, method->name);
  for (int group = 0; group < METRICS_GROUPS; group++) {
    struct paired paired = difference(result, method, group);
    char text[64] = "-";
    if (paired.pairs > 0 && isnan(paired.p))
      snprintf(text, sizeof text, "%+.3g", paired.mean);
    else if (paired.pairs > 0)
      snprintf(text, sizeof text, "%+.3g %s p %.2g", paired.mean, paired.p < NOISE ? "*" : "~", paired.p);
    fprintf(out, "  %20s", text);
  }
  fprintf(out, "  from %s\n", other->name);
}

/* How many rows a group has, by the first run that is done. */
static int64_t group_count(const struct compare_result *result, int group) {
  for (int m = 0; m < result->methods; m++)
    for (int i = 0; i < result->seeds; i++)
      if (result->method[m].done[i])
        return result->method[m].tables[i].row[group].count;
  return 0;
}

static void print_heading(const struct compare_result *result, int width, FILE *out) {
  fprintf(out, "%-*s", width, "method");
  for (int group = 0; group < METRICS_GROUPS; group++) {
    char text[64];
    snprintf(text, sizeof text, "%s (%lld)", metrics_group_name((enum metrics_group)group),
             (long long)group_count(result, group));
    fprintf(out, "  %20s", text);
  }
  fputc('\n', out);
}

void compare_table_print(const struct compare_result *result, FILE *out) {
  int width = name_width(result);
  fprintf(out, "%s, %s MAE, mean +- standard deviation over %d seed%s\n\n", result->data, result->part, result->seeds,
          result->seeds > 1 ? "s" : "");
  print_heading(result, width, out);
  for (int m = 0; m < result->methods; m++)
    print_errors(result, &result->method[m], width, out);
  if (result->methods < 2)
    return;
  fprintf(out, "\nDifferences of MAE, paired by seed (* p < %g; ~ within seed noise)\n\n", NOISE);
  print_heading(result, width, out);
  for (int m = 0; m < result->methods; m++)
    if (result->method[m].against >= 0)
      print_differences(result, &result->method[m], width, out);
}

/* --- files ---------------------------------------------------------------------------------------------------- */

static void csv_number(FILE *file, double value) {
  if (isfinite(value))
    fprintf(file, ",%.17g", value);
  else
    fputc(',', file);
}

enum status compare_table_csv(const struct compare_result *result, const char *path) {
  FILE *file = fopen(path, "we");
  REQUIRE(file != NULL, ERR_FILE, "cannot write %s: %s", path, strerror(errno));
  fprintf(file, "method,seed,group,count,mae,rmse,gmean,bmae,pearson\n");
  for (int m = 0; m < result->methods; m++)
    for (int i = 0; i < result->seeds; i++)
      for (int group = 0; group < METRICS_GROUPS && result->method[m].done[i]; group++) {
        const struct metrics_row *row = &result->method[m].tables[i].row[group];
        const double values[] = {row->mae, row->rmse, row->gmean, row->bmae, row->pearson};
        fprintf(file, "%s,%lld,%s,%lld", result->method[m].name, (long long)result->first_seed + i,
                metrics_group_name((enum metrics_group)group), (long long)row->count);
        for (size_t v = 0; v < sizeof values / sizeof *values; v++)
          csv_number(file, values[v]);
        fputc('\n', file);
      }
  bool failed = ferror(file) != 0;
  failed = fclose(file) != 0 || failed;
  REQUIRE(!failed, ERR_FILE, "cannot write %s: the disk may be full", path);
  return STATUS_OK;
}

static json_t *runs_json(const struct compare_result *result, const struct compare_method *method) {
  json_t *runs = json_array();
  for (int i = 0; i < result->seeds; i++) {
    json_t *table;
    if (!method->done[i] || evaluate_table_json(&method->tables[i], &table) != STATUS_OK)
      continue;
    json_object_set_new(table, "seed", json_integer(result->first_seed + i));
    json_array_append_new(runs, table);
  }
  return runs;
}

static json_t *method_json(const struct compare_result *result, const struct compare_method *method) {
  json_t *object = json_object(), *means = json_object(), *differences = json_object();
  for (int group = 0; group < METRICS_GROUPS; group++) {
    const char *name = metrics_group_name((enum metrics_group)group);
    double mean, spread;
    compare_table_mean(result, method, group, &mean, &spread);
    json_object_set_new(means, name,
                        json_pack("{s:o, s:o}", "mean", json_output_number(mean), "std", json_output_number(spread)));
    if (method->against < 0)
      continue;
    struct paired paired = difference(result, method, group);
    json_object_set_new(differences, name,
                        json_pack("{s:o, s:o, s:i}", "mean", json_output_number(paired.pairs > 0 ? paired.mean : NAN),
                                  "p", json_output_number(paired.p), "pairs", paired.pairs));
  }
  json_object_set_new(object, "method", json_string(method->name));
  json_object_set_new(object, "refused", method->refused[0] ? json_string(method->refused) : json_null());
  json_object_set_new(object, "runs", runs_json(result, method));
  json_object_set_new(object, "mae", means);
  json_object_set_new(object, "against",
                      method->against >= 0 ? json_string(result->method[method->against].name) : json_null());
  json_object_set_new(object, "difference", differences);
  return object;
}

enum status compare_table_json(const struct compare_result *result, json_t **out) {
  json_t *object = json_object(), *methods = json_array();
  int failed = object == NULL || methods == NULL;
  for (int m = 0; m < result->methods; m++)
    failed |= json_array_append_new(methods, method_json(result, &result->method[m]));
  failed |= json_object_set_new(object, "data", json_string(result->data));
  failed |= json_object_set_new(object, "part", json_string(result->part));
  failed |= json_object_set_new(object, "seeds", json_integer(result->seeds));
  failed |= json_object_set_new(object, "methods", methods);
  *out = object;
  if (!failed)
    return STATUS_OK;
  json_decref(object);
  *out = NULL;
  return fail(ERR_MEMORY, "out of memory while writing the comparison as JSON");
}
