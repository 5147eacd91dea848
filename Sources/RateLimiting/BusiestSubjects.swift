// Whose limits are nearest to their bound, for operators. Found by a walk over the tables of what was admitted lately, a
// shard at a time, and only while somebody watches.

package import Identity
package import Primitives

/// What one node knows of a subject's use of a limit.
package struct SubjectUse: Equatable, Sendable {
    package var subject: SubjectKey
    /// Slots that are taken, as far as this node has given them.
    package var used: Int
    package var limit: Int

    var share: Double { Double(used) / Double(max(1, limit)) }
}

/// The few with the largest share, those first.
struct BusiestSubjects {
    private(set) var list: [SubjectUse] = []
    private let countMax: Int

    init(_ countMax: Int) {
        self.countMax = countMax
        list.reserveCapacity(countMax + 1)
    }

    mutating func offer(_ subject: SubjectKey, used: Int, limit: Int) {
        guard used > 0 else { return }
        let use = SubjectUse(subject: subject, used: used, limit: limit)
        if list.count == countMax, let last = list.last, use.share <= last.share { return }
        list.insert(use, at: list.firstIndex { $0.share < use.share } ?? list.count)
        if list.count > countMax { list.removeLast() }
    }
}

extension LimiterContext {
    /// Whom this node has let in most of what their limits allow.
    package func busiest(atMost countMax: Int, at now: MonotonicTime) -> [SubjectUse] {
        var busiest = BusiestSubjects(countMax)
        for (policy, memory) in zip(policies, memories) where policy.form != .leases {
            memory.visit(at: now) { busiest.offer($0, used: $1, limit: policy.limit) }
        }
        held.visit { busiest.offer($0, used: $1, limit: policy(of: $0).limit) }
        return busiest.list
    }
}

extension TokenBucketStore {
    /// The same of buckets: how much of the burst is taken and not refilled.
    package func busiest(atMost countMax: Int, at now: MonotonicTime) -> [SubjectUse] {
        var busiest = BusiestSubjects(countMax)
        visit(at: now) { busiest.offer($0, used: $1, limit: $2) }
        return busiest.list
    }
}
