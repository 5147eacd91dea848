// What follows from all that is known: what a backend is to this node, who probes it next, and which words are old.

import Membership
import Primitives

extension HealthMachine {
    // MARK: What follows

    /// Decides anew about a service. `heard` is the only backend of which a verdict has changed; without it all votes
    /// are counted anew.
    mutating func evaluate(
        _ s: Int, heard: Int? = nil, _ now: HealthMoment, _ actions: inout [HealthAction]
    ) {
        let quorum = services[s].settings.quorum
        let live = countedNodes(services[s])
        for b in heard.map({ $0..<$0 + 1 }) ?? services[s].backends.indices {
            services[s].backends[b].votes = services[s].backends[b].verdicts.count(live: live, check: services[s].check)
        }
        let votes = services[s].backends.map(\.votes)
        let agreed = HealthView.agree(votes, quorum: quorum)
        let conditions = HealthView.assess(votes, own: services[s].backends.map(\.monitor.standing), quorum: quorum)
        for b in services[s].backends.indices {
            let before = services[s].backends[b]
            services[s].backends[b].condition = conditions[b]
            services[s].backends[b].agreed = agreed[b]
            if votes[b].down > 0 { sweepSoon(now) }
            if (agreed[b] == .down) != (before.agreed == .down) {
                let reached = votes[b].downSince.dropFirst(quorum.needed(live: live.count) - 1).first
                services[s].backends[b].since = agreed[b] == .down ? reached ?? now.wall : now.wall
            }
            if before.condition.isAvailable != conditions[b].isAvailable {
                actions.append(
                    .availabilityChanged(before.key, isAvailable: conditions[b].isAvailable, conditions[b]))
            }
            if !before.condition.isSameKind(as: conditions[b]) {
                actions.append(.log(.condition(before.key, conditions[b])))
            }
            place(s, b, now)
        }
    }

    /// Tells a monitor what the cluster has come to, and whose turn is next. Nodes that alone judge the backend down
    /// have no turn: what breaks their path must not look like the backend's failure.
    mutating func place(_ s: Int, _ b: Int, _ now: HealthMoment) {
        let backend = services[s].backends[b]
        let isDownForAll = backend.agreed == .down
        let number = backend.monitor.record.number + 1
        let isShared = isJoined && services[s].isShared
        var rank: Int?
        if !isShared {
            rank = 0
        } else if backend.votes.downByProbe == 0 || isDownForAll {
            rank = ProbeTurn.rank(backend: backend.keyHash, number: number, own: nodeHash, among: liveHashes)
        } else {
            let able = zip(liveNodes, liveHashes).filter { node, _ in
                let verdict = backend.verdicts.verdict(of: node, check: services[s].check)
                return verdict?.state != .down || verdict?.kind != .probe
            }
            if able.isEmpty || able.contains(where: { $0.0 == node }) {
                let hashes = able.isEmpty ? liveHashes : able.map(\.1)
                rank = ProbeTurn.rank(backend: backend.keyHash, number: number, own: nodeHash, among: hashes)
            }
        }
        let ownVote = backend.verdicts.verdict(of: node, check: services[s].check)?.state == .down ? 1 : 0
        services[s].backends[b].monitor.place(
            rank: rank, of: isShared ? liveNodes.count : 1, isDownForAll: isDownForAll, accusers: backend.votes.down,
            othersAccuse: backend.votes.down > ownVote, at: now.monotonic, random: &random)
    }

    /// Whose votes count: without the others' verdicts, this node's alone.
    func countedNodes(_ service: Service) -> [NodeID] { service.isShared ? liveNodes : [node] }

    /// What a backend is to this node now; `nil` for one that is not configured.
    package func condition(of key: BackendKey) -> BackendCondition? {
        index[key].map { services[$0.service].backends[$0.backend].condition }
    }

    // MARK: Words that age

    /// Renews what this node still means, and drops what others no longer say. Goes on as long as there is any of it.
    mutating func sweep(_ now: HealthMoment, _ actions: inout [HealthAction]) {
        nextSweep = .distantFuture
        for s in services.indices {
            var expired = false
            for b in services[s].backends.indices {
                if services[s].backends[b].renewDue <= now.monotonic { renew(s, b, now, &actions) }
                if services[s].backends[b].verdicts.expire(
                    before: now.monotonic - Self.verdictLifetime, butNever: node)
                {
                    expired = true
                }
                if services[s].backends[b].votes.down > 0 { sweepSoon(now) }
            }
            if expired { evaluate(s, now, &actions) }
        }
    }

    private mutating func sweepSoon(_ now: HealthMoment) {
        nextSweep = min(nextSweep, now.monotonic + Self.sweepInterval)
    }

    /// Writes again that the backend is down, with a new number and the old date.
    mutating func renew(_ s: Int, _ b: Int, _ now: HealthMoment, _ actions: inout [HealthAction]) {
        guard var verdict = services[s].backends[b].own, verdict.state == .down else {
            services[s].backends[b].renewDue = .distantFuture
            return
        }
        sequence &+= 1
        verdict.sequence = sequence
        services[s].backends[b].own = verdict
        services[s].backends[b].renewDue = now.monotonic + Self.renewInterval
        _ = services[s].backends[b].verdicts.merge(verdict, of: node, at: now.monotonic)
        publish(s, b, &actions)
    }
}
