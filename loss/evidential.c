/* Normal-inverse-gamma likelihood of an evidential head. */
#include "loss/evidential_element.h"

struct evidential evidential_default(void) {
  return (struct evidential){.lambda = 0.01, .prior_v = 0, .prior_alpha = 0.3};
}

enum status evidential_check(const struct evidential *evidential) {
  REQUIRE(isfinite(evidential->lambda) && evidential->lambda >= 0, ERR_ARGUMENT,
          "lambda %g of the evidential loss must be 0 or greater", evidential->lambda);
  REQUIRE(isfinite(evidential->prior_v) && evidential->prior_v >= 0, ERR_ARGUMENT,
          "a prior pseudo-count v of %g makes no distribution; give 0 or more", evidential->prior_v);
  REQUIRE(isfinite(evidential->prior_alpha) && evidential->prior_alpha > 0, ERR_ARGUMENT,
          "a prior alpha of %g makes no distribution; give a number above 0", evidential->prior_alpha);
  return STATUS_OK;
}

/* --- one element -------------------------------------------------------------------------------------------- */

struct nig evidential_nig(const struct evidential *evidential, double a, double c, double d, double weight) {
  return nig_of(evidential, a, c, d, weight);
}

struct nig_term nig_nll(const struct nig *nig, double label) {
  return nig_nll_of(nig, label);
}

struct nig_term nig_reg(const struct nig *nig, double label) {
  return nig_reg_of(nig, label);
}

double nig_variance(const struct nig *nig) {
  return nig_variance_of(nig);
}

/* --- rows --------------------------------------------------------------------------------------------------- */

/* Where component i = row * targets + k of all rows has its first output. */
static int64_t place_of(int64_t i, int targets) {
  return i / targets * 3 * targets + i % targets;
}

static struct evidential_outputs read_outputs(enum dtype dtype, const void *output, int64_t place, int targets) {
  return (struct evidential_outputs){dtype_get(dtype, output, place), dtype_get(dtype, output, place + targets),
                                     dtype_get(dtype, output, place + 2 * (int64_t)targets)};
}

void evidential_loss(const struct evidential *evidential, enum dtype dtype, int64_t rows, int targets,
                     const void *output, const void *target, const void *weight, int64_t rows_global, void *grad,
                     double *loss_local) {
  double sum = 0, count = (double)rows_global * targets;
  for (int64_t i = 0; i < rows * targets; i++) {
    int64_t place = place_of(i, targets);
    double of_row = weight == NULL ? 1 : dtype_get(dtype, weight, i / targets), label = dtype_get(dtype, target, i);
    struct evidential_outputs slope;
    sum += evidential_element(evidential, read_outputs(dtype, output, place, targets), label, of_row, &slope);
    if (grad == NULL)
      continue;
    dtype_put(dtype, grad, place, slope.a / count);
    dtype_put(dtype, grad, place + targets, slope.c / count);
    dtype_put(dtype, grad, place + 2 * (int64_t)targets, slope.d / count);
  }
  *loss_local = count > 0 ? sum / count : 0;
}

void evidential_answer(const struct evidential *evidential, enum dtype dtype, int64_t rows, int targets,
                       const void *output, void *pred, void *variance) {
  for (int64_t i = 0; i < rows * targets; i++) {
    struct evidential_outputs at = read_outputs(dtype, output, place_of(i, targets), targets);
    struct nig nig = evidential_nig(evidential, at.a, at.c, at.d, 1);
    dtype_put(dtype, pred, i, nig.gamma);
    if (variance != NULL)
      dtype_put(dtype, variance, i, nig_variance(&nig));
  }
}
