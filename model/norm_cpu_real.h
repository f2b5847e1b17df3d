/* Batch normalisation on the CPU for one element type: included by ops_cpu_real.h.
 *
 * All four passes are bound by memory.  The values [count, channels] are cut into tasks of some rows and at most
 * NORM_COLUMNS channels; the cuts depend on the shape alone, so that sums do not depend on the number of threads.
 * Sums are in REAL over at most NORM_ROWS rows and in double beyond. */

enum {
  NORM_ROWS = 64,        /* rows summed in REAL                                                    */
  NORM_COLUMNS = 512,    /* channels of one task: its vectors of sums stay in the first-level cache */
  NORM_TASK_ROWS = 128,  /* of a task that sums nothing                                             */
  NORM_RUNS = 128,       /* most parts the rows of a sum are cut into                               */
  NORM_PARTIALS = 16384, /* sums of all parts but the first; two arrays of them lie on the stack    */
};

/* How rows and channels are cut into tasks: task t is rows of part t / pieces and channels of piece t % pieces. */
struct norm_cut {
  int64_t rows, parts, pieces;
};

static struct norm_cut norm_cut(int64_t count, int64_t channels, int64_t rows) {
  return (struct norm_cut){rows, (count + rows - 1) / rows, (channels + NORM_COLUMNS - 1) / NORM_COLUMNS};
}

/* For sums: parts of whole chunks of NORM_ROWS, few enough for NORM_PARTIALS. */
static struct norm_cut norm_cut_sums(int64_t count, int64_t channels) {
  int64_t parts = 1 + NORM_PARTIALS / channels, chunks = count / NORM_ROWS + 1;
  parts = parts < NORM_RUNS ? parts : NORM_RUNS;
  return norm_cut(count, channels, (chunks + parts - 1) / parts * NORM_ROWS);
}

struct norm_task {
  int64_t part, first, rows; /* first row */
  int64_t column, columns;
  int64_t offset; /* of the first element */
};

static struct norm_task norm_task(const struct norm_cut *cut, int64_t count, int64_t channels, int64_t index) {
  struct norm_task task = {.part = index / cut->pieces, .column = index % cut->pieces * NORM_COLUMNS};
  task.first = task.part * cut->rows;
  task.rows = count - task.first < cut->rows ? count - task.first : cut->rows;
  task.columns = channels - task.column < NORM_COLUMNS ? channels - task.column : NORM_COLUMNS;
  task.offset = task.first * channels + task.column;
  return task;
}

/* Where a task puts its sums: those of the first part are the result, to which the others are joined in order. */
static double *norm_sums_of(const struct norm_task *task, int64_t channels, double *result, double *others) {
  return task->part == 0 ? result + task->column : others + (task->part - 1) * channels + task->column;
}

#define NORM_THREADED(count, channels) ((count) * (channels) > BLOCK * BLOCKS_THREADED)

/* --- statistics ---------------------------------------------------------------------------------------------- */

/* Mean and sum of squares about it of a few rows, in one pass: sums about the chunk's first row.  That row is one of
 * the n values, so n (first - mean)^2 is at most n times the sum of squares wanted: what cancels costs at most
 * log2(n + 1) of REAL's bits, two or three as a rule, whatever the mean.  Equal values give exactly 0. */
VECTOR_KERNEL static void norm_chunk(int64_t rows, int64_t columns, int64_t stride, const REAL *x, double *mean,
                                     double *square) {
  REAL sum[NORM_COLUMNS], squares[NORM_COLUMNS], first[NORM_COLUMNS];
  memset(sum, 0, (size_t)columns * sizeof *sum);
  memset(squares, 0, (size_t)columns * sizeof *squares);
  memcpy(first, x, (size_t)columns * sizeof *first);
  for (int64_t row = 1; row < rows; row++) {
    const REAL *line = x + row * stride;
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) {
      REAL difference = line[c] - first[c];
      sum[c] += difference;
      squares[c] += difference * difference;
    }
  }
  double share = 1.0 / (double)rows;
#pragma omp simd
  for (int64_t c = 0; c < columns; c++) {
    double s = (double)sum[c], q = (double)squares[c] - s * s * share;
    mean[c] = (double)first[c] + s * share;
    square[c] = q < 0 ? 0 : q;
  }
}

/* Join the statistics of `more` rows to those of the `rows` before (Chan, Golub, LeVeque 1983). */
VECTOR_KERNEL static void norm_join(int64_t columns, int64_t rows, int64_t more, const double *more_mean,
                                    const double *more_square, double *mean, double *square) {
  double share = (double)more / (double)(rows + more), weight = (double)rows * share;
#pragma omp simd
  for (int64_t c = 0; c < columns; c++) {
    double difference = more_mean[c] - mean[c];
    mean[c] += difference * share;
    square[c] += more_square[c] + difference * difference * weight;
  }
}

