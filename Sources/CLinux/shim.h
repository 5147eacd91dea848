// What Linux offers and Swift's Glibc module leaves out: epoll, eventfd, and calls behind _GNU_SOURCE.
#ifndef SLUICE_CLINUX_H
#define SLUICE_CLINUX_H
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>

int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags);
int pthread_setname_np(pthread_t thread, const char *name);
long syscall(long number, ...);

/// Fills a mask of the processors that this process may use; returns the bytes filled, or -1.
static inline long sluice_affinity(unsigned long *mask, unsigned long bytes) {
    return syscall(SYS_sched_getaffinity, 0, bytes, mask);
}
#endif
