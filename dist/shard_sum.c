/* A tree over shards, climbed by each rank as far as its own reach and by all of them together from there. */
#include "dist/shard_sum.h"

#include "dist/memory.h"

#include <string.h>

/* Elements that are exchanged at a time. */
#define PIECE ((size_t)1 << 20)

/* Shards first .. end - 1: a subtree, or part of one. */
struct range {
  int first, end;
};

struct shard_sum {
  struct comm *comm; /* borrowed */
  enum dtype dtype;
  size_t elements, bytes;
  int shards;
  struct range own;
  int next;           /* the shard that is added next                                          */
  struct range *open; /* [room] subtrees that this rank holds, in order; their vectors are ... */
  void **vector;      /* ... these, [room] of [elements]                                       */
  int count, room;
  struct range *roots; /* subtrees that all ranks end with, rank by rank                        */
  int *first_root;     /* [ranks + 1] those of each                                             */
  int64_t *rows;       /* [3 ranks] of the exchange: to, from, slices                           */
  void *sent, *received;
};

/* ---- the tree -------------------------------------------------------------------------------- */

static int middle_of(struct range node) {
  return node.first + (node.end - node.first) / 2;
}

/* Are they the two halves of a subtree? */
static bool are_halves(int shards, struct range lower, struct range upper) {
  struct range node = {0, shards};
  while (node.end - node.first > 1) {
    int middle = middle_of(node);
    if (node.first == lower.first && node.end == upper.end)
      return middle == lower.end;
    if (upper.end <= middle)
      node.end = middle;
    else if (lower.first >= middle)
      node.first = middle;
    else
      return false;
  }
  return false;
}

/* The subtrees that shards first .. end - 1 come to, behind `roots`; *most: open at a time.  roots may be NULL. */
static int climb(int shards, struct range own, struct range *roots, int *most) {
  struct range open[64];
  int count = 0;
  *most = 0;
  for (int shard = own.first; shard < own.end; shard++) {
    open[count++] = (struct range){shard, shard + 1};
    *most = count > *most ? count : *most;
    for (; count > 1 && are_halves(shards, open[count - 2], open[count - 1]); count--)
      open[count - 2].end = open[count - 1].end;
  }
  if (roots != NULL)
    memcpy(roots, open, (size_t)count * sizeof *roots);
  return count;
}

static struct range shards_of(int shards, int rank, int size) {
  return (struct range){(int)((int64_t)shards * rank / size), (int)((int64_t)shards * (rank + 1) / size)};
}

/* ---- life ------------------------------------------------------------------------------------ */

static enum status find_roots(struct shard_sum *sum) {
  int size = comm_size(sum->comm), all = 0, most;
  TRY(memory_alloc(((size_t)size + 1) * sizeof *sum->first_root, (void **)&sum->first_root));
  for (int rank = 0; rank < size; rank++) {
    sum->first_root[rank] = all;
    all += climb(sum->shards, shards_of(sum->shards, rank, size), NULL, &most);
  }
  sum->first_root[size] = all;
  TRY(memory_alloc((size_t)all * sizeof *sum->roots, (void **)&sum->roots));
  for (int rank = 0; rank < size; rank++)
    climb(sum->shards, shards_of(sum->shards, rank, size), sum->roots + sum->first_root[rank], &most);
  return STATUS_OK;
}

static enum status take(struct shard_sum *sum, size_t bytes, void **out) {
  sum->bytes += bytes;
  return memory_alloc(bytes, out);
}

static enum status make_all(struct shard_sum *sum) {
  int size = comm_size(sum->comm), rank = comm_rank(sum->comm);
  size_t real = dtype_size(sum->dtype), piece = sum->elements < PIECE ? sum->elements : PIECE;
  TRY(find_roots(sum));
  climb(sum->shards, sum->own, NULL, &sum->room);
  TRY(memory_alloc((size_t)sum->room * sizeof *sum->open, (void **)&sum->open));
  TRY(memory_alloc_zero((size_t)sum->room * sizeof *sum->vector, (void **)&sum->vector));
  for (int i = 0; i < sum->room; i++)
    TRY(take(sum, sum->elements * real, &sum->vector[i]));
  TRY(memory_alloc(3 * (size_t)size * sizeof *sum->rows, (void **)&sum->rows));
  if (size == 1)
    return STATUS_OK;
  TRY(take(sum, (size_t)(sum->first_root[rank + 1] - sum->first_root[rank]) * piece * real, &sum->sent));
  return take(sum, (size_t)sum->first_root[size] * (piece / (size_t)size + 1) * real, &sum->received);
}

enum status shard_sum_create(struct comm *comm, enum dtype dtype, size_t elements, int shards, struct shard_sum **out) {
  struct shard_sum *sum = NULL;
  enum status status;
  *out = NULL;
  REQUIRE(shards >= comm_size(comm), ERR_ARGUMENT, "%d virtual shards are fewer than the %d ranks; give more", shards,
          comm_size(comm));
  REQUIRE(dtype == F32 || dtype == F64, ERR_BUG, "sums over shards are of f32 or f64, not of %s", dtype_name(dtype));
  TRY(memory_alloc_zero(sizeof *sum, (void **)&sum));
  sum->comm = comm;
  sum->dtype = dtype;
  sum->elements = elements;
  sum->shards = shards;
  sum->own = shards_of(shards, comm_rank(comm), comm_size(comm));
  TRY_GOTO(make_all(sum), failed);
  shard_sum_begin(sum);
  *out = sum;
  return STATUS_OK;
failed:
  shard_sum_destroy(&sum);
  return status;
}

