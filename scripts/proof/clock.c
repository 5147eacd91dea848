// Loaded into a process before its libraries. Every clock that it reads is off by SKEW_MS and gains SKEW_PPM millionths; its
// wall clock is off by what stands in SKEW_FILE besides, in nanoseconds, and can so be set while it runs.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static int (*real)(clockid_t, struct timespec *);
static long long offset, ppm, origin[16];
static volatile long long *wall;
static void find(void) {
  const char *ms = getenv("SKEW_MS"), *rate = getenv("SKEW_PPM");
  offset = ms ? atoll(ms) * 1000000 : 0;
  ppm = rate ? atoll(rate) : 0;
  const char *file = getenv("SKEW_FILE");
  int descriptor = file ? open(file, O_RDONLY) : -1;
  if (descriptor >= 0) wall = mmap(0, sizeof *wall, PROT_READ, MAP_SHARED, descriptor, 0);
  real = dlsym(RTLD_NEXT, "clock_gettime");
}
__attribute__((constructor)) static void begin(void) {
  find();
  for (int id = 0; id < 16; id++) {
    struct timespec t;
    if (real(id, &t) == 0) origin[id] = t.tv_sec * 1000000000LL + t.tv_nsec;
  }
}
int clock_gettime(clockid_t id, struct timespec *t) {
  if (!real) find();
  int result = real(id, t);
  if (result != 0 || id < 0 || id > 7 || id == CLOCK_PROCESS_CPUTIME_ID || id == CLOCK_THREAD_CPUTIME_ID) return result;
  long long now = t->tv_sec * 1000000000LL + t->tv_nsec;
  now += offset + (now - origin[id]) / 1000000 * ppm;
  if (wall && id == CLOCK_REALTIME) now += *wall;
  t->tv_sec = now / 1000000000LL;
  t->tv_nsec = now % 1000000000LL;
  return 0;
}
int gettimeofday(struct timeval *t, void *zone) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  t->tv_sec = now.tv_sec;
  t->tv_usec = now.tv_nsec / 1000;
  return 0;
}
