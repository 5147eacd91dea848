// Plays the clients of a cluster, and counts what they see: see usage().
//
// One process on one thread. Requests begin at a fixed pace, whatever becomes of those before them, and what a client
// waits is counted from when its request was due. Each asks for a number of its own, which the backend (backend.c) sends
// back, so that an answer to another request is known. A refused connection makes its client try the next address, and a
// kept connection that the server has ended before anything was sent is replaced by a new one; everything else is a
// failure, and no request is sent a second time.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DIGITS = 12, PATIENCE = 30, MOST_ADDRESSES = 16, MOST_REASONS = 64 };
enum state { IDLE, CONNECTING, WAITING, ENDED };

struct client {
  int socket, address, refused, have;
  enum state state;
  bool keeps, is_tunnel, is_used;
  long long due, number;
  char data[8192];
};

// Who may send the next request, in turn; and what is due.
struct queue {
  struct client **ring;
  int size, first, count;
  double rate;
  long long begun;
};

static struct sockaddr_in addresses[MOST_ADDRESSES];
static int address_count, poller;
static const char *path = "/", *tunnel_path = "/chat";
static struct queue requests, echoes;
static volatile sig_atomic_t is_stopping;
static long long start, numbers;

static struct { char name[96]; long long count; } reasons[MOST_REASONS];
static long long answered, echoed, connections, refused, closed_idle, skipped, slowest, failed;
static long long waits[1024 + 32 * 512];
static long long *by_second, seconds_counted;

static void usage(FILE *out) {
  fputs("usage: clients [--clients N] [--rate N] [--fresh PERCENT] [--path PATH]\n"
        "               [--tunnels N] [--echoes N] [--tunnel-path PATH] [--seconds N] ADDRESS:PORT ...\n\n"
        "--clients N       so many, each with one request at a time (128)\n"
        "--rate N          requests a second in all; 0 is as many as are answered (0)\n"
        "--fresh PERCENT   of the clients make a connection for each request (10)\n"
        "--path PATH       what they ask for, with a number behind it (/)\n"
        "--tunnels N       WebSockets besides, opened at the start (0)\n"
        "--echoes N        messages a second through all of them (500)\n"
        "--tunnel-path P   where they are opened (/chat)\n"
        "--seconds N       until SIGTERM or SIGINT where 0 (0)\n\n"
        "Writes `ready` and a line end when the tunnels are open, and one line of JSON at the end.\n", out);
}

static void die(const char *what) {
  fprintf(stderr, "clients: %s: %s\n", what, strerror(errno));
  exit(2);
}

static long long clock_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void push(struct queue *q, struct client *c) { q->ring[(q->first + q->count++) % q->size] = c; }

static struct client *pop(struct queue *q) {
  struct client *c = q->ring[q->first];
  q->first = (q->first + 1) % q->size;
  q->count--;
  return c;
}

static void note_wait(long long nanoseconds) {
  if (nanoseconds > slowest) slowest = nanoseconds;
  unsigned long us = nanoseconds / 1000;
  int index = us;
  if (us >= 1024) {
    int exponent = 63 - __builtin_clzl(us);
    index = exponent > 40 ? 1024 + 31 * 512 : 1024 + (exponent - 10) * 512 + (int)((us >> (exponent - 9)) - 512);
  }
  waits[index]++;
}

// Milliseconds within which this part was answered.
static double percentile(double part) {
  long long wanted = answered * part, seen = 0;
  for (int index = 0; index < (int)(sizeof waits / sizeof *waits); index++) {
    seen += waits[index];
    if (seen <= wanted) continue;
    if (index < 1024) return index / 1e3;
    int exponent = (index - 1024) / 512 + 10;
    return (double)((long long)((index - 1024) % 512 + 512) << (exponent - 9)) / 1e3;
  }
  return slowest / 1e6;
}

static void drop(struct client *c) {
  if (c->socket >= 0) close(c->socket);
  c->socket = -1;
}

static void count_failure(const char *name) {
  failed++;
  int slot = 0;
  while (slot < MOST_REASONS - 1 && reasons[slot].count && strcmp(reasons[slot].name, name)) slot++;
  strcpy(reasons[slot].name, name);
  reasons[slot].count++;
}

static void fail(struct client *c, const char *what, const char *more) {
  char name[96];
  snprintf(name, sizeof name, "%s%s%s", c->is_tunnel ? "tunnel: " : "", what, more);
  count_failure(name);
  drop(c);
  c->state = c->is_tunnel ? ENDED : IDLE;
  if (!c->is_tunnel) push(&requests, c);
}

static void fail_connection(struct client *c, const char *what) {
  fail(c, c->is_tunnel ? "" : c->is_used ? "kept connection: " : "fresh connection: ", what);
}

