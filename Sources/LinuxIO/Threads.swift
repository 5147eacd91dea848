import CLinux
import Glibc
public import Primitives
import Synchronization

/// A thread of the operating system that runs one function.
public final class OSThread: Sendable {
    private let handle: pthread_t
    private let isJoined = Atomic<Bool>(false)

    /// Starts a thread. `name` shows in `top -H`; 15 bytes of it.
    public init(name: String, _ body: @escaping @Sendable () -> Void) {
        let argument = unsafe Unmanaged.passRetained(ThreadStart(name: name, body: body)).toOpaque()
        var handle = pthread_t()
        let result = unsafe pthread_create(&handle, nil, osThreadMain, argument)
        precondition(result == 0, "the system refuses another thread")
        self.handle = handle
    }

    /// Waits for its end. Only the first call does: the system gives the handle to another thread afterwards, so that a
    /// second one would take that one's end away from whoever waits for it.
    public func join() {
        guard !isJoined.exchange(true, ordering: .relaxed) else { return }
        _ = pthread_join(handle, nil)
    }

    /// Names the thread that calls; called by the first one, it is the process's name in `ps` and `pgrep`.
    public static func nameThis(_ name: String) {
        _ = unsafe pthread_setname_np(pthread_self(), String(name.prefix(15)))
    }
}

private final class ThreadStart {
    let name: String
    let body: @Sendable () -> Void
    init(name: String, body: @escaping @Sendable () -> Void) {
        self.name = name
        self.body = body
    }
}

/// The start of every thread. A function of the file: a closure in its place would inherit the caller's isolation.
private func osThreadMain(_ argument: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let argument = unsafe argument else { return nil }
    let start = unsafe Unmanaged<ThreadStart>.fromOpaque(argument).takeRetainedValue()
    OSThread.nameThis(start.name)
    sluice_use_crash_stack()
    start.body()
    return nil
}

/// The signals that a node answers. Blocked in every thread, taken in one place.
public enum Signals {
    /// Blocks them for this thread and all that it starts; ignores SIGPIPE. Call first in the program.
    public static func block(_ numbers: [Int32]) {
        _ = signal(SIGPIPE, SIG_IGN)
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in numbers { unsafe sigaddset(&set, number) }
        _ = unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// Waits until one of them arrives.
    public static func wait(_ numbers: [Int32]) -> Int32 {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in numbers { unsafe sigaddset(&set, number) }
        var number: Int32 = 0
        while unsafe sigwait(&set, &number) != 0 {}
        return number
    }

    /// The one of them that arrives first within a time.
    public static func next(_ numbers: [Int32], within span: TimeSpan) -> Int32? {
        var set = sigset_t()
        unsafe sigemptyset(&set)
        for number in numbers { unsafe sigaddset(&set, number) }
        var time = timespec(
            tv_sec: Int(span.nanoseconds / 1_000_000_000), tv_nsec: Int(span.nanoseconds % 1_000_000_000))
        let number = unsafe sigtimedwait(&set, nil, &time)
        return number > 0 ? number : nil
    }

    public static let terminate = SIGTERM
    public static let interrupt = SIGINT
    public static let hangUp = SIGHUP
    public static let reopen = SIGUSR1
    public static let upgrade = SIGUSR2
    public static let childEnded = SIGCHLD
    public static let kill = SIGKILL
    /// The terminal has another size.
    public static let resized = SIGWINCH

    public static func name(_ number: Int32) -> String {
        switch number {
        case SIGTERM: "SIGTERM"
        case SIGINT: "SIGINT"
        case SIGHUP: "SIGHUP"
        case SIGUSR1: "SIGUSR1"
        case SIGUSR2: "SIGUSR2"
        case SIGSEGV: "SIGSEGV"
        case SIGBUS: "SIGBUS"
        case SIGILL: "SIGILL"
        case SIGFPE: "SIGFPE"
        case SIGTRAP: "SIGTRAP"
        case SIGABRT: "SIGABRT"
        case SIGKILL: "SIGKILL"
        default: "signal \(number)"
        }
    }
}

public enum Processors {
    /// Processors that this process may use (sched_getaffinity(2)), at least 1.
    public static var available: Int {
        var mask = [UInt](repeating: 0, count: 128)
        guard unsafe sluice_affinity(&mask, UInt(mask.count * MemoryLayout<UInt>.size)) > 0 else { return 1 }
        return max(1, mask.reduce(0) { $0 + $1.nonzeroBitCount })
    }
}

/// Lets one thread sleep until another has something for it (a POSIX semaphore).
@safe
public final class Waiter: @unchecked Sendable {
    private let semaphore: UnsafeMutablePointer<sem_t>

    public init() {
        unsafe semaphore = .allocate(capacity: 1)
        unsafe sem_init(semaphore, 0, 0)
    }

    deinit {
        unsafe sem_destroy(semaphore)
        unsafe semaphore.deallocate()
    }

    public func signal() { unsafe sem_post(semaphore) }

    public func wait() {
        while unsafe sem_wait(semaphore) != 0 {}
    }

    /// Waits at most so long; whether there was something.
    public func wait(atMost span: TimeSpan) -> Bool {
        var end = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &end)
        let nanoseconds = Int64(end.tv_nsec) + span.nanoseconds % 1_000_000_000
        end.tv_sec += Int(span.nanoseconds / 1_000_000_000 + nanoseconds / 1_000_000_000)
        end.tv_nsec = Int(nanoseconds % 1_000_000_000)
        while unsafe sem_timedwait(semaphore, &end) != 0 {
            guard errno == EINTR else { return false }
        }
        return true
    }
}
