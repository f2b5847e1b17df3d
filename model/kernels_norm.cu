/* Kernels of batch normalisation.  cuDNN's fused training call is of no use here: the statistics are merged over ranks
 * between the pass that finds them and the pass that uses them, and the same is true of the two sums on the way back.
 *
 * All four passes are bound by memory: x is read twice forward; x, the gradient and, for relu, y are read backward.  A
 * thread keeps VECTOR channels (or one, where they do not come in eights) and walks down the rows, so that what belongs
 * to a channel is loaded once.  Sums are in float over at most CHUNK rows of one thread and in double beyond, in two
 * levels: parts of the rows by blocks, then the parts; cuts depend on the shape alone, so equal shapes give equal
 * bits. */
#include "model/kernels.cuh"

enum { CHUNK = 64 };

/* The second level: a block finishes COLUMNS channels; the parts of each are spread over LANES threads. */
enum { COLUMNS = 8, LANES = THREADS / COLUMNS };

/* Neighbouring threads take neighbouring channels of one part. */
struct finish_place {
  int lane;
  int64_t channel;
};

static __device__ __forceinline__ struct finish_place finish_place() {
  struct finish_place place;
  place.lane = (int)threadIdx.x / COLUMNS;
  place.channel = (int64_t)blockIdx.x * COLUMNS + threadIdx.x % COLUMNS;
  return place;
}

static int finish_blocks(int64_t channels) {
  return (int)((channels + COLUMNS - 1) / COLUMNS);
}

/* Two sums per channel and part: partials [parts, 2, channels]. */
static struct sweep sweep_for_sums(int64_t count, int64_t channels, int width) {
  return sweep_cut(count, channels, width, BLOCKS_SUMS, 8, PARTIALS / (2 * channels));
}

static struct sweep sweep_for_values(int64_t count, int64_t channels, int width) {
  return sweep_cut(count, channels, width, BLOCKS_FULL, 4, 65535);
}

static enum status check_channels(int64_t channels) {
  REQUIRE(2 * channels <= PARTIALS, ERR_BUG, "batch normalisation of %lld channels is more than the CUDA backend does",
          (long long)channels);
  return STATUS_OK;
}

/* --- statistics ---------------------------------------------------------------------------------------------- */

/* Of some values: how many, their mean, and the sum of squared deviations from it. */
struct moments {
  double count, mean, square;
};

/* Chan, Golub, LeVeque 1983.  Counts of 0 are fine. */
static __device__ __forceinline__ void join(struct moments *own, const struct moments &more) {
  double count = own->count + more.count, share = count > 0 ? more.count / count : 0, apart = more.mean - own->mean;
  if (more.count > 0) {
    own->mean += apart * share;
    own->square += more.square + apart * apart * (own->count * share);
    own->count = count;
  }
}

/* From sums about a pivot that is one of the values: what cancels costs two or three bits of float as a rule, whatever
 * the mean, and equal values give exactly 0. */
static __device__ __forceinline__ struct moments from_pivot(int count, float pivot, float sum, float squares) {
  struct moments moments;
  double share = 1.0 / count, square = (double)squares - (double)sum * sum * share;
  moments.count = count;
  moments.mean = (double)pivot + sum * share;
  moments.square = square < 0 ? 0 : square;
  return moments;
}

/* One thread's rows, chunk by chunk, each in one pass about its first value. */
template <typename T, int N>
static __device__ __forceinline__ void own_moments(const struct sweep &sweep, const struct sweep_place &place,
                                                   const T *x, struct moments (&total)[N]) {
  const T *column = x + (int64_t)place.group * N;
  for (int64_t row = place.first; row < place.end;) {
    float pivot[N], sum[N] = {0}, squares[N] = {0}, v[N];
    int count = 1;
    load(column + row * sweep.channels, pivot);
    row += place.step;
    UNROLL_BY(4)
    for (; count < CHUNK && row < place.end; count++, row += place.step) {
      load(column + row * sweep.channels, v);
      UNROLL
      for (int k = 0; k < N; k++) {
        float apart = v[k] - pivot[k];
        sum[k] += apart;
        squares[k] += apart * apart;
      }
    }
    UNROLL
    for (int k = 0; k < N; k++)
      join(&total[k], from_pivot(count, pivot[k], sum[k], squares[k]));
  }
}

