/* Sockets of the watch: few bytes, and nothing that blocks. */
#define _GNU_SOURCE /* accept4, getrandom */
#include "dist/watch_link.h"

#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORT_VARIABLE "CONR_WATCH_PORT"

/* ---- rank 0 --------------------------------------------------------------------------------- */

static bool is_of_use(const struct ifaddrs *one, bool own) {
  if (one->ifa_addr == NULL || !(one->ifa_flags & IFF_UP) || own != ((one->ifa_flags & IFF_LOOPBACK) != 0))
    return false;
  if (one->ifa_addr->sa_family == AF_INET6)
    return !IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)one->ifa_addr)->sin6_addr);
  return one->ifa_addr->sa_family == AF_INET;
}

/* The host's own first: for the ranks on it. */
static void find_addresses(struct watch_place *place) {
  struct ifaddrs *all = NULL;
  if (getifaddrs(&all) != 0)
    return;
  for (int own = 1; own >= 0; own--)
    for (const struct ifaddrs *one = all; one != NULL && place->count < WATCH_ADDRESSES; one = one->ifa_next) {
      if (!is_of_use(one, own == 1) || (own == 1 && place->count > 0))
        continue;
      bool six = one->ifa_addr->sa_family == AF_INET6;
      memcpy(&place->address[place->count++], one->ifa_addr,
             six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in));
    }
  freeifaddrs(all);
}

/* One that takes both families where the machine has both; -1 = cannot be. */
static int listen_by(int family, int port) {
  struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
  struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int own = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (own < 0)
    return -1;
  setsockopt(own, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
  if (family == AF_INET6)
    setsockopt(own, IPPROTO_IPV6, IPV6_V6ONLY, &(int){0}, sizeof(int));
  int bound = family == AF_INET6 ? bind(own, (struct sockaddr *)&six, sizeof six)
                                 : bind(own, (struct sockaddr *)&four, sizeof four);
  if (bound == 0 && listen(own, SOMAXCONN) == 0)
    return own;
  int error = errno;
  close(own);
  errno = error;
  return -1;
}

static enum status read_port(int *port) {
  const char *text = getenv(PORT_VARIABLE);
  char *end;
  *port = 0;
  if (text == NULL)
    return STATUS_OK;
  long value = strtol(text, &end, 10);
  REQUIRE(end != text && *end == '\0' && value > 0 && value < 65536, ERR_ARGUMENT,
          PORT_VARIABLE " is \"%s\"; give a port, from 1 to 65535", text);
  *port = (int)value;
  return STATUS_OK;
}

enum status watch_listen(struct watch_place *place, int *listener) {
  int port;
  struct sockaddr_in6 found = {0};
  socklen_t length = sizeof found;
  memset(place, 0, sizeof *place); /* its bytes are sent */
  *listener = -1;
  TRY(read_port(&port));
  *listener = listen_by(AF_INET6, port);
  if (*listener < 0)
    *listener = listen_by(AF_INET, port);
  REQUIRE(*listener >= 0 && getsockname(*listener, (struct sockaddr *)&found, &length) == 0, ERR_COMM,
          "rank 0 cannot listen for the other ranks: %s; free the port, or name another by " PORT_VARIABLE,
          strerror(errno));
  REQUIRE(getrandom(place->key, sizeof place->key, 0) == sizeof place->key, ERR_COMM, "no random numbers here: %s",
          strerror(errno));
  find_addresses(place);
  place->port = ntohs(found.sin6_port); /* where a sockaddr_in has it, too */
  return STATUS_OK;
}

/* ---- the others ----------------------------------------------------------------------------- */

int watch_call(const struct watch_place *place, int which) {
  struct sockaddr_in6 address = place->address[which];
  bool six = address.sin6_family == AF_INET6;
  address.sin6_port = htons((uint16_t)place->port);
  int own = socket(address.sin6_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (own < 0)
    return -1;
  socklen_t length = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
  if (connect(own, (struct sockaddr *)&address, length) == 0 || errno == EINPROGRESS)
    return own;
  close(own);
  return -1;
}

/* ---- messages ------------------------------------------------------------------------------- */

void watch_send(struct watch_link *link, const void *message, size_t bytes) {
  if (link->socket < 0 || link->mute)
    return;
  ssize_t sent = send(link->socket, message, bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
  link->mute = sent > 0 && (size_t)sent < bytes;
}

enum watch_received watch_receive(struct watch_link *link, void *message, size_t bytes) {
  ssize_t found = recv(link->socket, link->bytes + link->filled, bytes - link->filled, MSG_DONTWAIT);
  if (found == 0 || (found < 0 && errno == ECONNRESET))
    return WATCH_CLOSED;
  if (found < 0)
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? WATCH_NOTHING : WATCH_UNUSABLE;
  link->filled += (size_t)found;
  if (link->filled < bytes)
    return WATCH_NOTHING;
  memcpy(message, link->bytes, bytes);
  link->filled = 0;
  return WATCH_WHOLE;
}

void watch_hang_up(struct watch_link *link) {
  if (link->socket >= 0)
    close(link->socket);
  *link = (struct watch_link){.socket = -1};
}
