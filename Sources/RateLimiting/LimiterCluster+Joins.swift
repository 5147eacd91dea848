// Several policies over one request, on a cluster: one transaction a policy, all of a server in one write, all servers at
// once. The request passes only if all admit; what one took and another refused is given back where it was taken.
//
// A server that cannot be asked takes only its own policies out: for these the loss rule speaks.

import EventLoop
import Identity
import Primitives

/// A request that several servers decide.
struct ClusterJoin {
    let requester: any LimitRequester
    let token: UInt64
    /// Parts without a verdict.
    var waiting: Int
    var firstPart = -1
    var report = PolicyReport()
}

/// What a request asks of one policy.
struct ClusterPart {
    let join: Int
    let subject: SubjectKey
    let cost: UInt16
    /// The next part of the same request; -1 for none.
    let next: Int
    /// Who has taken something for it, and what.
    var limiter: Limiter?
    var part: Int32 = -1
}

extension LimiterCluster {
    func check(
        all subjects: [SubjectKey], costs: [UInt16], requester: any LimitRequester, token: UInt64
    ) -> WindowMachine.JointDecision {
        let known = context.knownFull(subjects, costs, at: loop.now) { owner(of: $0).isAboutToAsk($0) }
        if known.isRefused { return .decided(known) }
        let flooded = context.localRefusal(subjects, costs, at: loop.now)
        if flooded.isRefused { return .decided(flooded) }
        let index = joins.insert(ClusterJoin(requester: requester, token: token, waiting: subjects.count))
        for (number, subject) in subjects.enumerated() {
            let cost = costs.cost(number)
            let place = parts.insert(
                ClusterPart(join: index, subject: subject, cost: cost, next: joins[index].firstPart))
            joins[index].firstPart = place
            let shard = owner(of: subject)
            switch shard.check(part: subject, cost: cost, token: UInt64(place)) {
            case .pending: break
            case .decided(let answer): note(answer, by: shard)
            }
        }
        guard joins[index].waiting == 0, let join = finish(index) else { return .pending }
        return .decided(join.report)
    }

    /// A server has decided its part.
    func decided(_ answer: WindowMachine.PartAnswer, by shard: Limiter) {
        let index = parts[Int(clamping: answer.token)].join
        note(answer, by: shard)
        guard joins[index].waiting == 0, let join = finish(index) else { return }
        if join.report.lease >= 0 { keeper?.leasesGiven() }
        join.requester.limitsDecided(token: join.token, join.report)
    }

    private func note(_ answer: WindowMachine.PartAnswer, by shard: Limiter) {
        let place = Int(clamping: answer.token)
        parts[place].limiter = shard
        parts[place].part = answer.part
        let policy = parts[place].subject.policy
        joins[parts[place].join].report.add(
            answer.verdict, of: policy, isShadow: context.policies[Int(policy)].mode == .shadow,
            cost: parts[place].cost)
        joins[parts[place].join].waiting -= 1
    }

    /// All have spoken.
    private func finish(_ index: Int) -> ClusterJoin? {
        guard var join = joins.remove(index) else { return nil }
        var place = join.firstPart
        while place >= 0, let part = parts.remove(place) {
            place = part.next
            guard part.part >= 0, let limiter = part.limiter else { continue }
            limiter.finish(part.part, isKept: !join.report.isRefused, lease: &join.report.lease)
            settleMisplaced(of: limiter)
        }
        return join
    }
}
