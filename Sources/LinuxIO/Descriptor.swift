import Glibc
import Synchronization

/// A file descriptor with one owner, closed when the owner lets go of it, or before. Using it twice does not compile.
///
/// The number stands in an atomic so that an owner can keep the descriptor in a constant and close it all the same: what
/// is a constant needs no check at run time with each use.
public struct Descriptor: ~Copyable, Sendable {
    private let number: Atomic<Int32>

    /// The kernel's number; -1 once closed, which every call refuses with EBADF.
    public var raw: Int32 {
        @inline(__always)
        get { number.load(ordering: .relaxed) }
    }

    public init(adopting raw: Int32) { number = Atomic(raw) }

    /// One that was kept open for this process: the next program that it starts does not get it by itself.
    public init(inherited raw: Int32) {
        self.init(adopting: raw)
        _ = fcntl(raw, F_SETFD, FD_CLOEXEC)
    }

    deinit { closeEarly() }

    /// Closes it now. Nothing happens the second time.
    public func closeEarly() {
        let raw = number.exchange(-1, ordering: .relaxed)
        // EINTR is no reason to repeat: on Linux the descriptor is gone in either case (close(2)).
        if raw >= 0 { _ = close(raw) }
    }

    /// Gives up ownership without closing.
    public consuming func release() -> Int32 { number.exchange(-1, ordering: .relaxed) }
}

/// A descriptor that is kept so that its place in the process's table can be had back when all are taken.
package final class SpareDescriptor {
    private let descriptor: Descriptor

    /// `nil` where there is none left.
    package init?() {
        let raw = unsafe open("/dev/null", O_RDONLY | O_CLOEXEC)
        guard raw >= 0 else { return nil }
        descriptor = Descriptor(adopting: raw)
    }
}

/// The process's limit on open descriptors.
public struct DescriptorLimit: Sendable {
    public var soft: Int
    public var hard: Int

    public static func current() -> DescriptorLimit {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            return DescriptorLimit(soft: 1024, hard: 1024)
        }
        return DescriptorLimit(soft: Int(clamping: limit.rlim_cur), hard: Int(clamping: limit.rlim_max))
    }

    /// Raises the soft limit to the hard one, which needs no privilege. Returns what is in force afterwards.
    public static func raiseToHard() -> DescriptorLimit {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        if unsafe getrlimit(resource, &limit) == 0, limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            _ = unsafe setrlimit(resource, &limit)
        }
        return current()
    }
}
