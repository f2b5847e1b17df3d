/* What is looked at, in order; a host's own affairs are in preflight_host.c. */
#define _GNU_SOURCE /* open_memstream */
#include "launch/preflight.h"

#include "dist/comm_device.h"
#include "dist/links.h"
#include "dist/memory.h"
#include "dist/program.h"
#include "io/checksum.h"
#include "io/stage.h"
#include "io/storage.h"
#include "launch/preflight_host.h"
#include "launch/run_folder.h"
#include "version.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bytes of the sum and of the gather that are tried. */
#define TRIED_BYTES ((size_t)1 << 21)

/* One look. */
struct look {
  struct session *session;
  const struct config *config;
  struct findings *findings;
  int hosts;
  bool first_of_host; /* what a host says of itself, this rank says */
  int64_t other_program, other_options;
  struct file_sum data; /* of the first rank of a host; bytes: 0 = it cannot be read */
};

static bool is_root(const struct look *look) {
  return comm_rank(look->session->comm) == 0;
}

static void skip(struct look *look, enum check check, const char *reason) {
  findings_add(look->findings, check, VERDICT_SKIPPED, STATUS_OK, "%s", reason);
}

/* A failure that was met on the way, in its own words. */
static void add_failure(struct look *look, enum check check, enum status status) {
  char sentence[FINDING_BYTES];
  snprintf(sentence, sizeof sentence, "%.*s", FINDING_BYTES - 1, status_message());
  findings_add(look->findings, check, VERDICT_FAILED, status, "%s", sentence);
}

static enum status count_hosts(struct look *look) {
  double hosts = comm_node_rank(look->session->comm) == 0;
  look->first_of_host = hosts == 1;
  TRY(comm_sum(look->session->comm, F64, &hosts, 1));
  look->hosts = (int)hosts;
  return STATUS_OK;
}

/* ---- the same everywhere -------------------------------------------------------------------- */

struct program {
  char version[128], builds[512];
};

static enum status check_program(struct look *look) {
  struct program own = {0}, first;
  snprintf(own.version, sizeof own.version, "conr %s, commit %s", CONR_VERSION, CONR_COMMIT);
  program_builds(own.builds, sizeof own.builds);
  first = own;
  TRY(comm_broadcast(look->session->comm, &first, sizeof first, 0));
  look->other_program = memcmp(&own, &first, sizeof own) != 0;
  if (look->other_program)
    findings_add(look->findings, CHECK_PROGRAM, VERDICT_FAILED, ERR_FILE,
                 "another program than rank 0's: %s (%s) and there %s (%s); install the same on all hosts", own.version,
                 own.builds, first.version, first.builds);
  else
    findings_add(look->findings, CHECK_PROGRAM, VERDICT_OK, STATUS_OK, "%s (%s)", own.version, own.builds);
  return comm_max_i64(look->session->comm, &look->other_program, 1);
}

/* Everything that was asked for, a line each: "name = value". */
static enum status write_options(const struct config *config, char **text, size_t *bytes) {
  FILE *stream = open_memstream(text, bytes);
  REQUIRE(stream != NULL, ERR_MEMORY, "out of memory for the options");
  for (int i = 0; i < config->words && i < CONFIG_MOST_WORDS; i++)
    fprintf(stream, "%s = %s\n", i == 0 ? "data file" : "word", config->word[i]);
  fprintf(stream, "command = %s\nresume = %s\nforce = %s\npreflight = %s\n", command_name(config->command),
          config->resume ? "true" : "false", config->force ? "true" : "false",
          config->preflight != NULL ? config->preflight : "");
  config_write(config, stream);
  REQUIRE(fclose(stream) == 0, ERR_MEMORY, "out of memory for the options");
  return STATUS_OK;
}

