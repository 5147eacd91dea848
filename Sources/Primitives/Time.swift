// Time as types: no function in this package takes a bare number of seconds.
//
// Swift's own `Duration` is 128 bits of attoseconds; arithmetic on it costs tens of nanoseconds, and a
// request does it several times. One 64-bit count of nanoseconds reaches 292 years and costs nothing.

/// A length of time in nanoseconds, at most ±292 years. Arithmetic saturates instead of trapping, because lengths
/// come from configuration files and from other machines.
package struct TimeSpan: Comparable, Hashable, Sendable {
    package var nanoseconds: Int64

    package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    package static let zero = TimeSpan(nanoseconds: 0)
    package static let max = TimeSpan(nanoseconds: .max)

    package static func nanoseconds(_ n: Int64) -> TimeSpan { TimeSpan(nanoseconds: n) }
    package static func microseconds(_ n: Int64) -> TimeSpan { TimeSpan(nanoseconds: saturatingMultiply(n, 1_000)) }
    package static func milliseconds(_ n: Int64) -> TimeSpan { TimeSpan(nanoseconds: saturatingMultiply(n, 1_000_000)) }
    package static func seconds(_ n: Int64) -> TimeSpan { TimeSpan(nanoseconds: saturatingMultiply(n, 1_000_000_000)) }

    /// Whole microseconds, rounded towards zero.
    package var microseconds: Int64 { nanoseconds / 1_000 }
    /// Whole milliseconds, rounded towards zero.
    package var milliseconds: Int64 { nanoseconds / 1_000_000 }
    package var seconds: Double { Double(nanoseconds) / 1e9 }

    package static func < (a: TimeSpan, b: TimeSpan) -> Bool { a.nanoseconds < b.nanoseconds }
    package static func + (a: TimeSpan, b: TimeSpan) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingAdd(a.nanoseconds, b.nanoseconds))
    }
    package static func - (a: TimeSpan, b: TimeSpan) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingSubtract(a.nanoseconds, b.nanoseconds))
    }
    package static func * (a: TimeSpan, b: Int64) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingMultiply(a.nanoseconds, b))
    }
    /// Rounded towards zero. Divided by zero, the longest of the same sign; zero stays zero.
    package static func / (a: TimeSpan, b: Int64) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingDivide(a.nanoseconds, b))
    }
}

extension TimeSpan: CustomStringConvertible {
    /// The form that configuration files use: the largest unit that divides it, `1500ms`, `30s`, `5m`.
    package var description: String {
        let units: [(String, Int64)] = [
            ("d", 86_400_000_000_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000),
            ("ms", 1_000_000), ("us", 1_000), ("ns", 1),
        ]
        if nanoseconds == 0 { return "0s" }
        for (name, size) in units where nanoseconds % size == 0 { return "\(nanoseconds / size)\(name)" }
        return "\(nanoseconds)ns"
    }
}

/// A moment on this machine's monotonic clock (`CLOCK_MONOTONIC`): nanoseconds since an origin that means nothing
/// outside the process.
package struct MonotonicTime: Comparable, Hashable, Sendable {
    package var nanoseconds: Int64

    package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    package static let distantFuture = MonotonicTime(nanoseconds: .max)

    package static func < (a: MonotonicTime, b: MonotonicTime) -> Bool { a.nanoseconds < b.nanoseconds }
    package static func + (a: MonotonicTime, b: TimeSpan) -> MonotonicTime {
        MonotonicTime(nanoseconds: saturatingAdd(a.nanoseconds, b.nanoseconds))
    }
    package static func - (a: MonotonicTime, b: TimeSpan) -> MonotonicTime {
        MonotonicTime(nanoseconds: saturatingSubtract(a.nanoseconds, b.nanoseconds))
    }
    package static func - (a: MonotonicTime, b: MonotonicTime) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingSubtract(a.nanoseconds, b.nanoseconds))
    }
}

/// A moment on the Redis server's clock: microseconds since 1970, as the command `TIME` tells it. Exact in the
/// double-precision scores of a sorted set until the year 2255.
package struct RedisTime: Comparable, Hashable, Sendable {
    package var microseconds: Int64

    package init(microseconds: Int64) { self.microseconds = microseconds }

    package static func < (a: RedisTime, b: RedisTime) -> Bool { a.microseconds < b.microseconds }
    package static func + (a: RedisTime, b: TimeSpan) -> RedisTime {
        RedisTime(microseconds: saturatingAdd(a.microseconds, b.microseconds))
    }
    package static func - (a: RedisTime, b: TimeSpan) -> RedisTime {
        RedisTime(microseconds: saturatingSubtract(a.microseconds, b.microseconds))
    }
    package static func - (a: RedisTime, b: RedisTime) -> TimeSpan {
        .microseconds(saturatingSubtract(a.microseconds, b.microseconds))
    }
}

@inline(__always)
package func saturatingAdd(_ a: Int64, _ b: Int64) -> Int64 {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? (b < 0 ? .min : .max) : sum
}

@inline(__always)
package func saturatingSubtract(_ a: Int64, _ b: Int64) -> Int64 {
    let (difference, overflow) = a.subtractingReportingOverflow(b)
    return overflow ? (b < 0 ? .max : .min) : difference
}

@inline(__always)
package func saturatingMultiply(_ a: Int64, _ b: Int64) -> Int64 {
    let (product, overflow) = a.multipliedReportingOverflow(by: b)
    return overflow ? ((a < 0) == (b < 0) ? .max : .min) : product
}

@inline(__always)
package func saturatingDivide(_ a: Int64, _ b: Int64) -> Int64 {
    if b == 0 { return a == 0 ? 0 : (a < 0 ? .min : .max) }
    // The one quotient without room: .min / -1.
    let (quotient, overflow) = a.dividedReportingOverflow(by: b)
    return overflow ? .max : quotient
}
