// Limits in memory, for a node without Redis.

package import Identity
package import Primitives
import Synchronization

/// A token bucket as the generic cell rate algorithm keeps it: one number, the time at which the bucket is full again
/// (ITU-T I.371; Turner 1986). Times are 128-bit attoseconds, so that 10^12 requests a second still have an interval
/// that is not zero, and nothing overflows.
package struct TokenBucket: Sendable {
    private var fullAt: Int128 = 0

    package struct Rate: Sendable {
        /// Attoseconds a token.
        fileprivate let interval: Int128
        /// What a full bucket is ahead of now.
        fileprivate let capacity: Int128

        /// - Parameters:
        ///   - tokensPerSecond: 1...10^12.
        ///   - burst: tokens of a full bucket, 1...10^12.
        package init(tokensPerSecond: Int, burst: Int) {
            let rate = Int128(max(1, min(tokensPerSecond, 1_000_000_000_000)))
            interval = 1_000_000_000_000_000_000 / rate
            capacity = interval * Int128(max(1, min(burst, 1_000_000_000_000)))
        }
    }

    package init() {}

    private static func attoseconds(_ time: MonotonicTime) -> Int128 { Int128(time.nanoseconds) * 1_000_000_000 }

    package mutating func take(at now: MonotonicTime, _ rate: Rate) -> Verdict {
        let now = Self.attoseconds(now)
        let next = max(fullAt, now) + rate.interval
        guard next - now <= rate.capacity else {
            let wait = next - now - rate.capacity
            return .refuse(retryAfter: TimeSpan(nanoseconds: Int64(clamping: (wait + 999_999_999) / 1_000_000_000)))
        }
        fullAt = next
        return .admit
    }

    /// A full bucket is as good as none.
    package func isFull(at now: MonotonicTime) -> Bool { fullAt <= Self.attoseconds(now) }
}

/// The buckets of all clients of a node, shared by its workers.
package final class TokenBucketStore: Sendable {
    private final class Shard: Sendable {
        let table: Mutex<SubjectTable<TokenBucket>>
        init(seed: UInt64) { table = Mutex(SubjectTable(countMax: TokenBucketStore.subjectsMax / 64, seed: seed)) }
    }

    private let shards: [Shard]
    private let rate: TokenBucket.Rate
    private let seed: UInt64

    /// A million clients in about 64 MiB. One more, while all of them are active, is admitted unlimited by the window's
    /// standards: it takes part in one common bucket for all such.
    private static let subjectsMax = 1 << 20
    private let overflow = Mutex(TokenBucket())

    package init(_ policy: Policy, seed: UInt64) {
        let perSecond = Double(policy.limit) / policy.window.seconds
        rate = TokenBucket.Rate(tokensPerSecond: Int(min(perSecond, 1e12)), burst: policy.burst)
        self.seed = seed
        shards = (0..<64).map { Shard(seed: seed &+ UInt64($0)) }
    }

    package func take(_ subject: SubjectKey, at now: MonotonicTime) -> Verdict {
        let shard = shards[Int(truncatingIfNeeded: subject.hash(seed: ~seed) >> 58)]
        let verdict = shard.table.withLock { table -> Verdict? in
            table.sweep(steps: 2) { $0.isFull(at: now) }
            if let place = table.find(subject) { return table[place].take(at: now, rate) }
            guard let place = table.insert(subject, TokenBucket()) else { return nil }
            return table[place].take(at: now, rate)
        }
        return verdict ?? overflow.withLock { $0.take(at: now, rate) }
    }

    /// Clients that are remembered now.
    package var count: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.count } } }
}
