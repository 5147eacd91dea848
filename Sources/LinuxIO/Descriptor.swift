import Glibc

/// A file descriptor with one owner, closed when the owner lets go of it. Using it twice does not compile.
package struct Descriptor: ~Copyable, Sendable {
    package let raw: Int32

    package init(adopting raw: Int32) { self.raw = raw }

    deinit {
        // EINTR is no reason to repeat: on Linux the descriptor is gone in either case (close(2)).
        _ = close(raw)
    }

    /// Gives up ownership without closing.
    package consuming func release() -> Int32 {
        let raw = self.raw
        discard self
        return raw
    }
}

/// The process's limit on open descriptors.
package struct DescriptorLimit: Sendable {
    package var soft: Int
    package var hard: Int

    package static func current() -> DescriptorLimit {
        var limit = rlimit()
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            return DescriptorLimit(soft: 1024, hard: 1024)
        }
        return DescriptorLimit(soft: Int(clamping: limit.rlim_cur), hard: Int(clamping: limit.rlim_max))
    }

    /// Raises the soft limit to the hard one, which needs no privilege. Returns what is in force afterwards.
    package static func raiseToHard() -> DescriptorLimit {
        var limit = rlimit()
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        if unsafe getrlimit(resource, &limit) == 0, limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max
            _ = unsafe setrlimit(resource, &limit)
        }
        return current()
    }
}
