// What the nodes together think of the backends of one service: a pure function of the living nodes' verdicts. All
// nodes that have heard the same verdicts and know the same living nodes compute the same agreed states.
//
// Above that stands what one node adds for itself alone: a backend that it judges down it does not use, whatever the
// others say, since its own path to it may be what is broken.
// Two rules protect a service from losing its last backend to evidence that may be the service's own fault:
// when all would be down, those stay that only traffic speaks against, all of them rather than the one ejected last,
// because requests that fail everywhere have a common cause, and a single survivor would get the load of all. And of all
// backends of a service no more than `maxEjected` are down by the evidence of traffic alone, for the same reason.
// An operator's word stands above all of it.

package import Membership
package import Primitives

/// Where a newly heard verdict left things.
package enum MergeOutcome: Equatable, Sendable {
    /// It replaced what was known, or is the first.
    case applied(before: VerdictState)
    /// It was known already, or is older than what is known. Nothing has changed.
    case old
    /// More nodes have spoken about this backend than a cluster has.
    case tooMany
}

/// The last verdict of each node on one backend.
package struct VerdictTable: Sendable {
    private struct Entry {
        var verdict: HealthVerdict
        /// When it was told, or when the reading that found it was asked for: it is at least as recent as this.
        var asOf: MonotonicTime
        /// The run of the node before this one, up to the last sequence heard: late news of it are old.
        var previousBoot: BootID?
        var previousSequence: UInt64 = 0
        /// The last reading of the hash did not find it.
        var isMissing = false
        /// The last reading of the hash found an older word of the same run.
        var isAhead = false
        /// Its author has not renewed it for too long, or has taken it out of the hash. It counts no more, and is kept so
        /// that the same words told again are not news.
        var isExpired = false
    }

    /// As many nodes as membership takes in.
    private static let nodesMax = MembershipView.membersMax

    private var entries: [NodeID: Entry] = [:]

    package init() {}

    package func verdict(of node: NodeID) -> HealthVerdict? {
        entries[node].flatMap { $0.isExpired ? nil : $0.verdict }
    }

    package var nodes: [NodeID] { entries.filter { !$0.value.isExpired }.keys.sorted() }

    /// Takes in a verdict that was told on the channel, unless it is old: within a run of a node the sequence decides;
    /// another run replaces.
    package mutating func merge(
        _ verdict: HealthVerdict, of node: NodeID, at now: MonotonicTime
    ) -> MergeOutcome {
        guard let entry = entries[node] else { return insert(verdict, of: node, asOf: now) }
        if entry.verdict.boot == verdict.boot {
            if verdict.sequence <= entry.verdict.sequence { return .old }
        } else if entry.previousBoot == verdict.boot, verdict.sequence <= entry.previousSequence {
            return .old
        }
        return replace(entry, verdict, of: node, asOf: now)
    }

    /// Takes in a verdict from a reading of the hash that was asked for at `requested`. Of two runs the one in the hash
    /// is the later, unless the other was heard of after the reading had begun. Within a run the higher sequence is,
    /// unless two readings in a row say otherwise: the hash is written with every message, so a message that is ahead
    /// of it for so long was not its author's, or a server's lost memory, which its author makes good in between.
    package mutating func read(
        _ verdict: HealthVerdict, of node: NodeID, requested: MonotonicTime
    ) -> MergeOutcome {
        guard let entry = entries[node] else { return insert(verdict, of: node, asOf: requested) }
        if entry.verdict.boot == verdict.boot {
            let isAhead = verdict.sequence < entry.verdict.sequence && entry.asOf < requested
            if verdict.sequence <= entry.verdict.sequence, !isAhead || !entry.isAhead {
                entries[node]?.isAhead = isAhead
                return .old
            }
        } else if entry.asOf > requested {
            return .old
        }
        return replace(entry, verdict, of: node, asOf: requested)
    }

    private mutating func insert(
        _ verdict: HealthVerdict, of node: NodeID, asOf time: MonotonicTime
    ) -> MergeOutcome {
        if entries.count >= Self.nodesMax { entries = entries.filter { !$0.value.isExpired } }
        if entries.count >= Self.nodesMax { return .tooMany }
        entries[node] = Entry(verdict: verdict, asOf: time)
        return .applied(before: .up)
    }

    private mutating func replace(
        _ entry: Entry, _ verdict: HealthVerdict, of node: NodeID, asOf time: MonotonicTime
    ) -> MergeOutcome {
        var new = Entry(
            verdict: verdict, asOf: time, previousBoot: entry.previousBoot, previousSequence: entry.previousSequence)
        if entry.verdict.boot != verdict.boot {
            new.previousBoot = entry.verdict.boot
            new.previousSequence = entry.verdict.sequence
        }
        entries[node] = new
        return .applied(before: entry.isExpired ? .up : entry.verdict.state)
    }

    package mutating func forget(_ node: NodeID) { entries[node] = nil }

    /// The hash was read and held fields of these nodes. Whoever is missing twice in a row is forgotten: nodes that
    /// still mean what they said write it again between the two, and news may overtake one reading, not both.
    package mutating func found(_ present: Set<NodeID>, butAlways kept: NodeID) {
        for (node, entry) in entries where node != kept {
            if present.contains(node) {
                entries[node]?.isMissing = false
            } else if entry.isMissing {
                entries[node]?.isExpired = true
            } else {
                entries[node]?.isMissing = true
            }
        }
    }

    /// What a node says of the backend under this check; `nil` where it says nothing.
    package func verdict(of node: NodeID, check: UInt64) -> HealthVerdict? {
        guard let entry = entries[node], !entry.isExpired, entry.verdict.check ?? check == check else { return nil }
        return entry.verdict
    }

    /// Whether somebody judges the backend down.
    package var hasDown: Bool { entries.values.contains { !$0.isExpired && $0.verdict.state == .down } }

    /// A verdict against the backend that its author has not renewed since `bound` counts no more. `true` where there
    /// was one.
    package mutating func expire(before bound: MonotonicTime, butNever kept: NodeID) -> Bool {
        var found = false
        for (node, entry) in entries where node != kept && !entry.isExpired {
            guard entry.verdict.state == .down, entry.asOf < bound else { continue }
            entries[node]?.isExpired = true
            found = true
        }
        return found
    }

    /// Counts the votes of the living nodes.
    package func count(live: [NodeID], check: UInt64? = nil) -> Votes {
        var votes = Votes(live: live.count)
        var downSince: [UnixTime] = []
        for node in live {
            guard let entry = entries[node], !entry.isExpired, entry.verdict.state == .down else { continue }
            let verdict = entry.verdict
            if let check, let theirs = verdict.check, theirs != check { continue }
            downSince.append(verdict.since)
            switch verdict.kind {
            case .probe: votes.downByProbe += 1
            case .traffic: votes.downByTraffic += 1
            }
        }
        votes.downSince = downSince.sorted()
        return votes
    }
}

