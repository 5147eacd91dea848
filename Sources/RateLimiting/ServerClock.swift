// What time it is at the Redis server, with bounds on the error.
//
// Each answer to `TIME` says: between sending and receiving there was a moment at which the server's clock read T. So
// the server's clock is ahead of ours by something in [T - received, T - sent]. Such intervals are intersected (Marzullo
// 1984); each end gets older by itself, and widens with age, because clocks drift. An average of samples was rejected:
// it has no bound, and the window's exactness rests on one.

package import Primitives
package import RedisClient

package struct ServerClock: Sendable {
    /// One end of the interval: an offset in nanoseconds, and our time since when it may have drifted.
    private struct Bound {
        var offset: Int64
        var since: MonotonicTime
    }

    private var low = Bound(offset: 0, since: MonotonicTime(nanoseconds: 0))
    private var high = Bound(offset: 0, since: MonotonicTime(nanoseconds: 0))
    package private(set) var isKnown = false
    /// How often the server's clock turned out to have been set.
    package private(set) var steps = 0

    /// The latest that a transaction lately ran behind its earliest possible time, and when that was.
    private var transitPeak: Int64 = 0
    private var transitPeakAt = MonotonicTime(nanoseconds: 0)
    private let window: TimeSpan
    /// Until when entries may count that were scored by what the clock read before it was set, as far as is known here.
    private var settlesAt = MonotonicTime(nanoseconds: .min)
    /// The lower bound from before the clock was set forward. It holds for a window, so that entries leave no earlier than
    /// a window after their admission: the step makes the window narrower for a while, and never opens it.
    private var floor: Bound?
    private var floorEndsAt = MonotonicTime(nanoseconds: .min)
    /// The upper bound from before the clock was set back, and until when it holds. A node that has not heard of the step
    /// drops by the clock as it was, and would drop what is scored by the new one: so entries are scored by the old one
    /// until everybody must have heard.
    private var ceiling: Bound?
    private var ceilingEndsAt = MonotonicTime(nanoseconds: .min)
    private let transitMax: Int64
    private let transitMin: Int64

    /// Distrust after a step, in nanoseconds: halves with each sample that agrees.
    private var wariness: Int64 = 0

    /// Ordinary quartz drifts by less than 100 millionths and NTP slews by at most 500 (adjtimex(2)), so two clocks part
    /// by no more than 1 in 1,000.
    private static let driftDivisor: Int64 = 1_000
    /// Taken off the lower bound in any case: a clock that is slewed faster than NTP does it (chrony's default goes up
    /// to 8 %) gains this much in 3 ms, and under load no sample is older.
    private static let lowerMargin: Int64 = 250_000
    private static let warinessAfterStep: Int64 = 2_000_000
    /// Within this time everybody has looked at the server's clock: a connection of which nothing is asked is used to do so
    /// once a second.
    private static let hearing = TimeSpan.milliseconds(1_200)
    /// The most of both allowances, however long the window: what is later than half a second is confirmed, and where
    /// nothing was late, an hour's window needs no more than one of ten seconds.
    private static let transitMost: Int64 = 500_000_000
    private static let transitLeast: Int64 = 10_000_000
    /// What NTP slews in all (it steps what is more), and how far two clocks part that nobody corrects.
    private static let slewMost: Int64 = 1_000_000_000
    private static let quartzDivisor: Int64 = 5_000
    /// A peak of lateness is forgotten gradually within this time.
    private static let transitMemory: Int64 = 30_000_000_000

    /// - Parameter window: the shortest window that is kept by this clock. What is allowed for lateness stays between
    ///   1/1000 and 1/125 of it, so that the slack never costs a client 1 % of its limit; what is later still is noticed
    ///   by its `TIME` and confirmed.
    package init(window: TimeSpan = .seconds(1)) {
        self.window = window
        transitMax = max(1, min(window.nanoseconds / 125, Self.transitMost))
        transitMin = max(1, min(window.nanoseconds / 1_000, Self.transitLeast))
    }

    package enum Observation: Equatable, Sendable {
        case agreed
        /// The sample contradicts what was known: the server's clock was set, or another server answers. Only the new
        /// sample counts from here on.
        case stepped
    }

    @discardableResult
    package mutating func observe(_ sample: ServerTimeSample) -> Observation {
        let time = saturatingMultiply(sample.time.microseconds, 1_000)
        let sampleLow = Bound(offset: saturatingSubtract(time, sample.receivedAt.nanoseconds), since: sample.sentAt)
        // The server's microsecond has begun, not ended.
        let sampleHigh = Bound(
            offset: saturatingSubtract(saturatingAdd(time, 1_000), sample.sentAt.nanoseconds), since: sample.sentAt)
        guard isKnown else {
            isKnown = true
            low = sampleLow
            high = sampleHigh
            // It may have been set just before, and others know it as it was.
            settlesAt = sample.receivedAt + Self.hearing * 2 + window
            return .agreed
        }
        let now = sample.receivedAt
        let lowNow = Self.aged(low, by: -1, at: now)
        let highNow = Self.aged(high, by: 1, at: now)
        if sampleLow.offset > highNow || sampleHigh.offset < lowNow {
            if sampleLow.offset > highNow { keepFloor(low, at: now) } else { keepCeiling(high, at: now) }
            low = sampleLow
            high = sampleHigh
            wariness = Self.warinessAfterStep
            steps += 1
            return .stepped
        }
        noteTransit(saturatingSubtract(sampleHigh.offset, Self.aged(high, by: 1, at: sample.sentAt)), at: now)
        let sampleLowNow = Self.aged(sampleLow, by: -1, at: now)
        keepFloorIfRisen(low, to: sampleLowNow, at: now)
        if sampleLowNow >= lowNow { low = sampleLow }
        if Self.aged(sampleHigh, by: 1, at: now) <= highNow { high = sampleHigh }
        wariness /= 2
        return .agreed
    }

    /// Another connection: to the same server, or to one that has taken over with the entries that it copied. Nothing is
    /// known of this server's clock but the sample; what was known before still says when those entries were made.
    package mutating func reconnected(_ sample: ServerTimeSample) {
        let before = self
        self = ServerClock(window: window)
        observe(sample)
        guard before.isKnown else { return }
        let now = sample.receivedAt
        (floor, floorEndsAt) = (before.floor, before.floorEndsAt)
        (ceiling, ceilingEndsAt) = (before.ceiling, before.ceilingEndsAt)
        keepFloorIfRisen(before.low, to: low.offset, at: now)
        if high.offset < Self.aged(before.low, by: -1, at: now) { keepCeiling(before.high, at: now) }
    }

    /// Where little was known, a step can hide in it: a sample that agrees, and says much more than was known before, may
    /// come from a clock that was set forward since.
    private mutating func keepFloorIfRisen(_ bound: Bound, to offset: Int64, at now: MonotonicTime) {
        if saturatingSubtract(offset, Self.aged(bound, by: -1, at: now)) > transitMin { keepFloor(bound, at: now) }
    }

    private mutating func keepFloor(_ bound: Bound, at now: MonotonicTime) {
        // The older of two is the lower, unless the clock was set back in between.
        if now >= floorEndsAt || (floor?.offset ?? .max) > bound.offset { floor = bound }
        floorEndsAt = now + window
        settlesAt = max(settlesAt, now + window)
    }

    private mutating func keepCeiling(_ bound: Bound, at now: MonotonicTime) {
        // The older of two is the higher, unless the clock was set forward in between.
        if now >= ceilingEndsAt || (ceiling?.offset ?? .min) < bound.offset { ceiling = bound }
        ceilingEndsAt = now + Self.hearing
        // Who heard of it last scores by it for so long.
        settlesAt = ceilingEndsAt + Self.hearing + window
    }

    /// Whether every entry that may be in a window was scored since the clock was last set.
    package func isSettled(at now: MonotonicTime) -> Bool { now >= settlesAt }

    private static func aged(_ bound: Bound, by sign: Int64, at now: MonotonicTime) -> Int64 {
        let age = max(0, (now - bound.since).nanoseconds)
        return saturatingAdd(bound.offset, sign * (age / driftDivisor))
    }

    private mutating func noteTransit(_ lateness: Int64, at now: MonotonicTime) {
        // A quarter more than what was seen: the next peak is rarely the same.
        let peak = saturatingAdd(lateness, lateness / 4)
        if peak >= transit(at: now) {
            transitPeak = min(peak, transitMax)
            transitPeakAt = now
        }
    }

    private func transit(at now: MonotonicTime) -> Int64 {
        let left = max(0, Self.transitMemory - max(0, (now - transitPeakAt).nanoseconds)) / 1_000_000
        return max(transitMin, transitPeak / 1_000 * left / (Self.transitMemory / 1_000_000_000))
    }

    /// The server's clock reads at least this.
    package func lower(at now: MonotonicTime) -> RedisTime {
        var known = Self.aged(low, by: -1, at: now)
        if let floor, now < floorEndsAt { known = min(known, Self.aged(floor, by: -1, at: now)) }
        let offset = saturatingSubtract(known, Self.lowerMargin + wariness)
        return RedisTime(microseconds: Self.floorMicroseconds(saturatingAdd(now.nanoseconds, offset)))
    }

    /// The server's clock will read at most this when what is sent now is executed, as far as recent lateness tells.
    package func upper(at now: MonotonicTime) -> RedisTime {
        var known = Self.aged(high, by: 1, at: now)
        if let ceiling, now < ceilingEndsAt { known = max(known, Self.aged(ceiling, by: 1, at: now)) }
        let offset = saturatingAdd(known, transit(at: now) + wariness)
        return RedisTime(microseconds: Self.floorMicroseconds(saturatingAdd(now.nanoseconds, offset)) + 1)
    }

    /// What the server's clock reads, as near as is known.
    func estimate(at now: MonotonicTime) -> RedisTime {
        let (low, high) = (Self.aged(low, by: -1, at: now), Self.aged(high, by: 1, at: now))
        return RedisTime(microseconds: Self.floorMicroseconds(saturatingAdd(now.nanoseconds, low / 2 + high / 2)))
    }

    /// When `lower` will have passed a server time, if no further sample came.
    package func moment(after time: RedisTime) -> MonotonicTime {
        let moment = moment(after: time, by: low)
        // For a while `lower` goes by what was known before, too.
        guard let floor, moment < floorEndsAt else { return moment }
        return max(moment, min(floorEndsAt, self.moment(after: time, by: floor)))
    }

    private func moment(after time: RedisTime, by bound: Bound) -> MonotonicTime {
        let target = saturatingMultiply(saturatingAdd(time.microseconds, 1), 1_000)
        let early = saturatingSubtract(target, saturatingSubtract(bound.offset, Self.lowerMargin + wariness))
        let age = max(0, saturatingSubtract(early, bound.since.nanoseconds))
        // The bound goes on widening until then; the last term is the widening during the widening. Over hours, clocks do
        // not part at the pace of a correction.
        let drift = min(age / Self.driftDivisor, saturatingAdd(age / Self.quartzDivisor, Self.slewMost))
        return MonotonicTime(nanoseconds: saturatingAdd(early, drift + age / 500_000 + 1_000))
    }

    private static func floorMicroseconds(_ nanoseconds: Int64) -> Int64 {
        let quotient = nanoseconds / 1_000
        return nanoseconds % 1_000 < 0 ? quotient - 1 : quotient
    }
}
