/* conr bench: which subject, and the ceiling they share. */
#include "launch/bench.h"

#include "dist/memory.h"
#include "dist/nearest.h"
#include "launch/commands.h"
#include "model/gemm.h"

#include <math.h>
#include <string.h>

static const struct subject {
  const char *name;
  int words; /* after its name */
  enum status (*run)(struct session *session, const struct config *config);
} subjects[] = {{"loss", 0, bench_loss}, {"step", 0, bench_step}, {"loader", 1, bench_loader}};
#define SUBJECTS (sizeof subjects / sizeof *subjects)

enum status bench_gemm(double *gflops) {
  size_t bytes = (size_t)BENCH_GEMM_SIZE * BENCH_GEMM_SIZE * sizeof(float);
  float *block = NULL;
  double best = INFINITY;
  TRY(memory_alloc(3 * bytes, (void **)&block));
  for (int i = 0; i < 3 * BENCH_GEMM_SIZE * BENCH_GEMM_SIZE; i++)
    block[i] = (float)(i % 7) - 3;
  enum status status = STATUS_OK;
  for (int repeat = 0; repeat < 3 && status == STATUS_OK; repeat++) {
    double began = log_seconds();
    status = gemm(F32, GEMM_PLAIN, GEMM_TRANSPOSED, BENCH_GEMM_SIZE, BENCH_GEMM_SIZE, BENCH_GEMM_SIZE, 1, block,
                  BENCH_GEMM_SIZE, block + BENCH_GEMM_SIZE * BENCH_GEMM_SIZE, BENCH_GEMM_SIZE, 0,
                  block + 2 * BENCH_GEMM_SIZE * BENCH_GEMM_SIZE, BENCH_GEMM_SIZE);
    best = fmin(best, log_seconds() - began);
  }
  memory_free((void **)&block);
  *gflops = 2.0 * BENCH_GEMM_SIZE * BENCH_GEMM_SIZE * BENCH_GEMM_SIZE / best / 1e9;
  return status;
}

/* Which subjects read an option; those that are not here serve all. */
static const struct reader {
  const char *option, *subjects;
} readers[] = {
    {"rows", "loss"},          {"dim", "loss"},       {"conr-variant", "loss"},   {"model", "step"},
    {"precision", "step"},     {"augment", "loader"}, {"pad", "loader"},          {"flip", "loader"},
    {"full-decode", "loader"}, {"workers", "loader"}, {"size", "step or loader"}, {"batch", "step or loader"}};

static enum status refuse_unread(const struct config *config) {
  for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
    REQUIRE(!config_given(config, readers[i].option) || strstr(readers[i].subjects, config->word[0]) != NULL,
            ERR_ARGUMENT, "--%s has no effect on conr bench %s; it is for conr bench %s", readers[i].option,
            config->word[0], readers[i].subjects);
  return STATUS_OK;
}

static enum status find_subject(const struct config *config, const struct subject **out) {
  const char *names[SUBJECTS], *given = config->word[0];
  for (size_t i = 0; i < SUBJECTS; i++) {
    names[i] = subjects[i].name;
    if (strcmp(given, names[i]) != 0)
      continue;
    *out = &subjects[i];
    REQUIRE(config->words == 1 + subjects[i].words, ERR_ARGUMENT, "conr bench %s wants %s", given,
            subjects[i].words > 0 ? "a data file" : "no file");
    return refuse_unread(config);
  }
  const char *nearest = nearest_name(given, names, SUBJECTS);
  return fail(ERR_ARGUMENT, "conr bench knows loss, step and loader, not \"%s\"%s%s%s", given,
              nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

enum status command_bench(struct session *session, const struct config *config) {
  const struct subject *subject = &subjects[0];
  TRY(comm_agree(session->comm, find_subject(config, &subject)));
  return subject->run(session, config);
}
