// Who probes a backend next, and what the cluster's probes of it have come to.
//
// Probes of one backend are numbered over the cluster. Whoever probes tells the others how it ended, with the streak
// so far; the next number belongs to the node that rendezvous hashing of backend and number picks among the living, so
// the turn moves from node to node, and every node's path is tried in time. If that node does not report, the second in
// rank takes the turn after the time that a probe may take, then the third: nothing depends on a message that arrives.
// Nodes that have heard the same reports compute the same turn, without any clock but their own.
//
// Rejected: time slots by a common clock (skew makes two probers or none at each border), and a lock in Redis for every
// probe (a round trip each, and nobody probes where the holder has died).

package import Membership
import Primitives

/// What the cluster's probes of one backend have come to.
package struct ProbeRecord: Hashable, Sendable {
    /// Probes so far, this one included.
    package var number: UInt64 = 0
    /// The last probes in a row that succeeded, or that failed: one of the two is zero.
    package var good = 0
    package var bad = 0

    /// Longer streaks say no more than this; settings are bounded by it too.
    package static let streakMax = 1_000
    /// Far from overflow, and far beyond what any cluster reaches; beyond it a report is not believed.
    package static let numberMax: UInt64 = 1 << 52

    package init() {}

    package init(number: UInt64, good: Int, bad: Int) {
        self.number = number
        self.good = good
        self.bad = bad
    }

    package func advanced(by result: ProbeResult) -> ProbeRecord {
        let next = min(number + 1, Self.numberMax)
        return switch result {
        case .succeeded: ProbeRecord(number: next, good: min(good + 1, Self.streakMax), bad: 0)
        case .failed: ProbeRecord(number: next, good: 0, bad: min(bad + 1, Self.streakMax))
        }
    }

    /// Whether this one replaces `other`. The same number was probed twice where a report was lost: then failure
    /// counts, and the order is the same on every node, so that repeated and reordered reports end alike.
    package func supersedes(_ other: ProbeRecord) -> Bool {
        // Nothing but a forged report gets there, and nothing leads beyond: then whoever speaks last is right.
        if number == Self.numberMax, other.number == Self.numberMax { return self != other }
        return (number, bad, good) > (other.number, other.bad, other.good)
    }
}

/// Who is next.
package enum ProbeTurn {
    /// The score of a node for one probe of one backend; the highest has the turn.
    @inline(__always)
    package static func score(backend: UInt64, number: UInt64, node: UInt64) -> UInt64 {
        mix64(mix64(backend ^ mix64(number)) ^ node)
    }

    /// How many of `candidates` go before `own` for this probe.
    package static func rank(backend: UInt64, number: UInt64, own: UInt64, among candidates: [UInt64]) -> Int {
        let mine = score(backend: backend, number: number, node: own)
        return candidates.count { score(backend: backend, number: number, node: $0) > mine }
    }
}

/// How one probe ended, as it is kept in a hash and told on a channel.
package struct ProbeReport: Hashable, Sendable {
    package var backend: BackendKey
    package var node: NodeID
    /// Which check was made; reports of other checks say nothing here.
    package var check: UInt64
    package var record: ProbeRecord

    package init(backend: BackendKey, node: NodeID, check: UInt64, record: ProbeRecord) {
        self.backend = backend
        self.node = node
        self.check = check
        self.record = record
    }
}
