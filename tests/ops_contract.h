/* One contract for every table of operations: each entry against the host's table in float64, on the same numbers.
 *
 *     struct ops_contract contract = {.ops = ops, .name = "cuda bf16", .factor_rounding = 0x1p-9};
 *     ops_contract_linear(&contract);
 *     ...
 *
 * Each part runs several shapes (no rows, one, odd ones, some that take several blocks of a GPU), with buffers that
 * begin on a good address and beside one, and every pair of arguments that ops.h lets be the same; elements behind the
 * results must stay as they are.  A part fails by Criterion's assertion. */
#ifndef CONR_TESTS_OPS_CONTRACT_H
#define CONR_TESTS_OPS_CONTRACT_H

#include "model/ops.h"

struct ops_contract {
  const struct ops *ops;
  const char *name;
  double
      factor_rounding; /* relative, of what products of matrices read: 0 = none, else half a unit in the last place */
};

void ops_contract_linear(const struct ops_contract *contract);
void ops_contract_activations(const struct ops_contract *contract);
void ops_contract_dropout(const struct ops_contract *contract);
void ops_contract_distributions(const struct ops_contract *contract);
void ops_contract_convolutions(const struct ops_contract *contract);
void ops_contract_norm(const struct ops_contract *contract);
void ops_contract_norm_channels(const struct ops_contract *contract);
void ops_contract_pools(const struct ops_contract *contract);
void ops_contract_pixels(const struct ops_contract *contract);
void ops_contract_rows(const struct ops_contract *contract);
void ops_contract_vectors(const struct ops_contract *contract);
void ops_contract_optimisers(const struct ops_contract *contract);

#endif
