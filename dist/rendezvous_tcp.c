/* The way by TCP: rank 0 listens, each other rank says who it is and gets the bytes.  A stranger who comes by is sent
 * away. */
#define _GNU_SOURCE /* accept4 */
#include "dist/rendezvous.h"

#include "dist/log.h"

#include <errno.h>
#include <math.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* What a rank says of itself; all machines of a job order their bytes alike. */
struct greeting {
  char magic[8]; /* "conr id" */
  int32_t rank, size;
};

static const char magic[8] = "conr id";

/* A stranger may hold rank 0 up for so long. */
#define GREETING_SECONDS 5

/* --- sockets -------------------------------------------------------------------------------------------------- */

/* Until the socket can be read or written.  False: not by then. */
static bool wait_until(int socket, short what, double end) {
  struct pollfd poll_for = {.fd = socket, .events = what};
  double left;
  while ((left = end - log_seconds()) > 0) {
    int found = poll(&poll_for, 1, (int)fmin(ceil(left * 1000), 60000));
    if (found > 0)
      return true;
    if (found < 0 && errno != EINTR)
      return false;
  }
  return false;
}

/* All bytes, or not; of an end of file, errno is 0. */
static bool receive_all(int socket, void *bytes, size_t count, double end) {
  for (size_t done = 0; done < count;) {
    errno = ETIMEDOUT;
    if (!wait_until(socket, POLLIN, end))
      return false;
    ssize_t found = recv(socket, (char *)bytes + done, count - done, 0);
    if (found == 0)
      errno = ECONNRESET;
    if (found == 0 || (found < 0 && errno != EINTR))
      return false;
    done += found > 0 ? (size_t)found : 0;
  }
  return true;
}

/* Few bytes, which fit the socket's own memory. */
static bool send_all(int socket, const void *bytes, size_t count) {
  return send(socket, bytes, count, MSG_NOSIGNAL) == (ssize_t)count;
}

/* "HOST:PORT" or "[ADDRESS]:PORT".  passive: for listening, on whatever network a rank comes by. */
static enum status resolve(const char *address, bool passive, struct addrinfo **out) {
  char host[256];
  const char *colon = strrchr(address, ':');
  size_t length = colon != NULL ? (size_t)(colon - address) : 0;
  bool bracketed = length >= 2 && address[0] == '[' && address[length - 1] == ']';
  REQUIRE(length > 0 && length < sizeof host && colon[1] != '\0', ERR_ARGUMENT,
          "CONR_NCCL_ID_ADDRESS is \"%s\"; give HOST:PORT of rank 0", address);
  snprintf(host, sizeof host, "%.*s", (int)(bracketed ? length - 2 : length), address + bracketed);
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0)};
  int code = getaddrinfo(passive ? NULL : host, colon + 1, &hints, out);
  REQUIRE(code == 0, ERR_ARGUMENT, "CONR_NCCL_ID_ADDRESS is \"%s\": %s; give HOST:PORT of rank 0", address,
          gai_strerror(code));
  return STATUS_OK;
}

/* --- rank 0 --------------------------------------------------------------------------------------------------- */

