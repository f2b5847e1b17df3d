/* Rank-N-Contrast on gathered rows: panels of own rows against all columns; the walk over labels of one row. */
#include "loss/rnc.h"

#include "dist/memory.h"
#include "loss/pairwise.h"
#include "loss/rnc_element.h"
#include "loss/rows.h"
#include "loss/vectorised.h"
#include "model/gemm.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Columns that one thread takes at once, and features of the mean. */
#define COLUMN_BLOCK 512
#define MEAN_BLOCK 16

/* A thread's room for one row. */
struct rnc_room {
  struct rows_key *keys, *spare; /* [labels] by distance                                                        */
  double *sum;                   /* [labels] of exp(s), or its logarithm when wide                              */
  double *outside;               /* [labels] Z by place in that order, likewise                                 */
  double *log_slope;             /* [labels] wide: the logarithm of                                             */
  void *slope;                   /* [labels] REAL: the sum of 1/Z over labels that are no farther than this one */
  void *e;                       /* [rows] REAL exp(s), the largest being 1                                     */
};

struct rnc {
  struct rnc_options options;
  int features, targets, threads;
  enum dtype dtype;

  int64_t capacity; /* rows */
  size_t bytes;     /* of the block of memory */
  struct rows_memory memory;
  struct rows_key *keys, *spare; /* [rows]                                      */
  int32_t *order, *begin;        /* [rows], [rows + 1]: see rows_by_label       */
  int32_t *label_of;             /* [rows] which distinct label a row has       */
  double *label;                 /* [labels, targets] ascending                 */
  void *mean;                    /* [features] of all rows: m                   */
  void *square, *length;         /* [rows] |z - m|^2, |z|                       */
  double *column_sum;            /* [rows] of coefficients                      */
  void *columns;                 /* [rows, features] with several ranks         */
  void *panel;                   /* [height, features] own rows z - m           */
  double *cross;                 /* [height] their products with m              */
  double *row_value;             /* [height] their sums of -s + log Z           */
  void *tile;                    /* [height, rows] distances, then coefficients */
  unsigned char *near;           /* [height, rows] 1 = a pair that is near      */
  int *near_count;               /* [height]                                    */
  struct rnc_room *rooms;        /* [threads]                                   */

  int64_t rows, labels; /* of the batch at hand */
};

enum status rnc_check(const struct rnc_options *options) {
  REQUIRE(options->temperature > 0 && isfinite(options->temperature), ERR_ARGUMENT,
          "RnC's temperature is %g; give a finite one > 0", options->temperature);
  return STATUS_OK;
}

enum status rnc_create(const struct rnc_options *options, int features, int targets, enum dtype dtype,
                       struct rnc **out) {
  *out = NULL;
  TRY(rows_check_widths("RnC", features, targets, dtype));
  TRY(rnc_check(options));
  struct rnc *rnc;
  TRY(memory_alloc_zero(sizeof *rnc, (void **)&rnc));
  rnc->options = *options;
  rnc->features = features;
  rnc->targets = targets;
  rnc->dtype = dtype;
  rnc->threads = omp_get_max_threads();
  *out = rnc;
  return STATUS_OK;
}

void rnc_destroy(struct rnc **rnc) {
  if (*rnc == NULL)
    return;
  rows_release(&(*rnc)->memory);
  memory_free((void **)rnc);
}

size_t rnc_bytes(const struct rnc *rnc) {
  return rnc->bytes;
}

/* ---- workspace ---- */

static void lay_out_room(const struct rnc *rnc, struct rows_memory *memory, size_t n, struct rnc_room *room) {
  size_t real = dtype_size(rnc->dtype);
  struct rnc_room own = {.keys = rows_piece(memory, n * sizeof *own.keys),
                         .spare = rows_piece(memory, n * sizeof *own.spare),
                         .sum = rows_piece(memory, n * sizeof *own.sum),
                         .outside = rows_piece(memory, n * sizeof *own.outside),
                         .log_slope = rows_piece(memory, n * sizeof *own.log_slope),
                         .slope = rows_piece(memory, n * real),
                         .e = rows_piece(memory, n * real)};
  if (room != NULL)
    *room = own;
}

