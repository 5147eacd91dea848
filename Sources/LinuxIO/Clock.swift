import Glibc
public import Primitives

/// The only readers of clocks and of the system's randomness. Everything else gets time as an argument.
public enum SystemClock {
    /// `CLOCK_MONOTONIC`, which no administrator can set and which stands still in no suspended process.
    @inline(__always)
    public static func monotonic() -> MonotonicTime {
        var t = timespec()
        unsafe clock_gettime(CLOCK_MONOTONIC, &t)
        return MonotonicTime(nanoseconds: Int64(t.tv_sec) &* 1_000_000_000 &+ Int64(t.tv_nsec))
    }

    /// Wall-clock time for people: microseconds since 1970.
    public static func wallMicroseconds() -> Int64 {
        var t = timespec()
        unsafe clock_gettime(CLOCK_REALTIME, &t)
        return Int64(t.tv_sec) &* 1_000_000 &+ Int64(t.tv_nsec) / 1_000
    }

    /// Wall-clock time as RFC 3339 writes it, in UTC with milliseconds: `2026-03-01T12:00:00.123Z`.
    /// Moments before 1970 are shown as its first.
    public static func timestamp(microseconds: Int64) -> String {
        func pad(_ n: Int64, _ width: Int) -> String {
            let digits = String(n)
            return String(repeating: "0", count: max(0, width - digits.count)) + digits
        }
        let second = max(0, microseconds) / 1_000_000
        // Days to a civil date, with years that begin in March (Hinnant, "chrono-compatible low-level date algorithms").
        let days = second / 86_400 + 719_468
        let era = days / 146_097
        let dayOfEra = days % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shifted = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shifted + 2) / 5 + 1
        let month = shifted < 10 ? shifted + 3 : shifted - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        let date = "\(pad(year, 4))-\(pad(month, 2))-\(pad(day, 2))"
        let time = "\(pad(second / 3_600 % 24, 2)):\(pad(second / 60 % 60, 2)):\(pad(second % 60, 2))"
        return "\(date)T\(time).\(pad(max(0, microseconds) / 1_000 % 1_000, 3))Z"
    }

    /// 64 bits from the kernel's random generator (getrandom(2)).
    public static func random64() -> UInt64 {
        var generator = SystemRandomNumberGenerator()
        return generator.next()
    }
}