/* One that takes both families where the machine has both. */
static enum status listen_at(const char *address, int *out) {
  struct addrinfo *found;
  int error = EADDRNOTAVAIL;
  *out = -1;
  TRY(resolve(address, true, &found));
  for (int family = AF_INET6; *out < 0; family = AF_INET) {
    for (struct addrinfo *one = found; one != NULL && *out < 0; one = one->ai_next) {
      int own = one->ai_family == family ? socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0) : -1;
      if (own < 0)
        continue;
      setsockopt(own, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
      if (family == AF_INET6)
        setsockopt(own, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
      if (bind(own, one->ai_addr, one->ai_addrlen) == 0 && listen(own, SOMAXCONN) == 0) {
        *out = own;
      } else {
        error = errno;
        close(own);
      }
    }
    if (family == AF_INET)
      break;
  }
  freeaddrinfo(found);
  REQUIRE(*out >= 0, ERR_COMM, "rank 0 cannot listen where CONR_NCCL_ID_ADDRESS says, %s: %s; name a free port",
          address, strerror(error));
  return STATUS_OK;
}

/* True: it was one of us, who had not come before.  One whose connection broke comes again. */
static bool serve_one(int socket, const struct comm *host, const void *bytes, size_t count, bool *came) {
  struct greeting greeting;
  bool ours = receive_all(socket, &greeting, sizeof greeting, log_seconds() + GREETING_SECONDS) &&
              memcmp(greeting.magic, magic, sizeof magic) == 0 && greeting.size == comm_size(host) &&
              greeting.rank > 0 && greeting.rank < greeting.size;
  bool first = ours && send_all(socket, bytes, count) && !came[greeting.rank];
  if (first)
    came[greeting.rank] = true;
  return first;
}

static enum status serve(struct comm *host, int listener, const void *bytes, size_t count, double end) {
  enum { MOST_RANKS = 1 << 16 };
  static bool came[MOST_RANKS];
  int left = comm_size(host) - 1;
  REQUIRE(left < MOST_RANKS, ERR_ARGUMENT, "CONR_NCCL_ID_ADDRESS serves up to %d ranks", MOST_RANKS);
  memset(came, 0, sizeof came);
  while (left > 0) {
    REQUIRE(
        wait_until(listener, POLLIN, end), ERR_COMM,
        "%d ranks have not come for NCCL's id to where CONR_NCCL_ID_ADDRESS says; is the port open between the nodes?",
        left);
    int caller = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (caller < 0)
      continue;
    left -= serve_one(caller, host, bytes, count, came);
    close(caller);
  }
  return STATUS_OK;
}

/* --- the others ----------------------------------------------------------------------------------------------- */

static int connect_to(const struct addrinfo *addresses) {
  for (const struct addrinfo *one = addresses; one != NULL; one = one->ai_next) {
    int own = socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (own < 0)
      continue;
    if (connect(own, one->ai_addr, one->ai_addrlen) == 0)
      return own;
    int error = errno;
    close(own);
    errno = error;
  }
  return -1;
}

static bool ask(const struct addrinfo *addresses, const struct greeting *greeting, void *bytes, size_t count,
                double end) {
  int own = connect_to(addresses);
  if (own < 0)
    return false;
  bool done = send_all(own, greeting, sizeof *greeting) && receive_all(own, bytes, count, end);
  int error = errno;
  close(own);
  errno = error;
  return done;
}

static enum status fetch(struct comm *host, const char *address, const struct addrinfo *found, void *bytes,
                         size_t count, double end) {
  enum { SLEEP_MICROSECONDS = 50000 };
  struct greeting greeting = {.rank = comm_rank(host), .size = comm_size(host)};
  memcpy(greeting.magic, magic, sizeof magic);
  while (!ask(found, &greeting, bytes, count, end)) {
    REQUIRE(log_seconds() < end, ERR_COMM,
            "rank %d (%s) does not get NCCL's id from %s, where CONR_NCCL_ID_ADDRESS says rank 0 is: %s", greeting.rank,
            comm_host(host), address, strerror(errno));
    usleep(SLEEP_MICROSECONDS);
  }
  return STATUS_OK;
}

enum status rendezvous_tcp(struct comm *host, const char *address, void *bytes, size_t count, double timeout_seconds) {
  double end = log_seconds() + timeout_seconds;
  struct addrinfo *found = NULL;
  int listener = -1;
  bool root = comm_rank(host) == 0;
  /* First what needs nobody else: then nobody waits for a rank that cannot come. */
  enum status status = comm_agree(host, root ? listen_at(address, &listener) : resolve(address, false, &found));
  if (status == STATUS_OK)
    status = root ? serve(host, listener, bytes, count, end) : fetch(host, address, found, bytes, count, end);
  if (listener >= 0)
    close(listener);
  if (found != NULL)
    freeaddrinfo(found);
  return status;
}