static void lay_out(struct rnc *rnc, int64_t rows, bool alone) {
  struct rows_memory *memory = &rnc->memory;
  size_t n = (size_t)rows, real = dtype_size(rnc->dtype), features = (size_t)rnc->features;
  size_t height = (size_t)rows_panel_height(rows);
  rnc->keys = rows_piece(memory, n * sizeof *rnc->keys);
  rnc->spare = rows_piece(memory, n * sizeof *rnc->spare);
  rnc->order = rows_piece(memory, n * sizeof *rnc->order);
  rnc->begin = rows_piece(memory, (n + 1) * sizeof *rnc->begin);
  rnc->label_of = rows_piece(memory, n * sizeof *rnc->label_of);
  rnc->label = rows_piece(memory, n * (size_t)rnc->targets * sizeof *rnc->label);
  rnc->mean = rows_piece(memory, features * real);
  rnc->square = rows_piece(memory, n * real);
  rnc->length = rows_piece(memory, n * real);
  rnc->column_sum = rows_piece(memory, n * sizeof *rnc->column_sum);
  rnc->columns = alone ? NULL : rows_piece(memory, n * features * real);
  rnc->panel = rows_piece(memory, height * features * real);
  rnc->cross = rows_piece(memory, height * sizeof *rnc->cross);
  rnc->row_value = rows_piece(memory, height * sizeof *rnc->row_value);
  rnc->tile = rows_piece(memory, height * n * real);
  rnc->near = rows_piece(memory, height * n);
  rnc->near_count = rows_piece(memory, height * sizeof *rnc->near_count);
  rnc->rooms = rows_piece(memory, (size_t)rnc->threads * sizeof *rnc->rooms);
  for (int thread = 0; thread < rnc->threads; thread++)
    lay_out_room(rnc, memory, n, rnc->rooms != NULL ? &rnc->rooms[thread] : NULL);
}

static enum status grow(struct rnc *rnc, struct comm *comm, int64_t rows) {
  bool alone = comm_size(comm) == 1;
  rnc->capacity = 0;
  rows_release(&rnc->memory);
  lay_out(rnc, rows, alone);
  rnc->bytes = rnc->memory.used;
  TRY(rows_reserve(comm, &rnc->memory));
  lay_out(rnc, rows, alone);
  rnc->capacity = rows;
  return STATUS_OK;
}

/* ---- labels ---- */

static void sort_labels(struct rnc *rnc, const struct gathered *gathered) {
  int targets = rnc->targets;
  rnc->rows = gathered->rows;
  rnc->labels = rows_by_label(gathered, rnc->keys, rnc->spare, rnc->order, rnc->begin);
  for (int64_t label = 0; label < rnc->labels; label++) {
    for (int32_t place = rnc->begin[label]; place < rnc->begin[label + 1]; place++)
      rnc->label_of[rnc->order[place]] = (int32_t)label;
    for (int k = 0; k < targets; k++)
      rnc->label[label * targets + k] =
          dtype_get(rnc->dtype, gathered->labels, (int64_t)rnc->order[rnc->begin[label]] * targets + k);
  }
}

static struct rows_key label_key(const struct rnc *rnc, int64_t own, int64_t other) {
  const double *a = rnc->label + own * rnc->targets, *b = rnc->label + other * rnc->targets;
  double distance = 0;
  for (int k = 0; k < rnc->targets; k++)
    distance += fabs(a[k] - b[k]);
  return (struct rows_key){rows_key_bits(distance), (int32_t)other};
}