/* partials [parts, 2, channels]: mean and square of each part. */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) statistics_kernel(struct sweep sweep, const T *x, double *partials) {
  __shared__ double means[N][THREADS], squares[N][THREADS];
  __shared__ int counts[THREADS];
  struct sweep_place place = sweep_place(sweep, (int)blockIdx.x);
  struct moments own[N] = {};
  if (place.group < sweep.groups)
    own_moments<T, N>(sweep, place, x, own);
  UNROLL
  for (int k = 0; k < N; k++) {
    means[k][threadIdx.x] = own[k].mean;
    squares[k][threadIdx.x] = own[k].square;
  }
  counts[threadIdx.x] = (int)own[0].count;
  for (int half = (int)place.step / 2; half > 0; half /= 2) {
    __syncthreads();
    if (place.down >= half)
      continue;
    int other = (int)threadIdx.x + half * sweep.across;
    for (int k = 0; k < N; k++) {
      struct moments more = {(double)counts[other], means[k][other], squares[k][other]};
      join(&own[k], more);
      means[k][threadIdx.x] = own[k].mean;
      squares[k][threadIdx.x] = own[k].square;
    }
    counts[threadIdx.x] = (int)own[0].count;
  }
  if (place.down != 0 || place.group >= sweep.groups)
    return;
  double *part = partials + 2 * (int64_t)blockIdx.y * sweep.channels + (int64_t)place.group * N;
  for (int k = 0; k < N; k++) {
    part[k] = own[k].mean;
    part[sweep.channels + k] = own[k].square;
  }
}

static __global__ void __launch_bounds__(THREADS)
    statistics_finish_kernel(struct sweep sweep, const double *partials, double *mean, double *square) {
  __shared__ struct moments shared[THREADS];
  struct finish_place place = finish_place();
  struct moments own = {0, 0, 0};
  for (int part = place.lane; part < sweep.parts && place.channel < sweep.channels; part += LANES) {
    int64_t rows = sweep.rows - part * sweep.part_rows;
    const double *from = partials + 2 * (int64_t)part * sweep.channels + place.channel;
    struct moments more = {(double)(rows < sweep.part_rows ? rows : sweep.part_rows), from[0], from[sweep.channels]};
    join(&own, more);
  }
  shared[threadIdx.x] = own;
  for (int half = LANES / 2; half > 0; half /= 2) {
    __syncthreads();
    if (place.lane < half)
      join(&shared[threadIdx.x], shared[threadIdx.x + half * COLUMNS]);
  }
  if (place.lane == 0 && place.channel < sweep.channels) {
    mean[place.channel] = shared[threadIdx.x].mean;
    square[place.channel] = shared[threadIdx.x].square;
  }
}

template <typename T, int N>
static enum status statistics(struct stream *stream, int64_t count, int64_t channels, const T *x, double *partials,
                              double *mean, double *square) {
  struct sweep sweep = sweep_for_sums(count, channels, N);
  auto kernel = statistics_kernel<T, N>;
  if (sweep.parts > 0) {
    LAUNCH_BLOCKS(kernel, dim3(sweep.blocks, sweep.parts), THREADS, cuda_stream(stream), sweep, x, partials);
    TRY(cuda_launched("statistics"));
  }
  LAUNCH_BLOCKS(statistics_finish_kernel, finish_blocks(channels), THREADS, cuda_stream(stream), sweep,
                (const double *)partials, mean, square);
  return cuda_launched("statistics");
}

extern "C" enum status norm_statistics_launch(struct stream *stream, enum dtype dtype, int64_t count, int64_t channels,
                                              const void *x, double *partials, double *mean, double *square) {
  bool vectors = channels % VECTOR == 0 && on_16_bytes(x);
  TRY(check_channels(channels));
  if (dtype == BF16)
    return vectors ? statistics<bf16, VECTOR>(stream, count, channels, (const bf16 *)x, partials, mean, square)
                   : statistics<bf16, 1>(stream, count, channels, (const bf16 *)x, partials, mean, square);
  return vectors ? statistics<float, VECTOR>(stream, count, channels, (const float *)x, partials, mean, square)
                 : statistics<float, 1>(stream, count, channels, (const float *)x, partials, mean, square);
}

