/* The threads of the watch: rank 0's, which judges, and the others', which report and listen.
 *
 * They allocate nothing and take no lock: the main thread may be anywhere when one of them ends the process. */
#define _GNU_SOURCE /* accept4 */
#include "dist/watch.h"

#include "dist/log.h"
#include "dist/memory.h"
#include "dist/pulse.h"
#include "dist/watch_judge.h"
#include "dist/watch_link.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

enum { VISITORS = 64, HOST_BYTES = 64, TICK_MILLISECONDS = 100 };

#define BEAT_SECONDS 1.0
#define PAUSE_SECONDS 2.0    /* this thread did not run for so long: nor did it hear                 */
#define CALL_SECONDS 2.0     /* for a connection, and for an answer                                  */
#define VISIT_SECONDS 5.0    /* a stranger may stay, unless others come                              */
#define WORDS_SECONDS 0.2    /* for a sentence to get out before the launcher ends all               */
#define LAUNCHER_SECONDS 2.0 /* for the launcher to end the job by itself, with the right exit status */
#define WITNESS_SECONDS 1.0  /* for the witness before, when rank 0 is gone                          */

enum order { GO_ON, STOP, HAS_SAID };

struct watch {
  int rank, size, exit_status;
  struct watch_limits limits;
  char (*hosts)[HOST_BYTES]; /* [size] */
  struct watch_place place;
  pthread_t thread;
  bool runs; /* the thread */
  int wake;  /* an eventfd: an order was given */
  atomic_int order, said_status;
  double began, looked, beaten; /* seconds: of the start, of the last look at the clock, of the last beat */
  double answered;              /* when storage answered last, or was not asked */
  uint64_t answers;             /* until then */
  struct watch_rank *ranks;     /* rank 0: [size]; else [1], rank 0                                        */
  struct watch_rank own;        /* what this process does                                                  */
  struct watch_link *links;     /* rank 0: [size + VISITORS], by rank, then strangers; else [1], to rank 0 */
  /* Rank 0: */
  int listener, epoll;
  double visited[VISITORS]; /* since when each of them is here */
  bool warned;
};

/* ---- words and ends ------------------------------------------------------------------------- */

/* To standard error at once and as one line; not for ever, should nobody read there. */
static void say(const struct watch *watch, const char *kind, const char *sentence) {
  char line[WATCH_SENTENCE + 400];
  struct pollfd out = {.fd = STDERR_FILENO, .events = POLLOUT};
  int length = snprintf(line, sizeof line, "%sconr: %s[rank %d/%d %s] %s\n", isatty(STDERR_FILENO) ? "\n" : "", kind,
                        watch->rank, watch->size, watch->hosts[watch->rank], sentence);
  if (poll(&out, 1, 1000) > 0 && write(STDERR_FILENO, line, (size_t)length) < 0)
    return; /* there is no other place to say so */
}

static void rest(double seconds) {
  usleep((useconds_t)(seconds * 1e6));
}

/* ---- this process --------------------------------------------------------------------------- */

static void keep_words(char to[WATCH_WORDS], const char *words) {
  snprintf(to, WATCH_WORDS, "%s", words != NULL ? words : "");
}

/* Is a debugger attached?  It may stop this process for as long as somebody thinks. */
static bool is_traced(void) {
  char text[2048];
  int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
  ssize_t length = file >= 0 ? read(file, text, sizeof text - 1) : 0;
  if (file >= 0)
    close(file);
  text[length > 0 ? length : 0] = '\0';
  const char *tracer = strstr(text, "\nTracerPid:");
  return tracer != NULL && atoi(tracer + strlen("\nTracerPid:")) != 0;
}