static void norm_statistics_task(const struct norm_task *task, int64_t channels, const REAL *x, double *mean,
                                 double *square) {
  double chunk_mean[NORM_COLUMNS], chunk_square[NORM_COLUMNS];
  for (int64_t row = 0, n; row < task->rows; row += n) {
    n = task->rows - row < NORM_ROWS ? task->rows - row : NORM_ROWS;
    const REAL *chunk = x + task->offset + row * channels;
    if (row == 0) {
      norm_chunk(n, task->columns, channels, chunk, mean, square);
      continue;
    }
    norm_chunk(n, task->columns, channels, chunk, chunk_mean, chunk_square);
    norm_join(task->columns, row, n, chunk_mean, chunk_square, mean, square);
  }
}

static enum status norm_statistics(size_t size, int64_t channels, const void *x, double *mean, double *square) {
  int64_t count = (int64_t)size;
  struct norm_cut cut = norm_cut_sums(count, channels);
  double means[NORM_PARTIALS], squares[NORM_PARTIALS]; /* of the parts after the first */
  if (count == 0) {
    memset(mean, 0, (size_t)channels * sizeof *mean);
    memset(square, 0, (size_t)channels * sizeof *square);
  }
#pragma omp parallel for schedule(static) if (NORM_THREADED(count, channels))
  for (int64_t index = 0; index < cut.parts * cut.pieces; index++) {
    struct norm_task task = norm_task(&cut, count, channels, index);
    norm_statistics_task(&task, channels, x, norm_sums_of(&task, channels, mean, means),
                         norm_sums_of(&task, channels, square, squares));
  }
  for (int64_t part = 1; part < cut.parts; part++) {
    int64_t before = part * cut.rows, rows = count - before < cut.rows ? count - before : cut.rows;
    norm_join(channels, before, rows, means + (part - 1) * channels, squares + (part - 1) * channels, mean, square);
  }
  return STATUS_OK;
}

/* --- forward ------------------------------------------------------------------------------------------------- */

/* y = (x - mean) scale + shift, for a piece of the channels.  The mean is cut to what REAL holds and the rest goes
 * into the shift, so that a large mean costs no digits. */
struct norm_line {
  REAL mean[NORM_COLUMNS], scale[NORM_COLUMNS], shift[NORM_COLUMNS];
};

static void norm_forward_line(int64_t columns, const double *mean, const double *inverse, const REAL *gamma,
                              const REAL *beta, struct norm_line *line) {
  for (int64_t c = 0; c < columns; c++) {
    double scale = inverse[c] * (double)gamma[c];
    line->mean[c] = (REAL)mean[c];
    line->scale[c] = (REAL)scale;
    line->shift[c] = (REAL)((double)beta[c] - (mean[c] - (double)line->mean[c]) * scale);
  }
}

/* Inlined with constant flags, so that each combination becomes a loop without branches.  residual is read if `add`. */
static inline __attribute__((always_inline)) void norm_forward_loop(int64_t rows, int64_t columns, int64_t stride,
                                                                    const struct norm_line *line, const REAL *x,
                                                                    const REAL *residual, bool add, bool relu,
                                                                    REAL *y) {
  for (int64_t row = 0; row < rows; row++) {
    int64_t at = row * stride;
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) {
      REAL value = (x[at + c] - line->mean[c]) * line->scale[c] + line->shift[c];
      value = add ? value + residual[at + c] : value;
      y[at + c] = relu && value < 0 ? 0 : value; /* NaN stays */
    }
  }
}

VECTOR_KERNEL static void norm_forward_kernel(int64_t rows, int64_t columns, int64_t stride,
                                              const struct norm_line *line, const REAL *x, const REAL *residual,
                                              bool relu, REAL *y) {
  if (residual != NULL && relu)
    norm_forward_loop(rows, columns, stride, line, x, residual, true, true, y);
  else if (residual != NULL)
    norm_forward_loop(rows, columns, stride, line, x, residual, true, false, y);
  else if (relu)
    norm_forward_loop(rows, columns, stride, line, x, x, false, true, y);
  else
    norm_forward_loop(rows, columns, stride, line, x, x, false, false, y);
}