/* --- forward ------------------------------------------------------------------------------------------------- */

/* residual NULL = none. */
template <typename T> struct forward_arguments {
  const T *x;
  const double *mean, *inverse;
  const float *gamma, *beta;
  const T *residual;
  bool relu;
  T *y;
};

/* y = (x - mean) scale + shift.  The mean is cut to what float holds and the rest goes into the shift, so that a large
 * mean costs no digits. */
template <typename T, int N, bool ADD>
static __global__ void __launch_bounds__(THREADS) forward_kernel(struct sweep sweep, struct forward_arguments<T> a) {
  struct sweep_place place = sweep_place(sweep, (int)blockIdx.x);
  float mean[N], scale[N], shift[N];
  if (place.group >= sweep.groups)
    return;
  UNROLL
  for (int k = 0; k < N; k++) {
    int64_t c = (int64_t)place.group * N + k;
    double wide = a.inverse[c] * (double)a.gamma[c];
    mean[k] = (float)a.mean[c];
    scale[k] = (float)wide;
    shift[k] = (float)((double)a.beta[c] - (a.mean[c] - (double)mean[k]) * wide);
  }
  UNROLL_BY(2)
  for (int64_t row = place.first; row < place.end; row += place.step) {
    int64_t at = row * sweep.channels + (int64_t)place.group * N;
    float v[N], more[N];
    load(a.x + at, v);
    if (ADD)
      load(a.residual + at, more);
    UNROLL
    for (int k = 0; k < N; k++) {
      v[k] = (v[k] - mean[k]) * scale[k] + shift[k];
      if (ADD)
        v[k] += more[k];
      v[k] = a.relu && v[k] < 0 ? 0 : v[k]; /* NaN stays */
    }
    store(v, a.y + at);
  }
}

template <typename T, int N>
static enum status forward(struct stream *stream, int64_t count, int64_t channels,
                           const struct forward_arguments<T> &a) {
  struct sweep sweep = sweep_for_values(count, channels, N);
  auto kernel = a.residual != NULL ? forward_kernel<T, N, true> : forward_kernel<T, N, false>;
  LAUNCH(kernel, dim3(sweep.blocks, sweep.parts), THREADS, cuda_stream(stream), sweep, a);
  return cuda_launched("batch norm");
}

template <typename T>
static enum status forward_of(struct stream *stream, int64_t count, int64_t channels, const void *x, const double *mean,
                              const double *inverse, const float *gamma, const float *beta, const void *residual,
                              bool relu, void *y) {
  bool vectors = channels % VECTOR == 0 && on_16_bytes(x) && on_16_bytes(residual) && on_16_bytes(y);
  struct forward_arguments<T> a = {
    (const T *)x, mean, inverse, gamma, beta, (const T *)residual, relu, (T *)y
  };
  if (count == 0)
    return STATUS_OK;
  return vectors ? forward<T, VECTOR>(stream, count, channels, a) : forward<T, 1>(stream, count, channels, a);
}

extern "C" enum status norm_forward_launch(struct stream *stream, enum dtype dtype, int64_t count, int64_t channels,
                                           const void *x, const double *mean, const double *inverse, const float *gamma,
                                           const float *beta, const void *residual, bool relu, void *y) {
  return dtype == BF16 ? forward_of<bf16>(stream, count, channels, x, mean, inverse, gamma, beta, residual, relu, y)
                       : forward_of<float>(stream, count, channels, x, mean, inverse, gamma, beta, residual, relu, y);
}

/* --- the sums on the way back -------------------------------------------------------------------------------- */

/* more, y, masked: NULL = none. */
template <typename T> struct back_arguments {
  const T *grad, *more, *x, *y;
  const double *mean;
  T *masked;
};

/* The gradient of what stands before relu, at one place; left in `masked`, and as it is held there, so that its sums
 * are those of what the second half reads. */
template <typename T, int N, bool ADD, bool RELU>
static __device__ __forceinline__ void masked_gradient(const struct back_arguments<T> &a, int64_t at, float (&g)[N]) {
  float more[N], y[N];
  load(a.grad + at, g);
  if (ADD)
    load(a.more + at, more);
  if (RELU)
    load(a.y + at, y);
  UNROLL
  for (int k = 0; k < N; k++) {
    if (ADD)
      g[k] = rounded<T>(g[k] + more[k]);
    if (RELU)
      g[k] = y[k] <= 0 ? 0 : g[k]; /* NaN keeps its gradient */
  }
  if (a.masked != NULL)
    store(g, a.masked + at);
}