/* The first line that is not the same: "lr = 0.1" here and "lr = 0.01" there. */
static void name_difference(struct look *look, const char *own, const char *first) {
  size_t a, b;
  while (*own != '\0' && *first != '\0') {
    a = strcspn(own, "\n");
    b = strcspn(first, "\n");
    if (a != b || strncmp(own, first, a) != 0)
      break;
    own += a + 1;
    first += b + 1;
  }
  a = strcspn(own, "\n");
  b = strcspn(first, "\n");
  findings_add(look->findings, CHECK_OPTIONS, VERDICT_FAILED, ERR_ARGUMENT,
               "other options than rank 0's: \"%.*s\" and there \"%.*s\"; give all ranks the same",
               (int)(a < 200 ? a : 200), own, (int)(b < 200 ? b : 200), first);
}

static enum status compare_options(struct look *look, const char *own, size_t bytes, char *first, size_t first_bytes) {
  memcpy(first, own, bytes < first_bytes ? bytes : first_bytes);
  TRY(comm_broadcast(look->session->comm, first, first_bytes, 0));
  look->other_options = bytes != first_bytes || memcmp(own, first, bytes) != 0;
  if (look->other_options)
    name_difference(look, own, first);
  else
    findings_add(look->findings, CHECK_OPTIONS, VERDICT_OK, STATUS_OK, "the same on %s",
                 comm_size(look->session->comm) > 1 ? "all ranks" : "the only rank");
  return comm_max_i64(look->session->comm, &look->other_options, 1);
}

static enum status check_options(struct look *look) {
  struct comm *comm = look->session->comm;
  char *own = NULL, *first = NULL;
  size_t bytes = 0;
  enum status status = comm_agree(comm, write_options(look->config, &own, &bytes));
  uint64_t first_bytes = bytes;
  if (status == STATUS_OK)
    status = comm_broadcast(comm, &first_bytes, sizeof first_bytes, 0);
  if (status == STATUS_OK)
    status = comm_agree(comm, memory_alloc_zero((size_t)first_bytes + 1, (void **)&first));
  if (status == STATUS_OK)
    status = compare_options(look, own, bytes, first, (size_t)first_bytes);
  memory_free((void **)&first);
  free(own);
  return status;
}

/* ---- GPUs ----------------------------------------------------------------------------------- */

/* Which rank has which GPU is told when they are opened, and so who shares one; conr check says that this is slow. */
static void check_shared(struct look *look) {
  int count = 0, ranks = comm_node_size(look->session->comm);
  if (look->session->device == NULL) {
    skip(look, CHECK_DEVICE, "the host computes");
    return;
  }
  bool shared = device_count(&count) == STATUS_OK && ranks > count;
  if (shared)
    findings_add(look->findings, CHECK_DEVICE, look->config->command == COMMAND_CHECK ? VERDICT_WARNING : VERDICT_OK,
                 STATUS_OK, "%d ranks share %d GPU%s; start as many ranks a host as it has", ranks, count,
                 count == 1 ? "" : "s");
  else
    findings_add(look->findings, CHECK_DEVICE, VERDICT_OK, STATUS_OK, "one a rank: %s",
                 device_facts(look->session->device)->name);
}

static enum status check_device(struct look *look) {
  if (look->other_options != 0) {
    skip(look, CHECK_DEVICE, "ranks with other options might not open theirs");
    return STATUS_OK;
  }
  enum status status = session_open_device(look->session, look->config);
  if (status == STATUS_OK)
    check_shared(look);
  else if (!status_agreed() && comm_size(look->session->comm) > 1)
    return status;
  else if (is_root(look)) /* all have the same sentence, which names the host */
    add_failure(look, CHECK_DEVICE, status);
  return STATUS_OK;
}

/* ---- files ---------------------------------------------------------------------------------- */

