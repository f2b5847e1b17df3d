/* Views of decoded pictures: the weights and sums of the resize (triangle.h) and the colour changes (colour.h), value by
 * value as on the host.  The pictures were decoded by the same GPU, which takes much longer: these are kept simple. */
#include "io/image_kernels.h"

#include "dist/cuda_launch.h"
#include "io/colour_pixel.h"

enum { THREADS = 256 };

/* --- weights -------------------------------------------------------------------------------------------------- */

/* Where the parts of a table lie. */
struct table {
  double *shares;
  struct triangle_pair *weights;
  int *first, *pairs, *bits;
};

static __device__ struct table table_of(const struct image_table &own, const uint8_t *arena) {
  struct table table;
  size_t to = (size_t)own.lengths.to, pairs = to * (size_t)own.room;
  table.shares = (double *)(arena + own.place);
  table.weights = (struct triangle_pair *)(table.shares + 2 * pairs);
  table.first = (int *)(table.weights + pairs);
  table.pairs = table.first + to;
  table.bits = table.pairs + to;
  return table;
}

/* Places and shares of the results of this thread; gives its largest share. */
static __device__ double share_out(const struct image_table &own, const struct table &table) {
  double largest = 0;
  for (int i = (int)threadIdx.x; i < own.lengths.to; i += (int)blockDim.x) {
    triangle_place(own.lengths, i, &table.first[i], &table.pairs[i]);
    double most = triangle_shares(own.lengths, i, table.first[i], table.pairs[i], 2 * own.room,
                                  table.shares + 2 * (size_t)i * own.room);
    largest = most > largest ? most : largest;
  }
  return largest;
}

/* Of all threads of the block. */
static __device__ double largest_of_block(double own) {
  __shared__ double all[THREADS];
  all[threadIdx.x] = own;
  __syncthreads();
  for (int i = 0; i < (int)blockDim.x; i++)
    own = all[i] > own ? all[i] : own;
  __syncthreads(); /* `all` is the next block's */
  return own;
}

/* Rounds the weights of this thread's results; false = so many bits are too many. */
static __device__ bool round_to(const struct image_table &own, const struct table &table, int bits) {
  for (int i = (int)threadIdx.x; i < own.lengths.to; i += (int)blockDim.x)
    if (!triangle_round(table.shares + 2 * (size_t)i * own.room, 2 * own.room, bits,
                        table.weights[(size_t)i * own.room].weight))
      return false;
  return true;
}

/* A block for each table: of the widths, and of the heights, of each job. */
static __global__ void __launch_bounds__(THREADS) weigh_kernel(const struct image_job *jobs, uint8_t *arena) {
  const struct image_table &own = blockIdx.x == 0 ? jobs[blockIdx.y].across : jobs[blockIdx.y].along;
  if (own.made)
    return;
  struct table table = table_of(own, arena);
  double largest = largest_of_block(share_out(own, table));
  int bits = TRIANGLE_MOST_BITS;
  while (__syncthreads_or(!triangle_bits_fit(largest, bits) || !round_to(own, table, bits)))
    bits--;
  if (threadIdx.x == 0)
    *table.bits = bits;
}

extern "C" enum status image_weigh_launch(struct stream *stream, int count, const struct image_job *jobs,
                                          uint8_t *arena) {
  LAUNCH_BLOCKS(weigh_kernel, dim3(2, (unsigned)count), THREADS, cuda_stream(stream), jobs, arena);
  return cuda_launched("the weights of a resize");
}

/* --- pixels --------------------------------------------------------------------------------------------------- */

/* Column j of the resized part in one row of the picture, rounded to 8 bits. */
static __device__ void sum_across(const struct table &table, int room, int j, const uint8_t *row, ptrdiff_t right,
                                  int out[3]) {
  const int16_t *weights = table.weights[(size_t)j * room].weight;
  int first = table.first[j], count = 2 * table.pairs[j], bits = *table.bits, half = 1 << (bits - 1);
  int sum[3] = {half, half, half};
  for (int k = 0; k < count; k++) {
    int weight = weights[k];
    if (weight == 0) /* there may be no such pixel */
      continue;
    const uint8_t *pixel = row + (first + k) * right;
    for (int c = 0; c < 3; c++)
      sum[c] += weight * pixel[c];
  }
  for (int c = 0; c < 3; c++)
    out[c] = sum[c] >> bits;
}

