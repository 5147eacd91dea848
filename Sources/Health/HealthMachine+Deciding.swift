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
        if findIsolated(&actions) {
            for s in services.indices { decide(s, heard: nil, now, &actions) }
        } else {
            decide(s, heard: heard, now, &actions)
        }
    }

    private mutating func decide(_ s: Int, heard: Int?, _ now: HealthMoment, _ actions: inout [HealthAction]) {
        let rules = ViewRules(quorum: services[s].settings.quorum, maxEjected: services[s].settings.maxEjected)
        let live = countedNodes(services[s])
        for b in heard.map({ $0..<$0 + 1 }) ?? services[s].backends.indices {
            services[s].backends[b].votes = services[s].backends[b].verdicts.count(live: live, check: services[s].check)
        }
        let votes = services[s].backends.map(\.votes)
        let agreed = HealthView.agree(votes, rules)
        var conditions = HealthView.assess(
            votes, own: services[s].backends.map(\.monitor.standing), words: services[s].backends.map(\.word), rules)
        if services[s].isCutOff { conditions = conditions.map(\.withoutTheOthers) }
        for b in services[s].backends.indices {
            let before = services[s].backends[b]
            services[s].backends[b].condition = conditions[b]
            services[s].backends[b].agreed = agreed[b]
            if services[s].backends[b].hasWordsThatAge { sweepSoon(now) }
            let state = Self.state(services[s].backends[b])
            if state != before.state {
                let reached = votes[b].downSince.dropFirst(rules.quorum.needed(live: live.count) - 1).first
                let word = before.word.flatMap { $0.word == .auto ? nil : $0.at }
                services[s].backends[b].state = state
                services[s].backends[b].since = word ?? (agreed[b] == .down ? reached ?? now.wall : now.wall)
            }
            if !before.condition.isSameKind(as: conditions[b]) {
                services[s].backends[b].changes &+= 1
                let evidence = evidence(services[s].backends[b], services[s])
                actions.append(.log(.condition(before.key, conditions[b], evidence: evidence)))
            }
            if before.condition.isAvailable != conditions[b].isAvailable {
                actions.append(
                    .availabilityChanged(before.key, isAvailable: conditions[b].isAvailable, conditions[b]))
            }
            place(s, b, now)
        }
    }

    /// Who judges everything down that somebody else does not: it has lost its own way out, and says nothing of the
    /// backends. Where all judge everything down, they are right. With one backend in all, nobody can tell.
    private mutating func findIsolated(_ actions: inout [HealthAction]) -> Bool {
        var found: Set<NodeID> = []
        if isShared, liveNodes.count > 1, index.count > 1 {
            found = Set(liveNodes.filter { condemnsAll($0) })
            if found.count == liveNodes.count { found = [] }
        }
        guard found != isolated else { return false }
        for node in found.symmetricDifference(isolated).sorted() {
            actions.append(.log(.isolated(node, found.contains(node))))
        }
        isolated = found
        return true
    }

    private func condemnsAll(_ node: NodeID) -> Bool {
        for service in services {
            for backend in service.backends {
                guard backend.verdicts.verdict(of: node, check: service.check)?.state == .down else { return false }
            }
        }
        return true
    }

    private var isShared: Bool { services.contains { $0.isShared } }

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

    /// Who is in the cluster, as far as is known of this service: without the others' verdicts, this node alone.
    func liveHere(_ service: Service) -> [NodeID] { service.isShared ? liveNodes : [node] }

    /// Whose votes count.
    func countedNodes(_ service: Service) -> [NodeID] {
        let live = liveHere(service)
        return isolated.isEmpty ? live : live.filter { !isolated.contains($0) }
    }

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
                if services[s].backends[b].hasWordsThatAge { sweepSoon(now) }
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
