/* What a training step has beside the network: batches on their way to the device, the clock of its phases, and device
 * memory seen from the host.  On the host, and on the emulated CUDA backend (tests/emulate), where a copy reads host
 * memory as late as it may. */
#include "dist/host_copy.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "launch/step_clock.h"
#include "launch/upload.h"
#include "tests/device_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>
#include <unistd.h>

/* --- batches -------------------------------------------------------------------------------------------------- */

enum { ROWS = 3 };

static const struct upload_sizes sizes = {
    .rows = ROWS, .input_bytes = sizeof(float), .target_bytes = sizeof(float), .weight_bytes = sizeof(float)};

/* Pinned, as the loader's are; every number is `value`. */
static struct batch make_batch(struct device *device, int64_t step, float value) {
  struct batch batch = {.step = step, .rows = ROWS, .rows_global = ROWS, .views = 1};
  MUST(device_alloc_pinned(device, ROWS * sizeof(float), &batch.inputs));
  MUST(device_alloc_pinned(device, ROWS * sizeof(float), &batch.targets));
  MUST(device_alloc_pinned(device, ROWS * sizeof(float), &batch.weights));
  MUST(device_alloc_pinned(device, ROWS * sizeof(int64_t), (void **)&batch.samples));
  for (int i = 0; i < ROWS; i++) {
    ((float *)batch.inputs)[i] = ((float *)batch.targets)[i] = ((float *)batch.weights)[i] = value;
    batch.samples[i] = (int64_t)value;
  }
  return batch;
}

static void free_batch(struct device *device, struct batch *batch) {
  device_free_pinned(device, (void **)&batch->samples);
  device_free_pinned(device, &batch->weights);
  device_free_pinned(device, &batch->targets);
  device_free_pinned(device, &batch->inputs);
}

/* The first input of a batch on the device, and whether all else of it is of the same value. */
static float value_of(struct device *device, const struct batch *there) {
  float inputs[ROWS], targets[ROWS], weights[ROWS];
  int64_t samples[ROWS];
  MUST(device_copy(device, inputs, there->inputs, sizeof inputs));
  MUST(device_copy(device, targets, there->targets, sizeof targets));
  MUST(device_copy(device, weights, there->weights, sizeof weights));
  MUST(device_copy(device, samples, there->samples, sizeof samples));
  MUST(device_wait(device));
  for (int i = 0; i < ROWS; i++)
    cr_expect(inputs[i] == inputs[0] && targets[i] == inputs[0] && weights[i] == inputs[0] &&
              samples[i] == (int64_t)inputs[0]);
  return inputs[0];
}