static void send_request(struct client *c) {
  char text[512];
  int length = c->is_tunnel
    // A text of twelve digits, masked with zeros.
    ? snprintf(text, sizeof text, "\x81%c%c%c%c%c%012lld", 0x80 | DIGITS, 0, 0, 0, 0, c->number)
    : snprintf(text, sizeof text, "GET %s%012lld HTTP/1.1\r\nHost: load\r\n%s\r\n", path, c->number,
               c->keeps ? "" : "Connection: close\r\n");
  c->state = WAITING;
  c->have = 0;
  ssize_t sent = send(c->socket, text, length, MSG_NOSIGNAL);
  if (sent != length) fail_connection(c, sent < 0 ? strerror(errno) : "only a part could be sent");
}

static void watch(struct client *c) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = c};
  if (epoll_ctl(poller, EPOLL_CTL_ADD, c->socket, &event)) die("epoll_ctl");
}

static void next_address(struct client *c) { c->address = (c->address + 1) % address_count; }

static void open_connection(struct client *c) {
  for (;;) {
    int on = 1;
    c->socket = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->socket < 0) die("socket");
    setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections++;
    c->state = CONNECTING;
    c->is_used = false;
    struct sockaddr_in *address = &addresses[c->address];
    if (!connect(c->socket, (struct sockaddr *)address, sizeof *address) || errno == EINPROGRESS) return watch(c);
    if (errno != ECONNREFUSED) return fail(c, "connect: ", strerror(errno));
    refused++;
    drop(c);
    if (++c->refused >= address_count) return fail(c, "all addresses refused", "");
    next_address(c);
  }
}

static void connected(struct client *c) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(c->socket, SOL_SOCKET, SO_ERROR, &error, &size);
  if (!error) return send_request(c);
  drop(c);
  if (error != ECONNREFUSED) return fail(c, "connect: ", strerror(error));
  refused++;
  if (++c->refused >= address_count) return fail(c, "all addresses refused", "");
  next_address(c);
  open_connection(c);
}

static void begin(struct client *c, long long due) {
  c->due = due;
  c->number = ++numbers;
  c->refused = 0;
  if (c->is_tunnel) return send_request(c);
  if (c->socket >= 0) {
    // Every client looks whether the server has ended the connection before it sends.
    char byte;
    ssize_t seen = recv(c->socket, &byte, 1, MSG_PEEK);
    if (seen < 0 && errno == EAGAIN) return send_request(c);
    if (seen > 0) return fail(c, "an answer that nobody asked for", "");
    closed_idle++;
    drop(c);
    next_address(c);
  }
  open_connection(c);
}

static void done(struct client *c, long long now) {
  c->state = IDLE;
  c->have = 0;
  c->is_used = true;
  if (c->is_tunnel) {
    echoed++;
    return push(&echoes, c);
  }
  answered++;
  note_wait(now - c->due);
  long long second = (now - start) / 1000000000;
  if (second >= seconds_counted) {
    by_second = realloc(by_second, (second + 1) * sizeof *by_second);
    if (!by_second) die("realloc");
    while (seconds_counted <= second) by_second[seconds_counted++] = 0;
  }
  by_second[second]++;
  push(&requests, c);
}

// Whether what is there is a whole answer; it has failed where it is no longer waiting afterwards.
static bool is_answered(struct client *c, bool *ends) {
  char number[DIGITS + 1];
  snprintf(number, sizeof number, "%012lld", c->number);
  if (c->is_tunnel) {
    if (c->have >= 4 && (c->data[0] & 0x7f) == 8) return fail(c, "closed by the server", ""), false;
    if (c->have < 2 + DIGITS) return false;
    if (c->have > 2 + DIGITS || c->data[0] != '\x81' || c->data[1] != DIGITS || memcmp(c->data + 2, number, DIGITS))
      return fail(c, "another echo", ""), false;
    return true;
  }
  c->data[c->have] = 0;
  char *end = memmem(c->data, c->have, "\r\n\r\n", 4);
  if (!end) return false;
  if (memcmp(c->data, "HTTP/1.1 2", 10)) {
    char status[4] = {0};
    memcpy(status, c->data + 9, 3);
    return fail(c, "status ", status), false;
  }
  end[2] = 0;
  char *field = strcasestr(c->data, "\r\ncontent-length:");
  *ends = strcasestr(c->data, "\r\nconnection: close");
  end[2] = '\r';
  if (!field) return fail(c, "an answer without a length", ""), false;
  long length = atol(field + 17), there = c->data + c->have - (end + 4);
  if (there < length) return false;
  if (there > length) return fail(c, "an answer that nobody asked for", ""), false;
  if (length < DIGITS || memcmp(end + 4 + length - DIGITS, number, DIGITS))
    return fail(c, "an answer to another request", ""), false;
  return true;
}

