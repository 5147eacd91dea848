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
package final class FullWindowMemory: Sendable {
    package enum Knowledge: Equatable, Sendable {
        case unknown
        case full(retryAfter: TimeSpan)
        /// The time has come, and whoever is told so is the one who asks. It has to call `remember` or `forget`.
        case mayAsk
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

        func retryAfter(_ cost: UInt16, _ wholeWait: TimeSpan, _ now: MonotonicTime) -> TimeSpan {
            let known = max(freesAt, until) - now
            return cost <= roomFor ? known : max(known, wholeWait)
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
    private static let shardCount = 64

    private let shards: [Shard]
    private let seed: UInt64

    /// - Parameter subjectsMax: one more takes the place of a random one, whose next request then asks Redis.
    package init(seed: UInt64, subjectsMax: Int = 1 << 18) {
        self.seed = seed
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
                return .full(retryAfter: table[place].retryAfter(cost, wholeWait, now))
            }
            guard now < table[place].lapsesAt else {
                table.remove(subject)
                return .unknown
            }
            table[place].until = now + Self.shortest
            return .mayAsk
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
            return .full(retryAfter: table[place].retryAfter(cost, wholeWait, now))
        }
    }

    /// Redis has said that the window is full and when its oldest entry leaves.
    package func remember(
        _ subject: SubjectKey, freesAt: MonotonicTime, emptyAt: MonotonicTime, at now: MonotonicTime
    ) {
        remember(subject, changesAt: freesAt, freesAt: freesAt, emptyAt: emptyAt, cost: 1, roomFor: 1, at: now)
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
        roomFor: UInt16, at now: MonotonicTime
    ) {
        let until = min(max(changesAt, now + Self.shortest), now + Self.longest)
        // Who hammers comes sooner than that behind `until`, and finds that somebody is asking.
        let lapsesAt = min(max(emptyAt, until) + Self.shortest, until + Self.lapse)
        let window = FullWindow(until: until, freesAt: freesAt, lapsesAt: lapsesAt, cost: cost, roomFor: roomFor)
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

    /// The window has room again.
    package func forget(_ subject: SubjectKey) {
        shard(subject).table.withLock { $0.remove(subject) }
    }

    package var bytes: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.bytes } } }

    /// Windows that are remembered.
    package var count: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.count } } }
}
