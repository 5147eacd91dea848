// What Linux offers and Swift's Glibc module leaves out: epoll, eventfd, and calls behind _GNU_SOURCE.
#ifndef SLUICE_CLINUX_H
#define SLUICE_CLINUX_H
#include <linux/filter.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int accept4(int socket, struct sockaddr *address, socklen_t *length, int flags);
int pthread_setname_np(pthread_t thread, const char *name);
long syscall(long number, ...);
/// A file without a name, in memory (memfd_create(2)), closed on exec.
static inline int sluice_memory_file(void) { return (int)syscall(SYS_memfd_create, "sluice", 1L); }

int execvpe(const char *program, char *const arguments[], char *const environment[]);

/// mallinfo(3), in words of the allocator's own. Its header would bring half of the C library into this module.
struct mallinfo2 {
    unsigned long arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost;
};
struct mallinfo2 mallinfo2(void);

/// Fills a mask of the processors that this process may use; returns the bytes filled, or -1.
static inline long sluice_affinity(unsigned long *mask, unsigned long bytes) {
    return syscall(SYS_sched_getaffinity, 0, bytes, mask);
}

/// The size of a terminal (ioctl_tty(2)). Returns what ioctl(2) does.
static inline int sluice_terminal_size(int file, unsigned short *rows, unsigned short *columns) {
    struct winsize size = {0};
    int result = ioctl(file, TIOCGWINSZ, &size);
    *rows = size.ws_row;
    *columns = size.ws_col;
    return result;
}

/// recv(2) and send(2) that are no points of cancellation (pthreads(7)): no thread is ever cancelled here, and being ready
/// for it costs two atomic operations a call.
static inline long sluice_receive(int socket, void *bytes, unsigned long room) {
    return syscall(SYS_recvfrom, (long)socket, bytes, room, 0L, 0L, 0L);
}
static inline long sluice_send(int socket, const void *bytes, unsigned long length) {
    return syscall(SYS_sendto, (long)socket, bytes, length, (long)MSG_NOSIGNAL, 0L, 0L);
}

/// Drops the first packet of each new connection to a listening socket: those with SYN and without ACK. The filter sees
/// a segment from its TCP header on, whose byte 13 holds the flags (RFC 9293, section 3.1).
static inline int sluice_hold_newcomers(int socket) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x02, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    struct sock_fprog program = {sizeof(code) / sizeof(code[0]), code};
    return setsockopt(socket, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

/// Sends a message with descriptors (unix(7), SCM_RIGHTS). Returns what sendmsg(2) does.
static inline long sluice_send_descriptors(
    int socket, const void *bytes, unsigned long length, const int *descriptors, unsigned int count) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 253)];
        struct cmsghdr aligned;
    } control;
    struct iovec piece = {(void *)bytes, length};
    struct msghdr message;
    memset(&message, 0, sizeof(message));
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    if (count > 253) count = 253;
    if (count > 0) {
        memset(&control, 0, sizeof(control));
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * count);
        memcpy(CMSG_DATA(header), descriptors, sizeof(int) * count);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

/// Takes a message and the descriptors in it, 253 at the most, which close on exec.
static inline long sluice_receive_descriptors(
    int socket, void *bytes, unsigned long room, int *descriptors, unsigned int *count) {
    union {
        char bytes[CMSG_SPACE(sizeof(int) * 253)];
        struct cmsghdr aligned;
    } control;
    struct iovec piece = {bytes, room};
    struct msghdr message;
    memset(&message, 0, sizeof(message));
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof(control.bytes);
    *count = 0;
    long length = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (length < 0) return length;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        unsigned int some = (unsigned int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(descriptors + *count, CMSG_DATA(header), sizeof(int) * some);
        *count += some;
    }
    return length;
}

// What a process says when it crashes. Its header would bring more than these two.
int backtrace(void **frames, int size);
void backtrace_symbols_fd(void *const *frames, int size, int descriptor);

static inline void sluice_say(const char *text) {
    if (write(2, text, strlen(text)) < 0) return;
}

/// Says on standard error which signal came and where the thread was, and lets the signal do what it does. Calls only
/// what may be called in a signal handler (signal-safety(7)); `backtrace` has loaded what it needs before.
static inline void sluice_crashed(int number, siginfo_t *info, void *context) {
    (void)context;
    // Whoever reads standard error may have stopped: then the clock ends the process instead.
    alarm(2);
    // Above 0 the kernel has sent it; of these signals only a fault has an address (sigaction(2)).
    int fault = info->si_code > 0 && number != SIGABRT;
    char line[64];
    const char *name = number == SIGSEGV  ? "SIGSEGV"
                       : number == SIGBUS ? "SIGBUS"
                       : number == SIGILL ? "SIGILL"
                       : number == SIGFPE ? "SIGFPE"
                       : number == SIGTRAP ? "SIGTRAP"
                                           : "SIGABRT";
    unsigned long value = (unsigned long)info->si_addr;
    int at = sizeof(line) - 1;
    line[at] = 0;
    do {
        line[--at] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value && at > 2);
    line[--at] = 'x';
    line[--at] = '0';
    sluice_say("sluice: crashed by ");
    sluice_say(name);
    if (fault) {
        sluice_say(" at ");
        sluice_say(line + at);
    }
    sluice_say("; backtrace (addr2line -fpe FILE OFFSET | swift demangle):\n");
    void *frames[64];
    backtrace_symbols_fd(frames, backtrace(frames, 64), 2);
    sluice_say("sluice: end of the backtrace\n");
    alarm(0);
    // The handler is gone (SA_RESETHAND): a fault comes again when this returns, everything else is sent again.
    if (info->si_code <= 0) raise(number);
}

/// Room for the handler where the thread's own stack has run out. Of each thread; it lives as long as the process.
static inline void sluice_use_crash_stack(void) {
    stack_t stack;
    memset(&stack, 0, sizeof(stack));
    stack.ss_size = 64 << 10;
    stack.ss_sp = malloc(stack.ss_size);
    if (stack.ss_sp) sigaltstack(&stack, 0);
}

static inline void sluice_report_crashes(void) {
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT};
    void *frames[1];
    backtrace(frames, 1);
    sluice_use_crash_stack();
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_sigaction = sluice_crashed;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND;
    for (unsigned i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) sigaction(numbers[i], &action, 0);
}
#endif
