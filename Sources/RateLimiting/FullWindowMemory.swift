// A full window is remembered, so that a hot, refused client costs Redis next to nothing.

package import Identity
package import Primitives
import Synchronization

/// Which windows are full, and until when; shared by the workers of a node.
///
/// Until its oldest entry leaves, a full window can admit nobody, so nobody is sent to ask. When the time has come, one
/// request asks and the others go on being refused for a moment: otherwise every worker would ask for the same slot. When
/// all that was in the window has left, or nobody has asked for a while, nothing is known of it any more: whoever comes
/// then does not hammer, and may be well within the limit.
///
/// Where several slots leave between two questions, one request would find room for more, and as many transactions would
/// follow as there are workers. So whoever comes a moment before the time has come waits for it in place of being refused,
/// and asks for all who come meanwhile. Where that was too few, and it is clear that somebody hammers, one goes on asking
/// at a time, at a pace that is enough for the whole limit. docs/decisions/gathering.md has the reasons.
package final class FullWindowMemory: Sendable {
    package enum Knowledge: Equatable, Sendable {
        case unknown
        case full(retryAfter: TimeSpan)
        /// The time has come, and whoever is told so is the one who asks. It has to call `remember` or `forget`.
        case mayAsk
        /// The time is about to come. Whoever is told so asks then, for all who come until then. The others hear that
        /// somebody is asking.
        case mayAskSoon(at: MonotonicTime)
    }

    private struct FullWindow: Sendable {
        var until: MonotonicTime
        /// When there is room again; may lie beyond `until`.
        var freesAt: MonotonicTime
        /// When nothing is known of it any more, if nobody has asked until then.
        var lapsesAt: MonotonicTime
        /// What costs less may still pass.
        var cost: UInt16 = 1
        /// Up to which cost there is room by then.
        var roomFor: UInt16 = 1
        /// Refusals that are missing before it is clear that somebody hammers; `unpaced` where slots leave so seldom that
        /// who asks for one finds no other.
        var missing: UInt16
        /// There is room, and whoever comes until then asks at that time.
        var isOpen = false
        /// When the one before asked, where he did so at that pace; and how many were refused since.
        var pacedFrom: MonotonicTime?
        var refused: UInt16 = 0

        static let unpaced = UInt16.max

        func retryAfter(_ cost: UInt16, _ wholeWait: TimeSpan, _ now: MonotonicTime) -> TimeSpan {
            let known = max(freesAt, until) - now
            return cost <= roomFor ? known : max(known, wholeWait)
        }

        mutating func refuse(_ cost: UInt16, _ wholeWait: TimeSpan, _ now: MonotonicTime) -> Knowledge {
            if missing > 0, missing != Self.unpaced { missing -= 1 }
            if refused < .max { refused += 1 }
            return .full(retryAfter: retryAfter(cost, wholeWait, now))
        }

        /// Nobody else asks for a while.
        @discardableResult
        mutating func beAsked(at time: MonotonicTime) -> MonotonicTime {
            until = time + FullWindowMemory.shortest
            isOpen = false
            return time
        }

        /// Whether it is clear that somebody hammers: by what was seen since the window was full, or since the one before.
        func isHammered(taken: Int, pace: TimeSpan, sentAt: MonotonicTime) -> Bool {
            guard let pacedFrom else { return missing == 0 }
            let slots = (sentAt - pacedFrom).nanoseconds / max(1, pace.nanoseconds)
            return Int64(refused) + Int64(clamping: taken) >= saturatingMultiply(slots, FullWindowMemory.stillHammering)
        }

        /// Whether the time is about to come, and whoever waits for it finds more than the slot of one. What may pass
        /// already must not wait for what may not.
        func isSoon(_ gathering: TimeSpan, _ now: MonotonicTime) -> Bool {
            isOpen || (missing != Self.unpaced && cost == 1 && until - now <= gathering)
        }
    }

    private final class Shard: Sendable {
        let table: Mutex<SubjectTable<FullWindow>>
        init(countMax: Int, seed: UInt64) { table = Mutex(SubjectTable(countMax: countMax, seed: seed)) }
    }

    /// The longest that nobody asks, so that a window which an operator has deleted (`redis-cli DEL`) opens again.
    package static let longest = TimeSpan.seconds(1)
    /// The shortest: a node asks for a full window at most once in this time.
    package static let shortest = TimeSpan.milliseconds(5)
    /// Whoever hammers asks within this when the time has come. Each worker may ask for a window of which nothing is
    /// known, so this is as much longer than `shortest` as there are workers in a large node.
    package static let lapse = TimeSpan.milliseconds(50)
    /// The longest wait for the time to come: as long as for a batch under load, and a fraction of what a request may wait.
    package static let gatheringMax = TimeSpan.milliseconds(1)
    /// Whoever is refused more often than so many slots leave on an average hammers. Nobody who keeps near to the limit
    /// may be refused because another's question is under way that may well find room for both.
    private static let hammering: Int64 = 10
    /// Who comes less often than this, once it was clear, has stopped.
    fileprivate static let stillHammering: Int64 = 2
    private static let shardCount = 64

    private let shards: [Shard]
    private let seed: UInt64
    private let gathering: TimeSpan
    private let spacing: TimeSpan

    /// - Parameters:
    ///   - subjectsMax: one more takes the place of a random one, whose next request then asks Redis.
    ///   - timeout: the longest wait of a request for Redis.
    package init(seed: UInt64, subjectsMax: Int = 1 << 18, timeout: TimeSpan = .milliseconds(50)) {
        self.seed = seed
        gathering = min(Self.gatheringMax, timeout / 10)
        spacing = min(Self.shortest, timeout / 10)
        shards = (0..<Self.shardCount).map {
            Shard(countMax: max(1, subjectsMax / Self.shardCount), seed: seed &+ UInt64($0))
        }
    }

    private func shard(_ subject: SubjectKey) -> Shard {
        shards[Int(truncatingIfNeeded: subject.hash(seed: ~seed) >> 58)]
    }

    /// What is known of a subject's window.
    ///
    /// - Parameter wholeWait: the policy's, where requests differ in cost.
    package func ask(
        _ subject: SubjectKey, cost: UInt16 = 1, wholeWait: TimeSpan = .zero, at now: MonotonicTime
    ) -> Knowledge {
        shard(subject).table.withLock { table in
            guard let place = table.find(subject) else { return .unknown }
            if table[place].until > now {
                guard cost >= table[place].cost else { return .unknown }
                guard table[place].isSoon(gathering, now) else { return table[place].refuse(cost, wholeWait, now) }
                return .mayAskSoon(at: table[place].beAsked(at: table[place].until))
            }
            guard now < table[place].lapsesAt else {
                table.remove(subject)
                return .unknown
            }
            table[place].beAsked(at: now)
            return .mayAsk
        }
    }

    /// What is known, for those who have gathered behind a transaction and go with the next one.
    package func askOn(_ subject: SubjectKey, at now: MonotonicTime) -> Knowledge {
        shard(subject).table.withLock { table in
            guard let place = table.find(subject), table[place].until > now else { return .unknown }
            if table[place].isOpen { return .mayAskSoon(at: table[place].beAsked(at: table[place].until)) }
            return table[place].cost == 1 ? table[place].refuse(1, .zero, now) : .unknown
        }
    }

    /// What is known, for one who will not ask.
    package func peek(
        _ subject: SubjectKey, cost: UInt16 = 1, wholeWait: TimeSpan = .zero, at now: MonotonicTime
    ) -> Knowledge {
        shard(subject).table.withLock { table in
            guard let place = table.find(subject), table[place].until > now, cost >= table[place].cost else {
                return .unknown
            }
            return table[place].refuse(cost, wholeWait, now)
        }
    }

    /// Whether one who asks now would be told to wait for the time to come.
    package func isSoon(_ subject: SubjectKey, at now: MonotonicTime) -> Bool {
        shard(subject).table.withLock { table in
            guard let place = table.find(subject), table[place].until > now else { return false }
            return table[place].isSoon(gathering, now)
        }
    }

    /// Redis has said that the window is full and when its oldest entry leaves.
    ///
    /// - Parameter pace: the average time from one slot that leaves to the next.
    package func remember(
        _ subject: SubjectKey, freesAt: MonotonicTime, emptyAt: MonotonicTime, pace: TimeSpan = .max,
        at now: MonotonicTime
    ) {
        remember(
            subject, changesAt: freesAt, freesAt: freesAt, emptyAt: emptyAt, cost: 1, roomFor: 1, pace: pace, at: now)
    }

    /// The same where requests differ in cost.
    ///
    /// - Parameters:
    ///   - changesAt: when the oldest entry leaves.
    ///   - freesAt: when there is room for what costs `roomFor`.
    ///   - emptyAt: when all that is in the window now has left.
    ///   - cost: what costs less may still pass.
    package func remember(
        _ subject: SubjectKey, changesAt: MonotonicTime, freesAt: MonotonicTime, emptyAt: MonotonicTime, cost: UInt16,
        roomFor: UInt16, pace: TimeSpan = .max, at now: MonotonicTime
    ) {
        let until = min(max(changesAt, now + Self.shortest), now + Self.longest)
        // Who hammers comes sooner than that behind `until`, and finds that somebody is asking.
        let lapsesAt = min(max(emptyAt, until) + Self.shortest, until + Self.lapse)
        let window = FullWindow(
            until: until, freesAt: freesAt, lapsesAt: lapsesAt, cost: cost, roomFor: roomFor,
            missing: Self.missing(until - now, pace))
        shard(subject).table.withLock { table in
            // Who has not asked for a while after his time has come is not hammering.
            _ = table.sweep { now - $0.until > Self.longest }
            if let place = table.find(subject) {
                table[place] = window
                return
            }
            if table.isFull { _ = table.evict() }
            _ = table.insert(subject, window)
        }
    }

    /// Refusals that are missing in so long a time before it is clear that somebody hammers.
    private static func missing(_ span: TimeSpan, _ pace: TimeSpan) -> UInt16 {
        guard pace < shortest else { return FullWindow.unpaced }
        return UInt16(
            clamping: min(
                saturatingMultiply(span.nanoseconds, hammering) / max(1, pace.nanoseconds),
                Int64(FullWindow.unpaced) - 1))
    }

    /// The one who asked has found room.
    ///
    /// Where it is clear that somebody hammers, the next one asks when half the time has passed in which what was taken
    /// leaves again, for all who come to his worker until then. So the window fills at twice the pace at which slots leave,
    /// and whoever hammers gets the whole limit. Where that time is over already, there are too few to ask one at a time.
    /// That it is clear has to be shown each time anew, by those who were refused and those who waited and were let in: who
    /// has stopped may be within the limit, and must not be refused because another of his requests is under way.
    ///
    /// - Parameters:
    ///   - taken: slots that he took.
    ///   - sentAt: when he asked.
    package func foundRoom(
        _ subject: SubjectKey, taken: Int, pace: TimeSpan, sentAt: MonotonicTime, at now: MonotonicTime
    ) {
        let next = sentAt + min(spacing, pace * Int64(clamping: taken) / 2)
        shard(subject).table.withLock { table in
            guard let place = table.find(subject) else { return }
            guard table[place].isHammered(taken: taken, pace: pace, sentAt: sentAt), next > now else {
                table.remove(subject)
                return
            }
            table[place].until = next
            table[place].isOpen = true
            table[place].pacedFrom = sentAt
            table[place].refused = 0
            table[place].cost = 1
            table[place].lapsesAt = next + Self.shortest
        }
    }

    /// The window has room again.
    package func forget(_ subject: SubjectKey) {
        shard(subject).table.withLock { $0.remove(subject) }
    }

    package var bytes: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.bytes } } }

    /// Windows that are remembered.
    package var count: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.count } } }
}
