/* UVOTE: the loss of its experts and their answers. */
#include "loss/uvote_element.h"

#include <math.h>
#include <string.h>

enum status uvote_schedule_by_name(const char *name, enum uvote_schedule *schedule) {
  static const char *const names[] = {"agedb", "imdb", "wind"};
  for (int i = UVOTE_AGEDB; i <= UVOTE_WIND; i++)
    if (strcmp(name, names[i]) == 0) {
      *schedule = (enum uvote_schedule)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "unknown coefficients of experts \"%s\"; choose agedb, imdb or wind", name);
}

static const char *const votes[] = {[UVOTE_AVG] = "avg",
                                    [UVOTE_AVGVAR] = "avgvar",
                                    [UVOTE_MINVAR] = "minvar",
                                    [UVOTE_ORACLE] = "oracle",
                                    [UVOTE_FIRST] = "first"};

const char *uvote_vote_name(enum uvote_vote vote) {
  return votes[vote];
}

enum status uvote_vote_by_name(const char *name, enum uvote_vote *vote) {
  for (int i = UVOTE_AVG; i <= UVOTE_FIRST; i++)
    if (strcmp(name, votes[i]) == 0) {
      *vote = (enum uvote_vote)i;
      return STATUS_OK;
    }
  return fail(ERR_ARGUMENT, "unknown vote of experts \"%s\"; choose avg, avgvar, minvar, oracle or first", name);
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

void uvote_loss(const struct uvote *uvote, enum dtype dtype, int64_t rows, int targets, const void *output,
                const void *target, const void *weight, const double *coefficient, int64_t rows_global, void *grad,
                double *loss_local) {
  int64_t half = (int64_t)uvote->experts * targets;
  double sum = 0, count = (double)rows_global * targets;
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < half; i++) {
      int64_t expert = i / targets, location = row * 2 * half + i, log_scale = location + half;
      double d = dtype_get(dtype, output, location) - dtype_get(dtype, target, row * targets + i % targets);
      struct laplace laplace = laplace_of(uvote->low, uvote->high, d, dtype_get(dtype, output, log_scale));
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

void uvote_answer(const struct uvote *uvote, enum uvote_vote vote, enum dtype dtype, int64_t rows, int targets,
                  const void *output, const void *target, void *pred, void *log_scale) {
  struct uvote_said expert[UVOTE_MOST_EXPERTS] = {{0, 0}};
  int64_t half = (int64_t)uvote->experts * targets;
  for (int64_t i = 0; i < rows * targets; i++) {
    int64_t first = i / targets * 2 * half + i % targets;
    for (int e = 0; e < uvote->experts; e++)
      expert[e] = (struct uvote_said){dtype_get(dtype, output, first + (int64_t)e * targets),
                                      dtype_get(dtype, output, first + half + (int64_t)e * targets)};
    struct uvote_said answer =
        uvote_voted(vote, uvote->experts, expert, vote == UVOTE_ORACLE ? dtype_get(dtype, target, i) : 0);
    dtype_put(dtype, pred, i, answer.location);
    if (log_scale != NULL)
      dtype_put(dtype, log_scale, i, answer.log_scale);
  }
}

double uvote_deviation(double log_scale) {
  return sqrt(2) * exp(log_scale);
}
