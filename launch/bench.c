/* conr bench: which subject, and the ceiling they share. */
#include "launch/bench.h"

#include "dist/memory.h"
#include "dist/nearest.h"
#include "launch/commands.h"
#include "model/draw.h"
#include "model/gemm.h"

#include <math.h>
#include <string.h>

static const struct subject {
  const char *name;
  int words;      /* after its name */
  bool on_device; /* where --device says */
  enum status (*run)(struct session *session, const struct config *config);
} subjects[] = {{"loss", 0, true, bench_loss},
                {"step", 0, true, bench_step},
                {"loader", 1, false, bench_loader},
                {"comm", 0, true, bench_comm}};
#define SUBJECTS (sizeof subjects / sizeof *subjects)

enum { HOST_SIZE = 2048, DEVICE_SIZE = 8192 };

static enum status host_gemm(double *gflops) {
  size_t count = (size_t)HOST_SIZE * HOST_SIZE;
  float *a = NULL;
  double best = INFINITY;
  TRY(memory_alloc(3 * count * sizeof *a, (void **)&a));
  for (size_t i = 0; i < 3 * count; i++)
    a[i] = (float)(i % 7) - 3;
  enum status status = STATUS_OK;
  for (int repeat = 0; repeat < 3 && status == STATUS_OK; repeat++) {
    double began = log_seconds();
    status = gemm(F32, GEMM_PLAIN, GEMM_TRANSPOSED, HOST_SIZE, HOST_SIZE, HOST_SIZE, 1, a, HOST_SIZE, a + count,
                  HOST_SIZE, 0, a + 2 * count, HOST_SIZE);
    best = fmin(best, log_seconds() - began);
  }
  memory_free((void **)&a);
  *gflops = 2.0 * HOST_SIZE * HOST_SIZE * HOST_SIZE / best / 1e9;
  return status;
}

void bench_shorten(void *values, size_t count) {
  for (size_t i = 0; i < count; i++) {
    float value;
    memcpy(&value, (char *)values + i * sizeof value, sizeof value);
    uint16_t rounded = bf16_round(value);
    memcpy((char *)values + i * sizeof rounded, &rounded, sizeof rounded);
  }
}

/* Products of zeros run at a higher clock: the numbers are drawn. */
static enum status fill_factors(struct device *device, const struct ops *ops, size_t count, void *x, void *weight) {
  float *drawn;
  enum status status;
  TRY(memory_alloc(count * sizeof *drawn, (void **)&drawn));
  draw_normal(F32, count, random_key(1, RANDOM_TEST, 0), 1, drawn);
  TRY_GOTO(device_copy(device, weight, drawn, count * sizeof *drawn), out);
  if (ops->dtype == BF16)
    bench_shorten(drawn, count);
  TRY_GOTO(device_copy(device, x, drawn, count * dtype_size(ops->dtype)), out);
  status = device_wait(device); /* `drawn` goes away */
out:
  memory_free((void **)&drawn);
  return status;
}

static enum status device_gemm(const struct ops *ops, double *gflops) {
  struct device *device = ops->device;
  struct linear_shape shape = {.in = DEVICE_SIZE, .out = DEVICE_SIZE};
  size_t count = (size_t)DEVICE_SIZE * DEVICE_SIZE;
  void *x = NULL, *y = NULL, *weight = NULL;
  double best = INFINITY;
  enum status status;
  TRY_GOTO(device_alloc(device, count * dtype_size(ops->dtype), &x), out);
  TRY_GOTO(device_alloc(device, count * dtype_size(ops->dtype), &y), out);
  TRY_GOTO(device_alloc(device, count * dtype_size(ops->parameter_dtype), &weight), out);
  TRY_GOTO(fill_factors(device, ops, count, x, weight), out);
  for (int repeat = 0; repeat < 5; repeat++) {
    double began = log_seconds();
    TRY_GOTO(ops->linear_forward(DEVICE_SIZE, &shape, x, weight, NULL, y), out);
    TRY_GOTO(device_wait(device), out);
    best = repeat > 0 ? fmin(best, log_seconds() - began) : best; /* the first chooses its kernel */
  }
  *gflops = 2.0 * DEVICE_SIZE * DEVICE_SIZE * DEVICE_SIZE / best / 1e9;
out:
  device_free(device, &weight);
  device_free(device, &y);
  device_free(device, &x);
  return status;
}

enum status bench_gemm(const struct ops *ops, double *gflops) {
  return ops->device == NULL ? host_gemm(gflops) : device_gemm(ops, gflops);
}

enum status bench_ops(const struct session *session, const struct config *config, const struct ops **out) {
  enum precision precision = session->device != NULL ? PRECISION_BF16 : PRECISION_F32;
  if (strcmp(config->precision, "auto") != 0)
    TRY(precision_parse(config->precision, &precision));
  return ops_open(session->device, precision, out);
}

/* Which subjects read an option; those that are not here serve all. */
static const struct reader {
  const char *option, *subjects;
} readers[] = {{"rows", "loss"},
               {"dim", "loss"},
               {"conr-variant", "loss"},
               {"regularisers", "loss"},
               {"model", "step"},
               {"precision", "step or loss"},
               {"device", "step, loss, comm or loader"},
               {"comm", "step, loss or comm"},
               {"graphs", "step"},
               {"reproducible", "step"},
               {"virtual-shards", "step"},
               {"augment", "loader"},
               {"pad", "loader"},
               {"flip", "loader"},
               {"full-decode", "loader"},
               {"decode", "loader"},
               {"workers", "loader"},
               {"size", "step or loader"},
               {"batch", "step or loader"}};

static enum status refuse_unread(const struct config *config) {
  for (size_t i = 0; i < sizeof readers / sizeof *readers; i++)
    REQUIRE(!config_given(config, readers[i].option) || strstr(readers[i].subjects, config->word[0]) != NULL,
            ERR_ARGUMENT, "--%s has no effect on conr bench %s; it is for conr bench %s", readers[i].option,
            config->word[0], readers[i].subjects);
  REQUIRE(!config->reproducible || config->threads <= 1, ERR_ARGUMENT,
          "--threads %lld does not go with --reproducible, which computes on one thread a rank; drop it",
          (long long)config->threads);
  REQUIRE(config->reproducible || !config_given(config, "virtual-shards"), ERR_ARGUMENT,
          "--virtual-shards has no effect without --reproducible; drop one or add the other");
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
  return fail(ERR_ARGUMENT, "conr bench knows loss, step, loader and comm, not \"%s\"%s%s%s", given,
              nearest ? "; did you mean " : "", nearest ? nearest : "", nearest ? "?" : "");
}

enum status command_bench(struct session *session, const struct config *config) {
  const struct subject *subject = &subjects[0];
  TRY(comm_agree(session->comm, find_subject(config, &subject)));
  if (subject->on_device)
    TRY(session_open_device(session, config));
  return subject->run(session, config);
}
