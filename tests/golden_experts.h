/* Stored losses and votes of UVOTE's experts, for the test that reads all cases of their file. */
#ifndef CONR_TESTS_GOLDEN_EXPERTS_H
#define CONR_TESTS_GOLDEN_EXPERTS_H

#include "tests/golden.h"

/* Check a case of one kind, "nll", "total" or "combine", in both precisions by Criterion's assertions; false for any
 * other. */
bool golden_experts_check(const struct golden_file *file, const char *name, const char *kind);

#endif
