package import Membership
package import Primitives

/// A moment as this node has it: the monotonic clock decides, the wall clock is for people.
package struct HealthMoment: Hashable, Sendable {
    package var monotonic: MonotonicTime
    package var wall: UnixTime

    package init(monotonic: MonotonicTime, wall: UnixTime) {
        self.monotonic = monotonic
        self.wall = wall
    }
}

/// What a driver has to do for the machine, in the order in which it is told.
package enum HealthAction: Equatable, Sendable {
    /// Probe a backend once and tell how it ended (`HealthMachine.probeFinished`), with this number.
    case probe(BackendKey, attempt: UInt64, HealthSettings)
    /// In one `MULTI`: `HSET` of the verdict in its service's hash, and `PUBLISH` of the news.
    case publish(HealthNews)
    /// In one `MULTI`: `HSET` of the report in its service's hash of probes, and `PUBLISH` of it.
    case report(ProbeReport)
    /// `HDEL` of fields of this service's hash.
    case remove(service: String, fields: [String])
    /// `HGETALL` of this service's two hashes, told by `HealthMachine.snapshot` and `HealthMachine.heard`.
    case readSnapshot(service: String)
    /// `HGETALL` of the operators' words, told by `HealthMachine.words`.
    case readWords
    /// In one `MULTI`: `HSET` of an operator's word, and `PUBLISH` that there is news.
    case writeWord(BackendKey, OperatorWord)
    /// Requests may, or may no longer, go to this backend.
    case availabilityChanged(BackendKey, isAvailable: Bool, BackendCondition)
    case log(HealthEvent)
}

package enum HealthEvent: Equatable, Sendable, CustomStringConvertible {
    case opinion(BackendKey, HealthVerdict)
    /// What a backend is to this node has changed, by this evidence.
    case condition(BackendKey, BackendCondition, evidence: String)
    case said(BackendKey, OperatorWord)
    /// A node judges everything down that others reach: its votes do not count, until they do again.
    case isolated(NodeID, Bool)
    /// Fields or messages that make no sense, since the last such event.
    case ignored(count: Int, last: HealthFormatError)

    package var description: String {
        switch self {
        case .opinion(let key, let verdict):
            "this node judges \(key.url) of \(key.service) \(verdict.state.rawValue): \(verdict.evidence)"
        case .condition(let key, let condition, let evidence):
            "\(key.url) of \(key.service) is \(condition.isAvailable ? "in use" : "not used"): \(condition); \(evidence)"
        case .said(let key, let word):
            word.word == .auto
                ? "\(word.by) leaves \(key.url) of \(key.service) to the evidence again"
                : "\(word.by) says \(word.word.rawValue) of \(key.url) of \(key.service)"
        case .isolated(let node, true):
            "node \(node) judges every backend down and others do not: it is cut off, and its votes do not count"
        case .isolated(let node, false): "the votes of node \(node) count again"
        case .ignored(let count, let last):
            "\(count) health entries from Redis ignored; the last one: \(last)"
        }
    }
}

/// A backend as the admin listener shows it.
package struct BackendStatus: Equatable, Sendable {
    package enum State: String, Sendable { case up, down, draining }

    package var backend: BackendKey
    /// What the nodes agree on. Where this node alone does not use a backend, `isAvailable` is false and `reason` says
    /// so.
    package var state: State
    package var isAvailable: Bool
    /// When `state` began: for `down` when the quorum was reached, by the voters' clocks, else by this node's.
    package var since: UnixTime
    package var reason: String
    /// One entry for each living node, in the order of their ids.
    package var votes: [(node: NodeID, vote: VerdictState)]
    /// An operator's word that stands above the evidence.
    package var word: OperatorWord?
    /// The last thing that went wrong at this node.
    package var lastFailure: HealthFailure?
    /// How often what it is to this node has changed since the start.
    package var changes: UInt64

    package static func == (a: BackendStatus, b: BackendStatus) -> Bool {
        a.backend == b.backend && a.state == b.state && a.isAvailable == b.isAvailable && a.since == b.since
            && a.reason == b.reason && a.word == b.word && a.lastFailure == b.lastFailure && a.changes == b.changes
            && a.votes.elementsEqual(b.votes) { $0.node == $1.node && $0.vote == $1.vote }
    }
}
