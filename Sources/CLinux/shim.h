// What Linux offers and Swift's Glibc module leaves out.
#ifndef SLUICE_CLINUX_H
#define SLUICE_CLINUX_H
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <netinet/tcp.h>
#endif
