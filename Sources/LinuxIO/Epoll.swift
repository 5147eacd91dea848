import CLinux
import Glibc
public import Primitives
import Synchronization

/// What epoll said of a descriptor.
public struct IOEvents: OptionSet, Sendable {
    public let rawValue: UInt32
    @inlinable @inline(__always)
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// One mask and a comparison; the library's own goes through a witness table from other modules.
    @inlinable @inline(__always)
    public func contains(_ events: IOEvents) -> Bool { rawValue & events.rawValue == events.rawValue }

    public static let readable = IOEvents(rawValue: EPOLLIN.rawValue)
    public static let writable = IOEvents(rawValue: EPOLLOUT.rawValue)
    public static let peerClosed = IOEvents(rawValue: EPOLLRDHUP.rawValue)
    public static let failed = IOEvents(rawValue: EPOLLERR.rawValue)
    public static let hungUp = IOEvents(rawValue: EPOLLHUP.rawValue)
}

/// An epoll instance and the room for its answers.
@safe
public struct Epoll: ~Copyable {
    private let descriptor: Descriptor
    private let events: UnsafeMutablePointer<epoll_event>
    /// Atomic so that waiting changes nothing of the owner's; only the loop's thread waits.
    private let waitsFinely = Atomic<Bool>(true)
    /// Events taken in one call. More only delays the timers; fewer only costs calls under extreme load.
    private static let eventsMax = 512

    public init() throws(SystemError) {
        let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard raw >= 0 else { throw .last("epoll_create1") }
        descriptor = Descriptor(adopting: raw)
        unsafe events = .allocate(capacity: Self.eventsMax)
    }

    deinit { unsafe events.deallocate() }

    /// Watches a descriptor until it is closed: edge-triggered in both directions, so that no request needs
    /// `epoll_ctl`.
    public func add(_ target: borrowing Descriptor, cookie: UInt64) throws(SystemError) {
        try control(
            EPOLL_CTL_ADD, target.raw, EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | edge, cookie)
    }

    /// Watches for input, level-triggered: for listeners and wake-up calls.
    public func addLevelTriggered(_ target: borrowing Descriptor, cookie: UInt64) throws(SystemError) {
        try control(EPOLL_CTL_ADD, target.raw, EPOLLIN.rawValue, cookie)
    }

    public func remove(_ target: borrowing Descriptor) {
        var event = unsafe epoll_event()
        _ = unsafe epoll_ctl(descriptor.raw, EPOLL_CTL_DEL, target.raw, &event)
    }

    private var edge: UInt32 { EPOLLET.rawValue }

    private func control(_ operation: Int32, _ raw: Int32, _ mask: UInt32, _ cookie: UInt64) throws(SystemError) {
        var event = unsafe epoll_event()
        unsafe event.events = mask
        unsafe event.data.u64 = cookie
        guard unsafe epoll_ctl(descriptor.raw, operation, raw, &event) == 0 else { throw .last("epoll_ctl") }
    }

    /// Waits for events, at most `span` (`nil`: for ever). Returns how many there are.
    public func wait(atMost span: TimeSpan?) -> Int {
        guard let span else { return max(0, Int(unsafe epoll_wait(descriptor.raw, events, Int32(Self.eventsMax), -1))) }
        let nanoseconds = max(0, span.nanoseconds)
        if waitsFinely.load(ordering: .relaxed) {
            var limit = timespec(
                tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
            let n = unsafe epoll_pwait2(descriptor.raw, events, Int32(Self.eventsMax), &limit, nil)
            if n >= 0 || errno != ENOSYS { return max(0, Int(n)) }
            // Linux before 5.11. Rounded up below: waking early would mean to ask again and again.
            waitsFinely.store(false, ordering: .relaxed)
        }
        let milliseconds = Int32(clamping: saturatingAdd(nanoseconds, 999_999) / 1_000_000)
        return max(0, Int(unsafe epoll_wait(descriptor.raw, events, Int32(Self.eventsMax), milliseconds)))
    }

    /// Event `index` of the last `wait`.
    @inline(__always)
    public func event(_ index: Int) -> (cookie: UInt64, events: IOEvents) {
        precondition(index >= 0 && index < Self.eventsMax)
        return unsafe (events[index].data.u64, IOEvents(rawValue: events[index].events))
    }
}

/// A call that wakes a loop from another thread (eventfd(2)).
public final class Waker: Sendable {
    public let descriptor: Descriptor

    public init() throws(SystemError) {
        let raw = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard raw >= 0 else { throw .last("eventfd") }
        descriptor = Descriptor(adopting: raw)
    }

    public func wake() {
        var one: UInt64 = 1
        _ = unsafe write(descriptor.raw, &one, 8)
    }

    /// Takes back all calls so far.
    public func clear() {
        var count: UInt64 = 0
        _ = unsafe read(descriptor.raw, &count, 8)
    }
}