/* One thread's rows: the sum of g, and of g (x - mean) with the mean as float; the rest of the mean is put right when
 * all is summed. */
template <typename T, int N, bool ADD, bool RELU>
static __device__ __forceinline__ void own_sums(const struct sweep &sweep, const struct sweep_place &place,
                                                const struct back_arguments<T> &a, double (&sums)[N],
                                                double (&products)[N]) {
  float mean[N];
  UNROLL
  for (int k = 0; k < N; k++)
    mean[k] = (float)a.mean[(int64_t)place.group * N + k];
  for (int64_t row = place.first; row < place.end;) {
    float sum[N] = {0}, product[N] = {0}, g[N], x[N];
    UNROLL_BY(2)
    for (int i = 0; i < CHUNK && row < place.end; i++, row += place.step) {
      int64_t at = row * sweep.channels + (int64_t)place.group * N;
      load(a.x + at, x);
      masked_gradient<T, N, ADD, RELU>(a, at, g);
      UNROLL
      for (int k = 0; k < N; k++) {
        sum[k] += g[k];
        product[k] += g[k] * (x[k] - mean[k]);
      }
    }
    UNROLL
    for (int k = 0; k < N; k++) {
      sums[k] += (double)sum[k];
      products[k] += (double)product[k];
    }
  }
}

/* partials [parts, 2, channels]: both sums of each part. */
template <typename T, int N, bool ADD, bool RELU>
static __global__ void __launch_bounds__(THREADS)
    back_sums_kernel(struct sweep sweep, struct back_arguments<T> a, double *partials) {
  __shared__ double sums[N][THREADS], products[N][THREADS];
  struct sweep_place place = sweep_place(sweep, (int)blockIdx.x);
  bool works = place.group < sweep.groups;
  double own[N] = {0}, own_products[N] = {0};
  if (works)
    own_sums<T, N, ADD, RELU>(sweep, place, a, own, own_products);
  UNROLL
  for (int k = 0; k < N; k++) {
    sums[k][threadIdx.x] = own[k];
    products[k][threadIdx.x] = own_products[k];
  }
  for (int half = (int)place.step / 2; half > 0; half /= 2) {
    __syncthreads();
    for (int k = 0; k < N && place.down < half; k++) {
      sums[k][threadIdx.x] += sums[k][threadIdx.x + half * sweep.across];
      products[k][threadIdx.x] += products[k][threadIdx.x + half * sweep.across];
    }
  }
  if (place.down != 0 || !works)
    return;
  double *part = partials + 2 * (int64_t)blockIdx.y * sweep.channels + (int64_t)place.group * N;
  for (int k = 0; k < N; k++) {
    part[k] = sums[k][threadIdx.x];
    part[sweep.channels + k] = products[k][threadIdx.x];
  }
}

static __global__ void __launch_bounds__(THREADS)
    back_finish_kernel(int parts, int64_t channels, const double *partials, const double *mean, const double *inverse,
                       double *sums) {
  __shared__ double shared[2][THREADS];
  struct finish_place place = finish_place();
  double sum = 0, product = 0;
  for (int part = place.lane; part < parts && place.channel < channels; part += LANES) {
    sum += partials[2 * (int64_t)part * channels + place.channel];
    product += partials[(2 * (int64_t)part + 1) * channels + place.channel];
  }
  shared[0][threadIdx.x] = sum;
  shared[1][threadIdx.x] = product;
  for (int half = LANES / 2; half > 0; half /= 2) {
    __syncthreads();
    for (int i = 0; i < 2 && place.lane < half; i++)
      shared[i][threadIdx.x] += shared[i][threadIdx.x + half * COLUMNS];
  }
  if (place.lane != 0 || place.channel >= channels)
    return;
  int64_t c = place.channel;
  sum = shared[0][threadIdx.x];
  sums[c] = sum;
  sums[channels + c] = inverse[c] * (shared[1][threadIdx.x] - (mean[c] - (double)(float)mean[c]) * sum);
}