/* All labels by distance from one, the nearest, itself, first: those below and those above are sorted already. */
static const struct rows_key *merge_labels(const struct rnc *rnc, int64_t own, struct rnc_room *room) {
  int64_t below = own - 1, above = own + 1, place = 0;
  struct rows_key left, right;
  room->keys[place++] = label_key(rnc, own, own);
  if (below >= 0)
    left = label_key(rnc, own, below);
  if (above < rnc->labels)
    right = label_key(rnc, own, above);
  while (below >= 0 && above < rnc->labels)
    if (left.bits <= right.bits) {
      room->keys[place++] = left;
      if (--below >= 0)
        left = label_key(rnc, own, below);
    } else {
      room->keys[place++] = right;
      if (++above < rnc->labels)
        right = label_key(rnc, own, above);
    }
  for (; below >= 0; below--)
    room->keys[place++] = label_key(rnc, own, below);
  for (; above < rnc->labels; above++)
    room->keys[place++] = label_key(rnc, own, above);
  return room->keys;
}

static const struct rows_key *order_labels(const struct rnc *rnc, int64_t own, struct rnc_room *room) {
  if (rnc->targets == 1)
    return merge_labels(rnc, own, room);
  for (int64_t label = 0; label < rnc->labels; label++)
    room->keys[label] = label_key(rnc, own, label);
  return rows_sort(rnc->labels, room->keys, room->spare);
}

/* The labels at one distance: places first .. returned - 1, and how many other rows have them. */
static int64_t end_of_ties(const struct rnc *rnc, const struct rows_key *key, int64_t first, double *count) {
  int64_t last = first;
  *count = first == 0 ? -1 : 0; /* the row itself */
  for (; last < rnc->labels && key[last].bits == key[first].bits; last++)
    *count += (double)(rnc->begin[key[last].row + 1] - rnc->begin[key[last].row]);
  return last;
}

/* From sums by label to slopes.  Returns the sum of log Z over all other rows. */
static double walk_labels(const struct rnc *rnc, int64_t own, struct rnc_room *room) {
  const struct rows_key *key = order_labels(rnc, own, room);
  double outside = 0, slope = 0, logarithms = 0, count;
  for (int64_t place = rnc->labels - 1; place >= 0; place--)
    room->outside[place] = outside += room->sum[key[place].row];
  for (int64_t place = 0, last; place < rnc->labels; place = last) {
    last = end_of_ties(rnc, key, place, &count);
    if (count > 0) {
      slope += count / room->outside[place];
      logarithms += count * log(room->outside[place]);
    }
    for (int64_t i = place; i < last; i++)
      dtype_put(rnc->dtype, room->slope, key[i].row, slope);
  }
  return logarithms;
}

/* The same of logarithms. */
static double walk_labels_wide(const struct rnc *rnc, int64_t own, struct rnc_room *room) {
  const struct rows_key *key = order_labels(rnc, own, room);
  double outside = -INFINITY, slope = -INFINITY, logarithms = 0, count;
  for (int64_t place = rnc->labels - 1; place >= 0; place--)
    room->outside[place] = outside = rnc_add_logarithms(outside, room->sum[key[place].row]);
  for (int64_t place = 0, last; place < rnc->labels; place = last) {
    last = end_of_ties(rnc, key, place, &count);
    if (count > 0) {
      slope = rnc_add_logarithms(slope, log(count) - room->outside[place]);
      logarithms += count * room->outside[place];
    }
    for (int64_t i = place; i < last; i++)
      room->log_slope[key[i].row] = slope;
  }
  return logarithms;
}

/* ---- rows in float32 and float64 ---- */

/* The first marked column from `first` on, or `last`. */
static int64_t next_near(const unsigned char *near, int64_t first, int64_t last) {
  const unsigned char *found = first < last ? memchr(near + first, 1, (size_t)(last - first)) : NULL;
  return found != NULL ? found - near : last;
}

#define REAL float
#define NAME(name) name##_f32
#include "loss/rnc_real.h"
#undef REAL
#undef NAME

#define REAL double
#define NAME(name) name##_f64
#include "loss/rnc_real.h"

/* ---- panels ---- */

/* Own rows first .. first+count-1 of the gathered ones.
 * grad     [count, features] what they do to themselves
 * columns  [rows, features] what they do to every row */