/// The living nodes' votes on one backend. Who has said nothing votes up.
package struct Votes: Equatable, Sendable {
    package var live: Int
    package var downByProbe = 0
    package var downByTraffic = 0
    /// When the down votes were cast, by their authors' clocks, oldest first.
    package var downSince: [UnixTime] = []

    package init(live: Int) { self.live = live }

    package var down: Int { downByProbe + downByTraffic }
}

/// What a backend is to this node, and why.
package enum BackendCondition: Equatable, Sendable, CustomStringConvertible {
    /// Nothing speaks against it, or too few.
    case usable(down: Int, live: Int)
    /// The quorum judges it down.
    case downForAll(down: Int, live: Int)
    /// Only this node judges it down, or too few with it; this node does not use it.
    case avoidedHere(down: Int, live: Int)
    /// The same while Redis is out of reach, so that nobody else is asked.
    case downHere(down: Int, live: Int)
    /// It would be out by the evidence of traffic, but no backend of its service is left.
    case keptAsLast(down: Int, live: Int)
    /// The same, and as many of its service as may be are out already.
    case keptByShare(down: Int, live: Int)
    /// An operator's word decides.
    case ordered(OperatorWord)

    package var isAvailable: Bool {
        switch self {
        case .usable, .keptAsLast, .keptByShare: true
        case .downForAll, .avoidedHere, .downHere: false
        case .ordered(let word): word.word == .up
        }
    }

    package var description: String {
        switch self {
        case .usable(0, _): "no node judges it down"
        case .usable(let down, let live): "\(down) of \(live) nodes judge it down, too few for the quorum"
        case .downForAll(let down, let live): "\(down) of \(live) nodes judge it down"
        case .avoidedHere(let down, let live): "avoided by this node alone (\(down) of \(live) nodes judge it down)"
        case .downHere(let down, let live):
            "down by this node alone, since Redis is out of reach (\(down) of \(live) nodes judged it down, as last known)"
        case .keptAsLast(let down, let live):
            "kept as the last of its service (\(down) of \(live) nodes judge it down by failed requests)"
        case .keptByShare(let down, let live):
            "kept, since as many of its service are out as may be (\(down) of \(live) nodes judge it down by failed requests)"
        case .ordered(let word): "\(word.word.rawValue), said \(word.by)"
        }
    }

    /// The same for a node that cannot ask the others.
    package var withoutTheOthers: BackendCondition {
        if case .avoidedHere(let down, let live) = self { .downHere(down: down, live: live) } else { self }
    }

    /// Whether two conditions differ by more than a count of votes.
    package func isSameKind(as other: BackendCondition) -> Bool {
        switch (self, other) {
        case (.usable, .usable), (.downForAll, .downForAll), (.avoidedHere, .avoidedHere), (.downHere, .downHere),
            (.keptAsLast, .keptAsLast), (.keptByShare, .keptByShare):
            true
        case (.ordered(let mine), .ordered(let theirs)): mine.word == theirs.word
        case (.usable, _), (.downForAll, _), (.avoidedHere, _), (.downHere, _), (.keptAsLast, _), (.keptByShare, _),
            (.ordered, _):
            false
        }
    }
}

