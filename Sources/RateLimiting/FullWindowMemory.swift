// A full window is remembered, so that a hot, refused client costs Redis next to nothing.

package import Identity
package import Primitives
import Synchronization

/// Which windows are full, and until when; shared by the workers of a node.
///
/// Until its oldest entry leaves, a full window can admit nobody, so nobody is sent to ask. When the time has come, one
/// request asks and the others go on being refused for a moment: otherwise every worker would ask for the same slot.
package final class FullWindowMemory: Sendable {
    package enum Knowledge: Equatable, Sendable {
        case unknown
        case full(retryAfter: TimeSpan)
        /// The time has come, and whoever is told so is the one who asks. It has to call `remember` or `forget`.
        case mayAsk
    }

    private struct FullWindow: Sendable {
        var until: MonotonicTime
        /// When the oldest entry leaves; may lie beyond `until`.
        var freesAt: MonotonicTime
    }

    private final class Shard: Sendable {
        let table: Mutex<SubjectTable<FullWindow>>
        init(countMax: Int, seed: UInt64) { table = Mutex(SubjectTable(countMax: countMax, seed: seed)) }
    }

    /// The longest that nobody asks, so that a window which an operator has deleted (`redis-cli DEL`) opens again.
    package static let longest = TimeSpan.seconds(1)
    /// The shortest: a node asks for a full window at most once in this time.
    package static let shortest = TimeSpan.milliseconds(5)
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
    package func ask(_ subject: SubjectKey, at now: MonotonicTime) -> Knowledge {
        shard(subject).table.withLock { table in
            guard let place = table.find(subject) else { return .unknown }
            if table[place].until > now {
                return .full(retryAfter: max(table[place].freesAt, table[place].until) - now)
            }
            table[place].until = now + Self.shortest
            return .mayAsk
        }
    }

    /// What is known, for one who will not ask.
    package func peek(_ subject: SubjectKey, at now: MonotonicTime) -> Knowledge {
        shard(subject).table.withLock { table in
            guard let place = table.find(subject), table[place].until > now else { return .unknown }
            return .full(retryAfter: max(table[place].freesAt, table[place].until) - now)
        }
    }

    /// Redis has said that the window is full and when its oldest entry leaves.
    package func remember(_ subject: SubjectKey, freesAt: MonotonicTime, at now: MonotonicTime) {
        let until = min(max(freesAt, now + Self.shortest), now + Self.longest)
        shard(subject).table.withLock { table in
            // Who has not asked for a while after his time has come is not hammering.
            _ = table.sweep { now - $0.until > Self.longest }
            if let place = table.find(subject) {
                table[place] = FullWindow(until: until, freesAt: freesAt)
                return
            }
            if table.isFull { _ = table.evict() }
            _ = table.insert(subject, FullWindow(until: until, freesAt: freesAt))
        }
    }

    /// The window has room again.
    package func forget(_ subject: SubjectKey) {
        shard(subject).table.withLock { $0.remove(subject) }
    }

    /// Windows that are remembered.
    package var count: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.count } } }
}