static enum status norm_forward(size_t size, int64_t channels, const void *x, const double *mean, const double *inverse,
                                const void *gamma, const void *beta, const void *residual, bool relu, void *y) {
  int64_t count = (int64_t)size;
  struct norm_cut cut = norm_cut(count, channels, NORM_TASK_ROWS);
#pragma omp parallel for schedule(static) if (NORM_THREADED(count, channels))
  for (int64_t index = 0; index < cut.parts * cut.pieces; index++) {
    struct norm_task task = norm_task(&cut, count, channels, index);
    struct norm_line line;
    norm_forward_line(task.columns, mean + task.column, inverse + task.column, (const REAL *)gamma + task.column,
                      (const REAL *)beta + task.column, &line);
    norm_forward_kernel(task.rows, task.columns, channels, &line, (const REAL *)x + task.offset,
                        residual == NULL ? NULL : (const REAL *)residual + task.offset, relu, (REAL *)y + task.offset);
  }
  return STATUS_OK;
}

/* --- backward ------------------------------------------------------------------------------------------------ */

/* The arrays of the first half of the way back, from the element where a task begins. */
struct norm_back {
  const REAL *grad, *more, *x, *y; /* more, y: NULL = none */
  REAL *masked;                    /* NULL = not wanted    */
};

static struct norm_back norm_back_at(const struct norm_back *back, int64_t offset) {
  return (struct norm_back){back->grad + offset, back->more == NULL ? NULL : back->more + offset, back->x + offset,
                            back->y == NULL ? NULL : back->y + offset,
                            back->masked == NULL ? NULL : back->masked + offset};
}

/* Inlined with constant flags. */
static inline __attribute__((always_inline)) void norm_back_loop(int64_t rows, int64_t columns, int64_t stride,
                                                                 struct norm_back back, const REAL *mean, bool add,
                                                                 bool relu, bool store, REAL *sum, REAL *product) {
  for (int64_t row = 0; row < rows; row++) {
    int64_t at = row * stride;
#pragma omp simd
    for (int64_t c = 0; c < columns; c++) {
      REAL g = back.grad[at + c];
      g = add ? g + back.more[at + c] : g;
      g = relu && back.y[at + c] <= 0 ? 0 : g; /* NaN keeps its gradient */
      if (store)
        back.masked[at + c] = g;
      sum[c] += g;
      product[c] += g * (back.x[at + c] - mean[c]);
    }
  }
}

/* A chunk of at most NORM_ROWS rows; its sums are added to those in double. */
VECTOR_KERNEL static void norm_back_chunk(int64_t rows, int64_t columns, int64_t stride, struct norm_back back,
                                          const REAL *mean, double *sums, double *products) {
  REAL sum[NORM_COLUMNS], product[NORM_COLUMNS];
  memset(sum, 0, (size_t)columns * sizeof *sum);
  memset(product, 0, (size_t)columns * sizeof *product);
  if (back.more != NULL && back.y != NULL)
    norm_back_loop(rows, columns, stride, back, mean, true, true, true, sum, product);
  else if (back.more != NULL)
    norm_back_loop(rows, columns, stride, back, mean, true, false, true, sum, product);
  else if (back.y != NULL)
    norm_back_loop(rows, columns, stride, back, mean, false, true, true, sum, product);
  else if (back.masked != NULL && back.masked != back.grad)
    norm_back_loop(rows, columns, stride, back, mean, false, false, true, sum, product);
  else
    norm_back_loop(rows, columns, stride, back, mean, false, false, false, sum, product);
#pragma omp simd
  for (int64_t c = 0; c < columns; c++) {
    sums[c] += (double)sum[c];
    products[c] += (double)product[c];
  }
}

static void norm_back_task(const struct norm_task *task, int64_t channels, const struct norm_back *back,
                           const double *mean, double *sums, double *products) {
  REAL rounded[NORM_COLUMNS]; /* the mean as REAL; the rest is put right when all is summed */
  for (int64_t c = 0; c < task->columns; c++) {
    rounded[c] = (REAL)mean[task->column + c];
    sums[c] = products[c] = 0;
  }
  for (int64_t row = 0; row < task->rows; row += NORM_ROWS) {
    int64_t n = task->rows - row < NORM_ROWS ? task->rows - row : NORM_ROWS;
    norm_back_chunk(n, task->columns, channels, norm_back_at(back, task->offset + row * channels), rounded, sums,
                    products);
  }
}

static void norm_add_parts(int64_t parts, int64_t channels, const double *others, double *result) {
  for (int64_t part = 1; part < parts; part++)
    for (int64_t c = 0; c < channels; c++)
      result[c] += others[(part - 1) * channels + c];
}

