import CLinux
import Glibc
package import Primitives

/// What epoll said of a descriptor.
package struct IOEvents: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }

    package static let readable = IOEvents(rawValue: EPOLLIN.rawValue)
    package static let writable = IOEvents(rawValue: EPOLLOUT.rawValue)
    package static let peerClosed = IOEvents(rawValue: EPOLLRDHUP.rawValue)
    package static let failed = IOEvents(rawValue: EPOLLERR.rawValue)
    package static let hungUp = IOEvents(rawValue: EPOLLHUP.rawValue)
}

/// An epoll instance and the room for its answers.
@safe
package struct Epoll: ~Copyable {
    private let descriptor: Descriptor
    private let events: UnsafeMutablePointer<epoll_event>
    private var waitsFinely = true
    /// Events taken in one call. More only delays the timers; fewer only costs calls under extreme load.
    private static let eventsMax = 512

    package init() throws(SystemError) {
        let raw = epoll_create1(Int32(EPOLL_CLOEXEC))
        guard raw >= 0 else { throw .last("epoll_create1") }
        descriptor = Descriptor(adopting: raw)
        unsafe events = .allocate(capacity: Self.eventsMax)
    }

    deinit { unsafe events.deallocate() }

    /// Watches a descriptor until it is closed: edge-triggered in both directions, so that no request needs
    /// `epoll_ctl`.
    package func add(_ target: borrowing Descriptor, cookie: UInt64) throws(SystemError) {
        try control(
            EPOLL_CTL_ADD, target.raw, EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | edge, cookie)
    }

    /// Watches for input, level-triggered: for listeners and wake-up calls.
    package func addLevelTriggered(_ target: borrowing Descriptor, cookie: UInt64) throws(SystemError) {
        try control(EPOLL_CTL_ADD, target.raw, EPOLLIN.rawValue, cookie)
    }

    package func remove(_ target: borrowing Descriptor) {
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
    package mutating func wait(atMost span: TimeSpan?) -> Int {
        guard let span else { return max(0, Int(unsafe epoll_wait(descriptor.raw, events, Int32(Self.eventsMax), -1))) }
        let nanoseconds = max(0, span.nanoseconds)
        if waitsFinely {
            var limit = timespec(
                tv_sec: Int(nanoseconds / 1_000_000_000), tv_nsec: Int(nanoseconds % 1_000_000_000))
            let n = unsafe epoll_pwait2(descriptor.raw, events, Int32(Self.eventsMax), &limit, nil)
            if n >= 0 || errno != ENOSYS { return max(0, Int(n)) }
            // Linux before 5.11. Rounded up below: waking early would mean to ask again and again.
            waitsFinely = false
        }
        let milliseconds = Int32(clamping: saturatingAdd(nanoseconds, 999_999) / 1_000_000)
        return max(0, Int(unsafe epoll_wait(descriptor.raw, events, Int32(Self.eventsMax), milliseconds)))
    }

    /// Event `index` of the last `wait`.
    @inline(__always)
    package func event(_ index: Int) -> (cookie: UInt64, events: IOEvents) {
        precondition(index >= 0 && index < Self.eventsMax)
        return unsafe (events[index].data.u64, IOEvents(rawValue: events[index].events))
    }
}

/// A call that wakes a loop from another thread (eventfd(2)).
package final class Waker: Sendable {
    package let descriptor: Descriptor

    package init() throws(SystemError) {
        let raw = eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK))
        guard raw >= 0 else { throw .last("eventfd") }
        descriptor = Descriptor(adopting: raw)
    }

    package func wake() {
        var one: UInt64 = 1
        _ = unsafe write(descriptor.raw, &one, 8)
    }

    /// Takes back all calls so far.
    package func clear() {
        var count: UInt64 = 0
        _ = unsafe read(descriptor.raw, &count, 8)
    }
}