static void readable(struct client *c, unsigned events) {
  bool is_last = events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR);
  for (;;) {
    int room = sizeof c->data - 1 - c->have;
    if (!room) return fail(c, "an answer that is too long", "");
    ssize_t count = recv(c->socket, c->data + c->have, room, 0);
    if (count < 0 && errno == EAGAIN) return;
    if (count <= 0) {
      const char *reason = count < 0 ? strerror(errno) : c->have ? "an answer broke off" : "ended without an answer";
      if (c->state != IDLE || c->is_tunnel) return fail_connection(c, reason);
      closed_idle++;
      drop(c);
      return next_address(c);
    }
    c->have += count;
    if (c->state == IDLE) {
      if (!c->is_tunnel) {
        // It stands in the queue: its next request makes a new connection.
        drop(c);
        next_address(c);
        count_failure("an answer that nobody asked for");
        return;
      }
      return fail(c, (c->data[0] & 0x7f) == 8 ? "closed by the server" : "an echo that nobody asked for", "");
    }
    bool ends = false;
    if (is_answered(c, &ends)) {
      done(c, clock_now());
      if (!c->is_tunnel && (ends || !c->keeps)) {
        drop(c);
        return next_address(c);
      }
    }
    if (c->socket < 0 || (count < room && !is_last)) return;
  }
}

static void serve(struct client *c, unsigned events) {
  if (c->socket < 0) return;
  if (c->state == CONNECTING) {
    if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) connected(c);
    if (c->state != WAITING || c->socket < 0) return;
  }
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) readable(c, events);
}