/// What the living nodes agree on about a backend.
package enum AgreedState: Equatable, Sendable {
    case up
    case down
    /// A quorum judges it down by failed requests, and every other backend of its service is down too, or as many as may
    /// be by such evidence.
    case kept
}

/// What counts for a service besides the votes.
package struct ViewRules: Sendable {
    package var quorum = Quorum.majority
    /// How many of the service's backends, in percent, may be down by the evidence of traffic alone; at least one.
    package var maxEjected = 100

    package init(quorum: Quorum, maxEjected: Int = 100) {
        self.quorum = quorum
        self.maxEjected = maxEjected
    }

    func ejectedMax(of count: Int) -> Int { maxEjected <= 0 ? 0 : max(1, count * min(maxEjected, 100) / 100) }
}

package enum HealthView {
    /// What all nodes agree on, for each backend of one service in order.
    package static func agree(_ votes: [Votes], _ rules: ViewRules) -> [AgreedState] {
        let quorum = rules.quorum
        let allDown = votes.allSatisfy { $0.down >= quorum.needed(live: $0.live) }
        var states = votes.map { votes -> AgreedState in
            if votes.down < quorum.needed(live: votes.live) { return .up }
            return allDown && !isDownByProbes(votes, quorum) ? .kept : .down
        }
        // The most condemned go first, then those that were condemned first: the same on every node, in whatever order
        // its file lists them.
        let byTraffic = states.indices.filter { states[$0] == .down && !isDownByProbes(votes[$0], quorum) }
        let excess = byTraffic.count - rules.ejectedMax(of: votes.count)
        if excess > 0 {
            let order = byTraffic.sorted {
                let (a, b) = (votes[$0], votes[$1])
                if a.down != b.down { return a.down < b.down }
                let (late, early) = (a.downSince.last?.milliseconds ?? 0, b.downSince.last?.milliseconds ?? 0)
                return late == early ? $0 > $1 : late > early
            }
            for index in order.prefix(excess) { states[index] = .kept }
        }
        return states
    }

    private static func isDownByProbes(_ votes: Votes, _ quorum: Quorum) -> Bool {
        votes.downByProbe >= quorum.needed(live: votes.live)
    }

    /// The same as one node acts on it, by what it thinks itself of each backend (`own`) and what operators have said
    /// (`words`), both in the same order.
    package static func assess(
        _ votes: [Votes], own: [BackendMonitor.Standing], words: [OperatorWord?] = [], _ rules: ViewRules
    ) -> [BackendCondition] {
        let agreed = agree(votes, rules)
        func word(_ index: Int) -> OperatorWord? {
            index < words.count && words[index]?.word != .auto ? words[index] : nil
        }
        let noneIsUsable = !votes.indices.contains { index in
            word(index).map { $0.word == .up } ?? (agreed[index] == .up && own[index] == .up)
        }
        var ejected = agreed.indices.count { agreed[$0] == .down && !isDownByProbes(votes[$0], rules.quorum) }
        return votes.indices.map { index in
            let (down, live) = (votes[index].down, votes[index].live)
            let byProbes = own[index] == .downByProbe || isDownByProbes(votes[index], rules.quorum)
            if let word = word(index) { return .ordered(word) }
            if noneIsUsable, !byProbes { return .keptAsLast(down: down, live: live) }
            switch (agreed[index], own[index]) {
            case (.down, _): return .downForAll(down: down, live: live)
            case (.up, .up): return .usable(down: down, live: live)
            case (.up, .downByProbe), (.kept, .downByProbe): return .avoidedHere(down: down, live: live)
            case (.kept, .up), (.kept, .downByTraffic): return .keptByShare(down: down, live: live)
            case (.up, .downByTraffic):
                // This node's own traffic condemns no larger a share for it than all nodes' does for all.
                guard ejected < rules.ejectedMax(of: votes.count) else { return .keptByShare(down: down, live: live) }
                ejected += 1
                return .avoidedHere(down: down, live: live)
            }
        }
    }
}