static void compare_data(struct look *look, const struct file_sum *own, const struct file_sum *first) {
  const char *path = look->config->word[0];
  if (own->bytes == first->bytes && own->sum == first->sum)
    findings_add(look->findings, CHECK_DATA, VERDICT_OK, STATUS_OK, "%s: %.6g MB, checksum %016" PRIx64 " of %s", path,
                 (double)own->bytes / 1e6, own->sum,
                 own->read == own->bytes ? "all of it" : "its size, its ends and 64 places in between");
  else
    findings_add(look->findings, CHECK_DATA, VERDICT_FAILED, ERR_FORMAT,
                 "%s is not the same file as on rank 0's host: %lld bytes, checksum %016" PRIx64 ", and there %lld and "
                 "%016" PRIx64 "; copy it again or use a shared folder",
                 path, (long long)own->bytes, own->sum, (long long)first->bytes, first->sum);
}

static enum status check_data(struct look *look) {
  struct file_sum own = {0}, first;
  enum status status = look->first_of_host ? checksum_file(look->config->word[0], &own) : STATUS_OK;
  if (status != STATUS_OK)
    add_failure(look, CHECK_DATA, status);
  first = own;
  look->data = own;
  TRY(comm_broadcast(look->session->comm, &first, sizeof first, 0));
  if (look->first_of_host && status == STATUS_OK && first.bytes > 0)
    compare_data(look, &own, &first);
  return STATUS_OK;
}

/* Rank 0: an empty file in the folder, or where it will be; "" when it cannot be made. */
static void leave_trace(const char *parent, char trace[PATH_MAX]) {
  snprintf(trace, PATH_MAX, "%.*s/.conr-check-%ld", PATH_MAX - 64, parent, (long)getpid());
  int file = storage_open(trace, O_WRONLY | O_CREAT | O_EXCL);
  if (file >= 0)
    close(file);
  else
    trace[0] = '\0';
}

/* Does every host see the folder that rank 0 writes?  A run goes on elsewhere only then. */
static enum status check_shared_folder(struct look *look, const char *parent) {
  char trace[PATH_MAX] = "";
  if (is_root(look) && parent[0] != '\0')
    leave_trace(parent, trace);
  TRY(comm_broadcast(look->session->comm, trace, sizeof trace, 0));
  if (look->first_of_host && trace[0] != '\0' && !storage_has(trace))
    findings_add(look->findings, CHECK_OUTPUT, VERDICT_WARNING, STATUS_OK,
                 "%s is not the folder that rank 0's host has there: a run that goes on elsewhere would not find its "
                 "checkpoints; use a shared one",
                 look->config->output);
  TRY(comm_barrier(look->session->comm));
  if (is_root(look) && trace[0] != '\0')
    storage_remove(trace);
  return STATUS_OK;
}

static enum status check_output(struct look *look) {
  char parent[PATH_MAX] = "";
  if (look->config->output == NULL) {
    skip(look, CHECK_OUTPUT, "no -o");
    return STATUS_OK;
  }
  if (is_root(look)) {
    enum status status = run_folder_check(look->config->output, parent);
    if (status != STATUS_OK) {
      add_failure(look, CHECK_OUTPUT, status);
      parent[0] = '\0';
    } else
      findings_add(look->findings, CHECK_OUTPUT, VERDICT_OK, STATUS_OK, "%s can be written", look->config->output);
  }
  return look->hosts > 1 ? check_shared_folder(look, parent) : STATUS_OK;
}

static void check_stage(struct look *look) {
  const char *folder = look->config->stage;
  if (folder == NULL) {
    skip(look, CHECK_STAGE, "no --stage");
    return;
  }
  bool known = look->first_of_host && look->data.bytes > 0;
  enum status status = known ? stage_check(folder, &look->data) : STATUS_OK;
  if (status != STATUS_OK)
    add_failure(look, CHECK_STAGE, status);
  else
    findings_add(look->findings, CHECK_STAGE, VERDICT_OK, STATUS_OK, "%s has room for a copy", folder);
}

/* ---- between hosts -------------------------------------------------------------------------- */