static void open_tunnel(struct client *c) {
  char text[512];
  struct timeval limit = {.tv_sec = PATIENCE};
  int on = 1;
  c->socket = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c->socket < 0) die("socket");
  setsockopt(c->socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(c->socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  if (connect(c->socket, (struct sockaddr *)&addresses[c->address], sizeof *addresses)) die("a tunnel cannot connect");
  int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: load\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", tunnel_path);
  if (send(c->socket, text, length, MSG_NOSIGNAL) != length) die("a tunnel cannot be asked for");
  while (!memmem(c->data, c->have, "\r\n\r\n", 4)) {
    ssize_t count = recv(c->socket, c->data + c->have, sizeof c->data - 1 - c->have, 0);
    if (count <= 0) die("no tunnel");
    c->have += count;
  }
  if (memcmp(c->data, "HTTP/1.1 101 ", 13)) {
    fprintf(stderr, "clients: a tunnel was answered with %.40s\n", c->data);
    exit(2);
  }
  c->have = 0;
  fcntl(c->socket, F_SETFL, O_NONBLOCK);
  watch(c);
}

// Begins what is due, as far as somebody is there to ask for it.
static void pace(struct queue *q, long long now) {
  if (q->rate == 0) {
    for (int count = q->count; count > 0; count--) {
      struct client *c = pop(q);
      if (c->state != ENDED) begin(c, now);
    }
    return;
  }
  // The first at once.
  long long due = (now - start) * q->rate / 1e9 + 1;
  long long late = due - q->begun - (long long)q->rate;
  if (late > 0 && q == &requests) {
    skipped += late;
    q->begun += late;
  }
  while (q->begun < due && q->count > 0) {
    long long when = start + q->begun++ / q->rate * 1e9;
    struct client *c = pop(q);
    if (c->state != ENDED) begin(c, when);
  }
}

static double processor_seconds(void) {
  struct rusage used;
  getrusage(RUSAGE_SELF, &used);
  return used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

static void report(double took, double processor) {
  long long lowest = -1;
  for (long long second = 0; second < (long long)took; second++) {
    long long count = second < seconds_counted ? by_second[second] : 0;
    if (lowest < 0 || count < lowest) lowest = count;
  }
  printf("{\"seconds\": %.3f, \"asked\": %.0f, \"answered\": %lld, \"failed\": %lld, \"skipped\": %lld, \"rate\": %.1f, "
         "\"lowest\": %lld, \"connections\": %lld, \"refused\": %lld, \"closedIdle\": %lld, \"echoes\": %lld, "
         "\"processor\": %.2f, \"p50\": %.3f, \"p90\": %.3f, \"p99\": %.3f, \"p999\": %.3f, \"slowest\": %.3f, \"failures\": {",
         took, requests.rate, answered, failed, skipped, answered / took, lowest < 0 ? 0 : lowest, connections, refused,
         closed_idle, echoed, processor * 1e6 / (answered + echoed ? answered + echoed : 1), percentile(0.5), percentile(0.9),
         percentile(0.99), percentile(0.999), slowest / 1e6);
  const char *comma = "";
  for (int slot = 0; slot < MOST_REASONS; slot++) {
    if (!reasons[slot].count) continue;
    printf("%s\"%s\": %lld", comma, reasons[slot].name, reasons[slot].count);
    comma = ", ";
  }
  printf("}}\n");
}

static void stop(int number) {
  (void)number;
  is_stopping = 1;
}

static void add_address(char *text) {
  char *colon = strrchr(text, ':');
  if (address_count == MOST_ADDRESSES || !colon) {
    usage(stderr);
    exit(2);
  }
  *colon = 0;
  struct sockaddr_in *address = &addresses[address_count++];
  address->sin_family = AF_INET;
  address->sin_port = htons(atoi(colon + 1));
  if (inet_pton(AF_INET, text, &address->sin_addr) != 1) {
    errno = EINVAL;
    die(text);
  }
}

int main(int argc, char **argv) {
  static const struct option options[] = {
    {"clients", 1, 0, 'c'}, {"rate", 1, 0, 'r'}, {"fresh", 1, 0, 'f'}, {"path", 1, 0, 'p'}, {"tunnels", 1, 0, 't'},
    {"echoes", 1, 0, 'e'}, {"tunnel-path", 1, 0, 'P'}, {"seconds", 1, 0, 's'}, {"help", 0, 0, 'h'}, {0, 0, 0, 0}};
  int clients = 128, tunnels = 0, fresh = 10;
  double seconds = 0;
  echoes.rate = 500;
  for (int option; (option = getopt_long(argc, argv, "", options, 0)) != -1;) {
    switch (option) {
    case 'c': clients = atoi(optarg); break;
    case 'r': requests.rate = atof(optarg); break;
    case 'f': fresh = atoi(optarg); break;
    case 'p': path = optarg; break;
    case 't': tunnels = atoi(optarg); break;
    case 'e': echoes.rate = atof(optarg); break;
    case 'P': tunnel_path = optarg; break;
    case 's': seconds = atof(optarg); break;
    case 'h': usage(stdout); return 0;
    default: usage(stderr); return 2;
    }
  }
  for (; optind < argc; optind++) add_address(argv[optind]);
  if (!address_count || clients < 0 || tunnels < 0 || strlen(path) > 256 || strlen(tunnel_path) > 256) {
    usage(stderr);
    return 2;
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  signal(SIGTERM, stop);
  signal(SIGINT, stop);
  poller = epoll_create1(EPOLL_CLOEXEC);
  struct client *all = calloc(clients + tunnels + 1, sizeof *all);
  requests.size = clients + 1;
  echoes.size = tunnels + 1;
  requests.ring = calloc(requests.size, sizeof *requests.ring);
  echoes.ring = calloc(echoes.size, sizeof *echoes.ring);
  if (poller < 0 || !all || !requests.ring || !echoes.ring) die("cannot start");
  for (int n = 0; n < clients + tunnels; n++) {
    struct client *c = &all[n];
    c->socket = -1;
    c->address = n % address_count;
    c->is_tunnel = n >= clients;
    c->keeps = (n + 1) * fresh / 100 == n * fresh / 100;
    if (c->is_tunnel) open_tunnel(c);
    push(c->is_tunnel ? &echoes : &requests, c);
  }
  puts("ready");
  fflush(stdout);

  double processor = processor_seconds();
  start = clock_now();
  long long end = seconds > 0 ? start + seconds * 1e9 : 0, stopped = 0;
  for (;;) {
    long long now = clock_now();
    if (!stopped && (is_stopping || (end && now >= end))) stopped = now;
    if (!stopped) {
      pace(&requests, now);
      pace(&echoes, now);
    } else {
      int busy = 0;
      for (int n = 0; n < clients + tunnels; n++) busy += all[n].state == CONNECTING || all[n].state == WAITING;
      if (!busy || now > stopped + PATIENCE * 1000000000LL) break;
    }
    struct epoll_event events[512];
    int count = epoll_wait(poller, events, 512, 1);
    if (count < 0 && errno != EINTR) die("epoll_wait");
    for (int n = 0; n < count; n++) serve(events[n].data.ptr, events[n].events);
  }
  processor = processor_seconds() - processor;
  for (int n = 0; n < clients + tunnels; n++) {
    if (all[n].state == CONNECTING || all[n].state == WAITING) fail(&all[n], "no answer within 30 s", "");
  }
  report((stopped - start) / 1e9, processor);
  return failed ? 1 : 0;
}
