// Limits on how many requests run at once: each holds a lease in the set of its policy, from the decision that let it in
// to its end.
//
// In Redis a lease is an entry like that of any other window, whose length is how long a lease lasts: it is renewed while
// its request runs, taken out when it ends, and leaves by itself when its node is gone. So it is taken by the same
// transaction, as exactly, and nothing has to be cleaned up after anybody.

package import Identity
package import Primitives
import Synchronization

/// How many leases of a subject this node's requests hold: what the loss rule goes by, and all there is without Redis.
package final class HeldLeases: Sendable {
    private final class Shard: Sendable {
        let table: Mutex<SubjectTable<Int>>
        init(seed: UInt64) { table = Mutex(SubjectTable(countMax: HeldLeases.subjectsMax, seed: seed)) }
    }

    private let shards: [Shard]
    private let seed: UInt64
    private static let shardCount = 16
    /// Each has at least one request that runs, and a node runs out of descriptors before.
    private static let subjectsMax = 1 << 17

    package init(seed: UInt64) {
        self.seed = seed
        shards = (0..<Self.shardCount).map { Shard(seed: seed &+ UInt64($0)) }
    }

    private func shard(_ subject: SubjectKey) -> Shard {
        shards[Int(truncatingIfNeeded: subject.hash(seed: ~seed) >> 60)]
    }

    /// Takes a lease while fewer than `share` are held. Nobody knows when one will be free.
    package func admit(_ subject: SubjectKey, share: Int) -> Verdict {
        shard(subject).table.withLock { table in
            guard let place = table.find(subject) else {
                return table.insert(subject, 1) == nil ? Self.full : .admit(remaining: max(0, share - 1))
            }
            guard table[place] < share else { return Self.full }
            table[place] += 1
            return .admit(remaining: share - table[place])
        }
    }

    package static let full = Verdict.refuse(retryAfter: .seconds(1))

    /// Notes a lease that Redis has given.
    package func add(_ subject: SubjectKey) {
        shard(subject).table.withLock { table in
            if let place = table.find(subject) { table[place] += 1 } else { _ = table.insert(subject, 1) }
        }
    }

    package func remove(_ subject: SubjectKey) {
        shard(subject).table.withLock { table in
            guard let place = table.find(subject) else { return }
            if table[place] > 1 { table[place] -= 1 } else { table.remove(subject) }
        }
    }

    package var bytes: Int { shards.reduce(0) { $0 + $1.table.withLock { $0.bytes } } }

    package func visit(_ body: (SubjectKey, Int) -> Void) {
        for shard in shards { shard.table.withLock { $0.visit(body) } }
    }

    package func count(_ subject: SubjectKey) -> Int {
        shard(subject).table.withLock { table in table.find(subject).map { table[$0] } ?? 0 }
    }
}

/// The leases of one worker's requests, and when each is to be renewed.
package final class LeaseKeeper {
    package struct Lease: Sendable {
        package var subject: SubjectKey
        /// The sequence number of its entry.
        package var name: UInt64
        /// The next lease of the same request; -1 for none.
        var next: Int32
        /// What the same request holds of the limiter behind this one; -1 for nothing.
        var twin: Int32 = -1
        /// Tells it from others that had this place before.
        var serial: UInt64
    }

    private struct Due {
        var lease: Int32
        var serial: UInt64
        var at: MonotonicTime
    }

    private var leases = Slots<Lease>()
    /// By policy: all of one lie equally far ahead. Empty where nothing is renewed.
    private var due: [Queue<Due>]
    private let pauses: [TimeSpan]
    private let held: HeldLeases
    private var nextSerial: UInt64 = 0

    /// Two renewals may be lost, and the third is still in time.
    private static let renewalsPerLease: Int64 = 3

    package init(_ policies: [Policy], held: HeldLeases) {
        self.held = held
        due = policies.map { _ in Queue() }
        pauses = policies.map { .nanoseconds($0.window.nanoseconds / Self.renewalsPerLease) }
    }

    /// For leases that nobody renews: those of a node without Redis, whatever its policies are later on.
    package init(unrenewed held: HeldLeases) {
        self.held = held
        (due, pauses) = ([], [])
    }

    package var bytes: Int { due.reduce(leases.bytes) { $0 + $1.bytes } }

    /// Leases that are held.
    package var count: Int { leases.count }

    /// A request has a lease, counted already in what the node holds.
    ///
    /// - Parameter next: another one of the same request.
    package func begin(_ subject: SubjectKey, name: UInt64, next: Int32, at now: MonotonicTime) -> Int32 {
        nextSerial &+= 1
        let lease = Int32(
            clamping: leases.insert(Lease(subject: subject, name: name, next: next, serial: nextSerial)))
        let policy = Int(subject.policy)
        guard due.indices.contains(policy) else { return lease }
        due[policy].append(Due(lease: lease, serial: nextSerial, at: now + pauses[policy]))
        return lease
    }

    /// A request has ended.
    ///
    /// - Parameter body: called with each of its leases.
    package func end(_ first: Int32, _ body: (Lease) -> Void) {
        var index = first
        while index >= 0, let lease = leases.remove(Int(index)) {
            index = lease.next
            held.remove(lease.subject)
            body(lease)
        }
    }

    /// Gives leases that have none a twin.
    ///
    /// - Parameter body: returns it; -1 for none.
    func handOver(_ body: (SubjectKey) -> Int32) {
        for place in 0..<leases.end where leases.contains(place) && leases[place].twin < 0 {
            leases[place].twin = body(leases[place].subject)
        }
    }

    /// Whether a lease is still held under this name.
    func holds(_ lease: Int32, _ name: UInt64) -> Bool {
        leases.contains(Int(lease)) && leases[Int(lease)].name == name
    }

    /// When the first lease is to be renewed.
    package var nextDue: MonotonicTime? {
        var first: MonotonicTime?
        for policy in due.indices {
            while let head = due[policy].first, !isHeld(head) { _ = due[policy].popFirst() }
            if let head = due[policy].first, head.at < first ?? .distantFuture { first = head.at }
        }
        return first
    }

    private func isHeld(_ due: Due) -> Bool {
        leases.contains(Int(due.lease)) && leases[Int(due.lease)].serial == due.serial
    }

    /// The next lease to renew now, and its place; it is due again after a while.
    package func takeDue(at now: MonotonicTime) -> (place: Int32, Lease)? {
        for policy in due.indices {
            while let head = due[policy].first, head.at <= now {
                _ = due[policy].popFirst()
                guard isHeld(head) else { continue }
                due[policy].append(Due(lease: head.lease, serial: head.serial, at: now + pauses[policy]))
                return (head.lease, leases[Int(head.lease)])
            }
        }
        return nil
    }

    /// Redis may have forgotten them: all are to be renewed now.
    package func hurry(at now: MonotonicTime) {
        for policy in due.indices {
            var again = Queue<Due>()
            while var entry = due[policy].popFirst() {
                entry.at = min(entry.at, now)
                again.append(entry)
            }
            due[policy] = again
        }
    }
}