static enum status do_panel(struct rnc *rnc, const struct gathered *gathered, int64_t first, int count, double scale,
                            void *grad, void *columns, double *value) {
  enum dtype dtype = rnc->dtype;
  int64_t rows = rnc->rows, features = rnc->features;
  int height = rows_panel_height(rows);
  (dtype == F32 ? pack_panel_f32 : pack_panel_f64)(rnc, gathered, first, count, height);
  TRY(rows_product(dtype, height, rnc->features, rnc->panel, rows, gathered->z, rnc->tile));
#pragma omp parallel for schedule(dynamic) num_threads(rnc->threads)
  for (int i = 0; i < count; i++)
    rnc->row_value[i] = (dtype == F32 ? do_row_f32 : do_row_f64)(
        rnc, gathered, first + i, i, scale, &rnc->rooms[omp_get_thread_num()], rows_at(dtype, grad, i * features));
  for (int i = 0; i < count; i++)
    *value += rnc->row_value[i];
#pragma omp parallel for schedule(static)
  for (int64_t begin = 0; begin < rows; begin += COLUMN_BLOCK)
    (dtype == F32 ? do_columns_f32 : do_columns_f64)(
        rnc, gathered, first, count, begin, begin + COLUMN_BLOCK < rows ? begin + COLUMN_BLOCK : rows, columns);
  TRY(gemm(dtype, GEMM_PLAIN, GEMM_PLAIN, count, features, rows, 1.0, rnc->tile, rows, gathered->z, features, 1.0, grad,
           features));
  return gemm(dtype, GEMM_TRANSPOSED, GEMM_PLAIN, rows, features, count, 1.0, rnc->tile, rows, rnc->panel, features,
              1.0, columns, features);
}

static enum status do_share(struct rnc *rnc, const struct gathered *gathered, double scale, void *grad_own,
                            void *columns, double *value) {
  int height = rows_panel_height(rnc->rows);
  for (int64_t done = 0; done < gathered->own; done += height)
    TRY(do_panel(rnc, gathered, gathered->first + done,
                 (int)(gathered->own - done < height ? gathered->own - done : height), scale,
                 rows_at(rnc->dtype, grad_own, done * rnc->features), columns, value));
  return STATUS_OK;
}

enum status rnc_loss(struct rnc *rnc, const struct gathered *gathered, double coefficient, void *grad_own,
                     double *value) {
  enum dtype dtype = rnc->dtype;
  double rows = (double)gathered->rows, norm = 1 / (rows * (rows - 1)), sum = 0;
  bool alone = comm_size(gathered->comm) == 1;
  TRY(rows_check(gathered, "RnC", rnc->features, rnc->targets, dtype));
  if (gathered->rows > rnc->capacity)
    TRY(grow(rnc, gathered->comm, gathered->rows));
  *value = 0;
  if (gathered->rows < 2)
    return STATUS_OK;
  size_t count = (size_t)gathered->rows * (size_t)rnc->features;
  void *columns = alone ? grad_own : rnc->columns;
  sort_labels(rnc, gathered);
  (dtype == F32 ? measure_all_f32 : measure_all_f64)(rnc, gathered);
  memset(rnc->column_sum, 0, (size_t)gathered->rows * sizeof *rnc->column_sum);
  if (!alone)
    memset(columns, 0, count * dtype_size(dtype));
  enum status status = do_share(rnc, gathered, coefficient * norm / rnc->options.temperature, grad_own, columns, &sum);
  (dtype == F32 ? close_columns_f32 : close_columns_f64)(rnc, gathered, columns);
  if (!alone)
    TRY(comm_sum(gathered->comm, dtype, columns, count));
  TRY(rows_settle(gathered->comm, "RnC", status, &sum));
  *value = sum * norm;
  for (int64_t i = 0; i < gathered->own && !alone; i++)
    row_add(dtype, rnc->features, rows_element(dtype, columns, (gathered->first + i) * rnc->features),
            rows_at(dtype, grad_own, i * rnc->features));
  return STATUS_OK;
}