void shard_sum_destroy(struct shard_sum **sum) {
  struct shard_sum *own = *sum;
  if (own == NULL)
    return;
  for (int i = 0; i < own->room && own->vector != NULL; i++)
    memory_free(&own->vector[i]);
  memory_free(&own->received);
  memory_free(&own->sent);
  memory_free((void **)&own->rows);
  memory_free((void **)&own->vector);
  memory_free((void **)&own->open);
  memory_free((void **)&own->roots);
  memory_free((void **)&own->first_root);
  memory_free((void **)sum);
}

size_t shard_sum_bytes(const struct shard_sum *sum) {
  return sum->bytes;
}

size_t shard_sum_pieces(const struct shard_sum *sum) {
  return (sum->elements + PIECE - 1) / PIECE;
}

/* ---- additions --------------------------------------------------------------------------------- */

static char *at(const struct shard_sum *sum, const void *vector, size_t element) {
  return (char *)vector + element * dtype_size(sum->dtype);
}

/* a += b */
static void add(enum dtype dtype, size_t count, void *a, const void *b) {
  float *a32 = a;
  double *a64 = a;
  const float *b32 = b;
  const double *b64 = b;
  for (size_t i = 0; i < count && dtype == F32; i++)
    a32[i] += b32[i];
  for (size_t i = 0; i < count && dtype == F64; i++)
    a64[i] += b64[i];
}

void shard_sum_begin(struct shard_sum *sum) {
  sum->next = sum->own.first;
  sum->count = 0;
}

enum status shard_sum_add(struct shard_sum *sum, const void *vector) {
  REQUIRE(sum->next < sum->own.end, ERR_BUG, "a rank adds up more than its %d shards", sum->own.end - sum->own.first);
  memcpy(sum->vector[sum->count], vector, sum->elements * dtype_size(sum->dtype));
  sum->open[sum->count++] = (struct range){sum->next, sum->next + 1};
  sum->next++;
  for (; sum->count > 1; sum->count--) {
    struct range *lower = &sum->open[sum->count - 2], *upper = lower + 1;
    if (!are_halves(sum->shards, *lower, *upper))
      break;
    add(sum->dtype, sum->elements, sum->vector[sum->count - 2], sum->vector[sum->count - 1]);
    lower->end = upper->end;
  }
  return STATUS_OK;
}

/* Of `node`, in the place of its first subtree among the `count` elements that were received of each. */
static void *add_up(const struct shard_sum *sum, struct range node, size_t count, int *next) {
  int root = *next;
  if (sum->roots[root].first == node.first && sum->roots[root].end == node.end) {
    (*next)++;
    return at(sum, sum->received, (size_t)root * count);
  }
  int middle = middle_of(node);
  void *lower = add_up(sum, (struct range){node.first, middle}, count, next);
  const void *upper = add_up(sum, (struct range){middle, node.end}, count, next);
  add(sum->dtype, count, lower, upper);
  return lower;
}

/* Elements first .. first + count - 1: each rank adds up a slice of them. */
static enum status finish_piece(struct shard_sum *sum, size_t first, size_t count, void *total) {
  int size = comm_size(sum->comm), rank = comm_rank(sum->comm), next = 0;
  int64_t *to = sum->rows, *from = to + size, *slice = from + size;
  char *sent = sum->sent;
  for (int other = 0; other < size; other++) {
    size_t begin = count * (size_t)other / (size_t)size, end = count * ((size_t)other + 1) / (size_t)size;
    slice[other] = (int64_t)(end - begin);
    to[other] = sum->count * slice[other];
    for (int i = 0; i < sum->count; i++) {
      memcpy(sent, at(sum, sum->vector[i], first + begin), (end - begin) * dtype_size(sum->dtype));
      sent = at(sum, sent, end - begin);
    }
  }
  for (int other = 0; other < size; other++)
    from[other] = (sum->first_root[other + 1] - sum->first_root[other]) * slice[rank];
  TRY(comm_exchange_rows(sum->comm, sum->sent, to, from, dtype_size(sum->dtype), sum->received));
  const void *own = add_up(sum, (struct range){0, sum->shards}, (size_t)slice[rank], &next);
  return comm_gather_rows(sum->comm, own, slice, dtype_size(sum->dtype), at(sum, total, first));
}

enum status shard_sum_finish(struct shard_sum *sum, void *total) {
  REQUIRE(sum->next == sum->own.end, ERR_BUG, "a rank has added up %d of its %d shards", sum->next - sum->own.first,
          sum->own.end - sum->own.first);
  if (comm_size(sum->comm) == 1)
    memcpy(total, sum->vector[0], sum->elements * dtype_size(sum->dtype));
  for (size_t first = 0; comm_size(sum->comm) > 1 && first < sum->elements; first += PIECE)
    TRY(finish_piece(sum, first, sum->elements - first < PIECE ? sum->elements - first : PIECE, total));
  return STATUS_OK;
}