template <typename T, int N, bool ADD, bool RELU>
static enum status back_sums(struct stream *stream, int64_t count, int64_t channels, const struct back_arguments<T> &a,
                             const double *inverse, double *partials, double *sums) {
  struct sweep sweep = sweep_for_sums(count, channels, N);
  auto kernel = back_sums_kernel<T, N, ADD, RELU>;
  if (sweep.parts > 0) {
    LAUNCH_BLOCKS(kernel, dim3(sweep.blocks, sweep.parts), THREADS, cuda_stream(stream), sweep, a, partials);
    TRY(cuda_launched("sums of batch norm"));
  }
  LAUNCH_BLOCKS(back_finish_kernel, finish_blocks(channels), THREADS, cuda_stream(stream), sweep.parts, channels,
                (const double *)partials, a.mean, inverse, sums);
  return cuda_launched("sums of batch norm");
}

template <typename T, int N>
static enum status back_sums_of(struct stream *stream, int64_t count, int64_t channels,
                                const struct back_arguments<T> &a, const double *inverse, double *partials,
                                double *sums) {
  if (a.more != NULL && a.y != NULL)
    return back_sums<T, N, true, true>(stream, count, channels, a, inverse, partials, sums);
  if (a.more != NULL)
    return back_sums<T, N, true, false>(stream, count, channels, a, inverse, partials, sums);
  if (a.y != NULL)
    return back_sums<T, N, false, true>(stream, count, channels, a, inverse, partials, sums);
  return back_sums<T, N, false, false>(stream, count, channels, a, inverse, partials, sums);
}

template <typename T>
static enum status back_sums_in(struct stream *stream, int64_t count, int64_t channels, const void *grad,
                                const void *more, const void *x, const void *y, const double *mean,
                                const double *inverse, void *masked, double *partials, double *sums) {
  bool vectors = channels % VECTOR == 0 && on_16_bytes(grad) && on_16_bytes(more) && on_16_bytes(x) && on_16_bytes(y) &&
                 on_16_bytes(masked);
  bool changes = more != NULL || y != NULL || masked != grad; /* else it is there already */
  struct back_arguments<T> a = {
    (const T *)grad, (const T *)more, (const T *)x, (const T *)y, mean, changes ? (T *)masked : NULL
  };
  return vectors ? back_sums_of<T, VECTOR>(stream, count, channels, a, inverse, partials, sums)
                 : back_sums_of<T, 1>(stream, count, channels, a, inverse, partials, sums);
}

extern "C" enum status norm_backward_sums_launch(struct stream *stream, enum dtype dtype, int64_t count,
                                                 int64_t channels, const void *grad, const void *more, const void *x,
                                                 const void *y, const double *mean, const double *inverse, void *masked,
                                                 double *partials, double *sums) {
  TRY(check_channels(channels));
  return dtype == BF16
             ? back_sums_in<bf16>(stream, count, channels, grad, more, x, y, mean, inverse, masked, partials, sums)
             : back_sums_in<float>(stream, count, channels, grad, more, x, y, mean, inverse, masked, partials, sums);
}

/* --- the gradient of x --------------------------------------------------------------------------------------- */

/* mean_g, mean_gx: both NULL = the statistics do not depend on x. */
template <typename T> struct data_arguments {
  const T *g, *x;
  const double *mean, *inverse;
  const float *gamma;
  const double *mean_g, *mean_gx;
  T *grad_x;
};

/* grad_x = ((g - mean_g) - (x - mean) slope) scale + rest.  Both means are cut to what float holds and their rests are
 * in `rest`; the terms that may cancel are rounded as little as float allows. */