/* A thread for each pixel, a row of blocks for each view.  Each row that a pixel needs is summed anew: four times the
 * arithmetic at most, and no memory in between. */
static __global__ void __launch_bounds__(THREADS)
    resize_kernel(const struct image_job *jobs, const uint8_t *arena, int height, int width, uint8_t *out) {
  const struct image_job &job = jobs[blockIdx.y];
  int pixel = (int)(blockIdx.x * blockDim.x + threadIdx.x), y = pixel / width, x = pixel % width;
  if (pixel >= height * width)
    return;
  const struct resize_window &window = job.plan.window;
  int i = y + window.down, j = (window.mirrored ? width - 1 - x : x) + window.right;
  uint8_t *to = out + 3 * ((size_t)job.row * height * width + pixel);
  if (i < 0 || i >= height || j < 0 || j >= width) {
    to[0] = to[1] = to[2] = 0;
    return;
  }
  struct table across = table_of(job.across, arena), along = table_of(job.along, arena);
  const int16_t *weights = along.weights[(size_t)i * job.along.room].weight;
  int count = 2 * along.pairs[i], bits = *along.bits, half = 1 << (bits - 1);
  const uint8_t *row = arena + job.first + along.first[i] * job.down;
  int sum[3] = {half, half, half};
  for (int k = 0; k < count; k++, row += job.down) {
    int weight = weights[k], values[3];
    if (weight == 0)
      continue;
    sum_across(across, job.across.room, j, row, job.right, values);
    for (int c = 0; c < 3; c++)
      sum[c] += weight * values[c];
  }
  for (int c = 0; c < 3; c++)
    to[c] = (uint8_t)(sum[c] >> bits);
}

extern "C" enum status image_resize_launch(struct stream *stream, int count, const struct image_job *jobs,
                                           const uint8_t *arena, int height, int width, uint8_t *out) {
  unsigned blocks = ((unsigned)height * (unsigned)width + THREADS - 1) / THREADS;
  LAUNCH(resize_kernel, dim3(blocks, (unsigned)count), THREADS, cuda_stream(stream), jobs, arena, height, width, out);
  return cuda_launched("a resize");
}

/* --- colours -------------------------------------------------------------------------------------------------- */

/* The mean luma of a view; all threads of the block get it. */
static __device__ int mean_of_block(const uint8_t *pixels, int count) {
  __shared__ unsigned long long all[THREADS];
  unsigned long long sum = 0;
  for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x)
    sum += colour_luma(pixels + 3 * (size_t)i);
  all[threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  for (int i = 0; i < (int)blockDim.x; i++)
    sum += all[i];
  __syncthreads();
  return colour_mean(sum, (uint64_t)count);
}

static __device__ void change_pixel(enum colour_change change, double amount, int mean, uint8_t *pixel) {
  if (change == COLOUR_SATURATION)
    colour_saturate(pixel, (float)amount);
  else if (change == COLOUR_HUE)
    colour_turn(pixel, colour_steps(amount));
  else
    for (int c = 0; c < 3; c++)
      pixel[c] = colour_blend(mean, pixel[c], (float)amount);
}

/* A block for each view, whose threads keep to their own pixels: only the mean of all is shared. */
static __global__ void __launch_bounds__(THREADS) colour_kernel(const struct image_job *jobs, int count, uint8_t *out) {
  const struct image_job &job = jobs[blockIdx.x];
  uint8_t *pixels = out + 3 * (size_t)job.row * count;
  for (int step = 0; step < job.plan.changes; step++) {
    enum colour_change change = job.plan.change[step];
    int mean = change == COLOUR_CONTRAST ? mean_of_block(pixels, count) : 0;
    for (int i = (int)threadIdx.x; i < count; i += (int)blockDim.x)
      change_pixel(change, job.plan.amount[step], mean, pixels + 3 * (size_t)i);
  }
  for (int i = (int)threadIdx.x; job.plan.grey && i < count; i += (int)blockDim.x) {
    uint8_t *pixel = pixels + 3 * (size_t)i;
    pixel[0] = pixel[1] = pixel[2] = colour_luma(pixel);
  }
}

extern "C" enum status image_colour_launch(struct stream *stream, int count, const struct image_job *jobs, int height,
                                           int width, uint8_t *out) {
  LAUNCH_BLOCKS(colour_kernel, (unsigned)count, THREADS, cuda_stream(stream), jobs, height * width, out);
  return cuda_launched("a change of colours");
}
