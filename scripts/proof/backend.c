// A backend that costs little: `backend COUNT` listens on so many ports of 127.0.0.1, writes them in one line, and serves
// all of them on one thread. It answers each request with what was asked for, as its body, and is an echo behind an upgrade
// to WebSocket: each message goes back in a frame of its own. It knows requests without a body, and short messages.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
  int socket, have;
  bool is_listener, is_tunnel;
  char data[16384];
};

static int poller;

static void die(const char *what) {
  fprintf(stderr, "backend: %s: %s\n", what, strerror(errno));
  exit(2);
}

static void watch(int socket, bool is_listener) {
  struct connection *c = calloc(1, sizeof *c);
  if (!c) die("calloc");
  c->socket = socket;
  c->is_listener = is_listener;
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, socket, &event)) die("epoll_ctl");
}

static int listen_somewhere(void) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  int socket_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket_ < 0 || bind(socket_, (struct sockaddr *)&address, size) || listen(socket_, 4096)) die("cannot listen");
  getsockname(socket_, (struct sockaddr *)&address, &size);
  watch(socket_, true);
  return ntohs(address.sin_port);
}

static void accept_all(int listener) {
  for (;;) {
    int on = 1, socket = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (socket < 0) return;
    setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    watch(socket, false);
  }
}

// What the first request or message in the buffer gets; returns how long that one is, 0 where it is not there yet, and -1
// where the connection ends.
static int answer(struct connection *c, char *out, int room, int *written) {
  if (c->is_tunnel) {
    unsigned char *frame = (unsigned char *)c->data;
    if (c->have < 2) return 0;
    int length = frame[1] & 0x7f, head = frame[1] & 0x80 ? 6 : 2;
    if (length > 125) return -1;
    if (c->have < head + length) return 0;
    out[0] = frame[0];
    out[1] = length;
    for (int n = 0; n < length; n++) out[2 + n] = frame[head + n] ^ (head == 6 ? frame[2 + n % 4] : 0);
    *written = 2 + length;
    return head + length;
  }
  char *end = memmem(c->data, c->have, "\r\n\r\n", 4);
  if (!end) return 0;
  char *target = memchr(c->data, ' ', end - c->data), *after = NULL;
  if (target) {
    target++;
    after = memchr(target, ' ', end - target);
  }
  if (!after || after - target > 4096) return -1;
  *end = 0;
  c->is_tunnel = strcasestr(c->data, "\r\nupgrade: websocket");
  *written = c->is_tunnel
    ? snprintf(out, room, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
    : snprintf(out, room, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%.*s",
               (int)(after - target), (int)(after - target), target);
  return end + 4 - c->data;
}

static bool serve(struct connection *c) {
  ssize_t count = recv(c->socket, c->data + c->have, sizeof c->data - c->have, 0);
  if (count < 0 && errno == EAGAIN) return true;
  if (count <= 0) return false;
  c->have += count;
  for (;;) {
    char out[8192];
    int written = 0, used = answer(c, out, sizeof out, &written);
    if (used < 0 || (!used && c->have == sizeof c->data)) return false;
    if (!used) return true;
    c->have -= used;
    memmove(c->data, c->data + used, c->have);
    if (send(c->socket, out, written, MSG_NOSIGNAL) != written) return false;
  }
}

int main(int argc, char **argv) {
  int count = argc == 2 ? atoi(argv[1]) : 0;
  if (count < 1) {
    fputs("usage: backend COUNT\n", stderr);
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  poller = epoll_create1(EPOLL_CLOEXEC);
  for (int n = 0; n < count; n++) printf("%d%c", listen_somewhere(), n + 1 < count ? ' ' : '\n');
  fflush(stdout);
  for (;;) {
    struct epoll_event events[256];
    int ready = epoll_wait(poller, events, 256, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int n = 0; n < ready; n++) {
      struct connection *c = events[n].data.ptr;
      if (c->is_listener) {
        accept_all(c->socket);
      } else if (!serve(c)) {
        close(c->socket);
        free(c);
      }
    }
  }
}