static enum status norm_backward_sums(size_t size, int64_t channels, const void *grad, const void *more, const void *x,
                                      const void *y, const double *mean, const double *inverse, void *masked,
                                      double *sums) {
  int64_t count = (int64_t)size;
  struct norm_cut cut = norm_cut_sums(count, channels);
  struct norm_back back = {grad, more, x, y, masked};
  double partial[NORM_PARTIALS], partial_products[NORM_PARTIALS], *products = sums + channels;
  if (count == 0)
    memset(sums, 0, (size_t)(2 * channels) * sizeof *sums);
#pragma omp parallel for schedule(static) if (NORM_THREADED(count, channels))
  for (int64_t index = 0; index < cut.parts * cut.pieces; index++) {
    struct norm_task task = norm_task(&cut, count, channels, index);
    norm_back_task(&task, channels, &back, mean, norm_sums_of(&task, channels, sums, partial),
                   norm_sums_of(&task, channels, products, partial_products));
  }
  norm_add_parts(cut.parts, channels, partial, sums);
  norm_add_parts(cut.parts, channels, partial_products, products);
  for (int64_t c = 0; c < channels; c++)
    products[c] = inverse[c] * (products[c] - (mean[c] - (double)(REAL)mean[c]) * sums[c]);
  return STATUS_OK;
}

/* grad_x = ((g - mean_g) - (x - mean) slope) scale + rest.  Both means are cut to what REAL holds and their rests are
 * in `rest`; the terms that may cancel are rounded as little as REAL allows. */
struct norm_back_line {
  REAL mean[NORM_COLUMNS], mean_g[NORM_COLUMNS], slope[NORM_COLUMNS], scale[NORM_COLUMNS], rest[NORM_COLUMNS];
};

static void norm_back_line(int64_t columns, int64_t first, const double *mean, const double *inverse, const REAL *gamma,
                           const double *mean_g, const double *mean_gx, struct norm_back_line *line) {
  for (int64_t c = 0; c < columns; c++) {
    double scale = inverse[first + c] * (double)gamma[first + c];
    line->scale[c] = (REAL)scale;
    if (mean_g == NULL)
      continue;
    double slope = inverse[first + c] * mean_gx[first + c];
    line->mean[c] = (REAL)mean[first + c];
    line->mean_g[c] = (REAL)mean_g[first + c];
    line->slope[c] = (REAL)slope;
    line->rest[c] = (REAL)(scale * ((mean[first + c] - (double)line->mean[c]) * slope -
                                    (mean_g[first + c] - (double)line->mean_g[c])));
  }
}

VECTOR_KERNEL static void norm_back_data_kernel(int64_t rows, int64_t columns, int64_t stride, const REAL *g,
                                                const REAL *x, bool fixed, const struct norm_back_line *line,
                                                REAL *grad_x) {
  for (int64_t row = 0; row < rows; row++) {
    int64_t at = row * stride;
    if (fixed) {
#pragma omp simd
      for (int64_t c = 0; c < columns; c++)
        grad_x[at + c] = g[at + c] * line->scale[c];
    } else {
#pragma omp simd
      for (int64_t c = 0; c < columns; c++) {
        REAL apart = (g[at + c] - line->mean_g[c]) - (x[at + c] - line->mean[c]) * line->slope[c];
        grad_x[at + c] = apart * line->scale[c] + line->rest[c];
      }
    }
  }
}

static enum status norm_backward_data(size_t size, int64_t channels, const void *g, const void *x, const double *mean,
                                      const double *inverse, const void *gamma, const double *mean_g,
                                      const double *mean_gx, void *grad_x) {
  int64_t count = (int64_t)size;
  struct norm_cut cut = norm_cut(count, channels, NORM_TASK_ROWS);
#pragma omp parallel for schedule(static) if (NORM_THREADED(count, channels))
  for (int64_t index = 0; index < cut.parts * cut.pieces; index++) {
    struct norm_task task = norm_task(&cut, count, channels, index);
    struct norm_back_line line;
    norm_back_line(task.columns, task.column, mean, inverse, gamma, mean_g, mean_gx, &line);
    norm_back_data_kernel(task.rows, task.columns, channels, (const REAL *)g + task.offset,
                          (const REAL *)x + task.offset, mean_g == NULL, &line, (REAL *)grad_x + task.offset);
  }
  return STATUS_OK;
}

static enum status norm_channels(enum norm_stage stage, const struct norm_channels *channels) {
  for (int64_t c = 0; c < channels->channels; c++)
    norm_channel(stage, channels, c);
  return STATUS_OK;
}
