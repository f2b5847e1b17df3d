/* UVOTE: the loss of its experts and their answers. */
#include "loss/uvote.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#define SCALE_FLOOR 1e-10 /* added to b, as published */

enum status uvote_schedule_by_name(const char *name, enum uvote_schedule *schedule) {
  static const char *const names[] = {"agedb", "imdb", "wind"};
  for (int i = UVOTE_AGEDB; i <= UVOTE_WIND; i++)
    if (strcmp(name, names[i]) == 0) {
      *schedule = (enum uvote_schedule)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "unknown coefficients of experts \"%s\"; choose agedb, imdb or wind", name);
}

enum status uvote_vote_by_name(const char *name, enum uvote_vote *vote) {
  static const char *const names[] = {"avg", "avgvar", "minvar", "oracle"};
  for (int i = UVOTE_AVG; i <= UVOTE_ORACLE; i++)
    if (strcmp(name, names[i]) == 0) {
      *vote = (enum uvote_vote)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "unknown vote of experts \"%s\"; choose avg, avgvar, minvar or oracle", name);
}

struct uvote uvote_default(int experts) {
  return (struct uvote){.experts = experts, .low = -5, .high = 5, .schedule = UVOTE_AGEDB, .dynamic = true};
}

enum status uvote_check(const struct uvote *uvote) {
  REQUIRE(uvote->experts >= 1 && uvote->experts <= UVOTE_MOST_EXPERTS, ERR_ARGUMENT,
          "%d experts cannot vote; give 1 to %d", uvote->experts, UVOTE_MOST_EXPERTS);
  REQUIRE(uvote->low >= -80 && uvote->low < uvote->high && uvote->high <= 80, ERR_ARGUMENT,
          "log scales cannot be held within %g .. %g; give two numbers within -80 .. 80, the lower one first",
          uvote->low, uvote->high);
  return STATUS_OK;
}

void uvote_coefficients(const struct uvote *uvote, int64_t epoch, int64_t epochs, double *coefficient) {
  double passed = (double)epoch / (double)epochs, alpha = fmax(0, 1 - passed * passed);
  bool fades = uvote->schedule == UVOTE_IMDB || (uvote->schedule == UVOTE_WIND && uvote->dynamic);
  for (int e = 0; e < uvote->experts; e++)
    coefficient[e] = uvote->dynamic ? 1 - alpha : 1;
  coefficient[0] = fades ? alpha : 1;
}

/* --- loss --------------------------------------------------------------------------------------------------- */

struct laplace {
  double value, by_location, by_log_scale;
};

/* The negative log likelihood at distance d = location - label, and its slopes. */
static struct laplace laplace_of(const struct uvote *uvote, double d, double log_scale) {
  /* Comparisons that a NaN fails leave it as it is. */
  double held = log_scale < uvote->low ? uvote->low : log_scale > uvote->high ? uvote->high : log_scale;
  double grown = exp(held), b = grown + SCALE_FLOOR, sign = (double)((d > 0) - (d < 0));
  struct laplace laplace = {log(2 * b) + fabs(d) / b, d == d ? sign / b : d, 0};
  if (held == log_scale || held != held)
    laplace.by_log_scale = grown / b * (1 - fabs(d) / b);
  return laplace;
}

void uvote_loss(const struct uvote *uvote, enum dtype dtype, int64_t rows, int targets, const void *output,
                const void *target, const void *weight, const double *coefficient, int64_t rows_global, void *grad,
                double *loss_local) {
  int64_t half = (int64_t)uvote->experts * targets;
  double sum = 0, count = (double)rows_global * targets;
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < half; i++) {
      int64_t expert = i / targets, location = row * 2 * half + i, log_scale = location + half;
      double d = dtype_get(dtype, output, location) - dtype_get(dtype, target, row * targets + i % targets);
      struct laplace laplace = laplace_of(uvote, d, dtype_get(dtype, output, log_scale));
      double of_row = weight == NULL ? 1 : dtype_get(dtype, weight, row * uvote->experts + expert);
      double factor = coefficient[expert] * (of_row >= 0 ? of_row : NAN);
      sum += factor * laplace.value;
      if (grad == NULL)
        continue;
      dtype_put(dtype, grad, location, factor * laplace.by_location / count);
      dtype_put(dtype, grad, log_scale, factor * laplace.by_log_scale / count);
    }
  *loss_local = count > 0 ? sum / count : 0;
}

/* --- answers ------------------------------------------------------------------------------------------------ */

struct answer {
  double location, log_scale;
};

/* Means over experts with weights exp(-sharpness s): 0 for equal ones.  Shifted, so that none overflows. */
static struct answer mean_of(int experts, const struct answer *expert, double sharpness) {
  struct answer mean = {0, 0};
  double sum = 0, least = INFINITY;
  for (int e = 0; e < experts; e++)
    least = fmin(least, expert[e].log_scale);
  for (int e = 0; e < experts; e++) {
    double share = exp(-sharpness * (expert[e].log_scale - least));
    sum += share;
    mean.location += share * expert[e].location;
    mean.log_scale += share * expert[e].log_scale;
  }
  mean.location /= sum;
  mean.log_scale /= sum;
  return mean;
}

static struct answer answer_of(enum uvote_vote vote, int experts, const struct answer *expert, double label) {
  int best = 0;
  if (vote == UVOTE_AVG || vote == UVOTE_AVGVAR)
    return mean_of(experts, expert, vote == UVOTE_AVG ? 0 : 1);
  for (int e = 1; e < experts; e++)
    if (vote == UVOTE_MINVAR ? expert[e].log_scale < expert[best].log_scale
                             : fabs(expert[e].location - label) < fabs(expert[best].location - label))
      best = e;
  return expert[best];
}

void uvote_answer(const struct uvote *uvote, enum uvote_vote vote, enum dtype dtype, int64_t rows, int targets,
                  const void *output, const void *target, void *pred, void *log_scale) {
  struct answer expert[UVOTE_MOST_EXPERTS] = {{0, 0}};
  int64_t half = (int64_t)uvote->experts * targets;
  for (int64_t i = 0; i < rows * targets; i++) {
    int64_t first = i / targets * 2 * half + i % targets;
    for (int e = 0; e < uvote->experts; e++)
      expert[e] = (struct answer){dtype_get(dtype, output, first + (int64_t)e * targets),
                                  dtype_get(dtype, output, first + half + (int64_t)e * targets)};
    struct answer answer =
        answer_of(vote, uvote->experts, expert, vote == UVOTE_ORACLE ? dtype_get(dtype, target, i) : 0);
    dtype_put(dtype, pred, i, answer.location);
    if (log_scale != NULL)
      dtype_put(dtype, log_scale, i, answer.log_scale);
  }
}

double uvote_deviation(double log_scale) {
  return sqrt(2) * exp(log_scale);
}
