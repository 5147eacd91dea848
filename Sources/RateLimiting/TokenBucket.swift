// Limits in memory, for a node without Redis.

package import Identity
package import Primitives
import Synchronization

/// A token bucket as the generic cell rate algorithm keeps it: one number, the time at which the bucket is full again
/// (ITU-T I.371; Turner 1986). Times are 128-bit attoseconds, so that 10^15 requests a second still have an interval
/// that is not zero, and nothing overflows.
package struct TokenBucket: Sendable {
    private var fullAt: Int128 = 0

    package struct Rate: Sendable {
        /// Attoseconds a token, at least 1.
        fileprivate let interval: Int128
        /// How far ahead of now the time of being full may lie.
        fileprivate let capacity: Int128

        /// - Parameters:
        ///   - tokens: refilled in `span`, at least 1.
        ///   - burst: tokens of a full bucket, at least 1.
        package init(tokens: Int, per span: TimeSpan, burst: Int) {
            let attoseconds = Int128(max(1, span.nanoseconds)) * 1_000_000_000
            interval = max(1, attoseconds / Int128(max(1, tokens)))
            // 2^63 tokens of 2^63 nanoseconds each would not fit; a bucket that takes 30,000 years to fill is endless.
            let (exact, overflow) = interval.multipliedReportingOverflow(by: Int128(max(1, burst)))
            let endless: Int128 = 1_000_000_000_000_000_000 << 40
            capacity = overflow ? endless : min(exact, max(interval, endless))
        }
    }

    package init() {}

    private static func attoseconds(_ time: MonotonicTime) -> Int128 { Int128(time.nanoseconds) * 1_000_000_000 }

    /// - Parameter cost: tokens, all or none.
    package mutating func take(_ cost: UInt16 = 1, at now: MonotonicTime, _ rate: Rate) -> Verdict {
        let now = Self.attoseconds(now)
        let next = max(fullAt, now) + rate.interval * Int128(cost)
        guard next - now <= rate.capacity else {
            let wait = next - now - rate.capacity
            return .refuse(retryAfter: TimeSpan(nanoseconds: Int64(clamping: (wait + 999_999_999) / 1_000_000_000)))
        }
        fullAt = next
        return .admit(remaining: Int(clamping: (rate.capacity - (next - now)) / rate.interval))
    }

    /// Takes tokens back: another policy has refused the request.
    package mutating func giveBack(_ cost: UInt16 = 1, _ rate: Rate) { fullAt -= rate.interval * Int128(cost) }

    /// Tokens that are missing.
    func missing(at now: MonotonicTime, _ rate: Rate) -> Int {
        Int(clamping: (max(0, fullAt - Self.attoseconds(now)) + rate.interval - 1) / rate.interval)
    }

    /// A full bucket is as good as none.
    package func isFull(at now: MonotonicTime) -> Bool { fullAt <= Self.attoseconds(now) }
}

extension [UInt16] {
    /// What a request takes of the policy at a place; one slot where nobody says otherwise.
    func cost(_ index: Int) -> UInt16 { isEmpty ? 1 : self[index] }
}