static void judge_clock(struct look *look, const struct link *link) {
  double seconds = link->clock.seconds, bound = link->clock.bound, apart = seconds < 0 ? -seconds : seconds;
  if (link->measured && apart > PREFLIGHT_SKEW + bound)
    findings_add(
        look->findings, CHECK_CLOCK, VERDICT_WARNING, STATUS_OK,
        "the clock is %.3f s %s rank 0's host's, give or take %.6f s, which misleads logs and file dates; let NTP "
        "set it",
        apart, seconds < 0 ? "behind" : "ahead of", bound);
}

/* Rank 0 has all links: what is in order. */
static void sum_up_links(struct look *look, const struct link *links, int size) {
  double apart = 0, round_trip = 0, transfer = 0;
  for (int rank = 1; rank < size; rank++) {
    double seconds = links[rank].clock.seconds < 0 ? -links[rank].clock.seconds : links[rank].clock.seconds;
    if (!links[rank].measured)
      continue;
    apart = seconds > apart ? seconds : apart;
    round_trip = links[rank].round_trip > round_trip ? links[rank].round_trip : round_trip;
    transfer = links[rank].transfer > transfer ? links[rank].transfer : transfer;
  }
  findings_add(look->findings, CHECK_CLOCK, VERDICT_OK, STATUS_OK,
               "at most %.6f s apart, by round trips of %.6f s at most", apart, round_trip);
  findings_add(look->findings, CHECK_NETWORK, VERDICT_OK, STATUS_OK,
               "from rank 0's host: a message there and back %.6f s, 256 KiB %.6f s, at most", round_trip, transfer);
}

struct slow {
  int64_t rank;
  double transfer, next;
};

static struct slow find_slow(const struct link *links, int size) {
  struct slow slow = {.rank = links_slowest(links, size)};
  for (int rank = 0; rank < size && slow.rank >= 0; rank++)
    if (rank == slow.rank)
      slow.transfer = links[rank].transfer;
    else if (links[rank].measured && links[rank].transfer > slow.next)
      slow.next = links[rank].transfer;
  return slow;
}

static enum status measure_links(struct look *look, struct link *links) {
  struct comm *comm = look->session->comm;
  struct slow slow = {.rank = -1};
  TRY(links_measure(look->session->mpi, look->first_of_host && !is_root(look), links));
  judge_clock(look, &links[comm_rank(comm)]);
  if (is_root(look)) {
    sum_up_links(look, links, comm_size(comm));
    slow = find_slow(links, comm_size(comm));
  }
  TRY(comm_broadcast(comm, &slow, sizeof slow, 0));
  if (slow.rank == comm_rank(comm))
    findings_add(
        look->findings, CHECK_NETWORK, VERDICT_WARNING, STATUS_OK,
        "256 KiB from rank 0's host take %.6f s, and %.6f s at most to the other hosts; look at its network and at "
        "what else runs on it",
        slow.transfer, slow.next);
  return STATUS_OK;
}

static enum status check_links(struct look *look) {
  struct link *links = NULL;
  if (look->hosts == 1) {
    skip(look, CHECK_CLOCK, "one host");
    skip(look, CHECK_NETWORK, "one host");
    return STATUS_OK;
  }
  size_t ranks = (size_t)comm_size(look->session->comm);
  enum status status = comm_agree(look->session->comm, memory_alloc(ranks * sizeof *links, (void **)&links));
  if (status == STATUS_OK)
    status = measure_links(look, links);
  memory_free((void **)&links);
  return status;
}

/* What is summed and gathered: numbers of the host, and where the run's own communicator takes them from. */
struct tried {
  struct comm *comm; /* the run's own: of GPUs, where these compute */
  struct device *device;
  float *values; /* [TRIED_BYTES] */
  void *data;    /* [TRIED_BYTES] of the device */
  int64_t *rows;
  double seconds[2];
  bool right;
};

enum { TRIED_VALUES = TRIED_BYTES / sizeof(float) };

