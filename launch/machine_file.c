/* The table of fields, and what is made of them. */
#include "launch/machine_file.h"

#include "dist/nearest.h"
#include "launch/ini_file.h"
#include "launch/shared_folder.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct field {
  const char *name; /* section.name */
  size_t offset;
  double low, high;
  bool whole;
};

#define FIELD(name, field, low, high, whole) \
  { name, offsetof(struct machine_file, field), low, high, whole }

static const struct field fields[] = {
    FIELD("machine.gpus_per_node", gpus_per_node, 1, 1024, true),
    FIELD("inside.bandwidth_gbs", inside_gbs, 1e-6, 1e6, false),
    FIELD("inside.latency_us", inside_us, 0, 1e6, false),
    FIELD("between.bandwidth_gbs", between_gbs, 1e-6, 1e6, false),
    FIELD("between.latency_us", between_us, 0, 1e6, false),
    FIELD("links.efficiency", link_efficiency, 0.001, 1, false),
    FIELD("gpu.matrix_tflops", matrix_tflops, 1e-6, 1e6, false),
    FIELD("gpu.matrix_efficiency", matrix_efficiency, 0.001, 1, false),
    FIELD("step.rows_per_gpu", rows_per_gpu, 1, 1e9, true),
    FIELD("step.fixed_seconds", fixed_seconds, 0, 1e6, false),
    FIELD("step.seconds_per_row", seconds_per_row, 1e-12, 1e6, false),
    FIELD("step.gradient_bytes", gradient_bytes, 0, 1e15, false),
    FIELD("step.fixed_rows", fixed_rows, 0, 1e12, true),
    FIELD("conr.width", width, 1, 1e7, true),
    FIELD("conr.value_bytes", value_bytes, 1, 8, true),
    FIELD("conr.scalar_bytes", scalar_bytes, 0, 1e6, true),
    FIELD("conr.active_share", active_share, 0, 1.1, false),
};

#define FIELDS (sizeof fields / sizeof *fields)
_Static_assert(FIELDS <= 64, "one bit for each field that was read");

struct reading {
  struct machine_file *machine;
  uint64_t read; /* bit i: fields[i] */
};

static enum status unknown(const char *name) {
  const char *names[FIELDS];
  for (size_t i = 0; i < FIELDS; i++)
    names[i] = fields[i].name;
  const char *nearest = nearest_name(name, names, FIELDS);
  const char *dot = nearest != NULL ? strchr(nearest, '.') : NULL;
  if (dot != NULL)
    return fail(ERR_ARGUMENT, "a machine file has no field %s; did you mean %s in [%.*s]?", name, dot + 1,
                (int)(dot - nearest), nearest);
  return fail(ERR_ARGUMENT, "a machine file has no field %s; see launch/machines", name);
}

static enum status take(void *context, const char *section, const char *name, const char *value) {
  struct reading *reading = context;
  char full[256], *end;
  size_t i = 0;
  snprintf(full, sizeof full, "%s%s%s", section, section[0] != '\0' ? "." : "", name);
  while (i < FIELDS && strcmp(fields[i].name, full) != 0)
    i++;
  if (i == FIELDS)
    return unknown(full);
  const struct field *field = &fields[i];
  REQUIRE(!(reading->read >> i & 1), ERR_ARGUMENT, "%s stands there twice", full);
  double number = strtod(value, &end);
  REQUIRE(end != value && *end == '\0' && isfinite(number), ERR_ARGUMENT, "%s wants a number, not \"%s\"", full, value);
  REQUIRE(!field->whole || number == floor(number), ERR_ARGUMENT, "%s wants a whole number, not \"%s\"", full, value);
  REQUIRE(number >= field->low && number <= field->high, ERR_ARGUMENT, "%s = %s is out of range; give %.16g to %.16g",
          full, value, field->low, field->high);
  memcpy((char *)reading->machine + field->offset, &number, sizeof number);
  reading->read |= (uint64_t)1 << i;
  return STATUS_OK;
}

static enum status find(const char *wanted, char path[PATH_MAX]) {
  char folder[PATH_MAX];
  size_t length = strlen(wanted);
  bool plain = strchr(wanted, '/') == NULL, ending = length > 4 && strcmp(wanted + length - 4, ".ini") == 0;
  snprintf(path, PATH_MAX, "%s", wanted);
  if (!plain || access(wanted, F_OK) == 0)
    return STATUS_OK;
  TRY(shared_folder("machines", "CONR_MACHINES", folder));
  int written = snprintf(path, PATH_MAX, "%s/%s%s", folder, wanted, ending ? "" : ".ini");
  REQUIRE(written < PATH_MAX, ERR_FILE, "the path of the folder of machines is too long");
  REQUIRE(access(path, F_OK) == 0, ERR_FILE, "there is no machine file %s, here or in %s", wanted, folder);
  return STATUS_OK;
}

static void convert(struct machine_file *own) {
  double bandwidth = 1e9 * own->link_efficiency;
  own->machine = (struct cost_machine){.node = own->gpus_per_node,
                                       .inside = {own->inside_us * 1e-6, own->inside_gbs * bandwidth},
                                       .between = {own->between_us * 1e-6, own->between_gbs * bandwidth},
                                       .flops = own->matrix_tflops * 1e12 * own->matrix_efficiency};
  own->work = (struct cost_work){.fixed = own->fixed_seconds,
                                 .per_row = own->seconds_per_row,
                                 .width = own->width,
                                 .value_bytes = own->value_bytes,
                                 .scalar_bytes = own->scalar_bytes,
                                 .gradient_bytes = own->gradient_bytes,
                                 .active = own->active_share};
}

enum status machine_file_read(const char *wanted, struct machine_file *out) {
  struct reading reading = {.machine = out};
  char path[PATH_MAX];
  *out = (struct machine_file){0};
  TRY(find(wanted, path));
  TRY(ini_file_read("machine file", path, take, &reading));
  for (size_t i = 0; i < FIELDS; i++)
    REQUIRE(reading.read >> i & 1, ERR_ARGUMENT, "%s has no %s; give %.16g to %.16g", path, fields[i].name,
            fields[i].low, fields[i].high);
  convert(out);
  return STATUS_OK;
}