Test(upload, on_the_host_a_batch_stays_where_it_is) {
  struct upload *upload;
  struct batch batch = make_batch(NULL, 0, 1), there;
  MUST(upload_create(NULL, &sizes, &upload));
  MUST(upload_ahead(upload, &batch));
  MUST(upload_take(upload, &batch, &there));
  cr_assert(eq(int, memcmp(&batch, &there, sizeof batch), 0));
  MUST(upload_release(upload));
  upload_destroy(&upload);
  free_batch(NULL, &batch);
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* Sent ahead or not, five in turn through two slots. */
Test(upload, each_batch_arrives_whole) {
  struct device *device = device_emulated();
  struct upload *upload;
  MUST(upload_create(device, &sizes, &upload));
  for (int step = 0; step < 5; step++) {
    struct batch batch = make_batch(device, step, (float)(10 + step)), there;
    if (step % 2 == 1)
      MUST(upload_ahead(upload, &batch));
    MUST(upload_take(upload, &batch, &there));
    cr_expect(eq(flt, value_of(device, &there), (float)(10 + step)));
    MUST(upload_release(upload));
    free_batch(device, &batch);
  }
  MUST(upload_ahead(upload, NULL)); /* there is no next one */
  upload_destroy(&upload);
  device_close_empty(&device);
}

/* What was sent ahead is of another step when an epoch was left on the way. */
Test(upload, a_batch_that_was_sent_in_vain_is_not_taken_for_another) {
  struct device *device = device_emulated();
  struct upload *upload;
  struct batch ahead = make_batch(device, 7, 70), wanted = make_batch(device, 8, 80), there;
  MUST(upload_create(device, &sizes, &upload));
  MUST(upload_ahead(upload, &ahead));
  MUST(upload_take(upload, &wanted, &there));
  cr_expect(eq(flt, value_of(device, &there), 80.f));
  MUST(upload_release(upload));
  upload_destroy(&upload);
  free_batch(device, &wanted);
  free_batch(device, &ahead);
  device_close_empty(&device);
}

/* The loader refills a batch's memory once it is released: the second half shows that it must not do so earlier. */
Test(upload, memory_may_change_after_the_release_and_not_before) {
  struct device *device = device_emulated();
  struct upload *upload;
  MUST(upload_create(device, &sizes, &upload));
  for (int early = 0; early < 2; early++) {
    struct batch batch = make_batch(device, early, 1), there;
    MUST(upload_ahead(upload, &batch));
    MUST(upload_take(upload, &batch, &there));
    if (!early)
      MUST(upload_release(upload));
    for (int i = 0; i < ROWS; i++) {
      ((float *)batch.inputs)[i] = ((float *)batch.targets)[i] = ((float *)batch.weights)[i] = 2;
      batch.samples[i] = 2;
    }
    cr_expect(eq(flt, value_of(device, &there), early ? 2.f : 1.f));
    MUST(upload_release(upload));
    free_batch(device, &batch);
  }
  upload_destroy(&upload);
  device_close_empty(&device);
}

Test(upload, a_batch_that_does_not_fit_is_refused) {
  struct device *device = device_emulated();
  struct upload *upload;
  struct upload_sizes small = sizes;
  struct batch batch = make_batch(device, 0, 1), there;
  small.rows = ROWS - 1;
  MUST(upload_create(device, &small, &upload));
  cr_expect(eq(int, upload_take(upload, &batch, &there), ERR_BUG));
  upload_destroy(&upload);
  free_batch(device, &batch);
  device_close_empty(&device);
}

/* --- the clock ------------------------------------------------------------------------------------------------ */

static void sleep_ms(int milliseconds) {
  usleep((useconds_t)milliseconds * 1000);
}

/* Phases that come again add up; what lies outside of a step does not count. */
Test(step_clock, time_goes_to_the_phase_it_was_spent_in) {
  struct step_clock *clock;
  double seconds[STEP_PHASES], begin = log_seconds();
  MUST(step_clock_create(NULL, &clock));
  for (int step = 0; step < 2; step++) {
    sleep_ms(30);
    MUST(step_clock_enter(clock, PHASE_FORWARD));
    MUST(step_clock_enter(clock, PHASE_LOSS));
    sleep_ms(20);
    MUST(step_clock_enter(clock, PHASE_FORWARD));
    MUST(step_clock_enter(clock, PHASE_LOSS));
    sleep_ms(20);
    MUST(step_clock_leave(clock));
    sleep_ms(30);
    MUST(step_clock_read(clock));
  }
  double most = log_seconds() - begin - 0.120;
  step_clock_seconds(clock, true, seconds);
  cr_expect(ge(dbl, seconds[PHASE_LOSS], 0.080));
  cr_expect(le(dbl, seconds[PHASE_LOSS] + seconds[PHASE_FORWARD], most));
  cr_expect(eq(dbl, seconds[PHASE_BACKWARD], 0));
  cr_expect(eq(dbl, seconds[PHASE_UPDATE], 0));
  step_clock_seconds(clock, false, seconds);
  cr_expect(eq(dbl, seconds[PHASE_LOSS], 0));
  step_clock_destroy(&clock);
  cr_assert(eq(sz, memory_in_use(), 0));
}

/* Many micro-batches: the marks run out, the time does not. */
Test(step_clock, a_step_of_many_phases_is_counted_whole) {
  struct step_clock *clock;
  double seconds[STEP_PHASES], sum = 0;
  MUST(step_clock_create(NULL, &clock));
  for (int i = 0; i < 1000; i++)
    MUST(step_clock_enter(clock, i % 2 == 0 ? PHASE_FORWARD : PHASE_BACKWARD));
  sleep_ms(20);
  MUST(step_clock_leave(clock));
  MUST(step_clock_read(clock));
  step_clock_seconds(clock, false, seconds);
  for (int i = 0; i < STEP_PHASES; i++)
    sum += seconds[i];
  cr_expect(ge(dbl, sum, 0.020));
  step_clock_destroy(&clock);
}

/* After a failure a step may be left twice. */
Test(step_clock, reads_the_events_of_a_device) {
  struct device *device = device_emulated();
  struct step_clock *clock;
  double seconds[STEP_PHASES];
  MUST(step_clock_create(device, &clock));
  MUST(step_clock_enter(clock, PHASE_FORWARD));
  MUST(step_clock_enter(clock, PHASE_UPDATE));
  MUST(step_clock_leave(clock));
  MUST(step_clock_leave(clock));
  MUST(device_wait(device));
  MUST(step_clock_read(clock));
  step_clock_seconds(clock, false, seconds);
  cr_expect(ge(dbl, seconds[PHASE_FORWARD], 0));
  cr_expect(ge(dbl, seconds[PHASE_UPDATE], 0));
  step_clock_destroy(&clock);
  device_close_empty(&device);
}

/* --- device memory from the host ------------------------------------------------------------------------------ */

static void fetch_and_store(struct device *device) {
  const float before[2] = {1, 2};
  float after[2] = {0};
  struct host_copy copy;
  void *block;
  MUST(device_alloc(device, sizeof before, &block));
  MUST(device_copy(device, block, before, sizeof before));
  MUST(host_copy_create(device, block, sizeof before, &copy));
  cr_expect(eq(int, copy.data == block, device == NULL));
  MUST(host_copy_fetch(&copy));
  cr_expect(eq(flt, ((float *)copy.data)[1], 2.f));
  ((float *)copy.data)[1] = 3;
  MUST(host_copy_store(&copy));
  MUST(device_copy(device, after, block, sizeof after));
  MUST(device_wait(device));
  cr_expect(eq(flt, after[0], 1.f));
  cr_expect(eq(flt, after[1], 3.f));
  host_copy_destroy(&copy);
  device_free(device, &block);
}

Test(host_copy, changes_what_lies_on_the_host) {
  fetch_and_store(NULL);
  cr_assert(eq(sz, memory_in_use(), 0));
}

Test(host_copy, changes_what_lies_on_a_device) {
  struct device *device = device_emulated();
  fetch_and_store(device);
  device_close_empty(&device);
}