static enum status go_there(struct tried *tried) {
  TRY(device_copy(tried->device, tried->data, tried->values, TRIED_BYTES));
  return comm_device_wait(tried->comm);
}

static enum status come_back(struct tried *tried, double began, double *seconds) {
  TRY(comm_device_wait(tried->comm));
  *seconds = log_seconds() - began;
  TRY(device_copy(tried->device, tried->values, tried->data, TRIED_BYTES));
  return comm_device_wait(tried->comm);
}

/* Of all ranks' numbers. */
static enum status try_sum(struct tried *tried) {
  int rank = comm_rank(tried->comm), size = comm_size(tried->comm);
  for (int i = 0; i < TRIED_VALUES; i++)
    tried->values[i] = (float)(rank + 1);
  TRY(go_there(tried));
  double began = log_seconds();
  TRY(comm_sum(tried->comm, F32, tried->data, TRIED_VALUES));
  TRY(come_back(tried, began, &tried->seconds[0]));
  for (int i = 0; i < TRIED_VALUES; i++)
    tried->right = tried->right && tried->values[i] == (float)((double)size * (size + 1) / 2);
  return STATUS_OK;
}

/* Each rank's number, as often as its part has values. */
static enum status try_gather(struct tried *tried) {
  int rank = comm_rank(tried->comm), size = comm_size(tried->comm);
  int64_t first = 0;
  for (int other = 0; other < size; first += tried->rows[other++]) {
    tried->rows[other] = (int64_t)TRIED_VALUES * (other + 1) / size - (int64_t)TRIED_VALUES * other / size;
    for (int64_t i = 0; i < tried->rows[other]; i++)
      tried->values[first + i] = other == rank ? (float)rank : -1;
  }
  TRY(go_there(tried));
  double began = log_seconds();
  TRY(comm_gather_rows(tried->comm, NULL, tried->rows, sizeof(float), tried->data));
  TRY(come_back(tried, began, &tried->seconds[1]));
  first = 0;
  for (int other = 0; other < size; first += tried->rows[other++])
    for (int64_t i = 0; i < tried->rows[other]; i++)
      tried->right = tried->right && tried->values[first + i] == (float)other;
  return STATUS_OK;
}

static enum status try_collectives(struct look *look, struct tried *tried) {
  struct comm *comm = look->session->comm;
  enum status status = memory_alloc(TRIED_BYTES, (void **)&tried->values);
  if (status == STATUS_OK)
    status = memory_alloc((size_t)comm_size(comm) * sizeof *tried->rows, (void **)&tried->rows);
  if (status == STATUS_OK)
    status = device_alloc(tried->device, TRIED_BYTES, &tried->data);
  TRY(comm_agree(comm, status));
  TRY(try_sum(tried));
  TRY(try_gather(tried));
  return comm_max_f64(comm, tried->seconds, 2);
}

static enum status check_collectives(struct look *look) {
  struct session *session = look->session;
  struct tried tried = {.comm = session->comm, .right = true};
  if (session->data != NULL) {
    tried.comm = session->data;
    tried.device = session->device;
  }
  if (comm_size(session->comm) == 1) {
    skip(look, CHECK_COLLECTIVES, "one rank");
    return STATUS_OK;
  }
  enum status status = try_collectives(look, &tried);
  if (status == STATUS_OK && tried.right)
    findings_add(
        look->findings, CHECK_COLLECTIVES, VERDICT_OK, STATUS_OK,
        "a sum of 2 MiB in %.6f s, a gather of 2 MiB in %.6f s, of %d ranks, by %s, with the first connections",
        tried.seconds[0], tried.seconds[1], comm_size(session->comm), comm_transport(tried.comm));
  else if (status == STATUS_OK)
    findings_add(look->findings, CHECK_COLLECTIVES, VERDICT_FAILED, ERR_COMM,
                 "a sum or a gather of all ranks by %s gave wrong numbers; look at that library and the network",
                 comm_transport(tried.comm));
  device_free(tried.device, &tried.data);
  memory_free((void **)&tried.rows);
  memory_free((void **)&tried.values);
  return status;
}

