// Time as types: no function in this package takes a bare number of seconds.
//
// Swift's own `Duration` is 128 bits of attoseconds; arithmetic on it costs tens of nanoseconds, and a
// request does it several times. One 64-bit count of nanoseconds reaches 292 years and costs nothing.

/// A length of time in nanoseconds, at most ±292 years. Arithmetic saturates instead of trapping, because lengths
/// come from configuration files and from other machines.
public struct TimeSpan: Comparable, Hashable, Sendable {
    public var nanoseconds: Int64

    @inlinable @inline(__always)
    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    @inlinable @inline(__always)
    public static var zero: TimeSpan { TimeSpan(nanoseconds: 0) }
    @inlinable @inline(__always)
    public static var max: TimeSpan { TimeSpan(nanoseconds: .max) }

    public static func nanoseconds(_ n: Int64) -> TimeSpan { TimeSpan(nanoseconds: n) }
    public static func microseconds(_ n: Int64) -> TimeSpan { TimeSpan(nanoseconds: saturatingMultiply(n, 1_000)) }
    public static func milliseconds(_ n: Int64) -> TimeSpan { TimeSpan(nanoseconds: saturatingMultiply(n, 1_000_000)) }
    public static func seconds(_ n: Int64) -> TimeSpan { TimeSpan(nanoseconds: saturatingMultiply(n, 1_000_000_000)) }

    /// Whole microseconds, rounded towards zero.
    public var microseconds: Int64 { nanoseconds / 1_000 }
    /// Whole milliseconds, rounded towards zero.
    public var milliseconds: Int64 { nanoseconds / 1_000_000 }
    public var seconds: Double { Double(nanoseconds) / 1e9 }

    @inlinable @inline(__always)
    public static func < (a: TimeSpan, b: TimeSpan) -> Bool { a.nanoseconds < b.nanoseconds }
    @inlinable @inline(__always)
    public static func + (a: TimeSpan, b: TimeSpan) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingAdd(a.nanoseconds, b.nanoseconds))
    }
    @inlinable @inline(__always)
    public static func - (a: TimeSpan, b: TimeSpan) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingSubtract(a.nanoseconds, b.nanoseconds))
    }
    @inlinable @inline(__always)
    public static func * (a: TimeSpan, b: Int64) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingMultiply(a.nanoseconds, b))
    }
    /// Rounded towards zero. Divided by zero, the longest of the same sign; zero stays zero.
    @inlinable @inline(__always)
    public static func / (a: TimeSpan, b: Int64) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingDivide(a.nanoseconds, b))
    }
}

extension TimeSpan: CustomStringConvertible {
    /// The form that configuration files use: the largest unit that divides it, `1500ms`, `30s`, `5m`.
    public var description: String {
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
public struct MonotonicTime: Comparable, Hashable, Sendable {
    public var nanoseconds: Int64

    @inlinable @inline(__always)
    public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    @inlinable @inline(__always)
    public static var distantFuture: MonotonicTime { MonotonicTime(nanoseconds: .max) }

    @inlinable @inline(__always)
    public static func < (a: MonotonicTime, b: MonotonicTime) -> Bool { a.nanoseconds < b.nanoseconds }
    @inlinable @inline(__always)
    public static func + (a: MonotonicTime, b: TimeSpan) -> MonotonicTime {
        MonotonicTime(nanoseconds: saturatingAdd(a.nanoseconds, b.nanoseconds))
    }
    @inlinable @inline(__always)
    public static func - (a: MonotonicTime, b: TimeSpan) -> MonotonicTime {
        MonotonicTime(nanoseconds: saturatingSubtract(a.nanoseconds, b.nanoseconds))
    }
    @inlinable @inline(__always)
    public static func - (a: MonotonicTime, b: MonotonicTime) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingSubtract(a.nanoseconds, b.nanoseconds))
    }
}

/// A moment on the Redis server's clock: microseconds since 1970, as the command `TIME` tells it. Exact in the
/// double-precision scores of a sorted set until the year 2255.
public struct RedisTime: Comparable, Hashable, Sendable {
    public var microseconds: Int64

    @inlinable @inline(__always)
    public init(microseconds: Int64) { self.microseconds = microseconds }

    @inlinable @inline(__always)
    public static func < (a: RedisTime, b: RedisTime) -> Bool { a.microseconds < b.microseconds }
    @inlinable @inline(__always)
    public static func + (a: RedisTime, b: TimeSpan) -> RedisTime {
        RedisTime(microseconds: saturatingAdd(a.microseconds, b.microseconds))
    }
    @inlinable @inline(__always)
    public static func - (a: RedisTime, b: TimeSpan) -> RedisTime {
        RedisTime(microseconds: saturatingSubtract(a.microseconds, b.microseconds))
    }
    @inlinable @inline(__always)
    public static func - (a: RedisTime, b: RedisTime) -> TimeSpan {
        .microseconds(saturatingSubtract(a.microseconds, b.microseconds))
    }
}

@inlinable @inline(__always)
public func saturatingAdd(_ a: Int64, _ b: Int64) -> Int64 {
    let (sum, overflow) = a.addingReportingOverflow(b)
    return overflow ? (b < 0 ? .min : .max) : sum
}

@inlinable @inline(__always)
public func saturatingSubtract(_ a: Int64, _ b: Int64) -> Int64 {
    let (difference, overflow) = a.subtractingReportingOverflow(b)
    return overflow ? (b < 0 ? .max : .min) : difference
}

@inlinable @inline(__always)
public func saturatingMultiply(_ a: Int64, _ b: Int64) -> Int64 {
    let (product, overflow) = a.multipliedReportingOverflow(by: b)
    return overflow ? ((a < 0) == (b < 0) ? .max : .min) : product
}

@inlinable @inline(__always)
public func saturatingDivide(_ a: Int64, _ b: Int64) -> Int64 {
    if b == 0 { return a == 0 ? 0 : (a < 0 ? .min : .max) }
    // The one quotient without room: .min / -1.
    let (quotient, overflow) = a.dividedReportingOverflow(by: b)
    return overflow ? .max : quotient
}
