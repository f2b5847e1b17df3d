/* The watch over ranks, when something happens to one of them.
 *
 *   rank_watch WHAT RANK FOLDER      barriers for ever, or for some seconds; each rank leaves its pid in FOLDER/pidN
 *
 *   killed       by signal 9
 *   stopped      by SIGSTOP, and let go on when the others must have noticed
 *   absent       does not come to a collective; its words are "counts sheep"
 *   apart        the same, after collectives of ranks 0 and 1 alone
 *   slow         comes to it late: as a start may be, longer than the deadline; and then in time
 *   stalled      asks storage, which does not answer; its words are "reads wool"
 *   trickles     asks storage, of which there is an answer a second
 *   broken       writes to who is gone, as MPI does before it knows
 *   suspended    all ranks at once, for longer than a silence may last
 *   strangers    the same as killed, after many have connected to the port CONR_WATCH_PORT, with rubbish and without
 *   unreachable  has no socket left to connect by, and after a while none of what it asks for is done
 *
 * What ends well ends with 0. */
#include "dist/comm.h"
#include "dist/log.h"
#include "dist/memory.h"
#include "dist/pulse.h"
#include "dist/watch.h"
#include "tests/rank_record.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static struct comm *comm;

static void barriers(double seconds) {
  int64_t over = 0;
  for (double end = log_seconds() + seconds; over == 0; usleep(1000)) {
    over = log_seconds() >= end;
    EXPECT_OK(comm_max_i64(comm_for(comm, "look at the clock"), &over, 1));
  }
}

static void rest(double seconds) {
  const char *before = pulse_doing("counts sheep");
  usleep((useconds_t)(seconds * 1e6));
  pulse_doing(before);
}

/* A child of this process sends the signal to the others or itself after so long. */
static void signal_later(double seconds, int signal, const pid_t *pids, int count) {
  if (fork() != 0)
    return;
  usleep((useconds_t)(seconds * 1e6));
  for (int i = 0; i < count; i++)
    kill(pids[i], signal);
  _exit(0);
}

static void leave_pid(const char *folder) {
  char path[300];
  snprintf(path, sizeof path, "%s/pid%d", folder, record.rank);
  FILE *file = fopen(path, "w");
  MUST_HOLD(file != NULL && fprintf(file, "%d\n", (int)getpid()) > 0 && fclose(file) == 0);
}

/* More than the watch has chairs for; they stay until this process ends. */
static void strangers(void) {
  enum { COUNT = 150 };
  static const char rubbish[400] = "GET / HTTP/1.1\r\n\r\n";
  const char *port = getenv("CONR_WATCH_PORT");
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port != NULL ? port : "0"))};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < COUNT; i++) {
    int own = socket(AF_INET, SOCK_STREAM, 0);
    MUST_HOLD(own >= 0 && connect(own, (struct sockaddr *)&address, sizeof address) == 0);
    if (i % 3 != 0)
      send(own, rubbish, i % 3 == 1 ? sizeof rubbish : 5, MSG_NOSIGNAL);
  }
}

static void take_sockets_away(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  int next = dup(0); /* the lowest free number */
  close(next);
  limit.rlim_cur = (rlim_t)next + 1; /* for the watch's eventfd */
  MUST_HOLD(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void write_to_nobody(void) {
  int ends[2];
  MUST_HOLD(pipe(ends) == 0 && close(ends[0]) == 0);
  MUST_HOLD(write(ends[1], "", 1) < 0 && errno == EPIPE);
  close(ends[1]);
}

/* Storage that answers once a second, and then no more. */
static void ask_storage(int answers) {
  const char *before = pulse_doing("reads wool");
  pulse_storage_asked();
  for (int i = 0; i < answers; i++) {
    pulse_storage_asked();
    usleep(1000000);
    pulse_storage_answered();
  }
  if (answers == 0)
    usleep(60000000);
  pulse_storage_answered();
  pulse_doing(before);
}

/* On the rank to which it happens; true: it takes part in no more. */
static void happens(const char *what) {
  pid_t own = getpid();
  if (strcmp(what, "strangers") == 0)
    strangers();
  if (strcmp(what, "killed") == 0 || strcmp(what, "strangers") == 0)
    raise(SIGKILL);
  if (strcmp(what, "stopped") == 0) {
    signal_later(6, SIGCONT, &own, 1);
    raise(SIGSTOP);
  }
  if (strcmp(what, "absent") == 0 || strcmp(what, "apart") == 0)
    rest(60);
  if (strcmp(what, "slow") == 0)
    rest(1);
  if (strcmp(what, "broken") == 0)
    write_to_nobody();
  if (strcmp(what, "stalled") == 0 || strcmp(what, "trickles") == 0)
    ask_storage(strcmp(what, "stalled") == 0 ? 0 : 6);
}

static void suspend_all(void) {
  pid_t own = getpid(), pids[64];
  MUST_HOLD(record.size <= 64);
  MUST(comm_gather_each(comm, &own, sizeof own, pids));
  if (record.rank == 0) {
    signal_later(0.5, SIGSTOP, pids, record.size);
    signal_later(5, SIGCONT, pids, record.size);
  }
}

/* Ranks 0 and 1 do what the others have no part in. */
static void go_apart(void) {
  enum { PARTS = 20 };
  MPI_Comm mpi;
  struct comm *part;
  MUST_HOLD(MPI_Comm_split(MPI_COMM_WORLD, record.rank < 2 ? 0 : 1, record.rank, &mpi) == MPI_SUCCESS);
  MUST(comm_create(mpi, &part));
  for (int i = 0; i < PARTS; i++)
    MUST(comm_barrier(part));
  comm_destroy(&part);
  MPI_Comm_free(&mpi);
  uint64_t entered = pulse_read().entered, most;
  MUST_HOLD(MPI_Allreduce(&entered, &most, 1, MPI_UINT64_T, MPI_MAX, MPI_COMM_WORLD) == MPI_SUCCESS);
  pulse_go_on_from(most);
}

int main(int argc, char **argv) {
  struct watch *watch;
  rank_record_begin(&argc, &argv);
  MUST_HOLD(argc == 4);
  const char *what = argv[1];
  bool chosen = record.rank == atoi(argv[2]);
  record.name = what;
  leave_pid(argv[3]);
  MUST(comm_create(MPI_COMM_WORLD, &comm));
  if (chosen && strcmp(what, "unreachable") == 0)
    take_sockets_away();
  MUST(watch_start(comm, 1, &watch));
  MUST_HOLD(watch != NULL);
  if (chosen && strcmp(what, "slow") == 0)
    rest(4.5);
  barriers(0.2);
  pulse_steady(true);
  barriers(0.2);
  if (strcmp(what, "apart") == 0)
    go_apart();
  if (strcmp(what, "suspended") == 0)
    suspend_all();
  if (chosen)
    happens(what);
  bool short_end = strcmp(what, "slow") == 0 || strcmp(what, "broken") == 0 || strcmp(what, "trickles") == 0;
  barriers(short_end ? 0.2 : 6);
  watch_stop(&watch);
  comm_destroy(&comm);
  EXPECT(memory_in_use() == 0, "%zu bytes are left", memory_in_use());
  return rank_record_end();
}