/* ---- all of it ------------------------------------------------------------------------------ */

static void check_host(struct look *look) {
  bool gpu = look->session->device != NULL, f64 = strcmp(look->config->precision, "f64") == 0;
  preflight_open_files(look->findings, comm_size(look->session->comm), look->hosts > 1);
  preflight_locked_memory(look->findings);
  preflight_address_space(look->findings, gpu);
  check_stage(look);
  if (look->first_of_host)
    preflight_shared_memory(look->findings, look->config->word[0], f64);
  look->session->memory_before = preflight_available();
}

static enum status look_at_all(struct look *look) {
  TRY(check_options(look));
  TRY(check_device(look));
  TRY(check_data(look));
  TRY(check_output(look));
  check_host(look);
  TRY(check_links(look));
  return check_collectives(look);
}

enum status preflight_look(struct session *session, const struct config *config, struct findings *findings) {
  struct look look = {.session = session, .config = config, .findings = findings};
  TRY(count_hosts(&look));
  TRY(check_program(&look));
  if (look.other_program == 0)
    TRY(look_at_all(&look));
  else
    skip(&look, CHECK_OPTIONS, "ranks of different programs cannot be asked for more");
  return findings_gather(findings);
}

enum status preflight_look_at_memory(struct session *session, struct findings *findings) {
  int ranks = comm_node_size(session->comm);
  int64_t most = (int64_t)memory_in_use();
  TRY(comm_max_i64(session->comm, &most, 1));
  double wanted = (double)most * ranks / 1e6, before = (double)session->memory_before / 1e6;
  if (wanted <= before)
    findings_add(findings, CHECK_MEMORY, VERDICT_OK, STATUS_OK, "%.6g MB a host for arrays, of %.6g MB", wanted,
                 before);
  else if (comm_node_rank(session->comm) == 0 && session->memory_before > 0)
    findings_add(
        findings, CHECK_MEMORY, VERDICT_FAILED, ERR_MEMORY,
        "the arrays of %d rank%s take %.6g MB, and %.6g MB can be had; start fewer ranks a host, or give a smaller "
        "--batch or --micro-batch",
        ranks, ranks > 1 ? "s" : "", wanted, before);
  return findings_gather(findings);
}

/* ---- conr train ----------------------------------------------------------------------------- */

static enum status tell(struct session *session, struct findings *findings, double seconds) {
  int warnings = findings_count(findings, VERDICT_WARNING);
  TRY(findings_conclude(findings));
  for (int i = 0; i < warnings && comm_rank(session->comm) == 0; i++)
    log_warning(&session->log, "%s", findings_sentence(findings, VERDICT_WARNING, i));
  log_line(&session->log, "preflight: %d checks in order, %d warning%s, in %.3f s",
           findings_count(findings, VERDICT_OK), warnings, warnings == 1 ? "" : "s", seconds);
  return STATUS_OK;
}

enum status preflight(struct session *session, const struct config *config) {
  struct findings *findings = NULL;
  double began = log_seconds();
  TRY(comm_agree(session->comm, findings_create(session->comm, &findings)));
  enum status status = preflight_look(session, config, findings);
  if (status == STATUS_OK)
    status = tell(session, findings, log_seconds() - began);
  findings_destroy(&findings);
  return status;
}

enum status preflight_require_memory(struct session *session) {
  struct findings *findings = NULL;
  int64_t looked = session->memory_before;
  TRY(comm_max_i64(session->comm, &looked, 1));
  if (looked == 0)
    return STATUS_OK;
  TRY(comm_agree(session->comm, findings_create(session->comm, &findings)));
  enum status status = preflight_look_at_memory(session, findings);
  if (status == STATUS_OK)
    status = findings_conclude(findings);
  findings_destroy(&findings);
  return status;
}