/* Look at the main thread; what it does began when it was first seen so. */
static void look_at_own(struct watch *watch, double now) {
  struct watch_rank *own = &watch->own;
  struct pulse pulse = pulse_read();
  char doing[WATCH_WORDS];
  keep_words(doing, pulse.doing);
  if (own->entered != pulse.entered || own->waits_for != pulse.waits_for || strcmp(own->doing, doing) != 0)
    own->since = now;
  if (pulse.asked == pulse.answered || pulse.answered != watch->answers)
    watch->answered = now;
  watch->answers = pulse.answered;
  own->unanswered = now - watch->answered;
  own->entered = pulse.entered;
  own->waits_for = pulse.waits_for;
  own->steady = pulse.steady;
  own->unhurried = pulse.unhurried;
  own->aside = pulse.aside;
  own->heard = now;
  memcpy(own->doing, doing, sizeof doing);
  keep_words(own->collective, pulse.collective);
}

/* Seconds in which this thread did not run, because its machine slept, or its process was stopped or starved. */
static double pause_until(struct watch *watch, double now) {
  double gap = now - watch->looked;
  watch->looked = now;
  if (gap < PAUSE_SECONDS)
    return 0;
  watch->own.since += gap; /* nor did the main thread, in all likelihood */
  watch->answered += gap;
  return gap;
}

static bool is_time_to_beat(struct watch *watch, double now) {
  if (now - watch->beaten < BEAT_SECONDS)
    return false;
  watch->beaten = now;
  watch->own.traced = is_traced();
  return true;
}

static struct watch_message beat_of(const struct watch *watch, double now) {
  const struct watch_rank *own = &watch->own;
  struct watch_message message = {.word = WATCH_BEAT,
                                  .traced = own->traced,
                                  .steady = own->steady,
                                  .unhurried = own->unhurried,
                                  .aside = own->aside,
                                  .entered = own->entered,
                                  .waits_for = own->waits_for,
                                  .age = now - own->since,
                                  .unanswered = own->unanswered};
  memcpy(message.collective, own->collective, sizeof message.collective);
  memcpy(message.doing, own->doing, sizeof message.doing);
  return message;
}

static void take_beat(struct watch_rank *rank, const struct watch_message *message, double now) {
  rank->heard = now;
  rank->traced = message->traced != 0;
  rank->steady = message->steady != 0;
  rank->unhurried = message->unhurried != 0;
  rank->aside = message->aside != 0;
  rank->entered = message->entered;
  rank->waits_for = message->waits_for;
  rank->since = now - message->age;
  rank->unanswered = message->unanswered;
  snprintf(rank->collective, WATCH_WORDS, "%.*s", WATCH_WORDS - 1, message->collective);
  snprintf(rank->doing, WATCH_WORDS, "%.*s", WATCH_WORDS - 1, message->doing);
}

/* ---- rank 0 --------------------------------------------------------------------------------- */

static void tell_all(struct watch *watch, const struct watch_message *message) {
  for (int rank = 1; rank < watch->size; rank++)
    watch_send(&watch->links[rank], message, sizeof *message);
}

/* All end, this process last: so that it is not taken for one that died. */
static void end_all(struct watch *watch, int exit_status, double seconds) {
  struct watch_message message = {.word = WATCH_END, .code = exit_status, .age = seconds};
  tell_all(watch, &message);
  rest(seconds + WITNESS_SECONDS);
  _exit(exit_status);
}

static void judge(struct watch *watch, double now) {
  char sentence[WATCH_SENTENCE];
  watch->own.known = true;
  watch->own.host = watch->hosts[0];
  watch->ranks[0] = watch->own;
  if (watch_judge(watch->ranks, watch->size, now, &watch->limits, sentence) == WATCH_FINE)
    return;
  say(watch, "", sentence);
  rest(WORDS_SECONDS);
  end_all(watch, watch->exit_status, WORDS_SECONDS);
}

/* Once, of those who have not come. */
static void warn_of_missing(struct watch *watch, double now) {
  bool which[watch->size], any = false;
  char names[300], sentence[WATCH_SENTENCE];
  if (watch->warned || now - watch->began < watch->limits.silence_seconds + CALL_SECONDS)
    return;
  watch->warned = true;
  for (int rank = 0; rank < watch->size; rank++) {
    which[rank] = rank > 0 && !watch->ranks[rank].known;
    any = any || which[rank];
  }
  if (!any)
    return;
  watch_list(watch->ranks, watch->size, which, names, sizeof names);
  snprintf(
      sentence, sizeof sentence,
      "no TCP connection comes to rank 0 from %s, so that nobody will notice when these are lost; let port %d of %s "
      "through (CONR_WATCH_PORT names another), or turn the watch off by CONR_WATCH=off",
      names, watch->place.port, watch->hosts[0]);
  say(watch, "warning: ", sentence);
}

