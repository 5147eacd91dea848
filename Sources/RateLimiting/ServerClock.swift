// What time it is at the Redis server, with bounds on the error.
//
// Each answer to `TIME` says: between sending and receiving, there was a moment at which the server's clock read T. So
// its offset from our monotonic clock lies in [T - received, T - sent]. Such intervals are intersected (Marzullo 1984),
// and widen with age, because clocks drift.

package import Primitives
package import RedisClient

package struct ServerClock: Sendable {
    /// Bounds of (server clock - monotonic clock), in nanoseconds, as of `updatedAt`.
    private var low: Int64 = 0
    private var high: Int64 = 0
    private var updatedAt = MonotonicTime(nanoseconds: 0)
    /// How much later than `high` said transactions have come to run lately: a decaying maximum.
    private var transit: Int64 = 0
    package private(set) var isKnown = false

    /// Two clocks of ordinary machines move apart by less than 200 millionths; twice that with NTP slewing one of them.
    private static let driftPerMillion: Int64 = 500
    /// More lateness than this would cost more than 1 % of a window of a second; beyond it re-scoring does its work.
    private static let transitMax: Int64 = 8_000_000

    package init() {}

    package mutating func observe(_ sample: ServerTimeSample) {
        let time = saturatingMultiply(sample.time.microseconds, 1_000)
        let sampleLow = saturatingSubtract(time, sample.receivedAt.nanoseconds)
        // The server's microsecond has begun, not ended.
        let sampleHigh = saturatingSubtract(saturatingAdd(time, 1_000), sample.sentAt.nanoseconds)
        guard isKnown else {
            isKnown = true
            low = sampleLow
            high = sampleHigh
            updatedAt = sample.receivedAt
            return
        }
        let drift = self.drift(at: sample.receivedAt)
        let lateness = sampleHigh - saturatingAdd(high, drift)
        transit = max(transit - transit / 64, min(Self.transitMax, lateness + lateness / 4))
        low = max(saturatingSubtract(low, drift), sampleLow)
        high = min(saturatingAdd(high, drift), sampleHigh)
        if low > high {
            // The server's clock has been set, or this is another server: only what it says now counts.
            low = sampleLow
            high = sampleHigh
        }
        updatedAt = sample.receivedAt
    }

    private func drift(at now: MonotonicTime) -> Int64 {
        max(0, (now - updatedAt).nanoseconds) / 1_000_000 * Self.driftPerMillion
    }

    /// The server's clock reads at least this.
    package func lower(at now: MonotonicTime) -> RedisTime {
        let nanoseconds = saturatingAdd(now.nanoseconds, saturatingSubtract(low, drift(at: now)))
        return RedisTime(microseconds: nanoseconds / 1_000)
    }

    /// The server's clock reads at most this, also when what is sent now arrives there, as far as recent arrivals tell.
    package func upper(at now: MonotonicTime) -> RedisTime {
        let nanoseconds = saturatingAdd(now.nanoseconds, saturatingAdd(high, drift(at: now)) + transit)
        return RedisTime(microseconds: nanoseconds / 1_000 + 1)
    }

    /// The earliest moment at which `lower` surely has reached a server time.
    package func moment(of time: RedisTime) -> MonotonicTime {
        MonotonicTime(nanoseconds: saturatingSubtract(saturatingMultiply(time.microseconds, 1_000), low))
    }

    /// The width of the bounds.
    package var uncertainty: TimeSpan { TimeSpan(nanoseconds: saturatingSubtract(high, low)) }
}