template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) data_kernel(struct sweep sweep, struct data_arguments<T> a) {
  struct sweep_place place = sweep_place(sweep, (int)blockIdx.x);
  float mean[N], mean_g[N], slope[N], scale[N], rest[N];
  if (place.group >= sweep.groups)
    return;
  UNROLL
  for (int k = 0; k < N; k++) {
    int64_t c = (int64_t)place.group * N + k;
    double wide = a.inverse[c] * (double)a.gamma[c], wide_slope = a.inverse[c] * a.mean_gx[c];
    mean[k] = (float)a.mean[c];
    mean_g[k] = (float)a.mean_g[c];
    slope[k] = (float)wide_slope;
    scale[k] = (float)wide;
    rest[k] = (float)(wide * ((a.mean[c] - (double)mean[k]) * wide_slope - (a.mean_g[c] - (double)mean_g[k])));
  }
  UNROLL_BY(2)
  for (int64_t row = place.first; row < place.end; row += place.step) {
    int64_t at = row * sweep.channels + (int64_t)place.group * N;
    float g[N], x[N];
    load(a.g + at, g);
    load(a.x + at, x);
    UNROLL
    for (int k = 0; k < N; k++)
      g[k] = ((g[k] - mean_g[k]) - (x[k] - mean[k]) * slope[k]) * scale[k] + rest[k];
    store(g, a.grad_x + at);
  }
}

template <typename T, int N>
static __global__ void __launch_bounds__(THREADS) fixed_data_kernel(struct sweep sweep, struct data_arguments<T> a) {
  struct sweep_place place = sweep_place(sweep, (int)blockIdx.x);
  float scale[N];
  if (place.group >= sweep.groups)
    return;
  UNROLL
  for (int k = 0; k < N; k++)
    scale[k] = (float)(a.inverse[(int64_t)place.group * N + k] * (double)a.gamma[(int64_t)place.group * N + k]);
  UNROLL_BY(2)
  for (int64_t row = place.first; row < place.end; row += place.step) {
    int64_t at = row * sweep.channels + (int64_t)place.group * N;
    float g[N];
    load(a.g + at, g);
    UNROLL
    for (int k = 0; k < N; k++)
      g[k] *= scale[k];
    store(g, a.grad_x + at);
  }
}

template <typename T, int N>
static enum status data(struct stream *stream, int64_t count, int64_t channels, const struct data_arguments<T> &a) {
  struct sweep sweep = sweep_for_values(count, channels, N);
  auto kernel = a.mean_g != NULL ? data_kernel<T, N> : fixed_data_kernel<T, N>;
  LAUNCH(kernel, dim3(sweep.blocks, sweep.parts), THREADS, cuda_stream(stream), sweep, a);
  return cuda_launched("batch norm backward");
}

template <typename T>
static enum status data_of(struct stream *stream, int64_t count, int64_t channels, const void *g, const void *x,
                           const double *mean, const double *inverse, const float *gamma, const double *mean_g,
                           const double *mean_gx, void *grad_x) {
  bool vectors = channels % VECTOR == 0 && on_16_bytes(g) && on_16_bytes(x) && on_16_bytes(grad_x);
  struct data_arguments<T> a = {
    (const T *)g, (const T *)x, mean, inverse, gamma, mean_g, mean_gx, (T *)grad_x
  };
  if (count == 0)
    return STATUS_OK;
  return vectors ? data<T, VECTOR>(stream, count, channels, a) : data<T, 1>(stream, count, channels, a);
}

extern "C" enum status norm_backward_data_launch(struct stream *stream, enum dtype dtype, int64_t count,
                                                 int64_t channels, const void *g, const void *x, const double *mean,
                                                 const double *inverse, const float *gamma, const double *mean_g,
                                                 const double *mean_gx, void *grad_x) {
  return dtype == BF16 ? data_of<bf16>(stream, count, channels, g, x, mean, inverse, gamma, mean_g, mean_gx, grad_x)
                       : data_of<float>(stream, count, channels, g, x, mean, inverse, gamma, mean_g, mean_gx, grad_x);
}

/* --- numbers of channels ------------------------------------------------------------------------------------- */

/* The arithmetic of norm_channel.h, a thread a channel: no channel reads what another writes in the same stage. */
static __global__ void __launch_bounds__(THREADS) channels_kernel(enum norm_stage stage, struct norm_channels n) {
  int64_t c = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (c < n.channels)
    norm_channel(stage, &n, c);
}

extern "C" enum status norm_channels_launch(struct stream *stream, enum norm_stage stage,
                                            const struct norm_channels *channels) {
  LAUNCH(channels_kernel, (int)((channels->channels + THREADS - 1) / THREADS), THREADS, cuda_stream(stream), stage,
         *channels);
  return cuda_launched("channels of batch norm");
}