/// The buckets of all clients of a node, shared by its workers. Clients whose bucket is full again are forgotten bit by
/// bit.
///
/// Each decision asks for the time under the lock of its bucket, so that no two take tokens out of order: a bucket that
/// fills within nanoseconds would refuse whoever shares a reading with another, or comes with an older one.
package final class TokenBucketStore: Sendable {
    private final class Shard: Sendable {
        let table: Mutex<SubjectTable<TokenBucket>>
        init(countMax: Int, seed: UInt64) { table = Mutex(SubjectTable(countMax: countMax, seed: seed)) }
    }

    private let shards: [Shard]
    private let services: [String]
    /// Numbers of policies that may have buckets.
    private let numbers: Int
    /// Of each policy, by the number that is in the subject.
    private let rates: [TokenBucket.Rate]
    private let policies: [Policy]
    private let held: HeldLeases
    private let seed: UInt64
    private let evictions = Atomic<Int>(0)
    /// Of each policy.
    package let policyCounts: [PolicyCounts]

    /// Enough that workers seldom meet.
    private static let shardCount = 64
    /// A table is at most half full: so many slots hold at least twice as many clients as come in meanwhile.
    private static let sweepPerClient = 8

    /// - Parameter clientsMax: clients remembered at once; a million take about 130 MB. One more takes the place of a
    ///   random one, who then starts with a full bucket: nobody is refused because others are many.
    package init(policies: [Policy], services: [String] = [], seed: UInt64, clientsMax: Int = 1 << 20) {
        self.policies = policies
        self.services = services
        numbers = policies.count
        held = HeldLeases(seed: seed)
        rates = policies.map { TokenBucket.Rate(tokens: $0.limit, per: $0.window, burst: $0.burst) }
        policyCounts = policies.map { _ in PolicyCounts() }
        self.seed = seed
        shards = (0..<Self.shardCount).map {
            Shard(countMax: max(1, clientsMax / Self.shardCount), seed: seed &+ UInt64($0))
        }
    }

    /// The same buckets under other policies: how full each is stays. `nil` where the numbers of policies or services mean
    /// others than before.
    package init?(policies: [Policy], services: [String], before: TokenBucketStore) {
        let shared = min(policies.count, before.policies.count)
        // A policy must not inherit the buckets of one that had its number and is long gone.
        guard policies.count == shared || before.numbers == shared else { return nil }
        for index in 0..<shared {
            let (new, old) = (policies[index], before.policies[index])
            guard new.name == old.name, new.key == old.key, new.tier == old.tier else { return nil }
            if new.key == .service, services != before.services { return nil }
        }
        self.policies = policies
        self.services = services
        numbers = max(before.numbers, policies.count)
        shards = before.shards
        seed = before.seed
        held = before.held
        rates = policies.map { TokenBucket.Rate(tokens: $0.limit, per: $0.window, burst: $0.burst) }
        policyCounts = policies.indices.map { $0 < shared ? before.policyCounts[$0] : PolicyCounts() }
    }

    package convenience init(_ policy: Policy, seed: UInt64, clientsMax: Int = 1 << 20) {
        self.init(policies: [policy], seed: seed, clientsMax: clientsMax)
    }

    /// Decides a request by several policies: all give a token, or none.
    ///
    /// - Parameters:
    ///   - subjects: 1...`PolicyReport.countMax`, each of another policy.
    ///   - costs: what each of them takes; empty for 1.
    ///   - leases: the worker's, for policies that count requests at once.
    ///   - now: read for each policy.
    package func take(
        all subjects: [SubjectKey], costs: [UInt16] = [], leases: LeaseKeeper? = nil,
        at now: @autoclosure () -> MonotonicTime
    ) -> PolicyReport {
        var report = PolicyReport()
        for index in subjects.indices {
            let subject = subjects[index]
            let isShadow = policies[Int(subject.policy)].mode == .shadow
            let cost = costs.cost(index)
            let verdict = take(anyOf: subject, cost: cost, at: now())
            report.add(verdict, of: subject.policy, isShadow: isShadow, cost: cost)
        }
        for index in 0..<report.count {
            if !report[index].isRefused {
                let isLeased = policies[Int(subjects[index].policy)].form == .leases
                if report.isRefused {
                    let cost = costs.cost(index)
                    if isLeased { held.remove(subjects[index]) } else { giveBack(subjects[index], cost: cost) }
                } else if isLeased, let leases {
                    report.lease = leases.begin(subjects[index], name: 0, next: report.lease, at: now())
                }
            }
        }
        return report
    }

    private func take(
        anyOf subject: SubjectKey, cost: UInt16, at now: @autoclosure () -> MonotonicTime
    ) -> Verdict {
        let policy = policies[Int(subject.policy)]
        guard policy.form == .leases else { return take(subject, cost: cost, at: now()) }
        let verdict = held.admit(subject, share: policy.limit)
        policyCounts[Int(subject.policy)].count(verdict, by: .bucket)
        return verdict
    }

    /// What each client has taken of its bucket and is not refilled, or holds of a limit on requests at once; and of how
    /// much.
    func visit(at now: MonotonicTime, _ body: (SubjectKey, Int, Int) -> Void) {
        for shard in shards {
            shard.table.withLock { table in
                // Buckets of policies that are gone may be here still.
                table.visit { subject, bucket in
                    let index = Int(subject.policy)
                    guard policies.indices.contains(index) else { return }
                    body(subject, bucket.missing(at: now, rates[index]), policies[index].burst)
                }
            }
        }
        held.visit { subject, count in
            let index = Int(subject.policy)
            if policies.indices.contains(index) { body(subject, count, policies[index].limit) }
        }
    }

    /// Whether it counts the same requests as another.
    package func continues(_ before: TokenBucketStore) -> Bool { held === before.held }

    /// For the requests of one worker.
    package func makeKeeper() -> LeaseKeeper { LeaseKeeper(unrenewed: held) }

    func giveBack(_ subject: SubjectKey, cost: UInt16) {
        let shard = shards[Int(truncatingIfNeeded: subject.hash(seed: ~seed) >> 58)]
        let rate = rates[Int(subject.policy)]
        shard.table.withLock { table in
            if let place = table.find(subject) { table[place].giveBack(cost, rate) }
        }
    }

    /// Decides a request.
    package func take(
        _ subject: SubjectKey, cost: UInt16 = 1, at now: @autoclosure () -> MonotonicTime
    ) -> Verdict {
        let verdict = decide(subject, cost: cost, at: now())
        policyCounts[Int(subject.policy)].count(verdict, by: .bucket)
        return verdict
    }

    private func decide(
        _ subject: SubjectKey, cost: UInt16, at time: @autoclosure () -> MonotonicTime
    ) -> Verdict {
        let shard = shards[Int(truncatingIfNeeded: subject.hash(seed: ~seed) >> 58)]
        let rate = rates[Int(subject.policy)]
        return shard.table.withLock { table in
            let now = time()
            _ = table.sweep { $0.isFull(at: now) }
            if let place = table.find(subject) { return table[place].take(cost, at: now, rate) }
            // A new client pays for the others' going, so that the table is swept faster than it fills.
            for _ in 0..<Self.sweepPerClient { _ = table.sweep { $0.isFull(at: now) } }
            if table.isFull {
                _ = table.evict()
                evictions.add(1, ordering: .relaxed)
            }
            var bucket = TokenBucket()
            let verdict = bucket.take(cost, at: now, rate)
            _ = table.insert(subject, bucket)
            return verdict
        }
    }

    package var bytes: Int { shards.reduce(held.bytes) { $0 + $1.table.withLock { $0.bytes } } }

    /// Clients that are remembered now.
    package var count: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.count } } }
    /// Clients that were forgotten too early, for lack of room.
    package var evictionCount: Int { evictions.load(ordering: .relaxed) }
}