static void follow(struct watch *watch, int socket, int link, int operation) {
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)link};
  epoll_ctl(watch->epoll, operation, socket, &event);
}

/* Somebody is at the door.  When all chairs are taken the one who sits there longest leaves. */
static void let_in(struct watch *watch, double now) {
  struct watch_link *visitors = watch->links + watch->size;
  int chair = 0, socket = accept4(watch->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (socket < 0)
    return;
  for (int i = 0; i < VISITORS; i++) {
    if (visitors[i].socket < 0) {
      chair = i;
      break;
    }
    if (watch->visited[i] < watch->visited[chair])
      chair = i;
  }
  watch_hang_up(&visitors[chair]);
  visitors[chair].socket = socket;
  watch->visited[chair] = now;
  follow(watch, socket, watch->size + chair, EPOLL_CTL_ADD);
}

static void send_strangers_away(struct watch *watch, double now) {
  for (int i = 0; i < VISITORS; i++)
    if (watch->links[watch->size + i].socket >= 0 && now - watch->visited[i] > VISIT_SECONDS)
      watch_hang_up(&watch->links[watch->size + i]);
}

/* Is it one of us, who has not come before? */
static void greet(struct watch *watch, struct watch_link *visitor, double now) {
  struct watch_greeting greeting;
  enum watch_received received = watch_receive(visitor, &greeting, sizeof greeting);
  if (received == WATCH_NOTHING)
    return;
  bool ours = received == WATCH_WHOLE && memcmp(greeting.key, watch->place.key, WATCH_KEY) == 0 &&
              greeting.size == watch->size && greeting.rank > 0 && greeting.rank < watch->size &&
              !watch->ranks[greeting.rank].known;
  if (!ours) {
    watch_hang_up(visitor);
    return;
  }
  struct watch_rank *rank = &watch->ranks[greeting.rank];
  watch->links[greeting.rank] = *visitor;
  *visitor = (struct watch_link){.socket = -1};
  follow(watch, watch->links[greeting.rank].socket, greeting.rank, EPOLL_CTL_MOD);
  watch_send(&watch->links[greeting.rank], &greeting, sizeof greeting);
  rank->known = true;
  rank->heard = rank->since = now;
  keep_words(rank->doing, "starts");
}

static void hear(struct watch *watch, int which, double now) {
  struct watch_rank *rank = &watch->ranks[which];
  struct watch_message message;
  switch (watch_receive(&watch->links[which], &message, sizeof message)) {
  case WATCH_NOTHING:
    return;
  case WATCH_CLOSED:
    rank->closed = !rank->left;
    rank->heard = now;
    watch_hang_up(&watch->links[which]);
    return;
  case WATCH_UNUSABLE: /* its silence will tell */
    watch_hang_up(&watch->links[which]);
    return;
  case WATCH_WHOLE:
    break;
  }
  if (message.word == WATCH_BEAT)
    take_beat(rank, &message, now);
  else if (message.word == WATCH_LEAVES)
    rank->left = true;
  else if (message.word == WATCH_HAS_SAID)
    end_all(watch, message.code, LAUNCHER_SECONDS);
}

/* One rank's event, the listener's or an order's: these two have the numbers behind the links. */
static void attend(struct watch *watch, const struct epoll_event *event, double now) {
  int which = (int)event->data.u32;
  if (which == watch->size + VISITORS)
    let_in(watch, now);
  else if (which < watch->size)
    hear(watch, which, now);
  else if (which < watch->size + VISITORS && watch->links[which].socket >= 0)
    greet(watch, &watch->links[which], now);
}

static void *preside(void *context) {
  enum { EVENTS = 64 };
  struct watch *watch = context;
  struct epoll_event events[EVENTS];
  double ticked = 0;
  while (atomic_load(&watch->order) == GO_ON) {
    int count = epoll_wait(watch->epoll, events, EVENTS, TICK_MILLISECONDS);
    double now = log_seconds(), pause = pause_until(watch, now);
    for (int i = 0; i < count; i++)
      attend(watch, &events[i], now);
    if (pause > 0)
      watch_forgive(watch->ranks, watch->size, pause, now);
    if (now - ticked < TICK_MILLISECONDS * 1e-3)
      continue;
    ticked = now;
    look_at_own(watch, now);
    if (is_time_to_beat(watch, now)) {
      struct watch_message beat = beat_of(watch, now);
      tell_all(watch, &beat);
    }
    send_strangers_away(watch, now);
    warn_of_missing(watch, now);
    if (atomic_load(&watch->order) == GO_ON)
      judge(watch, now);
  }
  if (atomic_load(&watch->order) == HAS_SAID)
    end_all(watch, atomic_load(&watch->said_status), LAUNCHER_SECONDS);
  struct watch_message farewell = {.word = WATCH_LEAVES};
  tell_all(watch, &farewell);
  return NULL;
}

/* ---- the others ----------------------------------------------------------------------------- */

/* Until the socket is ready or an order comes; false: not in time, or there is an order. */
static bool await(struct watch *watch, int socket, short events, double seconds) {
  struct pollfd ready[] = {{.fd = socket, .events = events}, {.fd = watch->wake, .events = POLLIN}};
  for (double end = log_seconds() + seconds, left; (left = end - log_seconds()) > 0;)
    if (poll(ready, 2, (int)ceil(left * 1000)) > 0)
      return ready[1].revents == 0;
  return false;
}

/* Call rank 0 at one of its addresses; false: it is not there. */
static bool call(struct watch *watch, int which) {
  struct watch_link *link = &watch->links[0];
  struct watch_greeting greeting = {.rank = watch->rank, .size = watch->size}, answer;
  int error = 0;
  socklen_t length = sizeof error;
  link->socket = watch_call(&watch->place, which);
  memcpy(greeting.key, watch->place.key, WATCH_KEY);
  bool done = link->socket >= 0 && await(watch, link->socket, POLLOUT, CALL_SECONDS) &&
              getsockopt(link->socket, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0;
  if (done)
    watch_send(link, &greeting, sizeof greeting);
  enum watch_received received = WATCH_NOTHING;
  while (done && received == WATCH_NOTHING && await(watch, link->socket, POLLIN, CALL_SECONDS))
    received = watch_receive(link, &answer, sizeof answer);
  done = received == WATCH_WHOLE && memcmp(&answer, &greeting, sizeof answer) == 0;
  if (!done)
    watch_hang_up(link);
  return done;
}

/* By any of its networks; the loopback's address is for ranks of its own host. */
static bool find_rank_0(struct watch *watch) {
  bool same_host = strcmp(watch->hosts[0], watch->hosts[watch->rank]) == 0;
  while (log_seconds() - watch->began < watch->limits.silence_seconds) {
    for (int which = same_host ? 0 : 1; which < watch->place.count; which++)
      if (atomic_load(&watch->order) != GO_ON || call(watch, which))
        return watch->links[0].socket >= 0;
    await(watch, -1, 0, 0.2);
  }
  return false;
}

static void end_as_told(const struct watch_message *message) {
  rest(message->age);
  _exit(message->code);
}

static void hear_rank_0(struct watch *watch, double now) {
  struct watch_rank *root = &watch->ranks[0];
  struct watch_message message;
  switch (watch_receive(&watch->links[0], &message, sizeof message)) {
  case WATCH_NOTHING:
    return;
  case WATCH_CLOSED:
    root->closed = !root->left;
    root->heard = now;
    watch_hang_up(&watch->links[0]);
    return;
  case WATCH_UNUSABLE:
    watch_hang_up(&watch->links[0]);
    return;
  case WATCH_WHOLE:
    break;
  }
  if (message.word == WATCH_BEAT)
    take_beat(root, &message, now);
  else if (message.word == WATCH_LEAVES)
    root->left = true;
  else if (message.word == WATCH_END)
    end_as_told(&message);
}

/* The lowest rank but 0 for which `same_host` tells whether it is on the host of rank `of`; the size, if there is
 * none. */
static int first_rank(const struct watch *watch, int of, bool same_host) {
  int rank = 1;
  while (rank < watch->size && (strcmp(watch->hosts[rank], watch->hosts[of]) == 0) != same_host)
    rank++;
  return rank;
}

/* Rank 0 is gone.  Who says so: rank 1, or, should it be gone too, a moment later the first rank on another host; of a
 * silence, whose cause may be on either side, one rank of each host.  The others end behind them. */
static double patience(const struct watch *watch, bool *speaks) {
  const struct watch_rank *root = &watch->ranks[0];
  *speaks = true;
  if (!root->closed && watch->rank == first_rank(watch, watch->rank, true))
    return 0;
  if (root->closed && watch->rank == 1)
    return WORDS_SECONDS;
  if (root->closed && watch->rank == first_rank(watch, 0, false))
    return WITNESS_SECONDS;
  *speaks = false;
  return 2 * WITNESS_SECONDS;
}

static void judge_rank_0(struct watch *watch, double now) {
  char sentence[WATCH_SENTENCE];
  const struct watch_rank *root = &watch->ranks[0];
  bool speaks;
  double seconds = now - root->heard, limit = watch->limits.silence_seconds;
  if (root->left || root->traced || watch->own.traced)
    return;
  if (seconds < (root->closed ? 0 : limit) + patience(watch, &speaks))
    return;
  if (root->closed)
    snprintf(sentence, sizeof sentence,
             "rank 0 (%s) has died; look on %s for what killed it: its own last words, or the kernel's about memory "
             "(dmesg)",
             root->host, root->host);
  else if (strcmp(root->host, watch->hosts[watch->rank]) == 0)
    snprintf(sentence, sizeof sentence,
             "nothing has been heard of rank 0 (%s) for %.0f s, which runs on this host: it is stopped, or the machine "
             "has no time for it (CONR_WATCH_SECONDS allows more than %g)",
             root->host, seconds, limit);
  else
    snprintf(sentence, sizeof sentence,
             "nothing has been heard of rank 0 (%s) for %.0f s: that host, or this one, is cut off, or the process is "
             "stopped; look whether they reach one another (CONR_WATCH_SECONDS allows more than %g)",
             root->host, seconds, limit);
  if (speaks)
    say(watch, "", sentence);
  /* Should it come back, it is not to take this rank for one that died. */
  struct watch_message last = {.word = WATCH_HAS_SAID, .code = watch->exit_status};
  watch_send(&watch->links[0], &last, sizeof last);
  rest(WORDS_SECONDS);
  _exit(watch->exit_status);
}

static void *report(void *context) {
  struct watch *watch = context;
  struct watch_link *link = &watch->links[0];
  bool found = find_rank_0(watch);
  watch->looked = watch->ranks[0].heard = log_seconds();
  while (found && atomic_load(&watch->order) == GO_ON) {
    struct pollfd ready[] = {{.fd = link->socket, .events = POLLIN}, {.fd = watch->wake, .events = POLLIN}};
    poll(ready, 2, TICK_MILLISECONDS);
    double now = log_seconds(), pause = pause_until(watch, now);
    if (ready[0].revents != 0)
      hear_rank_0(watch, now);
    if (pause > 0)
      watch_forgive(watch->ranks, 1, pause, now);
    look_at_own(watch, now);
    if (is_time_to_beat(watch, now)) {
      struct watch_message beat = beat_of(watch, now);
      watch_send(link, &beat, sizeof beat);
    }
    if (atomic_load(&watch->order) == GO_ON)
      judge_rank_0(watch, now);
  }
  int order = atomic_load(&watch->order), status = atomic_load(&watch->said_status);
  struct watch_message last = {.word = order == HAS_SAID ? WATCH_HAS_SAID : WATCH_LEAVES, .code = status};
  watch_send(link, &last, sizeof last);
  if (order == HAS_SAID) { /* the main thread ends the job, if the launcher can */
    rest(2 * LAUNCHER_SECONDS);
    _exit(status);
  }
  return NULL;
}

/* ---- beginning and end ---------------------------------------------------------------------- */

static enum status read_seconds(const char *variable, double *seconds) {
  const char *text = getenv(variable);
  char *end;
  if (text == NULL)
    return STATUS_OK;
  *seconds = strtod(text, &end);
  /* Words come once a second, and a busy machine may delay a few. */
  REQUIRE(end != text && *end == '\0' && *seconds >= 3 && *seconds <= 1e6, ERR_ARGUMENT,
          "%s is \"%s\"; give seconds, 3 or more", variable, text);
  return STATUS_OK;
}

static enum status read_settings(struct watch *watch, bool *off) {
  const char *wanted = getenv("CONR_WATCH");
  watch->limits = (struct watch_limits){.silence_seconds = 20, .storage_seconds = 25};
  *off = wanted != NULL && strcmp(wanted, "off") == 0;
  REQUIRE(wanted == NULL || *off || strcmp(wanted, "on") == 0, ERR_ARGUMENT, "CONR_WATCH is \"%s\"; give on or off",
          wanted);
  TRY(comm_timeout(&watch->limits.deadline_seconds));
  TRY(read_seconds("CONR_WATCH_SECONDS", &watch->limits.silence_seconds));
  return read_seconds("CONR_STORAGE_TIMEOUT", &watch->limits.storage_seconds);
}

/* A socket for each rank, beside what the process opens. */
static void allow_sockets(int size) {
  struct rlimit limit;
  rlim_t wanted = (rlim_t)size + VISITORS + 256;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
    return;
  limit.rlim_cur = limit.rlim_max != RLIM_INFINITY && limit.rlim_max < wanted ? limit.rlim_max : wanted;
  setrlimit(RLIMIT_NOFILE, &limit);
}

/* The thread takes no signal: those are the main thread's. */
static enum status start_thread(struct watch *watch) {
  enum { STACK_BYTES = 1 << 20 };
  sigset_t all, before;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&watch->thread, &attributes, watch->rank == 0 ? preside : report, watch);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  watch->runs = error == 0;
  REQUIRE(watch->runs, ERR_COMM, "no thread can be started: %s", strerror(error));
  return STATUS_OK;
}

static void give_order(struct watch *watch, enum order order) {
  atomic_store(&watch->order, order);
  if (write(watch->wake, &(uint64_t){1}, sizeof(uint64_t)) < 0)
    return; /* it looks several times a second, too */
}

static void release(struct watch **watch) {
  if ((*watch)->runs) {
    give_order(*watch, STOP);
    pthread_join((*watch)->thread, NULL);
  }
  int links = (*watch)->rank == 0 ? (*watch)->size + VISITORS : 1;
  for (int i = 0; (*watch)->links != NULL && i < links; i++)
    watch_hang_up(&(*watch)->links[i]);
  int files[] = {(*watch)->listener, (*watch)->epoll, (*watch)->wake};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    if (files[i] >= 0)
      close(files[i]);
  memory_free((void **)&(*watch)->links);
  memory_free((void **)&(*watch)->ranks);
  memory_free((void **)&(*watch)->hosts);
  memory_free((void **)watch);
}

/* What needs no other rank. */
static enum status prepare(struct comm *comm, int exit_status, struct watch **out) {
  struct watch *watch;
  TRY(memory_alloc_zero(sizeof *watch, (void **)out));
  watch = *out;
  watch->rank = comm_rank(comm);
  watch->size = comm_size(comm);
  watch->exit_status = exit_status;
  watch->listener = watch->epoll = watch->wake = -1;
  int ranks = watch->rank == 0 ? watch->size : 1, links = watch->rank == 0 ? watch->size + VISITORS : 1;
  TRY(memory_alloc_zero((size_t)watch->size * sizeof *watch->hosts, (void **)&watch->hosts));
  TRY(memory_alloc_zero((size_t)ranks * sizeof *watch->ranks, (void **)&watch->ranks));
  TRY(memory_alloc_zero((size_t)links * sizeof *watch->links, (void **)&watch->links));
  for (int i = 0; i < links; i++)
    watch->links[i].socket = -1;
  for (int rank = 0; rank < ranks; rank++)
    watch->ranks[rank].host = watch->hosts[rank];
  watch->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  REQUIRE(watch->wake >= 0, ERR_COMM, "the watch cannot open an eventfd: %s", strerror(errno));
  return STATUS_OK;
}

/* Rank 0 opens its ears; without them there is no watch, and its thread is not started. */
static enum status open_ears(struct watch *watch) {
  watch->epoll = epoll_create1(EPOLL_CLOEXEC);
  REQUIRE(watch->epoll >= 0, ERR_COMM, "the watch cannot open an epoll: %s", strerror(errno));
  follow(watch, watch->wake, watch->size + VISITORS + 1, EPOLL_CTL_ADD);
  if (watch->size == 1)
    return STATUS_OK;
  TRY(watch_listen(&watch->place, &watch->listener));
  allow_sockets(watch->size);
  follow(watch, watch->listener, watch->size + VISITORS, EPOLL_CTL_ADD);
  return STATUS_OK;
}

/* What makes no sense is an error, what is not possible a warning. */
static enum status start_root(struct watch *watch) {
  bool off;
  char sentence[WATCH_SENTENCE];
  TRY(read_settings(watch, &off));
  if (off)
    return STATUS_OK;
  enum status status = open_ears(watch);
  if (status == STATUS_OK)
    status = start_thread(watch);
  if (status == STATUS_OK || status == ERR_ARGUMENT)
    return status;
  watch->place.port = 0;
  snprintf(sentence, sizeof sentence, "nobody watches over the ranks, and a lost one may go unnoticed: %s",
           status_message());
  say(watch, "warning: ", sentence);
  return STATUS_OK;
}

static enum status start_others(struct watch *watch) {
  if (watch->rank == 0 || watch->place.port == 0)
    return STATUS_OK;
  if (start_thread(watch) == STATUS_OK)
    return STATUS_OK;
  say(watch, "warning: ", "nobody watches over this rank: no thread can be started");
  watch->place.port = 0;
  return STATUS_OK;
}

enum status watch_start(struct comm *comm, int exit_status, struct watch **out) {
  struct watch *watch = NULL;
  char host[HOST_BYTES] = "";
  enum status status;
  *out = NULL;
  /* MPI writes to a process that it does not know to be dead: this one would follow it without a word. */
  if (comm_size(comm) > 1)
    signal(SIGPIPE, SIG_IGN);
  TRY_GOTO(comm_agree(comm, prepare(comm, exit_status, &watch)), none);
  snprintf(host, sizeof host, "%s", comm_host(comm));
  TRY_GOTO(comm_gather_each(comm, host, sizeof host, watch->hosts), none);
  watch->began = watch->looked = watch->answered = watch->own.since = log_seconds();
  TRY_GOTO(comm_agree(comm, watch->rank == 0 ? start_root(watch) : STATUS_OK), none);
  TRY_GOTO(comm_broadcast(comm, &watch->place, sizeof watch->place, 0), none);
  TRY_GOTO(comm_broadcast(comm, &watch->limits, sizeof watch->limits, 0), none);
  TRY_GOTO(start_others(watch), none);
  if (watch->runs) {
    *out = watch;
    return STATUS_OK;
  }
none:
  if (watch != NULL)
    release(&watch);
  return status;
}

void watch_has_said(struct watch *watch, int exit_status) {
  if (watch == NULL || watch->size == 1)
    return;
  atomic_store(&watch->said_status, exit_status);
  give_order(watch, HAS_SAID);
  rest(WORDS_SECONDS);
}

void watch_speaks_first(const struct watch *watch) {
  if (watch != NULL && watch->size > 1)
    rest(3 * WORDS_SECONDS);
}

void watch_stop(struct watch **watch) {
  if (*watch != NULL)
    release(watch);
}
